//! The acceptance: a node takes a task.

use serde::{Deserialize, Serialize};
use xennet_identity::Identity;

use crate::limits::{self, FieldError};
use crate::names::hex_array;
use crate::requirements::check_name;
use crate::wire::{DecodeError, Reader, put_text, put_varint};
use crate::{AnnouncementHash, Compute, Kind, Requirements};

/// A node's answer to a task, before it dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The task it takes.
    pub task: AnnouncementHash,
    /// Who takes it.
    pub node: Identity,
    /// The ed25519 public key the node will log in with at the publisher's SSH server. The signature over this
    /// acceptance is what ties the SSH connection to the node's identity.
    #[serde(with = "hex_array")]
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

impl Acceptance {
    pub(crate) const MAX_WIRE_LEN: usize = 32
        + Identity::WIRE_LEN
        + 32
        + 1
        + Requirements::MAX_NAME
        + Compute::MAX_WIRE_LEN
        + limits::MEMORY.wire_len()
        + limits::DISK.wire_len()
        + limits::PERSISTENT.wire_len()
        + 1
        + 4;

    /// Checks that every field may be said.
    pub fn check(&self) -> Result<(), FieldError> {
        check_name(&self.operating_system)?;
        self.compute.check()?;
        limits::MEMORY.check(self.memory_mib)?;
        limits::DISK.check(self.disk_mib)?;
        limits::PERSISTENT.check(self.persistent_mib)?;
        limits::PROPOSAL_WORK_BITS.check(self.proposal_work_bits).map(drop)
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.task.0);
        self.node.encode(to);
        to.extend_from_slice(&self.ssh_key);
        put_text(to, &self.operating_system);
        self.compute.encode(to);
        put_varint(to, self.memory_mib);
        put_varint(to, self.disk_mib);
        put_varint(to, self.persistent_mib);
        to.push(self.proposal_work_bits);
        to.extend_from_slice(&self.expires_at.to_le_bytes());
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Acceptance, DecodeError> {
        let acceptance = Acceptance {
            task: AnnouncementHash(from.array("task")?),
            node: from.identity(Kind::Acceptance)?,
            ssh_key: from.array("ssh_key")?,
            operating_system: from.text("operating_system", Requirements::MAX_NAME)?.to_owned(),
            compute: Compute::decode(from)?,
            memory_mib: from.number(&limits::MEMORY)?,
            disk_mib: from.number(&limits::DISK)?,
            persistent_mib: from.number(&limits::PERSISTENT)?,
            proposal_work_bits: from.byte("proposal_work_bits")?,
            expires_at: from.u32("expires_at")?,
        };
        acceptance.check()?;
        Ok(acceptance)
    }
}
