//! The desk every message passes, whichever way it came: by gossip or as an answer to our own question.
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::{
    Judge, Judgement, MAX_MESSAGE_BYTES, OverlayCounters,
    address::Network,
    recent::{Aged, MessageId, More, RECENT_FOR, Recent, id_of},
    strikes::{Allowance, Rate, Sentence, Strikes},
};

/// What one peer may send by gossip: far above what an honest mesh brings, far below what would cost us noticeably.
const MESSAGES: Allowance = Allowance { burst: 1024, period: Duration::from_millis(10) };

/// Which way a message came, and from whom.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// Unasked, so it counts against the peer's rate.
    Gossip(PeerId),
    /// As an answer to our own question.
    Answer(PeerId),
}

impl Source {
    fn peer(self) -> PeerId {
        match self {
            Source::Gossip(peer) | Source::Answer(peer) => peer,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Valid(MessageId),
    Repeated,
    Ignored,
    Rejected,
}

pub(crate) struct Desk {
    judge: Judge,
    state: Mutex<State>,
}

struct State {
    counters: OverlayCounters,
    recent: Recent,
    strikes: Strikes,
    peers: HashMap<PeerId, Seat>,
    /// Peers that ran out of strikes and are still connected.
    to_cut_off: Vec<PeerId>,
}

/// What is known of a connected peer.
struct Seat {
    network: Option<Network>,
    rate: Rate,
}

impl Desk {
    pub(crate) fn new(judge: Judge) -> Self {
        let state = State {
            counters: OverlayCounters::default(),
            recent: Recent::default(),
            strikes: Strikes::new(),
            peers: HashMap::new(),
            to_cut_off: Vec::new(),
        };
        Self { judge, state: Mutex::new(state) }
    }

    // A poisoned lock only means that another thread panicked; the state is plain counts and tables, valid after any step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> OverlayCounters {
        self.state().counters.clone()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut OverlayCounters)) {
        change(&mut self.state().counters);
    }

    pub(crate) fn seat(&self, peer: PeerId, network: Option<Network>, now: Instant) {
        self.state().peers.entry(peer).or_insert(Seat { network, rate: Rate::new(now) });
    }

    pub(crate) fn leave(&self, peer: &PeerId) {
        self.state().peers.remove(peer);
    }

    /// Whether to take a connection from this peer or network, as far as past behaviour goes.
    pub(crate) fn admits(&self, peer: Option<&PeerId>, network: Option<Network>, now: Instant) -> bool {
        let mut state = self.state();
        let refused = state.strikes.refuses_network(network, now) || peer.is_some_and(|p| state.strikes.refuses_peer(p, now));
        if refused {
            state.counters.connections_refused += 1;
        }
        !refused
    }

    /// Whether a frame of this peer is read at all. Too fast is no strike: an honest relay may be made to hurry by others.
    pub(crate) fn takes_frame(&self, peer: &PeerId, now: Instant) -> bool {
        let mut state = self.state();
        let spent = state.peers.get(peer).is_some_and(|seat| seat.rate.is_spent(MESSAGES, now));
        if spent {
            state.counters.frames_over_rate += 1;
        }
        !spent
    }

    /// Looks at a message: first what is nearly free (its size, whether it is a repeat), then the judge.
    pub(crate) fn inspect(&self, from: Source, message: &[u8], age: Duration, now: Instant) -> Found {
        let id = {
            let mut state = self.state();
            state.arrived(from, message.len(), now);
            if message.is_empty() {
                return state.reject("empty", from, now);
            }
            if message.len() > MAX_MESSAGE_BYTES {
                return state.reject("too long", from, now);
            }
            let id = id_of(message);
            if state.recent.knows(&id) {
                state.counters.repeated += 1;
                return Found::Repeated;
            }
            id
        };
        // Not under the lock: the judge is the daemon's code, and may ask for our counters.
        let judgement = (self.judge)(message);
        let mut state = self.state();
        match judgement {
            Judgement::Relay if age > RECENT_FOR => state.ignore("too old", id, now),
            Judgement::Relay => {
                state.counters.relayed += 1;
                state.counters.bytes_relayed += message.len() as u64;
                state.recent.keep(id, Aged { age, bytes: message.to_vec() }, now);
                Found::Valid(id)
            }
            Judgement::Ignore(reason) => state.ignore(reason, id, now),
            Judgement::Reject(reason) => state.reject(reason, from, now),
        }
    }

