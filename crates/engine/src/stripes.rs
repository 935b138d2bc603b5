//! The stripe table: which stripes hold what, and which are free.
//!
//! ```text
//!   free --take--> filling --settle--> written --last object gone--> emptied
//!    ^                                                                 |
//!    +---- next root durable, readers drained ---- retiring <--checkpoint starts
//! ```
//!
//! A stripe emptied since the last durable root is still named by that root, so it is
//! not written again before the next one is durable (`design.md` 11.2). Live bytes of a
//! stripe change only when mappings are applied and when a checkpoint places pages; both
//! exclude each other, so the rows a checkpoint stores are exactly those of its root.

use std::collections::{BTreeMap, BTreeSet};

use raid::{SegmentId, StripeId};

use crate::format::{FormatError, Take};

/// Bytes of an encoded row.
pub const ROW_BYTES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Filling,
    Written,
    Emptied,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    generation: u64,
    live_bytes: u32,
    state: State,
}

const FREE: Row = Row { generation: 0, live_bytes: 0, state: State::Free };

/// What is known of a stripe that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which stripe.
    pub stripe: StripeId,
    /// Generation of its content, 0 if it is free.
    pub generation: u64,
    /// Bytes of live objects in it.
    pub live_bytes: u32,
}

impl Usage {
    /// As stored in a usage object.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stripe.pack().to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.live_bytes.to_le_bytes());
    }

    /// Reads a row.
    pub fn decode(take: &mut Take<'_>) -> Result<Usage, FormatError> {
        Ok(Usage { stripe: StripeId::unpack(take.u64()?), generation: take.u64()?, live_bytes: take.u32()? })
    }

    /// Reads a usage object.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Usage>, FormatError> {
        let mut take = Take(bytes);
        let mut rows = Vec::new();
        while !take.0.is_empty() {
            rows.push(Usage::decode(&mut take)?);
        }
        Ok(rows)
    }
}

/// All stripes of all segments.
#[derive(Default)]
pub struct StripeTable {
    segments: BTreeMap<SegmentId, Vec<Row>>,
    /// Segments that lie on a failed drive: their free stripes are not used.
    closed: BTreeSet<SegmentId>,
    /// Segments of lower ids were opened before the pool was last expanded: their free
    /// stripes are used when no new segment can be opened, or only a narrower one.
    outgrown_below: SegmentId,
    free: BTreeSet<StripeId>,
    emptied: Vec<StripeId>,
    retiring: Vec<StripeId>,
    changed: BTreeSet<StripeId>,
    live_bytes: u64,
    /// Rows in state `Written`.
    written: u64,
}

impl StripeTable {
    /// A segment with `rows` free stripes.
    pub fn add_segment(&mut self, segment: SegmentId, rows: u32) {
        self.segments.insert(segment, vec![FREE; rows as usize]);
        self.free.extend((0..rows).map(|row| StripeId { segment, row }));
    }

    /// Sets what the stored rows say. Unknown stripes are refused.
    pub fn restore(&mut self, usage: Usage) -> Result<(), FormatError> {
        let row = self.segments.get_mut(&usage.stripe.segment).and_then(|rows| rows.get_mut(usage.stripe.row as usize));
        let row = row.ok_or(FormatError("stripe table"))?;
        self.live_bytes = self.live_bytes - u64::from(row.live_bytes) + u64::from(usage.live_bytes);
        self.written = self.written - u64::from(row.state == State::Written) + u64::from(usage.live_bytes > 0);
        if usage.live_bytes == 0 {
            *row = FREE;
            self.free.insert(usage.stripe);
        } else {
            *row = Row { generation: usage.generation, live_bytes: usage.live_bytes, state: State::Written };
            self.free.remove(&usage.stripe);
        }
        Ok(())
    }

    fn row(&mut self, stripe: StripeId) -> &mut Row {
        let rows = self.segments.get_mut(&stripe.segment).expect("a stripe in use belongs to a segment");
        &mut rows[stripe.row as usize]
    }

