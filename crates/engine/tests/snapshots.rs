//! Snapshots, clones, rollback and differences against the model: whatever is done, whenever
//! power goes, every file and every snapshot has the content that the model says, and
//! nothing is kept that nobody sees.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use base::{FileId, WallNanos};
use engine::memory::MemoryStore;
use engine::store::{Change, StoreRefusal};
use engine::{Engine, Store};
use pool::{Pool, bytes_of};
use world_sim::{Rng, SimMedia};

const SPAN: u64 = 40 * 8192;
const FILES_MAX: usize = 5;
const SNAPSHOTS_MAX: usize = 7;

/// What there is, the same in both.
#[derive(Default)]
struct Known {
    files: Vec<FileId>,
    snapshots: Vec<FileId>,
    at: u64,
}

type Both<'a> = (&'a Engine, &'a MemoryStore);

async fn both((engine, model): Both<'_>, changes: Vec<Change>) {
    model.commit(changes.clone()).await.unwrap();
    engine.commit(changes).await.unwrap();
}

fn pick(rng: &mut Rng, of: &[FileId]) -> Option<FileId> {
    (!of.is_empty()).then(|| of[rng.below(of.len() as u64) as usize])
}

impl Known {
    fn now(&mut self) -> WallNanos {
        self.at += 1;
        WallNanos(self.at)
    }

    async fn step(&mut self, rng: &mut Rng, both_stores: Both<'_>) {
        match rng.below(24) {
            0..=9 => self.write(rng, both_stores).await,
            10 | 11 => {
                let Some(file) = pick(rng, &self.files) else { return };
                both(both_stores, vec![Change::SetSize { file, size_bytes: rng.below(SPAN) }]).await;
            }
            12..=14 => self.snapshot(rng, both_stores).await,
            15 => self.clone(rng, both_stores).await,
            16 | 17 => self.roll_back(rng, both_stores).await,
            18 | 19 => self.drop_snapshot(rng, both_stores).await,
            20 => self.drop_file(rng, both_stores).await,
            _ => self.compare_some(rng, both_stores).await,
        }
        if self.files.is_empty() {
            self.create(both_stores).await;
        }
    }

    async fn create(&mut self, stores: Both<'_>) {
        let (file, at) = (stores.0.next_file_id(), self.now());
        both(stores, vec![Change::CreateFile { file, at }]).await;
        self.files.push(file);
    }

    async fn write(&mut self, rng: &mut Rng, (engine, model): Both<'_>) {
        let Some(file) = pick(rng, &self.files) else { return };
        let (offset, len) = match rng.below(2) {
            0 => (rng.below(SPAN / 8192) * 8192, (1 + rng.below(4)) * 8192),
            _ => (rng.below(SPAN), 1 + rng.below(12_000)),
        };
        let mut data = vec![0; len as usize];
        match rng.below(4) {
            0 => {}
            1 => data.fill(rng.below(3) as u8 + 1),
            _ => rng.fill(&mut data),
        }
        let at = self.now();
        model.write(file, offset, &[&data], at).await.unwrap();
        engine.write(file, offset, &[&data], at).await.unwrap();
    }

    /// Of one file or of all at once.
    async fn snapshot(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            return self.drop_snapshot(rng, stores).await;
        }
        let of = if rng.below(2) == 0 { self.files.clone() } else { pick(rng, &self.files).into_iter().collect() };
        let taken: Vec<(FileId, FileId)> = of.into_iter().map(|file| (file, stores.0.next_file_id())).collect();
        let changes = taken.iter().map(|&(file, snapshot)| Change::Snapshot { file, snapshot }).collect();
        both(stores, changes).await;
        self.snapshots.extend(taken.into_iter().map(|(_, snapshot)| snapshot));
    }

    async fn clone(&mut self, rng: &mut Rng, stores: Both<'_>) {
        let Some(snapshot) = pick(rng, &self.snapshots).filter(|_| self.files.len() < FILES_MAX) else { return };
        let (file, at) = (stores.0.next_file_id(), self.now());
        both(stores, vec![Change::Clone { snapshot, file, at }]).await;
        self.files.push(file);
    }

    /// Sometimes with a snapshot of before, in the same commit.
    async fn roll_back(&mut self, rng: &mut Rng, stores: Both<'_>) {
        let (Some(file), Some(snapshot)) = (pick(rng, &self.files), pick(rng, &self.snapshots)) else { return };
        let mut changes = Vec::new();
        if rng.below(3) == 0 {
            let safety = stores.0.next_file_id();
            changes.push(Change::Snapshot { file, snapshot: safety });
            self.snapshots.push(safety);
        }
        changes.push(Change::Rollback { file, snapshot, map: stores.0.next_file_id(), at: self.now() });
        both(stores, changes).await;
    }

    async fn drop_snapshot(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.snapshots.is_empty() {
            return;
        }
        let file = self.snapshots.swap_remove(rng.below(self.snapshots.len() as u64) as usize);
        both(stores, vec![Change::DropFile { file }]).await;
    }

    async fn drop_file(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.files.len() < 2 {
            return;
        }
        let file = self.files.swap_remove(rng.below(self.files.len() as u64) as usize);
        both(stores, vec![Change::DropFile { file }]).await;
    }

    fn all(&self) -> impl Iterator<Item = FileId> {
        self.files.iter().chain(&self.snapshots).copied()
    }

    async fn compare_some(&mut self, rng: &mut Rng, stores: Both<'_>) {
        let all: Vec<FileId> = self.all().collect();
        if let Some(file) = pick(rng, &all) {
            compare(file, stores, false).await;
        }
        if let (Some(one), Some(other)) = (pick(rng, &all), pick(rng, &all)) {
            compare_differences((one, other), stores).await;
        }
    }

    async fn compare_all(&self, stores: Both<'_>, settled: bool) {
        for file in self.all() {
            compare(file, stores, settled).await;
        }
    }
}

async fn compare(file: FileId, (engine, model): Both<'_>, settled: bool) {
    let (ours, theirs) = (engine.head(file).await.unwrap().unwrap(), model.head(file).await.unwrap().unwrap());
    assert_eq!((ours.size_bytes, ours.modified), (theirs.size_bytes, theirs.modified), "file {file}");
    if settled {
        assert_eq!(ours.used_bytes, theirs.used_bytes, "used space of file {file}");
    }
    let (a, b) = (engine.read(file, 0, 1 << 20).await.unwrap(), model.read(file, 0, 1 << 20).await.unwrap());
    let (a, b) = (bytes_of(&a), bytes_of(&b));
    let differs = a.iter().zip(&b).position(|(a, b)| a != b);
    assert!(a == b, "file {file} differs at {differs:?}, lengths {} and {}", a.len(), b.len());
}

/// What differs is named; the engine may name more, but not for a state and itself.
async fn compare_differences((one, other): (FileId, FileId), (engine, model): Both<'_>) {
    let (ours, theirs) = (engine.differences(one, other).await.unwrap(), model.differences(one, other).await.unwrap());
    for needed in &theirs {
        let named = |extent: &&engine::store::Extent| {
            extent.offset_bytes <= needed.offset_bytes
                && needed.offset_bytes + needed.len_bytes <= extent.offset_bytes + extent.len_bytes
        };
        assert!(ours.iter().any(|extent| named(&extent)), "{needed:?} of {one} and {other} is not in {ours:?}");
    }
    assert!(one != other || ours.is_empty(), "{ours:?}");
}

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
