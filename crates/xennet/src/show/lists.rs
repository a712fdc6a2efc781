//! Tables of tasks, leases and ledger lines.

use xennetd::control::{LeaseView, LedgerPage, Msat, TaskView, Usage};

use super::table::{Align, Table};
use super::{short, tame, units};

/// Tasks.
pub fn tasks(tasks: &[TaskView]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("TASK", Left),
        ("STATE", Left),
        ("FROM", Left),
        ("LEASED", Right),
        ("MACHINE", Left),
        ("LASTS", Left),
        ("PAYS", Left),
        ("CPU msat/GHz·h", Right),
        ("EXPIRES", Left),
    ]);
    for task in tasks {
        table.row(vec![
            short(task.task),
            word(&task.state),
            if task.own { "here".into() } else { short(&task.publisher) },
            format!("{} of {}", task.leases, task.machines),
            wanted(task),
            format!("{} to {}", units::seconds(task.lease_min_s), units::seconds(task.lease_max_s)),
            units::payout(&task.payout),
            units::grouped(task.rates.cpu_msat_per_ghz_hour),
            units::time(u64::from(task.expires_at)),
        ]);
        table.note(tame(&task.refusals.iter().map(|reason| format!("not taken: {reason}")).collect::<Vec<_>>().join("; ")));
    }
    or_none(&table, "No tasks. `xennet publish task.toml` announces one.")
}

/// What a task asks of a machine, in short: `1 × 100 MHz or 2 × 100 MHz, 256 MiB a core, disk 512 MiB`.
fn wanted(task: &TaskView) -> String {
    let compute: Vec<String> = task.compute.iter().map(|c| format!("{} × {} MHz", c.cores, c.mhz)).collect();
    let mut parts = vec![if compute.is_empty() { "any".into() } else { compute.join(" or ") }];
    if task.memory_per_core_mib > 0 {
        parts.push(format!("{} a core", units::mib(task.memory_per_core_mib)));
    }
    if task.disk_mib > 0 {
        parts.push(format!("disk {}", units::mib(task.disk_mib)));
    }
    if task.persistent_mib > 0 {
        parts.push(format!("persistent {}", units::mib(task.persistent_mib)));
    }
    parts.join(", ")
}

/// Leases.
pub fn leases(leases: &[LeaseView], now_ms: u64) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("LEASE", Left),
        ("SIDE", Left),
        ("STAGE", Left),
        ("FOR", Right),
        ("TASK", Left),
        ("PEER", Left),
        ("MACHINE", Left),
        ("PAYMENTS", Right),
        ("USE OWED", Right),
        ("PAID", Right),
        ("OF IT FEE", Right),
    ]);
    for lease in leases {
        let totals = lease.totals.unwrap_or_default();
        table.row(vec![
            lease.lease.to_string(),
            lease.side.to_string(),
            lease.stage.name().into(),
            units::seconds(now_ms.saturating_sub(lease.stage_since_ms) / 1000),
            short(lease.task),
            short(&lease.peer),
            format!("{} × {} MHz, {}", lease.compute.cores, lease.compute.mhz, units::mib(lease.memory_mib)),
            totals.payments.to_string(),
            units::msat(totals.owed_msat),
            units::sat(totals.total_sat),
            units::sat(totals.close_reserve_sat.min(totals.total_sat)),
        ]);
        table.note(tame(&lease.reasons.join("; ")));
    }
    or_none(&table, "No leases.")
}

/// Lines of a ledger.
pub fn ledger(page: &LedgerPage) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("#", Right),
        ("TIME (UTC)", Left),
        ("WHAT", Left),
        ("CORE s", Right),
        ("MEMORY GiB·s", Right),
        ("DISK GiB·s", Right),
        ("TRAFFIC", Right),
        ("OWED", Right),
        ("PAID", Right),
        ("FEE", Right),
        ("NOTE", Left),
    ]);
    for (index, entry) in (page.from..).zip(&page.entries) {
        let Usage { core_ms, memory_mib_ms, disk_mib_ms, persistent_mib_ms, traffic_bytes } = entry.usage;
        let note = match &entry.txid {
            Some(txid) if entry.note.is_empty() => txid.clone(),
            Some(txid) => format!("{} {txid}", entry.note),
            None => entry.note.clone(),
        };
        table.row(vec![
            index.to_string(),
            units::time(entry.at_ms / 1000),
            word(&entry.kind),
            thousandths(core_ms),
            thousandths(memory_mib_ms / 1024),
            thousandths(disk_mib_ms.saturating_add(persistent_mib_ms) / 1024),
            units::bytes(traffic_bytes),
            units::msat(entry.owed),
            units::sat(entry.paid_sat),
            if entry.fee_sat == 0 { String::new() } else { units::sat(entry.fee_sat) },
            tame(&note),
        ]);
    }
    or_none(&table, "The ledger is empty.")
}

fn thousandths(milli: u64) -> String {
    units::msat(Msat(milli)).trim_end_matches(" sat").to_string()
}

/// The word JSON has for it.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn or_none(table: &Table, none: &str) -> String {
    if table.is_empty() { format!("{none}\n") } else { table.to_string() }
}
