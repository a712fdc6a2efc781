//! The source `electrum` against a server over a real Bitcoin Core.

use bitcoin::{Network, Transaction};
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{Birthday, Chain, ChainConfig, ChainError, ChainEvent, Protection, Refusal, Seed, Status, Wallet};

use crate::electrum_server::{Lie, Server};
use crate::follows::{announced, hears_of_all, reaches, reorganisations, wallet};
use crate::rig::{Core, gone, program, script, seen, until};

pub const INDEXED: [&str; 1] = ["-txindex=1"];

pub fn config(server: &Server, core: &Core, dir: &str) -> ChainConfig {
    ChainConfig::Electrum { server: server.url().parse().unwrap(), network: Network::Regtest, dir: core.dir.path().join(dir) }
}

pub async fn open(server: &Server, core: &Core, dir: &str) -> (Chain, Receiver<ChainEvent>) {
    crate::follows::open(config(server, core, dir)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_over_a_server_pays_and_follows_reorganisations_of_depth_one_to_six() {
    let Some(program) = program("electrum: reorganisations") else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    assert_eq!((chain.source_name(), chain.network()), ("electrum", Network::Regtest));
    let waits = async |tx: &Transaction| {
        assert_eq!(chain.feerate().await.unwrap(), 1_000);
        assert_eq!(chain.transaction(&tx.compute_txid()).await.unwrap(), Some((tx.clone(), Status::Mempool)));
        assert_eq!(chain.mempool().await.unwrap(), std::slice::from_ref(tx));
    };
    let stands = async |tx: &Transaction| {
        assert_eq!(chain.broadcast(tx).await.unwrap(), tx.compute_txid(), "one that is in a block is no error either");
    };
    reorganisations(&core, (&chain, &mut events), waits, stands).await;
    chain.close().await;
}

/// Announcements are found by their markers, as soon as they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_are_found_by_their_markers_before_and_in_a_block() {
    let Some(program) = program("electrum: announcements") else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let (full, _full_events) = core.open().await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    let (wallet, tip) = wallet(&core, &chain, &mut events).await;
    let mut heard = Vec::new();
    for kind in [1u8, 0x81, 2, 0x82] {
        let (tx, unworked) = announced(&wallet, kind);
        // By another way than over the server.
        full.broadcast(&tx).await.unwrap();
        wallet.sent(&tx).unwrap();
        let txid = tx.compute_txid();
        let height = tip + 1 + u32::try_from(heard.len()).unwrap();
        for wanted in [Status::Mempool, Status::Confirmed { height }] {
            let payload = until(&mut events, |event| match event {
                ChainEvent::Announcement { tx, payload, status } if tx.compute_txid() == txid && status == wanted => Some(payload),
                _ => None,
            })
            .await;
            assert_eq!(payload[..41], unworked[..]);
            if wanted == Status::Mempool {
                core.mine(1, &script(1));
            }
        }
        heard.push(txid);
        reaches(&mut events, height).await;
        wallet.sync(&chain).await.unwrap();
    }
    chain.close().await;

    // One that comes later is told of all of them at once.
    let (late, mut events) = open(&server, &core, "late").await;
    hears_of_all(&mut events, &heard).await;
    reaches(&mut events, tip + 4).await;
    late.close().await;
}

/// Everything that bitcoind refuses is refused with the same words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_refuses_is_refused_as_bitcoind_refuses_it() {
    let Some(program) = program("electrum: refusals") else { return };
    let core = Core::start(&program, &INDEXED);
    let server = Server::before(&core).await;
    let (full, _full_events) = core.open().await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    let (wallet, tip) = wallet(&core, &chain, &mut events).await;
    chain.watch_script(script(2));
    let [cheap, first, dear] = [1_000, 5_000, 500_000].map(|feerate| {
        let tx = wallet.fund(script(2), 100_000, feerate).unwrap();
        wallet.release(&tx.compute_txid());
        tx
    });
    let mut unsigned = first.clone();
    unsigned.input[0].witness = bitcoin::Witness::from_slice(&[vec![1; 71], unsigned.input[0].witness.last().unwrap().to_vec()]);
    let mut late = first.clone();
    late.lock_time = bitcoin::absolute::LockTime::from_height(tip + 1_000).unwrap();
    let mut dusty = first.clone();
    dusty.output[0].value = bitcoin::Amount::from_sat(100);
    dusty.output[1].value = bitcoin::Amount::from_sat(100);
    let mut version = first.clone();
    version.version = bitcoin::transaction::Version(9);
    let mut nowhere = first.clone();
    nowhere.input[0].previous_output.vout = 77;
    let conflict = first.compute_txid();
    let mut reasons = Vec::new();
    for tx in [&unsigned, &late, &dusty, &version, &nowhere, &cheap] {
        if tx == &cheap {
            chain.broadcast(&first).await.unwrap();
            until(&mut events, seen(conflict, Status::Mempool)).await;
        }
        let [by_server, by_core] = [&chain, &full].map(|chain| chain.broadcast(tx));
        let (by_server, by_core) = (by_server.await, by_core.await);
        match (by_server, by_core) {
            (Err(ChainError::Refused { why, .. }), Err(ChainError::Refused { why: same, .. })) => {
                assert_eq!(why, same);
                reasons.push(why);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!reasons.iter().any(|why| matches!(why, Refusal::Other { .. })), "{reasons:#?}");
    assert!(reasons.iter().any(|why| matches!(why, Refusal::ReplacementFee { conflict: with, .. } | Refusal::ReplacementFeerate { conflict: with, .. } if *with == conflict)), "{reasons:#?}");
    // A hundred times the fee is the caller's decision.
    chain.broadcast(&dear).await.unwrap();
    until(&mut events, gone(conflict)).await;
    core.mine(1, &script(1));
    until(&mut events, seen(dear.compute_txid(), Status::Confirmed { height: tip + 1 })).await;
    match chain.broadcast(&first).await {
        Err(ChainError::Refused { why: Refusal::MissingOrSpent { outpoint }, .. }) => {
            assert_eq!(outpoint, first.input[0].previous_output);
        }
        other => panic!("{other:?}"),
    }
    chain.close().await;
}

/// What happened while nobody followed is told afterwards, by the headers that are on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_a_lost_server_and_after_a_restart() {
    let Some(program) = program("electrum: restart") else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    let (wallet, tip) = wallet(&core, &chain, &mut events).await;
    chain.watch_script(script(2));
    server.tell(Lie::Endless);
    // Something that makes it ask.
    core.mine(1, &script(2));
    until(&mut events, |event| matches!(event, ChainEvent::Lost { .. }).then_some(())).await;
    let unsent = wallet.fund(script(2), 100_000, 1_000).unwrap();
    let why = chain.broadcast(&unsent).await.unwrap_err();
    assert!(why.may_pass_later() && why.to_string().contains(&server.url()), "{why}");
    wallet.release(&unsent.compute_txid());
    core.mine(2, &script(2));
    server.tell(Lie::None);
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.tip().await.unwrap().0, tip + 3);
    assert_eq!(chain.history(&script(2)).await.unwrap().len(), 3);
    let tx = wallet.fund(script(2), 100_000, 1_000).unwrap();
    chain.broadcast(&tx).await.unwrap();
    wallet.sent(&tx).unwrap();
    chain.close().await;
    drop(chain);
    core.mine(2, &script(1));
    let (chain, mut events) = open(&server, &core, "electrum").await;
    chain.watch_script(script(2));
    until(&mut events, seen(tx.compute_txid(), Status::Confirmed { height: tip + 4 })).await;
    wallet.sync(&chain).await.unwrap();
    assert_eq!(wallet.height(), tip + 5);
    let second = Chain::open(config(&server, &core, "electrum"), mpsc::channel(16).0).await;
    assert!(matches!(second, Err(ChainError::Light { .. })), "one process at a time");
    chain.close().await;
}

