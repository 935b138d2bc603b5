//! Everything the engine has in memory, and the changes to it that need no waiting.
//!
//! Functions here either have all the pages they need, or return [`Missing`] *before*
//! they have changed anything (see `tree`).

use std::collections::{BTreeMap, BTreeSet};

use base::{Buf, ContentCheck, FileId, ObjectId, Osn, WallNanos, content_check};
use smallvec::SmallVec;

use crate::delta::DeltaLog;
use crate::files::{Files, OpenFile};
use crate::fingerprint::FingerprintIndex;
use crate::format::{DESCRIPTOR_BYTES, PLACE_BYTES, Place};
use crate::hash::FixedMap;
use crate::layers::{Layer, Layers, Trims};
use crate::mover::Move;
use crate::pages::PageStore;
use crate::reclaim::Cursor;
use crate::staged::{BlockId, Staged, Stamp};
use crate::store::{BLOCK_BYTES, FileHead, Table};
use crate::stripes::StripeTable;
use crate::tree::{Missing, Tree};

/// Tree of file heads: file id to head.
pub const HEADS: u8 = 1;
/// Tree of block maps: map, block, epoch to object id and content check; object 0 is a hole.
pub const BLOCKS: u8 = 2;
/// Tree of objects: object id to place and reference count.
pub const OBJECTS: u8 = 3;
/// Tree of work left: file id to what has to be reclaimed of it.
pub const RECLAIM: u8 = 4;
/// Tree of blocks whose newest content is lost: map, block, epoch if it is not 1, to nothing.
pub const LOST: u8 = 5;
/// Tree of change lists: map, epoch, block of each entry above a first layer, to nothing.
pub const CHANGES: u8 = 6;
/// Tree of layers: see `layers`.
pub const LAYERS: u8 = 7;
/// First tree of a [`Table`].
pub const FIRST_TABLE: u8 = 32;

/// What [`RECLAIM`] says of a file.
pub const RECLAIM_ALL: &[u8] = &[0];
/// Parts of the file were cut off and its head lists them: written by version 1 only.
pub const RECLAIM_TRIMS: &[u8] = &[1];

/// Where a block's content is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The object.
    pub object: ObjectId,
    /// Name of the content, compared with the object's own (R-INT-18).
    pub content: ContentCheck,
}

/// What the object table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Where it stands.
    pub place: Place,
    /// How many blocks refer to it.
    pub references: u32,
}

/// An object that is in an open or unwritten stripe.
pub struct Pending {
    /// Its content, to compare duplicates with.
    pub content: Buf,
    /// Duplicates found while it was pending whose mapping is not yet applied.
    pub duplicates: u32,
    /// Its own mapping is applied.
    pub applied: bool,
}

/// What a destaged block has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// All zero: a hole.
    Hole,
    /// A new object.
    New(Mapping, Place),
    /// An object that was there already.
    Shared(Mapping),
}

/// A destaged block whose mapping is to be applied.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Which block.
    pub id: BlockId,
    /// Stamp of the newest fragment in the content.
    pub newest: Stamp,
    /// What it has become.
    pub fresh: Fresh,
}

/// See the module's head.
pub struct State {
    pub pages: PageStore,
    pub trees: BTreeMap<u8, Tree>,
    pub files: Files,
    pub staged: Staged,
    pub stripes: StripeTable,
    pub fingerprints: FingerprintIndex,
    pub pending: FixedMap<ObjectId, Pending>,
    pub content_key: [u8; 32],
    pub layers: Layers,
    pub opening: u64,
    pub last_osn: Osn,
    pub last_file: u64,
    /// File ids through here are known to be given out whatever happens: the root or a record says so.
    pub ids_told: u64,
    pub last_object: u64,
    pub last_generation: u64,
    /// Journal sequence through which records are applied.
    pub applied_through: u64,
    /// How far the merge under way is (see `reclaim`).
    pub merge_at: Option<(Layer, Cursor)>,
    /// Mapping changes since the last checkpoint, for the repair scan.
    pub delta: DeltaLog,
    /// Blocks whose newest content was in a journal record that no leg holds whole any
    /// more. They are refused until something later writes them over or cuts them off; what
    /// is replayed from before the record is not their content.
    pub lost: BTreeSet<BlockId>,
    /// Objects that went, so that caches drop them.
    pub gone_objects: Vec<ObjectId>,
    /// Something has changed since the last checkpoint.
    pub changed: bool,
    /// Records come from the journal that was found at opening: part of their effects
    /// may be there already.
    pub replaying: bool,
    /// Through here the root that was opened has all data in stripes.
    pub settled_through: u64,
    /// Through here it has everything but data.
    pub redo_through: u64,
}

pub(crate) fn file_key(file: FileId) -> [u8; 8] {
    file.0.to_be_bytes()
}

