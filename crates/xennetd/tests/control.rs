//! The control protocol between its real two ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::{broadcast, mpsc};
use xennet_task::LeaseId;
use xennetd::control::{
    AddressView, Client, ClientError, Command, Event, Failure, FailureKind, GUEST_SSH, Reply, Request, Server, What, serve, socket_path,
};

const LEASE: LeaseId = LeaseId([7; 8]);

/// A served socket whose commands `answer` answers, and whose pipes give back every byte.
fn start(dir: &Path, answer: impl Fn(Command) -> Option<Result<Reply, Failure>> + Send + 'static) -> (Server, broadcast::Sender<Event>) {
    let (requests, mut incoming) = mpsc::channel(8);
    let (events, _) = broadcast::channel(4);
    let server = serve(&socket_path(dir), requests, events.clone()).unwrap();
    tokio::spawn(async move {
        let mut waiting = Vec::new();
        while let Some(request) = incoming.recv().await {
            match request {
                Request::Command { command, reply } => match answer(command) {
                    Some(answer) => drop(reply.send(answer)),
                    None => waiting.push(reply),
                },
                Request::Pipe { lease, name, reply } if lease == LEASE && name == GUEST_SSH => {
                    let (near, far) = duplex(1000);
                    tokio::spawn(async move {
                        let (mut from, mut to) = tokio::io::split(far);
                        tokio::io::copy(&mut from, &mut to).await.unwrap();
                        to.shutdown().await.unwrap();
                    });
                    drop(reply.send(Ok(Box::new(near))));
                }
                Request::Pipe { lease, name, reply } => {
                    drop(reply.send(Err(Failure::not_found(format!("pipe {name} of lease {lease}"), "See `xennet leases`."))));
                }
            }
        }
    });
    (server, events)
}

fn address(command: Command) -> Option<Result<Reply, Failure>> {
    match command {
        Command::WalletAddress {} => Some(Ok(Reply::Address(AddressView { address: "bcrt1q".into(), network: "regtest".into() }))),
        Command::Publish { task_toml, .. } => Some(Err(Failure::new(FailureKind::BadInput, format!("line 1: {task_toml}"), "Mend it."))),
        Command::Status {} => None,
        _ => Some(Ok(Reply::Done)),
    }
}

/// What a script without our client would do.
fn raw(dir: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket_path(dir)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_command_brings_its_reply_or_its_failure() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(dir.path(), address);
    let client = Client::new(dir.path());
    assert!(client.is_there().await);
    let reply = client.command(&Command::WalletAddress {}).await.unwrap();
    assert_eq!(reply, Reply::Address(AddressView { address: "bcrt1q".into(), network: "regtest".into() }));
    assert_eq!(client.command(&Command::Stop {}).await.unwrap(), Reply::Done);
    match client.command(&Command::Publish { task_toml: "x".into(), max_fee_sat: None }).await {
        Err(ClientError::Failed(failure)) => {
            assert_eq!(failure, Failure::new(FailureKind::BadInput, "line 1: x", "Mend it."));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_a_daemon_that_is_what_the_error_says() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path());
    let error = client.command(&Command::Status {}).await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    // A socket that a killed daemon left over is no daemon either, and does not stand in a new one's way.
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap());
    assert!(matches!(client.command(&Command::Status {}).await, Err(ClientError::NoDaemon { .. })));
    let (server, _) = start(dir.path(), address);
    assert!(client.is_there().await);
    drop(server);
    assert!(!socket_path(dir.path()).exists());
}

#[tokio::test]
async fn the_socket_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(dir.path(), address);
    let metadata = std::fs::metadata(socket_path(dir.path())).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the socket");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (requests, _incoming) = mpsc::channel(1);
    let error = serve(&socket_path(&deep), requests, broadcast::channel(1).0).unwrap_err().to_string();
    assert!(error.contains("choose a shorter --datadir"), "{error}");
}

#[tokio::test]
async fn events_reach_every_listener_and_say_what_was_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, events) = start(dir.path(), address);
    let client = Client::new(dir.path());
    let mut one = client.events().await.unwrap();
    let mut other = client.events().await.unwrap();
    let tip = |height| Event { at_ms: 5, what: What::Tip { height } };
    for listener in [&mut one, &mut other] {
        events.send(tip(1)).unwrap();
        assert_eq!(listener.next().await.unwrap(), Some(tip(1)));
    }
    // The channel holds 4; nobody reads while 50 are sent in one go.
    for height in 0..50 {
        events.send(tip(height)).unwrap();
    }
    let mut missed = 0;
    loop {
        match one.next().await.unwrap().unwrap().what {
            What::Lagged { missed: more } => missed += more,
            What::Tip { height: 49 } => break,
            _ => {}
        }
    }
    assert!(missed >= 40, "{missed}");
}

