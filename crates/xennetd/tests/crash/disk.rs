//! The store alone on a disk that fails: each operation of the disk, with each fault.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use xennet_lease::{LedgerEntry, LedgerKind};
use xennet_task::{LeaseId, Msat, Usage};
use xennetd::store::{Batch, Medium, Store, StoreError, Table};

use crate::forgetful::{Fault, Forgetful};

const LEASE: LeaseId = LeaseId([1; 8]);
const LINES: u64 = 4;
/// A batch is given to the store so often, at the most.
const MOST_TRIES: u32 = 20;

fn line(number: u64) -> LedgerEntry {
    let kind = LedgerKind::Paid;
    LedgerEntry {
        at_ms: number,
        kind,
        usage: Usage::default(),
        owed: Msat(0),
        paid_sat: number,
        fee_sat: 0,
        txid: None,
        note: String::new(),
    }
}

fn open(dir: &std::path::Path, disk: &Forgetful) -> Store {
    Store::open_on(dir, Medium::Through(Arc::new(disk.clone()))).unwrap()
}

/// Writes a state and a ledger line, again and again until the disk takes them, as the daemon does; says how often it was refused.
fn write(store: &Store, number: u64) -> u32 {
    let mut batch = Batch::new();
    batch.put(Table::Leases, &LEASE.0, &number.to_be_bytes());
    batch.append(LEASE, &line(number)).unwrap();
    for tries in 0..MOST_TRIES {
        match store.persist_blocking(batch, ()) {
            Ok(persisted) => {
                persisted.into_inner();
                assert!(store.failing().is_none());
                return tries;
            }
            Err(unpersisted) => batch = unpersisted.batch,
        }
        assert!(store.failing().is_some(), "it says that the disk fails");
    }
    panic!("the store never takes {number}");
}

fn written(store: &Store) -> (Option<Vec<u8>>, Vec<u64>) {
    let page = store.ledger(LEASE, 0, 100).unwrap();
    (store.get(Table::Leases, &LEASE.0).unwrap(), page.entries.iter().map(|entry| entry.paid_sat).collect())
}

/// Runs it once with a fault; says how many operations there were and how many writes were refused.
fn with(fault: Option<Fault>) -> (u64, u32) {
    let (disk, dir) = (Forgetful::default(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), &disk);
    disk.arm(fault);
    let refused = (1..=LINES).map(|number| write(&store, number)).sum();
    let operations = disk.operations();
    let expected = (Some(LINES.to_be_bytes().to_vec()), (1..=LINES).collect::<Vec<_>>());
    assert_eq!(written(&store), expected, "{fault:?}: each line once");
    // All of it was acknowledged, so all of it is there when the power fails now.
    disk.lose_power(0);
    drop(store);
    disk.turn_on();
    disk.arm(None);
    assert_eq!(written(&open(dir.path(), &disk)), expected, "{fault:?}: after the power failed");
    (operations, refused)
}

#[test]
fn whatever_operation_of_the_disk_fails_each_line_of_a_ledger_is_written_once_and_what_was_acknowledged_stays() {
    let (operations, refused) = with(None);
    assert!(operations > 10 && refused == 0);
    let mut refused = [0; 3];
    for at in 0..operations {
        for times in 1..=3 {
            refused[0] += with(Some(Fault::Full { at, times })).1;
            refused[1] += with(Some(Fault::BadWrite { at, times })).1;
            for survives in [0, u64::MAX, at.wrapping_mul(0x9e37_79b9_7f4a_7c15)] {
                refused[2] += with(Some(Fault::BadSync { at, times, survives })).1;
            }
        }
    }
    println!(
        "{operations} operations; refused by a full disk {}, by failed writes {}, by failed syncs {}",
        refused[0], refused[1], refused[2]
    );
    assert!(refused.iter().all(|count| *count > operations as u32 / 4), "{refused:?}");
}

/// The disk fails for one caller, and another comes before the first comes back: the line of neither is written twice or forgotten.
#[test]
fn a_batch_that_comes_back_late_is_still_known() {
    let batch = |number| {
        let mut batch = Batch::new();
        batch.append(LEASE, &line(number)).unwrap();
        batch
    };
    let (mut late, mut at) = (0, 0);
    loop {
        let (disk, dir) = (Forgetful::default(), tempfile::tempdir().unwrap());
        let store = open(dir.path(), &disk);
        write(&store, 1);
        disk.arm(Some(Fault::BadSync { at, times: 1, survives: 0 }));
        let (first, second) = (store.persist_blocking(batch(2), ()), store.persist_blocking(batch(3), ()));
        if disk.failed() == 0 {
            break;
        }
        late += usize::from(first.is_err());
        for unpersisted in [second, first].into_iter().filter_map(Result::err) {
            assert!(matches!(unpersisted.error, StoreError::Io { .. }), "{:?}", unpersisted.error);
            store.persist_blocking(unpersisted.batch, ()).unwrap().into_inner();
        }
        let mut lines = written(&store).1;
        lines.sort_unstable();
        assert_eq!(lines, [1, 2, 3], "the sync {at} fails");
        at += 1;
    }
    assert!(late > 4, "{late}");
}

/// What a failed sync left is not trusted: the database is written into a new file. A failed write leaves no such doubt.
#[test]
fn after_a_failed_sync_the_database_is_another_file() {
    for (fault, renewed) in [(Fault::BadSync { at: 0, times: 1, survives: 0 }, true), (Fault::BadWrite { at: 0, times: 1 }, false)] {
        let (disk, dir) = (Forgetful::default(), tempfile::tempdir().unwrap());
        let store = open(dir.path(), &disk);
        let inode = || std::fs::metadata(dir.path().join("state.redb")).unwrap().ino();
        let before = inode();
        disk.arm(Some(fault));
        assert_eq!(write(&store, 1), 1);
        assert_eq!(inode() != before, renewed, "{fault:?}");
    }
}

/// A store of an older version, in the clear, is sealed; the power fails at each operation of that.
#[test]
fn a_store_that_is_sealed_while_the_power_fails_can_be_read_with_the_key_afterwards() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut sealed_later = 0;
    for at in 0.. {
        let (disk, dir) = (Forgetful::default(), tempfile::tempdir().unwrap());
        let store = open(dir.path(), &disk);
        for lease in 0..5 {
            store
                .persist_blocking(
                    {
                        let mut batch = Batch::new();
                        batch.put(Table::Leases, &[lease], b"secret");
                        batch
                    },
                    (),
                )
                .unwrap()
                .into_inner();
        }
        disk.arm(Some(Fault::PowerLoss { at, survives: at.wrapping_mul(0x9e37_79b9_7f4a_7c15) }));
        let died = runtime.block_on(store.seal_with(&[7; 32])).is_err();
        disk.lose_power(at);
        drop(store);
        disk.turn_on();
        disk.arm(None);
        let store = open(dir.path(), &disk);
        let left = runtime.block_on(store.seal_with(&[7; 32])).unwrap();
        assert!(left == 0 || left == 5, "all are sealed or none, not {left}");
        sealed_later += usize::from(left == 5);
        assert_eq!(store.scan(Table::Leases).unwrap(), (0..5).map(|lease| (vec![lease], b"secret".to_vec())).collect::<Vec<_>>());
        drop(store);
        assert!(
            matches!(open(dir.path(), &disk).scan(Table::Leases), Err(StoreError::OtherWallet { .. })),
            "without the key nothing is read"
        );
        if !died {
            assert!(at > 5 && sealed_later > 1);
            return;
        }
    }
}
