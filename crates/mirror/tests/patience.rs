//! What time decides, one case each: who goes on alone, who takes over, who waits.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use base::Epoch;
use mirror::{Command, Config};
use witness::TransitionKind;
use world::{Faults, Script, World, config, millis};

const NONE: Faults = Faults { every_ms: 1 << 30, down_ms_max: 0, crashes: false, cuts: false, witness: false };

const fn seconds(of: u64) -> Duration {
    Duration::from_secs(of)
}

/// Without chance; clients wait for ever.
fn quiet() -> World {
    World::scripted_world(Script { takes: |_| 1000, change: false, patience_ms: 1 << 30 })
}

fn met() -> World {
    let mut world = quiet();
    world.run_for(seconds(3));
    assert!(world.mirror(0).is_whole() && world.mirror(1).is_whole());
    world
}

fn patient(site: usize) -> Config {
    Config { out_of_sync_delay: seconds(30), ..config(site) }
}

/// An outage of 29 s where 30 are allowed: writes wait and end in sync. One of 31 s: the
/// primary goes on alone. Decides R-RSYNC-01.
#[test]
fn the_primary_waits_as_long_as_it_is_told_and_no_longer() {
    for (outage, in_sync) in [(29, true), (31, false)] {
        let mut world = quiet();
        world.config = patient;
        world.run_for(seconds(3));
        world.cut_link(seconds(outage));
        world.run_for(seconds(1));
        world.write_block(0, 0);
        world.run_for(millis(27_900));
        assert!(world.answered_at.is_empty(), "the write waits");
        world.run_for(seconds(2));
        assert_eq!((world.answered_at.len(), world.standing.in_sync), (1, in_sync), "after {outage} s");
        let alone = world.standing.version > 1;
        assert_eq!(alone, !in_sync);
    }
}

/// Cut off from secondary and witness, a primary acknowledges nothing once its lease is over,
/// and the other site takes over without a lost write; with the witness in reach it goes on
/// alone. Decides R-RSYNC-03.
#[test]
fn a_primary_that_reaches_nobody_stops_before_anybody_takes_over() {
    let mut world = met();
    world.cut_link(seconds(20));
    world.cut_witness(0, seconds(20));
    world.run_for(millis(900));
    assert_eq!(world.serves_now(), [false, false], "its lease is over, the witness waits a little more");
    world.write_block(0, 0);
    world.run_for(seconds(10));
    assert!(world.answered_at.is_empty());
    assert_eq!(world.serves_now(), [false, true]);
    let value = world.write_block(1, 1);
    world.run_for(seconds(1));
    assert_eq!((world.answered_at.len(), world.block(1, 1)), (1, value));
    world.run_for(seconds(20));
    assert!(world.standing.in_sync && world.serves_now() == [false, true], "mended: {:?}", world.standing);
    assert_eq!([world.block(0, 0), world.block(0, 1)], [0, value], "what nobody acknowledged is undone");

    let mut world = met();
    world.cut_link(seconds(20));
    world.run_for(millis(100));
    world.write_block(0, 0);
    world.run_for(seconds(3));
    assert_eq!((world.answered_at.len(), world.serves_now()), (1, [true, false]));
}

/// F52: the loss of the witness is not felt by anybody.
#[test]
fn without_the_witness_nothing_stops() {
    let mut world = World::new(3, NONE);
    world.run_for(seconds(3));
    world.stop_witness(seconds(30));
    let from = world.answered_at.len();
    world.run_for(seconds(30));
    let gaps = world.answered_at[from..].windows(2).map(|pair| pair[1].since(pair[0]));
    assert!(gaps.max().unwrap() < millis(200));
    assert_eq!((world.standing.version, world.serves_now()), (1, [true, false]));
}

/// F51: a link that breaks again and again, too often to be trusted, leads to one resync.
#[test]
fn a_link_that_flaps_leads_to_one_resync() {
    let mut world = World::new(4, NONE);
    world.config = |site| Config { steady: seconds(4), ..config(site) };
    world.run_for(seconds(3));
    world.cut_link(seconds(5));
    world.run_for(millis(5100));
    assert!(!world.standing.in_sync);
    for _ in 0..100 {
        world.snap_link();
        world.run_for(millis(600));
    }
    assert_eq!((world.seen.resynced, world.seen.gone_alone), (0, 1), "not steady yet");
    world.run_for(seconds(10));
    assert_eq!((world.seen.resynced, world.standing.in_sync), (1, true));
}

/// A pause is going out of sync by choice: it holds over restarts, and ends when it is told to.
#[test]
fn a_pause_holds_until_it_is_ended() {
    let mut world = met();
    world.command(0, Command::Pause(true));
    world.run_for(seconds(1));
    assert!(!world.standing.in_sync);
    let value = world.write_block(0, 0);
    world.run_for(seconds(10));
    assert_eq!((world.answered_at.len(), world.standing.in_sync), (1, false));
    assert_eq!([world.block(0, 0), world.block(1, 0)], [value, 0]);
    world.power_cut(0, 9, millis(50));
    world.run_for(seconds(10));
    assert!(!world.standing.in_sync && world.serves_now() == [true, false]);
    world.command(0, Command::Pause(false));
    world.run_for(seconds(5));
    assert_eq!((world.standing.in_sync, world.block(1, 0)), (true, value));
}

