//! Who may come in to log in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts those who are logging in, in all and by network.
#[derive(Debug)]
pub(super) struct Door {
    inside: Mutex<Inside>,
    most: usize,
    most_per_network: usize,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_network: HashMap<[u8; 8], usize>,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    network: [u8; 8],
}

impl Door {
    pub(super) fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), most, most_per_network })
    }

    /// A place for one more, unless there are too many.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let network = network(peer);
        let mut inside = self.lock();
        if inside.all >= self.most {
            return None;
        }
        let here = inside.by_network.get(&network).copied().unwrap_or(0);
        if here >= self.most_per_network {
            return None;
        }
        inside.by_network.insert(network, here + 1);
        inside.all += 1;
        Some(Place { door: Arc::clone(self), network })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.lock();
        inside.all = inside.all.saturating_sub(1);
        if let Some(here) = inside.by_network.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                inside.by_network.remove(&self.network);
            }
        }
    }
}

/// One IPv4 address, or one IPv6 /64: a single customer gets no less than that.
fn network(peer: IpAddr) -> [u8; 8] {
    let octets = match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets()[8..].to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    };
    octets.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_network_and_the_whole_have_their_bounds_and_places_come_back() {
        let door = Door::new(4, 2);
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let a = door.enter(ip("10.0.0.1")).unwrap();
        let _b = door.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert!(door.enter(ip("10.0.0.1")).is_none());
        let _c = door.enter(ip("2001:db8::1")).unwrap();
        let _d = door.enter(ip("2001:db8::2")).unwrap();
        assert!(door.enter(ip("10.0.0.2")).is_none(), "four in all");
        drop(a);
        assert!(door.enter(ip("2001:db8::ffff")).is_none(), "the same /64");
        assert!(door.enter(ip("2001:db8:0:1::1")).is_some());
        assert_eq!(door.lock().by_network.len(), 2);
    }
}
