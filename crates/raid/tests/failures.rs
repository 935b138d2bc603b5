//! Drives that fail while the group is open, and what comes back afterwards.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use double::{Rig, check_range, check_stripe, ports, write};
use raid::{DriveState, Event, FailReason, Finding, Group, GroupState, NoSpace, SegmentId, StripeId, WriteFault};

fn stripe(segment: SegmentId, row: u32) -> StripeId {
    StripeId { segment, row }
}

fn failures(group: &Group) -> Vec<(u8, FailReason)> {
    let failed = |event| match event {
        Event::DriveFailed { slot, reason } => Some((slot.0, reason)),
        _ => None,
    };
    group.drain_events().into_iter().filter_map(failed).collect()
}

/// Decides R-RAID-05: every write to the data area is one whole unit, every unit of a
/// stripe is written exactly once, and no place is written twice.
#[test]
fn only_whole_stripes_are_written() {
    let rig = Rig::new(7, 1);
    let group = rig.create(4);
    rig.bench.run(async {
        for generation in 0..3 {
            let segment = group.open_segment().await.unwrap();
            for row in 0..group.rows_per_segment() {
                write(&group, stripe(segment, row), 1 + generation * 100 + u64::from(row)).await.unwrap();
            }
        }
        group.flush().await.unwrap();
    });
    let rows = u64::from(group.rows_per_segment());
    let mut units = 0;
    for drive in &rig.drives {
        let writes = drive.writes.borrow();
        let data: Vec<_> = writes.iter().filter(|trace| trace.offset_bytes >= 1 << 20).collect();
        let mut offsets: Vec<u64> = data.iter().map(|trace| trace.offset_bytes).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), data.len(), "a place written twice");
        assert!(data.iter().all(|trace| trace.len_bytes == group.unit_bytes() as usize), "not a whole unit");
        units += data.len() as u64;
    }
    assert_eq!(units, 3 * rows * 6);
}

#[test]
fn a_drive_that_goes_is_put_out_and_new_segments_are_narrower() {
    let rig = Rig::new(5, 2);
    let group = rig.create(10);
    rig.bench.run(async {
        let mut wide = group.open_segment().await.unwrap();
        for (lost, geometry) in [(4, "3+2"), (3, "2+2"), (2, "1+2")] {
            assert_eq!(group.geometry(wide).unwrap().to_string(), geometry);
            write(&group, stripe(wide, 0), 10 + lost).await.unwrap();
            if lost == 2 {
                break;
            }
            rig.drives[lost as usize].gone.set(true);
            let written = write(&group, stripe(wide, 1), 20 + lost).await.unwrap();
            assert_eq!(written.absent, 1);
            assert!(group.is_degraded(wide));
            assert_eq!(group.status().drives[lost as usize].state, DriveState::Failed);
            check_stripe(&group, stripe(wide, 0), 10 + lost).await.unwrap();
            check_stripe(&group, stripe(wide, 1), 20 + lost).await.unwrap();
            wide = group.open_segment().await.unwrap();
            assert!(!group.is_degraded(wide));
        }
    });
    assert_eq!(failures(&group), [(4, FailReason::Gone), (3, FailReason::Gone)]);
    assert_eq!(group.status().state, GroupState::Critical);
    assert_eq!(group.status().membership, 3);
}

#[test]
fn a_failed_drive_is_not_believed_when_it_comes_back() {
    let rig = Rig::new(5, 3);
    let group = rig.create(10);
    let segment = rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        write(&group, stripe(segment, 0), 1).await.unwrap();
        rig.drives[1].gone.set(true);
        write(&group, stripe(segment, 0), 2).await.unwrap();
        group.flush().await.unwrap();
        segment
    });
    drop(group);
    rig.drives[1].gone.set(false);
    let before = rig.drives[1].writes.borrow().len();
    let group = rig.open().unwrap();
    assert_eq!(group.assembly().drives[1].1, Finding::Failed(raid::Slot(1)));
    assert_eq!(group.status().drives[1].state, DriveState::Failed);
    rig.bench.run(async {
        check_stripe(&group, stripe(segment, 0), 2).await.unwrap();
        assert_eq!(group.scrub_stripe(stripe(segment, 0), 2).await.absent, 1);
    });
    assert_eq!(rig.drives[1].writes.borrow().len(), before, "nothing is written to it");
}

