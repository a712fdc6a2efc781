//! The envelope around everything a stranger says: kind, work, body, signature, nonce.
//!
//! ```text
//! "XN" ‖ version 1 ‖ kind 1 ‖ work bits 1 ‖ body ‖ signature 64 (BIP340 over everything before it) ‖ nonce 8 (little-endian)
//! ```
//! The nonce stands last, so that it is also the last bytes of the OP_RETURN that carries it on chain. The work is that
//! of whatever carries it: the transaction's id on chain, the double SHA-256 of these bytes on the overlay alone.

use std::fmt;

use secp256k1::schnorr::Signature;
use secp256k1::{Keypair, Message, SECP256K1};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xennet_identity::{Identity, Role, double_sha256};

use crate::limits::{self, FieldError};
use crate::names::hex_bytes;
use crate::wire::{DecodeError, Reader};
use crate::{Acceptance, Sealed, Task};

pub(crate) const MAGIC: &[u8; 2] = b"XN";
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER: usize = 5;
const SIGNATURE: usize = 64;
pub(crate) const NONCE: usize = 8;

/// SHA256d of an announcement's bytes without its nonce: stays the same however much work is put in. Shown in the order
/// of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnnouncementHash(pub [u8; 32]);

/// What an announcement is about. Wire values 1 to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Who takes it back; must be who announced it.
    pub publisher: Identity,
    /// The task.
    pub task: AnnouncementHash,
}

/// The body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unworked(#[serde(with = "hex_bytes")] pub Vec<u8>);

/// Why something cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A field that may not be said.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A node that would say what only a publisher may, or the other way round.
    #[error("a {found}'s identity cannot say a {kind}; use a {expected}'s", expected = kind.said_by())]
    WrongRole {
        /// What was to be said.
        kind: Kind,
        /// By whom.
        found: Role,
    },
    /// The key that signs is not the identity's.
    #[error("the identity's key is {expected}, but the key to sign with is {found}")]
    WrongKey {
        /// The identity's, in hex digits.
        expected: String,
        /// The signer's, in hex digits.
        found: String,
    },
}

impl Unworked {
    /// Says it: checks every field, writes the bytes and signs them, always with the same signature.
    pub fn sign(said: &Said, work_bits: u8, secret: &Keypair) -> Result<Unworked, SignError> {
        said.check()?;
        limits::WORK_BITS.check(work_bits)?;
        let (kind, sender) = (said.kind(), said.sender());
        if sender.role != kind.said_by() {
            return Err(SignError::WrongRole { kind, found: sender.role });
        }
        if sender.key != secret.public_key() {
            let (expected, found) = (sender.key.to_string(), secret.public_key().to_string());
            return Err(SignError::WrongKey { expected, found });
        }
        let mut bytes = Vec::with_capacity(Announcement::MAX_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, kind.to_byte(), work_bits]);
        said.encode(&mut bytes);
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&message(&bytes), secret);
        bytes.extend_from_slice(&signature.serialize());
        Ok(Unworked(bytes))
    }

    /// The bytes before the nonce.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole announcement.
    pub fn with_nonce(self, nonce: u64) -> Vec<u8> {
        let mut bytes = self.0;
        bytes.extend_from_slice(&nonce.to_le_bytes());
        bytes
    }

    /// What the announcement will be called.
    pub fn hash(&self) -> AnnouncementHash {
        AnnouncementHash(double_sha256(&self.0))
    }
}

impl Announcement {
    /// The longest announcement, bytes.
    pub const MAX_LEN: usize = 520;

    /// What the envelope adds to the body, bytes.
    pub(crate) const ENVELOPE_LEN: usize = HEADER + SIGNATURE + NONCE;

    /// Reads an announcement, strictly: there is one encoding of each, and the signature must be the sender's. The
    /// signature costs most, so it is checked last.
    ///
    /// Not checked, because the bytes alone do not tell: work, the sender's target, time.
    pub fn decode(payload: &[u8]) -> Result<Announcement, DecodeError> {
        if payload.len() > Self::MAX_LEN {
            return Err(DecodeError::TooLong { found: payload.len() });
        }
        let (kind, work_bits) = header(payload)?;
        let (signed, nonce) = payload.split_last_chunk::<NONCE>().ok_or(DecodeError::Truncated { field: "nonce" })?;
        let (said, signature) = signed.split_last_chunk::<SIGNATURE>().ok_or(DecodeError::Truncated { field: "signature" })?;
        let body = said.get(HEADER..).ok_or(DecodeError::Truncated { field: "body" })?;
        let announcement = Announcement {
            work_bits,
            said: Said::decode(kind, body)?,
            hash: AnnouncementHash(double_sha256(signed)),
            nonce: u64::from_le_bytes(*nonce),
        };
        let key = announcement.sender().key.x_only_public_key().0;
        Signature::from_slice(signature)
            .and_then(|signature| SECP256K1.verify_schnorr(&signature, &message(said), &key))
            .map_err(|_| DecodeError::Signature)?;
        Ok(announcement)
    }

