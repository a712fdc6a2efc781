//! Reading from the chain how a channel ended.

use bitcoin::{OutPoint, Transaction};
use serde::{Deserialize, Serialize};

use crate::ChannelTerms;

/// How a transaction ended a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spend {
    /// The node closed it.
    Close {
        /// What left the publisher, satoshi: the total of the payment that was used.
        total_sat: u64,
        /// The publisher's change.
        change: OutPoint,
        /// The change's amount, satoshi.
        change_sat: u64,
        /// What the transaction paid to the miner, satoshi, if this channel is all that it spends.
        fee_sat: Option<u64>,
    },
    /// The publisher took it back after the refund height.
    Refund {
        /// What came back, fee taken off, satoshi.
        returned_sat: u64,
        /// The miner's, satoshi.
        fee_sat: u64,
    },
}

impl ChannelTerms {
    /// How `transaction` ends the channel whose coin is `outpoint`; `None` if it does not spend it. The transaction is one that
    /// the chain has taken, so its signatures are not checked again here.
    pub fn spend_in(&self, outpoint: OutPoint, transaction: &Transaction) -> Option<Spend> {
        let at = transaction.input.iter().position(|input| input.previous_output == outpoint)?;
        let out_sat = transaction.output.iter().fold(0_u64, |sum, output| sum.saturating_add(output.value.to_sat()));
        let node_signed = transaction.input[at].witness.nth(0).is_some_and(|element| !element.is_empty());
        if !node_signed {
            let returned_sat = out_sat.min(self.capacity_sat);
            return Some(Spend::Refund { returned_sat, fee_sat: self.capacity_sat - returned_sat });
        }
        // The payment signs the output of the same index, so that is where the change stands.
        let change_sat = transaction
            .output
            .get(at)
            .filter(|output| output.script_pubkey == self.publisher_script())
            .map_or(0, |output| output.value.to_sat().min(self.capacity_sat));
        Some(Spend::Close {
            total_sat: self.capacity_sat - change_sat,
            change: OutPoint { txid: transaction.compute_txid(), vout: u32::try_from(at).ok()? },
            change_sat,
            fee_sat: (transaction.input.len() == 1).then(|| self.capacity_sat.saturating_sub(out_sat)),
        })
    }
}
