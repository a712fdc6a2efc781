//! A token bucket: a rate that holds on average, and a burst on top.

use std::time::{Duration, Instant};

const NANOS: u128 = 1_000_000_000;

/// Tokens that come at a steady rate. A taker may overdraw once, and then waits until the debt is paid.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Tokens a second; `None`: without limit.
    rate: Option<u64>,
    burst: u64,
    /// In billionths of a token.
    level: i128,
    last: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Option<u64>, burst: u64, now: Instant) -> Bucket {
        Bucket { rate, burst, level: i128::from(burst) * NANOS as i128, last: now }
    }

    /// From now on.
    pub(crate) fn set(&mut self, rate: Option<u64>, burst: u64, now: Instant) {
        self.refill(now);
        self.rate = rate;
        self.burst = burst;
        self.level = self.level.min(i128::from(burst) * NANOS as i128);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.last).as_nanos();
        self.last = self.last.max(now);
        if let Some(rate) = self.rate {
            // Bounded by the time it takes to fill from any debt, so that nothing overflows.
            let earned = i128::try_from(passed.min(3_600 * NANOS)).unwrap_or(0) * i128::from(rate);
            self.level = (self.level + earned).min(i128::from(self.burst) * NANOS as i128);
        }
    }

    /// Whether something may be taken now.
    pub(crate) fn is_open(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.rate.is_none() || self.level > 0
    }

    /// Takes, whatever is there.
    pub(crate) fn take(&mut self, tokens: usize) {
        if self.rate.is_some() {
            self.level -= (tokens as i128) * NANOS as i128;
        }
    }

    /// Takes if there is something to take.
    pub(crate) fn try_take(&mut self, tokens: usize, now: Instant) -> bool {
        let open = self.is_open(now);
        if open {
            self.take(tokens);
        }
        open
    }

    /// How long until it is open; zero if it is.
    pub(crate) fn opens_in(&self) -> Duration {
        match self.rate {
            Some(rate) if self.level <= 0 => {
                let nanos = (1 - self.level).unsigned_abs() / u128::from(rate.max(1)) + 1;
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(3_600))
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_on_average_and_can_be_changed() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1_000_000), 10_000, start);
        let sent_until = |bucket: &mut Bucket, from: u64, to: u64| {
            let (mut sent, mut now) = (0_u64, start + Duration::from_millis(from));
            while now < start + Duration::from_millis(to) {
                if bucket.try_take(1_514, now) {
                    sent += 1_514;
                } else {
                    now += bucket.opens_in();
                }
            }
            sent
        };
        let sent = sent_until(&mut bucket, 0, 1_000);
        assert!((1_000_000..1_012_000).contains(&sent), "{sent}");
        bucket.set(Some(250_000), 10_000, start + Duration::from_secs(1));
        let sent = sent_until(&mut bucket, 1_000, 2_000);
        assert!((247_000..253_000).contains(&sent), "{sent}");
        bucket.set(None, 0, start + Duration::from_secs(2));
        assert!(bucket.is_open(start + Duration::from_secs(2)) && bucket.opens_in().is_zero());
    }
}
