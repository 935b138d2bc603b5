//! The reclaimer: gives back what removed and truncated files, snapshots and clones
//! occupied.
//!
//! Removing or cutting is one small change, however large the file; the block maps
//! behind it are taken down here, a few entries at a time. What is left to do stands in
//! the trees, so a crash loses nothing of it.
//!
//! Three kinds of work: a file that never had a snapshot goes whole; a view that went is
//! brought together with the next one of its map (see `layers`); what was cut off a layer
//! becomes holes.

use base::{FileId, ObjectId, Osn};

use crate::inner::Inner;
use crate::layers::{Layer, Trim, Trims, Viewer};
use crate::maps::{change_key, decode_block, decode_change};
use crate::mover::Mover;
use crate::staged::BlockId;
use crate::state::{BLOCKS, CHANGES, Few, Mapping, OBJECTS, RECLAIM, State, block_key, decode_entry, file_key};
use crate::store::{Change, StoreRefusal};
use crate::tree::Missing;

/// Entries taken down between two looks at other work.
const ENTRIES_PER_TURN: usize = 64;

/// Where a merge is in the change lists that it goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    epoch: u32,
    block: u64,
}

impl Inner {
    /// Takes down up to about `limit` blocks. Returns whether anything is left.
    pub async fn reclaim(&self, _mover: &mut Mover, limit: usize) -> Result<bool, StoreRefusal> {
        let mut done = 0;
        while done < limit {
            let file = self.resident(|state| state.first_reclaim()).await?;
            let (merge, trim) = {
                let state = self.state.borrow();
                (state.layers.first_merge(), state.layers.first_trim())
            };
            done += match (file, merge, trim) {
                (Some(file), _, _) => self.reclaim_all(file).await?,
                (None, Some(gone), _) => self.merge(gone, limit - done).await?,
                (None, None, Some((layer, _))) => self.reclaim_trims(layer, limit - done).await?,
                (None, None, None) => return Ok(false),
            };
            self.forget_gone_objects();
            self.world.yield_now().await;
        }
        Ok(true)
    }

    /// A turn of taking down a removed file.
    async fn reclaim_all(&self, file: FileId) -> Result<usize, StoreRefusal> {
        let first = Layer::first(file).block(0);
        let count = self.resident(|state| state.take_down(first, u64::MAX, false)).await?.0;
        if count == 0 {
            self.resident(|state| state.remove(RECLAIM, &file_key(file))).await?;
        }
        self.counters.borrow_mut().blocks_reclaimed += count as u64;
        Ok(count.max(1))
    }

    /// Before `changes` are applied: a cut adds a range to the list of its file's layer, which
    /// holds only so many. The caller has the mover lock, or there is no mover yet. Callers
    /// change a file's size one at a time, so a few ranges are enough to spare.
    pub async fn make_way_for_cuts(&self, changes: &[Change]) -> Result<(), StoreRefusal> {
        for change in changes {
            if let Some(layer) = self.crowded_layer(change).await? {
                self.reclaim_trims(layer, usize::MAX).await?;
            }
        }
        Ok(())
    }

    /// The layer that `change` may cut, if it lists so many cut ranges that the next one
    /// waits for the reclaimer.
    pub async fn crowded_layer(&self, change: &Change) -> Result<Option<Layer>, StoreRefusal> {
        let Change::SetSize { file, .. } = *change else { return Ok(None) };
        let layer = self.resident(|state| Ok(state.file(file)?.map(|open| open.layer))).await?;
        let state = self.state.borrow();
        Ok(layer.filter(|layer| state.layers.trims(*layer).is_some_and(Trims::is_crowded)))
    }

    /// Takes down up to `limit` blocks of what was cut off `layer`.
    pub async fn reclaim_trims(&self, layer: Layer, limit: usize) -> Result<usize, StoreRefusal> {
        let mut done = 0;
        while done < limit {
            let trim = self.state.borrow().layers.trims(layer).and_then(|trims| trims.first_trim());
            let Some(trim) = trim else { return Ok(done + 1) };
            let (count, reached) = self.cut_down(layer, trim).await?;
            {
                let mut state = self.state.borrow_mut();
                state.layers.change_trims(layer, |trims| trims.reclaimed(trim, reached));
                state.changed = true;
            }
            self.counters.borrow_mut().blocks_reclaimed += count as u64;
            done += count.max(1);
            self.world.yield_now().await;
        }
        Ok(done)
    }

    /// A turn of what was cut off a layer: how many blocks, and before which all are gone.
    async fn cut_down(&self, layer: Layer, trim: Trim) -> Result<(usize, u64), StoreRefusal> {
        let is_alone = {
            let layers = &self.state.borrow().layers;
            !layers.has_views(layer.map) && !layers.is_tracked(layer)
        };
        if is_alone {
            return self.resident(|state| state.take_down(layer.block(trim.0), trim.1, true)).await;
        }
        let mut from = trim.0;
        for count in 0..ENTRIES_PER_TURN {
            let (block, reached) = self.resident(|state| state.next_seen(layer, (from, trim.1))).await?;
            let Some(block) = block else { return Ok((count, reached)) };
            self.resident(|state| state.cut_block(layer.block(block))).await?;
            from = block + 1;
        }
        Ok((ENTRIES_PER_TURN, from))
    }

