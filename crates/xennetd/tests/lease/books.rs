//! What the chain must say at the end of a lease, and what both ledgers must say about it.

use std::collections::HashSet;

use bitcoin::{OutPoint, Transaction, Txid};
use xennet_chain::{Chain, Status};
use xennet_lease::{LedgerEntry, LedgerKind, Totals};
use xennet_task::{AnnouncementHash, LeaseId};
use xennetd::control::{Command, LeaseStage, LeaseView, Reply};

use crate::daemon::Daemon;
use crate::market::Market;
use crate::wait::wait_until;

/// How long a settlement may take, seconds: a block comes each second while transactions wait.
const SETTLED_S: u64 = 60;

/// What each side had before the lease, satoshi.
pub struct Opening {
    publisher_sat: u64,
    node_sat: u64,
}

/// How a lease ended, as read from the chain.
pub struct Settlement {
    pub publisher: LeaseView,
    pub node: LeaseView,
    /// Figures of the channel; paid is what the chain says.
    pub total_sat: u64,
    pub fee_sat: u64,
    /// The part of the total that is for what was used, thousandths of a satoshi.
    pub earned_msat: u64,
}

impl Opening {
    /// Before a task is published.
    pub async fn of(market: &Market) -> Opening {
        Opening { publisher_sat: market.publisher.coins_sat().await, node_sat: market.node.coins_sat().await }
    }

    /// Waits until both sides call the lease settled; then chain, ledgers and wallets must agree to the satoshi, and what was
    /// paid with what was used, to one interval.
    pub async fn check(&self, market: &Market, lease: LeaseId) -> Settlement {
        self.check_all(market, &[lease]).await.remove(0)
    }

