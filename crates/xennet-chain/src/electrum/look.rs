//! What is asked of an Electrum server besides following it.

use std::collections::HashSet;

use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use serde_json::json;

use super::Electrum;
use super::Shared;
use super::known::{Item, script_hash};
use super::line::{Failed, Line};
use crate::source::{BlockAt, Found, Scan, Step};
use crate::{ChainError, Status};

/// Whoever is so near the tip is told of so many blocks again: what the server kept back at first is not missed for ever.
const AGAIN_BLOCKS: u32 = 144;
/// Transactions of one answer that is a part of a longer one.
const PART: usize = 1_000;
/// Outputs whose scripts are asked for to find out where a transaction is.
const PLACES: usize = 4;

impl Electrum {
    pub(crate) async fn tip(&self) -> Result<BlockAt, ChainError> {
        self.shared.tip()
    }

    pub(crate) async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        Ok(self.shared.at(height)?.map(|at| at.hash))
    }

    pub(crate) async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        self.shared.send(tx).await
    }

    pub(crate) async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        self.shared.transaction(&*self.shared.line()?, txid).await
    }

    pub(crate) async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        self.shared.history(script).await
    }

    pub(crate) async fn feerate(&self) -> Result<u64, ChainError> {
        self.shared.feerate().await
    }

    pub(crate) async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        Ok(crate::source::parents_first(self.shared.known().waiting()))
    }

    pub(crate) async fn unconfirmed(&self, scripts: &[ScriptBuf]) -> Result<Vec<Transaction>, ChainError> {
        let (shared, line) = (&self.shared, self.shared.line()?);
        let tip = shared.tip()?;
        shared.refresh(&line, scripts, &HashSet::new()).await?;
        let items = shared.known().items(scripts);
        shared.fetch_waiting(&line, &items, tip).await
    }

    pub(crate) async fn scan(&self, locator: Vec<BlockHash>, scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        self.shared.scan(&locator, scripts).await
    }
}

impl Shared {
    async fn scan(&self, locator: &[BlockHash], scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        let (line, tip) = (self.line()?, self.tip()?);
        let known = self.known_of(locator)?;
        let newest = known.iter().copied().max_by_key(|at| at.height);
        let newest = match newest {
            Some(newest) => newest,
            None => self.at(0)?.ok_or_else(|| self.away("no header is here yet"))?,
        };
        let asked: Vec<ScriptBuf> = {
            let known = self.known();
            scripts.iter().filter(|script| !known.asked_at(script, tip.hash)).cloned().collect()
        };
        self.refresh(&line, &asked, &HashSet::new()).await?;
        let items = self.known().items(scripts);
        let count = |after: BlockAt| items.iter().filter(|item| item.height.is_some_and(|height| height > after.height)).count();
        let again = known.into_iter().filter(|at| at.height.saturating_add(AGAIN_BLOCKS) <= tip.height).max_by_key(|at| at.height);
        let near = newest.height.saturating_add(AGAIN_BLOCKS) > tip.height;
        let fork = again.filter(|again| near && count(*again) <= PART).unwrap_or(newest);
        let mut heights: Vec<u32> = items.iter().filter_map(|item| item.height).filter(|height| *height > fork.height).collect();
        heights.sort_unstable();
        // As far as whole blocks go.
        let last = heights.get(PART).map_or(tip.height, |height| (*height).max(fork.height + 1)).min(tip.height);
        heights.retain(|height| *height <= last);
        if near {
            // A wallet has to see the block that both know, and if it is on another branch, where the two part.
            heights.extend(newest.height..=last);
        } else {
            heights.push(last);
        }
        heights.sort_unstable();
        heights.dedup();
        let mut proved = self.prove(&line, &items, fork.height + 1, last).await?.into_iter().peekable();
        let mut steps = Vec::new();
        for height in heights.into_iter().filter(|height| *height > self.base() && *height > fork.height) {
            let changed = || self.away("its chain changed while it was read");
            let (hash, header) = self.store().header(height)?.ok_or_else(changed)?;
            let at = BlockAt { height, hash };
            let mut txs = Vec::new();
            while let Some(found) = proved.next_if(|found| found.at == at) {
                txs.push(found.tx);
            }
            steps.push(Step { at, block_unix: header.time, found: Found::Touching(txs) });
        }
        // The chain may have taken another branch in between: then these are no blocks of one chain.
        if proved.next().is_none() && self.is_best(fork)? && self.is_best(tip)? {
            return Ok(Scan { fork, steps, tip_height: tip.height });
        }
        Err(self.away("its chain changed while it was read"))
    }

