//! A drive is retired behind a twin under load, with failures and with crashes: the pool is as redundant as before at
//! every moment, and every acknowledged byte is there.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::time::Duration;

use base::FileId;
use engine::Engine;
use pool::{Pool, check_blocks, write_blocks};
use raid::{DriveState, GroupState, Slot};
use world_sim::node::sleep_for;
use world_sim::{SimMedia, SimNode};

const MIB: u64 = 1 << 20;
const SLOT: Slot = Slot(2);

/// A pool of 7 drives with a file of `blocks` blocks on media, and a blank one.
fn start(seed: u64, blocks: u64) -> (Pool, SimMedia, FileId) {
    let mut pool = Pool::new(seed, 7, 24 * MIB);
    let spare = pool.world.drive_media("spare", 24 * MIB);
    let file = pool.format_with_file(blocks);
    pool.drives.push(spare.clone());
    (pool, spare, file)
}

async fn until_whole(node: &SimNode, engine: &Engine) {
    while engine.rebuild_status().is_some() {
        sleep_for(node.world().clock.as_ref(), Duration::from_millis(5)).await;
    }
}

fn holder(engine: &Engine) -> String {
    engine.group().status().drives[usize::from(SLOT.0)].serial.clone()
}

async fn is_whole(engine: &Engine) {
    engine.settle().await.unwrap();
    let status = engine.group().status();
    assert_eq!((status.state, status.failures_tolerated), (GroupState::Online, 2));
    let scrub = engine.scrub().await.unwrap();
    assert_eq!((scrub.units_absent, scrub.units_repaired, scrub.stripes_lost), (0, 0, 0), "all is there");
}

#[test]
fn a_drive_is_retired_under_load_and_nothing_is_less_redundant() {
    let (pool, spare, file) = start(1, 600);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.retire_drive(SLOT, node.drive(&spare)).await.unwrap();
            let status = engine.rebuild_status().unwrap();
            assert_eq!((status.drives[0].slot, status.drives[0].is_twin), (SLOT, true));
            let mut looks = 0;
            for first in (0..200).step_by(10) {
                write_blocks(&engine, file, first..first + 10, 1).await;
                let status = engine.group().status();
                assert_eq!((status.state, status.failures_tolerated), (GroupState::Online, 2));
                looks += u32::from(engine.group().retiring().is_some());
            }
            assert!(looks > 3, "it was looked at while it went on: {looks}");
            until_whole(&node, &engine).await;
            assert_eq!(holder(&engine), "spare");
            is_whole(&engine).await;
            // And it counts: two more may go.
            for slot in [0, 5] {
                pool.drives[slot].set_gone(true);
                engine.checkpoint().await.unwrap();
            }
            check_blocks(&engine, file, 0..200, 1).await;
            check_blocks(&engine, file, 200..600, 0).await;
            assert!(engine.audit(true).await.unwrap().findings.is_empty());
        })
        .done();
}

/// Power goes at many points of it: what was copied stays copied, and it ends.
#[test]
fn it_survives_power_cuts_at_any_point() {
    let (mut went_on, mut ended) = (0, 0);
    for crash_after in [200, 600, 1_000, 1_500, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000] {
        let (pool, spare, file) = start(crash_after, 400);
        let node = pool.world.node();
        pool.world.crash_after(crash_after);
        // It is through, or cut off at the crash point.
        let _ = pool.world.run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.retire_drive(SLOT, node.drive(&spare)).await.unwrap();
            write_blocks(&engine, file, 0..50, 0).await;
            until_whole(&node, &engine).await;
        });
        pool.world.crash_never();
        pool.cut_power(&node);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                went_on += u32::from(engine.group().retiring() == Some(SLOT));
                assert_eq!(engine.group().status().failures_tolerated, 2, "cut after {crash_after}");
                until_whole(&node, &engine).await;
                ended += u32::from(holder(&engine) == "spare");
                is_whole(&engine).await;
                check_blocks(&engine, file, 0..400, 0).await;
            })
            .done();
    }
    assert!(went_on >= 2 && ended > went_on, "{went_on} went on, {ended} came to the end");
}

#[test]
fn the_twin_fails_or_the_old_drive_does() {
    for old_fails in [false, true] {
        let (pool, spare, file) = start(3, 400);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                engine.retire_drive(SLOT, node.drive(&spare)).await.unwrap();
                if old_fails { &pool.drives[2] } else { &spare }.set_gone(true);
                write_blocks(&engine, file, 0..50, 1).await;
                engine.settle().await.unwrap();
                until_whole(&node, &engine).await;
                assert_eq!(holder(&engine), if old_fails { "spare" } else { pool.drives[2].name() });
                assert_eq!(engine.group().status().drives[2].state, DriveState::Good);
                is_whole(&engine).await;
                check_blocks(&engine, file, 0..50, 1).await;
                check_blocks(&engine, file, 50..400, 0).await;
            })
            .done();
    }
}

#[test]
fn it_is_called_off_and_begun_anew() {
    let (pool, spare, file) = start(4, 400);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            assert_eq!(engine.cancel_retiring(SLOT).await, Ok(false));
            engine.retire_drive(SLOT, node.drive(&spare)).await.unwrap();
            assert_eq!(engine.cancel_retiring(SLOT).await, Ok(true));
            assert!(engine.rebuild_status().is_none());
            is_whole(&engine).await;
            engine.retire_drive(SLOT, node.drive(&spare)).await.unwrap();
            until_whole(&node, &engine).await;
            assert_eq!(holder(&engine), "spare");
            is_whole(&engine).await;
            check_blocks(&engine, file, 0..400, 0).await;
        })
        .done();
}
