//! Laws of sealed proposals and of a lease's name.
#![allow(clippy::unwrap_used)]

mod any;

use any::*;
use proptest::prelude::*;
use secp256k1::{PublicKey, SECP256K1};
use xennet_task::{AnnouncementHash, LeaseId, Proposal, SealError, Sealed};

fn sealed() -> Sealed {
    Sealed::seal(publisher(), &typical_proposal(), &node().key, &secret(9)).unwrap()
}

proptest! {
    #[test]
    fn only_the_node_it_is_for_can_open_it(proposal in proposals(), ephemeral in 1u8..255, other in 3u8..255) {
        let sealed = Sealed::seal(publisher(), &proposal, &node().key, &secret(ephemeral)).unwrap();
        prop_assert_eq!(sealed.open(&secret(2)), Ok(proposal));
        prop_assert_eq!(sealed.open(&secret(other)), Err(SealError::NotForThisKey));
    }

    #[test]
    fn any_change_is_noticed(at: prop::sample::Index, bit in 0..8) {
        let mut json = serde_json::to_value(sealed()).unwrap();
        let mut ciphertext = hex::decode(json["ciphertext"].as_str().unwrap()).unwrap();
        let at = at.index(ciphertext.len());
        ciphertext[at] ^= 1u8 << bit;
        json["ciphertext"] = hex::encode(ciphertext).into();
        let sealed: Sealed = serde_json::from_value(json).unwrap();
        prop_assert_eq!(sealed.open(&secret(2)), Err(SealError::NotForThisKey));
    }
}

#[test]
fn nobody_can_pass_it_off_as_his_own() {
    let mut stolen = sealed();
    stolen.publisher.key = secret(3).public_key(SECP256K1);
    assert_eq!(stolen.open(&secret(2)), Err(SealError::NotForThisKey));
}

#[test]
fn it_says_neither_for_whom_it_is_nor_what_it_is_about() {
    let shown = serde_json::to_string(&sealed()).unwrap();
    for hidden in [node().key.to_string(), hex::encode([5; 32]), hex::encode(typical_proposal().channel_key)] {
        assert!(!shown.contains(&hidden));
    }
}

#[test]
fn a_proposal_that_may_not_be_said_is_not_sealed() {
    let refused = |proposal: Proposal| {
        let error = Sealed::seal(publisher(), &proposal, &node().key, &secret(9)).unwrap_err();
        let SealError::Field(field) = error else { unreachable!("{error}") };
        field.to_string()
    };
    assert_eq!(refused(Proposal { capacity_sat: 0, ..typical_proposal() }), "capacity_sat is 0, but it must be from 1 to 2100000000000000");
    assert_eq!(
        refused(Proposal { lease: std::time::Duration::from_secs(4), ..typical_proposal() }),
        "payout interval is 5 s, but it must be at most the lease, 4 s"
    );
    let no_key = refused(Proposal { channel_key: [5; 33], ..typical_proposal() });
    assert!(no_key.ends_with("it must be a compressed secp256k1 public key"), "{no_key}");
    assert!(PublicKey::from_slice(&typical_proposal().channel_key).is_ok());
}

#[test]
fn a_lease_is_named_by_its_task_and_its_acceptance() {
    let (a, b) = (AnnouncementHash([1; 32]), AnnouncementHash([2; 32]));
    assert_eq!(LeaseId::of(&a, &b), LeaseId::of(&a, &b));
    assert_ne!(LeaseId::of(&a, &b), LeaseId::of(&b, &a));
    let name = LeaseId::of(&a, &b);
    assert_eq!(name.to_string().len(), 16);
    assert_eq!(name.to_string().parse(), Ok(name));
    assert_eq!("x".parse::<LeaseId>().unwrap_err().to_string(), "`x` is no lease's name: it must be 16 hex digits");
}
