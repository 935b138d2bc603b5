//! Drives that are retired behind a twin (decision 0028): nothing is less redundant at any moment, and no crash leaves
//! two groups.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::collections::BTreeMap;
use std::rc::Rc;

use double::{MemoryDrive, Rig, check_range, check_stripe, ports, write};
use raid::{DriveState, Event, FailReason, Finding, Group, JoinRefused, Rebuilt, Slot, StripeId, TwinEnd};

type Written = BTreeMap<StripeId, u64>;

const SLOT: Slot = Slot(2);

/// Six drives with `count` stripes, and a blank one.
fn start(drives: usize, count: usize) -> (Rig, Rc<MemoryDrive>, Group, Written) {
    let rig = Rig::new(drives, 7);
    let group = rig.create(3);
    let mut written = Written::new();
    rig.bench.run(fill(&group, &mut written, count));
    (rig, MemoryDrive::new("spare", 8 << 20), group, written)
}

/// Writes `count` stripes more.
async fn fill(group: &Group, written: &mut Written, count: usize) {
    let wanted = written.len() + count;
    while written.len() < wanted {
        let segment = group.open_segment().await.unwrap();
        for row in 0..group.rows_per_segment().min((wanted - written.len()) as u32) {
            let (id, generation) = (StripeId { segment, row }, written.len() as u64 + 1);
            write(group, id, generation).await.unwrap();
            written.insert(id, generation);
        }
    }
    group.flush().await.unwrap();
    group.stripes_are_whole_below(written.len() as u64 + 1);
}

/// Begins to retire the drive in [`SLOT`].
async fn begin(group: &Group, spare: &Rc<MemoryDrive>, written: &Written) -> Result<(), JoinRefused> {
    group.begin_twin(SLOT, spare.clone(), false).await?;
    group.set_owed(SLOT, group.units_in(SLOT, written.keys().copied().collect()));
    Ok(())
}

/// Fills in up to `most` stripes; what owes nothing becomes whole.
async fn pass(group: &Group, written: &Written, most: usize) {
    for _ in 0..most {
        let Some(id) = group.next_owed(StripeId::default()) else { break };
        assert_ne!(group.rebuild_stripe(id, written[&id]).await, Rebuilt::Lost);
    }
    for (slot, _) in group.rebuilding().into_iter().filter(|(_, owed)| *owed == Some(0)) {
        let _ = group.become_whole(slot).await;
    }
}

async fn check_all(group: &Group, written: &Written) {
    for (&id, &generation) in written {
        check_range(group, id, generation, 0, 511..4611).await.unwrap();
        check_stripe(group, id, generation).await.unwrap();
    }
}

/// Every unit of every stripe is there and right.
async fn is_clean(group: &Group, written: &Written) -> bool {
    for (&id, &generation) in written {
        if !group.scrub_stripe(id, generation).await.is_clean() {
            return false;
        }
    }
    true
}

fn state(group: &Group, slot: Slot) -> DriveState {
    group.status().drives[usize::from(slot.0)].state
}

