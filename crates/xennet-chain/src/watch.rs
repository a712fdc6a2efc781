//! Turns what happens on the chain into what a daemon wants to hear. Pure, and the same for every source.

use std::collections::{HashMap, HashSet, VecDeque};

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use crate::{ChainEvent, Status, payload_of};

/// Blocks remembered to notice what a reorganisation takes back. Far more than Bitcoin has ever taken back.
const REMEMBERED: usize = 288;

/// A remembered block and what was said of it.
#[derive(Debug)]
struct Remembered {
    height: u32,
    hash: BlockHash,
    told: Vec<Txid>,
}

/// What is watched, and what was already told.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    scripts: HashSet<ScriptBuf>,
    /// Outputs that pay a watched script.
    outputs: HashMap<OutPoint, ScriptBuf>,
    recent: VecDeque<Remembered>,
    told: HashMap<Txid, Status>,
}

impl Watcher {
    /// Tells of whatever pays to or spends from this script from now on.
    pub(crate) fn watch(&mut self, script: ScriptBuf) {
        self.scripts.insert(script);
    }

    /// Forgets a script.
    pub(crate) fn unwatch(&mut self, script: &ScriptBuf) {
        self.scripts.remove(script);
        self.outputs.retain(|_, paid| paid != script);
    }

    /// All watched scripts.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.scripts.iter()
    }

    /// Where this watcher is, for a source to find the newest block that both know: dense at first, then sparse.
    pub(crate) fn locator(&self) -> Vec<BlockHash> {
        let mut locator = Vec::new();
        let (mut back, mut step) = (1, 1);
        while let Some(at) = self.recent.len().checked_sub(back) {
            locator.extend(self.recent.get(at).map(|block| block.hash));
            if locator.len() > 10 {
                step *= 2;
            }
            back += step;
        }
        locator.extend(self.recent.front().map(|block| block.hash));
        locator
    }

    /// The newest known block.
    pub(crate) fn tip(&self) -> Option<(u32, BlockHash)> {
        self.recent.back().map(|block| (block.height, block.hash))
    }

    /// Begins after this block, or goes back to it.
    pub(crate) fn rewind(&mut self, height: u32, hash: BlockHash) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        while self.recent.back().is_some_and(|block| block.height > height || block.hash != hash) {
            events.extend(self.forget_newest());
        }
        if self.recent.is_empty() {
            self.recent.push_back(Remembered { height, hash, told: Vec::new() });
        }
        events
    }

    /// A block was added to the chain.
    pub(crate) fn connected(&mut self, height: u32, block: &Block) -> Vec<ChainEvent> {
        self.passed(height, block.block_hash(), &block.txdata)
    }

    /// A block was added to the chain, and nothing in it matters but at most these transactions.
    pub(crate) fn passed<'a>(&mut self, height: u32, hash: BlockHash, txs: impl IntoIterator<Item = &'a Transaction>) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        let mut told = Vec::new();
        for tx in txs {
            let txid = tx.compute_txid();
            if self.tell(txid, tx, Status::Confirmed { height }, &mut events) {
                told.push(txid);
            }
        }
        self.recent.push_back(Remembered { height, hash, told });
        while self.recent.len() > REMEMBERED {
            if let Some(old) = self.recent.pop_front() {
                for txid in old.told {
                    self.told.remove(&txid);
                }
            }
        }
        events
    }

    /// The newest block was taken back.
    pub(crate) fn disconnected(&mut self, hash: BlockHash) -> Vec<ChainEvent> {
        match self.recent.back() {
            Some(block) if block.hash == hash => self.forget_newest(),
            _ => Vec::new(),
        }
    }

    /// A transaction came into the mempool.
    pub(crate) fn entered(&mut self, tx: &Transaction) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        self.tell(tx.compute_txid(), tx, Status::Mempool, &mut events);
        events
    }

    /// A transaction left the mempool unconfirmed.
    pub(crate) fn left(&mut self, txid: Txid) -> Vec<ChainEvent> {
        match self.told.get(&txid) {
            Some(Status::Mempool) => {
                self.told.remove(&txid);
                vec![ChainEvent::Gone { txid }]
            }
            _ => Vec::new(),
        }
    }

    /// Nothing else is in the mempool.
    pub(crate) fn only_waiting(&mut self, present: &HashSet<Txid>) -> Vec<ChainEvent> {
        let absent = self.told.iter().filter(|(txid, status)| **status == Status::Mempool && !present.contains(*txid));
        let absent: Vec<Txid> = absent.map(|(txid, _)| *txid).collect();
        absent.into_iter().flat_map(|txid| self.left(txid)).collect()
    }

    /// This, and only this, is in the mempool.
    pub(crate) fn mempool_is<'a>(&mut self, txs: impl IntoIterator<Item = &'a Transaction>) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        let mut present = HashSet::new();
        for tx in txs {
            present.insert(tx.compute_txid());
            events.extend(self.entered(tx));
        }
        events.extend(self.only_waiting(&present));
        events
    }

    /// The past of a watched script, in the order of the chain.
    pub(crate) fn history<'a>(&mut self, past: impl IntoIterator<Item = (&'a Transaction, Status)>) -> Vec<ChainEvent> {
        let mut events = Vec::new();
        for (tx, status) in past {
            let txid = tx.compute_txid();
            if !self.tell(txid, tx, status, &mut events) {
                continue;
            }
            if let Status::Confirmed { height } = status {
                match self.recent.iter_mut().find(|block| block.height == height) {
                    Some(block) if !block.told.contains(&txid) => block.told.push(txid),
                    Some(_) => {}
                    // Too deep for a reorganisation, so that it need not be remembered.
                    None => {
                        self.told.remove(&txid);
                    }
                }
            }
        }
        events
    }

    /// Tells of a transaction if it matters. Returns whether it matters.
    fn tell(&mut self, txid: Txid, tx: &Transaction, status: Status, events: &mut Vec<ChainEvent>) -> bool {
        let mut touches = tx.input.iter().any(|input| self.outputs.contains_key(&input.previous_output));
        for (vout, output) in tx.output.iter().enumerate() {
            if self.scripts.contains(&output.script_pubkey) {
                touches = true;
                let at = OutPoint::new(txid, u32::try_from(vout).unwrap_or(u32::MAX));
                self.outputs.insert(at, output.script_pubkey.clone());
            }
        }
        let payload = payload_of(tx);
        if !touches && payload.is_none() {
            return false;
        }
        let before = self.told.insert(txid, status);
        if before != Some(status) {
            if let Some(payload) = payload {
                events.push(ChainEvent::Announcement { tx: tx.clone(), payload: payload.to_vec(), status });
            }
            if touches {
                events.push(ChainEvent::Seen { tx: tx.clone(), status });
            }
        }
        true
    }

    fn forget_newest(&mut self) -> Vec<ChainEvent> {
        let told = self.recent.pop_back().map(|block| block.told).unwrap_or_default();
        told.into_iter().rev().filter_map(|txid| self.told.remove(&txid).map(|_| ChainEvent::Gone { txid })).collect()
    }
}
