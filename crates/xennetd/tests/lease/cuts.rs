//! Leases that outlive a cut tunnel and a killed daemon.

use xennet_lease::LedgerKind;
use xennet_task::LeaseId;
use xennetd::control::{LeaseStage, LeaseView};

use crate::books::{Opening, ledger};
use crate::market::{Market, TaskToml};
use crate::processes;
use crate::wait::wait_until;
use crate::wire::Weather;

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Same {
    boot_id: String,
    guests: Vec<u32>,
    funding_txid: Option<String>,
}

impl Same {
    async fn now(market: &Market, lease: LeaseId) -> Same {
        // A node that starts also measures a guest of its own.
        let guests = processes::guests_of(&market.node.dir.join("vm").join(lease.to_string()));
        Same { boot_id: market.boot_id(lease).await, guests, funding_txid: market.node.lease(lease).await.funding_txid }
    }
}

fn is_live(view: &LeaseView) -> bool {
    view.stage == LeaseStage::Live && view.tunnel_up
}

/// The lease is live again, with the same guest and the same channel, and is paid for.
async fn goes_on(market: &Market, lease: LeaseId, before: &Same) {
    market.both("live again", 120, lease, is_live).await;
    assert_eq!(Same::now(market, lease).await, *before);
    market.pays(lease, 3).await;
}

/// Reset connections first, then a network that swallows everything without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tunnel_comes_back_to_the_same_guest_and_channel() {
    let market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml::default().text()).await;
    let before = Same::now(&market, lease).await;
    market.run(lease, "(while :; do date >>/data/ticks; sleep 1; done) >/dev/null 2>&1 & echo $! >/data/pid", b"").await;
    market.pays(lease, 3).await;

    for weather in [Weather::Cut, Weather::BlackHole] {
        market.wire.set(weather);
        market.both("without a tunnel", 30, lease, |view| view.stage == LeaseStage::Interrupted).await;
        // Nothing is used and nothing paid meanwhile, by either meter.
        let at_cut = market.publisher.lease(lease).await.totals.unwrap();
        let node_at_cut = market.node.lease(lease).await.totals.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(market.publisher.lease(lease).await.totals.unwrap(), at_cut);
        assert_eq!(market.node.lease(lease).await.totals.unwrap(), node_at_cut);
        market.wire.set(Weather::Fair);
        goes_on(&market, lease, &before).await;
    }
    // What ran in the guest has run through it all.
    market.run(lease, "kill -0 $(cat /data/pid)", b"").await;
    market.publisher.close(lease).await;
    opening.check(&market, lease).await;
}

/// Each daemon in turn, then both at once, in the middle of the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_the_kill_of_either_daemon() {
    let mut market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml::default().text()).await;
    let before = Same::now(&market, lease).await;
    market.pays(lease, 3).await;

    market.publisher.kill();
    wait_until("the node's notice", 30, async || !market.node.lease(lease).await.tunnel_up).await;
    market.publisher.start().await;
    goes_on(&market, lease, &before).await;

    market.node.kill();
    assert!(before.guests.iter().all(|guest| processes::is_alive(*guest)), "the guest runs on");
    market.node.start().await;
    goes_on(&market, lease, &before).await;

    market.publisher.kill();
    market.node.kill();
    market.publisher.start().await;
    market.node.start().await;
    goes_on(&market, lease, &before).await;

    market.publisher.close(lease).await;
    opening.check(&market, lease).await;
    market.guests_are_gone().await;
}

/// What was in the guest is gone, so the lease is over: a fresh guest in its place would be another machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_without_its_guest_says_so_and_settles() {
    let mut market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml::default().text()).await;
    market.pays(lease, 3).await;
    let guests = processes::guests_of(&market.node.dir);
    market.node.kill();
    guests.iter().for_each(|guest| processes::kill(*guest));
    market.node.start().await;
    opening.check(&market, lease).await;
    let ledger = ledger(&market.node, lease).await;
    let closing = ledger.iter().find(|entry| entry.kind == LedgerKind::Closing).unwrap();
    assert!(closing.note.starts_with("the guest died"), "{}", closing.note);
    market.guests_are_gone().await;
}
