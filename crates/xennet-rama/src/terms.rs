//! What both ends agree on before a coin moves.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CLTV, OP_ENDIF, OP_IFDUP, OP_NOTIF};
use bitcoin::script::Builder;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf, Transaction, TxOut};
use secp256k1::{PublicKey, SECP256K1, SecretKey};
use serde::{Deserialize, Serialize};

use crate::{RamaError, descriptor};

/// What the publisher always keeps, satoshi: its change must be an output that is relayed (dust limit of P2WPKH).
pub const PUBLISHER_KEEPS_SAT: u64 = 294;
/// Size of the transaction that closes one channel to a P2WPKH address, vB.
pub const CLOSE_VBYTES: u64 = 170;
/// From the end of the lease to the refund, blocks.
pub const REFUND_AFTER_LEASE: u32 = 144;
/// The node takes no payment when fewer than this many blocks are left to the refund.
pub const LAST_UPDATE_BEFORE_REFUND: u32 = 72;
/// The node settles when this many blocks, or fewer, are left to the refund.
pub const SETTLE_BEFORE_REFUND: u32 = 48;
/// The largest transaction of version 3 that is relayed (BIP 431), vB.
pub const MAX_CLOSE_VBYTES: u64 = 10_000;
/// The highest fee rate anybody may ask of this crate: 10,000 sat/vB, several times the highest ever seen.
pub const MAX_FEERATE_SAT_PER_KVB: u64 = 10_000_000;

/// The highest number that Bitcoin reads as a height in a lock time.
const MAX_HEIGHT: u32 = 499_999_999;

/// What both ends agree on before a coin moves. All of it follows from the proposal and the node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelTerms {
    /// A: signs payments; change and refund are its. If this is a key of the publisher's wallet, the wallet sees the change
    /// by itself, because it goes to the key's P2WPKH address.
    pub publisher_key: PublicKey,
    /// B: closes.
    pub node_key: PublicKey,
    /// What is locked, satoshi.
    pub capacity_sat: u64,
    /// H: from this height on the publisher alone can take everything back.
    pub refund_height: u32,
    /// The fee rate that the close reserve is made for, sat per 1000 vB.
    pub close_feerate_sat_per_kvb: u64,
}

impl ChannelTerms {
    /// Refuses terms that could not be put on chain (M3: dust is named before the lease).
    ///
    /// # Errors
    /// The first limit that does not hold.
    pub fn check(&self) -> Result<(), RamaError> {
        if self.publisher_key == self.node_key {
            return Err(RamaError::SameKeys);
        }
        if self.refund_height == 0 || self.refund_height > MAX_HEIGHT {
            return Err(RamaError::RefundHeight { height: self.refund_height, most: MAX_HEIGHT });
        }
        if self.close_feerate_sat_per_kvb > MAX_FEERATE_SAT_PER_KVB {
            return Err(RamaError::FeerateTooHigh { sat_per_kvb: self.close_feerate_sat_per_kvb, most: MAX_FEERATE_SAT_PER_KVB });
        }
        let most_sat = Amount::MAX_MONEY.to_sat();
        if self.capacity_sat > most_sat {
            return Err(RamaError::CapacityTooLarge { capacity_sat: self.capacity_sat, most_sat });
        }
        let least_sat = self.least_capacity_sat();
        if self.capacity_sat < least_sat {
            return Err(RamaError::CapacityTooSmall { capacity_sat: self.capacity_sat, least_sat });
        }
        Ok(())
    }

    /// Refuses a refund that unlocks before the node had its margin: H is at least the lease's end + 144 blocks.
    ///
    /// # Errors
    /// [`RamaError::RefundTooSoon`].
    pub fn check_refund(&self, lease_end_height: u32) -> Result<(), RamaError> {
        let least = refund_height_for(lease_end_height);
        if self.refund_height < least {
            return Err(RamaError::RefundTooSoon { refund_height: self.refund_height, lease_end: lease_end_height, least });
        }
        Ok(())
    }

    /// `<A> CHECKSIGVERIFY <B> CHECKSIG IFDUP NOTIF <H> CHECKLOCKTIMEVERIFY ENDIF`: what the descriptor compiles to.
    pub fn witness_script(&self) -> ScriptBuf {
        Builder::new()
            .push_key(&bitcoin::PublicKey::new(self.publisher_key))
            .push_opcode(OP_CHECKSIGVERIFY)
            .push_key(&bitcoin::PublicKey::new(self.node_key))
            .push_opcode(OP_CHECKSIG)
            .push_opcode(OP_IFDUP)
            .push_opcode(OP_NOTIF)
            .push_lock_time(LockTime::from_consensus(self.refund_height))
            .push_opcode(OP_CLTV)
            .push_opcode(OP_ENDIF)
            .into_script()
    }

    /// Where the funding pays to (P2WSH).
    pub fn script_pubkey(&self) -> ScriptBuf {
        self.witness_script().to_p2wsh()
    }

    /// The output that funds the channel.
    pub fn funding_output(&self) -> TxOut {
        TxOut { value: Amount::from_sat(self.capacity_sat), script_pubkey: self.script_pubkey() }
    }

