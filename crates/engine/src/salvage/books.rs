//! Decides what the trees said, out of three sources (pure, nothing is read here).
//!
//! 1. Rows of pages that the root leads to: right.
//! 2. The log of mapping deltas that the root names, for keys in gaps. What comes last in it
//!    is right; but behind an object of it that is lost, what came before may be out of date.
//! 3. For blocks in gaps, when the log is not whole: the newest object that says it was
//!    written for the block; for other rows, pages that may be out of date. A guess.
//!
//! **Nothing old passes for the present.** If the log is whole and all of it was read, 1 and 2
//! say everything. If not, a file is believed only if its head is right and the sum over its
//! blocks' contents is the one in the head (R-CHK-06): a guess that is wrong in one block, or
//! lacks one, does not add up. Of a file that does not, every block that is not from source 1
//! is refused.

use std::collections::{BTreeMap, BTreeSet};

use base::{ContentCheck, FileId, ObjectId};

use super::leaves::{Gap, Rows, is_in, touches};
use super::survey::Survey;
use crate::delta::Entry;
use crate::files::OpenFile;
use crate::layers::{Layer, Layers, Viewer};
use crate::maps::decode_block;
use crate::staged::BlockId;
use crate::state::{
    BLOCKS, FIRST_TABLE, HEADS, LAYERS, LOST, Mapping, OBJECTS, RECLAIM, block_key, decode_entry, file_key, lost_id,
    sum_term, table_tree,
};
use crate::store::{BLOCK_BYTES, Change, FileHead};

/// Entries of block maps.
pub type Blocks = BTreeMap<BlockId, Option<Mapping>>;
/// Rows of the datastore's tables by tree.
pub type Tables = BTreeMap<u8, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The log as it was read, oldest first; `None` for an object that is lost.
#[derive(Debug, Default)]
pub struct Log {
    /// Its objects.
    pub objects: Vec<Option<Vec<Entry>>>,
    /// Nothing that holds was let go.
    pub is_whole: bool,
}

impl Log {
    /// Nothing is missing.
    pub fn says_all(&self) -> bool {
        self.is_whole && self.objects.iter().all(Option::is_some)
    }
}

/// A row as the log tells it, `None` if it is gone; and whether nothing lost came after it.
type ToldRow = (Option<Vec<u8>>, bool);

/// What the log says in the end.
#[derive(Default)]
struct Told {
    rows: BTreeMap<(u8, Vec<u8>), ToldRow>,
    blocks: BTreeMap<BlockId, ObjectId>,
}

impl Told {
    fn of(log: &Log) -> Told {
        let mut told = Told::default();
        let last_lost = log.objects.iter().rposition(Option::is_none);
        for (at, entries) in log.objects.iter().enumerate() {
            let is_last = last_lost.is_none_or(|lost| at > lost);
            entries.iter().flatten().for_each(|entry| told.take(entry, is_last));
        }
        told
    }

    fn take(&mut self, entry: &Entry, is_last: bool) {
        match entry {
            Entry::Run { first, object, count, .. } => {
                for at in 0..u64::from(*count) {
                    let object = ObjectId(if object.0 == 0 { 0 } else { object.0 + at });
                    self.blocks.insert(BlockId { block: first.block + at, ..*first }, object);
                }
            }
            Entry::Row(tree, key, value) => drop(self.rows.insert((*tree, key.clone()), (value.clone(), is_last))),
            Entry::Cut { layer, from, to, .. } => {
                let range = BlockId { epoch: 0, ..layer.block(*from) }..BlockId { epoch: 0, ..layer.block(*to) };
                let cut: Vec<BlockId> =
                    self.blocks.range(range).map(|(id, _)| *id).filter(|id| id.epoch == layer.epoch).collect();
                self.blocks.extend(cut.into_iter().map(|id| (id, ObjectId(0))));
            }
            Entry::Change(_, change) => self.take_change(change, is_last),
        }
    }

