//! What is remembered of bitcoind's mempool: which transactions, and which scripts each touches, in a few bytes each.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use bitcoin::{Script, ScriptBuf, Transaction, Txid};

use crate::source::spent_script;

/// Most transactions remembered. Bitcoin Core's default mempool of 300 MB holds fewer.
pub(super) const MAX_POOL: usize = 900_000;
/// Most scripts remembered of one transaction; of 900,000 that is at most some hundred MB, and in practice 30 MB.
const MAX_SCRIPTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Keyed, so that no stranger can make two scripts look the same.
    hasher: RandomState,
    marks: HashMap<Txid, Box<[u64]>>,
}

impl Pool {
    pub(super) fn knows(&self, txid: &Txid) -> bool {
        self.marks.contains_key(txid)
    }

    pub(super) fn add(&mut self, txid: Txid, tx: &Transaction) {
        let paid = tx.output.iter().map(|output| self.mark(&output.script_pubkey));
        let spent = tx.input.iter().filter_map(spent_script).map(|script| self.mark(&script));
        // Spends first: those are few, and what one waits for.
        let marks: Box<[u64]> = spent.chain(paid).take(MAX_SCRIPTS).collect();
        if self.marks.len() < MAX_POOL {
            self.marks.insert(txid, marks);
        }
    }

    pub(super) fn forget(&mut self, txid: &Txid) {
        self.marks.remove(txid);
    }

    pub(super) fn retain(&mut self, present: &HashSet<Txid>) {
        self.marks.retain(|txid, _| present.contains(txid));
    }

    pub(super) fn all(&self) -> Vec<Txid> {
        self.marks.keys().copied().collect()
    }

    /// Transactions that may touch one of the scripts.
    pub(super) fn candidates(&self, scripts: &[ScriptBuf]) -> Vec<Txid> {
        let wanted: HashSet<u64> = scripts.iter().map(|script| self.mark(script)).collect();
        let hits = self.marks.iter().filter(|(_, marks)| marks.iter().any(|mark| wanted.contains(mark)));
        hits.map(|(txid, _)| *txid).collect()
    }

    fn mark(&self, script: &Script) -> u64 {
        self.hasher.hash_one(script)
    }
}
