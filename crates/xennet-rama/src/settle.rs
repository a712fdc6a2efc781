//! The transactions that end a channel, and what they cost.

use std::collections::HashSet;

use bitcoin::absolute::LockTime;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use secp256k1::{Message, SECP256K1, SecretKey, ecdsa};

use crate::{ChannelTerms, MAX_CLOSE_VBYTES, MAX_FEERATE_SAT_PER_KVB, RamaError, Update};

/// Version 3 (BIP 431): nobody can hang a large child on a close and so pin it where it is.
pub const VERSION: Version = Version(3);
/// Longest signature in a witness: DER with a high r and a low s, and the sighash byte.
const SIGNATURE_LEN: usize = 72;

/// A channel as a close needs it.
pub struct Closing<'a> {
    pub terms: &'a ChannelTerms,
    pub secret: &'a SecretKey,
    pub outpoint: OutPoint,
    pub best: Update,
}

/// The fee for so many virtual bytes, rounded up, satoshi.
pub fn fee_sat(vbytes: u64, sat_per_kvb: u64) -> u64 {
    let fee = (u128::from(vbytes) * u128::from(sat_per_kvb)).div_ceil(1000);
    u64::try_from(fee).unwrap_or(u64::MAX)
}

/// The next fee rate for a transaction that was not mined: what the chain asks now, or a quarter more than last time (at
/// least 1 sat/vB more, so that nodes take the replacement), whichever is the higher. Call it once a block.
pub fn bumped_feerate(last_sat_per_kvb: u64, going_sat_per_kvb: u64) -> u64 {
    let step = (last_sat_per_kvb / 4).max(1000);
    last_sat_per_kvb.saturating_add(step).max(going_sat_per_kvb).min(MAX_FEERATE_SAT_PER_KVB)
}

/// Closes channels: input i and output i are a channel and its publisher's change, the node's output is the last.
pub fn close(channels: &[Closing<'_>], to: &Script, sat_per_kvb: u64) -> Result<Transaction, RamaError> {
    check_feerate(sat_per_kvb)?;
    if channels.is_empty() {
        return Err(RamaError::NoChannels);
    }
    let mut seen = HashSet::with_capacity(channels.len());
    if let Some(twice) = channels.iter().find(|c| !seen.insert(c.outpoint)) {
        let outpoint = twice.outpoint;
        return Err(RamaError::Twice { outpoint });
    }
    let total = total_of(channels);
    let mut transaction = unsigned_close(channels, to);
    let vbytes = transaction.weight().to_vbytes_ceil();
    if vbytes > MAX_CLOSE_VBYTES {
        return Err(RamaError::TooLarge { channels: channels.len(), vbytes, most: MAX_CLOSE_VBYTES });
    }
    let to_node_sat = after_fee(total, vbytes, sat_per_kvb, to)?;
    if let Some(output) = transaction.output.last_mut() {
        output.value = Amount::from_sat(to_node_sat);
    }

    let mut witnesses = Vec::with_capacity(channels.len());
    let mut hashes = SighashCache::new(&transaction);
    for (at, channel) in channels.iter().enumerate() {
        let script = channel.terms.witness_script();
        let sighash = hashes
            .p2wsh_signature_hash(at, &script, Amount::from_sat(channel.terms.capacity_sat), EcdsaSighashType::All)
            .map_err(|why| RamaError::Sighash(why.to_string()))?;
        let ours = SECP256K1.sign_ecdsa(&Message::from(sighash), channel.secret);
        let theirs = ecdsa::Signature::from_compact(&channel.best.signature)
            .map_err(|_| RamaError::BadSignature { total_sat: channel.best.total_sat })?;
        let mut witness = Witness::new();
        witness.push(in_witness(ours, EcdsaSighashType::All));
        witness.push(in_witness(theirs, EcdsaSighashType::SinglePlusAnyoneCanPay));
        witness.push(script);
        witnesses.push(witness);
    }
    for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
        input.witness = witness;
    }
    Ok(transaction)
}

