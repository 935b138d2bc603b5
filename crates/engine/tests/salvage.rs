//! The repair scan: with pages of metadata destroyed beyond parity, everything whose objects are
//! there comes back byte for byte, the rest is refused and named, and nothing old passes for
//! the present (R-META-09).
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod known;
mod media;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{FileId, WallNanos};
use engine::format::ObjectKind;
use engine::memory::MemoryStore;
use engine::store::{Change, StoreRefusal, Table};
use engine::{Engine, Salvage, SalvageReport, Store};
use known::Known;
use media::{Unit, destroy, objects, units};
use pool::{Pool, bytes_of, check_blocks, write_blocks};
use raid::{Group, StripeId};
use world_sim::{Rng, SimMedia, SimNode};

const TABLE: Table = Table(3);

/// A pool with a past, and what must be in it.
struct Story {
    pool: Pool,
    model: MemoryStore,
    known: Known,
}

async fn row(rng: &mut Rng, (engine, model): known::Both<'_>) {
    let key = vec![rng.below(60) as u8, 7];
    let change = match rng.below(3) {
        0 => Change::Delete { table: TABLE, key },
        _ => Change::Put { table: TABLE, key, value: vec![rng.below(256) as u8; rng.below(400) as usize] },
    };
    known::both((engine, model), vec![change]).await;
}

impl Story {
    /// `lives` of random work; settled at the end, or cut off with the journal full of it.
    fn tell(seed: u64, lives: u64, steps: u64, settled: bool) -> Story {
        Story::tell_with(seed, (lives, steps), settled, 384)
    }

    fn tell_with(seed: u64, (lives, steps): (u64, u64), settled: bool, deltas_max: usize) -> Story {
        let mut pool = Pool::new(seed, 6, 24 << 20);
        pool.options.deltas_max = deltas_max;
        pool.options.checkpoint_every = Duration::from_millis(20);
        pool.options.tick = Duration::from_millis(10);
        pool.options.destage_blocks = 4;
        pool.options.deltas_kept = [4, 64][(seed % 2) as usize].min(deltas_max);
        let mut story = Story { pool, model: MemoryStore::default(), known: Known { at: 1, ..Known::default() } };
        let mut rng = story.pool.world.rng("story");
        let mut node = story.pool.world.node();
        story.pool.world.run_until(story.pool.format(&node)).done();
        for life in 0..lives {
            let Story { pool, model, known } = &mut story;
            let work = async {
                let (engine, _) = pool.open(&node).await;
                let stores = (&engine, &*model);
                if life == 0 {
                    known.create(stores).await;
                    known.create(stores).await;
                }
                for step in 0..steps {
                    known.step(&mut rng, stores).await;
                    row(&mut rng, stores).await;
                    if step % 16 == 7 {
                        engine.checkpoint().await.unwrap();
                    }
                }
                if settled {
                    engine.settle().await.unwrap();
                    assert_eq!(engine.audit(true).await.unwrap().findings, [], "seed {seed}");
                }
            };
            pool.world.run_until(work).done();
            pool.cut_power(&node);
            node = pool.world.node();
        }
        story
    }

    async fn group(&self, node: &SimNode) -> Group {
        let drives = self.pool.drives.iter().map(|media| node.drive(media)).collect();
        Group::open(drives, None, node.world()).await.unwrap()
    }

    async fn salvage(&self, node: &SimNode) -> SalvageReport {
        let group = self.group(node).await;
        let salvage = Salvage::scan(&group).await.unwrap();
        let report = salvage.report().clone();
        let legs = self.pool.legs.iter().map(|media| node.leg(media)).collect();
        salvage.restore(group, legs, node.world(), self.pool.options.clone()).await.unwrap();
        report
    }

    /// Scans, restores, opens, and compares everything.
    fn mend(&self) -> (SalvageReport, Seen) {
        let node = self.pool.world.node();
        let report = self.pool.world.run_until(self.salvage(&node)).done();
        self.pool.cut_power(&node);
        let node = self.pool.world.node();
        let seen = self.pool.world.run_until(self.look(&node, &report)).done();
        self.pool.cut_power(&node);
        (report, seen)
    }

