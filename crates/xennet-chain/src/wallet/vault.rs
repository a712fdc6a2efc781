//! A file encrypted with a passphrase: the seed.
//!
//! ```text
//! 0   "XNSEALED"
//! 8   version 1 u8 ‖ content u8 (1 seed)
//! 10  Argon2id: memory KiB u32 ‖ passes u32 ‖ lanes u32      little-endian
//! 22  salt 16
//! 38  nonce 24
//! 62  XChaCha20-Poly1305 of the content, bytes 0 to 62 authenticated too; ends with the tag, 16
//! end SHA-256 of everything before, 32
//! ```
//! The checksum tells a damaged file from a wrong passphrase; it protects nothing else, the tag does.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::key::rand::{RngCore as _, rngs::OsRng};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{Passphrase, WalletError};

const MAGIC: &[u8; 8] = b"XNSEALED";
const VERSION: u8 = 1;
const SALT_AT: usize = 22;
const NONCE_AT: usize = 38;
const HEADER: usize = 62;
const TAG: usize = 16;
const SUM: usize = 32;

/// What a sealed file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Seed = 1,
}

/// What it costs to try one passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// RFC 9106's second recommended setting.
    pub(super) const USUAL: Cost = Cost { memory_kib: 64 * 1_024, passes: 3, lanes: 4 };
    /// For tests that open many files.
    #[cfg(test)]
    pub(super) const LEAST: Cost = Cost { memory_kib: MEMORY_KIB.0, passes: 1, lanes: 1 };

    fn key(self, passphrase: &Passphrase, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|why| why.to_string())?;
        let mut key = Zeroizing::new([0; 32]);
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        hash.hash_password_into(passphrase.bytes(), salt, &mut *key).map_err(|why| why.to_string())?;
        Ok(key)
    }
}

/// Bounds of what a file may ask of the machine that opens it.
const MEMORY_KIB: (u32, u32) = (8 * 1_024, 1_024 * 1_024);
const PASSES: (u32, u32) = (1, 16);
const LANES: (u32, u32) = (1, 16);

/// Encrypts.
pub(super) fn seal(content: Content, plain: &[u8], passphrase: &Passphrase, cost: Cost) -> Result<Vec<u8>, WalletError> {
    let failed = |why: String| WalletError::Build(format!("it could not be encrypted: {why}"));
    let mut file = Vec::with_capacity(HEADER + plain.len() + TAG + SUM);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[VERSION, content as u8]);
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    let mut random = [0; HEADER - SALT_AT];
    OsRng.fill_bytes(&mut random);
    file.extend_from_slice(&random);
    let key = cost.key(passphrase, &file[SALT_AT..NONCE_AT]).map_err(failed)?;
    let cipher = XChaCha20Poly1305::new((&*key).into());
    let sealed = cipher.encrypt(XNonce::from_slice(&file[NONCE_AT..HEADER]), Payload { msg: plain, aad: &file[..HEADER] });
    file.extend_from_slice(&sealed.map_err(|why| failed(why.to_string()))?);
    let sum = sha256::Hash::hash(&file);
    file.extend_from_slice(sum.as_byte_array());
    Ok(file)
}

/// Decrypts. `path` is where the bytes are from, for the error.
pub(super) fn open(content: Content, file: &[u8], passphrase: &Passphrase, path: &Path) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let cost = check(content, file).map_err(|why| WalletError::Damaged { path: path.to_owned(), why })?;
    let (header, rest) = file.split_at(HEADER);
    let sealed = &rest[..rest.len() - SUM];
    let damaged = |why: String| WalletError::Damaged { path: path.to_owned(), why };
    let key = cost.key(passphrase, &header[SALT_AT..NONCE_AT]).map_err(damaged)?;
    let cipher = XChaCha20Poly1305::new((&*key).into());
    cipher
        .decrypt(XNonce::from_slice(&header[NONCE_AT..]), Payload { msg: sealed, aad: header })
        .map(Zeroizing::new)
        .map_err(|_| WalletError::WrongPassphrase { path: path.to_owned() })
}

/// Whether a file is whole and could be opened with its passphrase.
pub(super) fn intact(content: Content, file: &[u8], path: &Path) -> Result<(), WalletError> {
    check(content, file).map(|_| ()).map_err(|why| WalletError::Damaged { path: path.to_owned(), why })
}

