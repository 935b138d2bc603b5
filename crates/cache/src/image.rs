//! What is dirty: writes in the log that the backing store does not hold for certain.

use std::collections::VecDeque;
use std::ops::Range;

use base::{Nanos, Osn};
use journal::Sequence;

use crate::op::Op;
use crate::ranges::{Piece, Ranges};

/// A write that stands in the log.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its serial.
    pub serial: Osn,
    /// Its record.
    pub sequence: Sequence,
    /// When it became stable here.
    pub since: Nanos,
    /// What it changes.
    pub op: Op,
}

impl Pending {
    /// The range it changes.
    pub fn range(&self) -> Range<u64> {
        self.op.offset_bytes..self.op.offset_bytes + self.op.length_bytes
    }

    /// Bytes of payload.
    pub fn payload_bytes(&self) -> u64 {
        match self.op.content {
            crate::ranges::Content::Data(_) => self.op.length_bytes,
            crate::ranges::Content::Zeros { .. } => 0,
        }
    }
}

/// The dirty image of a disk. Payload is the log's memory, not a copy.
#[derive(Default)]
pub struct DirtyImage {
    pending: VecDeque<Pending>,
    newest: Ranges,
    payload_bytes: u64,
}

impl DirtyImage {
    /// Adds the next write.
    pub fn push(&mut self, write: Pending) {
        assert!(self.pending.back().is_none_or(|last| last.serial < write.serial), "C1: in order of serial");
        self.newest.insert(Piece {
            offset_bytes: write.op.offset_bytes,
            length_bytes: write.op.length_bytes,
            serial: write.serial,
            content: write.op.content.clone(),
        });
        self.payload_bytes += write.payload_bytes();
        self.pending.push_back(write);
    }

    /// Lets go of everything up to `through`, which the backing store holds and a durable
    /// checkpoint names (C3).
    pub fn evict(&mut self, through: Osn) {
        while self.pending.front().is_some_and(|write| write.serial <= through) {
            let write = self.pending.pop_front().expect("just seen");
            self.payload_bytes -= write.payload_bytes();
            self.newest.remove_through(write.range(), through);
        }
        assert!(!self.pending.is_empty() || self.newest.is_empty(), "nothing is dirty without a write");
    }

    /// Dirty pieces inside `range`.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        self.newest.overlapping(range)
    }

    /// Writes in order of serial.
    pub fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    /// The newest serial in it.
    pub fn last(&self) -> Option<Osn> {
        self.pending.back().map(|write| write.serial)
    }

    /// The oldest write.
    pub fn oldest(&self) -> Option<&Pending> {
        self.pending.front()
    }

    /// Number of writes.
    pub fn writes(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of payload, overwritten ones included.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}
