//! Payments that a user asks for, and making one that waits too long worth a miner's while.

use bdk_wallet::chain::ChainPosition;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, Txid};

use super::spend::spent_by;
use super::{Inner, Ticket, Wallet, WalletError};
use crate::Family;

/// The most coins that a child spends: at 68 vB each it stays below the 1,000 vB that the child of a version 3 transaction may have.
const MOST_OF_PARENT: usize = 12;

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
        self.pay_from(&[], script, sum, feerate_sat_per_kvb)
    }

    /// The same out of these coins and no others; of none, out of whatever can be spent.
    pub fn pay_from(&self, coins: &[OutPoint], script: ScriptBuf, sum: Sum, feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        self.lock().check_choice(coins)?;
        match sum {
            Sum::Sat(sat) => self.fund_from(coins, &[(script, sat)], feerate_sat_per_kvb),
            Sum::All => self.drain(coins, script, feerate_sat_per_kvb),
        }
    }

    fn drain(&self, coins: &[OutPoint], script: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, WalletError> {
        let mut inner = self.lock();
        let reserved = inner.reserved();
        let untrusted = inner.untrusted();
        let available_sat: u64 = inner
            .bdk
            .list_unspent()
            .filter(|coin| !reserved.contains(&coin.outpoint) && !untrusted.contains(&coin.outpoint))
            .filter(|coin| coins.is_empty() || coins.contains(&coin.outpoint))
            .map(|coin| coin.txout.value.to_sat())
            .sum();
        let mut builder = inner.bdk.build_tx();
        builder.drain_to(script).fee_rate(rate(feerate_sat_per_kvb)).unspendable(reserved.union(&untrusted).copied().collect());
        if coins.is_empty() {
            builder.drain_wallet();
        } else {
            builder.add_utxos(coins).map_err(|why| WalletError::Build(why.to_string()))?.manually_selected_only();
        }
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
                let only_to_itself = inner.only_own_output(&txid);
                let mut builder = inner.bdk.build_fee_bump(txid).map_err(|why| bump_error(txid, &why))?;
                builder.fee_rate(rate(feerate_sat_per_kvb)).unspendable(taken);
                if let Some(script) = only_to_itself {
                    // A child, or all to oneself: what comes back is less, and no coin more is spent.
                    builder.set_recipients(Vec::new()).drain_to(script).manually_selected_only();
                }
                builder.finish().map_err(|why| WalletError::Build(why.to_string()))?
            }
            Bump::Child => inner.child(txid, feerate_sat_per_kvb, None)?,
        };
        inner.finish(psbt)
    }

    /// The child of [`Bump::Child`], where more is known of the parent than the wallet can know: what others paid for it, and what it
    /// rests on.
    pub fn lift(&self, txid: Txid, feerate_sat_per_kvb: u64, family: Option<Family>) -> Result<Transaction, WalletError> {
        let mut inner = self.lock();
        let psbt = inner.child(txid, feerate_sat_per_kvb, family)?;
        inner.finish(psbt)
    }

    /// Whether every coin that a transaction spends is, or was, the wallet's: another one can be made in its place.
    pub fn is_own(&self, tx: &Transaction) -> bool {
        self.lock().is_all_own(tx)
    }
}

impl Inner {
    /// The script of a transaction's only output, if that is the wallet's.
    fn only_own_output(&self, txid: &Txid) -> Option<ScriptBuf> {
        let tx = self.bdk.get_tx(*txid)?.tx_node.tx;
        match tx.output.as_slice() {
            [only] if self.bdk.is_mine(only.script_pubkey.clone()) => Some(only.script_pubkey.clone()),
            _ => None,
        }
    }

    /// A transaction that spends an output of this one: sent already, or built and kept, as the funding of a channel.
    fn heir(&self, txid: &Txid) -> Option<Txid> {
        let sent = self.bdk.transactions().find(|tx| tx.tx_node.input.iter().any(|input| input.previous_output.txid == *txid));
        let kept = self.reservations.iter().find_map(|(ticket, coins)| match ticket {
            Ticket::Built(heir) if coins.iter().any(|coin| coin.txid == *txid) => Some(*heir),
            _ => None,
        });
        sent.map(|tx| tx.tx_node.txid).or(kept)
    }

    /// Spends the own outputs of a transaction that waits, for a fee that lifts it, and what it rests on, to this feerate. The child of a
    /// transaction of version 3 is of that version, and stays below the size that BIP431 allows it.
    fn child(&mut self, txid: Txid, feerate_sat_per_kvb: u64, family: Option<Family>) -> Result<Psbt, WalletError> {
        let nothing = || WalletError::Build(format!("{txid} pays nothing to this wallet that a child could spend: wait for a block"));
        let parent = self.bdk.get_tx(txid).ok_or_else(nothing)?.tx_node.tx;
        let family = family.unwrap_or_else(|| Family {
            fee_sat: self.bdk.calculate_fee(&parent).map_or(0, Amount::to_sat),
            vbytes: parent.vsize() as u64,
        });
        let reserved = self.reserved();
        let mut own: Vec<(Amount, OutPoint)> = self
            .bdk
            .list_unspent()
            .filter(|coin| coin.outpoint.txid == txid && !reserved.contains(&coin.outpoint))
            .map(|coin| (coin.txout.value, coin.outpoint))
            .collect();
        let version = if parent.version == Version(3) { 3 } else { 2 };
        let heir = self.heir(&txid);
        // A transaction of version 3 may have one child.
        if own.is_empty() || (version == 3 && heir.is_some()) {
            return Err(heir.map_or_else(nothing, |heir| {
                let text =
                    format!("{heir} spends what {txid} pays to this wallet, so it is its child already: raise the fee of {heir} instead");
                WalletError::Build(text)
            }));
        }
        own.sort_unstable_by(|a, b| b.cmp(a));
        let own: Vec<OutPoint> = own.into_iter().take(MOST_OF_PARENT).map(|(_, coin)| coin).collect();
        let to = self.bdk.next_unused_address(bdk_wallet::KeychainKind::Internal).script_pubkey();
        let build = |inner: &mut Inner, fee_sat: u64| {
            let mut builder = inner.bdk.build_tx();
            builder.add_utxos(&own).map_err(|why| WalletError::Build(why.to_string()))?;
            builder.version(version).manually_selected_only().drain_to(to.clone()).fee_absolute(Amount::from_sat(fee_sat));
            builder.finish().map_err(|why| match why {
                CreateTxError::CoinSelection(short) => WalletError::Build(format!(
                    "a child that lifts {txid} to {} sat/vB needs {} sat, and what {txid} pays to this wallet is {} sat: ask for less",
                    feerate_sat_per_kvb.div_ceil(1_000),
                    short.needed.to_sat(),
                    short.available.to_sat()
                )),
                other => WalletError::Build(other.to_string()),
            })
        };
        // Once to see how large it is, once with the fee for both.
        let draft = build(self, 0)?;
        let child_vbytes = self.sign(draft)?.vsize() as u64;
        let both = child_vbytes.saturating_add(family.vbytes).saturating_mul(feerate_sat_per_kvb).div_ceil(1_000);
        let alone = child_vbytes.saturating_mul(feerate_sat_per_kvb).div_ceil(1_000);
        build(self, both.saturating_sub(family.fee_sat).max(alone))
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
