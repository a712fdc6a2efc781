//! The rules of relay that need no mempool, as in Bitcoin Core 31 with its defaults, and when a transaction may be in
//! a block. Consensus itself is Bitcoin Core's code; these rules come before it, with messages that name the numbers.

use bitcoin::absolute::LockTime;
use bitcoin::script::Instruction;
use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction, TxOut};

use super::index::{Coin, Index};
use crate::Refusal;
use crate::chain::MAX_WEIGHT;

/// Fewest bytes without witness.
const MIN_BYTES: usize = 65;
/// Most bytes of all OP_RETURN outputs.
const MAX_DATA: usize = 100_000;
/// Most bytes of an input's script.
const MAX_SCRIPT_SIG: usize = 1_650;
/// Limits of a P2WSH witness: items before the script, bytes of each, bytes of the script.
const MAX_STACK_ITEMS: usize = 100;
const MAX_STACK_ITEM: usize = 80;
const MAX_WITNESS_SCRIPT: usize = 3_600;
/// Blocks until a coinbase may be spent.
const COINBASE_MATURITY: u32 = 100;
/// Least fee, satoshi per 1,000 vB.
pub(super) const MIN_RELAY_SAT_PER_KVB: u64 = 100;
/// Version of transactions under the rules of BIP431.
pub(super) const VERSION_THREE: Version = Version(3);

/// The block that a transaction would be in.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextBlock {
    pub(super) height: u32,
    /// Median time of the blocks before it.
    pub(super) median_unix: u32,
}

/// Rounds up, as Bitcoin Core does.
pub(super) fn fee_at(sat_per_kvb: u64, vbytes: u64) -> u64 {
    sat_per_kvb.saturating_mul(vbytes).div_ceil(1000)
}

/// Version, weight, outputs.
pub(super) fn check_form(tx: &Transaction) -> Result<(), Refusal> {
    if !(1..=3).contains(&tx.version.0) {
        return Err(Refusal::Version { version: tx.version.0 });
    }
    let weight = tx.weight().to_wu();
    if weight > MAX_WEIGHT {
        return Err(Refusal::TooHeavy { weight, at_most: MAX_WEIGHT });
    }
    let bytes = tx.base_size();
    if bytes < MIN_BYTES {
        return Err(Refusal::TooSmall { bytes, at_least: MIN_BYTES });
    }
    let mut data = 0;
    for (index, output) in tx.output.iter().enumerate() {
        let script = &output.script_pubkey;
        if script.is_op_return() {
            data += script.len();
            continue;
        }
        let standard = script.is_witness_program() || script.is_p2pkh() || script.is_p2sh() || script.is_p2pk() || script.is_multisig();
        if !standard {
            return Err(Refusal::StrangeOutput { index });
        }
        let at_least_sat = script.minimal_non_dust().to_sat();
        if output.value.to_sat() < at_least_sat {
            return Err(Refusal::Dust { index, sat: output.value.to_sat(), at_least_sat });
        }
    }
    if data > MAX_DATA {
        return Err(Refusal::DataTooLong { bytes: data, at_most: MAX_DATA });
    }
    Ok(())
}

/// Input scripts and P2WSH witnesses. `spent` are the outputs that the inputs spend, in their order.
pub(super) fn check_inputs_form(tx: &Transaction, spent: &[TxOut]) -> Result<(), Refusal> {
    for (index, (input, output)) in tx.input.iter().zip(spent).enumerate() {
        let strange = |why: &str| Refusal::StrangeInput { index, why: why.to_owned() };
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return Err(strange("its script has more than 1650 bytes"));
        }
        let pushes_only = input.script_sig.instructions().all(|step| matches!(step, Ok(Instruction::PushBytes(_))) || is_number(&step));
        if !pushes_only {
            return Err(strange("its script does more than push data"));
        }
        if output.script_pubkey.is_p2wsh() {
            let items = input.witness.len().saturating_sub(1);
            let script = input.witness.last().map_or(0, <[u8]>::len);
            if items > MAX_STACK_ITEMS || script > MAX_WITNESS_SCRIPT {
                return Err(strange("its witness has more than 100 items or a script of more than 3600 bytes"));
            }
            if input.witness.iter().take(items).any(|item| item.len() > MAX_STACK_ITEM) {
                return Err(strange("an item of its witness has more than 80 bytes"));
            }
        }
    }
    Ok(())
}

/// OP_1NEGATE, OP_1 to OP_16: numbers are pushes too.
fn is_number<E>(step: &Result<Instruction<'_>, E>) -> bool {
    matches!(step, Ok(Instruction::Op(code)) if matches!(code.to_u8(), 0x4f | 0x51..=0x60))
}