    /// A view went: entries that nobody sees any more go, up to about `limit` at a time.
    async fn merge(&self, gone: Layer, limit: usize) -> Result<usize, StoreRefusal> {
        let mut count = 0;
        for step in 1..=limit.max(1) {
            let taken = self.resident(|state| state.merge_step(gone)).await?;
            let Some(taken) = taken else { break };
            count += taken;
            if step % ENTRIES_PER_TURN == 0 {
                self.forget_gone_objects();
                self.world.yield_now().await;
            }
        }
        self.counters.borrow_mut().blocks_reclaimed += count as u64;
        Ok(limit.min(count.max(1)))
    }
}

impl State {
    /// The first removed file that is to be taken down whole.
    fn first_reclaim(&self) -> Result<Option<FileId>, Missing> {
        let found = self.tree(RECLAIM).scan(&self.pages, &[], 1, |_| true)?;
        let file = |key: &[u8]| FileId(u64::from_be_bytes(key.try_into().expect("the key is a file id")));
        Ok(found.first().map(|(key, _)| file(key)))
    }

    /// Removes mappings of a map without layers from `first` on, below block `end`, at most a
    /// turn's worth; counts and sums of the file follow if it still `lives`. Returns how
    /// many, and the block before which all are gone.
    fn take_down(&mut self, first: BlockId, end: u64, lives: bool) -> Result<(usize, u64), Missing> {
        let end_key = block_key(BlockId { map: first.map, block: end, epoch: 0 });
        let from = block_key(BlockId { epoch: 0, ..first });
        let found = self.tree(BLOCKS).scan(&self.pages, &from, ENTRIES_PER_TURN, |key| key < &end_key[..])?;
        let mut entries: Few<(BlockId, Option<Mapping>)> = Few::new();
        for (key, value) in &found {
            entries.push((decode_block(key), decode_entry(value)));
        }
        for (_, mapping) in entries.iter().filter_map(|(id, mapping)| mapping.map(|mapping| (id, mapping))) {
            self.tree(OBJECTS).resident(&self.pages, &mapping.object.0.to_be_bytes())?;
        }
        if lives {
            self.file(first.map)?;
        }
        // Nothing is missing from here on: the scan and the look-ups found every page.
        for (id, mapping) in &entries {
            self.remove(BLOCKS, &block_key(*id))?;
            mapping.iter().for_each(|mapping| self.release(*mapping));
            if lives {
                self.account(first.map, id.block, *mapping, None);
            }
        }
        self.changed |= !entries.is_empty();
        let reached =
            if found.len() < ENTRIES_PER_TURN { end } else { entries.last().map_or(end, |(id, _)| id.block + 1) };
        Ok((entries.len(), reached))
    }

    /// The first block within `range` of which something may be seen from `layer`, stored or
    /// staged further down; and the block before which all are known to be none.
    fn next_seen(&self, layer: Layer, (from, to): (u64, u64)) -> Result<(Option<u64>, u64), Missing> {
        let mut first = to;
        let mut at = Some(layer);
        while let Some(here) = at {
            let mut block = from;
            while block < first {
                let key = block_key(BlockId { map: here.map, block, epoch: 0 });
                let end = block_key(BlockId { map: here.map, block: first, epoch: 0 });
                let found = self.tree(BLOCKS).scan(&self.pages, &key, 1, |key| key < &end[..])?;
                let Some(id) = found.first().map(|(key, _)| decode_block(key)) else { break };
                if id.epoch <= here.epoch {
                    first = id.block;
                }
                block = id.block + 1;
            }
            let staged = self.staged.blocks_between(here.map, (from, first), 0..=here.epoch).min();
            first = staged.unwrap_or(first);
            at = self.layers.parent(here.map);
        }
        Ok(((first < to).then_some(first), first))
    }

    /// A block that was cut off its layer becomes a hole there, unless it is one already.
    fn cut_block(&mut self, id: BlockId) -> Result<(), Missing> {
        // It may have been written again since.
        if !self.layers.trims(id.layer()).is_some_and(|trims| trims.is_cut(id.block)) {
            return Ok(());
        }
        let sight = self.sight(id)?;
        if sight.visible && sight.at != Some(None) {
            self.remap(id, &sight, None, Osn(0));
        }
        Ok(())
    }

    /// A step of a merge: how many entries it removed. `None`: it is done.
    fn merge_step(&mut self, gone: Layer) -> Result<Option<usize>, Missing> {
        let (below, above) = (self.layers.view_below(gone), self.layers.view_from(gone));
        let Some(above) = above else {
            let unseen = below.map_or(0, |epoch| epoch + 1);
            let taken = self.drop_unseen(gone, unseen)?;
            if taken == 0 {
                self.forget_layers(gone, unseen)?;
            }
            return Ok((taken > 0).then_some(taken));
        };
        let known = self.merge_at.filter(|(layer, _)| *layer == gone).map(|(_, cursor)| cursor);
        let cursor = known.unwrap_or(Cursor { epoch: gone.epoch + 1, block: 0 });
        let Some((next, taken)) = self.merge_into(gone, (below, above), cursor)? else {
            self.layers.merged(gone);
            self.merge_at = None;
            self.changed = true;
            return Ok(None);
        };
        self.merge_at = Some((gone, next));
        Ok(Some(taken))
    }

