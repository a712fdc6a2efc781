//! A wallet of P2WPKH coins on `bdk_wallet`: one seed of words, encrypted or not, its state in SQLite, its view of the
//! chain pulled from a [`Chain`](crate::Chain).
//!
//! A transaction that was built is not yet on the chain. Until it is told of ([`Wallet::sent`]), or seen by
//! [`Wallet::sync`], or given up ([`Wallet::release`]), the coins it spends are reserved, so that another one built
//! meanwhile takes others. Reservations live as long as the process: a daemon that has kept an unsent transaction calls
//! [`Wallet::reserve`] for it after a restart.

mod backup;
mod birthday;
mod coins;
mod error;
mod history;
mod notes;
mod open;
mod passphrase;
mod pay;
mod prepare;
mod seed;
mod spend;
mod sweep;
mod sync;
mod vault;
mod words;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdk_wallet::rusqlite::Connection;
use bdk_wallet::{KeychainKind, PersistedWallet};
use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use serde::Serialize;
use zeroize::Zeroizing;

pub use self::backup::Noted;
pub use self::coins::{Coin, CoinState};
pub use self::error::WalletError;
pub use self::history::{HistoryEntry, Kind};
use self::open::Access;
pub use self::passphrase::{Passphrase, PassphraseError};
pub use self::pay::{Bump, Sum};
pub use self::prepare::PreparedAnnouncement;
pub use self::seed::{Birthday, Kept, Protection, Seed};
pub use self::sweep::Sweep;
pub use self::words::{Words, WordsError};

/// What a wallet has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// In the best chain, satoshi.
    pub confirmed_sat: u64,
    /// Unconfirmed, satoshi: change of own transactions, payments of others, coinbases not yet ripe.
    pub pending_sat: u64,
    /// The part of both that transactions spend which are built and not yet sent.
    pub reserved_sat: u64,
}

/// What a secret of the wallet is for, beside its coins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypts what the daemon keeps of its channels.
    Channels = 0,
    /// Encrypts backups of the data directory.
    Backups = 1,
}

/// A wallet. Cheap to clone; all clones are one wallet.
#[derive(Clone)]
pub struct Wallet {
    inner: Arc<Mutex<Inner>>,
    /// One synchronisation at a time.
    syncing: Arc<tokio::sync::Mutex<()>>,
    network: Network,
}

struct Inner {
    bdk: PersistedWallet<Connection>,
    database: Connection,
    master: Xpriv,
    seed: Seed,
    dir: PathBuf,
    /// Coins spent by what is built and not yet sent.
    reservations: HashMap<Ticket, Vec<OutPoint>>,
    tickets: u64,
    /// Last time stamp given to an unconfirmed transaction. They must grow for the newest view to win.
    clock: u64,
    _lock: File,
}

/// Whose reservation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ticket {
    /// Not finished, so that it has no txid yet.
    Draft(u64),
    Built(Txid),
}

impl Wallet {
    /// How the wallet in `dir` keeps its seed.
    pub fn kept(dir: &Path) -> Kept {
        seed::kept(dir)
    }

    /// Opens the wallet in `dir`, or makes one, without a passphrase: `seed.txt` with 12 words, readable by its owner only, and
    /// `wallet.sqlite`. The words are all that is needed to get the money back.
    pub fn open(dir: &Path, network: Network) -> Result<Wallet, WalletError> {
        Wallet::of(open::open(dir, network, Access::Plain)?, network)
    }

    /// Opens the encrypted wallet in `dir`.
    pub fn unlock(dir: &Path, network: Network, passphrase: &Passphrase) -> Result<Wallet, WalletError> {
        Wallet::of(open::open(dir, network, Access::With(passphrase))?, network)
    }

    /// Makes a wallet of this seed in `dir`, where none may be.
    pub fn create(dir: &Path, network: Network, seed: &Seed, protection: Protection<'_>) -> Result<Wallet, WalletError> {
        Wallet::of(open::open(dir, network, Access::New(seed, protection))?, network)
    }

    fn of(inner: Inner, network: Network) -> Result<Wallet, WalletError> {
        Ok(Wallet { inner: Arc::new(Mutex::new(inner)), syncing: Arc::new(tokio::sync::Mutex::new(())), network })
    }

