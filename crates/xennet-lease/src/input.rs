//! What happens to a lease.

use bitcoin::{ScriptBuf, Transaction};
use serde::{Deserialize, Serialize};
use xennet_meter::Figures;
use xennet_task::Proposal;

use crate::{CloseReason, Message, Secret};

/// The machine a node put at a publisher's disposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system image.
    pub operating_system: String,
    /// Cores.
    pub cores: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Temporary disk, MiB.
    pub disk_mib: u32,
    /// Persistent storage, MiB.
    pub persistent_mib: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// From start to the guest's SSH banner, milliseconds.
    pub boot_ms: u64,
}

/// One event, from the hands or from the user.
#[derive(Debug, Clone)]
pub enum Input {
    /// Drive the machine for the first time, or after a restart.
    Start,
    /// Time passes. About once a second.
    Tick,
    /// Bytes through the lease's pipes since this process began, all connections and both directions added.
    Traffic(u64),
    /// The tunnel is up.
    LinkUp,
    /// The tunnel is down. It is the node that comes back.
    LinkDown,
    /// The other side said something.
    Heard(Message),
    /// Node: the guest answers.
    MachineReady(Machine),
    /// Node: there will be no guest, or it died.
    MachineFailed(String),
    /// Publisher: the guest was measured.
    Measured {
        /// What it can do.
        figures: Figures,
        /// The ed25519 key its SSH server showed.
        host_key: [u8; 32],
    },
    /// Publisher: the guest could not be measured.
    MeasureFailed(String),
    /// Publisher: the proposal's announcement bytes, as they were spread.
    ProposalSpread(Vec<u8>),
    /// Publisher: the proposal's announcement cannot be made.
    ProposalFailed(String),
    /// Node: a proposal for this lease, opened.
    Proposal(Proposal),
    /// Publisher: the funding transaction, signed, not yet broadcast.
    FundingBuilt {
        /// The transaction.
        transaction: Transaction,
        /// Its output that is the channel.
        vout: u32,
    },
    /// Publisher: the wallet could not build it.
    FundingFailed(String),
    /// An own script to pay to and a fee rate, as asked for with [`crate::Action::AskDestination`].
    Destination {
        /// Where the own money goes.
        to: ScriptBuf,
        /// Satoshi per 1000 virtual bytes.
        feerate_sat_per_kvb: u64,
    },
    /// A key of the own wallet that was never used, as asked for with [`crate::Action::AskKey`].
    FreshKey(Secret),
    /// Publisher: the user wants more time.
    Renew {
        /// How much more, seconds.
        adds_s: u64,
        /// The most that may be locked for it, satoshi.
        budget_sat: u64,
        /// Whether the same is to be asked again and again, as far as the budget goes.
        go_on: bool,
    },
    /// The chain's best block.
    Tip(u32),
    /// A transaction that funds or spends the channel; `None`: it waits in the mempool.
    Seen {
        /// The transaction.
        transaction: Transaction,
        /// The block it is in.
        height: Option<u32>,
    },
    /// All that the chain and the mempool held of this script has been told, as asked for with [`crate::Action::Watch`].
    PastTold(ScriptBuf),
    /// A transaction left the best chain or the mempool.
    Gone(bitcoin::Txid),
    /// The user, or the daemon for the user, wants an end.
    Close(CloseReason),
}
