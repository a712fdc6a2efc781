//! A lease that is paid in advance.

use crate::books::Opening;
use crate::market::{Market, TaskToml};

/// Each payment is for the interval to come: what is used is never more than what is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepaid_lease_is_never_in_arrears() {
    let market = Market::open().await;
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml { payout: "-3 s", ..TaskToml::default() }.text()).await;
    for _ in 0..4 {
        market.pays(lease, 1).await;
        let totals = market.node.lease(lease).await.totals.unwrap();
        let paid_msat = totals.total_sat.saturating_sub(totals.close_reserve_sat) * 1000;
        assert!(paid_msat + 1000 > totals.owed_msat.0, "{paid_msat} msat are paid, but {} msat used", totals.owed_msat.0);
    }
    market.publisher.close(lease).await;
    let settlement = opening.check(&market, lease).await;
    let used_msat = settlement.node.totals.unwrap().owed_msat.0;
    assert!(settlement.earned_msat + 1000 > used_msat, "{} msat paid for {used_msat} msat", settlement.earned_msat);
}
