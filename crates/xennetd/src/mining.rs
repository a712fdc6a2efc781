//! Searching nonces on all cores: for an identity, resumable, and for an announcement's work.
//!
//! The pure crates search a range of nonces in one call; here are the threads that hand the ranges out, the progress, and
//! what is kept so that a restart goes on where the last run was.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xennet_identity::{Anchor, Identity, IdentityTemplate, Role, TargetSchedule};

use crate::control::MiningView;
use crate::store::{Batch, Store, StoreError, Table};

/// Nonces a thread takes at a time: some 30 ms of work, so that stopping is quick and handing out costs nothing.
const RANGE: u64 = 1 << 18;

/// Time between two looks at how it goes.
const TICK: Duration = Duration::from_millis(250);

/// Time between two notes of how far it is. What a kill loses is at most this much work.
const NOTE_EVERY: Duration = Duration::from_secs(3);

/// How a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Threads at work.
    pub threads: u32,
    /// Nonces tried in this run.
    pub hashes: u64,
    /// Nonces tried a second.
    pub hashes_per_s: u64,
    /// All nonces below this one have been tried.
    pub next_nonce: u64,
}

/// Stops a search from elsewhere. Clones stop the same search.
#[derive(Debug, Default, Clone)]
pub struct StopSwitch(Arc<AtomicBool>);

impl StopSwitch {
    /// A switch that is not thrown.
    pub fn new() -> StopSwitch {
        StopSwitch::default()
    }

    /// Ends the search within some 30 ms.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_thrown(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Searches nonces from `start` on all cores until `try_range(first, count)` finds one, or `stop` is thrown. Blocks; calls
/// `on_progress` a few times a second and once at the end.
pub fn search(
    start: u64,
    stop: &StopSwitch,
    try_range: impl Fn(u64, u64) -> Option<u64> + Sync,
    mut on_progress: impl FnMut(&Progress),
) -> Option<u64> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(start);
    let tried = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    // Where the range begins that each thread is in or will take next; all below the lowest of them has been tried.
    let current: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(start)).collect();
    let (found, finds) = mpsc::channel();
    let begun = Instant::now();

    let progress = || {
        let hashes = tried.load(Ordering::Relaxed);
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        Progress {
            threads: u32::try_from(threads).unwrap_or(u32::MAX),
            hashes,
            hashes_per_s: hashes.saturating_mul(1000) / milliseconds,
            next_nonce: current.iter().map(|at| at.load(Ordering::SeqCst)).min().unwrap_or(start),
        }
    };

    thread::scope(|scope| {
        for at in &current {
            let found = found.clone();
            scope.spawn({
                let (next, tried, over, try_range) = (&next, &tried, &over, &try_range);
                move || {
                    while !over.load(Ordering::Relaxed) && !stop.is_thrown() {
                        let first = next.fetch_add(RANGE, Ordering::SeqCst);
                        at.store(first, Ordering::SeqCst);
                        match try_range(first, RANGE) {
                            Some(nonce) => {
                                tried.fetch_add(nonce.wrapping_sub(first).min(RANGE), Ordering::Relaxed);
                                over.store(true, Ordering::Relaxed);
                                // The receiver lives as long as the scope.
                                let _ = found.send(nonce);
                            }
                            None => {
                                tried.fetch_add(RANGE, Ordering::Relaxed);
                            }
                        }
                        // Not above the next range this thread will take, so that no moment shows that range as tried.
                        at.store(next.load(Ordering::SeqCst), Ordering::SeqCst);
                    }
                }
            });
        }
        drop(found);
        let nonce = loop {
            match finds.recv_timeout(TICK) {
                Ok(nonce) => break Some(nonce),
                Err(mpsc::RecvTimeoutError::Timeout) => on_progress(&progress()),
                // All threads have ended: the switch was thrown.
                Err(mpsc::RecvTimeoutError::Disconnected) => break None,
            }
        };
        on_progress(&progress());
        nonce
    })
}

