//! bitcoind as the source: the user's own full node, by JSON-RPC.
//!
//! Nothing is asked of it but RPC: no ZMQ, no wallet, no index. With `blockfilterindex=1` the past of scripts is found as far
//! back as its blocks go, without it in the last [`WINDOW_BLOCKS`] blocks. What it answers is checked against what was asked:
//! a block's hash and Merkle root, a transaction's id.

mod follow;
mod look;
mod pool;
mod refuse;
mod rpc;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use tokio::sync::{Notify, mpsc};

use self::pool::Pool;
use self::rpc::Rpc;
use crate::follower::Follower;
use crate::wishes::{Wish, Wishes};
use crate::{ChainError, ChainEvent};

/// How far back scripts are looked for without an index of block filters: a week. A channel's refund unlocks a day after its
/// lease ends, so that this covers leases of some days with a daemon that was down for some days.
const WINDOW_BLOCKS: u32 = 1_008;

/// How bitcoind knows that we may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BitcoindAuth {
    /// The file that it writes at each start, `.cookie` in its data directory.
    CookieFile(PathBuf),
    /// What `rpcauth` in its configuration says.
    UserPassword {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
}

/// What the follower and those who ask share.
struct Shared {
    rpc: Rpc,
    network: Network,
    pool: Mutex<Pool>,
    wishes: Wishes,
    /// Something to do before the next tick.
    stir: Notify,
}

/// A client of bitcoind.
pub(crate) struct Bitcoind {
    shared: Arc<Shared>,
    follower: Follower,
}

impl Bitcoind {
    pub(crate) async fn open(
        url: &str,
        auth: BitcoindAuth,
        network: Network,
        events: mpsc::Sender<ChainEvent>,
    ) -> Result<Bitcoind, ChainError> {
        let rpc = Rpc::new(url, auth)?;
        let info = rpc.ask("getblockchaininfo", serde_json::json!([])).await?;
        let chain: String = rpc.field(&info, "chain")?;
        let expected = network.to_core_arg();
        if chain != expected {
            let what = format!("bitcoind at {url}");
            return Err(ChainError::WrongNetwork { what, expected: expected.to_owned(), found: chain });
        }
        let shared = Arc::new(Shared { rpc, network, pool: Mutex::default(), wishes: Wishes::default(), stir: Notify::new() });
        let follower = Follower::start(follow::follow(shared.clone(), events));
        Ok(Bitcoind { shared, follower })
    }

    pub(crate) async fn close(&self) {
        self.follower.end().await;
    }

    pub(crate) fn network(&self) -> Network {
        self.shared.network
    }

    /// For the follower, which looks at once.
    pub(crate) fn wish(&self, wish: Wish) {
        self.shared.wishes.add(wish);
        self.shared.stir.notify_one();
    }
}
