//! Drives that are far slower than the others (`faults.md` F12): who is put out, and who never.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod sim;

use std::time::Duration;

use raid::{DriveState, Event, FailReason, FlowSettings, Rebuilt, Slot, SlowSettings};
use sim::{FLASH, Rig, flash_profile, quantile_us, settings};
use world_sim::Latency;

const DRIVES: usize = 8;
const STRIPES: usize = 16;
/// Eight reads a second of each drive.
const GAP: Duration = Duration::from_millis(15);
const PER_MINUTE: usize = 4000;

fn rig(seed: u64, flow: FlowSettings) -> Rig {
    Rig::new(seed, DRIVES, STRIPES, FLASH(), flow)
}

fn stalling(ppm: u32) -> Latency {
    Latency { read_stall_ppm: ppm, read_stall_ns: 100_000_000, ..FLASH() }
}

/// Clients read for so many simulated minutes; slots that are out then.
fn minutes(rig: &Rig, count: usize) -> Vec<usize> {
    rig.sim.run_until(rig.clients(count * PER_MINUTE, GAP, |_, _| true)).done();
    let drives = rig.group.status().drives;
    drives.iter().filter(|drive| drive.state != DriveState::Good).map(|drive| usize::from(drive.slot.0)).collect()
}

#[test]
fn a_drive_that_stalls_on_every_read_is_put_out_and_rebuilt_onto_a_spare() {
    for slow in [stalling(1_000_000), Latency { slow_factor: 50, ..FLASH() }] {
        let rig = rig(1, settings(flash_profile()));
        assert_eq!(minutes(&rig, 2), []);
        rig.media[3].set_latency(slow);
        rig.sim.run_until(rig.clients(PER_MINUTE / 2, GAP, |_, _| true)).done();
        let status = rig.group.status();
        let slowness = status.drives[3].slow.expect("found within half a minute");
        assert!((1..6).contains(&slowness.rounds) && slowness.median_ns > 20 * slowness.usual_ns, "{slowness:?}");
        assert!(status.drives.iter().all(|drive| drive.slow.is_none() == (drive.slot != Slot(3))));
        assert_eq!(minutes(&rig, 1), [3]);
        let status = rig.group.status();
        assert_eq!((status.drives[3].fail_reason, status.drives[3].slow), (Some(FailReason::Slow), None));
        assert_eq!(status.failures_tolerated, 1);
        let told = Event::DriveFailed { slot: Slot(3), reason: FailReason::Slow };
        assert!(rig.group.drain_events().contains(&told));

        let spare = rig.sim.drive_media("spare", 48 << 20);
        spare.set_latency(FLASH());
        let filled = async {
            rig.group.replace_member(Slot(3), rig.node.drive(&spare), false).await.unwrap();
            let owed = rig.group.units_in(Slot(3), rig.stripes.iter().map(|(id, _)| *id).collect());
            rig.group.set_owed(Slot(3), owed);
            for &(id, generation) in &rig.stripes {
                assert_ne!(rig.group.rebuild_stripe(id, generation).await, Rebuilt::Lost);
            }
            rig.group.become_whole(Slot(3)).await.unwrap()
        };
        assert!(rig.sim.run_until(filled).done());
        assert_eq!(minutes(&rig, 3), [], "the spare keeps up, and it all reads right");
        assert_eq!(rig.group.status().failures_tolerated, 2);
    }
}

#[test]
fn drives_that_stall_now_and_then_or_are_of_different_speed_stay() {
    let rig = rig(2, settings(flash_profile()));
    (0..DRIVES).for_each(|slot| rig.media[slot].set_latency(Latency { slow_factor: 1 + slot as u64, ..FLASH() }));
    rig.media[2].set_latency(stalling(10_000));
    rig.media[5].set_latency(stalling(300_000));
    assert_eq!(minutes(&rig, 20), []);
    assert!(rig.group.status().drives.iter().all(|drive| drive.slow.is_none()));
}

#[test]
fn a_slow_host_fails_nobody() {
    let rig = rig(3, settings(flash_profile()));
    rig.media.iter().for_each(|media| media.set_latency(stalling(1_000_000)));
    assert_eq!(minutes(&rig, 5), []);
    let half = rig.media.iter().step_by(2);
    half.for_each(|media| media.set_latency(FLASH()));
    assert_eq!(minutes(&rig, 5), [], "half of them are no minority");
}

#[test]
fn of_two_slow_drives_one_goes_and_the_other_not_while_it_is_missed() {
    let rig = rig(4, settings(flash_profile()));
    rig.media[1].set_latency(stalling(1_000_000));
    rig.media[6].set_latency(Latency { slow_factor: 50, ..FLASH() });
    assert_eq!(minutes(&rig, 2), [1], "the slower one");
    assert_eq!(minutes(&rig, 5), [1]);
    assert_eq!(rig.group.status().failures_tolerated, 1);
}

