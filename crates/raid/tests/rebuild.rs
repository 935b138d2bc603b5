//! Drives that are lost, replaced and filled again.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::collections::BTreeMap;
use std::rc::Rc;

use double::{MemoryDrive, Rig, Trick, UNIT, check_range, check_stripe, ports, write};
use raid::{Circular, DriveState, Group, GroupState, JoinRefused, Joined, Rebuilt, Slot, StripeId};

/// What the layer above knows: stripes that hold something.
type Written = BTreeMap<StripeId, u64>;

fn big_rig(drives: usize, drive_bytes: u64) -> Rig {
    let drives = (0..drives).map(|index| MemoryDrive::new(&format!("m{index}"), drive_bytes)).collect();
    Rig { bench: double::Bench::new(7), drives }
}

fn fresh(rig: &Rig, serial: &str) -> Rc<MemoryDrive> {
    MemoryDrive::new(serial, rig.drives[0].capacity_bytes.get())
}

/// Writes `count` stripes of generations from `first` on.
async fn fill(group: &Group, written: &mut Written, count: usize, first: u64) {
    let mut generation = first;
    'all: loop {
        let segment = group.open_segment().await.unwrap();
        for row in 0..group.rows_per_segment() {
            let id = StripeId { segment, row };
            write(group, id, generation).await.unwrap();
            written.insert(id, generation);
            generation += 1;
            if generation == first + count as u64 {
                break 'all;
            }
        }
    }
    group.flush().await.unwrap();
    group.stripes_are_whole_below(generation);
}

/// Loses the drive in `slot` as a pulled one.
async fn lose(rig: &Rig, group: &Group, slot: u8) {
    rig.drives[usize::from(slot)].gone.set(true);
    // The next flush or write of a register meets it.
    let version = group.register_read("test").await.version;
    group.register_cas("test", version, b"x").await.unwrap();
    assert_eq!(group.status().drives[usize::from(slot)].state, DriveState::Failed);
}

/// Lets a fresh drive take `slot`.
async fn join(group: &Group, order: &mut Circular, slot: u8, drive: Rc<MemoryDrive>, written: &Written) {
    let slot = Slot(slot);
    group.replace_member(slot, drive, false).await.unwrap();
    let owed = group.units_in(slot, written.keys().copied().collect());
    let (units, drive) = (owed.len() as u64, group.drive_in(slot).unwrap());
    group.set_owed(slot, owed);
    let start = StripeId::default();
    order.join(slot, Joined { drive, start, from_generation: u64::MAX, whole_below: 0, units });
}

/// Up to `stripes` steps of the pass; drives that are done become whole. Returns the
/// stripes in their order, and those that are lost.
async fn pass(
    group: &Group,
    order: &mut Circular,
    written: &Written,
    stripes: usize,
) -> (Vec<StripeId>, Vec<StripeId>) {
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    while seen.len() < stripes {
        let Some(id) = order.next(|from| group.next_owed(from)) else { break };
        if group.rebuild_stripe(id, written[&id]).await == Rebuilt::Lost {
            lost.push(id);
        }
        seen.push(id);
        order.pass(id);
        finish(group, order).await;
    }
    finish(group, order).await;
    (seen, lost)
}

async fn finish(group: &Group, order: &mut Circular) {
    for (slot, _) in group.rebuilding().into_iter().filter(|(_, owed)| *owed == Some(0)) {
        assert!(group.become_whole(slot).await.unwrap());
        order.leave(slot);
    }
}

async fn check_all(group: &Group, written: &Written) {
    for (&id, &generation) in written {
        for unit in 0..usize::from(group.geometry(id.segment).unwrap().data) {
            check_range(group, id, generation, unit, 511..4611).await.unwrap();
        }
        check_stripe(group, id, generation).await.unwrap();
    }
}

