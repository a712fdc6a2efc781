//! A wallet of P2WPKH coins on `bdk_wallet`: one seed of 12 words, its state in SQLite, its view of the chain pulled
//! from a [`Chain`](crate::Chain).
//!
//! A transaction that was built is not yet on the chain. Until it is told of ([`Wallet::sent`]), or seen by
//! [`Wallet::sync`], or given up ([`Wallet::release`]), the coins it spends are reserved, so that another one built
//! meanwhile takes others. Reservations live as long as the process: a daemon that has kept an unsent transaction calls
//! [`Wallet::reserve`] for it after a restart.

mod error;
mod prepare;
mod seed;
mod spend;
mod sync;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::rusqlite::Connection;
use bdk_wallet::{KeychainKind, PersistedWallet};
use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, Network, OutPoint, Transaction, Txid};
use serde::Serialize;

pub use self::error::WalletError;
pub use self::prepare::PreparedAnnouncement;
use crate::Status;

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

/// A transaction that moved the wallet's money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// The transaction.
    pub txid: Txid,
    /// How far it has come.
    pub status: Status,
    /// Came in, satoshi; change included.
    pub received_sat: u64,
    /// Went out, satoshi; change included.
    pub sent_sat: u64,
    /// The fee, satoshi, if the wallet knows all that the transaction spends.
    pub fee_sat: Option<u64>,
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
    /// Opens the wallet in `dir`, or makes one: `seed.txt` with 12 words, readable by its owner only, and
    /// `wallet.sqlite`. The words are all that is needed to get the money back.
    pub fn open(dir: &Path, network: Network) -> Result<Wallet, WalletError> {
        let opened = seed::open(dir, network)?;
        Ok(Wallet { inner: Arc::new(Mutex::new(opened)), syncing: Arc::new(tokio::sync::Mutex::new(())), network })
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
        let address = inner.bdk.next_unused_address(KeychainKind::External).address;
        inner.persist()?;
        Ok(address)
    }

    /// A key of the wallet that was never used. What is paid to its P2WPKH address comes to the wallet by itself, so the change of a
    /// channel with such a key needs no transaction of its own, and the twelve words bring back all that such keys hold.
    pub fn fresh_key(&self) -> Result<SecretKey, WalletError> {
        let mut inner = self.lock();
        let index = inner.bdk.reveal_next_address(KeychainKind::External).index;
        let key = seed::key(&inner.master, self.network, index)?;
        inner.persist()?;
        Ok(key)
    }

    /// All transactions that moved the wallet's money, the oldest first, unconfirmed ones last.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let inner = self.lock();
        let mut entries: Vec<HistoryEntry> = inner
            .bdk
            .transactions()
            .map(|tx| {
                let (sent, received) = inner.bdk.sent_and_received(&tx.tx_node.tx);
                HistoryEntry {
                    txid: tx.tx_node.txid,
                    status: match tx.chain_position {
                        ChainPosition::Confirmed { anchor, .. } => Status::Confirmed { height: anchor.block_id.height },
                        ChainPosition::Unconfirmed { .. } => Status::Mempool,
                    },
                    received_sat: received.to_sat(),
                    sent_sat: sent.to_sat(),
                    fee_sat: inner.bdk.calculate_fee(&tx.tx_node.tx).ok().map(|fee| fee.to_sat()),
                }
            })
            .collect();
        entries.sort_by_key(|entry| match entry.status {
            Status::Confirmed { height } => (height, entry.txid),
            Status::Mempool => (u32::MAX, entry.txid),
        });
        entries
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

    /// A time stamp later than all before.
    fn tick(&mut self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.clock = now.max(self.clock + 1);
        self.clock
    }
}
