//! Writes the published test vectors: `cargo run --release -p xennet-task --example vectors -- docs/vectors`.
//!
//! Run it only when the protocol changes. `tests/vectors.rs` holds this program to the vectors that are there.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use xennet_identity::{Anchor, Identity, IdentityId, IdentityTemplate, Role, TargetSchedule, WorkBits, double_sha256, grind, work_of};
use xennet_task::{
    Acceptance, Announcement, AnnouncementHash, Cancellation, Compute, LeaseRange, PayoutInterval, Proposal, Rates, Requirements, Said,
    Sealed, Storage, Task, TaskId, Unworked,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORK_BITS: u8 = 12;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("give the folder to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let write =
        |name: &str, value: Value| -> Result<()> { Ok(std::fs::write(folder.join(name), serde_json::to_string_pretty(&value)? + "\n")?) };
    let (publisher, node) = (Party::mine(Role::Publisher, 0x11)?, Party::mine(Role::Node, 0x22)?);

    let typical = publisher.say("typical", Said::Task(typical_task(publisher.identity)?))?;
    let task_hash = typical.hash;
    let smallest = publisher.say("smallest", Said::Task(smallest_task(publisher.identity)?))?;
    let longest = publisher.say("longest", Said::Task(longest_task(publisher.identity)?))?;
    let accepted = node.say("typical", Said::Acceptance(acceptance(task_hash, node.identity)))?;
    let cancelled = publisher.say("typical", Said::Cancellation(Cancellation { publisher: publisher.identity, task: task_hash }))?;
    let proposal = proposal(task_hash, accepted.hash)?;
    let ephemeral = SecretKey::from_slice(&[0x44; 32])?;
    let sealed = Sealed::seal(publisher.identity, &proposal, &node.identity.key, &ephemeral)?;
    let mut proposed = publisher.say("typical", Said::Proposal(sealed))?;
    for (name, value) in [
        ("proposal", serde_json::to_value(proposal)?),
        ("plain", hex::encode(proposal.encode()?).into()),
        ("lease", proposal.lease_id().to_string().into()),
        ("ephemeral_secret_key", hex::encode(ephemeral.secret_bytes()).into()),
        ("node_secret_key", hex::encode(node.keys.secret_bytes()).into()),
    ] {
        proposed.vector[name] = value;
    }

    write(
        "identity.json",
        json!({ "valid": [publisher.vector(), node.vector()], "invalid": bad_identities(&node)?,
        "targets": targets() }),
    )?;
    let bad = bad_tasks(&publisher, &typical.bytes)?;
    write("task.json", json!({ "valid": [typical.vector, smallest.vector, longest.vector], "invalid": bad }))?;
    let bad = [publisher.bad("signed by another key", &accepted.bytes, |_| {})?];
    write("acceptance.json", json!({ "valid": [accepted.vector], "invalid": bad }))?;
    let bad = [publisher.bad("one byte shorter than a box can be", &proposed.bytes, |body| {
        body.truncate(Identity::WIRE_LEN + 33 + 15);
    })?];
    write("proposal.json", json!({ "valid": [proposed.vector], "invalid": bad }))?;
    let bad = [publisher.bad("a byte after the last field", &cancelled.bytes, |body| body.push(0))?];
    write("cancellation.json", json!({ "valid": [cancelled.vector], "invalid": bad }))
}

/// Who speaks.
struct Party {
    keys: Keypair,
    identity: Identity,
}

/// What was said, and the vector it makes.
struct Spoken {
    hash: AnnouncementHash,
    bytes: Vec<u8>,
    vector: Value,
}

impl Party {
    fn mine(role: Role, secret: u8) -> Result<Party> {
        let keys = Keypair::from_seckey_slice(SECP256K1, &[secret; 32])?;
        let anchor = Anchor { height: 100, hash: [0x33; 32] };
        let template = IdentityTemplate { role, key: keys.public_key(), anchor };
        let target = TargetSchedule::REGTEST.target_at(anchor.height);
        let nonce = template.search(&target, 0, u64::MAX).ok_or("no nonce")?;
        Ok(Party { keys, identity: template.with_nonce(nonce) })
    }

    fn vector(&self) -> Value {
        let mut bytes = Vec::new();
        self.identity.encode(&mut bytes);
        json!({
            "name": self.identity.role,
            "secret_key": hex::encode(self.keys.secret_bytes()),
            "fields": self.identity,
            "bytes": hex::encode(bytes),
            "id": self.identity.id(),
        })
    }

    fn say(&self, name: &str, said: Said) -> Result<Spoken> {
        let unworked = Unworked::sign(&said, WORK_BITS, &self.keys)?;
        let hash = unworked.hash();
        let nonce = grind(unworked.as_bytes(), &[], WorkBits(WORK_BITS), 0, u64::MAX).ok_or("no nonce")?;
        let bytes = unworked.with_nonce(nonce);
        let whole = double_sha256(&bytes);
        let vector = json!({
            "name": name,
            "secret_key": hex::encode(self.keys.secret_bytes()),
            "fields": Announcement::decode(&bytes)?,
            "bytes": hex::encode(&bytes),
            "hash_with_nonce": IdentityId(whole).to_string(),
            "work": work_of(&whole),
        });
        Ok(Spoken { hash, bytes, vector })
    }

    /// An announcement with an altered body and a right signature over it, so that only the alteration is wrong.
    fn bad(&self, name: &str, bytes: &[u8], alter: impl FnOnce(&mut Vec<u8>)) -> Result<Value> {
        let mut body = bytes[5..bytes.len() - 72].to_vec();
        alter(&mut body);
        let mut altered = [&bytes[..5], &body].concat();
        let tag = Sha256::digest(b"xennet/announcement");
        let digest = Sha256::new().chain_update(tag).chain_update(tag).chain_update(&altered).finalize();
        let signature = SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(digest.into()), &self.keys);
        altered.extend_from_slice(&signature.serialize());
        altered.extend_from_slice(&[0; 8]);
        refused(name, &altered)
    }
}

