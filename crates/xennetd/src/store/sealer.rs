//! How records that hold secrets of channels are encrypted: with a key that only the wallet's words lead to.
//!
//! ```text
//! "XNS1" ‖ nonce 24, random ‖ XChaCha20-Poly1305 of the value; ends with the tag, 16
//! ```
//! The table's name and the record's key are authenticated too, so that no record can stand in another's place.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;
use rand::rngs::OsRng;

use super::StoreError;

/// JSON never begins like this.
const MAGIC: &[u8; 4] = b"XNS1";
const NONCE: usize = 24;

/// Encrypts and decrypts.
pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(not shown)")
    }
}

/// Whether a value is encrypted.
pub(super) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(MAGIC)
}

impl Sealer {
    pub(super) fn new(key: &[u8; 32]) -> Sealer {
        Sealer { cipher: XChaCha20Poly1305::new(key.into()) }
    }

    pub(super) fn seal(&self, table: &str, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut sealed = MAGIC.to_vec();
        let mut nonce = [0; NONCE];
        OsRng.fill_bytes(&mut nonce);
        sealed.extend_from_slice(&nonce);
        let content = self.cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: value, aad: &place(table, key) });
        sealed.extend(content.map_err(|_| StoreError::Unsealed { table: table.to_owned() })?);
        Ok(sealed)
    }

    /// The value; `None` if it was sealed with another key, or for another place.
    pub(super) fn open(&self, table: &str, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, content) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<NONCE>()?;
        self.cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: content, aad: &place(table, key) }).ok()
    }
}

fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], key].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// What docs/adr/0005 says it costs; `--nocapture` shows it.
    #[test]
    fn a_record_of_a_lease_is_sealed_and_opened_in_a_blink() {
        let (sealer, record) = (Sealer::new(&[7; 32]), vec![b'x'; 12_000]);
        let begun = std::time::Instant::now();
        for key in 0..1_000_u32 {
            let sealed = sealer.seal("leases", &key.to_be_bytes(), &record).unwrap();
            assert_eq!(sealed.len(), record.len() + 44);
            assert_eq!(sealer.open("leases", &key.to_be_bytes(), &sealed).unwrap(), record);
        }
        println!("a record of {} bytes: {} µs to seal and open", record.len(), begun.elapsed().as_micros() / 1_000);
    }

    #[test]
    fn only_the_same_key_opens_a_record_and_only_in_its_place() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal("leases", b"a", b"secret of a channel").unwrap();
        assert!(is_sealed(&sealed) && !sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(sealer.open("leases", b"a", &sealed).unwrap(), b"secret of a channel");
        assert_eq!(sealer.open("leases", b"b", &sealed), None);
        assert_eq!(sealer.open("tasks", b"a", &sealed), None);
        assert_eq!(Sealer::new(&[8; 32]).open("leases", b"a", &sealed), None);
        assert_ne!(sealer.seal("leases", b"a", b"secret of a channel").unwrap(), sealed, "each time another nonce");
        for length in 0..sealed.len() {
            assert_eq!(sealer.open("leases", b"a", &sealed[..length]), None);
        }
    }
}
