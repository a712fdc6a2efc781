//! The transactions of a Lightning channel as BOLT 3 has them, with anchors whose HTLC transactions pay no fee themselves
//! (`option_anchors`), and with signatures of full length.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::opcodes::all::*;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use secp256k1::{SECP256K1, SecretKey};

use crate::{SIGNATURE_LEN, vbytes};

/// Blocks that the closer waits for its own money: two bytes in the script, as all usual ones are.
const TO_SELF_DELAY: i64 = 144;
const HTLC_EXPIRY: i64 = 1_000_000;

/// Sizes in vB.
pub struct Lightning {
    pub cooperative: u64,
    pub commitment: u64,
    /// What each payment under way adds to a commitment.
    pub commitment_more: u64,
    /// The child that brings the commitment its fee: its anchor and a coin of the wallet.
    pub anchor_child: u64,
    /// HTLC-success with a coin of the wallet for its fee.
    pub htlc_success: u64,
    /// The closer's own money and that of the HTLC, after the delay.
    pub closer_sweep: u64,
    /// The other side's money.
    pub other_sweep: u64,
}

impl Lightning {
    /// A close without the other side's help, with one payment under way, until the closer has its money.
    pub fn forced_by_payee(&self) -> u64 {
        self.commitment + self.commitment_more + self.anchor_child + self.htlc_success + self.closer_sweep
    }
}

fn key(byte: u8) -> PublicKey {
    PublicKey::new(SecretKey::from_slice(&[byte; 32]).unwrap().public_key(SECP256K1))
}

fn multisig() -> ScriptBuf {
    Builder::new().push_int(2).push_key(&key(1)).push_key(&key(2)).push_int(2).push_opcode(OP_CHECKMULTISIG).into_script()
}

fn to_local() -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_IF)
        .push_key(&key(3))
        .push_opcode(OP_ELSE)
        .push_int(TO_SELF_DELAY)
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_key(&key(4))
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

fn to_remote() -> ScriptBuf {
    Builder::new().push_key(&key(5)).push_opcode(OP_CHECKSIGVERIFY).push_int(1).push_opcode(OP_CSV).into_script()
}

fn anchor() -> ScriptBuf {
    Builder::new()
        .push_key(&key(1))
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_IFDUP)
        .push_opcode(OP_NOTIF)
        .push_int(16)
        .push_opcode(OP_CSV)
        .push_opcode(OP_ENDIF)
        .into_script()
}

/// A payment that comes to the closer, in its own commitment.
fn received_htlc() -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_DUP)
        .push_opcode(OP_HASH160)
        .push_slice([6; 20])
        .push_opcode(OP_EQUAL)
        .push_opcode(OP_IF)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ELSE)
        .push_key(&key(7))
        .push_opcode(OP_SWAP)
        .push_opcode(OP_SIZE)
        .push_int(32)
        .push_opcode(OP_EQUAL)
        .push_opcode(OP_IF)
        .push_opcode(OP_HASH160)
        .push_slice([8; 20])
        .push_opcode(OP_EQUALVERIFY)
        .push_int(2)
        .push_opcode(OP_SWAP)
        .push_key(&key(9))
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .push_opcode(OP_ELSE)
        .push_opcode(OP_DROP)
        .push_int(HTLC_EXPIRY)
        .push_opcode(OP_CLTV)
        .push_opcode(OP_DROP)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ENDIF)
        .push_int(1)
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_opcode(OP_ENDIF)
        .into_script()
}

fn p2wpkh() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]))
}

fn signature() -> Vec<u8> {
    let mut signature = vec![0; SIGNATURE_LEN];
    (signature[0], signature[SIGNATURE_LEN - 1]) = (0x30, 0x01);
    signature
}

/// Witnesses, bottom of the stack first.
fn of_multisig() -> Vec<Vec<u8>> {
    vec![vec![], signature(), signature(), multisig().into_bytes()]
}

fn of_wallet() -> Vec<Vec<u8>> {
    vec![signature(), key(10).to_bytes()]
}

fn of_anchor() -> Vec<Vec<u8>> {
    vec![signature(), anchor().into_bytes()]
}

/// The delayed branch, of the closer's money and of what an HTLC transaction paid.
fn of_to_local() -> Vec<Vec<u8>> {
    vec![signature(), vec![], to_local().into_bytes()]
}

fn of_to_remote() -> Vec<Vec<u8>> {
    vec![signature(), to_remote().into_bytes()]
}

fn of_received_htlc() -> Vec<Vec<u8>> {
    vec![vec![], signature(), signature(), vec![1; 32], received_htlc().into_bytes()]
}

fn transaction(witnesses: &[Vec<Vec<u8>>], outputs: &[ScriptBuf]) -> Transaction {
    let input = witnesses.iter().map(|witness| TxIn {
        previous_output: OutPoint { txid: Txid::all_zeros(), vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(witness),
    });
    let output = outputs.iter().map(|script| TxOut { value: Amount::from_sat(10_000), script_pubkey: script.clone() });
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: input.collect(), output: output.collect() }
}

fn commitment(htlcs: usize) -> Transaction {
    let mut outputs = vec![anchor().to_p2wsh(), anchor().to_p2wsh(), to_local().to_p2wsh(), to_remote().to_p2wsh()];
    outputs.resize(outputs.len() + htlcs, received_htlc().to_p2wsh());
    transaction(&[of_multisig()], &outputs)
}

pub fn measured() -> Lightning {
    Lightning {
        cooperative: vbytes(&transaction(&[of_multisig()], &[p2wpkh(), p2wpkh()])),
        commitment: vbytes(&commitment(0)),
        commitment_more: vbytes(&commitment(1)) - vbytes(&commitment(0)),
        anchor_child: vbytes(&transaction(&[of_anchor(), of_wallet()], &[p2wpkh()])),
        htlc_success: vbytes(&transaction(&[of_received_htlc(), of_wallet()], &[to_local().to_p2wsh(), p2wpkh()])),
        closer_sweep: vbytes(&transaction(&[of_to_local(), of_to_local()], &[p2wpkh()])),
        other_sweep: vbytes(&transaction(&[of_to_remote()], &[p2wpkh()])),
    }
}

/// BOLT 3, Appendix A: 1,124 weight units, and 172 more for each HTLC. It reckons with signatures of 73 bytes, and with three bytes for
/// the number of outputs, where one is enough.
#[test]
fn a_commitment_weighs_what_bolt_3_expects() {
    for htlcs in [0, 1, 7] {
        let longer_signatures = 2;
        let longer_count = 4 * 2;
        assert_eq!(commitment(htlcs).weight().to_wu() + longer_signatures + longer_count, 1_124 + 172 * htlcs as u64);
    }
}
