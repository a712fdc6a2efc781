//! The crash programme with whole daemons: each dies at a named step of opening, paying and closing, starts again, and at the end
//! the chain and both ledgers must agree. One step is a test like any other; `cargo xtask crash --processes` tries them all.

use std::time::{Duration, Instant};

use xennet_task::{AnnouncementHash, LeaseId};
use xennetd::control::{Command, LeaseStage, LeaseView, Reply};

use crate::books::Opening;
use crate::daemon::Daemon;
use crate::market::{Market, TaskToml};
use crate::wait::wait_until;

/// `all`: every step; other words: those that have them in their name, such as `Node kept`.
const HOW_MUCH: &str = "XENNET_CRASH_PROCESSES";
/// What a daemon understands.
const CRASH_AT: &str = "XENNET_CRASH_AT";
/// How long one lease may take with a death in it, seconds.
const WITHIN_S: u64 = 300;
/// How long nodes may take a task, seconds.
const VALID_S: u64 = 20;
/// Payments before it is closed.
const PAYMENTS: u32 = 3;

const PUBLISHER: [&str; 15] = [
    "decided SpreadProposal 1",
    "kept SpreadProposal 1",
    "decided Fund 1",
    "kept Fund 1",
    "decided Broadcast 1",
    "kept Broadcast 1",
    "done Broadcast 1",
    "decided Send:Pay 1",
    "kept Send:Pay 1",
    "done Send:Pay 1",
    "decided Send:Pay 3",
    "kept Send:Pay 3",
    "done Send:Pay 3",
    "decided Record:Closing 1",
    "kept Record:Closing 1",
];

const NODE: [&str; 15] = [
    "kept Dial 1",
    "kept Boot 1",
    "decided Record:Agreed 1",
    "kept Record:Agreed 1",
    "decided Record:Funded 1",
    "kept Record:Funded 1",
    "decided Record:Paid 1",
    "kept Record:Paid 1",
    "done Record:Paid 3",
    "decided AskDestination 1",
    "kept AskDestination 1",
    "decided Broadcast 1",
    "kept Broadcast 1",
    "done Broadcast 1",
    "decided Record:Settled 1",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Publisher,
    Node,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_at_a_step_of_the_money_goes_on_where_it_was() {
    let every = PUBLISHER.iter().map(|step| (Side::Publisher, *step)).chain(NODE.iter().map(|step| (Side::Node, *step)));
    let steps: Vec<(Side, &str)> = match std::env::var(HOW_MUCH) {
        Ok(words) => every.filter(|(side, step)| words == "all" || format!("{side:?} {step}").contains(&words)).collect(),
        Err(_) => vec![(Side::Publisher, "kept Broadcast 1"), (Side::Node, "kept Broadcast 1")],
    };
    assert!(!steps.is_empty(), "no step has such a name");
    let mut market = Market::open().await;
    let count = steps.len();
    for (nth, (side, step)) in steps.into_iter().enumerate() {
        let begun = Instant::now();
        dies(&mut market, side, step).await;
        eprintln!("{} of {count}: {side:?}, {step}: settled, books agree, {:.0} s", nth + 1, begun.elapsed().as_secs_f64());
    }
}

/// A lease in which this side dies at this step.
async fn dies(market: &mut Market, side: Side, step: &'static str) {
    let opening = Opening::of(market).await;
    let daemon = match side {
        Side::Publisher => &mut market.publisher,
        Side::Node => &mut market.node,
    };
    daemon.stop().await;
    daemon.variable = Some((CRASH_AT, step.to_owned()));
    daemon.start().await;
    market.node_sells().await;
    // A node that starts again reads the tasks of the last day on the chain: those of the leases before shall be over by then.
    let text = TaskToml::default().text().replace("[lease]", &format!("valid_for = \"{VALID_S} s\"\n[lease]"));
    let announced = Instant::now();
    let task = market.publish(text).await;
    let mut died = false;
    let mut closed = false;
    let mut cancelled = false;
    let begun = Instant::now();
    let lease = loop {
        assert!(begun.elapsed() < Duration::from_secs(WITHIN_S), "{side:?}, {step}: not settled within {WITHIN_S} s, died: {died}");
        let daemon = match side {
            Side::Publisher => &mut market.publisher,
            Side::Node => &mut market.node,
        };
        if daemon.has_died() {
            assert!(!std::mem::replace(&mut died, true), "{side:?}, {step}: it died a second time");
            daemon.variable = None;
            daemon.start().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let [ours, theirs] = [of_task(&market.publisher, task).await, of_task(&market.node, task).await];
        let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
        if ours.stage == LeaseStage::Settled && theirs.stage == LeaseStage::Settled {
            break ours.lease;
        }
        if !cancelled && ours.stage == LeaseStage::Live && theirs.stage == LeaseStage::Live {
            // A node that starts again would take the task once more when its lease is over.
            cancelled = market.publisher.client.command(&Command::Cancel { task }).await.is_ok();
        }
        let paid = |view: &LeaseView| view.totals.is_some_and(|totals| totals.payments >= PAYMENTS);
        if !closed && paid(&ours) && paid(&theirs) && ours.stage == LeaseStage::Live {
            closed = close(&market.publisher, ours.lease).await;
        }
        // A close that died with its daemon is asked for again by its user.
        closed = closed && !(died && ours.stage == LeaseStage::Live);
    };
    assert!(died, "{side:?}, {step}: it did not die");
    opening.check(market, lease).await;
    market.guests_are_gone().await;
    // Until six blocks stand on it, each start offers the close again: the next death shall be another lease's.
    let chain = market.chain().await;
    chain.generate(6).await.unwrap();
    let height = chain.tip().await.unwrap().0;
    chain.close().await;
    for daemon in [&market.publisher, &market.node] {
        wait_until("the last blocks", 30, async || daemon.status().await.tip_height >= height).await;
    }
    tokio::time::sleep(Duration::from_secs(VALID_S + 1).saturating_sub(announced.elapsed())).await;
}

/// The lease of a task that has come furthest, if the daemon answers.
async fn of_task(daemon: &Daemon, task: AnnouncementHash) -> Option<LeaseView> {
    let Ok(Reply::Leases(leases)) = daemon.client.command(&Command::Leases {}).await else { return None };
    leases.into_iter().filter(|view| view.task == task).max_by_key(|view| (view.funding_txid.is_some(), !view.stage.is_over()))
}

async fn close(daemon: &Daemon, lease: LeaseId) -> bool {
    daemon.client.command(&Command::CloseLease { lease }).await.is_ok()
}