#[test]
fn a_degraded_write_or_flush_is_done_only_when_the_drive_is_out() {
    // The owner dies in the very moment the call returns.
    for by_flush in [false, true] {
        let rig = Rig::new(5, 13);
        let group = rig.create(10);
        let segment = rig.bench.run(group.open_segment()).unwrap();
        rig.drives.iter().for_each(|drive| drive.yields.set(2));
        let done = rig.bench.crash_after(usize::MAX, async {
            if by_flush {
                write(&group, stripe(segment, 0), 2).await.unwrap();
                rig.drives[1].flush_fails.set(true);
                group.flush().await.unwrap();
            } else {
                rig.drives[1].write_errors.set(2);
                assert_eq!(write(&group, stripe(segment, 0), 2).await.unwrap().absent, 1);
            }
        });
        assert!(done.is_some());
        drop(group);
        rig.drives[1].flush_fails.set(false);
        assert_eq!(rig.open().unwrap().assembly().drives[1].1, Finding::Failed(raid::Slot(1)), "{by_flush}");
    }
}

#[test]
fn a_missing_drive_comes_back_whole_or_is_put_out() {
    let rig = Rig::new(6, 4);
    let group = rig.create(10);
    let segment = rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        write(&group, stripe(segment, 0), 1).await.unwrap();
        group.flush().await.unwrap();
        segment
    });
    drop(group);
    let without = |missing: usize| {
        let mut drives = ports(&rig.drives);
        drives.remove(missing);
        rig.bench.run(Group::open(drives, None, rig.bench.world())).unwrap()
    };
    // Away, nothing written to its segments, back: as if nothing had been.
    let group = without(2);
    assert_eq!(group.status().drives[2].state, DriveState::Missing);
    rig.bench.run(check_stripe(&group, stripe(segment, 0), 1)).unwrap();
    drop(group);
    assert_eq!(rig.open().unwrap().status().state, GroupState::Online);
    // Away while a stripe it belongs to is written: out before the write is done.
    let group = without(2);
    rig.bench.run(write(&group, stripe(segment, 1), 2)).unwrap();
    assert_eq!(group.status().drives[2].state, DriveState::Failed);
    drop(group);
    let group = rig.open().unwrap();
    assert_eq!(group.assembly().drives[2].1, Finding::Failed(raid::Slot(2)));
    rig.bench.run(check_stripe(&group, stripe(segment, 1), 2)).unwrap();
}

#[test]
fn ways_to_fail() {
    type Break = fn(&double::MemoryDrive);
    let ways: [(&str, Break, FailReason); 5] = [
        ("read-only", |drive| drive.read_only.set(true), FailReason::ReadOnly),
        ("gone", |drive| drive.gone.set(true), FailReason::Gone),
        ("refuses writes", |drive| drive.write_errors.set(2), FailReason::LostWrite),
        ("flush fails", |drive| drive.flush_fails.set(true), FailReason::LostFlush),
        ("shrunk", |drive| drive.capacity_bytes.set(1 << 20), FailReason::Gone),
    ];
    for (name, hurt, reason) in ways {
        let rig = Rig::new(6, 5);
        let group = rig.create(10);
        rig.bench.run(async {
            let segment = group.open_segment().await.unwrap();
            hurt(&rig.drives[3]);
            write(&group, stripe(segment, 0), 1).await.unwrap();
            group.flush().await.unwrap();
            check_stripe(&group, stripe(segment, 0), 1).await.unwrap();
            check_range(&group, stripe(segment, 0), 1, 1, 0..100).await.unwrap();
        });
        assert_eq!(failures(&group), [(3, reason)], "{name}");
        assert_eq!(group.status().state, GroupState::Degraded, "{name}");
    }
}

