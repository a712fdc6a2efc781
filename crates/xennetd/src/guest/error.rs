//! What can go wrong inside a machine.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use xennet_tunnel::TunnelError;

use crate::control::ClientError;
use crate::keys::KeyError;

/// Why something in a leased machine did not work.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The daemon, or the pipe it should open.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The key to log in with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The login, or SSH itself.
    #[error("the connection into the machine failed")]
    Ssh(#[from] TunnelError),
    /// What the daemon says is no host key.
    #[error("the daemon names {found:?} as the machine's host key, which is none: xennet and xennetd must be of one version")]
    HostKey {
        /// What it says.
        found: String,
    },
    /// The connection broke. What runs in the machine goes on; connect again.
    #[error("the connection into the machine broke")]
    Lost,
    /// A command of ours failed in there.
    #[error(
        "a command in the machine failed{}{}",
        status.map(|status| format!(" with exit status {status}")).unwrap_or_default(),
        if said.is_empty() { String::new() } else { format!(": {said}") }
    )]
    Command {
        /// Its exit status; none if a signal ended it.
        status: Option<u32>,
        /// The beginning of what it wrote to stderr.
        said: String,
    },
    /// A local file.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The machine sent something that was not asked for.
    #[error("the machine sent {found}, which was not asked for; nothing of it was kept")]
    Unasked {
        /// What.
        found: String,
    },
    /// The machine sends links or devices, or more than its disk can hold.
    #[error("{name} cannot be brought back: {why}")]
    Unfetchable {
        /// The file.
        name: String,
        /// Why.
        why: String,
    },
}

impl GuestError {
    /// Whether connecting again may help: the connection broke, or the tunnel is down for the moment.
    pub fn is_passing(&self) -> bool {
        use crate::control::FailureKind;
        match self {
            GuestError::Lost | GuestError::Ssh(TunnelError::Ssh(_) | TunnelError::GuestTimeout { .. }) => true,
            GuestError::Daemon(ClientError::Failed(failure)) => failure.kind == FailureKind::Unavailable,
            _ => false,
        }
    }
}
