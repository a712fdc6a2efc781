//! The work whose speed is a core's clock.

/// Entries of the table that the chain walks through: 8 KiB, which every core keeps in its nearest cache.
const ENTRIES: usize = 1024;

/// Runs so many dependent steps: mask, load, exclusive or, rotate, add. Nothing can run ahead of the chain or leave a step out, and
/// a real core takes about nine cycles for one (five of them for the load), so `9 × steps ÷ microseconds` is the clock in MHz. An
/// emulated core pays for each load as it does in real programs, and shows what it really does.
#[inline(never)]
pub fn chain(seed: u64, steps: u64) -> u64 {
    let mut x = seed;
    let table: [u64; ENTRIES] = std::array::from_fn(|_| {
        // xorshift, so that the table differs with the seed.
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    });
    for step in 0..steps {
        let entry = table[(x % ENTRIES as u64) as usize];
        x = (x ^ entry).rotate_left(7).wrapping_add(step);
    }
    x
}
