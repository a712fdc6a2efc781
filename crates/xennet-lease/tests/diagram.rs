//! The diagram in docs/protocol.md against what both sides really do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod pair;

use std::collections::BTreeSet;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Transaction, TxIn};
use pair::{Pair, Who, dice};
use xennet_lease::{CloseReason, EndReason, Input, Message, Side, Stage};
use xennet_task::PayoutInterval;

type Ways = BTreeSet<(String, String)>;

fn drawn() -> Ways {
    let protocol = include_str!("../../../docs/protocol.md");
    let diagram = protocol.split("stateDiagram-v2").nth(1).unwrap().split("```").next().unwrap();
    let way = |line: &str| {
        let (from, rest) = line.trim().split_once(" --> ")?;
        let to = rest.split(':').next()?;
        (from != "[*]" && to != "[*]").then(|| (from.to_owned(), to.to_owned()))
    };
    diagram.lines().filter_map(way).collect()
}

fn new() -> Pair {
    Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)))
}

fn until(pair: &mut Pair, condition: impl Fn(&Pair) -> bool) {
    assert!(pair.until(120, condition), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
}

fn settled_and_taken_back() -> Pair {
    let mut pair = new();
    until(&mut pair, Pair::both_live);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    until(&mut pair, Pair::both_over);
    let (close, _) = pair.chain.pop().unwrap();
    for who in [Who::Publisher, Who::Node] {
        pair.feed(who, Input::Gone(close.compute_txid()));
    }
    until(&mut pair, Pair::both_over);
    pair
}

fn nobody_dials() -> Pair {
    let mut pair = new();
    pair.reachable = false;
    until(&mut pair, Pair::both_over);
    pair
}

fn cut_while_measuring_and_never_agreed() -> Pair {
    let mut pair = new();
    pair.overlay = false;
    pair.opens = false;
    until(&mut pair, |pair| pair.publisher.lease.stage == Stage::Measuring);
    pair.cut();
    until(&mut pair, Pair::both_over);
    pair
}

fn machine_refused() -> Pair {
    let mut pair = new();
    pair.figures.memory_mib = 16;
    until(&mut pair, Pair::both_over);
    pair
}

fn proposal_refused() -> Pair {
    let mut pair = new();
    if let Side::Node(side) = &mut pair.node.lease.side {
        side.policy.floor.cpu_msat_per_ghz_hour = u64::MAX / 1000;
    }
    until(&mut pair, Pair::both_over);
    pair
}

/// The publisher's process stands still from the moment the node has agreed.
fn agreed_by_the_node_alone() -> Pair {
    let mut pair = new();
    until(&mut pair, |pair| pair.publisher.lease.stage == Stage::Proposed);
    pair.publisher.alive = false;
    until(&mut pair, |pair| pair.node.lease.stage == Stage::Agreed);
    pair
}

fn never_funded() -> Pair {
    let mut pair = agreed_by_the_node_alone();
    until(&mut pair, |pair| pair.node.lease.is_over());
    pair
}

fn funded_and_never_paid() -> Pair {
    let mut pair = agreed_by_the_node_alone();
    let output = pair.node.lease.account.as_ref().unwrap().channel.terms.funding_output();
    let input = TxIn { previous_output: OutPoint { vout: 3, ..OutPoint::null() }, ..TxIn::default() };
    let funding = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] };
    let transaction = bitcoin::consensus::encode::serialize_hex(&funding);
    pair.feed(Who::Node, Input::Heard(Message::Funded { transaction, vout: 0 }));
    let height = Some(pair.height);
    pair.feed(Who::Node, Input::Seen { transaction: funding, height });
    pair.feed(Who::Node, Input::Close(CloseReason::NodeDone));
    until(&mut pair, |pair| pair.node.lease.is_over());
    assert!(matches!(pair.node.lease.stage, Stage::Ended { reason: EndReason::NothingToSettle(_) }));
    pair
}

fn settled_while_the_publisher_was_away() -> Pair {
    let mut pair = new();
    until(&mut pair, Pair::both_live);
    pair.until(10, |_| false);
    pair.kill(Who::Publisher);
    until(&mut pair, |pair| pair.node.lease.is_over());
    pair.restart(Who::Publisher);
    until(&mut pair, Pair::both_over);
    pair
}

/// Either side dies, or the tunnel is cut, at any moment.
fn under_fire(seed: u64) -> Pair {
    let mut roll = dice(seed);
    let mut pair = new();
    for _ in 0..roll(4) + 1 {
        pair.strike(&mut roll, 120, 20);
    }
    pair.until(600, Pair::both_over);
    pair
}

#[test]
fn the_diagram_shows_every_way_that_is_taken_and_no_other() {
    let stories = [
        settled_and_taken_back,
        nobody_dials,
        cut_while_measuring_and_never_agreed,
        machine_refused,
        proposal_refused,
        never_funded,
        funded_and_never_paid,
        settled_while_the_publisher_was_away,
    ];
    let mut taken: Ways = stories.iter().flat_map(|story| story().ways).collect();
    taken.extend((0..200).flat_map(|seed| under_fire(seed).ways));
    let drawn = drawn();
    let missing: Vec<_> = taken.difference(&drawn).collect();
    let idle: Vec<_> = drawn.difference(&taken).collect();
    assert!(missing.is_empty(), "taken, but not in docs/protocol.md: {missing:?}");
    assert!(idle.is_empty(), "in docs/protocol.md, but never taken: {idle:?}");
    println!("{} ways between stages, all drawn and all taken", drawn.len());
}
