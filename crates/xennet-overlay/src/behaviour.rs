//! All protocols of the overlay in one swarm.
use std::{num::NonZeroUsize, sync::Arc};

use libp2p::{
    PeerId, StreamProtocol, Swarm, Transport,
    connection_limits::{self, ConnectionLimits},
    core::upgrade::Version,
    identify, identity, noise, ping,
    swarm::NetworkBehaviour,
    tcp, yamux,
};

use crate::{
    OverlayConfig, OverlayError,
    address::{Fence, Fenced},
    config::{
        HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, MAX_INCOMING, MAX_OUTGOING, MAX_PENDING_INCOMING, MAX_PENDING_OUTGOING, MAX_PER_PEER, MAX_STREAMS,
    },
    desk::Desk,
    discovery::{self, Kademlia},
    gossip::{self, Sender},
    guard::Guarded,
    sync::{self, Sync},
};

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) guarded: Guarded,
    pub(crate) sync: Sync,
    pub(crate) kademlia: Kademlia,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
}

pub(crate) fn kademlia_protocol(config: &OverlayConfig) -> Result<StreamProtocol, OverlayError> {
    protocol(config, "kad/1")
}

fn protocol(config: &OverlayConfig, what: &str) -> Result<StreamProtocol, OverlayError> {
    StreamProtocol::try_from_owned(config.protocol(what)).map_err(settings)
}

fn settings(error: impl std::fmt::Display) -> OverlayError {
    OverlayError::Settings { why: error.to_string() }
}

pub(crate) fn swarm(config: &OverlayConfig, desk: Arc<Desk>, fence: Arc<Fence>) -> Result<Swarm<Behaviour>, OverlayError> {
    let key = identity::Keypair::ed25519_from_bytes(config.secret).map_err(settings)?;
    let local = key.public().to_peer_id();

    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MAX_STREAMS);
    let transport = Fenced { inner: tcp::tokio::Transport::new(tcp::Config::default()), fence }
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).map_err(settings)?)
        .multiplex(streams)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed();

    let swarm_settings = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(MAX_STREAMS)
        .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(7));
    Ok(Swarm::new(transport, behaviour(config, &key, local, desk)?, local, swarm_settings))
}

fn behaviour(config: &OverlayConfig, key: &identity::Keypair, local: PeerId, desk: Arc<Desk>) -> Result<Behaviour, OverlayError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_outgoing(Some(MAX_OUTGOING))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let sender = Sender::default();
    let identify = identify::Config::new(config.protocol("id/1"), key.public())
        .with_agent_version(concat!("xennet/", env!("CARGO_PKG_VERSION")).to_owned())
        // Its own address book would take any address a peer names; ours is Kademlia's, behind the fence.
        .with_cache_size(0);
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        guarded: Guarded::new(gossip::gossip(config, desk.clone(), sender.clone())?, desk, sender),
        sync: sync::behaviour(protocol(config, "recent/1")?),
        kademlia: discovery::kademlia(config, local, kademlia_protocol(config)?),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    })
}
