//! The simulated world's own promises: one seed, one run; crashes keep what they must
//! and nothing more than they may.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use base::BufMut;
use base::port::MediaFault;
use world_sim::media::SECTOR_BYTES;
use world_sim::node::{sleep_for, yield_once};
use world_sim::{OneShot, RunEnd, SimMedia, SimNode, SimWorld};

const MIB: u64 = 1 << 20;

fn page(byte: u8) -> base::Buf {
    let mut buf = BufMut::zeroed(4096);
    buf.fill(byte);
    buf.freeze()
}

/// A workload with several tasks, timers, chance and both kinds of media.
fn busy_run(seed: u64) -> u128 {
    let sim = SimWorld::new(seed);
    let (drive_media, leg_media) = (sim.drive_media("d0", MIB), sim.leg_media("l0", MIB));
    let node = sim.node();
    let world = node.world();
    let done = Rc::new(Cell::new(0));
    for client in 0..4u64 {
        let (world, done) = (world.clone(), done.clone());
        let (drive, leg) = (node.drive(&drive_media), node.leg(&leg_media));
        world.clone().spawn.spawn(
            "client",
            Box::pin(async move {
                for round in 0..10u64 {
                    let at = (client * 10 + round) * 4096;
                    leg.write(at, page(round as u8)).await.unwrap();
                    if world.chance.maybe("pause") {
                        sleep_for(&*world.clock, Duration::from_micros(30)).await;
                    }
                    drive.write(at, vec![page(client as u8), page(round as u8)]).await.unwrap();
                    drive.flush().await.unwrap();
                    let (result, buf) = drive.read(at, BufMut::zeroed(4096)).await;
                    result.unwrap();
                    assert_eq!(buf[0], client as u8);
                }
                done.set(done.get() + 1);
            }),
        );
    }
    sim.run_until(async {
        while done.get() < 4 {
            sleep_for(&*world.clock, Duration::from_millis(1)).await;
        }
    })
    .done();
    sim.digest().value()
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    for seed in 0..20 {
        assert_eq!(busy_run(seed), busy_run(seed), "seed {seed}");
    }
    let all: BTreeSet<u128> = (0..20).map(busy_run).collect();
    assert_eq!(all.len(), 20, "different seeds take different orders");
}

