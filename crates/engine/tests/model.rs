//! The engine against the model: the same operations give the same answers, before and
//! after destaging, checkpoints, restarts and power cuts.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use base::{FileId, WallNanos};
use engine::memory::MemoryStore;
use engine::store::{Change, Table};
use engine::{Engine, Store};
use pool::{Pool, bytes_of};
use world_sim::Rng;

const FILES: u64 = 3;
const SPAN: u64 = 96 * 8192;

/// One random operation, the same on both stores. File ids are never used again.
async fn step(rng: &mut Rng, at: u64, files: &mut [FileId], (engine, model): (&Engine, &MemoryStore)) {
    let slot = rng.below(FILES) as usize;
    let file = files[slot];
    let at = WallNanos(at);
    match rng.below(20) {
        0 => both(engine, model, vec![Change::SetSize { file, size_bytes: rng.below(SPAN) }]).await,
        1 => {
            files[slot] = engine.next_file_id();
            both(engine, model, vec![Change::DropFile { file }, Change::CreateFile { file: files[slot], at }]).await;
        }
        2 | 3 => {
            let key = vec![rng.below(200) as u8, 1];
            let value = vec![rng.below(256) as u8; rng.below(900) as usize];
            both(engine, model, vec![Change::Put { table: Table(1), key, value }]).await;
        }
        4 => both(engine, model, vec![Change::Delete { table: Table(1), key: vec![rng.below(200) as u8, 1] }]).await,
        5..=16 => write(rng, file, at, engine, model).await,
        _ => compare_range(rng, file, engine, model).await,
    }
}

async fn both(engine: &Engine, model: &MemoryStore, changes: Vec<Change>) {
    model.commit(changes.clone()).await.unwrap();
    engine.commit(changes).await.unwrap();
}

async fn write(rng: &mut Rng, file: FileId, at: WallNanos, engine: &Engine, model: &MemoryStore) {
    let aligned = rng.below(2) == 0;
    let (offset, len) = if aligned {
        (rng.below(SPAN / 8192) * 8192, (1 + rng.below(8)) * 8192)
    } else {
        (rng.below(SPAN), 1 + rng.below(20_000))
    };
    let mut data = vec![0; len as usize];
    match rng.below(4) {
        0 => {}                                 // zeros
        1 => data.fill(rng.below(3) as u8 + 1), // duplicates, compressible
        _ => data.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
    }
    let modelled = model.write(file, offset, &[&data], at).await.unwrap();
    let half = data.len() / 2;
    let wrote = engine.write(file, offset, &[&data[..half], &data[half..]], at).await.unwrap();
    assert_eq!(
        (wrote.before.size_bytes, wrote.after.size_bytes),
        (modelled.before.size_bytes, modelled.after.size_bytes)
    );
    assert_eq!(wrote.after.modified, at);
}

async fn compare_range(rng: &mut Rng, file: FileId, engine: &Engine, model: &MemoryStore) {
    let (offset, len) = (rng.below(SPAN), rng.below(40_000) as usize);
    let (ours, theirs) = (engine.read(file, offset, len).await.unwrap(), model.read(file, offset, len).await.unwrap());
    assert!(bytes_of(&ours) == bytes_of(&theirs), "file {file} at {offset} for {len}");
}

async fn compare_all(files: &[FileId], (engine, model): (&Engine, &MemoryStore), settled: bool) {
    for &file in files {
        let (ours, theirs) = (engine.head(file).await.unwrap(), model.head(file).await.unwrap());
        let size =
            |head: Option<engine::store::FileHead>| head.map(|head| (head.size_bytes, head.modified, head.changed));
        assert_eq!(size(ours), size(theirs), "file {file}");
        let Some(head) = ours else { continue };
        if settled {
            assert_eq!(head.used_bytes, theirs.unwrap().used_bytes, "used space of file {file}");
        }
        let (a, b) = (engine.read(file, 0, 1 << 20).await.unwrap(), model.read(file, 0, 1 << 20).await.unwrap());
        let (a, b) = (bytes_of(&a), bytes_of(&b));
        let differs = a.iter().zip(&b).position(|(a, b)| a != b);
        assert!(a == b, "file {file} differs at {differs:?}, lengths {} and {}", a.len(), b.len());
    }
    let (ours, theirs) =
        (engine.scan(Table(1), &[], 999).await.unwrap(), model.scan(Table(1), &[], 999).await.unwrap());
    assert_eq!(ours, theirs);
}

