//! Guests as the loop sees them: one task looks after each, and takes orders.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use xennet_gateway::Gateway;
use xennet_lease::{Input, Machine as MachineFacts};
use xennet_market::Capabilities;
use xennet_meter::Figures;
use xennet_task::LeaseId;
use xennet_tunnel::{PipeTarget, openssh_public_key, public_key};
use xennet_vm::{Accelerator, Image, ImageStore, PersistentDisk, Vm, VmSpec};

use super::happening::Happening;
use super::node::Seller;
use super::shared::Shared;
use super::{Daemon, measure, network};
use crate::control::{NetworkView, What};

/// How long a guest may take to answer. Under emulation on a busy machine a minute is not rare.
const BOOT_WITHIN: Duration = Duration::from_secs(150);
/// Memory the node keeps for its host, MiB.
const HOST_MEMORY_MIB: u32 = 1024;
/// Disk the node keeps for its host, MiB.
const HOST_DISK_MIB: u32 = 4096;
/// What a measured guest is given, MiB of memory and of disk.
const TRIAL_MIB: u32 = 256;

/// What may be done to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Let it stand still.
    Pause,
    /// Let it run again.
    Resume,
    /// End it.
    Stop,
}

/// A guest that somebody looks after.
pub struct Machine {
    orders: mpsc::Sender<Order>,
    network: watch::Receiver<Option<Arc<Gateway>>>,
}

impl Machine {
    /// Its network, once it has one.
    pub fn network(&self) -> Option<NetworkView> {
        self.network.borrow().as_deref().map(network::view)
    }
}

/// What the tunnel calls a lease's guest.
pub fn pipe_name(id: LeaseId) -> String {
    format!("vm-{id}")
}

/// How a person calls an accelerator.
pub fn name_of(accelerator: &Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    }
}

/// Gets the image, finds out how guests run, and measures one.
pub async fn prepare(shared: &Arc<Shared>) -> anyhow::Result<Seller> {
    let cache = cache_dir();
    let told = Arc::clone(shared);
    let store = ImageStore::new(cache.join("images"));
    let image = store
        .thin(move |progress| told.tell(What::Image { step: progress.step, done: 0, total: 0 }))
        .await
        .context("this node has no guest image")?;
    shared.tell(What::Notice { text: "finding out how guests run here".into() });
    let verdict = Accelerator::probe(&image, &cache).await.context("this node cannot run guests")?;
    shared.tell(What::Notice { text: format!("guests run under {}: {}", name_of(&verdict.accelerator), verdict.why) });
    let accelerator = verdict.accelerator;
    let figures = trial(shared, &image, accelerator).await.context("this node cannot run guests")?;
    let limits = shared.config.limits;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let whole = Capabilities {
        operating_systems: vec!["thin".to_owned()],
        cores: limits.cores.unwrap_or(u16::try_from(cores).unwrap_or(u16::MAX)),
        core_mhz: figures.core_mhz,
        memory_mib: limits.memory_mib.unwrap_or_else(|| host_memory_mib().saturating_sub(HOST_MEMORY_MIB)),
        disk_mib: limits.disk_mib.unwrap_or_else(|| free_disk_mib(&shared.config.data_dir).saturating_sub(HOST_DISK_MIB)),
        persistent_mib: limits.persistent_mib.unwrap_or(0),
        bandwidth_kbit_s: limits.bandwidth_kbit_s.unwrap_or_else(|| figures.down_kbit_s.min(figures.up_kbit_s)),
        memory_mb_s: figures.memory_mb_s,
        disk_mb_s: figures.disk_write_mb_s.min(figures.disk_read_mb_s),
    };
    Ok(Seller { image, accelerator, figures, whole })
}

/// All memory of this machine, MiB; 0 if the kernel does not say.
fn host_memory_mib() -> u32 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    u32::try_from(kib.unwrap_or(0) / 1024).unwrap_or(u32::MAX)
}

/// Free disk where guests' disks lie, MiB; 0 if the kernel does not say.
fn free_disk_mib(dir: &std::path::Path) -> u32 {
    rustix::fs::statvfs(dir).map_or(0, |fs| u32::try_from(fs.f_bavail.saturating_mul(fs.f_frsize) >> 20).unwrap_or(u32::MAX))
}

