//! How far a lease has come, and how it may end.

use serde::{Deserialize, Serialize};
use xennet_rama::Spend;

use crate::CloseReason;
use crate::side::CLOSE_FEERATE_FACTOR;

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
    /// The node wants more for the close than the publisher gives.
    #[error(
        "close_feerate: the node expects closing to cost {asked_sat_vb} sat/vB, this publisher gives at most {most_sat_vb}, \
         {CLOSE_FEERATE_FACTOR} times what its own chain says; ask for {most_sat_vb} or less, or compare what the two chain sources say of fees"
    )]
    CloseFeerate {
        /// Asked for, satoshi per virtual byte, rounded up.
        asked_sat_vb: u64,
        /// The most given, satoshi per virtual byte, rounded down.
        most_sat_vb: u64,
    },
    /// The close would take most of the channel.
    #[error(
        "close_feerate: closing is to cost {reserve_sat} sat, more than half of the {capacity_sat} sat in the channel; raise budget_sat to \
         {} or more, or wait until fees fall", reserve_sat.saturating_mul(2)
    )]
    CloseTooDear {
        /// The close reserve, satoshi.
        reserve_sat: u64,
        /// What the budget leaves for the channel, satoshi.
        capacity_sat: u64,
    },
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
    /// The publisher's proposal could not be said.
    #[error("the proposal could not be made: {0}")]
    ProposalFailed(String),
}
