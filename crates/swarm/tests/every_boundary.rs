//! Bounded and exhaustive: the power goes at every single step (poll or completion of an
//! I/O) of every one-operation workload, on pools in several states (`faults.md` B.2).
//! After each, the store opens and the operation has happened whole or not at all;
//! certainly if it was acknowledged.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::time::Duration;

use base::{FileId, WallNanos};
use engine::memory::MemoryStore;
use engine::store::{Change, StoreRefusal, Table};
use engine::{Engine, Options, Store};
use futures_util::FutureExt;
use swarm::client::{Op, bytes_of};
use swarm::pool::Pool;
use swarm::shape::Shape;
use world_sim::{RunEnd, SimWorld, Snapshot};

const FILE: FileId = FileId(1);
const NEW: FileId = FileId(9_000);
/// A snapshot of the file, where there is one, and the map that a rollback to it starts.
const FROZEN: FileId = FileId(9_001);
const MAP: FileId = FileId(9_002);
const TABLE: Table = Table(3);
const BLOCK: usize = 8192;
const STORED_BLOCKS: usize = 40;

fn shape() -> Shape {
    let options = Options {
        cache_bytes: 1 << 18,
        cached_pages: 64,
        fingerprints: 1024,
        stripes_in_flight: 2,
        destage_blocks: 16,
        // Nothing happens by itself: the steps of an operation are its own.
        checkpoint_every: Duration::from_secs(3600),
        tick: Duration::from_secs(3600),
        ..Options::default()
    };
    Shape {
        drives: 5,
        drive_bytes: 7 << 20,
        unit_bytes: 20 << 10,
        data_width_max: 3,
        extent_bytes: 80 << 10,
        legs: 2,
        leg_bytes: 5 << 20,
        options,
    }
}

/// A pool that is closed, what must be in it, and which drive is gone.
struct Prepared {
    drives: Vec<Snapshot>,
    legs: Vec<Snapshot>,
    model: MemoryStore,
    gone: Option<usize>,
}

/// What is done before the steps are counted, and what then.
#[derive(Clone)]
enum Work {
    Change(Op),
    /// Staged first, then a checkpoint, step by step.
    Checkpoint(Op),
    /// Acknowledged first, then everything is settled, step by step.
    Settle(Op),
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    world_sim::Rng::new(seed).fill(&mut bytes);
    bytes
}

fn write(offset_bytes: u64, data: Vec<u8>) -> Op {
    Op::Write { file: FILE, offset_bytes, data, at: WallNanos(77) }
}

fn size(size_bytes: u64) -> Op {
    Op::Commit(vec![Change::SetSize { file: FILE, size_bytes }])
}

fn works(has_snapshot: bool) -> Vec<(&'static str, Work)> {
    let put = |value: Vec<u8>| Op::Commit(vec![Change::Put { table: TABLE, key: vec![5], value }]);
    let changes = [
        ("create", Op::Commit(vec![Change::CreateFile { file: NEW, at: WallNanos(5) }])),
        ("aligned write", write(2 * BLOCK as u64, noise(BLOCK, 1))),
        ("unaligned write over two blocks", write(8000, noise(700, 2))),
        ("extending write", write(60 * BLOCK as u64 + 11, noise(BLOCK, 3))),
        ("overwrite of four blocks", write(0, noise(4 * BLOCK, 4))),
        ("zeros", write(BLOCK as u64, vec![0; 2 * BLOCK])),
        ("one byte", write(12_345, vec![7])),
        ("1 MiB", write(0, noise(1 << 20, 5))),
        ("truncate up", size(100 * BLOCK as u64 + 5)),
        ("truncate down", size(3 * BLOCK as u64 + 1000)),
        ("drop", Op::Commit(vec![Change::DropFile { file: FILE }])),
        ("put", put(noise(900, 6))),
        ("delete", Op::Commit(vec![Change::Delete { table: TABLE, key: vec![3] }])),
        ("five changes at once", Op::Commit(five())),
    ];
    let at = WallNanos(6);
    let snapshot = Op::Commit(vec![Change::Snapshot { file: FILE, snapshot: NEW }]);
    let drop_snapshot = Op::Commit(vec![Change::DropFile { file: FROZEN }]);
    let roll_back = Op::Commit(vec![Change::Rollback { file: FILE, snapshot: FROZEN, map: MAP, at }]);
    let clone = Op::Commit(vec![Change::Clone { snapshot: FROZEN, file: NEW, at }]);
    let mut works: Vec<_> = changes.iter().map(|(name, op)| (*name, Work::Change(op.clone()))).collect();
    works.push(("checkpoint", Work::Checkpoint(write(5000, noise(6 * BLOCK, 7)))));
    works.push(("settle after a cut", Work::Settle(size(2 * BLOCK as u64 + 3))));
    works.push(("settle after a drop", Work::Settle(Op::Commit(vec![Change::DropFile { file: FILE }]))));
    works.push(("snapshot", Work::Change(snapshot.clone())));
    works.push(("checkpoint after a snapshot", Work::Checkpoint(snapshot)));
    if has_snapshot {
        works.push(("clone", Work::Change(clone.clone())));
        works.push(("settle after a clone", Work::Settle(clone)));
        works.push(("roll back", Work::Change(roll_back.clone())));
        works.push(("settle after a rollback", Work::Settle(roll_back)));
        works.push(("drop of a snapshot", Work::Change(drop_snapshot.clone())));
        works.push(("settle after the drop of a snapshot", Work::Settle(drop_snapshot)));
    }
    works
}

