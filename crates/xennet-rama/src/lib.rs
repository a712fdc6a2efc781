//! RAMA, the rapidly-adjusted micropayment channel of the RFC: its transactions and its rules, for both ends.
//!
//! The publisher A locks coins in `wsh(and_v(v:pk(A),or_d(pk(B),after(H))))`. A payment is one signature by A, with
//! `SIGHASH_SINGLE|ANYONECANPAY`, over two things only: the channel's coin, and A's own change of `capacity − total`.
//! What is not change is the node's: B adds its own output, picks the fee, and may close many channels in one transaction
//! or raise the fee later without asking A. From height H on, A alone can take everything back, so B settles before.
//!
//! Totals are cumulative, so saying a payment twice does no harm, and only the last one matters. A total includes the
//! *close reserve*: what the publisher adds, once, so that the node's fee for closing is not taken from its earnings
//! (see [`ChannelTerms::total_for`]).
//!
//! Pure: no clock, socket, file, thread or random source. Keys are arguments; keep them fresh for each channel.

pub mod bench;
mod descriptor;
mod digest;
mod error;
mod node;
mod publisher;
mod settle;
mod spend;
mod terms;

pub use error::RamaError;
pub use node::NodeChannel;
pub use publisher::PublisherChannel;
pub use settle::{bumped_feerate, fee_sat};
pub use spend::Spend;
pub use terms::{
    CLOSE_VBYTES, ChannelTerms, LAST_UPDATE_BEFORE_REFUND, MAX_CLOSE_VBYTES, MAX_FEERATE_SAT_PER_KVB, PUBLISHER_KEEPS_SAT,
    REFUND_AFTER_LEASE, SETTLE_BEFORE_REFUND, refund_height_for,
};

use serde::{Deserialize, Serialize};

/// One payment: the publisher's signature over a cumulative total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// All that has left the publisher since the channel opened, close reserve included, satoshi.
    pub total_sat: u64,
    /// ECDSA, compact, low s.
    #[serde(with = "signature_hex")]
    pub signature: [u8; 64],
}

/// The signature as 128 hex digits, as it reads in a ledger.
mod signature_hex {
    use bitcoin::hex::{DisplayHex, FromHex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&bytes.as_hex())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let text = String::deserialize(from)?;
        <[u8; 64]>::from_hex(&text)
            .map_err(|why| D::Error::custom(format!("a payment's signature is 128 hex digits, this one is not: {why}")))
    }
}
