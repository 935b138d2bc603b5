//! A pool is expanded while it is written to: nobody waits, nothing is lost, and the new
//! drives hold data at once, whatever happens on the way.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base::port::Drive;
use base::{FileId, WallNanos};
use engine::store::Change;
use engine::{Engine, Store};
use pool::{Pool, check_blocks, write_blocks};
use raid::{DriveState, GroupState};
use world_sim::{RunEnd, SimMedia, SimNode};

const MIB: u64 = 1 << 20;

/// A pool of 12 drives with a file of `blocks` blocks on media, and `more` blank drives.
fn start(seed: u64, blocks: u64, more: usize) -> (Pool, Vec<SimMedia>, FileId) {
    let pool = Pool::new(seed, 12, 24 * MIB);
    let new: Vec<SimMedia> = (0..more).map(|n| pool.world.drive_media(&format!("new{n}"), 24 * MIB)).collect();
    let file = pool.format_with_file(blocks);
    (pool, new, file)
}

fn ports(node: &SimNode, media: &[SimMedia]) -> Vec<Rc<dyn Drive>> {
    media.iter().map(|media| node.drive(media)).collect()
}

/// Extents in use on the drives from `first` on.
fn used_extents(engine: &Engine, first: usize) -> Vec<u32> {
    let drives = engine.group().status().drives;
    drives[first..].iter().map(|drive| drive.extents_total - drive.extents_free).collect()
}

async fn all_is_well(engine: &Engine, file: FileId, rewritten: u64, blocks: u64) {
    check_blocks(engine, file, 0..rewritten, 1).await;
    check_blocks(engine, file, rewritten..blocks, 0).await;
    engine.settle().await.unwrap();
    let scrub = engine.scrub().await.unwrap();
    assert_eq!((scrub.units_repaired, scrub.units_absent, scrub.stripes_lost), (0, 0, 0));
    assert!(engine.audit(true).await.unwrap().findings.is_empty());
}

/// Decides R-EXP-01: from 12 to 13 and from 12 to 24 drives under load; the first stripes
/// after it are on the new drives, the new room is promised to writers, every byte is there,
/// after a restart too, and any two drives may be lost.
#[test]
fn a_pool_is_expanded_under_load() {
    for more in [1, 12] {
        let (mut pool, new, file) = start(more as u64, 600, more);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                let before = (engine.space(), node.world().clock.now());
                let writing = write_blocks(&engine, file, 0..200, 1);
                let drives = ports(&node, &new);
                let growing = async {
                    let slots = engine.expand(drives, None).await.unwrap();
                    assert_eq!(slots.len(), more);
                    let took = node.world().clock.now().since(before.1);
                    assert!(took < Duration::from_secs(1), "{took:?}");
                };
                futures_util::future::join(writing, growing).await;
                assert!(engine.space().free_bytes > before.0.free_bytes, "the new room can be written to");
                write_blocks(&engine, file, 100..200, 1).await;
                engine.checkpoint().await.unwrap();
                let used = used_extents(&engine, 12);
                let on_new = used.iter().filter(|used| **used > 0).count();
                assert!(on_new >= more.min(6), "new drives hold stripes at once: {used:?}");
                assert_eq!(engine.expansions().len(), 1);
                all_is_well(&engine, file, 200, 600).await;
            })
            .done();
        pool.cut_power(&node);
        pool.drives.extend(new);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                assert_eq!(engine.group().status().drives.len(), 12 + more);
                assert_eq!(engine.expansions().len(), 1);
                for lost in [3, 12] {
                    pool.drives[lost].set_gone(true);
                    engine.checkpoint().await.unwrap();
                    write_blocks(&engine, file, 0..1, 1).await;
                    engine.checkpoint().await.unwrap();
                }
                check_blocks(&engine, file, 0..200, 1).await;
                check_blocks(&engine, file, 200..600, 0).await;
            })
            .done();
    }
}

/// Latencies of one client's operations, in microseconds.
#[derive(Default)]
struct Seen {
    reads: Vec<f64>,
    writes: Vec<f64>,
}

impl Seen {
    /// Writes a block and reads a cold one.
    async fn one(&mut self, engine: &Engine, file: FileId, turn: u64) {
        let clock = engine.group().world().clock.clone();
        let us_since = |start: base::Nanos| clock.now().since(start).as_nanos() as f64 / 1e3;
        let (start, at) = (clock.now(), turn * 7919 % COLD);
        write_blocks(engine, file, COLD + at % 300..COLD + at % 300 + 1, turn as u8).await;
        self.writes.push(us_since(start));
        let start = clock.now();
        check_blocks(engine, file, at..at + 1, 0).await;
        self.reads.push(us_since(start));
        world_sim::node::sleep_for(&*clock, Duration::from_micros(100)).await;
    }
}