/// Why an identity was not mined.
#[derive(Debug, Error)]
pub enum MiningError {
    /// It was stopped; it goes on from the noted nonce next time.
    #[error("mining was stopped; it goes on where it was when it is started again")]
    Stopped,
    /// How far it is could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far the mining of a role's identity is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    key: secp256k1::PublicKey,
    anchor: Anchor,
    next_nonce: u64,
    hashes: u64,
}

/// The mined identity of `role`, if there is one.
pub fn mined(store: &Store, role: Role) -> Result<Option<Identity>, StoreError> {
    store.get_json(Table::Identities, table_key(role))
}

/// Mines the identity of `fresh.role` and keeps it in the store. Blocks; `on_progress` is called a few times a second.
///
/// Goes on where an earlier run was, as long as that run's anchor is still young enough at `tip`; else begins with `fresh`.
pub fn mine_identity(
    store: &Store,
    fresh: IdentityTemplate,
    schedule: &TargetSchedule,
    tip: u32,
    stop: &StopSwitch,
    mut on_progress: impl FnMut(MiningView),
) -> Result<Identity, MiningError> {
    let role = fresh.role;
    let noted = store
        .get_json::<Noted>(Table::Mining, table_key(role))?
        .filter(|noted| noted.key == fresh.key && is_young(&noted.anchor, schedule, tip))
        .unwrap_or(Noted { key: fresh.key, anchor: fresh.anchor, next_nonce: 0, hashes: 0 });
    let template = IdentityTemplate { role, key: noted.key, anchor: noted.anchor };
    let target = schedule.target_at(template.anchor.height);
    let expected = u64::try_from(target.expected_hashes()).unwrap_or(u64::MAX);

    let mut last_note = Instant::now();
    let mut trouble = None;
    let nonce = search(
        noted.next_nonce,
        stop,
        |first, count| template.search(&target, first, count),
        |progress| {
            let hashes = noted.hashes.saturating_add(progress.hashes);
            on_progress(MiningView {
                role,
                threads: progress.threads,
                hashes,
                expected_hashes: expected,
                hashes_per_s: progress.hashes_per_s,
                expected_s: expected.checked_div(progress.hashes_per_s).unwrap_or(0),
                next_nonce: progress.next_nonce,
                found: false,
            });
            if last_note.elapsed() >= NOTE_EVERY || stop.is_thrown() {
                last_note = Instant::now();
                let now = Noted { next_nonce: progress.next_nonce, hashes, ..noted.clone() };
                if let Err(e) = note(store, role, &now) {
                    // Mining for nothing that could be kept would only burn power.
                    trouble = Some(e);
                    stop.stop();
                }
            }
        },
    );
    if let Some(error) = trouble {
        return Err(error.into());
    }
    let identity = template.with_nonce(nonce.ok_or(MiningError::Stopped)?);
    let mut batch = Batch::new();
    batch.put_json(Table::Identities, table_key(role), &identity)?;
    batch.delete(Table::Mining, table_key(role));
    Ok(store.persist_blocking(batch, identity).map_err(StoreError::from)?.into_inner())
}

fn note(store: &Store, role: Role, noted: &Noted) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put_json(Table::Mining, table_key(role), noted)?;
    store.persist_blocking(batch, ())?.into_inner();
    Ok(())
}

/// A renewed anchor loses no luck: every nonce is as likely as every other. So half of the allowed age is left for use.
fn is_young(anchor: &Anchor, schedule: &TargetSchedule, tip: u32) -> bool {
    tip.checked_sub(anchor.height).is_some_and(|age| age >= schedule.min_anchor_age && age <= schedule.max_anchor_age / 2)
}

fn table_key(role: Role) -> &'static [u8] {
    match role {
        Role::Publisher => b"publisher",
        Role::Node => b"node",
    }
}
