//! The group as its user sees it: stripes in, stripes out, through losses.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use double::{MemoryDrive, Rig, check_range, check_stripe, ports, write};
use raid::layout::Shape;
use raid::{Group, GroupOptions, GroupState, StripeId};

#[test]
fn what_was_written_is_read_after_opening_again() {
    let rig = Rig::new(7, 1);
    let group = rig.create(10);
    let ids = rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        assert_eq!(group.geometry(segment).unwrap().to_string(), "5+2");
        let ids: Vec<StripeId> = (0..group.rows_per_segment()).map(|row| StripeId { segment, row }).collect();
        for (generation, id) in (100..).zip(&ids) {
            assert_eq!(write(&group, *id, generation).await.unwrap().absent, 0);
        }
        group.flush().await.unwrap();
        assert_eq!(group.register_cas("root", 0, b"first").await, Ok(1));
        ids
    });
    drop(group);
    let group = rig.open().unwrap();
    rig.bench.run(async {
        for (generation, id) in (100..).zip(&ids) {
            check_stripe(&group, *id, generation).await.unwrap();
            check_range(&group, *id, generation, 3, 1000..9192).await.unwrap();
            assert!(group.scrub_stripe(*id, generation).await.is_clean());
        }
        let root = group.register_read("root").await;
        assert_eq!((root.version, &root.bytes[..]), (1, &b"first"[..]));
    });
    assert_eq!(group.status().state, GroupState::Online);
    assert_eq!(group.status().failures_tolerated, 2);
}

/// Decides R-EXP-03: a group of 24 sparse drives of 22 TiB, 528 TiB raw, expanded from 12;
/// all of it is room, every offset on a drive exists, and stripes are read after a restart.
#[test]
fn more_than_512_tib_are_addressed() {
    const DRIVE_BYTES: u64 = 22 << 40;
    let rig = Rig::new(0, 5);
    let drives: Vec<_> = (0..24).map(|number| MemoryDrive::new(&format!("big{number}"), DRIVE_BYTES)).collect();
    let options = GroupOptions { data_width_max: 22, ..GroupOptions::default() };
    let group = rig.bench.run(Group::create(ports(&drives[..12]), options, rig.bench.world())).unwrap();
    let half = group.space().data_bytes_free;
    rig.bench.run(group.add_members(ports(&drives[12..]), false)).unwrap();
    let space = group.space();
    assert!(space.data_bytes_free > 480 << 40, "{space:?}");
    assert!(space.data_bytes_free * 10 > half * 21, "22+2 instead of 10+2: more than twice the room");
    let shape = Shape::plan(group.unit_bytes(), 0, DRIVE_BYTES);
    let last = u16::try_from(shape.extents(DRIVE_BYTES) - 1).unwrap();
    let end = shape.unit_offset_bytes(last, shape.rows - 1) + u64::from(shape.unit_bytes);
    assert!(end <= DRIVE_BYTES && DRIVE_BYTES - end < shape.extent_bytes() + (1 << 20), "the last unit ends at {end}");
    let ids = rig.bench.run(async {
        let segment = group.open_segment().await.unwrap();
        let rows = [0, 1, group.rows_per_segment() - 1];
        let ids = rows.map(|row| StripeId { segment, row });
        for id in ids {
            write(&group, id, 7).await.unwrap();
        }
        ids
    });
    drop(group);
    let group = rig.bench.run(Group::open(ports(&drives), None, rig.bench.world())).unwrap();
    assert_eq!(group.geometry(ids[0].segment).unwrap().to_string(), "22+2");
    rig.bench.run(async {
        for id in ids {
            check_stripe(&group, id, 7).await.unwrap();
        }
    });
}
