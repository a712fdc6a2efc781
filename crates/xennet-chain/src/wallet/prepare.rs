//! Announcement transactions: built without nonce, ground, then signed.
//!
//! ```text
//! inputs ‖ [change] ‖ marker 330 sat ‖ OP_RETURN <payload ‖ nonce 8> ‖ lock time 4
//! ```
//! The txid is the hash of that without the witness. With the nonce at its end, only the last block of the hash changes
//! from try to try; and since signatures are in the witness, they come after the grinding.

use bitcoin::consensus::encode::serialize;
use bitcoin::{Amount, Psbt, ScriptBuf, Transaction, TxOut};

use super::spend::{Change, spent_by};
use super::{Ticket, Wallet, WalletError};
use crate::announcement::{MAX_PAYLOAD, data_script, kind_of, marker_script, without_witness};

/// Bytes of the nonce.
const NONCE: usize = 8;

/// An announcement that lacks its nonce and its signatures. Its coins are reserved as long as it lives.
pub struct PreparedAnnouncement {
    wallet: Wallet,
    psbt: Psbt,
    ticket: Ticket,
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

impl Wallet {
    /// Builds the transaction that carries an announcement. `unworked` is its payload without the nonce.
    pub fn prepare_announcement(&self, unworked: &[u8], feerate_sat_per_kvb: u64) -> Result<PreparedAnnouncement, WalletError> {
        let unfit = || WalletError::Payload { length: unworked.len(), at_most: MAX_PAYLOAD - NONCE };
        let data = data_script(unworked).ok_or_else(unfit)?;
        let class = kind_of(unworked).ok_or_else(unfit)?;
        let mut inner = self.lock();
        let marker = marker_script(class, inner.bdk.latest_checkpoint().height());
        let outputs =
            vec![TxOut { value: marker.minimal_non_dust(), script_pubkey: marker }, TxOut { value: Amount::ZERO, script_pubkey: data }];
        let psbt = inner.build(&[], outputs, feerate_sat_per_kvb, Change::First)?;
        inner.persist()?;
        inner.tickets += 1;
        let ticket = Ticket::Draft(inner.tickets);
        inner.reservations.insert(ticket, spent_by(&psbt.unsigned_tx));
        drop(inner);

        let mut prefix = without_witness(&psbt.unsigned_tx);
        let suffix = serialize(&psbt.unsigned_tx.lock_time);
        prefix.truncate(prefix.len().saturating_sub(NONCE + suffix.len()));
        Ok(PreparedAnnouncement { wallet: self.clone(), psbt, ticket, prefix, suffix })
    }
}

impl PreparedAnnouncement {
    /// What is hashed before the nonce.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// What is hashed after the nonce.
    pub fn suffix(&self) -> &[u8] {
        &self.suffix
    }

    /// What it pays to the miner, satoshi.
    pub fn fee_sat(&self) -> u64 {
        self.psbt.fee().map_or(0, |fee| fee.to_sat())
    }

    /// What its marker holds, satoshi. Anyone can sweep it, the announcer first.
    pub fn marker_sat(&self) -> u64 {
        self.psbt.unsigned_tx.output.iter().rev().nth(1).map_or(0, |marker| marker.value.to_sat())
    }

    /// Puts the nonce in, in little-endian order as it was hashed, and signs. The coins stay reserved until
    /// [`Wallet::sent`], [`Wallet::sync`] or [`Wallet::release`].
    pub fn finish(mut self, nonce: u64) -> Result<Transaction, WalletError> {
        if let Some(output) = self.psbt.unsigned_tx.output.last_mut() {
            let mut script = output.script_pubkey.to_bytes();
            if let Some((_, last)) = script.split_last_chunk_mut::<NONCE>() {
                *last = nonce.to_le_bytes();
            }
            output.script_pubkey = ScriptBuf::from_bytes(script);
        }
        let mut inner = self.wallet.lock();
        let tx = inner.sign(self.psbt.clone())?;
        inner.reservations.insert(Ticket::Built(tx.compute_txid()), spent_by(&tx));
        Ok(tx)
    }
}

impl Drop for PreparedAnnouncement {
    fn drop(&mut self) {
        self.wallet.lock().reservations.remove(&self.ticket);
    }
}
