//! What can go wrong with a wallet.

use std::path::{Path, PathBuf};

use bdk_wallet::rusqlite;

use super::{PassphraseError, WordsError};
use crate::ChainError;

/// Why a wallet could not be opened, synchronised or spent from.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// Not enough money.
    #[error(
        "{missing_sat} sat are missing: {needed_sat} sat are needed with the fee and {available_sat} sat can be spent \
         ({reserved_sat} sat more are reserved for transactions not yet sent, {unconfirmed_sat} sat more wait for a block)"
    )]
    Short {
        /// Outputs and fee.
        needed_sat: u64,
        /// What can be spent.
        available_sat: u64,
        /// What one more confirmed coin must be worth for it to do: the difference, and the fee of spending that coin.
        missing_sat: u64,
        /// What transactions spend that are built and not yet sent.
        reserved_sat: u64,
        /// Unconfirmed coins that are not spent before a block holds them, since others could still take them back.
        unconfirmed_sat: u64,
    },
    /// An output not worth the fee of spending it.
    #[error("{sat} sat are dust: at least {at_least_sat} sat must go to {kind}", kind = dust_kind(*at_least_sat))]
    Dust {
        /// What was asked.
        sat: u64,
        /// The least.
        at_least_sat: u64,
    },
    /// A coin that was chosen and cannot be spent.
    #[error("the coin {coin} cannot be spent: {why}")]
    Coin {
        /// Which one.
        coin: bitcoin::OutPoint,
        /// Why not.
        why: String,
    },
    /// A number beyond what any transaction can have.
    #[error("{field} is {value}, and at most {at_most} is sensible")]
    OutOfRange {
        /// What it counts.
        field: &'static str,
        /// What was given.
        value: u64,
        /// The most.
        at_most: u64,
    },
    /// A payload that fits no announcement.
    #[error(
        "the announcement has {length} bytes without nonce: it must begin with \"XN\", version, kind and work bits, \
         and have at most {at_most} bytes"
    )]
    Payload {
        /// Its length.
        length: usize,
        /// The most.
        at_most: usize,
    },
    /// Another process has the wallet open.
    #[error("the wallet in {dir} is in use by process {pid}: stop that one, or choose another directory", dir = dir.display())]
    Locked {
        /// The wallet's directory.
        dir: PathBuf,
        /// The process that holds it, 0 if it did not say.
        pid: u32,
    },
    /// The seed cannot be read as what it should be.
    #[error("{path}: {why}", path = path.display())]
    Seed {
        /// The seed's file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The words are no seed.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// The passphrase cannot be had or used.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Not the passphrase the file was encrypted with.
    #[error("the passphrase is not the one that {path} was encrypted with: try again, nothing was changed", path = path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The wallet is encrypted, and nobody gave its passphrase.
    #[error("the wallet in {dir} is encrypted: it opens with its passphrase only", dir = dir.display())]
    NeedsPassphrase {
        /// The wallet's directory.
        dir: PathBuf,
    },
    /// Somebody gave a passphrase for a wallet that has none.
    #[error("the wallet in {dir} is not encrypted: leave the passphrase out, or encrypt it first", dir = dir.display())]
    NotEncrypted {
        /// The wallet's directory.
        dir: PathBuf,
    },
    /// There is no wallet.
    #[error("there is no wallet in {dir}: choose the directory that has it, or make one", dir = dir.display())]
    NoWallet {
        /// The directory.
        dir: PathBuf,
    },
    /// There is a wallet already, and none is ever overwritten.
    #[error("there is a wallet in {dir} already, and it stays: choose another directory", dir = dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// A file that is not what it was when it was written.
    #[error("{path} is damaged: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The wallet was made for another network.
    #[error(
        "the wallet in {dir} is for {found}, and the chain is {expected}: choose another directory or another chain",
        dir = dir.display()
    )]
    WrongNetwork {
        /// The wallet's directory.
        dir: PathBuf,
        /// The chain's network.
        expected: String,
        /// The wallet's network.
        found: String,
    },
    /// The disk with the wallet is full.
    #[error("the disk that holds {dir} is full: free some space; the wallet's coins are safe", dir = dir.display())]
    DiskFull {
        /// The wallet's directory.
        dir: PathBuf,
    },
    /// The database cannot be read or written.
    #[error("the wallet's database {path}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database holds something else than this wallet.
    #[error("the wallet's database {path} does not fit: {why}", path = path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A transaction could not be built or signed, although there is enough money.
    #[error("the transaction could not be made: {0}")]
    Build(String),
    /// A file failed.
    #[error("{what} {path}", path = path.display())]
    Io {
        /// What was tried, as in "cannot open".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The chain could not be asked.
    #[error("the chain could not be followed")]
    Chain(#[from] ChainError),
    /// The chain changed again and again while it was read.
    #[error("the chain changed {tries} times while the wallet read it: synchronise again")]
    Restless {
        /// How often it was tried.
        tries: u32,
    },
}

impl WalletError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> WalletError {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => WalletError::DiskFull { dir: path.parent().map(Path::to_owned).unwrap_or(path) },
            _ => WalletError::Io { what, path, source },
        }
    }

    pub(super) fn database(dir: &Path, source: rusqlite::Error) -> WalletError {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => WalletError::DiskFull { dir: dir.to_owned() },
            _ => WalletError::Database { path: dir.join(super::open::DATABASE), source },
        }
    }
}

/// What kind of script has this dust limit, in the words of BIP141.
fn dust_kind(at_least_sat: u64) -> &'static str {
    match at_least_sat {
        294 => "an address of type P2WPKH",
        330 => "an address of type P2WSH or P2TR",
        546 => "an address of type P2PKH",
        540 => "an address of type P2SH",
        _ => "this script",
    }
}
