//! Payments beside the bare signature library, then with the disk in the way.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use xennet_rama::bench::Ends;

use super::report::{Figure, Section, Target, Unit};
use super::statistics::{Paired, Spread, in_turns};
use super::{BenchError, Effort, disk, on_a_core};
use crate::store::durable_updates;

/// Payments in one batch: some 0.3 ms of work. On a machine that others use as well, longer ones are interrupted more often
/// than not, and then it is luck which of the two is hit.
const BATCH: u64 = 8;
/// Size of what is written for each payment, bytes: the record of a lease in mid-lease.
const RECORD_BYTES: usize = 4_500;
/// Leases that pay at the same time.
const MANY: u32 = 100;
/// Share of the bare rate that payments must reach.
const LEAST_SHARE: f64 = 0.9;

pub(super) async fn run(effort: Effort, dir: &Path, section: &mut Section) -> Result<(), BenchError> {
    let rounds = effort.pick(500, 5_000);
    let (sign, verify) = on_a_core(move || Ok::<_, BenchError>((sign(rounds)?, verify(rounds)?))).await??;
    beside(section, "sign a payment, ÷ bare signature", "payments signed", "bare signatures", sign);
    beside(section, "check a payment, ÷ bare verification", "payments checked", "bare verifications", verify);

    let dir = dir.to_owned();
    let (one, many, sync_ms) = on_a_core(move || durable(effort, &dir)).await??;
    let commit_ms = 1e3 / (one.max(1) as f64);
    section.figures.extend([
        Figure::new("durable payments, 1 lease", Unit::PerSecond, one as f64),
        Figure::new(format!("durable payments, {MANY} leases"), Unit::PerSecond, many as f64),
        Figure::new("gain by sharing commits", Unit::Ratio, many as f64 / one.max(1) as f64),
        Figure::median("a synced write of 4 KiB on this disk", Unit::Milliseconds, sync_ms),
        Figure::new("synced writes that one commit costs", Unit::Count, commit_ms / sync_ms.median),
    ]);
    section.notes.push(format!(
        "The disk bounds durable payments: redb's two-phase commit syncs twice and the sequence file once, and a signature costs \
         {:.0} µs against {commit_ms:.1} ms for a commit. Leases that wait together share a commit.",
        1e6 / sign.ours_per_s.median
    ));
    Ok(())
}

fn beside(section: &mut Section, ratio: &str, ours: &str, bare: &str, paired: Paired) {
    section.figures.extend([
        Figure::median(ratio, Unit::Ratio, paired.ratio).to_reach(Target::AtLeast(LEAST_SHARE)),
        Figure::median(ours, Unit::PerSecond, paired.ours_per_s),
        Figure::median(bare, Unit::PerSecond, paired.other_per_s),
    ]);
}

fn sign(rounds: usize) -> Result<Paired, BenchError> {
    let bare = Ends::new()?;
    let mut ends = Ends::new()?;
    let ours = || {
        let begun = Instant::now();
        black_box(ends.pay(BATCH)?);
        Ok(begun.elapsed())
    };
    let other = || {
        let begun = Instant::now();
        black_box(bare.bare_sign(BATCH));
        Ok::<_, BenchError>(begun.elapsed())
    };
    in_turns(rounds, BATCH, ours, other)?.ok_or(BenchError::Nothing)
}

fn verify(rounds: usize) -> Result<Paired, BenchError> {
    let bare = Ends::new()?;
    let signatures = bare.bare_sign(BATCH);
    let mut ends = Ends::new()?;
    let ours = || {
        // The node takes growing totals only, so each batch is signed anew, outside the measured time.
        let updates = ends.pay(BATCH)?;
        let begun = Instant::now();
        ends.accept(&updates)?;
        Ok(begun.elapsed())
    };
    let other = || {
        let begun = Instant::now();
        black_box(bare.bare_verify(&signatures));
        Ok::<_, BenchError>(begun.elapsed())
    };
    in_turns(rounds, BATCH, ours, other)?.ok_or(BenchError::Nothing)
}

/// Durable updates a second for one lease and for many, and a synced write beside them, milliseconds. The writes are timed
/// before, between and after, because other users of the disk come and go.
fn durable(effort: Effort, dir: &Path) -> Result<(u64, u64, Spread), BenchError> {
    let rounds = effort.pick(1, 3);
    let duration = Duration::from_millis(effort.pick(1_000, 2_000));
    let (mut one, mut many, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        syncs.push(disk::synced_writes(dir, 60)?);
        one.push(durable_updates(&dir.join(format!("one-{round}")), 1, RECORD_BYTES, duration)?.updates_per_s);
        syncs.push(disk::synced_writes(dir, 60)?);
        many.push(durable_updates(&dir.join(format!("many-{round}")), MANY, RECORD_BYTES, duration)?.updates_per_s);
    }
    one.sort_unstable();
    many.sort_unstable();
    syncs.sort_by(|a, b| a.median.total_cmp(&b.median));
    let middle = |all: Vec<u64>| all.get(all.len() / 2).copied().ok_or(BenchError::Nothing);
    let sync = syncs.get(syncs.len() / 2).copied().ok_or(BenchError::Nothing)?;
    Ok((middle(one)?, middle(many)?, sync))
}
