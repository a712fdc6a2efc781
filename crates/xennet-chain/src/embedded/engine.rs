//! The embedded chain itself, on a thread of its own: Bitcoin Core's validation, the index, the mempool, the faucet.
//! It takes one piece of work after the other, so that all clients see the same order of events.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::key::rand::{RngCore as _, rngs::OsRng};
use bitcoin::{Block, BlockHash, ScriptBuf, Transaction, Txid};

use super::faucet::Faucet;
use super::index::{Change, Index};
use super::kernel::Kernel;
use super::mempool::{Accepted, Mempool};
use super::policy::NextBlock;
use super::records::Records;
use super::template::{self, Ground};
use super::wire::{Fact, HexBlock, HexTx};
use crate::ChainError;
use crate::error::Fault;

/// Blocks mined at the first start: enough that eleven coinbases are ripe.
const FIRST_BLOCKS: u32 = 110;
/// Bitcoin Core's library stops under 50 MiB free, and reserves 17 MiB for each file it begins.
const NEED_MIB: u64 = 80;
/// Most blocks generated at once: each may move the clock ahead, and blocks more than two hours ahead are invalid.
const MAX_GENERATE: u32 = 2_000;
/// Deepest reorganisation that can be asked for.
const MAX_DEPTH: u32 = 100;
/// Journal entries after which the databases are written out at start.
const LONG_JOURNAL: usize = 1_000;

/// The embedded chain.
pub(super) struct Engine {
    dir: PathBuf,
    pub(super) kernel: Kernel,
    pub(super) index: Index,
    pub(super) mempool: Mempool,
    faucet: Faucet,
    blocks: Records,
    unconfirmed: Records,
}

impl Engine {
    /// Opens the chain in `dir`, or makes it.
    pub(super) fn open(dir: &Path) -> Result<Engine, ChainError> {
        check_room(dir)?;
        let faucet = Faucet::open(&dir.join("faucet.key"))?;
        let mut kernel = Kernel::open(dir)?;
        let (mut blocks, journal) = Records::open(&dir.join("blocks.journal"))?;
        for record in &journal {
            let block: Block = deserialize(record).map_err(|e| ChainError::Kernel(format!("the journal: {e}")))?;
            if !kernel.knows(&block.block_hash())
                && let Err(why) = kernel.process(&block)
            {
                tracing::warn!(%why, "a block of the journal is not taken back");
            }
        }
        if journal.len() > LONG_JOURNAL {
            // Closing writes the databases out; after that the journal is not needed.
            drop(kernel);
            blocks.rewrite(&[])?;
            kernel = Kernel::open(dir)?;
        }
        let mut index = Index::default();
        index.catch_up(&kernel)?;
        let (unconfirmed, waiting) = Records::open(&dir.join("mempool.journal"))?;
        let mempool = Mempool::default();
        let mut engine = Engine { dir: dir.to_owned(), kernel, index, mempool, faucet, blocks, unconfirmed };
        let height = engine.height();
        if height < FIRST_BLOCKS {
            engine.generate(FIRST_BLOCKS - height)?;
        }
        for record in waiting {
            let Ok(tx) = deserialize::<Transaction>(&record) else { continue };
            if let Err(why) = engine.mempool.accept(tx, &engine.index, engine.next_block()) {
                tracing::info!(%why, "an unconfirmed transaction is not taken back");
            }
        }
        engine.write_mempool()?;
        Ok(engine)
    }

    /// Ends cleanly: with the databases written out, the journal is not needed any more.
    pub(super) fn close(self) {
        let Engine { kernel, mut blocks, .. } = self;
        let broken = kernel.is_broken();
        drop(kernel);
        if broken {
            return;
        }
        if let Err(why) = blocks.rewrite(&[]) {
            tracing::warn!(%why, "the journal of blocks stays");
        }
    }

    /// Whether a fatal error has made the engine useless.
    pub(super) fn is_broken(&self) -> bool {
        self.kernel.is_broken()
    }