#[test]
fn a_drive_is_copied_while_it_serves_and_gives_its_slot_away() {
    let (rig, spare, group, mut written) = start(6, 60);
    let old = rig.drives[2].clone();
    rig.bench.run(async {
        begin(&group, &spare, &written).await.unwrap();
        let held = group.units_in(SLOT, written.keys().copied().collect()).len() as u64;
        assert_eq!(group.status().drives[2].twin.as_ref().unwrap().owed_units, Some(held));
        let before: u64 = rig.drives.iter().map(|drive| drive.read_bytes.get()).sum();
        for _ in 0..10 {
            pass(&group, &written, 2).await;
            assert_eq!(group.status().failures_tolerated, 2, "never less");
            assert_eq!(state(&group, SLOT), DriveState::Good);
        }
        let read: u64 = rig.drives.iter().map(|drive| drive.read_bytes.get()).sum();
        assert!(read - before <= 21 * u64::from(double::UNIT), "one unit is read for each: {}", read - before);
        // What is written meanwhile goes to both.
        fill(&group, &mut written, 30).await;
        let again: Vec<StripeId> = written.keys().copied().step_by(7).collect();
        for (id, generation) in again.into_iter().zip(1000..) {
            write(&group, id, generation).await.unwrap();
            written.insert(id, generation);
        }
        group.flush().await.unwrap();
        assert!(is_clean(&group, &written).await, "the old drive has it all");
        pass(&group, &written, usize::MAX).await;
        let status = group.status();
        assert_eq!((status.drives[2].serial.as_str(), &status.drives[2].twin), ("spare", &None));
        assert_eq!((status.failures_tolerated, group.retiring()), (2, None));
        let events = group.drain_events();
        assert!(
            events.contains(&Event::TwinBegun { slot: SLOT }) && events.contains(&Event::DriveRetired { slot: SLOT })
        );
        assert!(is_clean(&group, &written).await, "and so has the new one");
    });
    let writes = old.writes.borrow().len();
    rig.bench.run(fill(&group, &mut written, 5));
    assert_eq!(old.writes.borrow().len(), writes, "the old drive is left alone");
    drop(group);
    let all: Vec<_> = rig.drives.iter().cloned().chain([spare]).collect();
    let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
    assert_eq!(group.rebuilding(), []);
    rig.drives[0].gone.set(true);
    rig.drives[5].gone.set(true);
    rig.bench.run(check_all(&group, &written));
}

#[test]
fn damage_on_the_old_drive_is_not_copied() {
    let (rig, spare, group, written) = start(6, 40);
    rig.bench.run(async {
        begin(&group, &spare, &written).await.unwrap();
        rig.drives[2].bad.borrow_mut().push(2 << 20..5 << 20);
        for offset in (5 << 20..8 << 20).step_by(double::UNIT as usize) {
            rig.drives[2].flip(offset + 700, 3);
        }
        pass(&group, &written, usize::MAX).await;
        assert_eq!(group.status().drives[2].serial, "spare");
        assert!(is_clean(&group, &written).await);
    });
}

#[test]
fn a_twin_that_fails_leaves_everything_as_it_was() {
    type Break = fn(&MemoryDrive);
    let ways: [Break; 4] = [
        |twin| twin.gone.set(true),
        |twin| twin.read_only.set(true),
        |twin| twin.write_errors.set(2),
        |twin| twin.flush_fails.set(true),
    ];
    for (way, hurt) in ways.into_iter().enumerate() {
        for after in [3, usize::MAX] {
            let (rig, spare, group, mut written) = start(6, 30);
            rig.bench.run(async {
                begin(&group, &spare, &written).await.unwrap();
                if after != usize::MAX {
                    pass(&group, &written, after).await;
                    hurt(&spare);
                    // A write that only the twin refuses is a write that succeeds.
                    fill(&group, &mut written, 5).await;
                } else {
                    // All but the last step.
                    while let Some(id) = group.next_owed(StripeId::default()) {
                        group.rebuild_stripe(id, written[&id]).await;
                    }
                    hurt(&spare);
                    pass(&group, &written, 0).await;
                }
                assert_eq!((group.retiring(), state(&group, SLOT)), (None, DriveState::Good), "way {way}");
                assert_eq!((group.status().failures_tolerated, group.status().latched), (2, false));
                let ended = |event: &Event| matches!(event, Event::TwinEnded { slot: SLOT, why: TwinEnd::Failed(_) });
                assert!(group.drain_events().iter().any(ended));
                assert!(is_clean(&group, &written).await);
            });
            // It comes back, and is nobody.
            drop(group);
            spare.gone.set(false);
            spare.read_only.set(false);
            spare.flush_fails.set(false);
            let all: Vec<_> = rig.drives.iter().cloned().chain([spare]).collect();
            let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
            assert_eq!((group.retiring(), state(&group, SLOT)), (None, DriveState::Good));
            rig.bench.run(check_all(&group, &written));
        }
    }
}

