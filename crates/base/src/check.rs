//! The two checks that everything stored carries.
//!
//! * [`MediaCheck`], CRC-64/NVME: guards bytes on media against damage. About
//!   50 GB/s. Seeded with the place or the identity of what it guards, so that right
//!   bytes in the wrong place do not pass.
//! * [`ContentCheck`], 128 bits of keyed BLAKE3: names content. References carry it,
//!   dedup looks it up, per-file sums are built from it (`protocols.md` C.7). 3.5 to 5
//!   GB/s, so a block is hashed once in its life.
//!
//! On media each structure names the algorithm beside the value, so that they can
//! change without a format break (`design.md` 11.8).

use std::fmt;

/// Algorithm id of [`MediaCheck`] on media.
pub const MEDIA_CHECK_CRC64_NVME: u8 = 1;
/// Algorithm id of [`ContentCheck`] on media.
pub const CONTENT_CHECK_BLAKE3_128: u8 = 1;

/// CRC-64/NVME over a seed and some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MediaCheck(pub u64);

/// First 128 bits of BLAKE3, keyed with the pool's content key.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentCheck(pub [u8; 16]);

impl fmt::Debug for ContentCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Check of `bytes`, bound to `seed`: pass what identifies the thing guarded (a place,
/// an id, a generation), so that a valid neighbour is not taken for it.
pub fn media_check(seed: u64, bytes: &[u8]) -> MediaCheck {
    media_check_parts(seed, &[bytes])
}

/// Like [`media_check`] over the concatenation of `parts`.
pub fn media_check_parts(seed: u64, parts: &[&[u8]]) -> MediaCheck {
    let mut checker = MediaChecker::new(seed);
    parts.iter().for_each(|part| checker.update(part));
    checker.finish()
}

/// [`media_check`] over bytes that come one part after the other.
pub struct MediaChecker(crc_fast::Digest);

impl MediaChecker {
    /// Nothing but `seed` so far.
    pub fn new(seed: u64) -> MediaChecker {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        digest.update(&seed.to_le_bytes());
        MediaChecker(digest)
    }

    /// Appends `part`.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The check of all of it.
    pub fn finish(self) -> MediaCheck {
        MediaCheck(self.0.finalize())
    }
}

/// Name of `content` under the pool's `key`.
pub fn content_check(key: &[u8; 32], content: &[u8]) -> ContentCheck {
    let hash = blake3::keyed_hash(key, content);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    ContentCheck(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_check_is_crc64_nvme_of_seed_then_bytes() {
        // Check value of CRC-64/NVME over "123456789" from the CRC catalogue, taken
        // without our seed to pin the algorithm itself.
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        digest.update(b"123456789");
        assert_eq!(digest.finalize(), 0xae8b_1486_0a79_9888);
        assert_ne!(media_check(1, b"123456789"), media_check(2, b"123456789"));
        assert_eq!(media_check(7, b"ab"), media_check_parts(7, &[b"a", b"b"]));
    }

    #[test]
    fn the_content_check_depends_on_key_and_content() {
        let (a, b) = ([1; 32], [2; 32]);
        assert_eq!(content_check(&a, b"x"), content_check(&a, b"x"));
        assert_ne!(content_check(&a, b"x"), content_check(&b, b"x"));
        assert_ne!(content_check(&a, b"x"), content_check(&a, b"y"));
    }
}