fn p99(latencies: &[f64]) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 99 / 100]
}

/// Blocks that are only read, and do not fit the cache.
const COLD: u64 = 1200;

/// Decides R-EXP-04: clients beside an expansion wait no longer than a tenth more than before, and
/// data is on the new drives within a second.
#[test]
fn clients_do_not_notice_an_expansion() {
    let flash = world_sim::Latency {
        read_ns: 80_000,
        write_ns: 60_000,
        flush_ns: 50_000,
        per_page_ns: 2_000,
        jitter_ns: 40_000,
        channels: 4,
        ..world_sim::Latency::default()
    };
    println!(
        "| drives | p99 µs of reads before, beside | of writes before, beside | longest before, beside | it took ms | data on new drives after ms |"
    );
    println!("|---|---|---|---|---|---|");
    for more in [1, 12] {
        let (pool, new, file) = start(20 + more as u64, COLD + 300, more);
        pool.drives.iter().chain(&new).chain(&pool.legs).for_each(|media| media.set_latency(flash));
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                let clock = node.world().clock;
                let (mut before, mut beside) = (Seen::default(), Seen::default());
                for turn in 0..6000 {
                    before.one(&engine, file, turn).await;
                }
                let began = clock.now();
                let (took, on_new) = (Cell::new(None), Cell::new(None));
                let growing = async {
                    engine.expand(ports(&node, &new), None).await.unwrap();
                    took.set(Some(clock.now().since(began)));
                };
                let load = async {
                    for turn in 6000..12_000 {
                        beside.one(&engine, file, turn).await;
                        let is_grown = engine.group().status().drives.len() == 12 + more;
                        if on_new.get().is_none() && is_grown && used_extents(&engine, 12).iter().any(|used| *used > 0)
                        {
                            on_new.set(Some(clock.now().since(began)));
                        }
                    }
                };
                futures_util::future::join(growing, load).await;
                let (took, on_new) = (took.get().unwrap(), on_new.get().expect("data is on the new drives"));
                let longest = |seen: &Seen| seen.reads.iter().chain(&seen.writes).copied().fold(0.0, f64::max);
                let (reads, writes) =
                    ([p99(&before.reads), p99(&beside.reads)], [p99(&before.writes), p99(&beside.writes)]);
                println!(
                    "| 12 to {} | {:.0}, {:.0} | {:.0}, {:.0} | {:.0}, {:.0} | {:.1} | {:.0} |",
                    12 + more,
                    reads[0],
                    reads[1],
                    writes[0],
                    writes[1],
                    longest(&before),
                    longest(&beside),
                    took.as_secs_f64() * 1e3,
                    on_new.as_secs_f64() * 1e3
                );
                assert!(reads[1] <= reads[0] * 1.1 && writes[1] <= writes[0] * 1.1, "{reads:?}, {writes:?}");
                assert!(on_new < Duration::from_secs(1), "{on_new:?}");
            })
            .done();
    }
}

/// Decides R-EXP-04: old stripes stay where they are at the moment of expansion; as data is
/// written over, space evens out over all drives.
#[test]
fn space_evens_out_as_data_is_written_over() {
    let (pool, new, file) = start(7, 1_500, 12);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let before = used_extents(&engine, 0);
            engine.expand(ports(&node, &new), None).await.unwrap();
            let written = engine.group().counters().stripes_written;
            assert_eq!(used_extents(&engine, 0)[..12], before[..], "nothing moved");
            assert_eq!(engine.group().counters().stripes_written, written);
            for round in 1..4 {
                write_blocks(&engine, file, 0..1_500, round).await;
                engine.settle().await.unwrap();
            }
            engine.settle().await.unwrap();
            let used = used_extents(&engine, 0);
            let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
            assert!(most - least <= 2, "extents per drive: {used:?}");
            check_blocks(&engine, file, 0..1_500, 3).await;
        })
        .done();
}

