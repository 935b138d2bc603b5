//! What the changes of an operation do to heads, layers and tables.
//!
//! All of a commit happens at once: [`State::apply_changes`] first makes sure that it finds
//! its pages, then changes everything without waiting. So a snapshot of many files is of one
//! point in the order of operations, and costs a few words for each file.
//!
//! When the journal is replayed, records through `redo_through` are in the root with
//! everything but data that was still staged; [`State::redo_changes`] does what they mean
//! for that, in the layers that were written to then.

use base::{Buf, FileId, WallNanos};

use crate::files::OpenFile;
use crate::layers::{Layer, Viewer};
use crate::staged::{BlockId, Stamp};
use crate::state::{HEADS, RECLAIM, RECLAIM_ALL, State, ZEROS, file_key, table_tree};
use crate::store::{BLOCK_BYTES, Change, FileHead, LOCAL_FILES};
use crate::tree::Missing;

const RESIDENT: &str = "prepared";

impl State {
    /// Applies all `changes` of one operation, or none.
    pub fn apply_changes(&mut self, changes: &[Change], stamp: Stamp) -> Result<(), Missing> {
        for change in changes {
            self.prepare(change)?;
        }
        for change in changes {
            self.apply_change(change, stamp);
            // The log hears of the others by the rows that follow from them.
            if let Change::Put { .. } | Change::Delete { .. } | Change::DropFile { .. } = change {
                self.delta.change(change, stamp.osn);
            }
        }
        // Only now may pages that became empty go: until then every way that was looked up
        // beforehand stays.
        for change in changes {
            match change {
                Change::Delete { table, key } => self.prune(table_tree(*table), key),
                Change::DropFile { file } => self.prune(HEADS, &file_key(*file)),
                _ => {}
            }
        }
        self.changed = true;
        Ok(())
    }

    /// Makes sure that applying `change` will find its pages.
    fn prepare(&mut self, change: &Change) -> Result<(), Missing> {
        match change {
            Change::Put { table, key, .. } | Change::Delete { table, key } => self.resident(table_tree(*table), key),
            Change::CreateFile { file, .. }
            | Change::DropFile { file }
            | Change::SetSize { file, .. }
            | Change::SetTimes { file, .. } => {
                self.prepare_file(*file)?;
                for id in self.lost_cut_by(change) {
                    self.resident_if_lost(id)?;
                }
                self.resident(RECLAIM, &file_key(*file))
            }
            Change::Snapshot { file, .. } => self.prepare_file(*file),
            Change::Clone { snapshot, .. } => self.prepare_file(*snapshot),
            Change::Ids { .. } => Ok(()),
            Change::Rollback { file, snapshot, .. } => {
                self.prepare_file(*file)?;
                self.prepare_file(*snapshot)
            }
        }
    }

    fn prepare_file(&mut self, file: FileId) -> Result<(), Missing> {
        self.file(file)?;
        self.resident(HEADS, &file_key(file))
    }

    /// The file, which [`prepare`](State::prepare) has looked up.
    fn prepared(&mut self, file: FileId) -> Option<&mut OpenFile> {
        self.file(file).expect(RESIDENT)
    }

    /// Lost blocks that `change` cuts off, which ends their being lost.
    fn lost_cut_by(&mut self, change: &Change) -> Vec<BlockId> {
        let (file, from) = match change {
            Change::DropFile { file } => (*file, 0),
            Change::SetSize { file, size_bytes } => (*file, size_bytes.div_ceil(BLOCK_BYTES)),
            _ => return Vec::new(),
        };
        if self.lost.is_empty() {
            return Vec::new();
        }
        let layer = self.files.get(file).filter(|open| !open.frozen).map(|open| open.layer);
        layer.map_or(Vec::new(), |layer| self.lost_from(layer, from))
    }

    fn apply_change(&mut self, change: &Change, stamp: Stamp) {
        for id in self.lost_cut_by(change) {
            self.found_again(id);
        }
        match change {
            Change::Ids { through } => self.note_file(*through),
            Change::Put { table, key, value } => self.put(table_tree(*table), key, value).expect(RESIDENT),
            Change::Delete { table, key } => self.clear(table_tree(*table), key).expect(RESIDENT),
            Change::CreateFile { file, at } => self.create_file(*file, *at),
            Change::DropFile { file } => self.drop_file(*file, stamp),
            Change::SetSize { file, size_bytes } => self.set_size(*file, *size_bytes, stamp),
            Change::SetTimes { file, modified, changed } => {
                if let Some(open) = self.prepared(*file).filter(|open| !open.frozen) {
                    open.head.modified = modified.unwrap_or(open.head.modified);
                    open.head.changed = *changed;
                    self.files.mark_dirty(*file);
                }
            }
            Change::Snapshot { file, snapshot } => self.take_snapshot(*file, *snapshot, stamp),
            Change::Clone { snapshot, file, at } => self.clone_snapshot(*snapshot, *file, *at),
            Change::Rollback { file, snapshot, map, at } => self.roll_back(*file, *snapshot, *map, (*at, stamp)),
        }
    }

