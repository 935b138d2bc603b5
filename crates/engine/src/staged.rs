//! Stable writes that are not yet in a stripe: the journal's image in memory, by block.
//!
//! Each staged block is a stack of fragments, newest last; a fragment is a slice of the
//! journal's own batch buffer, so staging copies nothing. Reads lay the fragments over
//! what is stored below. The destager takes blocks oldest first and, once they stand in
//! a written stripe and the trees name it, [`settle`](Staged::settle)s them.
//!
//! `unsettled` counts fragments by journal sequence: everything below the first key has
//! been settled, which is how far the journal may be trimmed after the next root.

use std::collections::{BTreeMap, VecDeque};

use base::{Buf, FileId, Osn};
use smallvec::{SmallVec, smallvec};

use crate::store::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;

/// A block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The file.
    pub file: FileId,
    /// Number of the block: offset divided by [`BLOCK_BYTES`].
    pub block: u64,
}

/// When something was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Journal sequence of the record.
    pub sequence: u64,
    /// Its operation's place in the total order.
    pub osn: Osn,
}

/// Some bytes of a block.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// When they were written.
    pub stamp: Stamp,
    /// Where in the block, in bytes.
    pub at: usize,
    /// The bytes.
    pub data: Buf,
}

impl Fragment {
    fn end(&self) -> usize {
        self.at + self.data.len()
    }
}

/// Fragments of one block, oldest first. None is wholly covered by a newer one.
#[derive(Clone, Debug, Default)]
pub struct StagedBlock {
    fragments: SmallVec<[Fragment; 1]>,
}

impl StagedBlock {
    /// The whole block, if one fragment has all of it and none lies above.
    pub fn whole(&self) -> Option<&Buf> {
        match self.fragments.as_slice() {
            [only] if only.data.len() == BLOCK => Some(&only.data),
            _ => None,
        }
    }

    /// Whether the fragments hide everything below.
    pub fn covers(&self) -> bool {
        let mut spans: SmallVec<[(usize, usize); 4]> = self.fragments.iter().map(|f| (f.at, f.end())).collect();
        spans.sort_unstable();
        let reach = spans.iter().try_fold(0, |reach, &(at, end)| (at <= reach).then_some(end.max(reach)));
        reach == Some(BLOCK)
    }

    /// Lays the fragments over `block`.
    pub fn overlay(&self, block: &mut [u8]) {
        for fragment in &self.fragments {
            block[fragment.at..fragment.end()].copy_from_slice(&fragment.data);
        }
    }

    /// Stamp of the newest fragment.
    pub fn newest(&self) -> Stamp {
        self.fragments.last().map(|fragment| fragment.stamp).unwrap_or_default()
    }
}

/// All staged blocks.
#[derive(Default)]
pub struct Staged {
    blocks: BTreeMap<BlockId, StagedBlock>,
    queue: VecDeque<BlockId>,
    unsettled: BTreeMap<u64, u32>,
}

impl Staged {
    /// Stages `data` at `offset_bytes` of `file`.
    pub fn write(&mut self, file: FileId, offset_bytes: u64, data: &Buf, stamp: Stamp) {
        let mut done = 0;
        while done < data.len() {
            let offset = offset_bytes + done as u64;
            let at = (offset % BLOCK_BYTES) as usize;
            let take = (data.len() - done).min(BLOCK - at);
            let fragment = Fragment { stamp, at, data: data.slice(done..done + take) };
            self.push(BlockId { file, block: offset / BLOCK_BYTES }, fragment);
            done += take;
        }
    }

    fn push(&mut self, id: BlockId, fragment: Fragment) {
        *self.unsettled.entry(fragment.stamp.sequence).or_default() += 1;
        match self.blocks.entry(id) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(StagedBlock { fragments: smallvec![fragment] });
                self.queue.push_back(id);
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let fragments = &mut occupied.get_mut().fragments;
                let unsettled = &mut self.unsettled;
                fragments.retain(|old| {
                    let covered = fragment.at <= old.at && old.end() <= fragment.end();
                    if covered {
                        uncount(unsettled, old.stamp.sequence);
                    }
                    !covered
                });
                fragments.push(fragment);
            }
        }
    }

    /// The block, if anything of it is staged.
    pub fn get(&self, id: BlockId) -> Option<&StagedBlock> {
        self.blocks.get(&id)
    }

    /// Forgets everything from block `from` of `file` on: the content is gone.
    pub fn drop_from(&mut self, file: FileId, from: u64) {
        let end = BlockId { file: file.next(), block: 0 };
        let gone: Vec<BlockId> = self.blocks.range(BlockId { file, block: from }..end).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: BlockId) {
        for fragment in self.blocks.remove(&id).map(|block| block.fragments).into_iter().flatten() {
            uncount(&mut self.unsettled, fragment.stamp.sequence);
        }
    }

    /// The oldest block not handed out yet. It stays staged until it is settled.
    pub fn take_oldest(&mut self) -> Option<(BlockId, StagedBlock)> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(block) = self.blocks.get(&id) {
                return Some((id, block.clone()));
            }
        }
        None
    }

    /// What was taken with `newest` now stands in a stripe: fragments up to there go; if
    /// newer ones came meanwhile the block queues again. A block handed out by
    /// [`take_oldest`](Staged::take_oldest) must be settled or [put back](Staged::put_back).
    pub fn settle(&mut self, id: BlockId, newest: u64) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        let unsettled = &mut self.unsettled;
        block.fragments.retain(|fragment| {
            let done = fragment.stamp.sequence <= newest;
            if done {
                uncount(unsettled, fragment.stamp.sequence);
            }
            !done
        });
        if block.fragments.is_empty() {
            self.blocks.remove(&id);
        } else {
            self.queue.push_back(id);
        }
    }

    /// Whether anything is left of what was staged through `newest` when the block was
    /// taken. If not, it was dropped, cut off or written over meanwhile, and what it has
    /// become concerns nobody; if so, all of it counts, also where newer fragments lie
    /// over parts of it.
    pub fn holds(&self, id: BlockId, newest: u64) -> bool {
        self.blocks
            .get(&id)
            .is_some_and(|block| block.fragments.iter().any(|fragment| fragment.stamp.sequence <= newest))
    }

    /// A block that was taken could not be written; it is next again.
    pub fn put_back(&mut self, id: BlockId) {
        self.queue.push_front(id);
    }

    /// The first sequence that has not been settled.
    pub fn first_unsettled(&self) -> Option<u64> {
        self.unsettled.keys().next().copied()
    }

    /// Staged blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks waiting to be taken.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }
}

