//! What can be agreed on, and what cannot.
#![allow(clippy::unwrap_used)]

mod channel;

use channel::{CAPACITY_SAT, RESERVE_SAT, ends, funding, key, terms};
use miniscript::{Descriptor, DescriptorPublicKey};
use xennet_rama::{ChannelTerms, NodeChannel, PublisherChannel, RamaError, refund_height_for};

#[test]
fn the_script_is_what_the_descriptor_compiles_to() {
    let terms = terms();
    let descriptor: Descriptor<DescriptorPublicKey> = terms.descriptor().parse().unwrap();
    let compiled = descriptor.at_derivation_index(0).unwrap();
    assert_eq!(compiled.script_pubkey(), terms.script_pubkey());
    assert_eq!(compiled.explicit_script().unwrap(), terms.witness_script());
    // With its checksum, as the library writes it too.
    assert_eq!(descriptor.to_string(), terms.descriptor());
}

#[test]
fn the_close_reserve_is_one_and_a_half_fees_of_170_vbytes() {
    assert_eq!(terms().close_reserve_sat(), RESERVE_SAT);
    let odd = ChannelTerms { close_feerate_sat_per_kvb: 1_001, ..terms() };
    assert_eq!(odd.close_reserve_sat(), 256);
    assert_eq!(terms().total_for(100), RESERVE_SAT + 100);
    assert_eq!(terms().earned_of(RESERVE_SAT + 100), 100);
    assert_eq!(terms().earned_of(3), 0);
}

#[test]
fn a_capacity_that_is_dust_is_named_before_the_lease() {
    let least_sat = terms().least_capacity_sat();
    assert_eq!(ChannelTerms { capacity_sat: least_sat, ..terms() }.check(), Ok(()));
    let refused = ChannelTerms { capacity_sat: least_sat - 1, ..terms() }.check().unwrap_err();
    assert_eq!(refused, RamaError::CapacityTooSmall { capacity_sat: least_sat - 1, least_sat });
    assert_eq!(refused.to_string(), "the channel's capacity is 927 sat, but closing it on chain needs 928 sat; lock at least 928 sat");
}

#[test]
fn impossible_terms_are_refused_by_both_ends() {
    let one_key = ChannelTerms { node_key: terms().publisher_key, ..terms() };
    let no_height = ChannelTerms { refund_height: 0, ..terms() };
    let a_time = ChannelTerms { refund_height: 500_000_000, ..terms() };
    let dear = ChannelTerms { close_feerate_sat_per_kvb: u64::MAX, ..terms() };
    let rich = ChannelTerms { capacity_sat: u64::MAX, ..terms() };
    for (wrong, says) in [
        (one_key, "the same channel key"),
        (no_height, "refund height is 0"),
        (a_time, "refund height is 500000000"),
        (dear, "over the limit of 10000000 sat/kvB"),
        (rich, "only 2100000000000000 sat in all"),
    ] {
        let why = PublisherChannel::new(wrong.clone(), key(1)).unwrap_err().to_string();
        assert!(why.contains(says), "{why}");
        assert_eq!(NodeChannel::new(wrong, key(1)).unwrap_err().to_string(), why);
    }
}

#[test]
fn an_end_takes_only_its_own_key() {
    assert!(matches!(PublisherChannel::new(terms(), key(2)), Err(RamaError::NotOurKey { .. })));
    assert!(matches!(NodeChannel::new(terms(), key(1)), Err(RamaError::NotOurKey { .. })));
}

#[test]
fn the_refund_unlocks_a_day_of_blocks_after_the_lease_at_the_earliest() {
    assert_eq!(refund_height_for(856), 1_000);
    assert_eq!(terms().check_refund(856), Ok(()));
    let refused = terms().check_refund(857).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the refund unlocks at height 1000, but a lease that ends at height 857 needs at least 1001; propose 1001 or later"
    );
}

#[test]
fn a_funding_with_another_script_or_amount_is_not_believed() {
    let terms = terms();
    let right = funding(&terms, 1);
    assert_eq!(terms.outpoint_in(&right).unwrap().vout, 1);
    let mut node = NodeChannel::new(terms.clone(), key(2)).unwrap();
    assert!(matches!(node.funded(&right, 0), Err(RamaError::NotThisChannel { vout: 0, outputs: 2, .. })));
    assert!(matches!(node.funded(&right, 2), Err(RamaError::NotThisChannel { vout: 2, outputs: 2, .. })));
    let mut short = right.clone();
    short.output[1].value = bitcoin::Amount::from_sat(CAPACITY_SAT - 1);
    assert_eq!(node.funded(&short, 1), Err(RamaError::WrongAmount { funded_sat: CAPACITY_SAT - 1, capacity_sat: CAPACITY_SAT }));
    assert_eq!(terms.outpoint_in(&short), None);
    assert!(node.funded(&right, 1).is_ok());
}

#[test]
fn a_funding_may_be_replaced_until_the_first_payment_and_not_after() {
    let (mut publisher, mut node) = ends();
    let other = funding(&terms(), 77);
    let moved = node.funded(&other, 1).unwrap();
    publisher.funded(moved).unwrap();
    let update = publisher.pay(RESERVE_SAT).unwrap();
    node.accept(&update, 0).unwrap();
    let third = funding(&terms(), 78);
    assert!(matches!(node.funded(&third, 1), Err(RamaError::AlreadyFunded { .. })));
    let third = terms().outpoint_in(&third).unwrap();
    assert!(matches!(publisher.funded(third), Err(RamaError::AlreadyFunded { .. })));
    assert_eq!(publisher.funded(moved), Ok(()), "the same again is fine");
    assert_eq!(node.funded(&other, 1), Ok(moved));
}
