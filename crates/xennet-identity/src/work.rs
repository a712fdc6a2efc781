//! Double SHA-256 and the search for nonces.
//!
//! A search hashes everything before the nonce's block once (the *midstate*), so that a try costs two compressions when
//! the nonce and what follows it fit into one block: Bitcoin's 80-byte header without that trick costs three.

use serde::{Deserialize, Serialize};
use sha2::digest::generic_array::{GenericArray, typenum::U64};
use sha2::{Digest, Sha256, compress256};

type Block = GenericArray<u8, U64>;

const BLOCK: usize = 64;
const NONCE: usize = 8;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// How many leading zero bits a hash must have, read as Bitcoin reads it: a little-endian number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkBits(pub u8);

impl WorkBits {
    /// Whether a hash in internal byte order has at least this work.
    pub fn is_met_by(self, hash: &[u8; 32]) -> bool {
        work_of(hash) >= self.0
    }

    /// How many hashes it takes on average, saturating.
    pub fn expected_hashes(self) -> u128 {
        1u128.checked_shl(u32::from(self.0)).unwrap_or(u128::MAX)
    }
}

impl std::fmt::Display for WorkBits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bits", self.0)
    }
}

/// SHA-256 of the SHA-256, in internal byte order.
pub fn double_sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// The work in a hash: its leading zero bits as a little-endian number, so the last byte counts first. A hash of all
/// zeros would have 256; it is given 255.
pub fn work_of(hash: &[u8; 32]) -> u8 {
    let mut bits = 0u32;
    for byte in hash.iter().rev() {
        bits += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    u8::try_from(bits).unwrap_or(u8::MAX)
}

/// Looks for a nonce that gives SHA256d(`prefix` ‖ nonce, 8 bytes little-endian ‖ `suffix`) at least `bits` of work, among
/// `count` nonces from `start` on, wrapping at the end of the range.
///
/// A benchmark asks for 255 bits: that tries exactly `count` nonces.
pub fn grind(prefix: &[u8], suffix: &[u8], bits: WorkBits, start: u64, count: u64) -> Option<u64> {
    Search::new(prefix, suffix).run(start, count, |hash| bits.is_met_by(hash), first_word_mask(bits.0))
}

/// The zero bits that at least must stand in the most significant 32, for a test that spares most hashes the long one.
fn first_word_mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(u32::from(bits))).unwrap_or(0)
}

/// A double SHA-256 of which only 8 bytes vary.
pub(crate) struct Search {
    midstate: [u32; 8],
    /// From the nonce's block to the end, padded.
    tail: Vec<Block>,
    /// Where in the tail the nonce starts.
    nonce_at: usize,
}

impl Search {
    pub(crate) fn new(prefix: &[u8], suffix: &[u8]) -> Search {
        let (whole, rest) = prefix.split_at(prefix.len() - prefix.len() % BLOCK);
        let mut midstate = INITIAL;
        compress256(&mut midstate, &blocks(whole));

        let length_bits = (prefix.len() as u64 + NONCE as u64 + suffix.len() as u64) * 8;
        let mut tail = Vec::with_capacity(rest.len() + NONCE + suffix.len() + 2 * BLOCK);
        tail.extend_from_slice(rest);
        tail.extend_from_slice(&[0; NONCE]);
        tail.extend_from_slice(suffix);
        tail.push(0x80);
        while tail.len() % BLOCK != BLOCK - 8 {
            tail.push(0);
        }
        tail.extend_from_slice(&length_bits.to_be_bytes());
        Search { midstate, tail: blocks(&tail), nonce_at: rest.len() }
    }

    /// Tries nonces until `accept` takes the hash. `mask` are bits of the hash's most significant word that `accept`
    /// would never take unless they are zero.
    pub(crate) fn run(mut self, start: u64, count: u64, accept: impl Fn(&[u8; 32]) -> bool, mask: u32) -> Option<u64> {
        // The second hash is over 32 bytes: one block, of which the padding never changes.
        let mut outer = Block::default();
        outer[32] = 0x80;
        outer[BLOCK - 8..].copy_from_slice(&256u64.to_be_bytes());

        for i in 0..count {
            let nonce = start.wrapping_add(i);
            self.set_nonce(nonce);
            let mut state = self.midstate;
            compress256(&mut state, &self.tail);
            for (word, bytes) in state.iter().zip(outer.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            let mut state = INITIAL;
            compress256(&mut state, std::slice::from_ref(&outer));
            if state[7].swap_bytes() & mask == 0 && accept(&to_bytes(&state)) {
                return Some(nonce);
            }
        }
        None
    }

    fn set_nonce(&mut self, nonce: u64) {
        let bytes = nonce.to_le_bytes();
        let (at, first) = (self.nonce_at, BLOCK - self.nonce_at);
        if let Some(within) = self.tail[0][at..].first_chunk_mut::<NONCE>() {
            *within = bytes;
        } else {
            self.tail[0][at..].copy_from_slice(&bytes[..first]);
            self.tail[1][..NONCE - first].copy_from_slice(&bytes[first..]);
        }
    }
}

/// Splits whole blocks.
fn blocks(bytes: &[u8]) -> Vec<Block> {
    bytes.chunks_exact(BLOCK).map(Block::clone_from_slice).collect()
}

fn to_bytes(state: &[u32; 8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (word, bytes) in state.iter().zip(hash.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}