    /// The next entry that the following view has of its own hides what is older than it and
    /// seen by no view before.
    fn merge_into(
        &mut self,
        gone: Layer,
        (below, above): (Option<u32>, u32),
        cursor: Cursor,
    ) -> Result<Option<(Cursor, usize)>, Missing> {
        let key = change_key(BlockId { map: gone.map, block: cursor.block, epoch: cursor.epoch });
        let end = change_key(BlockId { map: gone.map, block: 0, epoch: above + 1 });
        let found = self.tree(CHANGES).scan(&self.pages, &key, 1, |key| key < &end[..])?;
        let Some(id) = found.first().map(|(key, _)| decode_change(key)) else { return Ok(None) };
        let mut unseen: Few<(BlockId, Option<Mapping>)> = Few::new();
        let mut at = id;
        while let Some((epoch, mapping)) = self.entry_below(at)? {
            if epoch <= below.unwrap_or(0) {
                break;
            }
            at = BlockId { epoch, ..id };
            unseen.push((at, mapping));
        }
        // A hole with nothing left to hide, now or soon.
        let own = self.entry_through(id)?;
        let staged = self.staged.layers_of(id.map, id.block, id.epoch).any(|(epoch, _)| epoch < id.epoch);
        if own == Some((id.epoch, None)) && below.is_none() && self.layers.parent(id.map).is_none() && !staged {
            unseen.push((id, None));
        }
        self.take_out(&unseen)?;
        Ok(Some((Cursor { epoch: id.epoch, block: id.block + 1 }, unseen.len())))
    }

    /// Removes some entries of the layers from epoch `unseen` through `gone`; how many.
    fn drop_unseen(&mut self, gone: Layer, unseen: u32) -> Result<usize, Missing> {
        let whole_map = unseen == 0;
        let (tree, from) = match whole_map {
            true => (BLOCKS, block_key(BlockId { map: gone.map, block: 0, epoch: 0 })),
            false => (CHANGES, change_key(BlockId { map: gone.map, block: 0, epoch: unseen })),
        };
        let found = self.tree(tree).scan(&self.pages, &from, ENTRIES_PER_TURN / 4, |key| {
            key[..8] == from[..8] && (whole_map || decode_change(key).epoch <= gone.epoch)
        })?;
        let mut entries: Few<(BlockId, Option<Mapping>)> = Few::new();
        for (key, value) in &found {
            let id = if whole_map { decode_block(key) } else { decode_change(key) };
            let mapping = match whole_map {
                true => decode_entry(value),
                false => self.entry_through(id)?.and_then(|(_, mapping)| mapping),
            };
            entries.push((id, mapping));
        }
        self.take_out(&entries)?;
        Ok(entries.len())
    }

    /// Removes entries that nobody sees.
    fn take_out(&mut self, entries: &[(BlockId, Option<Mapping>)]) -> Result<(), Missing> {
        for (id, mapping) in entries {
            self.resident(BLOCKS, &block_key(*id))?;
            if self.layers.is_tracked(id.layer()) {
                self.resident(CHANGES, &change_key(*id))?;
            }
            if let Some(mapping) = mapping {
                self.resident(OBJECTS, &mapping.object.0.to_be_bytes())?;
            }
        }
        for (id, mapping) in entries {
            self.remove_entry(*id);
            // An older entry may stand behind this one in the log, told again while a snapshot
            // saw it: the log, too, says that nothing is here.
            self.delta.mapping(*id, Osn(0), ObjectId(0));
            mapping.iter().for_each(|mapping| self.release(*mapping));
        }
        self.changed |= !entries.is_empty();
        Ok(())
    }

    /// Nothing is left in the layers from epoch `unseen` through `gone`, the newest of the map.
    fn forget_layers(&mut self, gone: Layer, unseen: u32) -> Result<(), Missing> {
        let map = Layer { epoch: u32::MAX, ..gone };
        let first = BlockId { map: gone.map, block: 0, epoch: 0 };
        let within = |id: &&BlockId| (unseen..=gone.epoch).contains(&id.epoch);
        let lost: Vec<BlockId> = self.lost.range(first..=map.block(u64::MAX)).filter(within).copied().collect();
        for id in &lost {
            self.resident_if_lost(*id)?;
        }
        lost.into_iter().for_each(|id| self.found_again(id));
        self.layers.merged(gone);
        self.changed = true;
        if !self.layers.has_views(gone.map)
            && let Some(parent) = self.layers.parent(gone.map)
        {
            self.layers.set_parent(gone.map, None);
            self.leave(parent, Viewer::Map(gone.map));
        }
        Ok(())
    }
}
