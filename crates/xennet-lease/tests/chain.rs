//! What the chain and the disk may do to a lease: reorganisations, fees, and stores put back from old copies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod pair;

use std::time::Duration;

use bitcoin::ScriptBuf;
use pair::{Pair, Who, dice};
use xennet_lease::{CloseReason, Input, Lease, LedgerKind, Message, Purse, Stage};
use xennet_rama::{Spend, bumped_feerate};
use xennet_task::PayoutInterval;

fn live() -> Pair {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)));
    assert!(pair.until(60, Pair::both_live), "{:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
    pair
}

fn settled() -> Pair {
    let mut pair = live();
    pair.until(20, |_| false);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    pair
}

fn total(lease: &Lease) -> u64 {
    lease.account.as_ref().unwrap().total_sat()
}

/// M2: nobody lost more than an interval (and the satoshi that a total is rounded to).
fn assert_bounded(pair: &Pair, what: &str) {
    let (worth, paid, interval) = (pair.worth_msat(), pair.paid_msat(), pair.interval_msat());
    assert!(worth <= paid + interval + 1000, "{what}: the node lost {} msat, an interval is {interval} msat", worth - paid);
    assert!(paid <= worth + interval + 1000, "{what}: the publisher lost {} msat, an interval is {interval} msat", paid - worth);
}

#[test]
fn a_funding_that_opens_several_channels_is_taken() {
    let pair = settled();
    for party in [&pair.publisher, &pair.node] {
        let account = party.lease.account.as_ref().unwrap();
        assert_eq!(account.channel.outpoint.unwrap().vout, 1);
        assert_eq!(account.channel.funding.as_ref().unwrap().output.len(), 2);
    }
    assert_bounded(&pair, "second output");
}

#[test]
fn a_settlement_is_final_six_blocks_later_and_not_before() {
    let mut pair = settled();
    for _ in 0..5 {
        pair.mine();
        assert!(!pair.node.lease.is_final() && !pair.publisher.lease.is_final());
    }
    pair.mine();
    assert!(pair.node.lease.is_final() && pair.publisher.lease.is_final());
    // The next process knows it from its disk, and asks the chain nothing.
    let mut kept: Lease = serde_json::from_str(&pair.node.disk).unwrap();
    assert!(kept.handle(pair.now_ms, Input::Start).is_empty());
}

#[test]
fn a_settlement_taken_back_while_nobody_was_looking_is_made_again() {
    for evicted in [false, true] {
        let mut pair = settled();
        pair.kill(Who::Publisher);
        pair.kill(Who::Node);
        let (close, _) = pair.chain.pop().unwrap();
        if !evicted {
            pair.mempool.push(close);
        }
        pair.mined_from = 1_500;
        pair.restart(Who::Publisher);
        pair.restart(Who::Node);
        assert_eq!(pair.paid_msat(), 0);
        assert!(pair.until(90, |pair| pair.paid_msat() > 0), "{:?}", pair.node.lease.stage);
        assert!(pair.until(60, |pair| pair.node.lease.is_final() && pair.publisher.lease.is_final()));
        assert_bounded(&pair, "taken back");
    }
}

#[test]
fn a_settlement_taken_back_that_is_too_cheap_to_be_relayed_again_is_made_anew() {
    let mut pair = settled();
    pair.kill(Who::Node);
    let (close, _) = pair.chain.pop().unwrap();
    let old = pair.feerate_of(&close).unwrap();
    pair.relayed_from = old + 1;
    pair.restart(Who::Node);
    assert!(pair.until(120, |pair| pair.node.lease.is_final()), "{:?}", pair.node.lease.stage);
    let new = pair.chain.iter().find_map(|(transaction, _)| pair.feerate_of(transaction)).unwrap();
    assert!(new > old, "{new} sat/kvB, {old} before");
}

