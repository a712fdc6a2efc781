//! Wallets with a passphrase, and wallets brought back from their words.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bitcoin::Network;
use xennet_chain::{Birthday, Kept, Passphrase, Protection, Seed, Wallet, WalletError, Words};

use crate::rig::{Lock, rig};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).unwrap()
}

fn error(opened: Result<Wallet, WalletError>) -> WalletError {
    match opened {
        Ok(_) => panic!("this must not open"),
        Err(why) => why,
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("seed"))
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn an_encrypted_wallet_opens_with_its_passphrase_only_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let right = passphrase("correct horse battery staple");
    let seed = Seed { words: Words::random(), birthday: Birthday::Now };
    let address = {
        let wallet = Wallet::create(dir, Network::Regtest, &seed, Protection::Passphrase(&right)).unwrap();
        wallet.address().unwrap()
    };
    assert_eq!(Wallet::kept(dir), Kept::Encrypted);
    let before = files(dir);
    assert_eq!(before.len(), 1, "no words lie about");
    assert_eq!(std::fs::metadata(dir.join("seed.sealed")).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(matches!(error(Wallet::open(dir, Network::Regtest)), WalletError::NeedsPassphrase { .. }));
    let wrong = Wallet::unlock(dir, Network::Regtest, &passphrase("incorrect horse"));
    assert!(matches!(error(wrong), WalletError::WrongPassphrase { .. }));
    let elsewhere = Wallet::unlock(dir, Network::Testnet, &right);
    let WalletError::WrongNetwork { expected, found, .. } = error(elsewhere) else { panic!("a regtest wallet is no testnet wallet") };
    assert_eq!((expected.as_str(), found.as_str()), ("testnet", "regtest"));
    let again = Wallet::create(dir, Network::Regtest, &seed, Protection::None);
    assert!(matches!(error(again), WalletError::Exists { .. }));
    assert_eq!(files(dir), before);

    let wallet = Wallet::unlock(dir, Network::Regtest, &right).unwrap();
    assert_eq!(wallet.address().unwrap(), address);
    assert_eq!(wallet.words(), seed.words);
    // Neither the words nor a part of them are anywhere in the directory.
    let words = seed.words.text();
    for entry in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(20).any(|window| window == &words.as_bytes()[..20]));
    }
}

#[test]
fn a_short_passphrase_protects_nothing_new_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let seed = Seed { words: Words::random(), birthday: Birthday::Now };
    let short = passphrase("short");
    let made = Wallet::create(dir.path(), Network::Regtest, &seed, Protection::Passphrase(&short));
    assert!(matches!(error(made), WalletError::Passphrase(_)));
    assert_eq!(Wallet::kept(dir.path()), Kept::Nothing);
    let none = Wallet::unlock(dir.path(), Network::Regtest, &short);
    assert!(matches!(error(none), WalletError::NoWallet { .. }));
}

#[test]
fn bare_words_are_encrypted_then_removed_and_the_passphrase_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (first, second) = (passphrase("first passphrase"), passphrase("second passphrase"));
    let wallet = Wallet::open(dir, Network::Regtest).unwrap();
    let words = wallet.words();
    assert!(matches!(wallet.encrypt(None, &passphrase("short")), Err(WalletError::Passphrase(_))));
    assert_eq!(Wallet::kept(dir), Kept::Plain);
    wallet.encrypt(None, &first).unwrap();
    assert_eq!(Wallet::kept(dir), Kept::Encrypted);
    assert!(!dir.join("seed.txt").exists());

    assert!(matches!(wallet.encrypt(None, &second), Err(WalletError::NeedsPassphrase { .. })));
    assert!(matches!(wallet.encrypt(Some(&second), &second), Err(WalletError::WrongPassphrase { .. })));
    wallet.encrypt(Some(&first), &second).unwrap();
    drop(wallet);
    assert!(matches!(error(Wallet::unlock(dir, Network::Regtest, &first)), WalletError::WrongPassphrase { .. }));
    assert_eq!(Wallet::unlock(dir, Network::Regtest, &second).unwrap().words(), words);
}

#[test]
fn an_encryption_cut_short_at_any_step_leaves_the_old_wallet_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let phrase = passphrase("correct horse battery staple");
    let wallet = Wallet::open(dir, Network::Regtest).unwrap();
    let words = wallet.words();
    let plain = std::fs::read(dir.join("seed.txt")).unwrap();
    wallet.encrypt(None, &phrase).unwrap();
    drop(wallet);
    let sealed = std::fs::read(dir.join("seed.sealed")).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).unwrap();
        std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    };

    // Killed while the encrypted file was written under its other name: still the old wallet.
    std::fs::remove_file(dir.join("seed.sealed")).unwrap();
    put("seed.txt", &plain);
    put("seed.new", &sealed[..50]);
    assert_eq!(Wallet::open(dir, Network::Regtest).unwrap().words(), words);

    // Killed before the words were removed: the new one, and opening it ends the work.
    std::fs::remove_file(dir.join("seed.new")).unwrap();
    put("seed.sealed", &sealed);
    assert!(matches!(error(Wallet::open(dir, Network::Regtest)), WalletError::NeedsPassphrase { .. }));
    let wrong = Wallet::unlock(dir, Network::Regtest, &passphrase("incorrect horse"));
    assert!(matches!(error(wrong), WalletError::WrongPassphrase { .. }));
    assert!(dir.join("seed.txt").exists(), "nothing is removed on the word of a wrong passphrase");
    assert_eq!(Wallet::unlock(dir, Network::Regtest, &phrase).unwrap().words(), words);
    assert!(!dir.join("seed.txt").exists());

    // Words of another wallet are nobody's leftover.
    put("seed.txt", format!("{}\n", Words::random().text().as_str()).as_bytes());
    let message = error(Wallet::unlock(dir, Network::Regtest, &phrase)).to_string();
    assert!(message.contains("other words"), "{message}");
    assert!(dir.join("seed.txt").exists());
}

