//! The end-to-end lease over each source that follows a real Bitcoin Core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::{Address, Network, ScriptBuf};
use sha2::{Digest, Sha256};
use xennet_chain::{BitcoindAuth, ChainConfig};
use xennetd::control::{Command, LeaseStage, Reply};

use crate::books::Opening;
use crate::electrum_server::Server;
use crate::market::{Market, Place, TaskToml};
use crate::rig::{Core, program};
use crate::wait::wait_until;

/// Payments that make a lease a whole one.
const PAYMENTS: u32 = 8;
/// What a block of a young regtest pays, satoshi.
const SUBSIDY_SAT: u64 = 5_000_000_000;
/// Blocks until a coinbase can be spent.
const RIPE: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_lease_over_bitcoind() {
    let Some(program) = program("a_whole_lease_over_bitcoind") else { return };
    let core = Core::start(&program, &["-txindex=1"]);
    core.mine(RIPE, &nobody());
    let (url, cookie) = (core.url(), core.cookie());
    let settings = format!("[chain]\nsource = \"bitcoind\"\nnetwork = \"regtest\"\nurl = \"{url}\"\ncookie = \"{}\"\n", cookie.display());
    lease_over("bitcoind", core, settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_lease_over_light_clients() {
    let Some(program) = program("a_whole_lease_over_light_clients") else { return };
    let core = Core::start(&program, &["-txindex=1", "-blockfilterindex=1", "-peerblockfilters=1"]);
    core.mine(RIPE, &nobody());
    let settings = format!("[chain]\nsource = \"light\"\nnetwork = \"regtest\"\npeers = [\"{}\"]\n", core.peer());
    lease_over("light", core, settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_lease_over_an_electrum_server() {
    let Some(program) = program("a_whole_lease_over_an_electrum_server") else { return };
    let core = Core::start(&program, &["-txindex=1"]);
    core.mine(RIPE, &nobody());
    let server = Server::before(&core).await;
    let settings = format!("[chain]\nsource = \"electrum\"\nnetwork = \"regtest\"\nurl = \"{}\"\n", server.url());
    lease_over("electrum", core, settings).await;
}

/// A lease from the task to the settlement, over the source that `settings` name, with books that agree with Bitcoin Core's chain.
async fn lease_over(source: &str, core: Core, settings: String) {
    let config = ChainConfig::Bitcoind { url: core.url(), auth: BitcoindAuth::CookieFile(core.cookie()), network: Network::Regtest };
    let market = Market::open_on(|_| Place { config, settings, flags: Vec::new(), disk_mib: None }).await;
    let status = market.publisher.status().await;
    assert_eq!((status.chain_source.as_str(), status.network.as_str()), (source, "regtest"));

    // No play money here: what the publisher spends was mined for it.
    assert_eq!(market.publisher.coins_sat().await, 0);
    let Reply::Address(view) = market.publisher.ask(Command::WalletAddress {}).await else { panic!("no address") };
    let address: Address = view.address.parse::<Address<_>>().unwrap().require_network(Network::Regtest).unwrap();
    core.mine(1, &address.script_pubkey());
    core.mine(RIPE, &nobody());
    wait_until("the mined coins", 60, async || market.publisher.balance().await.confirmed_sat == SUBSIDY_SAT).await;

    let miner = Miner::start(core);
    let opening = Opening::of(&market).await;
    let lease = market.rent(TaskToml::default().text()).await;
    let input = b"What the guest computes is checked here.".repeat(10_000);
    let said = market.run(lease, "sha256sum", &input).await;
    assert_eq!(said.split(' ').next(), Some(hex::encode(Sha256::digest(&input)).as_str()));
    market.pays(lease, PAYMENTS).await;
    market.publisher.close(lease).await;
    let settlement = opening.check(&market, lease).await;
    assert_eq!(settlement.node.stage, LeaseStage::Settled);
    assert!(settlement.node.totals.unwrap().payments >= PAYMENTS);
    market.guests_are_gone().await;
    drop(market);
    drop(miner.stop());
}

/// Mines a block each second in which something waits.
struct Miner {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Core>,
}

impl Miner {
    fn start(core: Core) -> Miner {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(1));
                if core.cli(&["getrawmempool"]) != "[\n]" {
                    core.mine(1, &nobody());
                }
            }
            core
        });
        Miner { stop, thread }
    }

    fn stop(self) -> Core {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A script that nobody has the key of.
fn nobody() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x6a]).to_p2wsh()
}
