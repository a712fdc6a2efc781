//! What to pay, as far as the word of one server is worth it.

use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;
use super::line::{Failed, Line};
use crate::ChainError;
use crate::estimate::LEAST_SAT_PER_KVB;

/// How long an estimate holds.
const ESTIMATE_FOR: Duration = Duration::from_secs(60);
/// Blocks that an estimate aims at.
const TARGET_BLOCKS: u32 = 2;
/// What goes into a block, virtual bytes.
const BLOCK_VBYTES: u64 = 1_000_000;
/// The most that is believed: above the dearest days that there were.
const MOST_SAT_PER_KVB: u64 = 1_000_000;
/// The most that a server may want for relaying at all.
const MOST_RELAY_SAT_PER_KVB: u64 = 10_000;

impl Shared {
    pub(super) async fn feerate(&self) -> Result<u64, ChainError> {
        if let Some(feerate) = self.feerate.younger_than(ESTIMATE_FOR) {
            return Ok(feerate);
        }
        let line = self.line()?;
        let relayed = sat_per_kvb(&self.optional(&line, "blockchain.relayfee", json!([])).await?);
        let estimated = sat_per_kvb(&self.optional(&line, "blockchain.estimatefee", json!([TARGET_BLOCKS])).await?);
        let waiting = next_block(&self.optional(&line, "mempool.get_fee_histogram", json!([])).await?);
        let feerate = estimate(estimated, waiting, relayed);
        self.feerate.keep(feerate);
        Ok(feerate)
    }

    /// Nothing where the server does not know the question.
    async fn optional(&self, line: &Line, method: &str, params: Value) -> Result<Value, ChainError> {
        match line.call(method, params).await {
            Ok(answer) => Ok(answer),
            Err(Failed::Refused(_)) => Ok(Value::Null),
            Err(Failed::For(why)) => Err(why),
        }
    }
}

/// The server's estimate, no higher than twice what it says that the next block's cheapest pays; without an estimate that; and within
/// what is believed at all.
fn estimate(estimated: Option<u64>, waiting: Option<u64>, relayed: Option<u64>) -> u64 {
    let feerate = match (estimated, waiting) {
        (Some(estimated), Some(waiting)) => estimated.min(waiting.saturating_mul(2)),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    };
    let least = relayed.unwrap_or(0).clamp(LEAST_SAT_PER_KVB, MOST_RELAY_SAT_PER_KVB);
    feerate.clamp(least, MOST_SAT_PER_KVB)
}

/// A figure in bitcoin per 1,000 bytes; `None` if it is none, such as −1.
fn sat_per_kvb(answer: &Value) -> Option<u64> {
    let amount = bitcoin::Amount::from_btc(answer.as_f64().filter(|btc| *btc > 0.0 && *btc < 21.0)?);
    amount.ok().map(bitcoin::Amount::to_sat)
}

/// What the cheapest in the next block pays, by the server's list of `[sat/vB, virtual bytes]`, the dearest first; `None` if all that waits
/// fits into one.
fn next_block(answer: &Value) -> Option<u64> {
    let mut vbytes = 0u64;
    for entry in answer.as_array()? {
        vbytes = vbytes.saturating_add(entry.get(1)?.as_u64()?);
        if vbytes >= BLOCK_VBYTES {
            let feerate = entry.get(0)?.as_f64().filter(|feerate| *feerate >= 0.0 && *feerate < 1e6)?;
            return format!("{:.0}", feerate * 1_000.0).parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_word_counts_within_bounds() {
        assert_eq!(sat_per_kvb(&json!(0.000_123_45)), Some(12_345));
        for nothing in [json!(-1), json!(0), json!(1e300), json!("1"), Value::Null] {
            assert_eq!(sat_per_kvb(&nothing), None, "{nothing}");
        }
        let histogram = json!([[50.5, 400_000], [20, 400_000], [7.25, 400_000], [1, 9_000_000]]);
        assert_eq!(next_block(&histogram), Some(7_250));
        assert_eq!(next_block(&json!([[1, 200]])), None, "one block takes it all");
        assert_eq!(next_block(&json!([["x"]])), None);
        assert_eq!(estimate(Some(12_345), None, Some(1_000)), 12_345);
        assert_eq!(estimate(Some(90_000), Some(7_250), None), 14_500);
        assert_eq!(estimate(None, Some(7_250), None), 7_250);
        assert_eq!(estimate(None, None, Some(100)), 1_000);
        assert_eq!(estimate(None, None, Some(u64::MAX)), 10_000);
        assert_eq!(estimate(Some(u64::MAX), None, None), 1_000_000);
    }
}
