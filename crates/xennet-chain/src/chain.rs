//! The handle that daemons use, whatever the source of the chain.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Network, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::embedded::Embedded;
use crate::embedded::wire::{Ask, HexTx, Since, Told};
use crate::{ChainError, Refusal};

/// Most weight of a relayed transaction, a tenth of a block.
pub(crate) const MAX_WEIGHT: u64 = 400_000;

/// Where the chain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainConfig {
    /// A regtest chain of play money, validated by Bitcoin Core's code in this process or in another one that shares
    /// the directory.
    Embedded {
        /// Holds the chain. Daemons that are to share a chain name the same directory.
        dir: PathBuf,
        /// How often a block is mined while transactions wait. Zero: only by [`Chain::generate`]. It is the host's
        /// figure that counts.
        block_interval: Duration,
    },
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Unconfirmed.
    Mempool,
    /// In the best chain.
    Confirmed {
        /// Height of its block.
        height: u32,
    },
}

/// What happened on the chain.
///
/// Nothing is missed when the connection to the source breaks: after [`ChainEvent::Back`] the events are those that
/// lead from what was last told to what is true now. An event can come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEvent {
    /// The best chain ends here. Comes after the events of that block.
    Tip {
        /// Height of the last block.
        height: u32,
        /// Its hash.
        hash: BlockHash,
    },
    /// A transaction pays to a watched script or spends from one, or its status changed.
    Seen {
        /// The transaction.
        tx: Transaction,
        /// How far it has come.
        status: Status,
    },
    /// A transaction carries an announcement.
    Announcement {
        /// The transaction.
        tx: Transaction,
        /// What its OP_RETURN holds. Nothing of it has been checked.
        payload: Vec<u8>,
        /// How far it has come.
        status: Status,
    },
    /// A transaction that was told of is no longer what it was: its block was taken back, or it was replaced or
    /// thrown out. If it still waits in the mempool, it is told of again right after.
    Gone {
        /// The transaction.
        txid: Txid,
    },
    /// The source does not answer; it is tried again and again.
    Lost {
        /// Why.
        why: String,
    },
    /// The source answers again.
    Back,
}

/// A chain. Cheap to clone; the connection, and the host if this process is it, end with the last clone.
#[derive(Clone)]
pub struct Chain {
    source: Arc<Source>,
}

/// What can give us a chain.
enum Source {
    Embedded(Embedded),
}

impl Chain {
    /// Opens the chain, and sends what happens to `events`.
    ///
    /// Announcements of the last 144 blocks are told of at once, then the tip, then what happens.
    pub async fn open(config: ChainConfig, events: mpsc::Sender<ChainEvent>) -> Result<Chain, ChainError> {
        let source = match config {
            ChainConfig::Embedded { dir, block_interval } => Source::Embedded(Embedded::open(&dir, block_interval, events).await?),
        };
        Ok(Chain { source: Arc::new(source) })
    }

    /// Ends the connection for all clones. If this process hosts the chain, waits until it is written out and another
    /// process can take over.
    pub async fn close(&self) {
        match &*self.source {
            Source::Embedded(embedded) => embedded.close().await,
        }
    }

    /// The network the chain belongs to.
    pub fn network(&self) -> Network {
        match &*self.source {
            Source::Embedded(_) => Network::Regtest,
        }
    }

    /// Whether this process hosts the chain.
    pub async fn is_host(&self) -> bool {
        match &*self.source {
            Source::Embedded(embedded) => embedded.is_host().await,
        }
    }

    /// Height and hash of the last block.
    pub async fn tip(&self) -> Result<(u32, BlockHash), ChainError> {
        match self.ask(Ask::Tip).await? {
            Told::Tip { height, hash } => Ok((height, hash)),
            other => Err(self.astray(&other)),
        }
    }

