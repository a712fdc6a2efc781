//! Who gets in, and who does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use xennet_tunnel::{Authorize, ListenConfig, ListenLimits, Listener, TunnelEvent, openssh_public_key, public_key};

use crate::world::*;

fn short() -> ListenLimits {
    ListenLimits { login_within: Duration::from_millis(400), ..ListenLimits::default() }
}

/// Reads until the other end closes.
async fn until_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = soon("the connection to be closed", stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_dropped() {
    let (listener, _events) = listen(short(), Guests::default().authorize()).await;
    let started = Instant::now();
    until_closed(TcpStream::connect(listener.local_addr()).await.unwrap()).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(listener.counters().too_slow, 1);
}

#[tokio::test]
async fn a_stranger_that_stops_in_the_middle_of_the_handshake_is_dropped() {
    let (listener, _events) = listen(short(), Guests::default().authorize()).await;
    for words in [&b"SSH-2.0-x\r\n"[..], b"SSH", b"SSH-2.0-x\r\n\0\0\x05\xdc\x0a\x14"] {
        let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
        stream.write_all(words).await.unwrap();
        until_closed(stream).await;
    }
    assert_eq!(listener.counters().too_slow, 3);
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(ListenLimits::default(), guests.authorize()).await;
    let mut pattern = Pattern::new(9);
    for round in 0..30 {
        let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
        let mut noise = vec![0; 3000 * round];
        pattern.fill(&mut noise);
        if round % 2 == 0 {
            let _ = stream.write_all(b"SSH-2.0-noise\r\n").await;
        }
        if round % 4 == 0 {
            // A plausible packet length, and then noise.
            let _ = stream.write_all(&[0, 0, 0x03, 0xfc, 4, 20]).await;
        }
        let _ = stream.write_all(&noise).await;
        let _ = stream.shutdown().await;
        until_closed(stream).await;
    }
    let (_dialer, _node) = dial(dial_config(listener.local_addr(), None));
    up(&mut events).await;
}

#[tokio::test]
async fn too_many_strangers_are_turned_away_and_places_come_back() {
    let limits = ListenLimits { strangers_per_network: 2, login_within: Duration::from_secs(2), ..ListenLimits::default() };
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(limits, guests.authorize()).await;
    let connect = || TcpStream::connect(listener.local_addr());
    let (a, b) = (connect().await.unwrap(), connect().await.unwrap());
    let started = Instant::now();
    until_closed(connect().await.unwrap()).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(listener.counters().turned_away, 1);
    drop((a, b));
    // The node comes in as soon as there is a place.
    let (_dialer, _node) = dial(dial_config(listener.local_addr(), None));
    up(&mut events).await;
}

#[tokio::test]
async fn a_session_that_is_up_takes_no_place_of_a_stranger() {
    let limits = ListenLimits { strangers: 1, ..ListenLimits::default() };
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(limits, guests.authorize()).await;
    let mut all = Vec::new();
    for lease in ["a", "b", "c"] {
        let mut config = dial_config(listener.local_addr(), None);
        config.user = lease.to_owned();
        config.pipe = format!("vm-{lease}");
        all.push(dial(config));
        let told = event(&mut events).await;
        assert!(matches!(told, TunnelEvent::Up { user, .. } if user == lease));
    }
}

#[tokio::test]
async fn a_wrong_client_key_is_refused_until_the_acceptance_is_known() {
    let guests = Guests::default();
    let (listener, mut events) = listen(ListenLimits::default(), guests.authorize()).await;
    let (_dialer, mut node) = dial(dial_config(listener.local_addr(), None));
    match event(&mut node).await {
        TunnelEvent::Retry { why, retry_in, .. } => {
            assert!(why.contains("refused the login"), "{why}");
            assert!(retry_in < Duration::from_secs(1));
        }
        other => panic!("{other:?}"),
    }
    assert!(listener.counters().refused >= 1);
    guests.add(&NODE_SEED);
    up(&mut node).await;
    up(&mut events).await;
}

#[tokio::test]
async fn the_daemon_is_asked_with_lease_and_key_and_may_take_its_time() {
    let authorize: Authorize = Arc::new(|login| {
        Box::pin(async move {
            assert_eq!(login.user, LEASE);
            assert!(login.peer.ip().is_loopback());
            tokio::time::sleep(Duration::from_millis(700)).await;
            login.key == public_key(&NODE_SEED)
        })
    });
    let (listener, mut events) = listen(ListenLimits::default(), authorize).await;
    let (_dialer, _node) = dial(dial_config(listener.local_addr(), None));
    up(&mut events).await;
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_counts_as_no() {
    let limits = ListenLimits { authorise_within: Duration::from_millis(200), ..ListenLimits::default() };
    let (listener, _events) = listen(limits, Arc::new(|_| Box::pin(std::future::pending()))).await;
    let (_dialer, mut node) = dial(dial_config(listener.local_addr(), None));
    let told = event(&mut node).await;
    assert!(matches!(told, TunnelEvent::Retry { .. }), "{told:?}");
}

#[tokio::test]
async fn a_wrong_host_key_ends_the_dialling_for_good() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let authorize: Authorize = Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { true })
    });
    let (listener, _events) = listen(ListenLimits::default(), authorize).await;
    let mut config = dial_config(listener.local_addr(), None);
    config.host_key = public_key(&[99; 32]);
    let (_dialer, mut node) = dial(config);
    let TunnelEvent::Failed { user, why } = event(&mut node).await else {
        panic!("not Failed");
    };
    assert_eq!(user, LEASE);
    for part in [listener.local_addr().to_string(), openssh_public_key(&public_key(&HOST_SEED)), openssh_public_key(&public_key(&[99; 32]))]
    {
        assert!(why.contains(&part), "{part} is not in: {why}");
    }
    assert!(soon("the dialer to stop", node.recv()).await.is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 0, "it logged in nowhere");
    assert_eq!(listener.counters().connections, 1);
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let (first, _events) = listen(ListenLimits::default(), Guests::default().authorize()).await;
    let config = ListenConfig { address: first.local_addr(), host_key_seed: HOST_SEED, limits: ListenLimits::default() };
    let bound = Listener::bind(config, Guests::default().authorize(), mpsc::channel(1).0).await;
    let said = bound.err().unwrap().to_string();
    assert!(said.contains(&first.local_addr().to_string()), "{said}");
    assert!(said.contains("another program"), "{said}");
}
