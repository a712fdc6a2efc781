//! A backup of a whole data directory: what comes back, and what is refused without a trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use xennet_chain::{Birthday, Passphrase, Protection, Purpose, Seed, Wallet, Words};
use xennet_identity::Role;
use xennet_lease::{LedgerEntry, LedgerKind};
use xennet_task::{LeaseId, Msat, Usage};
use xennetd::backup::{self, BackupError, Existing};
use xennetd::config::Config;
use xennetd::keys::Keys;
use xennetd::store::{Store, Table};

struct Lost {
    root: TempDir,
    dir: PathBuf,
    words: Words,
    file: PathBuf,
}

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse battery").unwrap()
}

const LEASE: LeaseId = LeaseId([5; 8]);

fn entry() -> LedgerEntry {
    LedgerEntry {
        at_ms: 1,
        kind: LedgerKind::Paid,
        usage: Usage::default(),
        owed: Msat(1),
        paid_sat: 2,
        fee_sat: 0,
        txid: None,
        note: "a line".into(),
    }
}

/// A data directory with something of each kind, and its backup.
async fn lost() -> Lost {
    let root = tempdir().unwrap();
    let dir = root.path().join("data");
    let words = Words::random();
    let seed = Seed { words: words.clone(), birthday: Birthday::Height(7) };
    let wallet = Wallet::create(&dir, Network::Regtest, &seed, Protection::Passphrase(&passphrase())).unwrap();
    for _ in 0..600 {
        wallet.fresh_key().unwrap();
    }
    Keys::open(&dir).unwrap();
    fs::write(dir.join("role"), "publisher\n").unwrap();
    fs::write(dir.join("xennet.toml"), "log = \"warn\"\n").unwrap();
    let store = Store::open(&dir).unwrap();
    store.seal_with(&wallet.secret_for(Purpose::Channels).unwrap()).await.unwrap();
    let _persisted = store.put_many(&[(Table::Mining, b"node", b"far"), (Table::Single, b"one", b"thing")]).await.unwrap();
    let mut batch = xennetd::store::Batch::new();
    batch.append(LEASE, &entry()).unwrap();
    let _persisted = store.persist(batch, ()).await.unwrap();
    let file = root.path().join("backup");
    drop((store, wallet));
    let view = backup::write_alone(&config(&dir), &passphrase(), &file, Existing::Stays).await.unwrap();
    assert_eq!((view.bytes, view.leases), (fs::metadata(&file).unwrap().len(), 0));
    Lost { root, dir, words, file }
}

fn config(dir: &Path) -> Config {
    Config::new(Role::Publisher, dir.to_owned())
}

