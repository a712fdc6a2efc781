//! The proposal: what a publisher, having measured the machine, will pay for it.

use std::time::Duration;

use crate::{AnnouncementHash, PayoutInterval, Rates};

/// Names a lease on both sides: the first 8 bytes of SHA256d(`"xennet-lease"` ‖ task hash ‖ acceptance hash).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub [u8; 8]);

/// Terms for one lease. Travels sealed to the node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// The task.
    pub task: AnnouncementHash,
    /// The acceptance it answers.
    pub acceptance: AnnouncementHash,
    /// What the publisher measured each core to be, MHz: the GHz that the cpu rate is for.
    pub core_mhz: u32,
    /// What it pays for each part.
    pub rates: Rates,
    /// How long the lease is to last, whole seconds.
    pub lease: Duration,
    /// When it pays.
    pub payout: PayoutInterval,
    /// What it will lock in the channel, satoshi.
    pub capacity_sat: u64,
    /// The publisher's key in the channel (fresh), compressed.
    pub channel_key: [u8; 33],
    /// From this height on the publisher alone may take back what was not paid.
    pub refund_height: u32,
    /// Unix seconds after which the proposal is void.
    pub expires_at: u32,
}
