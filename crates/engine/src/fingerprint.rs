//! The fingerprint index: where a block with this content might already be stored.
//!
//! It is advice only (`design.md` 11.9). Every hit is read and compared before it is
//! shared, so the index may forget, and may even be wrong. It is a fixed table in
//! memory, four entries per bucket, the oldest of a bucket overwritten; it refills from
//! writes and from reads of the block map, and costs no I/O per unique write.

use base::{ContentCheck, ObjectId};

const WAYS: usize = 4;

/// Content check to object id, lossy.
pub struct FingerprintIndex {
    entries: Vec<(u64, u64)>,
    next_way: Vec<u8>,
}

impl FingerprintIndex {
    /// An index of about `entries` entries, 16 bytes each.
    pub fn new(entries: usize) -> FingerprintIndex {
        let buckets = (entries / WAYS).max(1).next_power_of_two();
        FingerprintIndex { entries: vec![(0, 0); buckets * WAYS], next_way: vec![0; buckets] }
    }

    fn halves(content: ContentCheck) -> (u64, u64) {
        let all = u128::from_le_bytes(content.0);
        (all as u64, (all >> 64) as u64)
    }

    fn bucket(&self, content: ContentCheck) -> usize {
        (Self::halves(content).0 as usize) & (self.next_way.len() - 1)
    }

    /// An object that may have this content.
    pub fn find(&self, content: ContentCheck) -> Option<ObjectId> {
        let bucket = self.bucket(content);
        let tag = Self::halves(content).1;
        let ways = &self.entries[bucket * WAYS..][..WAYS];
        ways.iter().find(|(known, id)| *known == tag && *id != 0).map(|(_, id)| ObjectId(*id))
    }

    /// Remembers that `object` has this content.
    pub fn remember(&mut self, content: ContentCheck, object: ObjectId) {
        let bucket = self.bucket(content);
        let tag = Self::halves(content).1;
        let ways = &mut self.entries[bucket * WAYS..][..WAYS];
        let way = ways.iter().position(|(known, _)| *known == tag).unwrap_or_else(|| {
            let way = usize::from(self.next_way[bucket]);
            self.next_way[bucket] = ((way + 1) % WAYS) as u8;
            way
        });
        ways[way] = (tag, object.0);
    }

    /// Forgets `object`, which is gone.
    pub fn forget(&mut self, content: ContentCheck, object: ObjectId) {
        let bucket = self.bucket(content);
        for entry in &mut self.entries[bucket * WAYS..][..WAYS] {
            if entry.1 == object.0 {
                *entry = (0, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_remembers_and_forgets_the_oldest_when_full() {
        let mut index = FingerprintIndex::new(WAYS);
        let content = |n: u8| ContentCheck([n; 16]);
        for n in 1..=5 {
            index.remember(content(n), ObjectId(u64::from(n)));
        }
        assert_eq!(index.find(content(1)), None);
        assert_eq!(index.find(content(5)), Some(ObjectId(5)));
        index.remember(content(5), ObjectId(50));
        assert_eq!(index.find(content(5)), Some(ObjectId(50)));
        index.forget(content(5), ObjectId(50));
        assert_eq!(index.find(content(5)), None);
    }
}