    /// Where the publisher's change goes: the P2WPKH address of its channel key.
    pub fn publisher_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&CompressedPublicKey(self.publisher_key).wpubkey_hash())
    }

    /// The output descriptor with its checksum, from which any descriptor wallet recovers the refund.
    pub fn descriptor(&self) -> String {
        descriptor::with_checksum(&format!(
            "wsh(and_v(v:pk({}),or_d(pk({}),after({}))))",
            self.publisher_key, self.node_key, self.refund_height
        ))
    }

    /// What the publisher adds, once, for the node's fee: fee rate × 170 vB × 1.5, rounded up, satoshi. The half on top lets the
    /// node raise the fee when blocks fill up. What the fee does not take stays with the node.
    pub fn close_reserve_sat(&self) -> u64 {
        let thousandths = u128::from(self.close_feerate_sat_per_kvb) * u128::from(CLOSE_VBYTES * 3 / 2);
        u64::try_from(thousandths.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// The highest total: the publisher keeps [`PUBLISHER_KEEPS_SAT`].
    pub fn max_total_sat(&self) -> u64 {
        self.capacity_sat.saturating_sub(PUBLISHER_KEEPS_SAT)
    }

    /// The most that can be earned on this channel, close reserve taken off, satoshi.
    pub fn max_earned_sat(&self) -> u64 {
        self.max_total_sat().saturating_sub(self.close_reserve_sat())
    }

    /// Below this total nothing can be claimed on chain at the agreed fee rate: fee + the smallest P2WPKH output. To be named to
    /// the user before the lease.
    pub fn claimable_from_sat(&self) -> u64 {
        let fee = u128::from(self.close_feerate_sat_per_kvb) * u128::from(CLOSE_VBYTES);
        u64::try_from(fee.div_ceil(1000)).unwrap_or(u64::MAX).saturating_add(PUBLISHER_KEEPS_SAT)
    }

    /// The smallest capacity with which such a channel makes sense, satoshi.
    pub fn least_capacity_sat(&self) -> u64 {
        self.close_reserve_sat().max(self.claimable_from_sat()).saturating_add(PUBLISHER_KEEPS_SAT)
    }

    /// The total to pay so that the node has earned `earned_sat`: adds the close reserve.
    pub fn total_for(&self, earned_sat: u64) -> u64 {
        earned_sat.saturating_add(self.close_reserve_sat())
    }

    /// What of a total was earned: takes the close reserve off.
    pub fn earned_of(&self, total_sat: u64) -> u64 {
        total_sat.saturating_sub(self.close_reserve_sat())
    }

    /// Whether the node still takes payments at this height.
    pub fn takes_updates(&self, height: u32) -> bool {
        height <= self.last_update_height()
    }

    /// The last height at which a payment is taken.
    pub fn last_update_height(&self) -> u32 {
        self.refund_height.saturating_sub(LAST_UPDATE_BEFORE_REFUND)
    }

    /// Whether the node must be settling at this height (M4).
    pub fn must_settle(&self, height: u32) -> bool {
        height >= self.refund_height.saturating_sub(SETTLE_BEFORE_REFUND)
    }

    /// Finds the channel's coin in a funding transaction.
    pub fn outpoint_in(&self, funding: &Transaction) -> Option<OutPoint> {
        let wanted = self.funding_output();
        let at = funding.output.iter().position(|output| *output == wanted)?;
        Some(OutPoint { txid: funding.compute_txid(), vout: u32::try_from(at).ok()? })
    }

    /// Checks that output `vout` of `funding` is this channel's coin, and returns it.
    ///
    /// # Errors
    /// What differs: script or amount.
    pub fn check_funding(&self, funding: &Transaction, vout: u32) -> Result<OutPoint, RamaError> {
        let txid = funding.compute_txid();
        let output = usize::try_from(vout).ok().and_then(|at| funding.output.get(at));
        match output {
            Some(output) if output.script_pubkey == self.script_pubkey() => {
                let funded_sat = output.value.to_sat();
                if funded_sat != self.capacity_sat {
                    let capacity_sat = self.capacity_sat;
                    return Err(RamaError::WrongAmount { funded_sat, capacity_sat });
                }
                Ok(OutPoint { txid, vout })
            }
            _ => Err(RamaError::NotThisChannel { txid, vout, outputs: funding.output.len() }),
        }
    }
}

/// The refund height of a lease that ends at `lease_end_height`: 144 blocks later.
pub fn refund_height_for(lease_end_height: u32) -> u32 {
    lease_end_height.saturating_add(REFUND_AFTER_LEASE)
}

/// Refuses a secret key that is not the one of `named`.
pub(crate) fn check_key(named: &PublicKey, secret: &SecretKey) -> Result<(), RamaError> {
    let at_hand = secret.public_key(SECP256K1);
    if at_hand != *named {
        return Err(RamaError::NotOurKey { named: named.to_string(), at_hand: at_hand.to_string() });
    }
    Ok(())
}
