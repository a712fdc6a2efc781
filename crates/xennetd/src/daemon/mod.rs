//! The daemon: one loop around the pure lease.
//!
//! ```text
//! chain ─┐
//! overlay┤                                          ┌▶ tunnel  ┐
//! tunnel ┼▶ Happening ─▶ lease.handle ─▶ persist ─▶ ┼▶ chain   ├─▶ Happening
//! machine┤                 (pure)       (one commit)└▶ machine ┘
//! control┘
//! ```
//! Each turn takes all that has happened, lets every lease concerned decide, writes all changed leases in one commit, and only then
//! carries out the actions. Nothing else in the process decides anything about a lease.

mod actions;
mod announce;
mod book;
mod coins;
mod commands;
mod disk;
mod fund;
mod happening;
mod inspect;
mod machine;
mod measure;
mod network;
mod node;
mod publisher;
mod shared;
mod sought;
mod step;
mod sweep;
mod transaction;
mod tunnels;
mod views;
mod wallet;

pub(crate) use book::OwnTask;
pub use inspect::{Anchors, Inspected, Inspector, Refusal, TAG_BARE, TAG_PAIR, TAG_TRANSACTION};
pub(crate) use machine::cache_dir;
pub use measure::MeasureError;
pub(crate) use network::ssh as guest_ssh;
pub use shared::{LEAST_WORK_BITS, Shared};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::MissedTickBehavior;
use xennet_chain::ChainEvent;
use xennet_identity::Role;
use xennet_lease::{Action, Input, Lease};
use xennet_overlay::OverlayEvent;
use xennet_task::{AnnouncementHash, Digest, LeaseId};
use xennet_tunnel::{Dialer, Listener, PipeTarget};

use crate::clock;
use crate::config::Config;
use crate::control::{self, Event, What};
use crate::store::{Batch, Table};
use book::Book;
use happening::{Answer, Happening};
use machine::Machine;
use node::Seller;
use sought::Sought;
use step::Moment;
use tunnels::{Logins, Outbox};

/// How often time passes for leases. The shortest payout interval is one second.
const TICK: Duration = Duration::from_millis(200);
/// How often a node looks again at tasks it did not take.
const CONSIDER_EVERY: Duration = Duration::from_secs(3);
/// The most happenings of one turn, so that one commit does not grow without bound.
const MOST_PER_TURN: usize = 256;

/// A lease with the hands that work for it.
struct Running {
    lease: Lease,
    /// The revision that is on disk.
    kept: u64,
    /// Where frames for the other side go, while the tunnel is up.
    outbox: Option<Outbox>,
    /// Node: what keeps the tunnel up.
    dialer: Option<Dialer>,
    /// Node: the guest.
    machine: Option<Machine>,
    /// Node: where the tunnel's pipe leads; nowhere until the guest answers.
    target: watch::Sender<Option<PipeTarget>>,
    /// Publisher: whether a job has it for itself.
    rented: bool,
}

struct Daemon {
    shared: Arc<Shared>,
    book: Book,
    /// Short forms on the chain whose announcements have not come yet.
    sought: Sought,
    leases: HashMap<LeaseId, Running>,
    logins: Arc<Logins>,
    listener: Option<Listener>,
    seller: Option<Seller>,
    tunnel_events: mpsc::Sender<xennet_tunnel::TunnelEvent>,
    /// Channels that are to be opened.
    to_fund: mpsc::UnboundedSender<fund::Wanted>,
    /// Jobs that wait for a lease of a task.
    rents: Vec<(AnnouncementHash, Answer)>,
    peers: u32,
    chain_lost: Option<String>,
    /// What is wrong with the disk.
    trouble: Option<disk::Trouble>,
    /// From the control socket. A channel of their own: they are answered even while the loop waits for the disk.
    requests: mpsc::Receiver<control::Request>,
    started_at: u64,
    /// What this turn has decided and not yet carried out.
    decided: Vec<(LeaseId, Action)>,
    /// What this turn writes beside leases.
    batch: Batch,
    /// What goes out on the overlay once this turn is written.
    outgoing: Vec<Vec<u8>>,
    stopping: bool,
    /// That somebody wants it to stop, known even while the loop waits for the disk.
    stop_asked: watch::Receiver<bool>,
    failed: Option<anyhow::Error>,
    /// When tasks that were not taken were last looked at again.
    considered: Instant,
    /// Node: machines promised in acceptances that are still being worked on.
    promised: HashMap<AnnouncementHash, xennet_meter::Size>,
    /// Node: guests to boot as soon as it is known how.
    to_boot: Vec<(LeaseId, [u8; 32])>,
}