#[test]
fn with_a_drive_missed_already_or_switched_off_a_slow_one_stays() {
    let rig = rig(5, settings(flash_profile()));
    rig.media[0].set_gone(true);
    assert_eq!(minutes(&rig, 1), [0]);
    rig.media[4].set_latency(stalling(1_000_000));
    assert_eq!(minutes(&rig, 3), [0]);

    let slow = SlowSettings { factor: 0, ..SlowSettings::default() };
    let rig = self::rig(6, FlowSettings { slow, ..settings(flash_profile()) });
    rig.media[4].set_latency(stalling(1_000_000));
    assert_eq!(minutes(&rig, 3), []);

    let slow = SlowSettings { factor: 20, after: Duration::from_secs(600) };
    let rig = self::rig(7, FlowSettings { slow, ..settings(flash_profile()) });
    rig.media[4].set_latency(stalling(1_000_000));
    assert_eq!(minutes(&rig, 9), []);
    assert_eq!(minutes(&rig, 3), [4], "only later");
}

/// What `faults.md` F12 and E11 ask: 99 % of reads take no more than one and a half times what they take in a healthy
/// group, once the slow drive is found, and before it is out.
#[test]
fn a_slow_drive_is_read_around_as_soon_as_it_is_found() {
    const BUSY: Duration = Duration::from_micros(300);
    let slow = SlowSettings { after: Duration::from_secs(12), ..SlowSettings::default() };
    let rig = Rig::new(8, 12, STRIPES, FLASH(), FlowSettings { slow, ..settings(flash_profile()) });
    let p99 = |count: usize| quantile_us(&rig.sim.run_until(rig.clients(count, BUSY, |_, _| true)).done(), 0.99);
    let healthy = p99(10_000);
    rig.media[3].set_latency(Latency { slow_factor: 50, ..FLASH() });
    let at_first = p99(10_000);
    assert!(rig.group.status().drives[3].slow.is_some(), "found within three seconds");
    let found = p99(10_000);
    let status = rig.group.status();
    assert_eq!(status.drives[3].state, DriveState::Good);
    assert!(
        status.drives[3].slow.is_some_and(|slow| slow.rounds > 1),
        "and it is still judged: {:?}",
        status.drives[3].slow
    );
    println!("| p99 µs healthy | one drive 50 times slower | once it is found |");
    println!("|---|---|---|");
    println!("| {healthy:.0} | {at_first:.0} | {found:.0} |");
    assert!(at_first > 3.0 * healthy && found < 1.5 * healthy, "{healthy:.0}, {at_first:.0}, {found:.0}");
    // And when it is fast again it serves again.
    rig.media[3].set_latency(FLASH());
    p99(40_000);
    assert_eq!(rig.group.status().drives[3].slow, None);
    assert_eq!(rig.group.status().drives[3].state, DriveState::Good);
}

/// A drive that is found to be slow gets nothing new, where the others do as well without it, and
/// gets its part again when it is fast again.
#[test]
fn a_slow_drive_gets_no_new_segments() {
    const BUSY: Duration = Duration::from_micros(300);
    let slow = SlowSettings { after: Duration::from_secs(12), ..SlowSettings::default() };
    // With five drives a stripe without one would be 2+2: there it stays in use.
    for (drives, left_out) in [(12, "9+2"), (8, "5+2"), (5, "3+2")] {
        let rig = Rig::new(9, drives, STRIPES, FLASH(), FlowSettings { slow, ..settings(flash_profile()) });
        rig.media[3].set_latency(Latency { slow_factor: 50, ..FLASH() });
        rig.sim.run_until(rig.clients(12_000, BUSY, |_, _| true)).done();
        assert!(rig.group.status().drives[3].slow.is_some(), "found within four seconds");
        let open = || {
            let before = rig.group.status().drives[3].extents_free;
            let segment = rig.sim.run_until(rig.group.open_segment()).done().unwrap();
            let is_used = rig.group.status().drives[3].extents_free < before;
            (rig.group.geometry(segment).unwrap().to_string(), is_used)
        };
        assert_eq!(open(), (left_out.to_owned(), drives == 5));
        rig.media[3].set_latency(FLASH());
        rig.sim.run_until(rig.clients(40_000, BUSY, |_, _| true)).done();
        assert_eq!(rig.group.status().drives[3].slow, None);
        assert_eq!(open(), (format!("{}+2", drives - 2), true));
    }
}
