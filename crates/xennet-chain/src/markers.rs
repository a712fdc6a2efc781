//! Finding markers that nobody has taken: each holds a little money that is anyone's.

use std::collections::HashMap;

use bitcoin::{OutPoint, ScriptBuf, Transaction};

use crate::announcement::{first_watched, markers_between};
use crate::source::Found;
use crate::{Chain, ChainError};

/// How often a search begins anew because the chain changed under it.
const TRIES: u32 = 5;

/// A marker's output that is not spent, neither in a block nor by what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it holds, satoshi.
    pub sat: u64,
    /// The block that it is in.
    pub height: u32,
    /// What spends it: the only item of its witness.
    pub witness_script: ScriptBuf,
}

impl Chain {
    /// The markers of these classes in the last `blocks` blocks that are anyone's to take and that no light client looks for any more, the
    /// oldest first. Spending those of today would make light clients fetch the block for nothing.
    pub async fn old_markers(&self, classes: &[u8], blocks: u32) -> Result<Vec<Marker>, ChainError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.search_markers(classes, blocks).await? {
                Some(markers) => return Ok(markers),
                None if tries < TRIES => {}
                None => return Err(ChainError::Restless { tries }),
            }
        }
    }

    /// `None` if the chain took another branch meanwhile.
    async fn search_markers(&self, classes: &[u8], blocks: u32) -> Result<Option<Vec<Marker>>, ChainError> {
        let (tip, _) = self.tip().await?;
        let (first, end) = (tip.saturating_sub(blocks).max(1), first_watched(tip));
        if end <= first {
            return Ok(Some(Vec::new()));
        }
        let spends = markers_between(classes, first, end - 1);
        let scripts: Vec<ScriptBuf> = spends.keys().cloned().collect();
        let mut found = HashMap::new();
        let mut at = first - 1;
        // A light client does not have the headers of long ago.
        while at < end && self.block_hash(at).await?.is_none() {
            at += 1;
        }
        loop {
            let Some(hash) = self.block_hash(at).await? else { return Ok(None) };
            let scan = self.scan(vec![hash], &scripts).await?;
            if scan.fork.height != at {
                return Ok(None);
            }
            for step in &scan.steps {
                let txs = match &step.found {
                    Found::Block(block) => &block.txdata,
                    Found::Touching(txs) => txs,
                };
                for tx in txs {
                    note(&mut found, &spends, tx, step.at.height);
                }
                at = step.at.height;
            }
            if at >= scan.tip_height {
                break;
            }
            if scan.steps.is_empty() {
                return Ok(None);
            }
        }
        for tx in self.unconfirmed(&scripts).await? {
            forget_spent(&mut found, &tx);
        }
        let mut markers: Vec<Marker> = found.into_values().filter(|marker| marker.height < end).collect();
        markers.sort_by_key(|marker| (marker.height, marker.outpoint));
        Ok(Some(markers))
    }
}

fn note(found: &mut HashMap<OutPoint, Marker>, spends: &HashMap<ScriptBuf, ScriptBuf>, tx: &Transaction, height: u32) {
    forget_spent(found, tx);
    for (output, vout) in tx.output.iter().zip(0..) {
        if let Some(witness_script) = spends.get(&output.script_pubkey) {
            let outpoint = OutPoint::new(tx.compute_txid(), vout);
            let marker = Marker { outpoint, sat: output.value.to_sat(), height, witness_script: witness_script.clone() };
            found.insert(outpoint, marker);
        }
    }
}

fn forget_spent(found: &mut HashMap<OutPoint, Marker>, tx: &Transaction) {
    for input in &tx.input {
        found.remove(&input.previous_output);
    }
}
