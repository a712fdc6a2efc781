//! Laws of identities.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use secp256k1::{PublicKey, SECP256K1, SecretKey};
use xennet_identity::{Anchor, Identity, IdentityError, IdentityId, IdentityTemplate, Role, Target, TargetSchedule, double_sha256};

fn key(secret: u8) -> PublicKey {
    SecretKey::from_slice(&[secret; 32]).unwrap().public_key(SECP256K1)
}

fn template(height: u32) -> IdentityTemplate {
    IdentityTemplate { role: Role::Node, key: key(7), anchor: Anchor { height, hash: [9; 32] } }
}

fn mined(height: u32) -> Identity {
    let target = TargetSchedule::REGTEST.target_at(height);
    let nonce = template(height).search(&target, 0, 1 << 24).unwrap();
    template(height).with_nonce(nonce)
}

prop_compose! {
    fn any_identity()(node: bool, secret in 1u8..255, height: u32, hash: [u8; 32], nonce: u64) -> Identity {
        let role = if node { Role::Node } else { Role::Publisher };
        Identity { role, key: key(secret), anchor: Anchor { height, hash }, nonce }
    }
}

proptest! {
    #[test]
    fn an_identity_is_read_back_as_it_was_written(identity in any_identity()) {
        let mut bytes = Vec::new();
        identity.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), Identity::WIRE_LEN);
        prop_assert_eq!(Identity::decode(&bytes), Ok(identity));
    }

    #[test]
    fn bytes_that_are_read_are_written_the_same(
        identity in any_identity(), at in 0..Identity::WIRE_LEN, byte: u8, cut in 0..=Identity::WIRE_LEN,
    ) {
        let mut bytes = Vec::new();
        identity.encode(&mut bytes);
        bytes[at] = byte;
        if let Ok(identity) = Identity::decode(&bytes) {
            let mut again = Vec::new();
            identity.encode(&mut again);
            prop_assert_eq!(&again, &bytes);
        }
        let cut = Identity::decode(&bytes[..cut]);
        prop_assert!(cut.is_err() || cut == Identity::decode(&bytes));
    }

    #[test]
    fn an_id_is_read_back_as_it_is_shown(hash: [u8; 32]) {
        let id = IdentityId(hash);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}

#[test]
fn the_id_is_the_double_hash_of_94_bytes() {
    let identity = template(5).with_nonce(0x0102_0304_0506_0708);
    let mut preimage = b"xennet-identity".to_vec();
    identity.encode(&mut preimage);
    // Bitcoin's mining machines hash 80 bytes and nothing else.
    assert_eq!(preimage.len(), 94);
    assert_eq!(preimage[86..], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(identity.id().0, double_sha256(&preimage));
}

#[test]
fn a_search_finds_the_first_nonce_that_meets_the_target_and_no_other() {
    // A third of 2^244 is no power of two, so that all limbs of the target count.
    let target: Target = "0005555555555555555555555555555555555555555555555555555555555555".parse().unwrap();
    let first = (0..).find(|nonce| template(5).with_nonce(*nonce).check(&target).is_ok()).unwrap();
    assert_eq!(template(5).search(&target, 0, first), None);
    assert_eq!(template(5).search(&target, 0, first + 1), Some(first));
    assert_eq!(template(5).search(&target, first, 1), Some(first));
    let next = template(5).search(&target, first + 1, 1 << 20).unwrap();
    assert!(next > first && template(5).with_nonce(next).check(&target).is_ok());
}

#[test]
fn a_mined_identity_shows_its_zeros_first() {
    assert!(mined(100).id().to_string().starts_with("0000"));
}

#[test]
fn a_mined_identity_holds_while_its_anchor_is_neither_too_young_nor_too_old() {
    let (schedule, identity) = (TargetSchedule::REGTEST, mined(100));
    assert_eq!(schedule.check(&identity, 106), Ok(()));
    assert_eq!(schedule.check(&identity, 100 + 26_280), Ok(()));
    assert_eq!(
        schedule.check(&identity, 105).unwrap_err().to_string(),
        "the identity's anchor is block 100, but with the tip at 105 it must be 6 blocks deep; \
         wait for more blocks or mine one with an older anchor"
    );
    assert!(matches!(schedule.check(&identity, 99), Err(IdentityError::AnchorTooYoung { .. })));
    assert!(matches!(schedule.check(&identity, 101 + 26_280), Err(IdentityError::AnchorTooOld { .. })));
}

#[test]
fn another_nonce_role_key_or_anchor_needs_its_own_work() {
    let identity = mined(100);
    let target = TargetSchedule::REGTEST.target_at(100);
    let others = [
        Identity { nonce: identity.nonce + 1, ..identity },
        Identity { role: Role::Publisher, ..identity },
        Identity { key: key(8), ..identity },
        Identity { anchor: Anchor { height: 101, ..identity.anchor }, ..identity },
        Identity { anchor: Anchor { hash: [8; 32], ..identity.anchor }, ..identity },
    ];
    for other in others {
        assert!(matches!(other.check(&target), Err(IdentityError::AboveTarget { .. })));
    }
}

#[test]
fn errors_name_what_was_found_and_what_would_be_right() {
    let mut bytes = Vec::new();
    template(5).with_nonce(1).encode(&mut bytes);
    let error = |bytes: &[u8]| Identity::decode(bytes).unwrap_err().to_string();
    assert_eq!(error(&bytes[1..]), "an identity is 79 bytes, but 78 were given");
    let changed = |at: usize, byte| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        error(&bytes)
    };
    assert_eq!(changed(0, 1), "the identity's version is 1, but only 0 is known; a newer program may know it");
    assert_eq!(changed(1, 3), "the identity's role is 3, but it must be 1 (publisher) or 2 (node)");
    assert_eq!(changed(2, 4), "the identity's key is no compressed secp256k1 public key");
}

#[test]
fn a_role_is_read_back_as_it_is_shown() {
    for role in [Role::Publisher, Role::Node] {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert_eq!("miner".parse::<Role>().unwrap_err().to_string(), "`miner` is no role: it must be `publisher` or `node`");
}
