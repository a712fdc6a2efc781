//! What a publisher's program does inside a leased machine: log in over the control socket, send files, run a job, fetch
//! files. Needs no SSH program and no port.
//!
//! A job outlives the connection that started it: it writes into files of the guest, and [`Job::follow`] reads them from where
//! it was. So a cut tunnel costs a job nothing, and no byte of its output is lost or seen twice.

mod error;
mod files;
mod job;
mod stock;

pub use error::GuestError;
pub use files::{Fetch, Send};
pub use job::{Job, Stream};
pub use stock::stock_ssh;

use std::path::Path;

use xennet_tunnel::{ExecEvent, GuestSsh, Output};

use crate::control::{Client, GUEST_SSH, LeaseView};
use crate::keys::Keys;

/// Who one is in a guest.
pub const USER: &str = "root";

/// Where jobs run and files go: on the machine's temporary disk.
pub const JOB_DIR: &str = "/data/job";

/// A login in a leased machine.
#[derive(Debug)]
pub struct Guest {
    ssh: GuestSsh,
}

impl Guest {
    /// Logs in to the machine of a live lease, with the key of the data directory the daemon runs on. The host key must be
    /// the one the daemon saw when it measured the machine.
    pub async fn connect(client: &Client, data_dir: &Path, lease: &LeaseView) -> Result<Guest, GuestError> {
        let seed = Keys::open(data_dir)?.ssh_guest_seed();
        let expected = host_key(lease)?;
        let pipe = client.pipe(&lease.lease, GUEST_SSH).await?;
        let (ssh, _) = GuestSsh::connect(pipe, USER, seed, expected).await?;
        Ok(Guest { ssh })
    }

    /// Runs a short command to its end; an exit status other than 0 is an error that carries what it wrote to stderr.
    async fn run(&self, command: &str) -> Result<Output, GuestError> {
        let output = self.ssh.run(command, b"").await?;
        if output.success() {
            return Ok(output);
        }
        Err(GuestError::Command { status: output.status, said: said(&output.stderr) })
    }
}

/// The guest's host key as the daemon saw it.
fn host_key(lease: &LeaseView) -> Result<Option<[u8; 32]>, GuestError> {
    let Some(text) = &lease.guest_host_key else { return Ok(None) };
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| GuestError::HostKey { found: text.clone() })?;
    Ok(Some(key))
}

/// A word for the guest's shell, whatever it holds.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The beginning of what a command said, for a message.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Collects what a command says on stderr, up to what a message shows.
#[derive(Debug, Default)]
struct Complaints(Vec<u8>);

impl Complaints {
    fn add(&mut self, piece: &[u8]) {
        let room = 2000_usize.saturating_sub(self.0.len());
        self.0.extend(piece.iter().take(room));
    }

    /// The outcome of a command that ended so.
    fn judge(&self, end: Option<ExecEvent>) -> Result<(), GuestError> {
        match end {
            Some(ExecEvent::Exit(0)) => Ok(()),
            Some(ExecEvent::Exit(status)) => Err(GuestError::Command { status: Some(status), said: said(&self.0) }),
            Some(_) => Err(GuestError::Command { status: None, said: said(&self.0) }),
            None => Err(GuestError::Lost),
        }
    }
}
