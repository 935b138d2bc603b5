//! What only the engine's own references catch: bytes that drives, units and stripes call
//! right and that are not what is meant. Each test has its planted bug in `tests/sabotage`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod media;
mod pool;

use base::{FileId, WallNanos};
use engine::format::{DESCRIPTOR_BYTES, ObjectKind};
use engine::store::{Change, StoreRefusal, Table};
use engine::{Engine, Event, Finding, OpenFault, Store};
use media::{Object, change_unseen, forge, objects, siblings};
use pool::{Pool, bytes_of};
use world_sim::{Rng, SimNode};

const FILE: FileId = FileId(1);
const AT: WallNanos = WallNanos(9);
const BLOCK: usize = 8192;
const TABLE: Table = Table(1);

/// Where fields start in a descriptor (`docs/formats/engine.md`).
const ID_AT: usize = 8;
const SEQUENCE_AT: usize = 32;
const CONTENT_AT: usize = 48;

fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

async fn write(engine: &Engine, block: u64, bytes: &[u8]) {
    engine.write(FILE, block * BLOCK as u64, &[bytes], AT).await.unwrap();
}

async fn read(engine: &Engine, block: u64) -> Result<Vec<u8>, StoreRefusal> {
    engine.read(FILE, block * BLOCK as u64, BLOCK).await.map(|read| bytes_of(&read))
}

fn refused(block: u64) -> Result<Vec<u8>, StoreRefusal> {
    Err(StoreRefusal::Unreadable { file: FILE, offset_bytes: block * BLOCK as u64 })
}

/// Formats the pool and opens an engine with one file.
async fn started(pool: &Pool, node: &SimNode) -> Engine {
    pool.format(node).await;
    let (engine, _) = pool.open(node).await;
    engine.commit(vec![Change::CreateFile { file: FILE, at: AT }]).await.unwrap();
    engine
}

/// The data object with this payload.
fn stored(pool: &Pool, bytes: &[u8]) -> Object {
    let mut found = objects(pool);
    found.retain(|object| object.descriptor.kind == ObjectKind::Data && object.payload() == bytes);
    assert_eq!(found.len(), 1, "stored once, uncompressed");
    found.remove(0)
}

/// What has an id may be a row and no file, as directories are: after a crash nothing else gets the id. (T: found
/// as a directory that had become a file.)
#[test]
fn an_id_that_only_a_row_has_is_not_given_out_again_after_a_crash() {
    let pool = Pool::new(20, 6, 24 << 20);
    let life = |ids: u64, checkpoint: bool| {
        let node = pool.world.node();
        let work = async {
            let (engine, _) = pool.open(&node).await;
            let mut given = Vec::new();
            for _ in 0..ids {
                let id = engine.next_file_id();
                let key = id.0.to_be_bytes().to_vec();
                assert_eq!(engine.get(TABLE, &key).await.unwrap(), None, "{id} names something already");
                engine.commit(vec![Change::Put { table: TABLE, key, value: vec![1] }]).await.unwrap();
                given.push(id);
            }
            if checkpoint {
                engine.checkpoint().await.unwrap();
            }
            given
        };
        let given = pool.world.run_until(work).done();
        pool.cut_power(&node);
        given
    };
    let node = pool.world.node();
    pool.world.run_until(pool.format(&node)).done();
    node.kill();
    let all: Vec<FileId> = [(3, false), (0, false), (2, true), (1, false), (2, false)]
        .into_iter()
        .flat_map(|(ids, mark)| life(ids, mark))
        .collect();
    assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
}

/// Decides R-DED-02.
#[test]
fn a_forged_collision_is_not_shared() {
    let pool = Pool::new(21, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        let bytes = content(1);
        write(&engine, 0, &bytes).await;
        engine.settle().await.unwrap();
        // The object still bears the name of the content, and every check holds.
        change_unseen(&pool, &stored(&pool, &bytes), DESCRIPTOR_BYTES + 4000);
        write(&engine, 1, &bytes).await;
        engine.settle().await.unwrap();
        let counters = engine.counters();
        assert_eq!((counters.false_matches, counters.blocks_shared), (1, 0));
        assert_eq!(read(&engine, 1).await, Ok(bytes.clone()));
        // A third writer finds the sound one.
        write(&engine, 2, &bytes).await;
        engine.settle().await.unwrap();
        assert_eq!(engine.counters().blocks_shared, 1);
        assert_eq!(read(&engine, 2).await, Ok(bytes));
    };
    pool.world.run_until(work).done();
}

