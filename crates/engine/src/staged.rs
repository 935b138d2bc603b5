//! Stable writes that are not yet in a stripe: the journal's image in memory, by block
//! and layer: what was written before a snapshot stays apart from what came after.
//!
//! Each staged block is a stack of fragments, newest last; a fragment is a slice of the
//! journal's own batch buffer, so staging copies nothing. Reads lay the fragments over
//! what is stored below. The destager takes blocks oldest first and, once they stand in
//! a written stripe and the trees name it, [`settle`](Staged::settle)s them.
//!
//! Oldest is by what a block still holds: one that was written over has become young, and
//! the longer it is left alone the more overwrites it absorbs that no stripe ever sees.
//!
//! [`Ledger`] counts fragments by journal sequence: everything below the first that is
//! left has been settled, which is how far the journal may be trimmed after the next root.
//!
//! Cost of staging a large write: one map look-up per [`CHUNK_BLOCKS`] blocks, then per
//! block one handle, one place in the queue; no allocation once queues have grown, except
//! for a chunk that had nothing staged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Buf, FileId, Osn};
use smallvec::{SmallVec, smallvec};

use crate::layers::Layer;
use crate::store::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Neighbouring blocks that are found together.
const CHUNK_BLOCKS: u64 = 32;

/// A block in a layer of a map (see `layers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The map: the file, unless it was cloned or rolled back.
    pub map: FileId,
    /// Number of the block: offset divided by [`BLOCK_BYTES`].
    pub block: u64,
    /// Epoch of the layer in its map.
    pub epoch: u32,
}

impl BlockId {
    /// The layer it is in.
    pub fn layer(self) -> Layer {
        Layer { map: self.map, epoch: self.epoch }
    }
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
    /// Handed out by [`Staged::take_oldest`] and not settled or put back.
    is_taken: bool,
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

    /// Sequence of the oldest fragment.
    fn oldest(&self) -> u64 {
        self.fragments.first().map_or(0, |fragment| fragment.stamp.sequence)
    }

    /// Stamp of the newest fragment.
    pub fn newest(&self) -> Stamp {
        self.fragments.last().map(|fragment| fragment.stamp).unwrap_or_default()
    }
}

/// Who is where in line, and what of which record is left.
#[derive(Default)]
struct Ledger {
    /// Blocks with the sequence of the oldest fragment they had when they queued. An entry
    /// whose block has become younger, was taken or is gone means nothing any more.
    queue: VecDeque<(BlockId, u64)>,
    /// Fragments left, by sequence from `first_sequence` on. Does not start with 0.
    unsettled: VecDeque<u32>,
    first_sequence: u64,
    blocks: usize,
    taken: usize,
}

impl Ledger {
    fn count(&mut self, sequence: u64) {
        if self.unsettled.is_empty() {
            self.first_sequence = sequence;
        }
        while sequence < self.first_sequence {
            self.unsettled.push_front(0);
            self.first_sequence -= 1;
        }
        let index = (sequence - self.first_sequence) as usize;
        if index >= self.unsettled.len() {
            self.unsettled.resize(index + 1, 0);
        }
        self.unsettled[index] += 1;
    }

    fn uncount(&mut self, sequence: u64) {
        let index = sequence.checked_sub(self.first_sequence).map(|index| index as usize);
        let Some(left) = index.and_then(|index| self.unsettled.get_mut(index)).filter(|left| **left > 0) else {
            debug_assert!(false, "a fragment was counted when it was staged");
            return;
        };
        *left -= 1;
        while self.unsettled.front() == Some(&0) {
            self.unsettled.pop_front();
            self.first_sequence += 1;
        }
    }

    fn forget(&mut self, block: StagedBlock) {
        block.fragments.iter().for_each(|fragment| self.uncount(fragment.stamp.sequence));
        self.blocks -= 1;
        self.taken -= usize::from(block.is_taken);
    }

    /// Puts a fragment on top of `block`, which has some.
    fn cover(&mut self, id: BlockId, block: &mut StagedBlock, fragment: Fragment) {
        let oldest = block.oldest();
        let sequence = fragment.stamp.sequence;
        block.fragments.retain(|old| {
            let covered = fragment.at <= old.at && old.end() <= fragment.end();
            if covered {
                self.uncount(old.stamp.sequence);
            }
            !covered
        });
        block.fragments.push(fragment);
        match block.oldest() {
            now if block.is_taken || now == oldest => {}
            now if now == sequence => self.queue.push_back((id, now)),
            // It lost its oldest fragment, but what is left is not new.
            now => self.queue.push_front((id, now)),
        }
    }
}

/// Staged blocks among [`CHUNK_BLOCKS`] neighbours, in order.
type Chunk = Vec<(u8, StagedBlock)>;

