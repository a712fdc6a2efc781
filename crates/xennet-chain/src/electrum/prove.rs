//! Proves that transactions are in blocks of the best chain here.

use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{TxMerkleNode, Txid};
use serde_json::{Value, json};

use super::Shared;
use super::known::Item;
use super::line::{Failed, Line};
use super::proof;
use super::store::Proved;
use crate::ChainError;
use crate::source::BlockAt;

impl Shared {
    /// Those of the items that are said to be in blocks from `from` to `to`, each proved, in the order of the chain.
    pub(super) async fn prove(&self, line: &Line, items: &[Item], from: u32, to: u32) -> Result<Vec<Proved>, ChainError> {
        let from = from.max(self.base() + 1);
        let (mut proved, mut open) = (Vec::new(), Vec::new());
        for item in items {
            let Some(height) = item.height.filter(|height| (from..=to).contains(height)) else { continue };
            match self.kept(&item.txid, height)? {
                Some(known) => proved.push(known),
                None => open.push((item.txid, height)),
            }
        }
        let txids: Vec<Txid> = open.iter().map(|(txid, _)| *txid).collect();
        let txs = self.fetch(line, &txids).await?;
        let asked = open.iter().map(|(txid, height)| json!([txid, height])).collect();
        let branches = line.call_each("blockchain.transaction.get_merkle", asked).await?;
        for (((txid, height), tx), branch) in open.into_iter().zip(txs).zip(branches) {
            let branch = match (branch, tx) {
                (Ok(branch), Some(tx)) => read_branch(&branch).map(|(position, branch)| (tx, position, branch)),
                (Err(Failed::For(why)), _) => return Err(why),
                // It has no such transaction there, or no longer.
                (Err(Failed::Refused(_)), _) | (Ok(_), None) => None,
            };
            let Some((tx, position, branch)) = branch else {
                return Err(self.unproved(line, txid, height, "is said to be in a block, and comes without a Merkle branch").await);
            };
            let (at, header) = self.header(height)?;
            match proof::root(&tx, position, &branch) {
                Ok(root) if root == header.merkle_root => {}
                Ok(_) => return Err(self.unproved(line, txid, height, "has a Merkle branch that does not lead to the header").await),
                Err(why) => return Err(self.untrue(format!("gave transaction {txid}, which {why}"))),
            }
            let known = Proved { tx, at, position };
            self.store().put_proved(&known)?;
            proved.push(known);
        }
        proved.sort_by_key(|proved| (proved.at.height, proved.position));
        Ok(proved)
    }

    /// What was proved before, if its block is still in the best chain and the server does not name another.
    fn kept(&self, txid: &Txid, height: u32) -> Result<Option<Proved>, ChainError> {
        let proved = self.store().proved(txid)?.filter(|proved| proved.at.height == height);
        Ok(match proved {
            Some(proved) if self.is_best(proved.at)? => Some(proved),
            _ => None,
        })
    }

    fn header(&self, height: u32) -> Result<(BlockAt, Header), ChainError> {
        let found = self.store().header(height)?;
        let (hash, header) = found.ok_or_else(|| self.away("its chain changed while it was read"))?;
        Ok((BlockAt { height, hash }, header))
    }

    /// What is wrong where a proof is missing: a lie, unless the server's block of this height is another one by now.
    async fn unproved(&self, line: &Line, txid: Txid, height: u32, what: &str) -> ChainError {
        let theirs = line.ask("blockchain.block.header", json!([height])).await;
        let theirs: Option<Header> = match &theirs {
            Ok(text) => text.as_str().and_then(|text| deserialize_hex(text).ok()),
            Err(_) => return self.away("its chain changed while it was read"),
        };
        match self.at(height) {
            Ok(Some(at)) if theirs.is_some_and(|theirs| theirs.block_hash() == at.hash) => {
                self.untrue(format!("gave transaction {txid} of block {height}, which {what}"))
            }
            Ok(_) => self.away("its chain changed while it was read"),
            Err(why) => why,
        }
    }
}

fn read_branch(answer: &Value) -> Option<(u32, Vec<TxMerkleNode>)> {
    let position = answer.get("pos").and_then(Value::as_u64).and_then(|position| u32::try_from(position).ok())?;
    let branch = answer.get("merkle")?.as_array()?.iter().map(|node| node.as_str()?.parse().ok());
    Some((position, branch.collect::<Option<_>>()?))
}
