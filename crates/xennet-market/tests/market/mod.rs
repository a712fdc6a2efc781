//! A task, a node and a machine, for these tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::time::Duration;

use secp256k1::{PublicKey, SECP256K1, SecretKey};
use xennet_identity::{Anchor, Identity, IdentityTemplate, Role};
use xennet_market::{Capabilities, Choice, NodePolicy, consider};
use xennet_meter::Figures;
use xennet_task::{Acceptance, AnnouncementHash, Compute, Proposal, Task, TaskFile, TaskId};

pub const NOW: u32 = 1_800_000_000;

fn key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(SECP256K1)
}

fn identity(role: Role, byte: u8) -> Identity {
    IdentityTemplate { role, key: key(byte), anchor: Anchor { height: 100, hash: [3; 32] } }.with_nonce(1)
}

/// The example of the documentation: 1 or 2 cores of 100 MHz, 256 MiB for each, every 5 s in arrears.
pub fn task() -> Task {
    let file = TaskFile::parse(TaskFile::example()).unwrap();
    let listens_at = "203.0.113.7:9022".parse().unwrap();
    file.task(TaskId([1; 8]), identity(Role::Publisher, 1), [2; 32], listens_at, NOW)
}

/// A machine under emulation.
pub fn have() -> Capabilities {
    Capabilities {
        operating_systems: vec!["thin".to_owned(), "debian-12".to_owned()],
        cores: 2,
        core_mhz: 300,
        memory_mib: 2_048,
        disk_mib: 10_000,
        persistent_mib: 1_000,
        bandwidth_kbit_s: 50_000,
        memory_mb_s: 2_000,
        disk_mb_s: 200,
    }
}

pub fn policy() -> NodePolicy {
    NodePolicy::default()
}

pub fn choice() -> Choice {
    consider(&task(), &have(), &policy(), NOW).unwrap()
}

pub fn acceptance() -> Acceptance {
    let choice = choice();
    Acceptance {
        task: AnnouncementHash([7; 32]),
        node: identity(Role::Node, 2),
        ssh_key: [4; 32],
        operating_system: choice.operating_system,
        compute: choice.compute,
        memory_mib: choice.memory_mib,
        disk_mib: choice.disk_mib,
        persistent_mib: choice.persistent_mib,
        proposal_work_bits: 0,
        expires_at: NOW + 60,
    }
}

/// What the benchmark finds in the accepted machine.
pub fn figures() -> Figures {
    Figures {
        cores: 2,
        core_mhz: 300,
        memory_mib: 470,
        memory_mb_s: 1_500,
        disk_mib: 240,
        disk_write_mb_s: 80,
        disk_read_mb_s: 150,
        down_kbit_s: 40_000,
        up_kbit_s: 30_000,
        took_ms: 8_000,
    }
}

pub fn proposal() -> Proposal {
    let task = task();
    Proposal {
        task: AnnouncementHash([7; 32]),
        acceptance: AnnouncementHash([8; 32]),
        core_mhz: 300,
        rates: task.rates,
        lease: Duration::from_secs(600),
        payout: task.payout,
        capacity_sat: 20_000,
        channel_key: key(5).serialize(),
        refund_height: 1_000,
        expires_at: NOW + 60,
    }
}

pub fn compute(cores: u16, mhz: u32) -> Compute {
    Compute { cores, mhz }
}

/// Each reason in words.
pub fn words<T: std::fmt::Debug>(verdict: Result<T, Vec<xennet_market::Reason>>) -> Vec<String> {
    verdict.unwrap_err().iter().map(ToString::to_string).collect()
}
