//! What can be wrong with a backup, with the remedy in each message.

use std::io;
use std::path::PathBuf;

use bitcoin::Network;
use thiserror::Error;
use xennet_chain::WalletError;

use crate::store::StoreError;

/// Why a backup was not made or not restored. Nothing was changed then.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file is there already.
    #[error("{path} is there already, and it stays: choose another name, or give --overwrite")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Something is in the data directory.
    #[error(
        "the data directory {dir} is not empty, {found} is in it, and a backup is restored into an empty one only: choose another \
         --datadir, or move this one away"
    )]
    Occupied {
        /// The data directory.
        dir: PathBuf,
        /// One thing in it.
        found: String,
    },
    /// The file is not what was written.
    #[error("{path} is no whole backup: {why}. Take another copy of it; nothing was changed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
    /// A newer program wrote it.
    #[error("{path} is a backup of version {found}, and this program knows version {known}: use a newer program; nothing was changed")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest version known.
        known: u8,
    },
    /// It is for another chain.
    #[error(
        "{path} is a backup of a data directory on {found}, and the configuration says {wanted}: set [chain] of the configuration to \
         {found}, or leave it out; nothing was changed"
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Its network.
        found: Network,
        /// The configuration's.
        wanted: Network,
    },
    /// More than a backup holds.
    #[error("there are {bytes} bytes to back up, and a backup holds {limit} at most: stop the daemon and copy the data directory instead")]
    TooLarge {
        /// How many there are.
        bytes: u64,
        /// The most.
        limit: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.into();
        move |source| BackupError::Io { action, path, source }
    }
}
