//! The whole way of a lease, both sides against each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pair;

use std::time::Duration;

use pair::{Pair, Who, dice, figures};
use xennet_lease::{Action, CloseReason, EndReason, Input, LedgerKind, Message, Side, Stage, most_close_feerate};
use xennet_rama::Spend;
use xennet_task::PayoutInterval;

const INTERVAL: Duration = Duration::from_secs(2);

fn arrears() -> Pair {
    Pair::new(PayoutInterval::InArrears(INTERVAL))
}

fn live(mut pair: Pair) -> Pair {
    assert!(pair.until(60, Pair::both_live), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    pair
}

/// M2, for whatever happened: nobody lost more than an interval (and the satoshi that a total is rounded to).
fn assert_bounded(pair: &Pair, prepaid_msat: u64) {
    let (worth, paid, interval) = (pair.worth_msat(), pair.paid_msat(), pair.interval_msat());
    assert!(worth <= paid + interval + 1000, "the node lost {} msat, an interval is {interval} msat", worth - paid);
    assert!(paid <= worth + interval + prepaid_msat + 1000, "the publisher lost {} msat, an interval is {interval} msat", paid - worth);
}

#[test]
fn a_lease_goes_from_accepted_to_settled_and_both_ledgers_agree() {
    let mut pair = live(arrears());
    assert!(pair.until(50, |pair| pair.node.lease.account.as_ref().unwrap().payments >= 25));
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    let (a, b) = (&pair.publisher.lease, &pair.node.lease);
    assert_eq!(a.stage, b.stage);
    assert!(matches!(a.stage, Stage::Settled { spend: Spend::Close { .. }, .. }), "{:?}", a.stage);
    let total = |lease: &xennet_lease::Lease| lease.account.as_ref().unwrap().total_sat();
    assert_eq!(total(a), total(b));
    let last = |ledger: &[xennet_lease::LedgerEntry]| ledger.iter().rfind(|e| e.kind == LedgerKind::Settled).cloned().unwrap();
    let (a, b) = (last(&pair.publisher.ledger), last(&pair.node.ledger));
    assert_eq!((a.paid_sat, a.fee_sat, a.txid), (b.paid_sat, b.fee_sat, b.txid));
    assert_bounded(&pair, 0);
}

#[test]
fn a_proposal_that_cannot_be_made_ends_the_lease_with_its_reason() {
    let mut pair = arrears();
    pair.mute = true;
    assert!(pair.until(60, Pair::both_over), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    let reason = EndReason::ProposalFailed("no work".into());
    assert_eq!(pair.publisher.lease.stage, Stage::Ended { reason });
    assert!(!pair.machine_runs, "nobody pays for it");
}

#[test]
fn paid_in_advance_the_publisher_loses_at_most_the_interval_it_agreed_to_prepay() {
    let mut pair = live(Pair::new(PayoutInterval::InAdvance(INTERVAL)));
    pair.until(30, |_| false);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    assert!(pair.paid_msat() >= pair.worth_msat(), "the node is ahead");
    // The last payment pays for no interval to come.
    assert_bounded(&pair, 0);
}

#[test]
fn a_payment_that_never_arrived_is_in_no_ledgers_last_line() {
    let total = |lease: &xennet_lease::Lease| lease.account.as_ref().unwrap().total_sat();
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    assert!(pair.until(10, |pair| total(&pair.publisher.lease) > total(&pair.node.lease)), "one on its way");
    pair.kill(Who::Publisher);
    assert!(pair.until(90, |pair| pair.node.lease.is_over()));
    pair.restart(Who::Publisher);
    assert!(pair.until(30, Pair::both_over));
    let last = |ledger: &[xennet_lease::LedgerEntry]| ledger.last().cloned().unwrap();
    let (a, b) = (last(&pair.publisher.ledger), last(&pair.node.ledger));
    assert_eq!((a.kind, b.kind), (LedgerKind::Settled, LedgerKind::Settled));
    assert_eq!((a.paid_sat, a.fee_sat, a.txid), (b.paid_sat, b.fee_sat, b.txid));
    assert!(total(&pair.publisher.lease) > a.paid_sat, "it was signed");
}

#[test]
fn a_cut_tunnel_comes_back_and_nobody_pays_for_the_time_in_between() {
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    pair.reachable = false;
    pair.cut();
    pair.until(15, |_| false);
    assert_eq!(pair.node.lease.stage, Stage::Live);
    pair.reachable = true;
    assert!(pair.until(5, |pair| pair.tunnel_up));
    pair.until(20, |_| false);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    assert_bounded(&pair, 0);
}

/// The worst that can happen to each: it goes on counting for seconds after the network has died.
#[test]
fn a_tunnel_that_dies_unnoticed_costs_neither_more_than_an_interval() {
    for (node_notices_ms, publisher_notices_ms) in [(1_600, 8_000), (1_600, 1_600), (3_200, 1_600)] {
        let mut pair = live(arrears());
        pair.until(10, |_| false);
        pair.swallow(node_notices_ms, publisher_notices_ms);
        assert!(pair.until(5, |pair| pair.tunnel_up));
        pair.until(1, |_| false);
        let (a, b) = (pair.publisher.lease.totals().unwrap(), pair.node.lease.totals().unwrap());
        let apart = a.owed_msat.0.abs_diff(b.owed_msat.0);
        assert!(apart <= pair.interval_msat(), "{node_notices_ms} {publisher_notices_ms}: {apart} msat apart");
        assert!(pair.until(20, |pair| pair.node.lease.totals().unwrap().payments >= b.payments + 3), "payments go on");
        pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
        assert!(pair.until(60, Pair::both_over));
        assert_bounded(&pair, 0);
    }
}

/// While nobody confirms, nothing more is signed.
#[test]
fn a_publisher_signs_one_payment_ahead_of_the_node_and_no_more() {
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    pair.swallow(8_000, 8_000);
    let signed = pair.publisher.lease.totals().unwrap().total_sat;
    let held = pair.node.lease.totals().unwrap().total_sat;
    assert!((signed - held) * 1000 <= pair.interval_msat() + 1000, "{signed} sat are signed, {held} sat arrived");
}

#[test]
fn a_pause_whose_end_the_tunnel_lost_does_not_outlive_the_tunnel() {
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    let owed_msat = 1;
    pair.feed(Who::Publisher, Input::Heard(Message::Paused { owed_msat }));
    pair.cut();
    assert!(pair.until(5, |pair| pair.tunnel_up));
    let payments = pair.node.lease.totals().unwrap().payments;
    assert!(pair.until(20, |pair| pair.node.lease.totals().unwrap().payments >= payments + 3));
}

#[test]
fn traffic_is_counted_once_whatever_becomes_of_the_connection() {
    let mut pair = Pair::new(PayoutInterval::InArrears(INTERVAL));
    assert!(pair.until(60, |pair| pair.publisher.lease.stage == Stage::Measuring));
    let both = |pair: &mut Pair, bytes| [Who::Publisher, Who::Node].map(|who| pair.feed(who, Input::Traffic(bytes)));
    both(&mut pair, 30_000_000);
    let mut pair = live(pair);
    let counted = |pair: &Pair| [&pair.publisher, &pair.node].map(|party| party.lease.totals().unwrap().usage.traffic_bytes);
    both(&mut pair, 30_000_000);
    assert_eq!(counted(&pair), [0, 0], "measuring is free");
    both(&mut pair, 31_000_000);
    pair.cut();
    assert!(pair.until(5, |pair| pair.tunnel_up));
    both(&mut pair, 31_000_500);
    assert_eq!(counted(&pair), [1_000_500, 1_000_500]);
    // A new process counts anew, and learns what it forgot.
    pair.kill(Who::Node);
    pair.restart(Who::Node);
    assert!(pair.until(10, |pair| pair.tunnel_up));
    pair.until(1, |_| false);
    pair.feed(Who::Node, Input::Traffic(200));
    pair.feed(Who::Publisher, Input::Traffic(31_000_700));
    assert_eq!(counted(&pair), [1_000_700, 1_000_700]);
}

#[test]
fn a_node_whose_publisher_is_gone_settles_alone() {
    let mut pair = live(arrears());
    pair.until(20, |_| false);
    pair.kill(Who::Publisher);
    assert!(pair.until(90, |pair| pair.node.lease.is_over()));
    assert!(matches!(pair.node.lease.stage, Stage::Settled { spend: Spend::Close { .. }, .. }));
    assert_bounded(&pair, 0);
    pair.restart(Who::Publisher);
    assert!(pair.until(30, Pair::both_over), "{:?}", pair.publisher.lease.stage);
}

#[test]
fn a_publisher_whose_node_is_gone_takes_everything_back_after_the_refund_height() {
    let mut pair = live(arrears());
    pair.until(4, |_| false);
    pair.kill(Who::Node);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    let refund_height = pair.publisher.lease.account.as_ref().unwrap().channel.terms.refund_height;
    while pair.height + 1 < refund_height {
        pair.mine();
    }
    assert!(!pair.publisher.lease.is_over(), "nothing comes back before its height");
    pair.mine();
    assert!(pair.until(60, |pair| pair.publisher.lease.is_over()));
    assert!(matches!(pair.publisher.lease.stage, Stage::Settled { spend: Spend::Refund { .. }, .. }));
}

#[test]
fn a_node_that_closes_while_it_is_cut_off_says_why_when_it_is_back() {
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    pair.cut();
    pair.feed(Who::Node, Input::MachineFailed("its QEMU was killed".into()));
    let said = pair.node.lease.clone().handle(pair.now_ms, Input::LinkUp);
    assert!(said.contains(&Action::Send(Message::Close { reason: CloseReason::MachineLost })), "{said:?}");
    // The publisher may learn it from the chain before the tunnel is back.
    assert!(pair.until(60, Pair::both_over));
    assert_bounded(&pair, 0);
}

#[test]
fn a_node_that_is_not_paid_lets_the_guest_stand_still_and_then_settles() {
    let mut pair = live(arrears());
    pair.until(20, |_| false);
    // A publisher that uses the machine and does not pay: the tunnel stands, its process does nothing.
    pair.publisher.alive = false;
    assert!(pair.until(10, |pair| pair.node.ledger.iter().any(|e| e.kind == LedgerKind::Withheld)));
    assert!(pair.until(90, |pair| pair.node.lease.is_over()));
    let unpaid = pair.node.lease.totals().unwrap().owed_msat.0.saturating_sub(pair.paid_msat());
    assert!(unpaid <= pair.interval_msat() + 1000, "{unpaid} msat unpaid, an interval is {}", pair.interval_msat());
}

#[test]
fn a_proposal_that_the_overlay_loses_goes_through_the_tunnel() {
    let mut pair = arrears();
    pair.overlay = false;
    live(pair);
}

#[test]
fn a_proposal_that_comes_too_late_closes_the_tunnel() {
    let mut pair = arrears();
    pair.overlay = false;
    pair.opens = false;
    assert!(pair.until(90, Pair::both_over));
    assert!(matches!(pair.node.lease.stage, Stage::Ended { reason: EndReason::TooLate { .. } | EndReason::HungUp(_) }));
    assert!(!pair.tunnel_up && !pair.machine_runs);
}

#[test]
fn a_machine_slower_than_asked_for_is_refused_with_reasons() {
    let mut pair = arrears();
    let mut slow = figures();
    slow.memory_mib = 16;
    pair.figures = slow;
    assert!(pair.until(60, Pair::both_over));
    let Stage::Ended { reason: EndReason::MachineRefused(reasons) } = &pair.publisher.lease.stage else {
        panic!("{:?}", pair.publisher.lease.stage)
    };
    assert!(!reasons.is_empty());
    assert!(matches!(pair.node.lease.stage, Stage::Ended { reason: EndReason::HungUp(_) }));
    assert!(pair.chain.is_empty() && pair.mempool.is_empty(), "nothing was locked");
}

#[test]
fn a_proposal_below_the_nodes_floor_is_refused_and_says_why() {
    let mut pair = arrears();
    if let xennet_lease::Side::Node(side) = &mut pair.node.lease.side {
        side.policy.floor.cpu_msat_per_ghz_hour = u64::MAX / 1000;
    }
    assert!(pair.until(60, Pair::both_over));
    assert!(matches!(pair.publisher.lease.stage, Stage::Ended { reason: EndReason::ProposalRefused(_) }));
}

/// The publisher's chain says `own` sat/kvB, the node expects the close to cost `asked`.
fn with_feerates(own: u64, asked: u64) -> Pair {
    let mut pair = arrears();
    pair.feerate = own;
    if let (Side::Publisher(publisher), Side::Node(node)) = (&mut pair.publisher.lease.side, &mut pair.node.lease.side) {
        publisher.most_close_feerate_sat_per_kvb = most_close_feerate(own);
        node.close_feerate_sat_per_kvb = asked;
    }
    pair
}

#[test]
fn a_node_that_wants_more_for_the_close_than_the_publishers_chain_bears_out_is_refused_with_both_numbers() {
    for (own, asked, most) in [(1_000, 15_001, "15"), (1_000, 500_000, "15"), (40_000, 120_500, "120")] {
        let mut pair = with_feerates(own, asked);
        assert!(pair.until(60, Pair::both_over));
        let Stage::Ended { reason: reason @ EndReason::CloseFeerate { .. } } = &pair.publisher.lease.stage else {
            panic!("{:?}", pair.publisher.lease.stage)
        };
        let (said, heard) = (reason.to_string(), format!("{:?}", pair.node.lease.stage));
        for word in
            [format!("cost {} sat/vB", asked.div_ceil(1_000)), format!("at most {most}, 3 times"), format!("ask for {most} or less")]
        {
            assert!(said.contains(&word) && heard.contains(&word), "{word}: {said}; {heard}");
        }
        assert!(pair.chain.is_empty() && pair.mempool.is_empty(), "nothing was funded");
    }
    assert_eq!(most_close_feerate(u64::MAX), xennet_rama::MAX_FEERATE_SAT_PER_KVB, "no chain says so much");
}

#[test]
fn a_node_may_expect_up_to_three_times_what_the_publishers_chain_says_and_the_channel_has_room_for_it() {
    for (own, asked) in [(0, 5_000), (1_000, 15_000), (60_000, 180_000)] {
        let mut pair = live(with_feerates(own, asked));
        pair.until(10, |_| false);
        pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
        assert!(pair.until(60, Pair::both_over));
        assert!(matches!(&pair.publisher.lease.stage, Stage::Settled { .. }), "{:?}", pair.publisher.lease.stage);
        assert_bounded(&pair, 0);
    }
    // A budget that leaves too little for it is named.
    let mut pair = with_feerates(60_000, 180_000);
    if let Side::Publisher(side) = &mut pair.publisher.lease.side {
        side.budget_sat = 90_000;
    }
    assert!(pair.until(60, Pair::both_over));
    let Stage::Ended { reason } = &pair.publisher.lease.stage else { panic!("{:?}", pair.publisher.lease.stage) };
    assert!(reason.to_string().contains("45900 sat, more than half of the 90000 sat") && reason.to_string().contains("91800"), "{reason}");
}

#[test]
fn a_forged_payment_ends_the_lease_and_what_was_paid_is_settled() {
    let mut pair = live(arrears());
    pair.until(10, |_| false);
    let total_sat = pair.node.lease.account.as_ref().unwrap().total_sat() + 1;
    let update = xennet_rama::Update { total_sat, signature: [1; 64] };
    let usage = Default::default();
    pair.feed(Who::Node, Input::Heard(Message::Pay { number: 99, channel: 1, usage, update }));
    assert!(matches!(pair.node.lease.stage, Stage::Closing { reason: CloseReason::Protocol }));
    assert!(pair.until(60, Pair::both_over));
    assert_bounded(&pair, 0);
}

#[test]
fn a_settlement_that_the_chain_takes_back_is_broadcast_again() {
    let mut pair = live(arrears());
    pair.until(20, |_| false);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    let (close, _) = pair.chain.pop().unwrap();
    for who in [Who::Publisher, Who::Node] {
        pair.feed(who, Input::Gone(close.compute_txid()));
    }
    assert!(!pair.both_over());
    assert!(pair.until(60, Pair::both_over));
}

/// M1 and M2 under fire: either process dies, or the tunnel is cut or swallows everything, at any moment, again and again.
#[test]
fn whatever_dies_and_whenever_nobody_loses_more_than_an_interval() {
    for seed in 0..300_u64 {
        let mut roll = dice(seed);
        let payout = if roll(2) == 0 { PayoutInterval::InArrears(INTERVAL) } else { PayoutInterval::InAdvance(INTERVAL) };
        let mut pair = Pair::new(payout);
        let mut blows = 1 + roll(3);
        // Time in which nothing arrives counts until somebody notices: at most an interval each time, so once.
        let mut swallowed = false;
        for _ in 0..1_200 {
            pair.step();
            if blows > 0 && roll(80) == 0 {
                blows -= 1;
                match roll(4) {
                    0 => pair.kill(Who::Publisher),
                    1 => pair.kill(Who::Node),
                    2 if !swallowed => {
                        swallowed = true;
                        pair.swallow(200 * roll(40), 200 * roll(40));
                    }
                    _ => pair.cut(),
                }
                for _ in 0..roll(20) {
                    pair.step();
                }
                pair.restart(Who::Publisher);
                pair.restart(Who::Node);
            }
            let known = |lease: &xennet_lease::Lease| lease.account.as_ref().map_or(0, xennet_lease::Account::total_sat);
            assert!(known(&pair.node.lease) <= known(&pair.publisher.lease), "seed {seed}: the node holds what was never signed");
        }
        assert!(pair.until(600, Pair::both_over), "seed {seed}: {:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
        if pair.publisher.lease.proposal.is_some() {
            let prepaid = if matches!(payout, PayoutInterval::InAdvance(_)) { pair.interval_msat() } else { 0 };
            assert_bounded(&pair, prepaid);
        }
    }
}
