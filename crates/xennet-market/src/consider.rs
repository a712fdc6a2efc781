//! May this node take that task?

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_meter::{Size, interval_price};
use xennet_task::{Compute, PayoutInterval, Rates, Requirements, Task};

use crate::{Clause, Dial, NodePolicy, Payment, Reason};

/// Memory of the smallest machine that boots the thin image, MiB. A task that asks for less, or for none, gets this.
pub const LEAST_MEMORY_MIB: u32 = 256;
/// Temporary disk of the smallest machine, MiB: the benchmark needs some room. A task that asks for less gets this.
pub const LEAST_DISK_MIB: u32 = 256;

/// What a node has to give at the moment, to one more lease.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Operating systems it can boot, its favourite first.
    pub operating_systems: Vec<String>,
    /// Free cores.
    pub cores: u16,
    /// Clock of a core inside a guest, as the benchmark measures it, MHz. Under emulation a few hundred.
    pub core_mhz: u32,
    /// Free memory, MiB.
    pub memory_mib: u32,
    /// Free temporary disk, MiB.
    pub disk_mib: u32,
    /// Free persistent storage, MiB.
    pub persistent_mib: u32,
    /// Network bandwidth, kbit/s.
    pub bandwidth_kbit_s: u32,
    /// Memory speed, MB/s.
    pub memory_mb_s: u32,
    /// Disk speed, MB/s.
    pub disk_mb_s: u32,
}

/// The machine a node chooses to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// One of the task's operating systems, or the node's favourite if the task names none.
    pub operating_system: String,
    /// One of the task's alternatives, or one core of any clock.
    pub compute: Compute,
    /// Memory in all, MiB.
    pub memory_mib: u32,
    /// Temporary disk, MiB.
    pub disk_mib: u32,
    /// Persistent storage, MiB.
    pub persistent_mib: u32,
}

impl From<&Choice> for Size {
    fn from(choice: &Choice) -> Size {
        Size {
            cores: choice.compute.cores,
            memory_mib: choice.memory_mib,
            disk_mib: choice.disk_mib,
            persistent_mib: choice.persistent_mib,
        }
    }
}

/// Whether a task carries the work this node wants. Cheap; ask it first.
///
/// # Errors
/// [`Reason::Work`].
pub fn check_work(committed: u8, policy: &NodePolicy) -> Result<(), Reason> {
    let least = policy.min_task_work_bits;
    if committed < least {
        return Err(Reason::Work { committed, least });
    }
    Ok(())
}

/// Whether this node may take the task, and with which machine. Of the alternatives that fit it chooses the one with the most
/// cores, because that pays most, and among those the one that asks for the slowest.
///
/// # Errors
/// Everything that stands against it, so that a publisher can put all of it right at once.
pub fn consider(task: &Task, have: &Capabilities, policy: &NodePolicy, now_unix: u32) -> Result<Choice, Vec<Reason>> {
    let mut reasons = Vec::new();
    if task.expires_at <= now_unix {
        reasons.push(Reason::Expired { what: "the task".to_owned(), expires_at: task.expires_at, now: now_unix });
    }
    if task.acceptance_work_bits > policy.max_acceptance_work_bits {
        let most = policy.max_acceptance_work_bits;
        reasons.push(Reason::AcceptanceWork { asked: task.acceptance_work_bits, most });
    }
    reasons.extend(address_reason(task.address, policy.dial));
    reasons.extend(terms_reasons(task, policy));

    let asked = &task.requirements;
    let operating_system = choose_system(asked, have);
    if operating_system.is_none() {
        reasons.push(Reason::OperatingSystem { asked: asked.operating_systems.clone(), have: have.operating_systems.clone() });
    }
    let disk_mib = asked.storage.size_mib.max(LEAST_DISK_MIB);
    for (clause, asked, have) in [
        (Clause::Disk, disk_mib, have.disk_mib),
        (Clause::DiskSpeed, asked.storage.mb_s, have.disk_mb_s),
        (Clause::Persistent, asked.persistent_mib, have.persistent_mib),
        (Clause::Bandwidth, asked.bandwidth_kbit_s, have.bandwidth_kbit_s),
        (Clause::MemorySpeed, asked.memory_mb_s, have.memory_mb_s),
    ] {
        if asked > have {
            reasons.push(Reason::NotThere { clause, asked: asked.into(), have: have.into() });
        }
    }
    let compute = match choose_compute(asked, have) {
        Ok(compute) => compute,
        Err(why) => {
            reasons.extend(why);
            return Err(reasons);
        }
    };
    let choice = Choice {
        operating_system: operating_system.unwrap_or_default(),
        compute,
        memory_mib: memory_mib(asked, compute.cores),
        disk_mib,
        persistent_mib: asked.persistent_mib,
    };
    let size = Size::from(&choice);
    reasons.extend(price_reasons(&task.rates, have.core_mhz, &size, have.core_mhz, policy));
    reasons.extend(payout_reason(task.payout, &task.rates, &size, have.core_mhz, policy));
    if reasons.is_empty() { Ok(choice) } else { Err(reasons) }
}

/// What a machine of so many cores must have, MiB.
pub(crate) fn memory_mib(asked: &Requirements, cores: u16) -> u32 {
    asked.memory_per_core_mib.saturating_mul(cores.into()).max(LEAST_MEMORY_MIB)
}

/// The alternatives of a task; one core of any clock if it lists none.
pub(crate) fn alternatives(asked: &Requirements) -> &[Compute] {
    const ANY: &[Compute] = &[Compute { cores: 1, mhz: 0 }];
    if asked.compute.is_empty() { ANY } else { &asked.compute }
}

