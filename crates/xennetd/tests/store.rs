//! What the store promises, as laws: nothing acknowledged is lost, nothing old or damaged is taken for good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use xennet_lease::{LedgerEntry, LedgerKind};
use xennet_task::{LeaseId, Msat, Usage};
use xennetd::store::{Batch, Store, StoreError, Table, durable_updates};

fn put(store: &Store, key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let mut batch = Batch::new();
    batch.put(Table::Single, key, value);
    Ok(store.persist_blocking(batch, ())?.sequence())
}

fn entry(number: u64) -> LedgerEntry {
    LedgerEntry {
        at_ms: number,
        kind: LedgerKind::Paid,
        usage: Usage { core_ms: number * 1000, ..Usage::default() },
        owed: Msat(number * 10),
        paid_sat: number,
        fee_sat: 0,
        txid: None,
        note: String::new(),
    }
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put(&store, b"a", b"1").unwrap();
    put(&store, b"b", b"2").unwrap();
    put(&store, b"a", b"3").unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.get(Table::Single, b"a").unwrap().unwrap(), b"3");
    assert_eq!(store.scan(Table::Single).unwrap(), [(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
    assert_eq!(store.get(Table::Leases, b"a").unwrap(), None);
    assert!(store.scan(Table::Leases).unwrap().is_empty());
}

#[test]
fn sequences_grow_over_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let store = Store::open(dir.path()).unwrap();
        for _ in 0..5 {
            let sequence = put(&store, b"k", b"v").unwrap();
            assert!(sequence > last);
            last = sequence;
        }
    }
}

#[test]
fn a_second_daemon_on_one_data_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let message = Store::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    assert!(message.contains("xennet --datadir"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_database_put_back_from_a_copy_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("state.redb");
    let copy = dir.path().join("copy");
    put(&Store::open(dir.path()).unwrap(), b"total", b"100").unwrap();
    fs::copy(&database, &copy).unwrap();
    put(&Store::open(dir.path()).unwrap(), b"total", b"200").unwrap();
    fs::copy(&copy, &database).unwrap();

    match Store::open(dir.path()).unwrap_err() {
        StoreError::RolledBack { found, acknowledged, .. } => assert!(found < acknowledged, "{found} {acknowledged}"),
        other => panic!("{other}"),
    }
    // It stays refused: a second start must not paper over it.
    assert!(matches!(Store::open(dir.path()), Err(StoreError::RolledBack { .. })));
    // The remedy that the message names, for whoever accepts the loss.
    fs::remove_file(dir.path().join("state.sequence")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.get(Table::Single, b"total").unwrap().unwrap(), b"100");
}

#[test]
fn a_lost_database_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    put(&Store::open(dir.path()).unwrap(), b"total", b"100").unwrap();
    fs::remove_file(dir.path().join("state.redb")).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::RolledBack { found: 0, .. })));
}

#[test]
fn a_database_of_another_data_directory_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &other] {
        put(&Store::open(dir.path()).unwrap(), b"k", b"v").unwrap();
    }
    fs::copy(one.path().join("state.redb"), other.path().join("state.redb")).unwrap();
    assert!(matches!(Store::open(other.path()), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_torn_sequence_file_still_has_its_other_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sequence");
    for slot in [0, 4096] {
        put(&Store::open(dir.path()).unwrap(), b"k", b"v").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 40], slot).unwrap();
        Store::open(dir.path()).unwrap();
    }
    fs::write(&path, [0; 8192]).unwrap();
    let message = Store::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("state.sequence is damaged"), "{message}");
}

/// Flips one byte after the other all over the database. Each time the store must refuse to open, refuse to read, or give
/// exactly what was written: never another value, never an older one.
#[test]
fn damage_never_shows_as_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("state.redb");
    {
        let store = Store::open(dir.path()).unwrap();
        for round in 0..20_u8 {
            for key in 0..10_u8 {
                put(&store, &[key], &[round; 100]).unwrap();
            }
        }
    }
    let whole = fs::read(&database).unwrap();
    let sequence = fs::read(dir.path().join("state.sequence")).unwrap();
    let written: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let (mut refused, mut unharmed) = (0, 0);
    for nth in 0..500 {
        let mut damaged = whole.clone();
        // Spread over all that was ever written, by a step that is prime to most lengths.
        let at = written[nth * 104_729 % written.len()];
        damaged[at] ^= 0x5a;
        fs::write(&database, &damaged).unwrap();
        fs::write(dir.path().join("state.sequence"), &sequence).unwrap();
        let read = || -> Result<(), StoreError> {
            let store = Store::open(dir.path())?;
            for key in 0..10_u8 {
                assert_eq!(store.get(Table::Single, &[key])?, Some(vec![19; 100]), "byte {at}, key {key}");
            }
            Ok(())
        };
        match read() {
            Ok(()) => unharmed += 1,
            Err(_) => refused += 1,
        }
    }
    println!("500 damaged copies: {refused} refused, {unharmed} unharmed, 0 silent");
}

