//! Layers: how snapshots and clones share the blocks of a file.
//!
//! A *map* holds blocks under (map, block, epoch). A file starts with a map of its own
//! and writes at its first epoch. A snapshot fixes the epoch that was written to; the file
//! goes on at the next one. So a (map, epoch) is a *layer*, and who looks at the map from a
//! layer sees of each block the entry with the greatest epoch not above: one search,
//! however many snapshots there are. A clone, or a file that was rolled back, has a new map
//! whose *parent* is the layer it started from: what the map lacks is looked for there, so
//! each clone of a clone adds one search for what it has not written itself.
//!
//! ```text
//!   map 7    epoch 1 ──► 2 ──► 3 ──► 4          block 5 at epochs 1 and 3:
//!               │        │           │          snapshots 20 and 21 see the entry of 1,
//!            snap 20   snap 21    file 7        file 7 and clone 30 see that of 3
//!                              └─► map 30 (clone of the snapshot at 3)
//! ```
//!
//! * An entry without an object is a hole that hides what lies below.
//! * A *view* is a layer that somebody looks from: a file, a snapshot, or a map that started
//!   there. Between two views that follow each other in a map, a block needs one entry;
//!   older ones there are seen by nobody. A new entry removes those at once. When a view
//!   goes, its layers fall together with the next view's, and the entries of that view's
//!   change list say which older ones nobody sees any more: the cost follows what changed.
//! * The *change list* (tree `CHANGES`) names each entry by (map, epoch, block), but not those of
//!   a first layer without a parent: there is nothing below that they could differ from.
//! * *Cut ranges* belong to a layer and are worked off later, also after it was frozen.
//! * The *history* says which layer a file wrote to before some record, as long as records
//!   from before may be replayed: their data goes where it went the first time.
//!
//! All of this but blocks and change lists is in memory, about 50 bytes for each file of
//! each snapshot, and in one tree, written with the checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;
use smallvec::SmallVec;

use crate::format::{FormatError, Take};
use crate::staged::BlockId;

/// Ranges cut off and not yet reclaimed that a layer lists before the next block written
/// among them, and the next cut, wait for the reclaimer. What it can list at all is bounded
/// by the longest value of a tree ([`crate::store::VALUE_BYTES_MAX`]): 75.
const TRIMS_MAX: usize = 60;

/// A state of a map: what is there through an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// The map.
    pub map: FileId,
    /// Entries of this epoch and before belong to it.
    pub epoch: u32,
}

impl Layer {
    /// The layer a new file starts with.
    pub const fn first(map: FileId) -> Layer {
        Layer { map, epoch: 1 }
    }

    /// Block `block` in this layer.
    pub fn block(self, block: u64) -> BlockId {
        BlockId { map: self.map, block, epoch: self.epoch }
    }
}

/// Who looks from a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Viewer {
    /// A file or a snapshot of one.
    File(FileId),
    /// A map that started there.
    Map(FileId),
}

impl Viewer {
    const FIRST: Viewer = Viewer::File(FileId(0));

    fn parts(self) -> (u8, FileId) {
        match self {
            Viewer::File(file) => (0, file),
            Viewer::Map(map) => (1, map),
        }
    }
}

/// Blocks cut off and not yet reclaimed: from, and the first behind.
pub type Trim = (u64, u64);

/// What was cut off a layer and is not yet reclaimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trims(SmallVec<[Trim; 1]>);

impl Trims {
    /// Whether `block` was cut off and not written since: it reads as zeros.
    pub fn is_cut(&self, block: u64) -> bool {
        self.0.iter().any(|&(from, to)| from <= block && block < to)
    }

    /// Blocks from `from` up to `to` are cut off; says whether there are any.
    pub fn cut(&mut self, from: u64, to: u64) -> bool {
        if from >= to {
            return false;
        }
        let (mut first, mut last) = (from, to);
        // Known ranges never touch each other, so one pass finds all that the new one joins.
        self.0.retain(|&mut (start, end)| {
            let touches = start <= last && first <= end;
            if touches {
                (first, last) = (first.min(start), last.max(end));
            }
            !touches
        });
        self.0.push((first, last));
        true
    }

