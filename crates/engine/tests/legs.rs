//! Journal legs that hang, go and come back: service goes on with one, and a leg that is
//! taken in again is as good as it was.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::time::Duration;

use base::port::MediaFault;
use base::{FileId, WallNanos};
use engine::store::{Change, StoreRefusal};
use engine::{Engine, Event, Store};
use journal::{LegState, LegVerdict};
use pool::{Pool, bytes_of};
use world_sim::SimNode;

const FILE: FileId = FileId(1);
const AT: WallNanos = WallNanos(9);

async fn write(engine: &Engine, block: u64) -> Result<(), StoreRefusal> {
    engine.write(FILE, block * 8192, &[&[block as u8 + 1; 8192]], AT).await.map(drop)
}

async fn assert_written(engine: &Engine, blocks: u64) {
    for block in 0..blocks {
        let read = engine.read(FILE, block * 8192, 8192).await.unwrap();
        assert_eq!(bytes_of(&read), vec![block as u8 + 1; 8192], "block {block}");
    }
}

async fn started(pool: &Pool, node: &SimNode) -> Engine {
    pool.format(node).await;
    let (engine, _) = pool.open(node).await;
    engine.commit(vec![Change::CreateFile { file: FILE, at: AT }]).await.unwrap();
    engine
}

fn states(engine: &Engine) -> Vec<LegState> {
    engine.journal_status().legs.iter().map(|leg| leg.state).collect()
}

/// The other leg alone holds everything.
fn assert_leg_is_enough(pool: &Pool, leg: usize, blocks: u64) {
    pool.legs[1 - leg].blank();
    let node = pool.world.node();
    let look = async {
        let (engine, opened) = pool.open(&node).await;
        assert_eq!(opened.blocked, []);
        assert_written(&engine, blocks).await;
    };
    pool.world.run_until(look).done();
}

#[test]
fn a_leg_that_hangs_is_lost_and_can_be_taken_in_again() {
    let pool = Pool::new(31, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        write(&engine, 0).await.unwrap();
        pool.legs[1].set_hung(true);
        write(&engine, 1).await.unwrap();
        assert_eq!(states(&engine), [LegState::Active, LegState::Lost]);
        pool.legs[1].set_hung(false);
        engine.take_in_leg(node.leg(&pool.legs[1])).await.unwrap();
        assert_eq!(engine.journal_status().copies, 2);
        assert!(engine.take_events().contains(&Event::LegTakenIn));
        write(&engine, 2).await.unwrap();
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    assert_leg_is_enough(&pool, 1, 3);
}

#[test]
fn the_last_leg_that_hangs_stops_the_store() {
    let mut pool = Pool::new(32, 6, 24 << 20);
    pool.legs.truncate(1);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        write(&engine, 0).await.unwrap();
        pool.legs[0].set_hung(true);
        assert_eq!(write(&engine, 1).await, Err(StoreRefusal::Stopped));
        assert_eq!(engine.take_events(), [Event::Stopped { why: "no journal leg is left" }]);
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    pool.legs[0].set_hung(false);
    let node = pool.world.node();
    let look = async { assert_written(&pool.open(&node).await.0, 1).await };
    pool.world.run_until(look).done();
}

#[test]
fn a_leg_that_hangs_while_the_store_is_opened_is_done_without() {
    let pool = Pool::new(33, 6, 24 << 20);
    let node = pool.world.node();
    let work = async {
        let engine = started(&pool, &node).await;
        write(&engine, 0).await.unwrap();
    };
    pool.world.run_until(work).done();
    pool.cut_power(&node);
    pool.legs[0].set_hung(true);
    let node = pool.world.node();
    let look = async {
        let (engine, opened) = pool.open(&node).await;
        assert_eq!(opened.legs[0], LegVerdict::Faulty(MediaFault::Timeout));
        write(&engine, 1).await.unwrap();
        assert_written(&engine, 2).await;
    };
    pool.world.run_until(look).done();
}

/// A leg that was gone and is there again, and one that was replaced by a blank one.
#[test]
fn a_leg_that_is_there_again_is_taken_in_by_itself() {
    for blank in [false, true] {
        let pool = Pool::new(34, 6, 24 << 20);
        let node = pool.world.node();
        let work = async {
            let engine = started(&pool, &node).await;
            write(&engine, 0).await.unwrap();
            pool.legs[0].set_gone(true);
            write(&engine, 1).await.unwrap();
            assert_eq!(states(&engine), [LegState::Lost, LegState::Active]);
        };
        pool.world.run_until(work).done();
        pool.cut_power(&node);
        pool.legs[0].set_gone(false);
        if blank {
            pool.legs[0].blank();
        }
        let node = pool.world.node();
        let again = async {
            let (engine, opened) = pool.open(&node).await;
            let verdict = if blank { LegVerdict::Blank } else { LegVerdict::OldIncarnation };
            assert_eq!(opened.legs[0], verdict);
            write(&engine, 2).await.unwrap();
            let clock = node.world().clock;
            while engine.journal_status().copies < 2 || engine.take_events().is_empty() {
                clock.sleep_until(clock.now() + Duration::from_millis(10)).await;
            }
            write(&engine, 3).await.unwrap();
        };
        pool.world.run_until(again).done();
        pool.cut_power(&node);
        assert_leg_is_enough(&pool, 0, 4);
    }
}
