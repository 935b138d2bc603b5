//! A pool as large as 24 slots may get, on drives that exist only where something was written.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use base::WallNanos;
use engine::store::Change;
use engine::{Engine, Store};
use pool::{Pool, check_blocks, write_blocks};
use raid::{Group, GroupOptions, Slot};

const DRIVE_BYTES: u64 = 22 << 40;

/// Decides R-EXP-03: 24 drives of 22 TiB, 528 TiB raw, as 22+2: written, restarted, read, verified, one drive lost and
/// its place filled, more room than 480 TiB all the while.
#[test]
fn a_pool_of_more_than_512_tib_works() {
    let pool = Pool::new(1, 24, DRIVE_BYTES);
    let node = pool.world.node();
    let far = (60 << 40) / 8192;
    let file = pool
        .world
        .run_until(async {
            let options = GroupOptions { data_width_max: 22, ..GroupOptions::default() };
            let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
            let group = Group::create(drives, options, node.world()).await.unwrap();
            let legs: Vec<_> = pool.legs.iter().map(|media| node.leg(media)).collect();
            Engine::format(&group, &legs, &node.world()).await.unwrap();
            drop(group);
            let (engine, _) = pool.open(&node).await;
            let file = engine.next_file_id();
            engine.commit(vec![Change::CreateFile { file, at: WallNanos(1) }]).await.unwrap();
            // Near its start, and sixty tebibytes behind that.
            write_blocks(&engine, file, 0..100, 0).await;
            write_blocks(&engine, file, far..far + 100, 0).await;
            engine.settle().await.unwrap();
            assert!(engine.group().space().data_bytes_free > 480 << 40, "{:?}", engine.group().space());
            file
        })
        .done();
    pool.cut_power(&node);
    let node = pool.world.node();
    let spare = pool.world.drive_media("spare", DRIVE_BYTES);
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            assert_eq!(engine.group().next_geometry().unwrap().to_string(), "22+2");
            check_blocks(&engine, file, 0..100, 0).await;
            check_blocks(&engine, file, far..far + 100, 0).await;
            pool.drives[7].set_gone(true);
            write_blocks(&engine, file, 50..150, 1).await;
            engine.settle().await.unwrap();
            engine.join_drive(Slot(7), node.drive(&spare)).await.unwrap();
            while engine.rebuild_status().is_some() {
                world_sim::node::sleep_for(node.world().clock.as_ref(), std::time::Duration::from_millis(5)).await;
            }
            check_blocks(&engine, file, 50..150, 1).await;
            check_blocks(&engine, file, far..far + 100, 0).await;
            let scrub = engine.scrub().await.unwrap();
            assert_eq!((scrub.units_absent, scrub.units_repaired, scrub.stripes_lost), (0, 0, 0));
            assert!(engine.audit(true).await.unwrap().findings.is_empty());
            assert!(engine.group().space().data_bytes_free > 480 << 40);
            assert_eq!(engine.group().status().failures_tolerated, 2);
        })
        .done();
}
