//! What a typical task weighs: on the wire, where every peer passes it on, and on chain, where every byte costs a fee.

use std::path::Path;

use bitcoin::consensus::encode::serialize;
use xennet_chain::relay_bytes;
use xennet_task::Announcement;

use super::BenchError;
use super::report::{Figure, Section, Target, Unit};
use super::sample::Sample;

/// What a typical task may have, bytes.
const TYPICAL_BYTES: f64 = 300.0;
/// Bytes of the nonce that a finished announcement ends with.
const NONCE: usize = 8;

pub(super) async fn run(dir: &Path, section: &mut Section) -> Result<(), BenchError> {
    let sample = Sample::make(dir).await?;
    let task_bytes = sample.unworked.as_bytes().len() + NONCE;
    let transaction = &sample.transaction;
    section.figures.extend([
        Figure::new("a typical task, announced", Unit::Bytes, task_bytes as f64).to_reach(Target::AtMost(TYPICAL_BYTES)),
        Figure::new("any announcement, at most", Unit::Bytes, Announcement::MAX_LEN as f64),
        Figure::new("its transaction", Unit::VirtualBytes, transaction.vsize() as f64),
        Figure::new("its transaction with witness", Unit::Bytes, serialize(transaction).len() as f64),
        Figure::new("its message on the overlay", Unit::Bytes, relay_bytes(transaction).len() as f64),
    ]);
    let inputs = transaction.input.len();
    section.notes.push(format!(
        "The task is that of `xennet publish --example`. Its transaction has {inputs} input(s), change, the marker and the data output."
    ));
    Ok(())
}
