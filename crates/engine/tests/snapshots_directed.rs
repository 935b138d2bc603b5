//! What snapshots promise, one by one: a set of files at one point of the order of operations,
//! reads that cost the same however many there are, differences that follow the change, and
//! losses that stay in the layer they belong to.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::time::Duration;

use base::port::World;
use base::{FileId, WallNanos};
use engine::store::{Change, Extent, StoreRefusal};
use engine::{Engine, Store};
use futures_util::future::join;
use pool::{Pool, bytes_of};

const AT: WallNanos = WallNanos(9);
const BLOCK: u64 = 8192;

async fn create(engine: &Engine) -> FileId {
    let file = engine.next_file_id();
    engine.commit(vec![Change::CreateFile { file, at: AT }]).await.unwrap();
    file
}

async fn snapshot(engine: &Engine, files: &[FileId]) -> Vec<FileId> {
    let taken: Vec<(FileId, FileId)> = files.iter().map(|file| (*file, engine.next_file_id())).collect();
    let changes = taken.iter().map(|&(file, snapshot)| Change::Snapshot { file, snapshot });
    engine.commit(changes.collect()).await.unwrap();
    taken.into_iter().map(|(_, snapshot)| snapshot).collect()
}

async fn fill(engine: &Engine, file: FileId, block: u64, byte: u8) {
    engine.write(file, block * BLOCK, &[&[byte; BLOCK as usize]], AT).await.unwrap();
}

async fn first_byte(engine: &Engine, file: FileId, block: u64) -> Result<u8, StoreRefusal> {
    engine.read(file, block * BLOCK, 1).await.map(|read| bytes_of(&read)[0])
}

fn live<T>(pool: &Pool, work: impl AsyncFnOnce(&Engine) -> T) -> T {
    live_in_time(pool, async |engine, _| work(engine).await)
}

/// A life that ends in a power cut, with the clock of its world.
fn live_in_time<T>(pool: &Pool, work: impl AsyncFnOnce(&Engine, &World) -> T) -> T {
    let node = pool.world.node();
    let out = pool.world.run_until(async { work(&pool.open(&node).await.0, &node.world()).await }).done();
    pool.cut_power(&node);
    out
}

async fn sleep(world: &World, pause: Duration) {
    world.clock.sleep_until(world.clock.now() + pause).await;
}

fn formatted(seed: u64) -> Pool {
    let pool = Pool::new(seed, 6, 24 << 20);
    let node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    node.kill();
    pool
}

/// Write `k` goes to file `k % 10` and says so; each waits for the one before.
async fn write_in_order(engine: &Engine, files: &[FileId], count: u64) {
    for k in 0..count {
        let (file, offset) = (files[(k % 10) as usize], k / 10 * 512);
        engine.write(file, offset, &[&(k + 1).to_le_bytes()], AT).await.unwrap();
    }
}

/// How many of the writes a set of files has, which must be the first ones.
async fn prefix(engine: &Engine, files: &[FileId]) -> u64 {
    let mut found = Vec::new();
    for (index, file) in (0..).zip(files) {
        let bytes = bytes_of(&engine.read(*file, 0, 1 << 20).await.unwrap());
        for (row, slot) in (0..).zip(bytes.chunks(512)) {
            match u64::from_le_bytes(slot[..8].try_into().unwrap()) {
                0 => {}
                said => {
                    assert_eq!(said - 1, row * 10 + index);
                    found.push(said - 1);
                }
            }
        }
    }
    found.sort_unstable();
    assert!(found.iter().copied().eq(0..found.len() as u64), "not a prefix: {found:?}");
    found.len() as u64
}