fn five() -> Vec<Change> {
    let put = |key: u8| Change::Put { table: TABLE, key: vec![key], value: noise(400, u64::from(key)) };
    let file = FILE;
    vec![
        put(1),
        put(200),
        Change::Delete { table: TABLE, key: vec![2] },
        Change::SetSize { file, size_bytes: 9 },
        Change::CreateFile { file: NEW, at: WallNanos(8) },
    ]
}

fn apply(model: &MemoryStore, op: &Op) {
    op.perform(model).now_or_never().unwrap().unwrap();
}

/// Makes a pool, fills it with `fill`, settles and closes it.
fn prepare(gone: Option<usize>, fill: impl AsyncFnOnce(&Engine, &MemoryStore)) -> Prepared {
    let world = SimWorld::new(1);
    let pool = Pool::new(&world, shape());
    let node = world.node();
    let model = MemoryStore::default();
    world.crash_after(3_000_000);
    world
        .run_until(async {
            pool.format(&node).await;
            let (engine, _) = pool.open(&node).await.unwrap();
            both(&engine, &model, &Op::Commit(vec![Change::CreateFile { file: FILE, at: WallNanos(1) }]))
                .await
                .unwrap();
            fill(&engine, &model).await;
            let settled = engine.settle().await;
            assert!(settled.is_ok(), "{:?} {:?} {:?}", engine.status(), engine.counters(), engine.group().space());
        })
        .done();
    pool.crash_process(&node);
    let shots = |media: &[world_sim::SimMedia]| media.iter().map(world_sim::SimMedia::snapshot).collect();
    Prepared { drives: shots(&pool.drives), legs: shots(&pool.legs), model, gone }
}

async fn both(engine: &Engine, model: &MemoryStore, op: &Op) -> Result<(), StoreRefusal> {
    op.perform(engine).await?;
    apply(model, op);
    Ok(())
}

async fn store_some(engine: &Engine, model: &MemoryStore) {
    both(engine, model, &write(0, noise(STORED_BLOCKS * BLOCK - 100, 99))).await.unwrap();
    let put = |key: u8| Change::Put { table: TABLE, key: vec![key], value: noise(300, u64::from(key)) };
    both(engine, model, &Op::Commit((0..60).map(put).collect())).await.unwrap();
}

/// A snapshot of before; some blocks written over, some cut off.
async fn store_and_freeze(engine: &Engine, model: &MemoryStore) {
    store_some(engine, model).await;
    let freeze = vec![Change::Snapshot { file: FILE, snapshot: FROZEN }];
    both(engine, model, &Op::Commit(freeze)).await.unwrap();
    both(engine, model, &write(3 * BLOCK as u64, noise(5 * BLOCK, 98))).await.unwrap();
    both(engine, model, &size((STORED_BLOCKS - 9) as u64 * BLOCK as u64)).await.unwrap();
}

async fn store_much(engine: &Engine, model: &MemoryStore) {
    store_some(engine, model).await;
    for at in 1.. {
        let full =
            both(engine, model, &write(((at * 16 + 32) * BLOCK) as u64, noise(16 * BLOCK, 100 + at as u64))).await;
        engine.checkpoint().await.unwrap();
        if full.is_err() {
            break;
        }
    }
}