    fn take_change(&mut self, change: &Change, is_last: bool) {
        let mut row = |tree, key: &[u8], value| drop(self.rows.insert((tree, key.to_vec()), (value, is_last)));
        match change {
            Change::DropFile { file } => row(HEADS, &file_key(*file), None),
            Change::Put { table, key, value } => row(table_tree(*table), key, Some(value.clone())),
            Change::Delete { table, key } => row(table_tree(*table), key, None),
            // The rows that follow from the others are in the log themselves.
            _ => {}
        }
    }
}

/// A file or snapshot whose state is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As it will be stored.
    pub open: OpenFile,
    /// It is as it was; otherwise its size is a guess.
    pub is_right: bool,
}

/// What the trees will be.
#[derive(Debug, Default)]
pub struct Books {
    /// Heads.
    pub heads: BTreeMap<FileId, Head>,
    /// Entries of block maps, those only that somebody sees.
    pub blocks: Blocks,
    /// Layers, without work left to do.
    pub layers: Layers,
    /// Blocks that are refused.
    pub lost: BTreeSet<BlockId>,
    /// The datastore's rows.
    pub tables: Tables,
    /// Tables of which rows may be missing.
    pub tables_incomplete: BTreeSet<u8>,
    /// Heads may be missing: some files may be gone without a trace.
    pub heads_incomplete: bool,
}

/// All that is known.
pub struct Sources<'a> {
    /// By tree.
    pub trees: &'a BTreeMap<u8, Rows>,
    /// The log.
    pub log: &'a Log,
    /// The drives.
    pub survey: &'a Survey,
    /// Key of content checks.
    pub content_key: [u8; 32],
}

impl Sources<'_> {
    fn gaps(&self, tree: u8) -> &[Gap] {
        self.trees.get(&tree).map_or(&[], |rows| &rows.gaps)
    }

    /// Whether nothing tells of some rows in the gaps of a tree.
    fn lacks(&self, tree: u8) -> bool {
        !self.gaps(tree).is_empty() && !self.log.says_all()
    }

    /// All rows of a tree, each with whether it is sure to be right.
    fn rows(&self, tree: u8, told: &Told) -> BTreeMap<Vec<u8>, (Vec<u8>, bool)> {
        let mut all = BTreeMap::new();
        let Some(rows) = self.trees.get(&tree) else { return all };
        if !self.log.says_all() {
            all.extend(rows.unproven.iter().map(|(key, value)| (key.clone(), (value.clone(), false))));
        }
        let of_tree = told.rows.range((tree, Vec::new())..(tree + 1, Vec::new()));
        for ((_, key), (value, is_last)) in of_tree.filter(|((_, key), _)| is_in(&rows.gaps, key)) {
            match value {
                Some(value) => drop(all.insert(key.clone(), (value.clone(), *is_last))),
                None => drop(all.remove(key)),
            }
        }
        all.extend(rows.rows.iter().map(|(key, value)| (key.clone(), (value.clone(), true))));
        all
    }
}

/// Decides.
pub fn judge(sources: &Sources<'_>) -> Books {
    let told = Told::of(sources.log);
    let mut books = Books::default();
    books.take_tables(sources, &told);
    books.take_layers(sources, &told);
    books.take_heads(sources, &told);
    books.take_blocks(sources, &told);
    books.guess_heads(sources);
    books.cut_and_hide();
    for (key, _) in sources.rows(LOST, &told) {
        books.lost.extend(lost_id(&key));
    }
    books.doubt(sources);
    books.miss_objects(sources);
    books.keep_what_is_seen();
    books.add_up(&sources.content_key);
    books
}

impl Books {
    fn take_tables(&mut self, sources: &Sources<'_>, told: &Told) {
        for &tree in sources.trees.keys().filter(|tree| **tree >= FIRST_TABLE) {
            let rows = sources.rows(tree, told).into_iter().map(|(key, (value, _))| (key, value));
            self.tables.insert(tree, rows.collect());
            if sources.lacks(tree) {
                self.tables_incomplete.insert(tree);
            }
        }
    }

