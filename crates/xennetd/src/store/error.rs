//! What can go wrong with the store, with the remedy in each message.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::Batch;

/// Why the store could not be opened, read or written. Cheap to clone: one failed commit answers many callers.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// A second daemon on one data directory.
    #[error(
        "another daemon{} already uses the data directory {dir}: stop it with `xennet --datadir {dir} stop`, or choose \
         another --datadir", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The other's process id, if it could be read.
        holder: Option<u32>,
    },
    /// No room on the disk. What was acknowledged is still there.
    #[error(
        "the disk that holds {path} is full, so nothing new can be recorded; what was recorded is safe. Make room: the \
         daemon goes on by itself"
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The database is older than what was acknowledged.
    #[error(
        "{path} is older than what this daemon has acknowledged: it has reached record {found}, but record {acknowledged} \
         was acknowledged. It was put back from a copy, or the disk lost writes; going on could pay or settle by an old \
         state. Put back the newest state.redb. If it is lost for good, remove state.sequence beside it to accept the older \
         state and what it may cost"
    )]
    RolledBack {
        /// The database.
        path: PathBuf,
        /// The newest sequence in it.
        found: u64,
        /// The newest sequence acknowledged.
        acknowledged: u64,
    },
    /// The database and the sequence file come from different data directories.
    #[error("{path} and the state.sequence beside it come from different data directories. Put back the two that belong together")]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// A file or record does not hold what it should.
    #[error("{path} is damaged: {what}. Put back a copy of the whole data directory from before the damage")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part of it, and how it shows.
        what: String,
    },
    /// A record that the wallet's key does not open.
    #[error(
        "the record {record} in {path} was encrypted for another wallet than the one beside it: put back the wallet that belongs to it \
         (seed.sealed or seed.txt); without it the channel of that lease cannot be settled"
    )]
    OtherWallet {
        /// The database.
        path: PathBuf,
        /// The record's key.
        record: String,
    },
    /// A value could not be encrypted.
    #[error("a record of the table {table} could not be encrypted, so it was not written")]
    Unsealed {
        /// The table.
        table: String,
    },
    /// A value has no JSON form, or a record's JSON does not fit the type asked for.
    #[error("a record of the table {table} cannot be read or written as JSON: {why}")]
    Json {
        /// The table.
        table: &'static str,
        /// Why.
        why: String,
    },
    /// A batch over [`Batch`]'s limit.
    #[error("a batch of {bytes} bytes is to be written, but at most {limit} are written at once")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Stopped,
    /// Another failure of the operating system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { path: path.to_path_buf() },
            _ => StoreError::Io { action, path: path.to_path_buf(), source: Arc::new(error) },
        }
    }

    pub(super) fn database(action: &'static str, path: &Path, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            redb::Error::Io(e) => StoreError::io(action, path, e),
            redb::Error::Corrupted(what) => StoreError::damaged(path, what),
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { dir: path.parent().unwrap_or(path).to_path_buf(), holder: None },
            other => StoreError::io(action, path, io::Error::other(other)),
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: path.to_path_buf(), what: what.into() }
    }
}

/// A batch that is not on disk, given back with what was to be sent after it, so that the caller can try again.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct Unpersisted<T> {
    /// Why.
    pub error: StoreError,
    /// The batch; empty if the writer took it with it.
    pub batch: Batch,
    /// What must not be sent.
    pub value: T,
}

impl<T> Unpersisted<T> {
    pub(super) fn boxed(error: StoreError, batch: Batch, value: T) -> Box<Unpersisted<T>> {
        Box::new(Unpersisted { error, batch, value })
    }
}

impl<T> From<Box<Unpersisted<T>>> for StoreError {
    fn from(unpersisted: Box<Unpersisted<T>>) -> StoreError {
        unpersisted.error
    }
}