/// Runs a daemon until it is told to stop.
///
/// `ready` is told once the control socket answers; events flow from then on.
///
/// # Errors
/// If it cannot start, or a node cannot run guests: each names the remedy.
pub async fn run(config: Config, ready: impl FnOnce()) -> anyhow::Result<()> {
    let (happen, mut happenings) = mpsc::channel(4096);
    let (events, _) = broadcast::channel::<Event>(4096);
    let role = config.role;
    let data_dir = config.data_dir.clone();
    let shared = Shared::open(config, happen.clone(), events.clone()).await?;
    let (asked, incoming) = mpsc::channel(64);
    let server = control::serve(&control::socket_path(&data_dir), asked, events).context("the control socket cannot be opened")?;
    let (ask_to_stop, stop_asked) = watch::channel(false);
    let (forwarded, requests) = mpsc::channel(64);
    forward_requests(incoming, forwarded, ask_to_stop.clone());
    let (tunnel_events, incoming) = mpsc::channel(1024);
    forward(incoming, happen.clone(), Happening::Tunnel);
    stop_on_signal(happen.clone(), ask_to_stop)?;

    let mut daemon = Daemon::load(shared, tunnel_events, requests, stop_asked).await?;
    ready();
    daemon.mine_identity();
    match role {
        Role::Publisher => daemon.listen().await?,
        Role::Node => {
            // Money first: what is to be settled does not wait for an image or a trial.
            daemon.take_up_leases();
            daemon.prepare_to_sell();
        }
    }
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !daemon.stopping {
        tokio::select! {
            happening = happenings.recv() => match happening {
                Some(happening) => daemon.handle(happening),
                None => break,
            },
            Some(request) = daemon.requests.recv() => daemon.on_request(request),
            _ = tick.tick() => daemon.tick(),
        }
        for _ in 1..MOST_PER_TURN {
            match happenings.try_recv() {
                Ok(happening) => daemon.handle(happening),
                Err(_) => break,
            }
        }
        daemon.commit().await;
    }
    let failed = daemon.failed.take();
    daemon.leave().await;
    server.close().await;
    failed.map_or(Ok(()), Err)
}

/// Passes everything from one channel on to the loop.
fn forward<T: Send + 'static>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<Happening>, wrap: fn(T) -> Happening) {
    tokio::spawn(async move {
        while let Some(item) = from.recv().await {
            if to.send(wrap(item)).await.is_err() {
                break;
            }
        }
    });
}

/// The same for what comes over the control socket. That it is to stop is noted at once, for the loop may be waiting for the disk.
fn forward_requests(mut from: mpsc::Receiver<control::Request>, to: mpsc::Sender<control::Request>, ask_to_stop: watch::Sender<bool>) {
    tokio::spawn(async move {
        while let Some(request) = from.recv().await {
            if matches!(&request, control::Request::Command { command: control::Command::Stop {}, .. }) {
                ask_to_stop.send_replace(true);
            }
            if to.send(request).await.is_err() {
                break;
            }
        }
    });
}

fn stop_on_signal(happen: mpsc::Sender<Happening>, ask_to_stop: watch::Sender<bool>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        ask_to_stop.send_replace(true);
        let _ = happen.send(Happening::Stop).await;
    });
    Ok(())
}

impl Daemon {
    /// Reads what an earlier run left and takes it up again.
    async fn load(
        shared: Arc<Shared>,
        tunnel_events: mpsc::Sender<xennet_tunnel::TunnelEvent>,
        requests: mpsc::Receiver<control::Request>,
        stop_asked: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let mut daemon = Self {
            book: Book::default(),
            sought: Sought::default(),
            leases: HashMap::new(),
            logins: Arc::default(),
            listener: None,
            seller: None,
            tunnel_events,
            to_fund: fund::queue(&shared),
            rents: Vec::new(),
            peers: 0,
            chain_lost: None,
            trouble: None,
            requests,
            started_at: clock::unix_s(),
            decided: Vec::new(),
            batch: Batch::new(),
            outgoing: Vec::new(),
            stopping: false,
            stop_asked,
            failed: None,
            considered: Instant::now(),
            promised: HashMap::new(),
            to_boot: Vec::new(),
            shared,
        };
        let store = daemon.shared.store.clone();
        for (_, own) in store.scan_json::<OwnTask>(Table::Tasks).context("the kept tasks cannot be read")? {
            daemon.book.note(
                own.hash,
                own.task.clone(),
                own.file.work_bits,
                own.transaction.as_ref().map(bitcoin::Transaction::compute_txid),
            );
            daemon.book.own.insert(own.hash, own);
        }
        for (_, lease) in store.scan_json::<Lease>(Table::Leases).context("the kept leases cannot be read")? {
            let kept = lease.revision;
            // Kept, but perhaps never sent: its coins are spoken for.
            if let xennet_lease::Side::Publisher(_) = &lease.side {
                for funding in
                    lease.channels().filter(|channel| channel.funded_height.is_none()).filter_map(|channel| channel.funding.as_ref())
                {
                    daemon.shared.wallet.reserve(funding);
                }
            }
            daemon.adopt(lease, kept);
        }
        Ok(daemon)
    }

