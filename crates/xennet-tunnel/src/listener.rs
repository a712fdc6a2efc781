//! The publisher's end: an SSH server at the address of the task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use russh::server;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::TunnelError;
use crate::event::TunnelEvent;
use crate::keys;
use crate::link::Link;
use crate::pipe::Traffic;
use crate::settings;

mod door;
mod gate;
mod visit;

use door::Door;

/// After an error of `accept` (too many open files, say) the next attempt waits this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Where and as whom a publisher listens.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// The address of the task; port 0 takes any free port.
    pub address: SocketAddr,
    /// The seed of the Ed25519 host key the task commits to.
    pub host_key_seed: [u8; 32],
    /// Bounds for those who have not logged in yet.
    pub limits: ListenLimits,
}

/// What strangers may take before they have logged in.
#[derive(Clone, Debug)]
pub struct ListenLimits {
    /// From the first byte to the login, and again from there to the lease pipe and the forward. What takes longer is
    /// dropped.
    pub login_within: Duration,
    /// How long the daemon may look for the acceptance that names the key.
    pub authorise_within: Duration,
    /// Sessions that are not logged in, in all. More are turned away.
    pub strangers: usize,
    /// Sessions that are not logged in from one IPv4 address or one IPv6 /64 network.
    pub strangers_per_network: usize,
    /// Refused logins in one connection.
    pub attempts: usize,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            login_within: Duration::from_secs(20),
            authorise_within: Duration::from_secs(10),
            strangers: 64,
            strangers_per_network: 8,
            attempts: 3,
        }
    }
}

/// A login whose signature was found good: the peer holds the key.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user name: the lease.
    pub user: String,
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// Says whether a key may log in for a lease. May wait for the acceptance to arrive; after
/// [`ListenLimits::authorise_within`] the answer counts as no.
pub type Authorize = Arc<dyn Fn(Login) -> BoxFuture<'static, bool> + Send + Sync>;

/// What came to the door, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenCounters {
    /// Connections that were let in to log in.
    pub connections: u64,
    /// Connections turned away because too many others were logging in.
    pub turned_away: u64,
    /// Connections dropped because they did not log in, or not ask for lease pipe and forward, in time.
    pub too_slow: u64,
    /// Logins that were refused.
    pub refused: u64,
    /// Sessions that came up.
    pub sessions: u64,
    /// Sessions that ended because a newer one of the same lease came up.
    pub superseded: u64,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    turned_away: AtomicU64,
    too_slow: AtomicU64,
    refused: AtomicU64,
    sessions: AtomicU64,
    superseded: AtomicU64,
}

/// What all sessions of a listener share.
struct Shared {
    ssh: Arc<server::Config>,
    limits: ListenLimits,
    authorize: Authorize,
    events: mpsc::Sender<TunnelEvent>,
    door: Arc<Door>,
    counts: Counts,
    leases: Mutex<HashMap<String, Lease>>,
    next_session: AtomicU64,
    closing: CancellationToken,
}

/// What is known of one lease.
#[derive(Default)]
struct Lease {
    traffic: Arc<Traffic>,
    session: Option<Session>,
}

/// The session of a lease that is up.
struct Session {
    number: u64,
    link: Link,
    /// Cancelled when its `Down` was told.
    gone: CancellationToken,
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, HashMap<String, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A publisher's SSH server. Dropping it closes all sessions.
pub struct Listener {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Listener {
    /// Listens, and tells `events` what happens. The events must be read: while nobody does, sessions stand still.
    ///
    /// # Errors
    /// [`TunnelError::Bind`] if the address cannot be listened on.
    pub async fn bind(config: ListenConfig, authorize: Authorize, events: mpsc::Sender<TunnelEvent>) -> Result<Self, TunnelError> {
        let refused = |source| TunnelError::Bind { address: config.address, source };
        let socket = TcpListener::bind(config.address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        settings::keep_freed_memory();
        let limits = config.limits;
        let shared = Arc::new(Shared {
            ssh: settings::server(keys::private(&config.host_key_seed), limits.attempts),
            door: Door::new(limits.strangers, limits.strangers_per_network),
            limits,
            authorize,
            events,
            counts: Counts::default(),
            leases: Mutex::new(HashMap::new()),
            next_session: AtomicU64::new(0),
            closing: CancellationToken::new(),
        });
        tokio::spawn(accept(socket, Arc::clone(&shared)));
        Ok(Self { shared, address })
    }

    /// The address that is listened on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The session of a lease, if one is up.
    #[must_use]
    pub fn link(&self, user: &str) -> Option<Link> {
        let leases = self.shared.leases();
        Some(leases.get(user)?.session.as_ref()?.link.clone())
    }

    /// Forgets the traffic count of a lease that is over. If a session of it is up it is closed.
    pub fn forget(&self, user: &str) {
        let lease = self.shared.leases().remove(user);
        if let Some(session) = lease.and_then(|lease| lease.session) {
            session.link.close("the lease is over");
        }
    }

    /// What came to the door so far.
    #[must_use]
    pub fn counters(&self) -> ListenCounters {
        let c = &self.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ListenCounters {
            connections: get(&c.connections),
            turned_away: get(&c.turned_away),
            too_slow: get(&c.too_slow),
            refused: get(&c.refused),
            sessions: get(&c.sessions),
            superseded: get(&c.superseded),
        }
    }

    /// Stops listening and closes all sessions gracefully. Returns when their `Down` events were told.
    pub async fn close(self) {
        self.shared.closing.cancel();
        let gone: Vec<CancellationToken> = {
            let mut leases = self.shared.leases();
            let sessions = leases.values_mut().filter_map(|l| l.session.as_ref());
            sessions
                .map(|session| {
                    session.link.close("the publisher stopped");
                    session.gone.clone()
                })
                .collect()
        };
        for session in gone {
            session.cancelled().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        for lease in self.shared.leases().values() {
            if let Some(session) = &lease.session {
                session.link.close("the publisher stopped");
            }
        }
    }
}

/// Lets strangers in as long as there is room.
async fn accept(socket: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shared.closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => match shared.door.enter(peer.ip()) {
                Some(place) => {
                    shared.counts.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(visit::serve(Arc::clone(&shared), stream, peer, place));
                }
                // Dropping the stream is the cheapest answer.
                None => {
                    shared.counts.turned_away.fetch_add(1, Ordering::Relaxed);
                }
            },
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
