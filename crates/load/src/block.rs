//! Blocks that say what they are.
//!
//! A file is a row of *units* (8 KiB by default); every unit written carries, in its
//! first 64 bytes, all that is needed to recognise it wherever it turns up:
//!
//! ```text
//!   0 magic "VMHLOAD1"   8 run id          16 file number, 20 unit bytes
//!  24 unit number       32 version, 36 0   40 operation sequence
//!  48 time, ns          56 CRC-64/NVME over bytes 0..56 and 64..unit bytes
//!  64 filler: words of a random pool, each XORed with a word made from run, file,
//!     unit and version, so no two units share any 4 KiB; zeros in the compressible end
//! ```
//!
//! The *version* counts the writes of a unit, so a unit read back proves file, place
//! and which write it came from. All integers are little-endian.
//!
//! Units meant to be duplicates cannot also be unique: with a dedup share, that share
//! of units instead holds one of [`SHARED_CONTENTS`] contents (magic "VMHSHARE",
//! content number in place of the unit number). Which one a version of a unit holds is
//! a function of run, place and version, so a stale shared unit passes for a fresh one
//! only with odds of one in [`SHARED_CONTENTS`].

use crate::random::{Random, mix};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Different contents among units made to be duplicates.
pub const SHARED_CONTENTS: u64 = 1024;
const UNIQUE_MAGIC: [u8; 8] = *b"VMHLOAD1";
const SHARED_MAGIC: [u8; 8] = *b"VMHSHARE";
const POOL_BYTES: usize = 256 << 10;

/// Where a unit belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// Number of the file in the run's file set.
    pub file: u32,
    /// Number of the unit in the file.
    pub unit: u64,
}

/// Which write it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stamp {
    /// Counts the writes of this unit, from 1; 0 means never written.
    pub version: u32,
    /// Number of the operation in the run.
    pub sequence: u64,
    /// Unix time of the write in nanoseconds.
    pub time_ns: u64,
}

/// What a unit read back turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros: a hole, or lost.
    Zeros,
    /// A whole unit of this run.
    Unique(Place, Stamp),
    /// A whole unit of this run made to be a duplicate: its content number.
    Shared(u64),
    /// A whole unit of another run.
    Foreign(u64),
    /// Anything else; carries whether the magic was right.
    Damaged(bool),
}

/// What the units of a run look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Tells runs apart.
    pub run_id: u64,
    /// Bytes of a unit, a multiple of 8, at least 512.
    pub unit_bytes: u32,
    /// Percent of each unit that is zeros.
    pub compressible_percent: u8,
    /// Percent of units that are duplicates of others.
    pub dedup_percent: u8,
}

/// Makes and recognises units.
#[derive(Debug)]
pub struct Blocks {
    shape: Shape,
    pool: Box<[u8]>,
}

impl Blocks {
    /// For a run.
    pub fn new(shape: Shape) -> Self {
        let mut random = Random::new(shape.run_id);
        let words = (POOL_BYTES + shape.unit_bytes as usize) / 8;
        let pool = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        Blocks { shape, pool }
    }

    /// What the units look like.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The content number of this version of a unit, if it is one made to be a duplicate.
    pub fn shared_content(&self, place: Place, version: u32) -> Option<u64> {
        if self.shape.dedup_percent == 0 {
            return None;
        }
        let key = self.key(place, version);
        (key % 100 < self.shape.dedup_percent.into()).then_some(mix(key) % SHARED_CONTENTS)
    }

    fn key(&self, place: Place, version: u32) -> u64 {
        mix(mix(self.shape.run_id ^ place.unit) ^ (u64::from(place.file) << 32 | u64::from(version)))
    }

    /// Appends one unit to `out`: the only pass over the payload before the send.
    pub fn append(&self, out: &mut Vec<u8>, place: Place, stamp: Stamp) {
        match self.shared_content(place, stamp.version) {
            None => self.append_with(out, UNIQUE_MAGIC, place, stamp),
            Some(number) => {
                let place = Place { file: 0, unit: number };
                self.append_with(out, SHARED_MAGIC, place, Stamp { version: 0, sequence: 0, time_ns: 0 });
            }
        }
    }