    /// Rejects a message for its envelope, without looking inside.
    pub(crate) fn reject(&self, reason: &'static str, from: Source, length: usize, now: Instant) -> Found {
        let mut state = self.state();
        state.arrived(from, length, now);
        state.reject(reason, from, now)
    }

    /// Asks the judge about a message of our own.
    pub(crate) fn judge(&self, message: &[u8]) -> Judgement {
        (self.judge)(message)
    }

    /// Takes in a message of our own. It is not handed back to the daemon.
    pub(crate) fn own(&self, message: &[u8], now: Instant) {
        let id = id_of(message);
        let mut state = self.state();
        state.counters.published += 1;
        state.recent.keep(id, Aged { age: Duration::ZERO, bytes: message.to_vec() }, now);
        state.recent.hand_over(&id);
    }

    /// See [`Recent::hand_over`].
    pub(crate) fn hand_over(&self, id: &MessageId) -> Option<Vec<u8>> {
        self.state().recent.hand_over(id)
    }

    /// Forgets a valid message that could not be handed over, so that it can come again.
    pub(crate) fn undelivered(&self, id: &MessageId) {
        let mut state = self.state();
        state.counters.undelivered += 1;
        state.recent.forget(id);
    }

    pub(crate) fn recent_ids(&self) -> Vec<MessageId> {
        self.state().recent.ids()
    }

    pub(crate) fn recent_missing(&self, known: &HashSet<MessageId>, budget: usize, now: Instant) -> (Vec<Aged>, More) {
        self.state().recent.missing(known, budget, now)
    }

    /// Judges up to `most` remembered messages again and forgets those that are no longer valid: late joiners need only the others.
    pub(crate) fn sweep(&self, most: usize, now: Instant) {
        let due = self.state().recent.sweep(most, now);
        for (id, message) in due {
            if (self.judge)(&message) != Judgement::Relay {
                let mut state = self.state();
                state.recent.forget(&id);
                state.recent.ignore(id, now);
            }
        }
    }

    pub(crate) fn take_cut_off(&self) -> Vec<PeerId> {
        std::mem::take(&mut self.state().to_cut_off)
    }
}

impl State {
    fn arrived(&mut self, from: Source, length: usize, now: Instant) {
        self.counters.bytes_received += length as u64;
        if let Source::Gossip(peer) = from
            && let Some(seat) = self.peers.get_mut(&peer)
        {
            seat.rate.spend(MESSAGES, now);
        }
    }

    fn ignore(&mut self, reason: &'static str, id: MessageId, now: Instant) -> Found {
        *self.counters.ignored.entry(reason).or_default() += 1;
        self.recent.ignore(id, now);
        Found::Ignored
    }

