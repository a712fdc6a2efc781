//! Transactions that carry announcements: what is in them, and how they travel without a chain.

use std::collections::HashMap;

use bitcoin::consensus::encode::{Encodable as _, deserialize};
use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1, OP_RETURN};
use bitcoin::script::{Builder, Instruction};
use bitcoin::{ScriptBuf, Transaction, Witness};

/// Longest payload of a data output, nonce included. A script pushes at most 520 bytes at once.
pub const MAX_PAYLOAD: usize = 520;
/// Longest message that is taken for a relayed transaction, its tag included.
pub const MAX_RELAY: usize = 2_048;
/// Blocks that share a marker, about a day.
const BUCKET_BLOCKS: u32 = 144;
/// First bytes of every payload.
const MAGIC: [u8; 2] = *b"XN";
/// Shortest payload: magic, version, kind, work bits, nonce.
const MIN_PAYLOAD: usize = 13;
/// Where the payload says what kind of announcement it is.
const KIND_AT: usize = 3;
/// Set in the kind of a short form.
const SHORT: u8 = 0x80;
/// The tag of a message that is a transaction.
const TRANSACTION_TAG: u8 = 1;
/// The tag of a message that is a transaction and what it holds the hash of.
const PAIR_TAG: u8 = 2;
/// Bytes that say how long the transaction of a pair is.
const PAIR_LENGTH: usize = 2;

/// Why bytes from a stranger are not a relayed announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Longer than any announcement can be.
    #[error("{length} bytes, and at most {MAX_RELAY} are an announcement")]
    TooLong {
        /// How long.
        length: usize,
    },
    /// It does not begin with the tag of a transaction.
    #[error("the tag is neither 1, that of a transaction, nor 2, that of a pair")]
    NotATransaction,
    /// The bytes are no transaction, or not only one.
    #[error("the bytes are not one transaction: {0}")]
    Malformed(String),
    /// A witness can be changed by anybody without changing the txid, so it does not travel.
    #[error("the transaction comes with a witness")]
    Witness,
    /// It carries no announcement.
    #[error("the last output is no OP_RETURN with an announcement")]
    NoPayload,
}

/// The payload of an announcement: what the last output's OP_RETURN pushes, if it begins as ours do. It ends with the
/// nonce. Nothing else of it has been checked.
pub fn payload_of(tx: &Transaction) -> Option<&[u8]> {
    let script = &tx.output.last()?.script_pubkey;
    if !script.is_op_return() || script.len() > MAX_PAYLOAD + 4 {
        return None;
    }
    let mut steps = script.instructions_minimal().skip(1);
    let (Some(Ok(Instruction::PushBytes(push))), None) = (steps.next(), steps.next()) else { return None };
    let payload = push.as_bytes();
    let ours = payload.starts_with(&MAGIC) && (MIN_PAYLOAD..=MAX_PAYLOAD).contains(&payload.len());
    ours.then_some(payload)
}

/// The kind of announcement, which is also the class of its marker. The short form of a kind has the same.
pub(crate) fn kind_of(payload: &[u8]) -> Option<u8> {
    payload.starts_with(&MAGIC).then(|| payload.get(KIND_AT).map(|kind| kind & !SHORT)).flatten()
}

/// The data output's script for a payload that is still without its nonce; the nonce is its last 8 bytes, zero.
pub(crate) fn data_script(unworked: &[u8]) -> Option<ScriptBuf> {
    let mut payload = unworked.to_vec();
    payload.extend_from_slice(&[0; 8]);
    if !(MIN_PAYLOAD..=MAX_PAYLOAD).contains(&payload.len()) || !payload.starts_with(&MAGIC) {
        return None;
    }
    let push = bitcoin::script::PushBytesBuf::try_from(payload).ok()?;
    Some(Builder::new().push_opcode(OP_RETURN).push_slice(push).into_script())
}