pub(crate) fn block_key(id: BlockId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&id.map.0.to_be_bytes());
    key[8..16].copy_from_slice(&id.block.to_be_bytes());
    key[16..].copy_from_slice(&id.epoch.to_be_bytes());
    key
}

pub(crate) fn lost_key(id: BlockId) -> SmallVec<[u8; 20]> {
    // Version 1 knew no epochs.
    let len = if id.epoch == 1 { 16 } else { 20 };
    SmallVec::from_slice(&block_key(id)[..len])
}

/// The block that a key of the tree of lost blocks names.
pub(crate) fn lost_id(key: &[u8]) -> Option<BlockId> {
    let word = |at: usize| key.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let epoch = key.get(16..).and_then(|rest| rest.try_into().ok()).map_or(1, u32::from_be_bytes);
    Some(BlockId { map: FileId(word(0)?), block: word(8)?, epoch })
}

/// An entry of a block map: a mapping, or a hole that hides what lies below.
pub(crate) fn entry_value(mapping: Option<Mapping>) -> [u8; 24] {
    let mut value = [0; 24];
    if let Some(mapping) = mapping {
        value[..8].copy_from_slice(&mapping.object.0.to_le_bytes());
        value[8..].copy_from_slice(&mapping.content.0);
    }
    value
}

pub(crate) fn decode_entry(value: &[u8]) -> Option<Mapping> {
    let object = u64::from_le_bytes(value[..8].try_into().expect("a mapping has 24 bytes"));
    let content = ContentCheck(value[8..24].try_into().expect("a mapping has 24 bytes"));
    (object != 0).then_some(Mapping { object: ObjectId(object), content })
}

pub(crate) fn object_value(row: ObjectRow) -> [u8; PLACE_BYTES + 4] {
    let mut value = [0; PLACE_BYTES + 4];
    value[..PLACE_BYTES].copy_from_slice(&row.place.encode());
    value[PLACE_BYTES..].copy_from_slice(&row.references.to_le_bytes());
    value
}

pub(crate) fn decode_object(value: &[u8]) -> ObjectRow {
    let place = Place::decode(&value[..PLACE_BYTES]).expect("an object row holds a place");
    let references = u32::from_le_bytes(value[PLACE_BYTES..].try_into().expect("an object row ends in its count"));
    ObjectRow { place, references }
}

/// What a block adds to its file's content sum: depends on where and what, not on how it
/// is stored (R-CHK-06). Holes add nothing.
pub(crate) fn sum_term(key: &[u8; 32], block: u64, content: ContentCheck) -> u128 {
    let mut named = [0; 24];
    named[..8].copy_from_slice(&block.to_le_bytes());
    named[8..].copy_from_slice(&content.0);
    u128::from_le_bytes(content_check(key, &named).0)
}

impl State {
    pub(crate) fn tree(&self, number: u8) -> Tree {
        self.trees.get(&number).copied().unwrap_or(Tree::new(number))
    }

    pub(crate) fn put(&mut self, number: u8, key: &[u8], value: &[u8]) -> Result<(), Missing> {
        let mut tree = self.tree(number);
        tree.put(&mut self.pages, key, value)?;
        self.trees.insert(number, tree);
        Ok(())
    }

    pub(crate) fn remove(&mut self, number: u8, key: &[u8]) -> Result<bool, Missing> {
        let mut tree = self.tree(number);
        let removed = tree.remove(&mut self.pages, key)?;
        self.trees.insert(number, tree);
        Ok(removed)
    }

    /// Takes an entry out and leaves its page, were it empty; see [`State::prune`].
    pub(crate) fn clear(&mut self, number: u8, key: &[u8]) -> Result<(), Missing> {
        self.tree(number).clear(&mut self.pages, key)
    }

    /// Frees the page that would hold `key` if it is empty.
    pub(crate) fn prune(&mut self, number: u8, key: &[u8]) {
        let mut tree = self.tree(number);
        tree.prune(&mut self.pages, key);
        self.trees.insert(number, tree);
    }

    pub(crate) fn resident(&self, number: u8, key: &[u8]) -> Result<(), Missing> {
        self.tree(number).resident(&self.pages, key)
    }

    /// The next OSN.
    pub fn next_osn(&mut self) -> Osn {
        self.last_osn = self.last_osn.next();
        self.last_osn
    }

    /// A generation never used before.
    pub fn next_generation(&mut self) -> u64 {
        self.last_generation += 1;
        self.opening << 40 | self.last_generation
    }

    /// An object id never used before.
    pub fn next_object(&mut self) -> ObjectId {
        self.last_object += 1;
        ObjectId(self.opening << 40 | self.last_object)
    }

