//! Random overwrites of many times the pool's size on a nearly full, small pool, in
//! simulated time: the cleaner keeps up, nothing wedges, what the status says is true all
//! along, and space comes back.
//!
//! `VMHOLD_POOL_SIZES` says how many times the pool's size is overwritten: 3 unless told
//! otherwise; `cargo xtask soak` runs 40.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::time::Duration;

use base::{FileId, WallNanos};
use engine::store::{Change, StoreRefusal};
use engine::{Engine, Options, Store};
use swarm::client::bytes_of;
use swarm::pool::Pool;
use swarm::shape::Shape;
use world_sim::{Rng, SimWorld};

const FILE: FileId = FileId(1);
const BLOCK: usize = 8192;

fn shape() -> Shape {
    let options = Options {
        cache_bytes: 1 << 19,
        cached_pages: 512,
        fingerprints: 1024,
        destage_blocks: 64,
        stripes_in_flight: 2,
        checkpoint_every: Duration::from_secs(1),
        tick: Duration::from_millis(20),
        ..Options::default()
    };
    Shape {
        drives: 6,
        drive_bytes: 12 << 20,
        unit_bytes: 36 << 10,
        data_width_max: 4,
        extent_bytes: 0,
        legs: 2,
        leg_bytes: 3 << 20,
        options,
    }
}

fn content(block: u64, version: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    Rng::new(block << 32 | version).fill(&mut bytes);
    bytes
}

async fn write(engine: &Engine, block: u64, version: u64) -> Result<(), StoreRefusal> {
    let at = WallNanos(version);
    engine.write(FILE, block * BLOCK as u64, &[&content(block, version)], at).await.map(drop)
}

/// Fills the pool until it says that it is full; blocks written.
async fn fill(engine: &Engine) -> u64 {
    for block in 0.. {
        match write(engine, block, 0).await {
            Ok(()) => {}
            Err(StoreRefusal::Stopped) => {
                panic!("{:?} {:?} {:?}", engine.take_events(), engine.status(), engine.counters())
            }
            Err(StoreRefusal::NoSpace) => return block,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("a pool has an end")
}

fn pool_sizes() -> u64 {
    std::env::var("VMHOLD_POOL_SIZES").map_or(3, |text| text.parse().expect("VMHOLD_POOL_SIZES is a number"))
}

/// What the status says while writes go on: never more room than there is, never less
/// stored than is.
async fn assert_plausible(engine: &Engine, kept: u64) {
    let (space, status) = (engine.space(), engine.status());
    assert!(!status.stopped, "{:?}", engine.take_events());
    let content = kept * BLOCK as u64;
    assert!(space.free_bytes <= space.total_bytes - content, "{space:?} with {content} bytes stored");
    assert!(status.live_bytes >= content, "{status:?} with {content} bytes stored");
    assert_eq!(engine.head(FILE).await.unwrap().unwrap().size_bytes, content);
}

/// What the status says at rest is what every reference adds up to.
async fn assert_exact(engine: &Engine, kept: u64) {
    engine.settle().await.unwrap();
    assert_eq!(engine.audit(false).await.unwrap().findings, []);
    assert_eq!(engine.status().staged_bytes, 0);
    assert_eq!(engine.head(FILE).await.unwrap().unwrap().used_bytes, kept * BLOCK as u64);
    assert_plausible(engine, kept).await;
}

#[test]
fn a_nearly_full_pool_goes_on_and_gives_space_back() {
    let world = SimWorld::new(7);
    let pool = Pool::new(&world, shape());
    let node = world.node();
    world.crash_after(20_000_000 * (pool_sizes() + 1));
    let seen = std::cell::RefCell::new(None);
    let work = async {
        pool.format(&node).await;
        let (engine, _) = pool.open(&node).await.unwrap();
        seen.replace(Some(engine.clone()));
        engine.commit(vec![Change::CreateFile { file: FILE, at: WallNanos(1) }]).await.unwrap();
        let total = engine.space().total_bytes;
        let blocks = fill(&engine).await;
        assert!(blocks * BLOCK as u64 > total / 10 * 8, "{blocks} blocks fit into {total} bytes");
        assert!(engine.space().free_bytes < 2 << 20);
        // Cut to nine tenths of what fits, then overwrite that, several times the pool.
        let kept = blocks / 10 * 9;
        let cut = Change::SetSize { file: FILE, size_bytes: kept * BLOCK as u64 };
        engine.commit(vec![cut]).await.unwrap();
        engine.settle().await.unwrap();
        let mut versions = vec![0; kept as usize];
        let mut rng = Rng::new(3);
        let mut version = 0;
        for _ in 0..pool_sizes() {
            for turn in 0..total / BLOCK as u64 {
                version += 1;
                let block = rng.below(kept);
                write(&engine, block, version).await.unwrap_or_else(|refusal| {
                    panic!("{refusal} at overwrite {version}: {:?} {:?}", engine.status(), engine.counters())
                });
                versions[block as usize] = version;
                if turn % 256 == 0 {
                    assert_plausible(&engine, kept).await;
                }
            }
            assert_exact(&engine, kept).await;
        }
        for (block, version) in (0..).zip(&versions) {
            let read = engine.read(FILE, block * BLOCK as u64, BLOCK).await.unwrap();
            assert!(bytes_of(&read) == content(block, *version), "block {block}");
        }
        assert_eq!(engine.audit(true).await.unwrap().findings, []);
        println!("{kept} blocks, {version} overwrites: {:?} {:?}", engine.status(), engine.counters());
        // A full pool still takes removals, and has its space back then.
        engine.commit(vec![Change::DropFile { file: FILE }]).await.unwrap();
        engine.settle().await.unwrap();
        let space = engine.space();
        assert!(space.free_bytes > space.total_bytes / 100 * 97, "{space:?} {:?}", engine.status());
    };
    let end = world.run_until(work);
    let engine: Engine = seen.take().unwrap();
    assert_eq!(
        end,
        world_sim::RunEnd::Done(()),
        "{:?} {:?} {:?}",
        engine.status(),
        engine.counters(),
        engine.journal_status()
    );
}
