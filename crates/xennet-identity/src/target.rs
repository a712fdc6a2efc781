//! Targets: how low an identity's hash must be, and how that changes with the chain's height.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Identity, IdentityError};

/// The highest number an identity's hash may be, as a 256-bit number. Shown as 64 hex digits, most significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// 64 bits each, least significant first.
    limbs: [u64; 4],
}

/// A target that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no target: it must be 64 hex digits, most significant first")]
pub struct TargetError {
    found: String,
}

impl Target {
    /// The target that hashes with at least this many leading zero bits meet: 2^(256 − bits) − 1.
    pub const fn from_leading_zero_bits(bits: u8) -> Target {
        let mut limbs = [u64::MAX; 4];
        let bits = bits as usize;
        let mut i = 0;
        while i < bits / 64 {
            limbs[3 - i] = 0;
            i += 1;
        }
        limbs[3 - i] >>= bits % 64;
        Target { limbs }
    }

    /// Whether a hash in internal byte order, read as a little-endian number, is not above the target.
    pub fn is_met_by(&self, hash: &[u8; 32]) -> bool {
        let mut hash_limbs = [0; 4];
        for (limb, bytes) in hash_limbs.iter_mut().zip(hash.chunks_exact(8)) {
            *limb = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        hash_limbs.iter().rev().le(self.limbs.iter().rev())
    }

    /// How many hashes it takes on average to meet it, 2^256 / (target + 1) rounded down, saturating.
    pub fn expected_hashes(&self) -> u128 {
        let Some(divisor) = successor(self.limbs) else {
            return 1;
        };
        // As in Bitcoin: 2^256 / d = (2^256 − d) / d + 1, and 2^256 − d is the target's complement.
        let dividend = self.limbs.map(|limb| !limb);
        if divisor[3] == 0 && divisor[2] == 0 {
            return u128::MAX; // at least 2^128
        }
        if divisor[3] >> 63 == 1 {
            return 1 + u128::from(divisor.iter().rev().le(dividend.iter().rev()));
        }
        let (mut quotient, mut remainder) = (0u128, [0u64; 4]);
        for bit in (0..256).rev() {
            remainder = double(remainder, dividend[bit / 64] >> (bit % 64) & 1);
            quotient <<= 1;
            if divisor.iter().rev().le(remainder.iter().rev()) {
                remainder = subtract(remainder, divisor);
                quotient |= 1;
            }
        }
        quotient.saturating_add(1)
    }

    /// Bits of the most significant 32 that no hash under the target has.
    pub(crate) fn first_word_mask(&self) -> u32 {
        let first = (self.limbs[3] >> 32) as u32;
        u32::MAX.checked_shl(32 - first.leading_zeros()).unwrap_or(0)
    }

    /// Multiplied by `numerator` / 2^64.
    fn scaled(&self, numerator: u64) -> Target {
        let (mut limbs, mut carry) = ([0; 4], 0u128);
        for (i, limb) in self.limbs.iter().enumerate() {
            let product = u128::from(*limb) * u128::from(numerator) + carry;
            if i > 0 {
                limbs[i - 1] = product as u64;
            }
            carry = product >> 64;
        }
        limbs[3] = carry as u64;
        Target { limbs }
    }

    fn halved(&self, times: u32) -> Target {
        let (whole, bits) = ((times / 64) as usize, times % 64);
        let mut limbs = [0; 4];
        for (i, limb) in limbs.iter_mut().enumerate() {
            let low = self.limbs.get(i.saturating_add(whole)).copied().unwrap_or(0);
            let high = self.limbs.get(i.saturating_add(whole) + 1).copied().unwrap_or(0);
            *limb = (u128::from(high) << 64 | u128::from(low)).wrapping_shr(bits) as u64;
        }
        Target { limbs }
    }
}

fn successor(mut limbs: [u64; 4]) -> Option<[u64; 4]> {
    for limb in &mut limbs {
        let (sum, overflow) = limb.overflowing_add(1);
        *limb = sum;
        if !overflow {
            return Some(limbs);
        }
    }
    None
}

/// `limbs` × 2 + `low`; the caller knows that the highest bit is not set.
fn double(limbs: [u64; 4], low: u64) -> [u64; 4] {
    let mut carry = low;
    limbs.map(|limb| {
        let doubled = limb << 1 | carry;
        carry = limb >> 63;
        doubled
    })
}

/// `a` − `b`; the caller knows that `b` is not the greater.
fn subtract(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let (mut difference, mut borrow) = ([0; 4], false);
    for i in 0..4 {
        let (d, first) = a[i].overflowing_sub(b[i]);
        let (d, second) = d.overflowing_sub(u64::from(borrow));
        difference[i] = d;
        borrow = first || second;
    }
    difference
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limbs.iter().rev().try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let error = || TargetError { found: text.chars().take(80).collect() };
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| error())?;
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().rev().zip(bytes.chunks_exact(8)) {
            *limb = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        Ok(Target { limbs })
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Target, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How the target for identities falls with the height of their anchor: everybody computes the same one, with no centre.
///
/// It halves every [`TargetSchedule::HALVING`] blocks, smoothly, as hardware gets faster. Integers only, so that all
/// machines agree on the last bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSchedule {
    /// The target at `base_height` and before.
    pub base: Target,
    /// Where the fall begins.
    pub base_height: u32,
    /// An anchor must have at least this many blocks on it: a reorganisation should not void identities.
    pub min_anchor_age: u32,
    /// An identity is void when its anchor has more blocks on it than this.
    pub max_anchor_age: u32,
}

impl TargetSchedule {
    /// Blocks in which the target halves: 2.5 years of ten minutes.
    pub const HALVING: u32 = 131_400;

