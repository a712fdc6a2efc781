//! Paying and being paid.
#![allow(clippy::unwrap_used)]

mod channel;

use bitcoin::absolute::LockTime;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Sequence, Transaction, TxIn, TxOut};
use channel::{CAPACITY_SAT, REFUND_HEIGHT, RESERVE_SAT, ends, key, terms};
use secp256k1::{Message, SECP256K1, ecdsa};
use xennet_rama::{NodeChannel, PublisherChannel, RamaError, Update};

#[test]
fn a_payment_signs_exactly_the_channel_and_the_change() {
    let (mut publisher, _) = ends();
    let terms = terms();
    let update = publisher.pay(12_345).unwrap();
    // The same by the library, over a whole transaction, whatever else is in it.
    let change = TxOut { value: Amount::from_sat(CAPACITY_SAT - 12_345), script_pubkey: terms.publisher_script() };
    let transaction = Transaction {
        version: Version(3),
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: publisher.outpoint().unwrap(), sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() }],
        output: vec![change],
    };
    let sighash = SighashCache::new(&transaction)
        .p2wsh_signature_hash(0, &terms.witness_script(), Amount::from_sat(CAPACITY_SAT), EcdsaSighashType::SinglePlusAnyoneCanPay)
        .unwrap();
    let signature = ecdsa::Signature::from_compact(&update.signature).unwrap();
    SECP256K1.verify_ecdsa(&Message::from(sighash), &signature, &terms.publisher_key).unwrap();
}

#[test]
fn a_payment_goes_over_and_comes_back_as_the_best_one() {
    let (mut publisher, mut node) = ends();
    for total_sat in [RESERVE_SAT, RESERVE_SAT + 1, 20_000, CAPACITY_SAT - 294] {
        let update = publisher.pay(total_sat).unwrap();
        node.accept(&update, 5).unwrap();
        assert_eq!(node.best(), Some(update));
        assert_eq!(publisher.last_update(), Some(update));
        assert_eq!((node.total_sat(), publisher.signed_total_sat()), (total_sat, total_sat));
    }
}

#[test]
fn nothing_is_paid_or_taken_before_the_channel_is_funded() {
    let mut publisher = PublisherChannel::new(terms(), key(1)).unwrap();
    let mut node = NodeChannel::new(terms(), key(2)).unwrap();
    assert_eq!(publisher.pay(600), Err(RamaError::NotFunded));
    assert_eq!(node.accept(&Update { total_sat: 600, signature: [1; 64] }, 0), Err(RamaError::NotFunded));
    assert_eq!(node.close_tx(channel::p2wpkh(3), 1_000), Err(RamaError::NotFunded));
    assert_eq!(publisher.refund_tx(channel::p2wpkh(3), 1_000), Err(RamaError::NotFunded));
}

#[test]
fn the_first_payment_must_carry_the_close_reserve() {
    let (mut publisher, mut node) = ends();
    let refused = publisher.pay(RESERVE_SAT - 1).unwrap_err();
    assert_eq!(refused, RamaError::ReserveMissing { total_sat: RESERVE_SAT - 1, reserve_sat: RESERVE_SAT });
    let stingy = Update { total_sat: RESERVE_SAT - 1, signature: [1; 64] };
    assert_eq!(node.accept(&stingy, 0), Err(refused));
}

#[test]
fn a_total_never_goes_down_at_either_end() {
    let (mut publisher, mut node) = ends();
    let early = publisher.pay(1_000).unwrap();
    let late = publisher.pay(2_000).unwrap();
    assert_eq!(publisher.pay(1_999), Err(RamaError::BelowKnown { total_sat: 1_999, known_sat: 2_000 }));
    node.accept(&late, 0).unwrap();
    assert_eq!(node.accept(&early, 0), Err(RamaError::BelowKnown { total_sat: 1_000, known_sat: 2_000 }));
    assert_eq!(node.best(), Some(late));
    assert_eq!(publisher.last_update(), Some(late));
}

#[test]
fn the_publisher_keeps_294_satoshi() {
    let (mut publisher, mut node) = ends();
    let refused = publisher.pay(CAPACITY_SAT - 293).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a total of 49707 sat is above the 49706 sat this channel can pay (capacity 50000 sat less the 294 sat its publisher keeps); close it and open a larger one"
    );
    for total_sat in [CAPACITY_SAT - 293, CAPACITY_SAT, CAPACITY_SAT + 1, u64::MAX] {
        let generous = Update { total_sat, signature: [1; 64] };
        assert!(matches!(node.accept(&generous, 0), Err(RamaError::AboveCapacity { .. })));
    }
}

#[test]
fn a_publisher_never_signs_above_its_budget() {
    let (publisher, _) = ends();
    let mut publisher = publisher.with_budget(5_000);
    assert_eq!(publisher.max_total_sat(), 5_000);
    let kept = publisher.pay(5_000).unwrap();
    let refused = publisher.pay(5_001).unwrap_err();
    assert_eq!(refused.to_string(), "a total of 5001 sat is above the budget of 5000 sat; raise the budget or end the lease");
    assert_eq!(publisher.last_update(), Some(kept));
}