fn uncount(unsettled: &mut BTreeMap<u64, u32>, sequence: u64) {
    let Some(count) = unsettled.get_mut(&sequence) else {
        debug_assert!(false, "a fragment was counted when it was staged");
        return;
    };
    *count -= 1;
    if *count == 0 {
        unsettled.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(5);
    fn id(block: u64) -> BlockId {
        BlockId { file: FILE, block }
    }
    fn at(sequence: u64) -> Stamp {
        Stamp { sequence, osn: Osn(sequence) }
    }
    fn bytes(byte: u8, len: usize) -> Buf {
        Buf::from(vec![byte; len])
    }

    #[test]
    fn newer_fragments_lie_over_older_ones_and_hide_what_they_cover() {
        let mut staged = Staged::default();
        staged.write(FILE, 100, &bytes(1, 50), at(1));
        staged.write(FILE, 120, &bytes(2, 100), at(2));
        staged.write(FILE, 110, &bytes(3, 20), at(3));
        let mut block = vec![0; BLOCK];
        staged.get(id(0)).unwrap().overlay(&mut block);
        let expected: Vec<u8> = [(10, 1), (20, 3), (90, 2)].iter().flat_map(|&(n, b)| vec![b; n]).collect();
        assert_eq!(block[100..220], expected[..]);
        assert_eq!(staged.first_unsettled(), Some(1));
        staged.write(FILE, 0, &bytes(4, BLOCK), at(4));
        assert!(staged.get(id(0)).unwrap().whole().is_some());
        assert_eq!(staged.first_unsettled(), Some(4));
    }

    #[test]
    fn a_write_over_blocks_is_cut_at_their_borders_and_settles_by_parts() {
        let mut staged = Staged::default();
        staged.write(FILE, BLOCK_BYTES - 10, &bytes(7, 20), at(9));
        assert_eq!((staged.block_count(), staged.first_unsettled()), (2, Some(9)));
        let (first, block) = staged.take_oldest().unwrap();
        assert_eq!((first, block.newest().sequence, block.covers()), (id(0), 9, false));
        staged.settle(first, 9);
        assert_eq!(staged.first_unsettled(), Some(9), "the other half still counts");
        staged.drop_from(FILE, 1);
        assert_eq!((staged.block_count(), staged.first_unsettled()), (0, None));
        assert!(staged.take_oldest().is_none());
    }

    #[test]
    fn a_block_overwritten_while_it_is_destaged_queues_again() {
        let mut staged = Staged::default();
        staged.write(FILE, 0, &bytes(1, BLOCK), at(1));
        let (taken, block) = staged.take_oldest().unwrap();
        staged.write(FILE, 8, &bytes(2, 8), at(2));
        staged.settle(taken, block.newest().sequence);
        assert_eq!((staged.first_unsettled(), staged.queued_count()), (Some(2), 1));
        assert!(!staged.get(id(0)).unwrap().covers());
    }

    #[test]
    fn a_fragment_beside_one_that_was_written_over_still_counts() {
        let mut staged = Staged::default();
        staged.write(FILE, 0, &bytes(1, 8), at(1));
        staged.write(FILE, 100, &bytes(2, 8), at(2));
        let (taken, block) = staged.take_oldest().unwrap();
        staged.write(FILE, 100, &bytes(3, 8), at(3));
        assert!(staged.holds(taken, block.newest().sequence), "the first fragment is known nowhere else");
        staged.drop_from(FILE, 0);
        staged.write(FILE, 100, &bytes(4, 8), at(4));
        assert!(!staged.holds(taken, block.newest().sequence), "what was taken was cut off");
    }

    #[test]
    fn fragments_side_by_side_cover_the_block() {
        let mut staged = Staged::default();
        staged.write(FILE, 4096, &bytes(1, 4096), at(1));
        assert!(!staged.get(id(0)).unwrap().covers());
        staged.write(FILE, 0, &bytes(2, 4096), at(2));
        assert!(staged.get(id(0)).unwrap().covers() && staged.get(id(0)).unwrap().whole().is_none());
    }
}
