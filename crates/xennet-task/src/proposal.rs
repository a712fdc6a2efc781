//! The proposal: what a publisher, having measured the machine, will pay for it.

use std::time::Duration;

use secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use xennet_identity::double_sha256;

use crate::limits::{self, FieldError};
use crate::names::{hex_array, seconds};
use crate::task::check_seconds;
use crate::wire::{DecodeError, Reader, put_varint};
use crate::{AnnouncementHash, PayoutInterval, Rates};

/// Names a lease on both sides: the first 8 bytes of SHA256d(`"xennet-lease"` ‖ task hash ‖ acceptance hash).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub [u8; 8]);

impl LeaseId {
    /// The lease that this task and this acceptance of it make.
    pub fn of(task: &AnnouncementHash, acceptance: &AnnouncementHash) -> LeaseId {
        let mut name = [0; 8];
        name.copy_from_slice(&double_sha256(&[b"xennet-lease".as_slice(), &task.0, &acceptance.0].concat())[..8]);
        LeaseId(name)
    }
}

/// Terms for one lease. Travels sealed to the node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The task.
    pub task: AnnouncementHash,
    /// The acceptance it answers.
    pub acceptance: AnnouncementHash,
    /// What the publisher measured each core to be, MHz: the GHz that the cpu rate is for.
    pub core_mhz: u32,
    /// What it pays for each part.
    pub rates: Rates,
    /// How long the lease is to last, whole seconds.
    #[serde(rename = "lease_s", with = "seconds")]
    pub lease: Duration,
    /// When it pays.
    pub payout: PayoutInterval,
    /// What it will lock in the channel, satoshi.
    pub capacity_sat: u64,
    /// The publisher's key in the channel (fresh), compressed.
    #[serde(with = "hex_array")]
    pub channel_key: [u8; 33],
    /// From this height on the publisher alone may take back what was not paid.
    pub refund_height: u32,
    /// Unix seconds after which the proposal is void.
    pub expires_at: u32,
}

impl Proposal {
    const VERSION: u8 = 1;

    pub(crate) const MAX_WIRE_LEN: usize = 1
        + 32
        + 32
        + limits::CORE_MHZ.wire_len()
        + Rates::MAX_WIRE_LEN
        + limits::LEASE.wire_len()
        + PayoutInterval::MAX_WIRE_LEN
        + limits::CAPACITY.wire_len()
        + 33
        + limits::REFUND_HEIGHT.wire_len()
        + 4;

    /// The lease it is for.
    pub fn lease_id(&self) -> LeaseId {
        LeaseId::of(&self.task, &self.acceptance)
    }

    /// Checks that every field may be said and that none contradicts another.
    pub fn check(&self) -> Result<(), FieldError> {
        limits::CORE_MHZ.check(self.core_mhz)?;
        self.rates.check()?;
        check_seconds(&limits::LEASE, self.lease)?;
        self.payout.check()?;
        if self.payout.interval() > self.lease {
            let allowed = format!("at most the lease, {} s", self.lease.as_secs());
            return Err(FieldError::new(limits::PAYOUT.field, self.payout, allowed));
        }
        limits::CAPACITY.check(self.capacity_sat)?;
        if PublicKey::from_slice(&self.channel_key).is_err() {
            let found = hex::encode(self.channel_key);
            return Err(FieldError::new("channel_key", found, "a compressed secp256k1 public key"));
        }
        limits::REFUND_HEIGHT.check(self.refund_height).map(drop)
    }

    /// Its bytes, unsealed; an error if a field may not be said.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        self.check()?;
        let mut to = Vec::with_capacity(Self::MAX_WIRE_LEN);
        to.push(Self::VERSION);
        to.extend_from_slice(&self.task.0);
        to.extend_from_slice(&self.acceptance.0);
        put_varint(&mut to, self.core_mhz);
        self.rates.encode(&mut to);
        put_varint(&mut to, self.lease.as_secs());
        self.payout.encode(&mut to);
        put_varint(&mut to, self.capacity_sat);
        to.extend_from_slice(&self.channel_key);
        put_varint(&mut to, self.refund_height);
        to.extend_from_slice(&self.expires_at.to_le_bytes());
        Ok(to)
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Proposal, DecodeError> {
        let mut from = Reader::new(bytes);
        let found = from.byte("version")?;
        if found != Self::VERSION {
            return Err(DecodeError::Version { what: "the proposal", found, known: Self::VERSION });
        }
        let proposal = Proposal {
            task: AnnouncementHash(from.array("task")?),
            acceptance: AnnouncementHash(from.array("acceptance")?),
            core_mhz: from.number(&limits::CORE_MHZ)?,
            rates: Rates::decode(&mut from)?,
            lease: Duration::from_secs(from.number(&limits::LEASE)?),
            payout: PayoutInterval::decode(&mut from)?,
            capacity_sat: from.number(&limits::CAPACITY)?,
            channel_key: from.array("channel_key")?,
            refund_height: from.number(&limits::REFUND_HEIGHT)?,
            expires_at: from.u32("expires_at")?,
        };
        from.end()?;
        proposal.check()?;
        Ok(proposal)
    }
}
