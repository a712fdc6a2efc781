//! The handle that daemons use, whatever the source of the chain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{BlockHash, Network, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::bitcoind::{Bitcoind, BitcoindAuth};
use crate::electrum::{self, Electrum, ElectrumServer};
use crate::embedded::Embedded;
use crate::light::{self, Light};
use crate::source::Scan;
use crate::wishes::Wish;
use crate::{ChainError, Family, Refusal};

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
    /// A Bitcoin full node, by its RPC.
    Bitcoind {
        /// `http://HOST:PORT`.
        url: String,
        /// How it knows that we may ask.
        auth: BitcoindAuth,
        /// The network that it must be on.
        network: Network,
    },
    /// Block filters from peers of the network, without any server of one's own.
    Light {
        /// The network.
        network: Network,
        /// Holds headers and filters. One process at a time.
        dir: PathBuf,
        /// Peers to ask, and no others. Empty: those that the network's seeds name.
        peers: Vec<SocketAddr>,
    },
    /// An Electrum server, of whose word everything is checked that can be.
    Electrum {
        /// The server.
        server: ElectrumServer,
        /// The network that it must be of.
        network: Network,
        /// Holds headers, proved transactions and the server's certificate. One process at a time.
        dir: PathBuf,
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

/// What can give us a chain. Each variant's type has the same methods, and says in its own documentation how it answers.
enum Source {
    Embedded(Embedded),
    Bitcoind(Bitcoind),
    Light(Light),
    Electrum(Electrum),
}

/// Calls a method of whatever the source is.
macro_rules! of_source {
    ($chain:expr, $source:ident => $call:expr) => {
        match &*$chain.source {
            Source::Embedded($source) => $call,
            Source::Bitcoind($source) => $call,
            Source::Light($source) => $call,
            Source::Electrum($source) => $call,
        }
    };
}

impl Chain {
    /// Opens the chain, and sends what happens to `events`.
    ///
    /// Announcements of the last 144 blocks are told of at once, then the tip, then what happens.
    pub async fn open(config: ChainConfig, events: mpsc::Sender<ChainEvent>) -> Result<Chain, ChainError> {
        let source = match config {
            ChainConfig::Embedded { dir, block_interval } => Source::Embedded(Embedded::open(&dir, block_interval, events).await?),
            ChainConfig::Bitcoind { url, auth, network } => Source::Bitcoind(Bitcoind::open(&url, auth, network, events).await?),
            ChainConfig::Light { network, dir, peers } => {
                Source::Light(Light::open(light::Settings { network, dir, peers }, events).await?)
            }
            ChainConfig::Electrum { server, network, dir } => {
                Source::Electrum(Electrum::open(electrum::Settings { server, network, dir }, events).await?)
            }
        };
        Ok(Chain { source: Arc::new(source) })
    }

    /// Ends the connection for all clones. If this process hosts the chain, waits until it is written out and another
    /// process can take over.
    pub async fn close(&self) {
        of_source!(self, source => source.close().await);
    }

    /// What the chain comes from: `embedded`, `bitcoind`, `light` or `electrum`.
    pub fn source_name(&self) -> &'static str {
        match &*self.source {
            Source::Embedded(_) => "embedded",
            Source::Bitcoind(_) => "bitcoind",
            Source::Light(_) => "light",
            Source::Electrum(_) => "electrum",
        }
    }

    /// The network the chain belongs to.
    pub fn network(&self) -> Network {
        of_source!(self, source => source.network())
    }

    /// Whether this process hosts the chain. Only an embedded chain has a host.
    pub async fn is_host(&self) -> bool {
        match &*self.source {
            Source::Embedded(embedded) => embedded.is_host().await,
            Source::Bitcoind(_) | Source::Light(_) | Source::Electrum(_) => false,
        }
    }

    /// Height and hash of the last block.
    pub async fn tip(&self) -> Result<(u32, BlockHash), ChainError> {
        of_source!(self, source => source.tip().await).map(|tip| (tip.height, tip.hash))
    }

    /// Hash of the best chain's block at this height; `None` above the tip.
    pub async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        of_source!(self, source => source.block_hash(height).await)
    }

    /// Hashes of blocks of the best chain, this one and at most `count - 1` after it, as far as the source has them.
    pub async fn block_hashes(&self, from: u32, count: u32) -> Result<Vec<BlockHash>, ChainError> {
        if let Source::Bitcoind(bitcoind) = &*self.source {
            return bitcoind.block_hashes(from, count).await;
        }
        let mut hashes = Vec::new();
        for height in from..from.saturating_add(count) {
            let Some(hash) = self.block_hash(height).await? else { break };
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// Sends a transaction. One that is already known is no error, so that it can be sent again after a crash.
    pub async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        // No source takes it, so it need not travel.
        if tx.weight().to_wu() > MAX_WEIGHT {
            let why = Refusal::TooHeavy { weight: tx.weight().to_wu(), at_most: MAX_WEIGHT };
            return Err(ChainError::Refused { txid: tx.compute_txid(), why });
        }
        of_source!(self, source => source.broadcast(tx).await)
    }

    /// A transaction of the best chain or the mempool, and how far it has come.
    pub async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        of_source!(self, source => source.transaction(txid).await)
    }

    /// Whatever pays to or spends from a script, in the order of the chain.
    pub async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        of_source!(self, source => source.history(script).await)
    }

    /// Tells of everything that pays to or spends from this script, beginning with its past.
    pub fn watch_script(&self, script: ScriptBuf) {
        of_source!(self, source => source.wish(Wish::Watch(script)));
    }

    /// Stops telling of a script.
    pub fn unwatch_script(&self, script: ScriptBuf) {
        of_source!(self, source => source.wish(Wish::Unwatch(script)));
    }

    /// What to pay to be in the next block, satoshi per 1,000 virtual bytes.
    pub async fn feerate(&self) -> Result<u64, ChainError> {
        of_source!(self, source => source.feerate().await)
    }

    /// Play money, confirmed when this returns: a block is mined, with whatever else waits. Embedded chain only.
    pub async fn faucet(&self, script: ScriptBuf, sat: u64) -> Result<Txid, ChainError> {
        self.embedded("play money from a faucet")?.faucet(script, sat).await
    }

    /// Mines blocks out of the mempool and returns their hashes. Embedded chain only.
    pub async fn generate(&self, count: u32) -> Result<Vec<BlockHash>, ChainError> {
        self.embedded("blocks on demand")?.generate(count).await
    }

    /// Replaces the last `depth` blocks by a branch of `depth + 1` new ones, the first of which holds `with`; the
    /// others are empty. What the old blocks confirmed goes back to the mempool, unless `with` spends the same coins.
    /// Embedded chain only: reorganisations happen on real chains, and this is how to be ready for them.
    pub async fn reorganise(&self, depth: u32, with: &[Transaction]) -> Result<Vec<BlockHash>, ChainError> {
        self.embedded("reorganisations on demand")?.reorganise(depth, with).await
    }

    /// All that is unconfirmed and that the source knows of, parents first.
    pub async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        of_source!(self, source => source.mempool().await)
    }

    /// What an unconfirmed transaction and the unconfirmed ones that it rests on pay; `None` where that cannot be known.
    pub async fn family(&self, tx: &Transaction) -> Result<Option<Family>, ChainError> {
        match &*self.source {
            Source::Bitcoind(bitcoind) => bitcoind.family(&tx.compute_txid()).await,
            Source::Embedded(_) | Source::Light(_) | Source::Electrum(_) => self.family_of(tx).await,
        }
    }

    /// Whatever is unconfirmed and touches one of the scripts, parents first. May hold others as well.
    pub(crate) async fn unconfirmed(&self, scripts: &[ScriptBuf]) -> Result<Vec<Transaction>, ChainError> {
        match &*self.source {
            Source::Embedded(embedded) => embedded.mempool().await,
            Source::Bitcoind(bitcoind) => bitcoind.unconfirmed(scripts).await,
            Source::Light(light) => light.unconfirmed(scripts).await,
            Source::Electrum(electrum) => electrum.unconfirmed(scripts).await,
        }
    }

    /// What follows the newest block of the locator that is in the best chain, as far as it touches the scripts.
    pub(crate) async fn scan(&self, locator: Vec<BlockHash>, scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        match &*self.source {
            Source::Embedded(embedded) => embedded.scan(locator).await,
            Source::Bitcoind(bitcoind) => bitcoind.scan(locator, scripts).await,
            Source::Light(light) => light.scan(locator, scripts).await,
            Source::Electrum(electrum) => electrum.scan(locator, scripts).await,
        }
    }

    /// The embedded chain, which alone has `what`.
    fn embedded(&self, what: &'static str) -> Result<&Embedded, ChainError> {
        match &*self.source {
            Source::Embedded(embedded) => Ok(embedded),
            _ => Err(ChainError::OnlyEmbedded { what, source_name: self.source_name() }),
        }
    }
}
