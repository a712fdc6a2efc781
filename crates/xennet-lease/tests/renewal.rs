//! Renewal of a lease, both sides against each other: the guest runs on, and nobody loses more than an interval.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod pair;

use std::time::Duration;

use pair::{Pair, Who, dice};
use xennet_lease::{Channel, CloseReason, Input, Lease, LedgerKind, Message, Side, Stage};
use xennet_rama::Spend;
use xennet_task::PayoutInterval;

const BUDGET_SAT: u64 = 10_000_000;

fn live() -> Pair {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)));
    assert!(pair.until(60, Pair::both_live), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    pair.until(10, |_| false);
    pair
}

fn renew(pair: &mut Pair, adds_s: u64, go_on: bool) {
    pair.feed(Who::Publisher, Input::Renew { adds_s, budget_sat: BUDGET_SAT, go_on });
}

fn number(lease: &Lease) -> u32 {
    lease.account.as_ref().unwrap().channel.number
}

/// Live on this channel, on both sides.
fn on_channel(wanted: u32) -> impl Fn(&Pair) -> bool {
    move |pair| number(&pair.publisher.lease) == wanted && number(&pair.node.lease) == wanted
}

fn funded(pair: &Pair) -> bool {
    let funded = |lease: &Lease| lease.channels().nth(1).is_some_and(|channel| channel.funding.is_some());
    funded(&pair.publisher.lease) && funded(&pair.node.lease)
}

/// M2, and that the two ledgers end alike.
fn assert_fair(pair: &Pair) {
    let (worth, paid, interval) = (pair.worth_msat(), pair.paid_msat(), pair.interval_msat());
    // Each channel that is ended for its sake may cost the smallest output beside the reserve.
    let rest = 294_000;
    assert!(worth <= paid + interval + 1_000, "the node lost {} msat, an interval is {interval} msat", worth - paid);
    assert!(paid <= worth + interval + 1_000 + rest, "the publisher lost {} msat, an interval is {interval} msat", paid - worth);
}

fn ends(pair: &Pair, kind: LedgerKind, who: Who) -> Vec<String> {
    let ledger = if who == Who::Publisher { &pair.publisher.ledger } else { &pair.node.ledger };
    let mut ends: Vec<_> = ledger.iter().filter(|entry| entry.kind == kind).filter_map(|entry| entry.txid.clone()).collect();
    ends.sort();
    ends
}

