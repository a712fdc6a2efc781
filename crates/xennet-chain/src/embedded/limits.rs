//! The mempool's bounds: what may be replaced and by whom, how large families grow, what is thrown out when it is full.

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::mempool::{Entry, Mempool};
use super::policy::{MIN_RELAY_SAT_PER_KVB, VERSION_THREE, fee_at};
use crate::Refusal;

/// Most serialized bytes in all.
const MAX_BYTES: usize = 4_000_000;
/// Most transactions in one line of unconfirmed parents and children.
const MAX_FAMILY: usize = 25;
/// Most transactions that one replaces.
const MAX_REPLACED: usize = 100;
/// Sizes under BIP431.
const VERSION_THREE_VBYTES: u64 = 10_000;
const VERSION_THREE_CHILD_VBYTES: u64 = 1_000;

impl Mempool {
    /// What this would replace, if it pays for that (BIP125 rules 3 to 5, without signalling).
    pub(super) fn replaced_by(&self, entry: &Entry) -> Result<BTreeSet<Txid>, Refusal> {
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
    pub(super) fn check_family(&self, entry: &Entry, evicted: &BTreeSet<Txid>) -> Result<(), Refusal> {
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
    pub(super) fn room_for(&self, entry: &Entry, already: &[Txid]) -> Result<Vec<Txid>, Refusal> {
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
}
