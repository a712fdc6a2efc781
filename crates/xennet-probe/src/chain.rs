//! The work whose speed is a core's clock.

/// Runs so many dependent steps: exclusive or, rotate, add. Nothing can run ahead of the chain or leave a step out, so
/// `3 × steps ÷ microseconds` is the clock in MHz; an emulated core shows what it really does.
#[inline(never)]
pub fn chain(seed: u64, steps: u64) -> u64 {
    let mut x = seed;
    for step in 0..steps {
        x = (x ^ 0x9e37_79b9_7f4a_7c15).rotate_left(7).wrapping_add(step);
    }
    x
}