#[test]
fn a_restart_after_the_settlement_writes_no_second_last_line() {
    let mut pair = settled();
    for who in [Who::Publisher, Who::Node] {
        pair.kill(who);
        pair.restart(who);
    }
    pair.until(60, |_| false);
    for party in [&pair.publisher, &pair.node] {
        assert_eq!(party.ledger.iter().filter(|entry| entry.kind == LedgerKind::Settled).count(), 1);
    }
}

#[test]
fn the_other_sides_spend_in_place_of_the_settlement_is_noticed() {
    let mut pair = settled();
    let account = pair.publisher.lease.account.clone().unwrap();
    let Purse::Publisher(channel) = &account.channel.purse else { panic!("not the publisher's") };
    let refund = channel.refund_tx(ScriptBuf::from_hex("0014bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb").unwrap(), 1_000).unwrap();
    // In the mempool it cannot be beside a block's: late news, that changes nothing.
    pair.feed(Who::Node, Input::Seen { transaction: refund.clone(), height: None });
    assert!(matches!(pair.node.lease.stage, Stage::Settled { spend: Spend::Close { .. }, .. }));
    let height = Some(pair.height);
    pair.feed(Who::Node, Input::Seen { transaction: refund.clone(), height });
    let Stage::Settled { txid, spend: Spend::Refund { .. } } = pair.node.lease.stage else { panic!("{:?}", pair.node.lease.stage) };
    assert_eq!(txid, refund.compute_txid());
    assert_eq!(pair.node.ledger.last().unwrap().kind, LedgerKind::Refunded);
}

/// The rate of the node's transaction in the mempool after each block, until the lease is over.
fn rates_until_over(pair: &mut Pair, blocks: u32) -> Vec<u64> {
    let mut rates = Vec::new();
    let end = pair.height + blocks;
    while pair.height < end && !pair.node.lease.is_over() {
        let height = pair.height;
        pair.until(10, |pair| pair.height > height);
        pair.until(1, |_| false);
        rates.extend(pair.mempool.iter().find_map(|tx| pair.feerate_of(tx)));
    }
    rates
}

#[test]
fn fees_a_hundred_times_higher_are_reached_by_raising_a_quarter_each_block() {
    let mut pair = live();
    pair.until(20, |_| false);
    // The estimate does not know yet what miners take.
    (pair.feerate, pair.mined_from) = (1_000, 100_000);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    let rates = rates_until_over(&mut pair, 40);
    assert!(pair.node.lease.is_over(), "not settled at {rates:?}");
    assert!(rates.len() > 10, "{rates:?}");
    for pair in rates.windows(2) {
        // A satoshi of rounding, and a byte that a signature may lack.
        assert!(pair[1] + pair[1] / 100 >= bumped_feerate(pair[0], 0), "{rates:?}");
    }
    let account = pair.node.lease.account.as_ref().unwrap();
    assert!(pair.height < account.channel.terms.refund_height - xennet_rama::SETTLE_BEFORE_REFUND, "in time");
    assert_bounded(&pair, "fee spike");
}

