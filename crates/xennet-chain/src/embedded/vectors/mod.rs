//! Bitcoin Core's vectors for transactions and scripts, judged by what the mempool judges with. They are in
//! docs/vectors/bitcoin, whose README says where they come from.
#![allow(clippy::unwrap_used, clippy::panic)]

mod asm;

use std::collections::HashMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hex::FromHex as _;
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use bitcoinkernel as core;
use serde_json::Value;

use super::kernel::{Broken, check_transaction, check_under};

/// The rules that are consensus, which are those that the library has.
const CONSENSUS: [(&str, core::ScriptVerificationFlags); 7] = [
    ("P2SH", core::VERIFY_P2SH),
    ("DERSIG", core::VERIFY_DERSIG),
    ("NULLDUMMY", core::VERIFY_NULLDUMMY),
    ("CHECKLOCKTIMEVERIFY", core::VERIFY_CHECKLOCKTIMEVERIFY),
    ("CHECKSEQUENCEVERIFY", core::VERIFY_CHECKSEQUENCEVERIFY),
    ("WITNESS", core::VERIFY_WITNESS),
    ("TAPROOT", core::VERIFY_TAPROOT),
];

/// Verdicts that can come from rules of relay only. All others are those of a block, too.
const RELAY_VERDICTS: [&str; 16] = [
    "CLEANSTACK",
    "DISCOURAGE_OP_SUCCESS",
    "DISCOURAGE_UPGRADABLE_NOPS",
    "DISCOURAGE_UPGRADABLE_PUBKEYTYPE",
    "DISCOURAGE_UPGRADABLE_TAPROOT_VERSION",
    "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM",
    "MINIMALDATA",
    "MINIMALIF",
    "NULLFAIL",
    "PUBKEYTYPE",
    "SIG_DER",
    "SIG_HASHTYPE",
    "SIG_HIGH_S",
    "SIG_PUSHONLY",
    "UNKNOWN_ERROR",
    "WITNESS_PUBKEYTYPE",
];

/// Whether a verdict may be one of relay alone. A number too long is refused by blocks; one in more bytes than it needs is not.
fn by_relay_only(named: &str, verdict: &str) -> bool {
    RELAY_VERDICTS.contains(&verdict) || (verdict == "SCRIPTNUM" && named.contains("MINIMALDATA"))
}

/// Rules as a vector names them.
struct Rules {
    consensus: core::ScriptVerificationFlags,
    /// It also names rules that only relay knows, such as low S.
    relay: bool,
}

impl Rules {
    fn named(text: &str) -> Rules {
        let mut rules = Rules { consensus: core::VERIFY_NONE, relay: false };
        for name in text.split(',').filter(|name| !name.is_empty() && *name != "NONE") {
            match CONSENSUS.iter().find(|(known, _)| *known == name) {
                Some((_, rule)) => rules.consensus |= rule,
                None => rules.relay = true,
            }
            // A clean stack can only be asked for together with these.
            if name == "CLEANSTACK" {
                rules.consensus |= core::VERIFY_P2SH | core::VERIFY_WITNESS;
            }
        }
        rules
    }

    fn all_but(text: &str) -> core::ScriptVerificationFlags {
        let without = Rules::named(&text.replace("CLEANSTACK", "")).consensus;
        let rules = core::VERIFY_ALL & !without;
        if rules & core::VERIFY_P2SH == 0 { rules & !core::VERIFY_WITNESS } else { rules }
    }
}

