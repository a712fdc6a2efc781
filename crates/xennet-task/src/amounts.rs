//! Money and use, as integers with their units in their names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{self, FieldError, Limits};
use crate::wire::{DecodeError, Reader, put_varint};

/// Thousandths of a satoshi.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// What each part of a virtual machine costs. All per part actually measured.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rates {
    /// For one core of 1 GHz for one hour. A core's GHz is what the benchmark measured, not what was claimed.
    pub cpu_msat_per_ghz_hour: u64,
    /// For one GiB (2^30 bytes) of memory for one hour.
    pub memory_msat_per_gib_hour: u64,
    /// For one GiB of temporary disk for one hour.
    pub disk_msat_per_gib_hour: u64,
    /// For one GiB of persistent storage for one hour.
    pub persistent_msat_per_gib_hour: u64,
    /// For one GB (10^9 bytes) of traffic, both directions added.
    pub traffic_msat_per_gb: u64,
}

impl Rates {
    /// The highest rate that can be said, of any part.
    pub const MAX: u64 = limits::RATE_CPU.max;

    pub(crate) const MAX_WIRE_LEN: usize = {
        let (mut len, mut i) = (0, 0);
        while i < Self::LIMITS.len() {
            len += Self::LIMITS[i].wire_len();
            i += 1;
        }
        len
    };

    const LIMITS: [Limits; 5] = [limits::RATE_CPU, limits::RATE_MEMORY, limits::RATE_DISK, limits::RATE_PERSISTENT, limits::RATE_TRAFFIC];

    /// Checks that each is at most [`Rates::MAX`].
    pub fn check(&self) -> Result<(), FieldError> {
        Self::LIMITS.iter().zip(self.in_order()).try_for_each(|(limits, rate)| limits.check(rate).map(drop))
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        for rate in self.in_order() {
            put_varint(to, rate);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Rates, DecodeError> {
        Ok(Rates {
            cpu_msat_per_ghz_hour: from.number(&limits::RATE_CPU)?,
            memory_msat_per_gib_hour: from.number(&limits::RATE_MEMORY)?,
            disk_msat_per_gib_hour: from.number(&limits::RATE_DISK)?,
            persistent_msat_per_gib_hour: from.number(&limits::RATE_PERSISTENT)?,
            traffic_msat_per_gb: from.number(&limits::RATE_TRAFFIC)?,
        })
    }

    fn in_order(&self) -> [u64; 5] {
        [
            self.cpu_msat_per_ghz_hour,
            self.memory_msat_per_gib_hour,
            self.disk_msat_per_gib_hour,
            self.persistent_msat_per_gib_hour,
            self.traffic_msat_per_gb,
        ]
    }
}

/// What was used since the lease began. Cumulative, so saying it twice does no harm.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Core-milliseconds: cores × the time the machine was at the publisher's disposal.
    pub core_ms: u64,
    /// MiB-milliseconds of memory.
    pub memory_mib_ms: u64,
    /// MiB-milliseconds of temporary disk.
    pub disk_mib_ms: u64,
    /// MiB-milliseconds of persistent storage.
    pub persistent_mib_ms: u64,
    /// Bytes through the guest's pipes, both directions added.
    pub traffic_bytes: u64,
}