    fn adopt(&mut self, lease: Lease, kept: u64) {
        let id = lease.id;
        if !lease.is_over() {
            self.logins.allow(id, lease.acceptance.ssh_key);
        }
        let running = Running { lease, kept, outbox: None, dialer: None, machine: None, target: watch::Sender::new(None), rented: false };
        self.leases.insert(id, running);
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Chain(event) => self.on_chain(event),
            Happening::Overlay(event) => self.on_overlay(event),
            Happening::Tunnel(event) => self.on_tunnel(event),
            Happening::Funding(funding) => self.funded(funding),
            Happening::Lease(id, input) => self.feed(id, input),
            Happening::CanSell(seller) => self.can_sell(*seller),
            Happening::CannotSell(error) => self.cannot_sell(error),
            Happening::TaskReady(own, answer) => self.task_ready(*own, answer),
            Happening::AcceptanceReady { acceptance, ready, close_feerate } => self.acceptance_ready(*acceptance, *ready, close_feerate),
            Happening::AcceptanceFailed(task, why) => self.acceptance_failed(task, why),
            Happening::CancellationReady(task, message) => {
                self.outgoing.push(message);
                tracing::info!(%task, "task taken back");
            }
            Happening::Stop => self.stopping = true,
        }
    }

    fn tick(&mut self) {
        let open: Vec<_> = self.leases.iter().filter(|(_, running)| !running.lease.is_over()).map(|(id, _)| *id).collect();
        for id in open {
            self.feed(id, Input::Tick);
        }
        if self.failed.is_some() && !self.leases.values().any(|running| running.lease.is_locked()) {
            self.stopping = true;
        }
        self.sought.expire(clock::unix_s());
        for hash in self.book.expire(clock::unix_s()) {
            self.keep_task(&hash);
        }
        if self.considered.elapsed() >= CONSIDER_EVERY {
            self.considered = Instant::now();
            self.consider_waiting_tasks();
        }
    }

    fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Tip { height, hash } => {
                use bitcoin::hashes::Hash;
                self.shared.anchors.set_tip(height, hash.to_byte_array());
                self.feed_all(|| Input::Tip(height));
                self.tell(What::Tip { height });
                self.shared.new_tip.notify_one();
            }
            ChainEvent::Seen { tx, status } => {
                let height = shared::height_of(status);
                self.feed_all(|| Input::Seen { transaction: tx.clone(), height });
            }
            ChainEvent::Announcement { tx, payload, status } if Digest::is_digest(&payload) => {
                match self.shared.inspector.inspect_digest(&tx, &payload, clock::unix_s()) {
                    Ok(digest) => self.on_digest(&digest, tx.compute_txid(), shared::height_of(status)),
                    Err(refusal) => tracing::debug!(%refusal, txid = %tx.compute_txid(), "short form on chain dropped"),
                }
            }
            ChainEvent::Announcement { tx, status, .. } => {
                let message = xennet_chain::relay_bytes(&tx);
                match self.shared.inspector.inspect(&message, clock::unix_s()) {
                    Ok(inspected) => self.on_announcement(inspected, shared::height_of(status)),
                    Err(refusal) => tracing::debug!(%refusal, txid = %tx.compute_txid(), "announcement on chain dropped"),
                }
            }
            ChainEvent::Gone { txid } => self.feed_all(|| Input::Gone(txid)),
            ChainEvent::Lost { why } => {
                self.tell(What::Notice { text: format!("the chain is away: {why}") });
                self.chain_lost = Some(why);
            }
            ChainEvent::Back => {
                self.tell(What::Notice { text: "the chain is back".into() });
                self.chain_lost = None;
            }
        }
    }

    fn on_overlay(&mut self, event: OverlayEvent) {
        match event {
            OverlayEvent::Message(message) => match self.shared.inspector.inspect(&message, clock::unix_s()) {
                Ok(inspected) => self.on_announcement(inspected, None),
                Err(refusal) => tracing::debug!(%refusal, "announcement on the overlay dropped"),
            },
            OverlayEvent::PeerUp { .. } => self.peers = self.peers.saturating_add(1),
            OverlayEvent::PeerDown { .. } => self.peers = self.peers.saturating_sub(1),
            OverlayEvent::Listening(address) => tracing::info!(%address, "overlay listens"),
        }
    }

    fn feed_all(&mut self, input: impl Fn() -> Input) {
        let ids: Vec<_> = self.leases.keys().copied().collect();
        for id in ids {
            self.feed(id, input());
        }
    }

    /// Gives a lease its input and notes what it decided.
    fn feed(&mut self, id: LeaseId, input: Input) {
        self.feed_at(clock::unix_ms(), id, input);
    }

    /// The same for what happened a while ago.
    fn feed_at(&mut self, now_ms: u64, id: LeaseId, input: Input) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        let before = running.lease.stage.clone();
        // What flowed before belongs before: where use begins to be paid, both sides must have counted the same.
        let bytes = running.outbox.as_ref().map(|outbox| outbox.link.traffic());
        let mut actions = bytes.map_or_else(Vec::new, |bytes| running.lease.handle(now_ms, Input::Traffic(bytes)));
        actions.extend(running.lease.handle(now_ms, input));
        self.decided.extend(actions.into_iter().map(|action| (id, action)));
        if running.lease.stage != before {
            self.stage_changed(id);
        }
    }

    fn stage_changed(&mut self, id: LeaseId) {
        let Some(running) = self.leases.get(&id) else { return };
        let (lease, stage) = (&running.lease, views::stage_of(&running.lease));
        let note = views::reasons_of(lease).join("; ");
        tracing::info!(lease = %id, stage = stage.name(), %note, "lease");
        self.tell(What::Lease { lease: id, task: lease.task_hash, stage, note });
        if let xennet_lease::Stage::Settled { txid, .. } = &lease.stage {
            self.tell(What::Settled { lease: id, paid_sat: lease.paid_sat(), txid: txid.to_string() });
        }
        if lease.is_over() {
            self.logins.forbid(&id);
            self.lease_over(id);
        }
    }

    fn tell(&self, what: What) {
        self.shared.tell(what);
    }

    /// Writes what this turn changed, in one commit, and only then carries out what it decided.
    async fn commit(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let decided = std::mem::take(&mut self.decided);
        let outgoing = std::mem::take(&mut self.outgoing);
        let mut written = Vec::new();
        for (id, running) in &self.leases {
            if running.lease.revision != running.kept {
                if let Err(error) = batch.put_json(Table::Leases, &id.0, &running.lease) {
                    tracing::error!(lease = %id, %error, "a lease cannot be written: nothing is done for it");
                    return;
                }
                written.push((*id, running.lease.revision));
            }
        }
        for (id, action) in &decided {
            if let Action::Record(entry) = action
                && let Err(error) = batch.append(*id, entry)
            {
                tracing::error!(lease = %id, %error, "a ledger entry cannot be written");
            }
        }
        if batch.is_empty() && decided.is_empty() && outgoing.is_empty() {
            return;
        }
        decided.iter().for_each(|(_, action)| step::passes(Moment::Decided, action));
        let Some(persisted) = self.persist(batch, (decided, outgoing)).await else { return };
        for (id, revision) in written {
            if let Some(running) = self.leases.get_mut(&id) {
                running.kept = revision;
            }
        }
        persisted.get().0.iter().for_each(|(_, action)| step::passes(Moment::Kept, action));
        self.carry_out(persisted);
        self.recover().await;
    }

    /// Leaves everything as it is: guests run on, leases go on with the next start.
    async fn leave(mut self) {
        for running in self.leases.values_mut() {
            if let Some(outbox) = running.outbox.take() {
                outbox.close("the daemon stops");
            }
        }
        if let Some(listener) = self.listener.take() {
            // A peer that floods the queues must not keep the daemon from stopping.
            let _ = tokio::time::timeout(Duration::from_secs(5), listener.close()).await;
        }
    }
}
