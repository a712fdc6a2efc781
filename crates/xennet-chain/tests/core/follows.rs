//! What a wallet over any source that has headers of its own must be able to do.

use bitcoin::{Network, Transaction};
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{Chain, ChainConfig, ChainEvent, Status, Wallet};
use xennet_identity::{WorkBits, grind};

use crate::rig::{Core, gone, script, seen, until};

pub async fn open(config: ChainConfig) -> (Chain, Receiver<ChainEvent>) {
    let (sender, events) = mpsc::channel(16);
    (Chain::open(config, sender).await.unwrap(), events)
}

pub async fn reaches(events: &mut Receiver<ChainEvent>, height: u32) {
    until(events, |event| matches!(event, ChainEvent::Tip { height: at, .. } if at == height).then_some(())).await;
}

/// A wallet with one ripe coinbase, at the height that is given back.
pub async fn wallet(core: &Core, chain: &Chain, events: &mut Receiver<ChainEvent>) -> (Wallet, u32) {
    let wallet = Wallet::open(&core.dir.path().join("wallet"), Network::Regtest).unwrap();
    let (before, _) = chain.tip().await.unwrap();
    core.mine(1, &wallet.address().unwrap().script_pubkey());
    core.mine(100, &script(1));
    reaches(events, before + 101).await;
    wallet.sync(chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 5_000_000_000);
    (wallet, before + 101)
}

/// An announcement of this kind, with what it says before its work; it is in the wallet and nowhere else.
pub fn announced(wallet: &Wallet, kind: u8) -> (Transaction, Vec<u8>) {
    let mut unworked = vec![b'X', b'N', 1, kind, 8];
    unworked.resize(41, 0x5a);
    let prepared = wallet.prepare_announcement(&unworked, 1_000).unwrap();
    let nonce = grind(prepared.prefix(), prepared.suffix(), WorkBits(8), 0, u64::MAX).unwrap();
    (prepared.finish(nonce).unwrap(), unworked)
}

/// One that comes later is told of all announcements at once.
pub async fn hears_of_all(events: &mut Receiver<ChainEvent>, announcements: &[bitcoin::Txid]) {
    for txid in announcements {
        until(events, |event| matches!(event, ChainEvent::Announcement { tx, .. } if tx.compute_txid() == *txid).then_some(())).await;
    }
}

/// Pays six times, and each time the blocks that the payment is in, one to six deep, give way to others. `waits` and `stands` look at a
/// payment that is in no block yet, and at one that is.
pub async fn reorganisations(
    core: &Core,
    (chain, events): (&Chain, &mut Receiver<ChainEvent>),
    waits: impl AsyncFn(&Transaction),
    stands: impl AsyncFn(&Transaction),
) {
    let (wallet, mut tip) = wallet(core, chain, events).await;
    let to = script(2);
    chain.watch_script(to.clone());
    for depth in 1..=6 {
        let before = wallet.balance().confirmed_sat;
        let feerate = chain.feerate().await.unwrap();
        assert!(feerate >= 1_000, "{feerate}");
        let tx = wallet.fund(to.clone(), 100_000, feerate).unwrap();
        let txid = chain.broadcast(&tx).await.unwrap();
        assert_eq!(chain.broadcast(&tx).await.unwrap(), txid, "twice is no error");
        until(events, seen(txid, Status::Mempool)).await;
        waits(&tx).await;
        core.mine(depth, &script(1));
        let height = tip + 1;
        until(events, seen(txid, Status::Confirmed { height })).await;
        reaches(events, tip + depth).await;
        assert_eq!(chain.transaction(&txid).await.unwrap(), Some((tx.clone(), Status::Confirmed { height })));
        stands(&tx).await;
        wallet.sync(chain).await.unwrap();
        let paid = wallet.balance();
        assert!(paid.confirmed_sat < before - 100_000 && paid.pending_sat == 0, "{paid:?}");

        let first = chain.block_hash(height).await.unwrap().unwrap();
        core.cli(&["invalidateblock", &first.to_string()]);
        // To another script, or the same blocks would come again.
        core.mine(depth + 1, &script(3));
        until(events, gone(txid)).await;
        until(events, seen(txid, Status::Confirmed { height })).await;
        reaches(events, tip + depth + 1).await;
        tip += depth + 1;
        wallet.sync(chain).await.unwrap();
        assert_eq!((wallet.balance(), wallet.height()), (paid, tip));
        let past = chain.history(&to).await.unwrap();
        assert_eq!(past.last(), Some(&(tx, Status::Confirmed { height })));
        assert_eq!(past.len(), depth as usize);
    }
}