    /// `block` holds something again.
    pub fn written(&mut self, block: u64) {
        let Some(at) = self.0.iter().position(|&(from, to)| from <= block && block < to) else { return };
        let (from, to) = self.0.remove(at);
        self.0.extend([(from, block), (block + 1, to)].into_iter().filter(|(from, to)| from < to));
    }

    /// Whether so many ranges wait that what may add one must wait for the reclaimer.
    pub fn is_crowded(&self) -> bool {
        self.0.len() > TRIMS_MAX
    }

    /// A range to reclaim.
    pub fn first_trim(&self) -> Option<Trim> {
        self.0.first().copied()
    }

    /// Blocks from the start of `trim` up to `done` are reclaimed.
    pub fn reclaimed(&mut self, trim: Trim, done: u64) {
        if let Some(at) = self.0.iter().position(|&known| known == trim) {
            if done >= trim.1 {
                self.0.remove(at);
            } else {
                self.0[at].0 = done;
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(from, to)| [from.to_le_bytes(), to.to_le_bytes()]).flatten().collect()
    }

    fn decode(value: &[u8]) -> Result<Trims, FormatError> {
        let mut take = Take(value);
        let mut trims = Trims::default();
        while !take.0.is_empty() {
            trims.0.push((take.u64()?, take.u64()?));
        }
        Ok(trims)
    }

    /// Ranges of before.
    pub fn of(ranges: Vec<Trim>) -> Trims {
        Trims(ranges.into())
    }
}

/// A row of the tree of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    View(Layer, Viewer),
    Parent(FileId),
    Trims(Layer),
    History(FileId, u64),
    Merge(Layer),
}

fn row_key(kind: u8, words: &[u64]) -> Vec<u8> {
    let mut key = vec![kind];
    words.iter().for_each(|word| key.extend_from_slice(&word.to_be_bytes()));
    key
}

impl Row {
    fn key(self) -> Vec<u8> {
        match self {
            Row::View(layer, viewer) => {
                let (kind, id) = viewer.parts();
                row_key(1, &[layer.map.0, u64::from(layer.epoch), u64::from(kind), id.0])
            }
            Row::Parent(map) => row_key(2, &[map.0]),
            Row::Trims(layer) => row_key(3, &[layer.map.0, u64::from(layer.epoch)]),
            Row::History(file, until) => row_key(4, &[file.0, until]),
            Row::Merge(layer) => row_key(5, &[layer.map.0, u64::from(layer.epoch)]),
        }
    }
}

/// What is known of layers. See the module's head.
#[derive(Debug, Default)]
pub struct Layers {
    views: BTreeSet<(Layer, Viewer)>,
    parents: BTreeMap<FileId, Layer>,
    trims: BTreeMap<Layer, Trims>,
    history: BTreeMap<(FileId, u64), Layer>,
    merges: BTreeSet<Layer>,
    dirty: BTreeSet<Row>,
}

impl Layers {
    /// Somebody looks from `layer` now.
    pub fn add_view(&mut self, layer: Layer, viewer: Viewer) {
        self.views.insert((layer, viewer));
        self.dirty.insert(Row::View(layer, viewer));
    }

    /// Somebody does not look from `layer` any more.
    pub fn remove_view(&mut self, layer: Layer, viewer: Viewer) {
        self.views.remove(&(layer, viewer));
        self.dirty.insert(Row::View(layer, viewer));
    }

    /// Whether the map has views; a plain file's has none.
    pub fn has_views(&self, map: FileId) -> bool {
        self.view_from(Layer { map, epoch: 0 }).is_some()
    }

    /// Whether anybody looks from exactly this layer.
    pub fn is_viewed(&self, layer: Layer) -> bool {
        self.view_from(layer) == Some(layer.epoch)
    }

