//! Our own transactions, made by the wallet and the channel.

use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use secp256k1::{SECP256K1, SecretKey};
use xennet_chain::{Chain, ChainConfig, Wallet, marker_script, marker_witness_script};
use xennet_rama::{ChannelTerms, NodeChannel, PublisherChannel};
use xennet_task::{Announcement, Digest, Unworked};

use crate::vbytes;

const CAPACITY_SAT: u64 = 1_000_000;
/// As mainnet's heights are: three bytes in the script.
const REFUND_HEIGHT: u32 = 1_000_000;
const NONCE: usize = 8;

/// Sizes in vB, amounts in satoshi.
pub struct Ours {
    pub announcement_short: u64,
    pub announcement_short_bytes: usize,
    pub announcement_typical: u64,
    pub announcement_typical_bytes: usize,
    pub marker_sat: u64,
    /// A transaction that takes back one marker and nothing else.
    pub marker_alone: u64,
    /// What a marker adds to a transaction that is made anyway.
    pub marker_input: u64,
    pub funding: u64,
    /// What one more channel adds to a funding.
    pub funding_more: u64,
    pub close: u64,
    pub close_three: u64,
    pub refund: u64,
    /// One coin of the wallet to one address.
    pub move_on: u64,
}

pub fn terms(publisher: u8, close_feerate_sat_per_kvb: u64) -> ChannelTerms {
    let key = |byte: u8| key(byte).public_key(SECP256K1);
    ChannelTerms {
        publisher_key: key(publisher),
        node_key: key(200),
        capacity_sat: CAPACITY_SAT,
        refund_height: REFUND_HEIGHT,
        close_feerate_sat_per_kvb,
    }
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn p2wpkh() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]))
}

/// A channel on an output of `funding`, of which a payment was taken.
fn paid(publisher: u8, funding: &Transaction, vout: u32) -> (PublisherChannel, NodeChannel) {
    let terms = terms(publisher, 1_000);
    let mut a = PublisherChannel::new(terms.clone(), key(publisher)).unwrap();
    let mut b = NodeChannel::new(terms, key(200)).unwrap();
    a.funded(b.funded(funding, vout).unwrap()).unwrap();
    b.accept(&a.pay(500_000).unwrap(), 0).unwrap();
    (a, b)
}

pub async fn measured() -> Ours {
    let dir = tempfile::tempdir().unwrap();
    let (events, mut heard) = tokio::sync::mpsc::channel(16);
    let config = ChainConfig::Embedded { dir: dir.path().join("chain"), block_interval: Duration::ZERO };
    let chain = Chain::open(config, events).await.unwrap();
    let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let wallet = Wallet::open(&dir.path().join("wallet"), Network::Regtest).unwrap();
    for _ in 0..3 {
        chain.faucet(wallet.address().unwrap().script_pubkey(), 10_000_000).await.unwrap();
        wallet.sync(&chain).await.unwrap();
    }
    let announcement = |bytes: &[u8]| {
        let tx = wallet.prepare_announcement(&bytes[..bytes.len() - NONCE], 1_000).unwrap().finish(0).unwrap();
        wallet.release(&tx.compute_txid());
        assert_eq!(tx.input.len(), 1);
        vbytes(&tx)
    };
    let typical = typical_task();
    let short = short_form(&typical);

    let fund = |publisher: u8| {
        let tx = wallet.fund(terms(publisher, 1_000).script_pubkey(), CAPACITY_SAT, 1_000).unwrap();
        // The others of the table are made of the same coins.
        wallet.release(&tx.compute_txid());
        assert_eq!(tx.input.len(), 1);
        tx
    };
    let fundings: Vec<Transaction> = (1..=3).map(fund).collect();
    let channels: Vec<(PublisherChannel, NodeChannel)> =
        (1..).zip(&fundings).map(|(publisher, funding)| paid(publisher, funding, 0)).collect();
    let nodes: Vec<&NodeChannel> = channels.iter().map(|(_, node)| node).collect();
    let close = nodes[0].close_tx(p2wpkh(), 1_000).unwrap();
    let publisher = &channels[0].0;
    let alone = sweep_of_markers(1);

    let measured = Ours {
        announcement_short: announcement(&short),
        announcement_short_bytes: short.len(),
        announcement_typical: announcement(&typical),
        announcement_typical_bytes: typical.len(),
        marker_sat: marker_script(1, 0).minimal_non_dust().to_sat(),
        marker_alone: vbytes(&alone),
        marker_input: (sweep_of_markers(101).weight() - alone.weight()).to_wu().div_ceil(4 * 100),
        funding: vbytes(&fundings[0]),
        funding_more: terms(1, 1_000).funding_output().size() as u64,
        close: vbytes(&close),
        close_three: vbytes(&NodeChannel::close_many(&nodes, p2wpkh(), 1_000).unwrap()),
        refund: vbytes(&publisher.refund_tx(p2wpkh(), 1_000).unwrap()),
        move_on: vbytes(&publisher.sweep_change(&close, p2wpkh(), 1_000).unwrap()),
    };
    chain.close().await;
    listening.await.unwrap();
    measured
}

/// Markers into one output: the script alone is the witness.
fn sweep_of_markers(count: u32) -> Transaction {
    let script = marker_witness_script(1, REFUND_HEIGHT);
    let input = (0..count).map(|vout| TxIn {
        previous_output: OutPoint { txid: Txid::all_zeros(), vout },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[script.as_bytes()]),
    });
    let output = vec![TxOut { value: Amount::from_sat(u64::from(count) * 200), script_pubkey: p2wpkh() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: input.collect(), output }
}

/// What the transaction holds instead of this announcement, nonce included.
fn short_form(announcement: &[u8]) -> Vec<u8> {
    let unworked = Unworked(announcement[..announcement.len() - NONCE].to_vec());
    let said = Announcement::decode(announcement).unwrap().said;
    [Digest::of(&said, &unworked).unwrap().encode(), vec![0; NONCE]].concat()
}

/// The published vector's bytes, nonce included.
fn typical_task() -> Vec<u8> {
    let path = format!("{}/../../docs/vectors/task.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vector = vectors["valid"].as_array().unwrap().iter().find(|vector| vector["name"] == "typical").unwrap();
    hex::decode(vector["bytes"].as_str().unwrap()).unwrap()
}
