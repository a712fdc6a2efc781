//! The transactions, judged by Bitcoin Core's own script interpreter.
#![allow(clippy::unwrap_used)]

mod channel;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, Transaction, TxOut, Witness};
use bitcoinkernel::{PrecomputedTransactionData, ScriptPubkey, VERIFY_ALL, verify};
use channel::{CAPACITY_SAT, REFUND_HEIGHT, ends, ends_of, key, p2wpkh, terms};
use secp256k1::{Message, SECP256K1, SecretKey};
use xennet_rama::NodeChannel;

/// Whether Bitcoin Core lets `transaction` spend these outputs, one for each input.
fn valid(transaction: &Transaction, spent: &[TxOut]) -> bool {
    let kernel = bitcoinkernel::Transaction::new(&serialize(transaction)).unwrap();
    let outputs = spent
        .iter()
        .map(|output| {
            let script = ScriptPubkey::new(output.script_pubkey.as_bytes()).unwrap();
            bitcoinkernel::TxOut::new(&script, output.value.to_sat() as i64)
        })
        .collect::<Vec<_>>();
    let data = PrecomputedTransactionData::new(&kernel, &outputs).unwrap();
    assert_eq!(transaction.input.len(), spent.len());
    spent.iter().enumerate().all(|(at, output)| {
        let script = ScriptPubkey::new(output.script_pubkey.as_bytes()).unwrap();
        verify(&script, Some(output.value.to_sat() as i64), &kernel, at, Some(VERIFY_ALL), &data).is_ok()
    })
}

fn channel_output() -> TxOut {
    terms().funding_output()
}

fn sign(transaction: &Transaction, secret: &SecretKey, sighash_type: EcdsaSighashType) -> Vec<u8> {
    let sighash = SighashCache::new(transaction)
        .p2wsh_signature_hash(0, &terms().witness_script(), Amount::from_sat(CAPACITY_SAT), sighash_type)
        .unwrap();
    let signature = SECP256K1.sign_ecdsa(&Message::from(sighash), secret);
    bitcoin::ecdsa::Signature { signature, sighash_type }.to_vec()
}

fn closed(total_sat: u64, rate: u64) -> Transaction {
    let (mut publisher, mut node) = ends();
    node.accept(&publisher.pay(total_sat).unwrap(), 0).unwrap();
    node.close_tx(p2wpkh(7), rate).unwrap()
}

#[test]
fn the_node_closes_alone_at_any_fee() {
    for rate in [0, 1_000, 5_000, 50_000] {
        assert!(valid(&closed(20_000, rate), &[channel_output()]));
    }
}

#[test]
fn the_node_closes_with_any_payment_it_holds_up_to_the_last_satoshi() {
    for total_sat in [1_000, 1_001, 49_705, 49_706] {
        assert!(valid(&closed(total_sat, 1_000), &[channel_output()]));
    }
}

#[test]
fn many_channels_close_in_one_transaction() {
    let nodes = (1..=20)
        .map(|publisher| {
            let (mut a, mut b) = ends_of(publisher, 200);
            b.accept(&a.pay(5_000 + u64::from(publisher)).unwrap(), 0).unwrap();
            b
        })
        .collect::<Vec<_>>();
    let close = NodeChannel::close_many(&nodes.iter().collect::<Vec<_>>(), p2wpkh(7), 3_000).unwrap();
    let spent = nodes.iter().map(|node| node.terms().funding_output()).collect::<Vec<_>>();
    assert!(valid(&close, &spent));
}

#[test]
fn the_publisher_takes_the_refund_alone() {
    let (publisher, _) = ends();
    let refund = publisher.refund_tx(p2wpkh(8), 1_000).unwrap();
    assert!(valid(&refund, &[channel_output()]));
}

#[test]
fn the_publisher_sweeps_its_change() {
    let (mut publisher, mut node) = ends();
    node.accept(&publisher.pay(20_000).unwrap(), 0).unwrap();
    let close = node.close_tx(p2wpkh(7), 1_000).unwrap();
    let sweep = publisher.sweep_change(&close, p2wpkh(8), 1_000).unwrap();
    assert!(valid(&sweep, &[close.output[0].clone()]));
}

#[test]
fn a_refund_made_for_an_earlier_block_is_invalid() {
    let (publisher, _) = ends();
    let mut refund = publisher.refund_tx(p2wpkh(8), 1_000).unwrap();
    for height in [0, 1, REFUND_HEIGHT - 1] {
        refund.lock_time = LockTime::from_consensus(height);
        let signature = sign(&refund, &key(1), EcdsaSighashType::All);
        refund.input[0].witness = Witness::from_slice(&[vec![], signature, terms().witness_script().to_bytes()]);
        assert!(!valid(&refund, &[channel_output()]), "lock time {height}");
    }
    // The same by the same hand is valid from the height on, so it was the height that failed.
    refund.lock_time = LockTime::from_consensus(REFUND_HEIGHT);
    let signature = sign(&refund, &key(1), EcdsaSighashType::All);
    refund.input[0].witness = Witness::from_slice(&[vec![], signature, terms().witness_script().to_bytes()]);
    assert!(valid(&refund, &[channel_output()]));
}

#[test]
fn the_node_cannot_take_more_than_was_signed() {
    let honest = closed(20_000, 1_000);
    let publisher_signature = honest.input[0].witness.nth(1).unwrap().to_vec();
    let mut forged = honest.clone();
    forged.output[0].value = Amount::from_sat(20_000);
    forged.output[1].value = Amount::from_sat(29_000);
    let signature = sign(&forged, &key(2), EcdsaSighashType::All);
    let script = terms().witness_script().to_bytes();
    forged.input[0].witness = Witness::from_slice(&[signature, publisher_signature.clone(), script.clone()]);
    assert!(!valid(&forged, &[channel_output()]));

    let mut without_change = honest;
    without_change.output.remove(0);
    let signature = sign(&without_change, &key(2), EcdsaSighashType::All);
    without_change.input[0].witness = Witness::from_slice(&[signature, publisher_signature, script]);
    assert!(!valid(&without_change, &[channel_output()]));
}

#[test]
fn a_payment_alone_is_worth_nothing_to_a_third_party() {
    let honest = closed(20_000, 1_000);
    let publisher_signature = honest.input[0].witness.nth(1).unwrap().to_vec();
    let script = terms().witness_script().to_bytes();
    let mut theft = honest.clone();
    theft.output[1].script_pubkey = p2wpkh(66);
    let theirs = sign(&theft, &key(66), EcdsaSighashType::All);
    for node_signature in [theirs, vec![], honest.input[0].witness.nth(0).unwrap().to_vec()] {
        theft.input[0].witness = Witness::from_slice(&[node_signature, publisher_signature.clone(), script.clone()]);
        assert!(!valid(&theft, &[channel_output()]));
    }
}

#[test]
fn the_publisher_cannot_close_without_the_node_nor_the_node_without_the_publisher() {
    let mut close = closed(20_000, 1_000);
    let script = terms().witness_script().to_bytes();
    let (a, b) = (sign(&close, &key(1), EcdsaSighashType::All), sign(&close, &key(2), EcdsaSighashType::All));
    for pair in [[vec![], a.clone()], [a.clone(), a], [b.clone(), b.clone()], [b, vec![]]] {
        let [node, publisher] = pair;
        close.input[0].witness = Witness::from_slice(&[node, publisher, script.clone()]);
        assert!(!valid(&close, &[channel_output()]));
    }
}
