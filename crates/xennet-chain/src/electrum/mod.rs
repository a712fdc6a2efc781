//! An Electrum server as the source: little to read, nothing to run, and no word of the server is believed that can be proved.
//!
//! Headers are checked for link, work, difficulty and time, from the genesis block or, on the main network, a checkpoint on; a transaction
//! counts as confirmed only if its Merkle branch leads to the header that is here. The server can keep things back, and it sees
//! which scripts are asked for. Who it lies to is told so, and nothing of the lie is kept.

mod fees;
mod follow;
mod headers;
mod known;
mod line;
mod look;
mod proof;
mod prove;
mod rules;
mod send;
mod server;
mod store;
mod tls;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::constants::genesis_block;
use bitcoin::{BlockHash, Network, ScriptBuf};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use self::known::Known;
use self::line::Line;
use self::store::Store;
use crate::estimate::Estimate;
use crate::follower::Follower;
use crate::source::BlockAt;
use crate::wishes::{Wish, Wishes};
use crate::{ChainError, ChainEvent};

pub use self::server::{ElectrumServer, ElectrumServerError};

/// The version of the protocol that is spoken. Every server that is in use knows it.
const PROTOCOL: &str = "1.4";

/// How to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) server: ElectrumServer,
    pub(crate) network: Network,
    /// For headers, proved transactions and the server's certificate.
    pub(crate) dir: PathBuf,
}

/// What the follower and those who ask share.
struct Shared {
    settings: Settings,
    store: Mutex<Store>,
    known: Mutex<Known>,
    wishes: Wishes,
    /// The line, while one stands.
    line: Mutex<Option<Arc<Line>>>,
    /// Scripts that were touched from here, and of which the server need not have told yet.
    touched: Mutex<HashSet<ScriptBuf>>,
    /// Something to do before the next tick.
    stir: Arc<Notify>,
    feerate: Estimate,
}

/// A client of an Electrum server.
pub(crate) struct Electrum {
    shared: Arc<Shared>,
    follower: Follower,
}

impl Electrum {
    /// Opens it. The first time, it waits until the headers are here.
    pub(crate) async fn open(settings: Settings, events: mpsc::Sender<ChainEvent>) -> Result<Electrum, ChainError> {
        let store = Store::open(&settings.dir, settings.network)?;
        if !settings.server.is_encrypted() && !settings.server.is_here() {
            let server = &settings.server;
            tracing::warn!(%server, "the line is not encrypted: everybody on the way sees what this wallet watches; write ssl:// if the server has it");
        }
        let shared = Arc::new(Shared {
            settings,
            store: Mutex::new(store),
            known: Mutex::default(),
            wishes: Wishes::default(),
            line: Mutex::default(),
            touched: Mutex::default(),
            stir: Arc::new(Notify::new()),
            feerate: Estimate::default(),
        });
        shared.connect().await?;
        let follower = Follower::start(follow::follow(shared.clone(), events));
        Ok(Electrum { shared, follower })
    }

    pub(crate) async fn close(&self) {
        self.follower.end().await;
        self.shared.set_line(None);
    }

    pub(crate) fn network(&self) -> Network {
        self.shared.settings.network
    }

    /// For the follower, which looks at once.
    pub(crate) fn wish(&self, wish: Wish) {
        self.shared.wishes.add(wish);
        self.shared.stir.notify_one();
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> Result<Arc<Line>, ChainError> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).clone();
        line.ok_or_else(|| self.away("it is not connected"))
    }

    fn set_line(&self, line: Option<Arc<Line>>) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    fn tip(&self) -> Result<BlockAt, ChainError> {
        self.store().best()?.ok_or_else(|| self.away("no header is here yet"))
    }

    /// Connects, sees that the server is of the network, and takes its headers in.
    async fn connect(&self) -> Result<Arc<Line>, ChainError> {
        let line = Line::open(&self.settings.server, &self.settings.dir, self.stir.clone()).await?;
        line.ask("server.version", json!(["xennet", PROTOCOL])).await?;
        let features = line.ask("server.features", json!([])).await?;
        let genesis = features.get("genesis_hash").and_then(Value::as_str).and_then(|hash| hash.parse::<BlockHash>().ok());
        let genesis = genesis.ok_or_else(|| self.untrue("does not say which network it is of".to_owned()))?;
        let network = self.settings.network;
        if genesis != genesis_block(network).block_hash() {
            let known = [Network::Bitcoin, Network::Testnet4, Network::Signet, Network::Regtest, Network::Testnet];
            let found = known.into_iter().find(|known| genesis_block(*known).block_hash() == genesis);
            let found = found.map_or_else(|| format!("a network that begins with block {genesis}"), |found| found.to_string());
            let what = format!("the Electrum server {}", self.url());
            return Err(ChainError::WrongNetwork { what, expected: network.to_string(), found });
        }
        let told = self.told(&line.ask("blockchain.headers.subscribe", json!([])).await?)?;
        self.take_headers(&line, told).await?;
        self.known().ask_anew();
        let line = Arc::new(line);
        self.set_line(Some(line.clone()));
        Ok(line)
    }

    fn url(&self) -> String {
        self.settings.server.to_string()
    }

    fn away(&self, why: impl Into<String>) -> ChainError {
        ChainError::Away { url: self.url(), why: why.into() }
    }

    fn untrue(&self, what: String) -> ChainError {
        ChainError::Untrue { url: self.url(), what }
    }
}
