//! What is asked of bitcoind, and how its answers are checked.

use std::collections::HashSet;
use std::sync::PoisonError;

use bitcoin::{Amount, Block, BlockHash, ScriptBuf, Transaction, Txid};
use serde_json::{Value, json};

use super::rpc::Failed;
use super::{Bitcoind, Shared, WINDOW_BLOCKS};
use crate::source::{BlockAt, Found, Scan, Step, parents_first, touches};
use crate::{ChainError, Family, Status};

/// Transactions fetched in one request: at most 80 MB if all were of the largest relayed size, 300 kB in practice.
pub(super) const BATCH: usize = 100;
/// Hashes of blocks asked for in one request.
const HASHES: usize = 1_000;
/// Bounds of one answer that is a part of a longer one.
const PART_BLOCKS: u32 = 256;
const PART_BYTES: usize = 8_000_000;
/// Most blocks of a locator that are looked at.
const LOCATOR: usize = 100;
/// From so many blocks on the filters are searched rather than the blocks read.
const MANY_BLOCKS: u32 = 20;
/// Blocks that an estimate of the feerate aims at.
const TARGET_BLOCKS: u32 = 2;
/// bitcoind's words for what is not there, and for a parameter that means nothing to it.
const NOT_FOUND: i64 = -5;
const NO_SUCH_HEIGHT: i64 = -8;

impl Bitcoind {
    pub(crate) async fn tip(&self) -> Result<BlockAt, ChainError> {
        self.shared.tip_at().await
    }

    pub(crate) async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        self.shared.hash_at(height).await
    }

    pub(crate) async fn block_hashes(&self, from: u32, count: u32) -> Result<Vec<BlockHash>, ChainError> {
        let rpc = &self.shared.rpc;
        let mut hashes = Vec::new();
        let heights: Vec<u32> = (from..from.saturating_add(count)).collect();
        for part in heights.chunks(HASHES) {
            for answer in rpc.call_each("getblockhash", part.iter().map(|height| json!([height])).collect()).await? {
                match answer {
                    Ok(hash) => hashes.push(serde_json::from_value(hash).map_err(|why| rpc.strange(format!("getblockhash: {why}")))?),
                    Err(Failed::Refused { code: NO_SUCH_HEIGHT, .. }) => return Ok(hashes),
                    Err(why) => return Err(rpc.plain("getblockhash", why)),
                }
            }
        }
        Ok(hashes)
    }

    pub(crate) async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        self.shared.send(tx).await?;
        // The follower is to see it before the next tick.
        self.shared.stir.notify_one();
        Ok(tx.compute_txid())
    }

    pub(crate) async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        self.shared.transaction(txid).await
    }

    pub(crate) async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        self.shared.past(std::slice::from_ref(script)).await
    }

    pub(crate) async fn feerate(&self) -> Result<u64, ChainError> {
        self.shared.feerate().await
    }

    pub(crate) async fn family(&self, txid: &Txid) -> Result<Option<Family>, ChainError> {
        self.shared.family(txid).await
    }

    pub(crate) async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        let txids = self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner).all();
        self.shared.all_waiting(&txids).await
    }

    pub(crate) async fn unconfirmed(&self, scripts: &[ScriptBuf]) -> Result<Vec<Transaction>, ChainError> {
        self.shared.unconfirmed(scripts).await
    }

    pub(crate) async fn scan(&self, locator: Vec<BlockHash>, scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        self.shared.scan(&locator, scripts).await
    }
}

impl Shared {
    pub(super) async fn best(&self) -> Result<BlockHash, ChainError> {
        self.read("getbestblockhash", json!([])).await
    }

    pub(super) async fn tip_at(&self) -> Result<BlockAt, ChainError> {
        let hash = self.best().await?;
        let header = self.rpc.ask("getblockheader", json!([hash])).await?;
        Ok(BlockAt { height: self.rpc.field(&header, "height")?, hash })
    }

    pub(super) async fn at(&self, height: u32) -> Result<BlockAt, ChainError> {
        let hash = self.hash_at(height).await?;
        let hash = hash.ok_or_else(|| self.rpc.strange(format!("block {height} is below the tip and has no hash")))?;
        Ok(BlockAt { height, hash })
    }