    /// Whatever pays to or spends from a script, in the order of the chain.
    async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let (line, tip) = (self.line()?, self.tip()?);
        self.refresh(&line, std::slice::from_ref(script), &HashSet::new()).await?;
        let items = self.known().items([script]);
        let proved = self.prove(&line, &items, 0, tip.height).await?;
        let waiting = self.fetch_waiting(&line, &items, tip).await?;
        let past = proved.into_iter().map(|proved| (proved.tx, Status::Confirmed { height: proved.at.height }));
        let past: Vec<_> = past.chain(waiting.into_iter().map(|tx| (tx, Status::Mempool))).collect();
        // What the server names and does not touch the script is left out.
        let paying = |tx: &Transaction, txid: Txid| -> Vec<OutPoint> {
            let outputs = tx.output.iter().zip(0..).filter(|(output, _)| output.script_pubkey == *script);
            outputs.map(|(_, vout)| OutPoint { txid, vout }).collect()
        };
        let coins: HashSet<OutPoint> = past.iter().flat_map(|(tx, _)| paying(tx, tx.compute_txid())).collect();
        let touches = |tx: &Transaction| {
            tx.output.iter().any(|output| output.script_pubkey == *script)
                || tx.input.iter().any(|input| coins.contains(&input.previous_output))
        };
        Ok(past.into_iter().filter(|(tx, _)| touches(tx)).collect())
    }

    pub(super) async fn transaction(&self, line: &Line, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        let tip = self.tip()?;
        let kept = self.store().proved(txid)?;
        if let Some(kept) = kept
            && self.is_best(kept.at)?
        {
            return Ok(Some((kept.tx, Status::Confirmed { height: kept.at.height })));
        }
        let Some(tx) = self.fetch(line, std::slice::from_ref(txid)).await?.pop().flatten() else { return Ok(None) };
        match self.place_of(line, &tx).await? {
            None => Ok(None),
            Some(Item { height: Some(height), .. }) if height <= tip.height && height <= self.base() => Ok(None),
            Some(item @ Item { height: Some(height), .. }) if height <= tip.height => {
                let proved = self.prove(line, &[item], height, height).await?;
                Ok(proved.into_iter().next().map(|proved| (proved.tx, Status::Confirmed { height })))
            }
            Some(_) => Ok(Some((tx, Status::Mempool))),
        }
    }

    /// Where the server says that a transaction is, by the past of a script that it pays to.
    async fn place_of(&self, line: &Line, tx: &Transaction) -> Result<Option<Item>, ChainError> {
        let txid = tx.compute_txid();
        let mut scripts: Vec<&ScriptBuf> =
            tx.output.iter().map(|output| &output.script_pubkey).filter(|script| !script.is_op_return()).collect();
        // Those of an announcement's marker come last, for many share it.
        scripts.sort_by_key(|script| is_shared(tx, script));
        for script in scripts.into_iter().take(PLACES) {
            match line.call("blockchain.scripthash.get_history", json!([script_hash(script).to_string()])).await {
                Ok(answer) => {
                    if let Some(item) = self.read_items(&answer)?.into_iter().find(|item| item.txid == txid) {
                        return Ok(Some(item));
                    }
                }
                // Its past is too long for the server; another output may do.
                Err(Failed::Refused(_)) => {}
                Err(Failed::For(why)) => return Err(why),
            }
        }
        Ok(None)
    }
}

/// Whether a script is the marker that stands before an announcement.
fn is_shared(tx: &Transaction, script: &ScriptBuf) -> bool {
    let marker = tx.output.len().checked_sub(2).and_then(|at| tx.output.get(at));
    crate::payload_of(tx).is_some() && marker.is_some_and(|marker| marker.script_pubkey == *script)
}
