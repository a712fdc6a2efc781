//! The bytes of a backup.
//!
//! ```text
//! 0    "XNBACKUP"
//! 8    version 1 u8
//! 9    length of the whole file u64 ‖ length of the sealed seed u32      little-endian
//! 21   the sealed seed, as it is in the data directory: it opens with the wallet's passphrase
//!      nonce 24 ‖ XChaCha20-Poly1305 of the content under a key that the seed leads to, everything before authenticated too; ends with
//!      the tag, 16
//! end  SHA-256 of everything before, 32
//! ```
//! Magic, version and the length of the file stand where they are in every version. The content is a row of records:
//!
//! ```text
//! kind u8 ‖ length of the key u32 ‖ length of the value u32 ‖ key ‖ value
//! kind 0 to 4: a record of that table    5: an entry of a lease's ledger    6: a file, by name
//! kind 7: what the wallet has noted: birthday, addresses, addresses for change, u32 each
//! ```
//! So making a backup needs no passphrase while the daemon has the wallet open, and restoring one does.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use xennet_chain::{Noted, Passphrase, Purpose, Seed};
use xennet_task::LeaseId;
use zeroize::Zeroizing;

use super::{BackupError, Content, FILES};
use crate::store::Table;

const MAGIC: &[u8; 8] = b"XNBACKUP";
const VERSION: u8 = 1;
const HEADER: usize = 21;
const NONCE: usize = 24;
const TAG: usize = 16;
const SUM: usize = 32;

const LEDGER: u8 = 5;
const FILE: u8 = 6;
const NOTED: u8 = 7;

/// Whether these are the first bytes of a backup of a whole data directory.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Encrypts. `key` is the wallet's secret for backups.
pub(super) fn seal(sealed_seed: &[u8], key: &[u8; 32], content: &Content) -> Result<Vec<u8>, String> {
    let plain = Zeroizing::new(encode(content)?);
    let length = HEADER + sealed_seed.len() + NONCE + plain.len() + TAG + SUM;
    let mut file = Vec::with_capacity(length);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    file.extend_from_slice(&(length as u64).to_le_bytes());
    file.extend_from_slice(&u32::try_from(sealed_seed.len()).map_err(|why| why.to_string())?.to_le_bytes());
    file.extend_from_slice(sealed_seed);
    let mut nonce = [0; NONCE];
    OsRng.fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.into());
    let body = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: &plain, aad: &file }).map_err(|why| why.to_string())?;
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&body);
    let sum = Sha256::digest(&file);
    file.extend_from_slice(&sum);
    Ok(file)
}

/// Decrypts; gives the seed too. `path` is where the bytes are from, for the error.
pub(super) fn open(file: &[u8], passphrase: &Passphrase, path: &Path) -> Result<(Seed, Content), BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: path.to_owned(), why };
    let seed_length = check(file, path)?;
    let (aad, rest) = file.split_at(HEADER + seed_length);
    let (network, seed) = Seed::unseal(&aad[HEADER..], passphrase, path)?;
    let key = seed.secret_for(network, Purpose::Backups)?;
    let (nonce, body) = rest[..rest.len() - SUM].split_at(NONCE);
    let cipher = XChaCha20Poly1305::new((&*key).into());
    let plain = cipher
        .decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad })
        .map(Zeroizing::new)
        .map_err(|_| damaged("its parts do not belong together".into()))?;
    let mut content = Content::new(network);
    decode(&plain, &mut content).ok_or_else(|| damaged("a record in it is cut short or of an unknown kind".into()))?;
    Ok((seed, content))
}

/// Everything that can be told without the passphrase; gives the length of the sealed seed.
fn check(file: &[u8], path: &Path) -> Result<usize, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: path.to_owned(), why };
    if !begins(file) {
        return Err(damaged("it does not begin with XNBACKUP".into()));
    }
    let number = |at: usize| file.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_le_bytes(*bytes));
    let said = number(9).ok_or_else(|| damaged(format!("it has {} bytes only", file.len())))?;
    if said != file.len() as u64 {
        return Err(damaged(format!("it has {} bytes, and {said} were written", file.len())));
    }
    let body = file.len().checked_sub(SUM).ok_or_else(|| damaged(format!("it has {} bytes only", file.len())))?;
    if Sha256::digest(&file[..body]).as_slice() != &file[body..] {
        return Err(damaged("its checksum is wrong".into()));
    }
    if file[8] != VERSION {
        return Err(BackupError::Newer { path: path.to_owned(), found: file[8], known: VERSION });
    }
    let seed_length = file.get(17..).and_then(|rest| rest.first_chunk::<4>()).map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
    let seed_length = usize::try_from(seed_length).unwrap_or(usize::MAX);
    let least = HEADER.saturating_add(seed_length).saturating_add(NONCE + TAG + SUM);
    if least > file.len() {
        return Err(damaged(format!("it has {} bytes, and its parts need {least}", file.len())));
    }
    Ok(seed_length)
}

fn encode(content: &Content) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut put = |kind: u8, key: &[u8], value: &[u8]| -> Result<(), String> {
        out.push(kind);
        for part in [key, value] {
            out.extend_from_slice(&u32::try_from(part.len()).map_err(|why| why.to_string())?.to_le_bytes());
        }
        out.extend_from_slice(key);
        out.extend_from_slice(value);
        Ok(())
    };
    let Noted { birthday_height, received, change } = content.noted;
    put(NOTED, b"", &[birthday_height, received, change].map(u32::to_le_bytes).concat())?;
    for (name, bytes) in &content.files {
        put(FILE, name.as_bytes(), bytes)?;
    }
    for (table, key, value) in &content.snapshot.records {
        let kind = Table::ALL.iter().zip(0..).find(|(other, _)| *other == table).map_or(u8::MAX, |(_, kind)| kind);
        put(kind, key, value)?;
    }
    for (lease, entry) in &content.snapshot.ledgers {
        put(LEDGER, &lease.0, entry)?;
    }
    Ok(out)
}

/// Takes no more memory than the bytes have. `None` if they are no row of records.
fn decode(mut bytes: &[u8], content: &mut Content) -> Option<()> {
    while let Some((kind, rest)) = bytes.split_first() {
        let (key_length, rest) = rest.split_first_chunk::<4>()?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key_length)).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_length)).ok()?)?;
        bytes = rest;
        match *kind {
            LEDGER => content.snapshot.ledgers.push((LeaseId(key.try_into().ok()?), value.to_vec())),
            FILE => {
                let name = FILES.into_iter().find(|name| name.as_bytes() == key)?;
                content.files.push((name, Zeroizing::new(value.to_vec())));
            }
            NOTED => {
                let number = |at: usize| value.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
                content.noted = Noted { birthday_height: number(0)?, received: number(4)?, change: number(8)? };
            }
            table => {
                let table = *Table::ALL.get(usize::from(table))?;
                content.snapshot.records.push((table, key.to_vec(), value.to_vec()));
            }
        }
    }
    Some(())
}