    /// The same of several leases, whatever transactions they share.
    pub async fn check_all(&self, market: &Market, leases: &[LeaseId]) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for lease in leases {
            market.both("settled", SETTLED_S, *lease, |view| view.stage == LeaseStage::Settled).await;
        }
        let chain = market.chain().await;
        let (mut publisher_sat, mut node_sat, mut fundings) = (self.publisher_sat, self.node_sat, HashSet::new());
        for lease in leases {
            let settlement = Settlement::read(market, &chain, *lease).await;
            if fundings.insert(settlement.publisher.funding_txid.clone()) {
                publisher_sat -= fee_of(&chain, &seen(&chain, &settlement.publisher.funding_txid).await).await;
            }
            publisher_sat -= settlement.total_sat + announcement_cost_sat(&market.publisher, &chain, settlement.publisher.task).await;
            node_sat += settlement.total_sat - settlement.fee_sat;
            settlements.push(settlement);
        }
        market.owns("publisher", &market.publisher, publisher_sat).await;
        market.owns("node", &market.node, node_sat).await;
        chain.close().await;
        settlements.iter().for_each(Settlement::check_bill);
        settlements
    }

    /// The same for a lease that was renewed: each of its channels was closed, and is in both ledgers.
    pub async fn check_renewed(&self, market: &Market, lease: LeaseId, channels: usize) {
        market.both("settled", SETTLED_S, lease, |view| view.stage == LeaseStage::Settled).await;
        let chain = market.chain().await;
        let ends = async |daemon: &Daemon| {
            let settled = |entry: &LedgerEntry| (entry.kind == LedgerKind::Settled).then(|| entry.txid.clone()).flatten();
            let mut ends: Vec<String> = ledger(daemon, lease).await.iter().filter_map(settled).collect();
            ends.sort();
            ends
        };
        let closes = ends(&market.publisher).await;
        assert_eq!(closes, ends(&market.node).await, "both ledgers name the same ends");
        assert_eq!(closes.len(), channels);
        let (mut close_fees_sat, mut funding_fees_sat) = (0, 0);
        for close in closes.iter().collect::<std::collections::BTreeSet<_>>() {
            let close = seen(&chain, &Some(close.clone())).await;
            close_fees_sat += fee_of(&chain, &close).await;
            for input in &close.input {
                let funding = seen(&chain, &Some(input.previous_output.txid.to_string())).await;
                funding_fees_sat += fee_of(&chain, &funding).await;
            }
        }
        let (publisher, node) = (market.publisher.lease(lease).await, market.node.lease(lease).await);
        let (ours, theirs) = (publisher.totals.unwrap(), node.totals.unwrap());
        assert_eq!((ours.channels as usize, theirs.channels as usize), (channels, channels));
        let paid_sat = ledger(&market.publisher, lease).await.last().unwrap().paid_sat;
        assert_eq!(paid_sat, ledger(&market.node, lease).await.last().unwrap().paid_sat);
        let announcement_sat = announcement_cost_sat(&market.publisher, &chain, publisher.task).await;
        market.owns("publisher", &market.publisher, self.publisher_sat - paid_sat - funding_fees_sat - announcement_sat).await;
        market.owns("node", &market.node, self.node_sat + paid_sat - close_fees_sat).await;
        // What was paid is what was owed, to an interval, and to the smallest output for a channel that was not used.
        let (earned, owed) = ((paid_sat - ours.close_reserve_sat) * 1000, theirs.owed_msat.0);
        let slack = ours.interval_msat.0 + 295_000;
        assert!(earned + ours.interval_msat.0 >= owed && earned <= owed + slack, "{earned} msat paid, {owed} msat owed");
        chain.close().await;
    }

    /// Waits until the publisher has taken the whole channel back; it must then have lost nothing but fees.
    pub async fn check_refunded(&self, market: &Market, lease: LeaseId) {
        let publisher = &market.publisher;
        wait_until("the refund", SETTLED_S, async || publisher.lease(lease).await.stage == LeaseStage::Refunded).await;
        let chain = market.chain().await;
        let view = publisher.lease(lease).await;
        let (funding, refund) = (seen(&chain, &view.funding_txid).await, seen(&chain, &view.close_txid).await);
        let [input] = &refund.input[..] else { panic!("the refund spends {} coins", refund.input.len()) };
        assert_eq!(input.previous_output.txid, funding.compute_txid());
        let fee_sat = fee_of(&chain, &refund).await;
        let returned_sat: u64 = refund.output.iter().map(|output| output.value.to_sat()).sum();
        assert_eq!(value_of(&chain, input.previous_output).await, returned_sat + fee_sat);
        let last = ledger(publisher, lease).await.pop().unwrap();
        assert_eq!((last.kind, last.paid_sat, last.fee_sat), (LedgerKind::Refunded, 0, fee_sat), "{last:?}");
        let spent_sat = fee_of(&chain, &funding).await + fee_sat + announcement_cost_sat(publisher, &chain, view.task).await;
        market.owns("publisher", publisher, self.publisher_sat - spent_sat).await;
        chain.close().await;
    }
}

impl Settlement {
    /// What the chain says of the lease's end, and both ledgers, which must agree.
    async fn read(market: &Market, chain: &Chain, lease: LeaseId) -> Settlement {
        let (publisher, node) = (market.publisher.lease(lease).await, market.node.lease(lease).await);
        assert_eq!(publisher.close_txid, node.close_txid);
        assert_eq!(publisher.funding_txid, node.funding_txid);
        let (funding, close) = (seen(chain, &publisher.funding_txid).await, seen(chain, &publisher.close_txid).await);
        let totals = publisher.totals.unwrap();

        // The channel: inputs = outputs + fee, and the publisher keeps what was not paid.
        let [input] = &close.input[..] else { panic!("the close spends {} coins", close.input.len()) };
        assert_eq!(value_of(chain, input.previous_output).await, totals.capacity_sat);
        assert_eq!(input.previous_output.txid, funding.compute_txid());
        let [change, earned] = &close.output[..] else { panic!("the close has {} outputs", close.output.len()) };
        let total_sat = totals.capacity_sat - change.value.to_sat();
        let fee_sat = fee_of(chain, &close).await;
        assert_eq!(totals.capacity_sat, change.value.to_sat() + earned.value.to_sat() + fee_sat);

        // The ledgers: both end with what the chain says.
        let (ours, theirs) = (ledger(&market.publisher, lease).await, ledger(&market.node, lease).await);
        for last in [ours.last().unwrap(), theirs.last().unwrap()] {
            assert_eq!(last.kind, LedgerKind::Settled, "{last:?}");
            assert_eq!((last.paid_sat, last.fee_sat), (total_sat, fee_sat), "{last:?}");
            assert_eq!(last.txid, publisher.close_txid);
        }
        Settlement { earned_msat: (total_sat - totals.close_reserve_sat) * 1000, total_sat, fee_sat, publisher, node }
    }

