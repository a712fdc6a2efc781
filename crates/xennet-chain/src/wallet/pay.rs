//! Payments that a user asks for, and making one that waits too long worth a miner's while.

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, Txid};

use super::spend::spent_by;
use super::{Inner, Ticket, Wallet, WalletError};

/// How much to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// Satoshi.
    Sat(u64),
    /// All that can be spent, less the fee.
    All,
}

/// How a transaction that waits is made more attractive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bump {
    /// By another one in its place (BIP125). Its txid changes, so that this is nothing for what others wait for by its txid.
    Replace,
    /// By a child that spends its change and pays for both.
    Child,
}

impl Wallet {
    /// A signed payment, not sent; its coins are reserved.
    pub fn pay(&self, script: ScriptBuf, sum: Sum, feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        match sum {
            Sum::Sat(sat) => self.fund(script, sat, feerate_sat_per_kvb),
            Sum::All => self.drain(script, feerate_sat_per_kvb),
        }
    }

    fn drain(&self, script: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        let mut inner = self.lock();
        let reserved = inner.reserved();
        let untrusted = inner.untrusted();
        let available_sat: u64 = inner
            .bdk
            .list_unspent()
            .filter(|coin| !reserved.contains(&coin.outpoint) && !untrusted.contains(&coin.outpoint))
            .map(|coin| coin.txout.value.to_sat())
            .sum();
        let mut builder = inner.bdk.build_tx();
        builder
            .drain_wallet()
            .drain_to(script)
            .fee_rate(rate(feerate_sat_per_kvb))
            .unspendable(reserved.union(&untrusted).copied().collect());
        let psbt = builder.finish().map_err(|why| match why {
            CreateTxError::CoinSelection(short) => WalletError::Short {
                needed_sat: short.needed.to_sat(),
                available_sat,
                missing_sat: short.needed.to_sat().saturating_sub(available_sat),
                reserved_sat: inner.worth(&reserved),
                unconfirmed_sat: inner.worth(&untrusted),
            },
            other => WalletError::Build(other.to_string()),
        })?;
        inner.finish(psbt)
    }

    /// What a transaction of the wallet pays to the miner, satoshi, if the wallet knows all that it spends.
    pub fn fee_of(&self, tx: &Transaction) -> Option<u64> {
        self.lock().bdk.calculate_fee(tx).ok().map(Amount::to_sat)
    }

    /// A transaction that the wallet knows, and whether it waits.
    pub fn known(&self, txid: &Txid) -> Option<(Transaction, bool)> {
        let inner = self.lock();
        let found = inner.bdk.get_tx(*txid)?;
        let waits = matches!(found.chain_position, ChainPosition::Unconfirmed { .. });
        Some((found.tx_node.tx.as_ref().clone(), waits))
    }

    /// A signed transaction that makes one that waits pay this feerate: in its place, or as its child. Not sent.
    pub fn bump(&self, txid: Txid, feerate_sat_per_kvb: u64, how: Bump) -> Result<Transaction, WalletError> {
        let mut inner = self.lock();
        let psbt = match how {
            Bump::Replace => {
                if let Some(heir) = inner.heir(&txid) {
                    return Err(WalletError::Build(format!(
                        "{heir} spends the change of {txid}, and would be void with another one in its place: raise the fee of {heir} instead"
                    )));
                }
                let taken = inner.reserved().union(&inner.untrusted()).copied().collect();
                let mut builder = inner.bdk.build_fee_bump(txid).map_err(|why| bump_error(txid, &why))?;
                builder.fee_rate(rate(feerate_sat_per_kvb)).unspendable(taken);
                builder.finish().map_err(|why| WalletError::Build(why.to_string()))?
            }
            Bump::Child => inner.child(txid, feerate_sat_per_kvb)?,
        };
        inner.finish(psbt)
    }
}

impl Inner {
    /// A transaction that spends an output of this one: sent already, or built and kept, as the funding of a channel.
    fn heir(&self, txid: &Txid) -> Option<Txid> {
        let sent = self.bdk.transactions().find(|tx| tx.tx_node.input.iter().any(|input| input.previous_output.txid == *txid));
        let kept = self.reservations.iter().find_map(|(ticket, coins)| match ticket {
            Ticket::Built(heir) if coins.iter().any(|coin| coin.txid == *txid) => Some(*heir),
            _ => None,
        });
        sent.map(|tx| tx.tx_node.txid).or(kept)
    }

    /// Spends the own outputs of a transaction that waits, for a fee that lifts both to this feerate.
    fn child(&mut self, txid: Txid, feerate_sat_per_kvb: u64) -> Result<Psbt, WalletError> {
        let nothing = || WalletError::Build(format!("{txid} pays nothing to this wallet that a child could spend: wait for a block"));
        let parent = self.bdk.get_tx(txid).ok_or_else(nothing)?.tx_node.tx;
        let paid = self.bdk.calculate_fee(&parent).map_or(0, Amount::to_sat);
        let reserved = self.reserved();
        let own: Vec<OutPoint> =
            self.bdk.list_unspent().map(|coin| coin.outpoint).filter(|coin| coin.txid == txid && !reserved.contains(coin)).collect();
        if own.is_empty() {
            return Err(nothing());
        }
        let to = self.bdk.next_unused_address(bdk_wallet::KeychainKind::Internal).script_pubkey();
        let build = |inner: &mut Inner, fee_sat: u64| {
            let mut builder = inner.bdk.build_tx();
            builder.add_utxos(&own).map_err(|why| WalletError::Build(why.to_string()))?;
            builder.manually_selected_only().drain_to(to.clone()).fee_absolute(Amount::from_sat(fee_sat));
            builder.finish().map_err(|why| WalletError::Build(why.to_string()))
        };
        // Once to see how large it is, once with the fee for both.
        let draft = build(self, 0)?;
        let child_vbytes = self.sign(draft)?.vsize() as u64;
        let both = (child_vbytes + parent.vsize() as u64).saturating_mul(feerate_sat_per_kvb).div_ceil(1_000);
        let alone = child_vbytes.saturating_mul(feerate_sat_per_kvb).div_ceil(1_000);
        build(self, both.saturating_sub(paid).max(alone))
    }

    fn finish(&mut self, psbt: Psbt) -> Result<Transaction, WalletError> {
        let tx = self.sign(psbt)?;
        self.reservations.insert(Ticket::Built(tx.compute_txid()), spent_by(&tx));
        self.persist()?;
        Ok(tx)
    }
}

/// As [`Inner::build`]: BDK pays for weight, relay asks for whole virtual bytes.
fn rate(feerate_sat_per_kvb: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(feerate_sat_per_kvb.saturating_mul(101).div_ceil(400))
}

fn bump_error(txid: Txid, why: &BuildFeeBumpError) -> WalletError {
    WalletError::Build(match why {
        BuildFeeBumpError::TransactionNotFound(_) => format!("this wallet knows no transaction {txid}"),
        BuildFeeBumpError::TransactionConfirmed(_) => format!("{txid} is in a block: it needs no higher fee"),
        other => format!("{txid} cannot be replaced: {other}"),
    })
}
