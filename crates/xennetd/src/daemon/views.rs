//! What the loop shows of its inside.

use xennet_identity::Role;
use xennet_lease::{EndReason, Lease, Side as LeaseSide, Stage};
use xennet_rama::Spend;
use xennet_task::AnnouncementHash;

use super::{Daemon, Running, machine};
use crate::control::{BalanceView, IdentityView, LeaseStage, LeaseView, RenewalView, StatusView, TaskView};

/// The stage as people see it: the lease's own, with the ways out of it told apart.
pub fn stage_of(lease: &Lease) -> LeaseStage {
    match &lease.stage {
        Stage::Accepted => LeaseStage::Accepted,
        Stage::Connected => LeaseStage::Connected,
        Stage::Measuring => LeaseStage::Measuring,
        Stage::Proposed => LeaseStage::Proposed,
        Stage::Agreed => LeaseStage::Agreed,
        Stage::Live if lease.link.is_err() => LeaseStage::Interrupted,
        Stage::Live => LeaseStage::Live,
        Stage::Closing { .. } => LeaseStage::Closing,
        Stage::Settled { spend: Spend::Refund { .. }, .. } => LeaseStage::Refunded,
        Stage::Settled { .. } => LeaseStage::Settled,
        Stage::Ended {
            reason:
                EndReason::MachineRefused(_) | EndReason::ProposalRefused(_) | EndReason::CloseFeerate { .. } | EndReason::CloseTooDear { .. },
        } => LeaseStage::Refused,
        Stage::Ended { .. } => LeaseStage::Ended,
    }
}

/// Why a lease ends or has ended.
pub fn reasons_of(lease: &Lease) -> Vec<String> {
    let waits = "it came out of a backup, and nothing is signed before the other side has said what was signed since";
    match &lease.stage {
        Stage::Closing { reason } if lease.awaits_the_other_side() => vec![reason.to_string(), waits.to_owned()],
        Stage::Closing { reason } => vec![reason.to_string()],
        Stage::Ended { reason: EndReason::MachineRefused(reasons) | EndReason::ProposalRefused(reasons) } => reasons.clone(),
        Stage::Ended { reason } => vec![reason.to_string()],
        _ if lease.awaits_the_other_side() => vec![waits.to_owned()],
        _ => Vec::new(),
    }
}

/// One lease.
pub fn lease_view(running: &Running) -> LeaseView {
    let lease = &running.lease;
    let (side, peer) = match lease.side {
        LeaseSide::Publisher(_) => (Role::Publisher, lease.acceptance.node.id()),
        LeaseSide::Node(_) => (Role::Node, lease.task.publisher.id()),
    };
    let account = lease.account.as_ref();
    let size = lease.size();
    LeaseView {
        lease: lease.id,
        side,
        stage: stage_of(lease),
        stage_since_ms: lease.stage_since_ms,
        accepted_at_ms: lease.accepted_at_ms,
        live_since_ms: lease.live_since_ms,
        ends_at_ms: lease.ends_at_ms(),
        peer: peer.to_string(),
        task: lease.task_hash,
        operating_system: lease.acceptance.operating_system.clone(),
        compute: lease.acceptance.compute,
        memory_mib: size.memory_mib,
        disk_mib: size.disk_mib,
        persistent_mib: size.persistent_mib,
        tunnel_up: lease.link.is_ok(),
        network: running.machine.as_ref().and_then(machine::Machine::network),
        vm: lease.machine.as_ref().map(|machine| format!("{}, up in {} ms", machine.accelerator, machine.boot_ms)),
        figures: lease.figures,
        rates: lease.proposal.map(|proposal| proposal.rates),
        payout: lease.proposal.map(|proposal| proposal.payout),
        totals: lease.totals(),
        funding_txid: account.and_then(|account| account.channel.outpoint).map(|outpoint| outpoint.txid.to_string()),
        close_txid: account.and_then(|account| account.channel.ending).map(|ending| ending.txid.to_string()),
        guest_host_key: lease.guest_host_key.map(hex::encode),
        renewal: renewal_of(lease),
        not_renewed: lease.not_renewed.clone(),
        rented: running.rented,
        reasons: reasons_of(lease),
    }
}