async fn start(files: &[FileId], engine: &Engine, model: &MemoryStore) {
    for &file in files {
        both(engine, model, vec![Change::CreateFile { file, at: WallNanos(1) }]).await;
    }
}

/// Decides R-NV-05. Decides R-DED-01.
#[test]
fn the_engine_is_the_model_through_checkpoints_and_power_cuts() {
    for seed in 0..40 {
        let pool = Pool::new(seed, 6, 24 << 20);
        let model = MemoryStore::default();
        let mut rng = pool.world.rng("operations");
        let mut files: Vec<FileId> = (1..=FILES).map(FileId).collect();
        let mut node = pool.world.node();
        pool.world.run_until(pool.format(&node)).done();
        for life in 0..4 {
            let ((), settled) = pool
                .world
                .run_until(async {
                    let (engine, _) = pool.open(&node).await;
                    if life == 0 {
                        start(&files, &engine, &model).await;
                    }
                    compare_all(&files, (&engine, &model), false).await;
                    for at in 0..150 {
                        step(&mut rng, life * 1000 + at + 2, &mut files, (&engine, &model)).await;
                    }
                    let settled = rng.below(2) == 0;
                    if settled {
                        engine.settle().await.unwrap();
                        assert_eq!(engine.status().staged_bytes, 0);
                        assert_eq!(engine.audit(true).await.unwrap().findings, []);
                    }
                    (compare_all(&files, (&engine, &model), settled).await, settled)
                })
                .done();
            if settled {
                pool.cut_power(&node);
            } else {
                node.kill();
                pool.drives.iter().chain(&pool.legs).for_each(world_sim::SimMedia::process_crash);
            }
            node = pool.world.node();
        }
    }
}

/// A commit that empties a page and puts a row beside it finds its way, however little of the
/// trees is in memory.
#[test]
fn a_commit_that_empties_pages_goes_through_with_hardly_any_pages_in_memory() {
    let mut pool = Pool::new(5, 6, 24 << 20);
    pool.options.cached_pages = 4;
    let node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let key = |n: u32| n.to_be_bytes().to_vec();
            let table = Table(1);
            for chunk in 0..40u32 {
                let put = |n: u32| Change::Put { table, key: key(chunk * 50 + n), value: vec![1; 300] };
                engine.commit((0..50).map(put).collect()).await.unwrap();
            }
            // One row is left on most pages.
            for chunk in 0..40u32 {
                let rows = (0..50).map(|n| chunk * 50 + n).filter(|n| n % 12 != 5);
                engine.commit(rows.map(|n| Change::Delete { table, key: key(n) }).collect()).await.unwrap();
            }
            engine.checkpoint().await.unwrap();
            for n in (0..2000u32).filter(|n| n % 12 == 5) {
                engine.scan(Table(1), &key((n + 1000) % 2000), 30).await.unwrap();
                let put = Change::Put { table, key: key(n + 1), value: vec![2; 300] };
                engine.commit(vec![Change::Delete { table, key: key(n) }, put]).await.unwrap();
            }
            let rows = engine.scan(table, &[], 9999).await.unwrap();
            assert!(rows.iter().all(|(_, value)| value[..] == [2; 300]));
            assert_eq!(rows.len(), (0..2000).filter(|n| n % 12 == 5).count());
        })
        .done();
}

