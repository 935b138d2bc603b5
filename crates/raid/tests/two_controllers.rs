//! Two controllers on the same drives: one takes the group from the other, at any moment and
//! with a crash anywhere. Watched: the history of a register is one that a single register
//! could have had, and a former owner changes nothing any more.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base::id::{DriveId, GroupId};
use double::history::History;
use double::{MemoryDrive, Rig, ports, yields};
use raid::header::{GroupHeader, MemberRecord, Standing};
use raid::label::Label;
use raid::layout::{Policy, Shape};
use raid::register::{SlotValue, Stamp, encode_session, encode_slot};
use raid::{CasRefused, ControllerId, Event, Group, NoSpace, OpenRefused, Seat, Slot};

fn open_as(rig: &Rig, seat: Seat) -> Result<Group, OpenRefused> {
    rig.bench.run(Group::open_as(seat, ports(&rig.drives), None, rig.bench.world()))
}

fn writes(rig: &Rig) -> usize {
    rig.drives.iter().map(|drive| drive.writes.borrow().len()).sum()
}

#[test]
fn a_former_owner_is_fenced_in_everything_it_decides() {
    let rig = Rig::new(5, 1);
    let first = rig.create(3);
    let run = |work| rig.bench.run(work);
    assert_eq!(run(first.register_cas("root", 0, b"one")), Ok(1));
    assert!(rig.bench.run(first.is_owner()));
    let second = open_as(&rig, Seat::Second).unwrap();
    assert_eq!(rig.bench.run(second.register_read("root")).bytes, b"one");
    let ballot = second.status().session;
    assert_eq!(run(first.register_cas("root", 1, b"late")), Err(CasRefused::Fenced));
    assert_eq!(first.fenced_by(), Some(ballot));
    assert!(first.drain_events().contains(&Event::Fenced { by: ballot }));
    assert_eq!(run(first.register_cas("other", 0, b"late")), Err(CasRefused::Fenced));
    assert_eq!(rig.bench.run(first.open_segment()), Err(NoSpace::Latched));
    let before = writes(&rig);
    assert_eq!(rig.bench.run(first.scrub_registers()), 0);
    assert!(!rig.bench.run(first.is_owner()));
    assert_eq!(writes(&rig), before, "who is fenced writes nothing");
    assert_eq!(run(second.register_cas("root", 1, b"two")), Ok(2));
    // And back, on the first one's seat.
    let third = open_as(&rig, Seat::First).unwrap();
    let root = rig.bench.run(third.register_read("root"));
    assert_eq!((root.version, &root.bytes[..]), (2, &b"two"[..]));
    assert_eq!(run(second.register_cas("root", 2, b"late")), Err(CasRefused::Fenced));
    assert_eq!(run(third.register_cas("root", 2, b"three")), Ok(3));
}

/// The process that had a seat before, and still lives though it should not, is fenced as well.
#[test]
fn a_second_process_on_the_same_seat_fences_the_first_one() {
    let rig = Rig::new(5, 2);
    let old = rig.create(3);
    rig.bench.run(old.register_cas("root", 0, b"one")).unwrap();
    let new = rig.open().unwrap();
    assert_eq!(rig.bench.run(old.register_cas("root", 1, b"late")), Err(CasRefused::Fenced));
    assert_eq!(rig.bench.run(new.register_cas("root", 1, b"two")), Ok(2));
    drop((old, new));
    assert_eq!(rig.bench.run(rig.open().unwrap().register_read("root")).bytes, b"two");
}

/// An owner that writes while another one gets as far as it gets and crashes: either it goes
/// on, or it is fenced; what it was told is decided stays.
#[test]
fn a_takeover_that_crashes_anywhere_loses_nothing() {
    let (mut went_on, mut fenced) = (0, 0);
    for polls in 0..400 {
        let rig = Rig::new(5, polls);
        let owner = rig.create(3);
        rig.bench.run(owner.register_cas("root", 0, b"1")).unwrap();
        rig.drives.iter().for_each(|drive| drive.yields.set(1));
        let takeover = Group::open_as(Seat::Second, ports(&rig.drives), None, rig.bench.world());
        let taken = rig.bench.crash_after(polls as usize / 8, takeover);
        let done = rig.bench.run(owner.register_cas("root", 1, b"2"));
        match &done {
            Ok(version) => {
                assert!(*version == 2 && taken.is_none());
                went_on += 1;
            }
            Err(refused) => {
                assert_eq!(*refused, CasRefused::Fenced);
                fenced += 1;
            }
        }
        let seat = if polls % 2 == 0 { Seat::First } else { Seat::Second };
        drop(owner);
        let root = rig.bench.run(open_as(&rig, seat).unwrap().register_read("root"));
        assert!(root.bytes == b"2" || done.is_err() && root.bytes == b"1", "{root:?} after {done:?}");
    }
    assert!(went_on > 20 && fenced > 20, "both happened: {went_on}, {fenced}");
}

