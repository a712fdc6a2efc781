//! Blocks that are taken back.

use xennet_chain::{ChainEvent, Status};

use crate::rig::{Lock, gone, output, rig, seen};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reorganisation_takes_back_waits_again_and_is_confirmed_again() {
    for depth in 1..=6 {
        let mut rig = rig().await;
        let (from, to) = (Lock::new(), Lock::new());
        let coin = rig.coin(&from, 100_000).await;
        rig.chain.watch_script(to.script());
        let tx = from.spend(coin, 100_000, to.script(), 1_000).sign();
        let txid = rig.chain.broadcast(&tx).await.unwrap();
        rig.chain.generate(depth).await.unwrap();
        let (before, old_tip) = rig.chain.tip().await.unwrap();
        let height = before + 1 - depth;
        rig.until(seen(txid, Status::Confirmed { height })).await;

        rig.chain.reorganise(depth, &[]).await.unwrap();
        let (after, new_tip) = rig.chain.tip().await.unwrap();
        assert_eq!(after, before + 1);
        assert_ne!(rig.chain.block_hash(before).await.unwrap(), Some(old_tip));
        rig.until(gone(txid)).await;
        rig.until(|event| (event == ChainEvent::Tip { height: after, hash: new_tip }).then_some(())).await;
        rig.until(seen(txid, Status::Mempool)).await;
        rig.chain.generate(1).await.unwrap();
        rig.until(seen(txid, Status::Confirmed { height: after + 1 })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coin_spent_otherwise_on_the_new_branch_makes_its_old_spend_and_what_rests_on_it_vanish() {
    for depth in [1, 3, 6] {
        let mut rig = rig().await;
        let (from, to) = (Lock::new(), Lock::new());
        let coin = rig.coin(&from, 100_000).await;
        rig.chain.watch_script(to.script());
        let paid = from.spend(coin, 100_000, to.script(), 1_000).sign();
        rig.chain.broadcast(&paid).await.unwrap();
        rig.chain.generate(depth).await.unwrap();
        let child = to.spend(output(&paid, 0), 99_000, to.script(), 1_000).sign();
        rig.chain.broadcast(&child).await.unwrap();
        rig.until(seen(child.compute_txid(), Status::Mempool)).await;

        let cheat = from.spend(coin, 100_000, from.script(), 1_000).sign();
        rig.chain.reorganise(depth, std::slice::from_ref(&cheat)).await.unwrap();
        let mut vanished = Vec::new();
        while vanished.len() < 2 {
            vanished.push(
                rig.until(|event| match event {
                    ChainEvent::Gone { txid } => Some(txid),
                    _ => None,
                })
                .await,
            );
        }
        vanished.sort();
        let mut expected = vec![paid.compute_txid(), child.compute_txid()];
        expected.sort();
        assert_eq!(vanished, expected);
        assert_eq!(rig.chain.transaction(&paid.compute_txid()).await.unwrap(), None);
        assert!(rig.chain.mempool().await.unwrap().is_empty());
        let (_, status) = rig.chain.transaction(&cheat.compute_txid()).await.unwrap().unwrap();
        assert!(matches!(status, Status::Confirmed { .. }));
        // The index went back with the chain: the coin that the new branch made can be spent.
        let again = from.spend(output(&cheat, 0), 99_000, from.script(), 1_000).sign();
        rig.chain.broadcast(&again).await.unwrap();
        rig.chain.generate(1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_with_an_invalid_transaction_does_not_become_the_chain() {
    let rig = rig().await;
    let (owner, thief) = (Lock::new(), Lock::new());
    let coin = rig.coin(&owner, 100_000).await;
    rig.chain.generate(2).await.unwrap();
    let before = rig.chain.tip().await.unwrap();
    let stolen = thief.spend(coin, 100_000, thief.script(), 1_000).sign();
    let why = rig.chain.reorganise(2, &[stolen]).await.unwrap_err();
    assert!(why.to_string().contains("invalid"), "{why}");
    assert_eq!(rig.chain.tip().await.unwrap(), before);
    rig.chain.generate(1).await.unwrap();
    assert_eq!(rig.chain.tip().await.unwrap().0, before.0 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wallet_follows_a_reorganisation_back_and_forth() {
    let rig = rig().await;
    let wallet = rig.wallet("wallet", 1_000_000).await;
    let tx = wallet.fund(Lock::new().script(), 400_000, 1_000).unwrap();
    rig.chain.broadcast(&tx).await.unwrap();
    rig.chain.generate(3).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let settled = wallet.balance();
    assert!(settled.confirmed_sat < 600_000 && settled.pending_sat == 0);

    // The payment is taken back, but not the coin that it spends.
    rig.chain.reorganise(3, &[]).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    let waiting = wallet.balance();
    assert_eq!((waiting.confirmed_sat, waiting.pending_sat), (0, settled.confirmed_sat));
    rig.chain.generate(1).await.unwrap();
    wallet.sync(&rig.chain).await.unwrap();
    assert_eq!(wallet.balance(), settled);
    assert_eq!(wallet.history().len(), 2);
}
