//! The publisher's end: signs payments, takes the refund.

use std::fmt;

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use secp256k1::{SECP256K1, SecretKey, ecdsa};
use serde::{Deserialize, Serialize};

use crate::digest::UpdateDigest;
use crate::{ChannelTerms, RamaError, Spend, Update, settle};

/// The publisher's end of a channel. Serialized, it holds the secret key: what is stored must be readable by its owner only.
///
/// Persist it after every call that changes it and before anything is sent (M1): a payment that was signed and then
/// forgotten could be followed by a lower one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Kept", into = "Kept")]
pub struct PublisherChannel {
    kept: Kept,
    digest: Option<UpdateDigest>,
}

/// What is persisted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    terms: ChannelTerms,
    secret: SecretKey,
    budget_sat: u64,
    outpoint: Option<OutPoint>,
    signed: Option<Update>,
}

impl PublisherChannel {
    /// A channel not yet funded, whose budget is all it can pay.
    ///
    /// # Errors
    /// Terms that do not hold, or a secret key that is not A's.
    pub fn new(terms: ChannelTerms, secret: SecretKey) -> Result<PublisherChannel, RamaError> {
        let budget_sat = terms.max_total_sat();
        Kept { terms, secret, budget_sat, outpoint: None, signed: None }.try_into()
    }

    /// Never to sign a total above this (M5), satoshi, close reserve included.
    pub fn with_budget(mut self, budget_sat: u64) -> PublisherChannel {
        self.kept.budget_sat = budget_sat;
        self
    }

    /// The coin of the channel is known. Saying it twice does no harm; another coin is taken only while nothing was signed.
    ///
    /// # Errors
    /// [`RamaError::AlreadyFunded`].
    pub fn funded(&mut self, outpoint: OutPoint) -> Result<(), RamaError> {
        if let (Some(have), Some(_)) = (self.kept.outpoint, self.kept.signed)
            && have != outpoint
        {
            return Err(RamaError::AlreadyFunded { have, offered: outpoint });
        }
        self.kept.outpoint = Some(outpoint);
        self.digest = Some(UpdateDigest::new(&self.kept.terms, outpoint));
        Ok(())
    }

    /// Signs a payment: all that has left the publisher so far is `total_sat` (see [`ChannelTerms::total_for`]). Asking for the
    /// same total again gives the same payment.
    ///
    /// # Errors
    /// A total below one already signed, without the close reserve, above the capacity or above the budget; nothing changes then.
    pub fn pay(&mut self, total_sat: u64) -> Result<Update, RamaError> {
        let kept = &mut self.kept;
        let digest = self.digest.as_ref().ok_or(RamaError::NotFunded)?;
        let reserve_sat = kept.terms.close_reserve_sat();
        if let Some(signed) = kept.signed {
            if signed.total_sat == total_sat {
                return Ok(signed);
            }
            if total_sat < signed.total_sat {
                return Err(RamaError::BelowKnown { total_sat, known_sat: signed.total_sat });
            }
        }
        if total_sat < reserve_sat {
            return Err(RamaError::ReserveMissing { total_sat, reserve_sat });
        }
        let most_sat = kept.terms.max_total_sat();
        if total_sat > most_sat {
            return Err(RamaError::AboveCapacity { total_sat, most_sat, capacity_sat: kept.terms.capacity_sat });
        }
        if total_sat > kept.budget_sat {
            return Err(RamaError::AboveBudget { total_sat, budget_sat: kept.budget_sat });
        }
        let signature = SECP256K1.sign_ecdsa(&digest.message(total_sat), &kept.secret).serialize_compact();
        let update = Update { total_sat, signature };
        kept.signed = Some(update);
        Ok(update)
    }

