//! Placement: parity load and space use are even, and positions and roles fit.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use proptest::prelude::*;
use raid::layout::{Extents, Load, Place, Policy, Segment, Shape};
use raid::{SegmentId, StripeId};

/// Places segments one after another as a group does; nothing is ever released.
fn place(drives: usize, data_width_max: u8, rows: u32, stripes: u32) -> Vec<Segment> {
    let policy = Policy { data_width_max, parity: 2, founding_drives: u8::try_from(drives).unwrap(), rows };
    let mut extents: Vec<Extents> = vec![Extents::new(4096); drives];
    let mut load = Load::of_empty(drives, 4096);
    let make = |number| {
        let (geometry, slots) = policy.choose(SegmentId(number), &load).unwrap();
        load.add(&policy, geometry, &slots);
        let mut take = |slot: raid::Slot| {
            let extents = &mut extents[usize::from(slot.0)];
            let extent = extents.peek().unwrap();
            assert!(extents.take(extent));
            Place { slot, extent }
        };
        let places = slots.into_iter().map(&mut take).collect();
        Segment { id: SegmentId(number), geometry, places }
    };
    (1..=stripes.div_ceil(rows)).map(make).collect()
}

/// Decides R-RAID-04: over 10,000 stripes the parity units per drive are within 2 % of
/// the mean, for every group of 5 to 24 drives whose stripes use all of them, and for
/// segment lengths that do not divide by the width.
#[test]
fn parity_is_spread_evenly_over_full_width_groups() {
    let mut most: f64 = 0.0;
    for drives in 5..=24usize {
        for rows in [4, 7, 16, 31] {
            let worst = worst_spread(drives, u8::try_from(drives - 2).unwrap(), rows);
            assert!(worst <= 0.02, "{drives} drives, {rows} rows: {worst}");
            most = most.max(worst);
        }
    }
    println!("| groups of 5 to 24 drives, 10,000 stripes | at most |\n|---|---|");
    println!("| parity units of a drive beside the mean | {:.2} % |", most * 100.0);
}

/// Largest deviation from the mean number of parity units per drive.
fn worst_spread(drives: usize, data: u8, rows: u32) -> f64 {
    let mut parity = vec![0u32; drives];
    for segment in place(drives, data, rows, 10_000) {
        let data = usize::from(segment.geometry.data);
        for row in 0..rows {
            for role in data..segment.geometry.width() {
                parity[usize::from(segment.place_of(role, row).slot.0)] += 1;
            }
        }
    }
    let mean = f64::from(parity.iter().sum::<u32>()) / drives as f64;
    parity.iter().map(|&count| (f64::from(count) - mean).abs() / mean).fold(0.0, f64::max)
}

/// Decides R-RAID-06, with `losses.rs` for the recovery of narrow stripes: for every
/// group of 5 to 24 drives and every narrower width, extents and parity units per drive
/// stay within 2 % of the mean over 10,000 stripes, and no stripe has two units on one
/// drive, so that any two losses take at most two units of it.
#[test]
fn narrow_stripes_use_all_drives_evenly() {
    let mut worst_parity: f64 = 0.0;
    for drives in 5..=24usize {
        for data in 1..=u8::try_from(drives - 2).unwrap() {
            let segments = place(drives, data, 16, 10_000);
            let mut used = vec![0u32; drives];
            for segment in &segments {
                let mut slots: Vec<_> = segment.places.iter().map(|place| place.slot).collect();
                slots.sort_unstable();
                slots.dedup();
                assert_eq!(slots.len(), usize::from(data) + 2, "a drive twice in one stripe");
                segment.places.iter().for_each(|place| used[usize::from(place.slot.0)] += 1);
            }
            let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
            assert!(most - least <= 1, "{drives} drives, {data}+2: {least} to {most} extents");
            worst_parity = worst_parity.max(worst_spread(drives, data, 16));
        }
    }
    println!("worst deviation of parity units per drive from the mean: {:.2} %", worst_parity * 100.0);
    assert!(worst_parity <= 0.02, "{worst_parity}");
}

/// Segments that live at the same time; the oldest are emptied as new ones are written,
/// as clients' overwrites and the cleaner do.
struct Growing {
    policy: Policy,
    extents: Vec<Extents>,
    live: std::collections::VecDeque<Segment>,
    next: u32,
}

impl Growing {
    fn grow_to(&mut self, drives: usize) {
        self.extents.resize(drives, Extents::new(1024));
    }

    fn load(&self) -> Load {
        let drives = self.extents.len();
        let mut load = Load::of_empty(drives, 0);
        for segment in &self.live {
            let slots: Vec<_> = segment.places.iter().map(|place| place.slot).collect();
            load.add(&self.policy, segment.geometry, &slots);
        }
        load.free = self.extents.iter().map(Extents::free).collect();
        load
    }

