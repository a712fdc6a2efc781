//! Who hosts the chain, and what happens when the host goes away.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::Txid;
use tokio::sync::mpsc;
use xennet_chain::{Chain, ChainConfig, ChainError, ChainEvent, Status};

use crate::rig::{Lock, open, open_with, rig, seen, until};

/// Tells the child of a test which directory to host.
const CHILD: &str = "XENNET_CHAIN_TEST_HOST";

/// Not a test of its own: what the child of the tests below runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_hosts_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (chain, _events) = open(Path::new(&dir)).await;
    assert!(chain.is_host().await);
    std::fs::write(Path::new(&dir).join("ready"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn host_in_a_child(dir: &Path) -> Killed {
    let ready = dir.join("ready");
    let _ = std::fs::remove_file(&ready);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hosting::child_that_hosts_until_it_is_killed", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child does not host");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_and_the_unconfirmed_survive_a_restart() {
    let rig = rig().await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 100_000).await;
    rig.chain.generate(5).await.unwrap();
    let tx = lock.spend(coin, 100_000, lock.script(), 1_000).sign();
    let txid = rig.chain.broadcast(&tx).await.unwrap();
    let tip = rig.chain.tip().await.unwrap();
    rig.chain.close().await;

    let begun = Instant::now();
    let (chain, mut events) = open(rig.dir.path()).await;
    println!("opened again in {:?}", begun.elapsed());
    assert_eq!(chain.tip().await.unwrap(), tip);
    assert_eq!(chain.transaction(&txid).await.unwrap(), Some((tx, Status::Mempool)));
    until(&mut events, |event| (event == ChainEvent::Tip { height: tip.0, hash: tip.1 }).then_some(())).await;
    chain.generate(1).await.unwrap();
    assert_eq!(chain.transaction(&txid).await.unwrap().unwrap().1, Status::Confirmed { height: tip.0 + 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_host_is_killed_a_client_takes_over_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let child = host_in_a_child(dir.path());
    let (chain, mut events) = open(dir.path()).await;
    assert!(!chain.is_host().await);
    let (lock, to) = (Lock::new(), Lock::new());
    chain.watch_script(to.script());
    let coin = bitcoin::OutPoint::new(chain.faucet(lock.script(), 100_000).await.unwrap(), 0);
    let confirmed = lock.spend(coin, 100_000, to.script(), 1_000).output(0, bitcoin::ScriptBuf::new_op_return([1])).sign();
    chain.broadcast(&confirmed).await.unwrap();
    chain.generate(30).await.unwrap();
    let waiting = to.spend(bitcoin::OutPoint::new(confirmed.compute_txid(), 0), 99_000, to.script(), 1_000).sign();
    chain.broadcast(&waiting).await.unwrap();
    let tip = chain.tip().await.unwrap();
    until(&mut events, seen(waiting.compute_txid(), Status::Mempool)).await;

    let begun = Instant::now();
    drop(child);
    assert_eq!(chain.tip().await.unwrap(), tip, "a question asked meanwhile waits for the new host");
    println!("taken over in {:?}", begun.elapsed());
    assert!(chain.is_host().await);
    until(&mut events, |event| matches!(event, ChainEvent::Lost { .. }).then_some(())).await;
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.transaction(&waiting.compute_txid()).await.unwrap(), Some((waiting.clone(), Status::Mempool)));
    chain.generate(1).await.unwrap();
    until(&mut events, seen(waiting.compute_txid(), Status::Confirmed { height: tip.0 + 1 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_killed_again_and_again_never_loses_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut tip = None;
    for _ in 0..4 {
        let child = host_in_a_child(dir.path());
        let (chain, _events) = open(dir.path()).await;
        let found = chain.tip().await.unwrap();
        assert_eq!(tip.unwrap_or(found), found);
        chain.generate(7).await.unwrap();
        chain.reorganise(2, &[]).await.unwrap();
        tip = Some(chain.tip().await.unwrap());
        // The client must not take over while the child is replaced.
        drop(chain);
        drop(child);
    }
    let (chain, _events) = open(dir.path()).await;
    assert_eq!(Some(chain.tip().await.unwrap()), tip);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_all_that_happened_while_nobody_hosted_its_view() {
    let rig = rig().await;
    let (second, mut events) = open(rig.dir.path()).await;
    let (lock, to) = (Lock::new(), Lock::new());
    let coin = rig.coin(&lock, 100_000).await;
    second.watch_script(to.script());
    let tx = lock.spend(coin, 100_000, to.script(), 1_000).sign();
    rig.chain.broadcast(&tx).await.unwrap();
    until(&mut events, seen(tx.compute_txid(), Status::Mempool)).await;

    // This client stops reading for longer than the host keeps frames for it, while blocks come and go.
    let begun = Instant::now();
    for _ in 0..5 {
        rig.chain.generate(1_000).await.unwrap();
    }
    println!("5,000 blocks in {:?}", begun.elapsed());
    rig.chain.reorganise(6, &[]).await.unwrap();
    let tip = rig.chain.tip().await.unwrap();
    let mut confirmed = false;
    until(&mut events, |event| {
        confirmed |= matches!(&event, ChainEvent::Seen { tx: found, status: Status::Confirmed { .. } } if *found == tx);
        (event == ChainEvent::Tip { height: tip.0, hash: tip.1 }).then_some(())
    })
    .await;
    assert!(confirmed);
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_mined_by_the_clock_while_something_waits_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, mut events) = open_with(dir.path(), Duration::from_millis(50)).await;
    let lock = Lock::new();
    let coin = bitcoin::OutPoint::new(chain.faucet(lock.script(), 100_000).await.unwrap(), 0);
    let (height, _) = chain.tip().await.unwrap();
    chain.watch_script(lock.script());
    let tx = lock.spend(coin, 100_000, lock.script(), 1_000).sign();
    chain.broadcast(&tx).await.unwrap();
    until(&mut events, seen(tx.compute_txid(), Status::Confirmed { height: height + 1 })).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(chain.tip().await.unwrap().0, height + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_one_chain() {
    let rig = rig().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open(rig.dir.path()).await);
    }
    let hash = rig.chain.generate(1).await.unwrap()[0];
    let (height, _) = rig.chain.tip().await.unwrap();
    for (chain, events) in &mut clients {
        assert!(!chain.is_host().await);
        until(events, |event| (event == ChainEvent::Tip { height, hash }).then_some(())).await;
    }
    assert!(rig.chain.is_host().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_with_a_long_name_works_too() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(120)).join("b".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let (chain, _events) = open(&deep).await;
    assert_eq!(chain.tip().await.unwrap().0, 110);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: std::path::PathBuf| async move {
        let (events, _) = mpsc::channel(1);
        Chain::open(ChainConfig::Embedded { dir, block_interval: Duration::ZERO }, events).await.map(|_| ())
    };
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(file).await, Err(ChainError::Io { what: "cannot create", .. })));

    // Held by somebody who does not answer.
    let held = dir.path().join("held");
    std::fs::create_dir(&held).unwrap();
    std::fs::write(held.join("chain.lock"), std::process::id().to_string()).unwrap();
    let lock = std::fs::File::open(held.join("chain.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let why = open(held).await.unwrap_err();
    assert!(matches!(why, ChainError::Locked { pid, .. } if pid == std::process::id()), "{why}");

    let chain = dir.path().join("chain");
    std::fs::create_dir(&chain).unwrap();
    std::fs::write(chain.join("faucet.key"), "no key").unwrap();
    let why = open(chain).await.unwrap_err().to_string();
    assert!(why.contains("faucet.key"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_socket_harms_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let rig = rig().await;
    let socket = rig.dir.path().join("chain/chain.sock");
    for garbage in [&[0xff; 64][..], b"\0\0\0\x04true", b"\0\0\0\x10short", &[0; 64]] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
    }
    assert_eq!(rig.chain.tip().await.unwrap().0, 110);
    assert_eq!(rig.chain.transaction(&"00".repeat(32).parse::<Txid>().unwrap()).await.unwrap(), None);
}
