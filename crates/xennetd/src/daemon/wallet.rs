//! Payments, and making one that waits too long worth a miner's while.

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use xennet_chain::{Bump, ChainError, Family, Sum, WalletError, parse_address};

use super::happening::Answer;
use super::{Daemon, Shared};
use crate::backup::{self, BackupError, Existing};
use crate::control::{Failure, FailureKind, PaymentView, Reply};

/// A payment as it was asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Where to.
    pub address: String,
    /// Satoshi; `None`: all.
    pub amount_sat: Option<u64>,
    /// `None`: what the chain estimates.
    pub feerate_sat_per_kvb: Option<u64>,
    /// The most for the miner, satoshi.
    pub max_fee_sat: Option<u64>,
    /// Nothing is sent.
    pub dry_run: bool,
    /// Each `TXID:VOUT`; empty: whatever can be spent.
    pub coins: Vec<String>,
}

/// A raised fee as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct BumpWish {
    /// `None`: what the chain estimates, and half as much again as was paid.
    pub feerate_sat_per_kvb: Option<u64>,
    /// The most for the miner, satoshi.
    pub max_fee_sat: Option<u64>,
    /// Nothing is sent.
    pub dry_run: bool,
}

/// A replacement must pay more; by so much it does, if nobody says how much. Hundredths.
const BUMP_PERCENT: u64 = 150;

impl Daemon {
    /// Writes a backup beside the loop. What the store holds is what was acknowledged, so nothing waits for it.
    pub(super) fn back_up(&self, file: PathBuf, overwrite: bool, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        let existing = if overwrite { Existing::Replaced } else { Existing::Stays };
        tokio::task::spawn_blocking(move || {
            let written = backup::write(&shared.config.data_dir, &shared.wallet, Some(&shared.store), &file, existing);
            let _ = answer.send(written.map(Reply::Backup).map_err(|why| {
                let kind = if matches!(why, BackupError::Exists { .. }) { FailureKind::Conflict } else { FailureKind::Internal };
                Failure::new(kind, format!("{:#}", anyhow::Error::from(why)), "no backup was written")
            }));
        });
    }

    pub(super) fn send_money(&self, wish: Wish, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _ = answer.send(shared.send_money(&wish).await.map(|view| Reply::Payment(Box::new(view))));
        });
    }

    /// What others made or wait for by its txid gets a child, any other payment another one in its place.
    pub(super) fn bump(&self, txid: &str, wish: BumpWish, answer: Answer) {
        let txid: Txid = match txid.parse() {
            Ok(txid) => txid,
            Err(_) => {
                let failure = Failure::new(FailureKind::BadInput, format!("`{txid}` is no transaction id"), "it has 64 hexadecimal digits");
                return drop(answer.send(Err(failure)));
            }
        };
        let waited_for = self.leases.values().any(|running| {
            running.lease.channels().any(|channel| {
                channel.outpoint.is_some_and(|outpoint| outpoint.txid == txid) || channel.ending.is_some_and(|ending| ending.txid == txid)
            })
        });
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _ = answer.send(shared.bump(txid, waited_for, wish).await.map(|view| Reply::Payment(Box::new(view))));
        });
    }
}

impl Shared {
    async fn send_money(&self, wish: &Wish) -> Result<PaymentView, Failure> {
        let remedy = "nothing was sent";
        let address = parse_address(&wish.address, self.chain.network())
            .map_err(|why| Failure::new(FailureKind::BadInput, why.to_string(), remedy))?;
        let coins = wish.coins.iter().map(|coin| coin_of(coin)).collect::<Result<Vec<_>, _>>()?;
        let feerate = self.agreed_feerate(wish.feerate_sat_per_kvb).await?;
        self.wallet.sync(&self.chain).await.map_err(refused)?;
        let sum = wish.amount_sat.map_or(Sum::All, Sum::Sat);
        let tx = self.wallet.pay_from(&coins, address.script_pubkey(), sum, feerate).map_err(refused)?;
        let view = self.payment_view(&tx, &address.script_pubkey(), Some(address.to_string()), None);
        self.check_agreed(&tx, view.fee_sat, wish.max_fee_sat)?;
        self.send_out(tx, view, wish.dry_run).await
    }

    async fn bump(&self, txid: Txid, waited_for: bool, wish: BumpWish) -> Result<PaymentView, Failure> {
        self.wallet.sync(&self.chain).await.map_err(refused)?;
        let Some((old, waits)) = self.wallet.known(&txid) else {
            return Err(Failure::not_found(format!("transaction {txid} in this wallet"), "`xennet wallet history` lists them"));
        };
        if !waits {
            let text = format!("{txid} is in a block already");
            return Err(Failure::new(FailureKind::Conflict, text, "it needs no higher fee"));
        }
        let how = if waited_for || xennet_chain::payload_of(&old).is_some() || !old.is_explicitly_rbf() || !self.wallet.is_own(&old) {
            Bump::Child
        } else {
            Bump::Replace
        };
        let family = match how {
            Bump::Child => self.chain.family(&old).await.map_err(|why| {
                Failure::new(FailureKind::Unavailable, format!("the chain does not say what {txid} pays: {why}"), "nothing was sent")
            })?,
            Bump::Replace => None,
        };
        let alone = self.wallet.fee_of(&old).map(|fee_sat| Family { fee_sat, vbytes: old.vsize() as u64 });
        let known = family.or(alone);
        let paid = known.map_or(0, |known| known.fee_sat.saturating_mul(1_000) / known.vbytes.max(1));
        let feerate = match wish.feerate_sat_per_kvb {
            Some(feerate) => self.agreed_feerate(Some(feerate)).await?,
            None => self.agreed_feerate(None).await?.max(paid.saturating_mul(BUMP_PERCENT) / 100),
        };
        let tx = match how {
            Bump::Child => self.wallet.lift(txid, feerate, known),
            Bump::Replace => self.wallet.bump(txid, feerate, how),
        };
        let tx = tx.map_err(refused)?;
        let to = tx.output.first().map(|output| output.script_pubkey.clone()).unwrap_or_default();
        let mut view = self.payment_view(&tx, &to, None, Some((txid, how)));
        if how == Bump::Child {
            let (fee_sat, vbytes) = known.map_or((0, old.vsize() as u64), |known| (known.fee_sat, known.vbytes));
            view.lifted_fee_sat = known.map(|known| known.fee_sat);
            let together = (view.fee_sat.saturating_add(fee_sat)).saturating_mul(1_000) / view.vbytes.saturating_add(vbytes).max(1);
            view.together_sat_per_kvb = Some(together);
        }
        self.check_agreed(&tx, view.fee_sat, wish.max_fee_sat)?;
        self.send_out(tx, view, wish.dry_run).await
    }

