//! A lease that is renewed while its guest works.

use std::time::Duration;

use xennetd::control::{Command, Failure, FailureKind, Reply};

use crate::books::Opening;
use crate::market::{Market, TaskToml};
use crate::wait::wait_until;

async fn renew(market: &Market, lease: xennet_task::LeaseId, adds_s: u64) -> Result<(), Failure> {
    let command = Command::Renew { lease, adds_s, budget_sat: None, go_on: false };
    match market.publisher.client.command(&command).await {
        Ok(Reply::Lease(_)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(xennetd::control::ClientError::Failed(failure)) => Err(failure),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_runs_on_through_two_renewals_and_a_kill_of_either_daemon() {
    let mut market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml { lease_max: "60 s", ..TaskToml::default() }.text()).await;
    let first_end = market.publisher.lease(lease).await.ends_at_ms.unwrap();
    let boot = market.boot_id(lease).await;
    market.run(lease, "(while :; do date >>/data/alive; sleep 1; done) >/dev/null 2>&1 &", b"").await;

    let failure = renew(&market, lease, 600).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Conflict);
    assert!(failure.message.contains("10 to 60 s"), "{failure}");

    // The wallet's only coin is the change of the funding, which has to be in a block.
    wait_until("the first renewal", 60, async || renew(&market, lease, 60).await.is_ok()).await;
    market.both("longer", 60, lease, |view| view.ends_at_ms.is_some_and(|end| end >= first_end + 55_000)).await;
    market.node.kill();
    market.node.start().await;
    market.pays(lease, 2).await;

    // One channel waits at a time: the second takes over before there is a third.
    wait_until("the second renewal", 60, async || renew(&market, lease, 60).await.is_ok()).await;
    market.both("on its second channel", 60, lease, |view| view.totals.is_some_and(|totals| totals.channels == 2)).await;
    market.publisher.kill();
    market.publisher.start().await;
    let renewed = |view: &xennetd::control::LeaseView| view.ends_at_ms.is_some_and(|end| end >= first_end + 110_000);
    market.both("longer still", 60, lease, renewed).await;
    market.pays(lease, 2).await;

    while xennetd::clock::unix_ms() < first_end + 5_000 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(market.boot_id(lease).await, boot, "the same guest, past its first end");
    let alive: u64 = market.run(lease, "wc -l </data/alive", b"").await.parse().unwrap();
    assert!(alive >= 20, "it worked on: {alive} s");
    market.publisher.ask(Command::CloseLease { lease }).await;
    opening.check_renewed(&market, lease, 3).await;
    market.guests_are_gone().await;
}
