//! What is owed.

use std::time::Duration;

use xennet_task::{Msat, Rates, Usage};

use crate::{Part, Size};

/// Milliseconds in an hour.
const HOUR_MS: u128 = 3_600_000;
/// MHz in a GHz.
const MHZ: u128 = 1_000;
/// MiB in a GiB.
const MIB: u128 = 1_024;
/// Bytes in a GB.
const BYTES: u128 = 1_000_000_000;
/// The least common multiple of the three divisors, so that the parts are added before anything is rounded.
const COMMON: u128 = 2_304_000_000_000;

/// Why a bill cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// One part alone is more than any amount.
    #[error(
        "{used} {unit} of {part} at a rate of {rate} msat cannot be billed; check the rate and the meter",
        unit = part.unit()
    )]
    Part {
        /// Which.
        part: Part,
        /// Its use, in the unit of [`Part::unit`].
        used: u64,
        /// Its rate.
        rate: u64,
    },
    /// The whole is more than an amount can be.
    #[error("the bill comes to {msat} msat, but at most {most} msat can be owed; check the rates and the meter")]
    Whole {
        /// The bill.
        msat: u128,
        /// The most.
        most: u64,
    },
}

/// What is owed for `usage`, exactly: Σ rate × use, rounded down once. More use never makes it less.
///
/// `core_mhz` is the measured clock that the cpu rate is for.
///
/// # Errors
/// [`MeterError`] above 2^64 − 1 msat, which is more than all bitcoin.
pub fn owed(rates: &Rates, core_mhz: u32, usage: &Usage) -> Result<Msat, MeterError> {
    let msat = exact(rates, core_mhz, usage)? / COMMON;
    let most = u64::MAX;
    u64::try_from(msat).map(Msat).map_err(|_| MeterError::Whole { msat, most })
}

/// [`owed`] in whole satoshi, rounded down: what a payment can carry. The rest stays owed.
///
/// # Errors
/// As [`owed`].
pub fn owed_sat(rates: &Rates, core_mhz: u32, usage: &Usage) -> Result<u64, MeterError> {
    owed(rates, core_mhz, usage).map(|msat| msat.0 / 1_000)
}

/// What one interval of a machine costs without traffic, rounded up: the bound on what either side can lose (M2). If no
/// amount is that large it is [`u64::MAX`], which no limit allows.
pub fn interval_price(rates: &Rates, size: &Size, core_mhz: u32, interval: Duration) -> Msat {
    let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let used = |units: u32| ms.saturating_mul(u64::from(units));
    let usage = Usage {
        core_ms: used(size.cores.into()),
        memory_mib_ms: used(size.memory_mib),
        disk_mib_ms: used(size.disk_mib),
        persistent_mib_ms: used(size.persistent_mib),
        traffic_bytes: 0,
    };
    let price = exact(rates, core_mhz, &usage).ok().map(|sum| sum.div_ceil(COMMON));
    Msat(price.and_then(|msat| u64::try_from(msat).ok()).unwrap_or(u64::MAX))
}

/// The bill in units of 1 / [`COMMON`] msat.
fn exact(rates: &Rates, core_mhz: u32, usage: &Usage) -> Result<u128, MeterError> {
    let parts = [
        (Part::Cpu, rates.cpu_msat_per_ghz_hour, HOUR_MS * MHZ),
        (Part::Memory, rates.memory_msat_per_gib_hour, HOUR_MS * MIB),
        (Part::Disk, rates.disk_msat_per_gib_hour, HOUR_MS * MIB),
        (Part::Persistent, rates.persistent_msat_per_gib_hour, HOUR_MS * MIB),
        (Part::Traffic, rates.traffic_msat_per_gb, BYTES),
    ];
    let mut sum = 0_u128;
    for (part, rate, divisor) in parts {
        let used = part.of(usage);
        let clock = if part == Part::Cpu { u128::from(core_mhz) } else { 1 };
        sum = (u128::from(rate) * u128::from(used))
            .checked_mul(clock * (COMMON / divisor))
            .and_then(|price| sum.checked_add(price))
            .ok_or(MeterError::Part { part, used, rate })?;
    }
    Ok(sum)
}