    fn take_layers(&mut self, sources: &Sources<'_>, told: &Told) {
        for (key, (value, _)) in sources.rows(LAYERS, told) {
            // A row that is not one is left out; what depends on it does not add up.
            let _ = self.layers.load(&key, &value);
        }
    }

    fn take_heads(&mut self, sources: &Sources<'_>, told: &Told) {
        for (key, (value, is_right)) in sources.rows(HEADS, told) {
            let Ok(file) = <[u8; 8]>::try_from(&key[..]).map(|key| FileId(u64::from_be_bytes(key))) else { continue };
            self.heads.insert(file, Head { open: OpenFile::decode(file, &value), is_right });
        }
        self.heads_incomplete = sources.lacks(HEADS);
    }

    fn take_blocks(&mut self, sources: &Sources<'_>, told: &Told) {
        let Some(rows) = sources.trees.get(&BLOCKS) else { return };
        if !sources.log.says_all() {
            self.guess_blocks(sources, rows);
        }
        let content = |object: ObjectId| {
            sources.survey.objects.get(&object).map_or(ContentCheck::default(), |found| found.content)
        };
        for (&id, &object) in &told.blocks {
            if is_in(&rows.gaps, &block_key(id)) {
                let mapping = (object.0 != 0).then(|| Mapping { object, content: content(object) });
                self.blocks.insert(id, mapping);
            }
        }
        for (key, value) in rows.rows.iter().filter(|(key, _)| key.len() == 20) {
            self.blocks.insert(decode_block(key), decode_entry(value));
        }
    }

    /// By what the objects say of themselves, unless the object table knows better.
    fn guess_blocks(&mut self, sources: &Sources<'_>, rows: &Rows) {
        let objects = sources.trees.get(&OBJECTS);
        let is_gone = |object: &ObjectId| {
            let key = object.0.to_be_bytes();
            objects.is_some_and(|rows| !rows.rows.contains_key(&key[..]) && !is_in(&rows.gaps, &key))
        };
        let mut newest: BTreeMap<BlockId, u64> = BTreeMap::new();
        for (&object, found) in sources.survey.objects.iter().filter(|(object, _)| !is_gone(object)) {
            let is_newer = newest.get(&found.first).is_none_or(|known| *known <= found.osn);
            if is_newer && is_in(&rows.gaps, &block_key(found.first)) {
                newest.insert(found.first, found.osn);
                self.blocks.insert(found.first, Some(Mapping { object, content: found.content }));
            }
        }
        for (key, value) in rows.unproven.iter().filter(|(key, _)| key.len() == 20) {
            self.blocks.insert(decode_block(key), decode_entry(value));
        }
    }

    /// A map with blocks whose head nobody tells of, and that was not being removed, was a
    /// file's. How long it was, is known to a block.
    fn guess_heads(&mut self, sources: &Sources<'_>) {
        let known: BTreeSet<FileId> = self.heads.values().map(|head| head.open.layer.map).collect();
        let removed = |map: FileId| {
            let reclaim = sources.trees.get(&RECLAIM);
            reclaim.is_some_and(|rows| rows.rows.contains_key(&file_key(map)[..]))
        };
        let mut ends: BTreeMap<FileId, u64> = BTreeMap::new();
        for id in self.blocks.keys().filter(|id| id.epoch == 1 && !known.contains(&id.map)) {
            let is_unknown = sources.lacks(HEADS) && is_in(sources.gaps(HEADS), &file_key(id.map));
            if is_unknown && !removed(id.map) && !self.layers.has_views(id.map) {
                ends.insert(id.map, (id.block + 1) * BLOCK_BYTES);
            }
        }
        let sizes: Vec<(FileId, u64)> = self
            .heads
            .iter()
            .filter(|(_, head)| !head.is_right)
            .filter_map(|(file, head)| {
                Some((*file, (self.seen_from(head.open.layer).last_key_value()?.0 + 1) * BLOCK_BYTES))
            })
            .collect();
        for (file, end) in sizes {
            if let Some(head) = self.heads.get_mut(&file) {
                head.open.head.size_bytes = head.open.head.size_bytes.max(end);
            }
        }
        for (file, size_bytes) in ends {
            let head = FileHead { size_bytes, ..FileHead::default() };
            let open = OpenFile::at(head, Layer::first(file), false);
            self.heads.insert(file, Head { open, is_right: false });
        }
    }

