//! Leases brought back from a backup that is older than what the other side has seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod pair;

use std::time::Duration;

use pair::{Pair, Who};
use xennet_lease::{CloseReason, Input, Lease, Restored, Stage};
use xennet_rama::SETTLE_BEFORE_REFUND;
use xennet_task::PayoutInterval;

/// A lease that has gone on for a while since the backup, and the backups of both sides.
fn gone_on() -> (Pair, [String; 2]) {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)));
    assert!(pair.until(60, Pair::both_live));
    pair.until(6, |_| false);
    let backups = [&pair.publisher.disk, &pair.node.disk].map(|disk| {
        let mut lease: Lease = serde_json::from_str(disk).unwrap();
        lease.came_from_backup();
        serde_json::to_string(&lease).unwrap()
    });
    pair.until(12, |_| false);
    (pair, backups)
}

fn total(lease: &Lease) -> u64 {
    lease.account.as_ref().unwrap().total_sat()
}

fn settled_for(lease: &Lease) -> u64 {
    let Stage::Settled { .. } = lease.stage else { panic!("{:?}", lease.stage) };
    total(lease)
}

#[test]
fn a_node_out_of_a_backup_without_its_guest_settles_nothing_before_the_publisher_has_paid_again() {
    let (mut pair, [_, backup]) = gone_on();
    let held = total(&pair.node.lease);
    pair.reachable = false;
    pair.cut();
    pair.restore(Who::Node, &backup);
    assert!(total(&pair.node.lease) < held, "it has forgotten");
    pair.feed(Who::Node, Input::MachineFailed("no such guest".into()));
    assert!(matches!(pair.node.lease.stage, Stage::Closing { reason: CloseReason::MachineLost }));
    // Longer than any patience, and through another restart, with blocks that would carry a settlement.
    for _ in 0..3 {
        pair.until(60, |_| false);
        pair.kill(Who::Node);
        pair.restart(Who::Node);
        assert!(pair.node.lease.awaits_the_other_side() && !pair.node.lease.is_over());
        assert!(pair.chain.len() == 1 && pair.mempool.is_empty(), "only the funding is there");
    }
    pair.reachable = true;
    assert!(pair.until(60, Pair::both_over), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    assert!(settled_for(&pair.node.lease) >= held, "nothing that was paid is lost");
    assert_eq!(pair.node.lease.restored, Restored::No);
}

#[test]
fn a_node_whose_publisher_never_returns_settles_what_it_knows_of_before_the_refund() {
    let (mut pair, [_, backup]) = gone_on();
    pair.kill(Who::Publisher);
    pair.restore(Who::Node, &backup);
    let known = total(&pair.node.lease);
    pair.until(300, |_| false);
    assert!(matches!(pair.node.lease.stage, Stage::Closing { .. }), "its patience is over, and it waits all the same");
    let refund_height = pair.node.lease.account.as_ref().unwrap().channel.terms.refund_height;
    while pair.height < refund_height - SETTLE_BEFORE_REFUND {
        assert!(!pair.node.lease.is_over());
        pair.mine();
    }
    assert!(pair.until(60, |pair| pair.node.lease.is_over()));
    assert!(pair.height < refund_height);
    assert_eq!(settled_for(&pair.node.lease), known);
}

#[test]
fn a_publisher_out_of_a_backup_signs_nothing_before_the_node_has_spoken_and_pays_on_from_there() {
    let (mut pair, [backup, _]) = gone_on();
    let held = total(&pair.node.lease);
    pair.reachable = false;
    pair.cut();
    pair.restore(Who::Publisher, &backup);
    let known = total(&pair.publisher.lease);
    assert!(known < held);
    pair.until(20, |_| false);
    assert_eq!(total(&pair.publisher.lease), known, "it signs nothing");
    assert!(pair.publisher.lease.awaits_the_other_side());
    pair.reachable = true;
    assert!(pair.until(20, |pair| total(&pair.node.lease) > held + 1), "payments go on");
    assert!(!pair.publisher.lease.awaits_the_other_side());
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
}

#[test]
fn a_lease_that_was_over_is_not_marked() {
    let (mut pair, _) = gone_on();
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    let before = pair.node.lease.revision;
    pair.node.lease.came_from_backup();
    assert_eq!((pair.node.lease.restored, pair.node.lease.revision), (Restored::No, before));
}
