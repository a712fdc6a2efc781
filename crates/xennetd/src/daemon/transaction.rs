//! Looking a transaction up. What it spends is looked up as well: that alone shows its fee.

use std::sync::Arc;

use bitcoin::{Address, OutPoint, Transaction, Txid};
use xennet_chain::{Chain, ChainError, payload_of};

use super::happening::Answer;
use super::{Daemon, shared};
use crate::control::{Failure, FailureKind, InputView, OutputView, Reply, TransactionView};

impl Daemon {
    /// Answers outside the loop: the chain may take its time.
    pub(super) fn answer_with_transaction(&self, txid: String, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _ = answer.send(look_up(&shared.chain, &txid).await.map(|view| Reply::Transaction(Box::new(view))));
        });
    }
}

async fn look_up(chain: &Chain, txid: &str) -> Result<TransactionView, Failure> {
    let wrong = |error| Failure::new(FailureKind::BadInput, format!("{txid} is no transaction id: {error}"), "give all its 64 digits");
    let id: Txid = txid.parse().map_err(wrong)?;
    let found = chain.transaction(&id).await.map_err(away)?;
    let Some((transaction, status)) = found else {
        return Err(Failure::not_found(format!("transaction {id} on this chain"), "a ledger names those of its lease"));
    };
    let mut inputs = Vec::new();
    for input in &transaction.input {
        inputs.push(spent(chain, input.previous_output).await.map_err(away)?);
    }
    let network = chain.network();
    let to_view = |output: &bitcoin::TxOut| OutputView {
        sat: output.value.to_sat(),
        address: Address::from_script(&output.script_pubkey, network).ok().map(|address| address.to_string()),
    };
    Ok(TransactionView {
        txid: id.to_string(),
        height: shared::height_of(status),
        size_bytes: transaction.total_size() as u64,
        vsize_vb: transaction.vsize() as u64,
        fee_sat: fee_sat(&transaction, &inputs),
        payload_bytes: payload_of(&transaction).map_or(0, |payload| payload.len() as u64),
        inputs,
        outputs: transaction.output.iter().map(to_view).collect(),
    })
}

async fn spent(chain: &Chain, outpoint: OutPoint) -> Result<InputView, ChainError> {
    let OutPoint { txid, vout } = outpoint;
    let before = if outpoint.is_null() { None } else { chain.transaction(&txid).await? };
    let output = before.and_then(|(transaction, _)| transaction.output.get(vout as usize).map(|output| output.value.to_sat()));
    Ok(InputView { txid: txid.to_string(), vout, sat: output })
}

fn fee_sat(transaction: &Transaction, inputs: &[InputView]) -> Option<u64> {
    let spent = inputs.iter().map(|input| input.sat).try_fold(0_u64, |sum, sat| sum.checked_add(sat?))?;
    let paid = transaction.output.iter().try_fold(0_u64, |sum, output| sum.checked_add(output.value.to_sat()))?;
    spent.checked_sub(paid)
}

fn away(error: ChainError) -> Failure {
    Failure::new(FailureKind::Unavailable, format!("the chain does not answer: {error}"), "try again in a moment")
}