    /// Takes a free stripe to fill it: one of a healthy segment that lies on all drives, or
    /// with `any` the best there is.
    pub fn take(&mut self, generation: u64, any: bool) -> Option<StripeId> {
        let closed = &self.closed;
        let healthy = |stripe: &&StripeId| !closed.contains(&stripe.segment);
        let first = StripeId { segment: self.outgrown_below, row: 0 };
        let best = self.free.range(first..).find(healthy);
        let stripe = match best {
            None if any => self.free.iter().find(healthy).or_else(|| self.free.first()),
            best => best,
        };
        let stripe = *stripe?;
        self.free.remove(&stripe);
        *self.row(stripe) = Row { generation, live_bytes: 0, state: State::Filling };
        Some(stripe)
    }

    /// The segment of a free stripe on healthy drives of before the last expansion.
    pub fn free_outgrown(&self) -> Option<SegmentId> {
        let end = StripeId { segment: self.outgrown_below, row: 0 };
        let mut segments = self.free.range(..end).map(|stripe| stripe.segment);
        segments.find(|segment| !self.closed.contains(segment))
    }

    /// The stripe is written and the mappings of its objects are applied.
    pub fn settle(&mut self, stripe: StripeId) {
        let row = self.row(stripe);
        row.state = State::Written;
        self.written += 1;
        let row = self.row(stripe);
        let empty = row.live_bytes == 0;
        self.changed.insert(stripe);
        if empty {
            self.empty(stripe);
        }
    }

    fn empty(&mut self, stripe: StripeId) {
        self.row(stripe).state = State::Emptied;
        self.written -= 1;
        self.emptied.push(stripe);
    }

    /// An object of `bytes` in the stripe is referenced from now on.
    pub fn add_live(&mut self, stripe: StripeId, bytes: u32) {
        self.row(stripe).live_bytes += bytes;
        self.live_bytes += u64::from(bytes);
        self.changed.insert(stripe);
    }

    /// An object of `bytes` in the stripe is referenced no more.
    pub fn sub_live(&mut self, stripe: StripeId, bytes: u32) {
        let row = self.row(stripe);
        row.live_bytes = row.live_bytes.checked_sub(bytes).expect("live bytes cover every referenced object");
        let emptied = row.live_bytes == 0 && row.state == State::Written;
        self.live_bytes -= u64::from(bytes);
        self.changed.insert(stripe);
        if emptied {
            self.empty(stripe);
        }
    }

    /// Rows changed since the last call, as they are now.
    pub fn take_changed(&mut self) -> Vec<Usage> {
        std::mem::take(&mut self.changed).into_iter().map(|stripe| self.usage(stripe)).collect()
    }

    /// The next checkpoint stores these rows, whether they change or not.
    pub fn mark_changed(&mut self, stripes: impl IntoIterator<Item = StripeId>) {
        self.changed.extend(stripes);
    }

    /// The rows that [`take_changed`](StripeTable::take_changed) would take; they stay
    /// to be taken.
    pub fn changed(&self) -> Vec<Usage> {
        self.changed.iter().copied().map(|stripe| self.usage(stripe)).collect()
    }

    /// How many rows [`changed`](StripeTable::changed) has.
    pub fn changed_count(&self) -> usize {
        self.changed.len()
    }

    /// Rows that hold something.
    pub fn used(&self) -> impl Iterator<Item = Usage> {
        self.used_from(StripeId { segment: SegmentId(0), row: 0 })
    }

    /// Of these, the ones from stripe `from` on.
    pub fn used_from(&self, from: StripeId) -> impl Iterator<Item = Usage> {
        self.segments.range(from.segment..).flat_map(move |(&segment, rows)| {
            let first = if segment == from.segment { from.row as usize } else { 0 };
            let used = rows.iter().zip(0u32..).skip(first).filter(|(row, _)| row.live_bytes > 0);
            used.map(move |(row, number)| Usage {
                stripe: StripeId { segment, row: number },
                generation: row.generation,
                live_bytes: row.live_bytes,
            })
        })
    }

    /// Stripes that are written and hold something, with their generations.
    pub fn written(&self) -> Vec<(StripeId, u64)> {
        let rows = self.segments.iter().flat_map(|(&segment, rows)| {
            rows.iter()
                .zip(0u32..)
                .filter(|(row, _)| row.state == State::Written)
                .map(move |(row, number)| (StripeId { segment, row: number }, row.generation))
        });
        rows.collect()
    }

