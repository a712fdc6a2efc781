//! Nonces for identities and for transactions, beside rust-bitcoin's double SHA-256 of a block header's 80 bytes.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256d};
use xennet_identity::{IdentityTemplate, Target as Hardness, TargetSchedule, WorkBits, grind};

use super::report::{Figure, Section, Target, Unit};
use super::sample::Sample;
use super::statistics::{Paired, in_turns};
use super::{BenchError, Effort, on_a_core};
use crate::mining::{StopSwitch, search};

/// Hashes in one batch: some 0.2 ms of work.
const BATCH: u64 = 2_048;
/// More work than any hash has, so that a search tries all it was given.
const NEVER: u8 = 255;
/// How many times rust-bitcoin's rate must be reached.
const LEAST_RATIO: f64 = 1.4;

pub(super) async fn run(effort: Effort, dir: &Path, section: &mut Section) -> Result<(), BenchError> {
    let sample = Sample::make(dir).await?;
    let (template, prefix, suffix) = (sample.template, sample.prefix, sample.suffix);
    let rounds = effort.pick(500, 5_000);
    let (identity, transaction) = on_a_core(move || {
        let identity = beside(rounds, |start| template.search(&Hardness::from_leading_zero_bits(NEVER), start, BATCH))?;
        Ok::<_, BenchError>((identity, beside(rounds, |start| grind(&prefix, &suffix, WorkBits(NEVER), start, BATCH))?))
    })
    .await??;
    for (what, paired) in [("identity", identity), ("transaction", transaction)] {
        section.figures.extend([
            Figure::median(format!("{what}, one core, ÷ rust-bitcoin"), Unit::Ratio, paired.ratio).to_reach(Target::AtLeast(LEAST_RATIO)),
            Figure::median(format!("{what}, nonces on one core"), Unit::PerSecond, paired.ours_per_s),
        ]);
    }
    section.figures.push(Figure::median("rust-bitcoin, hashes on one core", Unit::PerSecond, identity.other_per_s));

    let within = Duration::from_millis(effort.pick(1_000, 4_000));
    let (threads, all_cores, cores_got) = on_a_core(move || on_all_cores(&template, within)).await?;
    section.figures.extend([
        Figure::new(format!("identity, nonces on all {threads} cores"), Unit::PerSecond, all_cores),
        Figure::new("all cores, ÷ one core", Unit::Ratio, all_cores / identity.ours_per_s.median),
        Figure::new("cores that the system gave for that", Unit::Count, cores_got),
    ]);
    for (network, schedule) in [("regtest", TargetSchedule::REGTEST), ("mainnet", TargetSchedule::MAINNET)] {
        let expected = schedule.target_at(schedule.base_height).expected_hashes() as f64;
        section.figures.push(Figure::new(format!("an identity for {network}, on average"), Unit::Seconds, expected / all_cores.max(1.0)));
    }
    Ok(())
}

/// A batch of ours that begins at the given nonce, in turns with a batch of rust-bitcoin's.
fn beside(rounds: usize, mut ours: impl FnMut(u64) -> Option<u64>) -> Result<Paired, BenchError> {
    let mut start = 0;
    let ours = || {
        start += BATCH;
        let begun = Instant::now();
        black_box(ours(start));
        Ok::<_, BenchError>(begun.elapsed())
    };
    let mut header = [7; 80];
    let other = || {
        let begun = Instant::now();
        for nonce in 0..BATCH {
            header[72..].copy_from_slice(&nonce.to_le_bytes());
            black_box(sha256d::Hash::hash(black_box(&header)));
        }
        Ok(begun.elapsed())
    };
    in_turns(rounds, BATCH, ours, other)?.ok_or(BenchError::Nothing)
}

/// What the daemon's own search reaches: threads, nonces a second of all together, and how many cores it got: fewer than there
/// are, if others are at work.
fn on_all_cores(template: &IdentityTemplate, within: Duration) -> (u32, f64, f64) {
    let stop = StopSwitch::new();
    let before = processor_time_s();
    let begun = Instant::now();
    let mut last = None;
    let hardness = Hardness::from_leading_zero_bits(NEVER);
    search(
        0,
        &stop,
        |first, count| template.search(&hardness, first, count),
        |progress| {
            last = Some(*progress);
            if begun.elapsed() >= within {
                stop.stop();
            }
        },
    );
    let cores_got = (processor_time_s() - before) / begun.elapsed().as_secs_f64();
    last.map_or((0, 0.0, 0.0), |progress| (progress.threads, progress.hashes_per_s as f64, cores_got))
}

/// Processor time of this process so far, all threads, seconds.
fn processor_time_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 (proc(5)), counted behind the name, which may itself hold spaces; a tick is always 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let before = processor_time_s();
        let begun = Instant::now();
        while processor_time_s() < before + 0.05 && begun.elapsed() < Duration::from_secs(60) {
            black_box(sha256d::Hash::hash(&[0; 80]));
        }
        assert!(processor_time_s() >= before + 0.05);
    }
}