#[test]
fn a_write_refused_once_is_tried_again() {
    let rig = Rig::new(6, 6);
    let group = rig.create(10);
    rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        rig.drives[0].write_errors.set(1);
        assert_eq!(write(&group, stripe(segment, 0), 1).await.unwrap().absent, 0);
        assert!(group.scrub_stripe(stripe(segment, 0), 1).await.is_clean());
    });
    assert!(failures(&group).is_empty());
}

/// Reads every data unit of eight rows over and over.
fn read_much(rig: &Rig, group: &Group, rounds: usize) {
    rig.bench.run(async {
        for _ in 0..rounds {
            for row in 0..8 {
                let id = stripe(SegmentId(1), row);
                for unit in 0..usize::from(group.geometry(id.segment).unwrap().data) {
                    check_range(group, id, 1 + u64::from(row), unit, 0..512).await.unwrap();
                }
            }
        }
    });
}

fn with_eight_rows(drives: usize) -> (Rig, Group) {
    let rig = Rig::new(drives, 6);
    let group = rig.create(10);
    rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        for row in 0..8 {
            write(&group, stripe(segment, row), 1 + u64::from(row)).await.unwrap();
        }
    });
    (rig, group)
}

#[test]
fn a_drive_that_answers_nothing_but_errors_is_failed() {
    let (rig, group) = with_eight_rows(6);
    rig.drives[2].bad.borrow_mut().push(0..u64::MAX);
    rig.drives[2].writes_heal.set(false);
    read_much(&rig, &group, 3);
    assert_eq!(failures(&group), [(2, FailReason::Errors)]);
    // Another one like it is kept: failing it would cost the last redundancy.
    rig.drives[4].bad.borrow_mut().push(2 << 20..u64::MAX);
    rig.drives[4].writes_heal.set(false);
    read_much(&rig, &group, 3);
    assert!(failures(&group).is_empty());
}

#[test]
fn sectors_that_a_rewrite_heals_do_not_fail_a_drive() {
    let (rig, group) = with_eight_rows(6);
    for round in 0..5 {
        for row in 0..8 {
            for role in 0..6 {
                let (drive, offset) =
                    double::find_unit(&rig, &group, stripe(SegmentId(1), row), 1 + u64::from(row), role);
                if drive == 3 {
                    rig.drives[3].bad.borrow_mut().push(offset..offset + 512);
                }
            }
        }
        rig.bench.run(async {
            for row in 0..8 {
                let verdict = group.scrub_stripe(stripe(SegmentId(1), row), 1 + u64::from(row)).await;
                assert_eq!(verdict.repaired, [(raid::Slot(3), raid::Damage::Unreadable)], "round {round}");
            }
        });
    }
    assert!(failures(&group).is_empty());
    assert_eq!(group.status().drives[3].repaired_units, 40);
}

#[test]
fn a_third_loss_stops_the_group_and_it_is_whole_when_drives_return() {
    third_loss(6);
    third_loss(12);
}

fn third_loss(drives: usize) {
    let rig = Rig::new(drives, 7);
    let group = rig.create(10);
    rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        write(&group, stripe(segment, 0), 1).await.unwrap();
        group.flush().await.unwrap();
        for lost in [0, 2, 4] {
            rig.drives[lost].gone.set(true);
        }
        assert_eq!(write(&group, stripe(segment, 1), 2).await, Err(WriteFault::TooManyAbsent));
        assert!(check_stripe(&group, stripe(segment, 0), 1).await.is_err());
        assert_eq!(group.open_segment().await, Err(NoSpace::Latched));
        assert!(group.register_cas("root", 0, b"x").await.is_err());
        assert_eq!(group.status().state, GroupState::Faulted);
        assert_eq!(group.space().stripes_free, 0);
        for lost in [0, 2, 4] {
            rig.drives[lost].gone.set(false);
        }
    });
    drop(group);
    let group = rig.open().unwrap();
    assert_eq!(group.status().state, GroupState::Online, "an enclosure that was away has lost nothing");
    rig.bench.run(check_stripe(&group, stripe(SegmentId(1), 0), 1)).unwrap();
}

