//! What it came to, by the simulated chain and clock.

use bitcoin::Transaction;
use xennet_lease::Channel;
use xennet_meter::{interval_price, owed};
use xennet_rama::Spend;
use xennet_task::Usage;

use super::Pair;

impl Pair {
    /// What a transaction that ends channels pays, sat/kvB.
    pub fn feerate_of(&self, transaction: &Transaction) -> Option<u64> {
        let ends = |channel: &&Channel| channel.outpoint.is_some_and(|at| channel.terms.spend_in(at, transaction).is_some());
        let in_sat: u64 = self.publisher.lease.channels().filter(ends).map(|channel| channel.terms.capacity_sat).sum();
        let out_sat: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        (in_sat > 0).then(|| (in_sat - out_sat) * 1000 / transaction.vsize() as u64)
    }

    /// What the guest's time really was worth, thousandths of a satoshi.
    pub fn worth_msat(&self) -> u64 {
        let proposal = self.publisher.lease.proposal.unwrap();
        let size = self.publisher.lease.size();
        let ms = self.served_ms;
        let usage = Usage {
            core_ms: ms * u64::from(size.cores),
            memory_mib_ms: ms * u64::from(size.memory_mib),
            disk_mib_ms: ms * u64::from(size.disk_mib),
            persistent_mib_ms: 0,
            traffic_bytes: 0,
        };
        owed(&proposal.rates, proposal.core_mhz, &usage).unwrap().0
    }

    /// What the node was paid for use, as the chain has it: the totals less the close reserves, thousandths of a satoshi.
    pub fn paid_msat(&self) -> u64 {
        let lease = &self.publisher.lease;
        let paid = |channel: &Channel| {
            let outpoint = channel.outpoint?;
            match self.chain.iter().find_map(|(transaction, _)| channel.terms.spend_in(outpoint, transaction))? {
                Spend::Close { total_sat, .. } => Some(channel.terms.earned_of(total_sat)),
                Spend::Refund { .. } => None,
            }
        };
        let closed_sat = lease.closed.total_sat.saturating_sub(lease.closed.close_reserve_sat);
        (lease.channels().filter_map(paid).sum::<u64>() + closed_sat) * 1000
    }

    pub fn interval_msat(&self) -> u64 {
        let proposal = self.publisher.lease.proposal.unwrap();
        let interval = proposal.payout.interval();
        interval_price(&proposal.rates, &self.publisher.lease.size(), proposal.core_mhz, interval).0
    }
}
