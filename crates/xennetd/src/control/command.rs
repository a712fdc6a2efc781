//! What can be asked of a daemon, and what it answers.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xennet_identity::Role;
use xennet_task::{AnnouncementHash, LeaseId};

use crate::backup::BackupView;

use super::money::{CoinView, HistoryView, SweepView};
use super::transaction::TransactionView;
use super::view::{AddressView, BalanceView, IdentityView, LeaseView, LedgerPage, PaymentView, QuoteView, StatusView, TaskView};

/// What can be asked of a daemon.
///
/// As JSON: `{"command": "ledger", "lease": "77c0…", "from": 0, "limit": 100}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// How the daemon is. Answers [`Reply::Status`].
    Status {},
    /// Mine the identity of a role, or go on with mining it. Answers [`Reply::Identity`] at once: with the mined identity
    /// if there is one, else with one that is being mined; [`What::Mining`](super::What::Mining) tells how it goes.
    IdentityMine {
        /// Which identity.
        role: Role,
    },
    /// The identities of this data directory, mined or not. Answers [`Reply::Identities`].
    IdentityShow {},
    /// What the wallet holds. Answers [`Reply::Balance`].
    WalletBalance {},
    /// An address to pay to. Answers [`Reply::Address`].
    WalletAddress {},
    /// What moved the wallet's money, the oldest first. Answers [`Reply::History`].
    WalletHistory {},
    /// Pay somebody. Answers [`Reply::Payment`] once the chain has taken it.
    WalletSend {
        /// Where to.
        address: String,
        /// How much, satoshi; none: all that can be spent, less the fee.
        amount_sat: Option<u64>,
        /// The feerate, satoshi per 1,000 virtual bytes; none: what the chain estimates.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feerate_sat_per_kvb: Option<u64>,
        /// The most for the miner, satoshi; above that nothing is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_fee_sat: Option<u64>,
        /// Only say what it would cost.
        #[serde(default)]
        dry_run: bool,
        /// The coins to spend, each `TXID:VOUT`, and no others; empty: whatever can be spent.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        coins: Vec<String>,
    },
    /// Write a backup of the data directory. Answers [`Reply::Backup`] once it is on the disk.
    WalletBackup {
        /// Where to, absolute.
        file: std::path::PathBuf,
        /// Whether a file that is there is replaced.
        #[serde(default)]
        overwrite: bool,
    },
    /// The wallet's coins, the oldest first. Answers [`Reply::Coins`].
    WalletCoins {},
    /// Take the markers of old announcements, own ones and those of others, if that is worth its fee. Answers [`Reply::Sweep`]; what is
    /// not worth it is not sent.
    WalletSweep {
        /// The feerate, satoshi per 1,000 virtual bytes; none: what the chain estimates.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feerate_sat_per_kvb: Option<u64>,
        /// The most for the miner, satoshi; above that nothing is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_fee_sat: Option<u64>,
        /// How many of the last blocks to look through; none: a week of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocks: Option<u32>,
        /// Only say what it would bring.
        #[serde(default)]
        dry_run: bool,
    },
    /// Raise the fee of a transaction that waits: another one takes its place, or, where that cannot be or somebody waits for it by its id,
    /// a child pays for both. Answers [`Reply::Payment`].
    WalletBump {
        /// Its id, 64 hexadecimal digits.
        txid: String,
        /// The feerate, satoshi per 1,000 virtual bytes; none: the chain's estimate, and half as much again as it paid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feerate_sat_per_kvb: Option<u64>,
        /// The most for the miner, satoshi; above that nothing is sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_fee_sat: Option<u64>,
        /// Only say what it would cost.
        #[serde(default)]
        dry_run: bool,
    },
    /// Announce a task. Answers [`Reply::Task`] once its transaction is out.
    Publish {
        /// The text of a task.toml. The daemon parses it, so that every client gives the same errors.
        task_toml: String,
        /// The most to pay to the miner, satoshi; above that nothing is announced. None: what the fees of the moment ask for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_fee_sat: Option<u64>,
    },
    /// What announcing a task would cost now. Answers [`Reply::Quote`]; nothing is sent.
    Quote {
        /// The text of a task.toml.
        task_toml: String,
    },
    /// Take a task back: no new leases; leases that run go on. Answers [`Reply::Task`].
    Cancel {
        /// The task.
        task: AnnouncementHash,
    },
    /// All tasks known: own ones and those of others. Answers [`Reply::Tasks`].
    Tasks {},
    /// All leases, newest first. Answers [`Reply::Leases`].
    Leases {},
    /// One lease. Answers [`Reply::Lease`].
    Lease {
        /// Which one.
        lease: LeaseId,
    },
    /// A lease's ledger, a page at a time. Answers [`Reply::Ledger`].
    Ledger {
        /// Which lease.
        lease: LeaseId,
        /// Index of the first entry wanted, from 0.
        from: u64,
        /// The most entries wanted; the daemon gives at most [`Command::MAX_LEDGER_PAGE`].
        limit: u32,
    },
    /// Take one lease of an own task for oneself, so that two jobs never share a machine. Answers [`Reply::Lease`] as
    /// soon as a node has accepted; until then the request waits. Hanging up withdraws it.
    Rent {
        /// The task.
        task: AnnouncementHash,
    },
    /// Ask the node of a lease for more time, to be paid on a further channel; the guest runs on. Answers [`Reply::Lease`] at once:
    /// `renewal` tells how it goes, `not_renewed` why it does not.
    Renew {
        /// Which one.
        lease: LeaseId,
        /// How much more, seconds.
        adds_s: u64,
        /// The most that may be locked for it, satoshi; none: what is left of the task's budget.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget_sat: Option<u64>,
        /// Whether to go on renewing by as much, as far as the budget goes.
        #[serde(default)]
        go_on: bool,
    },
    /// Close a lease: the last payment, then settlement on chain. Answers [`Reply::Lease`] at once.
    CloseLease {
        /// Which one.
        lease: LeaseId,
    },
    /// Take a transaction of the chain apart. Answers [`Reply::Transaction`].
    Transaction {
        /// Its id, 64 hexadecimal digits.
        txid: String,
    },
    /// Stop the daemon. Leases stay as they are on disk and go on when it starts again. Answers [`Reply::Done`].
    Stop {},
}

