//! Children for what waits and markers taken back, as Bitcoin Core sees them.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use tokio::sync::mpsc;
use xennet_chain::{Bump, Chain, ChainConfig, ChainError, Refusal, Wallet};

use crate::electrum;
use crate::electrum_server::Server;
use crate::rig::{Core, program, script};

async fn wallet(core: &Core, chain: &Chain, name: &str) -> Wallet {
    let wallet = Wallet::open(&core.dir.path().join(name), Network::Regtest).unwrap();
    core.mine(1, &wallet.address().unwrap().script_pubkey());
    core.mine(100, &script(1));
    wallet.sync(chain).await.unwrap();
    wallet
}

async fn refusal(chain: &Chain, tx: &Transaction) -> Refusal {
    match chain.broadcast(tx).await {
        Err(ChainError::Refused { why, .. }) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// What Bitcoin Core says that a transaction pays with all it rests on, sat/vB.
fn rate_of_family(core: &Core, tx: &Transaction) -> f64 {
    let entry = core.cli(&["getmempoolentry", &tx.compute_txid().to_string()]);
    let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
    entry["fees"]["ancestor"].as_f64().unwrap() * 1e8 / entry["ancestorsize"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_payment_of_others_is_lifted_by_a_child_that_bitcoin_core_takes() {
    let Some(program) = program("children") else { return };
    let core = Core::start(&program, &[]);
    let (chain, _events) = core.open().await;
    let (payer, wallet) = (wallet(&core, &chain, "payer").await, Wallet::open(&core.dir.path().join("wallet"), Network::Regtest).unwrap());
    let first = payer.fund(script(2), 50_000, 1_000).unwrap();
    chain.broadcast(&first).await.unwrap();
    payer.sent(&first).unwrap();
    let stuck = payer.fund(wallet.address().unwrap().script_pubkey(), 100_000, 1_000).unwrap();
    chain.broadcast(&stuck).await.unwrap();
    wallet.sync(&chain).await.unwrap();
    let txid = stuck.compute_txid();
    let family = chain.family(&stuck).await.unwrap().unwrap();
    assert_eq!(family.vbytes, (first.vsize() + stuck.vsize()) as u64);
    assert_eq!(family.fee_sat, payer.fee_of(&first).unwrap() + payer.fee_of(&stuck).unwrap());
    // An Electrum server has no such question, but knows the parent.
    let server = Server::before(&core).await;
    let (by_server, _server_events) = electrum::open(&server, &core, "electrum").await;
    assert_eq!(by_server.family(&stuck).await.unwrap(), Some(family));
    by_server.close().await;
    let child = wallet.lift(txid, 10_000, Some(family)).unwrap();
    chain.broadcast(&child).await.unwrap();
    wallet.sent(&child).unwrap();
    let rate = rate_of_family(&core, &child);
    assert!((9.95..10.1).contains(&rate), "{rate}");
    let dearer = wallet.bump(child.compute_txid(), 60_000, Bump::Replace).unwrap();
    chain.broadcast(&dearer).await.unwrap();
    wallet.sent(&dearer).unwrap();
    core.mine(1, &script(1));
    wallet.sync(&chain).await.unwrap();
    assert_eq!(wallet.balance().confirmed_sat, 100_000 - wallet.fee_of(&dearer).unwrap());
    assert_eq!(chain.family(&stuck).await.unwrap(), None, "it waits no more");
    chain.close().await;
}

fn anyones() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// A transaction that needs no signature.
fn spend(version: i32, coin: OutPoint, outputs: Vec<TxOut>) -> Transaction {
    let witness = Witness::from_slice(&[anyones().as_bytes()]);
    let input = vec![TxIn { previous_output: coin, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, witness, ..TxIn::default() }];
    Transaction { version: Version(version), lock_time: LockTime::ZERO, input, output: outputs }
}

fn to(script: &ScriptBuf, sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: script.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_of_a_version_three_parent_is_taken_and_what_breaks_bip431_is_refused_by_name() {
    let Some(program) = program("version three") else { return };
    let core = Core::start(&program, &[]);
    let (chain, _events) = core.open().await;
    let wallet = wallet(&core, &chain, "wallet").await;
    let funding = wallet.fund(anyones().to_p2wsh(), 200_000, 1_000).unwrap();
    chain.broadcast(&funding).await.unwrap();
    wallet.sent(&funding).unwrap();
    core.mine(1, &script(1));
    let own = wallet.address().unwrap().script_pubkey();
    let mut outputs: Vec<TxOut> = (0..28).map(|_| to(&own, 6_600)).collect();
    outputs.push(to(&anyones().to_p2wsh(), 10_000));
    let parent = spend(3, OutPoint::new(funding.compute_txid(), 0), outputs);
    let txid = parent.compute_txid();
    chain.broadcast(&parent).await.unwrap();
    wallet.sync(&chain).await.unwrap();

    let free = OutPoint::new(txid, 28);
    let why = refusal(&chain, &spend(2, free, vec![to(&script(4), 8_000)])).await;
    assert_eq!(why, Refusal::VersionsMixed { version: 2, parent: txid, parent_version: 3 });
    let large = spend(3, free, (0..25).map(|_| to(&script(4), 350)).collect());
    let vbytes = large.vsize() as u64;
    assert!(vbytes > 1_000);
    assert_eq!(refusal(&chain, &large).await, Refusal::VersionThreeSize { vbytes, at_most: 1_000 });

    let family = chain.family(&parent).await.unwrap();
    let child = wallet.lift(txid, 20_000, family).unwrap();
    assert!(child.version.0 == 3 && child.vsize() <= 1_000 && child.input.len() > 5, "{} vB", child.vsize());
    chain.broadcast(&child).await.unwrap();
    wallet.sent(&child).unwrap();
    let rate = rate_of_family(&core, &child);
    assert!((19.9..20.2).contains(&rate), "{rate}");
    let why = wallet.lift(txid, 30_000, family).unwrap_err().to_string();
    assert!(why.contains(&format!("raise the fee of {} instead", child.compute_txid())), "{why}");
    // A grandchild is one too many, of whatever version.
    let grandchild = wallet.lift(child.compute_txid(), 25_000, chain.family(&child).await.unwrap()).unwrap();
    let why = refusal(&chain, &grandchild).await;
    assert!(why == Refusal::VersionThreeFamily && why.may_pass_later(), "{why}");
    wallet.release(&grandchild.compute_txid());
    let dearer = wallet.bump(child.compute_txid(), 60_000, Bump::Replace).unwrap();
    assert_eq!(dearer.version.0, 3);
    chain.broadcast(&dearer).await.unwrap();
    core.mine(1, &script(1));
    wallet.sync(&chain).await.unwrap();
    assert!(wallet.known(&dearer.compute_txid()).is_some_and(|(_, waits)| !waits));
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_are_found_and_taken_over_every_source() {
    let Some(program) = program("markers") else { return };
    let core = Core::start(&program, &["-blockfilterindex=1", "-peerblockfilters=1"]);
    let (full, _events) = core.open().await;
    let announcer = wallet(&core, &full, "announcer").await;
    for _ in 0..2 {
        let tx = announcer.prepare_announcement(b"XN\x01\x01\x08hello", 1_000).unwrap().finish(7).unwrap();
        full.broadcast(&tx).await.unwrap();
        announcer.sent(&tx).unwrap();
    }
    core.mine(300, &script(1));
    announcer.sync(&full).await.unwrap();
    let plain = Core::start(&program, &[]);
    plain.cli(&["addnode", &core.peer().to_string(), "onetry"]);
    let begun = std::time::Instant::now();
    while plain.cli(&["getblockcount"]) != core.cli(&["getblockcount"]) {
        assert!(begun.elapsed().as_secs() < 60, "the second node does not follow");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (without, _plain_events) = plain.open().await;
    let (light_events, mut heard) = mpsc::channel(64);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let config = ChainConfig::Light { network: Network::Regtest, dir: core.dir.path().join("light"), peers: vec![core.peer()] };
    let light = Chain::open(config, light_events).await.unwrap();

    let server = Server::before(&core).await;
    let (by_server, _server_events) = electrum::open(&server, &core, "electrum").await;

    let markers = full.old_markers(&[1], 1_008).await.unwrap();
    assert_eq!(markers.len(), 2);
    assert_eq!(by_server.old_markers(&[1], 1_008).await.unwrap(), markers);
    assert_eq!(without.old_markers(&[1], 1_008).await.unwrap(), markers);
    assert_eq!(light.old_markers(&[1], 1_008).await.unwrap(), markers);
    // Whoever comes first has them: here somebody who announced nothing.
    let taker = Wallet::open(&core.dir.path().join("taker"), Network::Regtest).unwrap();
    taker.sync(&light).await.unwrap();
    assert!(!taker.announced(&markers[0]) && announcer.announced(&markers[0]));
    let sweep = taker.sweep(&markers, 1_000).unwrap();
    let tx = sweep.transaction.unwrap();
    light.broadcast(&tx).await.unwrap();
    core.takes(&tx.compute_txid()).await;
    assert_eq!(full.old_markers(&[1], 1_008).await.unwrap(), []);
    assert_eq!(light.old_markers(&[1], 1_008).await.unwrap(), []);
    server.looks().await;
    assert_eq!(by_server.old_markers(&[1], 1_008).await.unwrap(), []);
    core.mine(1, &script(1));
    taker.sync(&full).await.unwrap();
    assert_eq!(taker.balance().confirmed_sat, 660 - sweep.fee_sat);
    let late = announcer.sweep(&markers, 2_000).unwrap().transaction.unwrap();
    assert!(matches!(refusal(&full, &late).await, Refusal::MissingOrSpent { .. }));
    for chain in [&full, &without, &light, &by_server] {
        chain.close().await;
    }
}
