//! What moves the wallet's money, its coins, and what sweeping brings.

use bitcoin::Txid;
use serde::{Deserialize, Serialize};
use xennet_task::LeaseId;

use crate::wallet::{HistoryEntry, Kind, Status};

/// A transaction that moved the wallet's money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// The transaction.
    pub txid: Txid,
    /// How far it has come.
    pub status: Status,
    /// Unix seconds of the block that holds it.
    pub block_time: Option<u64>,
    /// What it was for.
    pub kind: MoneyKind,
    /// The leases that it belongs to: more than one where channels were opened together.
    pub leases: Vec<LeaseId>,
    /// Came in, satoshi; change included.
    pub received_sat: u64,
    /// Went out, satoshi; change included.
    pub sent_sat: u64,
    /// The fee, satoshi, if the wallet knows all that the transaction spends.
    pub fee_sat: Option<u64>,
    /// What the wallet holds after it, satoshi.
    pub balance_sat: u64,
}

/// What a transaction was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoneyKind {
    /// Money of others that came in.
    Received,
    /// Own money that went to others.
    Payment,
    /// Own money to oneself, such as a child that pays for its parent.
    Internal,
    /// An announcement.
    Announcement,
    /// Opens channels.
    Funding,
    /// Closes a channel: each side gets what is its own.
    Settlement,
    /// Takes back a channel that its node never closed.
    Refund,
    /// Takes markers of old announcements.
    Sweep,
}

impl MoneyKind {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            MoneyKind::Received => "received",
            MoneyKind::Payment => "payment",
            MoneyKind::Internal => "to oneself",
            MoneyKind::Announcement => "announcement",
            MoneyKind::Funding => "funding",
            MoneyKind::Settlement => "settlement",
            MoneyKind::Refund => "refund",
            MoneyKind::Sweep => "sweep",
        }
    }
}

impl From<Kind> for MoneyKind {
    fn from(kind: Kind) -> MoneyKind {
        match kind {
            Kind::Receive => MoneyKind::Received,
            Kind::Send => MoneyKind::Payment,
            Kind::Internal => MoneyKind::Internal,
            Kind::Announcement => MoneyKind::Announcement,
            Kind::Sweep => MoneyKind::Sweep,
        }
    }
}

impl HistoryView {
    /// What the wallet knows, with what is known of leases beside it.
    pub fn new(entry: HistoryEntry, kind: Option<MoneyKind>, leases: Vec<LeaseId>) -> HistoryView {
        let HistoryEntry { txid, status, block_time, kind: alone, received_sat, sent_sat, fee_sat, balance_sat } = entry;
        let kind = kind.unwrap_or_else(|| alone.into());
        HistoryView { txid, status, block_time, kind, leases, received_sat, sent_sat, fee_sat, balance_sat }
    }
}

/// A coin of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoinView {
    /// Names it: `TXID:VOUT`.
    pub coin: String,
    /// What it holds, satoshi.
    pub sat: u64,
    /// Blocks on it, its own included; 0: it waits.
    pub confirmations: u32,
    /// What the transaction was for that made it.
    pub kind: MoneyKind,
    /// The address it was paid to.
    pub address: Option<String>,
    /// Whether it can be spent.
    pub state: CoinStateView,
    /// The transaction that it is reserved for, once that is finished.
    pub reserved_by: Option<String>,
    /// The leases that transaction belongs to.
    pub reserved_for: Vec<LeaseId>,
}

/// Whether a coin can be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoinStateView {
    /// It can.
    Free,
    /// It is spoken for.
    Reserved,
    /// It came from others and is in no block yet.
    Untrusted,
}

/// What taking old markers back brings, or would bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepView {
    /// The Bitcoin network.
    pub network: String,
    /// Blocks that were looked through.
    pub blocks: u32,
    /// Old markers that nobody has taken, and how many of them the wallet's own announcements left.
    pub markers: u64,
    /// See `markers`.
    pub own_markers: u64,
    /// How many are taken at once.
    pub taken: u64,
    /// What those hold, satoshi.
    pub worth_sat: u64,
    /// What the miner gets, satoshi.
    pub fee_sat: u64,
    /// What comes to the wallet, satoshi; 0 if it is not worth it.
    pub gain_sat: u64,
    /// The transaction's size, virtual bytes.
    pub vbytes: u64,
    /// The feerate of now, satoshi per 1,000 virtual bytes.
    pub feerate_sat_per_kvb: u64,
    /// From here on down it is worth it, satoshi per 1,000 virtual bytes; 0: never.
    pub worth_at_sat_per_kvb: u64,
    /// The transaction; none if it is not worth it.
    pub txid: Option<String>,
    /// Whether it is on its way; if not, nothing was sent.
    pub sent: bool,
}
