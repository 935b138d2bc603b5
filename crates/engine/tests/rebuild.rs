//! A lost drive is replaced by a spare under load and with crashes: redundancy is full
//! again, and every acknowledged byte is there.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base::port::{Clock, Drive, DriveInfo, LocalFuture, MediaFault};
use base::{Buf, BufMut, FileId, Nanos};
use engine::{Engine, ScrubPolicy, Store};
use pool::{Pool, bytes_of, check_blocks, content_in, write_blocks};
use raid::{DriveState, GroupState, Slot};
use world_sim::node::sleep_for;
use world_sim::{SimMedia, SimNode};

const MIB: u64 = 1 << 20;

/// A pool of 7 drives with a file of `blocks` blocks on media, and a blank spare.
fn start(seed: u64, blocks: u64) -> (Pool, SimMedia, FileId) {
    let pool = Pool::new(seed, 7, 24 * MIB);
    let spare = pool.world.drive_media("spare", 24 * MIB);
    let file = pool.format_with_file(blocks);
    (pool, spare, file)
}

async fn until_whole(node: &SimNode, engine: &Engine) {
    while engine.rebuild_status().is_some() {
        sleep_for(node.world().clock.as_ref(), Duration::from_millis(5)).await;
    }
}

async fn lose(pool: &Pool, engine: &Engine, slot: usize) {
    pool.drives[slot].set_gone(true);
    engine.checkpoint().await.unwrap();
    let drives = engine.group().status().drives;
    assert_eq!(drives[slot].state, DriveState::Failed, "{drives:?}");
}

/// Decides R-SPARE-04: a good spare that is handed over is used at once, within a second.
#[test]
fn a_spare_takes_the_place_of_a_lost_drive_under_load() {
    let (mut pool, spare, file) = start(1, 600);
    pool.drives.push(spare.clone());
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            lose(&pool, &engine, 2).await;
            let before = node.world().clock.now();
            engine.join_drive(Slot(2), node.drive(&spare)).await.unwrap();
            let taken = node.world().clock.now().since(before);
            assert!(taken < Duration::from_secs(1), "{taken:?}");
            assert!(engine.rebuild_status().is_some());
            write_blocks(&engine, file, 0..200, 1).await;
            until_whole(&node, &engine).await;
            check_blocks(&engine, file, 0..200, 1).await;
            check_blocks(&engine, file, 200..600, 0).await;
            assert_eq!(engine.group().status().state, GroupState::Online);
            engine.settle().await.unwrap();
            let scrub = engine.scrub().await.unwrap();
            assert_eq!((scrub.units_repaired, scrub.units_absent, scrub.stripes_lost), (0, 0, 0), "all is there");
            // And it counts: two more may go.
            lose(&pool, &engine, 0).await;
            lose(&pool, &engine, 5).await;
            check_blocks(&engine, file, 0..200, 1).await;
            check_blocks(&engine, file, 200..600, 0).await;
            assert!(engine.audit(true).await.unwrap().findings.is_empty());
        })
        .done();
}

/// Power goes at many points of a rebuild: it is taken up again and ends.
#[test]
fn a_rebuild_survives_power_cuts_at_any_point() {
    for crash_after in [200, 1_000, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000] {
        let (mut pool, spare, file) = start(crash_after, 400);
        pool.drives.push(spare.clone());
        let node = pool.world.node();
        pool.world.crash_after(crash_after);
        // It is through, or cut off at the crash point.
        let _ = pool.world.run_until(async {
            let (engine, _) = pool.open(&node).await;
            pool.drives[4].set_gone(true);
            let _ = engine.checkpoint().await;
            engine.join_drive(Slot(4), node.drive(&spare)).await.unwrap();
            write_blocks(&engine, file, 0..50, 0).await;
            until_whole(&node, &engine).await;
        });
        pool.world.crash_never();
        pool.cut_power(&node);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                if engine.group().status().drives[4].state == DriveState::Missing {
                    engine.checkpoint().await.unwrap();
                    let drives = engine.group().status().drives;
                    if drives[4].state == DriveState::Missing {
                        write_blocks(&engine, file, 0..50, 0).await;
                        engine.settle().await.unwrap();
                    }
                }
                if engine.group().status().drives[4].state == DriveState::Failed {
                    engine.join_drive(Slot(4), node.drive(&spare)).await.unwrap();
                }
                until_whole(&node, &engine).await;
                assert_eq!(engine.group().status().state, GroupState::Online, "cut after {crash_after}");
                engine.settle().await.unwrap();
                let scrub = engine.scrub().await.unwrap();
                assert_eq!((scrub.units_absent, scrub.units_repaired, scrub.stripes_lost), (0, 0, 0), "{crash_after}");
                check_blocks(&engine, file, 0..400, 0).await;
            })
            .done();
    }
}

