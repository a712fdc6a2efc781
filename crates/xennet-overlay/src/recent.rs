//! The messages seen lately: valid ones with their bytes, for late joiners, and the ids of ignored ones, so as not to judge them again at
//! once. Bounded by count, bytes and age.
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

/// How many valid messages are kept. Also the most ids a question for recent announcements may carry.
pub(crate) const MAX_RECENT: usize = 1024;
pub(crate) const MAX_RECENT_BYTES: usize = 1 << 20;
/// A message older than this is not passed to late joiners even if the judge still likes it.
pub(crate) const RECENT_FOR: Duration = Duration::from_secs(24 * 3600);
const MAX_IGNORED: usize = 4096;
/// After this an ignored message may be judged again: what we knew then (the tip, our policy) may have changed.
const IGNORED_FOR: Duration = Duration::from_secs(600);

/// A message's id: the first 20 bytes of its SHA-256. A collision would let a stranger hide a message, hence a strong hash.
pub(crate) type MessageId = [u8; 20];

pub(crate) fn id_of(message: &[u8]) -> MessageId {
    let hash = Sha256::digest(message);
    let mut id = MessageId::default();
    id.copy_from_slice(&hash[..20]);
    id
}

struct Entry {
    bytes: Vec<u8>,
    sequence: u64,
    arrived: Instant,
    age_on_arrival: Duration,
    handed_over: bool,
}

impl Entry {
    fn age(&self, now: Instant) -> Duration {
        self.age_on_arrival.saturating_add(now.saturating_duration_since(self.arrived))
    }
}

/// A message on its way to a late joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aged {
    pub(crate) age: Duration,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Recent {
    entries: HashMap<MessageId, Entry>,
    /// Sequence → id: oldest first.
    order: BTreeMap<u64, MessageId>,
    next_sequence: u64,
    /// Sequence up to which the entries were re-judged in the running sweep.
    swept: u64,
    bytes: usize,
    ignored: HashMap<MessageId, Instant>,
    ignored_order: VecDeque<(Instant, MessageId)>,
}

impl Recent {
    pub(crate) fn knows(&self, id: &MessageId) -> bool {
        self.entries.contains_key(id) || self.ignored.contains_key(id)
    }

    /// Keeps a valid message of the given age.
    pub(crate) fn keep(&mut self, id: MessageId, message: Aged, now: Instant) {
        if self.entries.contains_key(&id) {
            return;
        }
        self.ignored.remove(&id);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.bytes += message.bytes.len();
        let Aged { age, bytes } = message;
        self.entries.insert(id, Entry { bytes, sequence, arrived: now, age_on_arrival: age, handed_over: false });
        self.order.insert(sequence, id);
        while self.entries.len() > MAX_RECENT || self.bytes > MAX_RECENT_BYTES {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.forget(&oldest);
        }
    }

    /// Remembers that a message was ignored.
    pub(crate) fn ignore(&mut self, id: MessageId, now: Instant) {
        if self.ignored.insert(id, now).is_none() {
            self.ignored_order.push_back((now, id));
        }
        while self.ignored_order.len() > MAX_IGNORED {
            self.drop_oldest_ignored();
        }
    }

    /// The bytes of a valid message, the first time they are asked for: so that each is handed to the daemon once.
    pub(crate) fn hand_over(&mut self, id: &MessageId) -> Option<Vec<u8>> {
        let entry = self.entries.get_mut(id).filter(|entry| !entry.handed_over)?;
        entry.handed_over = true;
        Some(entry.bytes.clone())
    }

    pub(crate) fn forget(&mut self, id: &MessageId) {
        if let Some(entry) = self.entries.remove(id) {
            self.order.remove(&entry.sequence);
            self.bytes -= entry.bytes.len();
        }
    }

    /// Ids we need not be sent, newest first: what we hold, then what we ignored.
    pub(crate) fn ids(&self) -> Vec<MessageId> {
        let held = self.order.values().rev();
        let ignored = self.ignored_order.iter().rev().map(|(_, id)| id);
        held.chain(ignored).take(MAX_RECENT).copied().collect()
    }

    /// Messages that `known` lacks, newest first, up to `budget` bytes; and whether there are more.
    pub(crate) fn missing(&self, known: &HashSet<MessageId>, budget: usize, now: Instant) -> (Vec<Aged>, More) {
        let mut found = Vec::new();
        let mut bytes = 0;
        for id in self.order.values().rev().filter(|id| !known.contains(*id)) {
            let Some(entry) = self.entries.get(id) else { continue };
            let age = entry.age(now);
            if age > RECENT_FOR {
                continue;
            }
            if bytes + entry.bytes.len() > budget {
                return (found, More::Yes);
            }
            bytes += entry.bytes.len();
            found.push(Aged { age, bytes: entry.bytes.clone() });
        }
        (found, More::No)
    }