/// All staged blocks.
#[derive(Default)]
pub struct Staged {
    chunks: BTreeMap<ChunkKey, Chunk>,
    ledger: Ledger,
}

/// Map, number of the chunk, epoch.
type ChunkKey = (FileId, u64, u32);

fn chunk_of(id: BlockId) -> (ChunkKey, u8) {
    ((id.map, id.block / CHUNK_BLOCKS, id.epoch), (id.block % CHUNK_BLOCKS) as u8)
}

fn find(chunk: &Chunk, index: u8) -> Result<usize, usize> {
    chunk.binary_search_by_key(&index, |(index, _)| *index)
}

impl Staged {
    /// Stages `data` at `offset_bytes` of `layer`.
    pub fn write(&mut self, layer: Layer, offset_bytes: u64, data: &Buf, stamp: Stamp) {
        let end = offset_bytes + data.len() as u64;
        let mut at = offset_bytes;
        while at < end {
            let chunk = at / BLOCK_BYTES / CHUNK_BLOCKS;
            let chunk_end = end.min((chunk + 1) * CHUNK_BLOCKS * BLOCK_BYTES);
            let piece = data.slice((at - offset_bytes) as usize..(chunk_end - offset_bytes) as usize);
            self.write_chunk((layer.map, chunk, layer.epoch), at, &piece, stamp);
            at = chunk_end;
        }
    }

    /// Stages what lies within one chunk.
    fn write_chunk(&mut self, key: ChunkKey, offset_bytes: u64, data: &Buf, stamp: Stamp) {
        let ledger = &mut self.ledger;
        let chunk = self.chunks.entry(key).or_default();
        let (first, index) = chunk_of(BlockId { map: key.0, block: offset_bytes / BLOCK_BYTES, epoch: key.2 });
        debug_assert_eq!(first, key);
        let mut place = find(chunk, index).unwrap_or_else(|place| place);
        let mut done = 0;
        while done < data.len() {
            let offset = offset_bytes + done as u64;
            let at = (offset % BLOCK_BYTES) as usize;
            let take = (data.len() - done).min(BLOCK - at);
            let fragment = Fragment { stamp, at, data: data.slice(done..done + take) };
            let id = BlockId { map: key.0, block: offset / BLOCK_BYTES, epoch: key.2 };
            let index = chunk_of(id).1;
            ledger.count(stamp.sequence);
            match chunk.get_mut(place).filter(|(found, _)| *found == index) {
                Some((_, block)) => ledger.cover(id, block, fragment),
                None => {
                    chunk.insert(place, (index, StagedBlock { fragments: smallvec![fragment], is_taken: false }));
                    ledger.queue.push_back((id, stamp.sequence));
                    ledger.blocks += 1;
                }
            }
            place += 1;
            done += take;
        }
    }

    /// The block, if anything of it is staged.
    pub fn get(&self, id: BlockId) -> Option<&StagedBlock> {
        let (key, index) = chunk_of(id);
        let chunk = self.chunks.get(&key)?;
        find(chunk, index).ok().map(|place| &chunk[place].1)
    }

    fn get_mut(&mut self, id: BlockId) -> Option<(&mut StagedBlock, &mut Ledger)> {
        let (key, index) = chunk_of(id);
        let chunk = self.chunks.get_mut(&key)?;
        let place = find(chunk, index).ok()?;
        Some((&mut chunk[place].1, &mut self.ledger))
    }

    /// The layers of `map` through `epoch` in which something of `block` is staged, newest
    /// first.
    pub fn layers_of(&self, map: FileId, block: u64, epoch: u32) -> impl Iterator<Item = (u32, &StagedBlock)> {
        let (last, index) = chunk_of(BlockId { map, block, epoch });
        let chunks = self.chunks.range((last.0, last.1, 0)..=last).rev();
        chunks.filter_map(move |(key, chunk)| find(chunk, index).ok().map(|place| (key.2, &chunk[place].1)))
    }

    /// The blocks of `map` from `from` up to `to` of which something is staged in a layer
    /// within `epochs`, in the order of chunks.
    pub fn blocks_between(
        &self,
        map: FileId,
        (from, to): (u64, u64),
        epochs: std::ops::RangeInclusive<u32>,
    ) -> impl Iterator<Item = u64> {
        let chunks = self.chunks.range((map, from / CHUNK_BLOCKS, 0)..(map, to.div_ceil(CHUNK_BLOCKS), 0));
        let within = chunks.filter(move |(key, _)| epochs.contains(&key.2));
        let blocks =
            within.flat_map(|(key, chunk)| chunk.iter().map(|(index, _)| key.1 * CHUNK_BLOCKS + u64::from(*index)));
        blocks.filter(move |block| (from..to).contains(block))
    }

