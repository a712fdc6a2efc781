//! Cuts, and what comes after them.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use xennet_tunnel::{Link, ListenConfig, ListenLimits, Listener, TunnelEvent};

use crate::proxy::Proxy;
use crate::world::*;

/// Sends 100 bytes to the echo and gets them back.
async fn echo_works(link: &Link) {
    let mut pipe = soon("a pipe", link.open_pipe(PIPE)).await.unwrap();
    pipe.write_all(&[3; 100]).await.unwrap();
    soon("the echo", pipe.read_exact(&mut [0; 100])).await.unwrap();
}

async fn world_with_proxy() -> (World, Proxy) {
    let (tell, made) = tokio::sync::oneshot::channel();
    let world = World::through(echo().await, |address| async move {
        let proxy = Proxy::to(address).await;
        let address = proxy.address;
        assert!(tell.send(proxy).is_ok());
        address
    })
    .await;
    (world, made.await.unwrap())
}

#[tokio::test]
async fn after_a_cut_the_session_comes_back_and_new_pipes_work() {
    let (mut world, proxy) = world_with_proxy().await;
    for round in 1..=3u64 {
        echo_works(&world.publisher).await;
        let mut cut_pipe = world.publisher.open_pipe(PIPE).await.unwrap();
        let cut_at = Instant::now();
        proxy.kill();
        down(&mut world.publisher_events).await;
        down(&mut world.node_events).await;
        assert!(soon("the pipe to fail", cut_pipe.read(&mut [0; 9])).await.is_err());
        assert!(world.publisher.is_closed());
        assert!(world.publisher.send(b"x".to_vec()).await.is_err());
        world.publisher = up(&mut world.publisher_events).await;
        world.node = up(&mut world.node_events).await;
        assert!(cut_at.elapsed() < Duration::from_secs(15), "{:?}", cut_at.elapsed());
        assert_eq!(world.publisher.traffic(), 200 * round, "the count goes on");
        assert_eq!(world.node.traffic(), 200 * round);
    }
    echo_works(&world.publisher).await;
    world.node.send(b"still here".to_vec()).await.unwrap();
    assert_eq!(frame(&mut world.publisher_events).await, b"still here");
}

