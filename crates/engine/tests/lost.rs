//! A journal record that is damaged on every leg: its range is refused, not answered with
//! what was there before, and stays refused until it is written over.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use base::{FileId, WallNanos};
use engine::store::{Change, StoreRefusal};
use engine::{Engine, Store};
use pool::{Pool, bytes_of};

const FILE: FileId = FileId(1);
const AT: WallNanos = WallNanos(9);

async fn write(engine: &Engine, block: u64, byte: u8) {
    engine.write(FILE, block * 8192, &[&[byte; 8192]], AT).await.unwrap();
}

async fn read(engine: &Engine) -> Result<u8, StoreRefusal> {
    engine.read(FILE, 0, 8192).await.map(|read| bytes_of(&read)[0])
}

/// Decides R-NV-04.
#[test]
fn a_damaged_record_blocks_its_range_for_good() {
    let mut pool = Pool::new(7, 6, 24 << 20);
    pool.legs.truncate(1);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            pool.format(&node).await;
            let (engine, _) = pool.open(&node).await;
            engine.commit(vec![Change::CreateFile { file: FILE, at: AT }]).await.unwrap();
            write(&engine, 0, 0xa1).await;
            engine.settle().await.unwrap();
            write(&engine, 0, 0xb2).await;
            write(&engine, 1, 0xc3).await;
            write(&engine, 2, 0xd4).await;
        })
        .done();
    pool.cut_power(&node);
    let journal = pool.legs[0].peek(0, 6 << 20);
    let found = journal.windows(64).position(|bytes| bytes == [0xb2; 64]).unwrap();
    pool.legs[0].flip(found as u64 + 100, 1);
    // The loss is still known when the journal that showed it has been trimmed.
    for life in 0..3 {
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, opened) = pool.open(&node).await;
                assert_eq!(opened.blocked.len(), usize::from(life == 0));
                let refused = Err(StoreRefusal::Unreadable { file: FILE, offset_bytes: 0 });
                assert_eq!(read(&engine).await, if life < 2 { refused } else { Ok(0xe5) }, "life {life}");
                if life == 1 {
                    write(&engine, 0, 0xe5).await;
                }
                engine.settle().await.unwrap();
                assert_eq!(engine.audit(true).await.unwrap().findings, []);
            })
            .done();
        pool.cut_power(&node);
    }
}
