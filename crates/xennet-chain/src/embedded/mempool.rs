//! Unconfirmed transactions: a small, bounded mempool with Bitcoin Core's relay rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};

use super::index::{Coin, Index};
use super::kernel::{self, Broken};
use super::policy::{self, MIN_RELAY_SAT_PER_KVB, NextBlock, fee_at};
use crate::Refusal;

/// Most signature operation cost of one transaction, a fifth of a block's.
const MAX_SIGOPS: usize = 16_000;
/// Weight that each unit of signature operation cost counts as at least (Bitcoin Core's `-bytespersigop`).
const WEIGHT_PER_SIGOP: u64 = 20;

/// One transaction of the mempool.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    pub(super) fee_sat: u64,
    pub(super) vbytes: u64,
    pub(super) weight: u64,
    pub(super) sigops: usize,
    pub(super) bytes: usize,
    arrival: u64,
    pub(super) parents: BTreeSet<Txid>,
    pub(super) children: BTreeSet<Txid>,
}

impl Entry {
    /// Satoshi per 1,000 vB, rounded down.
    pub(super) fn sat_per_kvb(&self) -> u64 {
        self.fee_sat.saturating_mul(1000) / self.vbytes.max(1)
    }
}

/// What was thrown out to make room for an accepted transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) replaced: Vec<Txid>,
}

/// The unconfirmed transactions.
#[derive(Default)]
pub(super) struct Mempool {
    pub(super) entries: HashMap<Txid, Entry>,
    pub(super) spends: HashMap<OutPoint, Txid>,
    pub(super) bytes: usize,
    arrivals: u64,
}

