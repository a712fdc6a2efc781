//! The handle the daemon holds.
use std::{
    collections::HashMap,
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Instant,
};

use libp2p::{Multiaddr, PeerId, Swarm, TransportError, multiaddr::Protocol};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Judge, Judgement, MAX_MESSAGE_BYTES, OverlayConfig, OverlayCounters, OverlayError,
    address::{self, Fence},
    behaviour::{self, Behaviour},
    bootstrap::Bootstrap,
    config::MAX_COMMANDS,
    desk::Desk,
    guard::lock,
    node::{Command, Node},
};

/// What the overlay tells the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayEvent {
    /// A valid message of somebody else, for the first time.
    Message(Vec<u8>),
    /// The first connection to a peer is up.
    PeerUp(PeerId),
    /// The last connection to a peer has ended.
    PeerDown(PeerId),
    /// We can be dialed at this address.
    Listening(Multiaddr),
}

/// Who dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialed us.
    Incoming,
    /// We dialed the peer.
    Outgoing,
}

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The hash of its key, by which libp2p names it.
    pub id: PeerId,
    /// The address its connection comes from or goes to.
    pub address: Multiaddr,
    /// Who dialed.
    pub direction: Direction,
}

/// What the handle and the task share.
pub(crate) struct Shared {
    pub(crate) desk: Arc<Desk>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) peers: Mutex<HashMap<PeerId, Peer>>,
    pub(crate) listening: Mutex<Vec<Multiaddr>>,
}

/// A running overlay. Cheap to clone; it ends with [`Overlay::stop`] or when the last handle is dropped.
#[derive(Clone)]
pub struct Overlay {
    id: PeerId,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Overlay {
    /// Opens the listening sockets and starts the overlay's task on the current tokio runtime.
    ///
    /// If the daemon is slow to take `events`, messages wait (1,024 at most); after that they are dropped, counted as undelivered and
    /// asked for again from other peers.
    ///
    /// # Errors
    /// [`OverlayError`] names the setting that is wrong, or the port that is taken.
    pub fn start(config: OverlayConfig, judge: Judge, events: mpsc::Sender<OverlayEvent>) -> Result<Overlay, OverlayError> {
        config.check()?;
        let fence = Arc::new(Fence::default());
        config.listen.iter().chain(&config.bootstrap).for_each(|address| fence.trust(address));
        let desk = Arc::new(Desk::new(judge));
        let mut swarm = behaviour::swarm(&config, desk.clone(), fence.clone())?;
        for address in &config.listen {
            listen(&mut swarm, address).map_err(|source| OverlayError::Listen { address: address.to_string(), source })?;
        }
        let mut bootstrap = Bootstrap::default();
        for address in &config.bootstrap {
            bootstrap.add(address.clone(), Instant::now());
        }
        let shared = Arc::new(Shared { desk, fence, peers: Mutex::default(), listening: Mutex::default() });
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let overlay = Overlay { id: *swarm.local_peer_id(), shared: shared.clone(), commands };
        let node = Node::new(&config, swarm, shared, bootstrap, receiver, events)?;
        tokio::spawn(async move {
            // The socket is closed before whoever asked us to stop goes on.
            let asked = node.run().await;
            asked.map(|asked| asked.send(()))
        });
        Ok(overlay)
    }

    /// Our own peer id.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Publishes a message: to the peers of today at once, to those who join later when they ask. Publishing the same bytes again does
    /// nothing.
    ///
    /// # Errors
    /// The message is too long, our own judge rejects it, or the overlay is busy or stopped.
    pub fn publish(&self, message: Vec<u8>) -> Result<(), OverlayError> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(OverlayError::TooLong { length: message.len(), most: MAX_MESSAGE_BYTES });
        }
        if let Judgement::Reject(reason) = self.shared.desk.judge(&message) {
            return Err(OverlayError::Refused { reason });
        }
        self.command(Command::Publish(message))
    }

    /// Adds an address to those that are dialed until they answer, and again for ever.
    ///
    /// # Errors
    /// The address has no IP address with a TCP port, or the overlay is busy or stopped.
    pub fn dial(&self, address: Multiaddr) -> Result<(), OverlayError> {
        address::check("peer", &address)?;
        self.command(Command::Dial(address))
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<Peer> {
        lock(&self.shared.peers).values().cloned().collect()
    }

    /// The addresses at which we can be dialed, each with our `/p2p/` suffix. Empty for a peer that only dials.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        let with_id = |address: &Multiaddr| address.clone().with(Protocol::P2p(self.id));
        lock(&self.shared.listening).iter().map(with_id).collect()
    }

    /// What was relayed, ignored and rejected since the start.
    pub fn counters(&self) -> OverlayCounters {
        self.shared.desk.counters()
    }

    /// Closes all connections and listening sockets, and returns when they are closed.
    pub async fn stop(&self) {
        let (asked, done) = oneshot::channel();
        if self.commands.send(Command::Stop(asked)).await.is_ok() {
            // An error means that the task is gone already, which is what we want.
            let _ = done.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), OverlayError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OverlayError::Busy { queued: MAX_COMMANDS },
            mpsc::error::TrySendError::Closed(_) => OverlayError::Stopped,
        })
    }
}

fn listen(swarm: &mut Swarm<Behaviour>, address: &Multiaddr) -> io::Result<()> {
    port_is_free(address)?;
    match swarm.listen_on(address.clone()) {
        Ok(_) => Ok(()),
        Err(TransportError::Other(error)) => Err(error),
        Err(TransportError::MultiaddrNotSupported(_)) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// libp2p sets SO_REUSEPORT, with which two daemons of one user would silently share a port; so we ask without it first.
fn port_is_free(address: &Multiaddr) -> io::Result<()> {
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    match (address::ip(address), port) {
        (Some(ip), Some(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}
