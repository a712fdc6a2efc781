//! A publisher, a node and a chain: what each test has for itself.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use xennet_chain::{Chain, ChainConfig};
use xennet_task::{AnnouncementHash, LeaseId};
use xennet_tunnel::GuestSsh;
use xennetd::control::{Command, GUEST_SSH, LeaseStage, LeaseView, Reply};
use xennetd::keys::Keys;

use crate::daemon::{Daemon, free_port};
use crate::processes;
use crate::wait::{wait_for, wait_until};
use crate::wire::Wire;

/// Guests need a processor core each.
static TURN: Mutex<()> = Mutex::const_new(());
/// How long a node may take to find out what it can sell. At the first run it makes the guest image meanwhile.
const NODE_READY_S: u64 = 1200;
/// From a task's announcement until the guest is the publisher's, seconds.
const LIVE_S: u64 = 120;
/// How long nodes wait for a publisher that is gone, seconds. Longer than any cut that a lease must outlive.
pub const PATIENCE_S: u64 = 20;

pub struct Market {
    pub publisher: Daemon,
    pub node: Daemon,
    /// The way from the node to the publisher's SSH server.
    pub wire: Wire,
    place: Place,
    // Last, so that everything above is gone when these go.
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// The chain that both daemons are on.
pub struct Place {
    /// How a third party opens it.
    pub config: ChainConfig,
    /// `[chain]` of the daemons' configuration.
    pub settings: String,
    /// The daemons' flags.
    pub flags: Vec<String>,
    /// What the node gives guests of its disk, if not what its host has to spare.
    pub disk_mib: Option<u32>,
}

impl Place {
    /// An embedded chain in this directory, with a block each second while transactions wait.
    pub fn embedded(dir: PathBuf) -> Place {
        let flags = vec!["--block-interval".to_owned(), "1".to_owned(), "--chain-dir".to_owned(), dir.display().to_string()];
        Place {
            config: ChainConfig::Embedded { dir, block_interval: Duration::from_secs(1) },
            settings: String::new(),
            flags,
            disk_mib: None,
        }
    }
}

impl Market {
    /// Starts both daemons on an embedded chain of their own and waits until the node sells.
    pub async fn open() -> Market {
        Market::open_on(|dir| Place::embedded(dir.join("chain"))).await
    }

