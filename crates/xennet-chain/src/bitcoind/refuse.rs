//! Sends transactions, and says why bitcoind does not take one, in our own words.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, Transaction, Txid};
use serde_json::{Value, json};

use super::Shared;
use super::rpc::Failed;
use crate::{ChainError, Refusal};

/// bitcoind's codes: inputs missing or spent, a rule broken, already in the chain.
const MISSING: i64 = -25;
const REJECTED: i64 = -26;
const IN_CHAIN: i64 = -27;
/// The most unconfirmed transactions that bitcoind takes into one family.
const MOST_OF_FAMILY: usize = 64;

impl Shared {
    /// Sends a transaction; one that is known already is sent.
    pub(super) async fn send(&self, tx: &Transaction) -> Result<(), ChainError> {
        // No limit of its own on the feerate: what may be paid is decided before, by the caller's cap.
        match self.rpc.call("sendrawtransaction", json!([serialize_hex(tx), 0])).await {
            Ok(_) | Err(Failed::Refused { code: IN_CHAIN, .. }) => Ok(()),
            Err(Failed::Refused { code: MISSING | REJECTED, message })
                if message.contains("txn-already") || self.transaction_is_there(tx, &message).await? =>
            {
                Ok(())
            }
            Err(Failed::Refused { code: MISSING | REJECTED, message }) => {
                let why = self.refusal(tx, &message).await?;
                Err(ChainError::Refused { txid: tx.compute_txid(), why })
            }
            Err(Failed::Refused { code: -22, message }) => {
                Err(ChainError::Refused { txid: tx.compute_txid(), why: Refusal::Malformed { why: message } })
            }
            Err(why) => Err(self.rpc.plain("sendrawtransaction", why)),
        }
    }

    /// A confirmed transaction whose outputs are all spent is unknown to bitcoind, and so are its inputs.
    async fn transaction_is_there(&self, tx: &Transaction, message: &str) -> Result<bool, ChainError> {
        if !message.contains("missingorspent") {
            return Ok(false);
        }
        let scripts: Vec<_> = tx.output.iter().map(|output| output.script_pubkey.clone()).filter(|script| !script.is_op_return()).collect();
        let txid = tx.compute_txid();
        Ok(self.past(&scripts).await?.iter().any(|(known, _)| known.compute_txid() == txid))
    }

    async fn refusal(&self, tx: &Transaction, reason: &str) -> Result<Refusal, ChainError> {
        let other = || Refusal::Other { reason: reason.to_owned() };
        let vbytes = u64::try_from(tx.vsize()).unwrap_or(u64::MAX);
        let numbers = two_amounts(reason);
        let has = |words: &str| reason.contains(words);
        if has("missingorspent") {
            for input in &tx.input {
                let at = input.previous_output;
                if self.rpc.ask("gettxout", json!([at.txid, at.vout, true])).await?.is_null() {
                    return Ok(Refusal::MissingOrSpent { outpoint: at });
                }
            }
            return Ok(other());
        }
        if has("min relay fee not met") || has("mempool min fee not met") {
            return Ok(numbers.map_or_else(other, |(fee_sat, at_least_sat)| Refusal::FeeTooLow { fee_sat, vbytes, at_least_sat }));
        }
        if has("rejecting replacement") || has("insufficient feerate") || has("replacement-failed") {
            let Some(conflict) = self.conflict(tx).await? else { return Ok(other()) };
            return Ok(match numbers {
                Some((sat_per_kvb, other_sat_per_kvb)) if has("new feerate") => {
                    Refusal::ReplacementFeerate { conflict, sat_per_kvb, other_sat_per_kvb }
                }
                Some((fee_sat, at_least_sat)) => Refusal::ReplacementFee { conflict, fee_sat, at_least_sat },
                None => other(),
            });
        }
        if has("non-final") {
            let info = self.rpc.ask("getblockchaininfo", json!([])).await?;
            return Ok(match tx.lock_time {
                LockTime::Blocks(height) => Refusal::NotFinalHeight {
                    lock_height: height.to_consensus_u32(),
                    next_height: self.rpc.field::<u32>(&info, "blocks")?.saturating_add(1),
                },
                LockTime::Seconds(time) => {
                    Refusal::NotFinalTime { lock_unix: time.to_consensus_u32(), median_unix: self.rpc.field(&info, "mediantime")? }
                }
            });
        }
        if has("dust") {
            let dust = tx
                .output
                .iter()
                .enumerate()
                .find(|(_, output)| !output.script_pubkey.is_op_return() && output.value < output.script_pubkey.minimal_non_dust());
            return Ok(dust.map_or_else(other, |(index, output)| Refusal::Dust {
                index,
                sat: output.value.to_sat(),
                at_least_sat: output.script_pubkey.minimal_non_dust().to_sat(),
            }));
        }
        if has("script-verify-flag-failed") {
            let index = reason.split("input ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|digits| digits.parse().ok());
            let input = index.and_then(|index: usize| tx.input.get(index).map(|input| (index, input.previous_output)));
            return Ok(input.map_or_else(other, |(index, outpoint)| Refusal::Script { index, outpoint }));
        }
        if has("TRUC-violation") {
            return Ok(version_three(tx, reason).unwrap_or_else(other));
        }
        if has("too-large-cluster") || has("too-long-mempool-chain") {
            return Ok(Refusal::FamilyTooLarge { count: MOST_OF_FAMILY + 1, at_most: MOST_OF_FAMILY });
        }
        if reason == "version" {
            return Ok(Refusal::Version { version: tx.version.0 });
        }
        Ok(other())
    }

    /// What in the mempool spends one of the same coins.
    async fn conflict(&self, tx: &Transaction) -> Result<Option<Txid>, ChainError> {
        let coin = |at: OutPoint| json!({ "txid": at.txid, "vout": at.vout });
        let coins: Vec<Value> = tx.input.iter().map(|input| coin(input.previous_output)).collect();
        let answer = self.rpc.ask("gettxspendingprevout", json!([coins])).await?;
        let spenders = answer.as_array().into_iter().flatten().filter_map(|spent| spent.get("spendingtxid"));
        Ok(spenders.filter_map(Value::as_str).find_map(|txid| txid.parse().ok()))
    }
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