    /// The node shows a payment that this store has forgotten, as after it was put back from an old copy: the signature proves
    /// that it was made here, so it counts as signed again. A payment that is known, or below one, changes nothing.
    ///
    /// # Errors
    /// Not funded, above the capacity, or a signature that is not this channel's; nothing changes then.
    pub fn recall(&mut self, update: &Update) -> Result<(), RamaError> {
        let kept = &mut self.kept;
        let digest = self.digest.as_ref().ok_or(RamaError::NotFunded)?;
        let total_sat = update.total_sat;
        let most_sat = kept.terms.max_total_sat();
        if total_sat > most_sat {
            return Err(RamaError::AboveCapacity { total_sat, most_sat, capacity_sat: kept.terms.capacity_sat });
        }
        if kept.signed.is_some_and(|signed| signed.total_sat >= total_sat) {
            return Ok(());
        }
        ecdsa::Signature::from_compact(&update.signature)
            .and_then(|signature| SECP256K1.verify_ecdsa(&digest.message(total_sat), &signature, &kept.terms.publisher_key))
            .map_err(|_| RamaError::BadSignature { total_sat })?;
        kept.signed = Some(*update);
        Ok(())
    }

    /// Takes everything back. It can be broadcast once the chain's tip has reached the refund height.
    ///
    /// # Errors
    /// Not funded, or the fee leaves less than an output may hold.
    pub fn refund_tx(&self, to: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, RamaError> {
        let outpoint = self.kept.outpoint.ok_or(RamaError::NotFunded)?;
        settle::refund(&self.kept.terms, &self.kept.secret, outpoint, to, feerate_sat_per_kvb)
    }

    /// Moves the change of a close on to `to`. Not needed if the channel key is a key of the wallet.
    ///
    /// # Errors
    /// `close` does not close this channel, or the fee leaves less than an output may hold.
    pub fn sweep_change(&self, close: &Transaction, to: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, RamaError> {
        let outpoint = self.kept.outpoint.ok_or(RamaError::NotFunded)?;
        match self.kept.terms.spend_in(outpoint, close) {
            Some(Spend::Close { change, change_sat, .. }) => {
                let from = self.kept.terms.publisher_script();
                settle::sweep(&self.kept.secret, change, change_sat, &from, to, feerate_sat_per_kvb)
            }
            _ => Err(RamaError::NotAClose { txid: close.compute_txid(), outpoint }),
        }
    }

    /// The terms.
    pub fn terms(&self) -> &ChannelTerms {
        &self.kept.terms
    }

    /// The channel's coin, once funded.
    pub fn outpoint(&self) -> Option<OutPoint> {
        self.kept.outpoint
    }

    /// The budget, satoshi.
    pub fn budget_sat(&self) -> u64 {
        self.kept.budget_sat
    }

    /// The highest total signed so far, satoshi; 0 before the first payment.
    pub fn signed_total_sat(&self) -> u64 {
        self.kept.signed.map_or(0, |update| update.total_sat)
    }

    /// The last payment, to be sent again after a cut.
    pub fn last_update(&self) -> Option<Update> {
        self.kept.signed
    }

    /// The highest total that [`PublisherChannel::pay`] will sign, satoshi.
    pub fn max_total_sat(&self) -> u64 {
        self.kept.terms.max_total_sat().min(self.kept.budget_sat)
    }
}

impl TryFrom<Kept> for PublisherChannel {
    type Error = RamaError;

    fn try_from(kept: Kept) -> Result<PublisherChannel, RamaError> {
        kept.terms.check()?;
        crate::terms::check_key(&kept.terms.publisher_key, &kept.secret)?;
        let digest = kept.outpoint.map(|outpoint| UpdateDigest::new(&kept.terms, outpoint));
        Ok(PublisherChannel { kept, digest })
    }
}

impl From<PublisherChannel> for Kept {
    fn from(channel: PublisherChannel) -> Kept {
        channel.kept
    }
}

impl PartialEq for PublisherChannel {
    fn eq(&self, other: &PublisherChannel) -> bool {
        self.kept == other.kept
    }
}

impl Eq for PublisherChannel {}

impl fmt::Debug for PublisherChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherChannel")
            .field("terms", &self.kept.terms)
            .field("secret", &"not shown")
            .field("budget_sat", &self.kept.budget_sat)
            .field("outpoint", &self.kept.outpoint)
            .field("signed", &self.kept.signed)
            .finish()
    }
}
