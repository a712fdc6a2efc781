//! From words to seeds (BIP39), keys (BIP32) and addresses (BIP84).

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{ChildNumber, DerivationPath, Xpriv, Xpub};
use bitcoin::hashes::{Hash as _, HashEngine as _, Hmac, HmacEngine, sha512};
use bitcoin::secp256k1::SECP256K1;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, CompressedPublicKey, KnownHrp, Network, PrivateKey, ScriptBuf, Transaction, TxOut};
use serde_json::Value;
use tempfile::TempDir;
use xennet_chain::{Wallet, WalletError};

use crate::vectors;

/// The wallet of these words. The directory must outlive it.
fn wallet_of(words: &str) -> Result<(Wallet, TempDir), WalletError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.txt");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{words}").unwrap();
    Wallet::open(dir.path(), Network::Bitcoin).map(|wallet| (wallet, dir))
}

/// BIP39's way from words to a seed, written out: PBKDF2 with HMAC-SHA512 and 2,048 rounds.
fn seed_of(words: &str, passphrase: &str) -> [u8; 64] {
    let keyed = |data: &[&[u8]]| {
        let mut engine = HmacEngine::<sha512::Hash>::new(words.as_bytes());
        data.iter().for_each(|part| engine.input(part));
        Hmac::<sha512::Hash>::from_engine(engine).to_byte_array()
    };
    let mut round = keyed(&[b"mnemonic", passphrase.as_bytes(), &[0, 0, 0, 1]]);
    let mut seed = round;
    for _ in 1..2_048 {
        round = keyed(&[&round]);
        seed.iter_mut().zip(round).for_each(|(byte, other)| *byte ^= other);
    }
    seed
}

#[test]
fn the_words_of_bip39_open_the_wallet_that_they_stand_for() {
    let path: DerivationPath = "m/84h/0h/0h/0/0".parse().unwrap();
    let mut lengths = Vec::new();
    for row in vectors("bip39").as_array().unwrap() {
        let [entropy, words, seed] = [0, 1, 2].map(|at| row[at].as_str().unwrap());
        // The published seeds are under a passphrase that this wallet does not ask for; they prove the function that then computes
        // the seed without it, from which the first address follows by BIP32 and BIP84.
        assert_eq!(hex::encode(seed_of(words, "TREZOR")), seed, "{words}");
        let master = Xpriv::new_master(Network::Bitcoin, &seed_of(words, "")).unwrap();
        let key = master.derive_priv(SECP256K1, &path).unwrap().private_key.public_key(SECP256K1);
        let (wallet, _dir) = wallet_of(words).unwrap();
        assert_eq!(wallet.address().unwrap(), Address::p2wpkh(&CompressedPublicKey(key), KnownHrp::Mainnet), "{words}");
        assert_eq!(words.split(' ').count(), entropy.len() * 3 / 8, "three words for four bytes");
        lengths.push(words.split(' ').count());
    }
    assert_eq!([12, 18, 24].map(|count| lengths.iter().filter(|length| **length == count).count()), [8, 8, 8]);
}

#[test]
fn words_that_are_not_right_open_no_wallet() {
    let refused = |words: &str| match wallet_of(words) {
        Err(WalletError::Seed { .. }) => {}
        Err(why) => panic!("{words}: {why}"),
        Ok(_) => panic!("{words} opened a wallet"),
    };
    let mut tried = 0;
    for row in vectors("bip39").as_array().unwrap() {
        let words = row[1].as_str().unwrap();
        let (all_but_last, _) = words.rsplit_once(' ').unwrap();
        let (_, all_but_first) = words.split_once(' ').unwrap();
        refused(all_but_last);
        refused(&format!("xennet {all_but_first}"));
        tried += 2;
    }
    for word in ["abandon", "zoo", "legal"] {
        refused(&[word; 12].join(" "));
        tried += 1;
    }
    assert_eq!(tried, 51);
}

#[test]
fn keys_and_addresses_are_those_of_bip84() {
    let vector = vectors("bip84");
    let text = |of: &str, what: &str| vector[of][what].as_str().unwrap().to_owned();
    let (wallet, _dir) = wallet_of(vector["mnemonic"].as_str().unwrap()).unwrap();
    let first = wallet.address().unwrap();
    assert_eq!(first.to_string(), text("receive_0", "address"));
    let second = PrivateKey::new(wallet.fresh_key().unwrap(), Network::Bitcoin);
    assert_eq!(second.to_wif(), text("receive_1", "privkey"));
    assert_eq!(second.public_key(SECP256K1).to_string(), text("receive_1", "pubkey"));

    // The wallet knows all three as its own, the change address too, and no other.
    let pay = |sat: u64, script_pubkey: ScriptBuf| TxOut { value: Amount::from_sat(sat), script_pubkey };
    let script = |of: &str| text(of, "address").parse::<Address<_>>().unwrap().assume_checked().script_pubkey();
    let output = vec![
        pay(1_000, script("receive_0")),
        pay(20_000, script("receive_1")),
        pay(300_000, script("change_0")),
        pay(4_000_000, ScriptBuf::new_op_return([0; 20])),
    ];
    let tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output };
    wallet.sent(&tx).unwrap();
    assert_eq!(wallet.history()[0].received_sat, 321_000);
}

#[test]
fn keys_are_derived_as_in_bip32() {
    let vectors = vectors("bip32");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut steps = 0;
    for vector in vectors["valid"].as_array().unwrap() {
        let mut xpriv = Xpriv::new_master(Network::Bitcoin, &hex::decode(text(&vector["seed"])).unwrap()).unwrap();
        for step in vector["chain"].as_array().unwrap() {
            let xpub = Xpub::from_priv(SECP256K1, &xpriv);
            assert_eq!((xpriv.to_string(), xpub.to_string()), (text(&step["xprv"]), text(&step["xpub"])));
            let child = ChildNumber::from(u32::try_from(step["next_child"].as_u64().unwrap()).unwrap());
            xpriv = xpriv.derive_priv(SECP256K1, &[child]).unwrap();
            if child.is_normal() {
                assert_eq!(xpub.derive_pub(SECP256K1, &[child]).unwrap(), Xpub::from_priv(SECP256K1, &xpriv));
            }
            steps += 1;
        }
    }
    assert_eq!(steps, 17);
}
