//! What Bitcoin Core's library keeps to itself: unspent coins, where a transaction is, who spent what, and which
//! transactions touch a script. Rebuilt from the blocks at each start, so that it cannot disagree with them.

use std::collections::HashMap;

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, TxOut, Txid};

use super::kernel::Kernel;
use crate::ChainError;

/// Bitcoin's median time is over this many blocks (BIP113).
const MEDIAN_SPAN: usize = 11;

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// Height of the block that made it.
    pub(super) height: u32,
    pub(super) is_coinbase: bool,
}

/// A block of the best chain.
#[derive(Debug, Clone, Copy)]
struct Mark {
    hash: BlockHash,
    time: u32,
}

/// Where a confirmed transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) height: u32,
    pub(super) position: u32,
}

/// The index of the best chain.
#[derive(Default)]
pub(super) struct Index {
    marks: Vec<Mark>,
    coins: HashMap<OutPoint, Coin>,
    places: HashMap<Txid, Place>,
    spenders: HashMap<OutPoint, Txid>,
    /// In the order of the chain.
    by_script: HashMap<ScriptBuf, Vec<Txid>>,
}

/// How the best chain changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Highest first.
    pub(super) disconnected: Vec<(u32, Block)>,
    /// Lowest first.
    pub(super) connected: Vec<(u32, Block)>,
}

impl Index {
    /// Follows the kernel's best chain and says what changed.
    pub(super) fn catch_up(&mut self, kernel: &Kernel) -> Result<Change, ChainError> {
        let mut change = Change::default();
        while let Some(mark) = self.marks.last().copied() {
            let height = self.height();
            if kernel.hash_at(height) == Some(mark.hash) {
                break;
            }
            let block = kernel.block(&mark.hash)?;
            self.disconnect(&block, &kernel.spent_by(&mark.hash)?);
            change.disconnected.push((height, block));
        }
        let tip = kernel.height();
        while u32::try_from(self.marks.len()).unwrap_or(u32::MAX) <= tip {
            let height = u32::try_from(self.marks.len()).unwrap_or(u32::MAX);
            let Some(hash) = kernel.hash_at(height) else { break };
            let block = kernel.block(&hash)?;
            self.connect(&block, hash);
            change.connected.push((height, block));
        }
        Ok(change)
    }

    /// Height of the tip.
    pub(super) fn height(&self) -> u32 {
        u32::try_from(self.marks.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Hash of the best chain's block at this height.
    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.marks.get(usize::try_from(height).ok()?).map(|mark| mark.hash)
    }

    /// Height of a block, if it is in the best chain. Looks at the newest first.
    pub(super) fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.marks.iter().rposition(|mark| mark.hash == *hash).and_then(|at| u32::try_from(at).ok())
    }

    /// Median time of the 11 blocks that end at this height (BIP113).
    pub(super) fn median_time(&self, height: u32) -> u32 {
        let end = usize::try_from(height).unwrap_or(usize::MAX).saturating_add(1).min(self.marks.len());
        let mut times: Vec<u32> = self.marks[end.saturating_sub(MEDIAN_SPAN)..end].iter().map(|mark| mark.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// An unspent coin.
    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// The confirmed transaction that spent this.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Where a confirmed transaction is.
    pub(super) fn place(&self, txid: &Txid) -> Option<Place> {
        self.places.get(txid).copied()
    }

    /// The confirmed transactions that pay to or spend from a script, in the order of the chain.
    pub(super) fn history(&self, script: &ScriptBuf) -> &[Txid] {
        self.by_script.get(script).map_or(&[], Vec::as_slice)
    }

    /// Unspent coins of a script that is paid by few transactions that are still unspent.
    pub(super) fn coins_of<'a>(&'a self, script: &'a ScriptBuf) -> impl Iterator<Item = (OutPoint, &'a Coin)> + 'a {
        self.coins.iter().filter(move |(_, coin)| coin.output.script_pubkey == *script).map(|(at, coin)| (*at, coin))
    }

    fn connect(&mut self, block: &Block, hash: BlockHash) {
        let height = u32::try_from(self.marks.len()).unwrap_or(u32::MAX);
        self.marks.push(Mark { hash, time: block.header.time });
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            if !tx.is_coinbase() {
                for input in &tx.input {
                    if let Some(coin) = self.coins.remove(&input.previous_output) {
                        note(self.by_script.entry(coin.output.script_pubkey).or_default(), txid);
                    }
                    self.spenders.insert(input.previous_output, txid);
                }
            }
            for (vout, output) in tx.output.iter().enumerate() {
                // The first block's output can never be spent, and neither can data.
                if height == 0 || output.script_pubkey.is_op_return() {
                    continue;
                }
                note(self.by_script.entry(output.script_pubkey.clone()).or_default(), txid);
                let at = OutPoint::new(txid, u32::try_from(vout).unwrap_or(u32::MAX));
                self.coins.insert(at, Coin { output: output.clone(), height, is_coinbase: tx.is_coinbase() });
            }
            self.places.insert(txid, Place { height, position: u32::try_from(position).unwrap_or(u32::MAX) });
        }
    }

    fn disconnect(&mut self, block: &Block, spent: &[Vec<Coin>]) {
        self.marks.pop();
        for (position, tx) in block.txdata.iter().enumerate().rev() {
            let txid = tx.compute_txid();
            self.places.remove(&txid);
            for (vout, output) in tx.output.iter().enumerate() {
                self.coins.remove(&OutPoint::new(txid, u32::try_from(vout).unwrap_or(u32::MAX)));
                self.forget(&output.script_pubkey, &txid);
            }
            // The coinbase spends nothing, so the undo data begin with the second transaction.
            let Some(coins) = position.checked_sub(1).and_then(|at| spent.get(at)) else { continue };
            for (input, coin) in tx.input.iter().zip(coins) {
                self.spenders.remove(&input.previous_output);
                self.forget(&coin.output.script_pubkey, &txid);
                self.coins.insert(input.previous_output, coin.clone());
            }
        }
    }

    fn forget(&mut self, script: &ScriptBuf, txid: &Txid) {
        if let Some(list) = self.by_script.get_mut(script) {
            // Blocks are taken back from the newest, so it stands at the end.
            if let Some(at) = list.iter().rposition(|known| known == txid) {
                list.remove(at);
            }
            if list.is_empty() {
                self.by_script.remove(script);
            }
        }
    }
}

fn note(list: &mut Vec<Txid>, txid: Txid) {
    // A transaction often touches a script twice, and then in a row.
    if list.last() != Some(&txid) {
        list.push(txid);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_median_time_is_that_of_the_last_eleven_blocks() {
        let mut index = Index::default();
        for time in [5, 1, 9, 3, 7, 2, 8, 4, 6, 10, 11, 12] {
            index.marks.push(Mark { hash: bitcoin::hashes::Hash::all_zeros(), time });
        }
        assert_eq!(index.median_time(0), 5);
        assert_eq!(index.median_time(2), 5);
        assert_eq!(index.median_time(10), 6);
        assert_eq!(index.median_time(11), 7);
    }
}
