//! How a record lies in the database: `checksum 8 ‖ sequence 8 (little-endian) ‖ value`.

use sha2::{Digest, Sha256};

/// Bytes before the value.
const HEADER: usize = 16;

/// Wraps a value.
pub(super) fn seal(table: &str, key: &[u8], sequence: u64, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + value.len());
    record.extend_from_slice(&checksum(table, key, sequence, value));
    record.extend_from_slice(&sequence.to_le_bytes());
    record.extend_from_slice(value);
    record
}

/// Unwraps a record into its sequence and value; `None` if it is damaged or belongs elsewhere.
pub(super) fn open<'a>(table: &str, key: &[u8], record: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (sum, rest) = record.split_first_chunk::<8>()?;
    let (sequence, value) = rest.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    (checksum(table, key, sequence, value) == *sum).then_some((sequence, value))
}

/// The first 8 bytes of SHA-256. It guards against accidents; whoever can write the file can also write the checksum.
pub(super) fn checksum(table: &str, key: &[u8], sequence: u64, value: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(b"xennet-record");
    // Lengths keep neighbours from borrowing each other's bytes.
    hash.update((table.len() as u64).to_le_bytes());
    hash.update(table.as_bytes());
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(sequence.to_le_bytes());
    hash.update(value);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hash.finalize()[..8]);
    sum
}