#[test]
fn a_group_opened_with_too_many_missing_serves_what_it_can_and_changes_nothing() {
    let rig = Rig::new(12, 7);
    let group = rig.create(4);
    let segments = rig.bench.run(async {
        let mut segments = Vec::new();
        for generation in 1..=8 {
            let segment = group.open_segment().await.unwrap();
            write(&group, stripe(segment, 0), generation).await.unwrap();
            segments.push((segment, generation));
        }
        group.flush().await.unwrap();
        segments
    });
    drop(group);
    let group = rig.bench.run(Group::open(ports(&rig.drives[5..]), None, rig.bench.world())).unwrap();
    assert_eq!(group.status().state, GroupState::Faulted);
    rig.bench.run(async {
        let mut lost = 0;
        for &(segment, generation) in &segments {
            let absent = group.segments().iter().find(|info| info.id == segment).unwrap().absent;
            let read = check_stripe(&group, stripe(segment, 0), generation).await;
            assert_eq!(read.is_ok(), absent <= 2);
            lost += u32::from(read.is_err());
            assert!(write(&group, stripe(segment, 1), 100).await.is_err() || absent == 0);
        }
        assert!(lost > 0 && lost < 8, "{lost}");
        assert_eq!(group.open_segment().await, Err(NoSpace::Latched));
    });
    drop(group);
    let group = rig.open().unwrap();
    assert_eq!(group.status().state, GroupState::Online);
    for &(segment, generation) in &segments {
        rig.bench.run(check_stripe(&group, stripe(segment, 0), generation)).unwrap();
    }
}

#[test]
fn space_is_what_can_be_opened_and_comes_back() {
    for (drives, data) in [(5, 10), (7, 3), (24, 10), (1, 10), (2, 10)] {
        let rig = Rig::new(drives, 8);
        let group = rig.create(data);
        rig.bench.run(async {
            let promised = group.space();
            let mut segments = Vec::new();
            let mut data_bytes = 0;
            while let Ok(segment) = group.open_segment().await {
                let payload = u64::from(group.payload_bytes_per_stripe(segment).unwrap());
                data_bytes += payload * u64::from(group.rows_per_segment());
                segments.push(segment);
            }
            assert_eq!(group.open_segment().await, Err(NoSpace::Full));
            assert_eq!((segments.len() as u32, data_bytes), (promised.segments_free, promised.data_bytes_free));
            assert_eq!(group.space().data_bytes_open, promised.data_bytes_free);
            assert_eq!(group.space().stripes_free, 0);
            group.release_segments(&segments).await.unwrap();
            assert_eq!(group.space(), promised);
        });
    }
}

#[test]
fn old_content_of_a_released_place_is_stale_not_live() {
    let rig = Rig::new(5, 9);
    let group = rig.create(3);
    rig.bench.run(async {
        // Every place is written once, then given back and written again by others.
        let mut segments = Vec::new();
        while let Ok(segment) = group.open_segment().await {
            write(&group, stripe(segment, 0), u64::from(segment.0)).await.unwrap();
            segments.push(segment);
        }
        group.release_segments(&segments).await.unwrap();
        let again = group.open_segment().await.unwrap();
        rig.drives[0].tricks.borrow_mut().push_back(double::Trick::LoseWrite);
        write(&group, stripe(again, 0), 1000).await.unwrap();
        let verdict = group.scrub_stripe(stripe(again, 0), 1000).await;
        assert_eq!(verdict.repaired, [(raid::Slot(0), raid::Damage::Stale)]);
        assert!(check_stripe(&group, stripe(segments[0], 0), 1).await.is_err());
    });
}
