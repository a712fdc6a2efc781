//! Asks bitcoind every second what is new, and tells the daemon.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::{BlockHash, ScriptBuf, Txid};
use serde_json::json;
use tokio::sync::mpsc;

use super::Shared;
use super::pool::MAX_POOL;
use crate::source::BlockAt;
use crate::watch::Watcher;
use crate::{ChainError, ChainEvent};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// What a new follower is told of the past: one bucket of markers.
const RECENT_BLOCKS: u32 = 144;
/// One second more between two looks at the whole mempool for each of so many transactions.
const POOL_PER_SECOND: u64 = 20_000;
/// After so long the mempool is read even if it looks the same.
const REREAD: Duration = Duration::from_secs(30);
/// How far block times may be off from the clock here before that is said: what Bitcoin allows.
const CLOCK_OFF: Duration = Duration::from_secs(7_200);

/// Follows until nobody listens any more.
pub(super) async fn follow(shared: Arc<Shared>, events: mpsc::Sender<ChainEvent>) {
    let mut follower = Follower { shared, events, watcher: Watcher::default(), fresh: Vec::new(), pool: None, lost: false, begun: false };
    while !follower.events.is_closed() {
        match follower.look().await {
            Ok(()) => {}
            Err(why) if follower.lost => tracing::debug!(%why, "bitcoind still does not answer"),
            Err(why) => {
                follower.lost = true;
                // What bitcoind knows after a restart may be less than before.
                follower.pool = None;
                follower.tell(vec![ChainEvent::Lost { why: why.to_string() }]).await;
            }
        }
        let shared = follower.shared.clone();
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = shared.stir.notified() => {}
        }
    }
}

struct Follower {
    shared: Arc<Shared>,
    events: mpsc::Sender<ChainEvent>,
    watcher: Watcher,
    /// Watched, and their past not yet told.
    fresh: Vec<ScriptBuf>,
    /// Size, bytes and fees of the mempool when it was last read, and when. A replacement can leave all but the fees the same.
    pool: Option<((u64, u64, u64), Instant)>,
    lost: bool,
    begun: bool,
}

impl Follower {
    async fn look(&mut self) -> Result<(), ChainError> {
        self.shared.wishes.grant(&mut self.watcher, &mut self.fresh);
        let best: BlockHash = self.shared.best().await?;
        if !self.begun || self.watcher.tip().map(|(_, hash)| hash) != Some(best) {
            self.advance().await?;
        }
        if std::mem::take(&mut self.lost) {
            // Scripts from before are asked for again: their past may have changed.
            self.fresh = self.watcher.watched().cloned().collect();
            self.tell(vec![ChainEvent::Back]).await;
        }
        if !self.fresh.is_empty() {
            let scripts = std::mem::take(&mut self.fresh);
            match self.shared.past(&scripts).await {
                Ok(past) => {
                    let events = self.watcher.history(past.iter().map(|(tx, status)| (tx, *status)));
                    self.tell(events).await;
                }
                Err(why) => {
                    self.fresh = scripts;
                    return Err(why);
                }
            }
        }
        self.look_at_pool().await
    }

    /// Comes to the tip, by whatever branch.
    async fn advance(&mut self) -> Result<(), ChainError> {
        let shared = self.shared.clone();
        let fork = match shared.fork(&self.watcher.locator()).await? {
            Some(fork) => fork,
            None => {
                let tip = shared.tip_at().await?;
                let least = shared.prune_height().await?.unwrap_or(0);
                shared.at(tip.height.saturating_sub(RECENT_BLOCKS).max(least).min(tip.height)).await?
            }
        };
        let events = self.watcher.rewind(fork.height, fork.hash);
        {
            let mut pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner);
            for event in &events {
                if let ChainEvent::Gone { txid } = event {
                    pool.forget(txid);
                    self.pool = None;
                }
            }
        }
        self.tell(events).await;
        let mut before = fork;
        loop {
            let Some(hash) = shared.hash_at(before.height + 1).await? else { break };
            let block = shared.block(hash, before.height + 1).await?;
            if block.header.prev_blockhash != before.hash {
                // Another branch became the best one meanwhile.
                return Err(shared.rpc.strange("the chain changed while it was read"));
            }
            before = BlockAt { height: before.height + 1, hash };
            self.check_clock(before, block.header.time);
            let events = self.watcher.connected(before.height, &block);
            self.tell(events).await;
        }
        self.begun = true;
        self.pool = None;
        self.tell(vec![ChainEvent::Tip { height: before.height, hash: before.hash }]).await;
        Ok(())
    }

    async fn look_at_pool(&mut self) -> Result<(), ChainError> {
        let shared = self.shared.clone();
        let info = shared.rpc.ask("getmempoolinfo", json!([])).await?;
        let size: u64 = shared.rpc.field(&info, "size")?;
        let state = (size, shared.rpc.field(&info, "bytes")?, shared.sat(&info, "total_fee")?);
        if let Some((old, at)) = self.pool
            && ((old == state && at.elapsed() < REREAD) || at.elapsed() < Duration::from_secs(size / POOL_PER_SECOND))
        {
            return Ok(());
        }
        let txids: Vec<Txid> = serde_json::from_value(shared.rpc.ask("getrawmempool", json!([])).await?)
            .map_err(|why| shared.rpc.strange(format!("getrawmempool: {why}")))?;
        // What was confirmed in between would look as if it were gone.
        if self.watcher.tip().map(|(_, hash)| hash) != Some(shared.best().await?) {
            shared.stir.notify_one();
            return Ok(());
        }
        let new: Vec<Txid> = {
            let pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner);
            txids.iter().filter(|txid| !pool.knows(txid)).take(MAX_POOL).copied().collect()
        };
        for part in new.chunks(super::look::BATCH) {
            let txs = shared.waiting(part).await?;
            // Twice, for a child may stand before its parent.
            let events = [&txs, &txs].into_iter().flatten().flat_map(|tx| self.watcher.entered(tx)).collect();
            {
                let mut pool = shared.pool.lock().unwrap_or_else(PoisonError::into_inner);
                for tx in &txs {
                    pool.add(tx.compute_txid(), tx);
                }
            }
            self.tell(events).await;
        }
        let present: HashSet<Txid> = txids.into_iter().collect();
        shared.pool.lock().unwrap_or_else(PoisonError::into_inner).retain(&present);
        let events = self.watcher.only_waiting(&present);
        self.tell(events).await;
        self.pool = Some((state, Instant::now()));
        Ok(())
    }

    /// Nothing here rests on the clock, but a user whose clock is wrong should hear of it.
    fn check_clock(&self, at: BlockAt, block_unix: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead = Duration::from_secs(u64::from(block_unix)).saturating_sub(now);
        if ahead >= CLOCK_OFF {
            tracing::warn!(height = at.height, ahead_s = ahead.as_secs(), "a block is from the future: check the clock of this machine");
        }
    }

    async fn tell(&mut self, events: Vec<ChainEvent>) {
        for event in events {
            // Nobody listens any more: the loop ends by itself.
            let _ = self.events.send(event).await;
        }
    }
}