    /// What was cut off and not yet given back goes; where something shows through, a hole
    /// hides it.
    fn cut_and_hide(&mut self) {
        while let Some((layer, (from, to))) = self.layers.first_trim() {
            let range = BlockId { epoch: 0, ..layer.block(from) }..BlockId { epoch: 0, ..layer.block(to) };
            let mut below = BTreeSet::new();
            let mut at = Some(layer).filter(|layer| self.layers.is_tracked(*layer));
            while let Some(here) = at {
                let all =
                    BlockId { map: here.map, block: from, epoch: 0 }..BlockId { map: here.map, block: to, epoch: 0 };
                below.extend(self.blocks.range(all).map(|(id, _)| id.block));
                at = self.layers.parent(here.map);
            }
            below.retain(|block| self.hides(layer.block(*block)));
            let here: Vec<BlockId> =
                self.blocks.range(range).map(|(id, _)| *id).filter(|id| id.epoch == layer.epoch).collect();
            here.iter().for_each(|id| _ = self.blocks.remove(id));
            self.blocks.extend(below.into_iter().map(|block| (layer.block(block), None)));
            self.layers.change_trims(layer, |trims| trims.reclaimed((from, to), to));
        }
    }

    /// Whether something would show through where `id` has no entry: content, or a refusal.
    fn hides(&self, id: BlockId) -> bool {
        let mut at = id;
        loop {
            let lower = BlockId { epoch: 0, ..at }..at;
            let entry = self.blocks.range(lower.clone()).next_back();
            let lost = self.lost.range(lower).next_back().map(|id| id.epoch);
            if lost.is_some() && lost >= entry.map(|(id, _)| id.epoch) {
                return true;
            }
            if let Some((_, mapping)) = entry {
                return mapping.is_some();
            }
            match self.layers.parent(at.map) {
                // The parent's own layer is looked from, so it counts.
                Some(parent) => at = BlockId { epoch: parent.epoch.saturating_add(1), ..parent.block(id.block) },
                None => return false,
            }
        }
    }

    /// The entry that `layer` shows of a block, and where it stands.
    fn seen(&self, layer: Layer, block: u64) -> Option<(BlockId, Option<Mapping>)> {
        let mut at = Some(layer);
        while let Some(here) = at {
            let through = BlockId { epoch: 0, ..here.block(block) }..=here.block(block);
            if let Some((id, mapping)) = self.blocks.range(through).next_back() {
                return Some((*id, *mapping));
            }
            at = self.layers.parent(here.map);
        }
        None
    }

    /// All blocks that a layer shows.
    fn seen_from(&self, layer: Layer) -> BTreeMap<u64, Mapping> {
        let mut blocks: BTreeSet<u64> = BTreeSet::new();
        let mut at = Some(layer);
        while let Some(here) = at {
            let all = BlockId { map: here.map, block: 0, epoch: 0 }..=Layer { epoch: u32::MAX, ..here }.block(u64::MAX);
            blocks.extend(self.blocks.range(all).map(|(id, _)| id.block));
            at = self.layers.parent(here.map);
        }
        let seen = blocks.into_iter().filter_map(|block| Some((block, self.seen(layer, block)?.1?)));
        seen.collect()
    }

