//! Starting a guest as a node does, beside a bare QEMU with the same image.

use std::path::Path;

use xennet_vm::bench::compare_boot;
use xennet_vm::{Accelerator, Image, ImageStore, Verdict, Vm};

use super::report::{Figure, Section, Target, Unit};
use super::statistics::Spread;
use super::{BenchError, Effort, Hardware};
use crate::daemon::{cache_dir, guest_ssh};

/// How much longer than a bare QEMU a node's guest may take to answer.
const MOST_RATIO: f64 = 1.15;
/// Where the guests' folders are.
const FOLDER: &str = "machine";

pub(super) async fn run(
    effort: Effort,
    dir: &Path,
    hardware: &mut Hardware,
    section: &mut Section,
    tell: &mut impl FnMut(&str),
) -> Result<(), BenchError> {
    let (image, verdict) = prepare(hardware, tell).await?;
    let rounds = effort.pick(2, 5);
    tell(&format!("booting {} guests, one after the other", 2 * rounds));
    let compared = compare_boot(&image, verdict.accelerator, &dir.join(FOLDER), rounds, guest_ssh).await?;
    let seconds = |all: &[std::time::Duration]| all.iter().map(std::time::Duration::as_secs_f64).collect::<Vec<_>>();
    let (ours, bare) = (seconds(&compared.ours), seconds(&compared.bare));
    let ratios = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare.max(f64::MIN_POSITIVE)).collect();
    let spread = |samples| Spread::of(samples).ok_or(BenchError::Nothing);
    section.figures.extend([
        Figure::median("a guest, start to SSH banner, ÷ bare QEMU", Unit::Ratio, spread(ratios)?).to_reach(Target::AtMost(MOST_RATIO)),
        Figure::median("a guest, start to SSH banner", Unit::Seconds, spread(ours)?),
        Figure::median("bare QEMU, start to SSH banner", Unit::Seconds, spread(bare)?),
    ]);
    section.notes.push(format!(
        "One core and 256 MiB under {}. Ours also makes the temporary disk, drops privileges and opens the control socket. \
         A boot is seconds of a whole core: where others are at work, their load decides more than we do, and a ratio below 1 is luck.",
        verdict.accelerator
    ));
    Ok(())
}

/// The image, and whether KVM works: both from the cache that nodes use.
pub(super) async fn prepare(hardware: &mut Hardware, tell: &mut impl FnMut(&str)) -> Result<(Image, Verdict), BenchError> {
    let cache = cache_dir();
    let image = ImageStore::new(cache.join("images")).thin(|progress| tell(&progress.step)).await?;
    let verdict = Accelerator::probe(&image, &cache).await?;
    hardware.kvm = match verdict.accelerator {
        Accelerator::Kvm => "works".to_owned(),
        Accelerator::Tcg => format!("does not work: {}", verdict.why),
    };
    Ok((image, verdict))
}

/// Ends a guest that was left running.
pub(super) async fn tidy(dir: &Path) {
    // The folder is deleted in any case.
    let _ = Vm::discard(&dir.join(FOLDER).join("ours")).await;
}