    /// The open file, its head read from the tree if need be. `None`: there is no such file.
    pub fn file(&mut self, file: FileId) -> Result<Option<&mut OpenFile>, Missing> {
        if !self.files.is_open(file) {
            let decode = |value: &[u8]| OpenFile::decode(file, value);
            let found = self.tree(HEADS).with(&self.pages, &file_key(file), decode)?;
            let Some(mut open) = found else { return Ok(None) };
            let (layer, trims) = (open.layer, open.take_old_trims());
            self.files.insert(file, open);
            if !trims.is_empty() {
                self.layers.change_trims(layer, |known| *known = Trims::of(trims));
                self.files.mark_dirty(file);
            }
        }
        Ok(self.files.get_mut(file))
    }

    /// Head of `file`.
    pub fn head(&mut self, file: FileId) -> Result<Option<FileHead>, Missing> {
        Ok(self.file(file)?.map(|open| open.head))
    }

    /// Row of `object`.
    pub fn object(&self, object: ObjectId) -> Result<Option<ObjectRow>, Missing> {
        self.tree(OBJECTS).with(&self.pages, &object.0.to_be_bytes(), decode_object)
    }

    fn put_object(&mut self, object: ObjectId, row: ObjectRow) {
        self.put(OBJECTS, &object.0.to_be_bytes(), &object_value(row)).expect("its path is resident");
    }

    /// One reference to `object` less; the last one frees it. Its path is resident.
    pub(crate) fn unreference(&mut self, mapping: Mapping, row: ObjectRow) {
        if row.references > 1 {
            self.put_object(mapping.object, ObjectRow { references: row.references - 1, ..row });
        } else {
            self.drop_object(mapping, row);
        }
    }

    fn drop_object(&mut self, mapping: Mapping, row: ObjectRow) {
        self.remove(OBJECTS, &mapping.object.0.to_be_bytes()).expect("its path is resident");
        self.stripes.sub_live(row.place.stripe, row.place.object_bytes());
        self.fingerprints.forget(mapping.content, mapping.object);
        self.gone_objects.push(mapping.object);
    }

    /// Applies the mapping of a destaged block. `Ok(false)`: the object it shares is
    /// gone; the block must be destaged again.
    pub fn apply_item(&mut self, item: &Item) -> Result<bool, Missing> {
        let id = item.id;
        let sight = self.sight(id)?;
        if let Fresh::New(mapping, _) | Fresh::Shared(mapping) = item.fresh {
            self.resident(OBJECTS, &mapping.object.0.to_be_bytes())?;
        }
        // From here on nothing is missing.
        let current = sight.visible && self.staged.holds(id, item.newest.sequence);
        if !self.take_reference(&item.fresh, current) {
            return Ok(false);
        }
        if current {
            let fresh = match item.fresh {
                Fresh::Hole => None,
                Fresh::New(mapping, _) | Fresh::Shared(mapping) => Some(mapping),
            };
            self.found_again(id);
            self.remap(id, &sight, fresh, item.newest.osn);
            self.layers.written(id.layer(), id.block);
        }
        self.staged.settle(id, item.newest.sequence);
        Ok(true)
    }

    /// Brings the object of `fresh` into the table with one more reference if `current`.
    /// False: it is to share an object that no longer exists.
    fn take_reference(&mut self, fresh: &Fresh, current: bool) -> bool {
        match *fresh {
            Fresh::Hole => true,
            Fresh::New(mapping, place) => {
                let duplicates = match self.pending.get_mut(&mapping.object) {
                    Some(pending) => {
                        pending.applied = true;
                        pending.duplicates
                    }
                    None => 0,
                };
                if current || duplicates > 0 {
                    self.put_object(mapping.object, ObjectRow { place, references: u32::from(current) });
                    self.stripes.add_live(place.stripe, place.object_bytes());
                    self.fingerprints.remember(mapping.content, mapping.object);
                }
                if duplicates == 0 {
                    self.pending.remove(&mapping.object);
                }
                true
            }
            Fresh::Shared(mapping) => {
                let row = self.object(mapping.object).expect("its path is resident");
                let last_duplicate = self.pending.get_mut(&mapping.object).is_some_and(|pending| {
                    pending.duplicates -= 1;
                    pending.duplicates == 0 && pending.applied
                });
                if last_duplicate {
                    self.pending.remove(&mapping.object);
                }
                let Some(row) = row else { return !current };
                match current {
                    true => self.put_object(mapping.object, ObjectRow { references: row.references + 1, ..row }),
                    false if row.references == 0 && last_duplicate => self.drop_object(mapping, row),
                    false => {}
                }
                true
            }
        }
    }

    /// The newest content of `id` is lost. It is refused until it is written over, also
    /// after the journal that shows the loss is trimmed.
    pub(crate) fn lose(&mut self, id: BlockId) -> Result<(), Missing> {
        self.put(LOST, &lost_key(id), &[])?;
        self.delta.row(LOST, &lost_key(id), Some(&[]));
        self.lost.insert(id);
        self.changed = true;
        Ok(())
    }

