//! The acceptance: a node takes a task.

use xennet_identity::Identity;

use crate::{AnnouncementHash, Compute};

/// A node's answer to a task, before it dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The task it takes.
    pub task: AnnouncementHash,
    /// Who takes it.
    pub node: Identity,
    /// The ed25519 public key the node will log in with at the publisher's SSH server. The signature over this
    /// acceptance is what ties the SSH connection to the node's identity.
    pub ssh_key: [u8; 32],
    /// The operating system the node chose from the task's list.
    pub operating_system: String,
    /// The cores × clock alternative it chose.
    pub compute: Compute,
    /// Memory of the machine in all, MiB.
    pub memory_mib: u32,
    /// Temporary disk, MiB.
    pub disk_mib: u32,
    /// Persistent storage, MiB.
    pub persistent_mib: u32,
    /// Leading zero bits the node demands of a proposal's work.
    pub proposal_work_bits: u8,
    /// Unix seconds after which the acceptance is void.
    pub expires_at: u32,
}
