//! What a light client believes of a peer that lies.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::Network;
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{Chain, ChainConfig, ChainEvent, Status, Wallet};

use crate::liar::{Liar, Lie};
use crate::light::SERVES;
use crate::rig::{Core, program, script, seen, until};

async fn open(core: &Core, peers: Vec<SocketAddr>) -> (Chain, Receiver<ChainEvent>) {
    let (sender, events) = mpsc::channel(16);
    let config = ChainConfig::Light { network: Network::Regtest, dir: core.dir.path().join("light"), peers };
    (Chain::open(config, sender).await.unwrap(), events)
}

async fn lost(events: &mut Receiver<ChainEvent>) -> String {
    until(events, |event| match event {
        ChainEvent::Lost { why } => Some(why),
        ChainEvent::Tip { height: 2.., .. } | ChainEvent::Seen { .. } => panic!("a lie was believed: {event:?}"),
        _ => None,
    })
    .await
}

/// A filter that claims more elements than fit into any number.
fn monstrous() -> Vec<u8> {
    let mut filter = vec![0xff];
    filter.extend([0xff; 40]);
    filter
}

/// A chain of one block is followed; what comes next is lied about, which is noticed; then the truth is told, and found.
async fn does_not_believe(core: &Core, liar: &Liar, peers: Vec<SocketAddr>, lie: Lie) -> String {
    core.mine(1, &script(1));
    let (chain, mut events) = open(core, peers).await;
    chain.watch_script(script(2));
    assert!(chain.history(&script(2)).await.unwrap().is_empty());
    liar.tell(lie);
    core.mine(1, &script(2));
    let why = lost(&mut events).await;
    assert!(liar.told() > 0);
    assert_eq!(chain.tip().await.unwrap().0, 1);
    liar.tell(Lie::None);
    until(&mut events, |event| matches!(event, ChainEvent::Seen { status: Status::Confirmed { height: 2 }, .. }).then_some(())).await;
    until(&mut events, |event| (event == ChainEvent::Back).then_some(())).await;
    assert_eq!(chain.tip().await.unwrap().0, 2);
    assert_eq!(chain.history(&script(2)).await.unwrap().len(), 1);
    chain.close().await;
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_do_not_fit_their_headers_are_not_believed() {
    let Some(program) = program("lies: filters") else { return };
    let core = Core::start(&program, &SERVES);
    let liar = Liar::before(core.peer()).await;
    does_not_believe(&core, &liar, vec![liar.address], Lie::Filters(vec![0])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_is_no_filter_is_not_kept_though_its_header_fits() {
    let Some(program) = program("lies: monstrous filters") else { return };
    let core = Core::start(&program, &SERVES);
    let liar = Liar::before(core.peer()).await;
    let why = does_not_believe(&core, &liar, vec![liar.address], Lie::FiltersAndHeaders(monstrous())).await;
    assert!(why.contains("block 2 is no filter"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_peers_cannot_hide_a_block() {
    let Some(program) = program("lies: two peers") else { return };
    let core = Core::start(&program, &SERVES);
    let liar = Liar::before(core.peer()).await;
    // What is hidden: the filter of a block that pays nobody.
    does_not_believe(&core, &liar, vec![core.peer(), liar.address], Lie::FiltersAndHeaders(vec![0])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_without_its_witnesses_is_asked_for_again_and_never_told_of() {
    let Some(program) = program("lies: blocks") else { return };
    let core = Core::start(&program, &SERVES);
    let liar = Liar::before(core.peer()).await;
    core.mine(1, &script(1));
    let (full, _full_events) = core.open().await;
    let wallet = Wallet::open(&core.dir.path().join("wallet"), Network::Regtest).unwrap();
    core.mine(1, &wallet.address().unwrap().script_pubkey());
    core.mine(100, &script(1));
    wallet.sync(&full).await.unwrap();
    let (chain, mut events) = open(&core, vec![liar.address]).await;
    until(&mut events, |event| matches!(event, ChainEvent::Tip { height: 102, .. }).then_some(())).await;
    chain.watch_script(script(2));
    liar.tell(Lie::Blocks);
    let tx = wallet.fund(script(2), 100_000, 1_000).unwrap();
    full.broadcast(&tx).await.unwrap();
    core.mine(1, &script(1));
    let why = lost(&mut events).await;
    assert!(why.contains("is not that block"), "{why}");
    assert!(liar.told() >= 3, "{}", liar.told());
    liar.tell(Lie::None);
    until(&mut events, seen(tx.compute_txid(), Status::Confirmed { height: 103 })).await;
    assert_eq!(chain.transaction(&tx.compute_txid()).await.unwrap(), Some((tx, Status::Confirmed { height: 103 })));
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_relays_only_what_pays_everything_does_not_set_the_fee() {
    let Some(program) = program("lies: fees") else { return };
    let core = Core::start(&program, &SERVES);
    let liar = Liar::before(core.peer()).await;
    liar.tell(Lie::FeeFilter);
    core.mine(101, &script(1));
    let (chain, _events) = open(&core, vec![liar.address]).await;
    let told = async {
        while liar.told() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("it says what it relays");
    assert_eq!(chain.feerate().await.unwrap(), 1_000);
    chain.close().await;
}
