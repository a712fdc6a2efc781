//! What a daemon tells while it works.

use serde::{Deserialize, Serialize};
use xennet_meter::Figures;
use xennet_task::{AnnouncementHash, LeaseId, Msat, Rates};

use super::view::{LeaseStage, MiningView, TaskState};

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. As JSON: `{"at_ms": 1, "event": "paid", "lease": "77c0…", …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// Mining goes on, or has found.
    Mining(MiningView),
    /// Work for an announcement goes on: how many hashes were made of those expected.
    Working {
        /// Hashes made.
        hashes: u64,
        /// Hashes it takes on average.
        expected_hashes: u64,
    },
    /// A task changed.
    Task {
        /// The task.
        task: AnnouncementHash,
        /// How far it is now.
        state: TaskState,
        /// Words for people, e.g. the txid.
        note: String,
    },
    /// The guest image is being made or unpacked.
    Image {
        /// The step, e.g. `downloading linux-image-cloud-amd64`.
        step: String,
        /// Steps or bytes done.
        done: u64,
        /// Of so many; 0 if nobody knows.
        total: u64,
    },
    /// A lease entered a stage.
    Lease {
        /// The lease.
        lease: LeaseId,
        /// Its task.
        task: AnnouncementHash,
        /// The stage.
        stage: LeaseStage,
        /// Words for people: reasons, a txid.
        note: String,
    },
    /// A lease's tunnel came up or went down.
    Tunnel {
        /// The lease.
        lease: LeaseId,
        /// Whether it stands now.
        up: bool,
        /// The other end's address, or why it went down.
        note: String,
    },
    /// The machine is starting.
    Boot {
        /// The lease.
        lease: LeaseId,
        /// The step, e.g. `kernel started`.
        step: String,
        /// Milliseconds since the start.
        elapsed_ms: u64,
    },
    /// The machine is being measured.
    Benchmark {
        /// The lease.
        lease: LeaseId,
        /// The stage, e.g. `memory`.
        stage: String,
        /// The figures, once all are there.
        figures: Option<Figures>,
    },
    /// Rates were proposed.
    Proposal {
        /// The lease.
        lease: LeaseId,
        /// The rates.
        rates: Rates,
        /// What will be locked in the channel, satoshi.
        capacity_sat: u64,
    },
    /// A payment was acknowledged (publisher) or taken (node).
    Paid {
        /// The lease.
        lease: LeaseId,
        /// Its number, from 1.
        number: u64,
        /// The total paid so far, satoshi.
        paid_sat: u64,
        /// What is owed so far by this side's meter.
        owed: Msat,
    },
    /// A lease is settled on chain.
    Settled {
        /// The lease.
        lease: LeaseId,
        /// The total paid over the channel, satoshi.
        paid_sat: u64,
        /// The transaction.
        txid: String,
    },
    /// The chain has a new tip.
    Tip {
        /// Its height.
        height: u32,
    },
    /// Something a person should know that fits nowhere else, e.g. `the chain is away: …`.
    Notice {
        /// The words.
        text: String,
    },
    /// This client was too slow and missed events; ask for the state again.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl What {
    /// The lease it is about, if it is about one.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            What::Lease { lease, .. }
            | What::Tunnel { lease, .. }
            | What::Boot { lease, .. }
            | What::Benchmark { lease, .. }
            | What::Proposal { lease, .. }
            | What::Paid { lease, .. }
            | What::Settled { lease, .. } => Some(*lease),
            _ => None,
        }
    }
}
