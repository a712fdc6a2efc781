//! A lease's figures, for whoever shows them.

use serde::{Deserialize, Serialize};
use xennet_task::{Msat, Usage};

use crate::{Channel, Lease};

/// What a lease has come to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Own meter.
    pub usage: Usage,
    /// What that usage costs.
    pub owed_msat: Msat,
    /// The price of one interval without traffic: the bound on either side's loss.
    pub interval_msat: Msat,
    /// Highest total signed (publisher) or held (node), over all channels, satoshi.
    pub total_sat: u64,
    /// The part of it that is the node's reserve for the closing fees, satoshi.
    pub close_reserve_sat: u64,
    /// What the channels hold or held, satoshi.
    pub capacity_sat: u64,
    /// Channels so far: one, and one more with each renewal.
    #[serde(default)]
    pub channels: u32,
    /// Payments so far.
    pub payments: u32,
    /// Height from which the publisher alone may take back what was not paid.
    pub refund_height: u32,
}

impl Lease {
    /// What went over the lease's channels, satoshi: what the chain says once it does, until then the highest total signed or held.
    /// A publisher may have signed one payment more than the node got.
    pub fn paid_sat(&self) -> u64 {
        self.paid_on().map(Channel::paid_sat).fold(self.closed.total_sat, u64::saturating_add)
    }

    /// Publisher: what is locked in channels, satoshi.
    pub fn locked_sat(&self) -> u64 {
        let open = self.channels().filter(|channel| channel.funding.is_some() && channel.ended().is_none());
        open.map(|channel| channel.terms.capacity_sat).fold(0, u64::saturating_add)
    }

    /// What is locked in channels or has left them, satoshi.
    pub fn committed_sat(&self) -> u64 {
        let of = |channel: &Channel| if channel.ended().is_some() { channel.paid_sat() } else { channel.terms.capacity_sat };
        let asked = self.next.as_ref().filter(|renewal| renewal.channel.is_none()).map_or(0, |renewal| renewal.capacity_sat);
        self.channels().map(of).fold(self.closed.total_sat.saturating_add(asked), u64::saturating_add)
    }

    /// Present figures; `None` before the agreement.
    pub fn totals(&self) -> Option<Totals> {
        let account = self.account.as_ref()?;
        let price = self.price()?;
        let usage = account.meter.usage();
        let sum = |closed: u64, of: fn(&Channel) -> u64| self.paid_on().map(of).fold(closed, u64::saturating_add);
        Some(Totals {
            usage,
            owed_msat: price.owed(&usage).unwrap_or_default(),
            interval_msat: price.interval(),
            total_sat: sum(self.closed.total_sat, Channel::total_sat),
            close_reserve_sat: sum(self.closed.close_reserve_sat, |channel| channel.terms.close_reserve_sat()),
            capacity_sat: sum(self.closed.capacity_sat, |channel| channel.terms.capacity_sat),
            channels: account.channel.number,
            payments: account.payments,
            refund_height: account.channel.terms.refund_height,
        })
    }
}