#[test]
fn an_old_drive_that_fails_leaves_a_rebuild_of_what_is_not_copied_yet() {
    let (rig, spare, group, mut written) = start(6, 40);
    rig.bench.run(async {
        begin(&group, &spare, &written).await.unwrap();
        pass(&group, &written, 12).await;
        let owed = group.rebuilding()[0].1.unwrap();
        rig.drives[2].gone.set(true);
        fill(&group, &mut written, 8).await;
        assert_eq!(group.rebuilding(), [(SLOT, Some(owed))], "nothing is copied twice, nothing new is owed");
        assert_eq!((state(&group, SLOT), group.retiring()), (DriveState::Rebuilding, None));
        check_all(&group, &written).await;
        pass(&group, &written, usize::MAX).await;
        assert_eq!((state(&group, SLOT), group.status().failures_tolerated), (DriveState::Good, 2));
        assert!(is_clean(&group, &written).await);
    });
    drop(group);
    rig.drives[2].gone.set(false);
    let all: Vec<_> = rig.drives.iter().cloned().chain([spare]).collect();
    let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
    assert_eq!(group.status().drives[2].serial, "spare");
    rig.bench.run(check_all(&group, &written));
}

#[test]
fn a_retiring_is_called_off_and_its_drive_is_blank_again() {
    let (rig, spare, group, written) = start(6, 20);
    rig.bench.run(async {
        begin(&group, &spare, &written).await.unwrap();
        pass(&group, &written, 5).await;
        assert_eq!(group.cancel_twin(Slot(0)).await, Ok(false));
        assert_eq!(group.cancel_twin(SLOT).await, Ok(true));
        assert_eq!((group.retiring(), group.rebuilding().len()), (None, 0));
        assert_eq!(group.finding(spare.clone()).await, Finding::Blank);
        assert!(is_clean(&group, &written).await);
        // And anew.
        begin(&group, &spare, &written).await.unwrap();
        pass(&group, &written, usize::MAX).await;
        assert_eq!(group.status().drives[2].serial, "spare");
        assert!(is_clean(&group, &written).await);
    });
}

#[test]
fn what_cannot_be_retired_is_refused_and_nothing_is_written() {
    let (rig, spare, group, written) = start(6, 20);
    let small = MemoryDrive::new("small", 6 << 20);
    rig.bench.run(async {
        let offer = async |slot: u8, drive: &Rc<MemoryDrive>| {
            let first = group.could_twin(Slot(slot), drive.clone()).await;
            assert_eq!(first, group.begin_twin(Slot(slot), drive.clone(), false).await);
            first.unwrap_err()
        };
        assert_eq!(offer(9, &spare).await, JoinRefused::NoSuchSlot(Slot(9)));
        assert!(matches!(offer(2, &small).await, JoinRefused::TooSmall { .. }));
        assert_eq!(offer(2, &rig.drives[1]).await, JoinRefused::InUse { group: Some(group.id()) });
        rig.drives[4].gone.set(true);
        let version = group.register_read("test").await.version;
        group.register_cas("test", version, b"x").await.unwrap();
        assert_eq!(offer(4, &spare).await, JoinRefused::NotGood(Slot(4)));
        assert!(spare.writes.borrow().is_empty());
        begin(&group, &spare, &written).await.unwrap();
        assert_eq!(offer(3, &small).await, JoinRefused::TwinThere(SLOT));
        let put = group.replace_member(SLOT, small.clone(), false).await;
        assert_eq!(put, Err(JoinRefused::SlotInUse(SLOT)));
        let put = group.replace_member(Slot(4), spare.clone(), true).await;
        assert_eq!(put, Err(JoinRefused::InUse { group: Some(group.id()) }), "a twin is not given away");
    });
    assert_eq!(
        group
            .drain_events()
            .iter()
            .filter(|event| matches!(event, Event::DriveFailed { reason: FailReason::Gone, .. }))
            .count(),
        1
    );
}

