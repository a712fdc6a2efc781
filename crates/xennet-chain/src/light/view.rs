//! What is known of the chain at the moment: headers of the best one, which of them have their filter, own transactions.

use std::collections::{BTreeMap, HashMap};

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, Transaction, Txid};

use crate::Status;
use crate::source::BlockAt;

/// Blocks on an own transaction after which nobody asks for it any more.
const BURIED: u32 = 144;

#[derive(Debug)]
pub(super) struct View {
    /// Of the best chain, without gaps.
    pub(super) headers: BTreeMap<u32, Header>,
    /// Blocks whose filter is in the store.
    pub(super) filtered: BTreeMap<u32, BlockHash>,
    /// The lowest block whose filter somebody needs.
    pub(super) wanted_from: u32,
    /// Whether every filter from there to the tip is here.
    pub(super) ready: bool,
    /// Own transactions, with the block each was seen in.
    own: HashMap<Txid, Own>,
    genesis: BlockHash,
}

#[derive(Debug)]
struct Own {
    tx: Transaction,
    block: Option<BlockAt>,
}

impl View {
    pub(super) fn new(network: Network, headers: BTreeMap<u32, Header>, filtered: BTreeMap<u32, BlockHash>, own: Vec<Transaction>) -> View {
        let own = own.into_iter().map(|tx| (tx.compute_txid(), Own { tx, block: None })).collect();
        let genesis = bitcoin::constants::genesis_block(network).block_hash();
        View { headers, filtered, wanted_from: u32::MAX, ready: false, own, genesis }
    }

    /// The last header.
    pub(super) fn best(&self) -> Option<BlockAt> {
        self.headers.last_key_value().map(|(height, header)| BlockAt { height: *height, hash: header.block_hash() })
    }

    /// The newest block of the best chain whose filter is here too.
    pub(super) fn tip(&self) -> Option<BlockAt> {
        let filtered = self.headers.iter().rev().find(|(height, header)| self.filtered.get(height) == Some(&header.block_hash()));
        filtered.map(|(height, header)| BlockAt { height: *height, hash: header.block_hash() })
    }

    pub(super) fn at(&self, height: u32) -> Option<BlockAt> {
        if height == 0 {
            return Some(BlockAt { height, hash: self.genesis });
        }
        self.headers.get(&height).map(|header| BlockAt { height, hash: header.block_hash() })
    }

    pub(super) fn is_best(&self, at: BlockAt) -> bool {
        self.at(at.height) == Some(at)
    }

    /// The newest of these that is in the best chain.
    pub(super) fn fork(&self, locator: &[BlockHash]) -> Option<BlockAt> {
        // The newest ones are at the end of the map, and a locator begins with its newest.
        locator.iter().find_map(|hash| {
            if *hash == self.genesis {
                return self.at(0);
            }
            let found = self.headers.iter().rev().find(|(_, header)| header.block_hash() == *hash);
            found.map(|(height, header)| BlockAt { height: *height, hash: header.block_hash() })
        })
    }

    /// Whether all filters from this height to the last header are here.
    pub(super) fn covers(&self, from: u32) -> bool {
        self.headers.range(from..).rev().all(|(height, header)| self.filtered.get(height) == Some(&header.block_hash()))
    }

    /// Own transactions that no block of the best chain holds, parents first.
    pub(super) fn waiting(&self) -> Vec<Transaction> {
        let waits = |own: &&Own| own.block.is_none_or(|block| !self.is_best(block));
        crate::source::parents_first(self.own.values().filter(waits).map(|own| own.tx.clone()).collect())
    }

    /// An own transaction and how far it has come.
    pub(super) fn own(&self, txid: &Txid) -> Option<(Transaction, Status)> {
        let own = self.own.get(txid)?;
        let status = match own.block {
            Some(block) if self.is_best(block) => Status::Confirmed { height: block.height },
            _ => Status::Mempool,
        };
        Some((own.tx.clone(), status))
    }

    /// Takes an own transaction in; what it replaces is given back.
    pub(super) fn add_own(&mut self, tx: &Transaction) -> Vec<Txid> {
        let txid = tx.compute_txid();
        let replaced = self.conflicts(tx);
        for old in &replaced {
            self.own.remove(old);
        }
        self.own.entry(txid).or_insert_with(|| Own { tx: tx.clone(), block: None });
        replaced
    }

    pub(super) fn drop_own(&mut self, txid: &Txid) {
        self.own.remove(txid);
    }

    /// A block was read: own transactions in it are confirmed, those that it makes impossible are given back, and so are those
    /// that are buried under it.
    pub(super) fn read(&mut self, at: BlockAt, block: &Block) -> Vec<Txid> {
        let mut over: Vec<Txid> = Vec::new();
        if self.own.is_empty() {
            return over;
        }
        for tx in &block.txdata {
            if let Some(own) = self.own.get_mut(&tx.compute_txid()) {
                own.block = Some(at);
            } else {
                over.extend(self.conflicts(tx));
            }
        }
        let deep = self.own.iter().filter(|(_, own)| own.block.is_some_and(|block| block.height + BURIED < at.height));
        over.extend(deep.map(|(txid, _)| *txid));
        for txid in &over {
            self.own.remove(txid);
        }
        over
    }

    /// Own ones that spend a coin which this one spends, too.
    fn conflicts(&self, tx: &Transaction) -> Vec<Txid> {
        let txid = tx.compute_txid();
        let spends =
            |own: &Own| own.tx.input.iter().any(|input| tx.input.iter().any(|other| other.previous_output == input.previous_output));
        self.own.iter().filter(|(known, own)| **known != txid && spends(own)).map(|(known, _)| *known).collect()
    }
}
