//! The overlay's task: one loop over the swarm, the daemon's commands and a clock.
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    core::ConnectedPoint,
    gossipsub::{self, IdentTopic, MessageAcceptance, PublishError},
    identify, ping, request_response,
    swarm::{ConnectionId, DialError, SwarmEvent, dial_opts::DialOpts},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::{
    Direction, OverlayConfig, OverlayError, OverlayEvent, Peer,
    behaviour::{Behaviour, BehaviourEvent, kademlia_protocol},
    bootstrap::{Bootstrap, Failure},
    config::{MAX_OUTBOX, MAX_UNSENT, WANTED_PEERS},
    desk::{Found, Source},
    discovery::dialable,
    gossip,
    guard::lock,
    overlay::Shared,
    recent::{MessageId, More, id_of},
    sync::{ANSWER_BUDGET, Answer, SyncState},
};

const TICK: Duration = Duration::from_millis(500);
/// Ticks between looking for more peers, and between sweeps of the remembered messages.
const SELDOM: u64 = 10;
const SWEEP: usize = 64;

pub(crate) enum Command {
    Publish(Vec<u8>),
    Dial(Multiaddr),
    Stop(oneshot::Sender<()>),
}

pub(crate) struct Node {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<OverlayEvent>,
    /// Events the daemon has not taken yet.
    outbox: VecDeque<OverlayEvent>,
    bootstrap: Bootstrap,
    sync: SyncState,
    /// Our own messages that no peer was there to take.
    unsent: VecDeque<Vec<u8>>,
    topic: IdentTopic,
    kademlia: StreamProtocol,
    ticks: u64,
}

impl Node {
    pub(crate) fn new(
        config: &OverlayConfig,
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        bootstrap: Bootstrap,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<OverlayEvent>,
    ) -> Result<Node, OverlayError> {
        Ok(Node {
            swarm,
            shared,
            commands,
            events,
            outbox: VecDeque::new(),
            bootstrap,
            sync: SyncState::default(),
            unsent: VecDeque::new(),
            topic: gossip::topic(config),
            kademlia: kademlia_protocol(config)?,
            ticks: 0,
        })
    }

