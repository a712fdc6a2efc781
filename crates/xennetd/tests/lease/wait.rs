//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// Looks again and again until there is something to see; fails when `within_s` seconds are over.
pub async fn wait_for<T>(what: &str, within_s: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(within_s), "{what}: not within {within_s} s");
        tokio::time::sleep(EVERY).await;
    }
}

/// The same for a condition that is or is not so.
pub async fn wait_until(what: &str, within_s: u64, mut holds: impl AsyncFnMut() -> bool) {
    wait_for(what, within_s, async || holds().await.then_some(())).await;
}
