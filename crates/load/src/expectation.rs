//! What the server must still know: for every unit, the versions that a read may find.
//!
//! Each unit is a register with unique writes, at most one of them under way at a time
//! (a unit with a write under way is not chosen again), so two numbers decide
//! (`faults.md` B.8): the *floor*, the newest version acknowledged or seen by a finished
//! read; and the newest version *issued*. A read must find `floor at its start ..=
//! issued at its end`. A write that failed or went unanswered stays in that range: it
//! may have happened or not, until a read sees it or a newer write is acknowledged.
//! The map takes nine bytes per unit.

use std::ops::Range;

use crate::block::{Blocks, Found, Place};

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileSpec {
    /// Path below the run's directory.
    pub path: String,
    /// Length in units.
    pub units: u64,
}

/// Files laid end to end: units are numbered through the whole set.
#[derive(Clone, Debug, Default)]
pub struct FileSet {
    files: Vec<FileSpec>,
    /// First unit of each file, and the end.
    starts: Vec<u64>,
}

impl FileSet {
    /// Of these files, in this order.
    pub fn new(files: Vec<FileSpec>) -> Self {
        let mut starts = vec![0];
        for file in &files {
            starts.push(starts.last().expect("starts with 0") + file.units);
        }
        FileSet { files, starts }
    }

    /// The files.
    pub fn files(&self) -> &[FileSpec] {
        &self.files
    }

    /// Units in all files.
    pub fn units(&self) -> u64 {
        *self.starts.last().unwrap_or(&0)
    }

    /// File and unit in it of unit `unit` of the set.
    pub fn place(&self, unit: u64) -> Place {
        let file = self.starts.partition_point(|&start| start <= unit) - 1;
        Place { file: file as u32, unit: unit - self.starts[file] }
    }

    /// Some units of a file, as numbers of the set; `None` if they are not there.
    pub fn units_at(&self, place: Place, count: u32) -> Option<Range<u64>> {
        let file = self.files.get(place.file as usize)?;
        let end = place.unit.checked_add(count.into()).filter(|&end| count > 0 && end <= file.units)?;
        let start = self.starts[place.file as usize];
        Some(start + place.unit..start + end)
    }

    /// Units of a file, as numbers of the set.
    pub fn range(&self, file: u32) -> Range<u64> {
        self.starts[file as usize]..self.starts[file as usize + 1]
    }
}

/// Broken promises, found at one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Breach {
    /// Zeros or nothing where an acknowledged write was.
    Lost,
    /// An older version than the acknowledged (or already seen) one.
    Stale {
        /// The version found.
        found_version: u32,
    },
    /// A whole unit, of another place.
    Misplaced {
        /// Where it belongs.
        belongs: Place,
        /// Its version there.
        found_version: u32,
    },
    /// A whole unit of another run.
    Foreign {
        /// That run.
        run_id: u64,
    },
    /// A duplicate content that no allowed version of this unit holds.
    WrongContent {
        /// The content found.
        number: u64,
    },
    /// A version that was never written.
    NeverWritten {
        /// The version found.
        found_version: u32,
    },
    /// The server answers reads with an error.
    Unreadable {
        /// NFS status, 0 if it gave no bytes.
        status: u32,
    },
    /// Bytes that are no unit.
    Damaged {
        /// The first bytes are those of a unit.
        magic_right: bool,
    },
}

/// The map of all units.
#[derive(Clone, Debug)]
pub struct Expectations {
    floor: Vec<u32>,
    issued: Vec<u32>,
    busy: Vec<bool>,
}

impl Expectations {
    /// Of `units` units never written.
    pub fn new(units: u64) -> Self {
        let units = usize::try_from(units).expect("a file set's map fits memory");
        Expectations { floor: vec![0; units], issued: vec![0; units], busy: vec![false; units] }
    }

    /// Whether a write of any of these units is under way.
    pub fn is_busy(&self, units: Range<u64>) -> bool {
        self.busy[span(units)].contains(&true)
    }

    /// Starts a write of `units`; gives its version, newer than any of theirs.
    pub fn issue(&mut self, units: Range<u64>) -> u32 {
        let span = span(units);
        let newest = self.issued[span.clone()].iter().max().expect("a write covers units");
        let version = newest.checked_add(1).expect("a unit is not written four thousand million times");
        self.issued[span.clone()].fill(version);
        self.busy[span].fill(true);
        version
    }

    /// As [`issue`](Self::issue), with the version from a journal.
    pub fn reissue(&mut self, units: Range<u64>, version: u32) {
        self.issued[span(units)].iter_mut().for_each(|issued| *issued = version.max(*issued));
    }

    /// The write of `units` ended; if acknowledged, nothing older may be found any more.
    pub fn settle(&mut self, units: Range<u64>, version: u32, acknowledged: bool) {
        let span = span(units);
        self.busy[span.clone()].fill(false);
        if acknowledged {
            self.floor[span].iter_mut().for_each(|floor| *floor = version.max(*floor));
        }
    }

