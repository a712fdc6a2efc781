//! Unconfirmed transactions: a small, bounded mempool with Bitcoin Core's relay rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, TxOut, Txid};

use super::index::{Coin, Index};
use super::kernel::{self, Broken};
use super::policy::{self, MIN_RELAY_SAT_PER_KVB, NextBlock, VERSION_THREE, fee_at};
use crate::Refusal;

/// Most serialized bytes in all.
const MAX_BYTES: usize = 4_000_000;
/// Most transactions in one line of unconfirmed parents and children.
const MAX_FAMILY: usize = 25;
/// Most transactions that one replaces.
const MAX_REPLACED: usize = 100;
/// Most signature operation cost of one transaction, a fifth of a block's.
const MAX_SIGOPS: usize = 16_000;
/// Sizes under BIP431.
const VERSION_THREE_VBYTES: u64 = 10_000;
const VERSION_THREE_CHILD_VBYTES: u64 = 1_000;

/// One transaction of the mempool.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    pub(super) fee_sat: u64,
    pub(super) vbytes: u64,
    pub(super) weight: u64,
    pub(super) sigops: usize,
    bytes: usize,
    arrival: u64,
    pub(super) parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
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
    entries: HashMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    bytes: usize,
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

    fn descendants(&self, txid: &Txid) -> HashSet<Txid> {
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
        let vbytes = u64::try_from(tx.vsize()).unwrap_or(u64::MAX);
        let at_least_sat = fee_at(MIN_RELAY_SAT_PER_KVB, vbytes);
        if fee_sat < at_least_sat {
            return Err(Refusal::FeeTooLow { fee_sat, vbytes, at_least_sat });
        }
        let by_outpoint: HashMap<OutPoint, &TxOut> = tx.input.iter().map(|input| input.previous_output).zip(spent).collect();
        let sigops = tx.total_sigop_cost(|outpoint| by_outpoint.get(outpoint).map(|output| (*output).clone()));
        if sigops > MAX_SIGOPS {
            return Err(Refusal::Sigops { cost: sigops, at_most: MAX_SIGOPS });
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

    /// What this would replace, if it pays for that (BIP125 rules 3 to 5, without signalling).
    fn replaced_by(&self, entry: &Entry) -> Result<BTreeSet<Txid>, Refusal> {
        let conflicts: BTreeSet<Txid> =
            entry.tx.input.iter().filter_map(|input| self.spends.get(&input.previous_output).copied()).collect();
        let Some(conflict) = conflicts.first().copied() else { return Ok(BTreeSet::new()) };
        let mut evicted = conflicts.clone();
        for one in &conflicts {
            evicted.extend(self.descendants(one));
        }
        if evicted.len() > MAX_REPLACED {
            return Err(Refusal::ReplacementTooWide { count: evicted.len(), at_most: MAX_REPLACED });
        }
        if let Some(parent) = self.ancestors(&entry.parents).into_iter().find(|txid| evicted.contains(txid)) {
            return Err(Refusal::ReplacesItsParent { conflict: parent });
        }
        for one in &conflicts {
            let other_sat_per_kvb = self.entries.get(one).map_or(0, Entry::sat_per_kvb);
            let sat_per_kvb = entry.sat_per_kvb();
            if sat_per_kvb <= other_sat_per_kvb {
                return Err(Refusal::ReplacementFeerate { conflict: *one, sat_per_kvb, other_sat_per_kvb });
            }
        }
        let others: u64 = evicted.iter().filter_map(|txid| self.entries.get(txid)).map(|entry| entry.fee_sat).sum();
        let at_least_sat = others.saturating_add(fee_at(MIN_RELAY_SAT_PER_KVB, entry.vbytes));
        if entry.fee_sat < at_least_sat {
            return Err(Refusal::ReplacementFee { conflict, fee_sat: entry.fee_sat, at_least_sat });
        }
        Ok(evicted)
    }

    /// Bounds on lines of unconfirmed transactions, and the rules of version 3 (BIP431).
    fn check_family(&self, entry: &Entry, evicted: &BTreeSet<Txid>) -> Result<(), Refusal> {
        let ancestors = self.ancestors(&entry.parents);
        let count = ancestors.len() + 1;
        if count > MAX_FAMILY {
            return Err(Refusal::FamilyTooLarge { count, at_most: MAX_FAMILY });
        }
        for ancestor in &ancestors {
            let count = self.descendants(ancestor).into_iter().filter(|txid| !evicted.contains(txid)).count() + 2;
            if count > MAX_FAMILY {
                return Err(Refusal::FamilyTooLarge { count, at_most: MAX_FAMILY });
            }
        }
        let version = entry.tx.version;
        for parent in &entry.parents {
            let Some(other) = self.entries.get(parent) else { continue };
            let parent_version = other.tx.version;
            if (version == VERSION_THREE) != (parent_version == VERSION_THREE) {
                return Err(Refusal::VersionsMixed { version: version.0, parent: *parent, parent_version: parent_version.0 });
            }
        }
        if version != VERSION_THREE {
            return Ok(());
        }
        let at_most = if entry.parents.is_empty() { VERSION_THREE_VBYTES } else { VERSION_THREE_CHILD_VBYTES };
        if entry.vbytes > at_most {
            return Err(Refusal::VersionThreeSize { vbytes: entry.vbytes, at_most });
        }
        let siblings = entry.parents.iter().flat_map(|parent| self.descendants(parent));
        if ancestors.len() > 1 || siblings.into_iter().any(|txid| !evicted.contains(&txid)) {
            return Err(Refusal::VersionThreeFamily);
        }
        Ok(())
    }

    /// Which to throw out so that this one fits: those that pay least and have no children.
    fn room_for(&self, entry: &Entry, already: &[Txid]) -> Result<Vec<Txid>, Refusal> {
        let freed: usize = already.iter().filter_map(|txid| self.entries.get(txid)).map(|entry| entry.bytes).sum();
        let mut over = (self.bytes - freed + entry.bytes).saturating_sub(MAX_BYTES);
        let mut thrown = Vec::new();
        if over == 0 {
            return Ok(thrown);
        }
        let ancestors = self.ancestors(&entry.parents);
        let mut leaves: Vec<(u64, Txid, usize)> = self
            .entries
            .iter()
            .filter(|(txid, other)| other.children.is_empty() && !ancestors.contains(*txid) && !already.contains(txid))
            .map(|(txid, other)| (other.sat_per_kvb(), *txid, other.bytes))
            .collect();
        leaves.sort_unstable();
        let mut leaves = leaves.into_iter();
        while over > 0 {
            let least = leaves.next().filter(|(sat_per_kvb, ..)| *sat_per_kvb < entry.sat_per_kvb());
            let Some((_, txid, bytes)) = least else {
                let least_sat_per_kvb = self.entries.values().map(Entry::sat_per_kvb).min().unwrap_or(0);
                return Err(Refusal::Full { sat_per_kvb: entry.sat_per_kvb(), least_sat_per_kvb });
            };
            over = over.saturating_sub(bytes);
            thrown.push(txid);
        }
        Ok(thrown)
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
