//! What an identity is, and how its hash is made.

use std::fmt;
use std::str::FromStr;

use secp256k1::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::work::Search;
use crate::{Target, double_sha256};

/// Stands before an identity in what is hashed, so that the hash can be nothing else's. With it the preimage is 94 bytes:
/// machines built for Bitcoin's 80 are of no use.
const TAG: &[u8; 15] = b"xennet-identity";

/// The version of identities with plain double SHA-256.
const VERSION: u8 = 0;

/// Which side of the market an identity speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys: announces tasks and pays. Wire value 1.
    Publisher,
    /// Sells: runs virtual machines. Wire value 2.
    Node,
}

/// The block an identity is anchored to, so that nobody can mine identities in advance of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Height of the block.
    pub height: u32,
    /// Hash of the block, in Bitcoin's internal byte order; serialized as Bitcoin shows it, reversed.
    #[serde(with = "reversed_hex")]
    pub hash: [u8; 32],
}

/// The double SHA-256 of an identity's preimage, in internal byte order. Shown reversed, like a transaction's id, so that
/// the zeros that were mined stand first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub [u8; 32]);

/// A mined identity: version 0 is plain double SHA-256, as the RFC says.
///
/// ```text
/// version 1 = 0 ‖ role 1 ‖ key 33 ‖ anchor height 4 (little-endian) ‖ anchor hash 32 ‖ nonce 8 (little-endian)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Publisher or node.
    pub role: Role,
    /// The key that signs what this identity says.
    pub key: PublicKey,
    /// The block it is anchored to.
    pub anchor: Anchor,
    /// The mined nonce.
    pub nonce: u64,
}

/// An identity that lacks its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdentityTemplate {
    /// Publisher or node.
    pub role: Role,
    /// The key that will sign what the identity says.
    pub key: PublicKey,
    /// The block to anchor it to.
    pub anchor: Anchor,
}

/// What is wrong with an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Too short or too long.
    #[error("an identity is {expected} bytes, but {found} were given", expected = Identity::WIRE_LEN)]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// A version this program does not know.
    #[error("the identity's version is {found}, but only {VERSION} is known; a newer program may know it")]
    Version {
        /// The version given.
        found: u8,
    },
    /// Neither publisher nor node.
    #[error("the identity's role is {found}, but it must be 1 (publisher) or 2 (node)")]
    Role {
        /// The role given.
        found: u8,
    },
    /// No point on the curve.
    #[error("the identity's key is no compressed secp256k1 public key")]
    Key(#[source] secp256k1::Error),
    /// Too little work.
    #[error("the identity's hash {id} is above the target {target}; mine a new nonce")]
    AboveTarget {
        /// The hash.
        id: IdentityId,
        /// What it may be at most.
        target: Target,
    },
    /// Anchored too near to the tip, or beyond it.
    #[error(
        "the identity's anchor is block {height}, but with the tip at {tip} it must be {min_age} blocks deep; \
         wait for more blocks or mine one with an older anchor"
    )]
    AnchorTooYoung {
        /// The anchor's height.
        height: u32,
        /// The tip's height.
        tip: u32,
        /// Least age in blocks.
        min_age: u32,
    },
    /// Anchored too long ago.
    #[error(
        "the identity's anchor is block {height}, but with the tip at {tip} it may be at most {max_age} blocks deep; \
         mine a new identity"
    )]
    AnchorTooOld {
        /// The anchor's height.
        height: u32,
        /// The tip's height.
        tip: u32,
        /// Greatest age in blocks.
        max_age: u32,
    },
    /// Text that is no role.
    #[error("`{found}` is no role: it must be `publisher` or `node`")]
    RoleName {
        /// The text, cut to 80 characters.
        found: String,
    },
    /// Text that is no identity's id.
    #[error("`{found}` is no identity's id: it must be 64 hex digits")]
    Id {
        /// The text, cut to 80 characters.
        found: String,
    },
}

impl Identity {
    /// Bytes of an encoded identity.
    pub const WIRE_LEN: usize = Self::NONCE_AT + 8;
    const NONCE_AT: usize = 1 + 1 + 33 + 4 + 32;

