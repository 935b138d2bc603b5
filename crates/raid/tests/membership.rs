//! Drives join, take the place of others, come back and are put out while the group works.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::rc::Rc;

use base::port::Drive;
use double::{MemoryDrive, Rig, check_stripe, ports, write};
use raid::{DriveState, Event, Group, GroupState, JoinRefused, RemoveRefused, Slot, StripeId};

fn spare(name: &str) -> Rc<MemoryDrive> {
    MemoryDrive::new(name, 8 << 20)
}

fn port(drive: &Rc<MemoryDrive>) -> Rc<dyn Drive> {
    drive.clone()
}

/// A segment with every row written.
async fn fill_segment(group: &Group, generation: u64) -> Vec<StripeId> {
    let segment = group.open_segment().await.unwrap();
    let rows = 0..group.rows_per_segment();
    let ids: Vec<StripeId> = rows.map(|row| StripeId { segment, row }).collect();
    for &id in &ids {
        write(group, id, generation).await.unwrap();
    }
    ids
}

/// Decides R-EXP-05: one to twelve drives join at a time, at once, and new stripes use
/// them; what was there before stays readable, and all of it is there after a restart.
#[test]
fn one_to_twelve_drives_join_at_once() {
    for more in 1..=12 {
        let rig = Rig::new(8, more);
        let group = rig.create(6);
        let added: Vec<_> = (0..more).map(|number| spare(&format!("new{number}"))).collect();
        let old = rig.bench.run(fill_segment(&group, 1));
        let before = group.space();
        let slots = rig.bench.run(group.add_members(ports(&added), false)).unwrap();
        assert_eq!(slots, (8..8 + more as u8).map(Slot).collect::<Vec<_>>());
        assert_eq!(group.status().state, GroupState::Online);
        assert!(group.space().data_bytes_free > before.data_bytes_free, "space figures follow at once");
        // What it was tried out with does not count.
        added.iter().for_each(|drive| drive.writes.borrow_mut().clear());
        let new = rig.bench.run(fill_segment(&group, 2));
        let holds_units =
            |drive: &&Rc<MemoryDrive>| drive.writes.borrow().iter().any(|write| write.len_bytes == 16 << 10);
        assert_eq!(added.iter().filter(holds_units).count(), added.len().min(8), "new stripes use the new drives");
        drop(group);
        let mut all = ports(&rig.drives);
        all.extend(ports(&added));
        all.reverse();
        let group = rig.bench.run(Group::open(all, None, rig.bench.world())).unwrap();
        assert_eq!(group.status().drives.len(), 8 + more as usize);
        rig.bench.run(async {
            for id in old {
                check_stripe(&group, id, 1).await.unwrap();
            }
            for id in new {
                check_stripe(&group, id, 2).await.unwrap();
            }
        });
    }
}

#[test]
fn a_drive_that_does_not_fit_or_is_in_use_does_not_join() {
    let rig = Rig::new(5, 2);
    let group = rig.create(3);
    let other = Rig::new(5, 3);
    let theirs = other.create(3);
    let refused =
        |drive: &Rc<MemoryDrive>| rig.bench.run(group.add_members(vec![port(drive)], false)).unwrap_err().refused;
    let small = MemoryDrive::new("small", 1 << 20);
    assert!(matches!(refused(&small), JoinRefused::TooSmall { capacity_bytes, .. } if capacity_bytes == 1 << 20));
    assert_eq!(refused(&other.drives[0]), JoinRefused::InUse { group: Some(theirs.id()) });
    assert_eq!(refused(&rig.drives[2]), JoinRefused::InUse { group: Some(group.id()) });
    let strange = spare("strange");
    strange.poke(0, &[7; 4096]);
    assert_eq!(refused(&strange), JoinRefused::InUse { group: None });
    assert!(small.writes.borrow().is_empty() && strange.writes.borrow().is_empty());
    assert_eq!(group.status().drives.len(), 5);
    // Told so, a drive of another group is taken, a member of this one never.
    let take = |drive: &Rc<MemoryDrive>| {
        rig.bench.run(group.add_members(vec![port(drive)], true)).map_err(|added| added.refused)
    };
    assert_eq!(take(&other.drives[0]), Ok(vec![Slot(5)]));
    assert_eq!(take(&rig.drives[2]), Err(JoinRefused::InUse { group: Some(group.id()) }));
    // One drive named twice joins once.
    let twice = spare("twice");
    let both = rig.bench.run(group.add_members(vec![port(&twice), port(&twice)], false)).unwrap_err();
    assert_eq!((both.joined, both.refused), (vec![Slot(6)], JoinRefused::InUse { group: Some(group.id()) }));
    assert_eq!(both.at, Some(1), "the refusal names the drive");
    assert_eq!(group.status().drives.len(), 7);
}

