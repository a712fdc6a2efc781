//! Two leases whose channels one transaction opens: through a death between disk and chain, a kill while both are paid, reorganisations
//! that take the funding and the ends back, and both closes.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use xennet_chain::{Chain, Status};
use xennet_task::{AnnouncementHash, LeaseId};
use xennetd::control::{LeaseStage, LeaseView};

use crate::books::Opening;
use crate::daemon::{Daemon, free_port};
use crate::market::{Market, Place, TaskToml};
use crate::wait::{wait_for, wait_until};

/// From two tasks to two live leases, seconds: two guests boot at the same time.
const LIVE_S: u64 = 240;
/// How long things may take after a death or a reorganisation, seconds.
const BACK_S: u64 = 90;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leases_on_one_funding_outlive_a_crash_a_reorganisation_and_both_closes() {
    let mut host = None;
    let mut market = Market::open_on(|dir| {
        let place = Place::embedded(dir.join("chain"));
        host = Some(ChainHost::start(dir, &place));
        place
    })
    .await;
    let host = host.unwrap();
    // It will die when both leases are on disk with their funding, and the funding is nowhere else.
    market.publisher.stop().await;
    market.publisher.variable = Some(("XENNET_CRASH_AT", "kept Broadcast 1".to_owned()));
    market.publisher.start().await;
    let opening = Opening::of(&market).await;
    let task = || TaskToml { lease_max: "20 min", ..TaskToml::default() }.text();
    let tasks = [market.publish(task()).await, market.publish(task()).await];

    // The chain answers nobody from when they are measured until both wait for their channel.
    let both = async |market: &Market, least: fn(&LeaseView) -> bool| {
        let views = leases_of(&market.publisher, &tasks).await;
        views.len() == 2 && views.iter().all(least)
    };
    wait_until("two guests that are measured", LIVE_S, async || {
        let views = leases_of(&market.publisher, &tasks).await;
        both(&market, |view| matches!(view.stage, LeaseStage::Measuring | LeaseStage::Proposed | LeaseStage::Agreed)).await
            || views.iter().any(|view| matches!(view.stage, LeaseStage::Proposed | LeaseStage::Agreed))
    })
    .await;
    host.stands_still();
    wait_until("two leases that wait for their channel", LIVE_S, async || both(&market, |view| view.stage == LeaseStage::Agreed).await)
        .await;
    host.goes_on();
    wait_until("the publisher's death", BACK_S, async || market.publisher.has_died()).await;
    market.publisher.variable = None;
    market.publisher.start().await;

    let leases: Vec<LeaseId> = leases_of(&market.publisher, &tasks).await.iter().map(|view| view.lease).collect();
    let live = |view: &LeaseView| view.stage == LeaseStage::Live && view.tunnel_up;
    for lease in &leases {
        market.both("live", BACK_S, *lease, live).await;
        market.pays(*lease, 2).await;
    }
    let views = leases_of(&market.publisher, &tasks).await;
    assert!(views[0].funding_txid.is_some() && views[0].funding_txid == views[1].funding_txid, "one transaction opens both");
    assert_ne!(market.boot_id(leases[0]).await, market.boot_id(leases[1]).await);

    market.publisher.kill();
    market.publisher.start().await;
    for lease in &leases {
        market.both("live again", BACK_S, *lease, live).await;
    }
    let funding = views[0].funding_txid.clone().unwrap();
    let tip = take_back(&market, &funding).await;
    is_back(&market, tip, async || Some(funding.clone())).await;
    for lease in &leases {
        market.pays(*lease, 2).await;
    }

    // One ends, the other goes on on the same funding; both ends are taken back once.
    market.publisher.close(leases[0]).await;
    market.both("settled", BACK_S, leases[0], |view| view.stage == LeaseStage::Settled).await;
    market.pays(leases[1], 2).await;
    market.node.close(leases[1]).await;
    market.both("settled", BACK_S, leases[1], |view| view.stage == LeaseStage::Settled).await;
    let first_close = market.publisher.lease(leases[0]).await.close_txid.unwrap();
    let tip = take_back(&market, &first_close).await;
    for lease in &leases {
        // The node may settle by another transaction, for it raises the fee with each block that does not take the last.
        is_back(&market, tip, async || market.publisher.lease(*lease).await.close_txid).await;
    }
    let settlements = opening.check_all(&market, &leases).await;
    assert_eq!(settlements[0].publisher.funding_txid, settlements[1].publisher.funding_txid);
    market.guests_are_gone().await;
}

/// The leases of these tasks that may yet come to something, in the order of the tasks.
async fn leases_of(publisher: &Daemon, tasks: &[AnnouncementHash]) -> Vec<LeaseView> {
    let all = publisher.leases().await;
    tasks.iter().filter_map(|task| all.iter().find(|view| view.task == *task && !view.stage.is_over()).cloned()).collect()
}

/// The chain replaces its last blocks, back to the one with this transaction; says where its tip was.
async fn take_back(market: &Market, txid: &str) -> u32 {
    let chain = market.chain().await;
    let before = wait_for("a block with the transaction", BACK_S, async || height_of(&chain, txid).await).await;
    let old = chain.tip().await.unwrap().0;
    chain.reorganise(old - before + 1, &[]).await.unwrap();
    let new = chain.tip().await.unwrap().0;
    for daemon in [&market.publisher, &market.node] {
        wait_until("the new branch", BACK_S, async || daemon.status().await.tip_height >= new).await;
    }
    chain.close().await;
    eprintln!("{txid} was in block {before} of {old}, and is taken back");
    old
}

/// Waits for a block above this height with the transaction that is asked for.
async fn is_back(market: &Market, above: u32, txid: impl AsyncFn() -> Option<String>) {
    let chain = market.chain().await;
    wait_until("another block with it", BACK_S, async || match txid().await {
        Some(txid) => height_of(&chain, &txid).await.is_some_and(|height| height > above),
        None => false,
    })
    .await;
    chain.close().await;
}

async fn height_of(chain: &Chain, txid: &str) -> Option<u32> {
    match chain.transaction(&txid.parse().unwrap()).await.unwrap() {
        Some((_, Status::Confirmed { height })) => Some(height),
        _ => None,
    }
}

/// A third daemon, of which nothing is wanted but that it hosts the chain, and can stand still.
struct ChainHost {
    daemon: Daemon,
}

impl ChainHost {
    fn start(dir: &Path, place: &Place) -> ChainHost {
        let root = dir.join("host");
        let own = [
            ["--overlay-listen".to_owned(), format!("/ip4/127.0.0.1/tcp/{}", free_port())],
            ["--tunnel-listen".to_owned(), format!("127.0.0.1:{}", free_port())],
        ];
        let flags: Vec<String> = own.into_iter().flatten().chain(place.flags.iter().cloned()).collect();
        std::fs::create_dir(&root).unwrap();
        let mut daemon = Daemon::new(&root, "publisher", &flags);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(daemon.start()));
        ChainHost { daemon }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.daemon.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn stands_still(&self) {
        self.signal(Signal::STOP);
    }

    fn goes_on(&self) {
        self.signal(Signal::CONT);
    }
}
