//! Channels that are to be opened at the same time share one transaction: each more is 43 vB instead of 153.
//!
//! A shared transaction is sent when any of its leases says so. So either all of them take it in one turn, and are on disk in one
//! commit before it goes out, or none does: a channel that is funded and belongs to no lease would be out of reach.

use std::sync::{Arc, Weak};

use bitcoin::{ScriptBuf, Transaction};
use tokio::sync::mpsc;
use xennet_chain::{Wallet, WalletError};
use xennet_lease::Input;
use xennet_task::LeaseId;

use super::happening::Happening;
use super::{Daemon, Shared};

/// The most channels in one transaction.
const MOST: usize = 32;

/// A channel that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// For which lease.
    pub lease: LeaseId,
    /// Its script.
    pub script: ScriptBuf,
    /// What goes into it, satoshi.
    pub sat: u64,
}

/// A transaction that opens channels.
#[derive(Debug)]
pub struct Funding {
    /// Signed and not sent.
    pub transaction: Transaction,
    /// Whose its first outputs are, in order.
    pub leases: Vec<LeaseId>,
}

/// Where channels that are to be opened go.
pub fn queue(shared: &Arc<Shared>) -> mpsc::UnboundedSender<Wanted> {
    // As many as there are leases, at the most: each asks once.
    let (wanted, waiting) = mpsc::unbounded_channel();
    tokio::spawn(fund(Arc::downgrade(shared), waiting));
    wanted
}

async fn fund(shared: Weak<Shared>, mut waiting: mpsc::UnboundedReceiver<Wanted>) {
    while let Some(first) = waiting.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        let ready = async {
            shared.wallet.sync(&shared.chain).await?;
            shared.feerate().await
        };
        let feerate = ready.await;
        // While the chain was asked, others may have come.
        let mut wanted = vec![first];
        while wanted.len() < MOST
            && let Ok(more) = waiting.try_recv()
        {
            wanted.push(more);
        }
        match feerate {
            Ok(feerate) => {
                let (fundings, failed) = build(&shared.wallet, wanted, feerate);
                for funding in fundings {
                    shared.happen(Happening::Funding(funding)).await;
                }
                for (lease, why) in failed {
                    shared.happen(Happening::Lease(lease, Input::FundingFailed(why.to_string()))).await;
                }
            }
            Err(error) => {
                for Wanted { lease, .. } in wanted {
                    shared.happen(Happening::Lease(lease, Input::FundingFailed(format!("{error:#}")))).await;
                }
            }
        }
    }
}

/// One transaction for all. If they cannot be had together, each is tried alone, the first first.
fn build(wallet: &Wallet, wanted: Vec<Wanted>, feerate_sat_per_kvb: u64) -> (Vec<Funding>, Vec<(LeaseId, WalletError)>) {
    let outputs: Vec<_> = wanted.iter().map(|wanted| (wanted.script.clone(), wanted.sat)).collect();
    match wallet.fund_many(&outputs, feerate_sat_per_kvb) {
        Ok(transaction) => {
            let leases = wanted.iter().map(|wanted| wanted.lease).collect();
            (vec![Funding { transaction, leases }], Vec::new())
        }
        Err(_) if wanted.len() > 1 => {
            let (mut fundings, mut failed) = (Vec::new(), Vec::new());
            for one in wanted {
                let (funding, why) = build(wallet, vec![one], feerate_sat_per_kvb);
                fundings.extend(funding);
                failed.extend(why);
            }
            (fundings, failed)
        }
        Err(why) => (Vec::new(), wanted.into_iter().map(|wanted| wanted.lease).zip([why]).collect()),
    }
}

impl Daemon {
    /// All leases of a transaction take it in this turn. If one has ended meanwhile, nobody sends it, and the others ask again.
    pub(super) fn funded(&mut self, funding: Funding) {
        let Funding { transaction, leases } = funding;
        let txid = transaction.compute_txid();
        if leases.iter().all(|id| self.waits_for_funding(id).is_some()) {
            for (id, vout) in leases.iter().zip(0..) {
                self.feed(*id, Input::FundingBuilt { transaction: transaction.clone(), vout });
            }
            return;
        }
        self.shared.wallet.release(&txid);
        for wanted in leases.iter().filter_map(|id| self.waits_for_funding(id)) {
            self.fund(wanted);
        }
    }

    /// Asks for a channel to be opened.
    pub(super) fn fund(&self, wanted: Wanted) {
        // The other end is gone only when the process ends, and the next one asks anew.
        let _ = self.to_fund.send(wanted);
    }

    fn waits_for_funding(&self, id: &LeaseId) -> Option<Wanted> {
        let (script, sat) = self.leases.get(id)?.lease.wants_funding()?;
        Some(Wanted { lease: *id, script, sat })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use xennet_chain::{Chain, ChainConfig};

    use super::*;

    async fn wallet(dir: &std::path::Path, sat: u64) -> (Chain, Wallet) {
        let (events, mut heard) = mpsc::channel(1_024);
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let chain = Chain::open(ChainConfig::Embedded { dir: dir.join("chain"), block_interval: Duration::ZERO }, events).await.unwrap();
        let wallet = Wallet::open(&dir.join("wallet"), chain.network()).unwrap();
        chain.faucet(wallet.address().unwrap().script_pubkey(), sat).await.unwrap();
        wallet.sync(&chain).await.unwrap();
        (chain, wallet)
    }

    fn wanted(number: u8, sat: u64) -> Wanted {
        let script = ScriptBuf::from_bytes([&[0, 32][..], &[number; 32]].concat());
        Wanted { lease: LeaseId([number; 8]), script, sat }
    }

    #[tokio::test]
    async fn channels_that_wait_together_are_opened_by_one_transaction_that_the_chain_takes() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, wallet) = wallet(dir.path(), 1_000_000).await;
        let (fundings, failed) = build(&wallet, (1..=3).map(|number| wanted(number, 20_000)).collect(), 1_000);
        assert!(failed.is_empty());
        let [funding] = fundings.as_slice() else { panic!("{fundings:?}") };
        assert_eq!(funding.leases, [1, 2, 3].map(|number| LeaseId([number; 8])));
        for (output, number) in funding.transaction.output.iter().zip(1..=3) {
            assert_eq!((&output.script_pubkey, output.value.to_sat()), (&wanted(number, 0).script, 20_000));
        }
        chain.broadcast(&funding.transaction).await.unwrap();
        chain.close().await;
    }

    #[tokio::test]
    async fn what_there_is_money_for_is_opened_if_not_all_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, wallet) = wallet(dir.path(), 50_000).await;
        let (fundings, failed) = build(&wallet, vec![wanted(1, 60_000), wanted(2, 40_000)], 1_000);
        assert_eq!(fundings.iter().map(|funding| funding.leases.clone()).collect::<Vec<_>>(), [vec![LeaseId([2; 8])]]);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, LeaseId([1; 8]));
        assert!(failed[0].1.to_string().contains("sat are missing"), "{}", failed[0].1);
        chain.close().await;
    }
}