    /// Part of `id` was written, and the rest of it cannot be read and never will be: all
    /// of it is lost. What was staged through `newest` has nowhere to go.
    pub(crate) fn give_up(&mut self, id: BlockId, newest: Stamp) -> Result<(), Missing> {
        self.lose(id)?;
        self.staged.settle(id, newest.sequence);
        Ok(())
    }

    /// What was lost of `id` does not matter any more. Its path is resident.
    pub(crate) fn found_again(&mut self, id: BlockId) {
        if self.lost.remove(&id) {
            self.remove(LOST, &lost_key(id)).expect("its path is resident");
            self.delta.row(LOST, &lost_key(id), None);
        }
    }

    /// [`found_again`](State::found_again) will find its page.
    pub(crate) fn resident_if_lost(&self, id: BlockId) -> Result<(), Missing> {
        if self.lost.contains(&id) { self.resident(LOST, &lost_key(id)) } else { Ok(()) }
    }

    /// Lost blocks of `layer` from block `from` on.
    pub(crate) fn lost_from(&self, layer: Layer, from: u64) -> Vec<BlockId> {
        let range = BlockId { epoch: 0, ..layer.block(from) }..=Layer { epoch: u32::MAX, ..layer }.block(u64::MAX);
        self.lost.range(range).filter(|id| id.epoch == layer.epoch).copied().collect()
    }

    /// Up to `limit` lost blocks that the tree names, from `from` on.
    pub(crate) fn known_lost(&self, from: BlockId, limit: usize) -> Result<Vec<BlockId>, Missing> {
        let found = self.tree(LOST).scan(&self.pages, &lost_key(from), limit, |_| true)?;
        Ok(found.iter().filter_map(|(key, _)| lost_id(key)).collect())
    }

    /// Points the object table to where the cleaner put an object, if it still is where
    /// it was taken from.
    pub(crate) fn apply_move(&mut self, change: &Move) -> Result<(), Missing> {
        if let Some(row) = self.object(change.object)?.filter(|row| row.place == change.from) {
            self.put_object(change.object, ObjectRow { place: change.to, ..row });
            self.stripes.add_live(change.to.stripe, change.to.object_bytes());
            self.stripes.sub_live(change.from.stripe, change.from.object_bytes());
            self.changed = true;
        }
        Ok(())
    }

    /// Applies a stable write: stages it, and brings the head up to date. `Ok(None)`: the
    /// file is gone. Head before and after otherwise.
    pub(crate) fn apply_write(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        (at, stamp): (WallNanos, Stamp),
    ) -> Result<Option<(FileHead, FileHead)>, Missing> {
        let Some(open) = self.file(file)?.filter(|open| !open.frozen) else { return Ok(None) };
        let before = open.head;
        open.head.size_bytes = before.size_bytes.max(offset_bytes + data.len() as u64);
        open.head.modified = at;
        open.head.changed = at;
        let (after, layer) = (open.head, open.layer);
        self.files.mark_dirty(file);
        self.staged.write(layer, offset_bytes, data, stamp);
        self.changed = true;
        Ok(Some((before, after)))
    }

    /// Writes the heads that changed into their tree. `Missing`: load and call again.
    pub fn flush_heads(&mut self) -> Result<(), Missing> {
        while let Some(file) = self.files.first_dirty() {
            let value = self.files.get_mut(file).expect("a dirty file is open").encode();
            self.put(HEADS, &file_key(file), &value)?;
            self.delta.row(HEADS, &file_key(file), Some(&value));
            self.files.mark_clean(file);
        }
        Ok(())
    }

    /// Writes what changed of layers into their tree. `Missing`: load and call again.
    pub fn flush_layers(&mut self) -> Result<(), Missing> {
        while let Some((key, value)) = self.layers.first_dirty() {
            match &value {
                Some(value) => self.put(LAYERS, &key, value)?,
                None => drop(self.remove(LAYERS, &key)?),
            }
            self.delta.row(LAYERS, &key, value.as_deref());
            self.layers.mark_clean();
        }
        Ok(())
    }

    /// The trees that are not empty.
    pub fn roots(&self) -> Vec<Tree> {
        self.trees.values().filter(|tree| tree.root.0 != 0).copied().collect()
    }
}

/// Number of the tree of `table`.
pub(crate) fn table_tree(table: Table) -> u8 {
    FIRST_TABLE + table.0
}

/// A block of zeros.
pub static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// Room a block takes in a stripe at most.
pub const BLOCK_OBJECT_BYTES: u64 = BLOCK_BYTES + DESCRIPTOR_BYTES as u64;

/// A few keys or ids.
pub(crate) type Few<T> = SmallVec<[T; 8]>;
