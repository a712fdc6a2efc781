//! Figures that hold on a machine that others use as well.
//!
//! A rate taken in one go is off by whatever else ran meanwhile. Two things done in turns, in batches of about a
//! millisecond, meet the same load; and the median of many such pairs forgets those in which one of them was interrupted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A median, and how far the middle half of the measurements lies around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter of the measurements is not above this.
    pub low: f64,
    /// As many are below as above.
    pub median: f64,
    /// A quarter is not below this.
    pub high: f64,
    /// How many measurements there were.
    pub samples: usize,
}

impl Spread {
    /// `None` if there is no measurement, or one that is not a number.
    pub fn of(mut samples: Vec<f64>) -> Option<Spread> {
        if samples.is_empty() || samples.iter().any(|sample| sample.is_nan()) {
            return None;
        }
        samples.sort_by(f64::total_cmp);
        Some(Spread {
            low: quantile(&samples, 0.25),
            median: quantile(&samples, 0.5),
            high: quantile(&samples, 0.75),
            samples: samples.len(),
        })
    }

    /// The same with every measurement put through `change`, which must keep or turn their order.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Spread {
        let (one, other) = (change(self.low), change(self.high));
        Spread { low: one.min(other), median: change(self.median), high: one.max(other), samples: self.samples }
    }
}

/// Between two neighbours it is taken in proportion, so that the median of an even number lies halfway. `sorted` is not empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = share * last as f64;
    let below = (at as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

/// Two things that were done in turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// Ours per second.
    pub ours_per_s: Spread,
    /// The other per second.
    pub other_per_s: Spread,
    /// How many times as fast ours is: the median over the pairs, not of the medians.
    pub ratio: Spread,
}

/// Does `ours` and `other` in turns. Each does one batch of `each` and says how long it took, so that what a batch needs made
/// beforehand is not counted. Who goes first changes every time: the first after a change finds cold caches.
///
/// # Errors
/// The first error of either. `None` if there was nothing to measure.
pub fn in_turns<E>(
    rounds: usize,
    each: u64,
    mut ours: impl FnMut() -> Result<Duration, E>,
    mut other: impl FnMut() -> Result<Duration, E>,
) -> Result<Option<Paired>, E> {
    // The first batches warm up: lazily made tables, the clock of the processor.
    ours()?;
    other()?;
    let (mut our_rates, mut other_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (a, b) = if round % 2 == 0 {
            let a = ours()?;
            (a, other()?)
        } else {
            let b = other()?;
            (ours()?, b)
        };
        our_rates.push(rate(each, a));
        other_rates.push(rate(each, b));
        ratios.push(seconds(b) / seconds(a));
    }
    let spreads = (Spread::of(our_rates), Spread::of(other_rates), Spread::of(ratios));
    let (Some(ours_per_s), Some(other_per_s), Some(ratio)) = spreads else { return Ok(None) };
    Ok(Some(Paired { ours_per_s, other_per_s, ratio }))
}

/// So many in that time, for each second.
pub fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / seconds(took)
}

/// A clock that did not move must not make a rate infinite.
fn seconds(took: Duration) -> f64 {
    took.max(Duration::from_nanos(1)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_median_lies_in_the_middle_whatever_the_order() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { low: 2.0, median: 3.0, high: 4.0, samples: 5 });
    }

    #[test]
    fn the_median_of_an_even_number_lies_halfway() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (1.75, 2.5, 3.25));
    }

    #[test]
    fn one_measurement_is_its_own_spread_and_none_has_no_spread() {
        assert_eq!(Spread::of(vec![7.0]).unwrap(), Spread { low: 7.0, median: 7.0, high: 7.0, samples: 1 });
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![1.0, f64::NAN]), None);
    }

    #[test]
    fn one_interruption_in_a_hundred_does_not_move_a_median() {
        let mut samples = vec![1.0; 99];
        samples.push(1_000_000.0);
        let spread = Spread::of(samples).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_change_that_turns_the_order_turns_the_quarters() {
        let spread = Spread { low: 2.0, median: 4.0, high: 8.0, samples: 9 };
        assert_eq!(spread.map(|x| 8.0 / x), Spread { low: 1.0, median: 2.0, high: 4.0, samples: 9 });
    }

    #[test]
    fn a_ratio_is_how_many_times_as_fast_ours_is() {
        let fast = || Ok::<_, Infallible>(Duration::from_millis(10));
        let slow = || Ok::<_, Infallible>(Duration::from_millis(20));
        let paired = in_turns(7, 100, fast, slow).unwrap().unwrap();
        assert_eq!(paired.ratio.median, 2.0);
        assert_eq!(paired.ours_per_s.median, 10_000.0);
        assert_eq!(paired.other_per_s.median, 5_000.0);
        assert_eq!(paired.ratio.samples, 7);
    }

    #[test]
    fn load_that_comes_and_goes_hits_both_and_leaves_the_ratio() {
        // Every other pair runs at a third of the speed.
        let turn = RefCell::new(0);
        let at = |millis: u64| {
            let mut turn = turn.borrow_mut();
            *turn += 1;
            let load = if (*turn - 1) / 2 % 2 == 0 { 1 } else { 3 };
            Ok::<_, Infallible>(Duration::from_millis(millis * load))
        };
        let paired = in_turns(40, 1, || at(10), || at(15)).unwrap().unwrap();
        assert!(paired.ratio.low > 1.499 && paired.ratio.high < 1.501, "{:?}", paired.ratio);
        assert!(paired.ours_per_s.low < paired.ours_per_s.high);
    }

    #[test]
    fn who_goes_first_changes_every_time_after_both_have_warmed_up() {
        let order = RefCell::new(String::new());
        let note = |who: char| {
            order.borrow_mut().push(who);
            Ok::<_, Infallible>(Duration::from_millis(1))
        };
        in_turns(4, 1, || note('a'), || note('b')).unwrap().unwrap();
        assert_eq!(*order.borrow(), "ab abba abba".replace(' ', ""));
    }

    #[test]
    fn a_clock_that_stands_still_gives_no_infinite_rate() {
        let still = || Ok::<_, Infallible>(Duration::ZERO);
        let paired = in_turns(3, 1, still, still).unwrap().unwrap();
        assert_eq!(paired.ratio.median, 1.0);
        assert!(paired.ours_per_s.high.is_finite());
        assert_eq!(in_turns(0, 1, still, still).unwrap(), None);
    }

    #[test]
    fn an_error_ends_the_turns() {
        let broken = || Err::<Duration, _>("no");
        assert_eq!(in_turns(3, 1, || Ok(Duration::ZERO), broken), Err("no"));
    }
}
