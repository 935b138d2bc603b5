//! Random work on files, snapshots and clones, the same on the engine and on the model.
#![allow(dead_code, reason = "each test file uses a part")]

use base::{FileId, WallNanos};
use engine::memory::MemoryStore;
use engine::store::Change;
use engine::{Engine, Store};
use world_sim::Rng;

use crate::pool::bytes_of;

pub const SPAN: u64 = 40 * 8192;
pub const FILES_MAX: usize = 5;
pub const SNAPSHOTS_MAX: usize = 7;

/// What there is, the same in both.
#[derive(Default)]
pub struct Known {
    pub files: Vec<FileId>,
    pub snapshots: Vec<FileId>,
    pub at: u64,
}

pub type Both<'a> = (&'a Engine, &'a MemoryStore);

pub async fn both((engine, model): Both<'_>, changes: Vec<Change>) {
    model.commit(changes.clone()).await.unwrap();
    engine.commit(changes).await.unwrap();
}

pub fn pick(rng: &mut Rng, of: &[FileId]) -> Option<FileId> {
    (!of.is_empty()).then(|| of[rng.below(of.len() as u64) as usize])
}

impl Known {
    pub fn now(&mut self) -> WallNanos {
        self.at += 1;
        WallNanos(self.at)
    }

    pub async fn step(&mut self, rng: &mut Rng, both_stores: Both<'_>) {
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

    pub async fn create(&mut self, stores: Both<'_>) {
        let (file, at) = (stores.0.next_file_id(), self.now());
        both(stores, vec![Change::CreateFile { file, at }]).await;
        self.files.push(file);
    }

    pub async fn write(&mut self, rng: &mut Rng, (engine, model): Both<'_>) {
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
    pub async fn snapshot(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            return self.drop_snapshot(rng, stores).await;
        }
        let of = if rng.below(2) == 0 { self.files.clone() } else { pick(rng, &self.files).into_iter().collect() };
        let taken: Vec<(FileId, FileId)> = of.into_iter().map(|file| (file, stores.0.next_file_id())).collect();
        let changes = taken.iter().map(|&(file, snapshot)| Change::Snapshot { file, snapshot }).collect();
        both(stores, changes).await;
        self.snapshots.extend(taken.into_iter().map(|(_, snapshot)| snapshot));
    }

    pub async fn clone(&mut self, rng: &mut Rng, stores: Both<'_>) {
        let Some(snapshot) = pick(rng, &self.snapshots).filter(|_| self.files.len() < FILES_MAX) else { return };
        let (file, at) = (stores.0.next_file_id(), self.now());
        both(stores, vec![Change::Clone { snapshot, file, at }]).await;
        self.files.push(file);
    }

    /// Sometimes with a snapshot of before, in the same commit.
    pub async fn roll_back(&mut self, rng: &mut Rng, stores: Both<'_>) {
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

    pub async fn drop_snapshot(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.snapshots.is_empty() {
            return;
        }
        let file = self.snapshots.swap_remove(rng.below(self.snapshots.len() as u64) as usize);
        both(stores, vec![Change::DropFile { file }]).await;
    }

    pub async fn drop_file(&mut self, rng: &mut Rng, stores: Both<'_>) {
        if self.files.len() < 2 {
            return;
        }
        let file = self.files.swap_remove(rng.below(self.files.len() as u64) as usize);
        both(stores, vec![Change::DropFile { file }]).await;
    }

    pub fn all(&self) -> impl Iterator<Item = FileId> {
        self.files.iter().chain(&self.snapshots).copied()
    }

    pub async fn compare_some(&mut self, rng: &mut Rng, stores: Both<'_>) {
        let all: Vec<FileId> = self.all().collect();
        if let Some(file) = pick(rng, &all) {
            compare(file, stores, false).await;
        }
        if let (Some(one), Some(other)) = (pick(rng, &all), pick(rng, &all)) {
            compare_differences((one, other), stores).await;
        }
    }

    pub async fn compare_all(&self, stores: Both<'_>, settled: bool) {
        for file in self.all() {
            compare(file, stores, settled).await;
        }
    }
}

pub async fn compare(file: FileId, (engine, model): Both<'_>, settled: bool) {
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
pub async fn compare_differences((one, other): (FileId, FileId), (engine, model): Both<'_>) {
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