impl Command {
    /// The most ledger entries in one answer.
    pub const MAX_LEDGER_PAGE: u32 = 1000;
}

/// What a daemon answers.
///
/// As JSON: `{"reply": "tasks", "value": […]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// It is done; nothing more to say.
    Done,
    /// How the daemon is.
    Status(Box<StatusView>),
    /// One identity.
    Identity(IdentityView),
    /// All identities of the data directory.
    Identities(Vec<IdentityView>),
    /// What the wallet holds.
    Balance(BalanceView),
    /// Where to pay to.
    Address(AddressView),
    /// What moved the wallet's money.
    History(Vec<HistoryView>),
    /// The wallet's coins.
    Coins(Vec<CoinView>),
    /// A backup that was written.
    Backup(BackupView),
    /// What taking markers brings.
    Sweep(SweepView),
    /// A payment, made or only worked out.
    Payment(Box<PaymentView>),
    /// What an announcement would cost.
    Quote(QuoteView),
    /// One task.
    Task(Box<TaskView>),
    /// Tasks.
    Tasks(Vec<TaskView>),
    /// One lease.
    Lease(Box<LeaseView>),
    /// Leases.
    Leases(Vec<LeaseView>),
    /// A page of a ledger.
    Ledger(LedgerPage),
    /// A transaction of the chain.
    Transaction(Box<TransactionView>),
}

/// Why a command was not carried out, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort of failure, for programs.
    pub kind: FailureKind,
    /// What is wrong, naming the field, the values and, for a file, the line. No trailing full stop.
    pub message: String,
    /// The next step, a sentence; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Sorts of failure, each with its HTTP status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command or its task file is wrong: 400.
    BadInput,
    /// The wallet holds too little: 402.
    NotEnoughMoney,
    /// No such task, lease or pipe: 404.
    NotFound,
    /// It cannot be done in the present state, e.g. closing a settled lease: 409.
    Conflict,
    /// It can be done later: the chain or the tunnel is away: 503.
    Unavailable,
    /// The daemon's own fault, e.g. a full disk: 500.
    Internal,
}

impl Failure {
    /// A failure with its remedy.
    pub fn new(kind: FailureKind, message: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), remedy: remedy.into() }
    }

    /// No such thing. `what` is e.g. `lease 77c0…`.
    pub fn not_found(what: impl std::fmt::Display, remedy: impl Into<String>) -> Failure {
        Failure::new(FailureKind::NotFound, format!("there is no {what}"), remedy)
    }
}

impl FailureKind {
    /// The HTTP status code it travels with.
    pub fn status_code(self) -> u16 {
        match self {
            FailureKind::BadInput => 400,
            FailureKind::NotEnoughMoney => 402,
            FailureKind::NotFound => 404,
            FailureKind::Conflict => 409,
            FailureKind::Internal => 500,
            FailureKind::Unavailable => 503,
        }
    }
}
