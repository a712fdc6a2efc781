//! The secrets of a data directory: one file each under `keys/`, mode 0600, made once.
//!
//! ```text
//! keys/publisher.key   secp256k1 secret of the publisher's identity
//! keys/node.key        secp256k1 secret of the node's identity
//! keys/overlay.key     seed of the overlay's peer key
//! keys/ssh-host.key    seed of the publisher's SSH host key, which its tasks commit to
//! keys/ssh-guest.key   seed of the key with which the publisher logs in to guests
//! keys/derive.key      root of all secrets that belong to one lease
//! ```
//! Each file is 64 hexadecimal digits and a newline. A file appears whole or not at all, and is never written again: losing
//! the identity's key would lose the work that went into the identity.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::RngCore;
use rand::rngs::OsRng;
use secp256k1::{Keypair, SECP256K1, SecretKey};
use sha2::{Digest, Sha256};
use thiserror::Error;
use xennet_identity::Role;

/// What went wrong with a key file.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("cannot {action} the key file {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the key file {path} has mode {mode:o}, so others may read it: run `chmod 600 {path}`")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key.
    #[error("the key file {path} does not hold a key (64 hexadecimal digits): put back a copy of it")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// The secrets of a data directory.
#[derive(Clone)]
pub struct Keys {
    publisher: Keypair,
    node: Keypair,
    overlay_seed: [u8; 32],
    ssh_host_seed: [u8; 32],
    ssh_guest_seed: [u8; 32],
    derive_root: [u8; 32],
    dir: PathBuf,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets do not belong in logs.
        f.debug_struct("Keys").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the secrets of a data directory, making those that are missing.
    pub fn open(data_dir: &Path) -> Result<Keys, KeyError> {
        let dir = data_dir.join("keys");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| failed("create the directory of", &dir, e))?;
        Ok(Keys {
            publisher: keypair(&dir.join("publisher.key"))?,
            node: keypair(&dir.join("node.key"))?,
            overlay_seed: secret(&dir.join("overlay.key"))?,
            ssh_host_seed: secret(&dir.join("ssh-host.key"))?,
            ssh_guest_seed: secret(&dir.join("ssh-guest.key"))?,
            derive_root: secret(&dir.join("derive.key"))?,
            dir,
        })
    }

    /// The key pair of the identity of `role`.
    pub fn identity(&self, role: Role) -> &Keypair {
        match role {
            Role::Publisher => &self.publisher,
            Role::Node => &self.node,
        }
    }

    /// The seed of the overlay's peer key.
    pub fn overlay_seed(&self) -> [u8; 32] {
        self.overlay_seed
    }

    /// The seed of the publisher's SSH host key.
    pub fn ssh_host_seed(&self) -> [u8; 32] {
        self.ssh_host_seed
    }

    /// The seed of the key with which the publisher, and `xennet ssh`, log in to guests.
    pub fn ssh_guest_seed(&self) -> [u8; 32] {
        self.ssh_guest_seed
    }

    /// A secret for one purpose and one context, e.g. `("node ssh", lease id)`. The same each time, so that it need not be
    /// stored; another for each purpose and each context, so that no two channels or logins share a key.
    pub fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(Sha256::digest(b"xennet-derive"));
        hash.update(self.derive_root);
        hash.update(Sha256::digest(purpose.as_bytes()));
        hash.update(context);
        hash.finalize().into()
    }

    /// A derived secret as a secp256k1 key pair.
    pub fn derive_keypair(&self, purpose: &str, context: &[u8]) -> Keypair {
        // One hash in 2^128 is not a valid key; the next one then is.
        let mut bytes = self.derive(purpose, context);
        loop {
            match Keypair::from_seckey_slice(SECP256K1, &bytes) {
                Ok(pair) => return pair,
                Err(_) => bytes = Sha256::digest(bytes).into(),
            }
        }
    }
}

fn keypair(path: &Path) -> Result<Keypair, KeyError> {
    let secret = SecretKey::from_slice(&secret(path)?).map_err(|_| KeyError::NotAKey { path: path.to_path_buf() })?;
    Ok(Keypair::from_secret_key(SECP256K1, &secret))
}

/// Reads a secret, or makes it.
fn secret(path: &Path) -> Result<[u8; 32], KeyError> {
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|e| failed("create", path, e))?;
            let file = File::open(path).map_err(|e| failed("open", path, e))?;
            read(path, file)
        }
        Err(e) => Err(failed("open", path, e)),
    }
}

fn read(path: &Path, file: File) -> Result<[u8; 32], KeyError> {
    let mode = file.metadata().map_err(|e| failed("inspect", path, e))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path: path.to_path_buf(), mode });
    }
    let not_a_key = || KeyError::NotAKey { path: path.to_path_buf() };
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => not_a_key(),
        _ => failed("read", path, e),
    })?;
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut secret).map_err(|_| not_a_key())?;
    Ok(secret)
}

/// Writes a new secret under another name and links it into place, which fails if somebody else was first: that one counts.
fn make(path: &Path) -> io::Result<()> {
    let mut secret = [0; 32];
    // Any 32 bytes are a seed, but zero and the last few below 2^256 are no secp256k1 key; draw again for those.
    while SecretKey::from_slice(&secret).is_err() {
        OsRng.fill_bytes(&mut secret);
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", hex::encode(secret))?;
    file.sync_all()?;
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { action, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn keys_are_made_once_and_read_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keys::open(dir.path()).unwrap();
        let read = Keys::open(dir.path()).unwrap();
        assert_eq!(made.identity(Role::Node), read.identity(Role::Node));
        assert_eq!(made.overlay_seed(), read.overlay_seed());
        assert_eq!(made.derive("node ssh", b"lease"), read.derive("node ssh", b"lease"));
        assert_ne!(made.identity(Role::Node), made.identity(Role::Publisher));
    }

    #[test]
    fn only_their_owner_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        for entry in fs::read_dir(dir.path().join("keys")).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(entry.path().extension().unwrap(), "key");
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        let path = dir.path().join("keys/node.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let message = Keys::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("mode 644"), "{message}");
        assert!(message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_damaged_key_is_named_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        let path = dir.path().join("keys/publisher.key");
        for text in ["", "beef\n", "zz", &"00".repeat(32)] {
            fs::write(&path, text).unwrap();
            let message = Keys::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains("publisher.key"), "{message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn purposes_and_contexts_never_share_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        assert_ne!(keys.derive("a", b"bc"), keys.derive("ab", b"c"));
        assert_ne!(keys.derive("a", b"b"), keys.derive("a", b"c"));
        assert_eq!(keys.derive_keypair("a", b"b"), keys.derive_keypair("a", b"b"));
    }
}
