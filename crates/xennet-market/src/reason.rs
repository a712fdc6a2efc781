//! Why not.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A clause of a task, an acceptance or a proposal that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// Number of cores.
    Cores,
    /// Clock of each core.
    Clock,
    /// Memory.
    Memory,
    /// Memory speed.
    MemorySpeed,
    /// Temporary disk.
    Disk,
    /// Speed of the temporary disk.
    DiskSpeed,
    /// Persistent storage.
    Persistent,
    /// Network bandwidth.
    Bandwidth,
    /// Rate for cores.
    CpuRate,
    /// Rate for memory.
    MemoryRate,
    /// Rate for temporary disk.
    DiskRate,
    /// Rate for persistent storage.
    PersistentRate,
    /// Rate for traffic.
    TrafficRate,
}

/// Why a task, a machine or a proposal is refused. Each names the clause, both numbers and the nearest fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// It is void.
    #[error("expires_at: {what} was valid until {expires_at}, now it is {now} (unix seconds); send a new one")]
    Expired {
        /// Task, acceptance or proposal.
        what: String,
        /// When it ended, unix seconds.
        expires_at: u32,
        /// Now, unix seconds.
        now: u32,
    },
    /// Too little work was put in.
    #[error("work_bits: the task has {committed} bits of work, this node wants {least}; announce it with {least} or more")]
    Work {
        /// Committed to.
        committed: u8,
        /// Wanted.
        least: u8,
    },
    /// Too much work is asked for.
    #[error("acceptance_work_bits: the task asks for {asked} bits of work, this node does at most {most}; ask for {most} or less")]
    AcceptanceWork {
        /// Asked for.
        asked: u8,
        /// The most it does.
        most: u8,
    },
    /// The node does not dial there.
    #[error("address: {address} {why}, and this node dials only {dials}; announce such an address")]
    Address {
        /// The task's.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
        /// Where the node dials to.
        dials: String,
    },
    /// None of the systems is there.
    #[error("operating_systems: {} asked for, this node has {}; add one of those to the list", list(asked), list(have))]
    OperatingSystem {
        /// In the task, or the acceptance's.
        asked: Vec<String>,
        /// At hand, or the task's.
        have: Vec<String>,
    },
    /// The node does not have that much.
    #[error("{clause}: {asked} {} asked for, this node gives at most {have}; ask for {have} or less", clause.unit())]
    NotThere {
        /// Which.
        clause: Clause,
        /// By the task.
        asked: u64,
        /// By the node.
        have: u64,
    },
    /// Leases are too short or too long.
    #[error("lease: {asked_min_s} to {asked_max_s} s asked for, this node leases {min_s} to {max_s} s; let the two ranges overlap")]
    Lease {
        /// Shortest asked for, seconds.
        asked_min_s: u64,
        /// Longest asked for, seconds.
        asked_max_s: u64,
        /// Shortest given, seconds.
        min_s: u64,
        /// Longest given, seconds.
        max_s: u64,
    },
    /// The node wants its pay first.
    #[error(
        "payout: every {interval_s} s in arrears, but this node wants to be paid in advance; pay in advance ({} s)",
        -i128::from(*interval_s)
    )]
    Arrears {
        /// The interval, seconds.
        interval_s: u64,
    },
    /// The node would wait too long for its pay.
    #[error("payout: every {interval_s} s in arrears, this node waits at most {most_s} s; pay every {most_s} s or more often")]
    Interval {
        /// The interval, seconds.
        interval_s: u64,
        /// The most, seconds.
        most_s: u64,
    },
    /// Too much would be unpaid.
    #[error(
        "payout: an interval of {interval_s} s costs {price_msat} msat, this node works for at most {most_msat} msat unpaid; {}", sooner(*fix_s)
    )]
    Exposure {
        /// The interval, seconds.
        interval_s: u64,
        /// What it costs, thousandths of a satoshi.
        price_msat: u64,
        /// The limit.
        most_msat: u64,
        /// The longest interval within the limit, seconds; 0: none.
        fix_s: u64,
    },
    /// The machine is not paid enough.
    #[error(
        "rates: {offered_msat} msat an hour offered for this machine, this node wants {floor_msat} msat; raise the cpu rate from {cpu_msat_per_ghz_hour} to {fix_msat_per_ghz_hour} msat per GHz and hour"
    )]
    Price {
        /// For an hour of the chosen machine without traffic, thousandths of a satoshi.
        offered_msat: u64,
        /// The node's floor for the same.
        floor_msat: u64,
        /// The cpu rate offered.
        cpu_msat_per_ghz_hour: u64,
        /// The cpu rate that would do.
        fix_msat_per_ghz_hour: u64,
    },
    /// Traffic is not paid enough.
    #[error("{}: {offered_msat} msat offered per GB, this node wants {floor_msat} msat; offer {floor_msat} msat", Clause::TrafficRate)]
    Traffic {
        /// For 10^9 bytes, thousandths of a satoshi.
        offered_msat: u64,
        /// The node's floor.
        floor_msat: u64,
    },
    /// No time to boot and measure.
    #[error("proposal_within: {given_s} s given, this node needs {least_s} s to boot and be measured; give {least_s} s or more")]
    ProposalTime {
        /// By the task, seconds.
        given_s: u64,
        /// Needed, seconds.
        least_s: u64,
    },
    /// A combination of cores and clock that is not on the task's list.
    #[error("compute: {cores} cores of {mhz} MHz accepted, but the task lists {listed}; accept one of its alternatives")]
    NotListed {
        /// Accepted.
        cores: u16,
        /// Accepted, MHz.
        mhz: u32,
        /// The task's.
        listed: String,
    },
    /// The acceptance gives less than was asked for.
    #[error("{clause}: {accepted} {} accepted, the task asks for {asked}; accept {asked} or more", clause.unit())]
    TooSmall {
        /// Which.
        clause: Clause,
        /// By the node.
        accepted: u64,
        /// By the task.
        asked: u64,
    },
    /// The acceptance gives more than was asked for, which the publisher would pay for.
    #[error("{clause}: {accepted} {} accepted, the task pays for at most {most}; accept {most} or less", clause.unit())]
    TooLarge {
        /// Which.
        clause: Clause,
        /// By the node.
        accepted: u64,
        /// The most.
        most: u64,
    },
    /// The machine was measured to be less than what was accepted.
    #[error(
        "{clause}: {measured} {} measured, {agreed} agreed, but {least} is the least taken; give the machine {least}, or agree on less", clause.unit()
    )]
    Measured {
        /// Which.
        clause: Clause,
        /// By the benchmark.
        measured: u64,
        /// By task and acceptance.
        agreed: u64,
        /// The least that is taken.
        least: u64,
    },
    /// An acceptance or a proposal for another task.
    #[error("task: {what} is for {named}, this lease is about {ours}; answer that one")]
    OtherTask {
        /// Acceptance or proposal.
        what: String,
        /// The task it names.
        named: String,
        /// The task meant.
        ours: String,
    },
    /// The publisher says the machine is much slower than the node measured.
    #[error(
        "core_mhz: the proposal says {proposed} MHz, the node measured {own} MHz and takes no less than {least}; measure again while the node is idle"
    )]
    Clock {
        /// By the publisher.
        proposed: u32,
        /// By the node.
        own: u32,
        /// The least the node takes.
        least: u32,
    },
    /// Less than was announced.
    #[error(
        "{clause}: {proposed} msat {} proposed, {announced} was announced, and this node takes no less than {least}; propose {least} or more", clause.unit()
    )]
    BelowOffer {
        /// Which rate.
        clause: Clause,
        /// By the proposal.
        proposed: u64,
        /// By the task.
        announced: u64,
        /// The least the node takes.
        least: u64,
    },
    /// Other payout than announced.
    #[error("payout: {proposed_s} s proposed, {announced_s} s announced (negative: in advance); propose {announced_s} s")]
    Payout {
        /// By the proposal, signed seconds.
        proposed_s: i64,
        /// By the task, signed seconds.
        announced_s: i64,
    },
    /// A lease outside the announced range.
    #[error("lease: {proposed_s} s proposed, {min_s} to {max_s} s agreed; propose a time within")]
    LeaseOutside {
        /// By the proposal, seconds.
        proposed_s: u64,
        /// Shortest, seconds.
        min_s: u64,
        /// Longest, seconds.
        max_s: u64,
    },
    /// The channel could not pay for the shortest lease.
    #[error("capacity_sat: {capacity_sat} sat, but {for_s} s of this machine cost {least_sat} sat; lock {least_sat} sat or more")]
    Capacity {
        /// Proposed, satoshi.
        capacity_sat: u64,
        /// The price of the time, satoshi.
        least_sat: u64,
        /// The time, seconds.
        for_s: u64,
    },
}

