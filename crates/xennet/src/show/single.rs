//! One thing at a time, as lines `name: value`.

use std::fmt::Display;

use xennetd::control::{BalanceView, IdentityView, LeaseView, StatusView, TaskView};

use super::{tame, units};

/// Lines `name: value`, the values under each other.
#[derive(Default)]
struct Lines(Vec<(&'static str, String)>);

impl Lines {
    fn add(&mut self, name: &'static str, value: impl Display) -> &mut Lines {
        self.0.push((name, value.to_string()));
        self
    }

    fn maybe<T: Display>(&mut self, name: &'static str, value: Option<T>) -> &mut Lines {
        if let Some(value) = value {
            self.add(name, value);
        }
        self
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 1;
        self.0.iter().map(|(name, value)| format!("{:<width$} {value}\n", format!("{name}:"))).collect()
    }
}

/// What the wallet holds.
pub fn balance(balance: &BalanceView) -> String {
    let mut lines = Lines::default();
    lines
        .add("confirmed", units::sat(balance.confirmed_sat))
        .add("pending", units::sat(balance.pending_sat))
        .add("locked in channels", units::sat(balance.locked_sat));
    lines.text()
}

/// One identity.
pub fn identity(identity: &IdentityView) -> String {
    let mut lines = Lines::default();
    lines.add("role", identity.role).add("key", &identity.key);
    match &identity.id {
        Some(id) => lines.add("id", id),
        None => lines.add("id", "not mined yet; `xennet identity mine` mines it"),
    };
    lines.maybe("anchored to block", identity.anchor_height).maybe("nonce", identity.nonce);
    lines.text()
}

/// All identities.
pub fn identities(all: &[IdentityView]) -> String {
    all.iter().map(identity).collect::<Vec<_>>().join("\n")
}

/// One task.
pub fn task(task: &TaskView) -> String {
    let mut lines = Lines::default();
    lines
        .add("task", task.task)
        .add("number", task.id)
        .maybe("announced by transaction", task.txid.as_deref())
        .add("work", format!("{} bits", task.work_bits))
        .add("machines", task.machines)
        .add("nodes dial", task.address)
        .add("pays", units::payout(&task.payout))
        .add("valid until", format!("{} UTC", units::time(u64::from(task.expires_at))));
    lines.text()
}

/// One lease.
pub fn lease(lease: &LeaseView) -> String {
    let mut lines = Lines::default();
    lines.add("lease", lease.lease).add("stage", lease.stage.name()).add("task", lease.task).add("peer", &lease.peer).add(
        "machine",
        format!(
            "{} × {} MHz, memory {}, disk {}",
            lease.compute.cores,
            lease.compute.mhz,
            units::mib(lease.memory_mib),
            units::mib(lease.disk_mib)
        ),
    );
    if let Some(totals) = &lease.totals {
        lines
            .add("payments", totals.payments)
            .add("owed for use", units::msat(totals.owed_msat))
            .add("paid", units::sat(totals.total_sat))
            .add("of it for the closing fee", units::sat(totals.close_reserve_sat.min(totals.total_sat)))
            .add("in the channel", units::sat(totals.capacity_sat));
    }
    lines.maybe("agreed until", lease.ends_at_ms.map(|ms| format!("{} UTC", units::time(ms / 1000))));
    if let Some(renewal) = &lease.renewal {
        let how = match &renewal.funding_txid {
            Some(txid) => format!("channel funded by {txid}, takes over when blocks have buried it"),
            None if renewal.agreed => "the node agrees, the channel is being funded".into(),
            None => "the node was asked".into(),
        };
        lines.add("renewal", format!("{} more, {}; {how}", units::seconds(renewal.adds_s), units::sat(renewal.capacity_sat)));
    }
    if let Some(network) = &lease.network {
        lines
            .add("outbound", format!("{}, {} flows opened, {} turned away", network.outbound, network.opened, network.refused))
            .add("network", format!("{} out of the machine, {} into it", units::bytes(network.out_bytes), units::bytes(network.in_bytes)));
    }
    lines.maybe("not renewed", lease.not_renewed.as_deref().map(tame));
    lines.maybe("funded by", lease.funding_txid.as_deref()).maybe("settled by", lease.close_txid.as_deref());
    for reason in &lease.reasons {
        lines.add("reason", tame(reason));
    }
    lines.text()
}

/// How the daemon is.
pub fn status(status: &StatusView, now_s: u64) -> String {
    let mut lines = Lines::default();
    let uptime = units::seconds(now_s.saturating_sub(status.started_at));
    lines
        .add("daemon", format!("{} {}, pid {}, up {uptime}", status.role, status.version, status.pid))
        .add("data directory", &status.data_dir)
        .add("identity", status.identity.id.as_deref().unwrap_or("not mined yet"))
        .add("chain", format!("{} ({}), height {}, {}", status.network, status.chain_source, status.tip_height, status.tip_hash))
        .maybe("chain is away", status.chain_lost.as_deref().map(tame))
        .maybe("disk is failing", status.disk_failing.as_deref().map(tame))
        .add(
            "wallet",
            format!("{} confirmed, {} pending", units::sat(status.balance.confirmed_sat), units::sat(status.balance.pending_sat)),
        )
        .add("locked in channels", units::sat(status.locked_sat));
    let listen = if status.overlay_listen.is_empty() {
        "listens on no port".into()
    } else {
        format!("listens on {}", status.overlay_listen.join(", "))
    };
    let dropped: u64 = status.announcements_dropped.iter().map(|(_, count)| count).sum();
    lines.add("overlay", format!("{} peers, {listen}", status.overlay_peers)).add(
        "announcements",
        format!("{} passed on, {dropped} dropped{}", status.announcements_relayed, reasons(&status.announcements_dropped)),
    );
    lines
        .maybe("nodes dial", status.tunnel_listen)
        .maybe("guests run by", status.accelerator.as_deref())
        .maybe("guests may reach", status.outbound.as_deref())
        .add("tasks", status.tasks)
        .add("open leases", status.leases_open);
    lines.text()
}

fn reasons(dropped: &[(String, u64)]) -> String {
    let parts: Vec<String> = dropped.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{reason}: {count}")).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", tame(&parts.join(", "))) }
}