/// Whether the lock time allows it into the next block. OP_CHECKLOCKTIMEVERIFY rests on this.
pub(super) fn check_final(tx: &Transaction, next: NextBlock) -> Result<(), Refusal> {
    if tx.input.iter().all(|input| input.sequence == Sequence::MAX) {
        return Ok(());
    }
    match tx.lock_time {
        LockTime::Blocks(height) if height.to_consensus_u32() >= next.height => {
            Err(Refusal::NotFinalHeight { lock_height: height.to_consensus_u32(), next_height: next.height })
        }
        LockTime::Seconds(time) if time.to_consensus_u32() >= next.median_unix => {
            Err(Refusal::NotFinalTime { lock_unix: time.to_consensus_u32(), median_unix: next.median_unix })
        }
        _ => Ok(()),
    }
}

/// Coinbase ripeness and relative lock times (BIP68). A coin of an unconfirmed parent counts as made in the next block.
pub(super) fn check_age(tx: &Transaction, spent: &[Coin], index: &Index, next: NextBlock) -> Result<(), Refusal> {
    for (at, (input, coin)) in tx.input.iter().zip(spent).enumerate() {
        let ripe_height = coin.height.saturating_add(COINBASE_MATURITY);
        if coin.is_coinbase && ripe_height > next.height {
            let outpoint = input.previous_output;
            return Err(Refusal::Immature { outpoint, ripe_height, next_height: next.height });
        }
        if tx.version.0 < 2 || !input.sequence.is_relative_lock_time() {
            continue;
        }
        let units = input.sequence.to_consensus_u32() & 0xffff;
        if input.sequence.is_height_locked() {
            let first_height = coin.height.saturating_add(units);
            if first_height > next.height {
                return Err(Refusal::SequenceHeight { index: at, first_height, next_height: next.height });
            }
        } else {
            let made = index.median_time(coin.height.saturating_sub(1));
            let first_unix = u64::from(made) + u64::from(units) * 512;
            if first_unix > u64::from(next.median_unix) {
                return Err(Refusal::SequenceTime { index: at, first_unix, median_unix: next.median_unix });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bitcoin::hashes::Hash as _;
    use bitcoin::{Amount, OutPoint, ScriptBuf, TxIn, WPubkeyHash, Witness};

    use super::*;

    fn tx(lock: u32, sequence: u32, sat: u64) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock),
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::new(),
                sequence: Sequence(sequence),
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new_p2wpkh(&WPubkeyHash::all_zeros()) }],
        }
    }

    const NEXT: NextBlock = NextBlock { height: 203, median_unix: 1_700_000_000 };

    #[test]
    fn a_lock_height_lets_the_transaction_into_the_block_after_it() {
        assert!(check_final(&tx(202, 0, 1000), NEXT).is_ok());
        let refused = check_final(&tx(203, 0, 1000), NEXT).unwrap_err();
        assert_eq!(refused, Refusal::NotFinalHeight { lock_height: 203, next_height: 203 });
        assert_eq!(refused.to_string(), "its lock time is height 203, so that block 204 is the first it fits; the next block is 203");
        assert!(check_final(&tx(203, u32::MAX, 1000), NEXT).is_ok(), "final inputs switch the lock off");
    }

    #[test]
    fn a_lock_time_is_measured_by_the_median() {
        assert!(check_final(&tx(1_699_999_999, 0, 1000), NEXT).is_ok());
        assert!(matches!(check_final(&tx(1_700_000_000, 0, 1000), NEXT), Err(Refusal::NotFinalTime { .. })));
    }

    #[test]
    fn a_relative_lock_counts_from_the_coins_block() {
        let coin = Coin { output: tx(0, 0, 1000).output[0].clone(), height: 200, is_coinbase: false };
        let index = Index::default();
        assert!(check_age(&tx(0, 3, 1000), std::slice::from_ref(&coin), &index, NEXT).is_ok());
        let refused = check_age(&tx(0, 4, 1000), &[coin], &index, NEXT).unwrap_err();
        assert_eq!(refused, Refusal::SequenceHeight { index: 0, first_height: 204, next_height: 203 });
    }

    #[test]
    fn a_coinbase_is_ripe_after_a_hundred_blocks() {
        let coin = |height| Coin { output: tx(0, 0, 1000).output[0].clone(), height, is_coinbase: true };
        let index = Index::default();
        assert!(check_age(&tx(0, u32::MAX, 1000), &[coin(103)], &index, NEXT).is_ok());
        assert!(matches!(check_age(&tx(0, u32::MAX, 1000), &[coin(104)], &index, NEXT), Err(Refusal::Immature { ripe_height: 204, .. })));
    }

    #[test]
    fn dust_is_named_with_the_least_amount() {
        assert!(check_form(&tx(0, 0, 294)).is_ok());
        assert_eq!(check_form(&tx(0, 0, 293)), Err(Refusal::Dust { index: 0, sat: 293, at_least_sat: 294 }));
    }

    #[test]
    fn versions_other_than_one_to_three_are_refused() {
        for (version, good) in [(0, false), (1, true), (2, true), (3, true), (4, false)] {
            let mut tx = tx(0, 0, 1000);
            tx.version = Version(version);
            assert_eq!(check_form(&tx).is_ok(), good);
        }
    }
}
