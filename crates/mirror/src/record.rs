//! What a site writes down for a pair, and what it knows by it.
//!
//! A [`Record`] goes into the site's journal; [`Kept`] is what all records up to some point
//! say, a fold without any other input. A checkpoint of the store writes `Kept` into its trees
//! in the same commit as the data of the records it covers, so that a journal that was trimmed
//! takes no entry of the in-flight map with it. After a restart it is `Kept` of the trees and
//! the records behind it.

use std::collections::BTreeMap;

use base::{Buf, MediaCheck, Osn, media_check};
use witness::Memory;

use crate::flights::{Flight, Flights};
use crate::operation::{Change, Form, Span, Write};

/// Check of a write's bytes: the one that its journal record has, too.
#[must_use]
pub fn payload_check(osn: Osn, payload: &[u8]) -> MediaCheck {
    media_check(osn.0, payload)
}

/// One entry of a site's journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A client's write.
    Write {
        /// Its number.
        osn: Osn,
        /// Nothing is in flight through here.
        low_water: Osn,
        /// What.
        write: Write,
        /// Whether it goes into the in-flight map; not so while the site is alone, where the
        /// delta since the snapshot lists it.
        tracked: bool,
    },
    /// The authority's content of a range, as part of a recovery.
    Restore {
        /// Its number.
        osn: Osn,
        /// The range.
        span: Span,
        /// What the file is from then on.
        form: Form,
        /// The content, short where the file ends.
        payload: Buf,
    },
    /// The other site may commit this.
    Prepared {
        /// Its number.
        osn: Osn,
        /// What.
        change: Change,
    },
    /// This happens now.
    Committed {
        /// Its number.
        osn: Osn,
        /// Nothing is in flight through here.
        low_water: Osn,
        /// What.
        change: Change,
        /// Whether the other site may have prepared it and has to be told.
        owed: bool,
    },
    /// What was prepared under this number does not happen.
    Dropped {
        /// Its number.
        osn: Osn,
    },
    /// Nothing is in flight through here.
    LowWater(Osn),
    /// What the seat must remember.
    Seat(Memory),
    /// Numbers up to here may be given out.
    Mark(Osn),
    /// From here on this site is alone: what it held at this point stays readable.
    Snapshot(Osn),
    /// Replication is paused, or goes on, by an administrator.
    Paused(bool),
    /// A check has found that the sites differ: this one goes on alone, and the other is compared whole.
    Differs,
}

/// What the records say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// The seat's memory.
    pub memory: Memory,
    /// Numbers up to here may have been given out.
    pub mark: Osn,
    /// The in-flight map.
    pub flights: Flights,
    /// What the other site may commit.
    pub prepared: BTreeMap<Osn, Change>,
    /// What was committed here and may not be at the other site.
    pub commits: BTreeMap<Osn, Change>,
    /// The point since which this site's content is its own.
    pub snapshot: Option<Osn>,
    /// Replication is paused.
    pub paused: bool,
    /// The record says in sync, and a check has found that it is not so.
    pub differs: bool,
}

impl Kept {
    /// Takes in the next record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Write { osn, low_water, write, tracked } => {
                self.settle_through(*low_water);
                if *tracked {
                    let check = payload_check(*osn, &write.payload);
                    self.flights.insert(Flight { osn: *osn, span: write.span(), check });
                }
            }
            Record::Restore { osn, span, payload, .. } => {
                let check = payload_check(*osn, payload);
                self.flights.cover(Flight { osn: *osn, span: *span, check });
            }
            Record::Prepared { osn, change } => {
                self.prepared.insert(*osn, change.clone());
            }
            Record::Committed { osn, low_water, change, owed } => {
                self.settle_through(*low_water);
                self.prepared.remove(osn);
                if *owed {
                    self.commits.insert(*osn, change.clone());
                }
            }
            Record::Dropped { osn } => {
                self.prepared.remove(osn);
            }
            Record::LowWater(low_water) => self.settle_through(*low_water),
            Record::Seat(memory) => {
                self.memory = *memory;
                // Whoever is in sync holds nothing of its own.
                if memory.known.is_some_and(|known| known.in_sync) {
                    self.snapshot = None;
                } else {
                    self.differs = false;
                }
            }
            Record::Mark(mark) => self.mark = *mark,
            // A second outage before the first was made good counts from the first.
            Record::Snapshot(at) => self.snapshot = self.snapshot.or(Some(*at)),
            Record::Paused(paused) => self.paused = *paused,
            Record::Differs => self.differs = self.memory.known.is_some_and(|known| known.in_sync),
        }
    }

    fn settle_through(&mut self, low_water: Osn) {
        self.flights.settle_through(low_water);
        self.commits = self.commits.split_off(&self.flights.low_water().next());
    }
}