/// The highest fee rate at which closing these channels leaves an output that is relayed; 0 if none does.
pub fn affordable_close(channels: &[Closing<'_>], to: &Script) -> u64 {
    let vbytes = unsigned_close(channels, to).weight().to_vbytes_ceil();
    affordable(total_of(channels), vbytes, to)
}

fn total_of(channels: &[Closing<'_>]) -> u64 {
    channels.iter().fold(0, |sum, channel| sum.saturating_add(channel.best.total_sat))
}

/// The publisher takes everything back, from height H on.
pub fn refund(
    terms: &ChannelTerms,
    secret: &SecretKey,
    outpoint: OutPoint,
    to: ScriptBuf,
    sat_per_kvb: u64,
) -> Result<Transaction, RamaError> {
    check_feerate(sat_per_kvb)?;
    let script = terms.witness_script();
    let mut transaction = Transaction {
        // Its only output is the publisher's own, so nobody else can hang a child on it.
        version: Version::TWO,
        lock_time: LockTime::from_consensus(terms.refund_height),
        input: vec![spending(outpoint, &[0, SIGNATURE_LEN, script.len()])],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: to }],
    };
    let vbytes = transaction.weight().to_vbytes_ceil();
    let to_script = transaction.output[0].script_pubkey.clone();
    let left = after_fee(terms.capacity_sat, vbytes, sat_per_kvb, &to_script)?;
    transaction.output[0].value = Amount::from_sat(left);
    let sighash = SighashCache::new(&transaction)
        .p2wsh_signature_hash(0, &script, Amount::from_sat(terms.capacity_sat), EcdsaSighashType::All)
        .map_err(|why| RamaError::Sighash(why.to_string()))?;
    let mut witness = Witness::new();
    // The empty element stands where the node's signature would be.
    witness.push([]);
    witness.push(in_witness(SECP256K1.sign_ecdsa(&Message::from(sighash), secret), EcdsaSighashType::All));
    witness.push(script);
    transaction.input[0].witness = witness;
    Ok(transaction)
}

/// Moves the change of a close on to another address of the publisher.
pub fn sweep(
    secret: &SecretKey,
    coin: OutPoint,
    value_sat: u64,
    from: &Script,
    to: ScriptBuf,
    sat_per_kvb: u64,
) -> Result<Transaction, RamaError> {
    check_feerate(sat_per_kvb)?;
    let key = secret.public_key(SECP256K1).serialize();
    let mut transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![spending(coin, &[SIGNATURE_LEN, key.len()])],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: to }],
    };
    let vbytes = transaction.weight().to_vbytes_ceil();
    let to_script = transaction.output[0].script_pubkey.clone();
    let left = after_fee(value_sat, vbytes, sat_per_kvb, &to_script)?;
    transaction.output[0].value = Amount::from_sat(left);
    let sighash = SighashCache::new(&transaction)
        .p2wpkh_signature_hash(0, from, Amount::from_sat(value_sat), EcdsaSighashType::All)
        .map_err(|why| RamaError::Sighash(why.to_string()))?;
    let mut witness = Witness::new();
    witness.push(in_witness(SECP256K1.sign_ecdsa(&Message::from(sighash), secret), EcdsaSighashType::All));
    witness.push(key);
    transaction.input[0].witness = witness;
    Ok(transaction)
}

fn check_feerate(sat_per_kvb: u64) -> Result<(), RamaError> {
    if sat_per_kvb > MAX_FEERATE_SAT_PER_KVB {
        return Err(RamaError::FeerateTooHigh { sat_per_kvb, most: MAX_FEERATE_SAT_PER_KVB });
    }
    Ok(())
}

/// With witnesses of full length but without signatures or the node's amount, to know the size.
fn unsigned_close(channels: &[Closing<'_>], to: &Script) -> Transaction {
    let input =
        channels.iter().map(|channel| spending(channel.outpoint, &[SIGNATURE_LEN, SIGNATURE_LEN, channel.terms.witness_script().len()]));
    let change = channels.iter().map(|channel| TxOut {
        value: Amount::from_sat(channel.terms.capacity_sat - channel.best.total_sat),
        script_pubkey: channel.terms.publisher_script(),
    });
    let ours = TxOut { value: Amount::ZERO, script_pubkey: to.to_owned() };
    Transaction { version: VERSION, lock_time: LockTime::ZERO, input: input.collect(), output: change.chain([ours]).collect() }
}

fn spending(outpoint: OutPoint, witness_lens: &[usize]) -> TxIn {
    let mut witness = Witness::new();
    for len in witness_lens {
        witness.push(vec![0; *len]);
    }
    TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        // Says that it may be replaced, and lets the lock time count.
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness,
    }
}

fn after_fee(available: u64, vbytes: u64, sat_per_kvb: u64, to: &Script) -> Result<u64, RamaError> {
    let fee = fee_sat(vbytes, sat_per_kvb);
    let dust_sat = to.minimal_non_dust().to_sat();
    match available.checked_sub(fee) {
        Some(left) if left >= dust_sat => Ok(left),
        left => Err(RamaError::Dust {
            available_sat: available,
            fee_sat: fee,
            left_sat: left.unwrap_or(0),
            dust_sat,
            affordable_sat_per_kvb: affordable(available, vbytes, to),
        }),
    }
}

fn affordable(available: u64, vbytes: u64, to: &Script) -> u64 {
    let for_fee = available.saturating_sub(to.minimal_non_dust().to_sat());
    let rate = u128::from(for_fee) * 1000 / u128::from(vbytes.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX).min(MAX_FEERATE_SAT_PER_KVB)
}

fn in_witness(signature: ecdsa::Signature, sighash_type: EcdsaSighashType) -> Vec<u8> {
    bitcoin::ecdsa::Signature { signature, sighash_type }.to_vec()
}
