//! Announcements on the chain.

use bitcoin::Amount;
use xennet_chain::{
    ChainEvent, Status, Wallet, WalletError, from_relay_bytes, marker_witness_script, markers_around, payload_of, relay_bytes,
};
use xennet_identity::{WorkBits, double_sha256, grind, work_of};

use crate::rig::{Rig, open, output, rig, until};

fn unworked(length: usize) -> Vec<u8> {
    let mut payload = b"XN\x01\x01\x0c".to_vec();
    payload.resize(length, 0x5a);
    payload
}

fn announce(wallet: &Wallet, length: usize, bits: u8) -> bitcoin::Transaction {
    let prepared = wallet.prepare_announcement(&unworked(length), 1_000).unwrap();
    let nonce = grind(prepared.prefix(), prepared.suffix(), WorkBits(bits), 0, u64::MAX).unwrap();
    prepared.finish(nonce).unwrap()
}

async fn announced(rig: &mut Rig) -> (bitcoin::Transaction, Vec<u8>, Status) {
    rig.until(|event| match event {
        ChainEvent::Announcement { tx, payload, status } => Some((tx, payload, status)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announcement_is_ground_then_signed_then_seen_by_all() {
    let mut rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    let (other, mut heard) = open(rig.dir.path()).await;
    let tx = announce(&wallet, 200, 12);

    assert!(work_of(&double_sha256(&relay_bytes(&tx)[1..])) >= 12, "the work is that of the txid");
    let payload = payload_of(&tx).unwrap().to_vec();
    assert_eq!(payload[..200], unworked(200));
    let marker = &tx.output[tx.output.len() - 2];
    assert_eq!(marker.value, Amount::from_sat(330));
    let (height, _) = rig.chain.tip().await.unwrap();
    assert!(markers_around(1, height).contains(&marker.script_pubkey));
    let message = relay_bytes(&tx);
    let (back, _) = from_relay_bytes(&message).unwrap();
    assert_eq!(back.compute_txid(), tx.compute_txid());

    rig.chain.broadcast(&tx).await.unwrap();
    assert_eq!(announced(&mut rig).await, (tx.clone(), payload.clone(), Status::Mempool));
    until(&mut heard, |event| match event {
        ChainEvent::Announcement { payload: found, .. } if found == payload => Some(()),
        _ => None,
    })
    .await;
    rig.chain.generate(1).await.unwrap();
    let (found, _, status) = announced(&mut rig).await;
    assert_eq!((found.compute_txid(), status), (tx.compute_txid(), Status::Confirmed { height: height + 1 }));

    // A node that starts later is told of it at once.
    let (late, mut heard) = open(rig.dir.path()).await;
    until(&mut heard, |event| match event {
        ChainEvent::Announcement { payload: found, .. } if found == payload => Some(()),
        _ => None,
    })
    .await;
    late.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anyone_may_sweep_a_marker() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    let tx = announce(&wallet, 100, 1);
    rig.chain.broadcast(&tx).await.unwrap();
    rig.chain.generate(1).await.unwrap();
    let (height, _) = rig.chain.tip().await.unwrap();
    let at = output(&tx, u32::try_from(tx.output.len()).unwrap() - 2);
    let lock = crate::rig::Lock::new();
    let mut sweep = lock.spend(at, 330, bitcoin::ScriptBuf::new_op_return([0; 20]), 330).sign();
    sweep.input[0].witness = bitcoin::Witness::from_slice(&[marker_witness_script(1, height - 1).as_bytes()]);
    rig.chain.broadcast(&sweep).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_announcement_holds_its_coins_only_as_long_as_it_lives() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 10_000).await;
    let prepared = wallet.prepare_announcement(&unworked(100), 1_000).unwrap();
    assert_eq!(wallet.balance().reserved_sat, 10_000);
    assert!(matches!(wallet.prepare_announcement(&unworked(100), 1_000), Err(WalletError::Short { reserved_sat: 10_000, .. })));
    drop(prepared);
    assert_eq!(wallet.balance().reserved_sat, 0);
    let tx = announce(&wallet, 100, 1);
    assert_eq!(wallet.balance().reserved_sat, 10_000, "a finished one holds them until it is sent");
    wallet.release(&tx.compute_txid());
    assert_eq!(wallet.balance().reserved_sat, 0);
    for length in [4, 513] {
        assert!(matches!(wallet.prepare_announcement(&unworked(length), 1_000), Err(WalletError::Payload { .. })));
    }
}

/// What announcements cost on the chain: the figures of docs/chain.md and of the decision on signatures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_on_the_chain_is_the_payload_and_a_fixed_part() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 10_000_000).await;
    let size = |unworked: &[u8]| {
        let prepared = wallet.prepare_announcement(unworked, 1_000).unwrap();
        let fee = prepared.fee_sat();
        let tx = prepared.finish(0).unwrap();
        wallet.release(&tx.compute_txid());
        assert!(fee >= tx.vsize() as u64);
        assert!(relay_bytes(&tx).len() <= xennet_chain::MAX_RELAY);
        (tx.vsize(), fee, relay_bytes(&tx).len())
    };
    println!("payload B   on chain vB   fee sat at 1 sat/vB   relayed B");
    for payload in [49, 80, 200, 300, 520] {
        let (vbytes, fee, relayed) = size(&unworked(payload - NONCE));
        println!("{payload:9} {vbytes:13} {fee:21} {relayed:11}");
    }
    // A signature can be a byte shorter, which is a quarter of a virtual byte.
    let more = size(&unworked(356)).0 - size(&unworked(292)).0;
    assert!((63..=65).contains(&more), "64 bytes more cost 64 vB, for they are no witness, and not {more}");

    println!("what           with signature   without   difference   relayed B");
    for kind in ["task", "acceptance", "proposal", "cancellation"] {
        let bytes = typical(kind);
        let unworked = &bytes[..bytes.len() - NONCE];
        let (with, _, relayed) = size(unworked);
        let (without, ..) = size(&unworked[..unworked.len() - SIGNATURE]);
        println!("{kind:14} {with:14} {without:9} {:12} {relayed:11}", with - without);
        assert!((SIGNATURE - 1..SIGNATURE + 5).contains(&(with - without)));
    }
}

const NONCE: usize = 8;
const SIGNATURE: usize = 64;

/// A typical announcement out of the published vectors, nonce included.
fn typical(kind: &str) -> Vec<u8> {
    let path = format!("{}/../../docs/vectors/{kind}.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let valid = vectors["valid"].as_array().unwrap();
    let vector = valid.iter().find(|vector| vector["name"] == "typical").unwrap();
    hex::decode(vector["bytes"].as_str().unwrap()).unwrap()
}
