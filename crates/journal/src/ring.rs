//! The machine that decides where records go, when they are stable and what is free.
//! Numbers in, numbers out: it touches no bytes and waits for nothing.
//!
//! # The line
//!
//! Batches have numbers in the order of the ring. All cursors lie on one line:
//!
//! ```text
//!  anchor          stable   durable(leg)   submitted    sealed    open
//!    |---------------|---------|---------------|----------|--------|
//!    oldest batch    acknowledgeable           written to          being filled
//!    kept in ring    (on all active legs,      the legs
//!                    and the root agrees)
//! ```
//!
//! * I1 `anchor <= stable <= durable(leg) <= submitted <= sealed` for each active leg.
//! * I2 batches follow each other without a gap in sequence and in position.
//! * I3 from the anchor's position to the head is at most the ring.
//! * I4 nothing becomes stable while the root names a leg that is not written: that leg
//!   could come back alone and be taken for the whole truth.
//! * I5 the trim never passes what is stable; the anchor holds the trimmed record.

use std::collections::VecDeque;
use std::ops::Range;

use crate::format::{BLOCK_BYTES, LINE_BYTES, TrimPoint};
use crate::record::Sequence;

/// Most legs of a journal.
pub const LEGS_MAX: usize = 2;
/// Most legs in the life of an open journal, those that were lost included.
const LEGS_EVER_MAX: usize = 8;
/// Room that only seals may use: one written when idle, one when opening. A crash loop
/// on a full ring does not eat more: a proven tail is not sealed again.
pub const SEAL_RESERVE_BYTES: u64 = 4 * BLOCK_BYTES;

/// A batch in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMark {
    /// Its first record.
    pub first: Sequence,
    /// Its last record.
    pub last: Sequence,
    /// Where it starts (laps included).
    pub position_bytes: u64,
    /// Its length, whole blocks.
    pub length_bytes: u64,
    /// Digest of the record before it.
    pub previous: u64,
}

/// The batch being filled.
#[derive(Clone, Copy, Debug)]
struct OpenMark {
    first: Sequence,
    used_bytes: u64,
}

/// Where a record was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its sequence.
    pub sequence: Sequence,
    /// Where in the open batch it starts.
    pub batch_offset_bytes: u64,
}

#[derive(Clone, Debug)]
struct LegCursor {
    active: bool,
    /// Number of the first batch not known durable here.
    durable: u64,
}

/// See the head of the file.
pub struct Ring {
    ring_bytes: u64,
    /// Batches from the anchor to the last sealed one.
    batches: VecDeque<(BatchMark, u8)>,
    /// Number of `batches[0]`.
    anchor: u64,
    stable: u64,
    submitted: u64,
    open: Option<OpenMark>,
    head_position_bytes: u64,
    next: Sequence,
    trimmed: Sequence,
    stable_through: Sequence,
    legs: Vec<LegCursor>,
    /// Legs the root names, as bits; `None` while it names one we do not have.
    root_legs: Option<u8>,
}

impl Ring {
    /// A ring whose `batches` (never empty; the first is the anchor) are durable on
    /// all `legs`, trimmed through `trimmed`.
    pub fn new(ring_bytes: u64, batches: Vec<BatchMark>, trimmed: Sequence, legs: usize) -> Ring {
        let last = *batches.last().expect("a ring is born with its anchor");
        let count = batches.len() as u64;
        assert!((1..=LEGS_MAX).contains(&legs), "one or two legs");
        let all = (1_u8 << legs) - 1;
        let ring = Ring {
            ring_bytes,
            batches: batches.into_iter().map(|mark| (mark, all)).collect(),
            anchor: 0,
            stable: count,
            submitted: count,
            open: None,
            head_position_bytes: last.position_bytes + last.length_bytes,
            next: last.last.next(),
            trimmed,
            stable_through: last.last,
            legs: vec![LegCursor { active: true, durable: count }; legs],
            root_legs: Some(all),
        };
        ring.check();
        ring
    }

