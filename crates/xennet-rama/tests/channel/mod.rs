//! A channel with both its ends, for these tests.
#![allow(dead_code, clippy::unwrap_used)]

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, Txid, WPubkeyHash, Witness};
use secp256k1::{SECP256K1, SecretKey};
use xennet_rama::{ChannelTerms, NodeChannel, PublisherChannel};

pub const CAPACITY_SAT: u64 = 50_000;
pub const REFUND_HEIGHT: u32 = 1_000;
/// The reserve at 2 sat/vB.
pub const RESERVE_SAT: u64 = 510;

pub fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

pub fn terms_of(publisher: u8, node: u8) -> ChannelTerms {
    ChannelTerms {
        publisher_key: key(publisher).public_key(SECP256K1),
        node_key: key(node).public_key(SECP256K1),
        capacity_sat: CAPACITY_SAT,
        refund_height: REFUND_HEIGHT,
        close_feerate_sat_per_kvb: 2_000,
    }
}

pub fn terms() -> ChannelTerms {
    terms_of(1, 2)
}

pub fn p2wpkh(byte: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
}

/// A funding transaction whose second output is the channel.
pub fn funding(terms: &ChannelTerms, salt: u8) -> Transaction {
    let from = OutPoint { txid: Txid::from_byte_array([salt; 32]), vout: 0 };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(7_777), script_pubkey: p2wpkh(9) }, terms.funding_output()],
    }
}

/// A funded channel between the holders of two keys.
pub fn ends_of(publisher: u8, node: u8) -> (PublisherChannel, NodeChannel) {
    let terms = terms_of(publisher, node);
    let mut a = PublisherChannel::new(terms.clone(), key(publisher)).unwrap();
    let mut b = NodeChannel::new(terms.clone(), key(node)).unwrap();
    let outpoint = b.funded(&funding(&terms, publisher), 1).unwrap();
    a.funded(outpoint).unwrap();
    (a, b)
}

pub fn ends() -> (PublisherChannel, NodeChannel) {
    ends_of(1, 2)
}

pub fn out_sat(transaction: &Transaction) -> u64 {
    transaction.output.iter().map(|output| output.value.to_sat()).sum()
}
