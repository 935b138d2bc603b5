//! Snapshots, clones, rollback and differences against the model: whatever is done, whenever
//! power goes, every file and every snapshot has the content that the model says, and
//! nothing is kept that nobody sees.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod known;
mod pool;

use base::WallNanos;
use engine::Store;
use engine::memory::MemoryStore;
use engine::store::{Change, StoreRefusal};
use known::Known;
use pool::{Pool, bytes_of};
use world_sim::{Rng, SimMedia};

fn end_life(pool: &Pool, node: &world_sim::SimNode, clean: bool) {
    if clean {
        return pool.cut_power(node);
    }
    node.kill();
    pool.drives.iter().chain(&pool.legs).for_each(SimMedia::process_crash);
}

fn run(seed: u64, lives: u64, steps: impl Fn(&mut Rng) -> u64) {
    let mut pool = Pool::new(seed, 6, 24 << 20);
    // Few blocks at a time: then roots are often ahead of the data that is still staged.
    pool.options.destage_blocks = [1, 4, 32][(seed % 3) as usize];
    pool.options.checkpoint_every = std::time::Duration::from_millis([5, 50, 500][(seed / 3 % 3) as usize]);
    pool.options.tick = pool.options.checkpoint_every / 2;
    let model = MemoryStore::default();
    let mut rng = pool.world.rng("operations");
    let mut known = Known { at: 1, ..Known::default() };
    let mut node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    for life in 0..lives {
        let steps = steps(&mut rng);
        let work = async {
            let (engine, _) = pool.open(&node).await;
            let stores = (&engine, &model);
            known.compare_all(stores, false).await;
            if life == 0 {
                known.create(stores).await;
                known.create(stores).await;
            }
            for _ in 0..steps {
                known.step(&mut rng, stores).await;
            }
            if rng.below(3) == 0 {
                engine.checkpoint().await.unwrap();
                // What a root has and what only the journal has must not be told apart.
                for _ in 0..rng.below(6) {
                    known.step(&mut rng, stores).await;
                }
            }
            let settled = rng.below(3) == 0;
            if settled {
                engine.settle().await.unwrap();
                assert_eq!(engine.audit(true).await.unwrap().findings, [], "seed {seed}");
            }
            known.compare_all(stores, settled).await;
            assert!(!engine.status().stopped, "{:?}", engine.take_events());
        };
        pool.world.run_until(work).done();
        end_life(&pool, &node, rng.below(2) == 0);
        node = pool.world.node();
    }
    pool.world.run_until(finish(&pool, &node, &known, &model)).done();
}

/// At the end everything goes, and every byte comes back.
async fn finish(pool: &Pool, node: &world_sim::SimNode, known: &Known, model: &MemoryStore) {
    let (engine, _) = pool.open(node).await;
    known.compare_all((&engine, model), false).await;
    engine.settle().await.unwrap();
    known.compare_all((&engine, model), true).await;
    assert_eq!(engine.audit(true).await.unwrap().findings, []);
    let all: Vec<Change> = known.all().map(|file| Change::DropFile { file }).collect();
    engine.commit(all).await.unwrap();
    engine.settle().await.unwrap();
    let audit = engine.audit(true).await.unwrap();
    assert_eq!((audit.blocks, audit.objects, audit.findings), (0, 0, vec![]));
}

/// Decides R-SNAP-01.
#[test]
fn files_snapshots_and_clones_are_the_model_through_power_cuts() {
    for seed in 0..60 {
        run(seed, 5, |_| 60);
    }
}

/// Short lives: there is a crash after every few steps, and each replay meets what the last
/// one left.
#[test]
fn a_crash_after_every_step_changes_nothing() {
    for seed in 100..130 {
        run(seed, 40, |rng| 1 + rng.below(4));
    }
}

#[test]
fn a_snapshot_is_not_written_to_and_only_a_snapshot_is_cloned() {
    let pool = Pool::new(3, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        pool.format(&node).await;
        let (engine, _) = pool.open(&node).await;
        let at = WallNanos(1);
        let [file, snapshot, copy, map] = [(); 4].map(|()| engine.next_file_id());
        engine.commit(vec![Change::CreateFile { file, at }]).await.unwrap();
        engine.write(file, 0, &[&[1; 9000]], at).await.unwrap();
        let refused = engine.commit(vec![Change::Clone { snapshot: file, file: copy, at }]).await;
        assert_eq!(refused, Err(StoreRefusal::Frozen));
        let refused = engine.commit(vec![Change::Rollback { file, snapshot: copy, map, at }]).await;
        assert_eq!(refused, Err(StoreRefusal::NoSuchFile));
        engine.commit(vec![Change::Snapshot { file, snapshot }]).await.unwrap();
        assert_eq!(engine.write(snapshot, 0, &[&[2; 10]], at).await.unwrap_err(), StoreRefusal::Frozen);
        engine.commit(vec![Change::SetSize { file: snapshot, size_bytes: 0 }]).await.unwrap();
        assert_eq!(bytes_of(&engine.read(snapshot, 0, 9000).await.unwrap()), [1; 9000]);
    };
    pool.world.run_until(work).done();
}