    pub(super) fn height(&self) -> u32 {
        self.index.height()
    }

    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.index.hash_at(height)
    }

    pub(super) fn tip(&self) -> Result<(u32, BlockHash), ChainError> {
        let height = self.height();
        let hash = self.hash_at(height).ok_or_else(|| ChainError::Kernel("the chain has no block".to_owned()))?;
        Ok((height, hash))
    }

    /// Checks a transaction and takes it into the mempool.
    pub(super) fn broadcast(&mut self, tx: Transaction) -> Result<(Txid, Vec<Fact>), ChainError> {
        let txid = tx.compute_txid();
        // Saying it twice does no harm: whoever was interrupted may say it again.
        if self.mempool.get(&txid).is_some() || self.index.place(&txid).is_some() {
            return Ok((txid, Vec::new()));
        }
        let refused = |why| Fault::Refused { txid, why };
        let Accepted { replaced } = self.mempool.accept(tx.clone(), &self.index, self.next_block()).map_err(refused)?;
        self.unconfirmed.append(&serialize(&tx))?;
        let mut facts: Vec<Fact> = replaced.into_iter().map(Fact::Left).collect();
        facts.push(Fact::Entered(HexTx(tx)));
        Ok((txid, facts))
    }

    /// Pays play money, and confirms it at once.
    pub(super) fn faucet(&mut self, script: ScriptBuf, sat: u64) -> Result<(Txid, Vec<Fact>), ChainError> {
        check_room(&self.dir)?;
        let tx = self.faucet.pay(script, sat, (&self.index, &self.mempool), self.next_block())?;
        let (txid, mut facts) = self.broadcast(tx)?;
        facts.extend(self.generate(1)?.1);
        Ok((txid, facts))
    }

    /// Mines blocks out of the mempool.
    pub(super) fn generate(&mut self, count: u32) -> Result<(Vec<BlockHash>, Vec<Fact>), ChainError> {
        check_range("the number of blocks", count, 1, MAX_GENERATE)?;
        check_room(&self.dir)?;
        let mut hashes = Vec::new();
        let mut facts = Vec::new();
        while hashes.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            let (height, previous) = self.tip()?;
            let (chosen, fees_sat) = template::choose(&self.mempool);
            let taken: Vec<Txid> = chosen.iter().map(Transaction::compute_txid).collect();
            let time = unix_now().max(self.index.median_time(height).saturating_add(1));
            let block = template::build(&self.ground(previous, height + 1, time), chosen, fees_sat)?;
            match self.submit(&block) {
                Ok(()) => {}
                Err(why) if taken.is_empty() => return Err(why),
                Err(why) => {
                    // Our rules let something in that Bitcoin Core's do not: without it the next block is good.
                    tracing::error!(%why, "the mempool is emptied of what the block was made of");
                    for txid in &taken {
                        facts.extend(self.mempool.remove_family(txid).into_iter().map(Fact::Left));
                    }
                    continue;
                }
            }
            hashes.push(block.block_hash());
            facts.extend(self.follow()?);
        }
        self.write_mempool()?;
        Ok((hashes, facts))
    }

    /// Mines if there is anything to confirm.
    pub(super) fn mine_if_waiting(&mut self) -> Result<Vec<Fact>, ChainError> {
        if self.mempool.is_empty() { Ok(Vec::new()) } else { self.generate(1).map(|(_, facts)| facts) }
    }

    /// Replaces the last `depth` blocks by a branch one block longer, whose first block holds `with`.
    pub(super) fn reorganise(&mut self, depth: u32, with: Vec<Transaction>) -> Result<(Vec<BlockHash>, Vec<Fact>), ChainError> {
        check_range("the depth", depth, 1, MAX_DEPTH.min(self.height()))?;
        check_room(&self.dir)?;
        let fork = self.height() - depth;
        let mut previous = self.hash_at(fork).ok_or_else(|| ChainError::Kernel(format!("block {fork} is unknown")))?;
        let mut hashes = Vec::new();
        let mut with = Some(with);
        // Times that grow by one keep ahead of the branch's own median, whatever the old branch's times were.
        let times = unix_now().max(self.index.median_time(fork).saturating_add(1))..;
        for (height, time) in (fork + 1..=fork + depth + 1).zip(times) {
            let ground = self.ground(previous, height, time);
            // The fees of these stay with the void: a coinbase may take less than it could.
            let block = template::build(&ground, with.take().unwrap_or_default(), 0)?;
            self.submit(&block)?;
            previous = block.block_hash();
            hashes.push(previous);
        }
        let facts = self.follow()?;
        self.write_mempool()?;
        if self.tip()?.1 != previous {
            return Err(ChainError::Kernel("the new branch is not valid: see the log of bitcoin_core".to_owned()));
        }
        Ok((hashes, facts))
    }

    fn next_block(&self) -> NextBlock {
        let height = self.height();
        NextBlock { height: height.saturating_add(1), median_unix: self.index.median_time(height) }
    }

    fn ground(&self, previous: BlockHash, height: u32, time: u32) -> Ground {
        Ground { previous, height, time, pay_to: self.faucet.script().clone(), salt: OsRng.next_u64() }
    }

    fn submit(&mut self, block: &Block) -> Result<(), ChainError> {
        self.blocks.append(&serialize(block))?;
        self.kernel.process(block)
    }

    /// Takes over what the kernel's best chain became, and says what that changed.
    fn follow(&mut self) -> Result<Vec<Fact>, ChainError> {
        let Change { disconnected, connected } = self.index.catch_up(&self.kernel)?;
        let mut facts = Vec::new();
        let before = if disconnected.is_empty() { Vec::new() } else { self.mempool.in_order() };
        for (height, block) in &disconnected {
            facts.push(Fact::Disconnected { height: *height, hash: block.block_hash() });
        }
        let mut left = Vec::new();
        for (height, block) in connected {
            left.extend(self.mempool.confirm(&block.txdata));
            facts.push(Fact::Connected { height, block: HexBlock(block) });
        }
        if !disconnected.is_empty() {
            // Anything may have changed for the unconfirmed: all are checked again, the formerly confirmed first.
            self.mempool = Mempool::default();
            let next = self.next_block();
            for tx in disconnected.iter().rev().flat_map(|(_, block)| block.txdata.iter().skip(1)) {
                if self.mempool.accept(tx.clone(), &self.index, next).is_ok() {
                    facts.push(Fact::Entered(HexTx(tx.clone())));
                }
            }
            for tx in before {
                let txid = tx.compute_txid();
                if self.index.place(&txid).is_none()
                    && self.mempool.accept((*tx).clone(), &self.index, next).is_err()
                    && !left.contains(&txid)
                {
                    left.push(txid);
                }
            }
        }
        facts.extend(left.into_iter().map(Fact::Left));
        Ok(facts)
    }

    fn write_mempool(&mut self) -> Result<(), ChainError> {
        let records: Vec<Vec<u8>> = self.mempool.in_order().iter().map(|tx| serialize(&**tx)).collect();
        self.unconfirmed.rewrite(&records)
    }
}

fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(since).unwrap_or(u32::MAX)
}

fn check_range(field: &str, value: u32, least: u32, most: u32) -> Result<(), ChainError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let allowed = format!("{least} to {most}");
    Err(Fault::OutOfRange { field: field.to_owned(), value: u64::from(value), allowed }.into())
}

/// Bitcoin Core's library ends with a fatal error on a full disk; better to say so before.
fn check_room(dir: &Path) -> Result<(), ChainError> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| ChainError::io("cannot look at the disk of", dir)(e.into()))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib < NEED_MIB {
        return Err(Fault::DiskFull { dir: dir.to_owned(), free_mib, need_mib: NEED_MIB }.into());
    }
    Ok(())
}
