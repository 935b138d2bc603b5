//! Faults drawn from the seed, and the budget they stay in.
//!
//! *Swarm*: a [`FaultPlan`] switches each class off in half of the seeds and draws how
//! often the others happen, so that some seeds are nearly calm and some are storms of
//! one kind (`faults.md` B.1). Drawn faults come in two ways: *rates* decide at each
//! I/O, *strikes* happen when the scenario calls [`FaultPlan::strike`].
//!
//! *Atlas*: a budget says how many units of one row may be damaged at once. Which bytes
//! of which drive belong to which row only the scenario knows, so it passes a function.
//! Nothing is booked: the atlas asks the media what is damaged now, so damage that was
//! repaired gives room for more. A fault that would leave the budget does not happen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::{Rc, Weak};

use crate::media::{Medium, OneShot, SECTOR_BYTES, SimMedia, Snapshot};
use crate::ranges::RangeSet;
use crate::rng::Rng;

/// How often drawn faults happen, in parts per million of the I/Os of their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Acknowledged, not done.
    pub lost_write_ppm: u32,
    /// Acknowledged, only some sectors done.
    pub torn_write_ppm: u32,
    /// Refused, some sectors done.
    pub failed_write_ppm: u32,
    /// Refused once; the next try is fine.
    pub failed_read_ppm: u32,
    /// Right bytes of another place, once.
    pub misdirected_read_ppm: u32,
    /// One wrong bit, once.
    pub flip_on_read_ppm: u32,
    /// Takes up to 100 ms longer.
    pub stall_ppm: u32,
}

const STALL_NS_MAX: u64 = 100_000_000;

impl FaultRates {
    pub(crate) fn draw_write(&self, rng: &mut Rng) -> Option<OneShot> {
        if rng.per_million(self.lost_write_ppm) {
            return Some(OneShot::LostWrite);
        }
        if rng.per_million(self.torn_write_ppm) {
            return Some(OneShot::TornWrite(rng.next_u64()));
        }
        rng.per_million(self.failed_write_ppm).then_some(OneShot::FailedWrite)
    }

    pub(crate) fn draw_read(&self, rng: &mut Rng, range: &Range<u64>, capacity_bytes: u64) -> Option<OneShot> {
        if rng.per_million(self.failed_read_ppm) {
            return Some(OneShot::FailedRead);
        }
        if rng.per_million(self.misdirected_read_ppm) {
            let last = (capacity_bytes - (range.end - range.start)) / SECTOR_BYTES;
            return Some(OneShot::MisdirectedRead(rng.between(0, last) * SECTOR_BYTES));
        }
        rng.per_million(self.flip_on_read_ppm).then_some(OneShot::FlipOnRead)
    }

    pub(crate) fn draw_stall_ns(&self, rng: &mut Rng) -> u64 {
        if rng.per_million(self.stall_ppm) { rng.below(STALL_NS_MAX) } else { 0 }
    }
}

/// Which rows a range of bytes of a drive (by index in the atlas) belongs to.
pub type RowsOf = Rc<dyn Fn(usize, Range<u64>) -> Vec<u64>>;

struct AtlasInner {
    media: Vec<Weak<Medium>>,
    units_damaged_max: usize,
    rows_of: RowsOf,
}

/// Keeps damage within a budget; a handle, cheap to clone.
#[derive(Clone)]
pub struct Atlas {
    inner: Rc<AtlasInner>,
}

impl Atlas {
    /// At most `units_damaged_max` of `media` damaged in any row.
    pub fn new(media: &[SimMedia], units_damaged_max: usize, rows_of: RowsOf) -> Atlas {
        let media = media.iter().map(|media| Rc::downgrade(&media.medium)).collect();
        Atlas { inner: Rc::new(AtlasInner { media, units_damaged_max, rows_of }) }
    }

    /// Rows are `row_bytes` long and at the same offset on every drive.
    pub fn aligned_rows(media: &[SimMedia], units_damaged_max: usize, row_bytes: u64) -> Atlas {
        let rows =
            move |_: usize, range: Range<u64>| (range.start / row_bytes..range.end.div_ceil(row_bytes)).collect();
        Atlas::new(media, units_damaged_max, Rc::new(rows))
    }

    /// Whole drives are the unit: at most `drives_damaged_max` have any damage at all.
    pub fn whole_drives(media: &[SimMedia], drives_damaged_max: usize) -> Atlas {
        Atlas::new(media, drives_damaged_max, Rc::new(|_, _| vec![0]))
    }