/// Decides R-DED-02.
#[test]
fn a_copy_that_cannot_be_read_is_not_shared() {
    let pool = Pool::new(22, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        let bytes = content(2);
        write(&engine, 0, &bytes).await;
        engine.settle().await.unwrap();
        let object = stored(&pool, &bytes);
        pool.drives[object.unit.drive].flip(object.offset_bytes() + 300, 4);
        for unit in siblings(&media::units(&pool), &object.unit).iter().take(2) {
            pool.drives[unit.drive].flip(unit.offset_bytes + 5000, 1);
        }
        write(&engine, 1, &bytes).await;
        engine.settle().await.unwrap();
        assert_eq!(engine.counters().blocks_shared, 0);
        assert_eq!(read(&engine, 1).await, Ok(bytes));
        assert_eq!(read(&engine, 0).await, refused(0));
    };
    pool.world.run_until(work).done();
}

/// Decides R-INT-18. Decides R-META-06.
#[test]
fn a_substituted_object_is_caught_by_its_reference_only() {
    let pool = Pool::new(23, 6, 24 << 20);
    let (right, wrong) = (content(3), content(4));
    let node = pool.world.node();
    let prepare = async {
        let engine = started(&pool, &node).await;
        write(&engine, 0, &right).await;
        write(&engine, 1, &wrong).await;
        engine.settle().await.unwrap();
    };
    pool.world.run_until(prepare).done();
    pool.cut_power(&node);
    let (victim, other) = (stored(&pool, &right), stored(&pool, &wrong));
    assert_eq!(victim.bytes.len(), other.bytes.len());
    let node = pool.world.node();
    pool.world.run_until(forge(&pool, &node, &victim, &other.bytes)).done();
    pool.cut_power(&node);
    let node = pool.world.node();
    let look = async {
        let (engine, _) = pool.open(&node).await;
        assert_eq!(engine.scrub().await.unwrap().units_repaired, 0, "to the group all is well");
        assert_eq!(read(&engine, 0).await, refused(0));
        assert_eq!(read(&engine, 1).await, Ok(wrong.clone()));
        let findings = engine.audit(true).await.unwrap().findings;
        assert!(matches!(findings[..], [Finding::Unreadable { file: FILE, offset_bytes: 0, .. }]), "{findings:?}");
    };
    pool.world.run_until(look).done();
}

/// Each field that a reference repeats is compared by itself: not even bytes made so that
/// the check in the reference holds are taken for the object.
///
/// Decides R-INT-18. Decides R-META-07.
#[test]
fn every_field_of_a_reference_is_compared() {
    for (field, at) in [("id", ID_AT), ("content", CONTENT_AT)] {
        let pool = Pool::new(24, 6, 24 << 20);
        let node = pool.world.node();
        let work = async {
            let engine = started(&pool, &node).await;
            write(&engine, 0, &content(5)).await;
            engine.settle().await.unwrap();
            change_unseen(&pool, &stored(&pool, &content(5)), at);
            assert_eq!(read(&engine, 0).await, refused(0), "{field}");
        };
        pool.world.run_until(work).done();
    }
    for (field, at) in [("page id", ID_AT), ("version", SEQUENCE_AT)] {
        let pool = Pool::new(25, 6, 24 << 20);
        let node = pool.world.node();
        let write = async {
            let engine = started(&pool, &node).await;
            put(&engine, 1).await;
            engine.settle().await.unwrap();
        };
        pool.world.run_until(write).done();
        pool.cut_power(&node);
        change_unseen(&pool, &newest_pages(&pool, 32 + u64::from(TABLE.0))[0], at);
        let node = pool.world.node();
        let look = async {
            let (engine, _) = pool.open(&node).await;
            assert!(matches!(engine.get(TABLE, &key(0)).await, Err(StoreRefusal::Unreadable { .. })), "{field}");
            assert!(matches!(engine.take_events()[..], [Event::PageLost { .. }]));
        };
        pool.world.run_until(look).done();
    }
}

