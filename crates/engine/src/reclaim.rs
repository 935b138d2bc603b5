//! The reclaimer: gives back what removed and truncated files occupied.
//!
//! Removing or cutting a file is one small change, however large the file; the block map
//! behind it is taken down here, a few entries at a time. What is left to do stands in
//! the trees, so a crash loses nothing of it.

use base::FileId;

use crate::inner::Inner;
use crate::mover::Mover;
use crate::staged::BlockId;
use crate::state::{BLOCKS, Few, Mapping, OBJECTS, RECLAIM, RECLAIM_ALL, State, block_key, decode_mapping, file_key};
use crate::store::StoreRefusal;
use crate::tree::Missing;

/// Entries taken down between two looks at other work.
const ENTRIES_PER_TURN: usize = 64;

/// A file that is being reclaimed and whether all of it goes.
type Work = (FileId, bool);

impl Inner {
    /// Takes down up to about `limit` blocks. Returns whether anything is left.
    pub async fn reclaim(&self, _mover: &mut Mover, limit: usize) -> Result<bool, StoreRefusal> {
        let mut done = 0;
        while done < limit {
            let Some((file, all)) = self.resident(|state| state.first_reclaim()).await? else { return Ok(false) };
            done += if all { self.reclaim_all(file).await? } else { self.reclaim_trims(file, limit - done).await? };
            self.forget_gone_objects();
            self.world.yield_now().await;
        }
        Ok(true)
    }

    /// A turn of taking down a removed file.
    async fn reclaim_all(&self, file: FileId) -> Result<usize, StoreRefusal> {
        let first = BlockId { file, block: 0 };
        let count = self.resident(|state| state.take_down(first, u64::MAX, false)).await?.0;
        if count == 0 {
            self.resident(|state| state.remove(RECLAIM, &file_key(file))).await?;
        }
        self.counters.borrow_mut().blocks_reclaimed += count as u64;
        Ok(count.max(1))
    }

    /// Takes down up to `limit` blocks of what was cut off `file`.
    pub async fn reclaim_trims(&self, file: FileId, limit: usize) -> Result<usize, StoreRefusal> {
        let mut done = 0;
        while done < limit {
            let trim = self.resident(|state| Ok(state.file(file)?.and_then(|open| open.first_trim()))).await?;
            let Some(trim) = trim else {
                self.resident(|state| state.end_trims(file)).await?;
                return Ok(done + 1);
            };
            let first = BlockId { file, block: trim.0 };
            let (count, reached) = self.resident(|state| state.take_down(first, trim.1, true)).await?;
            {
                let mut state = self.state.borrow_mut();
                if let Some(open) = state.files.get_mut(file) {
                    open.reclaimed(trim, reached);
                }
                state.files.mark_dirty(file);
            }
            self.counters.borrow_mut().blocks_reclaimed += count as u64;
            done += count.max(1);
            self.world.yield_now().await;
        }
        Ok(done)
    }
}

impl State {
    /// The first file with something to reclaim.
    fn first_reclaim(&self) -> Result<Option<Work>, Missing> {
        let found = self.tree(RECLAIM).scan(&self.pages, &[], 1, |_| true)?;
        Ok(found.into_iter().next().map(|(key, what)| {
            let file = FileId(u64::from_be_bytes(key.try_into().expect("the key is a file id")));
            (file, what == RECLAIM_ALL)
        }))
    }

    /// Nothing is left of the cuts of `file`.
    fn end_trims(&mut self, file: FileId) -> Result<(), Missing> {
        let key = file_key(file);
        let trims = self.tree(RECLAIM).with(&self.pages, &key, |what| what != RECLAIM_ALL)?;
        if trims == Some(true) {
            self.remove(RECLAIM, &key)?;
        }
        Ok(())
    }

    /// Removes mappings from `first` on, below block `end`, at most a turn's worth; counts
    /// and sums of the file follow if it still `lives`. Returns how many, and the block
    /// before which all are gone.
    fn take_down(&mut self, first: BlockId, end: u64, lives: bool) -> Result<(usize, u64), Missing> {
        let file = first.file;
        let last = BlockId { file, block: end };
        let end_key = block_key(last, 0);
        let found =
            self.tree(BLOCKS).scan(&self.pages, &block_key(first, 0), ENTRIES_PER_TURN, |key| key < &end_key[..])?;
        let mut entries: Few<(BlockId, Mapping)> = Few::new();
        for (key, value) in &found {
            let block = u64::from_be_bytes(key[8..16].try_into().expect("a block key has 20 bytes"));
            entries.push((BlockId { file, block }, decode_mapping(value)));
        }
        for (_, mapping) in &entries {
            self.tree(OBJECTS).resident(&self.pages, &mapping.object.0.to_be_bytes())?;
        }
        // Nothing is missing from here on: the scan and the look-ups found every page.
        for ((key, _), (id, mapping)) in found.iter().zip(&entries) {
            self.remove(BLOCKS, key)?;
            let row = self.object(mapping.object)?;
            if let Some(row) = row {
                self.unreference(*mapping, row);
            }
            if lives {
                self.account_gone(*id, *mapping);
            }
        }
        self.changed |= !entries.is_empty();
        let reached =
            if found.len() < ENTRIES_PER_TURN { end } else { entries.last().map_or(end, |(id, _)| id.block + 1) };
        Ok((entries.len(), reached))
    }
}