    fn rows_damaged(&self, index: usize, damaged: &RangeSet) -> BTreeSet<u64> {
        damaged.iter().flat_map(|range| (self.inner.rows_of)(index, range)).collect()
    }

    /// Whether damage to `range` of drive `index` stays inside the budget.
    pub fn admits(&self, index: usize, range: Range<u64>) -> bool {
        self.worst_with(&[(index, range)], None) <= self.inner.units_damaged_max
    }

    /// Whether losing all of drive `index` stays inside the budget.
    pub fn admits_loss(&self, index: usize) -> bool {
        self.worst_with(&[], Some(index)) <= self.inner.units_damaged_max
    }

    /// As [`admits`](Atlas::admits), for several places by the ids of their media; those
    /// of other pools do not count.
    pub(crate) fn admits_places(&self, places: &[(u64, Range<u64>)]) -> bool {
        let index_of = |id: u64| {
            let is_it = |weak: &Weak<Medium>| weak.upgrade().is_some_and(|found| found.id == id);
            self.inner.media.iter().position(is_it)
        };
        let places: Vec<_> = places.iter().filter_map(|(id, range)| Some((index_of(*id)?, range.clone()))).collect();
        self.worst_with(&places, None) <= self.inner.units_damaged_max
    }

    /// The largest number of damaged units in any row now.
    pub fn worst_row(&self) -> usize {
        self.worst_with(&[], None)
    }

    /// The largest number of damaged units in any row, if `places` were damaged and
    /// drive `lost` were lost as well.
    fn worst_with(&self, places: &[(usize, Range<u64>)], lost: Option<usize>) -> usize {
        let (mut lost_count, mut per_row) = (0, BTreeMap::new());
        for (index, medium) in self.inner.media.iter().enumerate() {
            let Some(medium) = medium.upgrade() else { continue };
            let media = SimMedia { medium };
            if lost == Some(index) || media.is_untrustworthy() {
                lost_count += 1;
                continue;
            }
            let mut rows = self.rows_damaged(index, &media.damaged());
            for (_, range) in places.iter().filter(|(place, _)| *place == index) {
                rows.extend((self.inner.rows_of)(index, range.clone()));
            }
            for row in rows {
                *per_row.entry(row).or_insert(0) += 1;
            }
        }
        lost_count + per_row.values().max().unwrap_or(&0)
    }
}

/// Classes of faults that strike between I/Os (rows F01 to F13 of `faults.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// 1 to 64 bits at one place (F01).
    FlipAtRest,
    /// Sectors that cannot be read until rewritten (F02).
    Unreadable,
    /// The next write is lost (F03).
    LostWrite,
    /// A range is back to what it was at an earlier strike (F03).
    StaleRange,
    /// The next write lands elsewhere on the same or another drive (F04).
    MisdirectedWrite,
    /// The next write is torn (F06).
    TornWrite,
    /// Flushes lie from now on (F07).
    FlushLie,
    /// The drive is pulled (F08).
    Gone,
    /// A pulled, hung or read-only drive is back.
    Back,
    /// The drive is blank (F09).
    Blank,
    /// 2 to 50 times slower (F12).
    Slow,
    /// Answers nothing (F12).
    Hang,
    /// Refuses writes (F13).
    ReadOnly,
}

/// Every class, for tables and counts.
pub const FAULT_CLASSES: [FaultClass; 13] = [
    FaultClass::FlipAtRest,
    FaultClass::Unreadable,
    FaultClass::LostWrite,
    FaultClass::StaleRange,
    FaultClass::MisdirectedWrite,
    FaultClass::TornWrite,
    FaultClass::FlushLie,
    FaultClass::Gone,
    FaultClass::Back,
    FaultClass::Blank,
    FaultClass::Slow,
    FaultClass::Hang,
    FaultClass::ReadOnly,
];

/// The drive a fault may strike.
#[derive(Clone, Copy)]
struct Target<'a> {
    index: usize,
    media: &'a SimMedia,
    atlas: &'a Atlas,
}

/// What may happen in one seed.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Classes that strikes choose from.
    pub classes: Vec<FaultClass>,
    /// Rates of faults at each I/O.
    pub rates: FaultRates,
    old: BTreeMap<usize, Snapshot>,
}