/// What a marker's output commits to: `<"xennet" ‖ class ‖ height/144> DROP 1`. Anyone may sweep it with this script as
/// its only witness item.
pub fn marker_witness_script(class: u8, height: u32) -> ScriptBuf {
    let mut tag = [0; 11];
    tag[..6].copy_from_slice(b"xennet");
    tag[6] = class;
    tag[7..].copy_from_slice(&(height / BUCKET_BLOCKS).to_le_bytes());
    Builder::new().push_slice(tag).push_opcode(OP_DROP).push_opcode(OP_PUSHNUM_1).into_script()
}

/// The marker's script: what a light client watches to find the announcements of a class around a height.
pub fn marker_script(class: u8, height: u32) -> ScriptBuf {
    marker_witness_script(class, height).to_p2wsh()
}

/// The markers to watch at this height: of this bucket, the one before and the one after, for the announcer's tip may
/// be a little behind or ahead.
pub fn markers_around(class: u8, height: u32) -> [ScriptBuf; 3] {
    [height.saturating_sub(BUCKET_BLOCKS), height, height.saturating_add(BUCKET_BLOCKS)].map(|height| marker_script(class, height))
}

/// Whether a script is that of a marker, of any class and any day.
pub(crate) fn is_marker_script(script: &[u8]) -> bool {
    let tag = script.strip_prefix(&[11]).and_then(|rest| rest.strip_prefix(b"xennet"));
    tag.and_then(<[u8]>::split_first_chunk::<5>).is_some_and(|(_, after)| *after == [OP_DROP.to_u8(), OP_PUSHNUM_1.to_u8()])
}

/// The first height whose markers are still looked for when the chain's tip is at this height: those of the day before.
pub(crate) fn first_watched(height: u32) -> u32 {
    (height / BUCKET_BLOCKS).saturating_sub(1).saturating_mul(BUCKET_BLOCKS)
}

/// The marker scripts of these classes that announcements of these heights have, each with what spends it.
pub(crate) fn markers_between(classes: &[u8], from: u32, to: u32) -> HashMap<ScriptBuf, ScriptBuf> {
    let buckets = from / BUCKET_BLOCKS..=to / BUCKET_BLOCKS;
    let heights = buckets.map(|bucket| bucket.saturating_mul(BUCKET_BLOCKS));
    let scripts = heights.flat_map(|height| classes.iter().map(move |class| marker_witness_script(*class, height)));
    scripts.map(|script| (script.to_p2wsh(), script)).collect()
}

/// The message in which an announcement's transaction travels: tag 1, then the transaction without its witness, so
/// that the txid is the double SHA-256 of what follows the tag.
pub fn relay_bytes(tx: &Transaction) -> Vec<u8> {
    let mut bytes = vec![TRANSACTION_TAG];
    bytes.extend_from_slice(&without_witness(tx));
    bytes
}

