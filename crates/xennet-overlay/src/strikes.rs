//! Who misbehaved, and for how long we want nothing to do with them.
//!
//! A peer id costs nothing, so strikes also count against the network a peer connects from. Everything here is bounded; when a table is
//! full, the mildest entry gives way.
use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::address::Network;

/// An honest peer never sends what is rejected, but a peer with a newer version may; so a few are forgiven with time.
pub(crate) const STRIKES_OF_PEER: u32 = 32;
pub(crate) const STRIKES_OF_NETWORK: u32 = 128;
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);
const BANNED_FOR: Duration = Duration::from_secs(600);
const MAX_ENTRIES: usize = 1024;

struct Tally<K> {
    limit: u32,
    counts: HashMap<K, (u32, Instant)>,
}

impl<K: Copy + Eq + Hash> Tally<K> {
    fn new(limit: u32) -> Self {
        Self { limit, counts: HashMap::new() }
    }

    /// Adds a strike; true if that was the last one allowed.
    fn strike(&mut self, key: K, now: Instant) -> bool {
        if !self.counts.contains_key(&key) && self.counts.len() >= MAX_ENTRIES {
            let mildest = self.counts.iter().min_by_key(|(_, (count, since))| (*count, *since)).map(|(key, _)| *key);
            mildest.map(|key| self.counts.remove(&key));
        }
        let (count, since) = self.counts.entry(key).or_insert((0, now));
        let forgiven = now.saturating_duration_since(*since).as_secs() / FORGIVEN_EVERY.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven > 0 {
            *count = count.saturating_sub(forgiven);
            *since = now;
        }
        *count += 1;
        let reached = *count >= self.limit;
        if reached {
            self.counts.remove(&key);
        }
        reached
    }
}

struct Bans<K>(HashMap<K, Instant>);

impl<K: Copy + Eq + Hash> Bans<K> {
    fn ban(&mut self, key: K, now: Instant) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= MAX_ENTRIES {
            let nearest_end = self.0.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            nearest_end.map(|key| self.0.remove(&key));
        }
        self.0.insert(key, now + BANNED_FOR);
    }

    fn holds(&self, key: &K, now: Instant) -> bool {
        self.0.get(key).is_some_and(|until| *until > now)
    }
}

pub(crate) struct Strikes {
    peers: Tally<PeerId>,
    networks: Tally<Network>,
    banned_peers: Bans<PeerId>,
    banned_networks: Bans<Network>,
}

/// What a strike led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    None,
    Banned,
}

impl Strikes {
    pub(crate) fn new() -> Self {
        Self {
            peers: Tally::new(STRIKES_OF_PEER),
            networks: Tally::new(STRIKES_OF_NETWORK),
            banned_peers: Bans(HashMap::new()),
            banned_networks: Bans(HashMap::new()),
        }
    }

    pub(crate) fn strike(&mut self, peer: PeerId, network: Option<Network>, now: Instant) -> Sentence {
        // The network is banned for newcomers only: peers of it that are connected and behave may be its honest neighbours.
        if let Some(network) = network
            && self.networks.strike(network, now)
        {
            self.banned_networks.ban(network, now);
        }
        if self.peers.strike(peer, now) {
            self.banned_peers.ban(peer, now);
            return Sentence::Banned;
        }
        Sentence::None
    }

    pub(crate) fn refuses_peer(&self, peer: &PeerId, now: Instant) -> bool {
        self.banned_peers.holds(peer, now)
    }

    pub(crate) fn refuses_network(&self, network: Option<Network>, now: Instant) -> bool {
        network.is_some_and(|network| self.banned_networks.holds(&network, now))
    }
}

/// How fast a peer may send: `burst` at once, then one each `period`. Kept as the instant at which all of the burst is free again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    free_at: Instant,
}

/// The two numbers of a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) burst: u32,
    pub(crate) period: Duration,
}

impl Rate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { free_at: now }
    }

    pub(crate) fn is_spent(&self, allowance: Allowance, now: Instant) -> bool {
        self.free_at.saturating_duration_since(now) > allowance.period.saturating_mul(allowance.burst - 1)
    }

    pub(crate) fn spend(&mut self, allowance: Allowance, now: Instant) {
        self.free_at = self.free_at.max(now) + allowance.period;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn network(n: u32) -> Option<Network> {
        Some(Network::V4((0xcb00_7100 + n).to_be_bytes()))
    }

    #[test]
    fn a_peer_is_banned_at_its_last_strike_and_forgiven_after_a_while() {
        let now = Instant::now();
        let mut strikes = Strikes::new();
        let peer = PeerId::random();
        for _ in 1..STRIKES_OF_PEER {
            assert_eq!(strikes.strike(peer, None, now), Sentence::None);
        }
        assert!(!strikes.refuses_peer(&peer, now));
        assert_eq!(strikes.strike(peer, None, now), Sentence::Banned);
        assert!(strikes.refuses_peer(&peer, now));
        assert!(!strikes.refuses_peer(&peer, now + BANNED_FOR));
    }

    #[test]
    fn rare_strikes_never_add_up_to_a_ban() {
        let now = Instant::now();
        let mut strikes = Strikes::new();
        let peer = PeerId::random();
        for n in 0..10 * STRIKES_OF_PEER {
            assert_eq!(strikes.strike(peer, None, now + n * FORGIVEN_EVERY), Sentence::None);
        }
    }

    #[test]
    fn fresh_peer_ids_do_not_help_a_network_that_misbehaves() {
        let now = Instant::now();
        let mut strikes = Strikes::new();
        for _ in 0..STRIKES_OF_NETWORK {
            strikes.strike(PeerId::random(), network(1), now);
        }
        assert!(strikes.refuses_network(network(1), now));
        assert!(!strikes.refuses_network(network(2), now));
    }

    #[test]
    fn the_tables_are_bounded_and_the_mildest_entry_gives_way() {
        let now = Instant::now();
        let mut strikes = Strikes::new();
        let worst = PeerId::random();
        for _ in 1..STRIKES_OF_PEER {
            strikes.strike(worst, None, now);
        }
        for n in 0..5000 {
            strikes.strike(PeerId::random(), network(n), now);
        }
        assert!(strikes.peers.counts.len() <= MAX_ENTRIES && strikes.networks.counts.len() <= MAX_ENTRIES);
        assert_eq!(strikes.strike(worst, None, now), Sentence::Banned);
    }

    #[test]
    fn a_rate_allows_its_burst_and_then_one_each_period() {
        let now = Instant::now();
        let allowance = Allowance { burst: 3, period: Duration::from_secs(1) };
        let mut rate = Rate::new(now);
        for _ in 0..3 {
            assert!(!rate.is_spent(allowance, now));
            rate.spend(allowance, now);
        }
        assert!(rate.is_spent(allowance, now));
        assert!(!rate.is_spent(allowance, now + Duration::from_secs(1)));
    }
}
