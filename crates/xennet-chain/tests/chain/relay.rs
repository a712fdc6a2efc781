//! What the mempool takes and what it refuses, by name.

use xennet_chain::{ChainError, ChainEvent, Refusal, Status};

use crate::rig::{Lock, output, rig, seen};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spend_is_seen_unconfirmed_then_confirmed() {
    let mut rig = rig().await;
    let (from, to) = (Lock::new(), Lock::new());
    let coin = rig.coin(&from, 100_000).await;
    rig.chain.watch_script(to.script());
    let tx = from.spend(coin, 100_000, to.script(), 1_000).sign();
    let txid = rig.chain.broadcast(&tx).await.unwrap();
    assert_eq!(rig.chain.broadcast(&tx).await.unwrap(), txid, "saying it twice does no harm");
    rig.until(seen(txid, Status::Mempool)).await;
    assert_eq!(rig.chain.transaction(&txid).await.unwrap(), Some((tx.clone(), Status::Mempool)));

    let hash = rig.chain.generate(1).await.unwrap()[0];
    let (height, tip) = rig.chain.tip().await.unwrap();
    assert_eq!(tip, hash);
    rig.until(seen(txid, Status::Confirmed { height })).await;
    assert_eq!(rig.chain.transaction(&txid).await.unwrap(), Some((tx.clone(), Status::Confirmed { height })));
    assert_eq!(rig.chain.block_hash(height).await.unwrap(), Some(hash));
    assert_eq!(rig.chain.block_hash(height + 1).await.unwrap(), None);
    assert_eq!(rig.chain.broadcast(&tx).await.unwrap(), txid, "nor after it was confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_a_script_late_tells_its_past_and_its_spend() {
    let mut rig = rig().await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 100_000).await;
    let (height, _) = rig.chain.tip().await.unwrap();
    let spend = lock.spend(coin, 100_000, Lock::new().script(), 1_000).sign();
    rig.chain.broadcast(&spend).await.unwrap();
    rig.chain.watch_script(lock.script());
    rig.until(seen(coin.txid, Status::Confirmed { height })).await;
    rig.until(seen(spend.compute_txid(), Status::Mempool)).await;
    rig.chain.generate(1).await.unwrap();
    rig.until(seen(spend.compute_txid(), Status::Confirmed { height: height + 1 })).await;
    let past = rig.chain.history(&lock.script()).await.unwrap();
    assert_eq!(past.iter().map(|(tx, _)| tx.compute_txid()).collect::<Vec<_>>(), [coin.txid, spend.compute_txid()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_must_pay_for_itself_and_for_what_it_replaces() {
    let mut rig = rig().await;
    let (from, to) = (Lock::new(), Lock::new());
    let coin = rig.coin(&from, 100_000).await;
    rig.chain.watch_script(to.script());
    let first = from.spend(coin, 100_000, to.script(), 1_000).sign();
    let child = to.spend(output(&first, 0), 99_000, to.script(), 2_000).sign();
    rig.chain.broadcast(&first).await.unwrap();
    rig.chain.broadcast(&child).await.unwrap();
    rig.until(seen(child.compute_txid(), Status::Mempool)).await;

    let same_rate = from.spend(coin, 100_000, Lock::new().script(), 1_000).sign();
    assert!(matches!(
        rig.refusal(&same_rate).await,
        Refusal::ReplacementFeerate { conflict, .. } if conflict == first.compute_txid()
    ));
    let too_little = from.spend(coin, 100_000, Lock::new().script(), 3_000).sign();
    let Refusal::ReplacementFee { fee_sat: 3_000, at_least_sat, .. } = rig.refusal(&too_little).await else {
        panic!("the fees of both replaced ones count");
    };
    assert!((3_001..3_100).contains(&at_least_sat), "{at_least_sat}");

    let enough = from.spend(coin, 100_000, Lock::new().script(), at_least_sat).sign();
    rig.chain.broadcast(&enough).await.unwrap();
    let mut waiting = vec![first.compute_txid(), child.compute_txid()];
    while !waiting.is_empty() {
        let gone = |event| if let ChainEvent::Gone { txid } = event { Some(txid) } else { None };
        let txid = rig.until(gone).await;
        waiting.retain(|other| *other != txid);
    }
    assert_eq!(rig.chain.transaction(&first.compute_txid()).await.unwrap(), None);
    rig.chain.generate(1).await.unwrap();
    assert!(matches!(rig.chain.transaction(&enough.compute_txid()).await.unwrap(), Some((_, Status::Confirmed { .. }))));
    assert_eq!(
        rig.refusal(&first).await,
        Refusal::SpentInput { outpoint: coin, by: enough.compute_txid() },
        "after that the coin is spent for good"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_signature_is_refused_by_bitcoins_interpreter() {
    let rig = rig().await;
    let (owner, thief) = (Lock::new(), Lock::new());
    let coin = rig.coin(&owner, 100_000).await;
    let stolen = thief.spend(coin, 100_000, thief.script(), 1_000).sign();
    assert_eq!(rig.refusal(&stolen).await, Refusal::Script { index: 0, outpoint: coin });
    let mut forged = owner.spend(coin, 100_000, owner.script(), 1_000).sign();
    forged.output[0].value -= bitcoin::Amount::from_sat(1);
    assert_eq!(rig.refusal(&forged).await, Refusal::Script { index: 0, outpoint: coin });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_rule_is_told_which_and_by_how_much() {
    let rig = rig().await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 100_000).await;
    let to = Lock::new().script();

    let unknown = bitcoin::OutPoint::new(coin.txid, 77);
    let orphan = lock.spend(unknown, 100_000, to.clone(), 1_000).sign();
    assert_eq!(rig.refusal(&orphan).await, Refusal::UnknownInput { outpoint: unknown });
    assert!(rig.chain.broadcast(&orphan).await.unwrap_err().may_pass_later());

    let dust = lock.spend(coin, 100_000, to.clone(), 1_000).output(329, to.clone()).sign();
    assert_eq!(rig.refusal(&dust).await, Refusal::Dust { index: 1, sat: 329, at_least_sat: 330 });

    let free = lock.spend(coin, 100_000, to.clone(), 0).sign();
    assert!(
        matches!(rig.refusal(&free).await, Refusal::FeeTooLow { fee_sat: 0, vbytes, at_least_sat } if at_least_sat == vbytes.div_ceil(10))
    );

    let overspent = lock.spend(coin, 100_000, to.clone(), 0).output(1_000, to.clone()).sign();
    assert_eq!(rig.refusal(&overspent).await, Refusal::Overspent { in_sat: 100_000, out_sat: 101_000 });

    let twice = lock.spend(coin, 100_000, to.clone(), 1_000).and(coin, 100_000).sign();
    assert!(matches!(rig.refusal(&twice).await, Refusal::Malformed { .. }));

    let future = lock.spend(coin, 100_000, to.clone(), 1_000).version(4).sign();
    assert_eq!(rig.refusal(&future).await, Refusal::Version { version: 4 });

    let mut fat = lock.spend(coin, 100_000, to.clone(), 90_000);
    for _ in 0..2_500 {
        fat = fat.output(330, to.clone());
    }
    assert!(matches!(rig.refusal(&fat.sign()).await, Refusal::TooHeavy { weight, at_most: 400_000 } if weight > 400_000));

    let bare = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    let strange = lock.spend(coin, 100_000, bare, 2_000).output(1_000, to).sign();
    assert_eq!(rig.refusal(&strange).await, Refusal::StrangeOutput { index: 0 });
    assert!(rig.chain.mempool().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_after_a_height_waits_for_that_height() {
    let rig = rig().await;
    let (tip, _) = rig.chain.tip().await.unwrap();
    let refund_height = tip + 5;
    let lock = Lock::from_height(refund_height);
    let coin = rig.coin(&lock, 100_000).await;
    let to = Lock::new().script();

    let early = lock.spend(coin, 100_000, to.clone(), 1_000).lock_time(refund_height - 4).sign();
    assert_eq!(
        rig.refusal(&early).await,
        Refusal::Script { index: 0, outpoint: coin },
        "a lock time under the script's height does not satisfy OP_CHECKLOCKTIMEVERIFY"
    );
    let refund = lock.spend(coin, 100_000, to, 1_000).lock_time(refund_height).version(3).sign();
    let (tip, _) = rig.chain.tip().await.unwrap();
    let refused = rig.refusal(&refund).await;
    assert_eq!(refused, Refusal::NotFinalHeight { lock_height: refund_height, next_height: tip + 1 });
    assert!(refused.may_pass_later());

    rig.chain.generate(refund_height - tip - 1).await.unwrap();
    assert!(matches!(rig.refusal(&refund).await, Refusal::NotFinalHeight { .. }), "one block too early");
    rig.chain.generate(1).await.unwrap();
    let txid = rig.chain.broadcast(&refund).await.unwrap();
    rig.chain.generate(1).await.unwrap();
    let (_, status) = rig.chain.transaction(&txid).await.unwrap().unwrap();
    assert_eq!(status, Status::Confirmed { height: refund_height + 1 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_three_has_one_unconfirmed_parent_and_one_small_child() {
    let rig = rig().await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 1_000_000).await;
    let other = rig.coin(&lock, 1_000_000).await;

    let parent = lock.spend(coin, 1_000_000, lock.script(), 200_000).output(100_000, lock.script()).version(3).sign();
    rig.chain.broadcast(&parent).await.unwrap();
    let plain = lock.spend(output(&parent, 0), 800_000, lock.script(), 1_000).sign();
    assert!(matches!(rig.refusal(&plain).await, Refusal::VersionsMixed { version: 2, parent_version: 3, .. }));
    let mut fat = lock.spend(output(&parent, 0), 800_000, lock.script(), 700_000).version(3);
    for _ in 0..25 {
        fat = fat.output(330, lock.script());
    }
    assert!(matches!(
        rig.refusal(&fat.sign()).await,
        Refusal::VersionThreeSize { vbytes, at_most: 1_000 } if vbytes > 1_000
    ));
    let child = lock.spend(output(&parent, 0), 800_000, lock.script(), 1_000).version(3).sign();
    rig.chain.broadcast(&child).await.unwrap();
    let second = lock.spend(output(&parent, 1), 100_000, lock.script(), 1_000).version(3).sign();
    assert_eq!(rig.refusal(&second).await, Refusal::VersionThreeFamily);
    let grandchild = lock.spend(output(&child, 0), 799_000, lock.script(), 1_000).version(3).sign();
    assert_eq!(rig.refusal(&grandchild).await, Refusal::VersionThreeFamily);
    // The child may be replaced, which is how a close is bumped.
    let bumped = lock.spend(output(&parent, 0), 800_000, lock.script(), 5_000).version(3).sign();
    rig.chain.broadcast(&bumped).await.unwrap();

    let unconfirmed = lock.spend(other, 1_000_000, lock.script(), 1_000).sign();
    rig.chain.broadcast(&unconfirmed).await.unwrap();
    let close = lock.spend(output(&unconfirmed, 0), 999_000, lock.script(), 1_000).version(3).sign();
    let refused = rig.refusal(&close).await;
    assert!(matches!(refused, Refusal::VersionsMixed { version: 3, parent_version: 2, .. }));
    assert!(refused.may_pass_later());
    rig.chain.generate(1).await.unwrap();
    rig.chain.broadcast(&close).await.unwrap();
    rig.chain.generate(1).await.unwrap();
    assert!(rig.chain.mempool().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_unconfirmed_transactions_has_an_end() {
    let rig = rig().await;
    let lock = Lock::new();
    let mut coin = rig.coin(&lock, 1_000_000).await;
    let mut worth = 1_000_000;
    for _ in 0..25 {
        let tx = lock.spend(coin, worth, lock.script(), 200).sign();
        rig.chain.broadcast(&tx).await.unwrap();
        coin = output(&tx, 0);
        worth -= 200;
    }
    let tx = lock.spend(coin, worth, lock.script(), 200).sign();
    assert_eq!(rig.refusal(&tx).await, Refusal::FamilyTooLarge { count: 26, at_most: 25 });
    rig.chain.generate(1).await.unwrap();
    assert!(rig.chain.mempool().await.unwrap().is_empty(), "parents are mined before children, all in one block");
    rig.chain.broadcast(&tx).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faucet_gives_what_it_has_and_says_what_that_is() {
    let rig = rig().await;
    let lock = Lock::new();
    let Err(ChainError::FaucetEmpty { asked_sat, available_sat }) = rig.chain.faucet(lock.script(), 100_000_000_000_000).await else {
        panic!("no faucet has a million bitcoin");
    };
    assert_eq!(asked_sat, 100_000_000_000_000);
    // Eleven coinbases are ripe, less the fee for joining them.
    assert!((54_999_999_000..55_000_000_000).contains(&available_sat), "{available_sat}");
    rig.chain.faucet(lock.script(), available_sat).await.unwrap();
    assert!(matches!(rig.chain.faucet(lock.script(), 329).await, Err(ChainError::Refused { .. })), "dust");
    assert!(matches!(rig.chain.generate(0).await, Err(ChainError::OutOfRange { .. })));
    assert!(matches!(rig.chain.reorganise(1_000, &[]).await, Err(ChainError::OutOfRange { .. })));
}

/// Bitcoin Core's test of BIP431 has a child that is small in bytes and large in signatures to check; this is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_to_check_count_as_size() {
    use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_ENDIF, OP_IF};
    let rig = rig().await;
    let to = Lock::new().script();
    let mut script = bitcoin::script::Builder::new().push_int(0).push_opcode(OP_IF);
    for _ in 0..15 {
        script = script.push_opcode(OP_CHECKMULTISIG);
    }
    let script = script.push_opcode(OP_ENDIF).push_int(1).into_script();
    let coin = bitcoin::OutPoint::new(rig.chain.faucet(script.to_p2wsh(), 100_000).await.unwrap(), 0);
    let spend = |fee: u64| {
        let lock = Lock::new();
        let mut tx = lock.spend(coin, 100_000, to.clone(), fee).sign();
        tx.input[0].witness = bitcoin::Witness::from_slice(&[script.as_bytes()]);
        tx
    };
    // 15 times 20 keys, each of which counts as 5 vB.
    assert!(spend(149).vsize() < 120);
    assert_eq!(rig.refusal(&spend(149)).await, Refusal::FeeTooLow { fee_sat: 149, vbytes: 1_500, at_least_sat: 150 });
    rig.chain.broadcast(&spend(150)).await.unwrap();
}
