//! What guest program and publisher share: the work whose result the publisher checks.
//!
//! The program in `main.rs` runs in the guest and obeys one line at a time on its standard input. It measures nothing itself: the
//! publisher times each answer on its own clock, so a guest whose clock is wrong gains nothing.
//!
//! ```text
//! ping                     → pong
//! cpu THREADS SEED STEPS   → done CHECKSUM     every thread t runs chain(SEED + t, STEPS); CHECKSUM is that of thread 0, hex
//! memory MIB PASSES        → done              copies MIB from one buffer to another, PASSES times
//! write MIB                → done              writes a file and syncs it
//! read MIB                 → done              reads it back, past the cache where the kernel allows
//! sink BYTES               → done              takes BYTES of raw input
//! source BYTES             → BYTES of raw output, then done
//! quit
//! ```
//! What it cannot do it answers with `error WHY`.

mod chain;

pub use chain::chain;

/// Cycles that a real core takes for one step of [`chain`].
pub const CYCLES_PER_STEP: u64 = 9;
