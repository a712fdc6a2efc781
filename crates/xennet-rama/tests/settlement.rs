//! Ending a channel: where every satoshi goes.
#![allow(clippy::unwrap_used)]

mod channel;

use bitcoin::{OutPoint, Sequence, Transaction, transaction::Version};
use channel::{CAPACITY_SAT, REFUND_HEIGHT, ends, ends_of, out_sat, p2wpkh, terms};
use xennet_rama::{
    CLOSE_VBYTES, ChannelTerms, MAX_FEERATE_SAT_PER_KVB, NodeChannel, PublisherChannel, RamaError, Spend, bumped_feerate, fee_sat,
};

fn paid(publisher: u8, total_sat: u64) -> (PublisherChannel, NodeChannel) {
    let (mut a, mut b) = ends_of(publisher, 200);
    b.accept(&a.pay(total_sat).unwrap(), 0).unwrap();
    (a, b)
}

fn vbytes(transaction: &Transaction) -> u64 {
    transaction.weight().to_vbytes_ceil()
}

#[test]
fn a_close_pays_change_first_and_the_node_last() {
    let (_, node) = paid(1, 10_000);
    let close = node.close_tx(p2wpkh(7), 2_000).unwrap();
    assert_eq!(close.version, Version(3));
    assert_eq!(close.lock_time.to_consensus_u32(), 0);
    assert_eq!(close.input[0].sequence, Sequence::ENABLE_RBF_NO_LOCKTIME);
    assert_eq!(close.output[0].value.to_sat(), 40_000);
    assert_eq!(close.output[0].script_pubkey, node.terms().publisher_script());
    assert_eq!(close.output[1].value.to_sat(), 10_000 - 340);
    assert_eq!(close.output[1].script_pubkey, p2wpkh(7));
    assert_eq!(CAPACITY_SAT - out_sat(&close), 340, "inputs = outputs + fee");
}

#[test]
fn the_sizes_are_those_the_reserve_is_made_for() {
    let (publisher, node) = paid(1, 10_000);
    let one = node.close_tx(p2wpkh(7), 1_000).unwrap();
    assert!((CLOSE_VBYTES - 1..=CLOSE_VBYTES).contains(&vbytes(&one)), "{}", vbytes(&one));
    assert_eq!(CAPACITY_SAT - out_sat(&one), CLOSE_VBYTES);

    let more = [paid(3, 10_000).1, paid(4, 10_000).1];
    let three = NodeChannel::close_many(&[&node, &more[0], &more[1]], p2wpkh(7), 1_000).unwrap();
    assert!((424..=427).contains(&vbytes(&three)), "{}", vbytes(&three));

    let refund = publisher.refund_tx(p2wpkh(8), 1_000).unwrap();
    assert!((120..=121).contains(&vbytes(&refund)), "{}", vbytes(&refund));
}

#[test]
fn many_channels_close_in_one_transaction() {
    let nodes = [paid(1, 10_000).1, paid(3, 20_000).1, paid(4, 30_000).1];
    let close = NodeChannel::close_many(&nodes.iter().collect::<Vec<_>>(), p2wpkh(7), 1_500).unwrap();
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(close.input[at].previous_output, node.outpoint().unwrap());
        assert_eq!(close.output[at].value.to_sat(), CAPACITY_SAT - node.total_sat());
        let spend = node.terms().spend_in(node.outpoint().unwrap(), &close).unwrap();
        assert!(matches!(spend, Spend::Close { total_sat, fee_sat: None, .. } if total_sat == node.total_sat()));
    }
    let fee = 3 * CAPACITY_SAT - out_sat(&close);
    assert_eq!(close.output[3].value.to_sat(), 60_000 - fee);
    assert!((fee_sat(425, 1_500)..=fee_sat(427, 1_500)).contains(&fee), "{fee}");
}

#[test]
fn a_close_of_no_channel_or_of_one_twice_or_of_too_many_is_refused() {
    let (_, node) = paid(1, 10_000);
    assert_eq!(NodeChannel::close_many(&[], p2wpkh(7), 1_000), Err(RamaError::NoChannels));
    let outpoint = node.outpoint().unwrap();
    assert_eq!(NodeChannel::close_many(&[&node, &node], p2wpkh(7), 1_000), Err(RamaError::Twice { outpoint }));
    let crowd = (1..=100).map(|n| paid(n, 10_000).1).collect::<Vec<_>>();
    let refused = NodeChannel::close_many(&crowd.iter().collect::<Vec<_>>(), p2wpkh(7), 1_000).unwrap_err();
    assert!(matches!(refused, RamaError::TooLarge { channels: 100, most: 10_000, .. }), "{refused}");
    let fits = NodeChannel::close_many(&crowd.iter().take(77).collect::<Vec<_>>(), p2wpkh(7), 1_000).unwrap();
    assert!(vbytes(&fits) <= 10_000);
}

