//! Coins chosen one by one, markers taken back, and children for what others sent.

use std::collections::BTreeSet;

use bitcoin::{Transaction, TxIn, Txid};
use xennet_chain::{Bump, CoinState, Family, Kind, Sum, Wallet, WalletError};

use crate::rig::{Lock, Rig, rig};

/// The class of a task's marker.
const CLASS: u8 = 1;
/// Blocks until a marker is old, whatever height it is made at.
const TWO_DAYS: u32 = 288;

async fn announce(rig: &Rig, wallet: &Wallet) -> Transaction {
    let tx = wallet.prepare_announcement(b"XN\x01\x01\x08hello", 1_000).unwrap().finish(7).unwrap();
    rig.chain.broadcast(&tx).await.unwrap();
    wallet.sent(&tx).unwrap();
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    tx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_markers_come_back_where_that_is_worth_it_and_whoever_announced() {
    let rig = rig().await;
    let (ours, theirs) = (rig.wallet("ours", 100_000).await, rig.wallet("theirs", 100_000).await);
    announce(&rig, &ours).await;
    announce(&rig, &theirs).await;
    assert_eq!(rig.chain.old_markers(&[CLASS], 1_008).await.unwrap(), [], "light clients look for those of today");
    for _ in 0..3 {
        rig.chain.generate(TWO_DAYS / 3).await.unwrap();
    }
    ours.sync(&rig.chain).await.unwrap();
    assert_eq!(rig.chain.old_markers(&[2, 3, 4], 1_008).await.unwrap(), [], "of no other class");
    let markers = rig.chain.old_markers(&[CLASS], 1_008).await.unwrap();
    assert_eq!(markers.iter().map(|marker| (marker.sat, ours.announced(marker))).collect::<Vec<_>>(), [(330, true), (330, false)]);

    // One alone is never worth it, two are up to a feerate that it says.
    let alone = ours.sweep(&markers[..1], 1_000).unwrap();
    assert_eq!((alone.transaction, alone.worth_at_sat_per_kvb * alone.vbytes / 1_000), (None, 35));
    let dear = ours.sweep(&markers, 7_000).unwrap();
    assert!(dear.transaction.is_none() && (2_000..7_000).contains(&dear.worth_at_sat_per_kvb), "{dear:?}");
    assert!(ours.sweep(&markers, dear.worth_at_sat_per_kvb + 10).unwrap().transaction.is_none());
    assert!(ours.sweep(&markers, dear.worth_at_sat_per_kvb).unwrap().transaction.is_some());
    assert_eq!(ours.sweep(&[], 1_000).unwrap().transaction, None);

    let before = ours.balance().confirmed_sat;
    let sweep = ours.sweep(&markers, 1_000).unwrap();
    let tx = sweep.transaction.unwrap();
    assert_eq!((sweep.fee_sat, tx.vsize() as u64), (sweep.vbytes, sweep.vbytes));
    rig.chain.broadcast(&tx).await.unwrap();
    assert_eq!(rig.chain.old_markers(&[CLASS], 1_008).await.unwrap(), [], "what waits has taken them");
    ours.know_markers(&markers).unwrap();
    ours.sent(&tx).unwrap();
    rig.chain.generate(1).await.unwrap();
    ours.sync(&rig.chain).await.unwrap();
    assert_eq!(ours.balance().confirmed_sat, before + 660 - sweep.fee_sat);
    let entry = ours.history().into_iter().find(|entry| entry.txid == tx.compute_txid()).unwrap();
    assert_eq!((entry.kind, entry.fee_sat), (Kind::Sweep, Some(sweep.fee_sat)));
    assert_eq!(rig.chain.old_markers(&[CLASS], 1_008).await.unwrap(), []);
    assert_eq!(rig.chain.old_markers(&[CLASS], 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_spends_the_coins_that_were_chosen_and_no_others() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 100_000).await;
    for sat in [50_000, 20_000] {
        rig.chain.faucet(wallet.address().unwrap().script_pubkey(), sat).await.unwrap();
    }
    wallet.sync(&rig.chain).await.unwrap();
    let coins = wallet.coins();
    assert_eq!(
        coins.iter().map(|coin| (coin.sat, coin.state)).collect::<Vec<_>>(),
        [100_000, 50_000, 20_000].map(|sat| (sat, CoinState::Free))
    );
    let [large, middle, small] = [0, 1, 2].map(|at: usize| coins[at].outpoint);
    let to = Lock::new().script();

    let tx = wallet.pay_from(&[middle], to.clone(), Sum::Sat(10_000), 1_000).unwrap();
    assert_eq!(spent(&tx), [middle]);
    let state = |wallet: &Wallet, at| wallet.coins().into_iter().find(|coin| coin.outpoint == at).map(|coin| coin.state);
    assert_eq!(state(&wallet, middle), Some(CoinState::Reserved(Some(tx.compute_txid()))));
    let why = wallet.pay_from(&[middle], to.clone(), Sum::All, 1_000).unwrap_err().to_string();
    assert!(why.contains(&format!("reserved for transaction {}", tx.compute_txid())), "{why}");
    wallet.release(&tx.compute_txid());

    let all = wallet.pay_from(&[middle, small], to.clone(), Sum::All, 1_000).unwrap();
    // Inputs stand in the order of their ids as they are written, which is not the order of their bytes.
    let ids = |coins: &[bitcoin::OutPoint]| coins.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!((ids(&spent(&all)), all.input.len(), all.output.len()), (ids(&[middle, small]), 2, 1));
    assert_eq!(all.output[0].value.to_sat() + wallet.fee_of(&all).unwrap(), 70_000);
    wallet.release(&all.compute_txid());

    assert!(matches!(wallet.pay_from(&[small], to.clone(), Sum::Sat(60_000), 1_000), Err(WalletError::Short { .. })));
    let why = wallet.pay_from(&[small, small], to.clone(), Sum::All, 1_000).unwrap_err().to_string();
    assert!(why.contains("named twice"), "{why}");
    let nobodys = bitcoin::OutPoint::new(large.txid, 77);
    assert!(matches!(wallet.pay_from(&[nobodys], to, Sum::All, 1_000), Err(WalletError::Coin { .. })));
}

fn spent(tx: &Transaction) -> Vec<bitcoin::OutPoint> {
    tx.input.iter().map(|input: &TxIn| input.previous_output).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_of_others_that_waits_is_lifted_by_a_child_and_with_it_what_it_rests_on() {
    let rig = rig().await;
    let (wallet, payer) = (rig.wallet("wallet", 0).await, rig.wallet("payer", 300_000).await);
    // The payer's payment rests on another one that waits, as cheap.
    let first = payer.fund(Lock::new().script(), 50_000, 1_000).unwrap();
    rig.chain.broadcast(&first).await.unwrap();
    payer.sent(&first).unwrap();
    let stuck = payer.fund(wallet.address().unwrap().script_pubkey(), 100_000, 1_000).unwrap();
    rig.chain.broadcast(&stuck).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let txid = stuck.compute_txid();
    assert!(!wallet.is_own(&stuck) && wallet.known(&txid).is_some_and(|(_, waits)| waits));
    assert_eq!(wallet.coins()[0].state, CoinState::Untrusted);
    assert!(wallet.bump(txid, 5_000, Bump::Replace).is_err());

    let family = rig.chain.family(&stuck).await.unwrap().unwrap();
    assert_eq!(family.vbytes, (first.vsize() + stuck.vsize()) as u64);
    assert_eq!(family.fee_sat, payer.fee_of(&first).unwrap() + payer.fee_of(&stuck).unwrap());
    let child = wallet.lift(txid, 10_000, Some(family)).unwrap();
    let (all_sat, all_vbytes) = (family.fee_sat + wallet.fee_of(&child).unwrap(), family.vbytes + child.vsize() as u64);
    assert!((all_vbytes * 10 - 10..all_vbytes * 10 + 20).contains(&all_sat), "{all_sat} sat for {all_vbytes} vB");
    rig.chain.broadcast(&child).await.unwrap();
    wallet.sent(&child).unwrap();
    let why = wallet.lift(txid, 20_000, Some(family)).unwrap_err().to_string();
    assert!(why.contains(&format!("raise the fee of {} instead", child.compute_txid())), "{why}");
    // The child is the wallet's own, so another one can take its place.
    let dearer = wallet.bump(child.compute_txid(), 40_000, Bump::Replace).unwrap();
    rig.chain.broadcast(&dearer).await.unwrap();
    wallet.sent(&dearer).unwrap();
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 100_000 - wallet.fee_of(&dearer).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_of_a_version_three_parent_keeps_to_bip431() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 0).await;
    let lock = Lock::new();
    let coin = rig.coin(&lock, 200_000).await;
    let script = wallet.address().unwrap().script_pubkey();
    // More outputs than a child of 1,000 vB could spend.
    let draft = lock.spend(coin, 200_000, script.clone(), 200_000 - 6_600).version(3);
    let parent = (1..30).fold(draft, |draft, _| draft.output(6_600, script.clone())).sign();
    rig.chain.broadcast(&parent).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let family = rig.chain.family(&parent).await.unwrap();
    let child = wallet.lift(parent.compute_txid(), 20_000, family).unwrap();
    assert_eq!(child.version.0, 3);
    assert!(child.vsize() <= 1_000 && child.input.len() > 5, "{} vB, {} inputs", child.vsize(), child.input.len());
    rig.chain.broadcast(&child).await.unwrap();
    wallet.sent(&child).unwrap();
    // It may have one child only.
    let why = wallet.lift(parent.compute_txid(), 20_000, family).unwrap_err().to_string();
    assert!(why.contains(&format!("raise the fee of {} instead", child.compute_txid())), "{why}");
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert!(wallet.known(&child.compute_txid()).is_some_and(|(_, waits)| !waits));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_would_cost_more_than_there_is_is_not_made() {
    let rig = rig().await;
    let (wallet, payer) = (rig.wallet("wallet", 0).await, rig.wallet("payer", 100_000).await);
    let stuck = payer.fund(wallet.address().unwrap().script_pubkey(), 1_000, 1_000).unwrap();
    rig.chain.broadcast(&stuck).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let family = Family { fee_sat: 0, vbytes: 153 };
    let why = wallet.lift(stuck.compute_txid(), 50_000, Some(family)).unwrap_err().to_string();
    assert!(why.contains("50 sat/vB") && why.contains("ask for less"), "{why}");
    let nobody = Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
    assert!(wallet.lift(nobody, 1_000, None).unwrap_err().to_string().contains("pays nothing to this wallet"));
}