/// The group on copies of these media, and which drive has the slot; `None` if it does not open.
fn opens(drives: &[&Rc<MemoryDrive>]) -> Option<(Rig, Group, String)> {
    let drives: Vec<_> = drives.iter().map(|drive| drive.copy(&drive.serial)).collect();
    let rig = Rig { bench: double::Bench::new(99), drives };
    let group = rig.open().ok()?;
    let serial = group.status().drives[usize::from(SLOT.0)].serial.clone();
    Some((rig, group, serial))
}

/// Five drives and the power goes anywhere between the first step and the last, with any part of what was not flushed:
/// there is one group afterwards, whatever drives are at hand, everything is in it, and the retiring goes on.
#[test]
fn power_may_go_at_any_step_and_there_is_one_group_after_it() {
    let (mut goes_on, mut through, mut polls, mut is_done) = (0, 0, 0, false);
    while !is_done {
        polls += 1;
        for draw in 0..DRAWS {
            let (did, went_on, ended) = cut_off(polls, draw);
            is_done |= did;
            goes_on += u32::from(went_on);
            through += u32::from(ended);
        }
    }
    println!("{polls} polls");
    assert!(goes_on > 20 && through > goes_on, "{goes_on} went on, {through} came to the end");
}

/// Power cuts at each step.
const DRAWS: u64 = 5;

/// Retires a drive for so many polls, cuts the power, and looks. Whether it was through by then, went on after the cut, and
/// came to its end.
fn cut_off(polls: usize, draw: u64) -> (bool, bool, bool) {
    let (rig, spare, group, mut written) = start(5, 6);
    let all: Vec<_> = rig.drives.iter().cloned().chain([spare.clone()]).collect();
    all.iter().for_each(|drive| drive.yields.set(1));
    let mut more = written.clone();
    let work = async {
        begin(&group, &spare, &written).await.unwrap();
        pass(&group, &written, 4).await;
        fill(&group, &mut more, 2).await;
        pass(&group, &more, usize::MAX).await;
    };
    let done = rig.bench.crash_after(polls, work).is_some();
    drop(group);
    if done {
        written = more;
    }
    let turns = double::Bench::new(draw.wrapping_mul(0x1234_5678_9abc) ^ polls as u64).turns;
    for drive in &all {
        // Sector by sector, or all of it as a drive that was quicker or slower than the others.
        let whole = turns.random().is_multiple_of(2);
        drive.power_cut(|| if draw == 0 { turns.random().is_multiple_of(2) } else { whole });
        drive.yields.set(0);
    }
    let [d0, d1, old, d3, d4] = &rig.drives[..] else { unreachable!() };
    // Any two halves that know nothing of each other: at most one of them is the group.
    for ([a, b], [c, d]) in [
        ([d0, d1], [d3, d4]),
        ([d0, d3], [d1, d4]),
        ([d0, d4], [d1, d3]),
        ([d3, d4], [d0, d1]),
        ([d1, d4], [d0, d3]),
        ([d1, d3], [d0, d4]),
    ] {
        let is_two = opens(&[a, b, old]).is_some() && opens(&[c, d, &spare]).is_some();
        assert!(!is_two, "two groups after {polls} polls, draw {draw}");
    }
    // Without the old drive or without the new one nothing is lost.
    for without in [old, &spare, d0] {
        let drives: Vec<_> = all.iter().filter(|drive| !Rc::ptr_eq(drive, without)).collect();
        let (copy, group, _) = opens(&drives).expect("a majority is there");
        copy.bench.run(check_all(&group, &written));
    }
    let group = rig.bench.run(Group::open(ports(&all), None, rig.bench.world())).unwrap();
    let went_on = group.retiring().is_some();
    rig.bench.run(async {
        assert_eq!(group.status().failures_tolerated, 2, "after {polls} polls");
        check_all(&group, &written).await;
        if let Some(slot) = group.retiring() {
            group.set_owed(slot, group.units_in(slot, written.keys().copied().collect()));
            fill(&group, &mut written, 1).await;
            pass(&group, &written, usize::MAX).await;
            assert_eq!(group.status().drives[2].serial, "spare", "after {polls} polls");
        }
        assert!(is_clean(&group, &written).await, "after {polls} polls");
    });
    (done, went_on, group.status().drives[2].serial == "spare")
}
