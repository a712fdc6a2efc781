//! A light client: block filters (BIP157, BIP158) from peers of the Bitcoin network, no server of one's own.
//!
//! Headers are checked for their work and, on the main network, for the difficulty they had to have; filters against
//! the filter headers that the peers agree on; blocks against header, Merkle root and witness commitment. A filter that matches a
//! script that is asked for leads to its block. What is nobody's block yet is not seen: of unconfirmed transactions only own ones are
//! known. Which blocks are asked for tells a peer something, which scripts does not.

mod fees;
mod filter;
mod follow;
mod look;
mod store;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bip157::Requester;
use bitcoin::{Block, BlockHash, Network};
use tokio::sync::{Notify, mpsc, watch};

use self::store::Store;
use self::view::View;
use crate::estimate::Estimate;
use crate::follower::Follower;
use crate::wishes::{Wish, Wishes};
use crate::{ChainError, ChainEvent};

/// How long a new client waits for anything from any peer before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Headers kept: what identities can be anchored to, and some more.
const HEADERS: u32 = 30_000;
/// Filters are kept for so many blocks, a year; older ones come again when they are needed.
const FILTERS: u32 = 52_560;
/// How far back the past of a script is looked for: as with a bitcoind without an index.
const WINDOW_BLOCKS: u32 = 1_008;
/// Blocks that were read a moment ago.
const BLOCKS: usize = 8;

/// How to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) network: Network,
    /// For headers and filters.
    pub(crate) dir: PathBuf,
    /// Peers to ask, and no others. None: those that the network's seeds name.
    pub(crate) peers: Vec<SocketAddr>,
}

/// What the follower and those who ask share.
struct Shared {
    settings: Settings,
    view: Mutex<View>,
    store: Mutex<Store>,
    wishes: Wishes,
    /// Who speaks with the peers, while anybody does.
    requester: Mutex<Option<Requester>>,
    /// Something to do before the next tick.
    stir: Notify,
    /// Counts what came from peers, so that waiting can tell a slow answer from none.
    progress: watch::Sender<u64>,
    blocks: Mutex<VecDeque<(BlockHash, Arc<Block>)>>,
    feerate: Estimate,
    /// What went wrong last with any peer.
    trouble: Mutex<Option<String>>,
}

/// A light client.
pub(crate) struct Light {
    shared: Arc<Shared>,
    follower: Follower,
}

impl Light {
    /// Opens it. The first time, it waits until the headers are here, or no peer answers.
    pub(crate) async fn open(settings: Settings, events: mpsc::Sender<ChainEvent>) -> Result<Light, ChainError> {
        let store = Store::open(&settings.dir, settings.network)?;
        let headers = store.headers(HEADERS)?;
        if let Some((last, _)) = headers.last_key_value() {
            store.drop_filters_below(last.saturating_sub(FILTERS))?;
        }
        let view = View::new(settings.network, headers, store.filtered()?, store.own()?);
        let known = view.tip().is_some();
        let shared = Arc::new(Shared {
            settings,
            view: Mutex::new(view),
            store: Mutex::new(store),
            wishes: Wishes::default(),
            requester: Mutex::default(),
            stir: Notify::new(),
            progress: watch::Sender::new(0),
            blocks: Mutex::default(),
            feerate: Estimate::default(),
            trouble: Mutex::default(),
        });
        let follower = Follower::start(follow::follow(shared.clone(), events));
        let light = Light { shared, follower };
        if !known {
            light.shared.until(|view| view.ready && view.tip().is_some()).await?;
        }
        Ok(light)
    }

    pub(crate) async fn close(&self) {
        self.follower.end().await;
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
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requester(&self) -> Result<Requester, ChainError> {
        let requester = self.requester.lock().unwrap_or_else(PoisonError::into_inner).clone();
        requester.ok_or_else(|| self.away("no peer is connected"))
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something holds, as long as anything comes from peers.
    async fn until(&self, holds: impl Fn(&View) -> bool) -> Result<(), ChainError> {
        let mut progress = self.progress.subscribe();
        loop {
            if holds(&self.view()) {
                return Ok(());
            }
            if tokio::time::timeout(PATIENCE, progress.changed()).await.is_err() {
                return Err(self.no_peers());
            }
        }
    }

    fn away(&self, why: impl Into<String>) -> ChainError {
        ChainError::Away { url: format!("the {} network", self.settings.network), why: why.into() }
    }

    fn no_peers(&self) -> ChainError {
        let asked = match self.settings.peers.as_slice() {
            [] => "the peers that the network's seeds name".to_owned(),
            peers => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let why = self.trouble().unwrap_or_else(|| "none could be reached".to_owned());
        ChainError::NoPeers { network: self.settings.network.to_string(), asked, waited_s: PATIENCE.as_secs(), why }
    }
}
