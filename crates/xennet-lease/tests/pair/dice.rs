//! Chance that is the same each time.

use super::{Pair, Who};

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

impl Pair {
    /// Within so many steps one side dies, or the tunnel is cut; within so many more both run again.
    #[allow(dead_code, reason = "not every test needs chance")]
    pub fn strike(&mut self, roll: &mut impl FnMut(u64) -> u64, within: u64, back_within: u64) {
        for _ in 0..roll(within) {
            self.step();
        }
        match roll(3) {
            0 => self.kill(Who::Publisher),
            1 => self.kill(Who::Node),
            _ => self.cut(),
        }
        for _ in 0..roll(back_within) {
            self.step();
        }
        self.restart(Who::Publisher);
        self.restart(Who::Node);
    }
}
