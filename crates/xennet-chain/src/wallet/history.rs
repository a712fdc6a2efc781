//! What moved the wallet's money.

use bdk_wallet::chain::ChainPosition;
use bitcoin::{Transaction, TxIn, Txid};
use serde::{Deserialize, Serialize};

use super::sweep::is_sweep;
use super::{Inner, Wallet};
use crate::Status;
use crate::announcement::payload_of;

/// A transaction that moved the wallet's money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The transaction.
    pub txid: Txid,
    /// How far it has come.
    pub status: Status,
    /// Unix seconds of the block that holds it.
    pub block_time: Option<u64>,
    /// What it is, as far as the chain and the wallet alone can tell.
    pub kind: Kind,
    /// Came in, satoshi; change included.
    pub received_sat: u64,
    /// Went out, satoshi; change included.
    pub sent_sat: u64,
    /// The fee, satoshi, if the wallet knows all that the transaction spends.
    pub fee_sat: Option<u64>,
    /// What the wallet holds after it, satoshi.
    pub balance_sat: u64,
}

/// What a transaction is to the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Money of others that came in.
    Receive,
    /// Own money that went out.
    Send,
    /// Own money to oneself.
    Internal,
    /// An announcement.
    Announcement,
    /// Markers of announcements, own ones or those of others, that came back.
    Sweep,
}

impl Wallet {
    /// All transactions that moved the wallet's money, the oldest first, unconfirmed ones last.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let inner = self.lock();
        let mut entries: Vec<HistoryEntry> = inner
            .bdk
            .transactions()
            .map(|tx| {
                let (status, block_time) = match tx.chain_position {
                    ChainPosition::Confirmed { anchor, .. } => {
                        (Status::Confirmed { height: anchor.block_id.height }, Some(anchor.confirmation_time))
                    }
                    ChainPosition::Unconfirmed { .. } => (Status::Mempool, None),
                };
                let (sent, received) = inner.bdk.sent_and_received(&tx.tx_node.tx);
                HistoryEntry {
                    txid: tx.tx_node.txid,
                    status,
                    block_time,
                    kind: inner.kind(&tx.tx_node.tx, sent.to_sat()),
                    received_sat: received.to_sat(),
                    sent_sat: sent.to_sat(),
                    fee_sat: inner.bdk.calculate_fee(&tx.tx_node.tx).ok().map(|fee| fee.to_sat()),
                    balance_sat: 0,
                }
            })
            .collect();
        entries.sort_by_key(|entry| match entry.status {
            Status::Confirmed { height } => (height, entry.txid),
            Status::Mempool => (u32::MAX, entry.txid),
        });
        // Within a block a payment can stand before the one it spends: from below zero no balance is shown.
        let mut balance_sat = 0_i128;
        for entry in &mut entries {
            balance_sat += i128::from(entry.received_sat) - i128::from(entry.sent_sat);
            entry.balance_sat = u64::try_from(balance_sat).unwrap_or(0);
        }
        entries
    }
}

impl Inner {
    fn kind(&self, tx: &Transaction, sent_sat: u64) -> Kind {
        if payload_of(tx).is_some() && self.is_all_own(tx) {
            Kind::Announcement
        } else if is_sweep(tx) {
            Kind::Sweep
        } else if sent_sat == 0 {
            Kind::Receive
        } else if tx.output.iter().all(|output| self.bdk.is_mine(output.script_pubkey.clone())) {
            Kind::Internal
        } else {
            Kind::Send
        }
    }

    /// Whether every coin a transaction spends is, or was, the wallet's.
    pub(super) fn is_all_own(&self, tx: &Transaction) -> bool {
        let is_own = |input: &TxIn| {
            let spent = self.bdk.tx_graph().get_txout(input.previous_output);
            spent.is_some_and(|output| self.bdk.is_mine(output.script_pubkey.clone()))
        };
        tx.input.iter().all(is_own)
    }
}
