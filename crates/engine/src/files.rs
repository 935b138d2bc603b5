//! Heads of the files in use.
//!
//! A head changes with every write, so it is kept here and goes to its tree with the next
//! checkpoint. Heads that have not changed may be forgotten at any time.

use std::collections::BTreeSet;

use base::{FileId, WallNanos};
use smallvec::SmallVec;

use crate::format::Take;
use crate::hash::FixedMap;
use crate::store::FileHead;

const OPEN_MAX: usize = 65_536;
/// Ranges cut off and not yet reclaimed that a head lists before the next block written
/// among them waits for the reclaimer.
const TRIMS_MAX: usize = 60;

/// Blocks cut off and not yet reclaimed: from, and the first behind.
pub type Trim = (u64, u64);

/// A file in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFile {
    /// Its head.
    pub head: FileHead,
    trims: SmallVec<[Trim; 1]>,
}

impl OpenFile {
    /// As stored.
    pub fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let mut out = Vec::with_capacity(50 + 16 * self.trims.len());
        for word in [head.size_bytes, head.used_bytes, head.modified.0, head.changed.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&head.content_sum.to_le_bytes());
        out.extend_from_slice(&(self.trims.len() as u16).to_le_bytes());
        for (from, to) in &self.trims {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
        }
        out
    }

    /// Reads what [`OpenFile::encode`] wrote; it comes from a checked page.
    pub fn decode(value: &[u8]) -> OpenFile {
        let mut take = Take(value);
        let mut read = || {
            let head = FileHead {
                size_bytes: take.u64()?,
                used_bytes: take.u64()?,
                modified: WallNanos(take.u64()?),
                changed: WallNanos(take.u64()?),
                content_sum: take.u128()?,
            };
            let count = take.u16()?;
            let trims = (0..count)
                .map(|_| Ok((take.u64()?, take.u64()?)))
                .collect::<Result<_, crate::format::FormatError>>()?;
            Ok::<_, crate::format::FormatError>(OpenFile { head, trims })
        };
        read().expect("a checked page holds whole heads")
    }

    /// Whether `block` was cut off and not written since: it reads as zeros.
    pub fn is_cut(&self, block: u64) -> bool {
        self.trims.iter().any(|&(from, to)| from <= block && block < to)
    }

    /// Blocks from `from` up to `to` are cut off; says whether there are any.
    pub fn cut(&mut self, from: u64, to: u64) -> bool {
        if from >= to {
            return false;
        }
        let (mut first, mut last) = (from, to);
        // Known ranges never touch each other, so one pass finds all that the new one joins.
        self.trims.retain(|&mut (start, end)| {
            let touches = start <= last && first <= end;
            if touches {
                (first, last) = (first.min(start), last.max(end));
            }
            !touches
        });
        self.trims.push((first, last));
        true
    }

    /// `block` holds something again.
    pub fn written(&mut self, block: u64) {
        let Some(at) = self.trims.iter().position(|&(from, to)| from <= block && block < to) else { return };
        let (from, to) = self.trims.remove(at);
        self.trims.extend([(from, block), (block + 1, to)].into_iter().filter(|(from, to)| from < to));
    }

    /// Whether so many ranges wait that the next write must wait for the reclaimer.
    pub fn is_crowded(&self) -> bool {
        self.trims.len() > TRIMS_MAX
    }

    /// A range to reclaim.
    pub fn first_trim(&self) -> Option<Trim> {
        self.trims.first().copied()
    }

    /// Blocks from the start of `trim` up to `done` are reclaimed.
    pub fn reclaimed(&mut self, trim: Trim, done: u64) {
        if let Some(at) = self.trims.iter().position(|&known| known == trim) {
            if done >= trim.1 {
                self.trims.remove(at);
            } else {
                self.trims[at].0 = done;
            }
        }
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

    /// A file whose head must go to its tree.
    pub fn first_dirty(&self) -> Option<FileId> {
        self.dirty.first().copied()
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
            let mut file = OpenFile::default();
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
            prop_assert_eq!(OpenFile::decode(&file.encode()), file.clone());
            while let Some(trim) = file.first_trim() {
                file.reclaimed(trim, trim.0 + 3);
            }
            prop_assert!(!file.is_cut(20));
        }
    }
}
