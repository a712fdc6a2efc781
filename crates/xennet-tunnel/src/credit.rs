//! How much may be under way in a pipe.
//!
//! The SSH library opens a channel's window again as soon as it has handed data on, not when somebody has read it, and
//! it stops its whole session while one channel's reader is slow. A pipe nobody reads would so hold up the payments and
//! in the end the keepalive. Therefore a pipe has credit of its own: each end tells the other how many bytes it may
//! have sent in all, and tells more as they are read. What was sent can then always be taken off the session at once.
//!
//! A grant is extended data of type [`GRANT`]: a big-endian `u64`, the total that may have been sent since the pipe
//! was opened. Both directions begin with [`INITIAL`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The type of extended data that carries a grant, from the range RFC 4254, 5.2 sets aside for private use.
pub(crate) const GRANT: u32 = 0xFE00_584E;
/// What either end may send before any grant, in bytes.
pub(crate) const INITIAL: u64 = 128 * 1024;
/// A window lets this much through per second of round trip. More than the path needs is not only memory: what waits
/// in queues falls out of the processor's caches, and every copy of it costs twice as much.
const PER_SECOND: u64 = 128 * 1024 * 1024;
/// The smallest window as long as there is memory, because a busy machine has pauses of its own.
const SMALLEST: u64 = 512 * 1024;
/// The largest window of one pipe: 80 MB/s over a path of 100 ms.
const LARGEST: u64 = 8 * 1024 * 1024;
/// What the windows of a session share. With [`crate::MAX_PIPES`] pipes that nobody reads a session holds at most
/// this and [`INITIAL`] for each.
const SHARED: u64 = 16 * 1024 * 1024;

/// The memory the pipes of one session may fill.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Mutex<u64>,
}

impl Budget {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(SHARED) })
    }

    /// A window for one more pipe over a path with this round trip: what it needs, but at most half of what is left, so
    /// that there is always some for the next.
    pub(crate) fn window(self: &Arc<Self>, round_trip: Duration) -> Window {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        let needed = (PER_SECOND / 1_000_000).saturating_mul(micros).clamp(SMALLEST, LARGEST);
        let mut left = self.lock();
        let bytes = needed.min(*left / 2).max(INITIAL);
        let taken = bytes.min(*left);
        *left -= taken;
        Window { bytes, taken, budget: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes a pipe may hold unread.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) bytes: u64,
    taken: u64,
    budget: Arc<Budget>,
}

impl Drop for Window {
    fn drop(&mut self) {
        *self.budget.lock() += self.taken;
    }
}

/// A grant as it goes over the wire.
pub(crate) fn encode_grant(total: u64) -> Vec<u8> {
    total.to_be_bytes().to_vec()
}

/// A grant as it came over the wire, if it is one.
pub(crate) fn decode_grant(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_windows_of_a_session_have_a_bound_and_come_back() {
        let budget = Budget::new();
        let far = Duration::from_millis(200);
        let first = budget.window(far);
        assert_eq!(first.bytes, LARGEST);
        let all: Vec<Window> = (1..crate::MAX_PIPES).map(|_| budget.window(far)).collect();
        let sum: u64 = all.iter().map(|w| w.bytes).sum::<u64>() + first.bytes;
        assert!(all.iter().all(|w| w.bytes >= INITIAL));
        assert!(sum <= SHARED + crate::MAX_PIPES as u64 * INITIAL, "{sum}");
        drop((first, all));
        assert_eq!(*budget.lock(), SHARED);
    }

    #[test]
    fn a_near_peer_gets_a_small_window_and_a_far_one_a_large_one() {
        let bytes = |millis| Budget::new().window(Duration::from_millis(millis)).bytes;
        assert_eq!(bytes(0), SMALLEST);
        assert!((2_500_000..2_800_000).contains(&bytes(20)), "{}", bytes(20));
        assert_eq!(bytes(100), LARGEST);
        assert_eq!(Budget::new().window(Duration::MAX).bytes, LARGEST);
    }

    #[test]
    fn a_grant_of_another_length_is_none() {
        assert_eq!(decode_grant(&encode_grant(u64::MAX)), Some(u64::MAX));
        assert_eq!(decode_grant(&[]), None);
        assert_eq!(decode_grant(&[0; 9]), None);
    }
}