fn renewal_of(lease: &Lease) -> Option<RenewalView> {
    let renewal = lease.next.as_ref()?;
    let funding = renewal.channel.as_ref().and_then(|channel| channel.outpoint);
    Some(RenewalView {
        adds_s: renewal.adds_s,
        capacity_sat: renewal.capacity_sat,
        agreed: renewal.channel.is_some(),
        funding_txid: funding.map(|outpoint| outpoint.txid.to_string()),
    })
}

impl Daemon {
    pub(super) fn task_view(&self, hash: &AnnouncementHash) -> Option<TaskView> {
        let known = self.book.known.get(hash)?;
        let own = self.book.own.get(hash);
        let task = &known.task;
        let of_task = |running: &&Running| running.lease.task_hash == *hash && !running.lease.is_over();
        Some(TaskView {
            task: *hash,
            id: task.id,
            own: own.is_some(),
            state: own.map_or(crate::control::TaskState::Open, |own| own.state),
            publisher: task.publisher.id().to_string(),
            address: task.address,
            txid: known.txid.map(|txid| txid.to_string()),
            confirmed_height: known.height,
            work_bits: known.work_bits,
            machines: task.machines,
            leases: u32::try_from(self.leases.values().filter(of_task).count()).unwrap_or(u32::MAX),
            operating_systems: task.requirements.operating_systems.clone(),
            compute: task.requirements.compute.clone(),
            memory_per_core_mib: task.requirements.memory_per_core_mib,
            disk_mib: task.requirements.storage.size_mib,
            persistent_mib: task.requirements.persistent_mib,
            lease_min_s: task.lease.min.as_secs(),
            lease_max_s: task.lease.max.as_secs(),
            payout: task.payout,
            rates: task.rates,
            expires_at: task.expires_at,
            info: task.info.clone(),
            refusals: known.refusals.clone(),
        })
    }

    /// Satoshi in channels that are open.
    pub(super) fn locked_sat(&self) -> u64 {
        self.leases
            .values()
            .filter(|running| !running.lease.is_over() && matches!(running.lease.side, LeaseSide::Publisher(_)))
            .map(|running| running.lease.locked_sat())
            .fold(0, u64::saturating_add)
    }

    pub(super) fn identity_view(&self, role: Role) -> IdentityView {
        let mined = self.shared.mined(role);
        IdentityView {
            role,
            key: self.shared.keys.identity(role).public_key().to_string(),
            id: mined.map(|identity| identity.id().to_string()),
            anchor_height: mined.map(|identity| identity.anchor.height),
            nonce: mined.map(|identity| identity.nonce),
            mining: None,
        }
    }

    /// The daemon as a whole; the wallet and the chain are asked outside the loop.
    pub(super) fn status_view(&self) -> StatusView {
        let config = &self.shared.config;
        let counters = self.shared.overlay.counters();
        let dropped = counters.rejected.iter().chain(&counters.ignored).map(|(reason, count)| ((*reason).to_owned(), *count));
        let tip_height = self.shared.anchors.tip();
        let mut tip_hash = self.shared.anchors.get(tip_height).unwrap_or_default();
        tip_hash.reverse();
        let open = self.leases.values().filter(|running| !running.lease.is_over()).count();
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            data_dir: config.data_dir.display().to_string(),
            role: config.role,
            started_at: self.started_at,
            identity: self.identity_view(config.role),
            chain_source: self.shared.chain.source_name().to_owned(),
            network: self.shared.chain.network().to_string(),
            tip_height,
            tip_hash: hex::encode(tip_hash),
            chain_lost: self.chain_lost.clone(),
            disk_failing: self.trouble.as_ref().map(|trouble| trouble.why.clone()),
            balance: BalanceView::default(),
            overlay_listen: self.shared.overlay.listen_addresses().iter().map(ToString::to_string).collect(),
            overlay_peers: self.peers,
            announcements_relayed: counters.relayed,
            announcements_dropped: dropped.collect(),
            tunnel_listen: self.listener.as_ref().map(xennet_tunnel::Listener::local_addr),
            outbound: (config.role == Role::Node).then(|| config.guest_network.policy.to_string()),
            accelerator: self.seller.as_ref().map(|seller| machine::name_of(&seller.accelerator).to_owned()),
            tasks: u32::try_from(self.book.known.len()).unwrap_or(u32::MAX),
            leases_open: u32::try_from(open).unwrap_or(u32::MAX),
            locked_sat: self.locked_sat(),
        }
    }
}
