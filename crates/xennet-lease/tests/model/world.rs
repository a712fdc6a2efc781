//! Everything between two leases: the tunnel, the chain, two processes with their disks. What can happen is what the actions are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{ScriptBuf, Transaction, Txid};
use xennet_lease::{Action, Channel, Input, Lease, Message, Secret, Stage};
use xennet_rama::Spend;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Publisher,
    Node,
}

pub const BOTH: [Who; 2] = [Who::Publisher, Who::Node];

impl Who {
    pub(super) fn place(self) -> usize {
        usize::from(self == Who::Node)
    }

    fn other(self) -> Who {
        if self == Who::Publisher { Who::Node } else { Who::Publisher }
    }
}

/// A lease, known by all that is in it.
#[derive(Debug, Clone)]
pub struct Kept {
    pub lease: Lease,
    text: String,
}

impl Kept {
    pub fn of(lease: Lease) -> Arc<Kept> {
        let text = serde_json::to_string(&lease).unwrap();
        Arc::new(Kept { lease, text })
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.text == other.text
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// What may still happen, so that the world is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Times that time passes, by one tick.
    pub ticks: u8,
    /// Times the tunnel is cut.
    pub cuts: u8,
    /// Times a process dies, between two steps or between its disk and what it was to do.
    pub deaths: u8,
    /// Times the publisher's store is put back from its oldest copy.
    pub restores: u8,
    /// Blocks that are mined one at a time.
    pub blocks: u8,
    /// Times the chain takes another branch.
    pub reorganisations: u8,
    /// Times an unconfirmed transaction is thrown out of all mempools.
    pub evictions: u8,
    /// Whether the node may go away for good.
    pub vanishes: bool,
    /// Times the publisher's user wants more time.
    pub renewals: u8,
}

/// What is broken on purpose, to see that the properties notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A process finds, when it starts again, what was on its disk one write ago: it sent before it had written.
    ForgetsLastWrite,
    /// The node does not see the chain.
    Blind,
}

