//! What to pay, as far as one without a mempool can know.

use std::time::Duration;

use bitcoin::{Block, Network};

use super::Shared;
use crate::ChainError;
use crate::estimate::LEAST_SAT_PER_KVB;

/// How long an estimate holds, and how many blocks it is of.
const ESTIMATE_FOR: Duration = Duration::from_secs(600);
const ESTIMATE_BLOCKS: u32 = 3;
/// How long an answer of the part that speaks with peers may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What the first blocks make anew, satoshi.
const FIRST_SUBSIDY_SAT: u64 = 5_000_000_000;

impl Shared {
    /// What to pay, from the last blocks and from what peers say they relay.
    pub(super) async fn feerate(&self) -> Result<u64, ChainError> {
        if let Some(feerate) = self.feerate.younger_than(ESTIMATE_FOR) {
            return Ok(feerate);
        }
        let requester = self.requester()?;
        let relayed = tokio::time::timeout(ANSWER, requester.broadcast_min_feerate()).await;
        let relayed = relayed.map_err(|_| self.away("no peer says what it relays"))?.map_err(|why| self.away(why.to_string()))?;
        let tip = self.tip()?;
        let mut averages = Vec::new();
        for height in tip.height.saturating_sub(ESTIMATE_BLOCKS - 1).max(1)..=tip.height {
            let Some(at) = self.view().at(height) else { break };
            averages.push(average(&*self.block(at).await?, subsidy_sat(self.settings.network, height)));
        }
        let feerate = estimate(&averages, relayed.to_sat_per_kwu().saturating_mul(4));
        self.feerate.keep(feerate);
        Ok(feerate)
    }
}

/// The lowest average of the blocks, for a full block's average is more than its cheapest transaction paid. What peers say they
/// relay counts up to the highest of them: blocks cost work, and a peer's word is free.
fn estimate(averages: &[u64], relayed: u64) -> u64 {
    let lowest = averages.iter().min().copied().unwrap_or(0);
    let highest = averages.iter().max().copied().unwrap_or(0);
    lowest.max(relayed.min(highest)).max(LEAST_SAT_PER_KVB)
}

/// What a block's transactions paid on average, satoshi per 1,000 virtual bytes.
fn average(block: &Block, subsidy_sat: u64) -> u64 {
    let revenue_sat = block
        .txdata
        .first()
        .map_or(0, |coinbase| coinbase.output.iter().fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat())));
    let fees_sat = revenue_sat.saturating_sub(subsidy_sat);
    let vbytes = block.weight().to_vbytes_ceil().max(1);
    u64::try_from(u128::from(fees_sat) * 1_000 / u128::from(vbytes)).unwrap_or(u64::MAX)
}

fn subsidy_sat(network: Network, height: u32) -> u64 {
    let interval = if network == Network::Regtest { 150 } else { 210_000 };
    FIRST_SUBSIDY_SAT.checked_shr(height / interval).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_word_raises_the_feerate_at_most_to_what_a_block_has_paid() {
        assert_eq!(estimate(&[5_000, 9_000, 7_000], 0), 5_000);
        assert_eq!(estimate(&[5_000, 9_000, 7_000], 6_000), 6_000);
        assert_eq!(estimate(&[5_000, 9_000, 7_000], u64::MAX), 9_000);
        assert_eq!(estimate(&[0, 0, 0], u64::MAX), 1_000, "a quiet chain");
        assert_eq!(estimate(&[], u64::MAX), 1_000);
    }

    #[test]
    fn what_is_above_the_subsidy_is_fees() {
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        assert_eq!(average(&block, subsidy_sat(Network::Regtest, 149)), 0);
        let fees_sat = 2_500_000_000;
        assert_eq!(average(&block, subsidy_sat(Network::Regtest, 150)), fees_sat * 1_000 / block.weight().to_vbytes_ceil());
        // What no valid block pays does no harm either.
        block.txdata[0].output = vec![bitcoin::TxOut { value: bitcoin::Amount::MAX, script_pubkey: bitcoin::ScriptBuf::new() }; 3];
        assert!(average(&block, 0) > fees_sat);
        for (height, sat) in [(0, 5_000_000_000), (210_000, 2_500_000_000), (840_000, 312_500_000), (u32::MAX, 0)] {
            assert_eq!(subsidy_sat(Network::Bitcoin, height), sat);
        }
    }
}
