//! The guard: it stands around gossipsub, refuses connections, drops frames of peers that hurry, and cuts off those that ran out of
//! strikes. Standing around it (instead of beside it) it knows which peer each frame, and so each message, came from.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use crate::{
    address::Network,
    config::MAX_PER_NETWORK,
    desk::Desk,
    gossip::{Gossip, Sender},
};

/// Why a connection was refused; seen in logs only.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this peer or its network is banned")]
    Banned,
    #[error("{MAX_PER_NETWORK} connections from this network are open already")]
    Crowded,
}

pub(crate) struct Guarded {
    pub(crate) gossip: Gossip,
    desk: Arc<Desk>,
    /// Whose frame gossipsub is reading just now.
    sender: Sender,
    incoming: Incoming,
    cut_off: Vec<PeerId>,
}

/// Incoming connections, pending or established, and how many each network has.
#[derive(Default)]
struct Incoming {
    networks: HashMap<ConnectionId, Network>,
    counts: HashMap<Network, u32>,
}

impl Incoming {
    fn count(&self, network: Network) -> u32 {
        self.counts.get(&network).copied().unwrap_or(0)
    }

    fn add(&mut self, id: ConnectionId, network: Network) {
        if self.networks.insert(id, network).is_none() {
            *self.counts.entry(network).or_default() += 1;
        }
    }

    fn remove(&mut self, id: &ConnectionId) {
        let Some(network) = self.networks.remove(id) else { return };
        if let Some(count) = self.counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }
}

impl Guarded {
    pub(crate) fn new(gossip: Gossip, desk: Arc<Desk>, sender: Sender) -> Self {
        Self { gossip, desk, sender, incoming: Incoming::default(), cut_off: Vec::new() }
    }

    fn set_sender(&self, peer: Option<PeerId>) {
        *lock(&self.sender) = peer;
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NetworkBehaviour for Guarded {
    type ConnectionHandler = <Gossip as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let network = Network::of(remote);
        if !self.desk.admits(None, network, Instant::now()) {
            return Err(ConnectionDenied::new(Refusal::Banned));
        }
        if let Some(network) = network {
            if self.incoming.count(network) >= MAX_PER_NETWORK {
                self.desk.count(|counters| counters.connections_refused += 1);
                return Err(ConnectionDenied::new(Refusal::Crowded));
            }
            self.incoming.add(id, network);
        }
        self.gossip.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.desk.admits(Some(&peer), None, Instant::now()) {
            return Err(ConnectionDenied::new(Refusal::Banned));
        }
        self.gossip.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.gossip.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.desk.admits(Some(&peer), None, Instant::now()) {
            return Err(ConnectionDenied::new(Refusal::Banned));
        }
        self.gossip.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            FromSwarm::ConnectionEstablished(up) => {
                self.desk.seat(up.peer_id, Network::of(up.endpoint.get_remote_address()), Instant::now());
            }
            FromSwarm::ConnectionClosed(down) => {
                self.incoming.remove(&down.connection_id);
                if down.remaining_established == 0 {
                    self.desk.leave(&down.peer_id);
                }
            }
            FromSwarm::ListenFailure(failure) => self.incoming.remove(&failure.connection_id),
            _ => {}
        }
        self.gossip.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        if self.cut_off.contains(&peer) || !self.desk.takes_frame(&peer, Instant::now()) {
            return;
        }
        self.set_sender(Some(peer));
        self.gossip.on_connection_handler_event(peer, id, event);
        self.set_sender(None);
        self.cut_off.extend(self.desk.take_cut_off());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.cut_off.extend(self.desk.take_cut_off());
        if let Some(peer_id) = self.cut_off.pop() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
        self.gossip.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_network_are_counted_until_they_end() {
        let mut incoming = Incoming::default();
        let network = Network::V4([203, 0, 113, 1]);
        for id in 0..3 {
            incoming.add(ConnectionId::new_unchecked(id), network);
        }
        incoming.add(ConnectionId::new_unchecked(0), network);
        assert_eq!(incoming.count(network), 3);
        for id in 0..3 {
            incoming.remove(&ConnectionId::new_unchecked(id));
            incoming.remove(&ConnectionId::new_unchecked(id));
        }
        assert!(incoming.counts.is_empty() && incoming.networks.is_empty());
    }
}
