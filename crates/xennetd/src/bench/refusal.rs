//! What announcements cost that are dropped: those without work, which anybody can send for nothing, and beside them those
//! that had to be paid for with work before they could waste more of a daemon's time.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use xennet_identity::{WorkBits, double_sha256, grind, work_of};

use super::report::{Figure, Section, Target, Unit};
use super::sample::Sample;
use super::statistics::Spread;
use super::{BenchError, Effort, on_a_core};
use crate::clock;
use crate::daemon::{Inspected, Inspector, LEAST_WORK_BITS, Refusal, TAG_BARE, TAG_TRANSACTION};

/// Announcements without work that are refused.
const FLOOD: usize = 100_000;
/// What each may cost, microseconds.
const MOST_US: f64 = 10.0;
/// Inspected in one batch: some 0.3 ms of work.
const BATCH: usize = 500;
/// Those with a wrong signature in one batch, and those that are right.
const COSTLY_BATCH: usize = 8;
/// A signature stands right before the nonce.
const SIGNATURE: usize = 64;

pub(super) async fn run(effort: Effort, dir: &Path, section: &mut Section) -> Result<(), BenchError> {
    let sample = Sample::make(dir).await?;
    on_a_core(move || measure(effort, &sample)).await?.map(|(figures, notes)| {
        section.figures.extend(figures);
        section.notes.extend(notes);
    })
}

fn measure(effort: Effort, sample: &Sample) -> Result<(Vec<Figure>, Vec<String>), BenchError> {
    let few = effort.pick(200, 2_000);
    let bare = Form { tag: TAG_BARE, prefix: sample.unworked.as_bytes(), suffix: &[] };
    let carried = Form { tag: TAG_TRANSACTION, prefix: &sample.prefix, suffix: &sample.suffix };
    let cheap_bare = Form { tag: TAG_BARE, prefix: sample.cheap.as_bytes(), suffix: &[] };
    let cheap_carried = Form { tag: TAG_TRANSACTION, prefix: &sample.cheap_prefix, suffix: &sample.suffix };
    let inspector = &sample.inspector;
    let mut figures = Vec::new();
    for (name, form) in [("bare", &bare), ("in a transaction", &carried)] {
        let flood = form.flood(sample.work_bits);
        let begun = Instant::now();
        let us = inspect(inspector, "without work", &flood, BATCH, |verdict| verdict.err() == Some(Refusal::Work))?;
        let all_ms = begun.elapsed().as_secs_f64() * 1e3;
        figures.push(Figure::median(format!("without work, {name}, each"), Unit::Microseconds, us).to_reach(Target::AtMost(MOST_US)));
        figures.push(Figure::new(format!("without work, {name}, all {FLOOD}"), Unit::Milliseconds, all_ms));
    }
    for (name, form) in [("bare", &cheap_bare), ("in a transaction", &cheap_carried)] {
        let forged = form.forged(few);
        let us = inspect(inspector, "with a wrong signature", &forged, COSTLY_BATCH, |verdict| verdict.err() == Some(Refusal::Malformed))?;
        figures.push(Figure::median(format!("{LEAST_WORK_BITS} bits of work but a wrong signature, {name}, each"), Unit::Microseconds, us));
    }
    for (name, form) in [("bare", &cheap_bare), ("in a transaction", &cheap_carried)] {
        let good = form.worked(form.prefix, few);
        let us = inspect(inspector, "that are right", &good, COSTLY_BATCH, |verdict| verdict.is_ok())?;
        figures.push(Figure::median(format!("a right one, {name}, each"), Unit::Microseconds, us));
    }
    let notes = vec![format!(
        "The whole inspection is timed, as the overlay calls it before it does anything with a message. One in {} of those without \
         work passes the first test by luck; it is refused by the work that it commits to itself.",
        WorkBits(LEAST_WORK_BITS).expected_hashes()
    )];
    Ok((figures, notes))
}

/// How an announcement travels: everything but its nonce.
struct Form<'a> {
    tag: u8,
    prefix: &'a [u8],
    suffix: &'a [u8],
}

impl Form<'_> {
    /// As a stranger floods: each with another nonce, none with the work it commits to. Among so many, one may have it by luck;
    /// that one would be an announcement like any other.
    fn flood(&self, work_bits: u8) -> Vec<Vec<u8>> {
        let all = (0..).map(|nonce| self.message(self.prefix, nonce));
        all.filter(|message| work_of(&double_sha256(&message[1..])) < work_bits).take(FLOOD).collect()
    }

    /// With the least work that is relayed, and a signature that is another one each time and never right.
    fn forged(&self, count: usize) -> Vec<Vec<u8>> {
        let mut prefix = self.prefix.to_vec();
        let from = prefix.len().saturating_sub(SIGNATURE);
        // A signature's first half must be on the curve, else it is refused before the costly part; so its second half is changed.
        let byte = from + SIGNATURE - 1;
        (0..count)
            .flat_map(|number| {
                prefix[byte] = self.prefix[byte] ^ (number % 255 + 1) as u8;
                self.worked(&prefix, 1)
            })
            .collect()
    }

    /// With the least work that is relayed.
    fn worked(&self, prefix: &[u8], count: usize) -> Vec<Vec<u8>> {
        let mut next = 0;
        (0..count)
            .filter_map(|_| {
                let nonce = grind(prefix, self.suffix, WorkBits(LEAST_WORK_BITS), next, u64::MAX)?;
                next = nonce.wrapping_add(1);
                Some(self.message(prefix, nonce))
            })
            .collect()
    }

    fn message(&self, prefix: &[u8], nonce: u64) -> Vec<u8> {
        [&[self.tag], prefix, &nonce.to_le_bytes(), self.suffix].concat()
    }
}

/// Inspects them all in batches; microseconds each.
fn inspect(
    inspector: &Inspector,
    what: &'static str,
    messages: &[Vec<u8>],
    batch: usize,
    as_expected: impl Fn(Result<Inspected, Refusal>) -> bool,
) -> Result<Spread, BenchError> {
    let now = clock::unix_s();
    let (mut each_us, mut as_they_should) = (Vec::new(), 0);
    for some in messages.chunks(batch) {
        let begun = Instant::now();
        as_they_should += some.iter().filter(|message| as_expected(inspector.inspect(black_box(message), now))).count();
        each_us.push(begun.elapsed().as_secs_f64() * 1e6 / some.len() as f64);
    }
    if as_they_should != messages.len() {
        return Err(BenchError::Verdict { what, count: messages.len(), as_they_should });
    }
    Spread::of(each_us).ok_or(BenchError::Nothing)
}
