//! Leases of which one side never comes back: the other gets what is its own, alone.

use xennet_lease::LedgerKind;
use xennetd::control::LeaseStage;

use crate::books::{Opening, ledger};
use crate::market::{Market, PATIENCE_S, TaskToml};
use crate::processes;
use crate::wait::wait_until;

/// The publisher dies. The node waits, then settles by itself. Only when that is in a block does the publisher come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_left_alone_settles_alone() {
    let mut market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml::default().text()).await;
    market.pays(lease, 4).await;
    market.publisher.kill();

    let settled = async || market.node.lease(lease).await.stage == LeaseStage::Settled;
    wait_until("the node's own settlement", PATIENCE_S + 60, settled).await;
    let ledger = ledger(&market.node, lease).await;
    let closing = ledger.iter().find(|entry| entry.kind == LedgerKind::Closing).unwrap();
    assert_eq!(closing.note, "the tunnel stayed down");
    let waited_ms = closing.at_ms - ledger.iter().rfind(|entry| entry.kind == LedgerKind::Disconnected).unwrap().at_ms;
    assert!((PATIENCE_S * 1000..PATIENCE_S * 1000 + 10_000).contains(&waited_ms), "{waited_ms} ms");
    market.guests_are_gone().await;

    market.publisher.start().await;
    opening.check(&market, lease).await;
}

/// The node dies with its guest. The publisher closes, waits for the channel's expiry, and takes everything back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_left_alone_gets_its_refund() {
    let mut market = Market::open().await;
    let opening = Opening::of(&market).await;
    // Blocks come each second here, so that expiry is some 200 blocks away.
    let lease = market.rent(TaskToml { lease_max: "60 s", ..TaskToml::default() }.text()).await;
    market.pays(lease, 2).await;
    let guests = processes::guests_of(&market.node.dir);
    market.node.kill();
    guests.iter().for_each(|guest| processes::kill(*guest));

    market.publisher.close(lease).await;
    let closing = async || market.publisher.lease(lease).await.stage == LeaseStage::Closing;
    wait_until("the publisher's closing", 30, closing).await;
    let refund_height = market.publisher.lease(lease).await.totals.unwrap().refund_height;
    let chain = market.chain().await;
    let (tip, _) = chain.tip().await.unwrap();
    // Not a block too early.
    chain.generate(refund_height - 1 - tip).await.unwrap();
    wait_until("the publisher's tip", 30, async || market.publisher.status().await.tip_height == refund_height - 1).await;
    assert_eq!(market.publisher.lease(lease).await.close_txid, None);
    assert_eq!(market.publisher.lease(lease).await.stage, LeaseStage::Closing);
    chain.generate(1).await.unwrap();
    chain.close().await;
    opening.check_refunded(&market, lease).await;
}