    /// That the fee is no more than was agreed to.
    pub(super) fn check_agreed(&self, tx: &Transaction, fee_sat: u64, max_fee_sat: Option<u64>) -> Result<(), Failure> {
        let Some(at_most) = max_fee_sat.filter(|at_most| fee_sat > *at_most) else { return Ok(()) };
        self.wallet.release(&tx.compute_txid());
        let text = format!("the fee is {fee_sat} sat now, and at most {at_most} sat were agreed to");
        Err(Failure::new(FailureKind::Conflict, text, "nothing was sent; agree to more, or wait until fees fall"))
    }

    /// What somebody asks for, within what the user allows; else the chain's estimate.
    pub(super) async fn agreed_feerate(&self, wished: Option<u64>) -> Result<u64, Failure> {
        let at_most = self.config.wallet.max_feerate_sat_per_kvb;
        match wished {
            Some(feerate) if feerate > at_most => Err(Failure::new(
                FailureKind::BadInput,
                format!("{} sat/vB are more than the {} that are allowed", feerate.div_ceil(1_000), at_most / 1_000),
                "nothing was sent; ask for less, or raise max_feerate_sat_vb under [wallet]",
            )),
            Some(feerate) => Ok(feerate),
            None => self.feerate().await.map_err(|why| Failure::new(FailureKind::Unavailable, format!("{why:#}"), "nothing was sent")),
        }
    }

    async fn send_out(&self, tx: Transaction, mut view: PaymentView, dry_run: bool) -> Result<PaymentView, Failure> {
        let txid = tx.compute_txid();
        if dry_run {
            self.wallet.release(&txid);
            return Ok(view);
        }
        self.broadcast_for_user(&tx).await?;
        self.wallet.sent(&tx).map_err(refused)?;
        view.sent = true;
        Ok(view)
    }

    /// Sends what a user has asked for.
    pub(super) async fn broadcast_for_user(&self, tx: &Transaction) -> Result<(), Failure> {
        let txid = tx.compute_txid();
        match self.chain.broadcast(tx).await {
            Ok(_) => Ok(()),
            Err(ChainError::Refused { why, .. }) => {
                self.wallet.release(&txid);
                let text = format!("the chain does not take the transaction: {why}");
                Err(Failure::new(FailureKind::Conflict, text, "nothing was sent"))
            }
            // The answer is missing, not the transaction: its coins stay spoken for, so that no second one pays the same again.
            Err(why) => {
                let text = format!("whether {txid} is on its way is not known: {why}");
                let remedy = "look at `xennet wallet history` before sending again; after a restart of the daemon its coins are free";
                Err(Failure::new(FailureKind::Unavailable, text, remedy))
            }
        }
    }

    fn payment_view(&self, tx: &Transaction, to: &ScriptBuf, address: Option<String>, bumped: Option<(Txid, Bump)>) -> PaymentView {
        let amount = tx.output.iter().filter(|output| output.script_pubkey == *to).map(|output| output.value.to_sat()).sum();
        let (fee_sat, vbytes) = (self.wallet.fee_of(tx).unwrap_or(0), tx.vsize() as u64);
        PaymentView {
            txid: tx.compute_txid().to_string(),
            network: self.chain.network().to_string(),
            address,
            amount_sat: amount,
            fee_sat,
            vbytes,
            feerate_sat_per_kvb: fee_sat.saturating_mul(1_000) / vbytes.max(1),
            replaces: bumped.filter(|(_, how)| *how == Bump::Replace).map(|(txid, _)| txid.to_string()),
            lifts: bumped.filter(|(_, how)| *how == Bump::Child).map(|(txid, _)| txid.to_string()),
            lifted_fee_sat: None,
            together_sat_per_kvb: None,
            sent: false,
        }
    }
}

/// A coin that somebody named.
fn coin_of(text: &str) -> Result<OutPoint, Failure> {
    text.parse().map_err(|why| {
        let text = format!("`{text}` names no coin ({why})");
        Failure::new(FailureKind::BadInput, text, "write TXID:VOUT as `xennet wallet coins` shows it; nothing was sent")
    })
}

pub(super) fn refused(why: WalletError) -> Failure {
    let kind = match &why {
        WalletError::Short { .. } => FailureKind::NotEnoughMoney,
        WalletError::Dust { .. } | WalletError::OutOfRange { .. } | WalletError::Coin { .. } => FailureKind::BadInput,
        WalletError::Build(_) => FailureKind::Conflict,
        WalletError::Chain(_) | WalletError::Restless { .. } => FailureKind::Unavailable,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, why.to_string(), "nothing was sent")
}
