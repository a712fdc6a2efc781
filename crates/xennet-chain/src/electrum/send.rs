//! Sends transactions, and says why a server does not take one.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use serde_json::json;

use super::Shared;
use super::known::script_hash;
use super::line::{Failed, Line};
use crate::refused::{self, Said};
use crate::source::spent_script;
use crate::{ChainError, Refusal, Status};

/// Transactions of a script that are looked through for the one that spends a coin.
const SEARCHED: usize = 200;

impl Shared {
    /// Sends a transaction; one that is known already is sent.
    pub(super) async fn send(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        let (line, txid) = (self.line()?, tx.compute_txid());
        match line.call("blockchain.transaction.broadcast", json!([serialize_hex(tx)])).await {
            Ok(answer) if answer.as_str().and_then(|text| text.parse().ok()) == Some(txid) => {}
            Ok(_) => return Err(self.untrue(format!("took transaction {txid} and named another one"))),
            Err(Failed::Refused(words)) if refused::is_known(&words) => {}
            Err(Failed::Refused(words)) => {
                // One that is in a block, or that waits, spends what is spent.
                if self.transaction(&line, &txid).await?.is_none() {
                    return Err(ChainError::Refused { txid, why: self.refusal(&line, tx, &words).await? });
                }
            }
            Err(Failed::For(why)) => return Err(why),
        }
        {
            let mut touched = self.touched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            touched.extend(tx.output.iter().map(|output| output.script_pubkey.clone()));
            touched.extend(tx.input.iter().filter_map(spent_script));
        }
        // The follower is to see it at once.
        self.stir.notify_one();
        Ok(txid)
    }

    async fn refusal(&self, line: &Line, tx: &Transaction, words: &str) -> Result<Refusal, ChainError> {
        let other = || Refusal::Other { reason: words.to_owned() };
        Ok(match refused::read(tx, words) {
            Said::All(refusal) => refusal,
            Said::Missing => {
                for input in &tx.input {
                    let at = input.previous_output;
                    let there = match self.coin(line, at).await? {
                        Some(output) => !self.is_spent_in_a_block(line, at, &output).await?,
                        None => false,
                    };
                    if !there {
                        return Ok(Refusal::MissingOrSpent { outpoint: at });
                    }
                }
                other()
            }
            Said::Replacement(fees) => {
                for input in &tx.input {
                    let at = input.previous_output;
                    let Some(output) = self.coin(line, at).await? else { continue };
                    if let Some((spender, Status::Mempool)) = self.spender(line, at, &output).await? {
                        return Ok(fees.with(spender).unwrap_or_else(other));
                    }
                }
                other()
            }
            Said::NotFinal => {
                let best = self.tip()?;
                refused::not_final(tx, best.height.saturating_add(1), self.rules(best.height)?.median())
            }
            Said::Other => other(),
        })
    }

    /// The output that an input spends.
    async fn coin(&self, line: &Line, at: OutPoint) -> Result<Option<TxOut>, ChainError> {
        let parent = self.fetch(line, &[at.txid]).await?.pop().flatten();
        let vout = usize::try_from(at.vout).unwrap_or(usize::MAX);
        Ok(parent.and_then(|parent| parent.output.get(vout).cloned()))
    }

    async fn is_spent_in_a_block(&self, line: &Line, at: OutPoint, output: &TxOut) -> Result<bool, ChainError> {
        Ok(matches!(self.spender(line, at, output).await?, Some((_, Status::Confirmed { .. }))))
    }

    /// What spends a coin, and how far that has come, as the server says.
    async fn spender(&self, line: &Line, at: OutPoint, output: &TxOut) -> Result<Option<(Txid, Status)>, ChainError> {
        let asked = json!([script_hash(&output.script_pubkey).to_string()]);
        let items = match line.call("blockchain.scripthash.get_history", asked).await {
            Ok(answer) => self.read_items(&answer)?,
            Err(Failed::Refused(_)) => return Ok(None),
            Err(Failed::For(why)) => return Err(why),
        };
        // The newest: what spends an old coin of a script that is used a lot is not worth a search of its whole past.
        let newest: Vec<_> = items.iter().rev().take(SEARCHED).collect();
        let txids: Vec<Txid> = newest.iter().map(|item| item.txid).collect();
        for (item, tx) in newest.into_iter().zip(self.fetch(line, &txids).await?) {
            if tx.is_some_and(|tx| tx.input.iter().any(|input| input.previous_output == at)) {
                let status = item.height.map_or(Status::Mempool, |height| Status::Confirmed { height });
                return Ok(Some((item.txid, status)));
            }
        }
        Ok(None)
    }
}
