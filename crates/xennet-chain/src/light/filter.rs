//! Whether bytes from a peer are a block filter at all (BIP158: a Golomb-coded set).
//!
//! Peers that agree on a filter's hash can agree on nonsense, and the library that looks into filters believes the length they
//! claim.

use bitcoin::VarInt;
use bitcoin::bip158::BitStreamReader;
use bitcoin::consensus::Decodable as _;

/// Bits of an element that are written as they are. The others of it are ones that a zero ends.
const PLAIN_BITS: u8 = 19;
/// The fewest bits of an element.
const LEAST_BITS: u64 = PLAIN_BITS as u64 + 1;

/// Whether there is room for as many elements as the filter claims. Only then may it be searched.
pub(super) fn is_bounded(filter: &[u8]) -> bool {
    let mut rest = filter;
    let Ok(VarInt(count)) = VarInt::consensus_decode(&mut rest) else { return false };
    let bits = u64::try_from(rest.len()).unwrap_or(u64::MAX).saturating_mul(8);
    count <= bits / LEAST_BITS
}

/// Whether every element that it claims can be read.
pub(super) fn is_whole(filter: &[u8]) -> bool {
    let mut rest = filter;
    let Ok(VarInt(count)) = VarInt::consensus_decode(&mut rest) else { return false };
    if !is_bounded(filter) {
        return false;
    }
    let mut bits = BitStreamReader::new(&mut rest);
    (0..count).all(|_| {
        loop {
            match bits.read(1) {
                Ok(0) => return bits.read(PLAIN_BITS).is_ok(),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::bip158::BlockFilter;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Network, ScriptBuf};

    use super::*;

    #[test]
    fn a_real_filter_is_whole_and_one_that_is_cut_or_claims_more_is_not() {
        let block = genesis_block(Network::Bitcoin);
        let real = BlockFilter::new_script_filter(&block, |_| -> Result<ScriptBuf, _> { unreachable!("a coinbase spends nothing") });
        let real = real.unwrap().content;
        assert!(is_bounded(&real) && is_whole(&real));
        assert!(is_whole(&[0]), "of a block without any script");
        for length in 0..real.len() {
            assert!(!is_whole(&real[..length]), "cut to {length}");
        }
        let mut more = real.clone();
        more[0] = 2;
        assert!(!is_whole(&more));
        let mut all = vec![0xff];
        all.extend_from_slice(&u64::MAX.to_le_bytes());
        all.extend_from_slice(&real[1..]);
        assert!(!is_bounded(&all) && !is_whole(&all));
        // Room enough, but no element ever ends.
        let mut ones = vec![1];
        ones.extend([0xff; 100]);
        assert!(is_bounded(&ones) && !is_whole(&ones));
    }
}
