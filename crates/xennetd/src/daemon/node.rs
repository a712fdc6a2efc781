//! The node's part of the loop: find out what this machine can do, choose tasks, take them.

use std::sync::Arc;

use xennet_identity::Role;
use xennet_lease::{Input, LEAST_CLOSE_FEERATE_SAT_PER_KVB, Lease, LedgerKind, NodeSide, Secret, Side, Stage};
use xennet_market::{Capabilities, Choice, check_work, consider};
use xennet_meter::Figures;
use xennet_task::{Acceptance, Announcement, AnnouncementHash, LeaseId, Said, Sealed};
use xennet_tunnel::{DialConfig, Dialer};
use xennet_vm::{Accelerator, Image};

use super::happening::Happening;
use super::inspect::TAG_BARE;
use super::{Daemon, Running, announce, machine};
use crate::clock;
use crate::control::What;

/// How many acceptances may be in work at once.
const MOST_PROMISED: usize = 4;
/// How long an acceptance stands before the publisher must have answered it, seconds.
const ACCEPTANCE_VALID_S: u64 = 600;
/// Leading zero bits a node demands of a proposal's work.
const PROPOSAL_WORK_BITS: u8 = 8;

/// What a node has to sell, found out at its start.
pub struct Seller {
    /// The guest image.
    pub image: Image,
    /// How guests run.
    pub accelerator: Accelerator,
    /// What a guest on this machine was measured to be.
    pub figures: Figures,
    /// All of it, with no lease running.
    pub whole: Capabilities,
}

