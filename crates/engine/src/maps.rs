//! The entries of block maps: who sees which, and what a new one changes.
//!
//! See `layers` for what layers, views and change lists are. Nothing here waits; like all
//! of `state` it has every page it needs or changes nothing.

use base::{FileId, ObjectId, Osn};
use smallvec::SmallVec;

use crate::layers::{Layer, Viewer};
use crate::read::Stored;
use crate::staged::{BlockId, StagedBlock};
use crate::state::{
    BLOCKS, CHANGES, Few, HEADS, Mapping, OBJECTS, ObjectRow, State, block_key, decode_entry, entry_value, file_key,
    sum_term,
};
use crate::store::BLOCK_BYTES;
use crate::tree::Missing;

/// Staged fragments of a block in several layers, newest layer first.
pub(crate) type Stack = SmallVec<[StagedBlock; 1]>;

/// An entry found in a map: its epoch, and its mapping unless it is a hole.
pub(crate) type Found = (u32, Option<Mapping>);

/// What a new entry of a block would mean.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Somebody would see it.
    pub visible: bool,
    /// What those see now.
    pub before: Option<Mapping>,
    /// The entry of the very layer.
    pub at: Option<Option<Mapping>>,
    /// Entries of older layers that nobody would see any more.
    older: Few<(BlockId, Option<Mapping>)>,
    /// Files and snapshots that would see it.
    files: Few<FileId>,
    /// There are layers below that a hole has to hide.
    has_below: bool,
}

pub(crate) fn change_key(id: BlockId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&id.map.0.to_be_bytes());
    key[8..12].copy_from_slice(&id.epoch.to_be_bytes());
    key[12..].copy_from_slice(&id.block.to_be_bytes());
    key
}

/// The block that a key of the change list names.
pub(crate) fn decode_change(key: &[u8]) -> BlockId {
    let word = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("a change key has 20 bytes"));
    let epoch = u32::from_be_bytes(key[8..12].try_into().expect("a change key has 20 bytes"));
    BlockId { map: FileId(word(0)), block: word(12), epoch }
}

/// The block that a key of a block map names.
pub(crate) fn decode_block(key: &[u8]) -> BlockId {
    let word = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("a block key has 20 bytes"));
    let epoch = u32::from_be_bytes(key[16..20].try_into().expect("a block key has 20 bytes"));
    BlockId { map: FileId(word(0)), block: word(8), epoch }
}

impl State {
    /// The newest entry of the block in its map at or below the layer: one search.
    pub(crate) fn entry_through(&self, id: BlockId) -> Result<Option<Found>, Missing> {
        let key = block_key(id);
        let found = self.tree(BLOCKS).floor(&self.pages, &key, |found, value| {
            (found[..16] == key[..16]).then(|| (decode_block(found).epoch, decode_entry(value)))
        })?;
        Ok(found.flatten())
    }

    /// The entry of the block below its layer.
    pub(crate) fn entry_below(&self, id: BlockId) -> Result<Option<Found>, Missing> {
        match id.epoch.checked_sub(1) {
            Some(epoch) if epoch > 0 => self.entry_through(BlockId { epoch, ..id }),
            _ => Ok(None),
        }
    }

    /// The epoch of the first entry of the block above its layer.
    fn entry_after(&self, id: BlockId) -> Result<Option<u32>, Missing> {
        let key = block_key(BlockId { epoch: id.epoch + 1, ..id });
        let found = self.tree(BLOCKS).scan(&self.pages, &key, 1, |found| found[..16] == key[..16])?;
        Ok(found.first().map(|(key, _)| decode_block(key).epoch))
    }

    pub(crate) fn entry_at(&self, id: BlockId) -> Result<Option<Option<Mapping>>, Missing> {
        self.tree(BLOCKS).with(&self.pages, &block_key(id), decode_entry)
    }

    /// What is stored of the block as seen from its layer, staged writes and cuts aside.
    pub(crate) fn mapping(&self, id: BlockId) -> Result<Option<Mapping>, Missing> {
        let mut at = id;
        loop {
            if let Some((_, mapping)) = self.entry_through(at)? {
                return Ok(mapping);
            }
            match self.layers.parent(at.map) {
                Some(parent) => at = parent.block(id.block),
                None => return Ok(None),
            }
        }
    }

