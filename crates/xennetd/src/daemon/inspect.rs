//! What a stranger's announcement must pass before anything else is done with it: work first, the rest after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bitcoin::hashes::Hash as _;
use xennet_identity::{Identity, TargetSchedule, double_sha256, work_of};
use xennet_overlay::Judgement;
use xennet_task::{Announcement, Digest, Said};

use crate::clock;

/// First byte of an overlay message: a bare payload follows.
pub const TAG_BARE: u8 = 0;
/// First byte of an overlay message: a Bitcoin transaction without its witness follows.
pub const TAG_TRANSACTION: u8 = 1;
/// First byte of an overlay message: a Bitcoin transaction that holds a short form follows, and the announcement it names.
pub const TAG_PAIR: u8 = 2;

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

fn check_time(expires_at: u32, now_unix: u64) -> Result<(), Refusal> {
    let expires_at = u64::from(expires_at);
    if expires_at < now_unix {
        return Err(Refusal::Expired);
    }
    if expires_at > now_unix.saturating_add(LONGEST_VALID_S) {
        return Err(Refusal::TooLong);
    }
    Ok(())
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
        let carrier = match message.split_first().ok_or(Refusal::Form)? {
            (&TAG_BARE, payload) => payload,
            _ => xennet_chain::carried(message).ok_or(Refusal::Form)?.0,
        };
        let work = work_of(&double_sha256(carrier));
        if work < self.least_work_bits { Err(Refusal::Work) } else { Ok(work) }
    }

    /// The whole check: work, form, signature, identity, time.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn inspect(&self, message: &[u8], now_unix: u64) -> Result<Inspected, Refusal> {
        let work = self.check_work(message)?;
        let (tag, carried) = message.split_first().ok_or(Refusal::Form)?;
        let (payload, transaction, digest) = match *tag {
            TAG_BARE => (carried.to_vec(), None, None),
            tag => {
                let (transaction, after) = xennet_chain::from_relay_bytes(message).map_err(|_| Refusal::Malformed)?;
                let payload = xennet_chain::payload_of(&transaction).ok_or(Refusal::Empty)?;
                if tag == TAG_PAIR {
                    let digest = Digest::decode(payload).map_err(|_| Refusal::Malformed)?;
                    if !digest.names(after) {
                        return Err(Refusal::Malformed);
                    }
                    // The nonce of a pair is in its transaction.
                    let whole = [after, &[0; 8]].concat();
                    (whole, Some(transaction), Some(digest))
                } else {
                    (payload.to_vec(), Some(transaction), None)
                }
            }
        };
        if Announcement::peek_work_bits(&payload).ok_or(Refusal::Malformed)? > work {
            return Err(Refusal::Work);
        }
        let announcement = Announcement::decode(&payload).map_err(|_| Refusal::Malformed)?;
        if digest.is_some_and(|digest| !digest.agrees_with(&announcement)) {
            return Err(Refusal::Malformed);
        }
        self.check_identity(announcement.sender())?;
        match &announcement.said {
            Said::Task(task) => check_time(task.expires_at, now_unix)?,
            Said::Acceptance(acceptance) => check_time(acceptance.expires_at, now_unix)?,
            Said::Proposal(_) | Said::Cancellation(_) => {}
        }
        Ok(Inspected { announcement, transaction })
    }

    /// A short form that stands on the chain, without the announcement it names: its work and its time.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn inspect_digest(&self, transaction: &bitcoin::Transaction, payload: &[u8], now_unix: u64) -> Result<Digest, Refusal> {
        let digest = Digest::decode(payload).map_err(|_| Refusal::Malformed)?;
        let work = work_of(transaction.compute_txid().as_byte_array());
        if work < self.least_work_bits.max(digest.work_bits) {
            return Err(Refusal::Work);
        }
        check_time(digest.expires_at, now_unix)?;
        Ok(digest)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::script::PushBytesBuf;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut};
    use xennet_task::Kind;

    use super::*;
    use crate::bench::sample::Sample;

    /// A transaction with this payload, and a nonce that gives it the work or, for a lazy one, does not.
    fn carrier(payload: &[u8], work_bits: u8, worked: bool) -> Transaction {
        let mut nonce = 0_u64;
        loop {
            let push = PushBytesBuf::try_from([payload, &nonce.to_le_bytes()].concat()).unwrap();
            let output = vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(push) }];
            let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![TxIn::default()], output };
            if (work_of(tx.compute_txid().as_byte_array()) >= work_bits) == worked {
                return tx;
            }
            nonce += 1;
        }
    }

    /// A pair is taken only if its transaction has the work, and names what follows it and nothing else.
    #[tokio::test]
    async fn a_pair_is_one_announcement_and_its_carrier() {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample::make(dir.path()).await.unwrap();
        let (inspector, now) = (&sample.inspector, clock::unix_s());
        let whole = sample.unworked.clone().with_nonce(0);
        let announcement = Announcement::decode(&whole).unwrap();
        let digest = Digest::of(&announcement.said, &sample.unworked).unwrap();
        let carrier = |payload: &[u8], worked| carrier(payload, digest.work_bits, worked);
        let inspect = |tx: &Transaction, after: &[u8]| inspector.inspect(&xennet_chain::pair_bytes(tx, after).unwrap(), now);

        let good = carrier(&digest.encode(), true);
        let inspected = inspect(&good, sample.unworked.as_bytes()).unwrap();
        assert_eq!(inspected.announcement, announcement);
        assert_eq!(inspected.transaction.unwrap().compute_txid(), good.compute_txid());
        assert_eq!(inspector.inspect_digest(&good, xennet_chain::payload_of(&good).unwrap(), now).unwrap(), digest);

        let refused = |tx: &Transaction, after: &[u8]| inspect(tx, after).unwrap_err();
        let lazy = carrier(&digest.encode(), false);
        assert_eq!(refused(&lazy, sample.unworked.as_bytes()), Refusal::Work);
        assert_eq!(inspector.inspect_digest(&lazy, xennet_chain::payload_of(&lazy).unwrap(), now).unwrap_err(), Refusal::Work);
        assert_eq!(refused(&good, sample.cheap.as_bytes()), Refusal::Malformed, "another announcement of the same task");
        assert_eq!(refused(&good, &[]), Refusal::Malformed);
        assert_eq!(refused(&sample.transaction, sample.unworked.as_bytes()), Refusal::Malformed, "it carries the full form");
        for lie in [Digest { expires_at: digest.expires_at + 1, ..digest }, Digest { kind: Kind::Acceptance, ..digest }] {
            assert_eq!(refused(&carrier(&lie.encode(), true), sample.unworked.as_bytes()), Refusal::Malformed);
        }
        // A short form alone does not travel: nobody could check what it names.
        assert_eq!(inspector.inspect(&xennet_chain::relay_bytes(&good), now).unwrap_err(), Refusal::Malformed);
        let late = u64::from(digest.expires_at) + 1;
        assert_eq!(inspector.inspect_digest(&good, xennet_chain::payload_of(&good).unwrap(), late).unwrap_err(), Refusal::Expired);
        let early = late - LONGEST_VALID_S - 2;
        assert_eq!(inspector.inspect_digest(&good, xennet_chain::payload_of(&good).unwrap(), early).unwrap_err(), Refusal::TooLong);
    }
}