    fn reject(&mut self, reason: &'static str, from: Source, now: Instant) -> Found {
        *self.counters.rejected.entry(reason).or_default() += 1;
        let peer = from.peer();
        let network = self.peers.get(&peer).and_then(|seat| seat.network);
        if self.strikes.strike(peer, network, now) == Sentence::Banned {
            self.counters.peers_banned += 1;
            self.to_cut_off.push(peer);
        }
        Found::Rejected
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::strikes::STRIKES_OF_PEER;

    /// Relays what begins with 'v', ignores 'i', rejects the rest; and counts how often it was asked.
    fn desk() -> (Desk, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let judge: Judge = Arc::new(move |message| {
            count.fetch_add(1, Ordering::Relaxed);
            match message.first() {
                Some(b'v') => Judgement::Relay,
                Some(b'i') => Judgement::Ignore("expired"),
                _ => Judgement::Reject("no work"),
            }
        });
        (Desk::new(judge), asked)
    }

    fn someone() -> Source {
        Source::Gossip(PeerId::random())
    }

    fn bad(n: u32) -> Vec<u8> {
        [b"x".as_slice(), &n.to_be_bytes()].concat()
    }

    #[test]
    fn ten_thousand_bad_messages_are_counted_and_leave_nothing_behind() {
        let (desk, _) = desk();
        let now = Instant::now();
        for n in 0..10_000 {
            assert_eq!(desk.inspect(someone(), &bad(n), Duration::ZERO, now), Found::Rejected);
        }
        let counters = desk.counters();
        assert_eq!(counters.rejected, [("no work", 10_000)].into());
        assert_eq!((counters.relayed, counters.repeated), (0, 0));
        assert_eq!(desk.state().recent.sizes(), (0, 0, 0));
    }

    #[test]
    fn oversized_and_empty_messages_never_reach_the_judge() {
        let (desk, asked) = desk();
        let now = Instant::now();
        desk.inspect(someone(), &vec![b'v'; MAX_MESSAGE_BYTES + 1], Duration::ZERO, now);
        desk.inspect(someone(), &[], Duration::ZERO, now);
        assert_eq!(desk.counters().rejected, [("too long", 1), ("empty", 1)].into());
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_replayed_message_is_counted_and_not_judged_again() {
        let (desk, asked) = desk();
        let now = Instant::now();
        assert!(matches!(desk.inspect(someone(), b"v", Duration::ZERO, now), Found::Valid(_)));
        assert_eq!(desk.inspect(someone(), b"v", Duration::ZERO, now), Found::Repeated);
        assert_eq!(desk.inspect(someone(), b"i", Duration::ZERO, now), Found::Ignored);
        assert_eq!(desk.inspect(someone(), b"i", Duration::ZERO, now), Found::Repeated);
        assert_eq!((asked.load(Ordering::Relaxed), desk.counters().repeated), (2, 2));
    }

    #[test]
    fn a_peer_that_only_sends_rubbish_is_marked_to_be_cut_off() {
        let (desk, _) = desk();
        let now = Instant::now();
        let peer = PeerId::random();
        desk.seat(peer, None, now);
        for n in 0..STRIKES_OF_PEER {
            assert_eq!(desk.take_cut_off(), []);
            desk.inspect(Source::Gossip(peer), &bad(n), Duration::ZERO, now);
        }
        assert_eq!(desk.take_cut_off(), [peer]);
        assert!(!desk.admits(Some(&peer), None, now));
        assert_eq!((desk.counters().peers_banned, desk.counters().connections_refused), (1, 1));
    }

    #[test]
    fn a_hurrying_peer_is_not_read_but_not_blamed() {
        let (desk, _) = desk();
        let now = Instant::now();
        let peer = PeerId::random();
        desk.seat(peer, None, now);
        let mut read = 0_u32;
        for n in 0..5000_u32 {
            if desk.takes_frame(&peer, now) {
                read += 1;
                desk.inspect(Source::Gossip(peer), &[b"v".as_slice(), &n.to_be_bytes()].concat(), Duration::ZERO, now);
            }
        }
        assert_eq!(read, MESSAGES.burst);
        assert!(desk.admits(Some(&peer), None, now));
        assert!(desk.takes_frame(&peer, now + MESSAGES.period));
    }

    #[test]
    fn a_sweep_forgets_what_the_judge_no_longer_likes() {
        let valid = Arc::new(AtomicU64::new(1));
        let switch = valid.clone();
        let desk = Desk::new(Arc::new(move |_| match switch.load(Ordering::Relaxed) {
            1 => Judgement::Relay,
            _ => Judgement::Ignore("expired"),
        }));
        let now = Instant::now();
        desk.inspect(someone(), b"task", Duration::ZERO, now);
        desk.sweep(64, now);
        assert_eq!(desk.recent_missing(&HashSet::new(), 1000, now).0.len(), 1);
        valid.store(0, Ordering::Relaxed);
        desk.sweep(64, now);
        desk.sweep(64, now);
        assert_eq!(desk.recent_missing(&HashSet::new(), 1000, now).0.len(), 0);
        assert_eq!(desk.recent_ids(), [id_of(b"task")], "so that nobody sends it again");
    }
}
