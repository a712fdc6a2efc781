//! Laws of transaction work.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use xennet_identity::{WorkBits, double_sha256, grind, work_of};

fn naive(prefix: &[u8], nonce: u64, suffix: &[u8]) -> [u8; 32] {
    double_sha256(&[prefix, &nonce.to_le_bytes(), suffix].concat())
}

proptest! {
    // Whatever stands before and after the nonce, and across whichever blocks it lies.
    #[test]
    fn grinding_finds_what_hashing_everything_finds(
        prefix in proptest::collection::vec(any::<u8>(), 0..200),
        suffix in proptest::collection::vec(any::<u8>(), 0..200),
        bits in 0u8..8,
        start: u64,
    ) {
        let first = (0..5_000)
            .map(|i| start.wrapping_add(i))
            .find(|nonce| work_of(&naive(&prefix, *nonce, &suffix)) >= bits);
        prop_assert_eq!(grind(&prefix, &suffix, WorkBits(bits), start, 5_000), first);
    }
}

#[test]
fn a_nonce_may_lie_across_two_blocks() {
    for length in 50..=70 {
        let prefix = vec![1; length];
        let nonce = grind(&prefix, &[2; 4], WorkBits(10), 0, 1 << 20).unwrap();
        assert!(work_of(&naive(&prefix, nonce, &[2; 4])) >= 10);
    }
}

#[test]
fn grinding_ends_after_as_many_nonces_as_it_was_given() {
    assert_eq!(grind(b"x", b"", WorkBits(0), 5, 0), None);
    assert_eq!(grind(b"x", b"", WorkBits(255), 0, 1_000), None);
    assert_eq!(grind(b"x", b"", WorkBits(0), u64::MAX, 2), Some(u64::MAX));
}

#[test]
fn work_is_counted_as_bitcoin_counts_it() {
    let mut genesis = [0; 32];
    hex::decode_to_slice("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000", &mut genesis).unwrap();
    assert_eq!(work_of(&genesis), 43);
    assert_eq!(work_of(&[0xff; 32]), 0);
    assert_eq!(work_of(&[0; 32]), 255);
    assert!(WorkBits(43).is_met_by(&genesis) && !WorkBits(44).is_met_by(&genesis));
    assert_eq!(WorkBits(20).expected_hashes(), 1 << 20);
    assert_eq!(WorkBits(128).expected_hashes(), u128::MAX);
}
