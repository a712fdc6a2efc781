//! What only one side keeps.

use serde::{Deserialize, Serialize};
use xennet_market::NodePolicy;
use xennet_meter::Figures;

/// What only the publisher keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublisherSide {
    /// The ed25519 public key with which it logs in to the guest.
    pub guest_key: [u8; 32],
    /// Secret of the publisher's key in the channel, made for this lease alone.
    pub channel_secret: Secret,
    /// The most it may lock in the channel, satoshi.
    pub budget_sat: u64,
    /// How long the lease shall last at most, seconds.
    pub lease_s: u64,
    /// Expected time between two blocks, seconds.
    pub block_s: u64,
    /// The proposal's announcement, once spread.
    pub announcement: Option<Vec<u8>>,
    /// Whether the node says the guest stands still.
    pub paused: bool,
    /// Whether a payment waits for its acknowledgement.
    pub unacknowledged: bool,
    /// The refund, once broadcast.
    pub refund: Option<bitcoin::Transaction>,
    /// Whether it looks for a funding that it may have forgotten, before it makes one.
    #[serde(default)]
    pub looking: bool,
}

/// What only the node keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSide {
    /// The key the publisher logs in to the guest with, once it said so.
    pub guest_key: Option<[u8; 32]>,
    /// Secret of the node's key in the channel, made for this lease alone.
    pub channel_secret: Secret,
    /// The owner's policy when the lease began.
    pub policy: NodePolicy,
    /// What the node measured of such a machine itself.
    pub own_figures: Figures,
    /// What it expects closing to cost, satoshi per 1000 virtual bytes.
    pub close_feerate_sat_per_kvb: u64,
    /// How long it waits for a publisher that is gone, milliseconds.
    pub patience_ms: u64,
    /// Expected time between two blocks, seconds.
    pub block_s: u64,
    /// Since when the guest stands still for want of payment, unix milliseconds.
    pub paused_since_ms: Option<u64>,
    /// The settling transaction, once broadcast.
    pub settling: Option<bitcoin::Transaction>,
    /// The fee rate of that transaction, satoshi per 1000 virtual bytes.
    pub settling_feerate_sat_per_kvb: u64,
    /// Whether a destination was asked for and has not come.
    pub asked_destination: bool,
    /// The acceptance's message for the overlay: said again by a process that finds the lease with no tunnel yet.
    #[serde(default)]
    pub acceptance: Vec<u8>,
}

/// A secret key that does not show itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub secp256k1::SecretKey);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which side this is, with what only that side keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Pays.
    Publisher(PublisherSide),
    /// Serves.
    Node(NodeSide),
}
