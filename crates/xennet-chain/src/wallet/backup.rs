//! What brings a wallet back: the sealed seed, which says itself for which network and from which block on it is, and what the wallet has
//! noted beside it.

use std::path::Path;

use bdk_wallet::KeychainKind;
use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use zeroize::Zeroizing;

use super::open;
use super::seed::{self, PLAIN, SEALED, Seed, SeedContent};
use super::vault::{self, Content};
use super::{Kept, Passphrase, Purpose, Wallet, WalletError, notes};

/// The most addresses that a wallet may have handed out before a backup of it. Each is derived anew when it is restored.
const MOST_ADDRESSES: u32 = 1 << 20;

/// What a wallet knows that its words do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// No coin is in a block before this one.
    pub birthday_height: u32,
    /// Addresses for others that were handed out.
    pub received: u32,
    /// Addresses for change that were used.
    pub change: u32,
}

impl Seed {
    /// The seed in the bytes of a sealed file, and the network it is for; `path` is where they come from.
    pub fn unseal(file: &[u8], passphrase: &Passphrase, path: &Path) -> Result<(Network, Seed), WalletError> {
        let opened = vault::open(Content::Seed, file, passphrase, path)?;
        let content: SeedContent =
            serde_json::from_slice(&opened).map_err(|why| WalletError::Damaged { path: path.to_owned(), why: why.to_string() })?;
        Ok((content.network, content.seed(content.network, path)?))
    }

    /// What [`Wallet::secret_for`] gives.
    pub fn secret_for(&self, network: Network, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, WalletError> {
        let master = Xpriv::new_master(network, &*self.words.seed()).map_err(|why| WalletError::Build(why.to_string()))?;
        Ok(Zeroizing::new(open::branch(&master, purpose)?.secret_bytes()))
    }
}

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

    /// What a backup holds beside the sealed seed.
    pub fn noted(&self) -> Result<Noted, WalletError> {
        let inner = self.lock();
        // A wallet that has not seen the chain may have shown an address after the backup.
        let fresh = inner.number(notes::FRESH)? == 1;
        let birthday_height = if fresh { 0 } else { inner.number(notes::BIRTHDAY)? };
        let used = |keychain| inner.bdk.derivation_index(keychain).map_or(0, |last| last.saturating_add(1));
        Ok(Noted { birthday_height, received: used(KeychainKind::External), change: used(KeychainKind::Internal) })
    }

    /// Takes over what another wallet of these words has noted: no address of its is handed out a second time.
    pub fn take_over(&self, noted: &Noted) -> Result<(), WalletError> {
        let mut inner = self.lock();
        for (keychain, count) in [(KeychainKind::External, noted.received), (KeychainKind::Internal, noted.change)] {
            if count > MOST_ADDRESSES {
                return Err(WalletError::OutOfRange {
                    field: "the number of addresses in the backup",
                    value: count.into(),
                    at_most: MOST_ADDRESSES.into(),
                });
            }
            if let Some(last) = count.checked_sub(1) {
                inner.bdk.reveal_addresses_to(keychain, last).for_each(drop);
            }
        }
        inner.set_number(notes::BIRTHDAY, noted.birthday_height)?;
        inner.set_number(notes::FRESH, 0)?;
        inner.persist()
    }
}