    /// Both meters against the chain: in arrears within one interval's price, in advance at most the interval to come on top.
    fn check_bill(&self) {
        for view in [&self.publisher, &self.node] {
            let Totals { owed_msat, interval_msat, .. } = view.totals.unwrap();
            let off_msat = self.earned_msat.abs_diff(owed_msat.0);
            eprintln!(
                "{} by the {}'s meter {} msat, settled {} msat, apart {off_msat} of at most {} msat; total {} sat, fee {} sat, {} payments",
                view.lease,
                view.side,
                owed_msat.0,
                self.earned_msat,
                interval_msat.0,
                self.total_sat,
                self.fee_sat,
                view.totals.unwrap().payments
            );
            assert!(off_msat <= interval_msat.0, "{off_msat} msat apart, but an interval is {} msat", interval_msat.0);
        }
    }

    /// The time by this side's meter, milliseconds. Guests have one core here.
    pub fn metered_ms(view: &LeaseView) -> u64 {
        view.totals.unwrap().usage.core_ms
    }
}

impl Market {
    /// A wallet hears of a block a moment after the lease does.
    async fn owns(&self, who: &str, daemon: &Daemon, sat: u64) {
        let mut last = 0;
        let what = format!("the {who}'s wallet with {sat} sat");
        let begun = std::time::Instant::now();
        while last != sat && begun.elapsed().as_secs() < 10 {
            last = daemon.coins_sat().await;
        }
        assert_eq!(last, sat, "{what}");
    }
}

/// The whole ledger of a lease.
pub async fn ledger(daemon: &Daemon, lease: LeaseId) -> Vec<LedgerEntry> {
    let mut entries = Vec::new();
    loop {
        let command = Command::Ledger { lease, from: entries.len() as u64, limit: Command::MAX_LEDGER_PAGE };
        let Reply::Ledger(page) = daemon.ask(command).await else { panic!("no ledger") };
        entries.extend(page.entries);
        if entries.len() as u64 >= page.total {
            return entries;
        }
    }
}

/// A transaction that must be in a block.
async fn seen(chain: &Chain, txid: &Option<String>) -> Transaction {
    let txid: Txid = txid.as_ref().expect("a transaction").parse().unwrap();
    match chain.transaction(&txid).await.unwrap() {
        Some((transaction, Status::Confirmed { .. })) => transaction,
        other => panic!("{txid} is not in a block: {other:?}"),
    }
}

async fn value_of(chain: &Chain, coin: OutPoint) -> u64 {
    let (transaction, _) = chain.transaction(&coin.txid).await.unwrap().unwrap();
    transaction.output[coin.vout as usize].value.to_sat()
}

async fn fee_of(chain: &Chain, transaction: &Transaction) -> u64 {
    let mut fee_sat = 0;
    for input in &transaction.input {
        fee_sat += value_of(chain, input.previous_output).await;
    }
    fee_sat - transaction.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
}

/// What announcing a task cost: the fee, and the marker by which others find it.
async fn announcement_cost_sat(publisher: &Daemon, chain: &Chain, task: AnnouncementHash) -> u64 {
    let Reply::Tasks(tasks) = publisher.ask(Command::Tasks {}).await else { panic!("no tasks") };
    let txid = tasks.into_iter().find(|known| known.task == task).expect("an own task").txid;
    let announcement = seen(chain, &txid).await;
    let marker_sat: u64 =
        announcement.output.iter().filter(|output| output.script_pubkey.is_p2wsh()).map(|output| output.value.to_sat()).sum();
    assert!(marker_sat > 0, "a marker");
    fee_of(chain, &announcement).await + marker_sat
}
