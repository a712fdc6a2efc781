//! The task: every field of the RFC's *Task Details*.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_identity::Identity;

use crate::Rates;

/// The number a publisher gives its task (RFC: *Task ID*). Eight random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub [u8; 8]);

/// What a publisher announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The publisher's number for it.
    pub id: TaskId,
    /// Who announces it and pays.
    pub publisher: Identity,
    /// The ed25519 public key of the publisher's SSH server. A node hangs up on any other.
    pub ssh_host_key: [u8; 32],
    /// Where nodes dial to.
    pub address: SocketAddr,
    /// What the virtual machine must have.
    pub requirements: Requirements,
    /// How many such machines are wanted network-wide, at least 1.
    pub machines: u16,
    /// How long a lease should last.
    pub lease: LeaseRange,
    /// When the publisher pays.
    pub payout: PayoutInterval,
    /// The most it offers for each part.
    pub rates: Rates,
    /// From the tunnel's start, the time within which the proposal must have been made and accepted.
    pub proposal_within: Duration,
    /// Leading zero bits the publisher demands of an acceptance's work.
    pub acceptance_work_bits: u8,
    /// Unix seconds after which the announcement is void.
    pub expires_at: u32,
    /// Additional information, typically a short URL. UTF-8, at most [`Task::MAX_INFO`] bytes.
    pub info: String,
}

/// What the virtual machine must have. Zero or an empty list: no such requirement.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Operating systems to choose from, best first, e.g. `thin`, `debian-12`. Lower-case ASCII letters, digits, `-`, `.`;
    /// at most 8 names of at most 20 bytes.
    pub operating_systems: Vec<String>,
    /// Network bandwidth of the guest, kbit/s.
    pub bandwidth_kbit_s: u32,
    /// Temporary disk.
    pub storage: Storage,
    /// Size of persistent storage, MiB.
    pub persistent_mib: u32,
    /// Alternatives, at most 8; the node chooses one. Empty: one core of any clock.
    pub compute: Vec<Compute>,
    /// Memory for each core, MiB.
    pub memory_per_core_mib: u32,
    /// Memory speed, MB/s (10^6 bytes per second).
    pub memory_mb_s: u32,
}

/// Temporary disk: how much and how fast.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Size, MiB.
    pub size_mib: u32,
    /// Sequential speed, MB/s (10^6 bytes per second).
    pub mb_s: u32,
}

/// Cores, each with at least this clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Number of cores, at least 1.
    pub cores: u16,
    /// Clock of each as the benchmark measures it, MHz.
    pub mhz: u32,
}

/// How long a lease should last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRange {
    /// Shortest, whole seconds, at least 1.
    pub min: Duration,
    /// Longest, whole seconds, not under `min`.
    pub max: Duration,
}

/// When the publisher pays. On the wire: signed seconds, negative means in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutInterval {
    /// After each interval of use.
    InArrears(Duration),
    /// Before each interval of use.
    InAdvance(Duration),
}

impl Task {
    /// The longest additional information, bytes.
    pub const MAX_INFO: usize = 120;
}