fn key(n: u8) -> Vec<u8> {
    vec![n, 7]
}

async fn put(engine: &Engine, version: u8) {
    let row = |n| Change::Put { table: TABLE, key: key(n), value: vec![version; 100] };
    engine.commit((0..20).map(row).collect()).await.unwrap();
    write(engine, 0, &content(u64::from(version))).await;
}

/// The pages of a tree (0: of the page table), each in its newest version.
fn newest_pages(pool: &Pool, tree: u64) -> Vec<Object> {
    let mut pages = objects(pool);
    pages.retain(|object| object.descriptor.kind == ObjectKind::Page && object.descriptor.owner == tree);
    pages.sort_by_key(|page| (page.descriptor.id, std::cmp::Reverse(page.descriptor.sequence)));
    pages.dedup_by_key(|page| page.descriptor.id);
    pages
}

/// Trees whose pages are rolled back, the page table among them.
const POOLS_OF_PAGES: [(&str, u64); 5] =
    [("heads", 1), ("block maps", 2), ("objects", 3), ("a table", 32 + 1), ("page table", 0)];

/// Decides R-META-04. Decides R-META-07.
#[test]
fn an_old_but_valid_page_is_not_believed() {
    for (what, tree) in POOLS_OF_PAGES {
        let pool = Pool::new(26, 6, 24 << 20);
        let node = pool.world.node();
        let prepare = async {
            let engine = started(&pool, &node).await;
            put(&engine, 1).await;
            engine.settle().await.unwrap();
            put(&engine, 2).await;
            engine.settle().await.unwrap();
        };
        pool.world.run_until(prepare).done();
        pool.cut_power(&node);
        let newest = newest_pages(&pool, tree).remove(0);
        let is_older = |page: &Object| {
            let (old, new) = (page.descriptor, newest.descriptor);
            old.kind == ObjectKind::Page
                && old.id == new.id
                && old.stored_bytes <= new.stored_bytes
                && old.sequence < new.sequence
        };
        let old = objects(&pool).into_iter().find(is_older).expect("the first checkpoint is still on media");
        let node = pool.world.node();
        pool.world.run_until(forge(&pool, &node, &newest, &old.bytes)).done();
        pool.cut_power(&node);
        let node = pool.world.node();
        let look = async {
            let (engine, _) = pool.open(&node).await;
            let row = engine.get(TABLE, &key(3)).await;
            let head = engine.head(FILE).await;
            let block = read(&engine, 0).await;
            assert!(row.as_ref().is_err() || row == Ok(Some(vec![2; 100].into())), "{what}: {row:?}");
            assert!(head.is_err() || head.unwrap().unwrap().size_bytes == BLOCK as u64, "{what}");
            assert!(block.is_err() || block == Ok(content(2)), "{what}: an old block");
            assert!(row.is_err() || head.is_err() || block.is_err(), "{what}: the old page was needed");
            let lost = engine.take_events().iter().any(|event| matches!(event, Event::PageLost { .. }));
            assert!(lost, "{what}: an operator hears of it");
        };
        pool.world.run_until(look).done();
    }
}

/// Decides R-RAID-11: where everything is, the engine learns from its blob and from nothing
/// else: without the blob it finds nothing, and with it everything, on drives in any order.
#[test]
fn the_engine_boots_from_its_blob_alone() {
    let mut pool = Pool::new(24, 6, 24 << 20);
    let bytes = content(5);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        write(&engine, 0, &bytes).await;
        engine.checkpoint().await.unwrap();
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    pool.drives.reverse();
    let node = pool.world.node();
    let work = async {
        let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
        let group = raid::Group::open(drives, None, node.world()).await.unwrap();
        let root = group.register_read("engine-root").await;
        group.register_cas("engine-root", root.version, b"").await.unwrap();
        drop(group);
        assert!(matches!(pool.try_open(&node).await, Err(OpenFault::Format(_))));
        let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
        let group = raid::Group::open(drives, None, node.world()).await.unwrap();
        group.register_cas("engine-root", root.version + 1, &root.bytes).await.unwrap();
        drop(group);
        let (engine, _) = pool.open(&node).await;
        assert_eq!(read(&engine, 0).await, Ok(bytes.clone()));
    };
    pool.world.run_until(work).done();
}
