//! The publisher's part of the loop: tasks go out, acceptances come in.

use std::sync::Arc;

use anyhow::Context;
use rand::RngCore;
use rand::rngs::OsRng;
use xennet_identity::Role;
use xennet_lease::{Input, Lease, PublisherSide, Secret, Side, most_close_feerate};
use xennet_market::check_acceptance;
use xennet_task::{Acceptance, Announcement, AnnouncementHash, Cancellation, Carrier, Digest, LeaseId, Said, Task, TaskFile, TaskId};
use xennet_tunnel::{ListenConfig, ListenLimits, Listener};

use super::announce::{self, Form};
use super::book::OwnTask;
use super::happening::{Answer, Happening};
use super::inspect::Inspected;
use super::{Daemon, views};
use crate::clock;
use crate::control::{Failure, FailureKind, QuoteView, Reply, TaskState, What};
use crate::store::Table;

/// What is left of a task's budget for one lease must pay for at least this much, satoshi: reserve, smallest change and a little use.
const LEAST_BUDGET_SAT: u64 = 10_000;

/// The most work that is put into a proposal, leading zero bits: a fraction of a second.
const MOST_PROPOSAL_WORK_BITS: u8 = 20;

impl Daemon {
    /// Opens the SSH server that nodes dial.
    pub(super) async fn listen(&mut self) -> anyhow::Result<()> {
        self.bind(self.shared.config.tunnel.listen).await?;
        self.take_up_leases();
        for own in self.book.own.values().filter(|own| own.state == TaskState::Open) {
            self.outgoing.push(own.message.clone());
        }
        Ok(())
    }

    /// Starts the SSH server.
    pub(super) async fn bind(&mut self, address: std::net::SocketAddr) -> anyhow::Result<()> {
        let logins = Arc::clone(&self.logins);
        let config = ListenConfig { address, host_key_seed: self.shared.keys.ssh_host_seed(), limits: ListenLimits::default() };
        let authorize = Arc::new(move |login| {
            let logins = Arc::clone(&logins);
            Box::pin(async move { logins.check(login).await }) as futures::future::BoxFuture<'static, bool>
        });
        let listener = Listener::bind(config, authorize, self.tunnel_events.clone()).await?;
        tracing::info!(address = %listener.local_addr(), "SSH server for nodes");
        self.listener = Some(listener);
        Ok(())
    }

