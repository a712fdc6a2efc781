//! What is asked of a light client, and how what peers send is checked.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bitcoin::bip158::BlockFilter;
use bitcoin::{Block, BlockHash, ScriptBuf, Transaction, Txid};

use super::{BLOCKS, Light, Shared, WINDOW_BLOCKS, filter};
use crate::source::{BlockAt, Found, Scan, Step, touches};
use crate::{ChainError, ChainEvent, Status};

/// How long a block may take.
const BLOCK: Duration = Duration::from_secs(60);
/// How often a block is asked for that comes with what does not belong to it.
const TRIES: u32 = 3;
/// How long a peer may take to ask for a transaction that it was told of.
const WANTED: Duration = Duration::from_secs(15);
/// Bounds of one answer that is a part of a longer one.
const PART_BLOCKS: u32 = 4_096;
const PART_FOUND: usize = 64;

impl Light {
    pub(crate) async fn tip(&self) -> Result<BlockAt, ChainError> {
        self.shared.tip()
    }

    pub(crate) async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.shared.view().at(height).map(|at| at.hash))
    }

    pub(crate) async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        self.shared.send(tx).await
    }

    pub(crate) async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        self.shared.transaction(txid)
    }

    pub(crate) async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let from = self.shared.window();
        self.shared.need(from).await?;
        self.shared.past(std::slice::from_ref(script), from).await
    }

    pub(crate) async fn feerate(&self) -> Result<u64, ChainError> {
        self.shared.feerate().await
    }

    pub(crate) async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        Ok(self.shared.view().waiting())
    }

    pub(crate) async fn unconfirmed(&self, scripts: &[ScriptBuf]) -> Result<Vec<Transaction>, ChainError> {
        let scripts: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
        Ok(self.shared.view().waiting().into_iter().filter(|tx| touches(tx, &scripts)).collect())
    }

    pub(crate) async fn scan(&self, locator: Vec<BlockHash>, scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        self.shared.scan(&locator, scripts).await
    }
}

impl Shared {
    pub(super) fn tip(&self) -> Result<BlockAt, ChainError> {
        self.view().tip().ok_or_else(|| self.away("no block filter is here yet"))
    }

    fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        if let Some(own) = self.view().own(txid) {
            return Ok(Some(own));
        }
        let told = self.store().told(txid)?;
        Ok(told.filter(|(_, at)| self.view().is_best(*at)).map(|(tx, at)| (tx, Status::Confirmed { height: at.height })))
    }

    /// The lowest block in which the past of a script is looked for.
    pub(super) fn window(&self) -> u32 {
        let view = self.view();
        let lowest = view.headers.first_key_value().map_or(1, |(height, _)| *height);
        view.best().map_or(1, |best| (best.height + 1).saturating_sub(WINDOW_BLOCKS)).max(lowest)
    }

    /// Waits until all filters from this height on are here.
    async fn need(&self, from: u32) -> Result<(), ChainError> {
        {
            let mut view = self.view();
            view.wanted_from = view.wanted_from.min(from);
            if view.covers(from) {
                return Ok(());
            }
        }
        self.stir.notify_one();
        self.until(|view| view.covers(from)).await
    }

    /// Whether the block's filter has one of the scripts. It can say yes wrongly, one time in 784,931 a script, never no.
    pub(super) fn matches(&self, at: BlockAt, scripts: &[ScriptBuf]) -> Result<bool, ChainError> {
        let filter = self.store().filter(at)?.ok_or_else(|| self.away(format!("the filter of block {} is not here", at.height)))?;
        if scripts.is_empty() {
            return Ok(false);
        }
        let search = || BlockFilter::new(&filter).match_any(&at.hash, scripts.iter().map(|script| script.as_bytes())).ok();
        let matched = filter::is_bounded(&filter).then(search).flatten();
        if matched.is_none() {
            // Whatever spoiled it, it can be had again.
            self.view().filtered.remove(&at.height);
            self.store().drop_filter(at)?;
        }
        matched.ok_or_else(|| self.away(format!("the filter of block {} cannot be read and is asked for again", at.height)))
    }

    /// A block, checked to be the one that was asked for, witnesses too.
    pub(super) async fn block(&self, at: BlockAt) -> Result<Arc<Block>, ChainError> {
        {
            let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, block)) = blocks.iter().find(|(hash, _)| *hash == at.hash) {
                return Ok(Arc::clone(block));
            }
        }
        let block = self.fetch(at).await?;
        let over = self.view().read(at, &block);
        {
            let store = self.store();
            for txid in over {
                store.drop_own(&txid)?;
            }
        }
        let block = Arc::new(block);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.truncate(BLOCKS - 1);
        blocks.push_front((at.hash, Arc::clone(&block)));
        Ok(block)
    }

    /// Asks peers for a block, chosen by chance, until one gives it.
    async fn fetch(&self, at: BlockAt) -> Result<Block, ChainError> {
        for _ in 0..TRIES {
            let asked = tokio::time::timeout(BLOCK, self.requester()?.get_block(at.hash)).await;
            let block = match asked {
                Ok(Ok(indexed)) => indexed.block,
                Ok(Err(why)) => return Err(self.away(format!("block {}: {why}", at.height))),
                Err(_) => return Err(self.away(format!("no peer gave block {} in {} s", at.height, BLOCK.as_secs()))),
            };
            if block.block_hash() == at.hash && block.check_merkle_root() && block.check_witness_commitment() {
                return Ok(block);
            }
        }
        Err(self.away(format!("what peers give for block {} is not that block", at.hash)))
    }

    /// Keeps what was told of a block, so that it can be asked for by its id.
    pub(super) fn remember(&self, events: &[ChainEvent], at: BlockAt) -> Result<(), ChainError> {
        let store = self.store();
        for event in events {
            if let ChainEvent::Seen { tx, .. } | ChainEvent::Announcement { tx, .. } = event {
                store.put_told(tx, at)?;
            }
        }
        Ok(())
    }

    /// The past of scripts from this height on, in the order of the chain, then own ones that wait.
    pub(super) async fn past(&self, scripts: &[ScriptBuf], from: u32) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let wanted: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
        let tip = self.tip()?;
        let mut past = Vec::new();
        for height in from..=tip.height {
            if height.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
            let Some(at) = self.view().at(height) else { break };
            if self.matches(at, scripts)? {
                let block = self.block(at).await?;
                for tx in block.txdata.iter().filter(|tx| touches(tx, &wanted)) {
                    self.store().put_told(tx, at)?;
                    past.push((tx.clone(), Status::Confirmed { height }));
                }
            }
        }
        let waiting = self.view().waiting().into_iter().filter(|tx| touches(tx, &wanted));
        past.extend(waiting.map(|tx| (tx, Status::Mempool)));
        Ok(past)
    }

    async fn scan(&self, locator: &[BlockHash], scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        let (fork, from) = {
            let view = self.view();
            let lowest = view.headers.first_key_value().map_or(1, |(height, _)| *height);
            let fork = view.fork(locator).or_else(|| view.at(0)).ok_or_else(|| self.away("no header is here yet"))?;
            (fork, lowest.max(fork.height + 1))
        };
        let tip = self.tip()?;
        if from <= tip.height {
            self.need(from).await?;
        }
        let tip = self.tip()?;
        let wanted: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
        let mut steps: Vec<Step> = Vec::new();
        let last = tip.height.min(from.saturating_add(PART_BLOCKS));
        for height in from..=last {
            if height.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
            let (Some(at), block_unix) = ({
                let view = self.view();
                (view.at(height), view.headers.get(&height).map_or(0, |header| header.time))
            }) else {
                break;
            };
            let touching: Vec<Transaction> = if self.matches(at, scripts)? {
                let block = self.block(at).await?;
                let touching: Vec<Transaction> = block.txdata.iter().filter(|tx| touches(tx, &wanted)).cloned().collect();
                let store = self.store();
                for tx in &touching {
                    store.put_told(tx, at)?;
                }
                touching
            } else {
                Vec::new()
            };
            if !touching.is_empty() || height == last {
                steps.push(Step { at, block_unix, found: Found::Touching(touching) });
            }
            if steps.len() >= PART_FOUND {
                break;
            }
        }
        // The chain may have taken another branch in between: then these are no blocks of one chain.
        let whole = {
            let view = self.view();
            view.is_best(fork) && steps.iter().all(|step| view.is_best(step.at))
        };
        if whole { Ok(Scan { fork, steps, tip_height: tip.height }) } else { Err(self.away("the chain changed while it was read")) }
    }

    /// Offers a transaction to peers. That one of them asked for it is all that can be known: no peer says what it does not take.
    async fn send(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        let txid = tx.compute_txid();
        if let Some((_, Status::Confirmed { .. })) = self.transaction(&txid)? {
            return Ok(txid);
        }
        let known = self.view().own(&txid).is_some();
        let requester = self.requester()?;
        let replaced = self.view().add_own(tx);
        {
            let store = self.store();
            store.put_own(tx)?;
            for old in &replaced {
                store.drop_own(old)?;
            }
        }
        self.stir.notify_one();
        if known {
            // Whoever has it already does not ask for it, so there is nothing to wait for.
            let tx = tx.clone();
            tokio::spawn(async move { tokio::time::timeout(WANTED, requester.submit_package(tx)).await.is_ok() });
            return Ok(txid);
        }
        match tokio::time::timeout(WANTED, requester.submit_package(tx.clone())).await {
            Ok(Ok(_)) => Ok(txid),
            Ok(Err(why)) => self.unsent(&txid, why.to_string()),
            Err(_) => self.unsent(&txid, format!("no peer asked for transaction {txid} in {} s", WANTED.as_secs())),
        }
    }

    fn unsent(&self, txid: &Txid, why: String) -> Result<Txid, ChainError> {
        self.view().drop_own(txid);
        self.store().drop_own(txid)?;
        self.stir.notify_one();
        Err(self.away(why))
    }
}
