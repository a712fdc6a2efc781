//! Laws of targets and of how they fall.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use xennet_identity::{Target, TargetSchedule};

const SCHEDULE: TargetSchedule = TargetSchedule::MAINNET;

#[test]
fn leading_zero_bits_are_ones_behind_zeros() {
    let shown = |bits| Target::from_leading_zero_bits(bits).to_string();
    assert_eq!(shown(0), "f".repeat(64));
    assert_eq!(shown(1), format!("7{}", "f".repeat(63)));
    assert_eq!(shown(64), format!("{}{}", "0".repeat(16), "f".repeat(48)));
    assert_eq!(shown(70), format!("{}3{}", "0".repeat(17), "f".repeat(46)));
    assert_eq!(shown(255), format!("{}1", "0".repeat(63)));
}

#[test]
fn a_hash_is_a_little_endian_number_that_must_not_be_above() {
    let target: Target = format!("{}2a", "0".repeat(62)).parse().unwrap();
    let hash = |first: u8, last: u8| {
        let mut hash = [0; 32];
        (hash[0], hash[31]) = (first, last);
        hash
    };
    assert!(target.is_met_by(&hash(0x2a, 0)));
    assert!(!target.is_met_by(&hash(0x2b, 0)));
    assert!(!target.is_met_by(&hash(0, 1)));
}

#[test]
fn each_zero_bit_doubles_the_hashes_it_takes() {
    for bits in 0..=127u8 {
        assert_eq!(Target::from_leading_zero_bits(bits).expected_hashes(), 1 << bits);
    }
    for bits in 128..=255u8 {
        assert_eq!(Target::from_leading_zero_bits(bits).expected_hashes(), u128::MAX);
    }
    let third = "5".repeat(64).parse::<Target>().unwrap();
    assert_eq!(third.expected_hashes(), 2); // 2.99…, rounded down
    let rest = format!("0{}", "2".repeat(63)).parse::<Target>().unwrap();
    assert_eq!(rest.expected_hashes(), 119); // 119.99…, rounded down
}

#[test]
fn a_text_that_is_no_target_is_named() {
    assert_eq!("12".parse::<Target>().unwrap_err().to_string(), "`12` is no target: it must be 64 hex digits, most significant first");
    assert!("ä".repeat(32).parse::<Target>().is_err());
}

#[test]
fn the_target_halves_every_131400_blocks() {
    for halvings in 0..100 {
        let height = SCHEDULE.base_height + halvings * TargetSchedule::HALVING;
        assert_eq!(SCHEDULE.target_at(height), Target::from_leading_zero_bits(32 + halvings as u8));
    }
    assert_eq!(SCHEDULE.target_at(0), SCHEDULE.base);
    assert_eq!(TargetSchedule::REGTEST.target_at(u32::MAX).to_string(), "0".repeat(64));
}

/// Everybody must agree on the last bit, so these may never change.
#[test]
fn the_target_between_halvings_is_these_very_bits() {
    let targets = [
        (930_001, TARGET_AFTER_1),
        (930_000 + 65_700, TARGET_AFTER_HALF),
        (930_000 + 131_399, TARGET_BEFORE_HALVING),
        (1_500_000, TARGET_LATER),
    ];
    for (height, target) in targets {
        assert_eq!(SCHEDULE.target_at(height).to_string(), target, "at {height}");
    }
}

const TARGET_AFTER_1: &str = "00000000ffffa77fd9dbf51effffffffffffffffffffffffffffffffffffffff";
const TARGET_AFTER_HALF: &str = "00000000b504f333f9de6482ffffffffffffffffffffffffffffffffffffffff";
const TARGET_BEFORE_HALVING: &str = "0000000080002c407b176277ffffffffffffffffffffffffffffffffffffffff";
const TARGET_LATER: &str = "000000000ca8b95a41ad88343fffffffffffffffffffffffffffffffffffffff";

proptest! {
    #[test]
    fn the_target_falls_with_every_block(height in SCHEDULE.base_height..3_000_000) {
        let (now, next) = (SCHEDULE.target_at(height), SCHEDULE.target_at(height + 1));
        prop_assert!(next.to_string() < now.to_string());
    }

    #[test]
    fn the_target_follows_its_formula(blocks in 0u32..2_000_000) {
        let hashes = SCHEDULE.target_at(SCHEDULE.base_height + blocks).expected_hashes() as f64;
        let formula = 2f64.powf(32.0 + f64::from(blocks) / f64::from(TargetSchedule::HALVING));
        prop_assert!((hashes / formula - 1.0).abs() < 1e-8, "{hashes} against {formula}");
    }

    #[test]
    fn a_target_is_read_back_as_it_is_shown(bits: u8, height: u32) {
        let base = Target::from_leading_zero_bits(bits);
        let target = TargetSchedule { base, ..SCHEDULE }.target_at(height);
        prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
    }
}
