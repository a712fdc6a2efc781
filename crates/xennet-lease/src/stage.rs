//! How far a lease has come, and how it may end.

use serde::{Deserialize, Serialize};
use xennet_rama::Spend;

use crate::CloseReason;

/// How far a lease has come. The same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// The node took the task; the tunnel is not up yet.
    Accepted,
    /// The tunnel is up; the guest boots.
    Connected,
    /// The guest answers; the publisher measures it.
    Measuring,
    /// The publisher proposed; the node considers.
    Proposed,
    /// The node agreed; the channel is being funded.
    Agreed,
    /// The guest is the publisher's, and is paid for.
    Live,
    /// No more is served; the last payment goes on chain.
    Closing {
        /// Why.
        reason: CloseReason,
    },
    /// The chain has the end of the channel.
    Settled {
        /// The transaction.
        txid: bitcoin::Txid,
        /// How it ended the channel, and every satoshi of it.
        spend: Spend,
    },
    /// Over before anything was locked on chain.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// Why a lease ended with nothing locked on chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Nobody came.
    #[error("no tunnel within {within_s} s: is the publisher's address reachable from the node?")]
    NoTunnel {
        /// Seconds waited.
        within_s: u64,
    },
    /// The task's time for the proposal ran out.
    #[error("no agreement within the {within_s} s the task allows for the proposal")]
    TooLate {
        /// The task's time for the proposal, seconds.
        within_s: u64,
    },
    /// The publisher refused what it measured.
    #[error("the machine does not suit the task: {}", .0.join("; "))]
    MachineRefused(Vec<String>),
    /// The node refused the terms.
    #[error("the proposal does not suit the node: {}", .0.join("; "))]
    ProposalRefused(Vec<String>),
    /// There is no guest.
    #[error("the guest failed: {0}")]
    MachineFailed(String),
    /// The guest could not be measured.
    #[error("the guest could not be measured: {0}")]
    MeasureFailed(String),
    /// The channel could not be funded.
    #[error("the channel could not be funded: {0}")]
    FundingFailed(String),
    /// The other side hung up.
    #[error("the other side hung up: {0}")]
    HungUp(String),
    /// Node: what was paid is not worth a transaction.
    #[error("there is nothing to settle: {0}")]
    NothingToSettle(String),
    /// The own user wanted an end.
    #[error("cancelled")]
    Cancelled,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
}
