//! One file that brings a wallet back: the sealed seed, which says itself for which network and from which block on it is.

use std::path::Path;

use super::seed::{self, PLAIN, SEALED};
use super::vault::{self, Content};
use super::{Kept, Passphrase, Wallet, WalletError};

impl Wallet {
    /// The bytes of a backup: the sealed file as it is, so that it is worth no more to a thief than the wallet's directory. A wallet
    /// without a passphrase has no such file; its words are the backup.
    pub fn backup(dir: &Path) -> Result<Vec<u8>, WalletError> {
        match seed::kept(dir) {
            Kept::Encrypted => {
                let path = dir.join(SEALED);
                let file = seed::read_file(&path)?.ok_or_else(|| WalletError::NoWallet { dir: dir.to_owned() })?;
                vault::intact(Content::Seed, &file, &path)?;
                Ok(file.to_vec())
            }
            Kept::Plain => Err(WalletError::Seed {
                path: dir.join(PLAIN),
                why:
                    "it is not encrypted, and a copy of bare words is whoever's finds it: encrypt the wallet first, or write the words down"
                        .to_owned(),
            }),
            Kept::Nothing => Err(WalletError::NoWallet { dir: dir.to_owned() }),
        }
    }

    /// Puts a backup into a directory that has no wallet, if the passphrase opens it. The next synchronisation looks for its coins from
    /// the birthday on.
    pub fn restore_backup(dir: &Path, network: bitcoin::Network, backup: &Path, passphrase: &Passphrase) -> Result<Wallet, WalletError> {
        let bytes = seed::read_any(backup)?;
        let seed = seed::open_sealed(&bytes, network, passphrase, backup)?;
        Wallet::create(dir, network, &seed, super::Protection::Passphrase(passphrase))
    }
}
