//! The short form of an announcement: what a transaction carries instead of all of it.
//!
//! ```text
//! "XN" ‖ version 1 ‖ 128 + kind 1 ‖ work bits 1 ‖ expires at 4 ‖ announcement's hash 32 ‖ nonce 8 (little-endian)
//! ```
//! The announcement itself travels on the overlay beside the transaction. Who knows only the chain knows that somebody
//! has paid for an announcement of this kind, until when it stands, and how to tell it from any other.

use xennet_identity::double_sha256;

use crate::announcement::{HEADER, MAGIC, NONCE, VERSION};
use crate::limits;
use crate::wire::{DecodeError, Reader};
use crate::{Announcement, AnnouncementHash, Kind, Said, Unworked};

/// Set in the byte of the kind.
const SHORT: u8 = 0x80;

/// The short form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// What the announcement is about.
    pub kind: Kind,
    /// The leading zero bits its maker committed to.
    pub work_bits: u8,
    /// Unix seconds after which it says nothing any more.
    pub expires_at: u32,
    /// Its hash.
    pub hash: AnnouncementHash,
}

impl Digest {
    /// Bytes of the short form, nonce included.
    pub const LEN: usize = HEADER + 4 + 32 + NONCE;

    /// Of an announcement that expires; proposals and cancellations do not, and have no short form.
    pub fn of(said: &Said, unworked: &Unworked) -> Option<Digest> {
        let expires_at = match said {
            Said::Task(task) => task.expires_at,
            Said::Acceptance(acceptance) => acceptance.expires_at,
            Said::Proposal(_) | Said::Cancellation(_) => return None,
        };
        let work_bits = unworked.as_bytes().get(HEADER - 1).copied()?;
        Some(Digest { kind: said.kind(), work_bits, expires_at, hash: unworked.hash() })
    }

    /// The bytes before the nonce.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind.to_byte() | SHORT, self.work_bits]);
        bytes.extend_from_slice(&self.expires_at.to_le_bytes());
        bytes.extend_from_slice(&self.hash.0);
        bytes
    }

    /// Reads a short form, nonce included, strictly. Nobody has signed it: it is worth what the announcement is that it names.
    pub fn decode(payload: &[u8]) -> Result<Digest, DecodeError> {
        let mut from = Reader::new(payload);
        if &from.array::<2>("header")? != MAGIC {
            return Err(DecodeError::NotXennet);
        }
        let found = from.byte("header")?;
        if found != VERSION {
            return Err(DecodeError::Version { what: "the announcement", found, known: VERSION });
        }
        let kind = from.byte("header")?;
        let short = kind.checked_sub(SHORT).ok_or(DecodeError::Kind { found: kind })?;
        let kind = Kind::from_byte(short).map_err(|_| DecodeError::Kind { found: kind })?;
        if !matches!(kind, Kind::Task | Kind::Acceptance) {
            return Err(DecodeError::Kind { found: kind.to_byte() | SHORT });
        }
        let work_bits = limits::WORK_BITS.check(from.byte("header")?)? as u8;
        let expires_at = u32::from_le_bytes(from.array("expires_at")?);
        let hash = AnnouncementHash(from.array("hash")?);
        from.array::<NONCE>("nonce")?;
        from.end()?;
        Ok(Digest { kind, work_bits, expires_at, hash })
    }

    /// Whether a payload is a short form, by its first bytes.
    pub fn is_digest(payload: &[u8]) -> bool {
        payload.starts_with(MAGIC) && payload.get(HEADER - 2).is_some_and(|kind| kind & SHORT != 0)
    }

    /// Whether these are the bytes, nonce left out, that the short form names. Costs one hash; what they say is not looked at.
    pub fn names(&self, unworked: &[u8]) -> bool {
        double_sha256(unworked) == self.hash.0
    }

    /// Whether it says of a decoded announcement what that says itself.
    pub fn agrees_with(&self, announcement: &Announcement) -> bool {
        let expires_at = match &announcement.said {
            Said::Task(task) => task.expires_at,
            Said::Acceptance(acceptance) => acceptance.expires_at,
            Said::Proposal(_) | Said::Cancellation(_) => return false,
        };
        self.hash == announcement.hash
            && self.kind == announcement.kind()
            && self.work_bits == announcement.work_bits
            && self.expires_at == expires_at
    }
}