/// Whether the time of a machine, and traffic, are paid at least the floor. `core_mhz` is what the rates are offered for,
/// `own_mhz` what the node measured.
pub(crate) fn price_reasons(rates: &Rates, core_mhz: u32, size: &Size, own_mhz: u32, policy: &NodePolicy) -> Vec<Reason> {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut reasons = Vec::new();
    let offered = interval_price(rates, size, core_mhz, HOUR).0;
    let floor = interval_price(&policy.floor, size, own_mhz, HOUR).0;
    if offered < floor {
        let cpu = rates.cpu_msat_per_ghz_hour;
        let mhz = (u128::from(core_mhz) * u128::from(size.cores)).max(1);
        let more = (u128::from(floor - offered) * 1_000).div_ceil(mhz);
        reasons.push(Reason::Price {
            offered_msat: offered,
            floor_msat: floor,
            cpu_msat_per_ghz_hour: cpu,
            fix_msat_per_ghz_hour: cpu.saturating_add(u64::try_from(more).unwrap_or(u64::MAX)),
        });
    }
    if rates.traffic_msat_per_gb < policy.floor.traffic_msat_per_gb {
        reasons.push(Reason::Traffic { offered_msat: rates.traffic_msat_per_gb, floor_msat: policy.floor.traffic_msat_per_gb });
    }
    reasons
}

/// Whether the node can wait that long for that much.
pub(crate) fn payout_reason(payout: PayoutInterval, rates: &Rates, size: &Size, core_mhz: u32, policy: &NodePolicy) -> Option<Reason> {
    let PayoutInterval::InArrears(interval) = payout else { return None };
    let interval_s = interval.as_secs();
    if policy.payment == Payment::AdvanceOnly {
        return Some(Reason::Arrears { interval_s });
    }
    if interval > policy.max_interval {
        return Some(Reason::Interval { interval_s, most_s: policy.max_interval.as_secs() });
    }
    let price_msat = interval_price(rates, size, core_mhz, interval).0;
    let most_msat = policy.max_exposure_msat;
    let fix = u128::from(interval_s) * u128::from(most_msat) / u128::from(price_msat.max(1));
    let fix_s = u64::try_from(fix).unwrap_or(u64::MAX);
    (price_msat > most_msat).then_some(Reason::Exposure { interval_s, price_msat, most_msat, fix_s })
}

fn terms_reasons(task: &Task, policy: &NodePolicy) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if task.lease.max < policy.min_lease || task.lease.min > policy.max_lease {
        reasons.push(Reason::Lease {
            asked_min_s: task.lease.min.as_secs(),
            asked_max_s: task.lease.max.as_secs(),
            min_s: policy.min_lease.as_secs(),
            max_s: policy.max_lease.as_secs(),
        });
    }
    if task.proposal_within < policy.min_proposal_time {
        reasons.push(Reason::ProposalTime { given_s: task.proposal_within.as_secs(), least_s: policy.min_proposal_time.as_secs() });
    }
    reasons
}

fn choose_system(asked: &Requirements, have: &Capabilities) -> Option<String> {
    if asked.operating_systems.is_empty() {
        return have.operating_systems.first().cloned();
    }
    asked.operating_systems.iter().find(|name| have.operating_systems.contains(name)).cloned()
}

/// The alternative to take; or why even the nearest one cannot be.
fn choose_compute(asked: &Requirements, have: &Capabilities) -> Result<Compute, Vec<Reason>> {
    let lacks = |compute: &Compute| {
        [
            (Clause::Cores, u32::from(compute.cores), u32::from(have.cores)),
            (Clause::Clock, compute.mhz, have.core_mhz),
            (Clause::Memory, memory_mib(asked, compute.cores), have.memory_mib),
        ]
        .into_iter()
        .filter(|(_, asked, have)| asked > have)
        .map(|(clause, asked, have)| Reason::NotThere { clause, asked: asked.into(), have: have.into() })
        .collect::<Vec<_>>()
    };
    let fitting = alternatives(asked).iter().filter(|compute| lacks(compute).is_empty());
    if let Some(best) = fitting.max_by_key(|compute| (compute.cores, Reverse(compute.mhz))) {
        return Ok(*best);
    }
    let nearest = alternatives(asked).iter().map(lacks).min_by_key(|reasons| (reasons.len(), shortage(reasons)));
    Err(nearest.unwrap_or_default())
}

/// How far off, thousandths of what is there.
fn shortage(reasons: &[Reason]) -> u64 {
    let one = |reason: &Reason| match reason {
        Reason::NotThere { asked, have, .. } => asked.saturating_mul(1_000) / (*have).max(1),
        _ => 0,
    };
    reasons.iter().map(one).fold(0, u64::saturating_add)
}

fn address_reason(address: SocketAddr, dial: Dial) -> Option<Reason> {
    let ip = address.ip().to_canonical();
    let nowhere = ip.is_unspecified() || ip.is_multicast() || address.port() == 0;
    let why = match dial {
        _ if nowhere => "is no address a server can have",
        Dial::PublicOnly if !is_public(ip) => "is not a public address",
        _ => return None,
    };
    let dials = match dial {
        Dial::Anywhere => "addresses of one host, with a port",
        Dial::PublicOnly => "public addresses",
    };
    Some(Reason::Address { address, why: why.to_owned(), dials: dials.to_owned() })
}

/// Whether an address belongs to the public internet, as far as its number says.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_broadcast() || shared || a == 0 || a >= 240)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}
