//! Does the node take the proposal?

use std::time::Duration;

use xennet_meter::{Figures, Size, interval_price};
use xennet_task::{Acceptance, PayoutInterval, Proposal, Task};

use crate::consider::{payout_reason, price_reasons};
use crate::price::percent_of;
use crate::{Clause, NodePolicy, Reason};

/// Whether the node takes the proposal for the machine it accepted to give, by its own figures and its policy. Keys and heights
/// of the channel are checked where the channel is.
///
/// # Errors
/// Everything that stands against it.
pub fn consider_proposal(
    proposal: &Proposal,
    task: &Task,
    chosen: &Acceptance,
    own: &Figures,
    policy: &NodePolicy,
    now_unix: u32,
) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    if proposal.task != chosen.task {
        let (named, ours) = (proposal.task.to_string(), chosen.task.to_string());
        reasons.push(Reason::OtherTask { what: "the proposal".to_owned(), named, ours });
    }
    if proposal.expires_at <= now_unix {
        let expires_at = proposal.expires_at;
        reasons.push(Reason::Expired { what: "the proposal".to_owned(), expires_at, now: now_unix });
    }
    let least = percent_of(own.core_mhz, 100_u8.saturating_sub(policy.figures_tolerance_percent));
    if proposal.core_mhz < least {
        reasons.push(Reason::Clock { proposed: proposal.core_mhz, own: own.core_mhz, least });
    }
    let size = Size::from(chosen);
    reasons.extend(offer_reasons(proposal, task, &size, policy));
    reasons.extend(price_reasons(&proposal.rates, proposal.core_mhz, &size, own.core_mhz, policy));
    if proposal.payout == task.payout {
        reasons.extend(payout_reason(proposal.payout, &proposal.rates, &size, proposal.core_mhz, policy));
    } else {
        let (proposed_s, announced_s) = (signed_seconds(proposal.payout), signed_seconds(task.payout));
        reasons.push(Reason::Payout { proposed_s, announced_s });
    }
    reasons.extend(lease_reasons(proposal, task, &size, policy));
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Whether the proposal still pays about what the task announced, for the parts that this machine has.
fn offer_reasons(proposal: &Proposal, task: &Task, size: &Size, policy: &NodePolicy) -> Vec<Reason> {
    let (now, then) = (&proposal.rates, &task.rates);
    let parts = [
        (Clause::CpuRate, now.cpu_msat_per_ghz_hour, then.cpu_msat_per_ghz_hour, 1),
        (Clause::MemoryRate, now.memory_msat_per_gib_hour, then.memory_msat_per_gib_hour, size.memory_mib),
        (Clause::DiskRate, now.disk_msat_per_gib_hour, then.disk_msat_per_gib_hour, size.disk_mib),
        (Clause::PersistentRate, now.persistent_msat_per_gib_hour, then.persistent_msat_per_gib_hour, size.persistent_mib),
        (Clause::TrafficRate, now.traffic_msat_per_gb, then.traffic_msat_per_gb, 1),
    ];
    let mut reasons = Vec::new();
    for (clause, proposed, announced, has) in parts {
        // Rounded down, as the publisher rounds when it pays in proportion.
        let least = u128::from(announced) * u128::from(policy.least_of_offer_percent) / 100;
        let least = u64::try_from(least).unwrap_or(u64::MAX);
        if has > 0 && proposed < least {
            reasons.push(Reason::BelowOffer { clause, proposed, announced, least });
        }
    }
    reasons
}

/// Whether the time is as agreed, and whether the channel can pay for the shortest time worth it.
fn lease_reasons(proposal: &Proposal, task: &Task, size: &Size, policy: &NodePolicy) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let min = task.lease.min.max(policy.min_lease);
    let max = task.lease.max.min(policy.max_lease);
    if proposal.lease < min || proposal.lease > max {
        reasons.push(Reason::LeaseOutside { proposed_s: proposal.lease.as_secs(), min_s: min.as_secs(), max_s: max.as_secs() });
    }
    let worth: Duration = min.min(proposal.lease);
    let least_sat = interval_price(&proposal.rates, size, proposal.core_mhz, worth).0.div_ceil(1_000);
    if proposal.capacity_sat < least_sat {
        let (capacity_sat, for_s) = (proposal.capacity_sat, worth.as_secs());
        reasons.push(Reason::Capacity { capacity_sat, least_sat, for_s });
    }
    reasons
}

fn signed_seconds(payout: PayoutInterval) -> i64 {
    let seconds = |interval: Duration| i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
    match payout {
        PayoutInterval::InArrears(interval) => seconds(interval),
        PayoutInterval::InAdvance(interval) => -seconds(interval),
    }
}
