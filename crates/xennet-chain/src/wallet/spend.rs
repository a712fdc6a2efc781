//! Building and signing transactions.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::error::CreateTxError;
use bdk_wallet::miniscript::psbt::PsbtExt as _;
use bdk_wallet::{KeychainKind, TxOrdering};
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxOut};

use super::{Inner, Ticket, Wallet, WalletError};

impl Wallet {
    /// A signed transaction whose first output pays `sat` to `script`; change, if any, is the second. It is not sent,
    /// and its coins are reserved.
    pub fn fund(&self, script: ScriptBuf, sat: u64, feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        self.fund_many(&[(script, sat)], feerate_sat_per_kvb)
    }

    /// The same for many outputs, in their order and the change after them, or for none of them. One transaction costs less than
    /// many: an output more is 43 vB, another funding transaction 153.
    pub fn fund_many(&self, outputs: &[(ScriptBuf, u64)], feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        self.fund_from(&[], outputs, feerate_sat_per_kvb)
    }

    /// The same out of these coins and no others; of none, out of whatever can be spent.
    pub(super) fn fund_from(
        &self,
        coins: &[OutPoint],
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_per_kvb: u64,
    ) -> Result<Transaction, WalletError> {
        let mut inner = self.lock();
        let to_output = |(script, sat): &(ScriptBuf, u64)| TxOut { value: Amount::from_sat(*sat), script_pubkey: script.clone() };
        let psbt = inner.build(coins, outputs.iter().map(to_output).collect(), feerate_sat_per_kvb, Change::Last)?;
        let tx = inner.sign(psbt)?;
        let coins = spent_by(&tx);
        inner.reservations.insert(Ticket::Built(tx.compute_txid()), coins);
        inner.persist()?;
        Ok(tx)
    }
}

/// Bitcoin Core's default for what is a mistake rather than a fee.
const MAX_FEERATE_SAT_PER_KVB: u64 = 10_000_000;

fn at_most(field: &'static str, value: u64, at_most: u64) -> Result<(), WalletError> {
    if value > at_most { Err(WalletError::OutOfRange { field, value, at_most }) } else { Ok(()) }
}

/// Where the change goes among the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    First,
    Last,
}

/// The coins a transaction spends.
pub(super) fn spent_by(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|input| input.previous_output).collect()
}

impl Inner {
    /// Chooses coins for these outputs, unless somebody has chosen, and puts the change where it is wanted. The outputs keep their order.
    pub(super) fn build(
        &mut self,
        chosen: &[OutPoint],
        outputs: Vec<TxOut>,
        feerate_sat_per_kvb: u64,
        change: Change,
    ) -> Result<Psbt, WalletError> {
        at_most("the feerate in sat/kvB", feerate_sat_per_kvb, MAX_FEERATE_SAT_PER_KVB)?;
        for output in &outputs {
            at_most("the amount in sat", output.value.to_sat(), Amount::MAX_MONEY.to_sat())?;
            let at_least = output.script_pubkey.minimal_non_dust();
            if output.value < at_least && !output.script_pubkey.is_op_return() {
                return Err(WalletError::Dust { sat: output.value.to_sat(), at_least_sat: at_least.to_sat() });
            }
        }
        let reserved = self.reserved();
        let untrusted = self.untrusted();
        // BDK pays for weight, relay asks for whole virtual bytes: a hundredth more covers the difference.
        let feerate = FeeRate::from_sat_per_kwu(feerate_sat_per_kvb.saturating_mul(101).div_ceil(400));
        let mut builder = self.bdk.build_tx();
        builder.ordering(ordering(&outputs, change)).fee_rate(feerate).unspendable(reserved.union(&untrusted).copied().collect());
        for output in outputs {
            builder.add_recipient(output.script_pubkey, output.value);
        }
        if !chosen.is_empty() {
            builder.add_utxos(chosen).map_err(|why| WalletError::Build(why.to_string()))?.manually_selected_only();
        }
        builder.finish().map_err(|why| match why {
            CreateTxError::CoinSelection(short) => {
                let (needed, available) = (short.needed.to_sat(), short.available.to_sat());
                WalletError::Short {
                    needed_sat: needed,
                    available_sat: available,
                    missing_sat: needed.saturating_sub(available).saturating_add(self.input_fee(feerate)),
                    reserved_sat: self.worth(&reserved),
                    unconfirmed_sat: self.worth(&untrusted),
                }
            }
            other => WalletError::Build(other.to_string()),
        })
    }

    /// Signs all inputs.
    pub(super) fn sign(&self, mut psbt: Psbt) -> Result<Transaction, WalletError> {
        psbt.sign(&self.master, self.bdk.secp_ctx())
            .map_err(|(_, why)| WalletError::Build(format!("an input could not be signed: {why:?}")))?;
        psbt.finalize_mut(self.bdk.secp_ctx())
            .map_err(|why| WalletError::Build(why.first().map(ToString::to_string).unwrap_or_default()))?;
        psbt.extract_tx().map_err(|why| WalletError::Build(why.to_string()))
    }

    /// Unconfirmed coins from others: who made them can still replace the transaction and take them back.
    pub(super) fn untrusted(&self) -> HashSet<OutPoint> {
        let graph = self.bdk.tx_graph();
        let is_own = |input: &TxIn| {
            let at = input.previous_output;
            graph.get_txout(at).is_some_and(|output| self.bdk.is_mine(output.script_pubkey.clone()))
        };
        self.bdk
            .list_unspent()
            .filter(|coin| matches!(coin.chain_position, ChainPosition::Unconfirmed { .. }))
            .filter(|coin| graph.get_tx(coin.outpoint.txid).is_none_or(|tx| !tx.input.iter().all(is_own)))
            .map(|coin| coin.outpoint)
            .collect()
    }

    pub(super) fn worth(&self, coins: &HashSet<OutPoint>) -> u64 {
        self.bdk.list_unspent().filter(|coin| coins.contains(&coin.outpoint)).map(|coin| coin.txout.value.to_sat()).sum()
    }

    /// What it costs to spend one coin more.
    fn input_fee(&self, feerate: FeeRate) -> u64 {
        let satisfaction = self.bdk.public_descriptor(KeychainKind::External).max_weight_to_satisfy();
        let weight = satisfaction.ok().and_then(|more| TxIn::default().segwit_weight().checked_add(more));
        weight.map_or(0, |weight| (feerate * weight).to_sat())
    }
}

/// Keeps the outputs in their order, with what is not one of them, the change, before or after them.
fn ordering(outputs: &[TxOut], change: Change) -> TxOrdering {
    let wanted = outputs.to_vec();
    let place = move |output: &TxOut| match (wanted.iter().position(|other| other == output), change) {
        (Some(at), _) => at + 1,
        (None, Change::First) => 0,
        (None, Change::Last) => usize::MAX,
    };
    TxOrdering::Custom {
        input_sort: Arc::new(|a: &TxIn, b: &TxIn| a.previous_output.cmp(&b.previous_output)),
        output_sort: Arc::new(move |a: &TxOut, b: &TxOut| -> Ordering { place(a).cmp(&place(b)) }),
    }
}
