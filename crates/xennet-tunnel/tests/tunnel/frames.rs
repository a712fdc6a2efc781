//! The lease pipe.

use std::time::Duration;

use xennet_tunnel::{Link, ListenLimits, MAX_FRAME, TunnelError};

use crate::rogue;
use crate::world::*;

fn nth(i: u64) -> Vec<u8> {
    let len = match i % 7 {
        0 => 1,
        1 => MAX_FRAME,
        n => 37 * n as usize + i as usize,
    };
    let mut bytes = vec![0; len];
    Pattern::new(i).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_in_both_directions() {
    let world = World::with(echo().await).await;
    let send = |link: Link| async move {
        for i in 0..700 {
            link.send(nth(i)).await.unwrap();
        }
    };
    let receive = |mut events: Events| async move {
        for i in 0..700 {
            assert!(frame(&mut events).await == nth(i), "frame {i}");
        }
    };
    futures::join!(send(world.publisher), send(world.node), receive(world.publisher_events), receive(world.node_events),);
    drop((world.dialer, world.listener));
}

#[tokio::test]
async fn a_frame_of_an_impossible_length_is_not_sent() {
    let world = World::with(echo().await).await;
    for len in [0, MAX_FRAME + 1] {
        let error = world.publisher.send(vec![0; len]).await.unwrap_err();
        assert!(matches!(error, TunnelError::FrameLength { len: l, .. } if l == len));
    }
    world.publisher.send(vec![0; MAX_FRAME]).await.unwrap();
}

#[tokio::test]
async fn an_oversized_frame_ends_the_session_before_its_body_comes() {
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(ListenLimits::default(), guests.authorize()).await;
    let node = rogue::Node::up(listener.local_addr()).await;
    up(&mut events).await;
    node.lease.data(&[0u8, 1, 0, 1][..]).await.unwrap();
    let why = down(&mut events).await;
    assert!(why.contains("65537 bytes"), "{why}");
}

#[tokio::test]
async fn a_daemon_that_does_not_read_makes_the_sender_wait_and_loses_nothing() {
    let mut world = World::with(echo().await).await;
    let link = world.publisher.clone();
    let mut sent = 0u64;
    // 100 MB would be far more than all queues together.
    while sent < 1600 {
        let mut bytes = vec![0; MAX_FRAME];
        bytes[..8].copy_from_slice(&sent.to_be_bytes());
        let sending = link.send(bytes);
        if tokio::time::timeout(Duration::from_secs(2), sending).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 1600, "nothing made the sender wait");
    for i in 0..sent {
        let bytes = frame(&mut world.node_events).await;
        assert_eq!(bytes[..8], i.to_be_bytes(), "frame {i} of {sent}");
    }
    link.send(b"again".to_vec()).await.unwrap();
    assert_eq!(frame(&mut world.node_events).await, b"again");
}