    /// Drops what is too old, and returns up to `most` messages that are due to be judged again; the next call goes on where this ended.
    pub(crate) fn sweep(&mut self, most: usize, now: Instant) -> Vec<(MessageId, Vec<u8>)> {
        while self.ignored_order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= IGNORED_FOR) {
            self.drop_oldest_ignored();
        }
        let batch: Vec<(u64, MessageId)> = self.order.range(self.swept..).take(most).map(|(s, id)| (*s, *id)).collect();
        self.swept = batch.last().map_or(0, |(sequence, _)| sequence + 1);
        let mut due = Vec::with_capacity(batch.len());
        for (_, id) in batch {
            match self.entries.get(&id) {
                Some(entry) if entry.age(now) <= RECENT_FOR => due.push((id, entry.bytes.clone())),
                _ => self.forget(&id),
            }
        }
        due
    }

    fn drop_oldest_ignored(&mut self) {
        if let Some((_, id)) = self.ignored_order.pop_front() {
            self.ignored.remove(&id);
        }
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.entries.len(), self.bytes, self.ignored.len())
    }
}

/// Whether an answer left something out for its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u32, length: usize) -> Vec<u8> {
        let mut bytes = n.to_be_bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    }

    fn keep(recent: &mut Recent, bytes: Vec<u8>, age: Duration, now: Instant) {
        recent.keep(id_of(&bytes), Aged { age, bytes }, now);
    }

    #[test]
    fn the_oldest_gives_way_when_count_or_bytes_run_out() {
        let now = Instant::now();
        let mut recent = Recent::default();
        for n in 0..3000 {
            keep(&mut recent, message(n, 100), Duration::ZERO, now);
        }
        assert_eq!(recent.sizes(), (MAX_RECENT, MAX_RECENT * 100, 0));
        assert!(!recent.knows(&id_of(&message(0, 100))) && recent.knows(&id_of(&message(2999, 100))));
        for n in 0..3000 {
            keep(&mut recent, message(n, 2048), Duration::ZERO, now);
        }
        assert!(recent.sizes().1 <= MAX_RECENT_BYTES);
    }

    #[test]
    fn ignored_ids_are_bounded_and_forgotten_in_time() {
        let now = Instant::now();
        let mut recent = Recent::default();
        for n in 0..10_000 {
            recent.ignore(id_of(&message(n, 8)), now);
        }
        assert_eq!(recent.sizes().2, MAX_IGNORED);
        recent.sweep(10, now + IGNORED_FOR);
        assert_eq!(recent.sizes(), (0, 0, 0));
    }

    #[test]
    fn a_message_is_handed_over_once() {
        let now = Instant::now();
        let mut recent = Recent::default();
        let bytes = message(1, 10);
        keep(&mut recent, bytes.clone(), Duration::ZERO, now);
        assert_eq!(recent.hand_over(&id_of(&bytes)), Some(bytes.clone()));
        assert_eq!(recent.hand_over(&id_of(&bytes)), None);
    }

    #[test]
    fn a_late_joiner_gets_the_newest_first_within_the_budget_and_asks_again_for_the_rest() {
        let now = Instant::now();
        let mut recent = Recent::default();
        for n in 0..10 {
            keep(&mut recent, message(n, 100), Duration::ZERO, now);
        }
        let (first, more) = recent.missing(&HashSet::new(), 450, now);
        assert_eq!(first.iter().map(|m| m.bytes[3]).collect::<Vec<_>>(), [9, 8, 7, 6]);
        assert_eq!(more, More::Yes);
        let known = first.iter().map(|m| id_of(&m.bytes)).collect();
        let (rest, more) = recent.missing(&known, 10_000, now);
        assert_eq!((rest.len(), more), (6, More::No));
    }

    #[test]
    fn age_travels_with_a_message_so_that_none_circulates_for_ever() {
        let now = Instant::now();
        let mut recent = Recent::default();
        keep(&mut recent, message(1, 10), RECENT_FOR - Duration::from_secs(60), now);
        let (found, _) = recent.missing(&HashSet::new(), 1000, now + Duration::from_secs(30));
        assert_eq!(found[0].age, RECENT_FOR - Duration::from_secs(30));
        let later = now + Duration::from_secs(90);
        assert_eq!(recent.missing(&HashSet::new(), 1000, later).0.len(), 0);
        recent.sweep(10, later);
        assert_eq!(recent.sizes(), (0, 0, 0));
    }

    #[test]
    fn a_sweep_comes_to_every_message_in_turn() {
        let now = Instant::now();
        let mut recent = Recent::default();
        for n in 0..25 {
            keep(&mut recent, message(n, 10), Duration::ZERO, now);
        }
        let seen: HashSet<_> = (0..3).flat_map(|_| recent.sweep(10, now)).map(|(id, _)| id).collect();
        assert_eq!(seen.len(), 25);
        assert_eq!(recent.sweep(10, now).len(), 0, "the end of the sweep");
        assert_eq!(recent.sweep(10, now).len(), 10, "and a new one");
    }
}