#[test]
fn a_renewed_lease_runs_on_past_its_end_and_both_channels_are_settled() {
    let mut pair = live();
    let first_end = pair.publisher.lease.ends_at_ms().unwrap();
    renew(&mut pair, 60, false);
    assert!(pair.until(200, on_channel(2)), "{:?} / {:?}", pair.publisher.lease.next, pair.node.lease.next);
    let old = pair.node.lease.past.first().map(|channel| channel.terms.clone()).expect("the old one waits for its end");
    assert!(pair.until(300, |pair| pair.now_ms > first_end + 30_000));
    assert!(pair.both_live(), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    let stood_still = |kind: &LedgerKind| *kind == LedgerKind::Withheld;
    assert!(!pair.node.ledger.iter().any(|entry| stood_still(&entry.kind)), "the guest never stood still");
    assert!(pair.until(120, Pair::both_over));
    assert!(
        pair.chain.iter().any(|(tx, _)| tx.output.iter().any(|output| output.script_pubkey == old.publisher_script())),
        "it is settled"
    );
    let (a, b) = (&pair.publisher.lease, &pair.node.lease);
    assert_eq!(a.stage, b.stage);
    assert!(matches!(a.stage, Stage::Settled { spend: Spend::Close { .. }, .. }), "{:?}", a.stage);
    assert!(pair.served_ms > 175_000, "{} ms of 180,000", pair.served_ms);
    assert_eq!(a.paid_sat(), b.paid_sat());
    assert_eq!(ends(&pair, LedgerKind::Settled, Who::Publisher), ends(&pair, LedgerKind::Settled, Who::Node));
    assert_eq!(ends(&pair, LedgerKind::Settled, Who::Publisher).len(), 2);
    assert_fair(&pair);
}

#[test]
fn a_lease_that_is_to_go_on_renews_itself_until_its_budget_is_used_up() {
    let mut pair = live();
    let budget_sat = pair.publisher.lease.check_renewal(60, BUDGET_SAT).unwrap() * 4;
    pair.feed(Who::Publisher, Input::Renew { adds_s: 60, budget_sat, go_on: true });
    assert!(pair.until(900, Pair::both_over));
    let (a, b) = (&pair.publisher.lease, &pair.node.lease);
    let renewals = pair.node.ledger.iter().filter(|entry| entry.kind == LedgerKind::Renewed).count() as u64;
    assert!((2..=4).contains(&renewals), "{renewals}");
    assert!(a.not_renewed.as_ref().is_some_and(|why| why.contains("budget")), "{:?}", a.not_renewed);
    let agreed_ms = 120_000 + renewals * 60_000;
    assert!((agreed_ms - 5_000..=agreed_ms + 1_000).contains(&pair.served_ms), "{} ms of {agreed_ms}", pair.served_ms);
    assert!(!pair.node.ledger.iter().any(|entry| entry.kind == LedgerKind::Withheld), "the guest never stood still");
    assert_eq!(a.paid_sat(), b.paid_sat());
    assert_fair(&pair);
}

#[test]
fn a_channel_that_is_used_up_waits_for_the_next_one() {
    let mut pair = live();
    renew(&mut pair, 60, false);
    assert!(pair.until(10, funded));
    let max_sat = pair.publisher.lease.account.as_ref().unwrap().channel.terms.max_total_sat();
    // So much traffic, a bit at a time, that the first channel is empty before the second is buried.
    let mut bytes = 0;
    assert!(pair.until(60, |pair| pair.node.lease.account.as_ref().unwrap().channel.funded_height.is_some()));
    while pair.publisher.lease.account.as_ref().unwrap().total_sat() < max_sat && number(&pair.publisher.lease) == 1 {
        bytes += 300_000;
        for who in [Who::Publisher, Who::Node] {
            pair.feed(who, Input::Traffic(bytes));
        }
        pair.step();
        assert!(bytes < 1_000_000_000_000, "{:?}", pair.publisher.lease.account);
    }
    assert!(pair.until(60, on_channel(2)));
    assert!(pair.both_live(), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    assert_eq!(pair.publisher.lease.paid_sat(), pair.node.lease.paid_sat());
}

#[test]
fn a_node_that_does_not_want_to_go_on_says_why_and_the_lease_ends_as_agreed() {
    let mut pair = live();
    if let Side::Node(side) = &mut pair.node.lease.side {
        side.policy.floor.cpu_msat_per_ghz_hour = u64::MAX / 1000;
    }
    renew(&mut pair, 60, true);
    assert!(pair.until(10, |pair| pair.publisher.lease.not_renewed.is_some()));
    assert!(pair.publisher.lease.next.is_none());
    assert!(pair.until(200, Pair::both_over));
    assert!(pair.served_ms <= 121_000, "{}", pair.served_ms);
    assert_eq!(pair.publisher.ledger.iter().filter(|entry| entry.kind == LedgerKind::NotRenewed).count(), 1, "asked once");
    assert_fair(&pair);
}

#[test]
fn what_cannot_be_asked_for_is_refused_with_the_numbers() {
    let pair = live();
    for (adds_s, budget_sat, wanted) in
        [(5, BUDGET_SAT, "10 to 120 s"), (121, BUDGET_SAT, "10 to 120 s"), (60, 1_000, "budget is 1000 sat")]
    {
        let why = pair.publisher.lease.check_renewal(adds_s, budget_sat).unwrap_err();
        assert!(why.contains(wanted), "{why}");
    }
    assert!(pair.node.lease.check_renewal(60, BUDGET_SAT).unwrap_err().contains("only the publisher"));
}

#[test]
fn a_lease_that_is_closed_before_the_new_channel_took_over_gives_all_of_it_back_at_once() {
    let mut pair = live();
    renew(&mut pair, 60, false);
    assert!(pair.until(10, funded));
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    let refund = pair.publisher.lease.account.as_ref().unwrap().channel.terms.refund_height;
    assert!(pair.height < refund, "nobody had to wait for the refund");
    assert_eq!(ends(&pair, LedgerKind::Settled, Who::Publisher).len(), 2);
    assert_fair(&pair);
}

#[test]
fn a_node_that_goes_away_after_the_renewal_costs_nobody_more_than_an_interval() {
    for gone_after_s in [1, 8, 40, 160] {
        let mut pair = live();
        renew(&mut pair, 60, false);
        pair.until(gone_after_s, |_| false);
        pair.kill(Who::Node);
        let over = |pair: &Pair| pair.publisher.lease.is_over();
        while !over(&pair) && pair.height < 2_000 {
            pair.mine();
            for _ in 0..40 {
                pair.step();
            }
        }
        assert!(over(&pair), "after {gone_after_s} s: {:?}", pair.publisher.lease.stage);
        let waits: Vec<&Channel> = pair.publisher.lease.channels().filter(|c| c.funding.is_some() && c.ended().is_none()).collect();
        assert!(waits.is_empty(), "nothing is left behind: {waits:?}");
    }
}

#[test]
fn an_old_copy_from_before_the_renewal_signs_nothing_and_gets_everything_back() {
    let mut pair = live();
    let copy = pair.publisher.disk.clone();
    renew(&mut pair, 60, false);
    assert!(pair.until(200, on_channel(2)));
    pair.until(10, |_| false);
    let signed = pair.node.lease.account.as_ref().unwrap().total_sat();
    pair.restore(Who::Publisher, &copy);
    assert!(pair.until(60, |pair| !matches!(pair.publisher.lease.stage, Stage::Live)));
    assert!(pair.until(60, Pair::both_over), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    assert_eq!(pair.node.lease.account.as_ref().unwrap().total_sat(), signed, "nothing was signed that the node could use");
}

#[test]
fn a_new_channel_that_the_chain_takes_back_is_not_worked_for_beyond_an_interval() {
    let mut pair = live();
    renew(&mut pair, 60, false);
    assert!(pair.until(200, on_channel(2)));
    let txid = pair.node.lease.account.as_ref().unwrap().channel.outpoint.unwrap().txid;
    pair.chain.retain(|(tx, _)| tx.compute_txid() != txid);
    for who in [Who::Publisher, Who::Node] {
        pair.feed(who, Input::Gone(txid));
    }
    let owed = |lease: &Lease| {
        let totals = lease.totals().unwrap();
        totals.owed_msat.0
    };
    let before = owed(&pair.node.lease);
    let mempool = std::mem::take(&mut pair.mempool);
    for _ in 0..20 {
        pair.step();
        pair.mempool.retain(|tx| tx.compute_txid() != txid);
    }
    assert!(owed(&pair.node.lease) <= before + 3 * pair.interval_msat(), "it stands still until the funding is back");
    pair.mempool.extend(mempool);
    assert!(pair.until(400, Pair::both_over), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    assert_fair(&pair);
}

/// Either side dies, or the tunnel is cut, at any moment of a renewal.
fn under_fire(seed: u64) -> Pair {
    let mut roll = dice(seed);
    let mut pair = live();
    let go_on = roll(2) == 0;
    pair.feed(Who::Publisher, Input::Renew { adds_s: 60, budget_sat: BUDGET_SAT / 10, go_on });
    for _ in 0..roll(5) + 1 {
        pair.strike(&mut roll, 250, 10);
    }
    if roll(3) == 0 {
        pair.feed(if roll(2) == 0 { Who::Node } else { Who::Publisher }, Input::Close(CloseReason::PublisherDone));
    }
    pair.until(2_000, Pair::both_over);
    pair
}

#[test]
fn no_death_and_no_cut_at_any_moment_of_a_renewal_costs_more_than_an_interval() {
    let mut renewed = 0;
    for seed in 0..60 {
        let pair = under_fire(seed);
        assert!(pair.both_over(), "seed {seed}: {:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
        let (worth, paid, interval) = (pair.worth_msat(), pair.paid_msat(), pair.interval_msat());
        // Each cut may hide one interval from either side; the sum of what is granted for them is one.
        assert!(worth <= paid + 2 * interval + 1_000, "seed {seed}: the node lost {} of {interval} msat", worth - paid);
        assert!(paid <= worth + 2 * interval + 595_000, "seed {seed}: the publisher lost {} of {interval} msat", paid - worth);
        for who in [&pair.publisher, &pair.node] {
            let ends: Vec<_> = who.ledger.iter().filter(|e| e.kind == LedgerKind::Settled).map(|e| (&e.txid, &e.note)).collect();
            let mut once = ends.clone();
            once.sort();
            once.dedup();
            assert_eq!(ends.len(), once.len(), "seed {seed}: each end is written once: {ends:?}");
        }
        renewed += u32::from(number(&pair.node.lease) > 1);
    }
    assert!(renewed > 40, "{renewed} of 60 were renewed");
}

#[test]
fn a_publisher_that_says_what_was_never_agreed_on_is_cut_off() {
    let mut pair = live();
    let update = xennet_rama::Update { total_sat: 5_000, signature: [1; 64] };
    let usage = pair.node.lease.totals().unwrap().usage;
    pair.feed(Who::Node, Input::Heard(Message::Pay { number: 9, channel: 2, usage, update }));
    assert!(matches!(pair.node.lease.stage, Stage::Closing { reason: CloseReason::Protocol }), "{:?}", pair.node.lease.stage);
}

#[test]
fn a_flood_of_wishes_costs_the_node_one_key() {
    let mut pair = live();
    for nth in 0..100_u8 {
        let secret = secp256k1::SecretKey::from_slice(&[nth + 1; 32]).unwrap();
        let channel_key = secret.public_key(secp256k1::SECP256K1).to_string();
        let wish = Message::Renew { channel: 2, adds_s: 60, capacity_sat: 100_000, channel_key, refund_height: 100_000 };
        let asked = pair.node.lease.clone().handle(pair.now_ms, Input::Heard(wish.clone()));
        let keys = asked.iter().filter(|action| matches!(action, xennet_lease::Action::AskKey)).count();
        assert_eq!(keys, usize::from(nth == 0));
        pair.feed(Who::Node, Input::Heard(wish));
    }
}