/// The message in which the short form travels: tag 2, the length of the transaction without its witness in two bytes,
/// little-endian, that transaction, then the announcement it holds the hash of, without nonce. `None` if that is too long.
pub fn pair_bytes(tx: &Transaction, unworked: &[u8]) -> Option<Vec<u8>> {
    let carrier = without_witness(tx);
    let mut bytes = vec![PAIR_TAG];
    bytes.extend_from_slice(&u16::try_from(carrier.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&carrier);
    bytes.extend_from_slice(unworked);
    (bytes.len() <= MAX_RELAY).then_some(bytes)
}

/// What is hashed for the work of a relayed message, the transaction without its witness, and what follows it: nothing, or
/// the announcement of a pair. `None` if the message has neither tag. Nothing of either is read.
pub fn carried(message: &[u8]) -> Option<(&[u8], &[u8])> {
    match message.split_first()? {
        (&TRANSACTION_TAG, carrier) => Some((carrier, &[])),
        (&PAIR_TAG, rest) => {
            let (length, rest) = rest.split_first_chunk::<PAIR_LENGTH>()?;
            rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
        }
        _ => None,
    }
}

/// Reads a stranger's message. What comes out is a transaction with an announcement or a short form in it, and what follows
/// it in a pair; whether it is valid on any chain is not known.
pub fn from_relay_bytes(message: &[u8]) -> Result<(Transaction, &[u8]), RelayError> {
    if message.len() > MAX_RELAY {
        return Err(RelayError::TooLong { length: message.len() });
    }
    let (bytes, unworked) = carried(message).ok_or(RelayError::NotATransaction)?;
    let tx: Transaction = deserialize(bytes).map_err(|why| RelayError::Malformed(why.to_string()))?;
    if tx.input.iter().any(|input| !input.witness.is_empty()) {
        return Err(RelayError::Witness);
    }
    // The form with a witness also has one for no witness at all: one txid, one message.
    if without_witness(&tx) != bytes {
        return Err(RelayError::Malformed("not in the form without witness".to_owned()));
    }
    if payload_of(&tx).is_none() {
        return Err(RelayError::NoPayload);
    }
    Ok((tx, unworked))
}

/// The serialization that the txid is the hash of.
pub(crate) fn without_witness(tx: &Transaction) -> Vec<u8> {
    let mut bare = tx.clone();
    for input in &mut bare.input {
        input.witness = Witness::new();
    }
    let mut bytes = Vec::with_capacity(bare.base_size());
    // Writing to memory cannot fail.
    let written = bare
        .version
        .consensus_encode(&mut bytes)
        .and_then(|_| bare.input.consensus_encode(&mut bytes))
        .and_then(|_| bare.output.consensus_encode(&mut bytes))
        .and_then(|_| bare.lock_time.consensus_encode(&mut bytes));
    debug_assert!(written.is_ok());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::{Hash as _, sha256d};
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, Sequence, TxIn, TxOut};

    use super::*;

    fn announcement(payload: &[u8]) -> Transaction {
        let data = data_script(payload).unwrap();
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[vec![7; 71], vec![3; 33]]),
            }],
            output: vec![
                TxOut { value: Amount::from_sat(330), script_pubkey: marker_script(1, 500) },
                TxOut { value: Amount::ZERO, script_pubkey: data },
            ],
        }
    }

    fn payload(length: usize) -> Vec<u8> {
        let mut payload = b"XN\x01\x02\x10".to_vec();
        payload.resize(length, 0xab);
        payload
    }

    #[test]
    fn the_payload_comes_back_with_the_nonce_at_the_end_at_every_length() {
        for length in [5, 67, 68, 75, 76, 247, 248, 300, 512] {
            let tx = announcement(&payload(length));
            let found = payload_of(&tx).unwrap();
            assert_eq!(found[..length], payload(length));
            assert_eq!(found[length..], [0; 8]);
            let script = tx.output.last().unwrap().script_pubkey.as_bytes();
            assert_eq!(script[script.len() - 8..], [0; 8], "the nonce ends the script");
        }
        assert!(data_script(&payload(513)).is_none());
        assert!(data_script(&payload(4)).is_none());
        assert!(data_script(b"YN\x01\x02\x10more").is_none());
    }

    #[test]
    fn the_hash_of_what_follows_the_tag_is_the_txid() {
        let tx = announcement(&payload(100));
        let message = relay_bytes(&tx);
        assert_eq!(message[0], 1);
        assert_eq!(sha256d::Hash::hash(&message[1..]), tx.compute_txid().to_raw_hash());
        let (back, after) = from_relay_bytes(&message).unwrap();
        assert_eq!((back.compute_txid(), after), (tx.compute_txid(), &[][..]));
        assert_eq!(payload_of(&back), payload_of(&tx));
    }

    #[test]
    fn a_pair_has_the_transaction_and_what_it_names() {
        let mut short = payload(41);
        short[KIND_AT] |= SHORT;
        assert_eq!(kind_of(&short), Some(2));
        let tx = announcement(&short);
        let message = pair_bytes(&tx, b"the announcement").unwrap();
        let (carrier, after) = carried(&message).unwrap();
        assert_eq!(sha256d::Hash::hash(carrier), tx.compute_txid().to_raw_hash());
        assert_eq!(after, b"the announcement");
        let (back, after) = from_relay_bytes(&message).unwrap();
        assert_eq!((back.compute_txid(), after), (tx.compute_txid(), &b"the announcement"[..]));
        for cut in 0..=carrier.len() {
            assert!(from_relay_bytes(&message[..cut]).is_err(), "{cut}");
        }
        assert!(pair_bytes(&tx, &[0; MAX_RELAY]).is_none());
    }

    #[test]
    fn what_strangers_may_send_instead_is_refused_by_name() {
        let tx = announcement(&payload(100));
        let good = relay_bytes(&tx);
        assert_eq!(from_relay_bytes(&[]), Err(RelayError::NotATransaction));
        assert_eq!(from_relay_bytes(&[0; 40]), Err(RelayError::NotATransaction));
        assert_eq!(from_relay_bytes(&vec![1; 2049]), Err(RelayError::TooLong { length: 2049 }));
        let mut longer = good.clone();
        longer.push(0);
        assert!(matches!(from_relay_bytes(&longer), Err(RelayError::Malformed(_))));
        assert!(matches!(from_relay_bytes(&good[..good.len() - 1]), Err(RelayError::Malformed(_))));
        let mut with_witness = vec![1];
        with_witness.extend(bitcoin::consensus::encode::serialize(&tx));
        assert_eq!(from_relay_bytes(&with_witness), Err(RelayError::Witness));
        let mut plain = tx;
        plain.output.pop();
        assert_eq!(from_relay_bytes(&relay_bytes(&plain)), Err(RelayError::NoPayload));
    }

    #[test]
    fn no_bytes_of_a_stranger_make_it_panic() {
        let good = relay_bytes(&announcement(&payload(300)));
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % (good.len() + 1));
            match from_relay_bytes(&bytes) {
                Ok((tx, _)) if bytes[0] == TRANSACTION_TAG => assert_eq!(relay_bytes(&tx), bytes),
                Ok((tx, after)) => assert_eq!(pair_bytes(&tx, after).unwrap(), bytes),
                Err(_) => {}
            }
        }
        // A count of inputs that promises more than memory.
        let mut huge = vec![1, 2, 0, 0, 0, 0xff];
        huge.extend([0xff; 8]);
        assert!(from_relay_bytes(&huge).is_err());
    }

    #[test]
    fn markers_last_a_day_and_neighbours_are_watched() {
        assert_eq!(marker_script(1, 144), marker_script(1, 287));
        assert_ne!(marker_script(1, 143), marker_script(1, 144));
        assert_ne!(marker_script(1, 144), marker_script(2, 144));
        let around = markers_around(1, 300);
        for height in [150, 300, 440] {
            assert!(around.contains(&marker_script(1, height)));
        }
        assert!(!around.contains(&marker_script(1, 143)));
        assert_eq!(marker_witness_script(1, 300).len(), 14);
    }

    #[test]
    fn a_marker_is_old_when_nobody_looks_for_it_any_more() {
        for tip in [0, 143, 144, 288, 300, 1_000] {
            let first = first_watched(tip);
            assert!(first <= tip.saturating_sub(143) || first == 0, "{tip}");
            let watched = markers_around(1, tip);
            assert!(watched.contains(&marker_script(1, first)));
            assert!(first == 0 || !watched.contains(&marker_script(1, first - 1)), "{tip}");
        }
        let between = markers_between(&[1, 4], 100, 300);
        assert_eq!(between.len(), 6, "two classes of three days");
        for (script, spends) in between {
            assert!(is_marker_script(spends.as_bytes()) && script == spends.to_p2wsh());
        }
        for other in [&b""[..], b"\x0bxennet", b"\x0bxennet12345\x75\x52", b"\x0bxennet12345\x75\x51\x51", b"\x0byennet12345\x75\x51"] {
            assert!(!is_marker_script(other), "{other:?}");
        }
    }
}