    /// New ids come after this one.
    fn note_file(&mut self, file: FileId) {
        if file < LOCAL_FILES {
            self.last_file = self.last_file.max(file.0);
            self.ids_told = self.ids_told.max(file.0);
        }
    }

    fn create_file(&mut self, file: FileId, at: WallNanos) {
        self.note_file(file);
        // When the journal is redone the file may be there already, with blocks mapped
        // by writes that follow; what counts them stays.
        let mut open = self.prepared(file).cloned().unwrap_or(OpenFile::new(file));
        open.head = FileHead { size_bytes: 0, modified: at, changed: at, ..open.head };
        let value = open.encode();
        self.put(HEADS, &file_key(file), &value).expect(RESIDENT);
        self.delta.row(HEADS, &file_key(file), Some(&value));
        self.files.insert(file, open);
    }

    fn drop_file(&mut self, file: FileId, stamp: Stamp) {
        let Some(layer) = self.prepared(file).map(|open| open.layer) else { return };
        self.clear(HEADS, &file_key(file)).expect(RESIDENT);
        self.files.remove(file);
        if self.layers.has_views(layer.map) {
            self.layers.remember(file, stamp.sequence, layer);
            self.leave(layer, Viewer::File(file));
        } else {
            self.put(RECLAIM, &file_key(file), RECLAIM_ALL).expect(RESIDENT);
            self.layers.drop_trims(file, 0..=u32::MAX);
            self.staged.drop_from(layer, 0);
        }
    }

    /// Cuts or extends a file. Blocks behind the cut are forgotten at once where they are
    /// staged, and marked to be reclaimed where they are stored; the rest of the last
    /// block is overwritten with zeros.
    fn set_size(&mut self, file: FileId, size_bytes: u64, stamp: Stamp) {
        let Some(open) = self.prepared(file).filter(|open| !open.frozen) else { return };
        let before = std::mem::replace(&mut open.head.size_bytes, size_bytes);
        let layer = open.layer;
        self.files.mark_dirty(file);
        // A cut that is redone may find the size as it left it, but the rest of the last
        // block as it was before: those zeros had only been staged.
        if size_bytes < before || (self.replaying && size_bytes == before) {
            let (keep, end) = (size_bytes.div_ceil(BLOCK_BYTES), before.div_ceil(BLOCK_BYTES));
            self.layers.change_trims(layer, |trims| trims.cut(keep, end));
            self.delta.cut(layer, (keep, end), stamp.osn);
            self.cut_staged(layer, size_bytes, stamp);
        }
    }

    /// Nothing staged is left behind the end, nor in the rest of the last block.
    fn cut_staged(&mut self, layer: Layer, size_bytes: u64, stamp: Stamp) {
        self.staged.drop_from(layer, size_bytes.div_ceil(BLOCK_BYTES));
        let rest = size_bytes % BLOCK_BYTES;
        if rest > 0 {
            let zeros = Buf::from_static(&ZEROS[..(BLOCK_BYTES - rest) as usize]);
            self.staged.write(layer, size_bytes, &zeros, stamp);
        }
    }

    /// Fixes the layer that the file writes to as the snapshot's; the file goes on above it.
    fn take_snapshot(&mut self, file: FileId, snapshot: FileId, stamp: Stamp) {
        self.note_file(snapshot);
        let Some(open) = self.prepared(file).filter(|open| !open.frozen) else { return };
        let layer = open.layer;
        let next = Layer { epoch: layer.epoch + 1, ..layer };
        open.layer = next;
        let frozen = OpenFile::at(open.head, layer, true);
        self.files.mark_dirty(file);
        self.files.insert(snapshot, frozen);
        self.files.mark_dirty(snapshot);
        self.layers.add_view(layer, Viewer::File(snapshot));
        self.layers.add_view(next, Viewer::File(file));
        self.layers.remove_view(layer, Viewer::File(file));
        self.layers.remember(file, stamp.sequence, layer);
    }

    /// The first layer of a new map above what the snapshot shows.
    fn start_map(&mut self, map: FileId, parent: Layer, file: FileId) -> Layer {
        self.note_file(map);
        let layer = Layer::first(map);
        self.layers.set_parent(map, Some(parent));
        self.layers.add_view(parent, Viewer::Map(map));
        self.layers.add_view(layer, Viewer::File(file));
        layer
    }