    fn append_with(&self, out: &mut Vec<u8>, magic: [u8; 8], place: Place, stamp: Stamp) {
        let start = out.len();
        let unit_bytes = self.shape.unit_bytes as usize;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&magic);
        header[8..16].copy_from_slice(&self.shape.run_id.to_le_bytes());
        header[16..20].copy_from_slice(&place.file.to_le_bytes());
        header[20..24].copy_from_slice(&self.shape.unit_bytes.to_le_bytes());
        header[24..32].copy_from_slice(&place.unit.to_le_bytes());
        header[32..36].copy_from_slice(&stamp.version.to_le_bytes());
        header[40..48].copy_from_slice(&stamp.sequence.to_le_bytes());
        header[48..56].copy_from_slice(&stamp.time_ns.to_le_bytes());
        out.extend_from_slice(&header);
        let filler_percent = 100 - usize::from(self.shape.compressible_percent);
        let filler_bytes = ((unit_bytes - HEADER_BYTES) * filler_percent / 100) & !7;
        let key = self.key(place, stamp.version);
        let from = key as usize % (POOL_BYTES / 8) * 8;
        out.extend_from_slice(&self.pool[from..from + filler_bytes]);
        for word in out[start + HEADER_BYTES..].as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        out.resize(start + unit_bytes, 0);
        let check = check_of(&out[start..]);
        out[start + 56..start + HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
    }

    /// Recognises one unit.
    pub fn recognise(&self, unit: &[u8]) -> Found {
        let Some(header) = unit.first_chunk::<HEADER_BYTES>() else { return Found::Damaged(false) };
        let magic: [u8; 8] = array(header, 0);
        if magic != UNIQUE_MAGIC && magic != SHARED_MAGIC {
            return if unit.iter().all(|&byte| byte == 0) { Found::Zeros } else { Found::Damaged(false) };
        }
        let unit_bytes = u32::from_le_bytes(array(header, 20)) as usize;
        if unit_bytes != unit.len() || u64::from_le_bytes(array(header, 56)) != check_of(unit) {
            return Found::Damaged(true);
        }
        let run_id = u64::from_le_bytes(array(header, 8));
        let place = Place { file: u32::from_le_bytes(array(header, 16)), unit: u64::from_le_bytes(array(header, 24)) };
        if run_id != self.shape.run_id {
            return Found::Foreign(run_id);
        }
        if magic == SHARED_MAGIC {
            return Found::Shared(place.unit);
        }
        let stamp = Stamp {
            version: u32::from_le_bytes(array(header, 32)),
            sequence: u64::from_le_bytes(array(header, 40)),
            time_ns: u64::from_le_bytes(array(header, 48)),
        };
        Found::Unique(place, stamp)
    }
}

fn array<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *header[at..].first_chunk().expect("fields lie inside the header")
}

fn check_of(unit: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(&unit[..56]);
    digest.update(&unit[HEADER_BYTES..]);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { run_id: 7, unit_bytes: 8192, compressible_percent: 0, dedup_percent: 0 };
    const PLACE: Place = Place { file: 3, unit: 99 };
    const STAMP: Stamp = Stamp { version: 5, sequence: 1234, time_ns: 77 };

    #[test]
    fn a_unit_is_recognised_and_any_flipped_bit_is_damage() {
        let blocks = Blocks::new(SHAPE);
        let mut unit = Vec::new();
        blocks.append(&mut unit, PLACE, STAMP);
        assert_eq!(unit.len(), 8192);
        assert_eq!(blocks.recognise(&unit), Found::Unique(PLACE, STAMP));
        for bit in (0..8192 * 8).step_by(61) {
            unit[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(blocks.recognise(&unit), Found::Damaged(_)), "bit {bit}");
            unit[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(blocks.recognise(&[0; 8192]), Found::Zeros);
        assert_eq!(blocks.recognise(&unit[..512]), Found::Damaged(true));
        assert_eq!(Blocks::new(Shape { run_id: 8, ..SHAPE }).recognise(&unit), Found::Foreign(7));
    }

    #[test]
    fn no_two_versions_or_places_share_4_kib() {
        let blocks = Blocks::new(SHAPE);
        let mut seen = std::collections::BTreeSet::new();
        for version in 1..300 {
            for unit in 0..10 {
                let mut out = Vec::new();
                blocks.append(&mut out, Place { file: 0, unit }, Stamp { version, ..STAMP });
                assert!(seen.insert(out[..4096].to_vec()) && seen.insert(out[4096..].to_vec()));
            }
        }
    }

    #[test]
    fn compressible_and_duplicate_shares_are_as_asked() {
        let blocks = Blocks::new(Shape { compressible_percent: 50, dedup_percent: 30, ..SHAPE });
        let (mut zeros, mut shared) = (0, 0);
        for unit in 0..2000 {
            let place = Place { file: 1, unit };
            let mut out = Vec::new();
            blocks.append(&mut out, place, STAMP);
            zeros += out.iter().filter(|&&byte| byte == 0).count();
            match blocks.recognise(&out) {
                Found::Shared(number) => {
                    assert_eq!(blocks.shared_content(place, STAMP.version), Some(number));
                    shared += 1;
                }
                found => assert_eq!(found, Found::Unique(place, STAMP)),
            }
        }
        assert!((27..33).contains(&(shared / 20)), "{shared} of 2000 units shared");
        assert!((48..53).contains(&(zeros * 100 / (2000 * 8192))), "{zeros} zero bytes");
    }
}
