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
/// How long each way is measured at a time.
const TURN: Duration = Duration::from_millis(750);
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
    let Durable { one, many, gain, sync_ms } = on_a_core(move || durable(effort, &dir)).await??;
    let commit_ms = 1e3 / one.median.max(1.0);
    section.figures.extend([
        Figure::median("durable payments, 1 lease", Unit::PerSecond, one),
        Figure::median(format!("durable payments, {MANY} leases"), Unit::PerSecond, many),
        Figure::median(format!("{MANY} leases, ÷ 1 lease"), Unit::Ratio, gain),
        Figure::median("a synced write of 4 KiB on this disk", Unit::Milliseconds, sync_ms),
        Figure::new("synced writes that one commit costs", Unit::Count, commit_ms / sync_ms.median),
    ]);
    section.notes.push(format!(
        "Syncing bounds durable payments: a signature costs {:.0} µs against {commit_ms:.1} ms for a commit, in which redb's two \
         phases sync twice and the sequence file once; the rest is processor time and, where others are at work, waiting for it. \
         Leases that wait together share a commit, so many can gain even more than their number.",
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
    let mut number = 0;
    let ours = || {
        let begun = Instant::now();
        black_box(ends.pay(BATCH)?);
        Ok(begun.elapsed())
    };
    let other = || {
        number += BATCH;
        let begun = Instant::now();
        black_box(bare.bare_sign(number, BATCH));
        Ok::<_, BenchError>(begun.elapsed())
    };
    in_turns(rounds, BATCH, ours, other)?.ok_or(BenchError::Nothing)
}

fn verify(rounds: usize) -> Result<Paired, BenchError> {
    let bare = Ends::new()?;
    let mut ends = Ends::new()?;
    let mut number = 0;
    // Both check signatures that they have not seen before, made outside the measured time.
    let ours = || {
        let updates = ends.pay(BATCH)?;
        let begun = Instant::now();
        ends.accept(&updates)?;
        Ok(begun.elapsed())
    };
    let other = || {
        number += BATCH;
        let signatures = bare.bare_sign(number, BATCH);
        let begun = Instant::now();
        black_box(bare.bare_verify(number, &signatures));
        Ok::<_, BenchError>(begun.elapsed())
    };
    in_turns(rounds, BATCH, ours, other)?.ok_or(BenchError::Nothing)
}

/// Durable updates a second for one lease and for many, how many times as many those are, and milliseconds of a synced write.
struct Durable {
    one: Spread,
    many: Spread,
    gain: Spread,
    sync_ms: Spread,
}

/// In turns, because other users of the disk come and go.
fn durable(effort: Effort, dir: &Path) -> Result<Durable, BenchError> {
    let (mut one, mut many, mut gain, mut syncs_ms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..effort.pick(2, 8) {
        syncs_ms.push(disk::synced_writes(dir, 30)?.median);
        let rate = |name: &str, leases| -> Result<f64, BenchError> {
            let dir = dir.join(format!("{name}-{round}"));
            Ok(durable_updates(&dir, leases, RECORD_BYTES, TURN)?.updates_per_s as f64)
        };
        let (alone, together) = (rate("one", 1)?, rate("many", MANY)?);
        one.push(alone);
        many.push(together);
        gain.push(together / alone.max(1.0));
    }
    let spread = |samples| Spread::of(samples).ok_or(BenchError::Nothing);
    Ok(Durable { one: spread(one)?, many: spread(many)?, gain: spread(gain)?, sync_ms: spread(syncs_ms)? })
}
