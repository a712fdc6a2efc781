//! Sends transactions, and says why bitcoind does not take one, in our own words.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{OutPoint, Transaction, Txid};
use serde_json::{Value, json};

use super::Shared;
use super::rpc::Failed;
use crate::refused::{self, Said};
use crate::{ChainError, Refusal};

/// bitcoind's codes: inputs missing or spent, a rule broken, already in the chain.
const MISSING: i64 = -25;
const REJECTED: i64 = -26;
const IN_CHAIN: i64 = -27;

impl Shared {
    /// Sends a transaction; one that is known already is sent.
    pub(super) async fn send(&self, tx: &Transaction) -> Result<(), ChainError> {
        // No limit of its own on the feerate: what may be paid is decided before, by the caller's cap.
        match self.rpc.call("sendrawtransaction", json!([serialize_hex(tx), 0])).await {
            Ok(_) | Err(Failed::Refused { code: IN_CHAIN, .. }) => Ok(()),
            Err(Failed::Refused { code: MISSING | REJECTED, message })
                if refused::is_known(&message) || self.transaction_is_there(tx, &message).await? =>
            {
                Ok(())
            }
            Err(Failed::Refused { code: MISSING | REJECTED, message }) => {
                let why = self.refusal(tx, &message).await?;
                Err(ChainError::Refused { txid: tx.compute_txid(), why })
            }
            Err(Failed::Refused { code: -22, message }) => {
                Err(ChainError::Refused { txid: tx.compute_txid(), why: Refusal::Malformed { why: message } })
            }
            Err(why) => Err(self.rpc.plain("sendrawtransaction", why)),
        }
    }

    /// A confirmed transaction whose outputs are all spent is unknown to bitcoind, and so are its inputs.
    async fn transaction_is_there(&self, tx: &Transaction, message: &str) -> Result<bool, ChainError> {
        if !message.contains("missingorspent") {
            return Ok(false);
        }
        let scripts: Vec<_> = tx.output.iter().map(|output| output.script_pubkey.clone()).filter(|script| !script.is_op_return()).collect();
        let txid = tx.compute_txid();
        Ok(self.past(&scripts).await?.iter().any(|(known, _)| known.compute_txid() == txid))
    }

    async fn refusal(&self, tx: &Transaction, reason: &str) -> Result<Refusal, ChainError> {
        let other = || Refusal::Other { reason: reason.to_owned() };
        Ok(match refused::read(tx, reason) {
            Said::All(refusal) => refusal,
            Said::Missing => {
                for input in &tx.input {
                    let at = input.previous_output;
                    if self.rpc.ask("gettxout", json!([at.txid, at.vout, true])).await?.is_null() {
                        return Ok(Refusal::MissingOrSpent { outpoint: at });
                    }
                }
                other()
            }
            Said::Replacement(fees) => self.conflict(tx).await?.and_then(|conflict| fees.with(conflict)).unwrap_or_else(other),
            Said::NotFinal => {
                let info = self.rpc.ask("getblockchaininfo", json!([])).await?;
                let next_height = self.rpc.field::<u32>(&info, "blocks")?.saturating_add(1);
                refused::not_final(tx, next_height, self.rpc.field(&info, "mediantime")?)
            }
            Said::Other => other(),
        })
    }

    /// What in the mempool spends one of the same coins.
    async fn conflict(&self, tx: &Transaction) -> Result<Option<Txid>, ChainError> {
        let coin = |at: OutPoint| json!({ "txid": at.txid, "vout": at.vout });
        let coins: Vec<Value> = tx.input.iter().map(|input| coin(input.previous_output)).collect();
        let answer = self.rpc.ask("gettxspendingprevout", json!([coins])).await?;
        let spenders = answer.as_array().into_iter().flatten().filter_map(|spent| spent.get("spendingtxid"));
        Ok(spenders.filter_map(Value::as_str).find_map(|txid| txid.parse().ok()))
    }
}