/// A secondary that lacks something never takes over by itself; who forces it is told from
/// where on it may lack, and that is true.
#[test]
fn a_secondary_that_lacks_something_is_made_primary_by_force_only() {
    let mut world = met();
    let both = world.write_block(0, 0);
    world.run_for(seconds(1));
    world.cut_link(seconds(4));
    world.run_for(millis(100));
    let alone = world.write_block(0, 1);
    world.run_for(seconds(3));
    assert_eq!((world.answered_at.len(), world.mirror(0).may_lack()), (2, None));
    world.power_cut(0, 9, seconds(60));
    world.run_for(seconds(30));
    assert_eq!((world.serves_now()[1], world.seen.takeovers), (false, 0));
    let through = world.mirror(1).may_lack().expect("it says so");
    assert!(through.counter() >= 1 && through == world.standing.in_sync_through);
    world.command(1, Command::Force { primary_is_off: true });
    world.run_for(seconds(5));
    assert!(world.serves_now()[1]);
    assert_eq!([world.block(1, 0), world.block(1, 1)], [both, 0], "all up to there, and {alone} is what it lacks");
    world.run_for(seconds(40));
    assert_eq!((world.standing.in_sync, world.block(0, 1)), (true, 0), "the old primary follows");
}

/// After going alone, what is sent first is what both would have held at that moment, not what
/// was written since. Decides R-RSYNC-08.
#[test]
fn a_recovery_of_a_primary_that_went_alone_sends_its_snapshot() {
    let mut world = met();
    let first = world.write_block(0, 0);
    world.cut_link(seconds(4));
    world.run_for(seconds(2));
    assert_eq!((world.answered_at.len(), world.block(1, 0)), (1, 0), "the frame was lost, the primary is alone");
    let second = world.write_block(0, 0);
    world.run_for(seconds(1));
    assert_eq!((world.block(0, 0), world.restored.len()), (second, 0));
    world.run_for(millis(1500));
    let sent: Vec<u64> = world.restored.iter().map(|(_, payload)| world::store::number(payload)).collect();
    assert_eq!((sent, world.block(1, 0)), (vec![first], first));
    world.run_for(seconds(5));
    assert_eq!((world.standing.in_sync, world.block(1, 0)), (true, second));
}

/// A primary that was restarted may hold what the other site lacks and nobody was told of: it
/// answers no read before it has met the other site or is alone (I3).
#[test]
fn a_primary_that_was_restarted_answers_nothing_that_may_be_taken_back() {
    let mut world = met();
    world.cut_link(seconds(20));
    let value = world.write_block(0, 0);
    world.run_for(millis(10));
    world.power_cut(0, 9, millis(20));
    world.run_for(millis(1150));
    assert_eq!([world.block(0, 0), world.block(1, 0)], [value, 0]);
    assert_eq!(world.serves_now(), [true, false], "it has its lease again");
    world.read_block(0, 0);
    world.run_for(millis(200));
    assert!(world.answered_at.is_empty() && world.standing.in_sync);
    world.run_for(seconds(3));
    assert_eq!((world.answered_at.len(), world.standing.in_sync), (1, false));
}

/// F59: a frame that comes twice is refused with its link, and the recovery mends it.
#[test]
fn a_frame_that_comes_twice_is_not_done_twice() {
    let mut world = met();
    world.write_block(0, 0);
    world.run_for(millis(20));
    let later = world.write_block(0, 0);
    world.run_for(millis(20));
    let links = world.links;
    world.repeat_last_write();
    world.run_for(millis(100));
    assert_eq!(world.links, links + 1, "the link was given up");
    world.run_for(seconds(2));
    assert_eq!([world.block(0, 0), world.block(1, 0)], [later, later]);
    assert!(world.mirror(0).is_whole() && world.mirror(1).is_whole());
}

/// The primary hands over as planned: what was under way is acknowledged, the other site serves within a
/// second, nobody was ever out of sync.
#[test]
fn a_planned_change_of_primary_takes_less_than_a_second() {
    let mut world = met();
    let first = world.write_block(0, 0);
    world.command(0, Command::HandOver);
    world.run_for(millis(900));
    assert_eq!((world.serves_now(), world.answered_at.len()), ([false, true], 1));
    assert!(world.standing.in_sync && world.standing.last.kind == TransitionKind::HandOver, "{:?}", world.standing);
    assert_eq!((world.standing.version, world.standing.epoch), (2, Epoch(2)));
    let second = world.write_block(1, 1);
    world.run_for(seconds(1));
    assert_eq!(world.answered_at.len(), 2);
    for site in 0..2 {
        assert_eq!([world.block(site, 0), world.block(site, 1)], [first, second]);
    }
    world.command(1, Command::HandOver);
    world.run_for(millis(900));
    assert_eq!(world.serves_now(), [true, false], "and back");
}

/// The witness is lost while it is asked to hand over: nobody answers until it is known what became of it; then
/// one site serves. Where the site is not together with the other one nothing is asked at all.
#[test]
fn a_hand_over_that_gets_no_answer_stops_until_it_is_known() {
    let mut world = met();
    world.cut_witness(0, seconds(5));
    world.command(0, Command::HandOver);
    world.run_for(seconds(4));
    assert_eq!(world.serves_now(), [false, false]);
    world.run_for(seconds(6));
    assert_eq!(world.serves_now().iter().filter(|serves| **serves).count(), 1, "{:?}", world.standing);
    assert!(world.standing.version > 1);

    let mut world = met();
    world.cut_link(seconds(4));
    world.run_for(seconds(2));
    world.command(0, Command::HandOver);
    world.run_for(seconds(1));
    assert_eq!((world.serves_now(), world.standing.epoch), ([true, false], Epoch(1)), "{:?}", world.standing);
}
