//! What a stranger's announcement must pass before anything else is done with it: work first, the rest after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use xennet_identity::{Identity, TargetSchedule, double_sha256, work_of};
use xennet_overlay::Judgement;
use xennet_task::{Announcement, Said};

use crate::clock;

/// First byte of an overlay message: a bare payload follows.
pub const TAG_BARE: u8 = 0;
/// First byte of an overlay message: a Bitcoin transaction without its witness follows.
pub const TAG_TRANSACTION: u8 = 1;

/// The longest an announcement may stand, seconds: 30 days.
const LONGEST_VALID_S: u64 = 30 * 86_400;

/// Hashes of the best chain's blocks, as far back as an identity may be anchored.
#[derive(Debug, Default)]
pub struct Anchors {
    hashes: RwLock<BTreeMap<u32, [u8; 32]>>,
    tip: AtomicU32,
}

impl Anchors {
    /// The best chain has this block, and none above it.
    pub fn set_tip(&self, height: u32, hash: [u8; 32]) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.split_off(&height);
        hashes.insert(height, hash);
        while hashes.len() > Self::KEPT {
            hashes.pop_first();
        }
        self.tip.store(height, Ordering::Relaxed);
    }

    /// The best chain has this block, below its tip.
    pub fn set(&self, height: u32, hash: [u8; 32]) {
        self.hashes.write().unwrap_or_else(PoisonError::into_inner).insert(height, hash);
    }

    /// The hash of a block of the best chain, if it is near enough.
    pub fn get(&self, height: u32) -> Option<[u8; 32]> {
        self.hashes.read().unwrap_or_else(PoisonError::into_inner).get(&height).copied()
    }

    /// Height of the best chain.
    pub fn tip(&self) -> u32 {
        self.tip.load(Ordering::Relaxed)
    }

    /// How many blocks back an identity's anchor may lie, and some more.
    pub const KEPT: usize = 27_000;
}

/// Why an announcement is dropped. Each is counted; none is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No bytes, or an unknown form.
    #[error("unknown form")]
    Form,
    /// Less work than this daemon relays, or than it says itself.
    #[error("too little work")]
    Work,
    /// A transaction that holds no announcement.
    #[error("no announcement in the transaction")]
    Empty,
    /// Not canonical, or its signature is wrong.
    #[error("malformed or forged")]
    Malformed,
    /// Its identity has too little work or a bad anchor.
    #[error("identity without work")]
    Identity,
    /// Its identity is anchored to a block this daemon does not know.
    #[error("unknown anchor")]
    Anchor,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It wants to stand longer than anything is remembered.
    #[error("valid for too long")]
    TooLong,
}

impl Refusal {
    /// A fixed word to count it by.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Form => "unknown form",
            Refusal::Work => "too little work",
            Refusal::Empty => "no announcement in the transaction",
            Refusal::Malformed => "malformed or forged",
            Refusal::Identity => "identity without work",
            Refusal::Anchor => "unknown anchor",
            Refusal::Expired => "expired",
            Refusal::TooLong => "valid for too long",
        }
    }

    /// What the overlay makes of it: no honest peer passes on what fails without looking at clock or chain.
    fn judgement(self) -> Judgement {
        match self {
            Refusal::Anchor | Refusal::Expired | Refusal::TooLong => Judgement::Ignore(self.word()),
            _ => Judgement::Reject(self.word()),
        }
    }
}

/// Checks announcements. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspector {
    anchors: Arc<Anchors>,
    schedule: TargetSchedule,
    least_work_bits: u8,
}

/// An announcement that passed.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// What it says.
    pub announcement: Announcement,
    /// The transaction that carries it, if one does.
    pub transaction: Option<bitcoin::Transaction>,
}

impl Inspector {
    /// Refuses everything with less than `least_work_bits` leading zero bits.
    pub fn new(anchors: Arc<Anchors>, schedule: TargetSchedule, least_work_bits: u8) -> Self {
        Self { anchors, schedule, least_work_bits }
    }

    /// The one check everybody can be put through: a double SHA-256 and a comparison.
    ///
    /// # Errors
    /// If the message has no known form or too little work.
    pub fn check_work(&self, message: &[u8]) -> Result<u8, Refusal> {
        let (TAG_BARE | TAG_TRANSACTION, carried) = message.split_first().map(|(tag, rest)| (*tag, rest)).ok_or(Refusal::Form)? else {
            return Err(Refusal::Form);
        };
        let work = work_of(&double_sha256(carried));
        if work < self.least_work_bits { Err(Refusal::Work) } else { Ok(work) }
    }

    /// The whole check: work, form, signature, identity, time.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn inspect(&self, message: &[u8], now_unix: u64) -> Result<Inspected, Refusal> {
        let work = self.check_work(message)?;
        let (tag, carried) = message.split_first().ok_or(Refusal::Form)?;
        let (payload, transaction) = if *tag == TAG_TRANSACTION {
            let transaction = xennet_chain::from_relay_bytes(message).map_err(|_| Refusal::Malformed)?;
            let payload = xennet_chain::payload_of(&transaction).ok_or(Refusal::Empty)?.to_vec();
            (payload, Some(transaction))
        } else {
            (carried.to_vec(), None)
        };
        if Announcement::peek_work_bits(&payload).ok_or(Refusal::Malformed)? > work {
            return Err(Refusal::Work);
        }
        let announcement = Announcement::decode(&payload).map_err(|_| Refusal::Malformed)?;
        self.check_identity(announcement.sender())?;
        let expires_at = match &announcement.said {
            Said::Task(task) => u64::from(task.expires_at),
            Said::Acceptance(acceptance) => u64::from(acceptance.expires_at),
            Said::Proposal(_) | Said::Cancellation(_) => u64::MAX,
        };
        if expires_at < now_unix {
            return Err(Refusal::Expired);
        }
        if expires_at != u64::MAX && expires_at > now_unix.saturating_add(LONGEST_VALID_S) {
            return Err(Refusal::TooLong);
        }
        Ok(Inspected { announcement, transaction })
    }

    fn check_identity(&self, identity: &Identity) -> Result<(), Refusal> {
        if !self.schedule.target_at(identity.anchor.height).is_met_by(&identity.id().0) {
            return Err(Refusal::Identity);
        }
        // Whether an anchor is too young or too old depends on where our own chain is: no fault of who passes it on.
        self.schedule.check(identity, self.anchors.tip()).map_err(|_| Refusal::Anchor)?;
        match self.anchors.get(identity.anchor.height) {
            Some(hash) if hash == identity.anchor.hash => Ok(()),
            _ => Err(Refusal::Anchor),
        }
    }

    /// For the overlay, which asks before it does anything with a message.
    pub fn judge(&self, message: &[u8]) -> Judgement {
        match self.inspect(message, clock::unix_s()) {
            Ok(_) => Judgement::Relay,
            Err(refusal) => refusal.judgement(),
        }
    }
}
