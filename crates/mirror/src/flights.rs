//! The in-flight map: ranges that may differ between the sites (R-REPL-13, R-REPL-16).
//!
//! ```text
//!   OSN   1 2 3 4 5 6 7 8 9
//!         ▔▔▔▔▔▔▔│· x · · x          x  in the map: not known to be on both sites
//!                └ low water: nothing up to here is in flight
//! ```
//!
//! Each site has one, as durable as the writes it lists: an entry comes into being with the
//! record of its write, and when that record leaves the journal for the store's trees the
//! entry goes along in the same commit. Invariant I1: whatever can differ between two sites
//! that are in sync is in the map of one or the other.
//!
//! *Bound.* The primary starts no write while its map is full, and every message says its low
//! water, so the secondary's map is never larger than the primary's was. The bound is what a
//! recovery has to send at most; see [`FlightsMax`].

use std::collections::BTreeMap;

use base::{MediaCheck, Osn};

use crate::operation::{Span, WRITE_BYTES_MAX};

/// One write that may be on one side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// The operation.
    pub osn: Osn,
    /// Its range.
    pub span: Span,
    /// Check of its bytes, seeded with the OSN.
    pub check: MediaCheck,
}

/// How much may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightsMax {
    /// Entries.
    pub count: usize,
    /// Bytes of their ranges: what a recovery reads and sends. At a gigabit per second 64 MiB
    /// are half a second, and well above what a round trip of 10 ms keeps in flight.
    pub bytes: u64,
}

impl Default for FlightsMax {
    fn default() -> Self {
        Self { count: 4096, bytes: 64 << 20 }
    }
}

/// The map of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flights {
    entries: BTreeMap<Osn, (Span, MediaCheck)>,
    bytes: u64,
    low_water: Osn,
}

impl Flights {
    /// A write is under way.
    pub fn insert(&mut self, flight: Flight) {
        if flight.osn <= self.low_water {
            return;
        }
        let before = self.entries.insert(flight.osn, (flight.span, flight.check));
        self.bytes += flight.span.length_bytes;
        self.bytes -= before.map_or(0, |(span, _)| span.length_bytes);
    }

    /// A range is given the authority's content: whatever was in flight within it is covered by
    /// this one entry. So recoveries that are cut off again and again do not make a map grow.
    pub fn cover(&mut self, flight: Flight) {
        let span = flight.span;
        let within = |one: &Span| {
            one.file == span.file && one.offset_bytes >= span.offset_bytes && one.end_bytes() <= span.end_bytes()
        };
        self.entries.retain(|_, (one, _)| !within(one));
        self.bytes = self.entries.values().map(|(span, _)| span.length_bytes).sum();
        self.insert(flight);
    }

    /// Nothing up to `low_water` is in flight any more. Never goes back.
    pub fn settle_through(&mut self, low_water: Osn) {
        if low_water <= self.low_water {
            return;
        }
        self.low_water = low_water;
        let above = self.entries.split_off(&low_water.next());
        self.bytes = above.values().map(|(span, _)| span.length_bytes).sum();
        self.entries = above;
    }

    /// Nothing up to here is in flight: what differs there is in the delta of a site that was alone.
    #[must_use]
    pub const fn low_water(&self) -> Osn {
        self.low_water
    }

    /// Whether another write of `length_bytes` fits below the bound. A map that is empty
    /// takes any write.
    #[must_use]
    pub fn has_room(&self, length_bytes: u64, max: FlightsMax) -> bool {
        self.entries.is_empty() || self.entries.len() < max.count && self.bytes + length_bytes <= max.bytes
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entry of an operation.
    #[must_use]
    pub fn get(&self, osn: Osn) -> Option<Flight> {
        self.entries.get(&osn).map(|(span, check)| Flight { osn, span: *span, check: *check })
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Flight> + '_ {
        self.entries.iter().map(|(osn, (span, check))| Flight { osn: *osn, span: *span, check: *check })
    }
}

/// What has to be made equal: the ranges of `flights`, without overlaps, in order of file and
/// offset, in pieces that fit into one message.
#[must_use]
pub fn ranges_of(flights: impl Iterator<Item = Flight>) -> Vec<Span> {
    let mut spans: Vec<Span> = flights.map(|flight| flight.span).collect();
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.file == span.file && span.offset_bytes <= last.end_bytes() => {
                last.length_bytes = last.end_bytes().max(span.end_bytes()) - last.offset_bytes;
            }
            _ => merged.push(span),
        }
    }
    merged.into_iter().flat_map(pieces_of).collect()
}

