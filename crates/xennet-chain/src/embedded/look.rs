//! What the engine answers without changing anything.

use std::collections::HashSet;

use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use super::engine::Engine;
use super::wire::{HexBlock, HexTx, History, Since};
use crate::{ChainError, Status};

/// What a new subscriber is told of the past: one bucket of markers.
const RECENT_BLOCKS: u32 = 144;
/// Bounds of one answer that is a part of a longer one.
const PART_BLOCKS: u32 = 256;
const PART_BYTES: usize = 2_000_000;
/// Most blocks of a locator that are looked at.
const LOCATOR: usize = 100;
/// What the embedded chain recommends to pay when the next block has room.
const FEERATE_SAT_PER_KVB: u64 = 1_000;
/// Virtual bytes that fit the next block.
const BLOCK_VBYTES: u64 = 990_000;

impl Engine {
    /// A transaction, confirmed or not.
    pub(super) fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        if let Some(entry) = self.mempool.get(txid) {
            return Ok(Some(((*entry.tx).clone(), Status::Mempool)));
        }
        let Some(place) = self.index.place(txid) else { return Ok(None) };
        let Some(hash) = self.hash_at(place.height) else { return Ok(None) };
        let position = usize::try_from(place.position).unwrap_or(usize::MAX);
        let tx = self.kernel.block(&hash)?.txdata.into_iter().nth(position);
        Ok(tx.map(|tx| (tx, Status::Confirmed { height: place.height })))
    }

    /// What pays to or spends from a script, after the first `skip`.
    pub(super) fn history(&self, script: &ScriptBuf, skip: u32) -> Result<History, ChainError> {
        let mut past = Vec::new();
        let mut bytes = 0;
        let confirmed = self.index.history(script);
        for (at, txid) in confirmed.iter().enumerate().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            let Some((tx, status)) = self.transaction(txid)? else { continue };
            bytes += tx.total_size();
            if bytes > PART_BYTES && !past.is_empty() {
                return Ok(History { past, next: u32::try_from(at).ok() });
            }
            past.push((HexTx(tx), status));
        }
        let mut outputs = HashSet::new();
        for tx in self.mempool.in_order() {
            let spends = tx.input.iter().any(|input| {
                let at = &input.previous_output;
                outputs.contains(at) || self.index.coin(at).is_some_and(|coin| coin.output.script_pubkey == *script)
            });
            let txid = tx.compute_txid();
            let before = outputs.len();
            for (vout, _) in tx.output.iter().enumerate().filter(|(_, output)| output.script_pubkey == *script) {
                outputs.insert(OutPoint::new(txid, u32::try_from(vout).unwrap_or(u32::MAX)));
            }
            if spends || outputs.len() > before {
                past.push((HexTx((*tx).clone()), Status::Mempool));
            }
        }
        Ok(History { past, next: None })
    }

    /// All that is unconfirmed, parents first.
    pub(super) fn mempool(&self) -> Vec<HexTx> {
        self.mempool.in_order().into_iter().map(|tx| HexTx((*tx).clone())).collect()
    }

    /// What follows the newest block of the locator that is in the best chain.
    pub(super) fn since(&self, locator: &[BlockHash]) -> Result<Since, ChainError> {
        let tip_height = self.height();
        let known = locator.iter().take(LOCATOR).find_map(|hash| self.index.height_of(hash));
        let fork_height = known.unwrap_or_else(|| tip_height.saturating_sub(RECENT_BLOCKS));
        let Some(fork_hash) = self.hash_at(fork_height) else {
            return Err(ChainError::Kernel(format!("block {fork_height} is unknown")));
        };
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for height in fork_height + 1..=tip_height.min(fork_height.saturating_add(PART_BLOCKS)) {
            let Some(hash) = self.hash_at(height) else { break };
            let block = self.kernel.block(&hash)?;
            bytes += block.total_size();
            if bytes > PART_BYTES && !blocks.is_empty() {
                break;
            }
            blocks.push(HexBlock(block));
        }
        Ok(Since { fork_height, fork_hash, blocks, tip_height })
    }

    /// What to pay to be in the next block.
    pub(super) fn feerate_sat_per_kvb(&self) -> u64 {
        let mut rates: Vec<(u64, u64)> = self.mempool.iter().map(|(_, entry)| (entry.sat_per_kvb(), entry.vbytes)).collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        let mut filled = 0;
        let marginal = rates.into_iter().find(|(_, vbytes)| {
            filled += vbytes;
            filled > BLOCK_VBYTES
        });
        marginal.map_or(FEERATE_SAT_PER_KVB, |(rate, _)| rate.saturating_add(1).max(FEERATE_SAT_PER_KVB))
    }
}