/// A controller: opens the group, changes the register a few times, goes away; again.
async fn controller(rig: &Rig, seat: Seat, history: &RefCell<History>, rounds: u64) -> u64 {
    let mut done = 0;
    for round in 0..rounds {
        // Back-off is the caller's business: here, any number of turns.
        yields((rig.bench.turns.random() % 200) as u32).await;
        let floor = history.borrow().begin();
        let Ok(group) = Group::open_as(seat, ports(&rig.drives), None, rig.bench.world()).await else { continue };
        let mut root = group.register_read("root").await;
        if group.is_owner().await {
            history.borrow_mut().end(floor, root.version, &root.bytes);
        }
        for change in 0..rig.bench.turns.random() % 6 {
            let value = format!("{seat:?} {round} {change}").into_bytes();
            let floor = history.borrow().begin();
            let Ok(version) = group.register_cas("root", root.version, &value).await else { break };
            root.version = version;
            done += 1;
            history.borrow_mut().end(floor, version, &value);
        }
    }
    done
}

/// Decides R-RAID-10: two controllers that take the group from each other at any moment and
/// are cut off anywhere; the register's history is linear, and no value is a mix.
#[test]
fn the_history_of_two_controllers_is_that_of_one_register() {
    let (mut changes, mut crashes) = (0, 0);
    for seed in 0..40 {
        let rig = Rig::new(5, 7000 + seed);
        let group = rig.create(3);
        rig.bench.run(group.register_cas("root", 0, b"founded")).unwrap();
        drop(group);
        let history = RefCell::default();
        rig.drives.iter().for_each(|drive| drive.yields.set(1 + (rig.bench.turns.random() % 4) as u32));
        for _ in 0..3 {
            let one = controller(&rig, Seat::First, &history, 4);
            let other = controller(&rig, Seat::Second, &history, 4);
            let both = futures_util::future::join(one, other);
            let polls = (rig.bench.turns.random() % 5000) as usize;
            match rig.bench.crash_after(polls, both) {
                Some((one, other)) => changes += one + other,
                None => crashes += 1,
            }
            rig.drives.iter().for_each(|drive| drive.power_cut(|| rig.bench.turns.random().is_multiple_of(2)));
        }
        // A value that may have been set without an answer counts when it is seen.
        let last = rig.bench.run(rig.open().unwrap().register_read("root"));
        let mut history = history.borrow_mut();
        let floor = history.begin();
        history.end(floor, last.version, &last.bytes);
    }
    assert!(changes > 50 && crashes > 10, "{changes} changes, {crashes} crashes");
}

#[test]
fn the_owner_is_a_record_with_an_epoch_that_rises() {
    let rig = Rig::new(5, 3);
    let lease = Duration::from_secs(4);
    let first = rig.create(3);
    let look = || rig.bench.run(Group::look_at_owner(ports(&rig.drives), None, rig.bench.world())).unwrap();
    assert_eq!(look(), None);
    let own = rig.bench.run(first.own(ControllerId([1; 16]), lease)).unwrap();
    assert_eq!((own.epoch, own.renewals, own.lease), (1, 0, lease));
    let before = writes(&rig);
    assert_eq!(look(), Some(own));
    assert_eq!(writes(&rig), before, "a look writes nothing");
    assert!(rig.bench.run(first.is_owner()), "and fences nobody");
    assert_eq!(rig.bench.run(first.renew_ownership(1)).unwrap().renewals, 1);
    assert_eq!(look().unwrap().renewals, 1);
    let second = open_as(&rig, Seat::Second).unwrap();
    assert_eq!(rig.bench.run(second.own(ControllerId([2; 16]), lease)).unwrap().epoch, 2);
    assert_eq!(rig.bench.run(first.renew_ownership(1)), Err(CasRefused::Fenced));
    assert_eq!(rig.bench.run(second.renew_ownership(1)), Err(CasRefused::Fenced), "another epoch");
    assert_eq!(rig.bench.run(second.ownership()).unwrap().controller, ControllerId([2; 16]));
}