fn pieces_of(span: Span) -> impl Iterator<Item = Span> {
    let piece = WRITE_BYTES_MAX as u64;
    (0..span.length_bytes.div_ceil(piece).max(1)).map(move |index| Span {
        offset_bytes: span.offset_bytes + index * piece,
        length_bytes: (span.length_bytes - index * piece).min(piece),
        ..span
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base::FileId;
    use proptest::prelude::*;

    use super::*;

    fn flight(osn: u64, file: u64, offset: u64, length: u64) -> Flight {
        let span = Span { file: FileId(file), offset_bytes: offset, length_bytes: length };
        Flight { osn: Osn(osn), span, check: MediaCheck(osn) }
    }

    #[test]
    fn what_is_below_the_low_water_is_gone_and_stays_gone() {
        let mut flights = Flights::default();
        (1..=5).for_each(|osn| flights.insert(flight(osn, 1, osn * 10, 10)));
        flights.settle_through(Osn(3));
        flights.settle_through(Osn(2));
        flights.insert(flight(3, 1, 0, 10));
        assert_eq!(flights.iter().map(|one| one.osn.0).collect::<Vec<_>>(), [4, 5]);
        assert_eq!((flights.low_water(), flights.bytes), (Osn(3), 20));
        let max = FlightsMax { count: 3, bytes: 35 };
        assert!(flights.has_room(15, max) && !flights.has_room(16, max));
        assert!(!flights.has_room(1, FlightsMax { count: 2, bytes: 100 }));
        flights.settle_through(Osn(9));
        assert!(flights.has_room(100, max), "one write always fits");
    }

    #[test]
    fn recoveries_that_are_cut_off_do_not_make_the_map_grow() {
        let mut flights = Flights::default();
        (1..=50).for_each(|osn| flights.insert(flight(osn, 1, osn * 10, 15)));
        flights.insert(flight(51, 2, 0, 10));
        let listed = |flights: &Flights| ranges_of(flights.iter());
        let before = listed(&flights);
        for round in 0..100 {
            for (index, span) in before.iter().enumerate() {
                let osn = Osn(1000 + round * 10 + index as u64);
                flights.cover(Flight { osn, span: *span, check: MediaCheck(0) });
            }
        }
        assert_eq!((flights.count(), listed(&flights)), (before.len(), before));
        assert_eq!(flights.bytes, 505 + 10);
    }

    proptest! {
        #[test]
        fn the_ranges_cover_exactly_what_is_in_flight(
            writes in proptest::collection::vec((1..4u64, 0..300u64, 1..50u64), 0..30)
        ) {
            let flights = writes.iter().map(|(file, offset, length)| flight(1, *file, *offset, *length));
            let bytes_of = |spans: &[Span]| -> Vec<(u64, u64)> {
                spans.iter().flat_map(|span| (span.offset_bytes..span.end_bytes()).map(|at| (span.file.0, at))).collect()
            };
            let wanted: BTreeSet<_> = bytes_of(&flights.clone().map(|one| one.span).collect::<Vec<_>>()).into_iter().collect();
            let told = bytes_of(&ranges_of(flights));
            prop_assert_eq!(told.len(), wanted.len(), "none twice");
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }

    #[test]
    fn long_ranges_go_in_pieces() {
        let piece = WRITE_BYTES_MAX as u64;
        let spans = ranges_of([flight(1, 1, 5, piece), flight(2, 1, 5 + piece, 7)].into_iter());
        let lengths: Vec<_> = spans.iter().map(|span| (span.offset_bytes, span.length_bytes)).collect();
        assert_eq!(lengths, [(5, piece), (5 + piece, 7)]);
    }
}
