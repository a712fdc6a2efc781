//! Ed25519 keys, from raw bytes to what SSH wants and back.

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};
use russh::keys::{PrivateKey, PublicKey};

use crate::error::TunnelError;

/// The Ed25519 public key that belongs to a 32-byte seed.
#[must_use]
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519Keypair::from_seed(seed).public.0
}

/// The private key of a seed as a file the stock `ssh -i` reads.
///
/// # Errors
/// [`TunnelError::Key`] if the key cannot be encoded.
pub fn openssh_private_key(seed: &[u8; 32]) -> Result<String, TunnelError> {
    let pem = private(seed).to_openssh(LineEnding::LF).map_err(TunnelError::Key)?;
    Ok(pem.as_str().to_owned())
}

/// A public key as a line of `authorized_keys`: `ssh-ed25519 AAAA…`.
#[must_use]
pub fn openssh_public_key(key: &[u8; 32]) -> String {
    PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(*key))).to_string()
}

/// A seed as a key pair of the SSH library.
pub(crate) fn private(seed: &[u8; 32]) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(seed))
}

/// The raw bytes of a public key, if it is Ed25519.
pub(crate) fn raw(key: &PublicKey) -> Option<[u8; 32]> {
    key.key_data().ed25519().map(|k| k.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_seed_survives_the_openssh_formats() {
        let seed = [7; 32];
        let pem = openssh_private_key(&seed).unwrap();
        let read = PrivateKey::from_openssh(&pem).unwrap();
        assert_eq!(raw(read.public_key()), Some(public_key(&seed)));

        let line = openssh_public_key(&public_key(&seed));
        assert!(line.starts_with("ssh-ed25519 AAAA"), "{line}");
        let read = PublicKey::from_openssh(&line).unwrap();
        assert_eq!(raw(&read), Some(public_key(&seed)));
    }

    #[test]
    fn the_public_key_is_the_one_of_rfc_8032() {
        // RFC 8032, 7.1, TEST 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b,
            0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let key = public_key(&seed);
        assert_eq!(key[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key[28..], [0xf7, 0x07, 0x51, 0x1a]);
    }
}