pub struct World {
    pub start: State,
    pub budget: Budget,
    pub flaw: Flaw,
    /// How much time a tick is, milliseconds.
    pub tick_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Process {
    pub now: Arc<Kept>,
    /// On disk; the newest write last, the one before it first.
    pub(super) disk: [Arc<Kept>; 2],
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct State {
    pub processes: [Process; 2],
    /// The publisher's disk as it was at the beginning.
    pub(super) copy: Arc<Kept>,
    /// In the tunnel, to each side, in order.
    pub(super) tunnel: [Vec<Vec<u8>>; 2],
    pub(super) up: bool,
    pub now_ms: u64,
    pub height: u32,
    /// Transactions in blocks, with their height.
    pub chain: Vec<(u32, Vec<u8>)>,
    pub mempool: Vec<Vec<u8>>,
    pub(super) left: Budget,
    pub(super) closed: bool,
    pub(super) jumped: bool,
    /// The node is gone for good.
    pub(super) gone: bool,
    /// Highest total the publisher has ever said, and the node has ever acknowledged, in each channel, satoshi.
    pub(super) said_sat: [u64; CHANNELS],
    pub(super) acknowledged_sat: [u64; CHANNELS],
    /// Keys that wallets have given, and fundings that were made.
    keys: u8,
    /// A payment was said below one that the node held then.
    pub fell_back: bool,
    /// The worst that the node worked for without holding a payment, thousandths of a satoshi.
    pub exposed_msat: u64,
    /// What is wrong with a transaction that was given to the chain.
    pub wrong: Option<&'static str>,
}

/// The most channels a lease may have here, and one for counting from 1.
pub const CHANNELS: usize = 5;

/// What is signed or held in one channel, satoshi.
pub(super) fn total(lease: &Lease, number: usize) -> u64 {
    lease.channels().find(|channel| channel.number as usize == number).map_or(0, Channel::total_sat)
}

fn totals(lease: &Lease) -> [u64; CHANNELS] {
    std::array::from_fn(|number| total(lease, number))
}

/// What is held for use, close reserves taken off, satoshi.
fn earned_sat(lease: &Lease) -> u64 {
    let of_channels: u64 = lease.channels().map(|channel| channel.terms.earned_of(channel.total_sat())).sum();
    of_channels + lease.closed.total_sat.saturating_sub(lease.closed.close_reserve_sat)
}

impl State {
    /// Two leases that are live, nothing paid or on its way.
    pub fn of(publisher: Lease, node: Lease, now_ms: u64, height: u32, chain: &[(Transaction, u32)], budget: Budget) -> State {
        let [publisher, node] = [publisher, node].map(Kept::of);
        let process = |kept: &Arc<Kept>| Process { now: Arc::clone(kept), disk: [Arc::clone(kept), Arc::clone(kept)] };
        State {
            processes: [process(&publisher), process(&node)],
            tunnel: [Vec::new(), Vec::new()],
            up: true,
            now_ms,
            height,
            chain: chain.iter().map(|(tx, height)| (*height, serialize(tx))).collect(),
            mempool: Vec::new(),
            left: budget,
            closed: false,
            jumped: false,
            gone: false,
            said_sat: totals(&publisher.lease),
            acknowledged_sat: totals(&node.lease),
            keys: 100,
            fell_back: false,
            exposed_msat: 0,
            wrong: None,
            copy: publisher,
        }
    }

    pub fn lease(&self, who: Who) -> &Lease {
        &self.processes[who.place()].now.lease
    }

    /// How channels were ended in blocks: each channel as the node knows it, and its end.
    pub fn endings(&self) -> Vec<(&Channel, Spend)> {
        let end = |channel: &Channel| {
            let outpoint = channel.outpoint?;
            self.chain.iter().find_map(|(_, tx)| channel.terms.spend_in(outpoint, &deserialize(tx).ok()?))
        };
        self.lease(Who::Node).channels().filter_map(|channel| Some((channel, end(channel)?))).collect()
    }

    pub fn over(&self) -> bool {
        BOTH.iter().all(|who| self.lease(*who).is_over())
    }
}

impl World {
    pub(super) fn feed(&self, state: &mut State, who: Who, input: Input) {
        let actions = self.decide(state, who, input);
        self.carry_out(state, who, actions);
    }

    /// Decides and writes; what is to be done comes back.
    pub(super) fn decide(&self, state: &mut State, who: Who, input: Input) -> Vec<Action> {
        if who == Who::Node && (state.gone || (self.flaw == Flaw::Blind && matches!(input, Input::Tip(_) | Input::Seen { .. }))) {
            return Vec::new();
        }
        let process = &mut state.processes[who.place()];
        let mut lease = process.now.lease.clone();
        let actions = lease.handle(state.now_ms, input);
        let written = lease.revision != process.now.lease.revision;
        process.now = Kept::of(lease);
        if written {
            process.disk = [Arc::clone(&process.disk[1]), Arc::clone(&process.now)];
        }
        if who == Who::Node {
            let lease = &process.now.lease;
            if let (Stage::Live, Some(totals)) = (&lease.stage, lease.totals()) {
                let earned_msat = earned_sat(lease) * 1_000;
                state.exposed_msat = state.exposed_msat.max(totals.owed_msat.0.saturating_sub(earned_msat));
            }
        }
        actions
    }

    fn carry_out(&self, state: &mut State, who: Who, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => {
                    match &message {
                        Message::Pay { channel, update, .. } => {
                            let at = *channel as usize;
                            state.fell_back |= update.total_sat < total(state.lease(Who::Node), at);
                            state.said_sat[at] = state.said_sat[at].max(update.total_sat);
                        }
                        Message::Ack { total_sat, .. } => {
                            let at = state.lease(Who::Node).account.as_ref().map_or(1, |account| account.channel.number as usize);
                            state.acknowledged_sat[at] = state.acknowledged_sat[at].max(*total_sat);
                        }
                        _ => {}
                    }
                    if state.up {
                        state.tunnel[who.other().place()].push(message.encode());
                    }
                }
                Action::Broadcast(tx) => self.broadcast(state, &tx),
                Action::AskDestination => {
                    let script = if who == Who::Node { [0xaa; 20] } else { [0xbb; 20] };
                    let to = ScriptBuf::from_bytes([&[0, 20][..], &script].concat());
                    self.feed(state, who, Input::Destination { to, feerate_sat_per_kvb: 1_000 });
                }
                Action::AskKey => {
                    state.keys += 1;
                    let secret = Secret(secp256k1::SecretKey::from_slice(&[state.keys; 32]).unwrap());
                    self.feed(state, who, Input::FreshKey(secret));
                }
                Action::Fund { script, sat } => {
                    state.keys += 1;
                    let transaction = super::pair::funding(script, sat, state.keys.into());
                    self.feed(state, who, Input::FundingBuilt { transaction, vout: 1 });
                }
                Action::Watch(script) => self.show_chain(state, who, script),
                _ => {}
            }
        }
    }