/// A drive pulled and pushed back gets what it missed, and only that.
#[test]
fn a_drive_pushed_back_gets_only_what_it_missed() {
    let (pool, _, file) = start(3, 600);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.checkpoint().await.unwrap();
            let stripes = engine.group().counters().stripes_written;
            lose(&pool, &engine, 6).await;
            write_blocks(&engine, file, 0..60, 1).await;
            engine.settle().await.unwrap();
            pool.drives[6].set_gone(false);
            let slot = engine.rejoin_drive(node.drive(&pool.drives[6])).await.unwrap();
            assert_eq!(slot, Slot(6));
            until_whole(&node, &engine).await;
            let missed = engine.group().counters().stripes_written - stripes;
            let redone = engine.group().counters().stripes_rebuilt;
            assert!(redone <= missed, "{redone} stripes redone, {missed} were written");
            assert_eq!(engine.group().status().state, GroupState::Online);
            engine.settle().await.unwrap();
            let scrub = engine.scrub().await.unwrap();
            assert_eq!((scrub.units_absent, scrub.units_repaired, scrub.stripes_lost), (0, 0, 0));
            check_blocks(&engine, file, 0..60, 1).await;
            check_blocks(&engine, file, 60..600, 0).await;
        })
        .done();
}

/// A drive with one arm: what it is asked for takes its time, one after the other.
struct Throttled {
    drive: Rc<dyn Drive>,
    clock: Rc<dyn Clock>,
    bytes_per_second: u64,
    free_at: Cell<Nanos>,
    moved_bytes: Cell<u64>,
}

impl Throttled {
    fn new(node: &SimNode, media: &SimMedia, bytes_per_second: u64) -> Rc<Throttled> {
        let (drive, clock) = (node.drive(media), node.world().clock);
        Rc::new(Throttled { drive, clock, bytes_per_second, free_at: Cell::default(), moved_bytes: Cell::new(0) })
    }

    fn turn(&self, bytes: usize) -> LocalFuture<'static, ()> {
        let start = self.free_at.get().max(self.clock.now());
        let end = start + Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.bytes_per_second);
        self.free_at.set(end);
        self.moved_bytes.set(self.moved_bytes.get() + bytes as u64);
        self.clock.sleep_until(end)
    }
}

impl Drive for Throttled {
    fn info(&self) -> DriveInfo {
        self.drive.info()
    }
    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            self.turn(buf.len()).await;
            self.drive.read(offset_bytes, buf).await
        })
    }
    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            self.turn(data.iter().map(Buf::len).sum()).await;
            self.drive.write(offset_bytes, data).await
        })
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.drive.flush()
    }
}

/// Seconds that a rebuild takes with `blocks` blocks written, bytes written to the spare,
/// and units that it holds. Drives move 20 MB a second, the spare 10.
fn rebuild_throttled(blocks: u64) -> (f64, u64, u64) {
    let (pool, spare, _) = start(11, blocks);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let drives: Vec<_> = pool.drives.iter().map(|media| Throttled::new(&node, media, 20_000_000)).collect();
            let ports = drives.iter().map(|drive| drive.clone() as Rc<dyn Drive>).collect();
            let group = raid::Group::open(ports, None, node.world()).await.unwrap();
            let legs = pool.legs.iter().map(|media| node.leg(media)).collect();
            let (engine, _) = Engine::open(group, legs, node.world(), pool.options.clone()).await.unwrap();
            lose(&pool, &engine, 3).await;
            let target = Throttled::new(&node, &spare, 10_000_000);
            engine.join_drive(Slot(3), target.clone()).await.unwrap();
            let (begun, before) = (node.world().clock.now(), target.moved_bytes.get());
            until_whole(&node, &engine).await;
            let seconds = node.world().clock.now().since(begun).as_secs_f64();
            (seconds, target.moved_bytes.get() - before, engine.group().counters().units_rebuilt)
        })
        .done()
}

/// Blocks of the pools that are rebuilt and scrubbed to see what that costs.
const SIZES: [u64; 3] = [600, 1200, 1800];
const UNIT_BYTES: u64 = 68 << 10;

/// Of each two sizes the cost is, for what is written, the same within 5 %.
fn assert_proportional(what: &str, costs: &[f64]) {
    let (least, most) =
        costs.iter().fold((f64::MAX, 0.0_f64), |(least, most), &cost| (least.min(cost), most.max(cost)));
    assert!(most <= least * 1.05, "{what}: {costs:?}");
}

/// Decides R-REB-07: what a rebuild takes follows what was written, and it keeps the slowest
/// drive at work: at least 0.8 of what that one can do.
#[test]
fn a_rebuild_is_as_fast_as_the_slowest_drive_and_proportional_to_what_is_written() {
    println!("| rebuild, spare of 10 MB/s | s | written to it, of what it holds | of what it can do |");
    println!("|---|---|---|---|");
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for blocks in SIZES {
        let (seconds, bytes, units) = rebuild_throttled(blocks);
        let held = (units * UNIT_BYTES) as f64;
        let (written, rate) = (bytes as f64 / held, held / seconds / 10e6);
        println!("| {units} units of {} KiB | {seconds:.3} | {written:.3} | {rate:.2} |", UNIT_BYTES >> 10);
        // The records of the rebuild and the group header are written beside them.
        assert!(bytes as f64 <= held * 1.05 + f64::from(200 << 10), "{bytes} bytes for {units} units");
        assert!(rate >= 0.8, "{rate} of what the spare can do");
        times.push(seconds / units as f64);
        sizes.push(written);
    }
    assert_proportional("seconds a unit", &times);
    assert_proportional("bytes a unit", &sizes);
}