/// Everything that can be told without the passphrase, and before any of the machine's memory is taken.
fn check(content: Content, file: &[u8]) -> Result<Cost, String> {
    if file.len() < HEADER + TAG + SUM {
        return Err(format!("it has {} bytes, and the shortest such file has {}", file.len(), HEADER + TAG + SUM));
    }
    if !file.starts_with(MAGIC) {
        return Err("it does not begin with XNSEALED, so it is no file of this wallet".to_owned());
    }
    let (body, sum) = file.split_at(file.len() - SUM);
    if sha256::Hash::hash(body).as_byte_array() != sum {
        return Err("its checksum is wrong".to_owned());
    }
    if file[8] != VERSION {
        return Err(format!("it is of version {}, and this program knows version {VERSION}: use a newer program", file[8]));
    }
    if file[9] != content as u8 {
        return Err(format!("its content is of kind {}, and kind {} was expected", file[9], content as u8));
    }
    let number = |at: usize| file[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let cost = Cost { memory_kib: number(10), passes: number(14), lanes: number(18) };
    for (what, value, (least, most)) in
        [("KiB of memory", cost.memory_kib, MEMORY_KIB), ("passes", cost.passes, PASSES), ("lanes", cost.lanes, LANES)]
    {
        if !(least..=most).contains(&value) {
            return Err(format!("opening it would take {value} {what}, and {least} to {most} are sensible"));
        }
    }
    Ok(cost)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const PLAIN: &[u8] = b"twelve words that are worth something";

    fn passphrase() -> Passphrase {
        Passphrase::new("correct horse battery staple").unwrap()
    }

    fn read(file: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, WalletError> {
        open(Content::Seed, file, passphrase, Path::new("seed.sealed"))
    }

    fn summed(mut body: Vec<u8>) -> Vec<u8> {
        let sum = sha256::Hash::hash(&body);
        body.extend_from_slice(sum.as_byte_array());
        body
    }

    #[test]
    fn what_was_sealed_comes_back_with_the_passphrase_only() {
        let file = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        assert_eq!(read(&file, &passphrase()).unwrap().as_slice(), PLAIN);
        assert!(!file.windows(6).any(|window| window == &PLAIN[..6]));
        let wrong = Passphrase::new("correct horse battery stable").unwrap();
        assert!(matches!(read(&file, &wrong), Err(WalletError::WrongPassphrase { .. })));
        let again = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        assert_ne!(file[SALT_AT..], again[SALT_AT..], "salt and nonce are new each time");
    }

    #[test]
    fn every_damaged_byte_is_found_and_called_damage() {
        let file = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        for at in 0..file.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                assert!(matches!(read(&damaged, &passphrase()), Err(WalletError::Damaged { .. })), "byte {at} ^ {flip}");
            }
        }
        for length in 0..file.len() {
            assert!(matches!(read(&file[..length], &passphrase()), Err(WalletError::Damaged { .. })), "{length} bytes of it");
        }
    }

    #[test]
    fn a_byte_changed_on_purpose_with_a_fresh_checksum_never_opens() {
        let file = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        let body = &file[..file.len() - SUM];
        for at in 0..body.len() {
            let mut forged = body.to_vec();
            forged[at] ^= 1;
            let error = read(&summed(forged), &passphrase()).unwrap_err();
            assert!(matches!(error, WalletError::Damaged { .. } | WalletError::WrongPassphrase { .. }), "byte {at}: {error}");
        }
    }

    #[test]
    fn a_file_cannot_ask_for_more_memory_or_time_than_is_sensible_nor_be_weak() {
        let file = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        for (at, number) in [(10, 0), (10, 8), (10, u32::MAX), (14, 0), (14, 17), (14, u32::MAX), (18, 0), (18, u32::MAX)] {
            let mut forged = file[..file.len() - SUM].to_vec();
            forged[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
            let message = read(&summed(forged), &passphrase()).unwrap_err().to_string();
            assert!(message.contains(&number.to_string()) && message.contains("sensible"), "{message}");
        }
    }

    #[test]
    fn other_versions_and_other_contents_are_named() {
        let file = seal(Content::Seed, PLAIN, &passphrase(), Cost::LEAST).unwrap();
        let mut other = file[..file.len() - SUM].to_vec();
        other[9] = 9;
        let message = read(&summed(other), &passphrase()).unwrap_err().to_string();
        assert!(message.contains("kind 9, and kind 1 was expected"), "{message}");
        let mut newer = file[..file.len() - SUM].to_vec();
        newer[8] = 2;
        let message = read(&summed(newer), &passphrase()).unwrap_err().to_string();
        assert!(message.contains("version 2") && message.contains("newer program"), "{message}");
    }
}
