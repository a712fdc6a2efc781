//! Why a transaction does not get into the mempool.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

/// The rule a transaction breaks. The rules are those of Bitcoin Core 31's default policy, so that what passes here
/// passes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are explained by the messages that they appear in")]
pub enum Refusal {
    /// It fails the checks that need no chain: no inputs, an input twice, amounts out of range, a coinbase.
    #[error("it breaks a rule that holds for every transaction: {why}")]
    Malformed { why: String },
    /// Nodes relay versions 1 to 3.
    #[error("its version is {version}, and only versions 1 to 3 are relayed")]
    Version { version: i32 },
    /// A transaction may take a tenth of a block.
    #[error("it weighs {weight} units, and at most {at_most} are relayed: split it")]
    TooHeavy { weight: u64, at_most: u64 },
    /// Transactions of 64 bytes could pass for a node of a Merkle tree.
    #[error("it has {bytes} bytes without witness, and at least {at_least} are relayed: add an output")]
    TooSmall { bytes: usize, at_least: usize },
    /// Too many signature operations.
    #[error("its signature operations cost {cost}, and at most {at_most} is relayed")]
    Sigops { cost: usize, at_most: usize },
    /// An output's script that nodes do not relay.
    #[error("the script of output {index} is of no standard form")]
    StrangeOutput { index: usize },
    /// An input's script or witness that nodes do not relay.
    #[error("input {index} is of no standard form: {why}")]
    StrangeInput { index: usize, why: String },
    /// Data outputs too long in all.
    #[error("its OP_RETURN outputs have {bytes} bytes, and at most {at_most} are relayed")]
    DataTooLong { bytes: usize, at_most: usize },
    /// An output not worth the fee of spending it.
    #[error("output {index} is {sat} sat, which is dust: {at_least_sat} sat is the least for its script")]
    Dust { index: usize, sat: u64, at_least_sat: u64 },
    /// Its lock time is a height still to come.
    #[error("its lock time is height {lock_height}, so that block {} is the first it fits; the next block is {next_height}", lock_height.saturating_add(1))]
    NotFinalHeight { lock_height: u32, next_height: u32 },
    /// Its lock time is a moment still to come.
    #[error("its lock time is {lock_unix} (Unix seconds), and the chain's median time is {median_unix}")]
    NotFinalTime { lock_unix: u32, median_unix: u32 },
    /// A relative lock of an input, in blocks.
    #[error("input {index} is locked until block {first_height}; the next block is {next_height}")]
    SequenceHeight { index: usize, first_height: u32, next_height: u32 },
    /// A relative lock of an input, in time.
    #[error("input {index} is locked until {first_unix} (Unix seconds), and the chain's median time is {median_unix}")]
    SequenceTime { index: usize, first_unix: u64, median_unix: u32 },
    /// An input that neither the chain nor the mempool knows.
    #[error("it spends {outpoint}, which is unknown: broadcast the transaction that makes it first")]
    UnknownInput { outpoint: OutPoint },
    /// An input that the source does not have: it does not say why.
    #[error("it spends {outpoint}, which is unknown or spent: broadcast the transaction that makes it first, or look who spent it")]
    MissingOrSpent { outpoint: OutPoint },
    /// An input that the chain has already seen spent.
    #[error("it spends {outpoint}, which the confirmed transaction {by} has already spent")]
    SpentInput { outpoint: OutPoint, by: Txid },
    /// A coinbase's output, too young.
    #[error("it spends {outpoint} of a coinbase, which is ripe from block {ripe_height} on; the next block is {next_height}")]
    Immature { outpoint: OutPoint, ripe_height: u32, next_height: u32 },
    /// More out than in.
    #[error("it pays {out_sat} sat out of inputs worth {in_sat} sat")]
    Overspent { in_sat: u64, out_sat: u64 },
    /// Under the relay fee.
    #[error("it pays a fee of {fee_sat} sat for {vbytes} vB, and at least {at_least_sat} sat is relayed")]
    FeeTooLow { fee_sat: u64, vbytes: u64, at_least_sat: u64 },
    /// It conflicts with the mempool and does not pay for the replacement.
    #[error("it conflicts with {conflict} in the mempool; to replace that it must pay {at_least_sat} sat, and pays {fee_sat} sat")]
    ReplacementFee { conflict: Txid, fee_sat: u64, at_least_sat: u64 },
    /// It conflicts with the mempool and pays a lower rate.
    #[error(
        "it conflicts with {conflict} in the mempool; to replace that it must pay more than {other_sat_per_kvb} sat/kvB, \
         and pays {sat_per_kvb} sat/kvB"
    )]
    ReplacementFeerate { conflict: Txid, sat_per_kvb: u64, other_sat_per_kvb: u64 },
    /// It would throw too much out of the mempool.
    #[error("it would replace {count} transactions, and at most {at_most} may be replaced at once")]
    ReplacementTooWide { count: usize, at_most: usize },
    /// It spends what it would replace.
    #[error("it spends an output of {conflict}, which it would replace")]
    ReplacesItsParent { conflict: Txid },
    /// Too long a line of unconfirmed transactions.
    #[error("it would stand in a family of {count} unconfirmed transactions, and at most {at_most} are relayed: wait for a block")]
    FamilyTooLarge { count: usize, at_most: usize },
    /// BIP431: unconfirmed parents and children are all of version 3 or none is.
    #[error("its version is {version}, and its unconfirmed parent {parent} is of version {parent_version}: wait until that is confirmed")]
    VersionsMixed { version: i32, parent: Txid, parent_version: i32 },
    /// BIP431: sizes.
    #[error("as a transaction of version 3 it may have {at_most} vB here, and has {vbytes}")]
    VersionThreeSize { vbytes: u64, at_most: u64 },
    /// BIP431: one unconfirmed parent, one unconfirmed child.
    #[error("as a transaction of version 3 it may have one unconfirmed parent, and that one child: wait for a block")]
    VersionThreeFamily,
    /// The mempool is full of better paying ones.
    #[error("the mempool is full, and it pays {sat_per_kvb} sat/kvB: pay more than {least_sat_per_kvb} sat/kvB")]
    Full { sat_per_kvb: u64, least_sat_per_kvb: u64 },
    /// Bitcoin Core's interpreter says no.
    #[error("input {index} does not satisfy the script of {outpoint}, which it spends")]
    Script { index: usize, outpoint: OutPoint },
    /// A rule of the source that has no name here.
    #[error("the source refuses it with the words `{reason}`")]
    Other { reason: String },
}

impl Refusal {
    /// Whether the same transaction can be accepted later: after a block, or after its parent arrived.
    pub fn may_pass_later(&self) -> bool {
        matches!(
            self,
            Refusal::NotFinalHeight { .. }
                | Refusal::NotFinalTime { .. }
                | Refusal::SequenceHeight { .. }
                | Refusal::SequenceTime { .. }
                | Refusal::UnknownInput { .. }
                | Refusal::MissingOrSpent { .. }
                | Refusal::Immature { .. }
                | Refusal::FamilyTooLarge { .. }
                | Refusal::VersionsMixed { .. }
                | Refusal::VersionThreeFamily
                | Refusal::Full { .. }
        )
    }
}
