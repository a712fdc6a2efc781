//! Both sides of a lease, a wire between them, a clock and a chain, all simulated and all repeatable.

mod dice;
mod hand;
mod money;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use secp256k1::{Keypair, SecretKey};
use xennet_identity::{Anchor, Identity, Role};
use xennet_lease::{Action, Input, Lease, LedgerEntry, Machine, Message, NodeSide, PublisherSide, Secret, Side, Stage};
use xennet_meter::Figures;
use xennet_task::{
    Acceptance, AnnouncementHash, Compute, LeaseRange, PayoutInterval, Proposal, Rates, Requirements, Storage, Task, TaskId,
};

pub const TICK_MS: u64 = 200;
const LATENCY_MS: u64 = 20;
const BLOCK_MS: u64 = 5_000;
pub const CORE_MHZ: u32 = 300;

#[allow(unused_imports, reason = "not every test needs chance")]
pub use {dice::dice, hand::Hand};

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Publisher,
    Node,
}

/// One side: the lease in memory, what is on disk, and what it left behind.
pub struct Party {
    pub lease: Lease,
    pub disk: String,
    pub ledger: Vec<LedgerEntry>,
    pub alive: bool,
}

/// What is on its way, and when it arrives.
struct Coming {
    at_ms: u64,
    to: Who,
    /// Lost when the tunnel is cut.
    in_tunnel: bool,
    input: Input,
}

pub struct Pair {
    pub now_ms: u64,
    pub publisher: Party,
    pub node: Party,
    coming: VecDeque<Coming>,
    pub tunnel_up: bool,
    dialing: bool,
    /// The node may reach the publisher.
    pub reachable: bool,
    /// The tunnel stands for both, but carries nothing.
    pub black_hole: bool,
    /// The overlay carries proposals.
    pub overlay: bool,
    /// The publisher's proposals cannot be made.
    pub mute: bool,
    /// The node opens proposals that come through the tunnel.
    pub opens: bool,
    pub machine_runs: bool,
    paused: bool,
    pub height: u32,
    next_block_ms: u64,
    pub mempool: Vec<Transaction>,
    pub chain: Vec<(Transaction, u32)>,
    /// Milliseconds the guest really was at the publisher's disposal while the lease was live.
    pub served_ms: u64,
    pub figures: Figures,
    /// What the chain's estimate says, sat/kvB.
    pub feerate: u64,
    /// What miners really take for the end of a channel, sat/kvB.
    pub mined_from: u64,
    /// What mempools take for it at least, sat/kvB.
    pub relayed_from: u64,
    /// From which stages to which the sides went.
    pub ways: BTreeSet<(String, String)>,
    /// Fundings built so far; each spends a coin of its own.
    fundings: u32,
    /// The last key that a wallet gave.
    keys: u8,
    pub hand: Option<Box<dyn Hand>>,
}

pub fn figures() -> Figures {
    Figures {
        cores: 1,
        core_mhz: CORE_MHZ,
        memory_mib: 256,
        memory_mb_s: 1_000,
        disk_mib: 256,
        disk_write_mb_s: 100,
        disk_read_mb_s: 100,
        down_kbit_s: 100_000,
        up_kbit_s: 100_000,
        took_ms: 5_000,
    }
}

pub fn task(payout: PayoutInterval) -> Task {
    Task {
        id: TaskId([1; 8]),
        publisher: identity(Role::Publisher, 1),
        ssh_host_key: [2; 32],
        address: ([127, 0, 0, 1], 28_722).into(),
        requirements: Requirements {
            operating_systems: vec!["thin".into()],
            memory_per_core_mib: 256,
            storage: Storage { size_mib: 256, mb_s: 0 },
            ..Requirements::default()
        },
        machines: 1,
        lease: LeaseRange { min: Duration::from_secs(10), max: Duration::from_secs(120) },
        payout,
        rates: Rates {
            cpu_msat_per_ghz_hour: 40_000_000_000,
            memory_msat_per_gib_hour: 1_000_000_000,
            disk_msat_per_gib_hour: 10_000_000,
            persistent_msat_per_gib_hour: 0,
            traffic_msat_per_gb: 10_000_000,
        },
        proposal_within: Duration::from_secs(60),
        acceptance_work_bits: 0,
        expires_at: 4_000_000_000,
        info: String::new(),
    }
}

fn identity(role: Role, seed: u8) -> Identity {
    let pair = Keypair::from_seckey_slice(secp256k1::SECP256K1, &[seed; 32]).unwrap();
    Identity { role, key: pair.public_key(), anchor: Anchor { height: 1, hash: [9; 32] }, nonce: 0 }
}