/// A snapshot of ten files that are written in a known order has a prefix of that order, at
/// once, after a power cut, and as clones.
#[test]
fn a_snapshot_of_ten_files_under_load_is_a_prefix_of_the_order_of_writes() {
    for seed in 0..8 {
        let pool = formatted(seed);
        let (files, sets, had) = live_in_time(&pool, async |engine, world| {
            let mut files = Vec::new();
            for _ in 0..10 {
                files.push(create(engine).await);
            }
            let take = async {
                let mut sets = Vec::new();
                for _ in 0..6 {
                    let pause = Duration::from_micros(300 + 900 * seed);
                    sleep(world, pause).await;
                    sets.push(snapshot(engine, &files).await);
                }
                sets
            };
            let ((), sets) = join(write_in_order(engine, &files, 400), take).await;
            let mut had = Vec::new();
            for set in &sets {
                had.push(prefix(engine, set).await);
            }
            assert!(had.is_sorted() && had[0] < 400, "{had:?}");
            (files, sets, had)
        });
        live(&pool, async |engine| {
            for (set, had) in sets.iter().zip(&had) {
                assert_eq!(prefix(engine, set).await, *had);
                let mut copies = Vec::new();
                for snapshot in set {
                    let file = engine.next_file_id();
                    engine.commit(vec![Change::Clone { snapshot: *snapshot, file, at: AT }]).await.unwrap();
                    copies.push(file);
                }
                fill(engine, files[0], 0, 0).await;
                assert_eq!(prefix(engine, &copies).await, *had);
            }
            engine.settle().await.unwrap();
            assert_eq!(engine.audit(true).await.unwrap().findings, []);
        });
    }
}

/// Pages that a cold read of every block of the file reads.
fn cold_pages(pool: &Pool, file: FileId, blocks: u64) -> u64 {
    live(pool, async |engine| {
        let before = engine.counters().pages_read;
        for block in 0..blocks {
            first_byte(engine, file, block).await.unwrap();
        }
        engine.counters().pages_read - before
    })
}

/// Block reads search once, however many snapshots lie below.
#[test]
fn a_thousand_snapshots_cost_a_cold_read_no_more_searches() {
    const BLOCKS: u64 = 40;
    let pool = formatted(5);
    let file = live(&pool, async |engine| {
        let file = create(engine).await;
        for block in 0..BLOCKS {
            fill(engine, file, block, block as u8 + 1).await;
        }
        engine.settle().await.unwrap();
        file
    });
    let none = cold_pages(&pool, file, BLOCKS);
    let snapshots = live(&pool, async |engine| {
        let mut snapshots = Vec::new();
        for n in 0..1000u64 {
            snapshots.extend(snapshot(engine, &[file]).await);
            engine.write(file, n % BLOCKS * BLOCK + 8, &[&n.to_le_bytes()], AT).await.unwrap();
        }
        engine.settle().await.unwrap();
        assert_eq!(engine.audit(false).await.unwrap().findings, []);
        snapshots
    });
    let thousand = cold_pages(&pool, file, BLOCKS);
    // The map has a thousand entries more, on more leaves; a chain would read each for each.
    assert!(thousand <= none + 60, "{thousand} pages instead of {none}");
    let one = live(&pool, async |engine| {
        first_byte(engine, snapshots[500], 0).await.unwrap();
        let before = engine.counters().pages_read;
        first_byte(engine, snapshots[500], BLOCKS - 1).await.unwrap();
        engine.counters().pages_read - before
    });
    assert!(one <= 4, "{one} pages for a block of an old snapshot");
    live(&pool, async |engine| {
        for chunk in snapshots.chunks(100) {
            engine.commit(chunk.iter().map(|&file| Change::DropFile { file }).collect()).await.unwrap();
        }
        engine.settle().await.unwrap();
        let audit = engine.audit(true).await.unwrap();
        assert_eq!((audit.blocks, audit.findings), (BLOCKS, vec![]));
    });
}

