//! How programs talk to a running daemon: HTTP/JSON on a unix socket in the data directory.
//!
//! ```text
//! POST /v1/command               a Command as JSON; answers a Reply, or a Failure with the matching status code
//! GET  /v1/events                server-sent events, one Event each, from now on
//! GET  /v1/pipe/{lease}/{name}   with "Connection: upgrade" and "Upgrade: xennet-pipe": raw bytes of a pipe of that lease
//! ```
//! There is one [`Command`] type and one [`Reply`] type; the command line, the Qt program and scripts use the same ones.
//! The socket has mode 0600: who may read the data directory's keys may give orders, nobody else.

mod client;
mod command;
mod event;
mod money;
mod server;
mod transaction;
mod view;

pub use client::{Client, ClientError, Events, Pipe};
pub use command::{Command, Failure, FailureKind, Reply};
pub use event::{Event, What};
pub use money::{CoinStateView, CoinView, HistoryView, MoneyKind, SweepView};
pub use server::{PipeStream, Request, ServeError, Server, serve};
pub use transaction::{InputView, OutputView, TransactionView};
pub use view::{
    AddressView, BalanceView, IdentityView, LeaseStage, LeaseView, LedgerPage, MiningView, NetworkView, PaymentView, Quote, QuoteView,
    RenewalView, StatusView, TaskState, TaskView,
};

// The words the commands and views are made of, so that programs need no other crate of ours.
pub use crate::wallet::Status;
pub use xennet_identity::Role;
pub use xennet_lease::{LedgerEntry, LedgerKind, Totals};
pub use xennet_meter::Figures;
pub use xennet_task::{AnnouncementHash, Carrier, Compute, LeaseId, Msat, PayoutInterval, Rates, TaskFile, TaskId, Usage};

use std::path::{Path, PathBuf};

/// The pipe that leads to the guest's SSH server. The pipe to another port is named by its number, e.g. `80`.
pub const GUEST_SSH: &str = "ssh";

/// What the pipe request's `Upgrade` header must say.
pub const PIPE_PROTOCOL: &str = "xennet-pipe";

/// The longest command, bytes of JSON. A task file is a few KiB.
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;

/// Where the daemon of a data directory listens.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}
