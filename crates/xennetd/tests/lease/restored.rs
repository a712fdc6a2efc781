//! Both sides lose their disk in the middle of a lease and come back with a backup from before: nothing old is signed or broadcast, and what
//! the other side knows is recovered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use tempfile::tempdir;
use xennet_identity::Role;
use xennet_lease::LedgerKind;
use xennet_task::LeaseId;
use xennetd::backup;
use xennetd::config::{Config, ConfigArgs, PASSPHRASE_VARIABLE};
use xennetd::control::{Command, FailureKind, LeaseStage, Reply};
use xennetd::wallet::{self, Passphrase};

use crate::books::ledger;
use crate::daemon::Daemon;
use crate::market::{Market, PATIENCE_S, TaskToml};
use crate::processes;
use crate::wait::wait_until;
use crate::wallet::file;
use crate::wire::Weather;

const PASSPHRASE: &str = "correct horse battery";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ConfigArgs,
}

/// Only an encrypted wallet can be backed up.
async fn encrypt(daemon: &mut Daemon, role: Role, chain_dir: &Path, passphrase_file: &str) {
    daemon.stop().await;
    let (dir, chain_dir) = (daemon.dir.display().to_string(), chain_dir.display().to_string());
    let config = Config::load(&Flags::parse_from(["test", "--datadir", &dir, "--chain-dir", &chain_dir]).args, role).unwrap();
    wallet::encrypt(&config, None, &Passphrase::new(PASSPHRASE).unwrap()).unwrap();
    daemon.variable = Some((PASSPHRASE_VARIABLE, passphrase_file.to_owned()));
    daemon.start().await;
}

async fn back_up(daemon: &Daemon, file: &Path) {
    let order = Command::WalletBackup { file: file.to_owned(), overwrite: false };
    let Reply::Backup(view) = daemon.ask(order.clone()).await else { panic!("no backup") };
    assert_eq!((view.leases, view.bytes), (1, std::fs::metadata(file).unwrap().len()));
    assert_eq!(daemon.ask_in_vain(order).await.kind, FailureKind::Conflict, "none is overwritten");
}

/// The disk is lost, and the backup takes its place.
async fn lose_disk(daemon: &mut Daemon, file: &Path) {
    daemon.kill();
    processes::guests_of(&daemon.dir).iter().for_each(|guest| processes::kill(*guest));
    std::fs::remove_dir_all(&daemon.dir).unwrap();
    let restored = backup::restore(&daemon.dir, None, file, &Passphrase::new(PASSPHRASE).unwrap()).await.unwrap();
    assert_eq!((restored.leases, restored.unsettled), (1, 1));
}

async fn total_sat(daemon: &Daemon, lease: LeaseId) -> u64 {
    daemon.lease(lease).await.totals.unwrap().total_sat
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_the_middle_of_a_lease_loses_no_payment_on_either_side() {
    let away = tempdir().unwrap();
    let passphrase_file = file(away.path(), "passphrase", &format!("{PASSPHRASE}\n"));
    let backups: [PathBuf; 2] = ["publisher.backup", "node.backup"].map(|name| away.path().join(name));
    let mut market = Market::open().await;
    let chain_dir = market.publisher.dir.with_file_name("chain");
    encrypt(&mut market.publisher, Role::Publisher, &chain_dir, &passphrase_file).await;
    encrypt(&mut market.node, Role::Node, &chain_dir, &passphrase_file).await;
    market.node_sells().await;
    let lease = market.rent(TaskToml::default().text()).await;
    market.pays(lease, 2).await;
    back_up(&market.publisher, &backups[0]).await;
    back_up(&market.node, &backups[1]).await;
    market.pays(lease, 3).await;

    // The publisher comes back first, and nobody can reach it: it signs nothing.
    let held_sat = total_sat(&market.node, lease).await;
    market.wire.set(Weather::Cut);
    lose_disk(&mut market.publisher, &backups[0]).await;
    market.publisher.start().await;
    let known_sat = total_sat(&market.publisher, lease).await;
    assert!(known_sat < held_sat, "{known_sat} sat of {held_sat} are known");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(total_sat(&market.publisher, lease).await, known_sat);
    assert!(market.publisher.lease(lease).await.reasons.join(" ").contains("came out of a backup"));
    market.wire.set(Weather::Fair);
    market.pays(lease, 2).await;
    let shown = ledger(&market.publisher, lease).await.into_iter().any(|entry| entry.note.contains("the node showed the payment"));
    assert!(shown, "the node's payment was taken over");
    assert!(total_sat(&market.publisher, lease).await > held_sat);

    // Then the node, without its guest: it could settle alone, and waits until the publisher has paid again.
    let held_sat = total_sat(&market.node, lease).await;
    market.wire.set(Weather::Cut);
    lose_disk(&mut market.node, &backups[1]).await;
    market.node.start().await;
    assert!(total_sat(&market.node, lease).await < held_sat);
    let closing = async || market.node.lease(lease).await.stage == LeaseStage::Closing;
    wait_until("the node's closing without its guest", PATIENCE_S + 60, closing).await;
    let chain = market.chain().await;
    chain.generate(3).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let view = market.node.lease(lease).await;
    assert_eq!((view.stage, view.close_txid.as_deref()), (LeaseStage::Closing, None), "{:?}", view.reasons);
    assert!(chain.mempool().await.unwrap().is_empty(), "it broadcasts nothing old");
    assert!(view.reasons.join(" ").contains("came out of a backup"), "{:?}", view.reasons);
    market.wire.set(Weather::Fair);
    for daemon in [&market.publisher, &market.node] {
        wait_until("the settlement", 90, async || daemon.lease(lease).await.stage == LeaseStage::Settled).await;
        let paid_sat = total_sat(daemon, lease).await;
        assert!(paid_sat >= held_sat, "{paid_sat} sat of {held_sat} were settled");
    }
    let settled = ledger(&market.node, lease).await;
    assert!(settled.iter().any(|entry| entry.kind == LedgerKind::Settled));
    chain.close().await;
}
