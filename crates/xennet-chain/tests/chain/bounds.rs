//! What keeps the mempool and the answers small.

use std::collections::HashSet;

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use xennet_chain::{ChainEvent, Refusal, Status};

use crate::rig::{Lock, Rig, rig};

/// Data near the most that is relayed, so that 41 such transactions fill the mempool.
const DATA: usize = 97_000;
const WORTH: u64 = 1_000_000;

/// A transaction of about 97 kvB that pays itself.
fn large(lock: &Lock, coin: OutPoint, fee: u64) -> Transaction {
    let data = bitcoin::script::PushBytesBuf::try_from(vec![0x58; DATA]).unwrap();
    lock.spend(coin, WORTH, lock.script(), fee).output(0, ScriptBuf::new_op_return(data)).sign()
}

async fn coins(rig: &Rig, lock: &Lock, count: usize) -> Vec<OutPoint> {
    let mut coins = Vec::new();
    for _ in 0..count {
        coins.push(rig.coin(lock, WORTH).await);
    }
    coins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mempool_keeps_what_pays_best_and_says_what_is_enough() {
    let mut rig = rig().await;
    let lock = Lock::new();
    let coins = coins(&rig, &lock, 43).await;
    rig.chain.watch_script(lock.script());
    let mut waiting: HashSet<Txid> = HashSet::new();
    for (extra, coin) in coins[..41].iter().enumerate() {
        let tx = large(&lock, *coin, 10_000 + 1_000 * extra as u64);
        waiting.insert(rig.chain.broadcast(&tx).await.unwrap());
    }
    let poorest = large(&lock, coins[0], 10_000).compute_txid();
    let refused = rig.refusal(&large(&lock, coins[41], 9_900)).await;
    assert!(matches!(refused, Refusal::Full { sat_per_kvb, least_sat_per_kvb } if sat_per_kvb < least_sat_per_kvb));
    assert!(refused.may_pass_later());
    let rich = large(&lock, coins[42], 60_000);
    waiting.insert(rig.chain.broadcast(&rich).await.unwrap());
    waiting.remove(&poorest);
    rig.until(crate::rig::gone(poorest)).await;
    let found: HashSet<Txid> = rig.chain.mempool().await.unwrap().iter().map(Transaction::compute_txid).collect();
    assert_eq!(found, waiting);
    assert!(rig.chain.feerate().await.unwrap() > 100, "four blocks' worth of transactions wait");

    // A block takes the ten that pay best.
    rig.chain.generate(1).await.unwrap();
    let (_, status) = rig.chain.transaction(&rich.compute_txid()).await.unwrap().unwrap();
    assert!(matches!(status, Status::Confirmed { .. }));
    assert_eq!(rig.chain.mempool().await.unwrap().len(), 31);
    rig.chain.generate(4).await.unwrap();
    assert!(rig.chain.mempool().await.unwrap().is_empty());

    // The past of the script is longer than one answer may be.
    let past = rig.chain.history(&lock.script()).await.unwrap();
    assert_eq!(past.len(), 43 + 41);
    assert!(past.is_sorted_by_key(|(_, status)| match status {
        Status::Confirmed { height } => *height,
        Status::Mempool => u32::MAX,
    }));
    let (_chain, mut events) = crate::rig::open(rig.dir.path()).await;
    _chain.watch_script(lock.script());
    let mut told = HashSet::new();
    while told.len() < past.len() {
        told.insert(
            crate::rig::until(&mut events, |event| match event {
                ChainEvent::Seen { tx, .. } => Some(tx.compute_txid()),
                _ => None,
            })
            .await,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_throws_out_more_than_a_hundred_is_refused() {
    let rig = rig().await;
    let lock = Lock::new();
    // Five parents of 24 children each, and one transaction that conflicts with all five.
    let coins = coins(&rig, &lock, 5).await;
    for coin in &coins {
        let mut parent = lock.spend(*coin, WORTH, lock.script(), WORTH - 20_000);
        for _ in 0..23 {
            parent = parent.output(20_000, lock.script());
        }
        let parent = parent.sign();
        rig.chain.broadcast(&parent).await.unwrap();
        for vout in 0..24 {
            let child = lock.spend(crate::rig::output(&parent, vout), 20_000, lock.script(), 1_000).sign();
            rig.chain.broadcast(&child).await.unwrap();
        }
    }
    let mut all = lock.spend(coins[0], WORTH, lock.script(), 0);
    for coin in &coins[1..] {
        all = all.and(*coin, WORTH);
    }
    assert_eq!(rig.refusal(&all.sign()).await, Refusal::ReplacementTooWide { count: 125, at_most: 100 });
}
