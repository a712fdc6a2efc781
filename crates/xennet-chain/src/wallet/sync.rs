//! How the wallet learns what is on the chain.

use std::collections::HashSet;

use bdk_wallet::chain::{BlockId, ChainPosition};
use bitcoin::{Transaction, Txid};

use super::{Inner, Ticket, Wallet, WalletError};
use crate::Chain;
use crate::embedded::wire::Since;

/// How often a synchronisation begins anew because the chain changed under it.
const TRIES: u32 = 10;

impl Wallet {
    /// Takes over what happened on the chain since the last time: new blocks, blocks taken back, the mempool. To be
    /// called at each new tip; when nothing happened it costs one question.
    pub async fn sync(&self, chain: &Chain) -> Result<(), WalletError> {
        if chain.network() != self.network {
            let dir = self.lock().dir.clone();
            let (expected, found) = (chain.network().to_string(), self.network.to_string());
            return Err(WalletError::WrongNetwork { dir, expected, found });
        }
        let _one_at_a_time = self.syncing.lock().await;
        let mut tries = 0;
        loop {
            let locator = self.lock().locator();
            let since = chain.since(locator).await?;
            let tip_height = since.tip_height;
            let reached = {
                let mut inner = self.lock();
                inner.apply(since)?;
                inner.persist()?;
                inner.bdk.latest_checkpoint().height()
            };
            if reached < tip_height {
                continue;
            }
            let mempool = chain.mempool().await?;
            let (_, tip) = chain.tip().await?;
            let mut inner = self.lock();
            // What was confirmed in between would be missing from both.
            if inner.bdk.latest_checkpoint().hash() == tip {
                inner.apply_mempool(mempool);
                return inner.persist();
            }
            drop(inner);
            tries += 1;
            if tries >= TRIES {
                return Err(WalletError::Restless { tries });
            }
        }
    }

    /// Height of the last block the wallet knows.
    pub fn height(&self) -> u32 {
        self.lock().bdk.latest_checkpoint().height()
    }
}

impl Inner {
    /// The newest checkpoints, then sparser ones, and the first.
    fn locator(&self) -> Vec<bitcoin::BlockHash> {
        let mut locator = Vec::new();
        let mut step = 1;
        let mut next = u32::MAX;
        for checkpoint in self.bdk.checkpoints() {
            if checkpoint.height() <= next || checkpoint.height() == 0 {
                locator.push(checkpoint.hash());
                if locator.len() > 10 {
                    step *= 2;
                }
                next = checkpoint.height().saturating_sub(step);
            }
        }
        locator
    }

    fn apply(&mut self, since: Since) -> Result<(), WalletError> {
        let mut previous = BlockId { height: since.fork_height, hash: since.fork_hash };
        for block in since.blocks {
            let block = block.0;
            let height = previous.height + 1;
            self.bdk
                .apply_block_connected_to(&block, height, previous)
                .map_err(|why| WalletError::Build(format!("block {height} does not connect: {why}")))?;
            previous = BlockId { height, hash: block.block_hash() };
        }
        Ok(())
    }

    fn apply_mempool(&mut self, mempool: Vec<Transaction>) {
        let present: HashSet<Txid> = mempool.iter().map(Transaction::compute_txid).collect();
        let known: HashSet<Txid> = self
            .bdk
            .transactions()
            .filter(|tx| matches!(tx.chain_position, ChainPosition::Unconfirmed { .. }))
            .map(|tx| tx.tx_node.txid)
            .collect();
        let gone: Vec<Txid> = known.difference(&present).copied().collect();
        if !gone.is_empty() {
            let now = self.tick();
            self.bdk.apply_evicted_txs(gone.into_iter().map(|txid| (txid, now)));
        }
        let new: Vec<Transaction> = mempool.into_iter().filter(|tx| !known.contains(&tx.compute_txid())).collect();
        if !new.is_empty() {
            let now = self.tick();
            self.bdk.apply_unconfirmed_txs(new.into_iter().map(|tx| (tx, now)));
        }
        // What the chain knows needs no reservation: the coins are spent.
        let arrived: Vec<Ticket> = self.bdk.transactions().map(|tx| Ticket::Built(tx.tx_node.txid)).collect();
        for ticket in arrived {
            self.reservations.remove(&ticket);
        }
    }
}