/// A decision costs one write and one flush per drive, and one read of the promises.
#[test]
fn a_decision_costs_one_write_and_one_flush_per_drive() {
    let rig = Rig::new(5, 4);
    let group = rig.create(3);
    rig.bench.run(group.register_cas("root", 0, b"one")).unwrap();
    let count = || {
        let counts =
            rig.drives.iter().map(|drive| (drive.writes.borrow().len(), drive.flushes.get(), drive.reads.get()));
        counts.collect::<Vec<_>>()
    };
    let before = count();
    rig.bench.run(group.register_cas("root", 1, b"two")).unwrap();
    for (before, after) in before.into_iter().zip(count()) {
        assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 1, 1));
    }
}

/// A group as versions before the second seat made it, byte for byte.
fn one_seat_group(rig: &Rig) -> GroupId {
    let group = GroupId([9; 16]);
    let shape = Shape { seats: 1, ..Shape::plan(double::UNIT, 0, 8 << 20) };
    let extents = shape.extents(8 << 20);
    let member = |index: u8| MemberRecord {
        drive: DriveId([index; 16]),
        standing: Standing::Good,
        extents,
        whole_below: 0,
        model: "memory".to_owned(),
        serial: format!("m{index}"),
    };
    let header = GroupHeader {
        group,
        name: "old".to_owned(),
        shape,
        policy: Policy { data_width_max: 3, parity: 2, founding_drives: 5, rows: shape.rows },
        membership: 1,
        members: (0..5).map(member).collect(),
        registers: vec!["root".to_owned()],
        next_segment: 1,
        segments: Default::default(),
    };
    let stamp = Stamp { session: 4, version: 1 };
    for (drive, index) in rig.drives.iter().zip(0u8..) {
        let poke = |at, bytes: Vec<u8>| drive.poke(at, &bytes);
        poke(128 << 10, encode_session(group, 4));
        poke(256 << 10, encode_slot(group, 0, &SlotValue { stamp, bytes: header.encode() }));
        let blob = (256 << 10) + 2 * u64::from(shape.header_slot_bytes);
        poke(blob, encode_slot(group, 1, &SlotValue { stamp, bytes: b"old root".to_vec() }));
        let drive = DriveId([index; 16]);
        let label = Label { group, drive, slot: Slot(index), shape, extents, name: "old".to_owned() };
        assert_eq!(label.encode()[8..12], [1, 0, index, 0], "format 1, nothing in the reserved byte");
        poke(0, label.encode());
        poke(64 << 10, label.encode());
    }
    group
}

#[test]
fn a_group_of_before_there_were_two_seats_opens_for_the_first_one() {
    let rig = Rig::new(5, 5);
    let id = one_seat_group(&rig);
    let before = writes(&rig);
    assert!(matches!(open_as(&rig, Seat::Second), Err(OpenRefused::OneSeat(_))));
    assert_eq!(writes(&rig), before);
    for round in 0..3 {
        let group = rig.open().unwrap();
        assert_eq!(group.id(), id);
        let root = rig.bench.run(group.register_read("root"));
        assert_eq!(
            (root.version, root.bytes),
            (1 + round, format!("{}old root", "an ".repeat(round as usize)).into_bytes())
        );
        let value = format!("{}old root", "an ".repeat(round as usize + 1));
        rig.bench.run(group.register_cas("root", root.version, value.as_bytes())).unwrap();
        rig.bench.run(group.open_segment()).unwrap();
        // Members that join are of the old format, too.
        let new = MemoryDrive::new(&format!("n{round}"), 8 << 20);
        rig.bench.run(group.add_members(vec![Rc::<MemoryDrive>::clone(&new)], false)).unwrap();
        rig.bench.run(group.remove_member(Slot(5 + round as u8))).unwrap();
    }
    assert_eq!(rig.drives[0].peek(0, 16)[8..10], [1, 0], "the label's format is the one it had");
}
