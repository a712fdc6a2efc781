//! Whether a transaction is in a block, by the branch that leads from it to the root in the block's header.

use bitcoin::consensus::encode::deserialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{Transaction, TxMerkleNode, Txid};

/// Longest branch: a block has fewer than 2^16 transactions, as each has 60 bytes at least and 4 weight units each.
const MAX_BRANCH: usize = 17;
/// Size of a transaction without witness that can pass for two hashes side by side.
const TWO_HASHES: usize = 64;

/// The root that the branch leads to.
///
/// A transaction of 64 bytes is refused, and so is a branch on which the two hashes beside each other read as a transaction: such a one
/// in a block would let its two halves be anything (CVE-2017-12842).
pub(super) fn root(tx: &Transaction, position: u32, branch: &[TxMerkleNode]) -> Result<TxMerkleNode, &'static str> {
    if tx.base_size() == TWO_HASHES {
        return Err("has 64 bytes without witness, which could be two hashes of a Merkle tree");
    }
    if branch.len() > MAX_BRANCH {
        return Err("has a Merkle branch that is longer than that of any block");
    }
    let txid: Txid = tx.compute_txid();
    let mut node = TxMerkleNode::from_byte_array(txid.to_byte_array());
    let mut place = position;
    for beside in branch {
        let (left, right) = if place.is_multiple_of(2) { (node, *beside) } else { (*beside, node) };
        let mut both = [0; TWO_HASHES];
        both[..32].copy_from_slice(left.as_byte_array());
        both[32..].copy_from_slice(right.as_byte_array());
        if is_transaction(&both) {
            return Err("has a Merkle branch that goes through another transaction");
        }
        node = TxMerkleNode::hash(&both);
        place /= 2;
    }
    if place == 0 { Ok(node) } else { Err("has a Merkle branch that is shorter than its place in the block") }
}

fn is_transaction(both: &[u8; TWO_HASHES]) -> bool {
    deserialize::<Transaction>(both).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut};

    use super::*;

    fn tx(lock: u32, script_bytes: usize) -> Transaction {
        let output = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::from_bytes(vec![0x6a; script_bytes]) };
        Transaction { version: Version::TWO, lock_time: LockTime::from_consensus(lock), input: vec![TxIn::default()], output: vec![output] }
    }

    /// Levels of the tree, from the leaves to the root.
    fn levels(txs: &[Transaction]) -> Vec<Vec<TxMerkleNode>> {
        let mut levels = vec![txs.iter().map(|tx| TxMerkleNode::from_byte_array(tx.compute_txid().to_byte_array())).collect::<Vec<_>>()];
        while levels.last().unwrap().len() > 1 {
            let pairs = levels.last().unwrap().chunks(2).map(|pair| {
                let both = [pair[0].to_byte_array(), pair.last().unwrap().to_byte_array()].concat();
                TxMerkleNode::hash(&both)
            });
            let next = pairs.collect();
            levels.push(next);
        }
        levels
    }

    fn branch(levels: &[Vec<TxMerkleNode>], position: usize) -> Vec<TxMerkleNode> {
        let beside = |(depth, level): (usize, &Vec<TxMerkleNode>)| {
            let place = (position >> depth) ^ 1;
            *level.get(place).unwrap_or_else(|| level.last().unwrap())
        };
        levels[..levels.len() - 1].iter().enumerate().map(beside).collect()
    }

    #[test]
    fn each_transaction_of_a_block_leads_to_its_root_and_to_no_other_place() {
        for count in 1..=9 {
            let txs: Vec<Transaction> = (0..count).map(|lock| tx(lock, 10)).collect();
            let levels = levels(&txs);
            let top = levels.last().unwrap()[0];
            assert_eq!(bitcoin::merkle_tree::calculate_root(levels[0].iter().copied()).unwrap(), top);
            for (position, tx) in (0u32..).zip(&txs) {
                let branch = branch(&levels, position as usize);
                assert_eq!(root(tx, position, &branch), Ok(top));
                assert!(root(tx, position + (1 << branch.len()), &branch).unwrap_err().contains("shorter"));
                let other = root(tx, position ^ 1, &branch);
                // The last of an odd number stands beside itself.
                assert!(other != Ok(top) || position == count - 1, "{count} {position}");
                if let Some((_, cut)) = branch.split_last() {
                    assert_ne!(root(tx, position, cut), Ok(top));
                }
            }
        }
    }

    #[test]
    fn what_could_be_two_hashes_is_no_transaction_and_no_step_of_a_branch() {
        let small = tx(7, 4);
        assert_eq!(small.base_size(), TWO_HASHES);
        assert!(root(&small, 0, &[]).unwrap_err().contains("64 bytes"));
        let bytes: [u8; TWO_HASHES] = bitcoin::consensus::encode::serialize(&small).try_into().unwrap();
        assert!(is_transaction(&bytes));
        assert!(!is_transaction(&[0; TWO_HASHES]));
        let long = vec![TxMerkleNode::all_zeros(); MAX_BRANCH + 1];
        assert!(root(&tx(1, 10), 0, &long).unwrap_err().contains("longer"));
    }
}
