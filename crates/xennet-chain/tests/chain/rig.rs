//! What the tests stand on.

use std::path::Path;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::key::rand::rngs::OsRng;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_CLTV, OP_DROP};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, SECP256K1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, ecdsa};
use tempfile::TempDir;
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{Chain, ChainConfig, ChainError, ChainEvent, Refusal, Wallet};

/// Longer than anything takes on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// A chain in a directory of its own, that mines only on demand.
pub struct Rig {
    pub dir: TempDir,
    pub chain: Chain,
    pub events: Receiver<ChainEvent>,
}

pub async fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let (chain, events) = open(dir.path()).await;
    Rig { dir, chain, events }
}

pub async fn open(dir: &Path) -> (Chain, Receiver<ChainEvent>) {
    open_with(dir, Duration::ZERO).await
}

pub async fn open_with(dir: &Path, block_interval: Duration) -> (Chain, Receiver<ChainEvent>) {
    let (sender, events) = mpsc::channel(16);
    let config = ChainConfig::Embedded { dir: dir.join("chain"), block_interval };
    (Chain::open(config, sender).await.unwrap(), events)
}

impl Rig {
    /// A wallet with this many satoshi, in one coin, confirmed.
    pub async fn wallet(&self, name: &str, sat: u64) -> Wallet {
        let wallet = Wallet::open(&self.dir.path().join(name), Network::Regtest).unwrap();
        if sat > 0 {
            let address = wallet.address().unwrap();
            self.chain.faucet(address.script_pubkey(), sat).await.unwrap();
        }
        wallet.sync(&self.chain).await.unwrap();
        wallet
    }

    /// A coin of this worth that a lock of the test guards, confirmed.
    pub async fn coin(&self, lock: &Lock, sat: u64) -> OutPoint {
        let txid = self.chain.faucet(lock.script(), sat).await.unwrap();
        OutPoint::new(txid, 0)
    }

    pub async fn until<T>(&mut self, pick: impl FnMut(ChainEvent) -> Option<T>) -> T {
        until(&mut self.events, pick).await
    }

    /// The rule that refuses the transaction.
    pub async fn refusal(&self, tx: &Transaction) -> Refusal {
        match self.chain.broadcast(tx).await {
            Err(ChainError::Refused { txid, why }) => {
                assert_eq!(txid, tx.compute_txid());
                why
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

pub async fn until<T>(events: &mut Receiver<ChainEvent>, mut pick: impl FnMut(ChainEvent) -> Option<T>) -> T {
    let mut passed = Vec::new();
    let wait = async {
        loop {
            let event = events.recv().await.expect("the chain still tells");
            let short = format!("{event:?}").chars().take(100).collect::<String>();
            match pick(event) {
                Some(found) => return found,
                None => passed.push(short),
            }
        }
    };
    match tokio::time::timeout(BOUND, wait).await {
        Ok(found) => found,
        Err(_) => panic!("not told in time; told was {passed:#?}"),
    }
}

/// A key that guards coins, from a height on if there is one.
pub struct Lock {
    secret: SecretKey,
    from_height: Option<u32>,
}

impl Lock {
    pub fn new() -> Lock {
        Lock { secret: SecretKey::new(&mut OsRng), from_height: None }
    }

    pub fn from_height(height: u32) -> Lock {
        Lock { from_height: Some(height), ..Lock::new() }
    }

    fn witness_script(&self) -> ScriptBuf {
        let mut script = Builder::new();
        if let Some(height) = self.from_height {
            script = script.push_int(i64::from(height)).push_opcode(OP_CLTV).push_opcode(OP_DROP);
        }
        script.push_key(&PublicKey::new(self.secret.public_key(SECP256K1))).push_opcode(OP_CHECKSIG).into_script()
    }

    pub fn script(&self) -> ScriptBuf {
        self.witness_script().to_p2wsh()
    }

    /// Spends one coin into one output.
    pub fn spend(&self, coin: OutPoint, worth: u64, to: ScriptBuf, fee: u64) -> Draft<'_> {
        Draft {
            lock: self,
            worth: vec![worth],
            tx: Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: vec![input(coin)],
                output: vec![TxOut { value: Amount::from_sat(worth - fee), script_pubkey: to }],
            },
        }
    }
}

fn input(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, witness: Witness::new() }
}

/// An unsigned transaction.
pub struct Draft<'a> {
    lock: &'a Lock,
    worth: Vec<u64>,
    tx: Transaction,
}

impl Draft<'_> {
    pub fn version(mut self, version: i32) -> Self {
        self.tx.version = Version(version);
        self
    }

    pub fn lock_time(mut self, height: u32) -> Self {
        self.tx.lock_time = LockTime::from_consensus(height);
        self
    }

    pub fn and(mut self, coin: OutPoint, worth: u64) -> Self {
        self.tx.input.push(input(coin));
        self.worth.push(worth);
        self
    }

    pub fn output(mut self, sat: u64, script: ScriptBuf) -> Self {
        self.tx.output.push(TxOut { value: Amount::from_sat(sat), script_pubkey: script });
        self
    }

    pub fn sign(self) -> Transaction {
        let script = self.lock.witness_script();
        let mut cache = SighashCache::new(self.tx);
        for (index, worth) in self.worth.into_iter().enumerate() {
            let hash = cache.p2wsh_signature_hash(index, &script, Amount::from_sat(worth), EcdsaSighashType::All).unwrap();
            let signature = ecdsa::Signature {
                signature: SECP256K1.sign_ecdsa(&Message::from(hash), &self.lock.secret),
                sighash_type: EcdsaSighashType::All,
            };
            let witness = cache.witness_mut(index).unwrap();
            witness.push(signature.to_vec());
            witness.push(script.as_bytes());
        }
        cache.into_transaction()
    }
}

/// An output of a transaction.
pub fn output(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint::new(tx.compute_txid(), vout)
}

/// Picks the event that tells of a transaction with a status.
pub fn seen(txid: Txid, status: xennet_chain::Status) -> impl FnMut(ChainEvent) -> Option<()> {
    move |event| match event {
        ChainEvent::Seen { tx, status: found } if tx.compute_txid() == txid && found == status => Some(()),
        _ => None,
    }
}

/// Picks the event that takes a transaction back.
pub fn gone(txid: Txid) -> impl FnMut(ChainEvent) -> Option<()> {
    move |event| (event == ChainEvent::Gone { txid }).then_some(())
}