fn refused(name: &str, bytes: &[u8]) -> Result<Value> {
    let error = Announcement::decode(bytes).err().ok_or_else(|| format!("{name}: not refused"))?;
    Ok(json!({ "name": name, "bytes": hex::encode(bytes), "error": error.to_string() }))
}

fn bad_identities(of: &Party) -> Result<Vec<Value>> {
    let mut good = Vec::new();
    of.identity.encode(&mut good);
    let changed = |at: usize, byte| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let bad = [
        ("unknown version", changed(0, 1)),
        ("unknown role", changed(1, 3)),
        ("no point on the curve", changed(2, 5)),
        ("a byte short", good[..78].to_vec()),
        ("a byte long", [good.as_slice(), &[0]].concat()),
    ];
    bad.into_iter()
        .map(|(name, bytes)| {
            let error = Identity::decode(&bytes).err().ok_or_else(|| format!("{name}: not refused"))?;
            Ok(json!({ "name": name, "bytes": hex::encode(bytes), "error": error.to_string() }))
        })
        .collect()
}

fn targets() -> Vec<Value> {
    let heights = [0, 930_000, 930_001, 995_700, 1_061_399, 1_061_400, 1_500_000];
    heights.map(|height| json!({ "anchor_height": height, "target": TargetSchedule::MAINNET.target_at(height) })).into()
}

