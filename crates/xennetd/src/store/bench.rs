//! How many durable updates a second the disk allows, for one lease and for many at once.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Batch, Store, StoreError, Table};

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommit {
    /// Leases that wrote at the same time, each waiting for its own acknowledgement before its next update.
    pub leases: u32,
    /// Updates acknowledged a second, all leases together.
    pub updates_per_s: u64,
}

/// Lets `leases` leases each write one record of `record_bytes` after the other into a store under `dir`, for `duration`.
///
/// One lease shows what a synced commit costs. Many leases share commits, so the sum grows while the disk does the same.
pub fn durable_updates(dir: &Path, leases: u32, record_bytes: usize, duration: Duration) -> Result<GroupCommit, StoreError> {
    let store = Store::open(dir)?;
    let done = AtomicU64::new(0);
    let begun = Instant::now();
    let value = vec![b'x'; record_bytes];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..leases)
            .map(|lease| {
                scope.spawn({
                    let (store, done, value) = (&store, &done, &value);
                    move || -> Result<(), StoreError> {
                        while begun.elapsed() < duration {
                            let mut batch = Batch::new();
                            batch.put(Table::Leases, &lease.to_be_bytes(), value);
                            store.persist_blocking(batch, ())?.into_inner();
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    }
                })
            })
            .collect();
        for worker in workers {
            // A thread that panicked has counted nothing false; its panic is already on stderr.
            worker.join().unwrap_or(Err(StoreError::Stopped))?;
        }
        Ok::<(), StoreError>(())
    })?;
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    Ok(GroupCommit { leases, updates_per_s: done.into_inner().saturating_mul(1000) / milliseconds })
}
