//! Mapping deltas: what changed between two checkpoints, in words that need no tree.
//!
//! An object's descriptor names its first owner only. Second owners (duplicates), holes,
//! truncations, removals and the tables exist nowhere but in the trees; so each
//! checkpoint also leaves a log of them in stripes, each entry with its OSN, for the scan
//! that rebuilds metadata when the trees are beyond repair (`design.md` 11.3). The
//! newest of these logs are kept (see `docs/decisions/0004-mapping-deltas.md`).
//!
//! Where the log is whole it says, beside the trees and in other stripes than theirs, all
//! that the trees say and descriptors do not. Whose entry comes later in the log is right.
//!
//! | entry | fields |
//! |---|---|
//! | `6` | epoch u32, map u64, block u64, OSN u64, object u64, count u32: blocks from there on map to objects from there on; object 0: holes |
//! | `2` | OSN u64, change as in the journal |
//! | `4` | tree u8, key length u16, key, value length u16 (0xffff: no such row any more), value |
//! | `5` | epoch u32, map u64, from u64, to u64, OSN u64: what was written before to these blocks of the layer is cut off |
//! | `1` | map u64, block u64, OSN u64, object u64: as 6 at epoch 1, of one block; versions 1 and 2 |
//! | `3` | epoch u32, and as 1; version 2 |
//!
//! Entries never straddle objects.

use base::{FileId, ObjectId, Osn};

use crate::format::{FormatError, Take};
use crate::layers::Layer;
use crate::record::{decode_change, encode_changes};
use crate::staged::BlockId;
use crate::store::Change;

/// Length of a value that stands for "no row".
const NO_ROW: u16 = u16::MAX;
/// Bytes of a run of mappings: kind, epoch, map, block, OSN, object, count.
const RUN_BYTES: usize = 1 + 4 + 4 * 8 + 4;

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `count` blocks from `first` on map to as many objects from `object` on, or are holes.
    Run {
        /// The first block.
        first: BlockId,
        /// OSN of the newest write in it.
        osn: Osn,
        /// The first object, 0 for holes.
        object: ObjectId,
        /// How many.
        count: u32,
    },
    /// A change took effect.
    Change(Osn, Change),
    /// A row of a tree is so, or is gone.
    Row(u8, Vec<u8>, Option<Vec<u8>>),
    /// Blocks of a layer were cut off.
    Cut {
        /// The layer.
        layer: Layer,
        /// From this block on.
        from: u64,
        /// Up to before this one.
        to: u64,
        /// When.
        osn: Osn,
    },
}

impl Entry {
    /// Reads all entries of an object's payload.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
        let mut take = Take(bytes);
        let mut entries = Vec::new();
        while !take.0.is_empty() {
            entries.push(Entry::decode(&mut take)?);
        }
        Ok(entries)
    }

    fn decode(take: &mut Take<'_>) -> Result<Entry, FormatError> {
        let kind = take.u8()?;
        Ok(match kind {
            1 | 3 | 6 => {
                let epoch = if kind == 1 { 1 } else { take.u32()? };
                let first = BlockId { map: FileId(take.u64()?), block: take.u64()?, epoch };
                let (osn, object) = (Osn(take.u64()?), ObjectId(take.u64()?));
                Entry::Run { first, osn, object, count: if kind == 6 { take.u32()? } else { 1 } }
            }
            2 => Entry::Change(Osn(take.u64()?), decode_change(take)?),
            4 => {
                let tree = take.u8()?;
                let len = usize::from(take.u16()?);
                let key = take.bytes(len)?.to_vec();
                let value = match take.u16()? {
                    NO_ROW => None,
                    len => Some(take.bytes(usize::from(len))?.to_vec()),
                };
                Entry::Row(tree, key, value)
            }
            5 => {
                let epoch = take.u32()?;
                let layer = Layer { map: FileId(take.u64()?), epoch };
                Entry::Cut { layer, from: take.u64()?, to: take.u64()?, osn: Osn(take.u64()?) }
            }
            _ => return Err(FormatError("delta entry")),
        })
    }
}

/// Entries in pieces, each small enough for an object.
#[derive(Debug)]
pub struct DeltaLog {
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
    /// The last entry, if it is a run that may go on.
    run: Option<Run>,
}

/// A run that ends the last piece.
#[derive(Clone, Copy, Debug)]
struct Run {
    next: BlockId,
    next_object: ObjectId,
    osn: Osn,
    count: u32,
}

impl DeltaLog {
    /// Bytes that a piece has at most.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// An empty log whose pieces have at most `chunk_bytes`.
    pub fn new(chunk_bytes: usize) -> DeltaLog {
        DeltaLog { chunks: Vec::new(), chunk_bytes, run: None }
    }

    fn push(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.chunks.last().is_none_or(|chunk| chunk.len() + len > self.chunk_bytes) {
            self.chunks.push(Vec::with_capacity(self.chunk_bytes.min(4096)));
        }
        let chunk = self.chunks.last_mut().expect("just pushed");
        parts.iter().for_each(|part| chunk.extend_from_slice(part));
        self.run = None;
    }

