//! A lease's figures, for whoever shows them.

use serde::{Deserialize, Serialize};
use xennet_rama::Spend;
use xennet_task::{Msat, Usage};

use crate::{Account, Lease, Stage};

/// What a lease has come to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Own meter.
    pub usage: Usage,
    /// What that usage costs.
    pub owed_msat: Msat,
    /// The price of one interval without traffic: the bound on either side's loss.
    pub interval_msat: Msat,
    /// Highest total signed (publisher) or held (node), satoshi.
    pub total_sat: u64,
    /// The part of it that is the node's reserve for the closing fee, satoshi.
    pub close_reserve_sat: u64,
    /// What the channel holds, satoshi.
    pub capacity_sat: u64,
    /// Payments so far.
    pub payments: u32,
    /// Height from which the publisher alone may take back what was not paid.
    pub refund_height: u32,
}

impl Lease {
    /// What went over the channel, satoshi: what the chain says once it does, until then the highest total signed or held. A
    /// publisher may have signed one payment more than the node got.
    pub fn paid_sat(&self) -> u64 {
        match &self.stage {
            Stage::Settled { spend: Spend::Close { total_sat, .. }, .. } => *total_sat,
            Stage::Settled { spend: Spend::Refund { .. }, .. } => 0,
            _ => self.account.as_ref().map_or(0, Account::total_sat),
        }
    }

    /// Present figures; `None` before the agreement.
    pub fn totals(&self) -> Option<Totals> {
        let account = self.account.as_ref()?;
        let price = self.price()?;
        let usage = account.meter.usage();
        Some(Totals {
            usage,
            owed_msat: price.owed(&usage).unwrap_or_default(),
            interval_msat: price.interval(),
            total_sat: account.total_sat(),
            close_reserve_sat: account.terms.close_reserve_sat(),
            capacity_sat: account.terms.capacity_sat,
            payments: account.payments,
            refund_height: account.terms.refund_height,
        })
    }
}