/// What differs is named in whole blocks; the pages read for it follow the change and not
/// the file.
#[test]
fn differences_cost_what_has_changed() {
    const BLOCKS: u64 = 600;
    let pool = formatted(6);
    let (one, other) = live(&pool, async |engine| {
        let file = create(engine).await;
        for block in 0..BLOCKS {
            fill(engine, file, block, (block % 250) as u8 + 1).await;
        }
        let one = snapshot(engine, &[file]).await[0];
        engine.write(file, 7 * BLOCK + 5, &[b"seven"], AT).await.unwrap();
        engine.settle().await.unwrap();
        engine.write(file, 300 * BLOCK, &[&[0; 2 * BLOCK as usize]], AT).await.unwrap();
        (one, snapshot(engine, &[file]).await[0])
    });
    let extent = |block: u64, blocks: u64| Extent { offset_bytes: block * BLOCK, len_bytes: blocks * BLOCK };
    for settled in [false, true] {
        let pages = live(&pool, async |engine| {
            if settled {
                engine.settle().await.unwrap();
            }
            let before = engine.counters().pages_read;
            assert_eq!(engine.differences(one, other).await.unwrap(), [extent(7, 1), extent(300, 2)]);
            assert_eq!(engine.differences(other, one).await.unwrap(), [extent(7, 1), extent(300, 2)]);
            engine.counters().pages_read - before
        });
        assert!(pages < 6, "{pages} pages");
    }
}

/// Damages the record on the only leg whose body is full of `byte`.
fn damage_record(pool: &Pool, byte: u8) {
    let journal = pool.legs[0].peek(0, 6 << 20);
    let found = journal.windows(64).position(|bytes| bytes == [byte; 64]).unwrap();
    pool.legs[0].flip(found as u64 + 100, 1);
}

/// A record lost after a snapshot leaves the snapshot whole; one lost before it is lost in both,
/// until the file is written over. Decides R-NV-04.
#[test]
fn a_lost_record_is_lost_in_the_layer_it_was_written_to() {
    for (lost_first, checkpoint) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut pool = Pool::new(9, 6, 24 << 20);
        pool.legs.truncate(1);
        pool.options.checkpoint_every = Duration::from_millis(100);
        pool.options.tick = Duration::from_millis(100);
        pool.options.destage_blocks = 1;
        let node = pool.world.node();
        pool.world.run_until(pool.format(&node)).done();
        node.kill();
        let (file, frozen) = live_in_time(&pool, async |engine, world| {
            let (file, older) = (create(engine).await, create(engine).await);
            fill(engine, file, 0, 0xa1).await;
            engine.settle().await.unwrap();
            for block in 0..100 {
                fill(engine, older, block, block as u8).await;
            }
            fill(engine, file, 0, 0xb2).await;
            let frozen = snapshot(engine, &[file]).await[0];
            fill(engine, file, 0, 0xc3).await;
            fill(engine, file, 1, 0xd4).await;
            if checkpoint {
                // A root that has the snapshot and not the data from before it.
                let checkpoints = engine.counters().checkpoints;
                while engine.counters().checkpoints == checkpoints {
                    sleep(world, Duration::from_millis(1)).await;
                }
                assert!(engine.status().staged_bytes > 10 * BLOCK);
            }
            (file, frozen)
        });
        damage_record(&pool, if lost_first { 0xb2 } else { 0xc3 });
        for life in 0..2 {
            live(&pool, async |engine| {
                let lost = |file| Err(StoreRefusal::Unreadable { file, offset_bytes: 0 });
                let (now, then) = (first_byte(engine, file, 0).await, first_byte(engine, frozen, 0).await);
                let expected = if lost_first { (Ok(0xc3), lost(frozen)) } else { (lost(file), Ok(0xb2)) };
                assert_eq!((now, then), expected, "life {life}, first {lost_first}, root {checkpoint}");
                engine.settle().await.unwrap();
            });
        }
        live(&pool, async |engine| {
            fill(engine, file, 0, 0xe5).await;
            engine.settle().await.unwrap();
            assert_eq!(first_byte(engine, file, 0).await, Ok(0xe5));
            engine.commit(vec![Change::DropFile { file: frozen }]).await.unwrap();
            engine.settle().await.unwrap();
            assert_eq!(engine.audit(true).await.unwrap().findings, []);
        });
    }
}
