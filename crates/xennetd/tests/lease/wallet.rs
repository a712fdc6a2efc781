//! The wallet of a daemon: encrypted, paying, and refusing in one line each.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Parser;
use tempfile::tempdir;
use xennet_identity::Role;
use xennetd::config::{Config, ConfigArgs, PASSPHRASE_VARIABLE};
use xennetd::control::{Command, FailureKind, MoneyKind, PaymentView, Reply};
use xennetd::wallet::{self, Birthday, Passphrase, Words};

use crate::daemon::Daemon;
use crate::refused::{line_of_failure, publisher};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ConfigArgs,
}

pub fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

fn send(address: &str, amount_sat: Option<u64>, feerate: Option<u64>, dry_run: bool) -> Command {
    Command::WalletSend {
        address: address.to_owned(),
        amount_sat,
        feerate_sat_per_kvb: feerate,
        max_fee_sat: None,
        dry_run,
        coins: Vec::new(),
    }
}

async fn paid(daemon: &Daemon, command: Command) -> PaymentView {
    let Reply::Payment(view) = daemon.ask(command).await else { panic!("no payment") };
    *view
}

#[tokio::test]
async fn an_encrypted_wallet_opens_with_its_passphrase_pays_and_says_what_it_did() {
    let dir = tempdir().unwrap();
    let mut daemon = publisher(dir.path());
    let data_dir = daemon.dir.display().to_string();
    let config = Config::load(&Flags::parse_from(["test", "--datadir", &data_dir]).args, Role::Publisher).unwrap();
    let passphrase = Passphrase::new("correct horse battery").unwrap();
    wallet::create(&config, Words::random(), Birthday::Now, Some(&passphrase)).unwrap();

    let line = line_of_failure(&daemon);
    assert!(line.contains("is encrypted") && line.contains(PASSPHRASE_VARIABLE), "{line}");
    daemon.configure(&format!("[wallet]\npassphrase_file = \"{}\"\n", file(dir.path(), "wrong", "wrong horse battery\n")));
    let line = line_of_failure(&daemon);
    assert!(line.contains("the passphrase is not the one"), "{line}");
    daemon.configure("[wallet]\nmax_feerate_sat_vb = 50\n");
    daemon.variable = Some((PASSPHRASE_VARIABLE, file(dir.path(), "right", "correct horse battery\n")));
    daemon.start().await;
    assert!(!daemon.dir.join("seed.txt").exists());

    let have_sat = daemon.coins_sat().await;
    let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let preview = paid(&daemon, send(to, Some(50_000), Some(2_000), true)).await;
    assert!(!preview.sent && preview.fee_sat >= 2 * preview.vbytes);
    assert_eq!(daemon.coins_sat().await, have_sat, "a preview sends nothing");
    let sent = paid(&daemon, send(to, Some(50_000), Some(2_000), false)).await;
    assert!(sent.sent && sent.amount_sat == 50_000);
    assert_eq!(daemon.coins_sat().await, have_sat - 50_000 - sent.fee_sat);
    let Reply::History(history) = daemon.ask(Command::WalletHistory {}).await else { panic!("no history") };
    let last = history.iter().find(|entry| entry.txid.to_string() == sent.txid).unwrap();
    assert_eq!((last.kind, last.fee_sat), (MoneyKind::Payment, Some(sent.fee_sat)));

    // The chain mines what waits each second, so it may be in a block already.
    let bump = Command::WalletBump { txid: sent.txid.clone(), feerate_sat_per_kvb: Some(9_000), max_fee_sat: None, dry_run: false };
    match daemon.client.command(&bump).await {
        Ok(Reply::Payment(view)) => assert_eq!(view.replaces, Some(sent.txid)),
        other => assert!(format!("{other:?}").contains("in a block"), "{other:?}"),
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_named_and_nothing_changes() {
    let dir = tempdir().unwrap();
    let mut daemon = publisher(dir.path());
    daemon.configure("[wallet]\nmax_feerate_sat_vb = 50\n");
    daemon.start().await;
    let have_sat = daemon.coins_sat().await;
    let to = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    for (command, kind, words) in [
        (send("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", Some(50_000), None, false), FailureKind::BadInput, "of another network"),
        (send("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081", Some(50_000), None, false), FailureKind::BadInput, "is no address"),
        (send(to, Some(293), None, false), FailureKind::BadInput, "293 sat are dust: at least 294 sat"),
        (send(to, Some(have_sat), None, false), FailureKind::NotEnoughMoney, "sat are missing"),
        (send(to, Some(50_000), Some(51_000), false), FailureKind::BadInput, "51 sat/vB are more than the 50 that are allowed"),
        (
            Command::WalletBump { txid: "00".repeat(32), feerate_sat_per_kvb: None, max_fee_sat: None, dry_run: false },
            FailureKind::NotFound,
            "there is no transaction",
        ),
        (
            Command::WalletBump { txid: "x".into(), feerate_sat_per_kvb: None, max_fee_sat: None, dry_run: false },
            FailureKind::BadInput,
            "is no transaction id",
        ),
    ] {
        let failure = daemon.ask_in_vain(command.clone()).await;
        assert_eq!(failure.kind, kind, "{command:?}: {failure}");
        assert!(failure.message.contains(words), "{command:?}: {failure}");
        assert!(!failure.remedy.is_empty(), "{command:?}");
        assert_eq!(daemon.coins_sat().await, have_sat);
    }
    daemon.stop().await;
}
