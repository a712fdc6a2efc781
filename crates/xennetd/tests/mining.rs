//! Mining uses all cores, finds what is there, and goes on where it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Mutex;

use xennet_identity::{Anchor, IdentityTemplate, Role, Target, TargetSchedule};
use xennetd::keys::Keys;
use xennetd::mining::{MiningError, StopSwitch, mine_identity, mined, search};
use xennetd::store::{Store, Table};

const TIP: u32 = 200;

fn schedule(bits: u8) -> TargetSchedule {
    TargetSchedule { base: Target::from_leading_zero_bits(bits), ..TargetSchedule::REGTEST }
}

fn template(dir: &std::path::Path, height: u32) -> IdentityTemplate {
    let key = Keys::open(dir).unwrap().identity(Role::Node).public_key();
    IdentityTemplate { role: Role::Node, key, anchor: Anchor { height, hash: [3; 32] } }
}

#[test]
fn ranges_are_handed_out_once_each_without_gaps() {
    let seen = Mutex::new(HashSet::new());
    let found = search(
        1000,
        &StopSwitch::new(),
        |first, count| {
            assert!(seen.lock().unwrap().insert(first));
            (first..first + count).contains(&10_000_000).then_some(10_000_000)
        },
        |_| {},
    );
    assert_eq!(found, Some(10_000_000));
    let seen = seen.into_inner().unwrap();
    let mut firsts: Vec<u64> = seen.into_iter().collect();
    firsts.sort_unstable();
    assert_eq!(firsts[0], 1000);
    assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] == firsts[1] - firsts[0]));
}

#[test]
fn a_mined_identity_meets_its_target_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let schedule = schedule(18);
    let mut views = Vec::new();
    let identity = mine_identity(&store, template(dir.path(), 190), &schedule, TIP, &StopSwitch::new(), |view| views.push(view)).unwrap();
    schedule.check(&identity, TIP).unwrap();
    assert_eq!(mined(&store, Role::Node).unwrap(), Some(identity));
    assert_eq!(mined(&store, Role::Publisher).unwrap(), None);
    assert_eq!(store.get(Table::Mining, b"node").unwrap(), None);
    let last = views.last().unwrap();
    assert!(last.hashes > 0 && last.expected_hashes >= 1 << 17 && last.threads >= 1, "{last:?}");
}

#[test]
fn what_was_tried_before_a_stop_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    // Nobody finds that: only the stop ends it.
    let hopeless = schedule(200);
    let run = |until: u64| {
        let stop = StopSwitch::new();
        let mut last = None;
        let outcome = mine_identity(&store, template(dir.path(), 190), &hopeless, TIP, &stop, |view| {
            if view.next_nonce >= until {
                stop.stop();
            }
            last = Some(view);
        });
        assert!(matches!(outcome, Err(MiningError::Stopped)));
        last.unwrap()
    };
    let first = run(1);
    let second = run(first.next_nonce + 1);
    assert!(second.next_nonce > first.next_nonce);
    // Each nonce was tried once: the hashes of both runs together are the nonces up to the last one.
    assert_eq!((first.hashes, second.hashes), (first.next_nonce, second.next_nonce));

    // With an anchor that has become too old it begins anew.
    let old = TIP + hopeless.max_anchor_age;
    let stop = StopSwitch::new();
    let mut begun = None;
    let outcome = mine_identity(&store, template(dir.path(), old - 10), &hopeless, old, &stop, |view| {
        begun.get_or_insert(view.hashes);
        stop.stop();
    });
    assert!(matches!(outcome, Err(MiningError::Stopped)));
    assert!(begun.unwrap() < second.hashes, "{begun:?}");
}