impl Clause {
    /// The unit its numbers are in.
    pub fn unit(self) -> &'static str {
        match self {
            Clause::Cores => "cores",
            Clause::Clock => "MHz",
            Clause::Memory | Clause::Disk | Clause::Persistent => "MiB",
            Clause::MemorySpeed | Clause::DiskSpeed => "MB/s",
            Clause::Bandwidth => "kbit/s",
            Clause::CpuRate => "per GHz and hour",
            Clause::MemoryRate | Clause::DiskRate | Clause::PersistentRate => "per GiB and hour",
            Clause::TrafficRate => "per GB",
        }
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clause::Cores => "cores",
            Clause::Clock => "clock",
            Clause::Memory => "memory",
            Clause::MemorySpeed => "memory speed",
            Clause::Disk => "storage",
            Clause::DiskSpeed => "storage speed",
            Clause::Persistent => "persistent storage",
            Clause::Bandwidth => "bandwidth",
            Clause::CpuRate => "cpu rate",
            Clause::MemoryRate => "memory rate",
            Clause::DiskRate => "disk rate",
            Clause::PersistentRate => "persistent storage rate",
            Clause::TrafficRate => "traffic rate",
        })
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn sooner(fix_s: u64) -> String {
    match fix_s {
        0 => "pay in advance".to_owned(),
        _ => format!("pay every {fix_s} s or more often, or in advance"),
    }
}