/// Decides R-REB-02, R-REB-03 and R-REB-04: 1,000 stripes, a second failure at 300: each
/// stripe from there on is read once for both drives, the pass goes round to 0..299, and
/// 1,300 stripes are read, not 2,000: 35 % less.
#[test]
fn a_thousand_stripes_with_a_second_failure_at_300_cost_1300_reads() {
    let rig = big_rig(6, 40 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    let mut order = Circular::default();
    rig.bench.run(async {
        fill(&group, &mut written, 1000, 1).await;
        lose(&rig, &group, 1).await;
        join(&group, &mut order, 1, fresh(&rig, "spare1"), &written).await;
        let (first, _) = pass(&group, &mut order, &written, 300).await;
        assert_eq!(first, written.keys().copied().take(300).collect::<Vec<_>>());
        lose(&rig, &group, 4).await;
        join(&group, &mut order, 4, fresh(&rig, "spare4"), &written).await;
        let before: u64 = rig.drives.iter().map(|drive| drive.read_bytes.get()).sum();
        let (rest, lost) = pass(&group, &mut order, &written, usize::MAX).await;
        assert!(lost.is_empty());
        assert_eq!(
            rest,
            written.keys().copied().skip(300).chain(written.keys().copied().take(300)).collect::<Vec<_>>()
        );
        assert_eq!(group.counters().stripes_rebuilt, 1300);
        assert_eq!(group.counters().units_rebuilt, 2000);
        // Each of the later 1,000 stripes is read from four drives, once, whoever owes it.
        let read: u64 = rig.drives.iter().map(|drive| drive.read_bytes.get()).sum();
        assert!(read - before <= 1000 * 4 * u64::from(UNIT), "{} bytes", read - before);
        assert_eq!(group.status().state, GroupState::Online);
        assert_eq!(group.status().failures_tolerated, 2);
    });
    rig.drives[0].gone.set(true);
    rig.drives[2].gone.set(true);
    rig.bench.run(check_all(&group, &written));
}

/// Decides R-REB-05: on disks the arms move far less than with two rebuilds that each go their own way.
#[test]
fn two_rebuilds_in_one_pass_seek_less_than_two_by_themselves() {
    let seeks = |rig: &Rig| rig.drives.iter().map(|drive| drive.seek_bytes.get()).sum::<u64>();
    let rig = big_rig(6, 40 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    let mut order = Circular::default();
    let together = rig.bench.run(async {
        fill(&group, &mut written, 1000, 1).await;
        lose(&rig, &group, 1).await;
        join(&group, &mut order, 1, fresh(&rig, "spare1"), &written).await;
        pass(&group, &mut order, &written, 300).await;
        lose(&rig, &group, 4).await;
        join(&group, &mut order, 4, fresh(&rig, "spare4"), &written).await;
        let before = seeks(&rig);
        pass(&group, &mut order, &written, usize::MAX).await;
        seeks(&rig) - before
    });
    // The same 1,000 stripes for the second drive and the 700 left for the first one, in turns.
    let stripes: Vec<_> = written.iter().collect();
    let apart = rig.bench.run(async {
        let before = seeks(&rig);
        for step in 0..1000 {
            for at in [Some(step), Some(step + 300).filter(|at| *at < 1000)].into_iter().flatten() {
                let (id, generation) = stripes[at];
                group.read_stripe(*id, *generation).await.unwrap();
            }
        }
        seeks(&rig) - before
    });
    println!("| two rebuilds | sought MiB |\n|---|---|");
    println!("| in one pass | {} |\n| by themselves | {} |", together >> 20, apart >> 20);
    assert!(together * 10 < apart, "{together} bytes together, {apart} apart");
}

/// Decides R-REB-06: a group that is one percent full writes one percent of a drive.
#[test]
fn only_what_was_written_is_rebuilt() {
    let rig = big_rig(6, 64 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(async {
        fill(&group, &mut written, 40, 1).await;
        lose(&rig, &group, 0).await;
        let spare = fresh(&rig, "spare");
        let mut order = Circular::default();
        join(&group, &mut order, 0, spare.clone(), &written).await;
        spare.writes.borrow_mut().clear();
        pass(&group, &mut order, &written, usize::MAX).await;
        let data_start = 2 << 20;
        let units = spare.writes.borrow().iter().filter(|trace| trace.offset_bytes >= data_start).count();
        let held = group.units_in(Slot(0), written.keys().copied().collect()).len();
        assert!(units * 100 <= held * 105, "{units} units written for {held} held");
    });
}

/// Decides R-INT-21: one drive lost and a latent error in another unit of the same stripe.
#[test]
fn a_latent_error_in_the_middle_is_decoded_around_and_healed() {
    let rig = big_rig(6, 16 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(async {
        fill(&group, &mut written, 30, 1).await;
        lose(&rig, &group, 2).await;
        let mut order = Circular::default();
        join(&group, &mut order, 2, fresh(&rig, "spare"), &written).await;
        // Every stripe of the third drive is unreadable, then more than a scrub would find.
        rig.drives[3].bad.borrow_mut().push(2 << 20..16 << 20);
        let (_, lost) = pass(&group, &mut order, &written, usize::MAX).await;
        assert!(lost.is_empty());
        assert_eq!(group.status().state, GroupState::Online);
    });
    rig.drives[0].gone.set(true);
    rig.drives[5].gone.set(true);
    rig.bench.run(check_all(&group, &written));
}

/// A third loss: what was redone survives, the rest is said to be lost, and it goes on.
#[test]
fn a_third_loss_in_the_middle_loses_only_what_it_must() {
    let rig = big_rig(6, 16 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(async {
        fill(&group, &mut written, 60, 1).await;
        let mut order = Circular::default();
        lose(&rig, &group, 0).await;
        join(&group, &mut order, 0, fresh(&rig, "spare0"), &written).await;
        lose(&rig, &group, 1).await;
        join(&group, &mut order, 1, fresh(&rig, "spare1"), &written).await;
        let (redone, _) = pass(&group, &mut order, &written, 20).await;
        lose(&rig, &group, 2).await;
        assert!(!group.status().latched, "it goes on");
        let (_, lost) = pass(&group, &mut order, &written, usize::MAX).await;
        let in_doubt: Vec<StripeId> = written.keys().copied().filter(|id| !redone.contains(id)).collect();
        assert_eq!(lost, in_doubt, "exactly those with three units gone");
        let redone: Written = redone.iter().map(|id| (*id, written[id])).collect();
        check_all(&group, &redone).await;
        for (slot, state) in [(0, DriveState::Good), (1, DriveState::Good), (2, DriveState::Failed)] {
            assert_eq!(group.status().drives[slot].state, state);
        }
    });
}

/// A drive that is pulled and pushed back: only stripes that it missed are redone.
#[test]
fn a_drive_that_comes_back_gets_only_what_is_newer() {
    let rig = big_rig(6, 16 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(async {
        fill(&group, &mut written, 40, 1).await;
        lose(&rig, &group, 3).await;
        // Ten places are written anew, as places of freed stripes are.
        let reused: Vec<StripeId> = written.keys().copied().step_by(4).collect();
        for (id, generation) in reused.iter().zip(41..) {
            write(&group, *id, generation).await.unwrap();
            written.insert(*id, generation);
        }
        group.flush().await.unwrap();
        rig.drives[3].gone.set(false);
        let drive = rig.drives[3].clone();
        assert_eq!(group.awaits(drive.clone()).await, Some(Slot(3)));
        let slot = Slot(3);
        let whole_below = group.rejoin_member(slot, drive.clone()).await.unwrap();
        assert_eq!(whole_below, 41);
        let newer = written.iter().filter(|(_, generation)| **generation >= whole_below).map(|(id, _)| *id).collect();
        let missed = group.units_in(slot, newer);
        assert!(!missed.is_empty());
        group.set_owed(slot, missed.clone());
        check_all(&group, &written).await;
        drive.writes.borrow_mut().clear();
        let (seen, _) = pass(&group, &mut Circular::default(), &written, usize::MAX).await;
        assert_eq!(seen, missed);
        assert_eq!(drive.writes.borrow().iter().filter(|trace| trace.offset_bytes >= 2 << 20).count(), seen.len());
        assert_eq!(group.status().state, GroupState::Online);
        assert_eq!(group.counters().stripes_rebuilt, seen.len() as u64);
    });
    rig.drives[0].gone.set(true);
    rig.drives[5].gone.set(true);
    rig.bench.run(check_all(&group, &written));
}

/// A rebuild cut off anywhere is taken up where the record says, and ends.
#[test]
fn a_rebuild_cut_off_anywhere_resumes_and_ends() {
    for cut in [0, 1, 7, 20, 39] {
        let rig = big_rig(6, 16 << 20);
        let spare = fresh(&rig, "spare");
        let mut written = Written::new();
        let record = {
            let group = rig.create(4);
            rig.bench.run(async {
                fill(&group, &mut written, 40, 1).await;
                lose(&rig, &group, 5).await;
                let mut order = Circular::default();
                join(&group, &mut order, 5, spare.clone(), &written).await;
                pass(&group, &mut order, &written, cut).await;
                group.flush().await.unwrap();
                order.encode()
            })
        };
        let all: Vec<Rc<MemoryDrive>> = rig.drives[..5].iter().cloned().chain([spare.clone()]).collect();
        let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
        let mut order = Circular::decode(&record).unwrap();
        rig.bench.run(async {
            assert_eq!(group.rebuilding(), [(Slot(5), None)]);
            check_all(&group, &written).await;
            let owes = |(id, generation): (&StripeId, &u64)| order.owes(Slot(5), *id, *generation).then_some(*id);
            let owed = written.iter().filter_map(owes).collect();
            let owed = group.units_in(Slot(5), owed);
            assert!(owed.len() <= 40 - cut);
            group.set_owed(Slot(5), owed);
            pass(&group, &mut order, &written, usize::MAX).await;
            assert_eq!(group.status().failures_tolerated, 2, "cut at {cut}");
        });
        drop(group);
        let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
        assert_eq!(group.status().state, GroupState::Online, "its vote is durable");
        all[0].gone.set(true);
        all[1].gone.set(true);
        rig.bench.run(check_all(&group, &written));
    }
}

/// Decides R-SPARE-02 and R-SPARE-03: until a call hands it over nothing of a spare is touched but its
/// label, read once when the group is opened.
#[test]
fn a_spare_is_left_alone() {
    let rig = big_rig(6, 16 << 20);
    drop(rig.create(4));
    let spare = fresh(&rig, "spare");
    let mut all = rig.drives.clone();
    all.push(spare.clone());
    let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
    let (reads, bytes) = (spare.reads.get(), spare.read_bytes.get());
    assert!(reads <= 2 && bytes <= 8192, "{reads} reads of {bytes} bytes");
    let mut written = Written::new();
    rig.bench.run(async {
        fill(&group, &mut written, 40, 1).await;
        check_all(&group, &written).await;
        lose(&rig, &group, 1).await;
        check_all(&group, &written).await;
    });
    assert_eq!((spare.reads.get(), spare.writes.borrow().len()), (reads, 0));
}

/// Decides R-SPARE-04: what fails its examination is not taken, whatever is wrong with it
/// (a good one is used at once: `crates/engine/tests/rebuild.rs`).
#[test]
fn a_bad_spare_is_refused() {
    let rig = big_rig(6, 16 << 20);
    let other = Rig::new(5, 11);
    let other_group = other.create(3);
    let group = rig.create(4);
    rig.bench.run(async {
        let mut written = Written::new();
        fill(&group, &mut written, 4, 1).await;
        let offer = |drive: &Rc<MemoryDrive>| group.replace_member(Slot(0), drive.clone(), false);
        let spare = fresh(&rig, "spare");
        assert_eq!(offer(&spare).await, Err(JoinRefused::SlotInUse(Slot(0))));
        lose(&rig, &group, 0).await;
        assert!(matches!(offer(&MemoryDrive::new("small", 8 << 20)).await, Err(JoinRefused::TooSmall { .. })));
        assert_eq!(offer(&rig.drives[1]).await, Err(JoinRefused::InUse { group: Some(group.id()) }));
        let foreign = other.drives[0].copy("foreign");
        foreign.capacity_bytes.set(16 << 20);
        assert_eq!(offer(&foreign).await, Err(JoinRefused::InUse { group: Some(other_group.id()) }));
        let used = fresh(&rig, "used");
        used.poke(0, &[7; 4096]);
        assert_eq!(offer(&used).await, Err(JoinRefused::InUse { group: None }));
        let lying = fresh(&rig, "lying");
        lying.tricks.borrow_mut().push_back(Trick::LoseWrite);
        assert_eq!(offer(&lying).await, Err(JoinRefused::Bad));
        let failing = fresh(&rig, "failing");
        failing.write_errors.set(1);
        assert!(matches!(offer(&failing).await, Err(JoinRefused::Media(_))));
        assert_eq!(group.status().drives[0].state, DriveState::Failed);
        assert_eq!(offer(&spare).await, Ok(()));
        assert_eq!(group.status().drives[0].state, DriveState::Rebuilding);
    });
}

/// Decides R-SPARE-05: every way through the four states, and none but these.
#[test]
fn a_drive_is_good_missing_failed_or_rebuilding() {
    let rig = big_rig(6, 16 << 20);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(fill(&group, &mut written, 4, 1));
    drop(group);
    let all_but_first = ports(&rig.drives[1..]);
    let group = rig.bench.run(Group::open(all_but_first, None, rig.bench.world())).unwrap();
    let state = |group: &Group| group.status().drives[0].state;
    rig.bench.run(async {
        assert_eq!(state(&group), DriveState::Missing);
        // Missing, nothing missed: back, and whole at once.
        let slot = Slot(0);
        group.rejoin_member(slot, rig.drives[0].clone()).await.unwrap();
        assert_eq!(state(&group), DriveState::Rebuilding);
        assert!(!group.become_whole(slot).await.unwrap(), "not before it is known what it owes");
        assert_eq!(state(&group), DriveState::Rebuilding);
        group.set_owed(slot, []);
        assert!(group.become_whole(slot).await.unwrap());
        assert_eq!(state(&group), DriveState::Good);
        assert!(!group.become_whole(slot).await.unwrap(), "it is whole already");
        // Good, lost, replaced, and the new one lost while it is being filled.
        fill(&group, &mut written, 20, 5).await;
        lose(&rig, &group, 0).await;
        assert_eq!(group.replace_member(Slot(1), fresh(&rig, "x"), false).await, Err(JoinRefused::SlotInUse(Slot(1))));
        let spare = fresh(&rig, "spare");
        let mut order = Circular::default();
        join(&group, &mut order, 0, spare.clone(), &written).await;
        assert_eq!(state(&group), DriveState::Rebuilding);
        spare.gone.set(true);
        let (_, lost) = pass(&group, &mut order, &written, usize::MAX).await;
        assert!(lost.is_empty());
        assert_eq!(state(&group), DriveState::Failed);
        spare.gone.set(false);
        assert_eq!(group.awaits(spare.clone()).await, None, "nothing on it is trusted");
        rig.drives[0].gone.set(false);
        assert_eq!(group.rejoin_member(Slot(0), rig.drives[0].clone()).await, Err(JoinRefused::Stranger(Slot(0))));
        join(&group, &mut order, 0, fresh(&rig, "second"), &written).await;
        pass(&group, &mut order, &written, usize::MAX).await;
        assert_eq!(state(&group), DriveState::Good);
    });
}

/// What can be wrong with one unit, and how to make it so: old content of the unit, the
/// same drive's unit of another stripe, and another drive's unit of the same stripe are at
/// hand.
const FAULTS: [&str; 8] = [
    "flip in payload",
    "flip in header",
    "unreadable",
    "lost write (blank)",
    "lost write (stale)",
    "torn write",
    "misplaced write",
    "swapped unit",
];

struct Victim {
    drive: usize,
    offset: u64,
    stale: Vec<u8>,
    of_another_stripe: Vec<u8>,
    of_another_drive: Vec<u8>,
}

fn harm(drive: &MemoryDrive, victim: &Victim, fault: &str) {
    let (at, unit) = (victim.offset, UNIT as usize);
    match fault {
        "flip in payload" => drive.flip(at + 600, 3),
        "flip in header" => drive.flip(at + 60, 1),
        "unreadable" => drive.bad.borrow_mut().push(at..at + unit as u64),
        "lost write (blank)" => drive.poke(at, &vec![0; unit]),
        "lost write (stale)" => drive.poke(at, &victim.stale),
        "torn write" => drive.poke(at + unit as u64 / 2, &vec![0; unit / 2]),
        "misplaced write" => drive.poke(at, &victim.of_another_stripe),
        "swapped unit" => drive.poke(at, &victim.of_another_drive),
        other => panic!("no fault {other}"),
    }
}

/// Loses `lost`, replaces them, and fills them with one unit of a third drive harmed.
/// Returns the stripes that are lost; all others must be right.
fn rebuild_around(
    drives: &[Rc<MemoryDrive>],
    written: &Written,
    (victim, fault): (&Victim, &str),
    lost: &[usize],
) -> Vec<StripeId> {
    let copies = drives.iter().map(|drive| drive.copy(&drive.serial)).collect();
    let rig = Rig { bench: double::Bench::new(5), drives: copies };
    harm(&rig.drives[victim.drive], victim, fault);
    let group = rig.open().unwrap();
    rig.bench.run(async {
        let mut order = Circular::default();
        for &slot in lost {
            lose(&rig, &group, slot as u8).await;
        }
        for &slot in lost {
            join(&group, &mut order, slot as u8, fresh(&rig, "spare"), written).await;
        }
        let (_, gone) = pass(&group, &mut order, written, usize::MAX).await;
        let rest: Written =
            written.iter().filter(|(id, _)| !gone.contains(id)).map(|(id, generation)| (*id, *generation)).collect();
        check_all(&group, &rest).await;
        for (&id, &generation) in &rest {
            let verdict = group.scrub_stripe(id, generation).await;
            assert!(verdict.repaired.len() <= 1 && !verdict.lost && verdict.absent == 0, "{verdict:?}");
        }
        gone
    })
}

/// Every single drive and every pair lost, times every fault on every unit of a stripe on
/// the other drives: with one drive lost everything is masked; with two, exactly the
/// stripe that has three bad units is lost and said to be, and nothing else.
#[test]
fn every_pair_of_lost_drives_times_every_fault_on_a_third_unit() {
    let rig = Rig::new(6, 21);
    let group = rig.create(4);
    let mut written = Written::new();
    rig.bench.run(fill(&group, &mut written, 4, 1));
    let (id, other) = (*written.keys().next().unwrap(), *written.keys().nth(1).unwrap());
    let units: Vec<(usize, u64)> = (0..6).map(|role| double::find_unit(&rig, &group, id, written[&id], role)).collect();
    let read = |(drive, offset): (usize, u64)| rig.drives[drive].peek(offset, UNIT as usize);
    let stale: Vec<Vec<u8>> = units.iter().map(|place| read(*place)).collect();
    rig.bench.run(async {
        write(&group, id, 90).await.unwrap();
        group.flush().await.unwrap();
    });
    written.insert(id, 90);
    let victims: Vec<Victim> = (0..6)
        .map(|role| {
            let (drive, offset) = units[role];
            let others = (0..6).map(|role| double::find_unit(&rig, &group, other, written[&other], role));
            let same_drive = others.into_iter().find(|(other, _)| *other == drive).unwrap();
            let of_another_drive = read(units[(role + 1) % 6]);
            Victim { drive, offset, stale: stale[role].clone(), of_another_stripe: read(same_drive), of_another_drive }
        })
        .collect();
    drop(group);
    println!("{:<20} {:>22} {:>34}", "fault on a third unit", "1 drive lost", "2 drives lost");
    for fault in FAULTS {
        let (mut masked, mut listed) = (0, 0);
        for victim in &victims {
            let others: Vec<usize> = (0..6).filter(|drive| *drive != victim.drive).collect();
            for (index, &first) in others.iter().enumerate() {
                let gone = rebuild_around(&rig.drives, &written, (victim, fault), &[first]);
                assert!(gone.is_empty(), "{fault} on drive {} with {first} lost", victim.drive);
                masked += 1;
                for &second in &others[index + 1..] {
                    let gone = rebuild_around(&rig.drives, &written, (victim, fault), &[first, second]);
                    assert_eq!(gone, [id], "{fault} on drive {} with {first} and {second} lost", victim.drive);
                    listed += 1;
                }
            }
        }
        println!("{fault:<20} {masked:>9} of {masked} masked {listed:>9} of {listed} listed, rest whole");
    }
}
