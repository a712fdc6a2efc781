//! What must be done.

use bitcoin::{ScriptBuf, Transaction};
use serde::{Deserialize, Serialize};
use xennet_task::{Msat, Proposal, Usage};

use crate::Message;

/// One thing to do, after the lease is on disk. Doing it twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say it in the tunnel. Lost when the tunnel is down: [`Message::Hello`] makes up for that.
    Send(Message),
    /// Node: dial the task's address and keep at it.
    Dial,
    /// Node: start the guest, or take up the one that still runs.
    Boot {
        /// The ed25519 public key that may log in to it.
        guest_key: [u8; 32],
    },
    /// Node: let the guest stand still.
    Pause,
    /// Node: let it run again.
    Resume,
    /// Node: end the guest.
    StopMachine,
    /// End the tunnel.
    HangUp(String),
    /// Publisher: measure the guest.
    Measure,
    /// Publisher: seal it, put in the work, spread it over the overlay, answer [`crate::Input::ProposalSpread`] or
    /// [`crate::Input::ProposalFailed`].
    SpreadProposal(Box<Proposal>),
    /// Publisher: build and sign a transaction that pays `sat` to `script`; do not broadcast it.
    Fund {
        /// The channel's script.
        script: ScriptBuf,
        /// Satoshi.
        sat: u64,
    },
    /// Report every transaction that pays to or spends from this script.
    Watch(ScriptBuf),
    /// Give it to the chain.
    Broadcast(Transaction),
    /// Answer with [`crate::Input::Destination`].
    AskDestination,
    /// Answer with [`crate::Input::FreshKey`].
    AskKey,
    /// Write a line of the ledger.
    Record(LedgerEntry),
}

/// One line of a lease's ledger. Amounts and usage are cumulative since the lease began, so that a line can be checked
/// without the ones before it, and the last lines of both sides can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Unix milliseconds, by this side's clock.
    pub at_ms: u64,
    /// What it records.
    pub kind: LedgerKind,
    /// What was used by then, by this side's meter.
    pub usage: Usage,
    /// What was owed by then, by this side's meter.
    pub owed: Msat,
    /// The total paid over the channel by then, satoshi.
    pub paid_sat: u64,
    /// The fee of this entry's transaction, where it is known, satoshi.
    pub fee_sat: u64,
    /// The transaction, where there is one.
    pub txid: Option<String>,
    /// Reasons and other words; often empty.
    pub note: String,
}

/// What a ledger entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerKind {
    /// The node accepted the task.
    Accepted,
    /// The tunnel came up.
    Connected,
    /// The tunnel went down.
    Disconnected,
    /// The machine was measured.
    Measured,
    /// Rates were agreed.
    Agreed,
    /// The channel was funded.
    Funded,
    /// A further channel was funded: the agreed time is longer.
    Renewed,
    /// A renewal came to nothing; the lease goes on as agreed.
    NotRenewed,
    /// A payment was signed (publisher) or accepted (node).
    Paid,
    /// A payment was late: the guest stands still.
    Withheld,
    /// No more is served or paid; the last payment is to be settled.
    Closing,
    /// The close is on the chain.
    Settled,
    /// The refund is on the chain.
    Refunded,
    /// It ended before anything was locked.
    Refused,
}
