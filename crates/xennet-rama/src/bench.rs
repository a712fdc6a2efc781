//! What `xennet bench` loops over: payments at both ends, and the bare signature library beside them. No clock in here.

use std::hint::black_box;

use bitcoin::{Transaction, absolute::LockTime, transaction::Version};
use secp256k1::{Message, SECP256K1, SecretKey, ecdsa};

use crate::{ChannelTerms, NodeChannel, PublisherChannel, RamaError, Update};

/// A funded channel with both its ends, for measuring only: its keys are known to everybody.
#[derive(Debug, Clone)]
pub struct Ends {
    publisher: PublisherChannel,
    node: NodeChannel,
    secret: SecretKey,
}

impl Ends {
    /// A channel of 1 BTC.
    ///
    /// # Errors
    /// None that occurs: the terms are fixed and hold.
    pub fn new() -> Result<Ends, RamaError> {
        let key = |byte: u8| SecretKey::from_slice(&[byte; 32]).map_err(|why| RamaError::Sighash(why.to_string()));
        let (secret, node_secret) = (key(1)?, key(2)?);
        let terms = ChannelTerms {
            publisher_key: secret.public_key(SECP256K1),
            node_key: node_secret.public_key(SECP256K1),
            capacity_sat: 100_000_000,
            refund_height: 1_000,
            close_feerate_sat_per_kvb: 1_000,
        };
        let funding =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: vec![terms.funding_output()] };
        let mut publisher = PublisherChannel::new(terms.clone(), secret)?;
        let mut node = NodeChannel::new(terms, node_secret)?;
        publisher.funded(node.funded(&funding, 0)?)?;
        Ok(Ends { publisher, node, secret })
    }

    /// Signs `count` payments of one satoshi more each, as the publisher does.
    ///
    /// # Errors
    /// More payments than the channel has satoshi.
    pub fn pay(&mut self, count: u64) -> Result<Vec<Update>, RamaError> {
        let first = self.publisher.signed_total_sat().max(self.publisher.terms().close_reserve_sat()) + 1;
        (first..first.saturating_add(count)).map(|total_sat| self.publisher.pay(total_sat)).collect()
    }

    /// Checks payments, as the node does.
    ///
    /// # Errors
    /// A payment that does not check.
    pub fn accept(&mut self, updates: &[Update]) -> Result<(), RamaError> {
        updates.iter().try_for_each(|update| self.node.accept(update, 1))
    }

    /// `count` bare signatures with the same key, of messages numbered from `first` on.
    pub fn bare_sign(&self, first: u64, count: u64) -> Vec<[u8; 64]> {
        let numbers = first..first.saturating_add(count);
        numbers.map(|number| SECP256K1.sign_ecdsa(&numbered(number), &self.secret).serialize_compact()).collect()
    }

    /// Checks the signatures of [`Ends::bare_sign`], bare; returns how many are right.
    ///
    /// Give it new ones each time: a processor learns by heart the branches of a signature that it has checked before, and is
    /// then a tenth quicker than any node can be.
    pub fn bare_verify(&self, first: u64, signatures: &[[u8; 64]]) -> usize {
        let key = self.publisher.terms().publisher_key;
        (first..)
            .zip(signatures)
            .filter(|(number, bytes)| {
                ecdsa::Signature::from_compact(black_box(*bytes))
                    .is_ok_and(|signature| SECP256K1.verify_ecdsa(&numbered(*number), &signature, &key).is_ok())
            })
            .count()
    }
}

/// A message that costs nothing to make.
fn numbered(number: u64) -> Message {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    Message::from_digest(digest)
}