/// Writes all over a range that was just cut off leave many small ranges to reclaim: more
/// than a head can list.
#[test]
fn what_was_just_cut_off_may_be_written_here_and_there() {
    let mut pool = Pool::new(7, 6, 24 << 20);
    pool.options.tick = std::time::Duration::from_secs(3600);
    pool.options.destage_blocks = 1 << 20;
    let node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let (file, at) = (engine.next_file_id(), WallNanos(1));
            let sizes = [800, 0, 800].map(|blocks| Change::SetSize { file, size_bytes: blocks * 8192 });
            engine.commit(vec![Change::CreateFile { file, at }]).await.unwrap();
            engine.write(file, 0, &[&[9; 100_000]], at).await.unwrap();
            engine.checkpoint().await.unwrap();
            engine.commit(sizes.to_vec()).await.unwrap();
            for block in (1..800u64).step_by(2) {
                engine.write(file, block * 8192, &[&[block as u8; 100]], at).await.unwrap();
            }
            engine.checkpoint().await.unwrap();
            for block in 0..800u64 {
                let expected = if block % 2 == 0 { 0 } else { block as u8 };
                let read = bytes_of(&engine.read(file, block * 8192, 8192).await.unwrap());
                assert!(read[..100] == [expected; 100] && read[100..].iter().all(|byte| *byte == 0), "block {block}");
            }
            engine.settle().await.unwrap();
            assert_eq!(engine.audit(true).await.unwrap().findings, []);
        })
        .done();
}

/// A file that is extended and cut again and again leaves ranges to reclaim that do not touch
/// each other: more than a head can list, before and after a restart.
#[test]
fn a_file_may_be_extended_and_cut_for_ever() {
    let mut pool = Pool::new(8, 6, 24 << 20);
    pool.options.tick = std::time::Duration::from_secs(3600);
    let (file, at) = (FileId(1), WallNanos(1));
    let size = |blocks: u64| Change::SetSize { file, size_bytes: blocks * 8192 };
    let mut node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    for life in 0..3u64 {
        let work = async {
            let (engine, _) = pool.open(&node).await;
            if life == 0 {
                engine.commit(vec![Change::CreateFile { file, at }]).await.unwrap();
                engine.write(file, 0, &[&[7; 8192]], at).await.unwrap();
            }
            for round in life * 200..(life + 1) * 200 {
                engine.commit(vec![size(round * 10 + 10)]).await.unwrap();
                engine.commit(vec![size(round * 10 + 5)]).await.unwrap();
            }
            let read = bytes_of(&engine.read(file, 0, 20_000).await.unwrap());
            assert!(read[..8192] == [7; 8192] && read[8192..].iter().all(|byte| *byte == 0));
            if life == 2 {
                engine.settle().await.unwrap();
                assert_eq!(engine.audit(true).await.unwrap().findings, []);
            }
        };
        pool.world.run_until(work).done();
        node.kill();
        pool.drives.iter().chain(&pool.legs).for_each(world_sim::SimMedia::process_crash);
        node = pool.world.node();
    }
}

/// A commit that removes the last file of a page and makes one beside it finds its way,
/// however little of the trees is in memory.
#[test]
fn a_commit_may_drop_the_last_file_of_a_page_and_make_another() {
    let mut pool = Pool::new(9, 6, 24 << 20);
    pool.options.cached_pages = 4;
    let node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        let (table, at) = (Table(1), WallNanos(1));
        let key = |n: u32| n.to_be_bytes().to_vec();
        for chunk in 0..8u32 {
            let put = |n: u32| Change::Put { table, key: key(chunk * 50 + n), value: vec![1; 300] };
            engine.commit((0..50).map(put).collect()).await.unwrap();
        }
        engine.commit((1..=300).map(|n| Change::CreateFile { file: FileId(n), at }).collect()).await.unwrap();
        for n in (1..=300).rev() {
            engine.checkpoint().await.unwrap();
            engine.scan(table, &[], 400).await.unwrap();
            let (old, new) = (FileId(n), FileId(100_000 - n));
            engine.commit(vec![Change::DropFile { file: old }, Change::CreateFile { file: new, at }]).await.unwrap();
            engine.commit(vec![Change::DropFile { file: new }]).await.unwrap();
            assert_eq!((engine.head(old).await, engine.head(new).await), (Ok(None), Ok(None)));
        }
        engine.settle().await.unwrap();
        assert_eq!(engine.audit(true).await.unwrap().findings, []);
    };
    pool.world.run_until(work).done();
}
