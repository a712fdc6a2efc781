//! Everything between two leases: the tunnel, the chain, two processes with their disks. What can happen is what the actions are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{ScriptBuf, Transaction, Txid};
use xennet_lease::{Action, Input, Lease, Message, Stage};
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
    /// Highest total the publisher has ever said, and the node has ever acknowledged, satoshi.
    pub(super) said_sat: u64,
    pub(super) acknowledged_sat: u64,
    /// A payment was said below one that the node held then.
    pub fell_back: bool,
    /// The worst that the node worked for without holding a payment, thousandths of a satoshi.
    pub exposed_msat: u64,
    /// What is wrong with a transaction that was given to the chain.
    pub wrong: Option<&'static str>,
}

pub(super) fn total(lease: &Lease) -> u64 {
    lease.account.as_ref().map_or(0, xennet_lease::Account::total_sat)
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
            said_sat: total(&publisher.lease),
            acknowledged_sat: total(&node.lease),
            fell_back: false,
            exposed_msat: 0,
            wrong: None,
            copy: publisher,
        }
    }

    pub fn lease(&self, who: Who) -> &Lease {
        &self.processes[who.place()].now.lease
    }

    /// How the channel was ended in a block, and where.
    pub fn ending(&self) -> Option<(Spend, u32)> {
        let account = self.lease(Who::Node).account.as_ref()?;
        let outpoint = account.outpoint?;
        self.chain.iter().find_map(|(height, tx)| Some((account.terms.spend_in(outpoint, &deserialize(tx).ok()?)?, *height)))
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
                let earned = lease.account.as_ref().map_or(0, |account| account.terms.earned_of(totals.total_sat)) * 1_000;
                state.exposed_msat = state.exposed_msat.max(totals.owed_msat.0.saturating_sub(earned));
            }
        }
        actions
    }

    fn carry_out(&self, state: &mut State, who: Who, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => {
                    match &message {
                        Message::Pay { update, .. } => {
                            state.fell_back |= update.total_sat < total(state.lease(Who::Node));
                            state.said_sat = state.said_sat.max(update.total_sat);
                        }
                        Message::Ack { total_sat, .. } => state.acknowledged_sat = state.acknowledged_sat.max(*total_sat),
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
                Action::Watch(_) => self.show_chain(state, who),
                _ => {}
            }
        }
    }

    /// Tells a side what the chain and the mempool hold of its channel.
    fn show_chain(&self, state: &mut State, who: Who) {
        for (height, tx) in state.chain.clone() {
            self.feed(state, who, Input::Seen { transaction: deserialize(&tx).unwrap(), height: Some(height) });
        }
        for tx in state.mempool.clone() {
            self.feed(state, who, Input::Seen { transaction: deserialize(&tx).unwrap(), height: None });
        }
        self.feed(state, who, Input::PastTold);
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
        let account = state.lease(Who::Node).account.as_ref();
        let ends = account.and_then(|account| account.terms.spend_in(account.outpoint?, tx).map(|spend| (spend, account.terms.clone())));
        match ends {
            Some((Spend::Close { total_sat, .. }, _)) if total_sat < state.acknowledged_sat => {
                state.wrong = Some("the node closes for less than it has acknowledged");
            }
            Some((Spend::Close { total_sat, .. }, _)) if total_sat > state.said_sat => {
                state.wrong = Some("the node closes for more than was ever said");
            }
            Some((Spend::Refund { .. }, terms)) if state.height < terms.refund_height => {
                state.wrong = Some("the refund is taken before its height");
            }
            Some((_, terms)) => {
                let out: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
                if out > terms.capacity_sat {
                    state.wrong = Some("more comes out of the channel than went in");
                }
            }
            None => {}
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
