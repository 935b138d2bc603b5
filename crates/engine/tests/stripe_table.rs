//! The stripe table outgrows the root: index objects name its parts.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod media;
mod pool;

use std::collections::BTreeSet;
use std::time::Duration;

use base::WallNanos;
use engine::format::ObjectKind;
use engine::store::Change;
use engine::{Engine, Salvage, Store};
use pool::{Pool, check_blocks, write_blocks};
use raid::{Group, StripeId};
use world_sim::node::sleep_for;

/// A pool whose usage objects hold 12 rows, whose index objects 10 places, and whose root 3.
fn small_objects(seed: u64) -> Pool {
    let mut pool = Pool::new(seed, 6, 64 << 20);
    (pool.options.usage_object_bytes, pool.options.usage_places_max) = (240, 3);
    pool.options.checkpoint_every = Duration::from_secs(3600);
    pool
}

fn objects_of(pool: &Pool, kind: ObjectKind) -> usize {
    media::objects(pool).iter().filter(|object| object.descriptor.kind == kind).count()
}

/// Written anew, added to, and read again by each of ten openings; half of them after a power cut.
#[test]
fn a_stripe_table_of_many_objects_is_read_again() {
    let mut pool = small_objects(70);
    let file = pool.format_with_file(3000);
    for life in 1..=10u8 {
        let node = pool.world.node();
        let work = async {
            let (engine, _) = pool.open(&node).await;
            check_blocks(&engine, file, 0..100, if life == 1 { 0 } else { life - 1 }).await;
            for part in 0..5 {
                write_blocks(&engine, file, part * 20..part * 20 + 20, life).await;
                engine.checkpoint().await.unwrap();
            }
            assert_eq!(engine.audit(true).await.unwrap().findings, vec![]);
        };
        pool.world.run_until(work).done();
        if life % 2 == 0 { pool.cut_power(&node) } else { node.kill() }
    }
    let (tables, indexes) = (objects_of(&pool, ObjectKind::Usage), objects_of(&pool, ObjectKind::Index));
    assert!(tables > 20 && indexes > 2, "{tables} usage objects, {indexes} index objects: nothing was tried");
    // A root that names the rest itself again.
    pool.options.usage_places_max = 256;
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        engine.commit(vec![Change::DropFile { file }]).await.unwrap();
        engine.write(engine_file(&engine).await, 0, &[&[1; 8192]], WallNanos(2)).await.unwrap();
        engine.settle().await.unwrap();
        assert_eq!(engine.audit(true).await.unwrap().findings, vec![]);
    };
    pool.world.run_until(work).done();
}

async fn engine_file(engine: &Engine) -> base::FileId {
    let file = engine.next_file_id();
    engine.commit(vec![Change::CreateFile { file, at: WallNanos(1) }]).await.unwrap();
    file
}

/// The stripes of old checkpoints hold little and are emptied first. What the table has in them is
/// told again; the table is not written anew for it.
#[test]
fn a_part_of_the_table_moves_without_the_rest() {
    let mut pool = small_objects(72);
    let file = pool.format_with_file(6000);
    // There are never stripes enough: the cleaner goes on and on.
    pool.options.stripes_in_flight = 300;
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        for second in 1..=10 {
            let times = Change::SetTimes { file, modified: None, changed: WallNanos(second) };
            engine.commit(vec![times]).await.unwrap();
            engine.checkpoint().await.unwrap();
            sleep_for(node.world().clock.as_ref(), Duration::from_secs(1)).await;
        }
        let counters = engine.counters();
        assert!(counters.stripes_cleaned > 50, "{counters:?}");
        assert_eq!(counters.stripe_tables_written, 0, "nothing outgrew the table");
        assert_eq!(engine.audit(true).await.unwrap().findings, vec![]);
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        check_blocks(&engine, file, 0..6000, 0).await;
        assert_eq!(engine.audit(true).await.unwrap().findings, vec![]);
    };
    pool.world.run_until(work).done();
}

/// Nothing opens without its index; the repair scan makes table and index anew.
#[test]
fn a_lost_index_is_made_anew_by_the_repair_scan() {
    let pool = small_objects(71);
    let file = pool.format_with_file(3000);
    let indexes = media::objects(&pool).into_iter().filter(|object| object.descriptor.kind == ObjectKind::Index);
    let stripes: BTreeSet<StripeId> = indexes.map(|object| object.unit.header.stripe).collect();
    assert!(!stripes.is_empty());
    let units = media::units(&pool);
    media::destroy(&pool, units.iter().filter(|unit| stripes.contains(&unit.header.stripe)));
    let node = pool.world.node();
    let work = async {
        let fault = pool.try_open(&node).await.err();
        assert!(fault.is_some_and(|fault| fault.asks_for_repair_scan()));
    };
    pool.world.run_until(work).done();
    node.kill();
    let node = pool.world.node();
    let work = async {
        let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
        let group = Group::open(drives, None, node.world()).await.unwrap();
        let salvage = Salvage::scan(&group).await.unwrap();
        assert!(!salvage.report().stripe_table_read && salvage.report().is_complete(), "{:?}", salvage.report());
        let legs = pool.legs.iter().map(|media| node.leg(media)).collect();
        salvage.restore(group, legs, node.world(), pool.options.clone()).await.unwrap();
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    let node = pool.world.node();
    let work = async {
        let (engine, _) = pool.open(&node).await;
        check_blocks(&engine, file, 0..3000, 0).await;
        assert_eq!(engine.audit(true).await.unwrap().findings, vec![]);
    };
    pool.world.run_until(work).done();
}