/// A wallet of old words finds its coins, and what a server kept back is found when it no longer does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_wallet_finds_its_past_and_what_was_kept_back() {
    let Some(program) = program("electrum: restore") else { return };
    let core = Core::start(&program, &INDEXED);
    let first = Wallet::open(&core.dir.path().join("first"), Network::Regtest).unwrap();
    core.mine(2, &first.address().unwrap().script_pubkey());
    core.mine(300, &script(1));
    let server = Server::before(&core).await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    let dir = core.dir.path().join("second");
    let seed = Seed { words: first.words(), birthday: Birthday::Height(0) };
    let second = Wallet::create(&dir, Network::Regtest, &seed, Protection::None).unwrap();
    second.sync(&chain).await.unwrap();
    assert_eq!(second.balance().confirmed_sat, 2 * 5_000_000_000);

    server.tell(Lie::Hiding);
    core.mine(1, &second.address().unwrap().script_pubkey());
    core.mine(110, &script(1));
    reaches(&mut events, 413).await;
    second.sync(&chain).await.unwrap();
    assert_eq!((second.height(), second.balance().confirmed_sat), (413, 2 * 5_000_000_000), "nothing shows that something is kept back");
    server.tell(Lie::None);
    core.mine(1, &script(1));
    reaches(&mut events, 414).await;
    second.sync(&chain).await.unwrap();
    assert!(second.balance().confirmed_sat > 2 * 5_000_000_000, "{:?}", second.balance());
    chain.close().await;
}