    async fn look(&self, node: &SimNode, report: &SalvageReport) -> Seen {
        let (engine, _) = self.pool.open(node).await;
        let mut seen = Seen::default();
        for file in self.known.all() {
            self.ask(&engine, file, (&mut seen, report)).await;
        }
        let (ours, theirs) = (engine.scan(TABLE, &[], 999).await, self.model.scan(TABLE, &[], 999).await.unwrap());
        seen.rows_missing = match ours.unwrap() {
            ours if ours == theirs => 0,
            ours => theirs.iter().filter(|row| !ours.contains(row)).count().max(1),
        };
        engine.settle().await.unwrap();
        assert_eq!(engine.audit(true).await.unwrap().findings, []);
        let scrub = engine.scrub().await.unwrap();
        assert_eq!((scrub.stripes_lost, scrub.objects_damaged), (0, 0));
        let opens_again = Salvage::scan(engine.group()).await.unwrap();
        assert!(!opens_again.report().is_needed(), "{:?}", opens_again.report());
        seen
    }

    async fn ask(&self, engine: &Engine, file: FileId, (seen, report): (&mut Seen, &SalvageReport)) {
        let head = self.model.head(file).await.unwrap().unwrap();
        let Some(ours) = engine.head(file).await.unwrap() else {
            seen.files_missing += 1;
            return;
        };
        let said = report.files.iter().find(|said| said.file == file);
        let is_head_right = said.is_none_or(|said| said.is_head_right);
        assert!(!is_head_right || ours.size_bytes == head.size_bytes, "size of {file}");
        seen.sizes_unsure += usize::from(!is_head_right);
        for block in 0..head.size_bytes.div_ceil(8192) {
            let expected = bytes_of(&self.model.read(file, block * 8192, 8192).await.unwrap());
            match engine.read(file, block * 8192, 8192).await {
                Ok(read) => {
                    let read = bytes_of(&read);
                    let is_cut_short = !is_head_right && read.len() < expected.len();
                    assert!(is_cut_short || read[..expected.len()] == expected[..], "file {file} block {block}");
                    seen.right += 1;
                }
                Err(StoreRefusal::Unreadable { .. }) => {
                    let lost = said.unwrap().lost.iter();
                    let at = block * 8192;
                    let is_told = |range: &engine::LostRange| {
                        range.offset_bytes <= at && at < range.offset_bytes + range.len_bytes
                    };
                    assert!(lost.clone().any(is_told), "file {file} block {block} is refused and not named");
                    seen.refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Stripes that hold metadata of some kind now or once, newest first.
    fn stripes_of(&self, wanted: impl Fn(ObjectKind, u64) -> bool) -> Vec<StripeId> {
        let mut stripes = BTreeMap::new();
        for object in objects(&self.pool) {
            let header = &object.unit.header;
            if wanted(object.descriptor.kind, object.descriptor.owner) {
                let newest: &mut u64 = stripes.entry(header.stripe).or_default();
                *newest = (*newest).max(header.generation);
            }
        }
        let mut found: Vec<(u64, StripeId)> = stripes.into_iter().map(|(stripe, at)| (at, stripe)).collect();
        found.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        found.into_iter().map(|(_, stripe)| stripe).collect()
    }

    fn snapshot(&self) -> Vec<world_sim::Snapshot> {
        self.pool.drives.iter().chain(&self.pool.legs).map(SimMedia::snapshot).collect()
    }

    fn restore(&self, snapshot: &[world_sim::Snapshot]) {
        let media = self.pool.drives.iter().chain(&self.pool.legs);
        media.zip(snapshot).for_each(|(media, snapshot)| media.restore_all(snapshot));
    }
}

#[derive(Debug, Default)]
struct Seen {
    right: usize,
    refused: usize,
    files_missing: usize,
    sizes_unsure: usize,
    rows_missing: usize,
}

impl Seen {
    fn is_everything(&self) -> bool {
        (self.refused, self.files_missing, self.sizes_unsure, self.rows_missing) == (0, 0, 0, 0)
    }
}

fn is_metadata(kind: ObjectKind, _: u64) -> bool {
    kind != ObjectKind::Data
}

/// Every stripe with metadata in it, all of its units, one stripe after the other: everything
/// comes back. Decides R-META-09.
#[test]
fn any_metadata_stripe_may_go_and_everything_comes_back() {
    let mut pages_lost = 0;
    for seed in 0..6 {
        let story = Story::tell(seed, 3, 40, seed % 3 != 0);
        let before = story.snapshot();
        let all = units(&story.pool);
        for stripe in story.stripes_of(is_metadata).into_iter().take(12) {
            destroy(&story.pool, all.iter().filter(|unit| unit.header.stripe == stripe));
            let (report, seen) = story.mend();
            assert!(seen.is_everything() && seen.right > 20, "seed {seed} {stripe:?}: {seen:?} {report:?}");
            assert!(report.is_complete(), "{report:?}");
            pages_lost += report.pages_lost;
            story.restore(&before);
        }
    }
    assert!(pages_lost > 20, "{pages_lost}");
}

/// All pages there ever were, or the stripe table and all logs: one of the two tellings is enough.
#[test]
fn all_pages_may_go_or_all_logs() {
    for seed in 10..14 {
        let story = Story::tell(seed, 3, 40, seed % 2 == 0);
        let before = story.snapshot();
        let all = units(&story.pool);
        for kind in [ObjectKind::Page, ObjectKind::Delta] {
            let log: BTreeSet<StripeId> = story.stripes_of(|kind, _| kind == ObjectKind::Delta).into_iter().collect();
            let stripes: BTreeSet<StripeId> = match kind {
                ObjectKind::Page => story.stripes_of(|kind, _| kind == ObjectKind::Page).into_iter().collect(),
                _ => log.clone(),
            };
            let gone =
                |stripe: &StripeId| stripes.contains(stripe) && (kind == ObjectKind::Delta || !log.contains(stripe));
            destroy(&story.pool, all.iter().filter(|unit| gone(&unit.header.stripe)));
            let (report, seen) = story.mend();
            assert!(seen.is_everything(), "seed {seed} {kind:?}: {seen:?} {report:?}");
            assert_eq!(
                (report.pages_lost > 0, report.log_says_all),
                match kind {
                    ObjectKind::Page => (true, true),
                    _ => (report.pages_lost > 0, false),
                }
            );
            story.restore(&before);
        }
    }
}

/// Two or more metadata stripes at a time, and data: what is answered is right, what is not is
/// named.
#[test]
fn whatever_goes_nothing_wrong_is_answered() {
    let (mut right, mut refused) = (0, 0);
    for seed in 20..32 {
        let story = Story::tell(seed, 3, 40, seed % 2 == 0);
        let before = story.snapshot();
        let all = units(&story.pool);
        let mut rng = Rng::new(seed);
        let (metadata, data) = (story.stripes_of(is_metadata), story.stripes_of(|kind, _| kind == ObjectKind::Data));
        for _ in 0..6 {
            let mut gone: BTreeSet<StripeId> = BTreeSet::new();
            for _ in 0..rng.between(2, 6) {
                gone.insert(metadata[rng.index(metadata.len().min(16))]);
            }
            if rng.below(2) == 0 {
                gone.insert(data[rng.index(data.len())]);
            }
            // Sometimes some units of a stripe are left, and serve by themselves.
            let spared = rng.below(3);
            let is_hit = |unit: &&Unit| {
                gone.contains(&unit.header.stripe) && (spared > 0 || u64::from(unit.header.role) % 2 == 0)
            };
            destroy(&story.pool, all.iter().filter(is_hit));
            let (_, seen) = story.mend();
            (right, refused) = (right + seen.right, refused + seen.refused);
            story.restore(&before);
        }
    }
    println!("{right} blocks right, {refused} refused and named");
    assert!(right > refused * 4 && refused > 0, "{right} {refused}");
}

/// A pool too large for its log, or made by an older version: what the log does not say is proven
/// by content sums, or refused.
#[test]
fn without_a_whole_log_sums_prove_what_objects_say() {
    let (mut right, mut refused, mut complete) = (0, 0, 0);
    for seed in 70..82 {
        let story = Story::tell_with(seed, (3, 40), seed % 2 == 0, 2);
        let before = story.snapshot();
        let all = units(&story.pool);
        for stripe in story.stripes_of(|kind, _| kind == ObjectKind::Page).into_iter().take(6) {
            destroy(&story.pool, all.iter().filter(|unit| unit.header.stripe == stripe));
            let (report, seen) = story.mend();
            assert!(!report.log_says_all);
            (right, refused) = (right + seen.right, refused + seen.refused);
            complete += usize::from(report.pages_lost > 0 && seen.is_everything());
            story.restore(&before);
        }
    }
    println!("{right} blocks right, {refused} refused and named, {complete} times all of it");
    assert!(right > 1000 && refused > 0 && complete > 0, "{right} {refused} {complete}");
}

/// Decides R-INT-04.
#[test]
fn a_block_shared_by_100_files_is_healed_once_or_told_for_all_of_them() {
    let pool = Pool::new(50, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        pool.format(&node).await;
        let (engine, _) = pool.open(&node).await;
        for file in 1..=100 {
            engine.commit(vec![Change::CreateFile { file: FileId(file), at: WallNanos(1) }]).await.unwrap();
            engine.write(FileId(file), 0, &[&[0x77; 8192], &[file as u8; 8192]], WallNanos(2)).await.unwrap();
        }
        engine.settle().await.unwrap();
        assert!(engine.counters().blocks_shared >= 99);
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    let story = Story { pool, model: MemoryStore::default(), known: Known::default() };
    let all = units(&story.pool);
    let pages = story.stripes_of(|kind, _| kind == ObjectKind::Page);
    destroy(&story.pool, all.iter().filter(|unit| unit.header.stripe == pages[0]));
    let is_shared = |object: &media::Object| {
        let descriptor = &object.descriptor;
        (descriptor.kind, descriptor.owner, descriptor.block) == (ObjectKind::Data, 1, 0)
    };
    let shared = objects(&story.pool).into_iter().find(is_shared).unwrap();
    let stripe = shared.unit.header.stripe;
    for lost in [false, true] {
        if !lost {
            // Within parity: whoever reads it first heals it for everybody.
            story.pool.drives[shared.unit.drive].flip(shared.offset_bytes() + 80, 1);
        } else {
            destroy(&story.pool, all.iter().filter(|unit| unit.header.stripe == stripe));
        }
        let node = story.pool.world.node();
        let report = story.pool.world.run_until(story.salvage(&node)).done();
        story.pool.cut_power(&node);
        let hit = report.files.iter().filter(|file| file.lost.iter().any(|range| range.offset_bytes == 0)).count();
        assert_eq!((report.files.len(), hit), (100, if lost { 100 } else { 0 }), "{report:?}");
        let node = story.pool.world.node();
        let reading = async {
            let (engine, _) = story.pool.open(&node).await;
            for file in 1..=100 {
                let read = engine.read(FileId(file), 0, 16384).await;
                match lost {
                    false => assert_eq!(bytes_of(&read.unwrap()), [[0x77; 8192], [file as u8; 8192]].concat()),
                    true => assert!(matches!(read, Err(StoreRefusal::Unreadable { .. }))),
                }
            }
            let scrub = engine.scrub().await.unwrap();
            let healed = engine.group().counters().units_repaired;
            assert_eq!((healed, scrub.units_repaired), (u64::from(!lost), 0));
        };
        story.pool.world.run_until(reading).done();
        story.pool.cut_power(&node);
    }
}

/// Power goes at every few steps of the scan and of what makes it true; then it is done again.
#[test]
fn power_may_go_at_any_step() {
    let story = Story::tell(61, 2, 40, false);
    let all = units(&story.pool);
    for stripe in story.stripes_of(|kind, _| kind == ObjectKind::Page).into_iter().take(2) {
        destroy(&story.pool, all.iter().filter(|unit| unit.header.stripe == stripe));
    }
    let damaged = story.snapshot();
    let steps = {
        let from = story.pool.world.steps();
        let (report, seen) = story.mend();
        assert!(seen.is_everything(), "{seen:?} {report:?}");
        story.restore(&damaged);
        let node = story.pool.world.node();
        story.pool.world.run_until(story.salvage(&node)).done();
        let _ = from;
        story.pool.cut_power(&node);
        story.restore(&damaged);
        let from = story.pool.world.steps();
        let node = story.pool.world.node();
        story.pool.world.run_until(story.salvage(&node)).done();
        story.pool.cut_power(&node);
        story.restore(&damaged);
        story.pool.world.steps() - from
    };
    let mut cuts = 0;
    let mut at = 1;
    while at < steps {
        story.pool.world.crash_after(at);
        let node = story.pool.world.node();
        drop(story.pool.world.run_until(story.salvage(&node)));
        story.pool.world.crash_never();
        story.pool.cut_power(&node);
        let (report, seen) = story.mend();
        assert!(seen.is_everything(), "cut at {at}: {seen:?} {report:?}");
        story.restore(&damaged);
        cuts += 1;
        at += (steps / 60).max(1);
    }
    println!("{cuts} cuts in {steps} steps");
}

/// A file of `blocks` blocks of round 0.
async fn file_of(engine: &Engine, blocks: u64) -> FileId {
    let file = engine.next_file_id();
    engine.commit(vec![Change::CreateFile { file, at: WallNanos(1) }]).await.unwrap();
    write_blocks(engine, file, 0..blocks, 0).await;
    file
}

/// Checkpoints with a little in each, so that the log is gone through.
async fn go_through_the_log(engine: &Engine, busy: FileId, checkpoints: std::ops::Range<u64>) {
    for number in checkpoints {
        write_blocks(engine, busy, number % 8..number % 8 + 1, number as u8).await;
        engine.checkpoint().await.unwrap();
    }
}

/// The last snapshot that saw a block goes between two passes over the log: the block stays the
/// hole it is, though the log had told of its content again after the hole.
#[test]
fn what_only_a_deleted_snapshot_saw_does_not_come_back() {
    for (early, late) in (2..5).flat_map(|early| (3..7).map(move |late| (early, late))) {
        let mut pool = Pool::new(90, 6, 24 << 20);
        (pool.options.deltas_kept, pool.options.checkpoint_every) = (8, Duration::from_secs(3600));
        let node = pool.world.node();
        let work = async {
            pool.format(&node).await;
            let (engine, _) = pool.open(&node).await;
            let (file, busy) = (file_of(&engine, 3).await, file_of(&engine, 8).await);
            engine.checkpoint().await.unwrap();
            let snapshot = engine.next_file_id();
            engine.commit(vec![Change::Snapshot { file, snapshot }]).await.unwrap();
            // What is told and the hole lie far enough apart for a pass to end between them.
            go_through_the_log(&engine, busy, 100..105).await;
            engine.write(file, 8192, &[&[0; 8192]], WallNanos(3)).await.unwrap();
            engine.checkpoint().await.unwrap();
            go_through_the_log(&engine, busy, 0..early).await;
            engine.commit(vec![Change::DropFile { file: snapshot }]).await.unwrap();
            engine.settle().await.unwrap();
            go_through_the_log(&engine, busy, early..early + late).await;
            file
        };
        let file = pool.world.run_until(work).done();
        pool.cut_power(&node);
        let story = Story { pool, model: MemoryStore::default(), known: Known::default() };
        let log: BTreeSet<StripeId> = story.stripes_of(|kind, _| kind == ObjectKind::Delta).into_iter().collect();
        let pages: BTreeSet<StripeId> = story.stripes_of(|kind, _| kind == ObjectKind::Page).into_iter().collect();
        let all = units(&story.pool);
        destroy(
            &story.pool,
            all.iter().filter(|unit| pages.difference(&log).any(|stripe| *stripe == unit.header.stripe)),
        );
        let node = story.pool.world.node();
        let mended = async {
            story.salvage(&node).await;
            let (engine, _) = story.pool.open(&node).await;
            let hole = engine.read(file, 8192, 8192).await.map(|read| bytes_of(&read));
            assert!(
                hole.is_ok_and(|hole| hole == [0; 8192]),
                "{early} checkpoints before the snapshot went, {late} after"
            );
            check_blocks(&engine, file, 0..1, 0).await;
            check_blocks(&engine, file, 2..3, 0).await;
        };
        story.pool.world.run_until(mended).done();
    }
}

/// A page that nobody reads is lost, and the log is gone through where that page would say what
/// still holds: the store goes on with everything else.
#[test]
fn a_lost_page_does_not_stop_a_store_that_goes_through_its_log() {
    const BLOCKS_TREE: u64 = 2;
    let mut pool = Pool::new(91, 6, 48 << 20);
    (pool.options.deltas_kept, pool.options.checkpoint_every) = (1, Duration::from_secs(3600));
    let node = pool.world.node();
    let work = async {
        pool.format(&node).await;
        let (engine, _) = pool.open(&node).await;
        let (cold, busy) = (file_of(&engine, 400).await, file_of(&engine, 8).await);
        engine.checkpoint().await.unwrap();
        (cold, busy, engine.counters().checkpoints)
    };
    let (cold, busy, _) = pool.world.run_until(work).done();
    let first: Vec<(StripeId, u64)> = {
        let leaves = objects(&pool).into_iter();
        let leaves = leaves
            .filter(|object| (object.descriptor.kind, object.descriptor.owner) == (ObjectKind::Page, BLOCKS_TREE));
        leaves.map(|object| (object.unit.header.stripe, object.unit.header.generation)).collect()
    };
    pool.cut_power(&node);
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        // Trees grow by leaves, so that all above the cold ones is written again.
        write_blocks(&engine, busy, 8..400, 0).await;
        go_through_the_log(&engine, busy, 0..16).await;
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    let all = units(&pool);
    destroy(&pool, all.iter().filter(|unit| first.contains(&(unit.header.stripe, unit.header.generation))));
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        go_through_the_log(&engine, busy, 16..80).await;
        assert!(!engine.status().stopped);
        check_blocks(&engine, busy, 7..8, 79).await;
        let refused = engine.read(cold, 0, 8192).await;
        assert!(matches!(refused, Err(StoreRefusal::Unreadable { .. })), "the page was lost");
    };
    pool.world.run_until(work).done();
}