    /// Encrypts the seed with `new`, or with another passphrase than so far: then `current` is that one. The bare words are
    /// removed when the encrypted file is on the disk and was read back.
    pub fn encrypt(&self, current: Option<&Passphrase>, new: &Passphrase) -> Result<(), WalletError> {
        new.check_new()?;
        let inner = self.lock();
        if seed::kept(&inner.dir) == Kept::Encrypted {
            let current = current.ok_or_else(|| WalletError::NeedsPassphrase { dir: inner.dir.clone() })?;
            seed::read_sealed(&inner.dir, self.network, current)?;
        }
        let birthday_height = inner.number(notes::BIRTHDAY)?;
        let seed = Seed { words: inner.seed.words.clone(), birthday: Birthday::Height(birthday_height) };
        seed::write_sealed(&inner.dir, self.network, &seed, new, vault::Cost::USUAL)?;
        seed::remove_plain(&inner.dir)
    }

    /// The words that are the wallet.
    pub fn words(&self) -> Words {
        self.lock().seed.words.clone()
    }

    /// A secret for one purpose. Whoever has the words can make it again. It comes from a hardened branch beside the account, so that
    /// neither a key of the account nor its public descriptors lead to it.
    pub fn secret_for(&self, purpose: Purpose) -> Result<Zeroizing<[u8; 32]>, WalletError> {
        Ok(Zeroizing::new(open::branch(&self.lock().master, purpose)?.secret_bytes()))
    }

    /// The public descriptors (BIP84) of received money and of change, with their checksums, for watching with other programs.
    pub fn descriptors(&self) -> [String; 2] {
        let inner = self.lock();
        [KeychainKind::External, KeychainKind::Internal].map(|keychain| inner.bdk.public_descriptor(keychain).to_string())
    }

    /// The network the wallet is for.
    pub fn network(&self) -> Network {
        self.network
    }

    /// What the wallet has, as of the last synchronisation.
    pub fn balance(&self) -> Balance {
        let inner = self.lock();
        let balance = inner.bdk.balance();
        let reserved = inner.reserved();
        let reserved_sat =
            inner.bdk.list_unspent().filter(|coin| reserved.contains(&coin.outpoint)).map(|coin| coin.txout.value.to_sat()).sum();
        Balance {
            confirmed_sat: balance.confirmed.to_sat(),
            pending_sat: (balance.trusted_pending + balance.untrusted_pending + balance.immature).to_sat(),
            reserved_sat,
        }
    }

    /// An address that has not been paid yet.
    pub fn address(&self) -> Result<Address, WalletError> {
        let mut inner = self.lock();
        inner.set_number(notes::FRESH, 0)?;
        let address = inner.bdk.next_unused_address(KeychainKind::External).address;
        inner.persist()?;
        Ok(address)
    }

    /// A key of the wallet that was never used. What is paid to its P2WPKH address comes to the wallet by itself, so the change of a
    /// channel with such a key needs no transaction of its own, and the twelve words bring back all that such keys hold.
    pub fn fresh_key(&self) -> Result<SecretKey, WalletError> {
        let mut inner = self.lock();
        inner.set_number(notes::FRESH, 0)?;
        let index = inner.bdk.reveal_next_address(KeychainKind::External).index;
        let key = open::key(&inner.master, self.network, index)?;
        inner.persist()?;
        Ok(key)
    }

    /// The transaction was accepted by the chain: its change can be spent from now on.
    pub fn sent(&self, tx: &Transaction) -> Result<(), WalletError> {
        let mut inner = self.lock();
        let now = inner.tick();
        inner.bdk.apply_unconfirmed_txs([(tx.clone(), now)]);
        inner.reservations.remove(&Ticket::Built(tx.compute_txid()));
        inner.persist()
    }

    /// Keeps the coins of a transaction that is built and not sent from being taken for another, as after a restart.
    pub fn reserve(&self, tx: &Transaction) {
        let coins = tx.input.iter().map(|input| input.previous_output).collect();
        self.lock().reservations.insert(Ticket::Built(tx.compute_txid()), coins);
    }

    /// Gives up a transaction that was never sent: its coins are free again.
    pub fn release(&self, txid: &Txid) {
        self.lock().reservations.remove(&Ticket::Built(*txid));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn reserved(&self) -> HashSet<OutPoint> {
        self.reservations.values().flatten().copied().collect()
    }

    fn persist(&mut self) -> Result<(), WalletError> {
        self.bdk.persist(&mut self.database).map(|_| ()).map_err(|why| WalletError::database(&self.dir, why))
    }

    fn number(&self, name: &str) -> Result<u32, WalletError> {
        notes::number(&self.database, name).map_err(|why| WalletError::database(&self.dir, why))
    }

    fn set_number(&self, name: &str, value: u32) -> Result<(), WalletError> {
        notes::set_number(&self.database, name, value).map_err(|why| WalletError::database(&self.dir, why))
    }

    /// A time stamp later than all before.
    fn tick(&mut self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.clock = now.max(self.clock + 1);
        self.clock
    }
}
