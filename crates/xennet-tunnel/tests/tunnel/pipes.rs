//! Pipes to the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use russh::ChannelMsg;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use xennet_tunnel::{GuestPorts, ListenLimits, MAX_PIPES, PIPE_VERSION, PipeTarget, TunnelError};

use crate::rogue;
use crate::world::*;

const MB: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_go_through_and_back_unchanged() {
    let world = World::with(echo().await).await;
    let pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    let (from, to) = split(pipe);
    tokio::join!(write_pattern(to, 1, 100 * MB), check_pattern(from, 1, 100 * MB));
    assert_eq!(world.publisher.traffic(), 200 * MB as u64);
    soon("the node to have counted the last bytes", async {
        while world.node.traffic() != 200 * MB as u64 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pipes_full_in_both_directions_do_not_wait_for_each_other() {
    // Each guest connection sends a pattern of its own while it checks what it gets.
    let target = guest(|stream| async move {
        let (mut from, to) = stream.into_split();
        let mut seed = [0; 8];
        from.read_exact(&mut seed).await.unwrap();
        let seed = u64::from_be_bytes(seed);
        tokio::join!(write_pattern(to, seed + 1, 30 * MB), check_pattern(from, seed, 30 * MB));
    })
    .await;
    let world = World::with(target).await;
    let mut all = tokio::task::JoinSet::new();
    for seed in (0..80u64).step_by(10) {
        let link = world.publisher.clone();
        all.spawn(async move {
            let (from, mut to) = split(link.open_pipe(PIPE).await.unwrap());
            to.write_all(&seed.to_be_bytes()).await.unwrap();
            tokio::join!(write_pattern(to, seed, 30 * MB), check_pattern(from, seed + 1, 30 * MB));
        });
    }
    soon("all pipes", async {
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_holds_up_nothing() {
    let target = guest(|stream| async move {
        let (mut from, mut to) = stream.into_split();
        let mut kind = [0];
        from.read_exact(&mut kind).await.unwrap();
        match kind[0] {
            // Reads nothing more.
            b'd' => sleep(Duration::from_secs(60)).await,
            // Sends without an end.
            b'f' => while to.write_all(&[7; 65_536]).await.is_ok() {},
            _ => {
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        }
    })
    .await;
    let mut world = World::with(target).await;

    let mut deaf = world.publisher.open_pipe(PIPE).await.unwrap();
    deaf.write_all(b"d").await.unwrap();
    let mut pushed = 0;
    while let Ok(n) = timeout(Duration::from_millis(500), deaf.write(&[5; 65_536])).await {
        pushed += n.unwrap();
        assert!(pushed < 64 * MB, "nothing stops the writer");
    }
    let mut flood = world.publisher.open_pipe(PIPE).await.unwrap();
    flood.write_all(b"f").await.unwrap();

    // Longer than any keepalive.
    let started = Instant::now();
    let mut echo = world.publisher.open_pipe(PIPE).await.unwrap();
    echo.write_all(b"e").await.unwrap();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(12) {
        let asked = Instant::now();
        echo.write_all(b"are you there?").await.unwrap();
        let mut answer = [0; 14];
        soon("the echo", echo.read_exact(&mut answer)).await.unwrap();
        world.publisher.send(b"paid".to_vec()).await.unwrap();
        assert_eq!(frame(&mut world.node_events).await, b"paid");
        world.node.send(b"thanks".to_vec()).await.unwrap();
        assert_eq!(frame(&mut world.publisher_events).await, b"thanks");
        slowest = slowest.max(asked.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
    assert!(!world.publisher.is_closed() && !world.node.is_closed());

    // And the one nobody read is still good.
    let mut some = vec![0; 20 * MB];
    soon("the flood", flood.read_exact(&mut some)).await.unwrap();
    assert!(some.iter().all(|b| *b == 7));
}

#[tokio::test]
async fn only_the_forward_of_the_lease_can_be_opened_and_only_by_the_publisher() {
    let world = World::with(echo().await).await;
    let error = world.publisher.open_pipe("vm-other").await.unwrap_err();
    assert!(matches!(error, TunnelError::UnknownPipe { .. }), "{error}");
    let error = world.node.open_pipe(PIPE).await.unwrap_err();
    assert!(matches!(error, TunnelError::NotPublisher), "{error}");
}

#[tokio::test]
async fn the_node_connects_nothing_but_its_guest() {
    let touched = Arc::new(AtomicUsize::new(0));
    let other = TcpListener::bind(LOOPBACK).await.unwrap();
    let port = u32::from(other.local_addr().unwrap().port());
    let count = touched.clone();
    tokio::spawn(async move {
        while other.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let publisher = rogue::Publisher::start().await;
    let (_dialer, mut events) = dial(dial_config(publisher.address, Some(echo().await)));
    up(&mut events).await;
    let session = publisher.session.await.unwrap();

    let wrong = [
        session.channel_open_forwarded_tcpip("127.0.0.1", port, "x", 1).await.is_err(),
        session.channel_open_forwarded_tcpip(PIPE, port, "x", 1).await.is_err(),
        session.channel_open_forwarded_tcpip("vm-5f3b", PIPE_VERSION, "x", 0).await.is_err(),
        session.channel_open_forwarded_tcpip(PIPE, PIPE_VERSION, "x", 80).await.is_err(),
        session.channel_open_forwarded_tcpip(PIPE, PIPE_VERSION, "x", 70_000).await.is_err(),
        session.channel_open_direct_tcpip("127.0.0.1", port, "x", 1).await.is_err(),
        session.channel_open_forwarded_streamlocal("/run/docker.sock").await.is_err(),
        session.channel_open_direct_streamlocal("/run/docker.sock").await.is_err(),
        session.channel_open_session().await.is_err(),
        session.channel_open_agent().await.is_err(),
        session.channel_open_x11("x", 1).await.is_err(),
    ];
    assert!(wrong.iter().all(|refused| *refused), "{wrong:?}");
    assert_eq!(touched.load(Ordering::SeqCst), 0);
    let right = session.channel_open_forwarded_tcpip(PIPE, PIPE_VERSION, "x", 0).await;
    assert!(right.is_ok());
}

#[tokio::test]
async fn a_peer_that_sends_more_than_its_credit_loses_the_pipe_and_nothing_else() {
    let target = guest(|stream| async move {
        sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let publisher = rogue::Publisher::start().await;
    let (_dialer, mut events) = dial(dial_config(publisher.address, Some(target)));
    let link = up(&mut events).await;
    let session = publisher.session.await.unwrap();
    let open = || session.channel_open_forwarded_tcpip(PIPE, PIPE_VERSION, "x", 0);
    let (mut reader, writer) = open().await.unwrap().split();
    let mut sent = 0;
    let flood = async {
        while writer.data_bytes(vec![1; MB]).await.is_ok() {
            sent += MB;
        }
        std::future::pending().await
    };
    let closed = async { while !matches!(reader.wait().await, Some(ChannelMsg::Close) | None) {} };
    soon("the pipe to be closed", async {
        tokio::select! {
            () = closed => (),
            () = flood => (),
        }
    })
    .await;
    assert!(sent < 64 * MB, "{sent} bytes were taken");
    assert!(!link.is_closed());
    assert!(open().await.is_ok());
}

#[tokio::test]
async fn no_guest_yet_means_no_pipe_and_a_pipe_leads_to_the_port_that_was_asked_for() {
    let guests = Guests::of(&[NODE_SEED]);
    let (listener, mut events) = listen(ListenLimits::default(), guests.authorize()).await;
    let mut config = dial_config(listener.local_addr(), None);
    let (target, seen) = watch::channel(None);
    config.target = seen;
    let (_dialer, _node) = dial(config);
    let link = up(&mut events).await;

    let refused = |error| matches!(error, TunnelError::PipeRefused { .. });
    assert!(refused(link.open_pipe(PIPE).await.unwrap_err()));

    let listening = Arc::new(AtomicBool::new(false));
    let (is_listening, (gives, mut given)) = (Arc::clone(&listening), mpsc::channel(1));
    let ports = GuestPorts::new(move |port| {
        let (gives, is_listening) = (gives.clone(), is_listening.load(Ordering::Relaxed));
        async move {
            let (ours, theirs) = tokio::io::duplex(64);
            if !is_listening {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            gives.send((port, theirs)).await.unwrap();
            Ok(ours)
        }
    });
    target.send_replace(Some(PipeTarget::Guest(ports)));
    assert!(refused(link.open_pipe(PIPE).await.unwrap_err()), "nobody listens there");

    listening.store(true, Ordering::Relaxed);
    let _web = link.open_port(PIPE, 80).await.unwrap();
    assert_eq!(given.recv().await.unwrap().0, 80);
    let mut pipe = link.open_pipe(PIPE).await.unwrap();
    let (port, mut guest) = given.recv().await.unwrap();
    assert_eq!(port, 22);
    guest.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    soon("hello", pipe.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test]
async fn there_are_only_so_many_pipes_and_a_dropped_one_makes_room() {
    let world = World::with(echo().await).await;
    let mut pipes = Vec::new();
    for _ in 0..MAX_PIPES {
        pipes.push(world.publisher.open_pipe(PIPE).await.unwrap());
    }
    let error = world.publisher.open_pipe(PIPE).await.unwrap_err();
    assert!(matches!(error, TunnelError::TooManyPipes { max: MAX_PIPES }), "{error}");
    pipes.truncate(MAX_PIPES - 1);
    soon("room at the node", async {
        while world.publisher.open_pipe(PIPE).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_direction_can_end_while_the_other_goes_on() {
    let target = guest(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let world = World::with(target).await;
    let mut pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    pipe.write_all(&[1; 300_000]).await.unwrap();
    pipe.shutdown().await.unwrap();
    let mut answer = String::new();
    soon("the answer", pipe.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "300000 bytes");
}

#[tokio::test]
async fn what_was_written_before_the_pipe_was_dropped_still_arrives() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let target = guest(move |mut stream| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            told.send(all.len()).await.unwrap();
        }
    })
    .await;
    let world = World::with(target).await;
    let mut pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    pipe.write_all(&[1; 3 * MB]).await.unwrap();
    pipe.shutdown().await.unwrap();
    drop(pipe);
    assert_eq!(soon("the guest", heard.recv()).await, Some(3 * MB));
}

#[tokio::test]
async fn a_guest_that_hangs_up_ends_the_pipe() {
    let world = World::with(guest(|_stream| async {}).await).await;
    let mut pipe = world.publisher.open_pipe(PIPE).await.unwrap();
    assert_eq!(soon("the end", pipe.read(&mut [0; 10])).await.unwrap(), 0);
}
