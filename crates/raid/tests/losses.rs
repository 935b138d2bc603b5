//! Two drives lost, every pair, several shapes.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::rc::Rc;

use double::{MemoryDrive, Rig, check_range, check_stripe, find_unit, ports, write};
use raid::{Event, Group, GroupOptions, GroupState, StripeId};

/// Fills two segments and returns their stripes with generations.
fn fill(rig: &Rig, group: &Group) -> Vec<(StripeId, u64)> {
    rig.bench.run(async {
        let mut stripes = Vec::new();
        for round in 0..2 {
            let segment = group.open_segment().await.unwrap();
            let rows = if rig.drives.len() > 8 { 1 } else { 3 };
            for row in 0..rows {
                let id = StripeId { segment, row };
                let generation = 1 + round * 100 + u64::from(row);
                write(group, id, generation).await.unwrap();
                stripes.push((id, generation));
            }
        }
        group.flush().await.unwrap();
        stripes
    })
}

async fn check_all(group: &Group, stripes: &[(StripeId, u64)]) {
    for &(id, generation) in stripes {
        for unit in 0..usize::from(group.geometry(id.segment).unwrap().data) {
            check_range(group, id, generation, unit, 511..4611).await.unwrap();
        }
        check_stripe(group, id, generation).await.unwrap();
    }
}

/// Every pair missing at the start, and every pair lost while the group is open.
fn every_pair(rig: &Rig, stripes: &[(StripeId, u64)]) {
    for first in 0..rig.drives.len() {
        for second in first + 1..rig.drives.len() {
            let copies: Vec<Rc<MemoryDrive>> = rig.drives.iter().map(|drive| drive.copy(&drive.serial)).collect();
            let pulled = Rig { bench: double::Bench::new(9), drives: copies };
            let mut rest = pulled.drives.clone();
            rest.remove(second);
            rest.remove(first);
            let group = pulled.bench.run(Group::open(ports(&rest), None, pulled.bench.world())).unwrap();
            pulled.bench.run(check_all(&group, stripes));
            drop(group);
            let group = pulled.open().unwrap();
            assert_eq!(group.status().state, GroupState::Online, "both are back");
            pulled.drives[first].gone.set(true);
            pulled.drives[second].gone.set(true);
            pulled.bench.run(check_all(&group, stripes));
            assert_eq!(group.counters().reads_failed, 0);
        }
    }
}

/// Decides R-RAID-03: a group made with default options has two parity units, and every
/// byte is read with every pair of drives lost.
#[test]
fn any_two_drives_may_be_lost() {
    let drives: Vec<_> = (0..6).map(|index| MemoryDrive::new(&format!("m{index}"), 8 << 20)).collect();
    let rig = Rig { bench: double::Bench::new(3), drives };
    let create = Group::create(ports(&rig.drives), GroupOptions::default(), rig.bench.world());
    let group = rig.bench.run(create).unwrap();
    let stripes = fill(&rig, &group);
    assert_eq!(group.geometry(stripes[0].0.segment).unwrap().parity, 2);
    drop(group);
    every_pair(&rig, &stripes);
}

#[test]
fn any_two_drives_may_be_lost_whatever_the_width() {
    for (drives, data) in [(5, 3), (5, 1), (8, 6), (8, 3), (13, 10), (20, 10), (24, 22)] {
        let rig = Rig::new(drives, 4);
        let group = rig.create(data);
        let stripes = fill(&rig, &group);
        assert_eq!(group.geometry(stripes[0].0.segment).unwrap().data, data);
        drop(group);
        every_pair(&rig, &stripes);
    }
}

#[test]
fn lab_groups_work_and_say_what_they_cannot_survive() {
    for (drives, geometry, survives) in [(1, "1+0", 0), (2, "1+1", 1), (3, "1+2", 2), (4, "2+2", 2)] {
        let rig = Rig::new(drives, 5);
        let group = rig.create(10);
        let stripes = fill(&rig, &group);
        assert_eq!(group.geometry(stripes[0].0.segment).unwrap().to_string(), geometry);
        let status = group.status();
        assert!(status.warning.unwrap().starts_with("LAB POOL"), "{drives} drives");
        assert_eq!(status.failures_tolerated, survives);
        for &(id, generation) in &stripes {
            assert!(rig.bench.run(group.scrub_stripe(id, generation)).is_clean());
        }
        for lost in 0..usize::from(survives) {
            rig.drives[lost].gone.set(true);
            rig.bench.run(check_all(&group, &stripes));
        }
    }
    assert!(Rig::new(5, 5).create(10).status().warning.is_none());
}

/// A stripe with three damaged units is told of once, however often it is read; it counts as lost
/// until its units are good again, it is written anew, or its segment goes.
#[test]
fn a_lost_stripe_is_told_once_and_counted_until_it_is_whole() {
    let rig = Rig::new(6, 5);
    let group = rig.create(4);
    let stripes = fill(&rig, &group);
    let (id, generation) = stripes[0];
    let units: Vec<(usize, u64)> = (0..3).map(|role| find_unit(&rig, &group, id, generation, role)).collect();
    let flip = || units.iter().for_each(|&(drive, offset)| rig.drives[drive].flip(offset + 700, 3));
    let losses = |group: &Group| {
        let events = group.drain_events().into_iter();
        events.filter(|event| matches!(event, Event::StripeLost { .. })).count()
    };
    flip();
    for _ in 0..3 {
        assert!(rig.bench.run(check_stripe(&group, id, generation)).is_err());
        assert!(rig.bench.run(group.scrub_stripe(id, generation)).lost);
    }
    assert_eq!((group.stripes_lost(), losses(&group)), (1, 1));
    flip();
    rig.bench.run(check_stripe(&group, id, generation)).unwrap();
    assert!(!rig.bench.run(group.scrub_stripe(id, generation)).lost);
    assert_eq!(group.stripes_lost(), 0);
    flip();
    assert!(rig.bench.run(check_stripe(&group, id, generation)).is_err());
    assert_eq!((group.stripes_lost(), losses(&group)), (1, 1), "lost once more, told once more");
    rig.bench.run(write(&group, id, generation + 7)).unwrap();
    assert_eq!(group.stripes_lost(), 0);
    flip();
    assert!(rig.bench.run(check_stripe(&group, id, generation + 7)).is_err());
    rig.bench.run(group.release_segments(&[id.segment])).unwrap();
    assert_eq!(group.stripes_lost(), 0);
}
