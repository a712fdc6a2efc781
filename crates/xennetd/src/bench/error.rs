//! Why a benchmark could not be done.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Bench;
use crate::control::ClientError;
use crate::store::StoreError;

/// Why a benchmark could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BenchError {
    /// There is no such benchmark.
    #[error("there is no benchmark `{given}`; there are {}", Bench::ALL.map(Bench::name).join(", "))]
    Name {
        /// What was given.
        given: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The task that everything is measured on could not be made.
    #[error("no task to measure on: {why}")]
    Sample {
        /// Why.
        why: String,
    },
    /// What should be refused was not, or what should pass did not: the figure would be about something else.
    #[error("only {as_they_should} of {count} announcements {what} were judged as they should be")]
    Verdict {
        /// What they were.
        what: &'static str,
        /// How many there were.
        count: usize,
        /// How many were judged right.
        as_they_should: usize,
    },
    /// A daemon did not do its part.
    #[error("{what} within {} s; the daemon's log ends with: {log}", waited_s)]
    Daemon {
        /// What did not happen.
        what: String,
        /// How long it was waited for.
        waited_s: u64,
        /// The end of its log.
        log: String,
    },
    /// No lease came to life.
    #[error("none of {tries} leases came to life, the last {why}")]
    Lease {
        /// How often it was tried.
        tries: u32,
        /// How the last one ended, and the reasons.
        why: String,
    },
    /// The measuring thread panicked; what it said is on stderr.
    #[error("the measuring thread ended by itself; see above")]
    Panicked,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Nothing was measured.
    #[error("nothing was measured")]
    Nothing,
    /// A payment.
    #[error(transparent)]
    Rama(#[from] xennet_rama::RamaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tunnel, or the stock programs beside it.
    #[error(transparent)]
    Tunnel(#[from] xennet_tunnel::TunnelError),
    /// The guest.
    #[error(transparent)]
    Vm(#[from] xennet_vm::VmError),
    /// The embedded chain.
    #[error(transparent)]
    Chain(#[from] xennet_chain::ChainError),
    /// The wallet.
    #[error(transparent)]
    Wallet(#[from] xennet_chain::WalletError),
    /// The announcement.
    #[error(transparent)]
    Sign(#[from] xennet_task::SignError),
    /// The keys of a daemon.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyError),
    /// The control socket of a daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl BenchError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> BenchError {
        BenchError::Io { doing, path: path.to_owned(), source }
    }

    /// The error with all its sources in one line, as a report holds it.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
