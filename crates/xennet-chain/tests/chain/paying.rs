//! Payments that a user asks for, and raising the fee of one that waits.

use bitcoin::{Transaction, Txid};
use xennet_chain::{Bump, ChainEvent, Status, Sum, WalletError};

use crate::rig::{Lock, rig};

fn fee_sat(tx: &Transaction, spent_sat: u64) -> u64 {
    spent_sat - tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_all_that_can_be_spent_less_the_fee() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 100_000).await;
    rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 50_000).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let to = Lock::new().script();
    let tx = wallet.pay(to.clone(), Sum::All, 2_000).unwrap();
    assert_eq!((tx.input.len(), tx.output.len()), (2, 1));
    let fee = fee_sat(&tx, 150_000);
    assert_eq!(wallet.fee_of(&tx), Some(fee));
    assert!(fee >= 2 * tx.vsize() as u64 && fee <= 2 * tx.vsize() as u64 + 10, "{fee}");
    rig.chain.broadcast(&tx).await.unwrap();
    wallet.sent(&tx).unwrap();
    assert!(matches!(wallet.pay(to, Sum::All, 2_000), Err(WalletError::Short { available_sat: 0, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_waits_is_replaced_by_a_dearer_one_to_the_same_place() {
    let mut rig = rig().await;
    let wallet = rig.wallet("wallet", 100_000).await;
    let to = Lock::new().script();
    rig.chain.watch_script(to.clone());
    let cheap = wallet.pay(to.clone(), Sum::Sat(30_000), 1_000).unwrap();
    rig.chain.broadcast(&cheap).await.unwrap();
    wallet.sent(&cheap).unwrap();
    let dear = wallet.bump(cheap.compute_txid(), 5_000, Bump::Replace).unwrap();
    assert_eq!(dear.output.iter().filter(|output| output.script_pubkey == to).map(|output| output.value.to_sat()).sum::<u64>(), 30_000);
    assert!(wallet.fee_of(&dear).unwrap() >= 5 * dear.vsize() as u64);
    rig.chain.broadcast(&dear).await.unwrap();
    wallet.sent(&dear).unwrap();
    rig.until(|event| (event == ChainEvent::Gone { txid: cheap.compute_txid() }).then_some(())).await;
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert!(matches!(rig.chain.transaction(&dear.compute_txid()).await.unwrap(), Some((_, Status::Confirmed { .. }))));
    assert_eq!(wallet.balance().confirmed_sat, 70_000 - wallet.fee_of(&dear).unwrap());
    let why = wallet.bump(dear.compute_txid(), 9_000, Bump::Replace).unwrap_err().to_string();
    assert!(why.contains("is in a block"), "{why}");
    let nobody = Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
    assert!(wallet.bump(nobody, 9_000, Bump::Replace).unwrap_err().to_string().contains("knows no transaction"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_lifts_both_to_the_feerate_and_the_parent_keeps_its_id() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 100_000).await;
    let parent = wallet.fund(Lock::new().script(), 30_000, 1_000).unwrap();
    rig.chain.broadcast(&parent).await.unwrap();
    wallet.sent(&parent).unwrap();
    let child = wallet.bump(parent.compute_txid(), 10_000, Bump::Child).unwrap();
    assert!(child.input.iter().all(|input| input.previous_output.txid == parent.compute_txid()));
    let both = wallet.fee_of(&parent).unwrap() + wallet.fee_of(&child).unwrap();
    let vbytes = (parent.vsize() + child.vsize()) as u64;
    assert!((vbytes * 10..vbytes * 10 + 20).contains(&both), "{both} sat for {vbytes} vB");
    rig.chain.broadcast(&child).await.unwrap();
    wallet.sent(&child).unwrap();
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 70_000 - both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_brings_the_wallet_back_with_its_passphrase_only() {
    use xennet_chain::{Birthday, Passphrase, Protection, Seed, Wallet, Words};

    let rig = rig().await;
    let passphrase = Passphrase::new("correct horse battery").unwrap();
    let [dir, copy, other] = ["first", "copy", "other"].map(|name| rig.dir.path().join(name));
    let seed = Seed { words: Words::random(), birthday: Birthday::Height(0) };
    let wallet = Wallet::create(&dir, rig.chain.network(), &seed, Protection::Passphrase(&passphrase)).unwrap();
    rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 123_456).await.unwrap();
    std::fs::write(&copy, Wallet::backup(&dir).unwrap()).unwrap();
    drop(wallet);

    let wrong = Passphrase::new("correct horse stable").unwrap();
    let refused = Wallet::restore_backup(&other, rig.chain.network(), &copy, &wrong).err().unwrap();
    assert!(matches!(refused, WalletError::WrongPassphrase { .. }), "{refused}");
    let refused = Wallet::restore_backup(&other, bitcoin::Network::Signet, &copy, &passphrase).err().unwrap();
    assert!(matches!(refused, WalletError::WrongNetwork { .. }), "{refused}");
    assert_eq!(Wallet::kept(&other), xennet_chain::Kept::Nothing, "nothing was made");
    let restored = Wallet::restore_backup(&other, rig.chain.network(), &copy, &passphrase).unwrap();
    restored.sync(&rig.chain).await.unwrap();
    assert_eq!(restored.balance().confirmed_sat, 123_456);
    assert_eq!(restored.words(), seed.words);

    let mut damaged = std::fs::read(&copy).unwrap();
    damaged[70] ^= 1;
    std::fs::write(&copy, damaged).unwrap();
    let refused = Wallet::restore_backup(&rig.dir.path().join("third"), rig.chain.network(), &copy, &passphrase).err().unwrap();
    assert!(matches!(refused, WalletError::Damaged { .. }), "{refused}");
    let plain = rig.wallet("plain", 1_000).await;
    drop(plain);
    let refused = Wallet::backup(&rig.dir.path().join("plain")).unwrap_err().to_string();
    assert!(refused.contains("encrypt the wallet first"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_whose_change_funds_a_channel_is_not_replaced() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 100_000).await;
    let payment = wallet.pay(Lock::new().script(), Sum::Sat(30_000), 1_000).unwrap();
    rig.chain.broadcast(&payment).await.unwrap();
    wallet.sent(&payment).unwrap();
    // Its only coin is the change.
    let funding = wallet.fund(Lock::new().script(), 20_000, 1_000).unwrap();
    let (paid, funded) = (payment.compute_txid(), funding.compute_txid());
    for sent in [false, true] {
        if sent {
            rig.chain.broadcast(&funding).await.unwrap();
            wallet.sent(&funding).unwrap();
        }
        let why = wallet.bump(paid, 5_000, Bump::Replace).unwrap_err().to_string();
        assert!(why.contains(&format!("{funded} spends the change of {paid}")), "{why}");
    }
    let child = wallet.bump(funded, 5_000, Bump::Child).unwrap();
    rig.chain.broadcast(&child).await.unwrap();
}