    /// Asserts I1 to I5. Cheap enough for every step.
    pub fn check(&self) {
        let sealed = self.sealed();
        assert!(self.anchor <= self.stable && self.stable <= self.submitted && self.submitted <= sealed, "I1");
        for leg in self.legs.iter().filter(|leg| leg.active) {
            assert!(self.stable <= leg.durable && leg.durable <= self.submitted, "I1");
        }
        assert!(self.head_position_bytes - self.anchor_mark().position_bytes <= self.ring_bytes, "I3");
        let anchor = self.anchor_mark();
        assert!(anchor.first.0 <= self.trimmed.0 + 1 && self.trimmed <= self.stable_through, "I5");
        let mut newest = self.batches.iter().rev();
        if let (Some((last, _)), Some((before, _))) = (newest.next(), newest.next()) {
            assert_eq!(before.last.next(), last.first, "I2");
            assert_eq!(before.position_bytes + before.length_bytes, last.position_bytes, "I2");
        }
    }

    fn anchor_mark(&self) -> &BatchMark {
        &self.batches.front().expect("the anchor is kept").0
    }

    fn sealed(&self) -> u64 {
        self.anchor + self.batches.len() as u64
    }

    /// Room for records, in bytes of whole blocks; the seals' reserve is not in it.
    pub fn free_bytes(&self) -> u64 {
        self.free_for_seal_bytes().saturating_sub(SEAL_RESERVE_BYTES)
    }

    /// Room for a seal.
    pub fn free_for_seal_bytes(&self) -> u64 {
        let open = self.open.map_or(0, |open| open.used_bytes.next_multiple_of(BLOCK_BYTES));
        self.ring_bytes - (self.head_position_bytes - self.anchor_mark().position_bytes) - open
    }

    /// Bytes between the anchor and the head.
    pub fn fill_bytes(&self) -> u64 {
        self.ring_bytes - self.free_for_seal_bytes()
    }

    /// Size of the ring.
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// Whether a record of `record_bytes` finds room in the ring now.
    pub fn has_room(&self, record_bytes: u64) -> bool {
        let used = self.open_bytes();
        let grows = (used + record_bytes).next_multiple_of(BLOCK_BYTES) - used.next_multiple_of(BLOCK_BYTES);
        grows <= self.free_bytes()
    }

    /// Puts a record of `record_bytes` (lines) at the end of the open batch. The
    /// caller has asked for the room.
    pub fn accept(&mut self, record_bytes: u64) -> Placed {
        assert!(record_bytes.is_multiple_of(LINE_BYTES), "records are whole lines");
        let next = self.next;
        let open = self.open.get_or_insert(OpenMark { first: next, used_bytes: 0 });
        let placed = Placed { sequence: next, batch_offset_bytes: open.used_bytes };
        open.used_bytes += record_bytes;
        self.next = next.next();
        placed
    }

    /// Bytes of records in the open batch; 0 without one.
    pub fn open_bytes(&self) -> u64 {
        self.open.map_or(0, |open| open.used_bytes)
    }

    /// Closes the open batch: it has a place and an extent now.
    pub fn seal(&mut self) {
        let open = self.open.take().expect("there is an open batch to seal");
        let mark = BatchMark {
            first: open.first,
            last: self.next.before(),
            position_bytes: self.head_position_bytes,
            length_bytes: open.used_bytes.next_multiple_of(BLOCK_BYTES),
            previous: 0,
        };
        self.head_position_bytes += mark.length_bytes;
        self.batches.push_back((mark, 0));
        self.check();
    }

    /// The oldest batch that is sealed and not submitted.
    pub fn to_submit(&self) -> Option<(u64, BatchMark)> {
        let mark = self.batches.get((self.submitted - self.anchor) as usize)?;
        Some((self.submitted, mark.0))
    }

    /// The batch from [`to_submit`](Ring::to_submit) is on its way to every active leg.
    pub fn submitted(&mut self, previous: u64) {
        let index = (self.submitted - self.anchor) as usize;
        self.batches[index].0.previous = previous;
        self.submitted += 1;
        self.check();
    }

    /// Batches on their way.
    pub fn in_flight(&self) -> u64 {
        self.submitted - self.durable()
    }

    /// First batch not durable on every active leg.
    fn durable(&self) -> u64 {
        self.legs.iter().filter(|leg| leg.active).map(|leg| leg.durable).min().unwrap_or(self.stable)
    }