    /// Runs until it is told to stop or nobody holds the handle; returns whom to tell when all is closed.
    pub(crate) async fn run(mut self) -> Option<oneshot::Sender<()>> {
        let events = self.events.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = self.commands.recv() => match command {
                    Some(Command::Publish(message)) => self.publish(message),
                    Some(Command::Dial(address)) => self.add_address(address),
                    Some(Command::Stop(asked)) => return Some(asked),
                    None => return None,
                },
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.outbox.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => return None,
                },
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.bootstrap.connected(connection_id, peer_id);
                if num_established.get() == 1 {
                    self.peer_up(peer_id, &endpoint);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                debug!(%peer_id, ?cause, "peer down");
                lock(&self.shared.peers).remove(&peer_id);
                self.bootstrap.lost(&peer_id, now, spread());
                self.sync.left(&peer_id);
                self.tell(OverlayEvent::PeerDown(peer_id));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => self.dial_failed(connection_id, &error, now),
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "overlay listens");
                lock(&self.shared.listening).push(address.clone());
                self.tell(OverlayEvent::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => lock(&self.shared.listening).retain(|known| *known != address),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => warn!(?addresses, ?reason, "overlay no longer listens"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Guarded(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = match self.deliver(&id_of(&message.data)) {
                    Delivered::Yes => MessageAcceptance::Accept,
                    Delivered::No => MessageAcceptance::Ignore,
                };
                let gossip = &mut self.swarm.behaviour_mut().guarded.gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            BehaviourEvent::Guarded(gossipsub::Event::Subscribed { peer_id, .. }) => {
                self.sync.joined(peer_id, now);
                self.send_unsent();
                self.ask_due(now);
            }
            BehaviourEvent::Guarded(gossipsub::Event::GossipsubNotSupported { peer_id }) => {
                // Another network, or no Xennet peer at all: it would only hold a slot.
                debug!(%peer_id, "peer does not speak our gossip protocol");
                let _ = self.swarm.disconnect_peer_id(peer_id);
            }
            BehaviourEvent::Sync(event) => self.on_sync(event, now),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                for address in dialable(&info, &self.kademlia, &self.shared.fence) {
                    self.swarm.behaviour_mut().kademlia.add_address(&peer_id, address);
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Err(error), .. }) => {
                debug!(%error, "no answer to ping");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    fn on_sync(&mut self, event: request_response::Event<Vec<MessageId>, Answer>, now: Instant) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                if !self.swarm.is_connected(&peer) || !self.sync.may_ask(peer, now) {
                    // Dropping the channel resets the stream: no answer is the answer.
                    return self.shared.desk.count(|counters| counters.recent_refused += 1);
                }
                let known: HashSet<MessageId> = request.into_iter().collect();
                let (messages, more) = self.shared.desk.recent_missing(&known, ANSWER_BUDGET, now);
                self.shared.desk.count(|counters| counters.recent_sent += messages.len() as u64);
                let _ = self.swarm.behaviour_mut().sync.send_response(channel, Answer { more, messages });
            }
            Event::Message { peer, message: Message::Response { response, .. }, .. } => {
                let more = self.take_answer(peer, response, now);
                if self.sync.answered(&peer, more) {
                    self.ask(peer);
                }
                self.ask_due(now);
            }
            Event::OutboundFailure { peer, error, .. } => {
                debug!(%peer, %error, "no answer about recent announcements");
                self.sync.answered(&peer, More::No);
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    /// Judges what an answer brought. Says that there is more only if this much was of use, so that no peer keeps us asking for nothing.
    fn take_answer(&mut self, peer: PeerId, answer: Answer, now: Instant) -> More {
        let mut useful = false;
        for message in answer.messages {
            self.shared.desk.count(|counters| counters.recent_received += 1);
            if let Found::Valid(id) = self.shared.desk.inspect(Source::Answer(peer), &message.bytes, message.age, now)
                && let Delivered::Yes = self.deliver(&id)
            {
                useful = true;
                // Our other neighbours may lack it too; those who know it drop it as a repeat.
                let _ = self.gossip(message.bytes);
            }
        }
        if useful { answer.more } else { More::No }
    }

    fn on_tick(&mut self, now: Instant) {
        for (address, expected) in self.bootstrap.due(now) {
            self.dial(address, expected, now);
        }
        self.send_unsent();
        self.ask_due(now);
        self.ticks += 1;
        if self.ticks.is_multiple_of(SELDOM) {
            self.shared.desk.sweep(SWEEP, now);
            self.look_for_peers();
        }
    }

    fn dial(&mut self, address: Multiaddr, expected: Option<PeerId>, now: Instant) {
        let options = match expected {
            Some(peer) => DialOpts::peer_id(peer).addresses(vec![address.clone()]).build(),
            None => DialOpts::unknown_peer_id().address(address.clone()).build(),
        };
        let id = options.connection_id();
        self.bootstrap.dialing(&address, id);
        if let Err(error) = self.swarm.dial(options) {
            match expected.filter(|peer| self.swarm.is_connected(peer)) {
                Some(peer) => self.bootstrap.connected(id, peer),
                None => self.dial_failed(id, &error, now),
            }
        }
    }

    fn dial_failed(&mut self, id: ConnectionId, error: &DialError, now: Instant) {
        debug!(%error, "dial failed");
        let failure = match error {
            DialError::LocalPeerId { .. } => Failure::Ourselves,
            _ => Failure::NoAnswer,
        };
        self.bootstrap.failed(id, failure, now, spread());
    }

    fn add_address(&mut self, address: Multiaddr) {
        self.shared.fence.trust(&address);
        if !self.bootstrap.add(address, Instant::now()) {
            warn!("the list of addresses to dial is full");
        }
    }

    /// With few peers: walk the network, and dial one or two that the walk found.
    fn look_for_peers(&mut self) {
        let connected: HashSet<PeerId> = self.swarm.connected_peers().copied().collect();
        if connected.len() >= WANTED_PEERS {
            return;
        }
        let local = *self.swarm.local_peer_id();
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        let mut found: Vec<PeerId> =
            kademlia.kbuckets().flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>()).collect();
        found.retain(|peer| !connected.contains(peer));
        if found.is_empty() {
            kademlia.get_closest_peers(local);
            return;
        }
        let start = (spread() % found.len() as u64) as usize;
        found.rotate_left(start);
        for peer in found.into_iter().take(2) {
            // It may be gone, or our slots may be full: the next round tries another one.
            let _ = self.swarm.dial(DialOpts::peer_id(peer).build());
        }
    }

    fn peer_up(&mut self, id: PeerId, endpoint: &ConnectedPoint) {
        let direction = if endpoint.is_dialer() { Direction::Outgoing } else { Direction::Incoming };
        let address = endpoint.get_remote_address().clone();
        debug!(%id, %address, ?direction, "peer up");
        lock(&self.shared.peers).insert(id, Peer { id, address, direction });
        self.tell(OverlayEvent::PeerUp(id));
    }

    fn publish(&mut self, message: Vec<u8>) {
        self.shared.desk.own(&message, Instant::now());
        if let Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) = self.gossip(message.clone()) {
            if self.unsent.len() >= MAX_UNSENT {
                self.unsent.pop_front();
            }
            self.unsent.push_back(message);
        }
    }

    fn send_unsent(&mut self) {
        for message in std::mem::take(&mut self.unsent) {
            if let Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) = self.gossip(message.clone()) {
                self.unsent.push_back(message);
            }
        }
    }

    fn gossip(&mut self, message: Vec<u8>) -> Result<(), PublishError> {
        let topic = self.topic.clone();
        self.swarm.behaviour_mut().guarded.gossip.publish(topic, message).map(|_| ())
    }

    fn ask_due(&mut self, now: Instant) {
        for peer in self.sync.due(now, spread()) {
            self.ask(peer);
        }
    }

    fn ask(&mut self, peer: PeerId) {
        let known = self.shared.desk.recent_ids();
        self.swarm.behaviour_mut().sync.send_request(&peer, known);
    }

    /// Hands a valid message to the daemon, once.
    fn deliver(&mut self, id: &MessageId) -> Delivered {
        let Some(message) = self.shared.desk.hand_over(id) else { return Delivered::No };
        if self.outbox.len() >= MAX_OUTBOX {
            self.shared.desk.undelivered(id);
            return Delivered::No;
        }
        self.outbox.push_back(OverlayEvent::Message(message));
        Delivered::Yes
    }

    /// Tells the daemon something it can also look up, so a full outbox may lose it.
    fn tell(&mut self, event: OverlayEvent) {
        if self.outbox.len() < MAX_OUTBOX {
            self.outbox.push_back(event);
        }
    }
}

#[derive(Clone, Copy)]
enum Delivered {
    Yes,
    No,
}

/// Some number, different each time; nothing secret depends on it.
fn spread() -> u64 {
    RandomState::new().build_hasher().finish()
}