    pub(super) async fn hash_at(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        match self.rpc.call("getblockhash", json!([height])).await {
            Ok(hash) => serde_json::from_value(hash).map(Some).map_err(|why| self.rpc.strange(format!("getblockhash: {why}"))),
            Err(Failed::Refused { code: NO_SUCH_HEIGHT, .. }) => Ok(None),
            Err(why) => Err(self.rpc.plain("getblockhash", why)),
        }
    }

    /// The lowest block that a pruned node still has.
    pub(super) async fn prune_height(&self) -> Result<Option<u32>, ChainError> {
        let info = self.rpc.ask("getblockchaininfo", json!([])).await?;
        Ok(info.get("pruneheight").and_then(Value::as_u64).and_then(|height| u32::try_from(height).ok()))
    }

    /// The newest of these blocks that is in the best chain.
    pub(super) async fn fork(&self, locator: &[BlockHash]) -> Result<Option<BlockAt>, ChainError> {
        for hash in locator.iter().take(LOCATOR) {
            match self.rpc.call("getblockheader", json!([hash])).await {
                Ok(header) if self.rpc.field::<i64>(&header, "confirmations")? > 0 => {
                    return Ok(Some(BlockAt { height: self.rpc.field(&header, "height")?, hash: *hash }));
                }
                Ok(_) | Err(Failed::Refused { code: NOT_FOUND, .. }) => {}
                Err(why) => return Err(self.rpc.plain("getblockheader", why)),
            }
        }
        Ok(None)
    }

    /// A block, checked to be the one that was asked for.
    pub(super) async fn block(&self, hash: BlockHash, height: u32) -> Result<Block, ChainError> {
        let raw = match self.rpc.call("getblock", json!([hash, 0])).await {
            Ok(raw) => raw,
            Err(Failed::Refused { message, .. }) if message.contains("pruned") => {
                let prune_height = self.prune_height().await?.unwrap_or(0);
                return Err(ChainError::Pruned { url: self.rpc.url.clone(), height, prune_height });
            }
            Err(why) => return Err(self.rpc.plain("getblock", why)),
        };
        let block: Block = self.rpc.decode("a block", &raw)?;
        if block.block_hash() != hash || !block.check_merkle_root() {
            return Err(self.rpc.strange(format!("what came for block {hash} is not that block")));
        }
        Ok(block)
    }

    /// Those of the unconfirmed transactions that still are.
    pub(super) async fn waiting(&self, txids: &[Txid]) -> Result<Vec<Transaction>, ChainError> {
        let answers = self.rpc.call_each("getrawtransaction", txids.iter().map(|txid| json!([txid])).collect()).await?;
        let mut txs = Vec::new();
        for (txid, answer) in txids.iter().zip(answers) {
            match answer {
                Ok(raw) => txs.push(self.check(txid, &raw)?),
                Err(Failed::Refused { code: NOT_FOUND, .. }) => {}
                Err(why) => return Err(self.rpc.plain("getrawtransaction", why)),
            }
        }
        Ok(txs)
    }

    async fn family(&self, txid: &Txid) -> Result<Option<Family>, ChainError> {
        let entry = match self.rpc.call("getmempoolentry", json!([txid])).await {
            Ok(entry) => entry,
            Err(Failed::Refused { code: NOT_FOUND, .. }) => return Ok(None),
            Err(why) => return Err(self.rpc.plain("getmempoolentry", why)),
        };
        let fees = entry.get("fees").cloned().unwrap_or_default();
        Ok(Some(Family { fee_sat: self.sat(&fees, "ancestor")?, vbytes: self.rpc.field(&entry, "ancestorsize")? }))
    }

    async fn all_waiting(&self, txids: &[Txid]) -> Result<Vec<Transaction>, ChainError> {
        let mut txs = Vec::new();
        for part in txids.chunks(BATCH) {
            txs.extend(self.waiting(part).await?);
        }
        Ok(parents_first(txs))
    }