#[test]
fn a_close_that_cannot_pay_the_fee_of_now_offers_all_it_may_and_waits() {
    let mut pair = live();
    pair.until(1, |_| false);
    (pair.feerate, pair.mined_from) = (10_000_000, 10_000_000);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    let rates = rates_until_over(&mut pair, 5);
    assert!(!pair.node.lease.is_over());
    let account = pair.node.lease.account.as_ref().unwrap();
    let Purse::Node(channel) = &account.channel.purse else { panic!("not the node's") };
    let to = ScriptBuf::from_hex("0014aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let most = channel.affordable_feerate(&to).unwrap();
    assert!(rates.iter().all(|rate| *rate >= most - most / 50 && *rate < 10_000_000), "{rates:?}, {most}");
    pair.mined_from = 0;
    assert!(pair.until(20, Pair::both_over));
}

#[test]
fn a_publisher_put_back_from_an_old_copy_takes_over_what_the_node_proves() {
    let mut pair = live();
    pair.until(6, |_| false);
    let copy = pair.publisher.disk.clone();
    pair.until(12, |_| false);
    let held = total(&pair.node.lease);
    pair.restore(Who::Publisher, &copy);
    assert!(total(&pair.publisher.lease) < held, "it has forgotten");
    assert!(pair.until(20, |pair| !pair.publisher.lease.restarted), "the node spoke");
    assert!(total(&pair.publisher.lease) >= held, "it knows again at once");
    assert!(pair.until(20, |pair| total(&pair.node.lease) > held + 1), "and payments go on");
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    assert_bounded(&pair, "old copy");
}

/// The copy is of the moment before the funding was made: a second one would lock as much again, with nobody to ask it back from.
#[test]
fn a_publisher_put_back_to_before_its_funding_finds_it_and_makes_no_second_one() {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)));
    assert!(pair.until(60, |pair| pair.publisher.lease.stage == Stage::Agreed || pair.publisher.lease.stage == Stage::Live));
    // The stage lasts no whole tick, so the copy is made of what the lease was then.
    let mut copy = pair.publisher.lease.clone();
    copy.stage = Stage::Agreed;
    let account = copy.account.as_mut().unwrap();
    let terms = account.channel.terms.clone();
    let Purse::Publisher(_) = &account.channel.purse else { panic!("a publisher's") };
    account.channel.purse = Purse::Publisher(xennet_rama::PublisherChannel::new(terms, secret(&pair.publisher.lease)).unwrap());
    (account.channel.funding, account.channel.outpoint, account.payments, account.acked_total_sat) = (None, None, 0, 0);
    let copy = serde_json::to_string(&copy).unwrap();
    assert!(pair.until(60, Pair::both_live));
    pair.until(12, |_| false);
    let held = total(&pair.node.lease);
    assert!(held > 0 && pair.chain.len() == 1);

    pair.restore(Who::Publisher, &copy);
    assert!(pair.until(30, |pair| total(&pair.publisher.lease) >= held), "{:?}", pair.publisher.lease.stage);
    assert!(pair.until(30, |pair| total(&pair.node.lease) > held + 1), "and payments go on");
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    let fundings = pair.chain.iter().filter(|(tx, _)| tx.output.len() == 2 && tx.output[0].script_pubkey.is_p2wsh()).count();
    assert_eq!(fundings, 1, "one channel, one funding");
    assert_bounded(&pair, "a forgotten funding");
}

fn secret(lease: &Lease) -> secp256k1::SecretKey {
    let xennet_lease::Side::Publisher(side) = &lease.side else { panic!("a publisher's lease") };
    side.channel_secret.0
}

/// What a reorganisation could take back is bounded: the guest stands still until the funding is buried.
#[test]
fn a_node_works_for_no_more_than_its_policy_allows_until_the_funding_is_buried() {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_secs(2)));
    let allowed_msat = 12_000_000;
    if let xennet_lease::Side::Node(side) = &mut pair.node.lease.side {
        side.policy.max_unburied_msat = allowed_msat;
    }
    assert!(pair.until(60, Pair::both_live));
    assert!(pair.until(20, |pair| pair.node.ledger.iter().any(|entry| entry.kind == LedgerKind::Withheld)));
    let owed = |pair: &Pair| pair.node.lease.totals().unwrap().owed_msat.0;
    let stood_at = owed(&pair);
    let funded = pair.node.lease.account.as_ref().unwrap().channel.funded_height.unwrap();
    assert!(stood_at >= allowed_msat && stood_at <= allowed_msat + pair.interval_msat(), "{stood_at}");
    while pair.height < funded + 4 {
        pair.until(1, |_| false);
        assert_eq!(owed(&pair), stood_at, "five blocks are not enough, and nothing is owed for the time");
    }
    assert!(pair.until(30, |pair| owed(pair) > stood_at + pair.interval_msat()), "the sixth block is");
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert!(pair.until(60, Pair::both_over));
    assert_bounded(&pair, "buried");
}

