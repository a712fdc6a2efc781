//! Anything that may be said, for laws that hold of all of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::net::SocketAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use secp256k1::{Keypair, SECP256K1, SecretKey};
use xennet_identity::{Anchor, Identity, Role};
use xennet_task::{
    Acceptance, AnnouncementHash, Cancellation, Compute, LeaseRange, PayoutInterval, Proposal, Rates, Requirements, Said, Sealed, Storage,
    Task, TaskId,
};

pub fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

pub fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &secret(byte))
}

pub fn publisher() -> Identity {
    identity(Role::Publisher, 1)
}

pub fn node() -> Identity {
    identity(Role::Node, 2)
}

fn identity(role: Role, key: u8) -> Identity {
    Identity { role, key: keypair(key).public_key(), anchor: Anchor { height: 840_000, hash: [3; 32] }, nonce: 42 }
}

/// Who signs what this identity says.
pub fn signer(said: &Said) -> Keypair {
    keypair(if said.sender().role == Role::Publisher { 1 } else { 2 })
}

/// A task as most will be: the demo's, with a requirement of every kind.
pub fn typical_task() -> Task {
    Task {
        id: TaskId([1, 2, 3, 4, 5, 6, 7, 8]),
        publisher: publisher(),
        ssh_host_key: [4; 32],
        address: "203.0.113.7:9022".parse().unwrap(),
        requirements: Requirements {
            operating_systems: vec!["thin".to_owned(), "debian-12".to_owned()],
            bandwidth_kbit_s: 10_000,
            storage: Storage { size_mib: 2_048, mb_s: 50 },
            persistent_mib: 1_024,
            compute: vec![Compute { cores: 1, mhz: 2_000 }, Compute { cores: 2, mhz: 1_000 }],
            memory_per_core_mib: 512,
            memory_mb_s: 2_000,
        },
        machines: 4,
        lease: LeaseRange { min: Duration::from_secs(600), max: Duration::from_secs(86_400) },
        payout: PayoutInterval::InArrears(Duration::from_secs(5)),
        rates: Rates {
            cpu_msat_per_ghz_hour: 200_000,
            memory_msat_per_gib_hour: 50_000,
            disk_msat_per_gib_hour: 1_000,
            persistent_msat_per_gib_hour: 1_000,
            traffic_msat_per_gb: 100_000,
        },
        proposal_within: Duration::from_secs(180),
        acceptance_work_bits: 16,
        expires_at: 1_800_000_000,
        info: "https://xennet.org/t/4f".to_owned(),
    }
}

/// A task of which every field is as long as it may be.
pub fn longest_task() -> Task {
    let mhz = 1_000_000;
    Task {
        address: "[2001:db8::1]:65535".parse().unwrap(),
        requirements: Requirements {
            operating_systems: (b'a'..b'i').map(|c| char::from(c).to_string().repeat(10)).collect(),
            bandwidth_kbit_s: (1 << 28) - 1,
            storage: Storage { size_mib: (1 << 28) - 1, mb_s: (1 << 21) - 1 },
            persistent_mib: (1 << 28) - 1,
            compute: (0..8).map(|i| Compute { cores: 4_096 - i, mhz }).collect(),
            memory_per_core_mib: (1 << 28) - 1,
            memory_mb_s: (1 << 21) - 1,
        },
        machines: u16::MAX,
        lease: LeaseRange { min: Duration::from_secs((1 << 28) - 1), max: Duration::from_secs((1 << 28) - 1) },
        payout: PayoutInterval::InAdvance(Duration::from_secs(604_800)),
        rates: Rates {
            cpu_msat_per_ghz_hour: Rates::MAX,
            memory_msat_per_gib_hour: Rates::MAX,
            disk_msat_per_gib_hour: Rates::MAX,
            persistent_msat_per_gib_hour: Rates::MAX,
            traffic_msat_per_gb: Rates::MAX,
        },
        proposal_within: Duration::from_secs(86_400),
        acceptance_work_bits: 64,
        expires_at: u32::MAX,
        info: "é".repeat(Task::MAX_INFO / 2),
        ..typical_task()
    }
}

pub fn typical_acceptance() -> Acceptance {
    Acceptance {
        task: AnnouncementHash([5; 32]),
        node: node(),
        ssh_key: [6; 32],
        operating_system: "thin".to_owned(),
        compute: Compute { cores: 2, mhz: 1_000 },
        memory_mib: 1_024,
        disk_mib: 2_048,
        persistent_mib: 1_024,
        proposal_work_bits: 8,
        expires_at: 1_800_000_000,
    }
}

pub fn typical_proposal() -> Proposal {
    Proposal {
        task: AnnouncementHash([5; 32]),
        acceptance: AnnouncementHash([7; 32]),
        core_mhz: 1_850,
        rates: typical_task().rates,
        lease: Duration::from_secs(3_600),
        payout: PayoutInterval::InArrears(Duration::from_secs(5)),
        capacity_sat: 50_000,
        channel_key: keypair(8).public_key().serialize(),
        refund_height: 840_200,
        expires_at: 1_800_000_000,
    }
}

fn identities(role: Role) -> impl Strategy<Value = Identity> {
    let key = keypair(if role == Role::Publisher { 1 } else { 2 }).public_key();
    any::<(u32, [u8; 32], u64)>().prop_map(move |(height, hash, nonce)| Identity { role, key, anchor: Anchor { height, hash }, nonce })
}

fn seconds(max: u64) -> impl Strategy<Value = Duration> {
    (1..=max).prop_map(Duration::from_secs)
}

fn payouts(max: Duration) -> impl Strategy<Value = PayoutInterval> {
    (any::<bool>(), seconds(max.as_secs().min(604_800)))
        .prop_map(|(before, interval)| if before { PayoutInterval::InAdvance(interval) } else { PayoutInterval::InArrears(interval) })
}