fn bad_tasks(publisher: &Party, good: &[u8]) -> Result<Vec<Value>> {
    let address = 8 + Identity::WIRE_LEN + 32;
    let altered = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    Ok(vec![
        refused("another's magic", &altered(1, b'X'))?,
        refused("unknown version", &altered(2, 2))?,
        refused("unknown kind", &altered(3, 5))?,
        refused("more work bits than a nonce can find", &altered(4, 65))?,
        refused("altered after signing", &altered(6, good[6] ^ 1))?,
        refused("too long", &[good, &[0; 300]].concat())?,
        publisher.bad("by a node's identity", good, |body| body[9] = 2)?,
        publisher.bad("unknown family of addresses", good, |body| body[address] = 5)?,
        publisher.bad("port 0", good, |body| body[address + 5..address + 7].fill(0))?,
        publisher.bad("an operating system twice", good, |body| {
            let names = address + 7;
            body[names] = 2;
            drop(body.splice(names + 1..names + 16, *b"\x04thin\x04thin"));
        })?,
        publisher.bad("a number in needless bytes", good, |body| {
            body.splice(address + 7..address + 8, [0x82, 0]);
        })?,
        publisher.bad("text that is not UTF-8", good, |body| {
            let last = body.len() - 1;
            body[last] = 0xff;
        })?,
        publisher.bad("ends within the text", good, |body| body.truncate(body.len() - 1))?,
        publisher.bad("a byte after the last field", good, |body| body.push(0))?,
    ])
}

fn typical_task(publisher: Identity) -> Result<Task> {
    Ok(Task {
        id: TaskId([1, 2, 3, 4, 5, 6, 7, 8]),
        publisher,
        ssh_host_key: [0x55; 32],
        address: "203.0.113.7:9022".parse()?,
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
        rates: rates(),
        proposal_within: Duration::from_secs(180),
        acceptance_work_bits: 16,
        expires_at: 1_800_000_000,
        info: "https://example.org/t".to_owned(),
    })
}

fn smallest_task(publisher: Identity) -> Result<Task> {
    let second = Duration::from_secs(1);
    Ok(Task {
        requirements: Requirements::default(),
        machines: 1,
        lease: LeaseRange { min: second, max: second },
        payout: PayoutInterval::InAdvance(second),
        rates: Rates::default(),
        proposal_within: second,
        acceptance_work_bits: 0,
        info: String::new(),
        ..typical_task(publisher)?
    })
}

fn longest_task(publisher: Identity) -> Result<Task> {
    let (mib, mb_s) = ((1 << 28) - 1, (1 << 21) - 1);
    Ok(Task {
        address: "[2001:db8::1]:65535".parse()?,
        requirements: Requirements {
            operating_systems: (b'a'..b'i').map(|c| char::from(c).to_string().repeat(10)).collect(),
            bandwidth_kbit_s: mib,
            storage: Storage { size_mib: mib, mb_s },
            persistent_mib: mib,
            compute: (0..8).map(|i| Compute { cores: 4_096 - i, mhz: 1_000_000 }).collect(),
            memory_per_core_mib: mib,
            memory_mb_s: mb_s,
        },
        machines: u16::MAX,
        lease: LeaseRange { min: Duration::from_secs(mib.into()), max: Duration::from_secs(mib.into()) },
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
        ..typical_task(publisher)?
    })
}

fn rates() -> Rates {
    Rates {
        cpu_msat_per_ghz_hour: 200_000,
        memory_msat_per_gib_hour: 50_000,
        disk_msat_per_gib_hour: 1_000,
        persistent_msat_per_gib_hour: 1_000,
        traffic_msat_per_gb: 100_000,
    }
}

fn acceptance(task: AnnouncementHash, node: Identity) -> Acceptance {
    Acceptance {
        task,
        node,
        ssh_key: [0x66; 32],
        operating_system: "thin".to_owned(),
        compute: Compute { cores: 2, mhz: 1_000 },
        memory_mib: 1_024,
        disk_mib: 2_048,
        persistent_mib: 1_024,
        proposal_work_bits: 8,
        expires_at: 1_800_000_000,
    }
}

fn proposal(task: AnnouncementHash, acceptance: AnnouncementHash) -> Result<Proposal> {
    Ok(Proposal {
        task,
        acceptance,
        core_mhz: 1_850,
        rates: rates(),
        lease: Duration::from_secs(3_600),
        payout: PayoutInterval::InArrears(Duration::from_secs(5)),
        capacity_sat: 50_000,
        channel_key: SecretKey::from_slice(&[0x77; 32])?.public_key(SECP256K1).serialize(),
        refund_height: 250,
        expires_at: 1_800_000_000,
    })
}