/// Bytes that a scrub reads of drives that move 20 MB a second, seconds that it takes, and bytes of the
/// stripes that hold something.
fn scrub_throttled(blocks: u64) -> (u64, f64, u64) {
    let (mut pool, _, _) = start(12, blocks);
    pool.options.scrub = Some(ScrubPolicy { full_pass: Duration::from_secs(1 << 30), ..ScrubPolicy::FLASH });
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let drives: Vec<_> = pool.drives.iter().map(|media| Throttled::new(&node, media, 20_000_000)).collect();
            let ports = drives.iter().map(|drive| drive.clone() as Rc<dyn Drive>).collect();
            let group = raid::Group::open(ports, None, node.world()).await.unwrap();
            let legs = pool.legs.iter().map(|media| node.leg(media)).collect();
            let (engine, _) = Engine::open(group, legs, node.world(), pool.options.clone()).await.unwrap();
            let moved = || drives.iter().map(|drive| drive.moved_bytes.get()).sum::<u64>();
            let (begun, before) = (node.world().clock.now(), moved());
            let stripes = engine.scrub().await.unwrap().stripes;
            // 4+2 over seven drives.
            (moved() - before, node.world().clock.now().since(begun).as_secs_f64(), stripes * 6 * UNIT_BYTES)
        })
        .done()
}

/// A scrub reads what is written and no more, whatever the size of the drives.
#[test]
fn a_scrub_is_proportional_to_what_is_written() {
    println!("| scrub, drives of 20 MB/s | s | read, of what is written |");
    println!("|---|---|---|");
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for blocks in SIZES {
        let (bytes, seconds, written) = scrub_throttled(blocks);
        let read = bytes as f64 / written as f64;
        println!("| {:.1} MiB of stripes | {seconds:.3} | {read:.3} |", written as f64 / MIB as f64);
        assert!((0.95..1.05).contains(&read), "{bytes} bytes read of {written}");
        times.push(seconds / written as f64);
        sizes.push(read);
    }
    assert_proportional("seconds a byte", &times);
    assert_proportional("bytes a byte", &sizes);
}

/// Two drives are being filled when a third is lost: the pass goes on and ends, what was
/// redone is whole, and exactly the blocks that cannot be read are listed.
#[test]
fn a_third_loss_goes_on_and_lists_what_is_lost() {
    let (mut pool, spare, file) = start(5, 900);
    let second = pool.world.drive_media("spare2", 24 * MIB);
    pool.options.rebuild_in_flight = 1;
    // The maps stay in memory: what is lost is content. (A map that is lost is for the
    // repair scan.)
    pool.options.cached_pages = 4096;
    pool.drives.extend([spare.clone(), second.clone()]);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.audit(false).await.unwrap();
            lose(&pool, &engine, 0).await;
            engine.join_drive(Slot(0), node.drive(&spare)).await.unwrap();
            lose(&pool, &engine, 1).await;
            engine.join_drive(Slot(1), node.drive(&second)).await.unwrap();
            while engine.group().counters().stripes_rebuilt < 20 {
                sleep_for(node.world().clock.as_ref(), Duration::from_micros(50)).await;
            }
            pool.drives[2].set_gone(true);
            until_whole(&node, &engine).await;
            assert!(!engine.status().stopped, "{:?}", engine.take_events());
            let stripes = engine.take_lost_stripes();
            assert!(!stripes.is_empty(), "the third went before the pass was through");
            let listed = engine.lost_ranges(&stripes.into_iter().collect()).await.unwrap();
            let lost = |block: u64| {
                listed
                    .iter()
                    .any(|range| (range.offset_bytes..range.offset_bytes + range.len_bytes).contains(&(block * 8192)))
            };
            let mut lost_blocks = 0;
            for block in 0..900 {
                match engine.read(file, block * 8192, 8192).await {
                    Ok(read) => {
                        assert!(bytes_of(&read) == content_in(file, block, 0), "block {block}");
                        assert!(!lost(block), "block {block} is listed and can be read");
                    }
                    Err(refusal) => {
                        assert!(lost(block), "block {block} is not listed: {refusal}");
                        lost_blocks += 1;
                    }
                }
            }
            assert!(lost_blocks > 0 && lost_blocks < 900, "{lost_blocks}");
            // And the pool goes on.
            write_blocks(&engine, file, 0..900, 1).await;
            engine.settle().await.unwrap();
            check_blocks(&engine, file, 0..900, 1).await;
        })
        .done();
}
