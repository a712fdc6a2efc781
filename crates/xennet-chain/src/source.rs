//! What every source of the chain answers in, so that the wallet and the handle do not know which one it is.
//!
//! A source is a type with the methods that [`Chain`](crate::Chain) calls; which one it is stands in an `enum` there.

use std::collections::HashSet;

use bitcoin::hashes::Hash as _;
use bitcoin::script::Instruction;
use bitcoin::{Block, BlockHash, PubkeyHash, Script, ScriptBuf, Transaction, TxIn, Txid, WPubkeyHash};

/// A place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockAt {
    pub(crate) height: u32,
    pub(crate) hash: BlockHash,
}

/// What follows a known block, some of it at a time. Whoever reaches `tip_height` has all of it.
///
/// Asking again with the same locator and more scripts is how to find what the first answer could not know of.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    /// The newest block that both know.
    pub(crate) fork: BlockAt,
    /// In the order of the chain. Heights may be left out: nothing there touches the scripts that were asked for. The last
    /// step says how far this part goes, whether or not anything was found there.
    pub(crate) steps: Vec<Step>,
    pub(crate) tip_height: u32,
}

/// A block of a scan.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) at: BlockAt,
    /// The time its header claims, Unix seconds.
    pub(crate) block_unix: u32,
    pub(crate) found: Found,
}

/// What is known of a block.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// All of it, whatever was asked for.
    Block(Box<Block>),
    /// Whatever touches the scripts that were asked for, perhaps nothing.
    Touching(Vec<Transaction>),
}

/// Whether the transaction pays to one of the scripts, or spends from one in a way that shows it.
pub(crate) fn touches(tx: &Transaction, scripts: &HashSet<ScriptBuf>) -> bool {
    tx.output.iter().any(|output| scripts.contains(&output.script_pubkey))
        || tx.input.iter().filter_map(spent_script).any(|script| scripts.contains(&script))
}

/// The script that an input spends from, as far as its witness or signature script shows it: P2WPKH, P2WSH, P2PKH. All
/// scripts of Xennet are of these forms. What a stranger claims here is checked by nobody: it can point to a script that
/// the input does not spend from, never hide one that it does.
pub(crate) fn spent_script(input: &TxIn) -> Option<ScriptBuf> {
    if let Some(last) = input.witness.last() {
        let key = input.witness.len() == 2 && last.len() == 33 && matches!(last.first(), Some(2 | 3));
        return Some(if key { ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(last)) } else { Script::from_bytes(last).to_p2wsh() });
    }
    match input.script_sig.instructions().last() {
        Some(Ok(Instruction::PushBytes(key))) if matches!(key.len(), 33 | 65) => {
            Some(ScriptBuf::new_p2pkh(&PubkeyHash::hash(key.as_bytes())))
        }
        _ => None,
    }
}

/// In the order in which they can be applied.
pub(crate) fn parents_first(mut txs: Vec<Transaction>) -> Vec<Transaction> {
    let mut waiting: HashSet<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    let mut sorted = Vec::with_capacity(txs.len());
    while !txs.is_empty() {
        let (later, ready): (Vec<_>, Vec<_>) =
            txs.into_iter().partition(|tx| tx.input.iter().any(|input| waiting.contains(&input.previous_output.txid)));
        if ready.is_empty() {
            // No transaction can rest on itself, so this is a lie that does no harm.
            sorted.extend(later);
            break;
        }
        for tx in &ready {
            waiting.remove(&tx.compute_txid());
        }
        sorted.extend(ready);
        txs = later;
    }
    sorted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::secp256k1::{SECP256K1, SecretKey};
    use bitcoin::transaction::Version;
    use bitcoin::{CompressedPublicKey, Witness};

    use super::*;

    #[test]
    fn a_spend_shows_the_script_it_spends_from() {
        let key = CompressedPublicKey(SecretKey::from_slice(&[7; 32]).unwrap().public_key(SECP256K1));
        let by_key = ScriptBuf::new_p2wpkh(&key.wpubkey_hash());
        let inner = ScriptBuf::from_bytes(vec![0x51]);
        for (script, witness) in [
            (by_key.clone(), Witness::from_slice(&[vec![1; 71], key.to_bytes().to_vec()])),
            (inner.to_p2wsh(), Witness::from_slice(&[inner.to_bytes()])),
        ] {
            let input = TxIn { witness, ..TxIn::default() };
            assert_eq!(spent_script(&input), Some(script.clone()));
            let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: Vec::new() };
            assert!(touches(&tx, &HashSet::from([script])));
            assert!(!touches(&tx, &HashSet::from([inner.clone()])));
        }
        assert_eq!(spent_script(&TxIn::default()), None);
    }
}
