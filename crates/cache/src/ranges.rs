//! Newest bytes of ranges: pieces that never overlap.

use std::collections::BTreeMap;
use std::ops::Range;

use base::{Buf, Osn};

/// What a range holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Data(Buf),
    /// Zeros.
    Zeros {
        /// Whether the space below may be given back.
        may_punch: bool,
    },
}

impl Content {
    /// The part of it from `from_bytes` on.
    fn slice(&self, from_bytes: u64, length_bytes: u64) -> Content {
        match self {
            Content::Data(data) => Content::Data(data.slice(from_bytes as usize..(from_bytes + length_bytes) as usize)),
            zeros @ Content::Zeros { .. } => zeros.clone(),
        }
    }

    /// Copies it to `into`, all of it.
    pub fn copy_to(&self, into: &mut [u8]) {
        match self {
            Content::Data(data) => into.copy_from_slice(data),
            Content::Zeros { .. } => into.fill(0),
        }
    }
}

/// A piece of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub length_bytes: u64,
    /// The write it comes from.
    pub serial: Osn,
    /// What it holds.
    pub content: Content,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset_bytes + self.length_bytes
    }

    fn clipped(&self, range: &Range<u64>) -> Piece {
        let start = self.offset_bytes.max(range.start);
        let end = self.end().min(range.end);
        Piece {
            offset_bytes: start,
            length_bytes: end - start,
            serial: self.serial,
            content: self.content.slice(start - self.offset_bytes, end - start),
        }
    }
}

/// Pieces by their offset.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    pieces: BTreeMap<u64, Piece>,
}

impl Ranges {
    /// Lays `piece` over what is there.
    pub fn insert(&mut self, piece: Piece) {
        self.cut(piece.offset_bytes..piece.end(), |_| true);
        self.pieces.insert(piece.offset_bytes, piece);
    }

    /// Takes away what lies in `range` and comes from a write up to `through`.
    pub fn remove_through(&mut self, range: Range<u64>, through: Osn) {
        self.cut(range, |piece| piece.serial <= through);
    }

    /// Takes away the parts inside `range` of the pieces that `goes` names.
    fn cut(&mut self, range: Range<u64>, goes: impl Fn(&Piece) -> bool) {
        let touched: Vec<u64> =
            self.touching(&range).filter(|piece| goes(piece)).map(|piece| piece.offset_bytes).collect();
        for key in touched {
            let piece = self.pieces.remove(&key).expect("just seen");
            for rest in
                [piece.offset_bytes..range.start.min(piece.end()), range.end.max(piece.offset_bytes)..piece.end()]
            {
                if rest.start < rest.end {
                    self.pieces.insert(rest.start, piece.clipped(&rest));
                }
            }
        }
    }

    fn touching(&self, range: &Range<u64>) -> impl Iterator<Item = &Piece> {
        let before = self.pieces.range(..range.start).next_back().map(|(_, piece)| piece);
        let before = before.filter(|piece| piece.end() > range.start);
        before.into_iter().chain(self.pieces.range(range.clone()).map(|(_, piece)| piece))
    }

    /// What lies in `range`, cut to it, by offset.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        self.touching(&range).map(|piece| piece.clipped(&range)).collect::<Vec<_>>().into_iter()
    }

    /// All pieces, by offset.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a disk of 64 bytes that remembers who wrote each byte last.
        #[test]
        fn ranges_hold_the_newest_bytes(steps in prop::collection::vec((0_u64..60, 1_u64..20, any::<u8>(), 0_u8..3), 1..60)) {
            let mut ranges = Ranges::default();
            let mut model: Vec<Option<(u64, u8)>> = vec![None; 80];
            for (index, (offset, length, byte, what)) in steps.into_iter().enumerate() {
                let serial = index as u64 + 1;
                let range = offset as usize..(offset + length) as usize;
                if what == 2 {
                    let through = serial / 2;
                    ranges.remove_through(offset..offset + length, Osn(through));
                    model[range].iter_mut().for_each(|slot| *slot = slot.filter(|(by, _)| *by > through));
                    continue;
                }
                let (content, byte) = match what {
                    0 => (Content::Data(Buf::from(vec![byte; length as usize])), byte),
                    _ => (Content::Zeros { may_punch: true }, 0),
                };
                ranges.insert(Piece { offset_bytes: offset, length_bytes: length, serial: Osn(serial), content });
                model[range].fill(Some((serial, byte)));
            }
            let mut seen: Vec<Option<(u64, u8)>> = vec![None; 80];
            let mut last_end = 0;
            for piece in ranges.overlapping(0..80) {
                prop_assert!(piece.offset_bytes >= last_end && piece.length_bytes > 0);
                last_end = piece.end();
                let mut bytes = vec![1; piece.length_bytes as usize];
                piece.content.copy_to(&mut bytes);
                for (at, byte) in (piece.offset_bytes..).zip(bytes) {
                    seen[at as usize] = Some((piece.serial.0, byte));
                }
            }
            prop_assert_eq!(seen, model);
        }
    }
}