/// A drive that keeps nothing is found out before any drive joins (R-SPARE-04 for drives
/// that are added).
#[test]
fn a_drive_that_keeps_nothing_is_not_added_and_nobody_with_it() {
    let rig = Rig::new(5, 9);
    let group = rig.create(3);
    let (good, bad) = (spare("good"), spare("bad"));
    (0..3).for_each(|_| bad.tricks.borrow_mut().push_back(double::Trick::LoseWrite));
    let refused = rig.bench.run(group.add_members(ports(&[good, bad]), false)).unwrap_err();
    assert_eq!((refused.joined, refused.at, refused.refused), (vec![], Some(1), JoinRefused::Bad));
    assert_eq!(group.status().drives.len(), 5);
}

/// With a drive missing the group still grows, and opens again with all of them but it.
#[test]
fn a_group_with_a_drive_missing_grows() {
    let rig = Rig::new(6, 10);
    let group = rig.create(4);
    let old = rig.bench.run(fill_segment(&group, 1));
    drop(group);
    let mut there: Vec<Rc<MemoryDrive>> = rig.drives[1..].to_vec();
    let group = rig.bench.run(Group::open(ports(&there), None, rig.bench.world())).unwrap();
    assert_eq!(group.status().drives[0].state, DriveState::Missing);
    let added: Vec<_> = (0..6).map(|number| spare(&format!("new{number}"))).collect();
    rig.bench.run(group.add_members(ports(&added), false)).unwrap();
    let new = rig.bench.run(fill_segment(&group, 2));
    drop(group);
    there.extend(added);
    let group = rig.bench.run(Group::open(ports(&there), None, rig.bench.world())).unwrap();
    assert_eq!(group.status().drives.len(), 12);
    rig.bench.run(async {
        for (ids, generation) in [(old, 1), (new, 2)] {
            for id in ids {
                check_stripe(&group, id, generation).await.unwrap();
            }
        }
    });
}

/// Decides R-EXP-02: twelve drives more, and the stripes get wider instead of more parity
/// being paid: 10+2 becomes 20+2. Old stripes stay as they are.
#[test]
fn stripes_get_wider_with_the_group() {
    let rig = Rig::new(12, 11);
    let group = rig.create(10);
    let old = rig.bench.run(fill_segment(&group, 1));
    let added: Vec<_> = (0..12).map(|number| spare(&format!("new{number}"))).collect();
    rig.bench.run(group.add_members(ports(&added), false)).unwrap();
    let said = |group: &Group| group.next_geometry().unwrap().to_string();
    assert_eq!(said(&group), "10+2");
    assert_eq!(rig.bench.run(group.widen_stripes(31)), Ok(false));
    assert_eq!(rig.bench.run(group.widen_stripes(20)), Ok(true));
    assert_eq!(said(&group), "20+2");
    let new = rig.bench.run(fill_segment(&group, 2));
    assert_eq!(group.geometry(new[0].segment).unwrap().to_string(), "20+2");
    assert_eq!(group.geometry(old[0].segment).unwrap().to_string(), "10+2");
    drop(group);
    let mut all = ports(&rig.drives);
    all.extend(ports(&added));
    let group = rig.bench.run(Group::open(all, None, rig.bench.world())).unwrap();
    assert_eq!(said(&group), "20+2");
    rig.bench.run(async {
        for (ids, generation) in [(old, 1), (new, 2)] {
            for id in ids {
                check_stripe(&group, id, generation).await.unwrap();
            }
        }
    });
}

