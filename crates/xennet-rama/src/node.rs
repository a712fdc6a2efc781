//! The node's end: checks payments, closes.

use std::fmt;

use bitcoin::{OutPoint, Script, ScriptBuf, Transaction};
use secp256k1::{SECP256K1, SecretKey, ecdsa};
use serde::{Deserialize, Serialize};

use crate::digest::UpdateDigest;
use crate::settle::{self, Closing};
use crate::{ChannelTerms, RamaError, Update};

/// The node's end of a channel. Serialized, it holds the secret key: what is stored must be readable by its owner only.
///
/// Persist it after [`NodeChannel::accept`] and before the payment is acknowledged (M1): the signature is the money.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Kept", into = "Kept")]
pub struct NodeChannel {
    kept: Kept,
    digest: Option<UpdateDigest>,
}

/// What is persisted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    terms: ChannelTerms,
    secret: SecretKey,
    outpoint: Option<OutPoint>,
    best: Option<Update>,
}

impl NodeChannel {
    /// A channel not yet funded.
    ///
    /// # Errors
    /// Terms that do not hold, or a secret key that is not B's.
    pub fn new(terms: ChannelTerms, secret: SecretKey) -> Result<NodeChannel, RamaError> {
        Kept { terms, secret, outpoint: None, best: None }.try_into()
    }

    /// The publisher says that output `vout` of `funding` is the channel's coin; it is believed if script and amount are
    /// right. Whether the transaction is on the chain is for the caller to see. Saying it twice does no harm; another coin is
    /// taken only while no payment was. Returns the coin.
    ///
    /// # Errors
    /// What is not as agreed, or [`RamaError::AlreadyFunded`].
    pub fn funded(&mut self, funding: &Transaction, vout: u32) -> Result<OutPoint, RamaError> {
        let outpoint = self.kept.terms.check_funding(funding, vout)?;
        if let (Some(have), Some(_)) = (self.kept.outpoint, self.kept.best)
            && have != outpoint
        {
            return Err(RamaError::AlreadyFunded { have, offered: outpoint });
        }
        self.kept.outpoint = Some(outpoint);
        self.digest = Some(UpdateDigest::new(&self.kept.terms, outpoint));
        Ok(outpoint)
    }

    /// Takes a payment at the chain's present height. The same payment again is fine and changes nothing.
    ///
    /// # Errors
    /// Too close to the refund; a total below the best one, without the close reserve or above the capacity; a signature that
    /// does not check. Nothing changes then.
    pub fn accept(&mut self, update: &Update, height: u32) -> Result<(), RamaError> {
        let kept = &mut self.kept;
        let digest = self.digest.as_ref().ok_or(RamaError::NotFunded)?;
        let total_sat = update.total_sat;
        if let Some(best) = kept.best {
            if best == *update {
                return Ok(());
            }
            if total_sat < best.total_sat {
                return Err(RamaError::BelowKnown { total_sat, known_sat: best.total_sat });
            }
        }
        if !kept.terms.takes_updates(height) {
            let (last, refund_height) = (kept.terms.last_update_height(), kept.terms.refund_height);
            return Err(RamaError::TooLate { height, last, refund_height });
        }
        let reserve_sat = kept.terms.close_reserve_sat();
        if total_sat < reserve_sat {
            return Err(RamaError::ReserveMissing { total_sat, reserve_sat });
        }
        let most_sat = kept.terms.max_total_sat();
        if total_sat > most_sat {
            return Err(RamaError::AboveCapacity { total_sat, most_sat, capacity_sat: kept.terms.capacity_sat });
        }
        // A signature with a high s fails here too, as it must: it would not be relayed.
        ecdsa::Signature::from_compact(&update.signature)
            .and_then(|signature| SECP256K1.verify_ecdsa(&digest.message(total_sat), &signature, &kept.terms.publisher_key))
            .map_err(|_| RamaError::BadSignature { total_sat })?;
        kept.best = Some(*update);
        Ok(())
    }

