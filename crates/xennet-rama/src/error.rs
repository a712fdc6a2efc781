//! What can be wrong with a channel, a payment or a settlement; each names both numbers and the remedy.

use bitcoin::{OutPoint, Txid};

/// Why a channel refuses something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RamaError {
    /// Both ends have one key.
    #[error("publisher and node have the same channel key; take a fresh key at each end")]
    SameKeys,
    /// Too little to lock.
    #[error("the channel's capacity is {capacity_sat} sat, but closing it on chain needs {least_sat} sat; lock at least {least_sat} sat")]
    CapacityTooSmall {
        /// What was asked for.
        capacity_sat: u64,
        /// Close reserve, the smallest output a node can receive, and what the publisher keeps.
        least_sat: u64,
    },
    /// More than there are coins.
    #[error("the channel's capacity is {capacity_sat} sat, but there are only {most_sat} sat in all; lock less")]
    CapacityTooLarge {
        /// What was asked for.
        capacity_sat: u64,
        /// All bitcoin there can be.
        most_sat: u64,
    },
    /// Not a block height.
    #[error("the refund height is {height}, but a block height lies between 1 and {most}; name a height")]
    RefundHeight {
        /// What was asked for.
        height: u32,
        /// The last number that Bitcoin reads as a height and not as a time.
        most: u32,
    },
    /// The refund would unlock while the node still works.
    #[error(
        "the refund unlocks at height {refund_height}, but a lease that ends at height {lease_end} needs at least {least}; propose {least} or later"
    )]
    RefundTooSoon {
        /// What was proposed.
        refund_height: u32,
        /// Where the lease ends.
        lease_end: u32,
        /// The lowest height that is safe.
        least: u32,
    },
    /// Fee rate out of range.
    #[error("a fee rate of {sat_per_kvb} sat/kvB is over the limit of {most} sat/kvB; use {most} or less")]
    FeerateTooHigh {
        /// What was asked for.
        sat_per_kvb: u64,
        /// The limit.
        most: u64,
    },
    /// The secret key does not belong to the key in the terms.
    #[error("the channel's terms name the key {named}, but the secret key at hand belongs to {at_hand}; use the key of this channel")]
    NotOurKey {
        /// Key in the terms, hex.
        named: String,
        /// Key of the secret, hex.
        at_hand: String,
    },
    /// No coin yet.
    #[error("the channel has no funding yet; call it funded first")]
    NotFunded,
    /// Another coin after payments were made.
    #[error("the channel is funded by {have} and payments were signed on it, so it cannot move to {offered}; open a new channel")]
    AlreadyFunded {
        /// The coin.
        have: OutPoint,
        /// The other.
        offered: OutPoint,
    },
    /// No such output, or not the channel's script.
    #[error("output {vout} of {txid} (it has {outputs}) does not pay to this channel's script; fund the script that both ends agreed on")]
    NotThisChannel {
        /// Transaction.
        txid: Txid,
        /// Output asked for.
        vout: u32,
        /// Number of outputs.
        outputs: usize,
    },
    /// The coin has another amount.
    #[error("the funding holds {funded_sat} sat, but the channel's capacity is {capacity_sat} sat; fund exactly {capacity_sat} sat")]
    WrongAmount {
        /// In the output.
        funded_sat: u64,
        /// In the terms.
        capacity_sat: u64,
    },
    /// A total under the one already signed or taken.
    #[error("a total of {total_sat} sat is below the {known_sat} sat already paid; totals are cumulative, pay {known_sat} sat or more")]
    BelowKnown {
        /// Asked for.
        total_sat: u64,
        /// Paid already.
        known_sat: u64,
    },
    /// A total the channel cannot hold.
    #[error(
        "a total of {total_sat} sat is above the {most_sat} sat this channel can pay (capacity {capacity_sat} sat less the {keeps} sat its publisher keeps); close it and open a larger one",
        keeps = crate::PUBLISHER_KEEPS_SAT
    )]
    AboveCapacity {
        /// Asked for.
        total_sat: u64,
        /// The limit.
        most_sat: u64,
        /// The capacity.
        capacity_sat: u64,
    },
    /// A total above the budget.
    #[error("a total of {total_sat} sat is above the budget of {budget_sat} sat; raise the budget or end the lease")]
    AboveBudget {
        /// Asked for.
        total_sat: u64,
        /// The budget.
        budget_sat: u64,
    },
    /// The node's fee for closing is not in it.
    #[error(
        "a total of {total_sat} sat lacks the close reserve of {reserve_sat} sat; the first payment carries it, pay {reserve_sat} sat or more"
    )]
    ReserveMissing {
        /// The total.
        total_sat: u64,
        /// The reserve.
        reserve_sat: u64,
    },
    /// The signature does not check.
    #[error("the signature over a total of {total_sat} sat is not the publisher's for this channel; sign it with the channel's key")]
    BadSignature {
        /// The total.
        total_sat: u64,
    },
    /// Too close to the refund.
    #[error(
        "at height {height} no payment is taken any more, the last height is {last} for a refund at {refund_height}; settle now and open a new channel"
    )]
    TooLate {
        /// Now.
        height: u32,
        /// Last height at which a payment is taken.
        last: u32,
        /// Refund height.
        refund_height: u32,
    },
    /// Nothing to close with.
    #[error(
        "no payment was taken on this channel yet, so there is nothing to settle; its publisher gets everything back at height {refund_height}"
    )]
    NothingPaid {
        /// Refund height.
        refund_height: u32,
    },
    /// What is left is too small to exist on chain.
    #[error(
        "of {available_sat} sat, {left_sat} sat would be left after a fee of {fee_sat} sat, but an output of this kind needs {dust_sat} sat; use a fee rate of {affordable_sat_per_kvb} sat/kvB or less, or settle it together with other channels"
    )]
    Dust {
        /// Before the fee.
        available_sat: u64,
        /// The fee.
        fee_sat: u64,
        /// After the fee, 0 if the fee is the larger.
        left_sat: u64,
        /// Smallest output that is relayed.
        dust_sat: u64,
        /// The highest rate that would still work; 0: none does.
        affordable_sat_per_kvb: u64,
    },
    /// Too many for one transaction.
    #[error("{channels} channels make a transaction of {vbytes} vB, but {most} vB is the limit; settle fewer at once")]
    TooLarge {
        /// Number of channels.
        channels: usize,
        /// Size.
        vbytes: u64,
        /// The limit of version 3.
        most: u64,
    },
    /// A channel twice in one settlement.
    #[error("channel {outpoint} is in this settlement twice; name it once")]
    Twice {
        /// The coin.
        outpoint: OutPoint,
    },
    /// An empty settlement.
    #[error("0 channels to settle; name at least 1")]
    NoChannels,
    /// A transaction that does not spend the channel.
    #[error("transaction {txid} does not close the channel {outpoint}; name the transaction that does")]
    NotAClose {
        /// Transaction.
        txid: Txid,
        /// The channel's coin.
        outpoint: OutPoint,
    },
    /// Bitcoin's library could not compute a signature hash.
    #[error("a signature hash could not be computed: {0}")]
    Sighash(String),
}
