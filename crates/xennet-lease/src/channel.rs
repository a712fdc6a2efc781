//! One channel of a lease, as one side keeps it: its end of the money, and what the chain has of it.

use bitcoin::{OutPoint, Transaction, Txid};
use serde::{Deserialize, Serialize};
use xennet_rama::{ChannelTerms, NodeChannel, PublisherChannel, Spend};

/// Blocks that bury a transaction: no reorganisation has gone so deep for many years.
pub(crate) const BURIED_BLOCKS: u32 = 6;

/// A side's end of the channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purse {
    /// Signs.
    Publisher(PublisherChannel),
    /// Holds the best signature.
    Node(NodeChannel),
}

/// A channel. A lease begins with one; each renewal adds one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Channel {
    /// Counts the channels of the lease from 1.
    #[serde(default = "first")]
    pub number: u32,
    /// The channel's terms.
    pub terms: ChannelTerms,
    /// The own end of the channel.
    pub purse: Purse,
    /// The funding transaction, once known.
    pub funding: Option<Transaction>,
    /// The channel's output.
    pub outpoint: Option<OutPoint>,
    /// The block the funding is in.
    pub funded_height: Option<u32>,
    /// The own transaction that ends it, once broadcast: the node's close, the publisher's refund.
    #[serde(default)]
    pub end: Option<Transaction>,
    /// The fee rate of that transaction, satoshi per 1000 virtual bytes.
    #[serde(default)]
    pub end_feerate_sat_per_kvb: u64,
    /// Blocks since this process began in which the transaction that ended it has not been seen again; `None`: it was.
    #[serde(default)]
    pub unseen_blocks: Option<u32>,
    /// The transaction that ends the channel, as far as seen.
    pub ending: Option<Ending>,
}

fn first() -> u32 {
    1
}

/// A transaction that ends the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Its id.
    pub txid: Txid,
    /// How it ends the channel, and every satoshi of it.
    pub how: Spend,
    /// The block it is in; `None`: it waits in the mempool.
    pub height: Option<u32>,
}

impl Channel {
    pub(crate) fn new(number: u32, terms: ChannelTerms, purse: Purse) -> Self {
        Self {
            number,
            terms,
            purse,
            funding: None,
            outpoint: None,
            funded_height: None,
            end: None,
            end_feerate_sat_per_kvb: 0,
            unseen_blocks: None,
            ending: None,
        }
    }

    /// The highest total signed (publisher) or held (node), satoshi.
    pub fn total_sat(&self) -> u64 {
        match &self.purse {
            Purse::Publisher(channel) => channel.signed_total_sat(),
            Purse::Node(channel) => channel.total_sat(),
        }
    }

    /// What went over it, satoshi: what the chain says once it does, until then the highest total signed or held.
    pub fn paid_sat(&self) -> u64 {
        match self.ended().map(|ending| ending.how) {
            Some(Spend::Close { total_sat, .. }) => total_sat,
            Some(Spend::Refund { .. }) => 0,
            None => self.total_sat(),
        }
    }

    /// The block that ended it, if one has.
    pub fn ended(&self) -> Option<Ending> {
        self.ending.filter(|ending| ending.height.is_some())
    }

    /// Whether so many blocks stand on its funding that nothing will take it back.
    pub(crate) fn is_buried(&self, tip: u32) -> bool {
        self.funded_height.is_some_and(|height| tip.saturating_sub(height) + 1 >= BURIED_BLOCKS)
    }
}
