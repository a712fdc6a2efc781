//! What each number may be. One table for the wire, for what is said and for task.toml, so that no two of them differ.
//!
//! Together the limits keep the longest announcement within [`crate::Announcement::MAX_LEN`]; `wire` proves it at compile time.

/// A number's name and the range it must lie in, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) field: &'static str,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// A field that cannot be said: which, what it was, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, but it must be {allowed}")]
pub struct FieldError {
    /// The field's name.
    pub field: &'static str,
    /// What it was.
    pub found: String,
    /// What would be right.
    pub allowed: String,
}

impl FieldError {
    pub(crate) fn new(field: &'static str, found: impl ToString, allowed: impl Into<String>) -> FieldError {
        FieldError { field, found: found.to_string(), allowed: allowed.into() }
    }
}

impl Limits {
    const fn new(field: &'static str, min: u64, max: u64) -> Limits {
        Limits { field, min, max }
    }

    /// Bytes of the longest varint.
    pub(crate) const fn wire_len(&self) -> usize {
        varint_len(self.max)
    }

    pub(crate) fn check(&self, value: impl Into<u64>) -> Result<u64, FieldError> {
        let value = value.into();
        if (self.min..=self.max).contains(&value) {
            return Ok(value);
        }
        Err(FieldError::new(self.field, value, format!("from {} to {}", self.min, self.max)))
    }
}

/// Bytes of a number as a varint of 7 bits a byte.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

const MEBIBYTES: u64 = (1 << 28) - 1; // 256 TiB
const SPEED: u64 = (1 << 21) - 1; // 2 TB/s
const RATE: u64 = (1 << 42) - 1; // 44 bitcoin

pub(crate) const PORT: Limits = Limits::new("address's port", 1, 65_535);
pub(crate) const OPERATING_SYSTEMS: Limits = Limits::new("number of operating systems", 0, 8);
pub(crate) const BANDWIDTH: Limits = Limits::new("bandwidth_kbit_s", 0, (1 << 28) - 1);
pub(crate) const STORAGE_SIZE: Limits = Limits::new("storage size_mib", 0, MEBIBYTES);
pub(crate) const STORAGE_SPEED: Limits = Limits::new("storage mb_s", 0, SPEED);
pub(crate) const PERSISTENT: Limits = Limits::new("persistent_mib", 0, MEBIBYTES);
pub(crate) const COMPUTE: Limits = Limits::new("number of compute alternatives", 0, 8);
pub(crate) const CORES: Limits = Limits::new("cores", 1, 4_096);
pub(crate) const MHZ: Limits = Limits::new("mhz", 0, 1_000_000);
pub(crate) const MEMORY_PER_CORE: Limits = Limits::new("memory_per_core_mib", 0, MEBIBYTES);
pub(crate) const MEMORY_SPEED: Limits = Limits::new("memory_mb_s", 0, SPEED);
pub(crate) const MACHINES: Limits = Limits::new("machines", 1, 65_535);
/// Up to 8.5 years.
pub(crate) const LEASE_MIN: Limits = Limits::new("lease min_s", 1, (1 << 28) - 1);
pub(crate) const LEASE_MAX: Limits = Limits::new("lease max_s", 1, (1 << 28) - 1);
pub(crate) const LEASE: Limits = Limits::new("lease_s", 1, (1 << 28) - 1);
/// Up to a week.
pub(crate) const PAYOUT: Limits = Limits::new("payout interval", 1, 604_800);
pub(crate) const RATE_CPU: Limits = Limits::new("cpu_msat_per_ghz_hour", 0, RATE);
pub(crate) const RATE_MEMORY: Limits = Limits::new("memory_msat_per_gib_hour", 0, RATE);
pub(crate) const RATE_DISK: Limits = Limits::new("disk_msat_per_gib_hour", 0, RATE);
pub(crate) const RATE_PERSISTENT: Limits = Limits::new("persistent_msat_per_gib_hour", 0, RATE);
pub(crate) const RATE_TRAFFIC: Limits = Limits::new("traffic_msat_per_gb", 0, RATE);
/// Up to a day.
pub(crate) const PROPOSAL_WITHIN: Limits = Limits::new("proposal_within_s", 1, 86_400);
pub(crate) const WORK_BITS: Limits = Limits::new("work_bits", 0, 64);
pub(crate) const ACCEPTANCE_WORK_BITS: Limits = Limits::new("acceptance_work_bits", 0, 64);
pub(crate) const PROPOSAL_WORK_BITS: Limits = Limits::new("proposal_work_bits", 0, 64);
pub(crate) const MEMORY: Limits = Limits::new("memory_mib", 0, MEBIBYTES);
pub(crate) const DISK: Limits = Limits::new("disk_mib", 0, MEBIBYTES);
pub(crate) const CORE_MHZ: Limits = Limits::new("core_mhz", 1, 1_000_000);
/// Up to all bitcoin there can be.
pub(crate) const CAPACITY: Limits = Limits::new("capacity_sat", 1, 2_100_000_000_000_000);
pub(crate) const REFUND_HEIGHT: Limits = Limits::new("refund_height", 1, 499_999_999);
pub(crate) const BUDGET: Limits = Limits::new("budget_sat", 1, 2_100_000_000_000_000);
/// Up to a year.
pub(crate) const VALID_FOR: Limits = Limits::new("valid_for_s", 1, 31_536_000);
