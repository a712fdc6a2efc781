//! What Bitcoin Core's words about a refused transaction mean, whoever hands them on. Pure.

use bitcoin::absolute::LockTime;
use bitcoin::{Transaction, Txid};

use crate::Refusal;

/// The most unconfirmed transactions that Bitcoin Core takes into one family.
const MOST_OF_FAMILY: usize = 64;

/// What the words say. Some leave open what only the source can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// All of it.
    All(Refusal),
    /// One of the inputs is missing or spent.
    Missing,
    /// It conflicts with something that waits, and does not pay for the replacement.
    Replacement(Fees),
    /// Its lock time is still to come.
    NotFinal,
    /// Words that are not known here.
    Other,
}

/// What a replacement pays, and what it must, as far as the words say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fees {
    numbers: Option<(u64, u64)>,
    are_rates: bool,
}

impl Fees {
    /// The refusal, once it is known what it conflicts with.
    pub(crate) fn with(self, conflict: Txid) -> Option<Refusal> {
        let (ours, wanted) = self.numbers?;
        Some(if self.are_rates {
            Refusal::ReplacementFeerate { conflict, sat_per_kvb: ours, other_sat_per_kvb: wanted }
        } else {
            Refusal::ReplacementFee { conflict, fee_sat: ours, at_least_sat: wanted }
        })
    }
}

/// Whether the words say that the transaction is known already, waiting or in a block.
pub(crate) fn is_known(reason: &str) -> bool {
    ["txn-already", "already in block chain", "already in utxo set"].iter().any(|words| reason.contains(words))
}

/// The refusal of a lock time that is still to come.
pub(crate) fn not_final(tx: &Transaction, next_height: u32, median_unix: u32) -> Refusal {
    match tx.lock_time {
        LockTime::Blocks(height) => Refusal::NotFinalHeight { lock_height: height.to_consensus_u32(), next_height },
        LockTime::Seconds(time) => Refusal::NotFinalTime { lock_unix: time.to_consensus_u32(), median_unix },
    }
}

