//! Builds blocks: picks transactions from the mempool, makes the coinbase with its witness commitment, finds a nonce.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::Hash as _;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};

use super::mempool::Mempool;
use crate::ChainError;

/// A block's weight, less what header and coinbase take.
const MAX_WEIGHT: u64 = 4_000_000 - 4_000;
/// A block's signature operation cost, less what the coinbase takes.
const MAX_SIGOPS: usize = 80_000 - 400;
/// Regtest halves the subsidy this often.
const HALVING_BLOCKS: u32 = 150;
/// Regtest's proof of work: every other hash is good.
const BITS: u32 = 0x207f_ffff;
/// Says that the bytes after it commit to the witnesses (BIP141).
const COMMITMENT_TAG: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];

/// What a new block builds on and pays to.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) previous: BlockHash,
    pub(super) height: u32,
    /// Unix seconds, above the median of the blocks before.
    pub(super) time: u32,
    pub(super) pay_to: ScriptBuf,
    /// Tells blocks apart that are the same otherwise, such as those of two branches.
    pub(super) salt: u64,
}

/// New coins of the block at this height.
pub(super) fn subsidy_sat(height: u32) -> u64 {
    5_000_000_000u64.checked_shr(height / HALVING_BLOCKS).unwrap_or(0)
}

/// Picks what pays best, families together, parents before children.
pub(super) fn choose(mempool: &Mempool) -> (Vec<Transaction>, u64) {
    let mut families: Vec<(u64, Txid, Vec<Txid>)> = mempool
        .iter()
        .map(|(txid, entry)| {
            let mut members: Vec<Txid> = mempool.ancestors(&entry.parents).into_iter().collect();
            // Fewer ancestors first: a parent has fewer than its child.
            members.sort_by_cached_key(|txid| (mempool.get(txid).map(|e| mempool.ancestors(&e.parents).len()), *txid));
            members.push(*txid);
            let (fee, vbytes) = members
                .iter()
                .filter_map(|txid| mempool.get(txid))
                .fold((0u64, 0u64), |(fee, vbytes), entry| (fee + entry.fee_sat, vbytes + entry.vbytes));
            (fee.saturating_mul(1000) / vbytes.max(1), *txid, members)
        })
        .collect();
    families.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));

    let (mut weight, mut sigops, mut fees) = (0, 0, 0);
    let mut taken = std::collections::HashSet::new();
    let mut chosen = Vec::new();
    for (_, _, members) in families {
        let fresh: Vec<_> = members.iter().filter(|txid| !taken.contains(*txid)).filter_map(|txid| mempool.get(txid)).collect();
        let more_weight: u64 = fresh.iter().map(|entry| entry.weight).sum();
        let more_sigops: usize = fresh.iter().map(|entry| entry.sigops).sum();
        if weight + more_weight > MAX_WEIGHT || sigops + more_sigops > MAX_SIGOPS {
            continue;
        }
        weight += more_weight;
        sigops += more_sigops;
        for entry in fresh {
            fees += entry.fee_sat;
            chosen.push((*entry.tx).clone());
        }
        taken.extend(members);
    }
    (chosen, fees)
}

/// Makes a block of these transactions, with its proof of work.
pub(super) fn build(ground: &Ground, transactions: Vec<Transaction>, fees_sat: u64) -> Result<Block, ChainError> {
    let mut txdata = vec![coinbase(ground, fees_sat)];
    txdata.extend(transactions);
    let mut block = Block {
        header: Header {
            version: BlockVersion::from_consensus(0x2000_0000),
            prev_blockhash: ground.previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: ground.time,
            bits: CompactTarget::from_consensus(BITS),
            nonce: 0,
        },
        txdata,
    };
    let no_root = || ChainError::Kernel("the new block has no Merkle root".to_owned());
    let witness_root = block.witness_root().ok_or_else(no_root)?;
    let commitment = Block::compute_witness_commitment(&witness_root, &[0; 32]);
    if let Some(output) = block.txdata.first_mut().and_then(|coinbase| coinbase.output.last_mut()) {
        let mut data = [0; 36];
        data[..4].copy_from_slice(&COMMITMENT_TAG);
        data[4..].copy_from_slice(commitment.as_ref());
        output.script_pubkey = ScriptBuf::new_op_return(data);
    }
    block.header.merkle_root = block.compute_merkle_root().ok_or_else(no_root)?;
    let target = block.header.target();
    while block.header.validate_pow(target).is_err() {
        // Half of all hashes are good, so this does not run through 2^32 of them.
        block.header.nonce =
            block.header.nonce.checked_add(1).ok_or_else(|| ChainError::Kernel("no nonce gives the new block enough work".to_owned()))?;
    }
    Ok(block)
}

fn coinbase(ground: &Ground, fees_sat: u64) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            // The height comes first (BIP34).
            script_sig: Builder::new().push_int(i64::from(ground.height)).push_slice(ground.salt.to_le_bytes()).into_script(),
            sequence: Sequence::MAX,
            // What the witness commitment is salted with (BIP141).
            witness: Witness::from_slice(&[[0u8; 32]]),
        }],
        output: vec![
            TxOut { value: Amount::from_sat(subsidy_sat(ground.height).saturating_add(fees_sat)), script_pubkey: ground.pay_to.clone() },
            TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsidy_halves_every_150_blocks() {
        assert_eq!(subsidy_sat(1), 5_000_000_000);
        assert_eq!(subsidy_sat(149), 5_000_000_000);
        assert_eq!(subsidy_sat(150), 2_500_000_000);
        assert_eq!(subsidy_sat(150 * 64), 0);
    }
}