/// The rows of a file, without its remarks.
fn rows(name: &str) -> Vec<Vec<Value>> {
    let path = format!("{}/../../docs/vectors/bitcoin/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let rows: Vec<Vec<Value>> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    rows.into_iter().filter(|row| row.len() > 1).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What a row's transaction spends, in the order of its inputs.
fn spent_by(tx: &Transaction, coins: &Value) -> Vec<TxOut> {
    let coins: HashMap<OutPoint, TxOut> = coins
        .as_array()
        .unwrap()
        .iter()
        .map(|coin| {
            // -1 is how a coinbase's input is written.
            let vout = u32::try_from(coin[1].as_i64().unwrap()).unwrap_or(u32::MAX);
            let value = Amount::from_sat(coin[3].as_u64().unwrap_or(0));
            (OutPoint::new(text(&coin[0]).parse().unwrap(), vout), TxOut { value, script_pubkey: asm::script(text(&coin[2])) })
        })
        .collect();
    tx.input.iter().map(|input| coins[&input.previous_output].clone()).collect()
}

#[test]
fn transactions_that_bitcoin_core_calls_valid_are_valid_here() {
    let (mut run, mut by_all_rules, mut refused_since) = (0, 0, 0);
    for row in rows("tx_valid") {
        let tx: Transaction = deserialize_hex(text(&row[1])).unwrap();
        let spent = spent_by(&tx, &row[0]);
        let rules = Rules::all_but(text(&row[2]));
        check_under(rules, &tx, &spent).unwrap_or_else(|why| panic!("{why:?}: {row:?}"));
        // What the mempool asks is all the rules; a row that does without one is there to show that the rule refuses it.
        match (rules == core::VERIFY_ALL, check_transaction(&tx, &spent)) {
            (true, Ok(())) => by_all_rules += 1,
            (false, Err(Broken::Script(_))) => refused_since += 1,
            (_, verdict) => panic!("{verdict:?} under all rules: {row:?}"),
        }
        run += 1;
    }
    assert_eq!((run, by_all_rules, refused_since), (121, 114, 7));
}

#[test]
fn transactions_that_bitcoin_core_calls_invalid_are_refused_here() {
    let (mut run, mut malformed, mut by_script, mut by_relay_only) = (0, 0, 0, 0);
    for row in rows("tx_invalid") {
        run += 1;
        let tx: Result<Transaction, _> = deserialize_hex(text(&row[1]));
        if text(&row[2]) == "BADTX" {
            let refused =
                tx.is_err() || tx.is_ok_and(|tx| matches!(check_transaction(&tx, &spent_by(&tx, &row[0])), Err(Broken::Shape(_))));
            assert!(refused, "{row:?}");
            malformed += 1;
            continue;
        }
        let tx = tx.unwrap();
        let spent = spent_by(&tx, &row[0]);
        let rules = Rules::named(text(&row[2]));
        if rules.relay {
            by_relay_only += 1;
            continue;
        }
        for rules in [rules.consensus, core::VERIFY_ALL] {
            assert!(matches!(check_under(rules, &tx, &spent), Err(Broken::Script(_))), "{row:?}");
        }
        by_script += 1;
    }
    assert_eq!((run, malformed, by_script, by_relay_only), (93, 9, 70, 14));
}

/// Bitcoin Core's pair for trying a script: one transaction pays to it, another spends that.
fn spending(script_pubkey: ScriptBuf, script_sig: ScriptBuf, witness: Witness, value: Amount) -> (Transaction, TxOut) {
    let output = TxOut { value, script_pubkey };
    let transaction = |previous_output, script_sig, witness, output| Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness }],
        output: vec![output],
    };
    let credit = transaction(OutPoint::null(), ScriptBuf::from_bytes(vec![0, 0]), Witness::new(), output.clone());
    let paid = OutPoint::new(credit.compute_txid(), 0);
    (transaction(paid, script_sig, witness, TxOut { value, script_pubkey: ScriptBuf::new() }), output)
}

/// The witness of a row, and the output script that it is for where the row leaves that to be computed.
fn witness_of(elements: &[Value]) -> (Witness, Option<ScriptBuf>) {
    let mut witness = Witness::new();
    let mut output = None;
    for element in elements {
        match text(element) {
            "#CONTROLBLOCK#" => {
                let script = ScriptBuf::from_bytes(witness.last().unwrap().to_vec());
                let key = SecretKey::from_slice(&[[0; 31].as_slice(), &[1]].concat()).unwrap().x_only_public_key(SECP256K1).0;
                let tree = TaprootBuilder::new().add_leaf(0, script.clone()).unwrap().finalize(SECP256K1, key).unwrap();
                witness.push(tree.control_block(&(script, LeafVersion::TapScript)).unwrap().serialize());
                output = Some(ScriptBuf::new_p2tr_tweaked(tree.output_key()));
            }
            element => match element.strip_prefix("#SCRIPT#") {
                Some(source) => witness.push(asm::script(source)),
                None => witness.push(Vec::from_hex(element).unwrap()),
            },
        }
    }
    (witness, output)
}

#[test]
fn scripts_are_judged_as_bitcoin_core_judges_them() {
    let (mut good, mut bad, mut bad_for_relay_only) = (0, 0, 0);
    for row in rows("script_tests") {
        let with_witness = row[0].is_array();
        let (mut witness, mut computed, mut value) = (Witness::new(), None, Amount::ZERO);
        if let Some((last, elements)) = row[0].as_array().and_then(|elements| elements.split_last()) {
            (witness, computed) = witness_of(elements);
            value = Amount::from_btc(last.as_f64().unwrap()).unwrap();
        }
        let [sig, pubkey, rules, verdict] = [0, 1, 2, 3].map(|at| text(&row[at + usize::from(with_witness)]));
        let script_pubkey = match computed {
            Some(computed) if pubkey == "0x51 0x20 #TAPROOTOUTPUT#" => computed,
            _ => asm::script(pubkey),
        };
        let (tx, spent) = spending(script_pubkey, asm::script(sig), witness, value);
        let named = rules;
        let rules = Rules::named(named);
        let found = check_under(rules.consensus, &tx, &[spent]);
        match verdict {
            "OK" => {
                found.unwrap_or_else(|why| panic!("{why:?}: {row:?}"));
                good += 1;
            }
            // Such a script may be good in a block; whether relay takes it the library cannot say.
            _ if rules.relay && by_relay_only(named, verdict) => bad_for_relay_only += 1,
            _ => {
                assert!(matches!(found, Err(Broken::Script(0))), "{row:?}");
                bad += 1;
            }
        }
    }
    assert_eq!((good, bad, bad_for_relay_only), (675, 412, 135));
}
