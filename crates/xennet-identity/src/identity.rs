//! What an identity is, and how its hash is made.

use secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

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
    /// Hash of the block, in Bitcoin's internal byte order.
    pub hash: [u8; 32],
}

/// The double SHA-256 of an identity's preimage, in internal byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub [u8; 32]);

/// A mined identity: version 0 is plain double SHA-256, as the RFC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
