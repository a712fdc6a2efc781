//! Addresses to pay to: Bitcoin Core's vectors for all kinds (base58, BIP173, BIP350), and the outputs of BIP341.

use std::time::Duration;

use bitcoin::{Address, Network, ScriptBuf};
use serde_json::Value;
use xennet_chain::{AddressError, Chain, ChainConfig, Status, Wallet, parse_address};

use crate::vectors;

fn network_of(chain: &str) -> Network {
    match chain {
        "main" => Network::Bitcoin,
        "test" => Network::Testnet,
        "testnet4" => Network::Testnet4,
        "signet" => Network::Signet,
        "regtest" => Network::Regtest,
        other => panic!("no network is called {other}"),
    }
}

const NETWORKS: [Network; 5] = [Network::Bitcoin, Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest];

fn turned(text: &str) -> String {
    text.chars().map(|letter| if letter.is_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }).collect()
}

#[test]
fn addresses_pay_to_the_scripts_that_bitcoin_core_says() {
    let (mut addresses, mut secrets, mut refused_elsewhere) = (0, 0, 0);
    for row in vectors("key_io_valid").as_array().unwrap() {
        let (text, means, how) = (row[0].as_str().unwrap(), row[1].as_str().unwrap(), &row[2]);
        let network = network_of(how["chain"].as_str().unwrap());
        if how["isPrivkey"] == true {
            assert!(matches!(parse_address(text, network), Err(AddressError::Unreadable { .. })), "a secret key is no address: {text}");
            secrets += 1;
            continue;
        }
        let script = ScriptBuf::from_hex(means).unwrap();
        assert_eq!(parse_address(text, network).unwrap().script_pubkey(), script, "{text}");
        assert_eq!(parse_address(&format!(" {text}\n"), network).unwrap().script_pubkey(), script);
        let other_case = parse_address(&turned(text), network);
        match how["tryCaseFlip"] == true {
            true => assert_eq!(other_case.unwrap().script_pubkey(), script, "{text}"),
            false => assert!(other_case.is_err(), "{text}"),
        }
        for other in NETWORKS.into_iter().filter(|other| (*other == Network::Bitcoin) != (network == Network::Bitcoin)) {
            assert!(matches!(parse_address(text, other), Err(AddressError::OtherNetwork { .. })), "{text} on {other}");
            refused_elsewhere += 1;
        }
        addresses += 1;
    }
    assert_eq!((addresses, secrets, refused_elsewhere), (54, 16, 96));
}

#[test]
fn what_bitcoin_core_refuses_is_no_address() {
    let mut tried = 0;
    for row in vectors("key_io_invalid").as_array().unwrap() {
        let text = row[0].as_str().unwrap();
        for network in NETWORKS {
            let found = parse_address(text, network);
            assert!(matches!(found, Err(AddressError::Unreadable { .. } | AddressError::TooLong { .. })), "{text} on {network}: {found:?}");
        }
        tried += 1;
    }
    assert_eq!(tried, 70);
}

#[test]
fn an_address_that_is_not_right_is_named_with_the_remedy() {
    let said = |text: &str, network| parse_address(text, network).unwrap_err().to_string();
    assert_eq!(
        said("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", Network::Bitcoin),
        "`bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080` is an address of another network, and this wallet is on bitcoin: \
         ask for an address of bitcoin"
    );
    assert_eq!(said(&"q".repeat(101), Network::Signet), "the address has 101 letters, and none has more than 100: copy it again");
    assert!(said("", Network::Bitcoin).starts_with("`` is no address ("));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wallet_pays_to_the_taproot_outputs_of_bip341() {
    let dir = tempfile::tempdir().unwrap();
    let (events, mut heard) = tokio::sync::mpsc::channel(16);
    let config = ChainConfig::Embedded { dir: dir.path().join("chain"), block_interval: Duration::ZERO };
    let chain = Chain::open(config, events).await.unwrap();
    let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let wallet = Wallet::open(&dir.path().join("wallet"), Network::Regtest).unwrap();
    chain.faucet(wallet.address().unwrap().script_pubkey(), 1_000_000).await.unwrap();
    wallet.sync(&chain).await.unwrap();

    let rows = vectors("bip341_addresses");
    let rows: Vec<&Value> = rows.as_array().unwrap().iter().collect();
    assert_eq!(rows.len(), 7);
    let mut last = None;
    for row in rows {
        let script = ScriptBuf::from_hex(row[1].as_str().unwrap()).unwrap();
        assert_eq!(parse_address(row[0].as_str().unwrap(), Network::Bitcoin).unwrap().script_pubkey(), script);
        let text = Address::from_script(&script, Network::Regtest).unwrap().to_string();
        let to = parse_address(&text, Network::Regtest).unwrap().script_pubkey();
        let tx = wallet.fund(to, 10_000, 1_000).unwrap();
        assert_eq!((tx.output[0].value.to_sat(), &tx.output[0].script_pubkey), (10_000, &script));
        chain.broadcast(&tx).await.unwrap();
        wallet.sent(&tx).unwrap();
        last = Some(tx.compute_txid());
    }
    chain.generate(1).await.unwrap();
    wallet.sync(&chain).await.unwrap();
    let newest = wallet.history().pop().unwrap();
    assert!(matches!(newest.status, Status::Confirmed { .. }), "{newest:?}");
    assert!(wallet.history().iter().any(|entry| Some(entry.txid) == last && matches!(entry.status, Status::Confirmed { .. })));
    chain.close().await;
    listening.await.unwrap();
}