    /// Forgets everything from block `from` of `layer` on: the content is gone.
    pub fn drop_from(&mut self, layer: Layer, from: u64) {
        let (first, index) = chunk_of(layer.block(from));
        let range = (first.0, first.1, 0)..(layer.map.next(), 0, 0);
        let chunks = self.chunks.range(range).filter(|(key, _)| key.2 == layer.epoch);
        let keys: Vec<_> = chunks.map(|(key, _)| *key).collect();
        for key in keys {
            let mut chunk = self.chunks.remove(&key).expect("just found");
            let keep = if key == first { find(&chunk, index).unwrap_or_else(|place| place) } else { 0 };
            chunk.drain(keep..).for_each(|(_, block)| self.ledger.forget(block));
            if !chunk.is_empty() {
                self.chunks.insert(key, chunk);
            }
        }
    }

    /// Forgets the layers of `map` within `epochs`: nobody sees them.
    pub fn drop_layers(&mut self, map: FileId, epochs: std::ops::RangeInclusive<u32>) {
        let gone = self.epochs_of(map, *epochs.start()..*epochs.end() + 1);
        gone.into_iter().for_each(|epoch| self.drop_from(Layer { map, epoch }, 0));
    }

    /// The epochs of `map` within `epochs` in which anything is staged.
    pub fn epochs_of(&self, map: FileId, epochs: std::ops::Range<u32>) -> Vec<u32> {
        let chunks = self.chunks.range((map, 0, 0)..(map.next(), 0, 0)).filter(|(key, _)| epochs.contains(&key.2));
        let found: BTreeSet<u32> = chunks.map(|(key, _)| key.2).collect();
        found.into_iter().collect()
    }

    /// Forgets what is staged of a block: it is not its content.
    pub fn forget(&mut self, id: BlockId) {
        self.remove(id);
    }

    fn remove(&mut self, id: BlockId) {
        let (key, index) = chunk_of(id);
        let Some(chunk) = self.chunks.get_mut(&key) else { return };
        if let Ok(place) = find(chunk, index) {
            self.ledger.forget(chunk.remove(place).1);
        }
        if chunk.is_empty() {
            self.chunks.remove(&key);
        }
    }

    /// The oldest block not handed out yet. It stays staged until it is settled.
    pub fn take_oldest(&mut self) -> Option<(BlockId, StagedBlock)> {
        while let Some((id, sequence)) = self.ledger.queue.pop_front() {
            let Some((block, ledger)) = self.get_mut(id) else { continue };
            if !block.is_taken && block.oldest() == sequence {
                block.is_taken = true;
                ledger.taken += 1;
                return Some((id, block.clone()));
            }
        }
        None
    }

    /// What was taken with `newest` now stands in a stripe: fragments up to there go; if
    /// newer ones came meanwhile the block queues again. A block handed out by
    /// [`take_oldest`](Staged::take_oldest) must be settled or [put back](Staged::put_back).
    pub fn settle(&mut self, id: BlockId, newest: u64) {
        let Some((block, ledger)) = self.get_mut(id) else { return };
        let oldest = block.oldest();
        block.fragments.retain(|fragment| {
            let done = fragment.stamp.sequence <= newest;
            if done {
                ledger.uncount(fragment.stamp.sequence);
            }
            !done
        });
        if block.fragments.is_empty() {
            return self.remove(id);
        }
        let was_taken = std::mem::take(&mut block.is_taken);
        ledger.taken -= usize::from(was_taken);
        if was_taken || block.oldest() != oldest {
            ledger.queue.push_back((id, block.oldest()));
        }
    }

    /// Whether anything is left of what was staged through `newest` when the block was
    /// taken. If not, it was dropped, cut off or written over meanwhile, and what it has
    /// become concerns nobody; if so, all of it counts, also where newer fragments lie
    /// over parts of it.
    pub fn holds(&self, id: BlockId, newest: u64) -> bool {
        self.get(id).is_some_and(|block| block.fragments.iter().any(|fragment| fragment.stamp.sequence <= newest))
    }

    /// A block that was taken could not be written; it is next again.
    pub fn put_back(&mut self, id: BlockId) {
        let Some((block, ledger)) = self.get_mut(id) else { return };
        if std::mem::take(&mut block.is_taken) {
            ledger.taken -= 1;
            ledger.queue.push_front((id, block.oldest()));
        }
    }

    /// The first sequence that has not been settled.
    pub fn first_unsettled(&self) -> Option<u64> {
        (!self.ledger.unsettled.is_empty()).then_some(self.ledger.first_sequence)
    }

    /// Staged blocks.
    pub fn block_count(&self) -> usize {
        self.ledger.blocks
    }