#[tokio::test]
async fn the_end_of_the_daemon_ends_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let (server, events) = start(dir.path(), address);
    let mut listener = Client::new(dir.path()).events().await.unwrap();
    drop(server);
    drop(events);
    assert!(!matches!(listener.next().await, Ok(Some(_))));
}

/// Who stops a daemon hears that it does, although the process ends right after.
#[tokio::test]
async fn an_answer_on_its_way_arrives_before_the_server_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (requests, mut incoming) = mpsc::channel(1);
    let (events, _) = broadcast::channel(1);
    let server = serve(&socket_path(dir.path()), requests, events).unwrap();
    let client = Client::new(dir.path());
    let asking = tokio::spawn(async move { client.command(&Command::Stop {}).await });
    let Some(Request::Command { reply, .. }) = incoming.recv().await else { panic!("no command") };
    let closing = tokio::spawn(server.close());
    tokio::task::yield_now().await;
    assert!(!closing.is_finished(), "it waits for the answer");
    reply.send(Ok(Reply::Done)).unwrap();
    closing.await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), Reply::Done);
    assert!(!socket_path(dir.path()).exists());
}

#[tokio::test]
async fn a_pipe_carries_bytes_both_ways_and_ends_one_way_first() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(dir.path(), address);
    let pipe = Client::new(dir.path()).pipe(&LEASE, GUEST_SSH).await.unwrap();
    let (mut from, mut to) = tokio::io::split(pipe);
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == sent, "{} bytes", received.len());
}

#[tokio::test]
async fn a_pipe_that_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(dir.path(), address);
    match Client::new(dir.path()).pipe(&LEASE, "vnc").await {
        Err(ClientError::Failed(failure)) => assert_eq!(failure.to_string(), format!("there is no pipe vnc of lease {LEASE}")),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn whoever_hangs_up_withdraws_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (requests, mut incoming) = mpsc::channel(1);
    let _server = serve(&socket_path(dir.path()), requests, broadcast::channel(1).0).unwrap();
    let client = Client::new(dir.path());
    let waiting = tokio::spawn(async move { client.command(&Command::Status {}).await });
    let Some(Request::Command { mut reply, .. }) = incoming.recv().await else { panic!() };
    waiting.abort();
    reply.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_ask_wrongly_are_told_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start(dir.path(), address);
    let post = |body: &str| {
        let head = "POST /v1/command HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ";
        raw(dir.path(), &format!("{head}{}\r\n\r\n{body}", body.len()))
    };
    let right = post(r#"{"command": "wallet_address"}"#);
    assert!(right.starts_with("HTTP/1.1 200"), "{right}");
    assert!(right.ends_with(r#"{"reply":"address","value":{"address":"bcrt1q","network":"regtest"}}"#), "{right}");

    let unknown = post(r#"{"command": "dance"}"#);
    assert!(unknown.starts_with("HTTP/1.1 400") && unknown.contains("unknown variant `dance`"), "{unknown}");
    let extra = post(r#"{"command": "wallet_address", "of": "me"}"#);
    assert!(extra.starts_with("HTTP/1.1 400") && extra.contains("unknown field `of`"), "{extra}");
    let bad_lease = post(r#"{"command": "lease", "lease": "xyz"}"#);
    assert!(bad_lease.starts_with("HTTP/1.1 400") && bad_lease.contains("xyz"), "{bad_lease}");
    let huge = post(&format!(r#"{{"command": "publish", "task_toml": "{}"}}"#, "x".repeat(300_000)));
    assert!(huge.starts_with("HTTP/1.1 400") && huge.contains("\"bad_input\""), "{huge}");

    let elsewhere = raw(dir.path(), "GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(elsewhere.starts_with("HTTP/1.1 404") && elsewhere.contains("/v1/command"), "{elsewhere}");
    let plain = raw(dir.path(), "GET /v1/pipe/0707070707070707/ssh HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("Upgrade: xennet-pipe"), "{plain}");
}