    fn clone_snapshot(&mut self, snapshot: FileId, file: FileId, at: WallNanos) {
        let Some(from) = self.prepared(snapshot).filter(|open| open.frozen).cloned() else { return };
        let layer = self.start_map(file, from.layer, file);
        let head = FileHead { modified: at, changed: at, ..from.head };
        self.files.insert(file, OpenFile::at(head, layer, false));
        self.files.mark_dirty(file);
    }

    fn roll_back(&mut self, file: FileId, snapshot: FileId, map: FileId, (at, stamp): (WallNanos, Stamp)) {
        let Some(from) = self.prepared(snapshot).filter(|open| open.frozen).cloned() else { return };
        let Some(before) = self.prepared(file).filter(|open| !open.frozen).map(|open| open.layer) else { return };
        let layer = self.start_map(map, from.layer, file);
        if let Some(open) = self.prepared(file) {
            open.layer = layer;
            open.head = FileHead { modified: at, changed: at, ..from.head };
        }
        self.files.mark_dirty(file);
        self.layers.remember(file, stamp.sequence, before);
        // A file without snapshots of its own has no views; now it needs to be known.
        self.layers.add_view(before, Viewer::File(file));
        self.leave(before, Viewer::File(file));
    }

    /// `viewer` does not look from `layer` any more. What nobody sees now goes at once where
    /// it is staged, and is left to the reclaimer where it is stored.
    pub(crate) fn leave(&mut self, layer: Layer, viewer: Viewer) {
        self.layers.remove_view(layer, viewer);
        if self.layers.is_viewed(layer) {
            return;
        }
        self.layers.want_merge(layer);
        if self.layers.view_from(layer).is_none() {
            let unseen = self.layers.view_below(layer).map_or(0, |epoch| epoch + 1)..=layer.epoch;
            self.layers.drop_trims(layer.map, unseen.clone());
            self.staged.drop_layers(layer.map, unseen);
        }
    }

    /// The layer that `file` wrote to with the record `sequence`, which is in the root.
    pub(crate) fn layer_then(&mut self, file: FileId, sequence: u64) -> Result<Option<Layer>, Missing> {
        match self.layers.layer_then(file, sequence) {
            Some(layer) => Ok(Some(layer)),
            None => Ok(self.file(file)?.filter(|open| !open.frozen).map(|open| open.layer)),
        }
    }

    /// Stages again what a write in the root had only staged.
    pub(crate) fn redo_write(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        stamp: Stamp,
    ) -> Result<(), Missing> {
        if let Some(layer) = self.layer_then(file, stamp.sequence)? {
            self.staged.write(layer, offset_bytes, data, stamp);
            self.changed = true;
        }
        Ok(())
    }

    /// Does to what is staged again what an operation in the root did to what was staged.
    pub(crate) fn redo_changes(&mut self, changes: &[Change], stamp: Stamp) -> Result<(), Missing> {
        let mut cuts = Vec::new();
        for change in changes {
            if let Change::SetSize { file, size_bytes } = change
                && let Some(layer) = self.layer_then(*file, stamp.sequence)?
            {
                let lost = self.lost_from(layer, size_bytes.div_ceil(BLOCK_BYTES));
                lost.iter().try_for_each(|id| self.resident_if_lost(*id))?;
                cuts.push((layer, *size_bytes, lost));
            }
        }
        for (layer, size_bytes, lost) in cuts {
            // Also where it made the file longer: there was nothing behind the old end. And in
            // older layers that nobody sees by themselves any more: when the root was made
            // their blocks may have been gone without a trace.
            let from = size_bytes.div_ceil(BLOCK_BYTES);
            let seen = self.layers.view_below(layer).unwrap_or(0);
            let older: Vec<u32> = self.staged.epochs_of(layer.map, seen + 1..layer.epoch);
            older.into_iter().for_each(|epoch| self.staged.drop_from(Layer { epoch, ..layer }, from));
            self.cut_staged(layer, size_bytes, stamp);
            lost.into_iter().for_each(|id| self.found_again(id));
        }
        Ok(())
    }

    /// The record of a write to these blocks is lost: what came before is not their content.
    pub(crate) fn lose_record(&mut self, file: FileId, block: u64, sequence: u64) -> Result<(), Missing> {
        let layer = match sequence <= self.redo_through {
            true => self.layer_then(file, sequence)?,
            false => self.file(file)?.map(|open| open.layer),
        };
        if let Some(layer) = layer {
            self.lose(layer.block(block))?;
            self.staged.forget(layer.block(block));
        }
        Ok(())
    }
}
