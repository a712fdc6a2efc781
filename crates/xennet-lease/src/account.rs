//! The money side of a live lease: channel, meter, and what follows from both.

use serde::{Deserialize, Serialize};
use xennet_meter::{Meter, MeterError, Size, interval_price, owed};
use xennet_task::{Msat, PayoutInterval, Proposal, Usage};

use crate::Channel;

/// Why a live lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The agreed time is over.
    #[error("the agreed time is over")]
    LeaseOver,
    /// The publisher is done.
    #[error("the publisher is done")]
    PublisherDone,
    /// The node's owner wants the machine back.
    #[error("the node's owner wants the machine back")]
    NodeDone,
    /// The channel holds no more.
    #[error("the channel holds no more")]
    ChannelExhausted,
    /// The node was not paid.
    #[error("the node was not paid")]
    Unpaid,
    /// The guest died.
    #[error("the guest died")]
    MachineLost,
    /// The tunnel stayed down.
    #[error("the tunnel stayed down")]
    TunnelLost,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol")]
    Protocol,
    /// The refund's height comes near.
    #[error("the refund's height comes near")]
    RefundNear,
    /// The other side closed the channel on chain and had not said why.
    #[error("the other side closed the channel")]
    ChannelClosed,
}

/// All that is counted in one lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The channel that is paid on.
    #[serde(flatten)]
    pub channel: Channel,
    /// What was earned on earlier channels of the lease, satoshi.
    #[serde(default)]
    pub carried_sat: u64,
    /// The own meter.
    pub meter: Meter,
    /// Counts payments.
    pub payments: u32,
    /// When the last payment was signed or put on disk, unix milliseconds.
    pub last_payment_ms: u64,
    /// Highest total both sides know of, satoshi.
    pub acked_total_sat: u64,
    /// Publisher: what it grants to the node's meter beyond its own, after cuts. At most one interval's price, and what it had
    /// forgotten to have paid for.
    pub granted_msat: u64,
    /// Publisher: what was paid for after the copy was made that its store was put back from, as the node has proved,
    /// thousandths of a satoshi.
    #[serde(default)]
    pub recalled_msat: u64,
}

/// What was agreed, as the account needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price<'a> {
    pub proposal: &'a Proposal,
    pub size: Size,
}

impl Price<'_> {
    pub fn interval_ms(&self) -> u64 {
        let interval = match self.proposal.payout {
            PayoutInterval::InArrears(interval) | PayoutInterval::InAdvance(interval) => interval,
        };
        u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
    }

    /// What one interval costs, without traffic: the bound on anybody's loss.
    pub fn interval(&self) -> Msat {
        let interval = std::time::Duration::from_millis(self.interval_ms());
        interval_price(&self.proposal.rates, &self.size, self.proposal.core_mhz, interval)
    }

    pub fn in_advance(&self) -> Msat {
        match self.proposal.payout {
            PayoutInterval::InArrears(_) => Msat(0),
            PayoutInterval::InAdvance(_) => self.interval(),
        }
    }

    pub fn owed(&self, usage: &Usage) -> Result<Msat, MeterError> {
        owed(&self.proposal.rates, self.proposal.core_mhz, usage)
    }
}

impl Account {
    pub(crate) fn new(channel: Channel, size: Size, now_ms: u64) -> Self {
        Self {
            channel,
            carried_sat: 0,
            meter: Meter::new(size),
            payments: 0,
            last_payment_ms: now_ms,
            acked_total_sat: 0,
            granted_msat: 0,
            recalled_msat: 0,
        }
    }

    /// The total that this usage calls for: reserve, what was used, and what is to be paid ahead.
    pub(crate) fn due_sat(&self, price: &Price<'_>, usage: &Usage, ahead: Msat) -> Result<u64, MeterError> {
        let used = price.owed(usage)?;
        let msat = used.0.saturating_add(self.granted_msat).saturating_add(ahead.0).saturating_sub(self.carried_msat());
        Ok(self.channel.terms.total_for(msat / 1000))
    }

    /// What was used beyond what earlier channels paid for, thousandths of a satoshi.
    pub(crate) fn used_msat(&self, price: &Price<'_>) -> Result<u64, MeterError> {
        Ok(price.owed(&self.meter.usage())?.0.saturating_sub(self.carried_msat()))
    }

    fn carried_msat(&self) -> u64 {
        self.carried_sat.saturating_mul(1000)
    }

    /// The next channel takes over; the one that was paid on so far comes back.
    pub(crate) fn take_over(&mut self, next: Channel) -> Channel {
        let earned_sat = self.channel.terms.earned_of(self.channel.total_sat());
        self.carried_sat = self.carried_sat.saturating_add(earned_sat);
        self.acked_total_sat = 0;
        std::mem::replace(&mut self.channel, next)
    }

    /// What was used beyond what was paid for, thousandths of a satoshi.
    pub(crate) fn exposure_msat(&self, price: &Price<'_>) -> Result<u64, MeterError> {
        let used = self.used_msat(price)?;
        let paid = self.channel.terms.earned_of(self.total_sat()).saturating_mul(1000);
        Ok(used.saturating_sub(paid))
    }

    /// The highest total signed (publisher) or held (node) on the present channel, satoshi.
    pub fn total_sat(&self) -> u64 {
        self.channel.total_sat()
    }

    pub(crate) fn add_traffic(&mut self, bytes: u64) {
        self.meter.traffic(self.meter.usage().traffic_bytes.saturating_add(bytes));
    }
}