#[test]
fn a_damaged_file_is_called_damaged_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let phrase = passphrase("correct horse battery staple");
    let seed = Seed { words: Words::random(), birthday: Birthday::Now };
    drop(Wallet::create(dir, Network::Regtest, &seed, Protection::Passphrase(&phrase)).unwrap());
    let path = dir.join("seed.sealed");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let why = error(Wallet::unlock(dir, Network::Regtest, &phrase));
        assert!(matches!(why, WalletError::Damaged { .. }), "byte {at}: {why}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(Wallet::unlock(dir, Network::Regtest, &phrase).unwrap().words(), seed.words);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_bring_back_the_money_also_behind_hundreds_of_keys_that_came_to_nothing() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 500_000).await;
    for _ in 0..300 {
        wallet.fresh_key().unwrap();
    }
    let address = wallet.address().unwrap();
    let script = bitcoin::Address::p2wpkh(
        &bitcoin::CompressedPublicKey::from_private_key(
            bitcoin::secp256k1::SECP256K1,
            &bitcoin::PrivateKey::new(wallet.fresh_key().unwrap(), Network::Regtest),
        )
        .unwrap(),
        Network::Regtest,
    );
    rig.chain.faucet(address.script_pubkey(), 1_000).await.unwrap();
    rig.chain.faucet(script.script_pubkey(), 20_000).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 521_000);

    for birthday in [Birthday::Height(0), Birthday::Height(100), Birthday::Height(1_000_000)] {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed { words: wallet.words(), birthday };
        let restored = Wallet::create(dir.path(), Network::Regtest, &seed, Protection::None).unwrap();
        restored.sync(&rig.chain).await.unwrap();
        assert_eq!(restored.balance(), wallet.balance(), "{birthday:?}");
        assert_eq!(restored.descriptors(), wallet.descriptors());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_wallet_begins_at_the_tip_unless_its_address_was_shown_before() {
    let rig = rig().await;
    for shown in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed { words: Words::random(), birthday: Birthday::Now };
        let wallet = Wallet::create(dir.path(), Network::Regtest, &seed, Protection::None).unwrap();
        if shown {
            rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 7_000).await.unwrap();
            rig.chain.generate(50).await.unwrap();
        }
        wallet.sync(&rig.chain).await.unwrap();
        assert_eq!(wallet.birthday_height().unwrap() > 0, !shown);
        assert_eq!(wallet.balance().confirmed_sat, if shown { 7_000 } else { 0 });
        rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 3_000).await.unwrap();
        wallet.sync(&rig.chain).await.unwrap();
        assert_eq!(wallet.balance().confirmed_sat, if shown { 10_000 } else { 3_000 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_channels_are_funded_by_one_transaction_or_none_of_them() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    let mut sizes = Vec::new();
    for count in [1, 2, 5, 10_u64] {
        let outputs: Vec<_> = (0..count).map(|number| (Lock::new().script(), 20_000 + number)).collect();
        let tx = wallet.fund_many(&outputs, 1_000).unwrap();
        for (vout, (script, sat)) in outputs.iter().enumerate() {
            assert_eq!((&tx.output[vout].script_pubkey, tx.output[vout].value.to_sat()), (script, *sat));
        }
        println!("{count} channels: {} vB, {} vB each", tx.vsize(), tx.vsize() as u64 / count);
        sizes.push(tx.vsize() as u64 / count);
        wallet.release(&tx.compute_txid());
    }
    assert!(sizes.is_sorted_by(|more, less| more > less), "each more costs less: {sizes:?}");
    let before = wallet.balance();
    let too_much = [(Lock::new().script(), 20_000), (Lock::new().script(), 990_000)];
    assert!(matches!(wallet.fund_many(&too_much, 1_000), Err(WalletError::Short { .. })));
    let dust = [(Lock::new().script(), 20_000), (Lock::new().script(), 329)];
    let message = wallet.fund_many(&dust, 1_000).unwrap_err().to_string();
    assert_eq!(message, "329 sat are dust: at least 330 sat must go to an address of type P2WSH or P2TR");
    assert_eq!(wallet.balance(), before, "nothing is reserved");
}