    /// What touches the scripts in the mempool, read from bitcoind itself: the follower may be a second behind.
    async fn unconfirmed(&self, scripts: &[ScriptBuf]) -> Result<Vec<Transaction>, ChainError> {
        let txids: HashSet<Txid> = self.read("getrawmempool", json!([])).await?;
        let mut asked: Vec<Txid> = {
            let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            let known = pool.candidates(scripts).into_iter().filter(|txid| txids.contains(txid));
            known.chain(txids.iter().filter(|txid| !pool.knows(txid)).copied()).collect()
        };
        asked.sort_unstable();
        let scripts: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
        let mut found = Vec::new();
        for part in asked.chunks(BATCH) {
            found.extend(self.waiting(part).await?.into_iter().filter(|tx| touches(tx, &scripts)));
        }
        Ok(parents_first(found))
    }

    async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        // From the mempool, or by an index of transactions if bitcoind keeps one.
        match self.rpc.call("getrawtransaction", json!([txid, 1])).await {
            Ok(answer) => {
                let tx = self.check(txid, answer.get("hex").unwrap_or(&Value::Null))?;
                let status = match answer.get("blockhash") {
                    None => Status::Mempool,
                    Some(block) => {
                        let header = self.rpc.ask("getblockheader", json!([block])).await?;
                        Status::Confirmed { height: self.rpc.field(&header, "height")? }
                    }
                };
                return Ok(Some((tx, status)));
            }
            Err(Failed::Refused { code: NOT_FOUND, .. }) => {}
            Err(why) => return Err(self.rpc.plain("getrawtransaction", why)),
        }
        // Its unspent outputs say in which block it is; without any, the recent blocks are looked through.
        let tip = self.tip_at().await?;
        for vout in 0..4 {
            let coin = self.rpc.ask("gettxout", json!([txid, vout, false])).await?;
            if let Some(age) = coin.get("confirmations").and_then(Value::as_u64).and_then(|age| u32::try_from(age).ok()) {
                let height = (tip.height + 1).saturating_sub(age);
                if let Some(found) = self.transaction_at(txid, height).await? {
                    return Ok(Some(found));
                }
            }
        }
        let least = self.prune_height().await?.unwrap_or(0).max(tip.height.saturating_sub(WINDOW_BLOCKS));
        for height in (least..=tip.height).rev() {
            if let Some(found) = self.transaction_at(txid, height).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn transaction_at(&self, txid: &Txid, height: u32) -> Result<Option<(Transaction, Status)>, ChainError> {
        let Some(hash) = self.hash_at(height).await? else { return Ok(None) };
        match self.rpc.call("getrawtransaction", json!([txid, 0, hash])).await {
            Ok(raw) => Ok(Some((self.check(txid, &raw)?, Status::Confirmed { height }))),
            Err(Failed::Refused { code: NOT_FOUND | -1, .. }) => Ok(None),
            Err(why) => Err(self.rpc.plain("getrawtransaction", why)),
        }
    }

    /// The past of scripts, in the order of the chain, then what waits.
    pub(super) async fn past(&self, scripts: &[ScriptBuf]) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let tip = self.tip_at().await?;
        let least = self.prune_height().await?.unwrap_or(0);
        let wanted: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
        let mut past = Vec::new();
        let heights = if self.has_filters(tip).await? {
            self.search(scripts, least, tip.height).await?
        } else {
            (least.max((tip.height + 1).saturating_sub(WINDOW_BLOCKS))..=tip.height).collect()
        };
        for height in heights {
            let Some(hash) = self.hash_at(height).await? else { break };
            let block = self.block(hash, height).await?;
            let found = block.txdata.into_iter().filter(|tx| touches(tx, &wanted));
            past.extend(found.map(|tx| (tx, Status::Confirmed { height })));
        }
        past.extend(self.unconfirmed(scripts).await?.into_iter().map(|tx| (tx, Status::Mempool)));
        Ok(past)
    }