    /// Checks a task, puts in the work, and comes back with [`Happening::TaskReady`]. Nothing is broadcast or paid before that.
    pub(super) fn publish(&self, task_toml: &str, max_fee_sat: Option<u64>, answer: Answer) {
        let (file, listens_at) = match self.read_task(task_toml) {
            Ok(read) => read,
            Err(failure) => return drop(answer.send(Err(failure))),
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let ready = async {
                let balance = shared.wallet.balance();
                let have = balance.confirmed_sat.saturating_add(balance.pending_sat);
                let need = file.budget_sat.unwrap_or(LEAST_BUDGET_SAT).max(LEAST_BUDGET_SAT);
                if have < need {
                    let missing = need - have;
                    return Err(Failure::new(
                        FailureKind::NotEnoughMoney,
                        format!("the wallet holds {have} sat, but this task needs {need} sat: {missing} sat are missing"),
                        "pay them to `xennet wallet address`, or lower budget_sat in the task file",
                    ));
                }
                if let (Some(at_most), Some(form)) = (max_fee_sat, form_of(file.carrier)) {
                    let said = Said::Task(task_now(&shared, &file, listens_at).await.map_err(internal)?);
                    let quote = announce::quote(&shared, &said, Role::Publisher, file.work_bits, form).await.map_err(internal)?;
                    if quote.fee_sat > at_most {
                        return Err(Failure::new(
                            FailureKind::Conflict,
                            format!("the announcement's fee is {} sat now, and at most {at_most} sat were agreed to", quote.fee_sat),
                            "nothing was sent; look at the fee again and agree to more, or wait until fees fall",
                        ));
                    }
                }
                make_task(&shared, file, listens_at).await.map_err(internal)
            };
            match ready.await {
                Ok(own) => shared.happen(Happening::TaskReady(Box::new(own), answer)).await,
                Err(failure) => drop(answer.send(Err(failure))),
            }
        });
    }

    /// Says what announcing a task would cost. Nothing is sent, kept or reserved.
    pub(super) fn quote(&self, task_toml: &str, answer: Answer) {
        let (file, listens_at) = match self.read_task(task_toml) {
            Ok(read) => read,
            Err(failure) => return drop(answer.send(Err(failure))),
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let quoted = quoted(&shared, &file, listens_at).await;
            let _ = answer.send(quoted.map(Reply::Quote).map_err(internal));
        });
    }

    /// The task that a user wrote, and where nodes are to dial.
    fn read_task(&self, task_toml: &str) -> Result<(TaskFile, std::net::SocketAddr), Failure> {
        let file = TaskFile::parse(task_toml).map_err(|error| {
            let remedy = "correct the task file; `xennet publish --example` prints one that works";
            Failure::new(FailureKind::BadInput, error.to_string(), remedy)
        })?;
        let Some(listener) = &self.listener else {
            return Err(Failure::new(
                FailureKind::Conflict,
                "this daemon is a node, and a node only sells",
                "publish from a publisher's data directory",
            ));
        };
        Ok((file, self.shared.config.tunnel.announce.unwrap_or_else(|| listener.local_addr())))
    }

    /// The task has its work: keep it, then let it go out.
    pub(super) fn task_ready(&mut self, own: OwnTask, answer: Answer) {
        let hash = own.hash;
        let txid = own.transaction.as_ref().map(bitcoin::Transaction::compute_txid);
        self.book.note(hash, own.task.clone(), own.file.work_bits, txid);
        self.book.own.insert(hash, own);
        self.keep_task(&hash);
        let Some(own) = self.book.own.get(&hash) else { return };
        self.outgoing.push(own.message.clone());
        if let Some(transaction) = own.transaction.clone() {
            self.broadcast_announcement(transaction);
        }
        self.tell(What::Task { task: hash, state: TaskState::Open, note: txid.map_or_else(String::new, |txid| format!("txid {txid}")) });
        let view = self.task_view(&hash);
        let _ = answer.send(view.map(|view| Reply::Task(Box::new(view))).ok_or_else(|| Failure::not_found(format!("task {hash}"), "")));
    }

    fn broadcast_announcement(&self, transaction: bitcoin::Transaction) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let sent = shared.chain.broadcast(&transaction).await;
            if sent.is_ok()
                && let Err(error) = shared.wallet.sent(&transaction)
            {
                tracing::warn!(%error, "the wallet does not know yet what was sent");
            }
            if let Err(error) = sent {
                let text = format!("the chain does not take the announcement {}: {error}", transaction.compute_txid());
                tracing::warn!("{text}");
                shared.tell(What::Notice { text });
            }
        });
    }

    /// Writes an own task with this turn.
    pub(super) fn keep_task(&mut self, hash: &AnnouncementHash) {
        if let Some(own) = self.book.own.get(hash)
            && let Err(error) = self.batch.put_json(Table::Tasks, &hash.0, own)
        {
            tracing::error!(task = %hash, %error, "a task cannot be written");
        }
    }

    pub(super) fn cancel(&mut self, task: AnnouncementHash, answer: Answer) {
        let Some(own) = self.book.own.get_mut(&task) else {
            let _ = answer.send(Err(Failure::not_found(format!("own task {task}"), "`xennet tasks` lists them")));
            return;
        };
        own.state = TaskState::Cancelled;
        let publisher = own.task.publisher;
        let unused = |running: &super::Running| running.lease.task_hash == task && !running.rented && !running.lease.is_locked();
        let unused: Vec<_> = self.leases.iter().filter(|(_, running)| unused(running)).map(|(id, _)| *id).collect();
        let work_bits = own.file.work_bits;
        self.keep_task(&task);
        for id in unused {
            self.feed(id, Input::Close(xennet_lease::CloseReason::PublisherDone));
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let said = Said::Cancellation(Cancellation { publisher, task });
            match announce::for_overlay(&shared, said, Role::Publisher, work_bits).await {
                Ok(ready) => shared.happen(Happening::CancellationReady(task, ready.message)).await,
                Err(error) => tracing::warn!(%error, "the cancellation was not announced; the task is closed all the same"),
            }
        });
        self.tell(What::Task { task, state: TaskState::Cancelled, note: String::new() });
        let view = self.task_view(&task);
        let _ = answer.send(view.map(|view| Reply::Task(Box::new(view))).ok_or_else(|| Failure::not_found(format!("task {task}"), "")));
    }

    /// A transaction carries the short form of an announcement. Whoever has a peer has the announcement, or will soon.
    pub(super) fn on_digest(&mut self, digest: &Digest, txid: bitcoin::Txid, height: Option<u32>) {
        if self.book.note_chain(&digest.hash, txid, height) {
            return;
        }
        self.sought.note(digest, height);
        let sought = self.sought.len();
        tracing::debug!(%txid, announcement = %digest.hash, sought, "its short form is on the chain, it itself has not come yet");
    }

    /// Everything strangers announce arrives here, once it has passed inspection.
    pub(super) fn on_announcement(&mut self, inspected: Inspected, height: Option<u32>) {
        let Announcement { work_bits, said, hash, .. } = inspected.announcement;
        match said {
            Said::Task(task) => {
                let txid = inspected.transaction.as_ref().map(bitcoin::Transaction::compute_txid);
                let height = height.or_else(|| self.sought.found(&hash));
                let new = self.book.note(hash, task, work_bits, txid);
                if height.is_some() {
                    self.book.note_height(&hash, height);
                }
                if new {
                    self.tell(What::Task { task: hash, state: TaskState::Open, note: String::new() });
                    self.consider_task(hash);
                }
            }
            Said::Acceptance(acceptance) => self.on_acceptance(acceptance, hash, work_bits),
            Said::Proposal(sealed) => self.on_proposal(&sealed),
            Said::Cancellation(cancellation) => {
                if self.book.cancel(cancellation.task, cancellation.publisher.key) {
                    self.tell(What::Task { task: cancellation.task, state: TaskState::Cancelled, note: String::new() });
                }
            }
        }
    }

    /// A node takes an own task.
    fn on_acceptance(&mut self, acceptance: Acceptance, hash: AnnouncementHash, work_bits: u8) {
        let Some(own) = self.book.own.get(&acceptance.task) else { return };
        let id = xennet_task::LeaseId::of(&own.hash, &hash);
        if self.leases.contains_key(&id) {
            return;
        }
        if let Err(why) = self.why_not(own, &acceptance, work_bits) {
            tracing::info!(task = %own.hash, node = %acceptance.node.id(), %why, "acceptance not taken");
            return;
        }
        // Each machine that is still wanted gets its share of what is left.
        let leased = self.leases.values().filter(|running| running.lease.task_hash == own.hash && !running.lease.is_over()).count();
        let wanted = usize::from(own.task.machines).saturating_sub(leased).max(1);
        let budget_sat = self.budget_left(own) / u64::try_from(wanted).unwrap_or(1);
        let shared = &self.shared;
        let channel_secret = match shared.wallet.fresh_key() {
            Ok(key) => Secret(key),
            Err(error) => return tracing::error!(%error, "no key for a channel: the acceptance is not taken"),
        };
        let side = PublisherSide {
            guest_key: xennet_tunnel::public_key(&shared.keys.ssh_guest_seed()),
            channel_secret,
            budget_sat,
            most_close_feerate_sat_per_kvb: most_close_feerate(shared.seen_feerate()),
            lease_s: own.task.lease.max.as_secs(),
            block_s: shared.config.chain.block_s(),
            announcement: None,
            paused: false,
            unacknowledged: false,
            looking: false,
            go_on: None,
        };
        let (task, task_hash) = (own.task.clone(), own.hash);
        let tip = shared.anchors.tip();
        let lease = Lease::new(task, task_hash, acceptance, hash, Side::Publisher(side), tip, clock::unix_ms());
        self.adopt(lease, 0);
        self.feed(id, Input::Start);
        self.stage_changed(id);
        self.fill_rents();
    }

    fn why_not(&self, own: &OwnTask, acceptance: &Acceptance, work_bits: u8) -> Result<(), String> {
        if own.state != TaskState::Open {
            return Err("the task is not open".into());
        }
        if acceptance.proposal_work_bits > MOST_PROPOSAL_WORK_BITS {
            let asked = acceptance.proposal_work_bits;
            return Err(format!("it asks for {asked} bits of work in the proposal, at most {MOST_PROPOSAL_WORK_BITS} are given"));
        }
        if work_bits < own.task.acceptance_work_bits {
            return Err(format!("{work_bits} bits of work, but the task asks for {}", own.task.acceptance_work_bits));
        }
        let of_task: Vec<_> =
            self.leases.values().filter(|running| running.lease.task_hash == own.hash && !running.lease.is_over()).collect();
        if of_task.len() >= usize::from(own.task.machines) {
            return Err(format!("all {} machines are leased", own.task.machines));
        }
        if of_task.iter().any(|running| running.lease.acceptance.node.key == acceptance.node.key) {
            return Err("this node has a lease of the task already".into());
        }
        if self.budget_left(own) < LEAST_BUDGET_SAT {
            return Err(format!("the budget is used up: {} sat are left", self.budget_left(own)));
        }
        let now = u32::try_from(clock::unix_s()).unwrap_or(u32::MAX);
        check_acceptance(&own.task, acceptance, now)
            .map_err(|reasons| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    /// What may still be locked for a task: its budget, and the daemon's, less what its leases hold or have spent.
    fn budget_left(&self, own: &OwnTask) -> u64 {
        let of_task: u64 =
            self.leases.values().filter(|running| running.lease.task_hash == own.hash).map(held_sat).fold(0, u64::saturating_add);
        own.file.budget_sat.unwrap_or(u64::MAX).saturating_sub(of_task).min(self.daemon_budget_left())
    }

    /// What may still be locked by this daemon.
    fn daemon_budget_left(&self) -> u64 {
        let open: u64 = self.leases.values().filter(|running| !running.lease.is_over()).map(held_sat).fold(0, u64::saturating_add);
        let left = self.shared.config.budget_sat.unwrap_or(u64::MAX).saturating_sub(open);
        // No output may hold more than there are coins.
        left.min(bitcoin::Amount::MAX_MONEY.to_sat())
    }

    /// Asks the node of a lease for more time.
    pub(super) fn renew(&mut self, id: LeaseId, adds_s: u64, budget_sat: Option<u64>, go_on: bool) -> Result<Reply, Failure> {
        let Some(running) = self.leases.get(&id) else {
            return Err(Failure::not_found(format!("lease {id}"), "`xennet leases` lists them"));
        };
        let left_sat = match (budget_sat, self.book.own.get(&running.lease.task_hash)) {
            (Some(given_sat), _) => given_sat.min(self.daemon_budget_left()),
            (None, Some(own)) => self.budget_left(own),
            (None, None) => self.daemon_budget_left(),
        };
        let needed_sat = running.lease.check_renewal(adds_s, left_sat).map_err(|why| {
            Failure::new(
                FailureKind::Conflict,
                format!("lease {id} cannot be renewed: {why}"),
                "it goes on as agreed; `xennet leases` shows until when",
            )
        })?;
        let have_sat = self.shared.balance().confirmed_sat;
        if have_sat < needed_sat {
            let text = format!("the wallet holds {have_sat} sat, and the new channel takes {needed_sat} sat");
            return Err(Failure::new(FailureKind::NotEnoughMoney, text, "pay the rest to `xennet wallet address`, or ask for less time"));
        }
        self.feed(id, Input::Renew { adds_s, budget_sat: left_sat, go_on });
        self.lease_reply(id)
    }

    /// Gives waiting jobs the leases that nobody has taken.
    pub(super) fn fill_rents(&mut self) {
        let mut waiting = Vec::new();
        for (task, answer) in std::mem::take(&mut self.rents) {
            if answer.is_closed() {
                continue;
            }
            let free = |running: &&mut super::Running| running.lease.task_hash == task && !running.rented && !running.lease.is_over();
            match self.leases.values_mut().find(free) {
                Some(running) => {
                    running.rented = true;
                    let view = views::lease_view(running);
                    let _ = answer.send(Ok(Reply::Lease(Box::new(view))));
                }
                None => waiting.push((task, answer)),
            }
        }
        self.rents = waiting;
    }
}

/// What a lease holds of a budget, or has spent of it, satoshi.
fn held_sat(running: &super::Running) -> u64 {
    let lease = &running.lease;
    match (&lease.side, &lease.proposal) {
        // Promised, not locked yet.
        (Side::Publisher(side), None) if !lease.is_over() => side.budget_sat,
        (Side::Publisher(_), Some(_)) if lease.is_over() => lease.paid_sat(),
        (Side::Publisher(_), Some(proposal)) => proposal.capacity_sat.max(lease.committed_sat()),
        _ => 0,
    }
}

/// The task as it would be announced now.
async fn task_now(shared: &Arc<super::Shared>, file: &TaskFile, listens_at: std::net::SocketAddr) -> anyhow::Result<Task> {
    let publisher = shared.identity(Role::Publisher).await?;
    let mut id = [0; 8];
    OsRng.fill_bytes(&mut id);
    let host_key = xennet_tunnel::public_key(&shared.keys.ssh_host_seed());
    let now = u32::try_from(clock::unix_s()).context("the clock stands after 2106")?;
    Ok(file.task(TaskId(id), publisher, host_key, listens_at, now))
}

async fn make_task(shared: &Arc<super::Shared>, file: TaskFile, listens_at: std::net::SocketAddr) -> anyhow::Result<OwnTask> {
    let task = task_now(shared, &file, listens_at).await?;
    let said = Said::Task(task.clone());
    let ready = match form_of(file.carrier) {
        Some(form) => announce::for_chain(shared, said, Role::Publisher, file.work_bits, form).await?,
        None => announce::for_overlay(shared, said, Role::Publisher, file.work_bits).await?,
    };
    let announce::Ready { hash, message, transaction } = ready;
    Ok(OwnTask { task, hash, file, message, transaction, state: TaskState::Open })
}

async fn quoted(shared: &Arc<super::Shared>, file: &TaskFile, listens_at: std::net::SocketAddr) -> anyhow::Result<QuoteView> {
    let said = Said::Task(task_now(shared, file, listens_at).await?);
    let short = announce::quote(shared, &said, Role::Publisher, file.work_bits, Form::Short).await?;
    let full = announce::quote(shared, &said, Role::Publisher, file.work_bits, Form::Full).await?;
    let feerate_sat_per_kvb = shared.chain.feerate().await?;
    Ok(QuoteView { network: shared.chain.network().to_string(), carrier: file.carrier, feerate_sat_per_kvb, short, full })
}

/// How much of the announcement its transaction holds; `None`: there is no transaction.
fn form_of(carrier: Carrier) -> Option<Form> {
    match carrier {
        Carrier::Chain => Some(Form::Short),
        Carrier::ChainFull => Some(Form::Full),
        Carrier::Overlay => None,
    }
}

fn internal(error: anyhow::Error) -> Failure {
    Failure::new(FailureKind::Internal, format!("{error:#}"), "see the daemon's log")
}