fn rates() -> impl Strategy<Value = Rates> {
    [0..=Rates::MAX, 0..=Rates::MAX, 0..=Rates::MAX, 0..=Rates::MAX, 0..=Rates::MAX].prop_map(|[cpu, memory, disk, persistent, traffic]| {
        Rates {
            cpu_msat_per_ghz_hour: cpu,
            memory_msat_per_gib_hour: memory,
            disk_msat_per_gib_hour: disk,
            persistent_msat_per_gib_hour: persistent,
            traffic_msat_per_gb: traffic,
        }
    })
}

fn computes() -> impl Strategy<Value = Compute> {
    (1..=4_096u16, 0..=1_000_000u32).prop_map(|(cores, mhz)| Compute { cores, mhz })
}

prop_compose! {
    fn requirements()(
        names in vec("[a-z0-9.-]{1,10}", 0..=8),
        speeds in [0..1u32 << 21, 0..1 << 21],
        sizes in [0..1u32 << 28, 0..1 << 28, 0..1 << 28, 0..1 << 28],
        alternatives in vec(computes(), 0..=8),
    ) -> Requirements {
        let mut requirements = Requirements {
            bandwidth_kbit_s: sizes[0],
            storage: Storage { size_mib: sizes[1], mb_s: speeds[0] },
            persistent_mib: sizes[2],
            memory_per_core_mib: sizes[3],
            memory_mb_s: speeds[1],
            ..Requirements::default()
        };
        for name in names {
            if !requirements.operating_systems.contains(&name) {
                requirements.operating_systems.push(name);
            }
        }
        for alternative in alternatives {
            if !requirements.compute.contains(&alternative) {
                requirements.compute.push(alternative);
            }
        }
        requirements
    }
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let v4 = ([1u8..224, 0..255, 0..255, 0..255], 1u16..).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let v6 = (any::<[u8; 16]>(), 1u16..).prop_map(|(mut ip, port)| {
        ip[0] = 0x20; // neither multicast nor an IPv4 address in disguise
        SocketAddr::from((ip, port))
    });
    prop_oneof![v4, v6]
}

fn leases() -> impl Strategy<Value = LeaseRange> {
    [1..1u64 << 28, 1..1 << 28].prop_map(|[a, b]| LeaseRange { min: Duration::from_secs(a.min(b)), max: Duration::from_secs(a.max(b)) })
}

fn tasks() -> impl Strategy<Value = Task> {
    let machine = (requirements(), 1u16.., addresses(), any::<[u8; 32]>());
    let money = leases().prop_flat_map(|lease| (Just(lease), payouts(lease.max), rates()));
    let rest = (seconds(86_400), 0..=64u8, any::<u32>(), "[^\\pC]{0,24}", any::<[u8; 8]>());
    (identities(Role::Publisher), machine, money, rest).prop_map(|(publisher, machine, money, rest)| Task {
        id: TaskId(rest.4),
        publisher,
        ssh_host_key: machine.3,
        address: machine.2,
        requirements: machine.0,
        machines: machine.1,
        lease: money.0,
        payout: money.1,
        rates: money.2,
        proposal_within: rest.0,
        acceptance_work_bits: rest.1,
        expires_at: rest.2,
        info: rest.3,
    })
}

fn acceptances() -> impl Strategy<Value = Acceptance> {
    let machine = ("[a-z0-9.-]{1,20}", computes(), [0..1u32 << 28, 0..1 << 28, 0..1 << 28]);
    let rest = (any::<[u8; 32]>(), any::<[u8; 32]>(), 0..=64u8, any::<u32>());
    (identities(Role::Node), machine, rest).prop_map(|(node, machine, rest)| Acceptance {
        task: AnnouncementHash(rest.0),
        node,
        ssh_key: rest.1,
        operating_system: machine.0,
        compute: machine.1,
        memory_mib: machine.2[0],
        disk_mib: machine.2[1],
        persistent_mib: machine.2[2],
        proposal_work_bits: rest.2,
        expires_at: rest.3,
    })
}

pub fn proposals() -> impl Strategy<Value = Proposal> {
    let lease = seconds((1 << 28) - 1).prop_flat_map(|lease| (Just(lease), payouts(lease), rates()));
    let rest = (1..=1_000_000u32, 1..=2_100_000_000_000_000u64, 1u8..255, 1..500_000_000u32, any::<u32>());
    (any::<[[u8; 32]; 2]>(), lease, rest).prop_map(|(hashes, lease, rest)| Proposal {
        task: AnnouncementHash(hashes[0]),
        acceptance: AnnouncementHash(hashes[1]),
        core_mhz: rest.0,
        rates: lease.2,
        lease: lease.0,
        payout: lease.1,
        capacity_sat: rest.1,
        channel_key: keypair(rest.2).public_key().serialize(),
        refund_height: rest.3,
        expires_at: rest.4,
    })
}

fn sealed() -> impl Strategy<Value = Sealed> {
    (identities(Role::Publisher), proposals(), 1u8..255)
        .prop_map(|(publisher, proposal, ephemeral)| Sealed::seal(publisher, &proposal, &node().key, &secret(ephemeral)).unwrap())
}

pub fn saids() -> impl Strategy<Value = Said> {
    prop_oneof![
        tasks().prop_map(Said::Task),
        acceptances().prop_map(Said::Acceptance),
        sealed().prop_map(Said::Proposal),
        (identities(Role::Publisher), any::<[u8; 32]>())
            .prop_map(|(publisher, task)| { Said::Cancellation(Cancellation { publisher, task: AnnouncementHash(task) }) }),
    ]
}