#[tokio::test]
async fn everything_comes_back_from_one_file() {
    let lost = lost().await;
    let keys = Keys::open(&lost.dir).unwrap();
    let text = fs::read(&lost.file).unwrap();
    assert_eq!(fs::metadata(&lost.file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(lost.dir.join("keys/derive.key")).unwrap();
    assert!(!text.windows(16).any(|part| part == &key.as_bytes()[..16]), "no key is in the clear");

    let dir = lost.root.path().join("new");
    let restored = backup::restore(&dir, Some(Network::Regtest), &lost.file, &passphrase()).await.unwrap();
    assert_eq!((restored.network, restored.unsettled), (Network::Regtest, 0));
    assert_eq!(Keys::open(&dir).unwrap().derive("any", b""), keys.derive("any", b""));
    assert_eq!(fs::read_to_string(dir.join("role")).unwrap(), "publisher\n");
    assert_eq!(fs::read_to_string(dir.join("xennet.toml")).unwrap(), "log = \"warn\"\n");
    let (old, wallet) = [&lost.dir, &dir].map(|dir| Wallet::unlock(dir, Network::Regtest, &passphrase()).unwrap()).into();
    assert_eq!((wallet.words(), wallet.birthday_height().unwrap()), (lost.words, 7));
    assert_eq!(wallet.fresh_key().unwrap(), old.fresh_key().unwrap(), "no key is used twice");
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.get(Table::Mining, b"node").unwrap().unwrap(), b"far");
    assert_eq!(store.get(Table::Single, b"one").unwrap().unwrap(), b"thing");
    assert_eq!(store.ledger(LEASE, 0, 10).unwrap().entries, [entry()]);
    assert!(!lost.root.path().join("new.restoring").exists());
}

#[tokio::test]
async fn what_cannot_be_restored_is_named_and_nothing_is_made() {
    let lost = lost().await;
    let good = fs::read(&lost.file).unwrap();
    let before = fs::read_dir(lost.root.path()).unwrap().count();
    let dir = lost.root.path().join("new");
    let bad = lost.root.path().join("backup");
    let attempt = async |bytes: &[u8], network: Option<Network>, with: &str| {
        fs::write(&bad, bytes).unwrap();
        let why = backup::restore(&dir, network, &bad, &Passphrase::new(with).unwrap()).await.unwrap_err();
        assert!(!dir.exists(), "{why}");
        assert_eq!(fs::read_dir(lost.root.path()).unwrap().count(), before, "{why}");
        why
    };
    let right = "correct horse battery";
    let why = attempt(&good, None, "wrong horse battery").await.to_string();
    assert!(why.contains("the passphrase is not the one"), "{why}");
    let why = attempt(&good, Some(Network::Bitcoin), right).await.to_string();
    assert!(why.contains("on regtest, and the configuration says bitcoin"), "{why}");
    for length in (0..good.len()).step_by(97) {
        let why = attempt(&good[..length], None, right).await;
        assert!(matches!(why, BackupError::Damaged { .. }), "{length} bytes: {why}");
    }
    for at in (0..good.len()).step_by(41).chain(0..40) {
        let mut altered = good.clone();
        altered[at] ^= 1;
        let why = attempt(&altered, None, right).await;
        assert!(matches!(why, BackupError::Damaged { .. }), "byte {at}: {why}");
    }
    let mut newer = good[..good.len() - 32].to_vec();
    newer[8] = 2;
    let sum = Sha256::digest(&newer);
    newer.extend_from_slice(&sum);
    let why = attempt(&newer, None, right).await.to_string();
    assert!(why.contains("version 2") && why.contains("newer program"), "{why}");
    // Whoever makes a file with a right checksum still gets nothing opened, and no memory taken.
    for (at, value) in [(17, u32::MAX), (17, 0), (17, 1_000_000_000)] {
        let mut forged = good[..good.len() - 32].to_vec();
        forged[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let sum = Sha256::digest(&forged);
        forged.extend_from_slice(&sum);
        let why = attempt(&forged, None, right).await.to_string();
        assert!(why.contains("need") || why.contains("damaged"), "{why}");
    }
}

#[tokio::test]
async fn nothing_that_is_there_is_overwritten_untold() {
    let lost = lost().await;
    let good = fs::read(&lost.file).unwrap();
    let why = backup::write_alone(&config(&lost.dir), &passphrase(), &lost.file, Existing::Stays).await.unwrap_err().to_string();
    assert!(why.contains("--overwrite"), "{why}");
    assert_eq!(fs::read(&lost.file).unwrap(), good);
    backup::write_alone(&config(&lost.dir), &passphrase(), &lost.file, Existing::Replaced).await.unwrap();
    assert_ne!(fs::read(&lost.file).unwrap(), good, "another nonce");

    let dir = lost.root.path().join("full");
    fs::create_dir(&dir).unwrap();
    backup::restore(&dir, None, &lost.file, &passphrase()).await.unwrap();
    let why = backup::restore(&dir, None, &lost.file, &passphrase()).await.unwrap_err().to_string();
    assert!(why.contains("is not empty") && why.contains("--datadir"), "{why}");
}

#[tokio::test]
async fn a_wallet_that_was_never_used_can_be_backed_up_and_one_without_a_passphrase_cannot() {
    let root = tempdir().unwrap();
    let (dir, file) = (root.path().join("data"), root.path().join("backup"));
    drop(Wallet::open(&dir, Network::Regtest).unwrap());
    let why = backup::write_alone(&config(&dir), &passphrase(), &file, Existing::Stays).await.unwrap_err().to_string();
    assert!(why.contains("not encrypted"), "{why}");
    assert!(!file.exists());
}