    /// Tells a side what the chain and the mempool hold of its channel.
    fn show_chain(&self, state: &mut State, who: Who, script: ScriptBuf) {
        for (height, tx) in state.chain.clone() {
            self.feed(state, who, Input::Seen { transaction: deserialize(&tx).unwrap(), height: Some(height) });
        }
        for tx in state.mempool.clone() {
            self.feed(state, who, Input::Seen { transaction: deserialize(&tx).unwrap(), height: None });
        }
        self.feed(state, who, Input::PastTold(script));
    }

    fn broadcast(&self, state: &mut State, tx: &Transaction) {
        let bytes = serialize(tx);
        if state.mempool.contains(&bytes) || state.chain.iter().any(|(_, known)| *known == bytes) {
            return;
        }
        let spends = |known: &[u8]| {
            let known: Transaction = deserialize(known).unwrap();
            known.input.iter().any(|input| tx.input.iter().any(|own| own.previous_output == input.previous_output))
        };
        if state.chain.iter().any(|(_, known)| spends(known)) {
            return;
        }
        let lock = tx.lock_time.to_consensus_u32();
        if lock > state.height {
            return;
        }
        let channels: Vec<Channel> = state.lease(Who::Node).channels().cloned().collect();
        let mut in_sat = 0;
        for channel in &channels {
            let Some(spend) = channel.outpoint.and_then(|outpoint| channel.terms.spend_in(outpoint, tx)) else { continue };
            let at = channel.number as usize;
            in_sat += channel.terms.capacity_sat;
            match spend {
                Spend::Close { total_sat, .. } if total_sat < state.acknowledged_sat[at] => {
                    state.wrong = Some("the node closes for less than it has acknowledged");
                }
                Spend::Close { total_sat, .. } if total_sat > state.said_sat[at] => {
                    state.wrong = Some("the node closes for more than was ever said");
                }
                Spend::Refund { .. } if state.height < channel.terms.refund_height => {
                    state.wrong = Some("the refund is taken before its height");
                }
                _ => {}
            }
        }
        let out_sat: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        if in_sat > 0 && out_sat > in_sat {
            state.wrong = Some("more comes out of the channels than went in");
        }
        state.mempool.retain(|known| !spends(known));
        state.mempool.push(bytes);
        for who in BOTH {
            self.feed(state, who, Input::Seen { transaction: tx.clone(), height: None });
        }
    }

    pub(super) fn cut(&self, state: &mut State) {
        if !state.up {
            return;
        }
        state.up = false;
        state.tunnel = [Vec::new(), Vec::new()];
        for who in BOTH {
            self.feed(state, who, Input::LinkDown);
        }
    }

    /// The process is gone, and starts again from this.
    pub(super) fn restart(&self, state: &mut State, who: Who, from: Arc<Kept>) {
        state.up = false;
        state.tunnel = [Vec::new(), Vec::new()];
        self.feed(state, who.other(), Input::LinkDown);
        let process = &mut state.processes[who.place()];
        process.now = Arc::clone(&from);
        process.disk = [Arc::clone(&from), from];
        let height = state.height;
        self.feed(state, who, Input::Start);
        self.feed(state, who, Input::Tip(height));
    }

    pub(super) fn found(&self, state: &State, who: Who) -> Arc<Kept> {
        let [before, newest] = &state.processes[who.place()].disk;
        Arc::clone(if self.flaw == Flaw::ForgetsLastWrite { before } else { newest })
    }

    pub(super) fn mine(&self, state: &mut State) {
        state.height += 1;
        let height = state.height;
        for tx in std::mem::take(&mut state.mempool) {
            state.chain.push((height, tx.clone()));
            for who in BOTH {
                self.feed(state, who, Input::Seen { transaction: deserialize(&tx).unwrap(), height: Some(height) });
            }
        }
        for who in BOTH {
            self.feed(state, who, Input::Tip(height));
        }
    }

    pub(super) fn reorganise(&self, state: &mut State, depth: u32) {
        let fork = state.height - depth;
        let (stay, back): (Vec<_>, Vec<_>) = std::mem::take(&mut state.chain).into_iter().partition(|(height, _)| *height <= fork);
        state.chain = stay;
        let back: Vec<Vec<u8>> = back.into_iter().map(|(_, tx)| tx).collect();
        for tx in &back {
            let txid: Txid = deserialize::<Transaction>(tx).unwrap().compute_txid();
            for who in BOTH {
                self.feed(state, who, Input::Gone(txid));
            }
        }
        for tx in back {
            self.broadcast(state, &deserialize(&tx).unwrap());
        }
        state.height = fork + depth + 1;
        let height = state.height;
        for who in BOTH {
            self.feed(state, who, Input::Tip(height));
        }
    }
}