    /// Leg `leg` has `batch` durably. Returns the batches that are stable now.
    pub fn completed(&mut self, leg: usize, batch: u64) -> Range<u64> {
        if !self.legs[leg].active {
            return self.stable..self.stable;
        }
        self.batches[(batch - self.anchor) as usize].1 |= 1 << leg;
        while let Some((_, done)) = self.batches.get((self.legs[leg].durable - self.anchor) as usize)
            && self.legs[leg].durable < self.submitted
            && done & 1 << leg != 0
        {
            self.legs[leg].durable += 1;
        }
        self.settle()
    }

    /// Leg `leg` failed: it is not written any more.
    pub fn lost(&mut self, leg: usize) -> Range<u64> {
        self.legs[leg].active = false;
        self.settle()
    }

    /// Whether there is place for another leg.
    pub fn may_join(&self) -> bool {
        (self.active().count_ones() as usize) < LEGS_MAX && self.legs.len() < LEGS_EVER_MAX
    }

    /// A new leg holds every batch that was submitted; none is in flight.
    pub fn join(&mut self) {
        assert!(self.may_join() && self.in_flight() == 0, "a leg joins when nothing is in flight");
        self.legs.push(LegCursor { active: true, durable: self.submitted });
        self.check();
    }

    /// The first stable batch whose number is at least `from`.
    pub fn stable_from(&self, from: u64) -> Option<(u64, BatchMark)> {
        self.batch_from(from, self.stable)
    }

    /// The first batch durable on every active leg whose number is at least `from`.
    pub fn durable_from(&self, from: u64) -> Option<(u64, BatchMark)> {
        self.batch_from(from, self.durable())
    }

    fn batch_from(&self, from: u64, end: u64) -> Option<(u64, BatchMark)> {
        let number = from.max(self.anchor);
        (number < end).then(|| (number, self.batches[(number - self.anchor) as usize].0))
    }

    /// The durable root names exactly the legs in `legs` (bits), or with `None` a leg
    /// that this journal does not have.
    pub fn root_recorded(&mut self, legs: Option<u8>) -> Range<u64> {
        self.root_legs = legs;
        self.settle()
    }

    /// Whether the root names only legs that are written (I4).
    pub fn root_agrees(&self) -> bool {
        self.root_legs.is_some_and(|named| named & !self.active() == 0)
    }

    /// Active legs as bits.
    pub fn active(&self) -> u8 {
        self.legs.iter().enumerate().filter(|(_, leg)| leg.active).fold(0, |bits, (index, _)| bits | 1 << index)
    }

    fn settle(&mut self) -> Range<u64> {
        let before = self.stable;
        if self.root_agrees() && self.active() != 0 {
            self.stable = self.durable().max(before);
            let last = self.batches.get((self.stable - self.anchor) as usize - 1).expect("stable batches are kept");
            self.stable_through = last.0.last;
        }
        self.check();
        before..self.stable
    }

    /// Highest stable sequence.
    pub fn stable_through(&self) -> Sequence {
        self.stable_through
    }

    /// The sequence the next record will get.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Highest trimmed sequence.
    pub fn trimmed_through(&self) -> Sequence {
        self.trimmed
    }

    /// What the root must say so that everything up to `through` may be overwritten.
    /// `through` is stable and not before the last trim.
    pub fn trim_point_for(&self, through: Sequence) -> TrimPoint {
        assert!(self.trimmed <= through && through <= self.stable_through, "I5");
        let (mark, _) = self.batches[self.index_of(through)];
        TrimPoint {
            through,
            anchor_first: mark.first,
            anchor_position_bytes: mark.position_bytes,
            anchor_previous: mark.previous,
        }
    }

    /// Index of the batch with `sequence`.
    fn index_of(&self, sequence: Sequence) -> usize {
        self.batches.partition_point(|(mark, _)| mark.last < sequence)
    }

    /// Frees what lies before the batch with `through`. The root that says so is durable.
    pub fn trim(&mut self, through: Sequence) {
        assert!(through <= self.stable_through, "I5");
        if through <= self.trimmed {
            return;
        }
        let keep_from = self.index_of(through);
        self.batches.drain(..keep_from);
        self.anchor += keep_from as u64;
        self.trimmed = through;
        self.check();
    }
}