    /// Starts both daemons and waits until the node sells. The chain may use the directory that they are in.
    pub async fn open_on(place: impl FnOnce(&Path) -> Place) -> Market {
        let turn = TURN.lock().await;
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (overlay, tunnel) = (format!("/ip4/127.0.0.1/tcp/{}", free_port()), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let wire = Wire::to(tunnel).await;
        let flags = |pairs: &[(&str, &str)]| {
            let own = pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
            own.chain(place.flags.iter().cloned()).collect::<Vec<_>>()
        };
        let listen = flags(&[("--overlay-listen", &overlay), ("--tunnel-listen", &tunnel.to_string())]);
        let mut publisher = Daemon::new(dir.path(), "publisher", &listen);
        publisher.configure(&format!("{}[publisher]\nannounce = \"{}\"\n", place.settings, wire.address));
        let mut node = Daemon::new(dir.path(), "node", &flags(&[("--bootstrap", &overlay)]));
        // Figures of an emulated guest vary with what else runs here; that they are compared is not what these tests are for.
        let policy = "[policy]\nfigures_tolerance_percent = 95\nleast_of_offer_percent = 5\n";
        let limits = place.disk_mib.map_or_else(String::new, |mib| format!("[limits]\ndisk_mib = {mib}\n"));
        node.configure(&format!("{}[node]\npatience_s = {PATIENCE_S}\n{policy}{limits}", place.settings));
        publisher.start().await;
        node.start().await;
        let mut market = Market { publisher, node, wire, place, _dir: dir, _turn: turn };
        market.node_sells().await;
        market
    }

    /// Waits until the node knows what it can do.
    pub async fn node_sells(&mut self) {
        let node = &mut self.node;
        wait_until("the node's readiness to sell", NODE_READY_S, async || {
            // A node that cannot run guests ends, and says what to install.
            node.must_run();
            node.status().await.accelerator.is_some()
        })
        .await;
    }

    /// The chain, as a third party sees it.
    pub async fn chain(&self) -> Chain {
        let (events, mut incoming) = mpsc::channel(64);
        tokio::spawn(async move { while incoming.recv().await.is_some() {} });
        Chain::open(self.place.config.clone(), events).await.unwrap()
    }

    pub async fn publish(&self, task_toml: String) -> AnnouncementHash {
        let Reply::Task(task) = self.publisher.ask(Command::Publish { task_toml, max_fee_sat: None }).await else { panic!("no task") };
        task.task
    }

    /// Publishes a task and waits until both sides call its lease live.
    pub async fn rent(&self, task_toml: String) -> LeaseId {
        let task = self.publish(task_toml).await;
        let lease = wait_for("the lease", LIVE_S, async || {
            self.publisher.leases().await.iter().find(|lease| lease.task == task).map(|lease| lease.lease)
        })
        .await;
        self.both("live", LIVE_S, lease, |view| view.stage == LeaseStage::Live).await;
        lease
    }

    /// Waits until something holds on both sides of a lease.
    pub async fn both(&self, what: &str, within_s: u64, lease: LeaseId, holds: impl Fn(&LeaseView) -> bool) {
        for daemon in [&self.publisher, &self.node] {
            wait_until(&format!("a lease that is {what}"), within_s, async || seen(daemon, lease, &holds).await).await;
        }
    }

    /// Waits until so many more payments have been made, on both sides.
    pub async fn pays(&self, lease: LeaseId, more: u32) {
        let counted = async |daemon: &Daemon| daemon.lease(lease).await.totals.map_or(0, |totals| totals.payments);
        let before = counted(&self.publisher).await.max(counted(&self.node).await);
        let enough = |view: &LeaseView| view.totals.is_some_and(|totals| totals.payments >= before + more);
        self.both("paid for", 120, lease, enough).await;
    }

    /// A login in the guest, through the publisher's control socket.
    pub async fn guest(&self, lease: LeaseId) -> GuestSsh {
        let seed = Keys::open(&self.publisher.dir).unwrap().ssh_guest_seed();
        let shown = self.publisher.lease(lease).await.guest_host_key.expect("the publisher has measured this guest");
        let host_key: [u8; 32] = hex::decode(shown).unwrap().try_into().unwrap();
        // After a restart the node has to find its guest again before pipes lead there.
        let pipe = wait_for("a pipe into the guest", 30, async || self.publisher.client.pipe(&lease, GUEST_SSH).await.ok()).await;
        let (ssh, _) = GuestSsh::connect(pipe, "root", seed, Some(host_key)).await.unwrap();
        ssh
    }

    /// Runs a command in the guest, which must succeed.
    pub async fn run(&self, lease: LeaseId, command: &str, stdin: &[u8]) -> String {
        let output = self.guest(lease).await.run(command, stdin).await.unwrap();
        assert!(output.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// No QEMU of the node runs any more.
    pub async fn guests_are_gone(&self) {
        wait_until("the guest's end", 15, async || processes::guests_of(&self.node.dir).is_empty()).await;
    }

    /// What Linux made up when this guest started: two guests never have the same.
    pub async fn boot_id(&self, lease: LeaseId) -> String {
        let id = self.run(lease, "cat /proc/sys/kernel/random/boot_id", b"").await;
        assert_eq!(id.len(), 36, "{id}");
        id
    }
}

/// Whether something holds of a lease at one daemon. Fails when the lease is over and it does not.
async fn seen(daemon: &Daemon, lease: LeaseId, holds: impl Fn(&LeaseView) -> bool) -> bool {
    let Some(view) = daemon.leases().await.into_iter().find(|view| view.lease == lease) else { return false };
    let held = holds(&view);
    assert!(held || !view.stage.is_over(), "the {} lease is {}: {}", view.side, view.stage.name(), view.reasons.join("; "));
    held
}

/// A task.toml. Rates are high, so that a second is worth tens of satoshis and a wrong bill shows.
pub struct TaskToml {
    /// As in the file: `3 s` in arrears, `-3 s` in advance.
    pub payout: &'static str,
    /// The longest lease.
    pub lease_max: &'static str,
    /// The guest's disk.
    pub disk: &'static str,
    /// The most to spend, satoshi.
    pub budget_sat: u64,
}

impl Default for TaskToml {
    fn default() -> TaskToml {
        TaskToml { payout: "3 s", lease_max: "10 min", disk: "64 MiB", budget_sat: 200_000 }
    }
}

impl TaskToml {
    pub fn text(&self) -> String {
        let TaskToml { payout, lease_max, disk, budget_sat } = self;
        format!(
            r#"machines = 1
payout_interval = "{payout}"
proposal_within = "3 min"
budget_sat = {budget_sat}
work_bits = 16
acceptance_work_bits = 12
[lease]
min = "10 s"
max = "{lease_max}"
[requirements]
operating_systems = ["thin"]
memory_per_core = "128 MiB"
[requirements.storage]
size = "{disk}"
[[requirements.compute]]
cores = 1
clock = "1 MHz"
[rates]
cpu_msat_per_ghz_hour = 50_000_000
memory_msat_per_gib_hour = 50_000_000
disk_msat_per_gib_hour = 1_000_000
persistent_msat_per_gib_hour = 0
traffic_msat_per_gb = 5_000_000
"#
        )
    }
}

/// How many different ones there are.
pub fn distinct<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> usize {
    items.into_iter().collect::<HashSet<_>>().len()
}