/// A pool whose extents are all in use grows by fewer drives than a stripe is wide: what is free in
/// its old stripes is used first, as stripes of the new drives alone would be narrow for good.
#[test]
fn a_pool_without_free_extents_fills_its_wide_stripes_first() {
    let mut pool = Pool::new(31, 12, 16 * MIB);
    let new: Vec<SimMedia> = (0..4).map(|n| pool.world.drive_media(&format!("new{n}"), 16 * MIB)).collect();
    pool.options.checkpoint_every = Duration::from_secs(3600);
    // Room that is kept for those who make room does not keep an extent free.
    pool.extent_bytes = 2 * MIB;
    let kept = pool.format_with_file(0);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let gone = engine.next_file_id();
            engine.commit(vec![Change::CreateFile { file: gone, at: WallNanos(1) }]).await.unwrap();
            // A little in each segment stays, the rest goes.
            let mut parts = 0;
            while engine.group().space().stripes_free > 0 {
                write_blocks(&engine, kept, parts * 16..parts * 16 + 16, 0).await;
                write_blocks(&engine, gone, parts * 112..parts * 112 + 112, 0).await;
                engine.settle().await.unwrap();
                parts += 1;
            }
            engine.commit(vec![Change::DropFile { file: gone }]).await.unwrap();
            engine.settle().await.unwrap();
            engine.expand(ports(&node, &new), None).await.unwrap();
            write_blocks(&engine, kept, 0..400, 1).await;
            engine.settle().await.unwrap();
            assert_eq!(used_extents(&engine, 12), vec![0; 4], "narrow stripes while wide ones are free");
        })
        .done();
}

/// With one drive missing the pool grows as well; the missing one comes back and is filled.
#[test]
fn a_pool_with_a_drive_missing_is_expanded() {
    let (mut pool, new, file) = start(9, 300, 3);
    pool.drives[4].set_gone(true);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.expand(ports(&node, &new), None).await.unwrap();
            write_blocks(&engine, file, 0..100, 1).await;
            engine.settle().await.unwrap();
            check_blocks(&engine, file, 0..100, 1).await;
            check_blocks(&engine, file, 100..300, 0).await;
        })
        .done();
    pool.cut_power(&node);
    pool.drives[4].set_gone(false);
    pool.drives.extend(new);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            if engine.group().status().drives[4].state == DriveState::Failed {
                engine.rejoin_drive(node.drive(&pool.drives[4])).await.unwrap();
                while engine.rebuild_status().is_some() {
                    world_sim::node::sleep_for(node.world().clock.as_ref(), Duration::from_millis(5)).await;
                }
            }
            assert_eq!(engine.group().status().state, GroupState::Online);
            all_is_well(&engine, file, 100, 300).await;
        })
        .done();
}

/// Opens the pool, and expands it while a client writes. Where the steps stand once the pool
/// was open, and at the end.
fn expand_under_load(pool: &Pool, node: &SimNode, new: &[SimMedia], file: FileId) -> (Cell<u64>, RunEnd<()>) {
    let opened = Cell::new(0);
    let end = pool.world.run_until(async {
        let (engine, _) = pool.open(node).await;
        opened.set(pool.world.steps());
        let writing = write_blocks(&engine, file, 0..20, 0);
        let growing = engine.expand(ports(node, new), Some(6));
        let _ = futures_util::future::join(writing, growing).await;
    });
    (opened, end)
}

/// Power goes at 40 steps of an expansion, evenly spread over it: some of the drives have
/// joined, in order, none is half in, nothing is lost, and the rest joins on the second try.
#[test]
fn an_expansion_survives_power_cuts_at_any_point() {
    let (pool, new, file) = start(1, 120, 4);
    let before = pool.world.steps();
    let (opened, end) = expand_under_load(&pool, &pool.world.node(), &new, file);
    end.done();
    let (opening, expanding) = (opened.get() - before, pool.world.steps() - opened.get());
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..=40 {
        let (mut pool, new, file) = start(1, 120, 4);
        let node = pool.world.node();
        pool.world.crash_after(opening + expanding * cut / 40);
        let (_, _at_crash_point_or_done) = expand_under_load(&pool, &node, &new, file);
        pool.world.crash_never();
        pool.cut_power(&node);
        pool.drives.extend(new.iter().cloned());
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                let there = engine.group().status().drives.len() - 12;
                seen.insert(there);
                assert_eq!(engine.group().status().state, GroupState::Online, "cut {cut}");
                engine.expand(ports(&node, &new[there..]), Some(6)).await.unwrap();
                assert_eq!(engine.group().status().drives.len(), 16);
                assert_eq!(engine.group().next_geometry().unwrap().to_string(), "6+2");
                write_blocks(&engine, file, 0..20, 1).await;
                all_is_well(&engine, file, 20, 120).await;
            })
            .done();
    }
    assert!(seen.iter().copied().eq(0..=4), "every number of drives joined at some cut: {seen:?}");
}