    /// The hash that was mined.
    pub fn id(&self) -> IdentityId {
        let mut preimage = Vec::with_capacity(TAG.len() + Self::WIRE_LEN);
        preimage.extend_from_slice(TAG);
        self.encode(&mut preimage);
        IdentityId(double_sha256(&preimage))
    }

    /// Appends its [`Self::WIRE_LEN`] bytes.
    pub fn encode(&self, to: &mut Vec<u8>) {
        self.template().encode(to);
        to.extend_from_slice(&self.nonce.to_le_bytes());
    }

    /// Reads exactly [`Self::WIRE_LEN`] bytes. Does not check the work: see [`Self::check`].
    pub fn decode(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let bytes: &[u8; Self::WIRE_LEN] = bytes.try_into().map_err(|_| IdentityError::Length { found: bytes.len() })?;
        if bytes[0] != VERSION {
            return Err(IdentityError::Version { found: bytes[0] });
        }
        let role = match bytes[1] {
            1 => Role::Publisher,
            2 => Role::Node,
            found => return Err(IdentityError::Role { found }),
        };
        let key = PublicKey::from_slice(&bytes[2..35]).map_err(IdentityError::Key)?;
        let (mut height, mut hash, mut nonce) = ([0; 4], [0; 32], [0; 8]);
        height.copy_from_slice(&bytes[35..39]);
        hash.copy_from_slice(&bytes[39..71]);
        nonce.copy_from_slice(&bytes[Self::NONCE_AT..]);
        let anchor = Anchor { height: u32::from_le_bytes(height), hash };
        Ok(Identity { role, key, anchor, nonce: u64::from_le_bytes(nonce) })
    }

    /// Checks that its hash is not above the target.
    pub fn check(&self, target: &Target) -> Result<(), IdentityError> {
        let id = self.id();
        if target.is_met_by(&id.0) { Ok(()) } else { Err(IdentityError::AboveTarget { id, target: *target }) }
    }

    /// The identity without its nonce.
    pub fn template(&self) -> IdentityTemplate {
        IdentityTemplate { role: self.role, key: self.key, anchor: self.anchor }
    }
}

impl IdentityTemplate {
    /// Looks for a nonce that meets the target, among `count` nonces from `start` on, wrapping at the end of the range.
    pub fn search(&self, target: &Target, start: u64, count: u64) -> Option<u64> {
        let mut prefix = Vec::with_capacity(TAG.len() + Identity::NONCE_AT);
        prefix.extend_from_slice(TAG);
        self.encode(&mut prefix);
        Search::new(&prefix, &[]).run(start, count, |hash| target.is_met_by(hash), target.first_word_mask())
    }

    /// The identity with this nonce.
    pub fn with_nonce(&self, nonce: u64) -> Identity {
        Identity { role: self.role, key: self.key, anchor: self.anchor, nonce }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.push(VERSION);
        to.push(match self.role {
            Role::Publisher => 1,
            Role::Node => 2,
        });
        to.extend_from_slice(&self.key.serialize());
        to.extend_from_slice(&self.anchor.height.to_le_bytes());
        to.extend_from_slice(&self.anchor.hash);
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Publisher => "publisher",
            Role::Node => "node",
        })
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Role, IdentityError> {
        match text {
            "publisher" => Ok(Role::Publisher),
            "node" => Ok(Role::Node),
            _ => Err(IdentityError::RoleName { found: text.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityId({self})")
    }
}

impl FromStr for IdentityId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<IdentityId, IdentityError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| IdentityError::Id { found: text.chars().take(80).collect() })?;
        hash.reverse();
        Ok(IdentityId(hash))
    }
}

impl Serialize for IdentityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdentityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IdentityId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A block's hash as Bitcoin shows it.
mod reversed_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::IdentityId;

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&IdentityId(*hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash).map_err(|_| serde::de::Error::custom("a block's hash must be 64 hex digits"))?;
        hash.reverse();
        Ok(hash)
    }
}