    /// Stripes whose content somebody may still refer to, the durable root included, with
    /// their generations, in order.
    pub fn settled(&self) -> impl Iterator<Item = (StripeId, u64)> + '_ {
        self.segments.iter().flat_map(|(&segment, rows)| {
            rows.iter()
                .zip(0u32..)
                .filter(|(row, _)| matches!(row.state, State::Written | State::Emptied))
                .map(move |(row, number)| (StripeId { segment, row: number }, row.generation))
        })
    }

    /// Generation of the content of `stripe`, if it is written and holds something.
    pub fn written_generation(&self, stripe: StripeId) -> Option<u64> {
        let row = self.segments.get(&stripe.segment)?.get(stripe.row as usize)?;
        (row.state == State::Written).then_some(row.generation)
    }

    /// The first written stripe at `from` or behind it.
    pub fn next_written(&self, from: StripeId) -> Option<StripeId> {
        self.segments.range(from.segment..).find_map(|(&segment, rows)| {
            let first = if segment == from.segment { from.row as usize } else { 0 };
            let found = (first..rows.len()).find(|&row| rows[row].state == State::Written)?;
            Some(StripeId { segment, row: found as u32 })
        })
    }

    /// Written stripes that hold something.
    pub fn written_count(&self) -> u64 {
        self.written
    }

    /// Generation of the content of `stripe`, if it is settled.
    pub fn settled_generation(&self, stripe: StripeId) -> Option<u64> {
        let row = self.segments.get(&stripe.segment)?.get(stripe.row as usize)?;
        matches!(row.state, State::Written | State::Emptied).then_some(row.generation)
    }

    /// The row as it is stored. Of a segment that was given back nothing is left, and that is
    /// stored, too: older rows of it may stand in the table.
    fn usage(&self, stripe: StripeId) -> Usage {
        let rows = self.segments.get(&stripe.segment);
        let row = rows.and_then(|rows| rows.get(stripe.row as usize)).copied().unwrap_or(FREE);
        let generation = if row.live_bytes == 0 { 0 } else { row.generation };
        Usage { stripe, generation, live_bytes: row.live_bytes }
    }

    /// A checkpoint starts: what was emptied until now is free once its root is durable.
    pub fn begin_retire(&mut self) {
        self.retiring.append(&mut self.emptied);
    }

    /// That root is durable and no reader knows the old places.
    pub fn finish_retire(&mut self) {
        for stripe in std::mem::take(&mut self.retiring) {
            *self.row(stripe) = FREE;
            self.free.insert(stripe);
        }
    }

    /// Sets which segments lie on a failed drive.
    pub fn set_closed(&mut self, closed: impl IntoIterator<Item = SegmentId>) {
        self.closed = closed.into_iter().collect();
    }

    /// Segments of lower ids than `segment` leave out drives that have joined since.
    pub fn outgrow(&mut self, segment: SegmentId) {
        self.outgrown_below = self.outgrown_below.max(segment);
    }

    /// Free stripes. Those of closed segments count: they are used when nothing else is
    /// left, since a stripe with a unit missing is better than none.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Stripes that become free with the next checkpoint.
    pub fn emptied_count(&self) -> usize {
        self.emptied.len()
    }

    /// Live bytes in all stripes.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Up to `count` written stripes with the fewest live bytes, those of closed segments
    /// first, all below the `limit_bytes` of their segment unless closed.
    pub fn victims(&self, count: usize, limit_bytes: impl Fn(SegmentId) -> u32) -> Vec<Usage> {
        let mut found: Vec<(bool, Usage)> = Vec::new();
        for (&segment, rows) in &self.segments {
            let open = !self.closed.contains(&segment);
            let limit_bytes = limit_bytes(segment);
            for (row, number) in rows.iter().zip(0u32..) {
                if row.state == State::Written && (row.live_bytes < limit_bytes || !open) {
                    let stripe = StripeId { segment, row: number };
                    found.push((open, Usage { stripe, generation: row.generation, live_bytes: row.live_bytes }));
                }
            }
        }
        found.sort_by_key(|(open, usage)| (*open, usage.live_bytes));
        found.into_iter().take(count).map(|(_, usage)| usage).collect()
    }

    /// Closed and outgrown segments all of whose stripes are free: their extents serve better
    /// in new segments, without the failed drive, or with the drives that have joined.
    pub fn idle_segments(&self) -> Vec<SegmentId> {
        let is_idle = |segment: &SegmentId| {
            self.segments.get(segment).is_some_and(|rows| rows.iter().all(|row| row.state == State::Free))
        };
        let outgrown = self.segments.range(..self.outgrown_below).map(|(segment, _)| segment);
        let candidates: BTreeSet<SegmentId> = self.closed.iter().chain(outgrown).copied().collect();
        candidates.into_iter().filter(is_idle).collect()
    }

    /// The segment was given back to the group.
    pub fn remove_segment(&mut self, segment: SegmentId) {
        self.segments.remove(&segment);
        self.closed.remove(&segment);
        self.free.retain(|stripe| stripe.segment != segment);
    }

    /// Segments that the table knows.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> StripeTable {
        let mut table = StripeTable::default();
        table.add_segment(SegmentId(1), 2);
        table
    }

    #[test]
    fn an_emptied_stripe_is_free_only_after_the_next_root() {
        let mut table = table();
        let stripe = table.take(7, false).unwrap();
        table.add_live(stripe, 100);
        table.settle(stripe);
        table.sub_live(stripe, 100);
        assert_eq!((table.free_count(), table.emptied_count()), (1, 1));
        table.begin_retire();
        assert_eq!(table.free_count(), 1, "the old root still names it");
        table.finish_retire();
        assert_eq!((table.free_count(), table.settled_generation(stripe)), (2, None));
    }

    #[test]
    fn a_stripe_that_nothing_of_was_kept_is_emptied_when_it_settles() {
        let mut table = table();
        let stripe = table.take(7, false).unwrap();
        table.add_live(stripe, 8);
        table.sub_live(stripe, 8);
        assert_eq!(table.emptied_count(), 0, "its mappings are still being applied");
        table.settle(stripe);
        assert_eq!(table.emptied_count(), 1);
    }

    /// An older row of such a segment may stand in the table; what says that it is over must not
    /// be lost when the object that says so is left.
    #[test]
    fn of_a_segment_that_was_given_back_it_is_stored_that_nothing_is_left() {
        let mut table = table();
        let stripe = StripeId { segment: SegmentId(1), row: 1 };
        let nothing = vec![Usage { stripe, generation: 0, live_bytes: 0 }];
        table.mark_changed([stripe]);
        table.remove_segment(SegmentId(1));
        assert_eq!(table.take_changed(), nothing, "marked before");
        table.mark_changed([stripe]);
        assert_eq!(table.take_changed(), nothing, "and marked behind");
    }

    #[test]
    fn rows_restore_to_what_was_stored_and_closed_segments_go_first() {
        let mut table = table();
        table.add_segment(SegmentId(2), 2);
        for live in [100, 300] {
            let stripe = table.take(live, false).unwrap();
            table.add_live(stripe, live as u32);
            table.settle(stripe);
        }
        let mut bytes = Vec::new();
        table.take_changed().iter().for_each(|row| row.encode(&mut bytes));
        let mut again = StripeTable::default();
        again.add_segment(SegmentId(1), 2);
        Usage::decode_all(&bytes).unwrap().into_iter().for_each(|row| again.restore(row).unwrap());
        assert!(again.used().eq(table.used()));
        assert_eq!((again.live_bytes(), again.free_count()), (400, 0));
        assert_eq!(table.victims(9, |_| 200).len(), 1);
        table.set_closed([SegmentId(1)]);
        assert_eq!(table.victims(9, |_| 200).len(), 2, "stripes on failed drives go whatever they hold");
        assert_eq!(table.take(9, false).unwrap().segment, SegmentId(2));
        table.set_closed([SegmentId(1), SegmentId(2)]);
        assert_eq!(table.take(9, false), None);
        assert!(table.take(9, true).is_some(), "better degraded than not at all");
    }

    #[test]
    fn free_stripes_of_outgrown_segments_come_after_new_segments_and_before_degraded_ones() {
        let mut table = table();
        table.add_segment(SegmentId(2), 1);
        let live = table.take(1, false).unwrap();
        table.add_live(live, 8);
        table.settle(live);
        table.set_closed([SegmentId(2)]);
        table.outgrow(SegmentId(3));
        assert_eq!(table.take(2, false), None, "a new segment first");
        assert_eq!(table.idle_segments(), [SegmentId(2)]);
        table.add_segment(SegmentId(3), 1);
        assert_eq!(table.take(3, false).unwrap().segment, SegmentId(3));
        assert_eq!(table.take(4, true).unwrap().segment, SegmentId(1));
        assert_eq!(table.take(5, true).unwrap().segment, SegmentId(2));
    }
}
