//! Taking markers back: 330 sat each, anyone's, with no signature.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use super::{KeychainKind, Wallet, WalletError};
use crate::Marker;
use crate::announcement::is_marker_script;

/// The most markers in one transaction: half of what is relayed.
const MOST: usize = 1_000;

/// What taking markers back would bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Takes them, whole but for being sent; `None` if it is not worth it.
    pub transaction: Option<Transaction>,
    /// How many it takes.
    pub markers: usize,
    /// What they hold, satoshi.
    pub worth_sat: u64,
    /// What the miner gets, satoshi.
    pub fee_sat: u64,
    /// Its size, virtual bytes.
    pub vbytes: u64,
    /// From here on down it is worth it, satoshi per 1,000 virtual bytes: what comes back is more than dust. 0: never.
    pub worth_at_sat_per_kvb: u64,
}

impl Wallet {
    /// The transaction that takes these markers, or as many of them as fit, into the wallet at this feerate.
    pub fn sweep(&self, markers: &[Marker], feerate_sat_per_kvb: u64) -> Result<Sweep, WalletError> {
        let markers = markers.get(..MOST).unwrap_or(markers);
        let mut inner = self.lock();
        let to = inner.bdk.next_unused_address(KeychainKind::Internal).script_pubkey();
        inner.persist()?;
        let mut tx = transaction(markers, to);
        let vbytes = tx.vsize() as u64;
        let worth_sat = markers.iter().fold(0u64, |sum, marker| sum.saturating_add(marker.sat));
        let dust_sat = tx.output.first().map_or(0, |output| output.script_pubkey.minimal_non_dust().to_sat());
        let fee_sat = vbytes.saturating_mul(feerate_sat_per_kvb).div_ceil(1_000);
        let worth_at_sat_per_kvb = worth_sat.saturating_sub(dust_sat).saturating_mul(1_000) / vbytes.max(1);
        let left_sat = worth_sat.saturating_sub(fee_sat);
        let is_worth_it = !markers.is_empty() && left_sat >= dust_sat;
        if let Some(output) = tx.output.first_mut() {
            output.value = Amount::from_sat(left_sat);
        }
        let transaction = is_worth_it.then_some(tx);
        Ok(Sweep { transaction, markers: markers.len(), worth_sat, fee_sat, vbytes, worth_at_sat_per_kvb })
    }

    /// Takes note of what markers hold, so that the fee of a transaction that takes them is known.
    pub fn know_markers(&self, markers: &[Marker]) -> Result<(), WalletError> {
        let mut inner = self.lock();
        for marker in markers {
            let output = TxOut { value: Amount::from_sat(marker.sat), script_pubkey: marker.witness_script.to_p2wsh() };
            inner.bdk.insert_txout(marker.outpoint, output);
        }
        inner.persist()
    }

    /// Whether the wallet made the announcement that this marker belongs to.
    pub fn announced(&self, marker: &Marker) -> bool {
        let inner = self.lock();
        let known = inner.bdk.get_tx(marker.outpoint.txid);
        known.is_some_and(|known| inner.is_all_own(&known.tx_node.tx))
    }
}

fn transaction(markers: &[Marker], to: ScriptBuf) -> Transaction {
    let input = |marker: &Marker| TxIn {
        previous_output: marker.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[marker.witness_script.as_bytes()]),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: markers.iter().map(input).collect(),
        output: vec![TxOut { value: Amount::ZERO, script_pubkey: to }],
    }
}

/// Whether a transaction takes markers, and nothing else.
pub(super) fn is_sweep(tx: &Transaction) -> bool {
    let takes_marker = |input: &TxIn| input.witness.len() == 1 && input.witness.last().is_some_and(is_marker_script);
    !tx.input.is_empty() && tx.input.iter().all(takes_marker)
}
