//! A Bitcoin Core of the test's own: own directory, own ports, ended by its id.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash as _;
use bitcoin::{Address, Network, ScriptBuf, Txid, WScriptHash};
use tempfile::TempDir;
use tokio::sync::mpsc::{self, Receiver};
use xennet_chain::{BitcoindAuth, Chain, ChainConfig, ChainError, ChainEvent, Status};

/// Longer than anything takes on a busy machine.
const BOUND: Duration = Duration::from_secs(90);

/// The program, or a word on why the test does not run.
pub fn program(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("XENNET_BITCOIND").map(PathBuf::from);
    if found.is_none() {
        eprintln!("{test}: did not run, for XENNET_BITCOIND names no bitcoind");
    }
    found
}

pub struct Core {
    pub dir: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    rpc_port: u16,
    child: Option<Child>,
}

impl Core {
    pub fn start(program: &Path, more: &[&str]) -> Core {
        let [port, rpc_port] = free_ports();
        let mut arguments: Vec<String> =
            [format!("-rpcport={rpc_port}"), format!("-port={port}"), format!("-bind=127.0.0.1:{port}")].to_vec();
        arguments.extend(more.iter().map(|more| (*more).to_owned()));
        let dir = tempfile::tempdir().unwrap();
        let mut core = Core { dir, program: program.to_owned(), arguments, port, rpc_port, child: None };
        core.run();
        core
    }

    /// Starts it, again if it ran before, and waits until it answers.
    pub fn run(&mut self) {
        let child = Command::new(&self.program)
            .arg(format!("-datadir={}", self.dir.path().display()))
            .args(["-regtest", "-dnsseed=0", "-fixedseeds=0", "-listenonion=0", "-natpmp=0", "-printtoconsole=0", "-txindex=0"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind starts");
        self.child = Some(child);
        let begun = Instant::now();
        while self.try_cli(&["getblockcount"]).is_none() {
            assert!(begun.elapsed() < BOUND, "bitcoind does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn stop(&mut self) {
        self.cli(&["stop"]);
        self.child.take().unwrap().wait().unwrap();
    }

    pub fn cookie(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    /// Where it listens for peers.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    pub fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap_or_else(|| panic!("bitcoin-cli {arguments:?} fails"))
    }

    fn try_cli(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(self.program.with_file_name("bitcoin-cli"))
            .arg(format!("-datadir={}", self.dir.path().display()))
            .args(["-regtest", &format!("-rpcport={}", self.rpc_port)])
            .args(arguments)
            .output()
            .expect("bitcoin-cli runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until a transaction is in its mempool: a peer has sent it a moment before.
    pub async fn takes(&self, txid: &Txid) {
        let begun = Instant::now();
        while !self.cli(&["getrawmempool"]).contains(&txid.to_string()) {
            assert!(begun.elapsed() < BOUND, "Bitcoin Core has not taken {txid}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn mine(&self, count: u32, to: &ScriptBuf) {
        let address = Address::from_script(to, Network::Regtest).unwrap().to_string();
        self.cli(&["generatetoaddress", &count.to_string(), &address]);
    }

    pub async fn open(&self) -> (Chain, Receiver<ChainEvent>) {
        self.open_with(BitcoindAuth::CookieFile(self.cookie()), Network::Regtest).await.unwrap()
    }

    pub async fn open_with(&self, auth: BitcoindAuth, network: Network) -> Result<(Chain, Receiver<ChainEvent>), ChainError> {
        let (sender, events) = mpsc::channel(16);
        Ok((Chain::open(ChainConfig::Bitcoind { url: self.url(), auth, network }, sender).await?, events))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
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

/// A script that nobody can spend from, a different one for each tag.
pub fn script(tag: u8) -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([tag; 32]))
}

/// That a transaction has come so far.
pub fn seen(txid: Txid, status: Status) -> impl FnMut(ChainEvent) -> Option<()> {
    move |event| match event {
        ChainEvent::Seen { tx, status: found } if tx.compute_txid() == txid && found == status => Some(()),
        _ => None,
    }
}

/// That a transaction is no longer what it was.
pub fn gone(txid: Txid) -> impl FnMut(ChainEvent) -> Option<()> {
    move |event| (event == ChainEvent::Gone { txid }).then_some(())
}
