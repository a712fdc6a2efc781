//! What is believed of an Electrum server that lies: one clear error each, and nothing changes by it.

use bitcoin::Network;
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{Chain, ChainConfig, ChainEvent, Status, Wallet};

use crate::electrum::{INDEXED, config, open};
use crate::electrum_server::{Lie, Server};
use crate::follows::{reaches, wallet};
use crate::rig::{Core, program, script, seen, until};

async fn lost(events: &mut Receiver<ChainEvent>, tip: u32) -> String {
    until(events, |event| match event {
        ChainEvent::Lost { why } => Some(why),
        ChainEvent::Tip { height, .. } if height > tip => panic!("a lie was believed: {event:?}"),
        ChainEvent::Seen { .. } => panic!("a lie was believed: {event:?}"),
        _ => None,
    })
    .await
}

/// A chain is followed; what comes next is lied about, which is noticed; then the truth is told, and found.
async fn does_not_believe(lie: Lie, words: &str) {
    let Some(program) = program(&format!("electrum lies: {lie:?}")) else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    reaches(&mut events, 1).await;
    chain.watch_script(script(2));
    assert!(chain.history(&script(2)).await.unwrap().is_empty());
    server.tell(lie.clone());
    core.mine(1, &script(2));
    let why = lost(&mut events, 1).await;
    assert!(server.told() > 0);
    assert!(why.contains(words) && why.contains(&server.url()), "{why}");
    if !matches!(lie, Lie::Endless | Lie::Silence) {
        assert!(why.contains("choose another server"), "{why}");
    }
    let header = matches!(lie, Lie::Work | Lie::Difficulty | Lie::Link);
    assert!(!header || chain.tip().await.unwrap().0 == 1);
    server.tell(Lie::None);
    until(&mut events, seen_at(2)).await;
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.tip().await.unwrap().0, 2);
    assert_eq!(chain.history(&script(2)).await.unwrap().len(), 1);
    chain.close().await;
}

fn seen_at(height: u32) -> impl FnMut(ChainEvent) -> Option<()> {
    move |event| matches!(event, ChainEvent::Seen { status: Status::Confirmed { height: at }, .. } if at == height).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_merkle_branch_is_refused() {
    does_not_believe(Lie::Branch, "has a Merkle branch that does not lead to the header").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_merkle_branch_is_refused() {
    does_not_believe(Lie::NoBranch, "comes without a Merkle branch").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_transaction_than_the_one_asked_for_is_refused() {
    does_not_believe(Lie::Transaction, "what is not that transaction").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_without_work_is_refused() {
    does_not_believe(Lie::Work, "header for block 2 without the work").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_another_difficulty_is_refused() {
    does_not_believe(Lie::Difficulty, "the network demands 0x207fffff").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_follows_nothing_is_refused() {
    does_not_believe(Lie::Link, "that does not follow block 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_line_ends_the_connection() {
    does_not_believe(Lie::Endless, "a line of more than 8200000 bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_the_connection() {
    does_not_believe(Lie::Silence, "in 30 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_network_or_none_at_all_is_one_clear_error() {
    let Some(program) = program("electrum lies: network") else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let signet =
        ChainConfig::Electrum { server: server.url().parse().unwrap(), network: Network::Signet, dir: core.dir.path().join("signet") };
    server.tell(Lie::Network);
    let nobody = ChainConfig::Electrum {
        server: "tcp://127.0.0.1:1".parse().unwrap(),
        network: Network::Regtest,
        dir: core.dir.path().join("none"),
    };
    for (config, words) in [
        (config(&server, &core, "electrum"), vec!["is for signet, and regtest was expected", server.url().as_str()]),
        (nobody, vec!["tcp://127.0.0.1:1 does not answer"]),
    ] {
        let why = Chain::open(config, mpsc::channel(16).0).await.err().expect("it does not open").to_string();
        assert!(words.iter().all(|words| why.contains(words)), "{why}");
    }
    // It says that it is of the network, and its first header says otherwise.
    let why = Chain::open(signet, mpsc::channel(16).0).await.err().expect("it does not open").to_string();
    assert!(why.contains("parts from the one known here before block 0"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shorter_chain_is_not_taken_and_fees_and_broadcasts_are_not_taken_at_their_word() {
    let Some(program) = program("electrum lies: short chain") else { return };
    let core = Core::start(&program, &INDEXED);
    core.mine(1, &script(1));
    let server = Server::before(&core).await;
    let (chain, mut events) = open(&server, &core, "electrum").await;
    let (wallet, tip): (Wallet, u32) = wallet(&core, &chain, &mut events).await;
    server.tell(Lie::Fees);
    assert_eq!(chain.feerate().await.unwrap(), 1_000_000, "the most that is believed");
    let tx = wallet.fund(script(2), 100_000, 1_000).unwrap();
    server.tell(Lie::Broadcast);
    let why = chain.broadcast(&tx).await.unwrap_err().to_string();
    assert!(why.contains("named another one") && why.contains("choose another server"), "{why}");
    server.tell(Lie::Short(3));
    core.mine(1, &script(1));
    let why = lost(&mut events, tip).await;
    assert!(why.contains(&format!("ends at block {}", tip - 2)) && why.contains(&format!("up to block {tip}")), "{why}");
    assert_eq!(chain.tip().await.unwrap().0, tip);
    server.tell(Lie::None);
    reaches(&mut events, tip + 1).await;
    chain.broadcast(&tx).await.unwrap();
    chain.watch_script(script(2));
    until(&mut events, seen(tx.compute_txid(), Status::Mempool)).await;
    chain.close().await;
}