    async fn scan(&self, locator: &[BlockHash], scripts: &[ScriptBuf]) -> Result<Scan, ChainError> {
        let tip = self.tip_at().await?;
        let fork = match self.fork(locator).await? {
            Some(fork) => fork,
            None => self.at(tip.height.saturating_sub(WINDOW_BLOCKS)).await?,
        };
        let mut steps = Vec::new();
        if tip.height.saturating_sub(fork.height) > MANY_BLOCKS && self.has_filters(tip).await? {
            let wanted: HashSet<ScriptBuf> = scripts.iter().cloned().collect();
            let mut heights = self.search(scripts, fork.height + 1, tip.height).await?;
            heights.truncate(usize::try_from(PART_BLOCKS).unwrap_or(usize::MAX));
            if heights.len() < usize::try_from(PART_BLOCKS).unwrap_or(usize::MAX) && heights.last() != Some(&tip.height) {
                heights.push(tip.height);
            }
            for height in heights {
                let at = self.at(height).await?;
                let block = self.block(at.hash, height).await?;
                let block_unix = block.header.time;
                let touching = block.txdata.into_iter().filter(|tx| touches(tx, &wanted)).collect();
                steps.push(Step { at, block_unix, found: Found::Touching(touching) });
            }
        } else {
            let (mut before, mut bytes) = (fork.hash, 0);
            for height in fork.height + 1..=tip.height.min(fork.height.saturating_add(PART_BLOCKS)) {
                let Some(hash) = self.hash_at(height).await? else { break };
                let block = self.block(hash, height).await?;
                bytes += block.total_size();
                // Another branch meanwhile: what has been read so far is still a part of some chain, and the next scan goes on.
                if block.header.prev_blockhash != before || (bytes > PART_BYTES && !steps.is_empty()) {
                    break;
                }
                before = hash;
                let at = BlockAt { height, hash };
                steps.push(Step { at, block_unix: block.header.time, found: Found::Block(Box::new(block)) });
            }
        }
        Ok(Scan { fork, steps, tip_height: tip.height })
    }

    /// Whether an index of block filters can be searched up to the tip.
    async fn has_filters(&self, tip: BlockAt) -> Result<bool, ChainError> {
        let info = self.rpc.ask("getindexinfo", json!(["basic block filter index"])).await?;
        let height = info.get("basic block filter index").and_then(|index| index.get("best_block_height")).and_then(Value::as_u64);
        Ok(height.is_some_and(|height| height >= u64::from(tip.height)))
    }

    /// Heights of blocks whose filter matches one of the scripts.
    async fn search(&self, scripts: &[ScriptBuf], from: u32, to: u32) -> Result<Vec<u32>, ChainError> {
        let wanted: Vec<String> = scripts.iter().map(|script| format!("raw({})", script.to_hex_string())).collect();
        let answer = self.rpc.ask("scanblocks", json!(["start", wanted, from, to])).await?;
        let hashes: Vec<BlockHash> = self.rpc.field(&answer, "relevant_blocks")?;
        let mut heights = Vec::new();
        for hash in hashes {
            let header = self.rpc.ask("getblockheader", json!([hash])).await?;
            heights.push(self.rpc.field(&header, "height")?);
        }
        heights.sort_unstable();
        Ok(heights)
    }

    /// What to pay. The economical estimate, for it follows falling fees at once, and what then waits too long is bumped. A node
    /// that has no estimate, as on a quiet network, says what its mempool takes.
    async fn feerate(&self) -> Result<u64, ChainError> {
        let info = self.rpc.ask("getmempoolinfo", json!([])).await?;
        let least = self.sat(&info, "mempoolminfee")?.max(self.sat(&info, "minrelaytxfee")?);
        let estimate = self.rpc.ask("estimatesmartfee", json!([TARGET_BLOCKS, "economical"])).await?;
        let estimate = if estimate.get("feerate").is_some() { self.sat(&estimate, "feerate")? } else { 0 };
        Ok(estimate.max(least))
    }

    /// An amount that JSON has as a number of bitcoins.
    pub(super) fn sat(&self, value: &Value, name: &str) -> Result<u64, ChainError> {
        let amount = Amount::from_btc(self.rpc.field(value, name)?).map_err(|why| self.rpc.strange(format!("{name}: {why}")))?;
        Ok(amount.to_sat())
    }

    fn check(&self, txid: &Txid, raw: &Value) -> Result<Transaction, ChainError> {
        let tx: Transaction = self.rpc.decode("a transaction", raw)?;
        if tx.compute_txid() != *txid {
            return Err(self.rpc.strange(format!("what came for transaction {txid} is not that transaction")));
        }
        Ok(tx)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, ChainError> {
        let answer = self.rpc.ask(method, params).await?;
        serde_json::from_value(answer).map_err(|why| self.rpc.strange(format!("{method}: {why}")))
    }
}
