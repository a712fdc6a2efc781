//! What the two sides say to each other in the tunnel's lease pipe.

use serde::{Deserialize, Serialize};
use xennet_rama::Update;
use xennet_task::{LeaseId, Usage};

use crate::{CloseReason, Machine};

/// One frame of the lease pipe: a JSON object with a `type`. At most [`Message::MAX_LEN`] bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// First word of either side on every new connection; what a side that comes back needs to go on.
    Hello {
        /// [`Message::VERSION`].
        version: u16,
        /// The lease this connection is for.
        lease: LeaseId,
        /// What the speaker's own meter says.
        usage: Usage,
        /// Whether the speaker's process began since it last heard a hello: its meter then lacks what it counted after it last
        /// wrote.
        restarted: bool,
        /// The channel that is paid on, counted from 1.
        channel: u32,
        /// Node: the best total it holds a signature for in that channel. Publisher: the highest total it signed. Satoshi.
        total_sat: u64,
        /// Publisher: the ed25519 key that is to log in to the guest. The node boots it with this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest_key: Option<[u8; 32]>,
        /// Node: the payment of that total. It is the proof for a publisher whose store was put back from an old copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        best: Option<Update>,
    },
    /// Node: the guest answers.
    Ready {
        /// What it is.
        machine: Machine,
    },
    /// Publisher: the same sealed proposal that went over the overlay, in case it did not arrive.
    Proposal {
        /// The announcement's bytes, hex.
        announcement: String,
    },
    /// Node: the proposal suits it.
    Agreed {
        /// The node's key in the channel (fresh), compressed, hex.
        channel_key: String,
        /// What the node expects closing to cost, satoshi per 1000 virtual bytes; the close reserve follows from it.
        close_feerate_sat_per_kvb: u64,
    },
    /// Node: it does not, and why.
    Refused {
        /// Each names the clause, both numbers and the nearest fix.
        reasons: Vec<String>,
    },
    /// Publisher: the channel's funding transaction, broadcast by now.
    Funded {
        /// The transaction, consensus-serialized, hex.
        transaction: String,
        /// Its output that is the channel.
        vout: u32,
    },
    /// Publisher: pays up to a new total.
    Pay {
        /// Counts the payments of this lease from 1.
        number: u32,
        /// The channel, counted from 1.
        channel: u32,
        /// What the publisher's meter says.
        usage: Usage,
        /// The total and the signature for it.
        update: Update,
    },
    /// Node: the payment is on disk.
    Ack {
        /// The total that is on disk, satoshi.
        total_sat: u64,
        /// What the node's meter says.
        usage: Usage,
    },
    /// Node: the guest stands still until what is owed is paid.
    Paused {
        /// What is owed beyond what was paid, thousandths of a satoshi.
        owed_msat: u64,
    },
    /// Node: it runs again.
    Resumed {
        /// What the node's meter says.
        usage: Usage,
    },
    /// Publisher: asks for more time, to be paid on a further channel.
    Renew {
        /// The number that channel will have: one more than the present one's.
        channel: u32,
        /// What it adds to the agreed time, seconds.
        adds_s: u64,
        /// What it will hold, satoshi.
        capacity_sat: u64,
        /// The publisher's key in it (fresh), compressed, hex.
        channel_key: String,
        /// Its refund height.
        refund_height: u32,
    },
    /// Node: the renewal suits it.
    RenewAgreed {
        /// The channel's number.
        channel: u32,
        /// The node's key in it (fresh), compressed, hex.
        channel_key: String,
        /// What the node expects closing to cost, satoshi per 1000 virtual bytes.
        close_feerate_sat_per_kvb: u64,
    },
    /// Node: it does not, and why. The lease goes on as agreed.
    RenewRefused {
        /// The channel's number.
        channel: u32,
        /// Each names the clause, both numbers and the nearest fix.
        reasons: Vec<String>,
    },
    /// Publisher: the further channel's funding transaction, broadcast by now. The agreed time is longer from here on.
    RenewFunded {
        /// The channel's number.
        channel: u32,
        /// The transaction, consensus-serialized, hex.
        transaction: String,
        /// Its output that is the channel.
        vout: u32,
    },
    /// Either: no more will be paid or served; the node is to settle.
    Close {
        /// Why.
        reason: CloseReason,
    },
    /// Node: the settling transaction, broadcast by now.
    Settling {
        /// Its id.
        txid: String,
        /// The total it pays out, satoshi.
        total_sat: u64,
    },
    /// Either, before anything was locked: hangs up.
    Bye {
        /// Why.
        reason: String,
    },
}

/// A frame that is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than anything the protocol says.
    #[error("message of {0} bytes, but at most {max} are allowed", max = Message::MAX_LEN)]
    TooLong(usize),
    /// Not JSON, or not one of ours.
    #[error("not a lease message: {0}")]
    Malformed(String),
}

impl Message {
    /// Protocol version of the lease pipe.
    pub const VERSION: u16 = 2;
    /// The longest message, bytes.
    pub const MAX_LEN: usize = 65_536;
    /// The longest reason a side keeps of what the other said, bytes.
    pub const MAX_REASON: usize = 400;

    /// One frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Every variant is plain data with string keys: serialization has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// If it is too long, no JSON, or no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(MessageError::TooLong(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| MessageError::Malformed(error.to_string()))
    }
}
