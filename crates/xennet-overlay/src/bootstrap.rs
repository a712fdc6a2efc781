//! The addresses we always come back to: each is dialed until it answers, and again whenever the connection is lost, for ever.
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

use crate::config::MAX_BOOTSTRAP;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Dialing(ConnectionId),
    Up(PeerId),
    /// The address turned out to be our own.
    Ourselves,
}

#[derive(Debug)]
struct Entry {
    address: Multiaddr,
    /// The peer named by the address's `/p2p/` suffix.
    expected: Option<PeerId>,
    failures: u32,
    state: State,
}

#[derive(Debug, Default)]
pub(crate) struct Bootstrap {
    entries: Vec<Entry>,
}

/// How a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoAnswer,
    Ourselves,
}

impl Bootstrap {
    /// Adds an address, to be dialed at once; false if the list is full.
    pub(crate) fn add(&mut self, address: Multiaddr, now: Instant) -> bool {
        if self.entries.iter().any(|entry| entry.address == address) {
            return true;
        }
        if self.entries.len() >= MAX_BOOTSTRAP {
            return false;
        }
        let expected = address.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        self.entries.push(Entry { address, expected, failures: 0, state: State::Waiting { until: now } });
        true
    }

    /// Addresses to dial now.
    pub(crate) fn due(&self, now: Instant) -> Vec<(Multiaddr, Option<PeerId>)> {
        let due = |entry: &&Entry| matches!(entry.state, State::Waiting { until } if until <= now);
        self.entries.iter().filter(due).map(|entry| (entry.address.clone(), entry.expected)).collect()
    }

    pub(crate) fn dialing(&mut self, address: &Multiaddr, id: ConnectionId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == *address) {
            entry.state = State::Dialing(id);
        }
    }

    pub(crate) fn connected(&mut self, id: ConnectionId, peer: PeerId) {
        for entry in &mut self.entries {
            let dialed = matches!(entry.state, State::Dialing(dialed) if dialed == id);
            let came_by_itself = entry.expected == Some(peer) && matches!(entry.state, State::Waiting { .. });
            if dialed || came_by_itself {
                entry.state = State::Up(peer);
                entry.failures = 0;
            }
        }
    }

    /// `spread` is any number; it keeps peers that lost the same neighbour from coming back in step.
    pub(crate) fn failed(&mut self, id: ConnectionId, failure: Failure, now: Instant, spread: u64) {
        let dialed = |entry: &&mut Entry| matches!(entry.state, State::Dialing(dialed) if dialed == id);
        let Some(entry) = self.entries.iter_mut().find(dialed) else { return };
        entry.state = match failure {
            Failure::Ourselves => State::Ourselves,
            Failure::NoAnswer => {
                entry.failures = entry.failures.saturating_add(1);
                State::Waiting { until: now + pause(entry.failures, spread) }
            }
        };
    }

    /// The last connection to a peer has ended.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Instant, spread: u64) {
        for entry in &mut self.entries {
            if matches!(entry.state, State::Up(up) if up == *peer) {
                entry.state = State::Waiting { until: now + pause(1, spread) };
            }
        }
    }
}

/// 1 s, 2 s, 4 s … 60 s, of which a quarter is spread.
fn pause(failures: u32, spread: u64) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
    full - full * (spread % 256) as u32 / 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn one() -> (Bootstrap, Multiaddr, Instant) {
        let now = Instant::now();
        let address: Multiaddr = "/ip4/203.0.113.7/tcp/7400".parse().unwrap();
        let mut bootstrap = Bootstrap::default();
        assert!(bootstrap.add(address.clone(), now));
        (bootstrap, address, now)
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn an_address_that_never_answers_is_dialed_for_ever_but_ever_more_rarely() {
        let (mut bootstrap, address, mut now) = one();
        let mut pauses = Vec::new();
        for n in 0..20 {
            let start = now;
            while bootstrap.due(now).is_empty() {
                now += Duration::from_millis(100);
            }
            pauses.push((now - start).as_secs());
            bootstrap.dialing(&address, id(n));
            assert!(bootstrap.due(now + LONGEST_PAUSE).is_empty(), "not dialed twice at once");
            bootstrap.failed(id(n), Failure::NoAnswer, now, 0);
        }
        assert_eq!(pauses[..8], [0, 1, 2, 4, 8, 16, 32, 60]);
        assert!(pauses[8..].iter().all(|pause| *pause == 60));
    }

    #[test]
    fn a_lost_connection_is_dialed_again_soon() {
        let (mut bootstrap, address, now) = one();
        let peer = PeerId::random();
        bootstrap.dialing(&address, id(1));
        bootstrap.connected(id(1), peer);
        assert!(bootstrap.due(now + LONGEST_PAUSE).is_empty());
        bootstrap.lost(&peer, now, 77);
        assert_eq!(bootstrap.due(now + FIRST_PAUSE).len(), 1);
    }

    #[test]
    fn our_own_address_in_the_list_is_left_alone() {
        let (mut bootstrap, address, now) = one();
        bootstrap.dialing(&address, id(1));
        bootstrap.failed(id(1), Failure::Ourselves, now, 0);
        assert!(bootstrap.due(now + LONGEST_PAUSE * 10).is_empty());
    }

    #[test]
    fn the_list_is_bounded() {
        let mut bootstrap = Bootstrap::default();
        let added = (0..100).filter(|n| bootstrap.add(format!("/ip4/203.0.113.7/tcp/{}", 1000 + n).parse().unwrap(), Instant::now()));
        assert_eq!(added.count(), MAX_BOOTSTRAP);
    }
}