#[test]
fn a_batch_is_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut batch = Batch::new();
    batch.put(Table::Leases, b"l", b"state");
    batch.append(LeaseId([1; 8]), &entry(1)).unwrap();
    batch.put(Table::Single, b"big", &vec![0; 65 * 1024 * 1024]);
    let unpersisted = store.persist_blocking(batch, "the message").unwrap_err();
    assert!(matches!(unpersisted.error, StoreError::TooLarge { .. }));
    // What was to be sent comes back to the caller, but not as something that may be sent.
    assert_eq!(unpersisted.value, "the message");
    assert!(!unpersisted.batch.is_empty());
    assert_eq!(store.get(Table::Leases, b"l").unwrap(), None);
    assert_eq!(store.ledger(LeaseId([1; 8]), 0, 10).unwrap().total, 0);
}

#[test]
fn ledgers_keep_their_order_and_are_read_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (LeaseId([1; 8]), LeaseId([2; 8]));
    for reopened in 0..2 {
        let store = Store::open(dir.path()).unwrap();
        for number in 0..300 {
            let mut batch = Batch::new();
            batch.append(one, &entry(reopened * 300 + number)).unwrap();
            batch.append(other, &entry(7)).unwrap();
            store.persist_blocking(batch, ()).unwrap().into_inner();
        }
    }
    let store = Store::open(dir.path()).unwrap();
    let mut read = Vec::new();
    loop {
        let page = store.ledger(one, read.len() as u64, 97).unwrap();
        assert_eq!(page.total, 600);
        if page.entries.is_empty() {
            break;
        }
        read.extend(page.entries);
    }
    assert_eq!(read, (0..600).map(entry).collect::<Vec<_>>());
    assert_eq!(store.ledger(other, 599, 10).unwrap().entries, [entry(7)]);
    assert!(store.ledger(LeaseId([3; 8]), 0, 10).unwrap().entries.is_empty());
}

#[test]
fn only_its_owner_may_read_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new");
    let store = Store::open(&data_dir).unwrap();
    put(&store, b"k", b"v").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for file in ["state.redb", "state.sequence", "lock"] {
        assert_eq!(mode(&data_dir.join(file)), 0o600, "{file}");
    }
}

#[test]
fn many_leases_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let span = Duration::from_secs(1);
    let one = durable_updates(&dir.path().join("one"), 1, 600, span).unwrap();
    let hundred = durable_updates(&dir.path().join("hundred"), 100, 600, span).unwrap();
    println!("durable updates a second: 1 lease {}, 100 leases {}", one.updates_per_s, hundred.updates_per_s);
    assert!(hundred.updates_per_s > 5 * one.updates_per_s, "{one:?} {hundred:?}");
}

#[tokio::test]
async fn callers_inside_the_runtime_wait_without_blocking_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let writes = (0..50_u8).map(|key| {
        let store = store.clone();
        async move { store.put_many(&[(Table::Single, &[key], b"v"), (Table::Tasks, &[key], b"w")]).await }
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap().into_inner();
    }
    assert_eq!(store.scan(Table::Tasks).unwrap().len(), 50);
}

#[tokio::test]
async fn secrets_of_channels_are_encrypted_also_those_that_an_older_version_wrote_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let secret = br#"{"channel_secret":"5ec2e7"}"#;
    {
        let store = Store::open(dir.path()).unwrap();
        let _kept = store.put_many(&[(Table::Leases, b"old", secret), (Table::Tasks, b"task", b"public")]).await.unwrap();
    }
    {
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.seal_with(&[7; 32]).await.unwrap(), 1);
        let _kept = store.put_many(&[(Table::Leases, b"new", secret)]).await.unwrap();
        assert_eq!(store.scan(Table::Leases).unwrap(), [(b"new".to_vec(), secret.to_vec()), (b"old".to_vec(), secret.to_vec())]);
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.seal_with(&[7; 32]).await.unwrap(), 0, "once is enough");
    assert_eq!(store.get(Table::Leases, b"old").unwrap().unwrap(), secret);
    assert_eq!(store.get(Table::Tasks, b"task").unwrap().unwrap(), b"public");
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    let message = store.get(Table::Leases, b"old").unwrap_err().to_string();
    assert!(message.contains("encrypted for another wallet") && message.contains("put back the wallet"), "{message}");
    store.seal_with(&[8; 32]).await.unwrap();
    assert!(matches!(store.scan(Table::Leases), Err(StoreError::OtherWallet { .. })));
}

#[tokio::test]
async fn nothing_that_is_written_to_an_encrypted_table_is_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.seal_with(&[7; 32]).await.unwrap();
    for round in 0..20_u8 {
        let _kept = store.put_many(&[(Table::Leases, &[round], b"a secret of a channel")]).await.unwrap();
    }
    drop(store);
    let file = fs::read(dir.path().join("state.redb")).unwrap();
    assert!(!file.windows(8).any(|part| part == b"a secret"));
}
