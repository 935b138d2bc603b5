//! A batch as it lies in memory: pieces that were built in the arena and, between them,
//! large payloads that stayed where they were received.
//!
//! ```text
//!   built: [header body][header body][header time]   shared: [payload]   built: [pad][header ...
//! ```
//! A header never straddles pieces; a shared piece is always the end of a body, so a body
//! lies in one built piece, or at the end of one with its rest in the shared piece behind.

use base::Buf;
use bytes::BytesMut;
use zerocopy::FromBytes;

use crate::format::{RECORD_HEADER_BYTES, RecordHeader, RingId};
use crate::record::Record;

enum Piece {
    Built(BytesMut),
    Shared(Buf),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Built(bytes) => bytes.len(),
            Piece::Shared(bytes) => bytes.len(),
        }
    }
}

/// A batch whose headers may still be changed.
#[derive(Default)]
pub(crate) struct Batch {
    pieces: Vec<Piece>,
    length_bytes: usize,
}

impl Batch {
    pub(crate) fn build(&mut self, bytes: BytesMut) {
        self.length_bytes += bytes.len();
        self.pieces.push(Piece::Built(bytes));
    }

    pub(crate) fn share(&mut self, bytes: Buf) {
        self.length_bytes += bytes.len();
        self.pieces.push(Piece::Shared(bytes));
    }

    pub(crate) fn len(&self) -> usize {
        self.length_bytes
    }

    /// Calls `change` with the header of each record, in order, and where in the batch it
    /// stands. `count` records are in the batch.
    pub(crate) fn each_header(&mut self, count: u16, mut change: impl FnMut(u16, usize, &mut RecordHeader)) {
        let mut walk = Walk::default();
        for index in 0..count {
            walk.settle(|piece| self.pieces.get(piece).map(Piece::len));
            let Some(Piece::Built(bytes)) = self.pieces.get_mut(walk.piece) else {
                unreachable!("records were put here, and headers are built")
            };
            let (header, _) = RecordHeader::mut_from_prefix(&mut bytes[walk.at..]).expect("records were put here");
            change(index, walk.start, header);
            walk.skip(header.record_bytes() as usize);
        }
    }

    /// No more changes.
    pub(crate) fn freeze(self) -> Vec<Buf> {
        let freeze = |piece| match piece {
            Piece::Built(bytes) => bytes.freeze(),
            Piece::Shared(bytes) => bytes,
        };
        self.pieces.into_iter().map(freeze).collect()
    }
}

/// The records of a batch that was frozen.
pub(crate) struct Records {
    pieces: Vec<Buf>,
    ring: RingId,
    walk: Walk,
}

impl Records {
    pub(crate) fn of(pieces: Vec<Buf>, ring: RingId) -> Records {
        Records { pieces, ring, walk: Walk::default() }
    }
}

impl Iterator for Records {
    /// A record and the bytes it takes in the batch.
    type Item = (Record, usize);

    fn next(&mut self) -> Option<(Record, usize)> {
        let Records { pieces, ring, walk } = self;
        walk.settle(|piece| pieces.get(piece).map(Buf::len));
        let piece = pieces.get(walk.piece)?;
        let header = RecordHeader::decode(&piece[walk.at..], *ring)?;
        let (start, body_bytes) = (walk.at + RECORD_HEADER_BYTES, header.body_bytes.get() as usize);
        let within = body_bytes.min(piece.len() - start);
        let body = piece.slice(start..start + within);
        let payload = if within < body_bytes { pieces[walk.piece + 1].clone() } else { Buf::new() };
        debug_assert_eq!(within + payload.len(), body_bytes);
        let record_bytes = header.record_bytes() as usize;
        walk.skip(record_bytes);
        Some((Record { sequence: header.sequence(), tag: header.tag(), body, payload }, record_bytes))
    }
}

/// A place in a row of pieces.
#[derive(Default)]
struct Walk {
    piece: usize,
    at: usize,
    /// The same, from the start of the row.
    start: usize,
}

impl Walk {
    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        self.start += bytes;
    }

    /// Moves on to the piece that the place lies in; `len` says how long a piece is.
    fn settle(&mut self, len: impl Fn(usize) -> Option<usize>) {
        while let Some(len) = len(self.piece).filter(|len| self.at >= *len) {
            self.at -= len;
            self.piece += 1;
        }
    }
}

/// Parts a row of pieces after `bytes`.
pub(crate) fn split(mut pieces: Vec<Buf>, bytes: usize) -> (Vec<Buf>, Vec<Buf>) {
    let mut walk = Walk { at: bytes, ..Walk::default() };
    walk.settle(|piece| pieces.get(piece).map(Buf::len));
    let mut rest = pieces.split_off(walk.piece.min(pieces.len()));
    if walk.at > 0
        && let Some(first) = rest.first_mut()
    {
        pieces.push(first.split_to(walk.at));
    }
    (pieces, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_pieces_parts_anywhere() {
        let pieces: Vec<Buf> = ["ab", "", "cde", "f"].map(|text| Buf::from_static(text.as_bytes())).to_vec();
        for at in 0..=6 {
            let (first, rest) = split(pieces.clone(), at);
            assert_eq!((first.concat().len(), [first.concat(), rest.concat()].concat()), (at, b"abcdef".to_vec()));
        }
    }
}
