//! A running 128-bit digest of everything that happened, in order. Two runs of a seed
//! with equal digests took the same steps, wrote the same bytes and got the same
//! answers. Not cryptographic: it must notice accidents, not an enemy.

/// The digest so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    low: u64,
    high: u64,
    events: u64,
}

impl Digest {
    /// Takes in one number.
    pub fn word(&mut self, word: u64) {
        self.low = (self.low.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.high = (self.high ^ word.rotate_left(32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.high ^= self.high >> 29;
    }

    /// Takes in one event.
    pub fn event(&mut self, kind: &str, values: [u64; 4]) {
        self.events += 1;
        for chunk in kind.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        for value in values {
            self.word(value);
        }
    }

    /// The value to compare.
    pub fn value(&self) -> u128 {
        (u128::from(self.high ^ self.events) << 64) | u128::from(self.low)
    }

    /// How many events were taken in.
    pub fn event_count(&self) -> u64 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_matter() {
        let digest = |events: &[(&str, u64)]| {
            let mut digest = Digest::default();
            for (kind, value) in events {
                digest.event(kind, [*value, 0, 0, 0]);
            }
            digest.value()
        };
        let ab = digest(&[("a", 1), ("b", 2)]);
        assert_eq!(ab, digest(&[("a", 1), ("b", 2)]));
        assert_ne!(ab, digest(&[("b", 2), ("a", 1)]));
        assert_ne!(ab, digest(&[("a", 1), ("b", 3)]));
        assert_ne!(ab, digest(&[("a", 1), ("b", 2), ("", 0)]));
    }
}
