//! An Electrum server over a real Bitcoin Core: real blocks, real Merkle branches, an index in memory. It lies if it is told to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::{Hash as _, sha256, sha256d};
use bitcoin::{Block, BlockHash, OutPoint, Script, Transaction, Txid};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::rig::Core;

/// Between two looks at Bitcoin Core.
const TICK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lie {
    None,
    /// A Merkle branch with one hash changed.
    Branch,
    /// No Merkle branch.
    NoBranch,
    /// For any transaction another one.
    Transaction,
    /// The last header has a changed nonce.
    Work,
    /// The last header is one of less difficulty, with its work.
    Difficulty,
    /// The last header follows a block that nobody knows.
    Link,
    /// A line that does not end.
    Endless,
    /// No answer.
    Silence,
    /// Another network.
    Network,
    /// Nothing touches any script.
    Hiding,
    /// A chain without its last blocks.
    Short(u32),
    /// It takes transactions and names others.
    Broadcast,
    /// Fees that nobody ever paid.
    Fees,
}

/// What it asks Bitcoin Core by.
#[derive(Clone)]
struct Rpc {
    address: String,
    cookie: PathBuf,
}

impl Rpc {
    fn call(&self, method: &str, params: &Value) -> Result<Value, String> {
        let body = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params }).to_string();
        let cookie = std::fs::read_to_string(&self.cookie).map_err(|why| why.to_string())?;
        let auth = base64(cookie.trim().as_bytes());
        let mut stream = std::net::TcpStream::connect(&self.address).map_err(|why| why.to_string())?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: core\r\nConnection: close\r\nAuthorization: Basic {auth}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .map_err(|why| why.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|why| why.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let mut answer: Value = serde_json::from_str(body).map_err(|why| format!("{why}: {body}"))?;
        match answer["error"]["message"].as_str() {
            Some(message) => Err(message.to_owned()),
            None => Ok(answer["result"].take()),
        }
    }
}

#[derive(Default)]
struct Index {
    blocks: Vec<(BlockHash, Arc<Block>)>,
    mempool: Vec<(Txid, Transaction)>,
    txs: HashMap<Txid, Transaction>,
    /// In the order of the chain; height 0: it waits.
    touching: HashMap<String, Vec<(Txid, u32)>>,
}

fn script_hash(script: &Script) -> String {
    let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    bytes.reverse();
    hex::encode(bytes)
}

impl Index {
    /// Reads what is new. `true` if anything is.
    fn look(&mut self, rpc: &Rpc) -> Result<bool, String> {
        let best: String = text(&rpc.call("getbestblockhash", &json!([]))?);
        let mut txids: Vec<String> = serde_json::from_value(rpc.call("getrawmempool", &json!([]))?).map_err(|why| why.to_string())?;
        txids.sort_unstable();
        let known: Vec<String> = self.mempool.iter().map(|(txid, _)| txid.to_string()).collect();
        if self.blocks.last().is_some_and(|(hash, _)| hash.to_string() == best) && txids == known {
            return Ok(false);
        }
        // Backwards to the newest block that is known.
        let mut place: HashMap<BlockHash, usize> = HashMap::new();
        for (at, (hash, _)) in self.blocks.iter().enumerate() {
            place.insert(*hash, at);
        }
        let (mut hash, mut new): (BlockHash, Vec<(BlockHash, Arc<Block>)>) = (best.parse().unwrap(), Vec::new());
        let keep = loop {
            if let Some(at) = place.get(&hash) {
                break at + 1;
            }
            let block: Block = deserialize_hex(&text(&rpc.call("getblock", &json!([hash, 0]))?)).map_err(|why| why.to_string())?;
            let before = block.header.prev_blockhash;
            new.push((hash, Arc::new(block)));
            if before == BlockHash::all_zeros() {
                break 0;
            }
            hash = before;
        };
        self.blocks.truncate(keep);
        self.blocks.extend(new.into_iter().rev());
        let mut mempool = Vec::new();
        for txid in txids {
            // It may have left in between.
            if let Ok(raw) = rpc.call("getrawtransaction", &json!([txid])) {
                mempool.push((txid.parse().unwrap(), deserialize_hex(&text(&raw)).map_err(|why| why.to_string())?));
            }
        }
        self.mempool = mempool;
        self.build();
        Ok(true)
    }

