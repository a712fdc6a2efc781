//! The envelope around everything a stranger says: kind, work, body, signature, nonce.
//!
//! ```text
//! "XN" ‖ version 1 ‖ kind 1 ‖ work bits 1 ‖ body ‖ signature 64 (BIP340 over everything before it) ‖ nonce 8 (little-endian)
//! ```
//! The nonce stands last, so that it is also the last bytes of the OP_RETURN that carries it on chain. The work is that
//! of whatever carries it: the transaction's id on chain, the double SHA-256 of these bytes on the overlay alone.

use xennet_identity::Identity;

use crate::{Acceptance, Sealed, Task};

/// SHA256d of an announcement's bytes without its nonce: stays the same however much work is put in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnnouncementHash(pub [u8; 32]);

/// What an announcement is about. Wire values 1 to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A publisher's task.
    Task,
    /// A node's acceptance.
    Acceptance,
    /// A publisher's proposal, sealed.
    Proposal,
    /// A publisher takes its task back.
    Cancellation,
}

/// A publisher takes its task back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancellation {
    /// Who takes it back; must be who announced it.
    pub publisher: Identity,
    /// The task.
    pub task: AnnouncementHash,
}

/// The body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A task.
    Task(Task),
    /// An acceptance.
    Acceptance(Acceptance),
    /// A sealed proposal.
    Proposal(Sealed),
    /// A cancellation.
    Cancellation(Cancellation),
}

/// A decoded, signature-checked announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The leading zero bits its maker committed to.
    pub work_bits: u8,
    /// What it says.
    pub said: Said,
    /// Its hash without nonce.
    pub hash: AnnouncementHash,
    /// The nonce.
    pub nonce: u64,
}

/// Signed bytes that still lack their nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unworked(pub Vec<u8>);
