//! The wallet's money.

use bitcoin::Network;
use xennet_chain::{Balance, Chain, Status, Wallet, WalletError};

use crate::rig::{Lock, rig};

async fn send(wallet: &Wallet, chain: &Chain, sat: u64) -> bitcoin::Txid {
    let tx = wallet.fund(Lock::new().script(), sat, 1_000).unwrap();
    chain.broadcast(&tx).await.unwrap();
    wallet.sent(&tx).unwrap();
    tx.compute_txid()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_comes_in_goes_out_and_is_accounted_for_to_the_satoshi() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    assert_eq!(wallet.balance(), Balance { confirmed_sat: 1_000_000, pending_sat: 0, reserved_sat: 0 });

    let tx = wallet.fund(Lock::new().script(), 300_000, 2_000).unwrap();
    assert_eq!(tx.output[0].value.to_sat(), 300_000, "the first output is what was asked for");
    assert_eq!(wallet.balance().reserved_sat, 1_000_000);
    rig.chain.broadcast(&tx).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let change = tx.output[1].value.to_sat();
    assert_eq!(wallet.balance(), Balance { confirmed_sat: 0, pending_sat: change, reserved_sat: 0 });
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance(), Balance { confirmed_sat: change, pending_sat: 0, reserved_sat: 0 });

    let fee = 1_000_000 - 300_000 - change;
    let rate = fee * 1_000 / tx.vsize() as u64;
    assert!((2_000..2_060).contains(&rate), "{rate} sat/kvB");
    let history = wallet.history();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1].txid, tx.compute_txid());
    assert_eq!((history[1].sent_sat, history[1].received_sat), (1_000_000, change));
    assert_eq!(history[1].fee_sat, Some(fee));
    assert!(matches!(history[1].status, Status::Confirmed { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortage_is_named_exactly_so_that_this_much_more_is_enough() {
    let rig = rig().await;
    for (have, less) in [(0, 0), (50_000, 0), (50_000, 1)] {
        let wallet = rig.wallet(&format!("wallet-{have}-{less}"), have).await;
        let lock = Lock::new();
        let Err(WalletError::Short { needed_sat, available_sat, missing_sat, .. }) = wallet.fund(lock.script(), 200_000, 3_000) else {
            panic!("there is not enough");
        };
        assert_eq!(available_sat, have);
        assert!(needed_sat > 200_000 && needed_sat < 201_000, "{needed_sat}");
        let address = wallet.address().unwrap();
        rig.chain.faucet(address.script_pubkey(), missing_sat - less).await.unwrap();
        wallet.sync(&rig.chain).await.unwrap();
        let built = wallet.fund(lock.script(), 200_000, 3_000);
        match less {
            0 => assert_eq!(built.unwrap().output.len(), 1, "with nothing left over"),
            _ => assert!(matches!(built, Err(WalletError::Short { .. })), "one satoshi less is not enough"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_feerate_that_is_relayed_is_enough() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    for sat in 0..20 {
        let tx = wallet.fund(Lock::new().script(), 10_000 + sat, 100).unwrap();
        rig.chain.broadcast(&tx).await.unwrap();
        wallet.sent(&tx).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fundings_built_at_once_do_not_take_the_same_coins() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 500_000).await;
    rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 500_000).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();

    let build = |wallet: Wallet| move || wallet.fund(Lock::new().script(), 300_000, 1_000).unwrap();
    let (a, b) = (std::thread::spawn(build(wallet.clone())), std::thread::spawn(build(wallet.clone())));
    let (a, b) = (a.join().unwrap(), b.join().unwrap());
    assert_ne!(a.input[0].previous_output, b.input[0].previous_output);
    assert_eq!(wallet.balance().reserved_sat, 1_000_000);
    let Err(WalletError::Short { reserved_sat, available_sat, .. }) = wallet.fund(Lock::new().script(), 1_000, 1_000) else {
        panic!("all coins are reserved");
    };
    assert_eq!((reserved_sat, available_sat), (1_000_000, 0));

    rig.chain.broadcast(&a).await.unwrap();
    rig.chain.broadcast(&b).await.unwrap();
    wallet.sent(&a).unwrap();
    wallet.sent(&b).unwrap();
    // Change of own transactions is spent before it is confirmed.
    send(&wallet, &rig.chain, 150_000).await;
    rig.chain.generate(1).await.unwrap();
    assert!(rig.chain.mempool().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_given_up_frees_its_coins_and_one_kept_can_be_reserved_again() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 500_000).await;
    let tx = wallet.fund(Lock::new().script(), 300_000, 1_000).unwrap();
    assert!(wallet.fund(Lock::new().script(), 300_000, 1_000).is_err());
    wallet.release(&tx.compute_txid());
    let other = wallet.fund(Lock::new().script(), 300_000, 1_000).unwrap();
    wallet.release(&other.compute_txid());
    wallet.reserve(&tx);
    assert!(wallet.fund(Lock::new().script(), 300_000, 1_000).is_err());
    rig.chain.broadcast(&tx).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance().reserved_sat, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_payment_of_a_stranger_counts_as_pending_and_is_not_spent() {
    let rig = rig().await;
    let (giver, taker) = (rig.wallet("giver", 500_000).await, rig.wallet("taker", 0).await);
    let tx = giver.fund(taker.address().unwrap().script_pubkey(), 200_000, 1_000).unwrap();
    rig.chain.broadcast(&tx).await.unwrap();
    taker.sync(&rig.chain).await.unwrap();
    assert_eq!(taker.balance(), Balance { confirmed_sat: 0, pending_sat: 200_000, reserved_sat: 0 });
    let Err(WalletError::Short { unconfirmed_sat: 200_000, .. }) = taker.fund(Lock::new().script(), 1_000, 1_000) else {
        panic!("the giver can still take it back");
    };
    rig.chain.generate(1).await.unwrap();
    taker.sync(&rig.chain).await.unwrap();
    send(&taker, &rig.chain, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_payment_leaves_the_balance_and_its_replacement_enters_it() {
    let rig = rig().await;
    let taker = rig.wallet("taker", 0).await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 100_000).await;
    let to = taker.address().unwrap().script_pubkey();
    let first = lock.spend(coin, 100_000, to.clone(), 1_000).sign();
    let second = lock.spend(coin, 100_000, to, 30_000).sign();
    for (tx, pending_sat) in [(first, 99_000), (second, 70_000)] {
        rig.chain.broadcast(&tx).await.unwrap();
        taker.sync(&rig.chain).await.unwrap();
        assert_eq!(taker.balance().pending_sat, pending_sat);
    }
    assert_eq!(taker.history().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_opens_again_with_the_same_money_and_from_its_words_alone() {
    let rig = rig().await;
    let dir = rig.dir.path().join("wallet");
    let wallet = rig.wallet("wallet", 500_000).await;
    send(&wallet, &rig.chain, 100_000).await;
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let (balance, history) = (wallet.balance(), wallet.history());

    let Err(WalletError::Locked { pid, .. }) = Wallet::open(&dir, Network::Regtest).map(|_| ()) else {
        panic!("two at once would spend the same coins");
    };
    assert_eq!(pid, std::process::id());
    drop(wallet);
    let wallet = Wallet::open(&dir, Network::Regtest).unwrap();
    assert_eq!((wallet.balance(), wallet.history()), (balance, history.clone()), "without asking the chain");
    drop(wallet);

    use std::os::unix::fs::PermissionsExt as _;
    let seed = dir.join("seed.txt");
    assert_eq!(std::fs::metadata(&seed).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&seed).unwrap().split_whitespace().count(), 12);
    let elsewhere = rig.dir.path().join("restored");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::copy(&seed, elsewhere.join("seed.txt")).unwrap();
    let restored = Wallet::open(&elsewhere, Network::Regtest).unwrap();
    restored.sync(&rig.chain).await.unwrap();
    assert_eq!((restored.balance(), restored.history()), (balance, history));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_whose_files_do_not_fit_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed.txt");
    let message = || match Wallet::open(dir.path(), Network::Regtest) {
        Ok(_) => panic!("this must not open"),
        Err(why) => why.to_string(),
    };
    drop(Wallet::open(dir.path(), Network::Regtest).unwrap());
    let words = std::fs::read_to_string(&seed).unwrap();

    std::fs::set_permissions(&seed, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(message().contains("chmod 600"), "{}", message());
    std::fs::set_permissions(&seed, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&seed, "not twelve words").unwrap();
    assert!(message().contains("12 words"), "{}", message());
    std::fs::write(&seed, "abandon ".repeat(11) + "about").unwrap();
    assert!(message().contains("not the seed that"), "{}", message());
    std::fs::remove_file(&seed).unwrap();
    assert!(message().contains("missing"), "{}", message());
    std::fs::write(&seed, words).unwrap();
    std::fs::set_permissions(&seed, PermissionsExt::from_mode(0o600)).unwrap();
    let Err(WalletError::WrongNetwork { expected, found, .. }) = Wallet::open(dir.path(), Network::Testnet).map(|_| ()) else {
        panic!("a regtest wallet is no testnet wallet");
    };
    assert_eq!((expected.as_str(), found.as_str()), ("testnet", "regtest"));
    drop(Wallet::open(dir.path(), Network::Regtest).unwrap());

    let rig = rig().await;
    let foreign = Wallet::open(&rig.dir.path().join("foreign"), Network::Testnet).unwrap();
    assert!(matches!(foreign.sync(&rig.chain).await, Err(WalletError::WrongNetwork { .. })));
    for (sat, feerate) in [(u64::MAX, 1_000), (1_000, u64::MAX)] {
        let built = foreign.fund(Lock::new().script(), sat, feerate);
        assert!(matches!(built, Err(WalletError::OutOfRange { value: u64::MAX, .. })));
    }
    assert!(matches!(foreign.fund(Lock::new().script(), 329, 1_000), Err(WalletError::Dust { sat: 329, at_least_sat: 330 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_slept_through_a_thousand_blocks_catches_up() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 500_000).await;
    rig.chain.generate(1_000).await.unwrap();
    rig.chain.faucet(wallet.address().unwrap().script_pubkey(), 1_000).await.unwrap();
    let begun = std::time::Instant::now();
    wallet.sync(&rig.chain).await.unwrap();
    println!("1,001 blocks in {:?}", begun.elapsed());
    assert_eq!(wallet.height(), rig.chain.tip().await.unwrap().0);
    assert_eq!(wallet.balance().confirmed_sat, 501_000);
    let begun = std::time::Instant::now();
    wallet.sync(&rig.chain).await.unwrap();
    println!("nothing new in {:?}", begun.elapsed());
}