impl Pair {
    pub fn new(payout: PayoutInterval) -> Self {
        let task = task(payout);
        let task_hash = AnnouncementHash([3; 32]);
        let acceptance_hash = AnnouncementHash([4; 32]);
        let acceptance = Acceptance {
            task: task_hash,
            node: identity(Role::Node, 2),
            ssh_key: [5; 32],
            operating_system: "thin".into(),
            compute: Compute { cores: 1, mhz: 0 },
            memory_mib: 256,
            disk_mib: 256,
            persistent_mib: 0,
            proposal_work_bits: 0,
            expires_at: 4_000_000_000,
        };
        let secret = |byte| Secret(SecretKey::from_slice(&[byte; 32]).unwrap());
        let publisher = Side::Publisher(PublisherSide {
            guest_key: [6; 32],
            channel_secret: secret(11),
            budget_sat: 10_000_000,
            most_close_feerate_sat_per_kvb: xennet_lease::most_close_feerate(1_000),
            lease_s: 120,
            block_s: BLOCK_MS / 1000,
            announcement: None,
            paused: false,
            unacknowledged: false,
            looking: false,
            go_on: None,
        });
        let node = Side::Node(NodeSide {
            guest_key: None,
            channel_secret: secret(12),
            policy: xennet_market::NodePolicy {
                max_exposure_msat: u64::MAX,
                max_unburied_msat: u64::MAX,
                ..xennet_market::NodePolicy::default()
            },
            own_figures: figures(),
            close_feerate_sat_per_kvb: 2_000,
            patience_ms: 30_000,
            block_s: BLOCK_MS / 1000,
            paused_since_ms: None,
            asked_destination: false,
            acceptance: Vec::new(),
        });
        let now_ms = 1_800_000_000_000;
        let party = |side| {
            let lease = Lease::new(task.clone(), task_hash, acceptance.clone(), acceptance_hash, side, 120, now_ms);
            Party { disk: serde_json::to_string(&lease).unwrap(), lease, ledger: Vec::new(), alive: true }
        };
        let mut pair = Self {
            now_ms,
            publisher: party(publisher),
            node: party(node),
            coming: VecDeque::new(),
            tunnel_up: false,
            dialing: false,
            reachable: true,
            black_hole: false,
            overlay: true,
            mute: false,
            opens: true,
            machine_runs: false,
            paused: false,
            height: 120,
            next_block_ms: now_ms + BLOCK_MS,
            mempool: Vec::new(),
            chain: Vec::new(),
            served_ms: 0,
            figures: figures(),
            feerate: 1_000,
            mined_from: 0,
            relayed_from: 0,
            ways: BTreeSet::new(),
            fundings: 0,
            keys: 100,
            hand: None,
        };
        pair.feed(Who::Publisher, Input::Start);
        pair.feed(Who::Node, Input::Start);
        pair
    }

    pub fn party(&mut self, who: Who) -> &mut Party {
        match who {
            Who::Publisher => &mut self.publisher,
            Who::Node => &mut self.node,
        }
    }

    fn later(&mut self, ms: u64, to: Who, in_tunnel: bool, input: Input) {
        self.coming.push_back(Coming { at_ms: self.now_ms + ms, to, in_tunnel, input });
    }

