//! The wallet's history and coins, with what the leases know of them.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::Txid;
use xennet_chain::CoinState;
use xennet_lease::{Lease, Side, Stage};
use xennet_rama::Spend;
use xennet_task::LeaseId;

use super::happening::Answer;
use super::{Daemon, Shared};
use crate::control::{CoinStateView, CoinView, HistoryView, MoneyKind, Reply};

/// What the leases know of transactions.
#[derive(Debug, Default)]
pub struct Labels(HashMap<Txid, (MoneyKind, Vec<LeaseId>)>);

impl Labels {
    fn of<'a>(leases: impl Iterator<Item = &'a Lease>) -> Labels {
        let mut labels = Labels::default();
        for lease in leases {
            let of_spend = |spend: &Spend| match spend {
                Spend::Close { .. } => MoneyKind::Settlement,
                Spend::Refund { .. } => MoneyKind::Refund,
            };
            for channel in lease.channels() {
                labels.add(channel.outpoint.map(|outpoint| outpoint.txid), MoneyKind::Funding, lease.id);
                if let Some(ending) = &channel.ending {
                    labels.add(Some(ending.txid), of_spend(&ending.how), lease.id);
                }
                let sent = match lease.side {
                    Side::Node(_) => MoneyKind::Settlement,
                    Side::Publisher(_) => MoneyKind::Refund,
                };
                labels.add(channel.end.as_ref().map(bitcoin::Transaction::compute_txid), sent, lease.id);
            }
            for (funding, end) in &lease.closed.transactions {
                labels.add(Some(funding.txid), MoneyKind::Funding, lease.id);
                labels.add(Some(end.txid), of_spend(&end.how), lease.id);
            }
            if let Stage::Settled { txid, spend } = &lease.stage {
                labels.add(Some(*txid), of_spend(spend), lease.id);
            }
        }
        labels
    }

    fn add(&mut self, txid: Option<Txid>, kind: MoneyKind, lease: LeaseId) {
        let Some(txid) = txid else { return };
        let (_, leases) = self.0.entry(txid).or_insert_with(|| (kind, Vec::new()));
        if !leases.contains(&lease) {
            leases.push(lease);
        }
    }

    fn kind(&self, txid: &Txid) -> Option<MoneyKind> {
        self.0.get(txid).map(|(kind, _)| *kind)
    }

    fn leases(&self, txid: &Txid) -> Vec<LeaseId> {
        self.0.get(txid).map(|(_, leases)| leases.clone()).unwrap_or_default()
    }
}

impl Daemon {
    fn labels(&self) -> Labels {
        Labels::of(self.leases.values().map(|running| &running.lease))
    }

    pub(super) fn history(&self, answer: Answer) {
        let (shared, labels) = (Arc::clone(&self.shared), self.labels());
        tokio::spawn(async move {
            shared.look_at_chain().await;
            let _ = answer.send(Ok(Reply::History(history(&shared, &labels))));
        });
    }

    pub(super) fn coins(&self, answer: Answer) {
        let (shared, labels) = (Arc::clone(&self.shared), self.labels());
        tokio::spawn(async move {
            shared.look_at_chain().await;
            let kinds: HashMap<Txid, MoneyKind> = history(&shared, &labels).into_iter().map(|entry| (entry.txid, entry.kind)).collect();
            let _ = answer.send(Ok(Reply::Coins(coins(&shared, &labels, &kinds))));
        });
    }
}

impl Shared {
    async fn look_at_chain(&self) {
        if let Err(error) = self.wallet.sync(&self.chain).await {
            tracing::warn!(%error, "the wallet is as of the last time the chain was there");
        }
    }
}

fn history(shared: &Shared, labels: &Labels) -> Vec<HistoryView> {
    let entries = shared.wallet.history().into_iter();
    entries.map(|entry| HistoryView::new(entry.clone(), labels.kind(&entry.txid), labels.leases(&entry.txid))).collect()
}

fn coins(shared: &Shared, labels: &Labels, kinds: &HashMap<Txid, MoneyKind>) -> Vec<CoinView> {
    let tip = shared.wallet.height();
    let view = |coin: xennet_chain::Coin| {
        let (state, reserved_by) = match coin.state {
            CoinState::Free => (CoinStateView::Free, None),
            CoinState::Untrusted => (CoinStateView::Untrusted, None),
            CoinState::Reserved(by) => (CoinStateView::Reserved, by),
        };
        CoinView {
            coin: coin.outpoint.to_string(),
            sat: coin.sat,
            confirmations: coin.height.map_or(0, |height| (tip + 1).saturating_sub(height)),
            kind: kinds.get(&coin.outpoint.txid).copied().unwrap_or(MoneyKind::Received),
            address: coin.address,
            state,
            reserved_by: reserved_by.map(|txid| txid.to_string()),
            reserved_for: reserved_by.map(|txid| labels.leases(&txid)).unwrap_or_default(),
        }
    };
    shared.wallet.coins().into_iter().map(view).collect()
}
