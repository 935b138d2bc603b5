//! A hasher with a fixed seed, so that the same run hashes alike everywhere (the
//! simulator replays by seed). Keys here are ids and keyed fingerprints, which no client
//! chooses, so flooding is no concern.

use std::hash::{BuildHasher, Hasher};

/// Builds [`FixedHasher`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedState;

/// Multiply-and-fold over 64-bit words.
#[derive(Clone, Copy, Debug)]
pub struct FixedHasher(u64);

/// A map with the fixed hasher. Its iteration order must not decide anything.
pub type FixedMap<K, V> = hashbrown::HashMap<K, V, FixedState>;

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(ODD)
    }
}

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * u128::from(ODD);
        self.0 = (wide as u64) ^ (wide >> 64) as u64;
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(ODD) ^ (self.0 >> 32)
    }
}
