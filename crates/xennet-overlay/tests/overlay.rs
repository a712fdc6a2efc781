//! What the daemon can rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;
use support::*;
use xennet_overlay::{MAX_MESSAGE_BYTES, OverlayError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peers_find_each_other_from_a_bootstrap_address_and_go_on_without_it() {
    let (meeting_point, address) = listener(&[]).await;
    let (a, _) = listener(&[&address]).await;
    let (mut b, _) = listener(&[&address]).await;
    a.until_connected(&b).await;
    meeting_point.overlay.stop().await;
    a.overlay.publish(b"task 1".to_vec()).unwrap();
    assert_eq!(b.next_message().await, b"task 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_goes_from_end_to_end_of_three_in_a_row() {
    let (mut middle, address) = listener(&[]).await;
    let left = dialer(&[&address]);
    let mut right = dialer(&[&address]);
    middle.until_connected(&left).await;
    middle.until_connected(&right).await;
    // One after the other: without relaying, each but the first would wait for a regular question for recent messages, a minute.
    for n in 0..5 {
        let message = format!("task {n}").into_bytes();
        left.overlay.publish(message.clone()).unwrap();
        assert_eq!(right.next_message().await, message);
        assert_eq!(middle.next_message().await, message);
    }
    assert!(!left.knows(right.overlay.id()), "only the middle one joins them");
    assert_eq!((middle.overlay.counters().relayed, left.overlay.counters().published), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_peers_that_know_one_address_all_hear_each_other() {
    let (first, address) = listener(&[]).await;
    let mut parties = vec![first];
    for n in 0..19 {
        // Every other one only dials.
        let listen: &[&str] = if n % 2 == 0 { &[ANY_PORT] } else { &[] };
        parties.push(start(config(listen, &[&address])).unwrap());
    }
    until("all are connected", || parties.iter().all(|party| !party.overlay.peers().is_empty())).await;
    let began = std::time::Instant::now();
    for (n, party) in parties.iter().enumerate() {
        party.overlay.publish(format!("task {n}").into_bytes()).unwrap();
    }
    for (own, party) in parties.iter_mut().enumerate() {
        let mut heard = vec![format!("task {own}").into_bytes()];
        while heard.len() < 20 {
            heard.push(party.next_message().await);
        }
        heard.sort();
        heard.dedup();
        assert_eq!(heard.len(), 20);
    }
    println!("20 messages reached 20 peers in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_what_was_announced_before_it_came() {
    let (middle, address) = listener(&[]).await;
    let publisher = dialer(&[&address]);
    middle.until_connected(&publisher).await;
    for n in 0..20 {
        publisher.overlay.publish(format!("task {n}").into_bytes()).unwrap();
    }
    until("all are relayed", || middle.overlay.counters().relayed == 20).await;
    publisher.overlay.stop().await;
    let mut late = dialer(&[&address]);
    let mut got = Vec::new();
    for _ in 0..20 {
        got.push(late.next_message().await);
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 20);
    assert_eq!(late.messages_so_far(), Vec::<Vec<u8>>::new(), "each comes once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_nobody_is_there_arrives_when_somebody_comes() {
    let (alone, address) = listener(&[]).await;
    alone.overlay.publish(b"task 1".to_vec()).unwrap();
    let mut late = dialer(&[&address]);
    assert_eq!(late.next_message().await, b"task 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_dies_and_comes_back_is_dialed_again() {
    let mut first = config(&[ANY_PORT], &[]);
    let party = start(first.clone()).unwrap();
    let address = party.address().await;
    let mut dialer = dialer(&[&address]);
    dialer.until_connected(&party).await;
    party.overlay.stop().await;
    until("the loss is noticed", || dialer.overlay.peers().is_empty()).await;

    first.listen = vec![address.into_iter().take(2).collect()];
    let back = start(first).unwrap();
    dialer.until_connected(&back).await;
    back.overlay.publish(b"task 1".to_vec()).unwrap();
    assert_eq!(dialer.next_message().await, b"task 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_address_is_dialed_again_even_if_another_peer_answers_there_now() {
    let (first, address) = listener(&[]).await;
    let without_id = address.into_iter().take(2).collect();
    let dialer = dialer(&[&without_id]);
    dialer.until_connected(&first).await;
    first.overlay.stop().await;
    let mut other = config(&[], &[]);
    other.listen = vec![without_id];
    let other = start(other).unwrap();
    dialer.until_connected(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ignored_message_stops_here_without_blame() {
    let (mut middle, address) = listener(&[]).await;
    let sender = dialer(&[&address]);
    let mut other = dialer(&[&address]);
    middle.until_connected(&sender).await;
    middle.until_connected(&other).await;
    sender.overlay.publish(b"old".to_vec()).unwrap();
    sender.overlay.publish(b"task".to_vec()).unwrap();
    assert_eq!(middle.next_message().await, b"task");
    assert_eq!(other.next_message().await, b"task");
    until("it is counted", || middle.overlay.counters().ignored == [("expired", 1)].into()).await;
    assert!(middle.messages_so_far().is_empty() && other.messages_so_far().is_empty());
    assert!(middle.knows(sender.overlay.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_another_network_do_not_stay() {
    let (party, address) = listener(&[]).await;
    let mut other = config(&[], &[&address]);
    other.network = "elsewhere".to_owned();
    let mut other = start(other).unwrap();
    let met_and_parted = async {
        use xennet_overlay::OverlayEvent::{PeerDown, PeerUp};
        let id = party.overlay.id();
        while other.events.recv().await.unwrap() != PeerUp(id) {}
        while other.events.recv().await.unwrap() != PeerDown(id) {}
    };
    tokio::time::timeout(PATIENCE, met_and_parted).await.unwrap();
}

#[tokio::test]
async fn a_message_that_every_peer_would_refuse_is_refused_here() {
    let party = dialer(&[]);
    assert!(matches!(party.overlay.publish(b"rubbish".to_vec()), Err(OverlayError::Refused { reason: "no work" })));
    let long = vec![b't'; MAX_MESSAGE_BYTES + 1];
    assert!(matches!(party.overlay.publish(long), Err(OverlayError::TooLong { length: 2049, most: 2048 })));
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_error() {
    let (_party, address) = listener(&[]).await;
    let mut taken = config(&[], &[]);
    taken.listen = vec![address.into_iter().take(2).collect()];
    let Err(error) = start(taken) else { panic!("two daemons share a port") };
    assert!(error.to_string().contains("configure another port"), "{error}");
}

#[tokio::test]
async fn a_stopped_overlay_says_so() {
    let party = dialer(&[]);
    party.overlay.stop().await;
    party.overlay.stop().await;
    assert!(matches!(party.overlay.publish(b"task".to_vec()), Err(OverlayError::Stopped)));
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    for network in ["", "Upper", "with space", &"x".repeat(33)] {
        let mut bad = config(&[], &[]);
        bad.network = network.to_owned();
        assert!(matches!(start(bad), Err(OverlayError::Network { .. })), "{network:?}");
    }
    let mut bad = config(&[], &[]);
    bad.bootstrap = vec!["/dns4/example.org/tcp/1".parse().unwrap()];
    let Err(error) = start(bad) else { panic!("a name was taken for an address") };
    assert!(error.to_string().contains("bootstrap address /dns4/example.org/tcp/1"), "{error}");
}