fn states() -> Vec<(&'static str, Prepared)> {
    vec![
        ("empty", prepare(None, async |_: &Engine, _: &MemoryStore| ())),
        ("stored", prepare(None, store_some)),
        ("snapshotted", prepare(None, store_and_freeze)),
        ("nearly full", prepare(None, store_much)),
        ("degraded", prepare(Some(2), store_some)),
    ]
}

/// Whether the store holds exactly what the model does.
async fn same(engine: &Engine, model: &MemoryStore) -> bool {
    for file in [FILE, NEW, FROZEN] {
        let key =
            |head: Option<engine::store::FileHead>| head.map(|head| (head.size_bytes, head.modified, head.changed));
        let (ours, theirs) = (engine.head(file).await.unwrap(), model.head(file).await.unwrap());
        if key(ours) != key(theirs) {
            return false;
        }
        let Some(head) = ours else { continue };
        for start in (0..head.size_bytes).step_by(1 << 20) {
            let (a, b) = (engine.read(file, start, 1 << 20).await.unwrap(), model.read(file, start, 1 << 20).await);
            if bytes_of(&a) != bytes_of(&b.unwrap()) {
                return false;
            }
        }
    }
    engine.scan(TABLE, &[], 999).await.unwrap() == model.scan(TABLE, &[], 999).await.unwrap()
}

/// Cuts the power after `steps` steps of `work`. `None`: the work was done before.
fn cut_after(prepared: &Prepared, work: &Work, steps: u64) -> Option<()> {
    let world = SimWorld::new(steps);
    let pool = Pool::new(&world, shape());
    pool.drives.iter().zip(&prepared.drives).for_each(|(media, shot)| media.restore_all(shot));
    pool.legs.iter().zip(&prepared.legs).for_each(|(media, shot)| media.restore_all(shot));
    if let Some(gone) = prepared.gone {
        pool.drives[gone].set_gone(true);
    }
    let node = world.node();
    let (Work::Change(op) | Work::Checkpoint(op) | Work::Settle(op)) = work;
    let (before, after) = (prepared.model.clone(), prepared.model.clone());
    let (engine, _) = world.run_until(pool.open(&node)).done().unwrap();
    let mut done_before = false;
    if !matches!(work, Work::Change(_)) {
        match world.run_until(op.perform(&engine)).done() {
            Err(StoreRefusal::NoSpace) => return None,
            done => done.unwrap(),
        }
        done_before = true;
    }
    world.crash_after(steps);
    let end = world.run_until(async {
        match work {
            Work::Change(op) => op.perform(&engine).await,
            Work::Checkpoint(_) => engine.checkpoint().await,
            Work::Settle(_) => engine.settle().await,
        }
    });
    world.crash_never();
    drop(engine);
    pool.cut_power(&node);
    let (acknowledged, finished) = match &end {
        RunEnd::Done(Ok(())) => (true, true),
        RunEnd::Done(Err(StoreRefusal::NoSpace)) => (false, true),
        RunEnd::CrashPoint => (done_before, false),
        other => panic!("{other:?}"),
    };
    let refused = finished && !acknowledged;
    if !refused {
        apply(&after, op);
    }
    let node = world.node();
    world
        .run_until(async {
            let (engine, opened) = pool.open(&node).await.unwrap();
            assert!(opened.blocked.is_empty());
            let is_after = same(&engine, &after).await;
            assert!(is_after || (!acknowledged && same(&engine, &before).await), "acknowledged: {acknowledged}");
            engine.settle().await.unwrap();
            assert_eq!(engine.audit(false).await.unwrap().findings, []);
            assert!(same(&engine, if is_after { &after } else { &before }).await, "after settling");
        })
        .done();
    (!finished).then_some(())
}

/// Show 9: nothing acknowledged is lost, nothing else is half there.
#[test]
fn power_may_go_at_any_step_of_any_operation() {
    let mut points = 0;
    for (state, prepared) in states() {
        for (name, work) in works(state == "snapshotted") {
            let mut steps = 0;
            loop {
                let point = std::panic::AssertUnwindSafe(|| cut_after(&prepared, &work, steps));
                let Ok(more) = std::panic::catch_unwind(point) else {
                    panic!("{name} on a pool that is {state}: power cut after step {steps}");
                };
                points += 1;
                if more.is_none() {
                    break;
                }
                steps += 1;
            }
            eprintln!("{state:>12}  {name:<32} {steps:>4} boundaries");
        }
    }
    println!("{points} power cuts");
    assert!(points > 1500, "the workloads have shrunk: {points}");
}