    /// The work bits that bytes claim to commit to, read without checking anything but the first five bytes. `None`: no
    /// announcement of a known version and kind.
    pub fn peek_work_bits(payload: &[u8]) -> Option<u8> {
        header(payload).ok().map(|(_, work_bits)| work_bits)
    }

    /// Who says it.
    pub fn sender(&self) -> &Identity {
        self.said.sender()
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.said.kind()
    }
}

impl Said {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Said::Task(_) => Kind::Task,
            Said::Acceptance(_) => Kind::Acceptance,
            Said::Proposal(_) => Kind::Proposal,
            Said::Cancellation(_) => Kind::Cancellation,
        }
    }

    /// Who says it.
    pub fn sender(&self) -> &Identity {
        match self {
            Said::Task(task) => &task.publisher,
            Said::Acceptance(acceptance) => &acceptance.node,
            Said::Proposal(sealed) => &sealed.publisher,
            Said::Cancellation(cancellation) => &cancellation.publisher,
        }
    }

    /// Checks that every field may be said.
    pub fn check(&self) -> Result<(), FieldError> {
        match self {
            Said::Task(task) => task.check(),
            Said::Acceptance(acceptance) => acceptance.check(),
            Said::Proposal(sealed) => sealed.check(),
            Said::Cancellation(_) => Ok(()),
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Said::Task(task) => task.encode(to),
            Said::Acceptance(acceptance) => acceptance.encode(to),
            Said::Proposal(sealed) => sealed.encode(to),
            Said::Cancellation(cancellation) => cancellation.encode(to),
        }
    }

    fn decode(kind: Kind, body: &[u8]) -> Result<Said, DecodeError> {
        let mut from = Reader::new(body);
        let said = match kind {
            Kind::Task => Said::Task(Task::decode(&mut from)?),
            Kind::Acceptance => Said::Acceptance(Acceptance::decode(&mut from)?),
            Kind::Proposal => Said::Proposal(Sealed::decode(&mut from)?),
            Kind::Cancellation => Said::Cancellation(Cancellation::decode(&mut from)?),
        };
        from.end()?;
        Ok(said)
    }
}

impl Cancellation {
    pub(crate) const WIRE_LEN: usize = Identity::WIRE_LEN + 32;

    fn encode(&self, to: &mut Vec<u8>) {
        self.publisher.encode(to);
        to.extend_from_slice(&self.task.0);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Cancellation, DecodeError> {
        Ok(Cancellation { publisher: from.identity(Kind::Cancellation)?, task: AnnouncementHash(from.array("task")?) })
    }
}

impl Kind {
    /// Whose identity may say it.
    pub fn said_by(self) -> Role {
        match self {
            Kind::Task | Kind::Proposal | Kind::Cancellation => Role::Publisher,
            Kind::Acceptance => Role::Node,
        }
    }

    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Task, Kind::Acceptance, Kind::Proposal, Kind::Cancellation];

    /// The class of the marker that a transaction with such an announcement has: the byte that stands for the kind on the wire.
    pub fn marker_class(self) -> u8 {
        self.to_byte()
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Kind::Task => 1,
            Kind::Acceptance => 2,
            Kind::Proposal => 3,
            Kind::Cancellation => 4,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Kind, DecodeError> {
        match byte {
            1 => Ok(Kind::Task),
            2 => Ok(Kind::Acceptance),
            3 => Ok(Kind::Proposal),
            4 => Ok(Kind::Cancellation),
            found => Err(DecodeError::Kind { found }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Task => "task",
            Kind::Acceptance => "acceptance",
            Kind::Proposal => "proposal",
            Kind::Cancellation => "cancellation",
        })
    }
}

fn header(payload: &[u8]) -> Result<(Kind, u8), DecodeError> {
    let mut from = Reader::new(payload);
    if &from.array::<2>("header")? != MAGIC {
        return Err(DecodeError::NotXennet);
    }
    let found = from.byte("header")?;
    if found != VERSION {
        return Err(DecodeError::Version { what: "the announcement", found, known: VERSION });
    }
    let kind = Kind::from_byte(from.byte("header")?)?;
    let work_bits = limits::WORK_BITS.check(from.byte("header")?)?;
    Ok((kind, work_bits as u8))
}

/// What is signed: a tagged hash as in BIP340, so that a signature for Xennet is none for anything else.
fn message(said: &[u8]) -> Message {
    let tag = Sha256::digest(b"xennet/announcement");
    Message::from_digest(Sha256::new().chain_update(tag).chain_update(tag).chain_update(said).finalize().into())
}