    /// What a new entry for `id` would mean, and all pages for it.
    pub(crate) fn sight(&mut self, id: BlockId) -> Result<Sight, Missing> {
        let layer = id.layer();
        let is_plain = !self.layers.has_views(id.map);
        let (below, above, next) = if is_plain {
            let lives = self.file(id.map)?.is_some_and(|open| open.layer == layer);
            (None, lives.then_some(id.epoch), None)
        } else {
            (self.layers.view_below(layer), self.layers.view_from(layer), self.entry_after(id)?)
        };
        let parent = self.layers.parent(id.map);
        let mut sight = Sight {
            visible: above.is_some_and(|view| next.is_none_or(|next| view < next)),
            before: None,
            at: self.entry_at(id)?,
            older: Few::new(),
            files: Few::new(),
            has_below: below.is_some() || parent.is_some(),
        };
        let mut seen = sight.at;
        let mut at = id;
        while let Some((epoch, mapping)) = self.entry_below(at)? {
            seen = seen.or(Some(mapping));
            if epoch <= below.unwrap_or(0) {
                break;
            }
            at = BlockId { epoch, ..id };
            sight.older.push((at, mapping));
        }
        sight.before = match (seen, parent) {
            (Some(mapping), _) => mapping,
            (None, Some(parent)) => self.mapping(parent.block(id.block))?,
            (None, None) => None,
        };
        if sight.visible {
            match is_plain {
                true => sight.files.push(id.map),
                false => self.files_seeing(layer, id.block, next.unwrap_or(u32::MAX), &mut sight.files)?,
            }
        }
        self.resident_for(id, &sight)?;
        Ok(sight)
    }

    /// The files and snapshots that see an entry of `block` in `layer`, the next one of the
    /// map being at `until`.
    fn files_seeing(&self, layer: Layer, block: u64, until: u32, out: &mut Few<FileId>) -> Result<(), Missing> {
        let viewers: Few<Viewer> = self.layers.viewers(layer, until).collect();
        for viewer in viewers {
            match viewer {
                Viewer::File(file) => out.push(file),
                Viewer::Map(map) => {
                    let start = Layer { map, epoch: 0 };
                    let until = self.entry_after(start.block(block))?.unwrap_or(u32::MAX);
                    self.files_seeing(start, block, until, out)?;
                }
            }
        }
        Ok(())
    }

    /// The files and snapshots that see the entry `id`.
    pub(crate) fn files_of(&self, id: BlockId) -> Result<Few<FileId>, Missing> {
        let mut files = Few::new();
        if !self.layers.has_views(id.map) {
            files.push(id.map);
            return Ok(files);
        }
        let until = self.entry_after(id)?.unwrap_or(u32::MAX);
        self.files_seeing(id.layer(), id.block, until, &mut files)?;
        Ok(files)
    }

    /// All that [`remap`](State::remap) changes is in memory.
    fn resident_for(&mut self, id: BlockId, sight: &Sight) -> Result<(), Missing> {
        for file in &sight.files {
            self.file(*file)?;
            self.resident(HEADS, &file_key(*file))?;
        }
        let gone = sight.at.into_iter().chain(sight.older.iter().map(|(_, mapping)| *mapping)).flatten();
        for mapping in gone {
            self.resident(OBJECTS, &mapping.object.0.to_be_bytes())?;
        }
        for id in sight.older.iter().map(|(older, _)| *older).chain([id]) {
            self.resident(BLOCKS, &block_key(id))?;
            if self.layers.is_tracked(id.layer()) {
                self.resident(CHANGES, &change_key(id))?;
            }
        }
        self.resident_if_lost(id)
    }

    pub(crate) fn put_entry(&mut self, id: BlockId, mapping: Option<Mapping>) {
        self.put(BLOCKS, &block_key(id), &entry_value(mapping)).expect("its path is resident");
        if self.layers.is_tracked(id.layer()) {
            self.put(CHANGES, &change_key(id), &[]).expect("its path is resident");
        }
    }

    pub(crate) fn remove_entry(&mut self, id: BlockId) {
        self.remove(BLOCKS, &block_key(id)).expect("its path is resident");
        if self.layers.is_tracked(id.layer()) {
            self.remove(CHANGES, &change_key(id)).expect("its path is resident");
        }
    }

    /// Makes the block in its layer what `fresh` is; counts and sums of all who see it follow.
    pub(crate) fn remap(&mut self, id: BlockId, sight: &Sight, fresh: Option<Mapping>, osn: Osn) {
        match fresh {
            None if !sight.has_below => {
                self.remove_entry(id);
                self.forget_below(id);
            }
            fresh => self.put_entry(id, fresh),
        }
        for (older, _) in &sight.older {
            self.remove_entry(*older);
        }
        let gone = sight.at.into_iter().chain(sight.older.iter().map(|(_, mapping)| *mapping)).flatten();
        for mapping in gone {
            self.release(mapping);
        }
        for file in &sight.files {
            self.account(*file, id.block, sight.before, fresh);
        }
        self.delta.mapping(id, osn, fresh.map_or(ObjectId(0), |mapping| mapping.object));
        self.changed = true;
    }