    /// Block `id` now maps to `object`; 0 is a hole.
    pub fn mapping(&mut self, id: BlockId, osn: Osn, object: ObjectId) {
        let after = |object: ObjectId| ObjectId(object.0 + u64::from(object.0 != 0));
        let next = BlockId { block: id.block + 1, ..id };
        if let Some(run) = self.run
            && (run.next, run.next_object) == (id, object)
            && run.count < u32::MAX
        {
            let run = Run { next, next_object: after(object), osn: run.osn.max(osn), count: run.count + 1 };
            let chunk = self.chunks.last_mut().expect("a run stands in a piece");
            let entry = chunk.len() - RUN_BYTES;
            chunk[entry + 21..entry + 29].copy_from_slice(&run.osn.0.to_le_bytes());
            chunk[entry + 37..].copy_from_slice(&run.count.to_le_bytes());
            self.run = Some(run);
            return;
        }
        let words = [id.map.0, id.block, osn.0, object.0].map(u64::to_le_bytes);
        self.push(&[&[6], &id.epoch.to_le_bytes(), words.as_flattened(), &1u32.to_le_bytes()]);
        self.run = Some(Run { next, next_object: after(object), osn, count: 1 });
    }

    /// The row under `key` of tree `tree` is `value` now, or gone.
    pub fn row(&mut self, tree: u8, key: &[u8], value: Option<&[u8]>) {
        let value_bytes = value.map_or(NO_ROW, |value| value.len() as u16).to_le_bytes();
        let key_bytes = (key.len() as u16).to_le_bytes();
        self.push(&[&[4, tree], &key_bytes, key, &value_bytes, value.unwrap_or_default()]);
    }

    /// Blocks of `layer` from `from` up to `to` were cut off.
    pub fn cut(&mut self, layer: Layer, (from, to): (u64, u64), osn: Osn) {
        if from < to {
            let words = [layer.map.0, from, to, osn.0].map(u64::to_le_bytes);
            self.push(&[&[5], &layer.epoch.to_le_bytes(), words.as_flattened()]);
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

    /// Bytes of the log so far.
    pub fn len_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Its pieces.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(block: u64) -> BlockId {
        BlockId { map: FileId(1), block, epoch: 1 }
    }

    #[test]
    fn entries_never_straddle_pieces() {
        let mut log = DeltaLog::new(100);
        for number in 0..5 {
            log.mapping(block(number), Osn(number), ObjectId(7));
        }
        log.change(&Change::DropFile { file: FileId(1) }, Osn(9));
        let taken = log.take();
        assert_eq!(taken.chunks().map(<[u8]>::len).collect::<Vec<_>>(), [82, 82, 59]);
        assert_eq!(log.chunks().count(), 0);
    }

    #[test]
    fn entries_read_back_and_neighbours_become_a_run() {
        let mut log = DeltaLog::new(1000);
        log.mapping(block(3), Osn(9), ObjectId(40));
        log.mapping(block(4), Osn(8), ObjectId(41));
        log.mapping(block(5), Osn(10), ObjectId(43));
        log.mapping(block(6), Osn(11), ObjectId(0));
        log.mapping(block(7), Osn(12), ObjectId(0));
        let layer = Layer { map: FileId(6), epoch: 3 };
        log.cut(layer, (2, 9), Osn(13));
        log.cut(layer, (9, 9), Osn(13));
        log.row(1, &[1, 2], Some(&[3]));
        log.row(5, &[], None);
        let drop = Change::DropFile { file: FileId(1) };
        log.change(&drop, Osn(14));
        let run = |number, osn, object, count| Entry::Run {
            first: block(number),
            osn: Osn(osn),
            object: ObjectId(object),
            count,
        };
        let expected = [
            run(3, 9, 40, 2),
            run(5, 10, 43, 1),
            run(6, 12, 0, 2),
            Entry::Cut { layer, from: 2, to: 9, osn: Osn(13) },
            Entry::Row(1, vec![1, 2], Some(vec![3])),
            Entry::Row(5, vec![], None),
            Entry::Change(Osn(14), drop),
        ];
        let bytes: Vec<u8> = log.chunks().flatten().copied().collect();
        assert_eq!(Entry::decode_all(&bytes).unwrap(), expected);
        for cut in 1..40 {
            assert!(Entry::decode_all(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn entries_of_older_versions_are_read() {
        let words = [1u64, 3, 9, 40].map(u64::to_le_bytes);
        let old = [&[1][..], words.as_flattened(), &[3], &2u32.to_le_bytes(), words.as_flattened()].concat();
        let run =
            |epoch| Entry::Run { first: BlockId { epoch, ..block(3) }, osn: Osn(9), object: ObjectId(40), count: 1 };
        assert_eq!(Entry::decode_all(&old).unwrap(), [run(1), run(2)]);
    }
}