    fn open(&mut self) {
        let id = SegmentId(self.next);
        let (geometry, slots) = self.policy.choose(id, &self.load()).unwrap();
        let places = slots.into_iter().map(|slot| {
            let extents = &mut self.extents[usize::from(slot.0)];
            let extent = extents.peek().unwrap();
            assert!(extents.take(extent));
            Place { slot, extent }
        });
        let segment = Segment { id, geometry, places: places.collect() };
        self.live.push_back(segment);
        self.next += 1;
    }

    fn release(&mut self) {
        let oldest = self.live.pop_front().unwrap();
        oldest.places.iter().for_each(|place| self.extents[usize::from(place.slot.0)].give_back(place.extent));
    }

    /// Largest deviation from the mean parity units per drive, and from the mean extents.
    fn spread(&self) -> (f64, f64) {
        let worst = |counts: &[u64]| {
            let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
            counts.iter().map(|&count| (count as f64 - mean).abs() / mean).fold(0.0, f64::max)
        };
        let used: Vec<u64> = self.extents.iter().map(|extents| u64::from(extents.total() - extents.free())).collect();
        (worst(&self.load().parity_units), worst(&used))
    }
}

/// Decides R-RAID-04 and R-EXP-04 for a group that grows: from 12 to 13 and from 12 to 24
/// drives, half full; once everything was written over twice (a wide stripe must use old
/// drives too), parity units and extents per drive are within 2 % of the mean again, with
/// the stripe width kept and widened.
#[test]
fn a_group_that_has_grown_evens_out() {
    for (drives, data) in [(13, 10), (13, 11), (24, 10), (24, 20), (24, 22)] {
        for rows in [4, 7, 16, 31] {
            let policy = Policy { data_width_max: 10, parity: 2, founding_drives: 12, rows };
            let mut group = Growing { policy, extents: Vec::new(), live: Default::default(), next: 1 };
            group.grow_to(12);
            (0..512).for_each(|_| group.open());
            group.grow_to(drives);
            group.policy.data_width_max = data;
            group.open();
            let newest = group.live.back().unwrap();
            let on_new = newest.places.iter().filter(|place| place.slot.0 >= 12).count();
            assert_eq!(on_new, (drives - 12).min(usize::from(data) + 2), "the very next segment uses the new drives");
            for _ in 0..1024 {
                group.open();
                group.release();
            }
            let (parity, extents) = group.spread();
            println!("12 to {drives} drives, {data}+2, {rows} rows: parity {parity:.4}, extents {extents:.4}");
            assert!(parity <= 0.02 && extents <= 0.02, "{drives} drives, {data}+2, {rows} rows: {parity}, {extents}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn role_and_position_are_inverse(width in 1usize..=32, row: u32, position in 0usize..32) {
        let position = position % width;
        let geometry = raid::Geometry { data: u8::try_from(width).unwrap(), parity: 0 };
        let segment = Segment { id: SegmentId(1), geometry, places: Vec::new() };
        prop_assert_eq!(segment.position_of(segment.role_at(position, row), row), position);
    }

    #[test]
    fn stripe_ids_pack_in_order(a: (u32, u32), b: (u32, u32)) {
        let id = |(segment, row)| StripeId { segment: SegmentId(segment), row };
        prop_assert_eq!(id(a).cmp(&id(b)), id(a).pack().cmp(&id(b).pack()));
        prop_assert_eq!(StripeId::unpack(id(a).pack()), id(a));
    }

    #[test]
    fn areas_of_a_drive_do_not_overlap(unit in 2u32..64, extent_bytes in 0u64..(64 << 20), capacity in (4u64 << 20)..(16 << 40)) {
        let shape = Shape::plan(unit * 4096, extent_bytes, capacity);
        prop_assert!(shape.is_sane());
        let mut end = Shape::session_offset_bytes(raid::Seat::Second, 1) + Shape::BLOCK_BYTES as u64;
        for seat in shape.seats() {
            for register in 0..Shape::REGISTERS {
                for which in 0..2 {
                    let start = shape.register_offset_bytes(seat, register, which);
                    prop_assert!(start >= end && start.is_multiple_of(4096));
                    end = start + u64::from(shape.slot_bytes(register));
                }
            }
        }
        prop_assert!(shape.data_start_bytes() >= end);
        let extents = shape.extents(capacity);
        prop_assert!(extents <= 4096);
        if extents > 0 {
            let last = u16::try_from(extents - 1).unwrap();
            let end = shape.unit_offset_bytes(last, shape.rows - 1) + u64::from(shape.unit_bytes);
            prop_assert!(end <= capacity);
        }
    }
}
