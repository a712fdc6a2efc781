//! What a header must be to follow another one: the link, the difficulty that the network demands, the work, the time.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::block::Header;
use bitcoin::consensus::Params;
use bitcoin::{BlockHash, CompactTarget, Network};

/// Blocks between two changes of the difficulty.
pub(super) const PERIOD: u32 = 2_016;
/// A block's time is after the median of so many before it.
const MEDIAN_OF: usize = 11;
/// How far a block's time may be ahead of the clock here.
const AHEAD: Duration = Duration::from_secs(7_200);
/// On a test network, a block that comes so late needs no work to speak of, seconds.
const LATE_S: u32 = 1_200;
/// How far the first time of a period may lie before the last of the period before (BIP94), seconds.
const BACK_S: u32 = 600;

/// The end of a chain of headers, and what follows from it for the next one.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    network: Network,
    params: Params,
    height: u32,
    hash: BlockHash,
    last: Header,
    /// The first header of the period that the last one is in; `None` where the chain here begins in the middle of one.
    first: Option<Header>,
    /// The difficulty of the period, leaving out blocks of a test network that came late.
    bits: CompactTarget,
    times: VecDeque<u32>,
}

impl Rules {
    /// After a header of this height that needs no check.
    pub(super) fn after(network: Network, height: u32, header: Header) -> Rules {
        let first = height.is_multiple_of(PERIOD).then_some(header);
        let (hash, bits, times) = (header.block_hash(), header.bits, VecDeque::from([header.time]));
        Rules { network, params: Params::new(network), height, hash, last: header, first, bits, times }
    }

    /// Goes on by one header that was checked before, or that a checkpoint stands for.
    pub(super) fn go_on(&mut self, header: Header) {
        self.height = self.height.saturating_add(1);
        self.hash = header.block_hash();
        if self.height.is_multiple_of(PERIOD) {
            self.first = Some(header);
            self.bits = header.bits;
        } else if header.bits != self.params.max_attainable_target.to_compact_lossy() {
            self.bits = header.bits;
        }
        self.times.push_back(header.time);
        if self.times.len() > MEDIAN_OF {
            self.times.pop_front();
        }
        self.last = header;
    }

