//! task.toml: a task as a person writes it.

mod parse;
mod section;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_identity::Identity;

use crate::names::seconds;
use crate::{LeaseRange, PayoutInterval, Rates, Requirements, Task, TaskId};

/// What carries a task to the nodes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A Bitcoin transaction that holds the announcement's hash; the announcement is gossiped beside it.
    #[default]
    Chain,
    /// A Bitcoin transaction that holds all of it, so that nobody needs the overlay to read it.
    ChainFull,
    /// The overlay alone.
    Overlay,
}

/// A task as a person writes it: what the daemon does not supply itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// What the virtual machine must have.
    pub requirements: Requirements,
    /// How many machines are wanted.
    pub machines: u16,
    /// Where nodes dial to. `None`: where the daemon's SSH server listens.
    pub address: Option<SocketAddr>,
    /// How long a lease should last.
    pub lease: LeaseRange,
    /// When to pay.
    pub payout: PayoutInterval,
    /// The most to offer for each part.
    pub rates: Rates,
    /// From the tunnel's start, the time within which the proposal must have been made and accepted.
    #[serde(rename = "proposal_within_s", with = "seconds")]
    pub proposal_within: Duration,
    /// Leading zero bits to demand of an acceptance's work.
    pub acceptance_work_bits: u8,
    /// Leading zero bits to put into the task's own announcement.
    pub work_bits: u8,
    /// How long the announcement stays valid.
    #[serde(rename = "valid_for_s", with = "seconds")]
    pub valid_for: Duration,
    /// The most to spend on all leases of the task together, satoshi. `None`: what the wallet has.
    pub budget_sat: Option<u64>,
    /// Additional information, typically a short URL.
    pub info: String,
    /// What carries the announcement.
    pub carrier: Carrier,
}

/// One thing that is wrong with a task.toml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFileProblem {
    /// The line it is in, from 1 on.
    pub line: usize,
    /// The field, with the tables it is in: `requirements.storage.size`.
    pub field: String,
    /// What is wrong, with the value found.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

/// All that is wrong with a task.toml, in the order of the lines. Shown one problem a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TaskFileError {
    /// At least one.
    pub problems: Vec<TaskFileProblem>,
}

impl fmt::Display for TaskFileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}; {}", self.line, self.field, self.problem, self.remedy)
    }
}

impl fmt::Display for TaskFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl TaskFile {
    /// Reads a task.toml and finds everything that is wrong with it: missing, unknown, contradictory and out-of-range
    /// fields, each with its line, its value and what would be right.
    pub fn parse(text: &str) -> Result<TaskFile, TaskFileError> {
        parse::parse(text)
    }

    /// A task.toml with every field, explained.
    pub fn example() -> &'static str {
        include_str!("example.toml")
    }

    /// The task it makes for this publisher. `listens_at` is where nodes dial to if the file does not say.
    pub fn task(&self, id: TaskId, publisher: Identity, ssh_host_key: [u8; 32], listens_at: SocketAddr, now_unix: u32) -> Task {
        let valid_for_s = u32::try_from(self.valid_for.as_secs()).unwrap_or(u32::MAX);
        Task {
            id,
            publisher,
            ssh_host_key,
            address: self.address.unwrap_or(listens_at),
            requirements: self.requirements.clone(),
            machines: self.machines,
            lease: self.lease,
            payout: self.payout,
            rates: self.rates,
            proposal_within: self.proposal_within,
            acceptance_work_bits: self.acceptance_work_bits,
            expires_at: now_unix.saturating_add(valid_for_s),
            info: self.info.clone(),
        }
    }
}
