//! What a publisher pays for the machine it measured.

use xennet_meter::Figures;
use xennet_task::{Acceptance, Compute, Rates, Task};

use crate::consider::{alternatives, memory_mib};
use crate::{Clause, LEAST_DISK_MIB, Reason};

/// How slow a part may be, percent of what was asked for. From there up to 100 its rate is paid in proportion; slower is
/// refused. Benchmarks in a shared machine vary, so a hard edge at 100 would refuse honest nodes.
pub const PRORATED_DOWN_TO_PERCENT: u8 = 75;

/// What the guest's kernel keeps for itself of its memory, MiB, besides 1/32 of it.
const KERNEL_MIB: u32 = 64;
/// What a file system takes of a small disk, MiB, besides 1/8 of it.
const FILE_SYSTEM_MIB: u32 = 32;

/// Whether an acceptance answers the task: something it asked for, and no more than it pays for.
///
/// # Errors
/// Everything that does not.
pub fn check_acceptance(task: &Task, accepted: &Acceptance, now_unix: u32) -> Result<(), Vec<Reason>> {
    let mut reasons = size_reasons(task, accepted);
    if accepted.expires_at <= now_unix {
        let expires_at = accepted.expires_at;
        reasons.push(Reason::Expired { what: "the acceptance".to_owned(), expires_at, now: now_unix });
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// What the publisher pays for each part of the machine: the announced rates, less in proportion where the machine is a little
/// slower than asked for. Cores need no such correction, because their rate is for a GHz as measured.
///
/// # Errors
/// Everything in which the machine falls short of the task or of what was accepted.
pub fn price(task: &Task, figures: &Figures, chosen: &Acceptance) -> Result<Rates, Vec<Reason>> {
    let mut reasons = size_reasons(task, chosen);
    let asked = &task.requirements;
    let bandwidth = figures.down_kbit_s.min(figures.up_kbit_s);
    let disk_speed = figures.disk_write_mb_s.min(figures.disk_read_mb_s);
    // A clock of 0 would make the cores free.
    let clock = chosen.compute.mhz.max(1);
    let prorated = |agreed: u32| percent_of(agreed, PRORATED_DOWN_TO_PERCENT);
    let kernel_mib = KERNEL_MIB.saturating_add(chosen.memory_mib / 32);
    let file_system_mib = FILE_SYSTEM_MIB.saturating_add(chosen.disk_mib / 8);
    for (clause, measured, agreed, least) in [
        (Clause::Cores, figures.cores.into(), chosen.compute.cores.into(), chosen.compute.cores.into()),
        (Clause::Clock, figures.core_mhz, clock, prorated(clock).max(1)),
        (Clause::Memory, figures.memory_mib, chosen.memory_mib, chosen.memory_mib.saturating_sub(kernel_mib)),
        (Clause::MemorySpeed, figures.memory_mb_s, asked.memory_mb_s, prorated(asked.memory_mb_s)),
        (Clause::Disk, figures.disk_mib, chosen.disk_mib, chosen.disk_mib.saturating_sub(file_system_mib)),
        (Clause::DiskSpeed, disk_speed, asked.storage.mb_s, prorated(asked.storage.mb_s)),
        (Clause::Bandwidth, bandwidth, asked.bandwidth_kbit_s, prorated(asked.bandwidth_kbit_s)),
    ] {
        if measured < least {
            let (measured, agreed, least) = (measured.into(), agreed.into(), least.into());
            reasons.push(Reason::Measured { clause, measured, agreed, least });
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let announced = &task.rates;
    Ok(Rates {
        memory_msat_per_gib_hour: in_proportion(announced.memory_msat_per_gib_hour, figures.memory_mb_s, asked.memory_mb_s),
        disk_msat_per_gib_hour: in_proportion(announced.disk_msat_per_gib_hour, disk_speed, asked.storage.mb_s),
        traffic_msat_per_gb: in_proportion(announced.traffic_msat_per_gb, bandwidth, asked.bandwidth_kbit_s),
        ..*announced
    })
}

/// Whether the accepted machine is one the task asked for.
fn size_reasons(task: &Task, accepted: &Acceptance) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let asked = &task.requirements;
    let systems = &asked.operating_systems;
    if !systems.is_empty() && !systems.contains(&accepted.operating_system) {
        reasons.push(Reason::OperatingSystem { asked: vec![accepted.operating_system.clone()], have: systems.clone() });
    }
    let Compute { cores, mhz } = accepted.compute;
    if !alternatives(asked).contains(&accepted.compute) {
        let one = |compute: &Compute| format!("{} × {} MHz", compute.cores, compute.mhz);
        let listed = alternatives(asked).iter().map(one).collect::<Vec<_>>().join(", ");
        reasons.push(Reason::NotListed { cores, mhz, listed });
    }
    for (clause, accepted, asked) in [
        (Clause::Memory, accepted.memory_mib, memory_mib(asked, cores)),
        (Clause::Disk, accepted.disk_mib, asked.storage.size_mib.max(LEAST_DISK_MIB)),
        (Clause::Persistent, accepted.persistent_mib, asked.persistent_mib),
    ] {
        let (accepted, asked) = (accepted.into(), asked.into());
        if accepted < asked {
            reasons.push(Reason::TooSmall { clause, accepted, asked });
        } else if accepted > asked {
            reasons.push(Reason::TooLarge { clause, accepted, most: asked });
        }
    }
    reasons
}

/// Rounded up, so that nothing is taken that is below the percentage.
pub(crate) fn percent_of(number: u32, percent: u8) -> u32 {
    let share = (u64::from(number) * u64::from(percent)).div_ceil(100);
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// `rate × measured / asked`, at most `rate`, rounded down.
fn in_proportion(rate: u64, measured: u32, asked: u32) -> u64 {
    if measured >= asked {
        return rate;
    }
    let part = u128::from(rate) * u128::from(measured) / u128::from(asked);
    u64::try_from(part).unwrap_or(rate)
}