    /// Refuses what is not proven: see the module's head.
    fn doubt(&mut self, sources: &Sources<'_>) {
        let layers_lack = sources.lacks(LAYERS);
        if sources.log.says_all() || !(sources.lacks(BLOCKS) || layers_lack || sources.lacks(HEADS)) {
            return;
        }
        let gaps = sources.gaps(BLOCKS);
        let mut refused = Vec::new();
        for head in self.heads.values() {
            let layer = head.open.layer;
            let mut maps = Vec::new();
            let mut at = Some(layer);
            while let Some(here) = at {
                maps.push(here.map);
                at = self.layers.parent(here.map);
            }
            let in_gap = maps.iter().any(|map| touches(gaps, &map.0.to_be_bytes()));
            if !(in_gap || layers_lack) || (head.is_right && self.adds_up(&head.open, &sources.content_key)) {
                continue;
            }
            for block in 0..head.open.head.size_bytes.div_ceil(BLOCK_BYTES) {
                let unsure = |map: &FileId| is_in_block(gaps, *map, block);
                let own = BlockId { epoch: 0, ..layer.block(block) }..=layer.block(block);
                let own_is_known = self.blocks.range(own).next().is_some() && !unsure(&layer.map);
                if maps.iter().any(unsure) || (layers_lack && !own_is_known) {
                    refused.push(layer.block(block));
                }
            }
        }
        self.lost.extend(refused);
    }

    fn adds_up(&self, open: &OpenFile, key: &[u8; 32]) -> bool {
        let seen = self.seen_from(open.layer);
        let sum =
            seen.iter().fold(0u128, |sum, (block, mapping)| sum.wrapping_add(sum_term(key, *block, mapping.content)));
        (sum, seen.len() as u64 * BLOCK_BYTES) == (open.head.content_sum, open.head.used_bytes)
    }

    /// Blocks whose object is gone are refused for everybody who sees the entry.
    fn miss_objects(&mut self, sources: &Sources<'_>) {
        let is_there = |mapping: &Mapping| {
            sources.survey.objects.get(&mapping.object).is_some_and(|found| found.content == mapping.content)
        };
        let missing: Vec<BlockId> = self
            .blocks
            .iter()
            .filter(|(_, mapping)| mapping.as_ref().is_some_and(|mapping| !is_there(mapping)))
            .map(|(id, _)| *id)
            .collect();
        for id in missing {
            self.blocks.remove(&id);
            self.lost.insert(id);
        }
    }

    /// Epochs of each map that somebody looks from.
    fn views(&self) -> BTreeMap<FileId, BTreeSet<u32>> {
        let mut views: BTreeMap<FileId, BTreeSet<u32>> = BTreeMap::new();
        let heads = self.heads.values().map(|head| head.open.layer);
        for layer in heads.chain(self.layers.all_views().map(|(layer, _)| *layer)) {
            views.entry(layer.map).or_default().insert(layer.epoch);
        }
        views
    }

    /// Forgets views of nobody, entries that nobody sees, and holes with nothing below.
    fn keep_what_is_seen(&mut self) {
        self.mend_views();
        let views = self.views();
        let is_seen = |id: &BlockId, next: Option<u32>| {
            let epochs = views.get(&id.map);
            let until = next.unwrap_or(u32::MAX);
            epochs.is_some_and(|epochs| {
                epochs.range(id.epoch..).next().is_some_and(|view| *view < until || next.is_none())
            })
        };
        let ids: Vec<BlockId> =
            self.blocks.keys().chain(&self.lost).copied().collect::<BTreeSet<_>>().into_iter().collect();
        for (at, id) in ids.iter().enumerate() {
            let above = ids.get(at + 1).filter(|next| (next.map, next.block) == (id.map, id.block));
            if !is_seen(id, above.map(|next| next.epoch)) {
                self.blocks.remove(id);
                self.lost.remove(id);
            }
        }
        let holes: Vec<BlockId> =
            self.blocks.iter().filter(|(_, mapping)| mapping.is_none()).map(|(id, _)| *id).collect();
        for id in holes {
            if !self.layers.is_tracked(id.layer()) || !self.hides(id) {
                self.blocks.remove(&id);
            }
        }
    }