    fn build(&mut self) {
        let (mut txs, mut touching, mut coins) = (HashMap::new(), HashMap::<String, Vec<(Txid, u32)>>::new(), HashMap::new());
        let mined = (0u32..).zip(&self.blocks).flat_map(|(height, (_, block))| block.txdata.iter().map(move |tx| (tx, height)));
        let mut waiting: Vec<&Transaction> = self.mempool.iter().map(|(_, tx)| tx).collect();
        let mut sorted = Vec::new();
        while let Some(at) = waiting
            .iter()
            .position(|tx| !waiting.iter().any(|other| tx.input.iter().any(|i| i.previous_output.txid == other.compute_txid())))
        {
            sorted.push((waiting.remove(at), 0));
        }
        for (tx, height) in mined.chain(sorted) {
            let txid = tx.compute_txid();
            let mut hashes: HashSet<String> = tx.input.iter().filter_map(|input| coins.get(&input.previous_output)).cloned().collect();
            for (output, vout) in tx.output.iter().zip(0..) {
                let hash = script_hash(&output.script_pubkey);
                coins.insert(OutPoint { txid, vout }, hash.clone());
                hashes.insert(hash);
            }
            for hash in hashes {
                touching.entry(hash).or_default().push((txid, height));
            }
            txs.insert(txid, tx.clone());
        }
        (self.txs, self.touching) = (txs, touching);
    }

    fn state(&self, hash: &str) -> Value {
        let Some(items) = self.touching.get(hash) else { return Value::Null };
        let text: String = items.iter().map(|(txid, height)| format!("{txid}:{height}:")).collect();
        json!(sha256::Hash::hash(text.as_bytes()).to_string())
    }

    fn branch(&self, txid: &str, height: usize) -> Option<Value> {
        let (_, block) = self.blocks.get(height)?;
        let mut level: Vec<[u8; 32]> = block.txdata.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
        let position = block.txdata.iter().position(|tx| tx.compute_txid().to_string() == txid)?;
        let (mut place, mut branch) = (position, Vec::new());
        while level.len() > 1 {
            let beside = level.get(place ^ 1).or(level.last()).copied()?;
            branch.push(sha256d::Hash::from_byte_array(beside).to_string());
            level = level.chunks(2).map(|pair| sha256d::Hash::hash(&[pair[0], *pair.last().unwrap()].concat()).to_byte_array()).collect();
            place /= 2;
        }
        Some(json!({ "merkle": branch, "pos": position, "block_height": height }))
    }
}

/// What Basic authorization wants.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        let letters = (0..=part.len()).map(|nth| LETTERS[(bits >> (18 - 6 * nth)) as usize & 63] as char);
        text.extend(letters.chain(std::iter::repeat('=')).take(4));
    }
    text
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

struct Shared {
    rpc: Rpc,
    index: Mutex<Index>,
    lie: Mutex<Lie>,
    told: AtomicUsize,
    news: watch::Sender<u64>,
}

pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Server {
    pub async fn before(core: &Core) -> Server {
        let rpc = Rpc { address: core.url().trim_start_matches("http://").to_owned(), cookie: core.cookie() };
        let mut index = Index::default();
        index.look(&rpc).unwrap();
        let shared = Arc::new(Shared {
            rpc,
            index: Mutex::new(index),
            lie: Mutex::new(Lie::None),
            told: AtomicUsize::new(0),
            news: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let looking = shared.clone();
        let look = tokio::spawn(async move {
            loop {
                looking.clone().look().await;
                tokio::time::sleep(TICK).await;
            }
        });
        let serving = shared.clone();
        let serve = tokio::spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                clients.spawn(serve(serving.clone(), stream));
            }
        });
        Server { address, shared, tasks: vec![look, serve] }
    }

    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub fn tell(&self, lie: Lie) {
        *self.shared.lie.lock().unwrap() = lie;
    }

    /// Sees what Bitcoin Core has now.
    pub async fn looks(&self) {
        self.shared.clone().look().await;
    }

    /// How many lies have been told.
    pub fn told(&self) -> usize {
        self.shared.told.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn look(self: Arc<Self>) {
        let changed = tokio::task::spawn_blocking(move || {
            // Bitcoin Core may be away for a while.
            let changed = self.index.lock().unwrap().look(&self.rpc).unwrap_or(false);
            if changed {
                self.news.send_modify(|count| *count += 1);
            }
        });
        changed.await.unwrap();
    }

    fn lies(&self) {
        self.told.fetch_add(1, Ordering::SeqCst);
    }

    fn tip(&self) -> Value {
        let (index, lie) = (self.index.lock().unwrap(), self.lie.lock().unwrap().clone());
        let less = if let Lie::Short(less) = lie { less as usize } else { 0 };
        let height = index.blocks.len() - 1 - less;
        json!({ "height": height, "hex": self.header(&index, &lie, height) })
    }

    fn header(&self, index: &Index, lie: &Lie, height: usize) -> String {
        let mut header = index.blocks[height].1.header;
        if height + 1 == index.blocks.len() {
            let worked = |header: &bitcoin::block::Header| header.target().is_met_by(header.block_hash());
            match lie {
                Lie::Work => {
                    while worked(&header) {
                        header.nonce += 1;
                    }
                }
                Lie::Difficulty => header.bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe),
                Lie::Link => header.prev_blockhash = BlockHash::from_byte_array([7; 32]),
                _ => return serialize_hex(&header),
            }
            while *lie != Lie::Work && !worked(&header) {
                header.nonce += 1;
            }
            self.lies();
        }
        serialize_hex(&header)
    }

    fn state(&self, hash: &str) -> Value {
        if *self.lie.lock().unwrap() == Lie::Hiding {
            self.lies();
            return Value::Null;
        }
        self.index.lock().unwrap().state(hash)
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, String> {
        let lie = self.lie.lock().unwrap().clone();
        let first = text(&params[0]);
        Ok(match method {
            "server.version" => json!(["a test's server", "1.4"]),
            "server.ping" => Value::Null,
            "server.features" => {
                let index = self.index.lock().unwrap();
                let genesis = if lie == Lie::Network {
                    bitcoin::constants::genesis_block(bitcoin::Network::Signet).block_hash()
                } else {
                    index.blocks[0].0
                };
                json!({ "genesis_hash": genesis })
            }
            "blockchain.headers.subscribe" => self.tip(),
            "blockchain.block.header" => {
                let index = self.index.lock().unwrap();
                json!(self.header(&index, &lie, params[0].as_u64().unwrap() as usize))
            }
            "blockchain.block.headers" => {
                let index = self.index.lock().unwrap();
                let (from, count) = (params[0].as_u64().unwrap() as usize, params[1].as_u64().unwrap() as usize);
                let heights = (from..from + count).take_while(|height| *height < index.blocks.len());
                let headers: Vec<String> = heights.map(|height| self.header(&index, &lie, height)).collect();
                json!({ "count": headers.len(), "hex": headers.concat(), "max": 2016 })
            }
            "blockchain.scripthash.subscribe" => self.state(&first),
            "blockchain.scripthash.get_history" => {
                let index = self.index.lock().unwrap();
                let items = index.touching.get(&first).filter(|_| lie != Lie::Hiding).cloned().unwrap_or_default();
                json!(items.iter().map(|(txid, height)| json!({ "tx_hash": txid, "height": height })).collect::<Vec<_>>())
            }
            "blockchain.transaction.get" => {
                let index = self.index.lock().unwrap();
                let mut tx = index
                    .txs
                    .get(&first.parse::<Txid>().map_err(|_| "bad id")?)
                    .cloned()
                    .ok_or("No such mempool or blockchain transaction")?;
                if lie == Lie::Transaction {
                    self.lies();
                    tx.output[0].value = bitcoin::Amount::from_sat(1);
                }
                json!(serialize_hex(&tx))
            }
            "blockchain.transaction.get_merkle" => {
                let index = self.index.lock().unwrap();
                let mut branch = index.branch(&first, params[1].as_u64().unwrap() as usize).ok_or("not in that block")?;
                match lie {
                    Lie::Branch => {
                        self.lies();
                        let merkle = branch["merkle"].as_array_mut().unwrap();
                        merkle.push(json!("11".repeat(32)));
                    }
                    Lie::NoBranch => {
                        self.lies();
                        return Err("it is there, believe me".to_owned());
                    }
                    _ => {}
                }
                branch
            }
            "blockchain.transaction.broadcast" => {
                if lie == Lie::Broadcast {
                    self.lies();
                    return Ok(json!("11".repeat(32)));
                }
                match self.rpc.call("sendrawtransaction", &json!([first, 0])) {
                    Ok(txid) => {
                        if self.index.lock().unwrap().look(&self.rpc)? {
                            self.news.send_modify(|count| *count += 1);
                        }
                        txid
                    }
                    Err(why) => return Err(format!("the transaction was rejected by network rules.\n\n{why}\n[{first}]")),
                }
            }
            "blockchain.estimatefee" => json!(if lie == Lie::Fees { 20.5 } else { -1.0 }),
            "blockchain.relayfee" => json!(if lie == Lie::Fees { 20.5 } else { 0.000_001 }),
            "mempool.get_fee_histogram" => json!([]),
            _ => return Err(format!("unknown method {method}")),
        })
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    let mut news = shared.news.subscribe();
    let (mut scripts, mut tip): (BTreeMap<String, Value>, Option<Value>) = (BTreeMap::new(), None);
    loop {
        let mut said = String::new();
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let lie = shared.lie.lock().unwrap().clone();
                if lie == Lie::Silence {
                    shared.lies();
                    continue;
                }
                if lie == Lie::Endless {
                    shared.lies();
                    while to.write_all(&[b' '; 65_536]).await.is_ok() {}
                    return;
                }
                let asked: Value = serde_json::from_str(&line).unwrap();
                let (method, params) = (text(&asked["method"]), asked["params"].clone());
                let (answering, called, with) = (shared.clone(), method.clone(), params.clone());
                let answer = tokio::task::spawn_blocking(move || answering.answer(&called, &with)).await.unwrap();
                if let Ok(answer) = &answer {
                    match method.as_str() {
                        "blockchain.headers.subscribe" => tip = Some(answer.clone()),
                        "blockchain.scripthash.subscribe" => drop(scripts.insert(text(&params[0]), answer.clone())),
                        _ => {}
                    }
                }
                let answer = match answer {
                    Ok(result) => json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }),
                    Err(message) => json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": 1, "message": message } }),
                };
                said += &format!("{answer}\n");
            }
            _ = news.changed() => {
                if tip.is_some() {
                    let now = shared.tip();
                    if tip.as_ref() != Some(&now) {
                        said += &format!("{}\n", json!({ "method": "blockchain.headers.subscribe", "params": [now] }));
                        tip = Some(now);
                    }
                }
                for (hash, state) in &mut scripts {
                    let now = shared.state(hash);
                    if *state != now {
                        said += &format!("{}\n", json!({ "method": "blockchain.scripthash.subscribe", "params": [hash, now] }));
                        *state = now;
                    }
                }
            }
        }
        if to.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
}
