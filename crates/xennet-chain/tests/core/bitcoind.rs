//! Following, paying and failing over a real bitcoind.

use bitcoin::Network;
use xennet_chain::{BitcoindAuth, Chain, ChainError, ChainEvent, Refusal, Status, Wallet};

use crate::rig::{Core, gone, program, script, seen, until};

/// A wallet with one ripe coinbase.
async fn wallet(core: &Core, chain: &Chain) -> Wallet {
    let wallet = Wallet::open(&core.dir.path().join("wallet"), Network::Regtest).unwrap();
    core.mine(1, &wallet.address().unwrap().script_pubkey());
    core.mine(100, &script(1));
    wallet.sync(chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 5_000_000_000);
    wallet
}

async fn pays_and_follows_reorganisations(core: &Core) {
    let (chain, mut events) = core.open().await;
    assert_eq!(chain.source_name(), "bitcoind");
    let wallet = wallet(core, &chain).await;
    let to = script(2);
    chain.watch_script(to.clone());
    for depth in 1..=6 {
        let before = wallet.balance().confirmed_sat;
        let feerate = chain.feerate().await.unwrap();
        assert!(feerate >= 100, "{feerate}");
        let tx = wallet.fund(to.clone(), 100_000, feerate).unwrap();
        let txid = chain.broadcast(&tx).await.unwrap();
        assert_eq!(chain.broadcast(&tx).await.unwrap(), txid, "twice is no error");
        until(&mut events, seen(txid, Status::Mempool)).await;
        core.mine(depth, &script(1));
        let (tip, _) = chain.tip().await.unwrap();
        let height = tip + 1 - depth;
        until(&mut events, seen(txid, Status::Confirmed { height })).await;
        assert_eq!(chain.transaction(&txid).await.unwrap(), Some((tx.clone(), Status::Confirmed { height })));
        wallet.sync(&chain).await.unwrap();
        let paid = wallet.balance();
        assert!(paid.confirmed_sat < before - 100_000 && paid.pending_sat == 0, "{paid:?}");

        let first = chain.block_hash(height).await.unwrap().unwrap();
        core.cli(&["invalidateblock", &first.to_string()]);
        until(&mut events, gone(txid)).await;
        until(&mut events, seen(txid, Status::Mempool)).await;
        // To another script, or the same blocks would come again.
        core.mine(depth + 1, &script(3));
        until(&mut events, seen(txid, Status::Confirmed { height })).await;
        wallet.sync(&chain).await.unwrap();
        assert_eq!(wallet.balance(), paid);
        assert_eq!(wallet.height(), height + depth);
        let past = chain.history(&to).await.unwrap();
        assert_eq!(past.last(), Some(&(tx, Status::Confirmed { height })));
    }
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reorganisations_of_depth_one_to_six_are_followed_by_events_and_wallet() {
    let Some(program) = program("reorganisations") else { return };
    pays_and_follows_reorganisations(&Core::start(&program, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reorganisations_of_depth_one_to_six_are_followed_by_block_filters_too() {
    let Some(program) = program("reorganisations with filters") else { return };
    pays_and_follows_reorganisations(&Core::start(&program, &["-blockfilterindex=1"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_spend_is_refused_with_both_figures_and_one_that_pays_more_makes_the_first_gone() {
    let Some(program) = program("double spends") else { return };
    let core = Core::start(&program, &[]);
    let (chain, mut events) = core.open().await;
    let wallet = wallet(&core, &chain).await;
    chain.watch_script(script(2));
    let [cheap, first, dear] = [1_000, 5_000, 500_000].map(|feerate| {
        let tx = wallet.fund(script(2), 100_000, feerate).unwrap();
        wallet.release(&tx.compute_txid());
        tx
    });
    chain.broadcast(&first).await.unwrap();
    let conflict = first.compute_txid();
    until(&mut events, seen(conflict, Status::Mempool)).await;
    match chain.broadcast(&cheap).await {
        Err(ChainError::Refused { why: Refusal::ReplacementFee { conflict: with, fee_sat, at_least_sat }, .. }) => {
            assert!(with == conflict && fee_sat < at_least_sat);
        }
        Err(ChainError::Refused { why: Refusal::ReplacementFeerate { conflict: with, sat_per_kvb, other_sat_per_kvb }, .. }) => {
            assert!(with == conflict && sat_per_kvb < other_sat_per_kvb);
        }
        other => panic!("{other:?}"),
    }
    // A hundred times the fee is the caller's decision.
    chain.broadcast(&dear).await.unwrap();
    until(&mut events, gone(conflict)).await;
    core.mine(1, &script(1));
    let (height, _) = chain.tip().await.unwrap();
    until(&mut events, seen(dear.compute_txid(), Status::Confirmed { height })).await;
    match chain.broadcast(&first).await {
        Err(ChainError::Refused { why: Refusal::MissingOrSpent { outpoint }, .. }) => {
            assert_eq!(outpoint, first.input[0].previous_output);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_named_with_its_remedy() {
    let Some(program) = program("errors") else { return };
    let core = Core::start(&program, &[]);
    let cookie = || BitcoindAuth::CookieFile(core.cookie());
    let wrong = core.dir.path().join("wrong.cookie");
    std::fs::write(&wrong, "__cookie__:00").unwrap();
    let password = BitcoindAuth::UserPassword { user: "me".to_owned(), password: "guess".to_owned() };
    for (auth, network, words) in [
        (BitcoindAuth::CookieFile(wrong), Network::Regtest, "wrong.cookie does not open bitcoind"),
        (BitcoindAuth::CookieFile(core.dir.path().join("none")), Network::Regtest, "No such file"),
        (password, Network::Regtest, "does not accept the password of user me: compare"),
        (cookie(), Network::Signet, "is for regtest, and signet was expected"),
    ] {
        let why = core.open_with(auth, network).await.err().expect("it does not open").to_string();
        assert!(why.contains(words), "{why}");
    }
    let (chain, _events) = core.open().await;
    let why = chain.faucet(script(1), 1_000).await.unwrap_err().to_string();
    assert!(why.contains("bitcoind: choose the source `embedded`"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bitcoind_that_was_restarted_with_another_cookie_is_followed_on() {
    let Some(program) = program("restart") else { return };
    let mut core = Core::start(&program, &[]);
    let (chain, mut events) = core.open().await;
    let old = std::fs::read_to_string(core.cookie()).unwrap();
    core.stop();
    until(&mut events, |event| matches!(event, ChainEvent::Lost { .. }).then_some(())).await;
    assert!(chain.tip().await.unwrap_err().may_pass_later() || !core.cookie().exists());
    core.run();
    assert_ne!(std::fs::read_to_string(core.cookie()).unwrap(), old);
    core.mine(3, &script(1));
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.tip().await.unwrap().0, 3);
}
