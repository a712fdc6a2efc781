//! What `xennet bench` measures, each figure against something in the same run.
//!
//! A figure is a ratio where there is something to compare with: ours and the other are done in turns, so that a busy machine
//! slows both ([`statistics`]). The rest are times and sizes. Every figure that is to reach something says what, and whether
//! it did; nothing is left out because it looks bad.

mod disk;
mod error;
mod hardware;
mod lease;
mod machine;
mod mining;
mod network;
mod payments;
mod refusal;
mod report;
pub(crate) mod sample;
mod sizes;
pub mod statistics;
mod tunnel;

pub use error::BenchError;
pub use hardware::Hardware;
pub use report::{Figure, Report, Section, Target, Unit};

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bench {
    /// Payments at both ends, without and with persistence.
    Payments,
    /// Nonces for identities and transactions.
    Mining,
    /// Dropping announcements that lack work.
    Refusal,
    /// Bytes on the wire and on chain.
    Sizes,
    /// Bytes through the tunnel.
    Tunnel,
    /// Starting a guest.
    Machine,
    /// Bytes through a guest's gateway.
    Network,
    /// From publish to the first shell prompt.
    Lease,
}

impl Bench {
    /// All of them, the quick ones first.
    pub const ALL: [Bench; 8] =
        [Bench::Payments, Bench::Mining, Bench::Refusal, Bench::Sizes, Bench::Tunnel, Bench::Machine, Bench::Network, Bench::Lease];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bench::Payments => "payments",
            Bench::Mining => "mining",
            Bench::Refusal => "refusal",
            Bench::Sizes => "sizes",
            Bench::Tunnel => "tunnel",
            Bench::Machine => "machine",
            Bench::Network => "network",
            Bench::Lease => "lease",
        }
    }

    /// What it is about, one line.
    pub fn title(self) -> &'static str {
        match self {
            Bench::Payments => "payments beside bare signatures of secp256k1, and what the disk allows",
            Bench::Mining => "nonces beside rust-bitcoin's double SHA-256 of 80 bytes",
            Bench::Refusal => "dropping announcements that lack work",
            Bench::Sizes => "a typical task on the wire and on chain",
            Bench::Tunnel => "bytes through the tunnel beside ssh -R over loopback, same cipher",
            Bench::Machine => "starting a guest beside a bare QEMU with the same image, to the SSH banner",
            Bench::Network => "bytes through a guest's gateway beside QEMU's own user network",
            Bench::Lease => "from publish to the first shell prompt, two daemons on this machine",
        }
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bench {
    type Err = BenchError;

    fn from_str(text: &str) -> Result<Bench, BenchError> {
        Bench::ALL.into_iter().find(|bench| bench.name() == text).ok_or_else(|| BenchError::Name { given: text.to_owned() })
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Seconds for each, for a first look.
    Quick,
    /// Enough for the middle half of the measurements to lie close together.
    Full,
}

impl Effort {
    /// One of two amounts of work.
    fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }
}

/// How to run the benchmarks.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to measure.
    pub effort: Effort,
    /// Where a directory is made that is deleted at the end. Its disk is the one that is measured.
    pub dir: PathBuf,
    /// How a daemon is started.
    pub daemon: DaemonCommand,
}

/// How a daemon is started; flags for its settings follow.
#[derive(Debug, Clone)]
pub struct DaemonCommand {
    /// The program.
    pub program: PathBuf,
    /// What makes it a publisher's daemon, in the foreground.
    pub publisher: Vec<OsString>,
    /// What makes it a node's, in the foreground.
    pub node: Vec<OsString>,
}

/// Runs these benchmarks one after the other. `tell` hears what is being done.
///
/// What goes wrong in one of them stands in its section, and the others are done all the same.
///
/// # Errors
/// If no directory can be made to work in, or it was interrupted.
pub async fn run(which: &[Bench], options: &Options, mut tell: impl FnMut(&str)) -> Result<Report, BenchError> {
    let dir = Workplace::make(&options.dir)?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        quick: options.effort == Effort::Quick,
        hardware: Hardware::look(),
        sections: Vec::new(),
    };
    for bench in which {
        tell(&format!("{bench}: {}", bench.title()));
        let begun = Instant::now();
        let mut section = Section::new(*bench);
        let done = tokio::select! {
            done = one(*bench, options, dir.path(), &mut report.hardware, &mut section, &mut tell) => done,
            _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
        };
        // A guest outlives whoever started it, so what was cut short is tidied up here.
        lease::tidy(dir.path()).await;
        machine::tidy(dir.path()).await;
        if matches!(done, Err(BenchError::Interrupted)) {
            return Err(BenchError::Interrupted);
        }
        section.trouble = done.err().map(|error| error.chain());
        section.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.sections.push(section);
    }
    report.hardware.finish();
    Ok(report)
}

async fn one(
    bench: Bench,
    options: &Options,
    dir: &Path,
    hardware: &mut Hardware,
    section: &mut Section,
    tell: &mut impl FnMut(&str),
) -> Result<(), BenchError> {
    let effort = options.effort;
    match bench {
        Bench::Payments => payments::run(effort, dir, section).await,
        Bench::Mining => mining::run(effort, dir, section).await,
        Bench::Refusal => refusal::run(effort, dir, section).await,
        Bench::Sizes => sizes::run(dir, section).await,
        Bench::Tunnel => tunnel::run(effort, section).await,
        Bench::Machine => machine::run(effort, dir, hardware, section, tell).await,
        Bench::Network => network::run(effort, dir, hardware, section, tell).await,
        Bench::Lease => lease::run(&options.daemon, dir, section, tell).await,
    }
}

impl Section {
    fn new(bench: Bench) -> Section {
        Section {
            name: bench.name().to_owned(),
            title: bench.title().to_owned(),
            figures: Vec::new(),
            notes: Vec::new(),
            trouble: None,
            took_ms: 0,
        }
    }
}

/// A directory that goes when it is no longer needed.
struct Workplace(PathBuf);

impl Workplace {
    fn make(parent: &Path) -> Result<Workplace, BenchError> {
        let path = parent.join(format!("bench-{}", std::process::id()));
        crate::store::create_private_dir(&path)?;
        Ok(Workplace(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be deleted is only in the way of the next run, which has another name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Does work that keeps a core busy, beside the async threads.
async fn on_a_core<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BenchError::Panicked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn every_benchmark_is_found_by_its_name_and_an_unknown_one_names_them_all() {
        for bench in Bench::ALL {
            assert_eq!(bench.name().parse::<Bench>().unwrap(), bench);
        }
        let said = "speed".parse::<Bench>().unwrap_err().to_string();
        assert!(said.contains("`speed`") && said.contains("payments, mining"), "{said}");
    }

    #[test]
    fn a_workplace_is_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let place = Workplace::make(dir.path()).unwrap();
        let path = place.path().to_owned();
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(place);
        assert!(!path.exists());
    }
}
