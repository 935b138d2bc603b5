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