    /// Blocks waiting to be taken.
    pub fn queued_count(&self) -> usize {
        self.ledger.blocks - self.ledger.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Layer = Layer::first(FileId(5));
    fn id(block: u64) -> BlockId {
        FILE.block(block)
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
    fn a_block_written_over_is_young_again_and_waits_behind_the_others() {
        let mut staged = Staged::default();
        (0..3).for_each(|block| staged.write(FILE, block * BLOCK_BYTES, &bytes(1, BLOCK), at(1 + block)));
        staged.write(FILE, 0, &bytes(2, BLOCK), at(4));
        assert_eq!((staged.first_unsettled(), staged.queued_count()), (Some(2), 3));
        let order: Vec<_> = std::iter::from_fn(|| staged.take_oldest()).map(|(id, _)| id.block).collect();
        assert_eq!((order.as_slice(), staged.queued_count()), (&[1, 2, 0][..], 0));
        staged.put_back(id(2));
        staged.settle(id(1), 2);
        staged.settle(id(0), 4);
        assert_eq!((staged.first_unsettled(), staged.block_count(), staged.queued_count()), (Some(3), 1, 1));
        assert_eq!(staged.take_oldest().map(|(id, _)| id), Some(id(2)));
    }

    #[test]
    fn a_block_dropped_and_staged_anew_while_it_was_taken_never_falls_out_of_line() {
        let mut staged = Staged::default();
        staged.write(FILE, 0, &bytes(1, 8), at(1));
        staged.take_oldest().unwrap();
        staged.drop_from(FILE, 0);
        staged.write(FILE, 0, &bytes(2, 8), at(2));
        staged.take_oldest().unwrap();
        staged.settle(id(0), 1);
        staged.write(FILE, 8, &bytes(3, 8), at(3));
        let (_, again) = staged.take_oldest().unwrap();
        assert_eq!(again.newest().sequence, 3, "the first settling made it free to be taken again");
        staged.settle(id(0), 2);
        staged.write(FILE, 16, &bytes(4, 8), at(4));
        staged.settle(id(0), 3);
        assert_eq!((staged.queued_count(), staged.first_unsettled()), (1, Some(4)));
        assert_eq!(staged.take_oldest().map(|(id, _)| id), Some(id(0)));
    }

    #[test]
    fn one_that_lost_only_its_oldest_fragment_comes_next() {
        let mut staged = Staged::default();
        staged.write(FILE, 0, &bytes(1, 8), at(1));
        staged.write(FILE, 100, &bytes(1, 8), at(2));
        staged.write(FILE, BLOCK_BYTES, &bytes(1, 8), at(3));
        staged.write(FILE, 0, &bytes(1, 8), at(4));
        assert_eq!(staged.take_oldest().map(|(id, _)| id), Some(id(0)), "it still holds what 2 wrote");
        assert_eq!(staged.take_oldest().map(|(id, _)| id), Some(id(1)));
        assert!(staged.take_oldest().is_none());
    }

    #[test]
    fn a_long_write_crosses_chunks_and_a_drop_cuts_them() {
        let mut staged = Staged::default();
        let (first, count) = (CHUNK_BLOCKS - 3, CHUNK_BLOCKS + 10);
        staged.write(FILE, first * BLOCK_BYTES, &bytes(1, (count * BLOCK_BYTES) as usize), at(1));
        staged.write(Layer::first(FileId(6)), 0, &bytes(1, BLOCK), at(2));
        assert_eq!(staged.block_count() as u64, count + 1);
        assert!((first..first + count).all(|block| staged.get(id(block)).unwrap().whole().is_some()));
        assert!(staged.get(id(first - 1)).is_none() && staged.get(id(first + count)).is_none());
        let (taken, _) = staged.take_oldest().unwrap();
        assert_eq!(taken, id(first));
        staged.drop_from(FILE, first + 1);
        assert_eq!((staged.block_count(), staged.queued_count()), (2, 1));
        staged.drop_from(FILE, 0);
        assert_eq!((staged.block_count(), staged.queued_count(), staged.first_unsettled()), (1, 1, Some(2)));
        staged.settle(taken, 1);
        assert_eq!(staged.take_oldest().map(|(id, _)| id), Some(Layer::first(FileId(6)).block(0)));
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

    #[test]
    fn layers_stand_apart_and_are_found_newest_first() {
        let mut staged = Staged::default();
        let newer = Layer { epoch: 4, ..FILE };
        staged.write(FILE, 0, &bytes(1, 8), at(1));
        staged.write(newer, 0, &bytes(2, 8), at(2));
        let layers = |staged: &Staged, epoch| staged.layers_of(FILE.map, 0, epoch).map(|(e, _)| e).collect::<Vec<_>>();
        assert_eq!((layers(&staged, 9), layers(&staged, 3)), (vec![4, 1], vec![1]));
        assert_eq!(staged.blocks_between(FILE.map, (0, 9), 2..=4).collect::<Vec<_>>(), [0]);
        staged.drop_from(newer, 0);
        assert_eq!((layers(&staged, 9), staged.first_unsettled()), (vec![1], Some(1)));
    }
}