    /// The block is a hole without an entry: what is staged in older layers, which only those
    /// see who see the hole, must not come up there.
    fn forget_below(&mut self, id: BlockId) {
        let older = self.staged.layers_of(id.map, id.block, id.epoch).map(|(epoch, _)| epoch);
        let older: Few<u32> = older.filter(|epoch| *epoch < id.epoch).collect();
        older.into_iter().for_each(|epoch| self.staged.forget(BlockId { epoch, ..id }));
    }

    /// An entry that referred to `mapping` is gone. The object's path is resident.
    pub(crate) fn release(&mut self, mapping: Mapping) {
        if let Some(row) = self.object(mapping.object).expect("its path is resident") {
            self.unreference(mapping, row);
        }
    }

    /// Moves the sum and the used space of `file` from `old` to `fresh` content of a block.
    pub(crate) fn account(&mut self, file: FileId, block: u64, old: Option<Mapping>, fresh: Option<Mapping>) {
        let key = self.content_key;
        let Ok(Some(open)) = self.file(file) else { return };
        let term = |mapping: Mapping| sum_term(&key, block, mapping.content);
        if old.map(|old| old.content) != fresh.map(|fresh| fresh.content) {
            let (less, more) = (old.map_or(0, term), fresh.map_or(0, term));
            open.head.content_sum = open.head.content_sum.wrapping_sub(less).wrapping_add(more);
        }
        let (less, more) = (u64::from(old.is_some()) * BLOCK_BYTES, u64::from(fresh.is_some()) * BLOCK_BYTES);
        open.head.used_bytes = (open.head.used_bytes + more).saturating_sub(less);
        self.files.mark_dirty(file);
    }

    /// What a block is made of as seen from its layer: what is stored, and the staged
    /// fragments above it, newest layer first. Without `own` those of the layer itself are
    /// left out.
    pub(crate) fn resolve(&mut self, id: BlockId, own: bool) -> Result<(Stored, Stack), Missing> {
        let mut stack = Stack::new();
        let (mut at, mut own) = (id, own);
        loop {
            if let Some(stored) = self.resolve_in_map(at, own, &mut stack)? {
                return Ok((stored, stack));
            }
            match self.layers.parent(at.map) {
                Some(parent) => (at, own) = (parent.block(id.block), true),
                None => return Ok((Stored::Hole, stack)),
            }
        }
    }

    /// As [`resolve`](State::resolve), in one map; `None` if the map says nothing.
    fn resolve_in_map(&self, id: BlockId, own: bool, stack: &mut Stack) -> Result<Option<Stored>, Missing> {
        let entry = self.entry_through(id)?;
        let lowest = entry.map_or(0, |(epoch, _)| epoch);
        // What befell the block since its entry. Within a layer staged bytes came last, and
        // a cut would have ended a loss.
        const STAGED: u8 = 2;
        const LOST: u8 = 1;
        const CUT: u8 = 0;
        let staged = self.staged.layers_of(id.map, id.block, id.epoch).map(|(epoch, _)| (epoch, STAGED));
        let staged = staged.take_while(|(epoch, _)| *epoch >= lowest).filter(|(epoch, _)| own || *epoch < id.epoch);
        let lost = self.lost.range(BlockId { epoch: lowest, ..id }..=id).map(|lost| (lost.epoch, LOST));
        let cuts = self.layers.cuts_of(id.map, id.block, lowest..=id.epoch).map(|epoch| (epoch, CUT));
        let mut events: Few<(u32, u8)> = staged.chain(lost).chain(cuts).collect();
        events.sort_unstable_by(|a, b| b.cmp(a));
        for (epoch, event) in events {
            match event {
                STAGED => {
                    let Some(block) = self.staged.get(BlockId { epoch, ..id }) else { continue };
                    stack.push(block.clone());
                    if block.covers() {
                        return Ok(Some(Stored::Hole));
                    }
                }
                LOST => return Ok(Some(Stored::Lost)),
                _ => return Ok(Some(Stored::Hole)),
            }
        }
        let Some((_, mapping)) = entry else { return Ok(None) };
        let Some(mapping) = mapping else { return Ok(Some(Stored::Hole)) };
        // A mapping without a row is damage; the read of an impossible place reports it.
        let missing = ObjectRow { place: crate::format::Place::default(), references: 0 };
        let row = self.object(mapping.object)?.unwrap_or(missing);
        Ok(Some(Stored::Object(mapping, row)))
    }
}