/// Boots a guest of its own and measures it just as a publisher will.
async fn trial(shared: &Arc<Shared>, image: &Image, accelerator: Accelerator) -> anyhow::Result<Figures> {
    let seed = shared.keys.derive("trial guest", b"");
    let dir = shared.config.data_dir.join("vm").join("trial");
    let spec = VmSpec {
        dir: dir.clone(),
        hostname: "trial".to_owned(),
        cores: 1,
        memory_mib: TRIAL_MIB,
        disk_mib: TRIAL_MIB,
        persistent: None,
        authorized_key: openssh_public_key(&public_key(&seed)),
        accelerator,
    };
    shared.tell(What::Notice { text: "booting a guest to measure".into() });
    // What a run that ended at once may have left.
    Vm::discard(&dir).await?;
    let vm = Vm::start(spec, image).await?;
    let measured = async {
        let gateway = network::open(&vm, &shared.config.guest_network).await?;
        vm.wait_ready(BOOT_WITHIN, || gateway.connect(network::SSH)).await?;
        let stream = gateway.connect(network::SSH).await?;
        let told = Arc::clone(shared);
        let tell = move |stage: &str| told.tell(What::Notice { text: format!("measuring a guest: {stage}") });
        anyhow::Ok(measure::measure(stream, seed, TRIAL_MIB, tell).await?)
    };
    let measured = measured.await;
    vm.stop().await?;
    let _ = tokio::fs::remove_dir(&dir).await;
    Ok(measured?.figures)
}

/// Images are the same for all daemons of a user.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).unwrap_or_else(std::env::temp_dir).join("xennet")
}

impl Daemon {
    /// Boots the lease's guest, or takes up the one an earlier run of this daemon left running.
    pub(super) fn boot(&mut self, id: LeaseId, guest_key: [u8; 32]) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        if running.machine.is_some() {
            return;
        }
        if running.lease.live_since_ms.is_some() {
            return self.take_up_machine(id);
        }
        let Some(seller) = &self.seller else { return self.to_boot.push((id, guest_key)) };
        let size = running.lease.size();
        let data_dir = &self.shared.config.data_dir;
        let persistent = (size.persistent_mib > 0).then(|| PersistentDisk {
            path: data_dir.join("persistent").join(format!("{}.raw", running.lease.task_hash)),
            mib: size.persistent_mib,
        });
        let spec = VmSpec {
            dir: data_dir.join("vm").join(id.to_string()),
            hostname: format!("xennet-{id}"),
            cores: size.cores,
            memory_mib: size.memory_mib,
            disk_mib: size.disk_mib,
            persistent,
            authorized_key: openssh_public_key(&guest_key),
            accelerator: seller.accelerator,
        };
        let facts = MachineFacts {
            operating_system: running.lease.acceptance.operating_system.clone(),
            cores: size.cores,
            memory_mib: size.memory_mib,
            disk_mib: size.disk_mib,
            persistent_mib: size.persistent_mib,
            accelerator: name_of(&seller.accelerator).to_owned(),
            boot_ms: 0,
        };
        let plan = Plan { dir: spec.dir.clone(), facts, fresh: Some((spec, seller.image.clone())) };
        self.keep_machine(id, plan);
    }

    /// The publisher has used its guest: it is that one or none. A fresh one would have nothing of what is in it.
    fn take_up_machine(&mut self, id: LeaseId) {
        let Some(facts) = self.leases.get(&id).and_then(|running| running.lease.machine.clone()) else {
            return self.feed(id, Input::MachineFailed("it is not known any more".into()));
        };
        let dir = self.shared.config.data_dir.join("vm").join(id.to_string());
        self.keep_machine(id, Plan { dir, facts, fresh: None });
    }

    fn keep_machine(&mut self, id: LeaseId, plan: Plan) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        let (orders, taken) = mpsc::channel(16);
        let (network, seen) = watch::channel(None);
        let keeper = Keeper { id, shared: Arc::clone(&self.shared), target: running.target.clone(), network, orders: taken };
        running.machine = Some(Machine { orders, network: seen });
        tokio::spawn(keeper.keep(plan));
    }

    pub(super) fn order(&mut self, id: LeaseId, order: Order) {
        if let Some(machine) = self.leases.get(&id).and_then(|running| running.machine.as_ref())
            && machine.orders.try_send(order).is_err()
        {
            tracing::warn!(lease = %id, ?order, "the guest takes no orders");
        }
    }

    pub(super) fn stop_machine(&mut self, id: LeaseId) {
        self.order(id, Order::Stop);
        let Some(running) = self.leases.get_mut(&id) else { return };
        if running.machine.take().is_none() {
            // A guest that an earlier run left, for a lease that is over by now.
            let dir = self.shared.config.data_dir.join("vm").join(id.to_string());
            tokio::spawn(async move {
                if let Err(error) = Vm::discard(&dir).await {
                    tracing::warn!(lease = %id, %error, "a guest of an earlier run is not tidied away");
                }
            });
        }
    }
}

