//! A file of records that survives the death of its writer at any byte.
//!
//! `length u32 ‖ first 4 bytes of SHA-256 of the record ‖ record`. A torn or damaged tail is cut off on reading.
//! Bitcoin Core's library writes its databases out now and then and at a clean end; what came after the last such
//! moment would be lost to a kill, and there is no other peer to get it from. So each block is put here first.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash as _, sha256};

use crate::ChainError;

/// Longest record: a block of 4,000,000 bytes and its frame.
const MAX_RECORD: usize = 4_100_000;

/// An append-only file of records.
pub(super) struct Records {
    path: PathBuf,
    file: File,
}

impl Records {
    /// Opens the file, and returns the whole records in it in their order.
    pub(super) fn open(path: &Path) -> Result<(Records, Vec<Vec<u8>>), ChainError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(ChainError::io("cannot open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(ChainError::io("cannot read", path))?;
        let (records, good) = split(&bytes);
        if good < bytes.len() {
            tracing::info!(path = %path.display(), cut = bytes.len() - good, "cut off a torn record");
            file.set_len(good as u64).map_err(ChainError::io("cannot shorten", path))?;
        }
        Ok((Records { path: path.to_owned(), file }, records))
    }

    /// Appends one record. It survives the death of this process from when this returns.
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), ChainError> {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut framed = Vec::with_capacity(record.len() + 8);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&checksum(record));
        framed.extend_from_slice(record);
        self.file.write_all(&framed).map_err(ChainError::io("cannot write", &self.path))
    }

    /// Replaces all records by these, at once: whoever dies in between leaves the old ones.
    pub(super) fn rewrite(&mut self, records: &[Vec<u8>]) -> Result<(), ChainError> {
        let beside = self.path.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ChainError::io("cannot remove", beside)(e)),
            _ => {}
        }
        let (mut new, _) = Records::open(&beside)?;
        records.iter().try_for_each(|record| new.append(record))?;
        std::fs::rename(&beside, &self.path).map_err(ChainError::io("cannot replace", &self.path))?;
        self.file = new.file;
        Ok(())
    }
}

fn checksum(record: &[u8]) -> [u8; 4] {
    let hash = sha256::Hash::hash(record).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The whole records, and how many bytes they take.
fn split(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((sum, rest)) = rest.split_first_chunk::<4>() else { break };
        let Some(record) = rest.get(..length) else { break };
        if length > MAX_RECORD || checksum(record) != *sum {
            break;
        }
        records.push(record.to_vec());
        at += 8 + length;
    }
    (records, at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_torn_tail_is_cut_off_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let (mut records, read) = Records::open(&path).unwrap();
        assert!(read.is_empty());
        records.append(b"one").unwrap();
        records.append(b"two").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..11 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut records, read) = Records::open(&path).unwrap();
            assert_eq!(read, [b"one".to_vec()]);
            records.append(b"three").unwrap();
            drop(records);
            let (_, read) = Records::open(&path).unwrap();
            assert_eq!(read, [b"one".to_vec(), b"three".to_vec()]);
        }
    }

    #[test]
    fn a_damaged_record_ends_the_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let (mut records, _) = Records::open(&path).unwrap();
        records.append(b"one").unwrap();
        records.append(b"two").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Records::open(&path).unwrap().1, [b"one".to_vec()]);
    }

    #[test]
    fn rewriting_leaves_only_the_new_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let (mut records, _) = Records::open(&path).unwrap();
        records.append(b"one").unwrap();
        records.rewrite(&[b"two".to_vec()]).unwrap();
        records.append(b"three").unwrap();
        assert_eq!(Records::open(&path).unwrap().1, [b"two".to_vec(), b"three".to_vec()]);
    }
}