    /// Hash of the best chain's block at this height; `None` above the tip.
    pub async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        match self.ask(Ask::BlockHash { height }).await? {
            Told::BlockHash(hash) => Ok(hash),
            other => Err(self.astray(&other)),
        }
    }

    /// Sends a transaction. One that is already known is no error, so that it can be sent again after a crash.
    pub async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        // No source takes it, so it need not travel.
        if tx.weight().to_wu() > MAX_WEIGHT {
            let why = Refusal::TooHeavy { weight: tx.weight().to_wu(), at_most: MAX_WEIGHT };
            return Err(ChainError::Refused { txid: tx.compute_txid(), why });
        }
        match self.ask(Ask::Broadcast { tx: HexTx(tx.clone()) }).await? {
            Told::Txid(txid) => Ok(txid),
            other => Err(self.astray(&other)),
        }
    }

    /// A transaction of the best chain or the mempool, and how far it has come.
    pub async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        match self.ask(Ask::Transaction { txid: *txid }).await? {
            Told::Transaction(found) => Ok(found.map(|(tx, status)| (tx.0, status))),
            other => Err(self.astray(&other)),
        }
    }

    /// Whatever pays to or spends from a script, in the order of the chain.
    pub async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let mut past = Vec::new();
        let mut skip = 0;
        loop {
            match self.ask(Ask::History { script: script.clone(), skip }).await? {
                Told::History(part) => {
                    past.extend(part.past.into_iter().map(|(tx, status)| (tx.0, status)));
                    match part.next {
                        Some(next) => skip = next,
                        None => return Ok(past),
                    }
                }
                other => return Err(self.astray(&other)),
            }
        }
    }

    /// Tells of everything that pays to or spends from this script, beginning with its past.
    pub fn watch_script(&self, script: ScriptBuf) {
        match &*self.source {
            Source::Embedded(embedded) => embedded.watch(script),
        }
    }

    /// Stops telling of a script.
    pub fn unwatch_script(&self, script: ScriptBuf) {
        match &*self.source {
            Source::Embedded(embedded) => embedded.unwatch(script),
        }
    }

    /// What to pay to be in the next block, satoshi per 1,000 virtual bytes.
    pub async fn feerate(&self) -> Result<u64, ChainError> {
        match self.ask(Ask::Feerate).await? {
            Told::Feerate { sat_per_kvb } => Ok(sat_per_kvb),
            other => Err(self.astray(&other)),
        }
    }

    /// Play money, confirmed when this returns: a block is mined, with whatever else waits. Embedded chain only.
    pub async fn faucet(&self, script: ScriptBuf, sat: u64) -> Result<Txid, ChainError> {
        match self.ask(Ask::Faucet { script, sat }).await? {
            Told::Txid(txid) => Ok(txid),
            other => Err(self.astray(&other)),
        }
    }

    /// Mines blocks out of the mempool and returns their hashes. Embedded chain only.
    pub async fn generate(&self, count: u32) -> Result<Vec<BlockHash>, ChainError> {
        match self.ask(Ask::Generate { count }).await? {
            Told::Hashes(hashes) => Ok(hashes),
            other => Err(self.astray(&other)),
        }
    }

    /// Replaces the last `depth` blocks by a branch of `depth + 1` new ones, the first of which holds `with`; the
    /// others are empty. What the old blocks confirmed goes back to the mempool, unless `with` spends the same coins.
    /// Embedded chain only: reorganisations happen on real chains, and this is how to be ready for them.
    pub async fn reorganise(&self, depth: u32, with: &[Transaction]) -> Result<Vec<BlockHash>, ChainError> {
        let with = with.iter().cloned().map(HexTx).collect();
        match self.ask(Ask::Reorganise { depth, with }).await? {
            Told::Hashes(hashes) => Ok(hashes),
            other => Err(self.astray(&other)),
        }
    }

    /// All that is unconfirmed, parents first.
    pub async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        match self.ask(Ask::Mempool).await? {
            Told::Mempool(txs) => Ok(txs.into_iter().map(|tx| tx.0).collect()),
            other => Err(self.astray(&other)),
        }
    }

    /// Blocks after the newest of the locator that is in the best chain.
    pub(crate) async fn since(&self, locator: Vec<BlockHash>) -> Result<Since, ChainError> {
        match self.ask(Ask::Since { locator }).await? {
            Told::Since(since) => Ok(since),
            other => Err(self.astray(&other)),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Told, ChainError> {
        match &*self.source {
            Source::Embedded(embedded) => embedded.ask(ask).await,
        }
    }

    fn astray(&self, told: &Told) -> ChainError {
        match &*self.source {
            Source::Embedded(embedded) => embedded.astray(told),
        }
    }
}
