//! What only one side keeps.

use serde::{Deserialize, Serialize};
use xennet_market::NodePolicy;
use xennet_meter::Figures;
use xennet_rama::{CLOSE_VBYTES, ChannelTerms};

use crate::EndReason;

/// What a node expects closing to cost at least, satoshi per 1000 virtual bytes: with it the reserve alone is worth a close at quiet times,
/// so that no short lease ends with nothing that can be put on the chain.
pub const LEAST_CLOSE_FEERATE_SAT_PER_KVB: u64 = 5_000;
/// How many times what its own chain says a publisher lets a node expect closing to cost: two views of one chain are never the same.
pub const CLOSE_FEERATE_FACTOR: u64 = 3;

/// What a channel holds for its close at least, satoshi. Pays for closing at up to 38 sat/vB.
const CLOSE_ALLOWANCE_SAT: u64 = 10_000;

/// The most a publisher lets a node expect closing to cost, while its own chain says so much; both satoshi per 1000 virtual bytes.
pub fn most_close_feerate(own_sat_per_kvb: u64) -> u64 {
    own_sat_per_kvb.max(LEAST_CLOSE_FEERATE_SAT_PER_KVB).saturating_mul(CLOSE_FEERATE_FACTOR).min(xennet_rama::MAX_FEERATE_SAT_PER_KVB)
}

/// Of a lease begun by a version that did not ask its own chain.
fn most_of_a_quiet_chain() -> u64 {
    most_close_feerate(0)
}

use crate::GoOn;

/// What only the publisher keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublisherSide {
    /// The ed25519 public key with which it logs in to the guest.
    pub guest_key: [u8; 32],
    /// Secret of the publisher's key in the channel, made for this lease alone.
    pub channel_secret: Secret,
    /// The most it may lock in the channel, satoshi.
    pub budget_sat: u64,
    /// The most it lets the node expect closing to cost ([`most_close_feerate`]), satoshi per 1000 virtual bytes.
    #[serde(default = "most_of_a_quiet_chain")]
    pub most_close_feerate_sat_per_kvb: u64,
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
    /// Whether it looks for a funding that it may have forgotten, before it makes one.
    #[serde(default)]
    pub looking: bool,
    /// Whether the lease is to be renewed by itself.
    #[serde(default)]
    pub go_on: Option<GoOn>,
}

impl PublisherSide {
    /// The close reserve is signed away with the first payment, whatever is served: what the node may ask for is bounded.
    pub(crate) fn check_close(&self, terms: &ChannelTerms) -> Result<(), EndReason> {
        let (asked, most) = (terms.close_feerate_sat_per_kvb, self.most_close_feerate_sat_per_kvb);
        if asked > most {
            return Err(EndReason::CloseFeerate { asked_sat_vb: asked.div_ceil(1_000), most_sat_vb: most / 1_000 });
        }
        let (reserve_sat, capacity_sat) = (terms.close_reserve_sat(), terms.capacity_sat);
        if reserve_sat > capacity_sat / 2 {
            return Err(EndReason::CloseTooDear { reserve_sat, capacity_sat });
        }
        Ok(())
    }

    /// What a channel holds beyond the price of the lease, for the node's close reserve and the smallest change, satoshi: twice what the
    /// node may ask for.
    pub(crate) fn close_allowance_sat(&self) -> u64 {
        let reserve_sat = self.most_close_feerate_sat_per_kvb.saturating_mul(CLOSE_VBYTES * 3 / 2).div_ceil(1_000);
        reserve_sat.saturating_mul(2).max(CLOSE_ALLOWANCE_SAT)
    }
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
