//! The message a payment signs, with everything that does not change between payments hashed once.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{OutPoint, Sequence, VarInt};
use secp256k1::Message;

use crate::ChannelTerms;
use crate::settle::VERSION;

/// 8 bytes of value, 1 of length, 22 of P2WPKH script.
const CHANGE_LEN: usize = 31;
/// Lock time 0, then `SIGHASH_SINGLE|ANYONECANPAY` as 4 bytes, little-endian.
const TAIL: [u8; 8] = [0, 0, 0, 0, 0x83, 0, 0, 0];

/// BIP 143's preimage up to the hash of the output, already run through SHA-256.
///
/// With SINGLE|ANYONECANPAY the hashes of all inputs and of all sequences are zero, and the only output hashed is the
/// publisher's change; so a payment costs four SHA-256 blocks, and no transaction is built for it.
#[derive(Clone)]
pub struct UpdateDigest {
    head: sha256::HashEngine,
    change: [u8; CHANGE_LEN],
    capacity_sat: u64,
}

impl UpdateDigest {
    pub fn new(terms: &ChannelTerms, outpoint: OutPoint) -> UpdateDigest {
        let mut head = sha256::HashEngine::default();
        let script = terms.witness_script();
        head.input(&VERSION.0.to_le_bytes());
        head.input(&[0; 64]);
        head.input(&outpoint.txid.to_byte_array());
        head.input(&outpoint.vout.to_le_bytes());
        let mut length = Vec::with_capacity(3);
        // Writing to a vector cannot fail.
        let _ = VarInt(script.len() as u64).consensus_encode(&mut length);
        head.input(&length);
        head.input(script.as_bytes());
        head.input(&terms.capacity_sat.to_le_bytes());
        head.input(&Sequence::ENABLE_RBF_NO_LOCKTIME.0.to_le_bytes());

        let mut change = [0; CHANGE_LEN];
        let script = terms.publisher_script();
        change[8] = script.len() as u8;
        change[9..].copy_from_slice(script.as_bytes());
        UpdateDigest { head, change, capacity_sat: terms.capacity_sat }
    }

    /// The message for a total, which must not be above the capacity (it saturates).
    pub fn message(&self, total_sat: u64) -> Message {
        let mut change = self.change;
        change[..8].copy_from_slice(&self.capacity_sat.saturating_sub(total_sat).to_le_bytes());
        let output = sha256::Hash::hash(&sha256::Hash::hash(&change).to_byte_array());
        let mut engine = self.head.clone();
        engine.input(&output.to_byte_array());
        engine.input(&TAIL);
        let once = sha256::Hash::from_engine(engine);
        Message::from_digest(sha256::Hash::hash(&once.to_byte_array()).to_byte_array())
    }
}