    /// Views are those of the files there are, and of maps that start there.
    fn mend_views(&mut self) {
        while let Some(gone) = self.layers.first_merge() {
            self.layers.merged(gone);
        }
        let views: Vec<(Layer, Viewer)> = self.layers.all_views().copied().collect();
        for (layer, viewer) in views {
            let looks = match viewer {
                Viewer::File(file) => self.heads.get(&file).is_some_and(|head| head.open.layer == layer),
                Viewer::Map(_) => true,
            };
            if !looks {
                self.layers.remove_view(layer, viewer);
            }
        }
        for (file, head) in &self.heads {
            let layer = head.open.layer;
            let is_plain = layer == Layer::first(*file) && !head.open.frozen && !self.layers.has_views(layer.map);
            if !is_plain {
                self.layers.add_view(layer, Viewer::File(*file));
            }
        }
        // Maps that nobody looks at any more, and what they started from.
        loop {
            let unseen = self.layers.all_views().find_map(|(layer, viewer)| match viewer {
                Viewer::Map(map) if !self.layers.has_views(*map) => Some((*layer, *viewer, *map)),
                _ => None,
            });
            let Some((layer, viewer, map)) = unseen else { return };
            self.layers.remove_view(layer, viewer);
            self.layers.set_parent(map, None);
        }
    }

    /// Space and sums of what each file shows now.
    fn add_up(&mut self, key: &[u8; 32]) {
        let counted: Vec<(FileId, u64, u128)> = self
            .heads
            .iter()
            .map(|(file, head)| {
                let seen = self.seen_from(head.open.layer);
                let sum = seen
                    .iter()
                    .fold(0u128, |sum, (block, mapping)| sum.wrapping_add(sum_term(key, *block, mapping.content)));
                (*file, seen.len() as u64 * BLOCK_BYTES, sum)
            })
            .collect();
        for (file, used_bytes, content_sum) in counted {
            if let Some(head) = self.heads.get_mut(&file) {
                head.open.head.used_bytes = used_bytes;
                head.open.head.content_sum = content_sum;
            }
        }
    }

    /// Blocks that the file or snapshot cannot be read at, in order.
    pub fn refused(&self, open: &OpenFile) -> Vec<u64> {
        let mut maps = Vec::new();
        let mut at = Some(open.layer);
        while let Some(here) = at {
            maps.push(here);
            at = self.layers.parent(here.map);
        }
        let end = open.head.size_bytes.div_ceil(BLOCK_BYTES);
        let mut blocks = BTreeSet::new();
        for here in &maps {
            let all = BlockId { map: here.map, block: 0, epoch: 0 }..BlockId { map: here.map, block: end, epoch: 0 };
            let lost = self.lost.range(all).filter(|id| id.epoch <= here.epoch);
            blocks.extend(lost.map(|id| id.block));
        }
        blocks.into_iter().filter(|block| self.is_refused(&maps, *block)).collect()
    }

    fn is_refused(&self, maps: &[Layer], block: u64) -> bool {
        for here in maps {
            let through = BlockId { epoch: 0, ..here.block(block) }..=here.block(block);
            let entry = self.blocks.range(through.clone()).next_back().map(|(id, _)| id.epoch);
            let lost = self.lost.range(through).next_back().map(|id| id.epoch);
            match (entry, lost) {
                (None, None) => {}
                (entry, lost) => return lost >= entry && lost.is_some(),
            }
        }
        false
    }
}

/// Whether entries of a block may have been in a gap.
fn is_in_block(gaps: &[Gap], map: FileId, block: u64) -> bool {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&map.0.to_be_bytes());
    prefix[8..].copy_from_slice(&block.to_be_bytes());
    touches(gaps, &prefix)
}
