//! Heads of the files in use.
//!
//! A head changes with every write, so it is kept here and goes to its tree with the next
//! checkpoint. Heads that have not changed may be forgotten at any time.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use base::{FileId, WallNanos};

use crate::format::{FormatError, Take};
use crate::hash::FixedMap;
use crate::layers::{Layer, Trim};
use crate::store::FileHead;

const OPEN_MAX: usize = 65_536;
/// A file in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Its head.
    pub head: FileHead,
    /// Where its content is: the layer that writes go to, or the one a snapshot shows.
    pub layer: Layer,
    /// It is a snapshot: nothing changes it.
    pub frozen: bool,
    /// Cut ranges that a pool of version 1 kept here; see [`OpenFile::take_old_trims`].
    old_trims: Vec<Trim>,
}

impl OpenFile {
    /// A file with nothing in it, on its own first layer.
    pub fn new(file: FileId) -> OpenFile {
        OpenFile { head: FileHead::default(), layer: Layer::first(file), frozen: false, old_trims: Vec::new() }
    }

    /// A file or a snapshot with this head that looks at `layer`.
    pub fn at(head: FileHead, layer: Layer, frozen: bool) -> OpenFile {
        OpenFile { head, layer, frozen, old_trims: Vec::new() }
    }

    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let mut out = Vec::with_capacity(63);
        for word in [head.size_bytes, head.used_bytes, head.modified.0, head.changed.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&head.content_sum.to_le_bytes());
        // Version 1 had cut ranges here.
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.layer.map.0.to_le_bytes());
        out.extend_from_slice(&self.layer.epoch.to_le_bytes());
        out.push(u8::from(self.frozen));
        out
    }

    /// Reads the head of `file`, as [`OpenFile::encode`] or a program of version 1 wrote it;
    /// it comes from a checked page.
    pub fn decode(file: FileId, value: &[u8]) -> OpenFile {
        let mut take = Take(value);
        let mut read = || {
            let mut open = OpenFile::new(file);
            open.head = FileHead {
                size_bytes: take.u64()?,
                used_bytes: take.u64()?,
                modified: WallNanos(take.u64()?),
                changed: WallNanos(take.u64()?),
                content_sum: take.u128()?,
            };
            let count = take.u16()?;
            open.old_trims = (0..count).map(|_| Ok((take.u64()?, take.u64()?))).collect::<Result<_, FormatError>>()?;
            if !take.0.is_empty() {
                open.layer = Layer { map: FileId(take.u64()?), epoch: take.u32()? };
                open.frozen = take.u8()? != 0;
            }
            Ok::<_, FormatError>(open)
        };
        read().expect("a checked page holds whole heads")
    }

    /// Cut ranges that a program of version 1 left in the head.
    pub fn take_old_trims(&mut self) -> Vec<Trim> {
        std::mem::take(&mut self.old_trims)
    }
}

/// Open files by id.
#[derive(Default)]
pub struct Files {
    open: FixedMap<FileId, OpenFile>,
    dirty: BTreeSet<FileId>,
}

impl Files {
    /// Whether the file is open.
    pub fn is_open(&self, file: FileId) -> bool {
        self.open.contains_key(&file)
    }

    /// The open file.
    pub fn get(&self, file: FileId) -> Option<&OpenFile> {
        self.open.get(&file)
    }

    /// The open file, to be changed; see [`mark_dirty`](Files::mark_dirty).
    pub fn get_mut(&mut self, file: FileId) -> Option<&mut OpenFile> {
        self.open.get_mut(&file)
    }

    /// Opens a file; forgets unchanged ones if there are too many.
    pub fn insert(&mut self, file: FileId, open: OpenFile) {
        if self.open.len() >= OPEN_MAX {
            let dirty = &self.dirty;
            self.open.retain(|file, _| dirty.contains(file));
        }
        self.open.insert(file, open);
    }

    /// The file is gone.
    pub fn remove(&mut self, file: FileId) {
        self.open.remove(&file);
        self.dirty.remove(&file);
    }

    /// The head must go to its tree.
    pub fn mark_dirty(&mut self, file: FileId) {
        if self.open.contains_key(&file) {
            self.dirty.insert(file);
        }
    }

    /// The head is in its tree.
    pub fn mark_clean(&mut self, file: FileId) {
        self.dirty.remove(&file);
    }

    /// Files within `range` whose heads must go to their tree, so many at most.
    pub fn dirty_within(&self, range: RangeInclusive<FileId>, limit: usize) -> impl Iterator<Item = FileId> + '_ {
        self.dirty.range(range).take(limit).copied()
    }

    /// A file whose head must go to its tree.
    pub fn first_dirty(&self) -> Option<FileId> {
        self.dirty.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_one_of_version_1_is_on_its_own_first_layer() {
        let mut open = OpenFile::new(FileId(3));
        open.head.size_bytes = 77;
        open.layer = Layer { map: FileId(9), epoch: 4 };
        open.frozen = true;
        assert_eq!(OpenFile::decode(FileId(3), &open.encode()), open);
        let mut old = open.encode();
        old.truncate(48);
        old.extend_from_slice(&1u16.to_le_bytes());
        [5u64, 8].iter().for_each(|word| old.extend_from_slice(&word.to_le_bytes()));
        let mut read = OpenFile::decode(FileId(3), &old);
        assert_eq!((read.layer, read.frozen, read.head), (Layer::first(FileId(3)), false, open.head));
        assert_eq!(read.take_old_trims(), [(5, 8)]);
    }
}