/// How a guest is to be had.
struct Plan {
    dir: PathBuf,
    facts: MachineFacts,
    /// What to start if none runs; `None`: then there is none.
    fresh: Option<(VmSpec, Image)>,
}

/// Looks after one guest from start to end.
struct Keeper {
    id: LeaseId,
    shared: Arc<Shared>,
    target: watch::Sender<Option<PipeTarget>>,
    network: watch::Sender<Option<Arc<Gateway>>>,
    orders: mpsc::Receiver<Order>,
}

impl Keeper {
    async fn keep(mut self, plan: Plan) {
        let dir = plan.dir.clone();
        match self.bring_up(plan).await {
            Ok(Some(vm)) => self.look_after(vm).await,
            Ok(None) => {}
            Err(error) => {
                if let Err(error) = Vm::discard(&dir).await {
                    tracing::warn!(lease = %self.id, %error, "what is left of the guest cannot be tidied away");
                }
                self.say(Input::MachineFailed(format!("{error:#}"))).await;
            }
        }
        self.target.send_replace(None);
        self.network.send_replace(None);
        // Empty once the guest is stopped; while it runs on, its files keep the folder.
        let _ = tokio::fs::remove_dir(&dir).await;
    }

    async fn say(&self, input: Input) {
        self.shared.happen(Happening::Lease(self.id, input)).await;
    }

    /// A guest that answers, or none if it was called off meanwhile.
    async fn bring_up(&mut self, plan: Plan) -> anyhow::Result<Option<Vm>> {
        let Plan { dir, mut facts, fresh } = plan;
        let begun = Instant::now();
        let step = |text: &str| {
            let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.shared.tell(What::Boot { lease: self.id, step: text.to_owned(), elapsed_ms });
        };
        let adopted = Vm::adopt(&dir).await?;
        step(if adopted.is_some() { "taking up the guest that still runs" } else { "starting" });
        let started = adopted.is_none();
        let vm = match (adopted, fresh) {
            (Some(vm), _) => vm,
            (None, Some((spec, image))) => Vm::start(spec, &image).await?,
            (None, None) => anyhow::bail!("it ended while this daemon did not run"),
        };
        let gateway = network::open(&vm, &self.shared.config.guest_network).await?;
        self.network.send_replace(Some(Arc::clone(&gateway)));
        // It may have been standing still when the last process ended.
        vm.resume().await?;
        loop {
            tokio::select! {
                ready = vm.wait_ready(BOOT_WITHIN, || gateway.connect(network::SSH)) => {
                    if let Err(error) = ready {
                        vm.stop().await?;
                        return Err(error.into());
                    }
                    break;
                }
                order = self.orders.recv() => if matches!(order, Some(Order::Stop) | None) {
                    vm.stop().await?;
                    return Ok(None);
                },
            }
        }
        step("up");
        if started {
            facts.boot_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        self.target.send_replace(Some(PipeTarget::Guest(network::ports(&gateway))));
        self.say(Input::MachineReady(facts)).await;
        Ok(Some(vm))
    }

    async fn look_after(&mut self, vm: Vm) {
        loop {
            tokio::select! {
                exit = vm.exited() => {
                    let code = exit.code.map_or_else(|| "without a code".to_owned(), |code| format!("with code {code}"));
                    self.say(Input::MachineFailed(format!("the guest ended {code} {}", exit.said.trim()))).await;
                    return;
                }
                order = self.orders.recv() => {
                    let done = match order {
                        Some(Order::Pause) => vm.pause().await,
                        Some(Order::Resume) => vm.resume().await,
                        Some(Order::Stop) => {
                            if let Err(error) = vm.stop().await {
                                tracing::warn!(lease = %self.id, %error, "the guest does not stop");
                            }
                            return;
                        }
                        // The daemon ends; the guest runs on and is taken up by the next one.
                        None => return,
                    };
                    if let Err(error) = done {
                        tracing::warn!(lease = %self.id, %error, "the guest does not obey");
                    }
                }
            }
        }
    }
}
