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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::sighash::{EcdsaSighashType, SighashCache};
    use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness};
    use secp256k1::{SECP256K1, SecretKey};

    use super::*;

    /// BIP143's hash of a whole close, as the library computes it; the vectors of BIP143 are in `xennet-chain`, where scripts are judged.
    fn by_the_library(terms: &ChannelTerms, outpoint: OutPoint, total_sat: u64) -> Message {
        let change = TxOut { value: Amount::from_sat(terms.capacity_sat - total_sat), script_pubkey: terms.publisher_script() };
        let node = TxOut { value: Amount::from_sat(total_sat / 2), script_pubkey: ScriptBuf::new_op_return([7; 20]) };
        let input = |previous_output| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        // Another input and another output: the payment must hold whatever the node adds.
        let other = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 3 };
        let tx = Transaction {
            version: VERSION,
            lock_time: LockTime::ZERO,
            input: vec![input(outpoint), input(other)],
            output: vec![change, node],
        };
        let kind = EcdsaSighashType::SinglePlusAnyoneCanPay;
        let value = Amount::from_sat(terms.capacity_sat);
        Message::from(SighashCache::new(&tx).p2wsh_signature_hash(0, &terms.witness_script(), value, kind).unwrap())
    }

    #[test]
    fn a_payment_signs_what_bip143_says() {
        let key = |byte: u8| SecretKey::from_slice(&[byte; 32]).unwrap().public_key(SECP256K1);
        let mut tried = 0;
        // Heights whose pushes have one to five bytes, and all sizes of amounts.
        for refund_height in [1, 16, 17, 127, 128, 32_768, 900_000, 499_999_999] {
            for capacity_sat in [1_000, 65_536, 16_777_216, 5_000_000_000, 2_100_000_000_000_000] {
                for byte in 1..=4 {
                    let terms = ChannelTerms {
                        publisher_key: key(byte),
                        node_key: key(byte + 100),
                        capacity_sat,
                        refund_height,
                        close_feerate_sat_per_kvb: 1_000,
                    };
                    let outpoint = OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: u32::from(byte) << (8 * (byte - 1)) };
                    let digest = UpdateDigest::new(&terms, outpoint);
                    for total_sat in [0, 1, capacity_sat / 3, capacity_sat - 294] {
                        assert_eq!(digest.message(total_sat), by_the_library(&terms, outpoint, total_sat), "{terms:?} {total_sat}");
                        tried += 1;
                    }
                }
            }
        }
        assert_eq!(tried, 640);
    }
}
