//! A whole daemon on a disk of its own that is really full: a tmpfs in a mount namespace of its own, which goes with the test.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use xennet_task::LeaseId;
use xennetd::control::{Command, FailureKind, LeaseStage};

use crate::books::{Opening, ledger};
use crate::daemon::Daemon;
use crate::market::{Market, Place, TaskToml};
use crate::wait::wait_until;

/// Set in the process that may mount.
const INSIDE: &str = "XENNET_FULL_DISK";
/// How long the disk stays full, once that is felt. The node waits longer.
const FULL_S: u64 = 10;
/// How long it may take until a full disk is felt: a database has room inside its file.
const FELT_S: u64 = 240;
/// How long all may take to be as it was.
const BACK_S: u64 = 60;

/// Whose disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Publisher,
    Node,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Publisher => "publisher",
            Side::Node => "node",
        }
    }

    /// A node's has room for the disks of guests.
    fn size(self) -> &'static str {
        match self {
            Side::Publisher => "size=24m",
            Side::Node => "size=512m",
        }
    }

    fn daemon(self, market: &Market) -> &Daemon {
        match self {
            Side::Publisher => &market.publisher,
            Side::Node => &market.node,
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Publisher => Side::Node,
            Side::Node => Side::Publisher,
        }
    }
}

#[test]
fn a_publisher_whose_disk_is_full_pays_nothing_and_goes_on_when_there_is_room() {
    apart("full_disk::a_publisher_whose_disk_is_full_pays_nothing_and_goes_on_when_there_is_room", Side::Publisher);
}

#[test]
fn a_node_whose_disk_is_full_serves_nothing_and_goes_on_when_there_is_room() {
    apart("full_disk::a_node_whose_disk_is_full_serves_nothing_and_goes_on_when_there_is_room", Side::Node);
}

/// Runs the test again in a process that may mount.
fn apart(test: &str, side: Side) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(inside(side));
    }
    // As root there is no need of a user namespace, in which a guest could not have a user of its own.
    let own = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let try_it = Program::new("unshare").args([own, "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]).output();
    let why = match try_it {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    };
    if let Some(why) = why {
        // Not through the macros, which a test that passes does not show.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: nothing can be mounted here: {why}");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let status = Program::new("unshare")
        .arg(own)
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "see above");
}

async fn inside(side: Side) {
    let market = Market::open_on(|dir| {
        let disk = dir.join(side.name());
        fs::create_dir(&disk).unwrap();
        let mounted = Program::new("mount").args(["-t", "tmpfs", "-o", side.size(), "none"]).arg(&disk).status().unwrap();
        assert!(mounted.success());
        // Its log is where `xennet` puts it: on the same disk.
        symlink(disk.join("daemon.log"), dir.join(format!("{}.log", side.name()))).unwrap();
        // The least that a host keeps for itself would be more than this disk has.
        Place { disk_mib: (side == Side::Node).then_some(300), ..Place::embedded(dir.join("chain")) }
    })
    .await;
    let opening = Opening::of(&market).await;
    let task = TaskToml { budget_sat: 600_000, ..TaskToml::default() };
    // Traffic is dear, so that there are many payments, each with a line in the ledger: that is what fills the database.
    let dear = task.text().replace("traffic_msat_per_gb = 5_000_000", "traffic_msat_per_gb = 400_000_000");
    let lease = market.rent(dear).await;
    market.pays(lease, 2).await;

    let disk = side.daemon(&market).dir.clone();
    fill(&disk);
    let used = Arc::new(AtomicBool::new(true));
    tokio::join!(use_it(&market, lease, Arc::clone(&used)), async {
        wait_until("a full disk that is felt", FELT_S, async || {
            fill(&disk);
            side.daemon(&market).status().await.disk_failing.is_some()
        })
        .await;
        used.store(false, Ordering::Relaxed);
    });
    nothing_happens(&market, lease, side).await;

    fs::remove_file(disk.join("ballast")).unwrap();
    wait_until("a disk that takes things", BACK_S, async || side.daemon(&market).status().await.disk_failing.is_none()).await;
    market.both("live again", BACK_S, lease, |view| view.stage == LeaseStage::Live && view.tunnel_up).await;
    market.pays(lease, 2).await;
    market.run(lease, "true", b"").await;
    market.publisher.close(lease).await;
    opening.check(&market, lease).await;
    market.guests_are_gone().await;
    drop(market);
    // What is mounted on cannot be removed with the rest.
    let _ = Program::new("umount").arg(&disk).status();
    let _ = fs::remove_dir_all(disk.parent().unwrap());
}

/// While the disk is full, commands are answered and say so; nobody is paid, nothing is closed, and the chain hears of nothing.
async fn nothing_happens(market: &Market, lease: LeaseId, side: Side) {
    let (full, other) = (side.daemon(market), side.other().daemon(market));
    // Whatever went out before is there by now, and the tunnels are cut.
    wait_until("a cut", 20, async || !other.lease(lease).await.tunnel_up).await;
    let totals = async || {
        let totals = other.lease(lease).await.totals.unwrap();
        (totals.payments, totals.total_sat, totals.owed_msat)
    };
    let before = (totals().await, ledger(full, lease).await);
    let chain = market.chain().await;
    let tip = chain.tip().await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(FULL_S) {
        let status = full.status().await;
        let why = status.disk_failing.expect("the disk is full");
        assert!(why.contains("is full") && why.contains("Make room"), "{why}");
        assert_eq!(status.leases_open, 1);
        assert_eq!(full.balance().await.locked_sat > 0, side == Side::Publisher);
        assert_eq!(full.leases().await.len(), 1);
        let refused = full.ask_in_vain(Command::CloseLease { lease }).await;
        assert_eq!(refused.kind, FailureKind::Unavailable);
        assert!(refused.message.contains("nothing was done") && refused.message.contains("is full"), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let after = (totals().await, ledger(full, lease).await);
    assert_eq!(before, after, "nothing is paid, nothing is owed, and the ledger is what it was");
    assert!(full.lease(lease).await.close_txid.is_none() && other.lease(lease).await.close_txid.is_none());
    assert_eq!(chain.tip().await.unwrap(), tip, "no transaction came, so no block");
    chain.close().await;
    let log = fs::metadata(full.dir.join("daemon.log")).unwrap().len();
    eprintln!("full for {FULL_S} s after it was felt: {} payments, {} ledger lines, a log of {log} bytes", after.0.0, after.1.len());
}

/// Takes all room there is.
fn fill(disk: &Path) {
    let mut ballast = File::options().create(true).append(true).open(disk.join("ballast")).unwrap();
    for bytes in [1 << 20, 1 << 12] {
        let block = vec![0; bytes];
        while ballast.write_all(&block).is_ok() {}
    }
}

/// Moves bytes out of the guest until told otherwise, or until the tunnel is cut.
async fn use_it(market: &Market, lease: LeaseId, used: Arc<AtomicBool>) {
    while used.load(Ordering::Relaxed) {
        let guest = market.guest(lease).await;
        while used.load(Ordering::Relaxed) {
            let moved = tokio::time::timeout(Duration::from_secs(10), guest.run("dd if=/dev/zero bs=16k count=16 2>/dev/null", b"")).await;
            if !matches!(moved, Ok(Ok(_))) {
                break;
            }
        }
    }
}
