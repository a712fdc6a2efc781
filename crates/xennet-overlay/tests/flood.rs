//! What a hostile peer can do: it speaks the protocol by libp2p itself, without our guard and our judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    gossipsub::{self, ConfigBuilder, IdentTopic, MessageAuthenticity, MessageId, PublishError, ValidationMode},
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use support::*;

#[derive(NetworkBehaviour)]
struct Hostile {
    gossip: gossipsub::Behaviour,
    ping: ping::Behaviour,
}

fn topic() -> IdentTopic {
    IdentTopic::new("/xennet/test/announce/1")
}

fn attacker() -> Swarm<Hostile> {
    let settings = ConfigBuilder::default()
        .protocol_id_prefix("/xennet/test/gossip")
        .validation_mode(ValidationMode::None)
        .message_id_fn(|message| MessageId::new(&message.data))
        .connection_handler_queue_len(20_000)
        .max_transmit_size(1 << 20)
        .build()
        .unwrap();
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, settings).unwrap();
    gossip.subscribe(&topic()).unwrap();
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Hostile { gossip, ping: ping::Behaviour::default() })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build()
}

/// Runs the attacker until it is connected to someone who subscribes, publishes all of `messages`, and goes on until it is cut off.
/// Returns how many messages it got rid of.
async fn attack(mut swarm: Swarm<Hostile>, target: Multiaddr, messages: Vec<Vec<u8>>) -> usize {
    swarm.dial(target).unwrap();
    let mut messages = messages.into_iter().peekable();
    let mut sent = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(50), swarm.select_next_some()).await {
            Ok(SwarmEvent::ConnectionClosed { .. }) => return sent,
            Ok(SwarmEvent::OutgoingConnectionError { error, .. }) => panic!("{error}"),
            _ => {}
        }
        while let Some(message) = messages.peek() {
            match swarm.behaviour_mut().gossip.publish(topic(), message.clone()) {
                Ok(_) => sent += 1,
                Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => break,
                Err(error) => panic!("{error}"),
            }
            messages.next();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_ten_thousand_bad_messages_is_counted_not_relayed_and_ended() {
    let (mut middle, address) = listener(&[]).await;
    let mut bystander = dialer(&[&address]);
    middle.until_connected(&bystander).await;

    let flood = (0..10_000_u32).map(|n| [b"rubbish".as_slice(), &n.to_be_bytes(), &[0; 200]].concat()).collect();
    let swarm = attacker();
    let attacker_id = *swarm.local_peer_id();
    let sent = tokio::time::timeout(PATIENCE, attack(swarm, address.clone(), flood)).await.expect("the attacker is cut off");
    assert_eq!(sent, 10_000, "all of it was sent");

    let counters = middle.overlay.counters();
    assert!(counters.rejected["no work"] >= 32, "{counters:?}");
    assert_eq!((counters.relayed, counters.peers_banned), (0, 1), "{counters:?}");
    until("the attacker is gone", || !middle.knows(attacker_id)).await;

    // The bystander got none of it, and the network works as before.
    middle.overlay.publish(b"task".to_vec()).unwrap();
    assert_eq!(bystander.next_message().await, b"task");
    assert!(bystander.messages_so_far().is_empty() && middle.messages_so_far().is_empty());
    let seen_by_bystander = bystander.overlay.counters();
    assert_eq!((seen_by_bystander.rejected_total(), seen_by_bystander.relayed), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_peer_is_not_let_in_again() {
    let (middle, address) = listener(&[]).await;
    let mut swarm = attacker();
    swarm.dial(address.clone()).unwrap();
    let mut closed = 0;
    let mut n = 0_u32;
    let start = Instant::now();
    while closed < 2 {
        assert!(start.elapsed() < PATIENCE);
        if let Ok(SwarmEvent::ConnectionClosed { .. }) = tokio::time::timeout(Duration::from_millis(5), swarm.select_next_some()).await {
            closed += 1;
            swarm.dial(address.clone()).unwrap();
        }
        n += 1;
        let _ = swarm.behaviour_mut().gossip.publish(topic(), n.to_be_bytes());
    }
    assert!(middle.overlay.counters().connections_refused >= 1);
    assert_eq!(middle.overlay.counters().peers_banned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_message_is_counted_and_not_read_by_the_judge() {
    let (middle, address) = listener(&[]).await;
    let mut message = b"task".to_vec();
    message.resize(40_000, 0);
    let attack = tokio::spawn(attack(attacker(), address, vec![message]));
    until("it is counted", || middle.overlay.counters().rejected.get("too long") == Some(&1)).await;
    attack.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_message_is_delivered_once() {
    let (mut middle, address) = listener(&[]).await;
    let replays: Vec<_> = (0..3).map(|_| tokio::spawn(attack(attacker(), address.clone(), vec![b"task".to_vec()]))).collect();
    assert_eq!(middle.next_message().await, b"task");
    until("the others are counted", || middle.overlay.counters().repeated >= 1).await;
    assert!(middle.messages_so_far().is_empty());
    assert_eq!(middle.overlay.counters().relayed, 1);
    replays.iter().for_each(tokio::task::JoinHandle::abort);
}
