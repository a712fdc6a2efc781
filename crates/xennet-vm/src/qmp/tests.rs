#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use tokio::net::UnixListener;

use super::*;

/// A peer that says `greeting`, then gives one of `answers` for each line it reads.
fn peer(greeting: Vec<u8>, answers: Vec<Vec<u8>>) -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("q")).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let _ = write.write_all(&greeting).await;
        for answer in answers {
            let mut line = String::new();
            if read.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let _ = write.write_all(&answer).await;
        }
        // Held open until the other side leaves.
        let _ = read.read_line(&mut String::new()).await;
    });
    let fd = std::fs::File::open(dir.path()).unwrap().into();
    (dir, fd)
}

fn greeting() -> Vec<u8> {
    b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 99}}, \"novelty\": true}}\n".to_vec()
}

const DONE: &[u8] = b"{\"return\": {}, \"id\": 1}\n";

#[tokio::test]
async fn unknown_events_and_members_are_passed_over() {
    let answer = b"{\"event\": \"FROM_THE_FUTURE\", \"data\": 7}\n{\"novelty\": 1}\n\
                   {\"return\": {\"status\": \"running\", \"new\": [1]}, \"id\": 2, \"also\": null}\n";
    let (_dir, fd) = peer(greeting(), vec![DONE.to_vec(), answer.to_vec()]);
    let qmp = Qmp::connect(&fd, "q").await.unwrap();
    let status = qmp.execute("query-status", json!({})).await.unwrap();
    assert_eq!(status["status"], "running");
}

#[tokio::test]
async fn a_refusal_carries_qemus_reason() {
    let answer = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}, \"id\": 2}\n";
    let (_dir, fd) = peer(greeting(), vec![DONE.to_vec(), answer.to_vec()]);
    let qmp = Qmp::connect(&fd, "q").await.unwrap();
    let error = qmp.execute("device_del", json!({ "id": "x" })).await.unwrap_err();
    assert_eq!(error.to_string(), "QEMU refused device_del: no such device");
}

#[tokio::test]
async fn a_line_without_end_is_given_up() {
    let (_dir, fd) = peer(vec![b'a'; MAX_LINE + 4096], vec![]);
    assert!(matches!(Qmp::connect(&fd, "q").await, Err(QmpError::TooLong)));
}

#[tokio::test]
async fn a_line_that_is_no_message_ends_the_connection_and_whoever_waits_is_told() {
    let (_dir, fd) = peer(greeting(), vec![DONE.to_vec(), b"\x00\xff garbage\n".to_vec()]);
    let qmp = Qmp::connect(&fd, "q").await.unwrap();
    assert!(matches!(qmp.execute("query-status", json!({})).await, Err(QmpError::Closed)));
    assert!(qmp.execute("query-status", json!({})).await.is_err());
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&line);
    }

    #[test]
    fn no_object_makes_the_parser_panic(
        keys in proptest::collection::vec(prop_oneof![Just("QMP"), Just("event"), Just("id"), Just("return"), Just("error")], 0..4),
        value in prop_oneof![Just("null"), Just("-1"), Just("1e400"), Just("18446744073709551616"), Just("{\"desc\": 3}"), Just("[[[]]]")],
    ) {
        let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\": {value}")).collect();
        let _ = parse(format!("{{{}}}", members.join(",")).as_bytes());
    }
}
