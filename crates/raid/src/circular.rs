//! The order of a rebuild: one cursor for the whole group (R-REB-01 to -03, `protocols.md`
//! C.6). Pure: it reads and writes nothing.
//!
//! ```text
//!   stripes    0 ─────────────── 300 ─────────────────────────── 999
//!   drive 7    ●═══════════════════════════════════════════════▶ done
//!   drive 9                      ●══ one read serves both ══════▶
//!   drive 9    ═══════════════▶ done          (the cursor goes round)
//! ```
//!
//! A drive joins where the cursor is. A drive is done when the cursor is back where it
//! joined. So two drives that fail one after the other cost one pass and a bit, not two.
//!
//! The record of it (a named blob) says where the cursor is and who joined where; from it
//! and the table of stripes follows after a restart which units are still owed. It may lag
//! behind: then a few units are rebuilt twice, which changes nothing.

use std::collections::BTreeMap;

use base::id::DriveId;

use crate::fields::{Reader, Writer};
use crate::layout::{DRIVES_MAX, Slot, StripeId};

const FORMAT: u16 = 1;

/// A drive that takes part in the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The drive; another one in its slot has joined on its own.
    pub drive: DriveId,
    /// Where the cursor was when it joined.
    pub start: StripeId,
    /// Stripes of this generation or newer were written with the drive in its place.
    pub from_generation: u64,
    /// Units of older generations than this were on the drive when it joined: it was a
    /// member before. 0 for a drive that was blank.
    pub whole_below: u64,
    /// Units it owed when it joined.
    pub units: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circular {
    /// The next stripe to look at.
    pub cursor: StripeId,
    /// Raised when the pass is taken up again after a restart.
    pub pass: u32,
    /// Who takes part.
    pub joined: BTreeMap<Slot, Joined>,
}

impl Circular {
    /// Lets the drive in `slot` take part from the cursor on.
    pub fn join(&mut self, slot: Slot, joined: Joined) {
        self.joined.insert(slot, Joined { start: self.cursor, ..joined });
    }

    /// The drive in `slot` is done, or failed.
    pub fn leave(&mut self, slot: Slot) {
        self.joined.remove(&slot);
    }

    /// The cursor moves behind `done`.
    pub fn pass(&mut self, done: StripeId) {
        self.cursor = StripeId { row: done.row + 1, ..done };
    }

    /// The next stripe of those that `next_from` finds in ascending order, going round at
    /// the end.
    pub fn next(&self, next_from: impl Fn(StripeId) -> Option<StripeId>) -> Option<StripeId> {
        next_from(self.cursor).or_else(|| next_from(StripeId::default()))
    }

    /// Whether the cursor has been over `id` since the drive in `slot` joined.
    pub fn has_passed(&self, slot: Slot, id: StripeId) -> bool {
        let Some(joined) = self.joined.get(&slot) else { return false };
        if joined.start <= self.cursor {
            joined.start <= id && id < self.cursor
        } else {
            id >= joined.start || id < self.cursor
        }
    }

    /// Whether the drive in `slot` owes its unit of `id`, whose content has `generation`.
    pub fn owes(&self, slot: Slot, id: StripeId, generation: u64) -> bool {
        let Some(joined) = self.joined.get(&slot) else { return true };
        generation >= joined.whole_below && generation < joined.from_generation && !self.has_passed(slot, id)
    }

    /// As stored in the blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(FORMAT);
        out.u32(self.pass);
        out.u64(self.cursor.pack());
        out.u8(u8::try_from(self.joined.len()).expect("at most 32 drives"));
        for (slot, joined) in &self.joined {
            out.u8(slot.0);
            out.raw(&joined.drive.0);
            out.u64(joined.start.pack());
            out.u64(joined.from_generation);
            out.u64(joined.whole_below);
            out.u64(joined.units);
        }
        out.bytes
    }

    /// Reads a blob. Never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Option<Circular> {
        let mut input = Reader::new(bytes);
        if input.u16()? != FORMAT {
            return None;
        }
        let (pass, cursor) = (input.u32()?, StripeId::unpack(input.u64()?));
        let mut joined = BTreeMap::new();
        for _ in 0..input.u8()? {
            let slot = Slot(input.u8()?);
            let drive = DriveId(input.array()?);
            let start = StripeId::unpack(input.u64()?);
            let (from_generation, whole_below, units) = (input.u64()?, input.u64()?, input.u64()?);
            if usize::from(slot.0) >= DRIVES_MAX {
                return None;
            }
            joined.insert(slot, Joined { drive, start, from_generation, whole_below, units });
        }
        Some(Circular { cursor, pass, joined })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::layout::SegmentId;

    fn stripe(number: u32) -> StripeId {
        StripeId { segment: SegmentId(1 + number / 100), row: number % 100 }
    }

    fn new(drive: u8) -> Joined {
        let drive = DriveId([drive; 16]);
        Joined { drive, start: StripeId::default(), from_generation: 9, whole_below: 0, units: 1000 }
    }

    /// Runs the pass over what the drives owe; a second drive joins after `joins_after`.
    /// Returns the stripes in the order they were read.
    fn trace(joins_after: usize) -> Vec<StripeId> {
        let all: BTreeSet<StripeId> = (0..1000).map(stripe).collect();
        let mut owed: BTreeMap<Slot, BTreeSet<StripeId>> = BTreeMap::from([(Slot(7), all.clone())]);
        let mut order = Circular::default();
        order.join(Slot(7), new(7));
        let mut read = Vec::new();
        loop {
            if read.len() == joins_after {
                order.join(Slot(9), new(9));
                owed.insert(Slot(9), all.clone());
            }
            let next = order.next(|from| owed.values().filter_map(|set| set.range(from..).next()).min().copied());
            let Some(next) = next else { return read };
            // Back where it joined a drive is done and leaves; only who is not done is asked.
            for (slot, set) in owed.iter_mut().filter(|(_, set)| !set.is_empty()) {
                assert_eq!(set.remove(&next), order.owes(*slot, next, 5), "{next} for {slot:?}");
            }
            read.push(next);
            order.pass(next);
            let again = Circular::decode(&order.encode()).expect("what was encoded");
            assert_eq!(again, order);
            for (slot, set) in &owed {
                let follows: BTreeSet<StripeId> = all.iter().copied().filter(|id| again.owes(*slot, *id, 5)).collect();
                assert!(set.is_empty() || follows == *set, "after {next}: {slot:?} owes what the blob says");
            }
        }
    }

    /// Decides R-REB-01.
    #[test]
    fn a_drive_that_joins_at_300_is_served_from_there_and_round_to_299() {
        let read = trace(300);
        let expected: Vec<StripeId> = (0..1000).chain(0..300).map(stripe).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn one_drive_is_one_pass() {
        assert_eq!(trace(usize::MAX).len(), 1000);
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut order = Circular::default();
        order.join(Slot(3), new(3));
        let bytes = order.encode();
        for cut in 0..bytes.len() {
            assert_eq!(Circular::decode(&bytes[..cut]), None);
        }
    }
}
