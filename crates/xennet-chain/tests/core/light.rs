//! The source `light` against a real Bitcoin Core that serves block filters to its peers.

use std::net::SocketAddr;

use bitcoin::{Network, Transaction};
use tokio::sync::mpsc;
use xennet_chain::{Chain, ChainConfig, ChainError, ChainEvent, Status, Wallet};

use crate::follows::{announced, hears_of_all, open, reaches, reorganisations, wallet};
use crate::rig::{Core, program, script, seen, until};

/// What makes it a peer for light clients.
pub const SERVES: [&str; 2] = ["-blockfilterindex=1", "-peerblockfilters=1"];

fn config(core: &Core, dir: &str) -> ChainConfig {
    ChainConfig::Light { network: Network::Regtest, dir: core.dir.path().join(dir), peers: vec![core.peer()] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_without_a_server_pays_and_follows_reorganisations_of_depth_one_to_six() {
    let Some(program) = program("light: reorganisations") else { return };
    let core = Core::start(&program, &SERVES);
    core.mine(1, &script(1));
    let (chain, mut events) = open(config(&core, "light")).await;
    assert_eq!(chain.source_name(), "light");
    let waits = async |tx: &Transaction| core.takes(&tx.compute_txid()).await;
    reorganisations(&core, (&chain, &mut events), waits, async |_| {}).await;
    chain.close().await;
}

/// Announcements of others are found by their markers once they are in a block, and what only waits is not claimed to be known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_are_found_by_their_markers() {
    let Some(program) = program("light: announcements") else { return };
    let core = Core::start(&program, &SERVES);
    core.mine(1, &script(1));
    let (full, _full_events) = core.open().await;
    let (chain, mut events) = open(config(&core, "light")).await;
    let wallet = Wallet::open(&core.dir.path().join("announcer"), Network::Regtest).unwrap();
    core.mine(1, &wallet.address().unwrap().script_pubkey());
    core.mine(150, &script(1));
    wallet.sync(&full).await.unwrap();
    reaches(&mut events, 152).await;
    let mut heard = Vec::new();
    for kind in [1u8, 0x81, 2, 0x82] {
        let (tx, unworked) = announced(&wallet, kind);
        full.broadcast(&tx).await.unwrap();
        wallet.sent(&tx).unwrap();
        let txid = tx.compute_txid();
        assert_eq!(chain.transaction(&txid).await.unwrap(), None, "it waits elsewhere, which a light client does not see");
        assert!(chain.mempool().await.unwrap().is_empty());
        core.mine(1, &script(1));
        let height = 153 + u32::try_from(heard.len()).unwrap();
        let payload = until(&mut events, |event| match event {
            ChainEvent::Announcement { tx, payload, status } if tx.compute_txid() == txid => Some((payload, status)),
            _ => None,
        })
        .await;
        assert_eq!((&payload.0[..41], payload.1), (&unworked[..], Status::Confirmed { height }));
        heard.push(txid);
        wallet.sync(&full).await.unwrap();
    }
    chain.close().await;

    // One that comes later is told of all of them at once.
    let (late, mut events) = open(config(&core, "late")).await;
    hears_of_all(&mut events, &heard).await;
    late.close().await;
}

/// The peer goes away, and what happened meanwhile is told when it is back; a restart goes on from what is on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_a_lost_peer_and_after_a_restart() {
    let Some(program) = program("light: restart") else { return };
    let mut core = Core::start(&program, &SERVES);
    core.mine(1, &script(1));
    let (chain, mut events) = open(config(&core, "light")).await;
    let (wallet, tip) = wallet(&core, &chain, &mut events).await;
    chain.watch_script(script(2));
    core.stop();
    until(&mut events, |event| matches!(event, ChainEvent::Lost { .. }).then_some(())).await;
    let unsent = wallet.fund(script(2), 100_000, 1_000).unwrap();
    let why = chain.broadcast(&unsent).await.unwrap_err();
    assert!(why.may_pass_later() && why.to_string().contains("regtest"), "{why}");
    wallet.release(&unsent.compute_txid());
    core.run();
    core.mine(3, &script(2));
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.tip().await.unwrap().0, tip + 3);
    assert_eq!(chain.history(&script(2)).await.unwrap().len(), 3);

    // An own transaction that waits is not forgotten by a restart, nor is the past.
    let tx = wallet.fund(script(2), 100_000, 1_000).unwrap();
    chain.broadcast(&tx).await.unwrap();
    wallet.sent(&tx).unwrap();
    core.takes(&tx.compute_txid()).await;
    chain.close().await;
    drop(chain);
    core.mine(2, &script(1));
    let (chain, mut events) = open(config(&core, "light")).await;
    chain.watch_script(script(2));
    until(&mut events, seen(tx.compute_txid(), Status::Confirmed { height: tip + 4 })).await;
    assert_eq!(chain.tip().await.unwrap().0, tip + 5);
    wallet.sync(&chain).await.unwrap();
    assert_eq!(wallet.height(), tip + 5);
    let second = Chain::open(config(&core, "light"), mpsc::channel(16).0).await;
    assert!(matches!(second, Err(ChainError::Light { .. })), "one process at a time");
    chain.close().await;
}

/// A wallet of old words reads filters from its birthday on, below what the client had needed until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_wallet_finds_its_past() {
    let Some(program) = program("light: restore") else { return };
    let core = Core::start(&program, &SERVES);
    let first = Wallet::open(&core.dir.path().join("first"), Network::Regtest).unwrap();
    core.mine(2, &first.address().unwrap().script_pubkey());
    core.mine(300, &script(1));
    let (chain, _events) = open(config(&core, "light")).await;
    let dir = core.dir.path().join("second");
    let seed = xennet_chain::Seed { words: first.words(), birthday: xennet_chain::Birthday::Height(0) };
    let second = Wallet::create(&dir, Network::Regtest, &seed, xennet_chain::Protection::None).unwrap();
    second.sync(&chain).await.unwrap();
    assert_eq!(second.balance().confirmed_sat, 2 * 5_000_000_000);
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_peer_of_the_network_that_serves_filters_one_error_says_what_to_do() {
    let Some(program) = program("light: no peer") else { return };
    let dir = tempfile::tempdir().unwrap();
    // It is there, but keeps its filters to itself.
    let core = Core::start(&program, &[]);
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let tries =
        [("without", core.peer(), Network::Regtest), ("nobody", nobody, Network::Regtest), ("signet", core.peer(), Network::Signet)];
    let [without, nobody, signet] = tries.map(|(name, peer, network)| {
        let config = ChainConfig::Light { network, dir: dir.path().join(name), peers: vec![peer] };
        async move {
            let why = Chain::open(config, mpsc::channel(16).0).await.err().expect("it does not open").to_string();
            assert!(why.contains(&peer.to_string()) && why.contains("peerblockfilters=1"), "{why}");
            assert!(why.contains(&format!("the {network} network")), "{why}");
        }
    });
    tokio::join!(without, nobody, signet);
}
