//! The embedded chain as a source: each method is a question to whoever hosts it.

use bitcoin::{BlockHash, Network, ScriptBuf, Transaction, Txid};

use super::Embedded;
use super::wire::{Ask, HexTx, Since, Told};
use crate::source::{BlockAt, Found, Scan, Step};
use crate::{ChainError, Status};

impl Embedded {
    pub(crate) fn network(&self) -> Network {
        Network::Regtest
    }

    pub(crate) async fn tip(&self) -> Result<BlockAt, ChainError> {
        match self.ask(Ask::Tip).await? {
            Told::Tip { height, hash } => Ok(BlockAt { height, hash }),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        match self.ask(Ask::BlockHash { height }).await? {
            Told::BlockHash(hash) => Ok(hash),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        match self.ask(Ask::Broadcast { tx: HexTx(tx.clone()) }).await? {
            Told::Txid(txid) => Ok(txid),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn transaction(&self, txid: &Txid) -> Result<Option<(Transaction, Status)>, ChainError> {
        match self.ask(Ask::Transaction { txid: *txid }).await? {
            Told::Transaction(found) => Ok(found.map(|(tx, status)| (tx.0, status))),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn history(&self, script: &ScriptBuf) -> Result<Vec<(Transaction, Status)>, ChainError> {
        let mut past = Vec::new();
        let mut skip = 0;
        loop {
            match self.ask(Ask::History { script: script.clone(), skip }).await? {
                Told::History(part) => {
                    past.extend(part.past.into_iter().map(|(tx, status)| (tx.0, status)));
                    match part.next {
                        Some(next) => skip = next,
                        None => return Ok(past),
                    }
                }
                other => return Err(self.astray(&other)),
            }
        }
    }

    pub(crate) async fn feerate(&self) -> Result<u64, ChainError> {
        match self.ask(Ask::Feerate).await? {
            Told::Feerate { sat_per_kvb } => Ok(sat_per_kvb),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn mempool(&self) -> Result<Vec<Transaction>, ChainError> {
        match self.ask(Ask::Mempool).await? {
            Told::Mempool(txs) => Ok(txs.into_iter().map(|tx| tx.0).collect()),
            other => Err(self.astray(&other)),
        }
    }

    /// Whole blocks, so that the scripts do not matter.
    pub(crate) async fn scan(&self, locator: Vec<BlockHash>) -> Result<Scan, ChainError> {
        match self.ask(Ask::Since { locator }).await? {
            Told::Since(Since { fork_height, fork_hash, blocks, tip_height }) => {
                let steps = (fork_height + 1..).zip(blocks).map(|(height, block)| Step {
                    at: BlockAt { height, hash: block.0.block_hash() },
                    block_unix: block.0.header.time,
                    found: Found::Block(Box::new(block.0)),
                });
                Ok(Scan { fork: BlockAt { height: fork_height, hash: fork_hash }, steps: steps.collect(), tip_height })
            }
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn faucet(&self, script: ScriptBuf, sat: u64) -> Result<Txid, ChainError> {
        match self.ask(Ask::Faucet { script, sat }).await? {
            Told::Txid(txid) => Ok(txid),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn generate(&self, count: u32) -> Result<Vec<BlockHash>, ChainError> {
        match self.ask(Ask::Generate { count }).await? {
            Told::Hashes(hashes) => Ok(hashes),
            other => Err(self.astray(&other)),
        }
    }

    pub(crate) async fn reorganise(&self, depth: u32, with: &[Transaction]) -> Result<Vec<BlockHash>, ChainError> {
        let with = with.iter().cloned().map(HexTx).collect();
        match self.ask(Ask::Reorganise { depth, with }).await? {
            Told::Hashes(hashes) => Ok(hashes),
            other => Err(self.astray(&other)),
        }
    }
}