    /// For the embedded regtest chain: about 2^18 hashes, well under a second of one core.
    pub const REGTEST: TargetSchedule =
        TargetSchedule { base: Target::from_leading_zero_bits(18), base_height: 0, min_anchor_age: 6, max_anchor_age: 26_280 };

    /// For Bitcoin's public test networks: about 2^24 hashes, seconds of one core.
    pub const TEST_NETWORKS: TargetSchedule =
        TargetSchedule { base: Target::from_leading_zero_bits(24), base_height: 330_000, min_anchor_age: 6, max_anchor_age: 26_280 };

    /// For Bitcoin's main chain: about 2^32 hashes, some minutes of one core.
    pub const MAINNET: TargetSchedule =
        TargetSchedule { base: Target::from_leading_zero_bits(32), base_height: 930_000, min_anchor_age: 6, max_anchor_age: 26_280 };

    /// The target for identities anchored at a height: base · 2^(−(height − base height) / [`Self::HALVING`]).
    pub fn target_at(&self, anchor_height: u32) -> Target {
        let fallen = anchor_height.saturating_sub(self.base_height);
        let target = self.base.halved(fallen / Self::HALVING);
        match fallen % Self::HALVING {
            0 => target,
            rest => target.scaled(two_to_minus(rest)),
        }
    }

    /// Checks that the identity's hash meets the target of its anchor's height, and that the anchor is neither too
    /// young nor too old at the chain's tip. That the anchor's block is on the chain is for whoever has the chain to check.
    pub fn check(&self, identity: &Identity, tip: u32) -> Result<(), IdentityError> {
        let height = identity.anchor.height;
        if height > tip || tip - height < self.min_anchor_age {
            return Err(IdentityError::AnchorTooYoung { height, tip, min_age: self.min_anchor_age });
        }
        if tip - height > self.max_anchor_age {
            return Err(IdentityError::AnchorTooOld { height, tip, max_age: self.max_anchor_age });
        }
        identity.check(&self.target_at(height))
    }
}

/// 2^(−rest / HALVING) × 2^64, for 0 < rest < HALVING.
///
/// The exponent is taken as a binary fraction of 32 bits, and for each bit that is set the product gets one factor of
/// 2^(−1/2), 2^(−1/4), 2^(−1/8), …, each the integer square root of the one before.
fn two_to_minus(rest: u32) -> u64 {
    let exponent = (u64::from(rest) << 32) / u64::from(TargetSchedule::HALVING);
    let mut product = u64::MAX;
    let mut factor = 1u64 << 63;
    for bit in (0..32).rev() {
        factor = (u128::from(factor) << 64).isqrt() as u64;
        if exponent >> bit & 1 == 1 {
            product = ((u128::from(product) * u128::from(factor)) >> 64) as u64;
        }
    }
    product
}
