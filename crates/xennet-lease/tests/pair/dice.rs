//! Chance that is the same each time.

/// Rolls a number from 0 on below the one given, always the same ones for the same seed.
#[allow(dead_code, reason = "not every test needs chance")]
pub fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |sides| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    }
}