    /// Goes on by one header if it is a valid one, or says what is wrong with it.
    pub(super) fn check(&mut self, header: Header) -> Result<(), String> {
        let height = self.height.saturating_add(1);
        if header.prev_blockhash != self.hash {
            return Err(format!("gave a header for block {height} that does not follow block {} ({})", self.height, self.hash));
        }
        let wanted = self.next_bits(height, header.time);
        if header.bits != wanted {
            return Err(format!(
                "gave a header for block {height} of difficulty {:#010x}, and the network demands {:#010x}",
                header.bits.to_consensus(),
                wanted.to_consensus()
            ));
        }
        if !header.target().is_met_by(header.block_hash()) {
            return Err(format!("gave a header for block {height} without the work that it claims"));
        }
        if header.time <= self.median() {
            return Err(format!("gave a header for block {height} whose time is not after the median of the {MEDIAN_OF} before it"));
        }
        let bip94 = self.network == Network::Testnet4 && height.is_multiple_of(PERIOD);
        if bip94 && header.time.saturating_add(BACK_S) < self.last.time {
            return Err(format!("gave a header for block {height} whose time goes back more than {BACK_S} s"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if Duration::from_secs(u64::from(header.time)) > now + AHEAD {
            return Err(format!("gave a header for block {height} from more than two hours ahead, unless the clock here is wrong"));
        }
        self.go_on(header);
        Ok(())
    }

    /// The median time of the last blocks, Unix seconds.
    pub(super) fn median(&self) -> u32 {
        let mut times: Vec<u32> = self.times.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    fn next_bits(&self, height: u32, time: u32) -> CompactTarget {
        if self.params.no_pow_retargeting {
            return self.last.bits;
        }
        if height.is_multiple_of(PERIOD) {
            let Some(first) = self.first else { return self.last.bits };
            // A test network's last block may have been a late one; BIP94 goes by the period's first.
            let before = if self.network == Network::Testnet4 { first.bits } else { self.last.bits };
            let span = i64::from(self.last.time) - i64::from(first.time);
            return CompactTarget::from_next_work_required(before, u64::try_from(span).unwrap_or(0), &self.params);
        }
        if self.params.allow_min_difficulty_blocks {
            let late = time > self.last.time.saturating_add(LATE_S);
            return if late { self.params.max_attainable_target.to_compact_lossy() } else { self.bits };
        }
        self.last.bits
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::constants::genesis_block;

    use super::*;

    /// A valid header after the last one, so many seconds later.
    fn mined(rules: &Rules, seconds: u32) -> Header {
        let mut header = Header { prev_blockhash: rules.hash, time: rules.last.time + seconds, nonce: 0, ..rules.last };
        while !header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
        header
    }

    fn begun() -> Rules {
        Rules::after(Network::Regtest, 0, genesis_block(Network::Regtest).header)
    }

    #[test]
    fn headers_with_link_work_difficulty_and_time_follow_and_others_are_told_apart() {
        let mut rules = begun();
        for _ in 0..30 {
            rules.check(mined(&rules, 1)).unwrap();
        }
        assert_eq!(rules.height, 30);
        let good = mined(&rules, 1);
        let astray = Header { prev_blockhash: good.block_hash(), ..good };
        let mut idle = good;
        while idle.target().is_met_by(idle.block_hash()) {
            idle.nonce += 1;
        }
        let easy = Header { bits: CompactTarget::from_consensus(0x207f_fffe), ..good };
        let old = mined(&Rules { last: Header { time: rules.last.time - 20, ..rules.last }, ..rules.clone() }, 1);
        let ahead = mined(&Rules { last: Header { time: u32::MAX - 10, ..rules.last }, ..rules.clone() }, 1);
        for (header, words) in [
            (astray, "does not follow block 30"),
            (idle, "without the work"),
            (easy, "the network demands 0x207fffff"),
            (old, "not after the median"),
            (ahead, "two hours ahead"),
        ] {
            let why = rules.check(header).unwrap_err();
            assert!(why.contains(words) && why.contains("block 31"), "{why}");
            assert_eq!(rules.height, 30, "nothing of it was taken");
        }
        rules.check(good).unwrap();
    }

    /// Two headers of the main network: the last of a period and the first of the one after it.
    #[test]
    fn the_main_networks_difficulty_changes_by_the_time_that_a_period_took() {
        let genesis = genesis_block(Network::Bitcoin).header;
        // Blocks 30,240 and 32,255, of the first change that there was: 0x1d00ffff became 0x1d00d86a.
        let first = Header { time: 1_261_130_161, ..genesis };
        let mut rules = Rules::after(Network::Bitcoin, 30_240, first);
        rules.height = 32_255;
        rules.last.time = 1_262_152_739;
        assert_eq!(rules.next_bits(32_256, 1_262_153_464), CompactTarget::from_consensus(0x1d00_d86a));
        assert_eq!(rules.next_bits(32_255, 0), genesis.bits, "between two changes it stays");
    }

    #[test]
    fn a_late_block_of_a_test_network_needs_little_work_and_does_not_count_for_the_next() {
        let limit = Params::new(Network::Testnet4).max_attainable_target.to_compact_lossy();
        let hard = CompactTarget::from_consensus(0x1c00_ffff);
        let genesis = genesis_block(Network::Testnet4).header;
        let mut rules = Rules::after(Network::Testnet4, PERIOD, Header { bits: hard, ..genesis });
        let time = rules.last.time;
        assert_eq!(rules.next_bits(PERIOD + 1, time + LATE_S), hard);
        assert_eq!(rules.next_bits(PERIOD + 1, time + LATE_S + 1), limit);
        rules.go_on(Header { bits: limit, time: time + LATE_S + 1, ..genesis });
        assert_eq!(rules.next_bits(PERIOD + 2, time + LATE_S + 2), hard);
        rules.height = 2 * PERIOD - 1;
        rules.last.time = time + 14 * 86_400;
        assert_eq!(rules.next_bits(2 * PERIOD, 0), hard, "BIP94");
    }
}