    /// The first view of the map at or above the layer.
    pub fn view_from(&self, layer: Layer) -> Option<u32> {
        let (found, _) = self.views.range((layer, Viewer::FIRST)..).next()?;
        (found.map == layer.map).then_some(found.epoch)
    }

    /// The last view of the map below the layer.
    pub fn view_below(&self, layer: Layer) -> Option<u32> {
        let (found, _) = self.views.range(..(layer, Viewer::FIRST)).next_back()?;
        (found.map == layer.map).then_some(found.epoch)
    }

    /// Who looks at the map from `layer` or later, but before epoch `until`.
    pub fn viewers(&self, layer: Layer, until: u32) -> impl Iterator<Item = Viewer> {
        let end = Layer { epoch: until, ..layer };
        let found = (layer < end).then(|| self.views.range((layer, Viewer::FIRST)..(end, Viewer::FIRST)));
        found.into_iter().flatten().map(|(_, viewer)| *viewer)
    }

    /// Maps with views, and the layers that are looked from, in order.
    pub fn all_views(&self) -> impl Iterator<Item = &(Layer, Viewer)> {
        self.views.iter()
    }

    /// Where the map started from.
    pub fn parent(&self, map: FileId) -> Option<Layer> {
        self.parents.get(&map).copied()
    }

    /// The map starts from `parent`, or is gone.
    pub fn set_parent(&mut self, map: FileId, parent: Option<Layer>) {
        match parent {
            Some(parent) => drop(self.parents.insert(map, parent)),
            None => drop(self.parents.remove(&map)),
        }
        self.dirty.insert(Row::Parent(map));
    }

    /// Whether the change list names the entries of `layer`.
    pub fn is_tracked(&self, layer: Layer) -> bool {
        layer.epoch > 1 || self.parents.contains_key(&layer.map)
    }

    /// What was cut off `layer`.
    pub fn trims(&self, layer: Layer) -> Option<&Trims> {
        self.trims.get(&layer)
    }

