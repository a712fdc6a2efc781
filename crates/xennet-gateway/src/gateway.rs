//! The handle of one guest's gateway.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::counters::{Counters, Counts};
use crate::engine::Engine;
use crate::policy::Policy;

/// Bytes of a connection that wait between the tunnel and the guest, each way.
const PIPE: usize = 64 * 1024;
/// Connections from the tunnel that wait to be taken up.
const VISITS: usize = 16;

/// How fast a guest may send and be sent to, counted in bytes of frames. `None`: without limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Out of the guest.
    pub up_bytes_per_s: Option<u64>,
    /// Into the guest.
    pub down_bytes_per_s: Option<u64>,
}

/// What a gateway is told.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// What the guest may reach.
    pub policy: Arc<Policy>,
    /// Who is asked for names; `None`: the first server of the host's `/etc/resolv.conf`.
    pub names: Option<SocketAddr>,
    /// How fast at first.
    pub rates: Rates,
}

/// A connection from the tunnel to a port of the guest.
pub(crate) struct Visit {
    pub(crate) port: u16,
    pub(crate) stream: DuplexStream,
}

/// The gateway of one guest. Ends when it is dropped; the guest then has no network.
#[derive(Debug)]
pub struct Gateway {
    visits: mpsc::Sender<Visit>,
    rates: watch::Sender<Rates>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Starts on the socket that carries the guest's frames, each behind its length as 32 bits, most significant first.
    /// Needs a running tokio runtime.
    #[must_use]
    pub fn start(stream: UnixStream, settings: Settings) -> Gateway {
        let (visits, taken) = mpsc::channel(VISITS);
        let (rates, seen) = watch::channel(settings.rates);
        let counters = Arc::new(Counters::default());
        let server = settings.names.or_else(host_server);
        let engine = Engine::new(stream, settings.policy, server, taken, seen, Arc::clone(&counters));
        let task = tokio::spawn(async move {
            if let Err(error) = engine.run().await {
                tracing::debug!(%error, "a guest's network ended");
            }
        });
        Gateway { visits, rates, counters, task }
    }

    /// Connects to a port of the guest. That it returns does not say that the guest listens: a refusal ends the stream.
    ///
    /// # Errors
    /// When the guest's network is gone or the port is 0.
    pub async fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        if port == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "port is 0, but must be 1 to 65535"));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let sent = self.visits.send(Visit { port, stream: theirs }).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::NotConnected, "the guest's network is gone: its machine has ended"))?;
        Ok(ours)
    }

    /// Changes how fast the guest may send and be sent to, from the next frame on.
    pub fn set_rates(&self, rates: Rates) {
        self.rates.send_replace(rates);
    }

    /// What went through so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first name server of the host.
fn host_server() -> Option<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let addresses = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).next()
}
