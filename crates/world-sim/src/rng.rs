//! The source of all variation: xoshiro256++ (Blackman and Vigna, public domain),
//! seeded through splitmix64. Written here, not taken from a crate, because a seed must
//! mean the same run after every dependency update.

/// A seeded generator. Independent streams come from [`fork`](Rng::fork).
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A 64-bit hash of `label` under `seed`; the same for ever.
pub fn label_hash(seed: u64, label: &str) -> u64 {
    let mut state = seed ^ 0x6c61_6265_6c00_0000;
    for &byte in label.as_bytes() {
        state ^= u64::from(byte);
        state = splitmix(&mut state);
    }
    splitmix(&mut state)
}

impl Rng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        Rng { state: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    /// An independent stream named `label`; draws nothing from `self`, so adding a
    /// stream does not shift the others.
    pub fn fork(&self, label: &str) -> Rng {
        Rng::new(label_hash(self.state[0] ^ self.state[3].rotate_left(17), label))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound` (which is not 0). The bias is below 2^-32 for every bound
    /// used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index into something of `length` items.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True `parts` times in a million.
    pub fn per_million(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.per_million(percent * 10_000)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.index(i + 1);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // First outputs of the reference C code for splitmix64(0)-seeded xoshiro256++.
        let mut rng = Rng::new(0);
        assert_eq!(rng.next_u64(), 0x5317_5d61_490b_23df);
        assert_eq!(rng.next_u64(), 0x61da_6f3d_c380_d507);
        let mut fork = Rng::new(0).fork("x");
        assert_ne!(fork.next_u64(), 0x5317_5d61_490b_23df);
    }

    #[test]
    fn bounds_hold_and_all_values_appear() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[rng.index(5)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 120), "{seen:?}");
        assert!((0..100).all(|_| (3..=4).contains(&rng.between(3, 4))));
        assert!(!rng.per_million(0));
        assert!(rng.percent(100));
    }
}
