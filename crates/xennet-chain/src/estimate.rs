//! An estimate of the feerate that is good for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least that is estimated: what every node has always relayed, satoshi per 1,000 virtual bytes.
pub(crate) const LEAST_SAT_PER_KVB: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Estimate(Mutex<Option<(u64, Instant)>>);

impl Estimate {
    /// The last one, satoshi per 1,000 virtual bytes, if it is no older than this.
    pub(crate) fn younger_than(&self, age: Duration) -> Option<u64> {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.filter(|(_, at)| at.elapsed() < age).map(|(feerate, _)| feerate)
    }

    pub(crate) fn keep(&self, feerate: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((feerate, Instant::now()));
    }
}