#[tokio::test]
async fn silence_is_noticed_within_ten_seconds_and_the_session_comes_back() {
    let (mut world, proxy) = world_with_proxy().await;
    let cut_at = Instant::now();
    proxy.blackhole();
    let why = down(&mut world.publisher_events).await;
    assert_eq!(why, "the other end did not answer for 8 s");
    assert_eq!(down(&mut world.node_events).await, why);
    let noticed = cut_at.elapsed();
    assert!(noticed > Duration::from_secs(5) && noticed < Duration::from_secs(15), "{noticed:?}");
    proxy.heal();
    world.publisher = up(&mut world.publisher_events).await;
    echo_works(&world.publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_in_the_middle_of_a_large_transfer_too() {
    let (mut world, proxy) = world_with_proxy().await;
    let mut pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    let (mut from, mut to) = tokio::io::split(pipe);
    let writing = tokio::spawn(async move { while to.write_all(&[1; 65_536]).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        let mut piece = vec![0; 65_536];
        while matches!(from.read(&mut piece).await, Ok(n) if n > 0) {}
    });
    sleep(Duration::from_millis(500)).await;
    let cut_at = Instant::now();
    proxy.blackhole();
    let (a, b) = (down(&mut world.publisher_events).await, down(&mut world.node_events).await);
    let noticed = cut_at.elapsed();
    assert!(noticed < Duration::from_secs(20), "{noticed:?}: {a}, {b}");
    soon("the pipe to end", futures::future::join(writing, reading)).await.0.unwrap();
    proxy.heal();
    world.publisher = up(&mut world.publisher_events).await;
    pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    drop(pipe);
    echo_works(&world.publisher).await;
}

#[tokio::test]
async fn a_second_login_of_the_same_lease_wins() {
    let mut world = World::with(echo().await).await;
    let (_second, mut second_events) = dial(dial_config(world.listener.local_addr(), Some(echo().await)));
    // First the old one is down, then the new one is up.
    let why = down(&mut world.publisher_events).await;
    assert!(why.contains("newer session"), "{why}");
    let link = up(&mut world.publisher_events).await;
    up(&mut second_events).await;
    assert!(down(&mut world.node_events).await.contains("newer session"));
    echo_works(&link).await;
    assert_eq!(world.listener.counters().superseded, 1);
    // The first does not throw the second out at once.
    let more = timeout(Duration::from_secs(4), world.publisher_events.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_stale_session_behind_a_blackhole_gives_way_to_a_new_one() {
    let (mut world, proxy) = world_with_proxy().await;
    proxy.blackhole();
    // The node comes again by another way, before the publisher can have noticed.
    let (_second, mut second_events) = dial(dial_config(world.listener.local_addr(), Some(echo().await)));
    // Not because of the silence.
    assert!(down(&mut world.publisher_events).await.contains("newer session"));
    let link = up(&mut world.publisher_events).await;
    up(&mut second_events).await;
    echo_works(&link).await;
}

#[tokio::test]
async fn a_session_that_is_closed_sends_what_was_queued_and_says_why() {
    let mut world = World::with(echo().await).await;
    for i in 0..50u8 {
        world.publisher.send(vec![i; 5000]).await.unwrap();
    }
    world.publisher.close("the price is too high");
    for i in 0..50u8 {
        assert!(frame(&mut world.node_events).await == vec![i; 5000]);
    }
    assert_eq!(down(&mut world.node_events).await, "the price is too high");
    assert_eq!(down(&mut world.publisher_events).await, "the price is too high");
    let error = world.publisher.send(b"x".to_vec()).await.unwrap_err();
    assert_eq!(error.to_string(), "the tunnel is closed: the price is too high");
}

#[tokio::test]
async fn a_dialer_that_is_stopped_or_dropped_hangs_up() {
    let mut world = World::with(echo().await).await;
    soon("the dialer to stop", world.dialer.stop()).await;
    assert_eq!(down(&mut world.node_events).await, "the node stopped");
    assert_eq!(down(&mut world.publisher_events).await, "the node hung up");
    assert!(soon("no more events", world.node_events.recv()).await.is_none());

    let (dialer, mut node) = dial(dial_config(world.listener.local_addr(), None));
    up(&mut node).await;
    up(&mut world.publisher_events).await;
    drop(dialer);
    down(&mut node).await;
    down(&mut world.publisher_events).await;
}

#[tokio::test]
async fn a_publisher_that_comes_back_is_found_again() {
    let mut world = World::with(echo().await).await;
    let address = world.listener.local_addr();
    soon("the listener to close", world.listener.close()).await;
    assert_eq!(down(&mut world.publisher_events).await, "the publisher stopped");
    assert_eq!(down(&mut world.node_events).await, "the publisher stopped");
    match event(&mut world.node_events).await {
        TunnelEvent::Retry { why, .. } => assert!(why.contains("cannot reach"), "{why}"),
        other => panic!("{other:?}"),
    }
    let (events, mut told) = tokio::sync::mpsc::channel(16);
    let config = ListenConfig { address, host_key_seed: HOST_SEED, limits: ListenLimits::default() };
    let authorize = Guests::of(&[NODE_SEED]).authorize();
    let _listener = Listener::bind(config, authorize, events).await.unwrap();
    let link = up(&mut told).await;
    up(&mut world.node_events).await;
    echo_works(&link).await;
}

#[tokio::test]
async fn a_session_is_renewed_when_it_has_had_very_many_pipes_and_none_is_open() {
    let mut world = World::with(echo().await).await;
    let first = world.publisher.open_pipe(PIPE).await.unwrap();
    for _ in 1..4096 {
        echo_works(&world.publisher).await;
    }
    assert!(!world.publisher.is_closed(), "a pipe is open");
    drop(first);
    assert!(down(&mut world.publisher_events).await.contains("renewed"));
    let link = up(&mut world.publisher_events).await;
    echo_works(&link).await;
}

#[tokio::test]
async fn attempts_become_rarer_but_never_stop() {
    let (world, proxy) = world_with_proxy().await;
    drop(world.listener);
    proxy.kill();
    let mut events = world.node_events;
    down(&mut events).await;
    let mut waits = Vec::new();
    while waits.len() < 4 {
        if let TunnelEvent::Retry { retry_in, .. } = event(&mut events).await {
            waits.push(retry_in);
        }
    }
    assert!(waits.windows(2).all(|w| w[1] > w[0]), "{waits:?}");
    assert!(proxy.connections() >= 4);
}
