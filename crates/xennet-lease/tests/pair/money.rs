//! What it came to, by the simulated chain and clock.

use bitcoin::Transaction;
use xennet_meter::{interval_price, owed};
use xennet_task::Usage;

use super::Pair;

impl Pair {
    /// What a transaction that ends the channel pays, sat/kvB.
    pub fn feerate_of(&self, transaction: &Transaction) -> Option<u64> {
        let account = self.publisher.lease.account.as_ref()?;
        account.terms.spend_in(account.outpoint?, transaction)?;
        let out_sat: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        Some((account.terms.capacity_sat - out_sat) * 1000 / transaction.vsize() as u64)
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

    /// What the node was paid for use, as the chain has it: the total less the close reserve, thousandths of a satoshi.
    pub fn paid_msat(&self) -> u64 {
        let Some(account) = &self.publisher.lease.account else { return 0 };
        let Some(outpoint) = account.outpoint else { return 0 };
        let ending = self.chain.iter().find_map(|(transaction, _)| account.terms.spend_in(outpoint, transaction));
        match ending {
            Some(xennet_rama::Spend::Close { total_sat, .. }) => account.terms.earned_of(total_sat) * 1000,
            _ => 0,
        }
    }

    pub fn interval_msat(&self) -> u64 {
        let proposal = self.publisher.lease.proposal.unwrap();
        let interval = proposal.payout.interval();
        interval_price(&proposal.rates, &self.publisher.lease.size(), proposal.core_mhz, interval).0
    }
}
