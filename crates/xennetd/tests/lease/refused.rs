//! What a daemon refuses, and the words it has for that.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::tempdir;
use tokio::sync::mpsc;
use xennet_chain::{Chain, ChainConfig, Wallet};
use xennetd::control::{Command, FailureKind, Reply};

use crate::daemon::{Daemon, free_port};
use crate::market::{Place, TaskToml};
use crate::wait::wait_until;

/// A publisher alone: no guest is needed to be refused.
pub fn publisher(root: &Path) -> Daemon {
    listening(root, &["--overlay-listen", "none", "--tunnel-listen", "127.0.0.1:0"])
}

/// A publisher with these flags, on an embedded chain of its own.
fn listening(root: &Path, flags: &[&str]) -> Daemon {
    let mut all = Place::embedded(root.join("chain")).flags;
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Daemon::new(root, "publisher", &all)
}

async fn open_chain(root: &Path) -> Chain {
    let (events, mut incoming) = mpsc::channel(64);
    tokio::spawn(async move { while incoming.recv().await.is_some() {} });
    Chain::open(ChainConfig::Embedded { dir: root.join("chain"), block_interval: Duration::from_secs(1) }, events).await.unwrap()
}

/// Starts a daemon that must end at once, and gives the one line it says.
pub fn line_of_failure(daemon: &Daemon) -> String {
    let output = daemon.program().args(["--log", "error"]).stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success(), "it started");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("xennetd: "), "{text}");
    text.trim_end().to_owned()
}

#[tokio::test]
async fn a_publisher_with_too_little_money_is_told_how_much_is_missing() {
    let dir = tempdir().unwrap();
    let mut daemon = publisher(dir.path());
    daemon.start().await;
    let have_sat = daemon.coins_sat().await;
    let task_toml = TaskToml { budget_sat: have_sat + 12_345, ..TaskToml::default() }.text();
    let failure = daemon.ask_in_vain(Command::Publish { task_toml, max_fee_sat: None }).await;
    assert_eq!(failure.kind, FailureKind::NotEnoughMoney);
    assert_eq!(
        failure.message,
        format!("the wallet holds {have_sat} sat, but this task needs {} sat: 12345 sat are missing", have_sat + 12_345)
    );
    assert!(failure.remedy.contains("xennet wallet address"), "{}", failure.remedy);

    // A wallet that was emptied cannot pay for any task.
    daemon.stop().await;
    let chain = open_chain(dir.path()).await;
    let wallet = Wallet::open(&daemon.dir, chain.network()).unwrap();
    wallet.sync(&chain).await.unwrap();
    let elsewhere = xennet_chain::marker_script(0, 0);
    let spend = wallet.fund(elsewhere, have_sat - 5_000, 1_000).unwrap();
    chain.broadcast(&spend).await.unwrap();
    chain.generate(1).await.unwrap();
    wallet.sync(&chain).await.unwrap();
    let left_sat = wallet.balance().confirmed_sat;
    assert!(left_sat < 5_000 && left_sat > 0, "{left_sat} sat are left");
    drop(wallet);
    chain.close().await;
    daemon.start().await;
    assert_eq!(daemon.coins_sat().await, left_sat);
    let task_toml = TaskToml::default().text().replace("budget_sat = 200000\n", "");
    let failure = daemon.ask_in_vain(Command::Publish { task_toml, max_fee_sat: None }).await;
    assert_eq!(failure.kind, FailureKind::NotEnoughMoney);
    assert!(failure.message.contains(&format!("holds {left_sat} sat")), "{}", failure.message);
    assert!(failure.message.contains(&format!("{} sat are missing", 10_000 - left_sat)), "{}", failure.message);
}

/// Each mistake is named with its line before anything is broadcast or paid.
#[tokio::test]
async fn a_malformed_task_names_line_and_field_and_costs_nothing() {
    let dir = tempdir().unwrap();
    let mut daemon = publisher(dir.path());
    daemon.start().await;
    let have = daemon.balance().await;
    let good = TaskToml::default().text();
    let line_of = |field: &str| 1 + good.lines().position(|line| line.starts_with(field)).unwrap();
    let misspelt = good.replace("payout_interval", "payout_intervall");
    let negative = good.replace("traffic_msat_per_gb = 5", "traffic_msat_per_gb = -5");
    let contradictory = good.replace("min = \"10 s\"", "min = \"20 min\"");
    for (text, line, field) in [
        (&misspelt, line_of("payout_interval"), "payout_intervall"),
        (&negative, line_of("traffic_msat_per_gb"), "traffic_msat_per_gb"),
        (&contradictory, line_of("max"), "lease.max"),
    ] {
        let failure = daemon.ask_in_vain(Command::Publish { task_toml: text.clone(), max_fee_sat: None }).await;
        assert_eq!(failure.kind, FailureKind::BadInput, "{failure:?}");
        assert!(failure.message.contains(&format!("line {line}")), "line {line} of {}", failure.message);
        assert!(failure.message.contains(field), "{field} in {}", failure.message);
    }
    assert_eq!(daemon.balance().await, have);
    let chain = open_chain(dir.path()).await;
    assert_eq!(chain.mempool().await.unwrap(), []);
    let Reply::Tasks(tasks) = daemon.ask(Command::Tasks {}).await else { panic!("no tasks") };
    assert_eq!(tasks, []);
    chain.close().await;
}

#[tokio::test]
async fn a_second_daemon_on_a_data_directory_says_so_and_harms_nothing() {
    let dir = tempdir().unwrap();
    let mut daemon = publisher(dir.path());
    daemon.start().await;
    let have = daemon.balance().await;
    let line = line_of_failure(&publisher(dir.path()));
    assert!(line.contains(&daemon.dir.display().to_string()), "{line}");
    daemon.must_run();
    assert_eq!(daemon.balance().await, have);
    assert_eq!(daemon.status().await.pid, daemon.pid());

    // The other side of the market may not use it either, not even when nobody does.
    daemon.stop().await;
    let node = Daemon::new(dir.path(), "node", &Place::embedded(dir.path().join("chain")).flags);
    std::fs::write(node.dir.join("role"), "publisher\n").unwrap();
    let line = line_of_failure(&node);
    assert!(line.contains("belongs to a publisher"), "{line}");
}

#[tokio::test]
async fn a_port_in_use_is_named_in_one_line() {
    let dir = tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (nth, args) in [
        ["--overlay-listen", "none", "--tunnel-listen", &format!("127.0.0.1:{port}")],
        ["--overlay-listen", &format!("/ip4/127.0.0.1/tcp/{port}"), "--tunnel-listen", "127.0.0.1:0"],
    ]
    .iter()
    .enumerate()
    {
        let root = dir.path().join(nth.to_string());
        let daemon = listening(&root, args);
        let line = line_of_failure(&daemon);
        assert!(line.contains(&port), "{line}");
        assert!(line.contains("in use"), "{line}");
    }
    drop(taken);
    // Nothing was lost: with a free port it starts.
    let root = dir.path().join("0");
    let args = ["--overlay-listen", "none", "--tunnel-listen", &SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())).to_string()];
    let mut daemon = listening(&root, &args);
    daemon.start().await;
    wait_until("its status", 10, async || daemon.status().await.tunnel_listen.is_some()).await;
}