/// Reads the words.
pub(crate) fn read(tx: &Transaction, reason: &str) -> Said {
    let known = |refusal: Option<Refusal>| refusal.map_or(Said::Other, Said::All);
    let vbytes = u64::try_from(tx.vsize()).unwrap_or(u64::MAX);
    let numbers = two_amounts(reason);
    let has = |words: &str| reason.contains(words);
    if has("missingorspent") {
        return Said::Missing;
    }
    if has("min relay fee not met") || has("mempool min fee not met") {
        return known(numbers.map(|(fee_sat, at_least_sat)| Refusal::FeeTooLow { fee_sat, vbytes, at_least_sat }));
    }
    if has("rejecting replacement") || has("insufficient feerate") || has("replacement-failed") {
        return Said::Replacement(Fees { numbers, are_rates: has("new feerate") });
    }
    if has("non-final") {
        return Said::NotFinal;
    }
    if has("dust") {
        let mut outputs = tx.output.iter().enumerate();
        let dust =
            outputs.find(|(_, output)| !output.script_pubkey.is_op_return() && output.value < output.script_pubkey.minimal_non_dust());
        return known(dust.map(|(index, output)| Refusal::Dust {
            index,
            sat: output.value.to_sat(),
            at_least_sat: output.script_pubkey.minimal_non_dust().to_sat(),
        }));
    }
    if has("script-verify-flag-failed") {
        let index = reason.split("input ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|digits| digits.parse().ok());
        let input = index.and_then(|index: usize| tx.input.get(index).map(|input| (index, input.previous_output)));
        return known(input.map(|(index, outpoint)| Refusal::Script { index, outpoint }));
    }
    if has("TRUC-violation") {
        return known(version_three(tx, reason));
    }
    if has("too-large-cluster") || has("too-long-mempool-chain") {
        return Said::All(Refusal::FamilyTooLarge { count: MOST_OF_FAMILY + 1, at_most: MOST_OF_FAMILY });
    }
    // A word by itself, for servers wrap others around it.
    if reason.split([' ', ',', ':', '\'', '"']).any(|word| word == "version") {
        return Said::All(Refusal::Version { version: tx.version.0 });
    }
    Said::Other
}

/// Which rule of BIP431 it is.
fn version_three(tx: &Transaction, reason: &str) -> Option<Refusal> {
    if let Some((_, numbers)) = reason.split_once("is too big: ") {
        let mut numbers = numbers.split([' ', ',']).filter_map(|word| word.parse().ok());
        return Some(Refusal::VersionThreeSize { vbytes: numbers.next()?, at_most: numbers.next()? });
    }
    if let Some((_, parent)) = reason.split_once("cannot spend from ") {
        let parent_version = if parent.starts_with("non-version=3") { 2 } else { 3 };
        let parent: Txid = parent.split_once("tx ")?.1.split(' ').next()?.parse().ok()?;
        return Some(Refusal::VersionsMixed { version: tx.version.0, parent, parent_version });
    }
    let family = reason.contains("too many ancestors") || reason.contains("descendant count limit");
    family.then_some(Refusal::VersionThreeFamily)
}

/// The two amounts of a reason such as `…, 0.00000010 < 0.00000020` or `… feerate 0.00001 BTC/kvB <= old feerate 0.00002 BTC/kvB`, or
/// `…, 10 < 20` in satoshi.
fn two_amounts(reason: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = reason.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    let amount = |word: &&str| match word.split_once('.') {
        Some((whole, part)) if part.len() <= 8 => {
            let part: u64 = format!("{part:0<8}").parse().ok()?;
            whole.parse::<u64>().ok()?.checked_mul(100_000_000)?.checked_add(part)
        }
        Some(_) => None,
        None => word.parse().ok(),
    };
    let mid = words.iter().position(|word| matches!(*word, "<" | "<="))?;
    let left = words.get(..mid)?.iter().rev().find_map(amount)?;
    let right = words.get(mid + 1..)?.iter().find_map(amount)?;
    Some((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_amounts_of_a_reason_are_read() {
        for (reason, amounts) in [
            ("min relay fee not met, 10 < 11", Some((10, 11))),
            (
                "insufficient fee, rejecting replacement ab; new feerate 0.00001000 BTC/kvB <= old feerate 0.00002 BTC/kvB",
                Some((1_000, 2_000)),
            ),
            ("insufficient fee, rejecting replacement ab, less fees than conflicting txs; 0.00000100 < 0.00000200", Some((100, 200))),
            ("dust", None),
        ] {
            assert_eq!(two_amounts(reason), amounts, "{reason}");
        }
    }

    #[test]
    fn servers_wrap_others_around_the_words() {
        let tx =
            Transaction { version: bitcoin::transaction::Version(9), lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() };
        for (reason, said) in [
            ("version", Said::All(Refusal::Version { version: 9 })),
            ("the transaction was rejected by network rules.  version [0200]", Said::All(Refusal::Version { version: 9 })),
            ("sendrawtransaction RPC error -25: bad-txns-inputs-missingorspent", Said::Missing),
            ("daemon error: DaemonError({'code': -26, 'message': 'non-final'})", Said::NotFinal),
            ("the transaction was rejected by network rules.  something new [0200]", Said::Other),
        ] {
            assert_eq!(read(&tx, reason), said, "{reason}");
        }
        let fees = |reason| match read(&tx, reason) {
            Said::Replacement(fees) => fees.with(tx.compute_txid()),
            _ => None,
        };
        let conflict = tx.compute_txid();
        assert_eq!(
            fees("insufficient fee, rejecting replacement ab, less fees than conflicting txs; 0.00000100 < 0.00000200"),
            Some(Refusal::ReplacementFee { conflict, fee_sat: 100, at_least_sat: 200 })
        );
        assert!(is_known("Transaction outputs already in utxo set") && is_known("txn-already-in-mempool") && !is_known("dust"));
    }

    #[test]
    fn each_rule_for_version_three_is_told_from_the_others() {
        let tx =
            Transaction { version: bitcoin::transaction::Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() };
        let id = "11".repeat(32);
        let parent: Option<Txid> = id.parse().ok();
        let mixed = |parent_version| parent.map(|parent| Refusal::VersionsMixed { version: 2, parent, parent_version });
        for (reason, refusal) in [
            (
                format!("TRUC-violation, version=3 child tx {id} (wtxid={id}) is too big: 1200 > 1000 virtual bytes"),
                Some(Refusal::VersionThreeSize { vbytes: 1_200, at_most: 1_000 }),
            ),
            (format!("TRUC-violation, non-version=3 tx {id} (wtxid={id}) cannot spend from version=3 tx {id} (wtxid={id})"), mixed(3)),
            (format!("TRUC-violation, version=3 tx {id} (wtxid={id}) cannot spend from non-version=3 tx {id} (wtxid={id})"), mixed(2)),
            (format!("TRUC-violation, tx {id} (wtxid={id}) would have too many ancestors"), Some(Refusal::VersionThreeFamily)),
            (format!("TRUC-violation, tx {id} (wtxid={id}) would exceed descendant count limit"), Some(Refusal::VersionThreeFamily)),
            ("TRUC-violation, something new".to_owned(), None),
        ] {
            assert_eq!(version_three(&tx, &reason), refusal, "{reason}");
        }
    }
}
