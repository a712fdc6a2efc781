//! Money and use, as integers with their units in their names.

use serde::{Deserialize, Serialize};

/// Thousandths of a satoshi.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msat(pub u64);

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