impl Daemon {
    /// Gets the image, finds out how guests run, measures one. Comes back with [`Happening::CanSell`].
    pub(super) fn prepare_to_sell(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let happening = match machine::prepare(&shared).await {
                Ok(seller) => Happening::CanSell(Box::new(seller)),
                Err(error) => Happening::CannotSell(error),
            };
            shared.happen(happening).await;
        });
    }

    pub(super) fn can_sell(&mut self, seller: Seller) {
        let figures = seller.figures;
        let text = format!(
            "this node sells {} cores of {} MHz ({}), {} MiB of memory, {} MiB of disk",
            seller.whole.cores,
            figures.core_mhz,
            machine::name_of(&seller.accelerator),
            seller.whole.memory_mib,
            seller.whole.disk_mib
        );
        tracing::info!("{text}");
        self.tell(What::Notice { text });
        self.seller = Some(seller);
        for (id, guest_key) in std::mem::take(&mut self.to_boot) {
            self.boot(id, guest_key);
        }
        self.consider_waiting_tasks();
    }

    /// Guests cannot run here. What was earned is settled all the same; then the daemon ends and says why.
    pub(super) fn cannot_sell(&mut self, error: anyhow::Error) {
        let text = format!("{error:#}");
        tracing::error!("{text}");
        self.tell(What::Notice { text: text.clone() });
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            self.feed(id, Input::MachineFailed(text.clone()));
        }
        self.failed = Some(error);
    }

    /// Goes on with the leases an earlier run left.
    pub(super) fn take_up_leases(&mut self) {
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            if let Some(Running { lease: Lease { stage: Stage::Accepted, side: Side::Node(side), .. }, .. }) = self.leases.get(&id) {
                // Written, and perhaps never said.
                self.outgoing.push(side.acceptance.clone());
            }
            self.feed(id, Input::Start);
        }
    }

    /// Considers the tasks that were not taken when they came in: there may be room now.
    pub(super) fn consider_waiting_tasks(&mut self) {
        if self.seller.is_none() {
            return;
        }
        let waiting: Vec<_> = self.book.known.iter().filter(|(_, known)| !known.taken).map(|(hash, _)| *hash).collect();
        for hash in waiting {
            self.consider_task(hash);
        }
    }

    /// May this node take the task? If so, it does.
    pub(super) fn consider_task(&mut self, hash: AnnouncementHash) {
        // A lease kept from an earlier run says that the task is taken, even if the book does not know it.
        if self.leases.values().any(|running| running.lease.task_hash == hash && !running.lease.is_over()) {
            return;
        }
        let Some(free) = self.free() else { return };
        let Some(identity) = self.shared.mined(Role::Node) else { return };
        let policy = &self.shared.config.policy;
        let Some(known) = self.book.known.get_mut(&hash) else { return };
        if known.taken || known.not_before > clock::unix_s() || known.task.publisher.key == identity.key {
            return;
        }
        let now = u32::try_from(clock::unix_s()).unwrap_or(u32::MAX);
        let verdict =
            check_work(known.work_bits, policy).map_err(|reason| vec![reason]).and_then(|()| consider(&known.task, &free, policy, now));
        let choice = match verdict {
            Ok(choice) => choice,
            Err(reasons) => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                if known.refusals != reasons {
                    tracing::info!(task = %hash, why = %reasons.join("; "), "task does not suit this node");
                    known.refusals = reasons;
                }
                return;
            }
        };
        if self.promised.len() >= MOST_PROMISED {
            // Many at once are rather a flood than a market; the next look comes in a moment.
            return;
        }
        let size = xennet_meter::Size::from(&choice);
        self.promised.insert(hash, size);
        known.refusals.clear();
        known.taken = true;
        known.attempts = known.attempts.saturating_add(1);
        let work_bits = known.task.acceptance_work_bits;
        let ssh_key = xennet_tunnel::public_key(&self.shared.keys.derive("node ssh", &hash.0));
        let Choice { operating_system, compute, memory_mib, disk_mib, persistent_mib } = choice;
        let acceptance = Acceptance {
            task: hash,
            node: identity,
            ssh_key,
            operating_system,
            compute,
            memory_mib,
            disk_mib,
            persistent_mib,
            proposal_work_bits: PROPOSAL_WORK_BITS,
            expires_at: u32::try_from(clock::unix_s() + ACCEPTANCE_VALID_S).unwrap_or(u32::MAX),
        };
        tracing::info!(task = %hash, "task suits this node: accepting");
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let said = Said::Acceptance(acceptance.clone());
            let happening = match announce::for_overlay(&shared, said, Role::Node, work_bits).await {
                Ok(ready) => {
                    let close_feerate = shared.settling_feerate().await.unwrap_or(0).max(LEAST_CLOSE_FEERATE_SAT_PER_KVB);
                    Happening::AcceptanceReady { acceptance: Box::new(acceptance), ready: Box::new(ready), close_feerate }
                }
                Err(error) => Happening::AcceptanceFailed(hash, format!("{error:#}")),
            };
            shared.happen(happening).await;
        });
    }

    /// What is free now. `None` while this daemon sells nothing.
    fn free(&self) -> Option<Capabilities> {
        let mut free = self.seller.as_ref()?.whole.clone();
        let served = |running: &&super::Running| !running.lease.is_over() && !matches!(running.lease.stage, Stage::Closing { .. });
        let leased = self.leases.values().filter(served).map(|running| running.lease.size());
        for size in leased.chain(self.promised.values().copied()) {
            free.cores = free.cores.saturating_sub(size.cores);
            free.memory_mib = free.memory_mib.saturating_sub(size.memory_mib);
            free.disk_mib = free.disk_mib.saturating_sub(size.disk_mib);
            free.persistent_mib = free.persistent_mib.saturating_sub(size.persistent_mib);
        }
        Some(free)
    }

    /// The acceptance has its work: the lease begins. It is on disk before the acceptance goes out.
    pub(super) fn acceptance_ready(&mut self, acceptance: Acceptance, ready: announce::Ready, close_feerate: u64) {
        let announce::Ready { hash, message, .. } = ready;
        self.promised.remove(&acceptance.task);
        let Some(task) = self.book.known.get(&acceptance.task).map(|known| known.task.clone()) else { return };
        let Some(seller) = &self.seller else { return };
        let id = LeaseId::of(&acceptance.task, &hash);
        let channel_secret = match self.shared.wallet.fresh_key() {
            Ok(key) => Secret(key),
            Err(error) => return tracing::error!(%error, "no key for a channel: the task is not taken"),
        };
        let size = xennet_meter::Size {
            cores: acceptance.compute.cores,
            memory_mib: acceptance.memory_mib,
            disk_mib: acceptance.disk_mib,
            persistent_mib: acceptance.persistent_mib,
        };
        let side = NodeSide {
            guest_key: None,
            channel_secret,
            policy: self.shared.config.policy.clone(),
            own_figures: Figures { cores: size.cores, memory_mib: size.memory_mib, disk_mib: size.disk_mib, ..seller.figures },
            close_feerate_sat_per_kvb: close_feerate,
            patience_ms: u64::try_from(self.shared.config.patience.as_millis()).unwrap_or(u64::MAX),
            block_s: self.shared.config.chain.block_s(),
            paused_since_ms: None,
            asked_destination: false,
            acceptance: message.clone(),
        };
        let tip = self.shared.anchors.tip();
        let task_hash = acceptance.task;
        let lease = Lease::new(task, task_hash, acceptance, hash, Side::Node(side), tip, clock::unix_ms());
        let entry = lease.record(clock::unix_ms(), LedgerKind::Accepted, "");
        self.adopt(lease, 0);
        self.decided.push((id, entry));
        self.outgoing.push(message);
        self.feed(id, Input::Start);
        self.stage_changed(id);
    }

    pub(super) fn acceptance_failed(&mut self, task: AnnouncementHash, why: String) {
        self.promised.remove(&task);
        tracing::warn!(%task, %why, "the acceptance could not be made");
        if let Some(known) = self.book.known.get_mut(&task) {
            known.taken = false;
            known.refusals = vec![why];
        }
    }

    /// A proposal on the overlay. Whose it is shows only when it is opened.
    pub(super) fn on_proposal(&mut self, sealed: &Sealed) {
        let secret = self.shared.keys.identity(Role::Node).secret_key();
        let Ok(proposal) = sealed.open(&secret) else { return };
        let id = proposal.lease_id();
        let from_publisher = |running: &super::Running| running.lease.task.publisher == sealed.publisher;
        if self.leases.get(&id).is_some_and(from_publisher) {
            self.feed(id, Input::Proposal(proposal));
        }
    }

    /// The same proposal, in the tunnel. It passes the same inspection.
    pub(super) fn proposal_in_tunnel(&mut self, id: LeaseId, announcement: &str) {
        let Ok(message) = hex::decode(announcement) else { return };
        let Ok(inspected) = self.shared.inspector.inspect(&message, clock::unix_s()) else {
            tracing::warn!(lease = %id, "a proposal in the tunnel that does not pass inspection");
            return;
        };
        if let (Some(&TAG_BARE), Announcement { said: Said::Proposal(sealed), .. }) = (message.first(), &inspected.announcement) {
            self.on_proposal(sealed);
        } else {
            tracing::warn!(lease = %id, "what came in the tunnel as a proposal is none");
        }
    }

    pub(super) fn dial(&mut self, id: LeaseId) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        if running.dialer.is_some() {
            return;
        }
        let target = running.target.subscribe();
        let config = DialConfig {
            address: running.lease.task.address,
            host_key: running.lease.task.ssh_host_key,
            user: id.to_string(),
            key_seed: self.shared.keys.derive("node ssh", &running.lease.task_hash.0),
            pipe: machine::pipe_name(id),
            target,
        };
        running.dialer = Some(Dialer::start(config, self.tunnel_events.clone()));
    }

    /// Mines the identity in the background, so that it is there when it is needed.
    pub(super) fn mine_identity(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let role = shared.config.role;
            match shared.identity(role).await {
                Ok(identity) => {
                    tracing::info!(id = %identity.id(), "identity");
                    let text = format!("identity {} is mined", identity.id());
                    shared.tell(What::Notice { text });
                }
                Err(error) => tracing::warn!("no identity: {error:#}"),
            }
        });
    }
}