/// The child of the test below: prints the digest of a seed.
#[test]
fn another_process_gives_the_same_digest() {
    const ASK: &str = "WORLD_SIM_PRINT_DIGEST";
    if std::env::var_os(ASK).is_some() {
        println!("digest={:032x}", busy_run(42));
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["another_process_gives_the_same_digest", "--exact", "--nocapture"])
        .env(ASK, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    assert!(printed.contains(&format!("digest={:032x}", busy_run(42))), "{printed}");
}

fn write_all(sim: &SimWorld, node: &SimNode, media: &SimMedia, writes: &[(u64, u8)], flush: bool) {
    let drive = node.drive(media);
    sim.run_until(async {
        for &(at, byte) in writes {
            drive.write(at, vec![page(byte)]).await.unwrap();
        }
        if flush {
            drive.flush().await.unwrap();
        }
    })
    .done();
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_any_subset_of_the_rest() {
    let mut sectors_seen = BTreeSet::new();
    for seed in 0..300 {
        let sim = SimWorld::new(seed);
        let media = sim.drive_media("d", MIB);
        let node = sim.node();
        write_all(&sim, &node, &media, &[(0, 1)], true);
        write_all(&sim, &node, &media, &[(4096, 2), (4096, 3), (0, 4)], false);
        node.kill();
        media.power_cut();
        let bytes = media.peek(0, 8192);
        for (sector, bytes) in bytes.chunks(SECTOR_BYTES as usize).enumerate() {
            let first = bytes[0];
            assert!(bytes.iter().all(|&byte| byte == first), "a sector never tears");
            let allowed: &[u8] = if sector < 8 { &[1, 4] } else { &[0, 2, 3] };
            assert!(allowed.contains(&first), "sector {sector} holds {first}");
            sectors_seen.insert((sector, first));
        }
    }
    assert_eq!(sectors_seen.len(), 8 * 2 + 8 * 3, "every outcome of every sector was seen");
}

#[test]
fn a_completed_leg_write_is_durable_and_one_in_flight_tears() {
    let mut torn = 0;
    for seed in 0..100 {
        let sim = SimWorld::new(seed);
        let media = sim.leg_media("l", MIB);
        let node = sim.node();
        let leg = node.leg(&media);
        sim.run_until(async { leg.write(0, page(1)).await.unwrap() }).done();
        drop(leg.write(4096, page(2)));
        node.kill();
        media.power_cut();
        assert_eq!(media.peek(0, 4096), vec![1; 4096]);
        let kept = media.peek(4096, 4096).iter().filter(|&&byte| byte == 2).count();
        torn += usize::from(kept > 0 && kept < 4096);
    }
    assert!(torn > 20, "{torn} torn of 100");
}

#[test]
fn a_process_crash_keeps_completed_writes() {
    let sim = SimWorld::new(1);
    let media = sim.drive_media("d", MIB);
    let node = sim.node();
    write_all(&sim, &node, &media, &[(0, 1)], false);
    node.kill();
    media.process_crash();
    assert_eq!(media.peek(0, 4096), vec![1; 4096]);
}

#[test]
fn a_dead_node_does_no_more_io() {
    let sim = SimWorld::new(3);
    let media = sim.drive_media("d", MIB);
    let old = sim.node();
    let drive = old.drive(&media);
    let ran = Rc::new(Cell::new(false));
    let (ran_too, world) = (ran.clone(), old.world());
    old.world().spawn.spawn(
        "late",
        Box::pin(async move {
            sleep_for(&*world.clock, Duration::from_millis(1)).await;
            ran_too.set(true);
        }),
    );
    old.kill();
    assert_eq!(sim.run_until(drive.write(0, vec![page(9)])), RunEnd::Stuck);
    assert!(!ran.get());
    let new = sim.node();
    let (result, buf) = sim.run_until(async { new.drive(&media).read(0, BufMut::zeroed(4096)).await }).done();
    result.unwrap();
    assert!(buf.iter().all(|&byte| byte == 0));
}

#[test]
fn crash_points_reach_every_step() {
    let steps_of = |crash: Option<u64>| {
        let sim = SimWorld::new(5);
        let media = sim.drive_media("d", MIB);
        let node = sim.node();
        let drive = node.drive(&media);
        if let Some(steps) = crash {
            sim.crash_after(steps);
        }
        let end = sim.run_until(async {
            for at in 0..5 {
                drive.write(at * 4096, vec![page(1)]).await.unwrap();
                yield_once().await;
            }
            drive.flush().await.unwrap();
        });
        (end, sim.steps())
    };
    let (end, total) = steps_of(None);
    assert_eq!(end, RunEnd::Done(()));
    for crash in 0..total {
        let (end, steps) = steps_of(Some(crash));
        assert_eq!((end, steps), (RunEnd::CrashPoint, crash));
    }
}

/// One table over the media rows of the fault list: each fault does what it says.
#[test]
fn each_fault_does_what_it_says() {
    let sim = SimWorld::new(8);
    let (media, other) = (sim.drive_media("a", MIB), sim.drive_media("b", MIB));
    let node = sim.node();
    let drive = node.drive(&media);
    let write = |at: u64, byte: u8| sim.run_until(drive.write(at, vec![page(byte)])).done();
    let read = |at: u64| {
        let (result, buf) = sim.run_until(drive.read(at, BufMut::zeroed(4096))).done();
        result.map(|()| buf.to_vec())
    };
    let all = |byte: u8| Ok(vec![byte; 4096]);
    write(0, 1).unwrap();
    write(4096, 2).unwrap();
    sim.run_until(drive.flush()).done().unwrap();
    let before = media.snapshot();

    media.flip(10, 0x81);
    assert_eq!(read(0).unwrap()[10], 1 ^ 0x81);
    assert!(media.damaged().overlaps(0..512));
    write(0, 1).unwrap();
    assert_eq!(read(0), all(1));
    assert!(media.damaged().is_empty());

    media.make_unreadable(600..700);
    assert_eq!(read(0), Err(MediaFault::Io));
    assert_eq!(media.damaged().iter().collect::<Vec<_>>(), vec![512..1024]);
    write(0, 3).unwrap();
    assert_eq!(read(0), all(3));

    media.arm(OneShot::LostWrite);
    write(0, 4).unwrap();
    assert_eq!(read(0), all(3));
    assert!(media.damaged().overlaps(0..4096));
    media.arm(OneShot::TornWrite(0b1));
    write(0, 5).unwrap();
    let torn = read(0).unwrap();
    assert_eq!((torn[0], torn[512]), (5, 3));
    media.arm(OneShot::MisdirectedWrite(other.clone(), 8192));
    write(0, 6).unwrap();
    assert_eq!((read(0).unwrap()[512], other.peek(8192, 1)[0]), (3, 6));
    assert!(other.damaged().overlaps(8192..12288));
    media.arm(OneShot::FailedWrite);
    assert_eq!(write(0, 7), Err(MediaFault::Io));
    write(0, 8).unwrap();

    media.arm(OneShot::MisdirectedRead(4096));
    assert_eq!((read(0), read(0)), (all(2), all(8)));
    media.arm(OneShot::FlipOnRead);
    let flipped = read(0).unwrap();
    assert_eq!(flipped.iter().filter(|&&byte| byte != 8).count(), 1);
    assert_eq!(read(0), all(8));
    media.arm(OneShot::FailedRead);
    assert_eq!((read(0), read(0)), (Err(MediaFault::Io), all(8)));

    media.restore(&before, 0..512);
    let stale = read(0).unwrap();
    assert_eq!((stale[0], stale[512]), (1, 8));
    assert!(media.fault_counts().len() >= 10, "{:?}", media.fault_counts());
}

#[test]
fn each_state_of_a_medium_does_what_it_says() {
    let sim = SimWorld::new(8);
    let (media, other) = (sim.drive_media("a", MIB), sim.drive_media("b", MIB));
    let node = sim.node();
    let drive = node.drive(&media);
    let write = |at: u64, byte: u8| sim.run_until(drive.write(at, vec![page(byte)])).done();
    let read = |at: u64| {
        let (result, buf) = sim.run_until(drive.read(at, BufMut::zeroed(4096))).done();
        result.map(|()| buf.to_vec())
    };
    let all = |byte: u8| Ok(vec![byte; 4096]);
    other.poke(8192, &[6; 4096]);

    media.set_gone(true);
    assert_eq!((read(0), write(0, 9)), (Err(MediaFault::Gone), Err(MediaFault::Gone)));
    media.set_gone(false);
    media.set_read_only(true);
    assert_eq!(write(0, 9), Err(MediaFault::ReadOnly));
    media.set_read_only(false);
    media.arm(OneShot::FailedFlush);
    assert_eq!(sim.run_until(drive.flush()).done(), Err(MediaFault::Io));

    write(8192, 9).unwrap();
    media.set_flush_lies(true);
    sim.run_until(drive.flush()).done().unwrap();
    media.set_flush_lies(false);
    assert_eq!(read(8192), all(9));
    media.swap_content(&other);
    assert_eq!((read(8192), other.peek(8192, 1)[0]), (all(6), 9));
    media.blank();
    assert_eq!(read(8192), all(0));
    assert!(media.is_lost());
    media.set_capacity(4096);
    media.set_align(4096);
    media.set_serial("other");
    assert_eq!(write(8192, 1), Err(MediaFault::Io));
    assert_eq!((drive.info().align_bytes, drive.info().serial.as_str()), (4096, "other"));
}

#[test]
fn a_hung_drive_finishes_once_it_is_back_and_a_slow_one_takes_its_time() {
    let sim = SimWorld::new(9);
    let media = sim.drive_media("a", MIB);
    let node = sim.node();
    let drive = node.drive(&media);
    media.set_hung(true);
    let mut write = drive.write(0, vec![page(1)]);
    assert_eq!(sim.run_until(&mut write), RunEnd::Stuck);
    media.set_hung(false);
    sim.run_until(write).done().unwrap();
    let time = |factor| {
        media.set_slow(factor);
        let start = sim.elapsed_ns();
        sim.run_until(drive.read(0, BufMut::zeroed(4096))).done().0.unwrap();
        sim.elapsed_ns() - start
    };
    let (healthy, slow) = (time(1), time(50));
    assert!(slow > 10 * healthy, "{slow} against {healthy}");
}

/// Thousands of seeds run in one process: nothing may stay behind.
#[test]
fn a_dropped_world_leaves_nothing_behind() {
    let marker = Rc::new(());
    {
        let sim = SimWorld::new(1);
        let media = sim.drive_media("d", MIB);
        let node = sim.node();
        let (world, drive, held) = (node.world(), node.drive(&media), marker.clone());
        node.world().spawn.spawn(
            "forever",
            Box::pin(async move {
                loop {
                    sleep_for(&*world.clock, Duration::from_millis(1)).await;
                    let (_, buf) = drive.read(0, BufMut::zeroed(4096)).await;
                    assert!(Rc::strong_count(&held) > 0 && buf.len() == 4096);
                }
            }),
        );
        sim.run_until(sleep_for(&node, Duration::from_millis(5))).done();
        media.arm(OneShot::MisdirectedWrite(media.clone(), 0));
        media.set_hung(true);
        sim.run_until(sleep_for(&node, Duration::from_millis(5))).done();
    }
    assert_eq!(Rc::strong_count(&marker), 1);
}

#[test]
fn jobs_end_in_any_order_and_with_one_seed_in_the_same() {
    let order = |seed: u64| {
        let world = SimWorld::new(seed);
        let doors = world.node().world();
        let ended = Rc::new(RefCell::new(Vec::new()));
        for job in 0..6 {
            let (work, ended) = (doors.work(move || job), ended.clone());
            let waiter = async move {
                let job = work.await;
                ended.borrow_mut().push(job);
            };
            doors.spawn.spawn("waiter", Box::pin(waiter));
        }
        world.run_until(sleep_for(&*doors.clock, Duration::from_millis(1))).done();
        let order = ended.borrow().clone();
        (order, world.digest())
    };
    let orders: BTreeSet<Vec<i32>> = (0..20).map(|seed| order(seed).0).collect();
    assert!(orders.len() > 10 && orders.iter().all(|order| order.len() == 6), "{orders:?}");
    assert_eq!(order(7), order(7));
}