#[test]
fn a_drive_takes_the_place_of_a_lost_one() {
    let rig = Rig::new(6, 4);
    let group = rig.create(4);
    let old = rig.bench.run(fill_segment(&group, 1));
    let new = spare("new");
    let replace = |slot| rig.bench.run(group.replace_member(slot, port(&new), false));
    assert_eq!(replace(Slot(2)), Err(JoinRefused::SlotInUse(Slot(2))));
    assert_eq!(replace(Slot(6)), Err(JoinRefused::NoSuchSlot(Slot(6))));
    rig.drives[2].gone.set(true);
    rig.bench.run(group.remove_member(Slot(2))).unwrap();
    assert_eq!(replace(Slot(2)), Ok(()));
    assert_eq!(group.status().drives[2].state, DriveState::Rebuilding);
    assert!(group.drain_events().contains(&Event::DriveJoined { slot: Slot(2), replaces: true }));
    // What is written now is on the new drive, too; what was there is read around it.
    let later = rig.bench.run(fill_segment(&group, 2));
    rig.bench.run(async {
        for id in old {
            check_stripe(&group, id, 1).await.unwrap();
        }
        for id in later {
            check_stripe(&group, id, 2).await.unwrap();
        }
    });
    drop(group);
    // A restart in between changes nothing; filled is filled for good.
    let mut drives = ports(&rig.drives);
    drives[2] = port(&new);
    let group = rig.bench.run(Group::open(drives.clone(), None, rig.bench.world())).unwrap();
    assert_eq!(group.status().drives[2].state, DriveState::Rebuilding);
    rig.bench.run(group.member_filled(Slot(2))).unwrap();
    assert_eq!(group.status().state, GroupState::Online);
    drop(group);
    let group = rig.bench.run(Group::open(drives, None, rig.bench.world())).unwrap();
    assert_eq!(group.status().state, GroupState::Online);
}

#[test]
fn the_drive_of_a_slot_comes_back_and_a_stranger_does_not() {
    let rig = Rig::new(6, 5);
    let group = rig.create(4);
    rig.bench.run(fill_segment(&group, 1));
    rig.bench.run(group.remove_member(Slot(1))).unwrap();
    let rejoin = |drive: &Rc<MemoryDrive>| rig.bench.run(group.rejoin_member(Slot(1), port(drive)));
    assert_eq!(rejoin(&rig.drives[3]), Err(JoinRefused::Stranger(Slot(1))));
    assert_eq!(rejoin(&rig.drives[1]), Ok(0), "nothing on it is trusted");
    assert_eq!(group.status().drives[1].state, DriveState::Rebuilding);
}

#[test]
fn a_drive_whose_loss_would_lose_data_is_not_put_out() {
    let rig = Rig::new(5, 6);
    let group = rig.create(3);
    rig.bench.run(fill_segment(&group, 1));
    assert_eq!(rig.bench.run(group.remove_member(Slot(0))), Ok(()));
    assert_eq!(rig.bench.run(group.remove_member(Slot(1))), Ok(()));
    assert_eq!(rig.bench.run(group.remove_member(Slot(2))), Err(RemoveRefused::Needed(Slot(2))));
    assert_eq!(rig.bench.run(group.remove_member(Slot(9))), Err(RemoveRefused::NoSuchSlot(Slot(9))));
    assert_eq!(group.status().state, GroupState::Critical);
}

/// However far a join got when the power went, the group opens with the drive or without
/// it, and a second try succeeds.
#[test]
fn a_crash_while_a_drive_joins_leaves_a_group_with_it_or_without_it() {
    let (mut with, mut without) = (0, 0);
    for polls in 0..160 {
        let rig = Rig::new(5, polls);
        let group = rig.create(3);
        rig.bench.run(group.register_cas("root", 0, b"value")).unwrap();
        let new = spare("new");
        rig.drives.iter().chain([&new]).for_each(|drive| drive.yields.set(1));
        let done = rig.bench.crash_after(polls as usize, group.add_members(vec![port(&new)], false));
        drop(group);
        rig.drives
            .iter()
            .chain([&new])
            .for_each(|drive| drive.power_cut(|| rig.bench.turns.random().is_multiple_of(2)));
        let mut drives = ports(&rig.drives);
        drives.push(port(&new));
        let group = rig.bench.run(Group::open(drives, None, rig.bench.world())).unwrap();
        let members = group.status().drives.len();
        assert!(members == 6 || done.is_none(), "a drive that had joined is not forgotten");
        if members == 5 {
            without += 1;
            // The labels may be torn: then only who says so may take the drive.
            rig.bench.run(group.add_members(vec![port(&new)], true)).unwrap();
        } else {
            with += 1;
        }
        assert_eq!(group.status().state, GroupState::Online);
        assert_eq!(rig.bench.run(group.register_read("root")).bytes, b"value");
    }
    assert!(with > 5 && without > 5, "both happened: {with}, {without}");
}