impl Mempool {
    pub(super) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// Whether an unconfirmed transaction spends this.
    pub(super) fn spends(&self, outpoint: &OutPoint) -> bool {
        self.spends.contains_key(outpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Txid, &Entry)> {
        self.entries.iter()
    }

    /// All transactions, those that came first first, so that parents come before their children.
    pub(super) fn in_order(&self) -> Vec<Arc<Transaction>> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.arrival);
        entries.into_iter().map(|entry| entry.tx.clone()).collect()
    }

    /// Checks a transaction against all rules and takes it in.
    pub(super) fn accept(&mut self, tx: Transaction, index: &Index, next: NextBlock) -> Result<Accepted, Refusal> {
        let txid = tx.compute_txid();
        kernel::check_shape(&tx).map_err(|why| Refusal::Malformed { why })?;
        if tx.is_coinbase() {
            return Err(Refusal::Malformed { why: "a coinbase outside a block".to_owned() });
        }
        policy::check_form(&tx)?;
        policy::check_final(&tx, next)?;

        let coins = self.coins_spent(&tx, index, next)?;
        policy::check_age(&tx, &coins, index, next)?;
        let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.output).collect();
        policy::check_inputs_form(&tx, &spent)?;
        let entry = self.measure(tx, &spent)?;

        let evicted = self.replaced_by(&entry)?;
        self.check_family(&entry, &evicted)?;
        match kernel::check_transaction(&entry.tx, &spent) {
            Ok(()) => {}
            Err(Broken::Shape(why)) => return Err(Refusal::Malformed { why }),
            Err(Broken::Script(index)) => {
                let outpoint = entry.tx.input.get(index).map(|input| input.previous_output).unwrap_or_default();
                return Err(Refusal::Script { index, outpoint });
            }
        }
        let mut replaced: Vec<Txid> = evicted.into_iter().collect();
        replaced.extend(self.room_for(&entry, &replaced)?);
        for gone in &replaced {
            self.remove(gone);
        }
        self.insert(txid, entry);
        Ok(Accepted { replaced })
    }

    /// Removes a transaction, and what descends from it, and returns those removed.
    pub(super) fn remove_family(&mut self, txid: &Txid) -> Vec<Txid> {
        let mut gone: Vec<Txid> = self.descendants(txid).into_iter().collect();
        if self.entries.contains_key(txid) {
            gone.push(*txid);
        }
        for one in &gone {
            self.remove(one);
        }
        gone
    }

    /// A block took these in: they leave, and so does what conflicts with them. Returns the conflicting ones.
    pub(super) fn confirm(&mut self, txs: &[Transaction]) -> Vec<Txid> {
        let mut conflicting = Vec::new();
        for tx in txs {
            self.remove(&tx.compute_txid());
            for input in &tx.input {
                if let Some(other) = self.spends.get(&input.previous_output).copied() {
                    conflicting.extend(self.remove_family(&other));
                }
            }
        }
        conflicting
    }

    /// Ancestors of a transaction in the mempool, without itself.
    pub(super) fn ancestors(&self, parents: &BTreeSet<Txid>) -> HashSet<Txid> {
        self.walk(parents, |entry| &entry.parents)
    }

    pub(super) fn descendants(&self, txid: &Txid) -> HashSet<Txid> {
        self.entries.get(txid).map(|entry| self.walk(&entry.children, |entry| &entry.children)).unwrap_or_default()
    }

    fn walk(&self, from: &BTreeSet<Txid>, next: impl Fn(&Entry) -> &BTreeSet<Txid>) -> HashSet<Txid> {
        let mut found = HashSet::new();
        let mut open: Vec<Txid> = from.iter().copied().collect();
        while let Some(txid) = open.pop() {
            let Some(entry) = self.entries.get(&txid) else { continue };
            if found.insert(txid) {
                open.extend(next(entry));
            }
        }
        found
    }

    fn coins_spent(&self, tx: &Transaction, index: &Index, next: NextBlock) -> Result<Vec<Coin>, Refusal> {
        let coin = |input: &bitcoin::TxIn| {
            let outpoint = input.previous_output;
            if let Some(coin) = index.coin(&outpoint) {
                return Ok(coin.clone());
            }
            let parent = self.entries.get(&outpoint.txid);
            let output = parent.and_then(|entry| entry.tx.output.get(usize::try_from(outpoint.vout).ok()?));
            match (output, index.spender(&outpoint)) {
                (Some(output), _) => Ok(Coin { output: output.clone(), height: next.height, is_coinbase: false }),
                (None, Some(by)) => Err(Refusal::SpentInput { outpoint, by }),
                (None, None) => Err(Refusal::UnknownInput { outpoint }),
            }
        };
        tx.input.iter().map(coin).collect()
    }

    fn measure(&self, tx: Transaction, spent: &[TxOut]) -> Result<Entry, Refusal> {
        let in_sat: u64 = spent.iter().map(|output| output.value.to_sat()).fold(0, u64::saturating_add);
        let out_sat: u64 = tx.output.iter().map(|output| output.value.to_sat()).fold(0, u64::saturating_add);
        let fee_sat = in_sat.checked_sub(out_sat).ok_or(Refusal::Overspent { in_sat, out_sat })?;
        let by_outpoint: HashMap<OutPoint, &TxOut> = tx.input.iter().map(|input| input.previous_output).zip(spent).collect();
        let sigops = tx.total_sigop_cost(|outpoint| by_outpoint.get(outpoint).map(|output| (*output).clone()));
        if sigops > MAX_SIGOPS {
            return Err(Refusal::Sigops { cost: sigops, at_most: MAX_SIGOPS });
        }
        // Where signatures to check are many for its size, they are what it is measured by.
        let by_sigops = u64::try_from(sigops).unwrap_or(u64::MAX).saturating_mul(WEIGHT_PER_SIGOP);
        let vbytes = tx.weight().to_wu().max(by_sigops).div_ceil(4);
        let at_least_sat = fee_at(MIN_RELAY_SAT_PER_KVB, vbytes);
        if fee_sat < at_least_sat {
            return Err(Refusal::FeeTooLow { fee_sat, vbytes, at_least_sat });
        }
        let parents = tx.input.iter().map(|input| input.previous_output.txid);
        Ok(Entry {
            fee_sat,
            vbytes,
            weight: tx.weight().to_wu(),
            sigops,
            bytes: tx.total_size(),
            arrival: self.arrivals,
            parents: parents.filter(|txid| self.entries.contains_key(txid)).collect(),
            children: BTreeSet::new(),
            tx: Arc::new(tx),
        })
    }

    fn insert(&mut self, txid: Txid, entry: Entry) {
        for input in &entry.tx.input {
            self.spends.insert(input.previous_output, txid);
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.insert(txid);
            }
        }
        self.bytes += entry.bytes;
        self.arrivals += 1;
        self.entries.insert(txid, entry);
    }

    fn remove(&mut self, txid: &Txid) {
        let Some(entry) = self.entries.remove(txid) else { return };
        self.bytes -= entry.bytes;
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
    }
}
