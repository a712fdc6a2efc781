//! The handle of one guest's gateway.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot, watch};

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
    /// How many connections.
    pub limits: Limits,
}

/// How many connections a guest may have, both ways. Each takes two buffers of 128 KiB at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections open at once, those from the tunnel included; at least 1.
    pub connections: usize,
    /// Flows that the guest may open in a second; twice as many at once after a rest.
    pub opened_per_s: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 128, opened_per_s: 50 }
    }
}

/// A connection from the tunnel to a port of the guest.
pub(crate) struct Visit {
    pub(crate) port: u16,
    pub(crate) stream: DuplexStream,
    /// Told once the guest has taken the connection, or refused it.
    pub(crate) taken: oneshot::Sender<io::Result<()>>,
}

/// The gateway of one guest. Ends when it is dropped; the guest then has no network.
///
/// It works on a thread of its own, so that whatever a guest sends costs its own network time alone, and the host's scheduler
/// keeps the balance between guests.
#[derive(Debug)]
pub struct Gateway {
    visits: mpsc::Sender<Visit>,
    rates: watch::Sender<Rates>,
    counters: Arc<Counters>,
    policy: Arc<Policy>,
    /// Its end is the end of the thread's work.
    _alive: oneshot::Sender<()>,
}

impl Gateway {
    /// Starts on the socket that carries the guest's frames, each behind its length as 32 bits, most significant first.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn start(stream: UnixStream, settings: Settings) -> io::Result<Gateway> {
        let (visits, taken) = mpsc::channel(VISITS);
        let (rates, seen) = watch::channel(settings.rates);
        let (alive, over) = oneshot::channel::<()>();
        let counters = Arc::new(Counters::default());
        let server = settings.names.or_else(host_server);
        let (policy, counted) = (Arc::clone(&settings.policy), Arc::clone(&counters));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        stream.set_nonblocking(true)?;
        let work = async move {
            let engine = Engine::new(tokio::net::UnixStream::from_std(stream)?, settings, server, taken, seen, counted);
            tokio::select! {
                ended = engine.run() => ended,
                _ = over => Ok(()),
            }
        };
        let thread = std::thread::Builder::new().name("xennet-gateway".into());
        thread.spawn(move || {
            if let Err(error) = runtime.block_on(work) {
                tracing::debug!(%error, "a guest's network ended");
            }
        })?;
        Ok(Gateway { visits, rates, counters, policy, _alive: alive })
    }

    /// Connects to a port of the guest. Waits until the guest has taken the connection; whoever loses patience drops this.
    ///
    /// # Errors
    /// When the guest refuses, its network is gone or the port is 0.
    pub async fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        if port == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "port is 0, but must be 1 to 65535"));
        }
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the guest's network is gone: its machine has ended");
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (taken, answer) = oneshot::channel();
        self.visits.send(Visit { port, stream: theirs, taken }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())??;
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

    /// What the guest may reach.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// The first name server of the host.
fn host_server() -> Option<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let addresses = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).next()
}