    /// Floor of a unit.
    pub fn floor(&self, unit: u64) -> u32 {
        self.floor[unit as usize]
    }

    /// Newest version issued of a unit.
    pub fn issued(&self, unit: u64) -> u32 {
        self.issued[unit as usize]
    }

    /// Judges what a read of `unit` found, which started when the floor was
    /// `floor_then`. Gives the version if it is a newer one than acknowledged: the
    /// floor has been raised to it.
    pub fn judge(
        &mut self,
        (unit, place): (u64, Place),
        floor_then: u32,
        blocks: &Blocks,
        found: Found,
    ) -> Result<Option<u32>, Breach> {
        let issued = self.issued(unit);
        let version = match found {
            Found::Zeros if floor_then == 0 => return Ok(None),
            Found::Zeros => return Err(Breach::Lost),
            Found::Foreign(run_id) => return Err(Breach::Foreign { run_id }),
            Found::Damaged(magic_right) => return Err(Breach::Damaged { magic_right }),
            Found::Shared(number) => {
                let holds = |version: &u32| blocks.shared_content(place, *version) == Some(number);
                return if (floor_then.max(1)..=issued).rev().any(|version| holds(&version)) {
                    Ok(None)
                } else if (1..floor_then).rev().take(1000).any(|version| holds(&version)) {
                    Err(Breach::Stale { found_version: 0 })
                } else if (issued + 1..=issued.saturating_add(8)).any(|version| holds(&version)) {
                    Err(Breach::NeverWritten { found_version: issued + 1 })
                } else {
                    Err(Breach::WrongContent { number })
                };
            }
            Found::Unique(belongs, stamp) if belongs != place => {
                return Err(Breach::Misplaced { belongs, found_version: stamp.version });
            }
            Found::Unique(_, stamp) => stamp.version,
        };
        if version < floor_then {
            return Err(Breach::Stale { found_version: version });
        }
        if version > issued {
            return Err(Breach::NeverWritten { found_version: version });
        }
        let floor = &mut self.floor[unit as usize];
        Ok((version > *floor).then(|| {
            *floor = version;
            version
        }))
    }
}

fn span(units: Range<u64>) -> Range<usize> {
    units.start as usize..units.end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Shape, Stamp};

    fn blocks() -> Blocks {
        Blocks::new(Shape { run_id: 1, unit_bytes: 512, compressible_percent: 0, dedup_percent: 0 })
    }

    fn unique(unit: u64, version: u32) -> Found {
        Found::Unique(Place { file: 0, unit }, Stamp { version, sequence: 0, time_ns: 0 })
    }

    #[test]
    fn every_breach_is_told_apart() {
        let blocks = blocks();
        let mut map = Expectations::new(4);
        for _ in 0..2 {
            let version = map.issue(0..2);
            map.settle(0..2, version, true);
        }
        let place = Place { file: 0, unit: 0 };
        let mut judge = |found| map.judge((0, place), 2, &blocks, found);
        assert_eq!(judge(unique(0, 2)), Ok(None));
        assert_eq!(judge(unique(0, 1)), Err(Breach::Stale { found_version: 1 }));
        assert_eq!(judge(unique(0, 3)), Err(Breach::NeverWritten { found_version: 3 }));
        let belongs = Place { file: 0, unit: 1 };
        assert_eq!(judge(unique(1, 2)), Err(Breach::Misplaced { belongs, found_version: 2 }));
        assert_eq!(judge(Found::Zeros), Err(Breach::Lost));
        assert_eq!(judge(Found::Foreign(9)), Err(Breach::Foreign { run_id: 9 }));
        assert_eq!(judge(Found::Damaged(true)), Err(Breach::Damaged { magic_right: true }));
        assert_eq!(judge(Found::Shared(3)), Err(Breach::WrongContent { number: 3 }));
    }

    #[test]
    fn an_unanswered_write_may_be_found_or_not_but_once_seen_it_stays() {
        let blocks = blocks();
        let mut map = Expectations::new(1);
        let place = Place { file: 0, unit: 0 };
        let first = map.issue(0..1);
        map.settle(0..1, first, true);
        let second = map.issue(0..1);
        assert!(map.is_busy(0..1));
        map.settle(0..1, second, false);
        let floor = map.floor(0);
        assert_eq!(map.judge((0, place), floor, &blocks, unique(0, 1)), Ok(None));
        assert_eq!(map.judge((0, place), floor, &blocks, unique(0, 2)), Ok(Some(2)));
        let floor = map.floor(0);
        assert_eq!(map.judge((0, place), floor, &blocks, unique(0, 1)), Err(Breach::Stale { found_version: 1 }));
    }

    #[test]
    fn units_are_numbered_through_the_files() {
        let spec = |units| FileSpec { path: String::new(), units };
        let set = FileSet::new(vec![spec(3), spec(1), spec(5)]);
        assert_eq!(set.units(), 9);
        let places: Vec<_> = (0..9).map(|unit| set.place(unit)).map(|place| (place.file, place.unit)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]);
        assert_eq!(set.range(2), 4..9);
    }
}