impl FaultPlan {
    /// A calm seed.
    pub fn none() -> FaultPlan {
        FaultPlan::default()
    }

    /// Draws a plan: every class and every rate off in half of the plans.
    pub fn draw(rng: &mut Rng) -> FaultPlan {
        let mut classes: Vec<_> = FAULT_CLASSES.into_iter().filter(|_| rng.percent(50)).collect();
        if !classes.contains(&FaultClass::Back) {
            classes.push(FaultClass::Back);
        }
        let mut rate = |most: u64| if rng.percent(50) { rng.below(most) as u32 } else { 0 };
        let rates = FaultRates {
            lost_write_ppm: rate(5_000),
            torn_write_ppm: rate(5_000),
            failed_write_ppm: rate(5_000),
            failed_read_ppm: rate(20_000),
            misdirected_read_ppm: rate(10_000),
            flip_on_read_ppm: rate(10_000),
            stall_ppm: rate(10_000),
        };
        FaultPlan { classes, rates, old: BTreeMap::new() }
    }

    /// Puts the rates on `media`.
    pub fn apply_rates(&self, media: &[SimMedia], atlas: &Atlas) {
        for media in media {
            media.set_rates(self.rates, Some(atlas));
        }
    }

    /// Lets one fault of the plan happen to one of `media` (the atlas' drives in its
    /// order), if the budget allows it; says which.
    pub fn strike(&mut self, media: &[SimMedia], atlas: &Atlas, rng: &mut Rng) -> Option<(FaultClass, usize)> {
        if self.classes.is_empty() {
            return None;
        }
        let class = self.classes[rng.index(self.classes.len())];
        let index = rng.index(media.len());
        let target = Target { index, media: &media[index], atlas };
        let done = match class {
            FaultClass::FlipAtRest | FaultClass::Unreadable | FaultClass::StaleRange => {
                self.strike_place(class, &target, rng)
            }
            FaultClass::LostWrite | FaultClass::TornWrite | FaultClass::MisdirectedWrite => {
                strike_next_write(class, index, media, rng)
            }
            FaultClass::Back => {
                target.media.heal();
                target.media.set_rates(self.rates, Some(atlas));
                true
            }
            FaultClass::Slow => {
                target.media.set_slow(rng.between(2, 50));
                true
            }
            whole => atlas.admits_loss(index) && strike_whole(whole, target.media),
        };
        if rng.percent(30) {
            self.old.insert(index, target.media.snapshot());
        }
        done.then_some((class, index))
    }

    fn strike_place(&self, class: FaultClass, target: &Target<'_>, rng: &mut Rng) -> bool {
        let Target { index, media: target, atlas } = *target;
        let Some(start) = target.random_written_sector(rng) else { return false };
        let length = SECTOR_BYTES << rng.below(6);
        let range = start..(start + length).min(target.state().capacity_bytes);
        if !atlas.admits(index, range.clone()) {
            return false;
        }
        match class {
            FaultClass::Unreadable => target.make_unreadable(range),
            FaultClass::StaleRange => match self.old.get(&index) {
                Some(old) => target.restore(old, range),
                None => return false,
            },
            _ => {
                for _ in 0..rng.between(1, 8) {
                    target.flip(rng.between(range.start, range.end - 1), 1 << rng.below(8));
                }
            }
        }
        true
    }
}

fn strike_whole(class: FaultClass, target: &SimMedia) -> bool {
    match class {
        FaultClass::FlushLie => target.set_flush_lies(true),
        FaultClass::Gone => target.set_gone(true),
        FaultClass::Blank => target.blank(),
        FaultClass::Hang => target.set_hung(true),
        _ => target.set_read_only(true),
    }
    true
}

/// Arms a fault for the next write; the budget is asked when the write comes, since only
/// then its place is known.
fn strike_next_write(class: FaultClass, index: usize, media: &[SimMedia], rng: &mut Rng) -> bool {
    let fault = match class {
        FaultClass::LostWrite => OneShot::LostWrite,
        FaultClass::TornWrite => OneShot::TornWrite(rng.next_u64()),
        _ => {
            let victim = if rng.percent(50) { index } else { rng.index(media.len()) };
            let Some(start) = media[victim].random_written_sector(rng) else { return false };
            OneShot::MisdirectedWrite(media[victim].clone(), start)
        }
    };
    media[index].arm(fault);
    true
}
