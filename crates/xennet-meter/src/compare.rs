//! Whether two meters agree.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xennet_task::Usage;

use crate::Size;

/// A part of what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Core time.
    Cpu,
    /// Memory.
    Memory,
    /// Temporary disk.
    Disk,
    /// Persistent storage.
    Persistent,
    /// Traffic.
    Traffic,
}

/// How far two honest meters may be apart: a share of the larger, and something on top for what is under way between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Millionths of the larger of the two.
    pub ppm: u32,
    /// On top, for each part.
    pub slack: Usage,
}

/// Two meters that are too far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error(
    "{part}: the own meter says {own} {unit}, the other side says {theirs} {unit}, {allowed} apart is allowed; compare the clocks of both sides, or allow more",
    unit = self.part.unit()
)]
pub struct Disagreement {
    /// Of which part.
    pub part: Part,
    /// Own meter.
    pub own: u64,
    /// The other side's.
    pub theirs: u64,
    /// How far they may be apart.
    pub allowed: u64,
}

impl Tolerance {
    /// `ppm` of what was used; and on top the use of a machine of this size in `lag`, and `bytes` of traffic.
    pub fn new(ppm: u32, size: &Size, lag: Duration, bytes: u64) -> Tolerance {
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let used = |units: u32| lag_ms.saturating_mul(u64::from(units));
        let slack = Usage {
            core_ms: used(size.cores.into()),
            memory_mib_ms: used(size.memory_mib),
            disk_mib_ms: used(size.disk_mib),
            persistent_mib_ms: used(size.persistent_mib),
            traffic_bytes: bytes,
        };
        Tolerance { ppm, slack }
    }
}

/// Whether the other side's meter is within the tolerance of the own one, part by part, in either direction.
///
/// # Errors
/// The first part that is not.
pub fn compare(own: &Usage, theirs: &Usage, tolerance: &Tolerance) -> Result<(), Disagreement> {
    for part in [Part::Cpu, Part::Memory, Part::Disk, Part::Persistent, Part::Traffic] {
        let (own, theirs) = (part.of(own), part.of(theirs));
        let share = u128::from(own.max(theirs)) * u128::from(tolerance.ppm) / 1_000_000;
        let allowed = u64::try_from(share).unwrap_or(u64::MAX).saturating_add(part.of(&tolerance.slack));
        if own.abs_diff(theirs) > allowed {
            return Err(Disagreement { part, own, theirs, allowed });
        }
    }
    Ok(())
}

impl Part {
    /// This part of a usage.
    pub fn of(self, usage: &Usage) -> u64 {
        match self {
            Part::Cpu => usage.core_ms,
            Part::Memory => usage.memory_mib_ms,
            Part::Disk => usage.disk_mib_ms,
            Part::Persistent => usage.persistent_mib_ms,
            Part::Traffic => usage.traffic_bytes,
        }
    }

    /// The unit of [`Part::of`].
    pub fn unit(self) -> &'static str {
        match self {
            Part::Cpu => "core-ms",
            Part::Memory | Part::Disk | Part::Persistent => "MiB-ms",
            Part::Traffic => "bytes",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Cpu => "cpu",
            Part::Memory => "memory",
            Part::Disk => "disk",
            Part::Persistent => "persistent storage",
            Part::Traffic => "traffic",
        })
    }
}