    /// The layers of `map` within `epochs` with `block` cut off, newest first.
    pub fn cuts_of(&self, map: FileId, block: u64, epochs: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = u32> {
        let range = Layer { map, epoch: *epochs.start() }..=Layer { map, epoch: *epochs.end() };
        let found = self.trims.range(range).rev().filter(move |(_, trims)| trims.is_cut(block));
        found.map(|(layer, _)| layer.epoch)
    }

    /// Cut ranges of the layers of `map` within `epochs`.
    pub fn trims_between(&self, map: FileId, epochs: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = Trim> {
        let range = Layer { map, epoch: *epochs.start() }..=Layer { map, epoch: *epochs.end() };
        self.trims.range(range).flat_map(|(_, trims)| trims.0.iter().copied())
    }

    /// A layer with cut ranges, and one of them.
    pub fn first_trim(&self) -> Option<(Layer, Trim)> {
        self.trims.iter().find_map(|(layer, trims)| Some((*layer, *trims.0.first()?)))
    }

    /// Changes what was cut off `layer`.
    pub fn change_trims<T>(&mut self, layer: Layer, change: impl FnOnce(&mut Trims) -> T) -> T {
        let trims = self.trims.entry(layer).or_default();
        let result = change(trims);
        if trims.0.is_empty() {
            self.trims.remove(&layer);
        }
        self.dirty.insert(Row::Trims(layer));
        result
    }

    /// `block` of `layer` holds something again.
    pub fn written(&mut self, layer: Layer, block: u64) {
        if self.trims.get(&layer).is_some_and(|trims| trims.is_cut(block)) {
            self.change_trims(layer, |trims| trims.written(block));
        }
    }

    /// Forgets the cut ranges of the layers of `map` within `epochs`: nobody sees them.
    pub fn drop_trims(&mut self, map: FileId, epochs: std::ops::RangeInclusive<u32>) {
        let range = Layer { map, epoch: *epochs.start() }..=Layer { map, epoch: *epochs.end() };
        let gone: Vec<Layer> = self.trims.range(range).map(|(layer, _)| *layer).collect();
        for layer in gone {
            self.trims.remove(&layer);
            self.dirty.insert(Row::Trims(layer));
        }
    }

    /// Before the record `until`, `file` wrote to `layer`.
    pub fn remember(&mut self, file: FileId, until: u64, layer: Layer) {
        // Of two in one record the first says where earlier writes went.
        self.history.entry((file, until)).or_insert(layer);
        self.dirty.insert(Row::History(file, until));
    }

    /// The layer that `file` wrote to with the record `sequence`, if it was another than now.
    pub fn layer_then(&self, file: FileId, sequence: u64) -> Option<Layer> {
        let after = (file, sequence + 1)..=(file, u64::MAX);
        self.history.range(after).next().map(|(_, layer)| *layer)
    }

    /// No record through `through` will be replayed any more.
    pub fn forget_history(&mut self, through: u64) {
        let dirty = &mut self.dirty;
        self.history.retain(|&(file, until), _| {
            let needed = until > through;
            if !needed {
                dirty.insert(Row::History(file, until));
            }
            needed
        });
    }

    /// The view at `layer` went: its layers are to be brought together with the next view's.
    pub fn want_merge(&mut self, layer: Layer) {
        self.merges.insert(layer);
        self.dirty.insert(Row::Merge(layer));
    }

    /// That is done.
    pub fn merged(&mut self, layer: Layer) {
        self.merges.remove(&layer);
        self.dirty.insert(Row::Merge(layer));
    }

    /// A view that went and still needs work.
    pub fn first_merge(&self) -> Option<Layer> {
        self.merges.first().copied()
    }

    /// Maps whose views that went still need work.
    pub fn merging(&self, map: FileId) -> bool {
        self.merges.range(Layer { map, epoch: 0 }..=Layer { map, epoch: u32::MAX }).next().is_some()
    }

    /// A row that has changed since it was written to the tree: key and value, none when it
    /// is gone.
    pub fn first_dirty(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let row = *self.dirty.first()?;
        Some((row.key(), self.value(row)))
    }

    fn value(&self, row: Row) -> Option<Vec<u8>> {
        let layer = |layer: Layer| [&layer.map.0.to_le_bytes()[..], &layer.epoch.to_le_bytes()].concat();
        match row {
            Row::View(at, viewer) => self.views.contains(&(at, viewer)).then(Vec::new),
            Row::Parent(map) => self.parents.get(&map).copied().map(layer),
            Row::Trims(at) => self.trims.get(&at).map(Trims::encode),
            Row::History(file, until) => self.history.get(&(file, until)).copied().map(layer),
            Row::Merge(at) => self.merges.contains(&at).then(Vec::new),
        }
    }

    /// Every row as it is now.
    pub fn all_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let views = self.views.iter().map(|(at, viewer)| Row::View(*at, *viewer));
        let parents = self.parents.keys().map(|map| Row::Parent(*map));
        let trims = self.trims.keys().map(|at| Row::Trims(*at));
        let history = self.history.keys().map(|(file, until)| Row::History(*file, *until));
        let merges = self.merges.iter().map(|at| Row::Merge(*at));
        let all = views.chain(parents).chain(trims).chain(history).chain(merges);
        all.filter_map(|row| Some((row.key(), self.value(row)?))).collect()
    }

    /// The row that [`first_dirty`](Layers::first_dirty) named is in the tree.
    pub fn mark_clean(&mut self) {
        self.dirty.pop_first();
    }

    /// Takes in a row of the tree.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        let (&kind, words) = key.split_first().ok_or(FormatError("layers"))?;
        let words: SmallVec<[u64; 4]> = words
            .chunks(8)
            .map(|word| word.try_into().map(u64::from_be_bytes).map_err(|_| FormatError("layers")))
            .collect::<Result<_, _>>()?;
        let epoch = |word: u64| u32::try_from(word).map_err(|_| FormatError("layers"));
        let layer = || {
            let mut take = Take(value);
            Ok(Layer { map: FileId(take.u64()?), epoch: take.u32()? })
        };
        match (kind, &words[..]) {
            (1, &[map, at, viewer, id]) => {
                let viewer = if viewer == 0 { Viewer::File(FileId(id)) } else { Viewer::Map(FileId(id)) };
                self.views.insert((Layer { map: FileId(map), epoch: epoch(at)? }, viewer));
            }
            (2, &[map]) => drop(self.parents.insert(FileId(map), layer()?)),
            (3, &[map, at]) => {
                drop(self.trims.insert(Layer { map: FileId(map), epoch: epoch(at)? }, Trims::decode(value)?));
            }
            (4, &[file, until]) => drop(self.history.insert((FileId(file), until), layer()?)),
            (5, &[map, at]) => drop(self.merges.insert(Layer { map: FileId(map), epoch: epoch(at)? })),
            _ => return Err(FormatError("layers")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Cut ranges are exactly the blocks cut and not written since, and survive
        /// being stored.
        #[test]
        fn trims_follow_a_set(ops in prop::collection::vec((0u64..40, 0u64..40, any::<bool>()), 1..60)) {
            let mut file = Trims::default();
            let mut model = std::collections::BTreeSet::new();
            for (a, b, cut) in ops {
                if cut {
                    prop_assert_eq!(file.cut(a, b), a < b);
                    model.extend(a..b);
                } else {
                    file.written(a);
                    model.remove(&a);
                }
                for block in 0..41 { prop_assert_eq!(file.is_cut(block), model.contains(&block)); }
            }
            prop_assert_eq!(Trims::decode(&file.encode()), Ok(file.clone()));
            while let Some(trim) = file.first_trim() {
                file.reclaimed(trim, trim.0 + 3);
            }
            prop_assert!(!file.is_cut(20));
        }
    }

    const MAP: FileId = FileId(7);
    fn layer(epoch: u32) -> Layer {
        Layer { map: MAP, epoch }
    }

    #[test]
    fn views_are_found_around_a_layer_and_never_in_another_map() {
        let mut layers = Layers::default();
        layers.add_view(layer(2), Viewer::File(FileId(20)));
        layers.add_view(layer(5), Viewer::Map(FileId(30)));
        layers.add_view(Layer { map: FileId(8), epoch: 9 }, Viewer::File(FileId(8)));
        assert_eq!((layers.view_below(layer(2)), layers.view_from(layer(2))), (None, Some(2)));
        assert_eq!((layers.view_below(layer(3)), layers.view_from(layer(3))), (Some(2), Some(5)));
        assert_eq!((layers.view_below(layer(6)), layers.view_from(layer(6))), (Some(5), None));
        let seen: Vec<_> = layers.viewers(layer(1), 5).collect();
        assert_eq!(seen, [Viewer::File(FileId(20))]);
        assert!(layers.has_views(MAP) && !layers.has_views(FileId(6)));
    }

    #[test]
    fn every_row_reads_back_and_the_history_answers_for_what_came_before() {
        let mut layers = Layers::default();
        layers.add_view(layer(2), Viewer::Map(FileId(20)));
        layers.set_parent(FileId(20), Some(layer(2)));
        layers.change_trims(layer(1), |trims| trims.cut(3, 9));
        layers.remember(MAP, 40, layer(1));
        layers.want_merge(layer(1));
        let mut read = Layers::default();
        while let Some((key, value)) = layers.first_dirty() {
            read.load(&key, &value.unwrap()).unwrap();
            layers.mark_clean();
        }
        assert_eq!(format!("{read:?}"), format!("{layers:?}"));
        assert_eq!((read.layer_then(MAP, 39), read.layer_then(MAP, 40)), (Some(layer(1)), None));
        read.forget_history(40);
        assert_eq!(read.layer_then(MAP, 1), None);
        assert_eq!(read.first_dirty(), Some((Row::History(MAP, 40).key(), None)));
    }
}
