//! Which writes go to the backing store next, and as what pieces (R-DST-03, -04, -08).
//!
//! A batch is a run of serials from the oldest dirty write on, cut by a cap of writes and of
//! bytes. Inside it the newest bytes win, so pieces do not overlap: they may be written at
//! once, and a block that is written over and over costs one write per batch. Neighbouring
//! data is joined up to a limit.

use base::{BufMut, Osn};

use crate::image::Pending;
use crate::ranges::{Content, Piece, Ranges};

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchCap {
    /// Most writes.
    pub writes_max: usize,
    /// Most payload; one write larger than this is a batch of its own.
    pub bytes_max: u64,
    /// Longest joined piece.
    pub piece_bytes_max: u64,
}

impl Default for BatchCap {
    fn default() -> BatchCap {
        BatchCap { writes_max: 1024, bytes_max: 4 << 20, piece_bytes_max: 1 << 20 }
    }
}

/// Neighbouring pieces that are written with one request.
#[derive(Clone, Debug)]
pub struct Run {
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub length_bytes: u64,
    /// What it holds, by offset: one piece of zeros, or any number of data.
    pub pieces: Vec<Piece>,
}

impl Run {
    /// The zeros it is, if it is zeros: whether they may be punched.
    pub fn zeros(&self) -> Option<bool> {
        match self.pieces.first().map(|piece| &piece.content) {
            Some(Content::Zeros { may_punch }) => Some(*may_punch),
            _ => None,
        }
    }

    /// Its bytes in one aligned buffer: the one copy of destaging (records in the log are
    /// not aligned as direct I/O needs it).
    pub fn gather(&self) -> BufMut {
        let mut buf = BufMut::zeroed(self.length_bytes as usize);
        for piece in &self.pieces {
            let at = (piece.offset_bytes - self.offset_bytes) as usize;
            piece.content.copy_to(&mut buf[at..at + piece.length_bytes as usize]);
        }
        buf
    }
}

/// What is written to the backing store before the next checkpoint.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its last serial: the checkpoint once it is complete and flushed.
    pub last: Osn,
    /// The record of that serial.
    pub last_sequence: journal::Sequence,
    /// Writes in it.
    pub writes: usize,
    /// Payload of its writes, overwritten bytes included.
    pub payload_bytes: u64,
    /// What is written, by offset; no two overlap.
    pub runs: Vec<Run>,
}

/// The next batch of `pending` (in order of serial); none if nothing is pending.
pub fn form<'a>(pending: impl Iterator<Item = &'a Pending>, cap: &BatchCap) -> Option<Batch> {
    let mut newest = Ranges::default();
    let mut batch: Option<Batch> = None;
    for write in pending {
        let formed = batch.get_or_insert(Batch {
            last: write.serial,
            last_sequence: write.sequence,
            writes: 0,
            payload_bytes: 0,
            runs: Vec::new(),
        });
        let bytes = write.payload_bytes();
        let full = formed.writes >= cap.writes_max || formed.payload_bytes + bytes > cap.bytes_max;
        if formed.writes > 0 && full {
            break;
        }
        formed.writes += 1;
        formed.payload_bytes += bytes;
        (formed.last, formed.last_sequence) = (write.serial, write.sequence);
        newest.insert(Piece {
            offset_bytes: write.op.offset_bytes,
            length_bytes: write.op.length_bytes,
            serial: write.serial,
            content: write.op.content.clone(),
        });
    }
    let mut batch = batch?;
    batch.runs = join(newest, cap.piece_bytes_max);
    Some(batch)
}

fn join(newest: Ranges, bytes_max: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for piece in newest.into_pieces() {
        let is_data = matches!(piece.content, Content::Data(_));
        match runs.last_mut() {
            Some(run)
                if is_data
                    && run.zeros().is_none()
                    && run.offset_bytes + run.length_bytes == piece.offset_bytes
                    && run.length_bytes + piece.length_bytes <= bytes_max =>
            {
                run.length_bytes += piece.length_bytes;
                run.pieces.push(piece);
            }
            _ => runs.push(Run {
                offset_bytes: piece.offset_bytes,
                length_bytes: piece.length_bytes,
                pieces: vec![piece],
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Buf, Nanos};
    use journal::Sequence;
    use proptest::prelude::*;

    use crate::op::Op;

    fn writes(drawn: Vec<(u64, u64, u8)>) -> Vec<Pending> {
        let pending = |(index, (offset_bytes, length_bytes, byte)): (usize, (u64, u64, u8))| {
            let content = match byte {
                0 => Content::Zeros { may_punch: false },
                byte => Content::Data(Buf::from(vec![byte; length_bytes as usize])),
            };
            let serial = index as u64 + 1;
            let op = Op { offset_bytes, length_bytes, content };
            Pending { serial: Osn(serial), sequence: Sequence(serial * 2), since: Nanos(0), op }
        };
        drawn.into_iter().enumerate().map(pending).collect()
    }

    proptest! {
        /// Batches one after the other make the disk what the writes one after the other
        /// make it, at each batch's end; in a batch nothing overlaps, in any order of issue;
        /// caps hold.
        ///
        /// Decides R-DST-03, R-DST-04, R-DST-08.
        #[test]
        fn batches_are_capped_do_not_overlap_and_end_at_a_prefix(
            drawn in prop::collection::vec((0_u64..100, 1_u64..28, any::<u8>()), 1..80),
            writes_max in 1_usize..12, bytes_max in 1_u64..100, piece_bytes_max in 28_u64..64,
        ) {
            let cap = BatchCap { writes_max, bytes_max, piece_bytes_max };
            let mut left: std::collections::VecDeque<Pending> = writes(drawn).into();
            let (mut model, mut disk) = (vec![0xee_u8; 128], vec![0xee_u8; 128]);
            while let Some(batch) = form(left.iter(), &cap) {
                let taken: Vec<Pending> = left.drain(..batch.writes).collect();
                prop_assert_eq!(taken.last().unwrap().serial, batch.last);
                prop_assert!(batch.writes <= writes_max);
                prop_assert!(batch.payload_bytes <= bytes_max || batch.writes == 1
                    || taken.iter().filter(|write| write.payload_bytes() > 0).count() == 1);
                for write in &taken {
                    let range = write.range();
                    write.op.content.copy_to(&mut model[range.start as usize..range.end as usize]);
                }
                let mut end = 0;
                for run in &batch.runs {
                    prop_assert!(run.offset_bytes >= end, "pieces overlap");
                    prop_assert!(run.length_bytes <= piece_bytes_max);
                    end = run.offset_bytes + run.length_bytes;
                }
                for run in batch.runs.iter().rev() {
                    let range = run.offset_bytes as usize..(run.offset_bytes + run.length_bytes) as usize;
                    match run.zeros() {
                        Some(_) => disk[range].fill(0),
                        None => disk[range].copy_from_slice(&run.gather()),
                    }
                }
                prop_assert_eq!(&disk, &model);
            }
            prop_assert!(left.is_empty());
        }
    }

    #[test]
    fn a_block_written_over_and_over_costs_one_write() {
        let pending = writes((1..=50).map(|byte| (0, 8, byte)).collect());
        let batch = form(pending.iter(), &BatchCap::default()).unwrap();
        assert_eq!((batch.writes, batch.last, batch.runs.len()), (50, Osn(50), 1));
        assert_eq!(&batch.runs[0].gather()[..], [50; 8]);
    }
}
