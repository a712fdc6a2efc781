//! The checksum of an output descriptor (BIP 380), which wallets ask for.

const INPUT: &str = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
const CHECKSUM: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u64; 5] = [0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd];

fn step(checksum: u64, value: u64) -> u64 {
    let top = checksum >> 35;
    let mut next = ((checksum & 0x7_ffff_ffff) << 5) ^ value;
    for (bit, generator) in GENERATOR.iter().enumerate() {
        if (top >> bit) & 1 == 1 {
            next ^= generator;
        }
    }
    next
}

/// `text#checksum`. Characters outside the descriptor alphabet are skipped; our own descriptors have none.
pub fn with_checksum(text: &str) -> String {
    let mut checksum = 1;
    let (mut class, mut in_class) = (0, 0);
    for position in text.chars().filter_map(|letter| INPUT.find(letter)) {
        let position = position as u64;
        checksum = step(checksum, position & 31);
        class = class * 3 + (position >> 5);
        in_class += 1;
        if in_class == 3 {
            checksum = step(checksum, class);
            (class, in_class) = (0, 0);
        }
    }
    if in_class > 0 {
        checksum = step(checksum, class);
    }
    for _ in 0..8 {
        checksum = step(checksum, 0);
    }
    checksum ^= 1;
    let letters = (0..8).map(|i| char::from(CHECKSUM[((checksum >> (5 * (7 - i))) & 31) as usize]));
    format!("{text}#{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::with_checksum;

    #[test]
    fn the_checksum_is_that_of_bip_380() {
        assert_eq!(with_checksum("raw(deadbeef)"), "raw(deadbeef)#89f8spxm");
    }
}
