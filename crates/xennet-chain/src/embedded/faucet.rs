//! The key that the embedded chain's blocks pay, and that gives play money away.

use std::path::Path;

use bitcoin::absolute::LockTime;
use bitcoin::key::rand::rngs::OsRng;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, ecdsa};

use super::index::{Coin, Index};
use super::mempool::Mempool;
use super::policy::{NextBlock, check_age, fee_at};
use crate::ChainError;
use crate::error::Fault;
use crate::secret::write_secret;

/// What the faucet pays, satoshi per 1,000 vB.
const FEERATE_SAT_PER_KVB: u64 = 1_000;
/// Most coins it joins in one payment, so that it stays far under the relay limit.
const MAX_INPUTS: usize = 500;
/// Virtual size of a P2WPKH payment: everything but the inputs (with room for any standard output), and one input.
const BASE_VBYTES: u64 = 96;
const INPUT_VBYTES: u64 = 68;

/// Owner of the coinbases.
pub(super) struct Faucet {
    curve: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
    script: ScriptBuf,
}

impl Faucet {
    /// Reads the key from a file, or makes one.
    pub(super) fn open(path: &Path) -> Result<Faucet, ChainError> {
        let secret = match std::fs::read_to_string(path) {
            Ok(text) => hex::decode(text.trim())
                .ok()
                .and_then(|bytes| SecretKey::from_slice(&bytes).ok())
                .ok_or_else(|| ChainError::Kernel(format!("{} holds no key: remove it to start afresh", path.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let secret = SecretKey::new(&mut OsRng);
                write_secret(path, hex::encode(secret.secret_bytes()).as_bytes()).map_err(ChainError::io("cannot write", path))?;
                secret
            }
            Err(e) => return Err(ChainError::io("cannot read", path)(e)),
        };
        let curve = Secp256k1::new();
        let public = CompressedPublicKey(secret.public_key(&curve));
        let script = ScriptBuf::new_p2wpkh(&public.wpubkey_hash());
        Ok(Faucet { curve, secret, public, script })
    }

    /// Where new blocks pay to.
    pub(super) fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// A signed payment out of ripe coins that no unconfirmed transaction spends.
    pub(super) fn pay(
        &self,
        to: ScriptBuf,
        sat: u64,
        (index, mempool): (&Index, &Mempool),
        next: NextBlock,
    ) -> Result<Transaction, ChainError> {
        let mut ripe: Vec<(OutPoint, &Coin)> =
            index.coins_of(&self.script).filter(|(at, coin)| is_ripe(*at, coin, index, next) && !mempool.spends(at)).collect();
        // The largest first, so that few inputs do.
        ripe.sort_by_key(|(at, coin)| (std::cmp::Reverse(coin.output.value), *at));
        ripe.truncate(MAX_INPUTS);
        let fee = |inputs: usize| {
            let vbytes = BASE_VBYTES + INPUT_VBYTES * u64::try_from(inputs).unwrap_or(u64::MAX);
            fee_at(FEERATE_SAT_PER_KVB, vbytes)
        };
        let mut sum = 0u64;
        let mut count = 0;
        while sum < sat.saturating_add(fee(count)) {
            let Some((_, coin)) = ripe.get(count) else {
                let available_sat = sum.saturating_sub(fee(count));
                return Err(Fault::FaucetEmpty { asked_sat: sat, available_sat }.into());
            };
            sum += coin.output.value.to_sat();
            count += 1;
        }
        ripe.truncate(count);
        let mut output = vec![TxOut { value: Amount::from_sat(sat), script_pubkey: to }];
        let change = sum - sat - fee(count);
        if Amount::from_sat(change) >= self.script.minimal_non_dust() {
            output.push(TxOut { value: Amount::from_sat(change), script_pubkey: self.script.clone() });
        }
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: ripe.iter().map(|(at, _)| unsigned_input(*at)).collect(),
            output,
        };
        self.sign(tx, &ripe)
    }

    fn sign(&self, tx: Transaction, spent: &[(OutPoint, &Coin)]) -> Result<Transaction, ChainError> {
        let mut cache = SighashCache::new(tx);
        for (input, (_, coin)) in spent.iter().enumerate() {
            let hash = cache
                .p2wpkh_signature_hash(input, &self.script, coin.output.value, EcdsaSighashType::All)
                .map_err(|e| ChainError::Kernel(format!("the faucet cannot sign: {e}")))?;
            let signature = ecdsa::Signature {
                signature: self.curve.sign_ecdsa(&Message::from(hash), &self.secret),
                sighash_type: EcdsaSighashType::All,
            };
            if let Some(witness) = cache.witness_mut(input) {
                *witness = Witness::p2wpkh(&signature, &self.public.0);
            }
        }
        Ok(cache.into_transaction())
    }
}

fn unsigned_input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, witness: Witness::new() }
}

fn is_ripe(at: OutPoint, coin: &Coin, index: &Index, next: NextBlock) -> bool {
    let spending = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![unsigned_input(at)], output: Vec::new() };
    check_age(&spending, std::slice::from_ref(coin), index, next).is_ok()
}