#[test]
fn a_total_without_its_signature_is_not_believed() {
    let mut pair = live();
    pair.until(6, |_| false);
    let signed = total(&pair.publisher.lease);
    let hello = |best| {
        let (lease, usage) = (pair.node.lease.id, Default::default());
        Message::Hello {
            version: Message::VERSION,
            lease,
            usage,
            restarted: false,
            channel: 1,
            total_sat: signed + 1_000,
            guest_key: None,
            best,
        }
    };
    for best in [None, Some(xennet_rama::Update { total_sat: signed + 1_000, signature: [1; 64] })] {
        let mut lease = pair.publisher.lease.clone();
        lease.handle(pair.now_ms, Input::Heard(hello(best)));
        assert!(matches!(lease.stage, Stage::Closing { reason: CloseReason::Protocol }), "{:?}", lease.stage);
        assert_eq!(total(&lease), signed, "nothing was signed or taken over");
    }
}

#[test]
fn a_publisher_put_back_whose_node_never_returns_signs_nothing_and_takes_the_refund() {
    let mut pair = live();
    pair.until(6, |_| false);
    let copy = pair.publisher.disk.clone();
    pair.until(6, |_| false);
    pair.kill(Who::Node);
    pair.restore(Who::Publisher, &copy);
    let before = total(&pair.publisher.lease);
    pair.until(5, |_| false);
    pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
    assert_eq!(total(&pair.publisher.lease), before);
    while pair.height < pair.publisher.lease.account.as_ref().unwrap().channel.terms.refund_height {
        pair.mine();
    }
    assert!(pair.until(60, |pair| pair.publisher.lease.is_over()));
    assert!(matches!(pair.publisher.lease.stage, Stage::Settled { spend: Spend::Refund { .. }, .. }));
}

/// M1, M2 and M5 with either store, or both, put back from a copy of any age.
#[test]
fn whichever_store_is_put_back_and_however_old_nobody_loses_more_than_an_interval() {
    for seed in 0..400_u64 {
        let mut roll = dice(seed);
        let mut pair = live();
        pair.until(3 + roll(8), |_| false);
        let copies = [pair.publisher.disk.clone(), pair.node.disk.clone()];
        for _ in 0..roll(60) {
            pair.step();
        }
        let order = match roll(4) {
            0 => vec![Who::Publisher],
            1 => vec![Who::Node],
            2 => vec![Who::Publisher, Who::Node],
            _ => vec![Who::Node, Who::Publisher],
        };
        // Two copies that never speak between the one and the other know both of nothing later: what was paid since is lost to
        // the node, as it must be. With a word in between nothing is.
        let spoke = order.len() == 1 || roll(3) > 0;
        for who in order {
            let copy = if who == Who::Publisher { &copies[0] } else { &copies[1] };
            pair.restore(who, copy);
            if spoke {
                assert!(pair.until(10, |pair| !pair.publisher.lease.restarted && !pair.node.lease.restarted), "seed {seed}");
                pair.until(1, |_| false);
            }
        }
        for _ in 0..100 {
            pair.step();
            let (a, b) = (&pair.publisher.lease, &pair.node.lease);
            assert!(a.restarted || total(b) <= total(a), "seed {seed}: it signs, and knows less than the node holds");
            assert!(total(a) <= a.account.as_ref().unwrap().channel.terms.max_total_sat(), "seed {seed}: above the budget");
        }
        pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
        assert!(pair.until(200, Pair::both_over), "seed {seed}: {:?} {:?}", pair.publisher.lease.stage, pair.node.lease.stage);
        if spoke {
            assert_bounded(&pair, &format!("seed {seed}"));
        }
        assert!(pair.paid_msat() <= pair.worth_msat() + pair.interval_msat() + 1000, "seed {seed}: the publisher paid twice");
    }
}