    /// Closes: the publisher's change, then `to` with the total less the fee. Call it again with a higher rate
    /// ([`crate::bumped_feerate`]) to replace it.
    ///
    /// # Errors
    /// Not funded, nothing paid, or the fee leaves less than an output may hold.
    pub fn close_tx(&self, to: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, RamaError> {
        settle::close(&[self.closing()?], &to, feerate_sat_per_kvb)
    }

    /// Closes many channels in one transaction, which is cheaper than one each.
    ///
    /// # Errors
    /// As [`NodeChannel::close_tx`]; also no channel, one channel twice, or more than fit.
    pub fn close_many(channels: &[&NodeChannel], to: ScriptBuf, feerate_sat_per_kvb: u64) -> Result<Transaction, RamaError> {
        let closing = channels.iter().map(|channel| channel.closing()).collect::<Result<Vec<_>, _>>()?;
        settle::close(&closing, &to, feerate_sat_per_kvb)
    }

    /// The highest fee rate at which closing still leaves an output that is relayed, sat/kvB; 0 if none does.
    ///
    /// # Errors
    /// Not funded, or nothing paid.
    pub fn affordable_feerate(&self, to: &Script) -> Result<u64, RamaError> {
        Ok(settle::affordable_close(&[self.closing()?], to))
    }

    /// The same for many channels in one transaction.
    ///
    /// # Errors
    /// As [`NodeChannel::affordable_feerate`], for any of them.
    pub fn affordable_for(channels: &[&NodeChannel], to: &Script) -> Result<u64, RamaError> {
        let closing = channels.iter().map(|channel| channel.closing()).collect::<Result<Vec<_>, _>>()?;
        Ok(settle::affordable_close(&closing, to))
    }

    /// Whether the node must be settling at this height: 48 blocks before the refund (M4).
    pub fn must_settle(&self, height: u32) -> bool {
        self.kept.terms.must_settle(height)
    }

    /// The terms.
    pub fn terms(&self) -> &ChannelTerms {
        &self.kept.terms
    }

    /// The channel's coin, once funded.
    pub fn outpoint(&self) -> Option<OutPoint> {
        self.kept.outpoint
    }

    /// The best payment taken, which a close uses.
    pub fn best(&self) -> Option<Update> {
        self.kept.best
    }

    /// The total of the best payment, satoshi; 0 before the first.
    pub fn total_sat(&self) -> u64 {
        self.kept.best.map_or(0, |update| update.total_sat)
    }

    fn closing(&self) -> Result<Closing<'_>, RamaError> {
        let outpoint = self.kept.outpoint.ok_or(RamaError::NotFunded)?;
        let refund_height = self.kept.terms.refund_height;
        let best = self.kept.best.ok_or(RamaError::NothingPaid { refund_height })?;
        Ok(Closing { terms: &self.kept.terms, secret: &self.kept.secret, outpoint, best })
    }
}

impl TryFrom<Kept> for NodeChannel {
    type Error = RamaError;

    fn try_from(kept: Kept) -> Result<NodeChannel, RamaError> {
        kept.terms.check()?;
        crate::terms::check_key(&kept.terms.node_key, &kept.secret)?;
        if let Some(Update { total_sat, .. }) = kept.best
            && total_sat > kept.terms.max_total_sat()
        {
            let (most_sat, capacity_sat) = (kept.terms.max_total_sat(), kept.terms.capacity_sat);
            return Err(RamaError::AboveCapacity { total_sat, most_sat, capacity_sat });
        }
        let digest = kept.outpoint.map(|outpoint| UpdateDigest::new(&kept.terms, outpoint));
        Ok(NodeChannel { kept, digest })
    }
}

impl From<NodeChannel> for Kept {
    fn from(channel: NodeChannel) -> Kept {
        channel.kept
    }
}

impl PartialEq for NodeChannel {
    fn eq(&self, other: &NodeChannel) -> bool {
        self.kept == other.kept
    }
}

impl Eq for NodeChannel {}

impl fmt::Debug for NodeChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeChannel")
            .field("terms", &self.kept.terms)
            .field("secret", &"not shown")
            .field("outpoint", &self.kept.outpoint)
            .field("best", &self.kept.best)
            .finish()
    }
}