#[test]
fn the_node_raises_the_fee_alone_and_the_change_stays() {
    let (_, node) = paid(1, 10_000);
    let (mut rate, mut last_fee) = (1_000, 0);
    for _ in 0..8 {
        let close = node.close_tx(p2wpkh(7), rate).unwrap();
        let fee = CAPACITY_SAT - out_sat(&close);
        // BIP 125: a replacement pays at least 1 sat/vB more than what it replaces.
        assert!(fee >= last_fee + vbytes(&close) || last_fee == 0, "{fee} after {last_fee}");
        assert_eq!(close.output[0].value.to_sat(), 40_000);
        last_fee = fee;
        rate = bumped_feerate(rate, 1_000);
    }
}

#[test]
fn a_bump_follows_the_chain_and_never_passes_the_limit() {
    assert_eq!(bumped_feerate(1_000, 500), 2_000);
    assert_eq!(bumped_feerate(8_000, 500), 10_000);
    assert_eq!(bumped_feerate(8_000, 30_000), 30_000);
    assert_eq!(bumped_feerate(u64::MAX, u64::MAX), MAX_FEERATE_SAT_PER_KVB);
}

#[test]
fn a_fee_that_eats_the_output_is_refused_with_the_rate_that_would_do() {
    let (_, node) = paid(1, 1_000);
    let refused = node.close_tx(p2wpkh(7), 4_200).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "of 1000 sat, 286 sat would be left after a fee of 714 sat, but an output of this kind needs 294 sat; use a fee rate of 4152 sat/kvB or less, or settle it together with other channels"
    );
    let affordable = node.affordable_feerate(&p2wpkh(7)).unwrap();
    assert_eq!(affordable, 4_152);
    assert!(node.close_tx(p2wpkh(7), affordable).is_ok());
    assert!(matches!(node.close_tx(p2wpkh(7), u64::MAX), Err(RamaError::FeerateTooHigh { .. })));
}

#[test]
fn a_channel_nothing_was_paid_on_cannot_be_closed() {
    let (_, node) = ends();
    assert_eq!(node.close_tx(p2wpkh(7), 1_000), Err(RamaError::NothingPaid { refund_height: REFUND_HEIGHT }));
}

#[test]
fn what_is_claimable_is_named_and_holds() {
    let terms = terms();
    let (_, node) = paid(1, terms.claimable_from_sat());
    let close = node.close_tx(p2wpkh(7), terms.close_feerate_sat_per_kvb).unwrap();
    assert_eq!(close.output[1].value.to_sat(), 294);
    let (_, poorer) = paid(1, terms.claimable_from_sat() - 1);
    assert!(matches!(poorer.close_tx(p2wpkh(7), terms.close_feerate_sat_per_kvb), Err(RamaError::Dust { left_sat: 293, .. })));
}

#[test]
fn a_close_is_read_back_to_the_satoshi() {
    let (_, node) = paid(1, 12_345);
    let close = node.close_tx(p2wpkh(7), 2_000).unwrap();
    let change = OutPoint { txid: close.compute_txid(), vout: 0 };
    let expected = Spend::Close { total_sat: 12_345, change, change_sat: CAPACITY_SAT - 12_345, fee_sat: Some(340) };
    assert_eq!(node.terms().spend_in(node.outpoint().unwrap(), &close), Some(expected));
    let (_, other) = paid(3, 600);
    assert_eq!(other.terms().spend_in(other.outpoint().unwrap(), &close), None);
}

#[test]
fn a_refund_takes_everything_back_after_the_height() {
    let (publisher, _) = paid(1, 10_000);
    let refund = publisher.refund_tx(p2wpkh(8), 2_000).unwrap();
    assert_eq!(refund.lock_time.to_consensus_u32(), REFUND_HEIGHT);
    assert!(refund.input[0].sequence.enables_absolute_lock_time());
    assert_eq!(out_sat(&refund), CAPACITY_SAT - 242);
    let spend = publisher.terms().spend_in(publisher.outpoint().unwrap(), &refund);
    assert_eq!(spend, Some(Spend::Refund { returned_sat: CAPACITY_SAT - 242, fee_sat: 242 }));
    assert!(matches!(publisher.refund_tx(p2wpkh(8), 1_000_000), Err(RamaError::Dust { left_sat: 0, .. })));
}

#[test]
fn the_change_moves_on_to_another_address() {
    let (publisher, node) = paid(1, 10_000);
    let close = node.close_tx(p2wpkh(7), 1_000).unwrap();
    let sweep = publisher.sweep_change(&close, p2wpkh(8), 1_000).unwrap();
    assert_eq!(sweep.input[0].previous_output.txid, close.compute_txid());
    assert_eq!(40_000 - out_sat(&sweep), 110);
    let refund = publisher.refund_tx(p2wpkh(8), 1_000).unwrap();
    assert!(matches!(publisher.sweep_change(&refund, p2wpkh(8), 1_000), Err(RamaError::NotAClose { .. })));
}

#[test]
fn the_reserve_lets_the_fee_rise_by_half_at_no_cost_to_the_node() {
    let terms = ChannelTerms { close_feerate_sat_per_kvb: 2_000, ..terms() };
    let (_, node) = paid(1, terms.total_for(5_000));
    let close = node.close_tx(p2wpkh(7), 3_000).unwrap();
    assert_eq!(close.output[1].value.to_sat(), 5_000);
}
