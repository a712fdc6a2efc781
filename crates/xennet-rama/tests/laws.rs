//! What holds for all totals, rates and orders.
#![allow(clippy::unwrap_used)]

mod channel;

use channel::{CAPACITY_SAT, RESERVE_SAT, ends, ends_of, out_sat, p2wpkh};
use proptest::prelude::*;
use xennet_rama::{NodeChannel, Update, fee_sat};

const MOST_SAT: u64 = CAPACITY_SAT - 294;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn totals_only_rise_whatever_is_asked(asked in prop::collection::vec(0..CAPACITY_SAT * 2, 1..20)) {
        let (mut publisher, mut node) = ends();
        for total_sat in asked {
            let before = publisher.signed_total_sat();
            match publisher.pay(total_sat) {
                Ok(update) => {
                    prop_assert!(update.total_sat == total_sat && total_sat >= before && total_sat <= MOST_SAT);
                    node.accept(&update, 0).unwrap();
                }
                Err(_) => prop_assert_eq!(publisher.signed_total_sat(), before),
            }
            prop_assert_eq!(node.total_sat(), publisher.signed_total_sat());
        }
    }

    #[test]
    fn in_any_order_and_however_often_payments_come_the_highest_stays(
        totals in prop::collection::btree_set(RESERVE_SAT..=MOST_SAT, 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let (mut publisher, mut node) = ends();
        let updates: Vec<Update> = totals.iter().map(|total| publisher.pay(*total).unwrap()).collect();
        let mut highest = 0;
        for index in order {
            let update = index.get(&updates);
            let taken = node.accept(update, 0);
            prop_assert_eq!(taken.is_ok(), update.total_sat >= highest);
            highest = highest.max(update.total_sat);
            prop_assert_eq!(node.total_sat(), highest);
        }
    }

    #[test]
    fn the_node_can_always_close_for_what_it_acknowledged_less_the_fee(
        total_sat in RESERVE_SAT..=MOST_SAT,
        rate in 0..=20_000_u64,
    ) {
        let (mut publisher, mut node) = ends();
        node.accept(&publisher.pay(total_sat).unwrap(), 0).unwrap();
        let fee = fee_sat(170, rate);
        match node.close_tx(p2wpkh(7), rate) {
            Ok(close) => {
                prop_assert_eq!(close.output[1].value.to_sat(), total_sat - fee);
                prop_assert_eq!(out_sat(&close) + fee, CAPACITY_SAT);
            }
            Err(_) => prop_assert!(total_sat < fee + 294),
        }
    }

    #[test]
    fn inputs_are_outputs_and_fee_for_any_number_of_channels(
        totals in prop::collection::vec(RESERVE_SAT + 1_000..=MOST_SAT, 1..10),
        rate in 0..=5_000_u64,
    ) {
        let nodes: Vec<NodeChannel> = (1..).zip(&totals).map(|(key, total)| {
            let (mut publisher, mut node) = ends_of(key, 200);
            node.accept(&publisher.pay(*total).unwrap(), 0).unwrap();
            node
        }).collect();
        let close = NodeChannel::close_many(&nodes.iter().collect::<Vec<_>>(), p2wpkh(7), rate).unwrap();
        let to_node = close.output.last().unwrap().value.to_sat();
        let fee = totals.len() as u64 * CAPACITY_SAT - out_sat(&close);
        prop_assert_eq!(to_node + fee, totals.iter().sum::<u64>());
        // The rate asked for is met, and not overshot by more than what signatures may turn out shorter.
        let vbytes = close.weight().to_vbytes_ceil();
        prop_assert!(fee >= fee_sat(vbytes, rate) && fee <= fee_sat(vbytes + totals.len() as u64 + 1, rate));
    }

    #[test]
    fn no_bytes_of_a_stranger_make_the_node_panic_or_take_them(total_sat: u64, signature in prop::array::uniform32(any::<u8>()), height: u32) {
        let (_, mut node) = ends();
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&signature);
        bytes[32..].copy_from_slice(&signature);
        let forged = Update { total_sat, signature: bytes };
        prop_assert!(node.accept(&forged, height).is_err());
        prop_assert_eq!(node.best(), None);
    }
}