    fn carry_out(&mut self, who: Who, action: Action) {
        let other = if who == Who::Publisher { Who::Node } else { Who::Publisher };
        match action {
            Action::Send(Message::Proposal { .. }) if self.tunnel_up && !self.black_hole && self.opens => {
                // The daemon opens it, as it does with one from the overlay.
                let proposal = self.publisher.lease.proposal.unwrap();
                self.later(LATENCY_MS, Who::Node, true, Input::Proposal(proposal));
            }
            Action::Send(message) if self.tunnel_up && !self.black_hole => {
                let bytes = message.encode();
                let message = xennet_lease::Message::decode(&bytes).unwrap();
                self.later(LATENCY_MS, other, true, Input::Heard(message));
            }
            Action::Send(_) => {}
            Action::Watch(script) => {
                // What is there already is told of too.
                for (transaction, height) in self.chain.clone() {
                    self.later(LATENCY_MS, who, false, Input::Seen { transaction, height: Some(height) });
                }
                for transaction in self.mempool.clone() {
                    self.later(LATENCY_MS, who, false, Input::Seen { transaction, height: None });
                }
                self.later(LATENCY_MS, who, false, Input::PastTold(script));
            }
            Action::Dial => self.dialing = true,
            Action::Boot { guest_key } => {
                assert_eq!(guest_key, [6; 32]);
                let machine = Machine {
                    operating_system: "thin".into(),
                    cores: 1,
                    memory_mib: 256,
                    disk_mib: 256,
                    persistent_mib: 0,
                    accelerator: "tcg".into(),
                    boot_ms: 1_000,
                };
                self.later(1_000, Who::Node, false, Input::MachineReady(machine));
                self.machine_runs = true;
            }
            Action::Pause => self.paused = true,
            Action::Resume => self.paused = false,
            Action::StopMachine => self.machine_runs = false,
            Action::HangUp(_) => {
                // A node that is hung up on comes back, one that hangs up does not.
                self.dialing &= who == Who::Publisher;
                // The last words arrive before the cut.
                self.deliver_until(self.now_ms + LATENCY_MS);
                self.cut();
            }
            Action::Measure => {
                let figures = self.figures;
                self.later(2_000, Who::Publisher, true, Input::Measured { figures, host_key: [7; 32] });
            }
            Action::SpreadProposal(proposal) => {
                let said = if self.mute { Input::ProposalFailed("no work".into()) } else { Input::ProposalSpread(vec![0]) };
                self.later(10, Who::Publisher, false, said);
                if self.overlay && !self.mute {
                    self.propose(*proposal);
                }
            }
            Action::Fund { script, sat } => {
                self.fundings += 1;
                let transaction = funding(script, sat, self.fundings);
                self.later(30, Who::Publisher, false, Input::FundingBuilt { transaction, vout: 1 });
            }
            Action::Broadcast(transaction) => self.broadcast(transaction),
            Action::AskDestination => {
                let to = ScriptBuf::from_hex("0014aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
                self.later(10, who, false, Input::Destination { to, feerate_sat_per_kvb: self.feerate });
            }
            Action::AskKey => {
                self.keys += 1;
                let secret = Secret(SecretKey::from_slice(&[self.keys; 32]).unwrap());
                self.later(10, who, false, Input::FreshKey(secret));
            }
            Action::Record(entry) => self.party(who).ledger.push(entry),
        }
    }

    pub fn propose(&mut self, proposal: Proposal) {
        self.later(LATENCY_MS, Who::Node, false, Input::Proposal(proposal));
    }

    fn broadcast(&mut self, transaction: Transaction) {
        let txid = transaction.compute_txid();
        let known = |other: &Transaction| other.compute_txid() == txid;
        if self.chain.iter().any(|(other, _)| known(other)) || self.mempool.iter().any(known) {
            return;
        }
        let spent = |other: &Transaction| {
            other.input.iter().any(|input| transaction.input.iter().any(|own| own.previous_output == input.previous_output))
        };
        if self.chain.iter().any(|(other, _)| spent(other)) {
            return;
        }
        if let Some(mut hand) = self.hand.take() {
            hand.judge(&transaction, &self.publisher.lease);
            self.hand = Some(hand);
        }
        let too_cheap = self.feerate_of(&transaction).is_some_and(|rate| rate < self.relayed_from);
        if too_cheap || transaction.lock_time.to_consensus_u32() > self.height {
            return;
        }
        self.mempool.retain(|other| !spent(other));
        self.mempool.push(transaction.clone());
        for who in [Who::Publisher, Who::Node] {
            self.later(LATENCY_MS, who, false, Input::Seen { transaction: transaction.clone(), height: None });
        }
    }

    pub fn cut(&mut self) {
        self.coming.retain(|coming| !coming.in_tunnel);
        if !self.tunnel_up {
            return;
        }
        self.tunnel_up = false;
        self.feed(Who::Publisher, Input::LinkDown);
        self.feed(Who::Node, Input::LinkDown);
    }

    /// The tunnel swallows everything from now on; each side notices so many milliseconds later.
    pub fn swallow(&mut self, node_notices_ms: u64, publisher_notices_ms: u64) {
        self.coming.retain(|coming| !coming.in_tunnel);
        self.black_hole = true;
        self.reachable = false;
        let begun_ms = self.now_ms;
        while self.now_ms < begun_ms + node_notices_ms.max(publisher_notices_ms) {
            self.step();
            for (who, notices_ms) in [(Who::Node, node_notices_ms), (Who::Publisher, publisher_notices_ms)] {
                if self.now_ms >= begun_ms + notices_ms {
                    self.feed(who, Input::LinkDown);
                }
            }
        }
        self.tunnel_up = false;
        self.black_hole = false;
        self.reachable = true;
    }

    /// Ends a side's process; its memory is gone, its disk stays.
    pub fn kill(&mut self, who: Who) {
        self.party(who).alive = false;
        self.coming.retain(|coming| coming.to != who);
        self.cut();
        if who == Who::Node {
            self.dialing = false;
        }
    }

    #[allow(dead_code, reason = "one of the tests uses it")]
    /// Ends a side's process, puts its store back from an older copy, and starts it again.
    pub fn restore(&mut self, who: Who, copy: &str) {
        self.kill(who);
        self.party(who).disk = copy.to_owned();
        self.restart(who);
    }

    pub fn restart(&mut self, who: Who) {
        if self.party(who).alive {
            return;
        }
        if let Some(mut hand) = self.hand.take() {
            let (lease, ledger) = hand.kept(who);
            self.hand = Some(hand);
            let party = self.party(who);
            (party.lease, party.ledger) = (lease, ledger);
        } else {
            let party = self.party(who);
            party.lease = serde_json::from_str(&party.disk).unwrap();
        }
        self.party(who).alive = true;
        self.feed(who, Input::Start);
        let height = self.height;
        self.feed(who, Input::Tip(height));
        for (transaction, height) in self.chain.clone() {
            self.feed(who, Input::Seen { transaction, height: Some(height) });
        }
    }

    fn deliver_until(&mut self, until_ms: u64) {
        loop {
            let next = self.coming.iter().enumerate().filter(|(_, c)| c.at_ms <= until_ms).min_by_key(|(i, c)| (c.at_ms, *i));
            let Some((index, _)) = next else { return };
            let Some(coming) = self.coming.remove(index) else { return };
            self.feed(coming.to, coming.input);
        }
    }

    pub fn mine(&mut self) {
        self.height += 1;
        let height = self.height;
        let mempool = std::mem::take(&mut self.mempool);
        let (mined, waiting) = mempool.into_iter().partition(|tx| self.feerate_of(tx).is_none_or(|rate| rate >= self.mined_from));
        self.mempool = waiting;
        let mined: Vec<Transaction> = mined;
        for transaction in mined {
            self.chain.push((transaction.clone(), height));
            for who in [Who::Publisher, Who::Node] {
                self.feed(who, Input::Seen { transaction: transaction.clone(), height: Some(height) });
            }
        }
        for who in [Who::Publisher, Who::Node] {
            self.feed(who, Input::Tip(height));
        }
    }

    /// Lets one tick pass.
    pub fn step(&mut self) {
        self.now_ms += TICK_MS;
        let live = |lease: &Lease| lease.stage == Stage::Live;
        let at_disposal =
            self.machine_runs && !self.paused && self.tunnel_up && !self.black_hole && self.node.alive && self.publisher.alive;
        if at_disposal && live(&self.publisher.lease) && live(&self.node.lease) {
            self.served_ms += TICK_MS;
        }
        self.deliver_until(self.now_ms);
        if self.dialing && self.reachable && !self.tunnel_up && self.publisher.alive && self.node.alive && !self.publisher.lease.is_over() {
            self.tunnel_up = true;
            self.feed(Who::Publisher, Input::LinkUp);
            self.feed(Who::Node, Input::LinkUp);
        }
        if self.now_ms >= self.next_block_ms {
            self.next_block_ms += BLOCK_MS;
            self.mine();
        }
        self.feed(Who::Publisher, Input::Tick);
        self.feed(Who::Node, Input::Tick);
    }

    /// Steps until the condition holds, at most so many seconds.
    pub fn until(&mut self, seconds: u64, condition: impl Fn(&Pair) -> bool) -> bool {
        for _ in 0..seconds * 1000 / TICK_MS {
            if condition(self) {
                return true;
            }
            self.step();
        }
        condition(self)
    }

    pub fn both_over(&self) -> bool {
        self.publisher.lease.is_over() && self.node.lease.is_over()
    }

    pub fn both_live(&self) -> bool {
        self.publisher.lease.stage == Stage::Live && self.node.lease.stage == Stage::Live
    }
}

/// A stage's name without what it holds.
fn stage_name(lease: &Lease) -> String {
    format!("{:?}", lease.stage).split(' ').next().unwrap_or_default().to_owned()
}

/// A transaction that funds several channels; the second is the one asked for.
pub fn funding(script: ScriptBuf, sat: u64, nth: u32) -> Transaction {
    let coin = OutPoint { txid: Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), vout: 7 + nth };
    let input = TxIn { previous_output: coin, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() };
    let other = TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::from_bytes([&[0, 32][..], &[9; 32]].concat()) };
    let output = TxOut { value: Amount::from_sat(sat), script_pubkey: script };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![other, output] }
}