#[test]
fn a_forged_or_changed_payment_is_refused() {
    let (mut publisher, mut node) = ends();
    let right = publisher.pay(3_000).unwrap();
    let raised = Update { total_sat: 3_001, ..right };
    let zeroed = Update { signature: [0; 64], ..right };
    let full = Update { signature: [0xff; 64], ..right };
    let (mut other, _) = channel::ends_of(3, 2);
    let of_another_channel = other.pay(3_000).unwrap();
    for forged in [raised, zeroed, full, of_another_channel] {
        let refused = node.accept(&forged, 0).unwrap_err();
        assert_eq!(refused, RamaError::BadSignature { total_sat: forged.total_sat });
    }
    assert_eq!(node.best(), None);
    node.accept(&right, 0).unwrap();
    // Nor does a wrong signature over the same total replace a right one.
    assert!(node.accept(&zeroed, 0).is_err());
    assert_eq!(node.best(), Some(right));
}

#[test]
fn no_payment_is_taken_in_the_last_72_blocks() {
    let (mut publisher, mut node) = ends();
    let update = publisher.pay(1_000).unwrap();
    node.accept(&update, REFUND_HEIGHT - 72).unwrap();
    let next = publisher.pay(2_000).unwrap();
    let refused = node.accept(&next, REFUND_HEIGHT - 71).unwrap_err();
    assert_eq!(refused, RamaError::TooLate { height: 929, last: 928, refund_height: 1_000 });
    assert_eq!(node.accept(&update, REFUND_HEIGHT), Ok(()), "one that is known already may be said at any time");
}

#[test]
fn the_node_must_settle_in_the_last_48_blocks() {
    let (_, node) = ends();
    assert!(!node.must_settle(REFUND_HEIGHT - 49));
    assert!(node.must_settle(REFUND_HEIGHT - 48));
    assert!(node.must_settle(u32::MAX));
}

#[test]
fn both_ends_go_on_from_what_was_stored() {
    let (mut publisher, mut node) = ends();
    let update = publisher.pay(4_000).unwrap();
    node.accept(&update, 0).unwrap();
    let stored = (serde_json::to_string(&publisher).unwrap(), serde_json::to_string(&node).unwrap());
    let mut again: (PublisherChannel, NodeChannel) = (serde_json::from_str(&stored.0).unwrap(), serde_json::from_str(&stored.1).unwrap());
    assert_eq!(again, (publisher.clone(), node));
    // A crash between signing and sending: the same payment is signed again, to the bit.
    assert_eq!(again.0.pay(4_000).unwrap(), update);
    let next = again.0.pay(4_001).unwrap();
    assert_eq!(next, publisher.pay(4_001).unwrap());
    again.1.accept(&next, 0).unwrap();
    assert!(matches!(again.0.pay(3_999), Err(RamaError::BelowKnown { .. })));
}

#[test]
fn a_stored_channel_that_was_tampered_with_is_refused() {
    let (publisher, mut node) = ends();
    let stored = serde_json::to_value(&publisher).unwrap();
    let mut other_key = stored.clone();
    other_key["secret"] = serde_json::to_value(key(5)).unwrap();
    assert!(serde_json::from_value::<PublisherChannel>(other_key).is_err());
    let mut unknown = stored;
    unknown["extra"] = 1.into();
    assert!(serde_json::from_value::<PublisherChannel>(unknown).is_err());

    let mut publisher = publisher;
    node.accept(&publisher.pay(600).unwrap(), 0).unwrap();
    let mut too_much = serde_json::to_value(&node).unwrap();
    too_much["best"]["total_sat"] = (CAPACITY_SAT + 1).into();
    assert!(serde_json::from_value::<NodeChannel>(too_much).is_err());
}

#[test]
fn a_signature_is_written_as_128_hex_digits() {
    let (mut publisher, _) = ends();
    let update = publisher.pay(700).unwrap();
    let text = serde_json::to_string(&update).unwrap();
    assert_eq!(serde_json::from_str::<Update>(&text).unwrap(), update);
    assert!(text.starts_with(r#"{"total_sat":700,"signature":""#), "{text}");
    for bad in [r#"{"total_sat":1,"signature":"00"}"#, r#"{"total_sat":1,"signature":"zz"}"#] {
        let why = serde_json::from_str::<Update>(bad).unwrap_err().to_string();
        assert!(why.contains("128 hex digits"), "{why}");
    }
}

#[test]
fn no_secret_key_is_shown_by_debug() {
    let (mut publisher, mut node) = ends();
    node.accept(&publisher.pay(600).unwrap(), 0).unwrap();
    let shown = format!("{publisher:?} {node:?} {publisher:#?} {node:#?}");
    for byte in ["01", "02"] {
        assert!(!shown.contains(&byte.repeat(32)));
    }
    assert!(shown.contains("not shown"));
}
