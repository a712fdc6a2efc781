//! What an unconfirmed transaction and those it rests on pay: a miner looks at them together, so whoever lifts one lifts all.

use std::collections::{HashMap, HashSet};

use bitcoin::{Transaction, Txid};

use crate::{Chain, ChainError, Status};

/// The most unconfirmed transactions that nodes relay in one family.
const MOST: usize = 64;

/// An unconfirmed transaction together with the unconfirmed ones that it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// What they pay, satoshi.
    pub fee_sat: u64,
    /// Their size, virtual bytes.
    pub vbytes: u64,
}

impl Chain {
    /// `None` if the source does not know what one of them spends, or does not have the transaction in its mempool.
    pub(crate) async fn family_of(&self, tx: &Transaction) -> Result<Option<Family>, ChainError> {
        let waiting: HashMap<Txid, Transaction> = self.mempool().await?.into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
        let mut family = Family { fee_sat: 0, vbytes: 0 };
        let mut seen = HashSet::from([tx.compute_txid()]);
        let mut to_see = vec![tx.clone()];
        while let Some(tx) = to_see.pop() {
            let mut spent_sat = 0u64;
            for input in &tx.input {
                let at = input.previous_output;
                let parent = match waiting.get(&at.txid) {
                    Some(parent) => {
                        if seen.insert(at.txid) {
                            to_see.push(parent.clone());
                        }
                        Some(parent.clone())
                    }
                    None => self.transaction(&at.txid).await?.map(|(parent, status)| {
                        // Not every source has all that waits in its list.
                        if status == Status::Mempool && seen.insert(at.txid) {
                            to_see.push(parent.clone());
                        }
                        parent
                    }),
                };
                let vout = usize::try_from(at.vout).unwrap_or(usize::MAX);
                let Some(output) = parent.as_ref().and_then(|parent| parent.output.get(vout)) else { return Ok(None) };
                spent_sat = spent_sat.saturating_add(output.value.to_sat());
            }
            let paid_sat = tx.output.iter().fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()));
            family.fee_sat = family.fee_sat.saturating_add(spent_sat.saturating_sub(paid_sat));
            family.vbytes = family.vbytes.saturating_add(tx.vsize() as u64);
            if seen.len() > MOST {
                return Ok(None);
            }
        }
        Ok(Some(family))
    }
}
