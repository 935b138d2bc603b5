//! Mapping deltas: what changed between two checkpoints, in words that need no tree.
//!
//! An object's descriptor names its first owner only. Second owners (duplicates), holes,
//! truncations, removals and the tables exist nowhere but in the trees; so each
//! checkpoint also leaves a log of them in stripes, each entry with its OSN, for the scan
//! that rebuilds metadata when the trees are beyond repair (`design.md` 11.3). The
//! newest of these logs are kept (see `docs/decisions/0004-mapping-deltas.md`).
//!
//! Entry: `[1][map u64][block u64][osn u64][object u64]` at epoch 1, object 0 for a hole, or
//! `[3][epoch u32]` and the same at another, or `[2][osn u64][change]` with a change as in the
//! journal. Entries never straddle objects.

use base::{ObjectId, Osn};

use crate::record::encode_changes;
use crate::staged::BlockId;
use crate::store::Change;

/// Entries in pieces, each small enough for an object.
#[derive(Debug)]
pub struct DeltaLog {
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
}

impl DeltaLog {
    /// An empty log whose pieces have at most `chunk_bytes`.
    pub fn new(chunk_bytes: usize) -> DeltaLog {
        DeltaLog { chunks: Vec::new(), chunk_bytes }
    }

    fn push(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.chunks.last().is_none_or(|chunk| chunk.len() + len > self.chunk_bytes) {
            self.chunks.push(Vec::with_capacity(self.chunk_bytes));
        }
        let chunk = self.chunks.last_mut().expect("just pushed");
        parts.iter().for_each(|part| chunk.extend_from_slice(part));
    }

    /// Block `id` now maps to `object`; 0 is a hole.
    pub fn mapping(&mut self, id: BlockId, osn: Osn, object: ObjectId) {
        let words = [id.map.0, id.block, osn.0, object.0].map(u64::to_le_bytes);
        match id.epoch {
            1 => self.push(&[&[1], words.as_flattened()]),
            epoch => self.push(&[&[3], &epoch.to_le_bytes(), words.as_flattened()]),
        }
    }

    /// `change` took effect.
    pub fn change(&mut self, change: &Change, osn: Osn) {
        self.push(&[&[2], &osn.0.to_le_bytes(), &encode_changes(std::slice::from_ref(change))]);
    }

    /// The log so far; it starts anew.
    pub fn take(&mut self) -> DeltaLog {
        std::mem::replace(self, DeltaLog::new(self.chunk_bytes))
    }

    /// Its pieces.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::FileId;

    #[test]
    fn entries_never_straddle_pieces() {
        let mut log = DeltaLog::new(100);
        for block in 0..7 {
            log.mapping(BlockId { map: FileId(1), block, epoch: 1 }, Osn(block), ObjectId(block));
        }
        log.change(&Change::DropFile { file: FileId(1) }, Osn(9));
        let taken = log.take();
        assert_eq!(taken.chunks().map(<[u8]>::len).collect::<Vec<_>>(), [99, 99, 51]);
        assert_eq!(log.chunks().count(), 0);
    }
}
