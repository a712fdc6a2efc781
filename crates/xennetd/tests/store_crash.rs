//! The store against kills and a full disk. Each test runs its own program again as a child that can be harmed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xennetd::store::{Batch, Store, StoreError, Table};

/// Tells the child what to do. Without it the child's tests do nothing.
const PART: &str = "XENNET_STORE_TEST_PART";
const DIR: &str = "XENNET_STORE_TEST_DIR";

const WRITERS: u8 = 4;

fn child(test: &str, dir: &Path, via: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<std::ffi::OsString> = via.iter().map(Into::into).collect();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, test).env(DIR, dir);
    command
}

fn part(test: &str) -> Option<std::path::PathBuf> {
    (std::env::var_os(PART)? == test).then(|| std::env::var_os(DIR).unwrap().into())
}

fn counter(store: &Store, writer: u8) -> u64 {
    store.get(Table::Leases, &[writer]).unwrap().map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// Writes counters for ever and says each acknowledged one.
#[test]
fn child_that_counts() {
    let Some(dir) = part("child_that_counts") else { return };
    let store = Store::open(&dir).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for count in counter(store, writer) + 1.. {
                    let mut batch = Batch::new();
                    batch.put(Table::Leases, &[writer], &count.to_le_bytes());
                    store.persist_blocking(batch, ()).unwrap().into_inner();
                    // One write for the line, so that a kill cannot tear it.
                    std::io::stdout().write_all(format!("ack {writer} {count}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}

/// The child is killed without warning while several threads write. What it acknowledged must be there, and nothing it was
/// never asked to write: each counter is the last acknowledged one or the one after it (M1).
#[test]
fn after_a_kill_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0_u64; WRITERS as usize];
    let mut total = 0_u64;
    for round in 0..25_u64 {
        let mut running: Child = child("child_that_counts", dir.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines();
        // Another number of lines each round, so that kills hit all phases of a commit.
        let mut left = 10 + round * 7 % 40;
        for line in lines {
            let line = line.unwrap();
            if let Some(rest) = line.split("ack ").nth(1) {
                let (writer, count) = rest.split_once(' ').unwrap();
                acknowledged[writer.parse::<usize>().unwrap()] = count.parse().unwrap();
                total += 1;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                // Lines already in the pipe are still read: they were acknowledged too.
                running.kill().unwrap();
            }
        }
        running.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for writer in 0..WRITERS {
            let (recovered, acknowledged) = (counter(&store, writer), acknowledged[usize::from(writer)]);
            assert!(
                recovered == acknowledged || recovered == acknowledged + 1,
                "writer {writer}: acknowledged {acknowledged}, recovered {recovered}"
            );
        }
    }
    println!("25 kills, {total} acknowledged writes, none lost");
    assert!(total > 250);
}

/// Runs on a file system of its own with 4 MiB.
#[test]
fn child_with_a_small_disk() {
    let Some(dir) = part("child_with_a_small_disk") else { return };
    let data_dir = dir.join("data");
    let store = Store::open(&data_dir).unwrap();
    let mut written = 0_u64;
    let write = |number: u64| {
        let mut batch = Batch::new();
        batch.put(Table::Single, &number.to_be_bytes(), &[7; 32 * 1024]);
        store.persist_blocking(batch, ()).map(|persisted| persisted.sequence())
    };
    let full = loop {
        match write(written) {
            Ok(_) => written += 1,
            Err(unpersisted) => break unpersisted.error,
        }
        assert!(written < 1000, "the disk never gets full");
    };
    assert!(matches!(full, StoreError::DiskFull { .. }), "{full:?}");
    let message = full.to_string();
    assert!(message.contains("is full") && message.contains("Make room"), "{message}");

    // Reading goes on, nothing acknowledged is lost, and it stays an error as long as there is no room.
    let all_there = |store: &Store| {
        for number in 0..written {
            assert_eq!(store.get(Table::Single, &number.to_be_bytes()).unwrap().unwrap(), [7; 32 * 1024]);
        }
    };
    all_there(&store);
    assert!(matches!(write(written).unwrap_err().error, StoreError::DiskFull { .. }));
    all_there(&store);

    // With room it goes on by itself.
    fs::remove_file(dir.join("ballast")).unwrap();
    write(written).unwrap();
    drop(store);
    let store = Store::open(&data_dir).unwrap();
    all_there(&store);
    println!("small disk: {written} records, then full, then on");
}

#[test]
fn a_full_disk_is_named_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8m none "$XENNET_STORE_TEST_DIR" || exit 77
        dd if=/dev/zero of="$XENNET_STORE_TEST_DIR/ballast" bs=1M count=4 status=none
        exec "$@""#;
    let via = ["unshare", "-Urm", "sh", "-c", script, "sh"];
    let output = child("child_with_a_small_disk", dir.path(), &via).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        // Some hosts forbid user namespaces; there is no other way to a small file system without root.
        // Not through the macros, which a test that passes does not show.
        let _ = writeln!(std::io::stderr(), "NOT RUN: a_full_disk_is_named_and_nothing_is_lost: this host has no user namespaces");
        return;
    }
    assert!(output.status.success(), "{text}");
    assert!(text.contains("then full, then on"), "{text}");
}
