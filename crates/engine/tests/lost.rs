//! A journal record that is damaged on every leg: its range is refused, not answered with
//! what was there before, and stays refused until it is written over or cut off. And
//! blocks that are damaged beyond parity: writing to a part of one stops nothing.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod media;
mod pool;

use base::{FileId, WallNanos};
use engine::format::ObjectKind;
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

async fn set_size(engine: &Engine, blocks: u64) {
    engine.commit(vec![Change::SetSize { file: FILE, size_bytes: blocks * 8192 }]).await.unwrap();
}

/// Damages the record on the only leg whose body is full of `byte`.
fn damage_record(pool: &Pool, byte: u8) {
    let journal = pool.legs[0].peek(0, 6 << 20);
    let found = journal.windows(64).position(|bytes| bytes == [byte; 64]).unwrap();
    pool.legs[0].flip(found as u64 + 100, 1);
}

/// A pool on one leg whose first life does `work` and ends in a power cut.
fn after(seed: u64, work: impl AsyncFnOnce(&Engine)) -> Pool {
    let mut pool = Pool::new(seed, 6, 24 << 20);
    pool.legs.truncate(1);
    pool.options.checkpoint_every = std::time::Duration::from_secs(3600);
    let node = pool.world.node();
    let life = async {
        pool.format(&node).await;
        let (engine, _) = pool.open(&node).await;
        engine.commit(vec![Change::CreateFile { file: FILE, at: AT }]).await.unwrap();
        work(&engine).await;
    };
    pool.world.run_until(life).done();
    pool.cut_power(&node);
    pool
}

/// Another life of the pool, which ends in a power cut.
fn live(pool: &Pool, work: impl AsyncFnOnce(&Engine)) {
    let node = pool.world.node();
    let life = async {
        let (engine, _) = pool.open(&node).await;
        work(&engine).await;
        assert!(!engine.status().stopped, "{:?}", engine.take_events());
    };
    pool.world.run_until(life).done();
    pool.cut_power(&node);
}

fn refused() -> Result<u8, StoreRefusal> {
    Err(StoreRefusal::Unreadable { file: FILE, offset_bytes: 0 })
}

/// An earlier write that only the journal has is not answered in the place of a later one
/// that is lost. Decides R-NV-04.
#[test]
fn what_was_written_before_the_lost_record_is_not_answered() {
    let pool = after(11, async |engine| {
        write(engine, 0, 0xa1).await;
        write(engine, 0, 0xb2).await;
        write(engine, 1, 0xc3).await;
    });
    damage_record(&pool, 0xb2);
    for _ in 0..2 {
        live(&pool, async |engine| {
            assert_eq!(read(engine).await, refused());
            engine.settle().await.unwrap();
            assert_eq!(read(engine).await, refused());
        });
    }
}

#[test]
fn cutting_a_lost_range_off_and_growing_again_reads_zeros() {
    let pool = after(12, async |engine| {
        write(engine, 0, 0xa1).await;
        engine.settle().await.unwrap();
        write(engine, 0, 0xb2).await;
        write(engine, 1, 0xc3).await;
    });
    damage_record(&pool, 0xb2);
    live(&pool, async |engine| {
        assert_eq!(read(engine).await, refused());
        set_size(engine, 0).await;
        set_size(engine, 3).await;
        assert_eq!(read(engine).await, Ok(0));
    });
    for _ in 0..2 {
        live(&pool, async |engine| {
            assert_eq!(read(engine).await, Ok(0));
            engine.settle().await.unwrap();
            assert_eq!(read(engine).await, Ok(0));
            assert_eq!(engine.audit(true).await.unwrap().findings, []);
        });
    }
}

#[test]
fn a_cut_from_before_the_loss_does_not_end_it() {
    let pool = after(13, async |engine| {
        write(engine, 0, 0xa1).await;
        set_size(engine, 0).await;
        write(engine, 0, 0xb2).await;
        write(engine, 1, 0xc3).await;
    });
    damage_record(&pool, 0xb2);
    for _ in 0..2 {
        live(&pool, async |engine| {
            assert_eq!(read(engine).await, refused());
            engine.settle().await.unwrap();
        });
    }
}

#[test]
fn a_write_to_a_part_of_a_lost_block_stops_nothing() {
    let pool = after(14, async |engine| {
        write(engine, 0, 0xb2).await;
        write(engine, 1, 0xc3).await;
    });
    damage_record(&pool, 0xb2);
    live(&pool, async |engine| {
        engine.write(FILE, 100, &[&[5; 50]], AT).await.unwrap();
        engine.settle().await.unwrap();
        assert_eq!(read(engine).await, refused(), "its neighbours are not known");
    });
    live(&pool, async |engine| {
        assert_eq!(read(engine).await, refused());
        write(engine, 0, 0xd4).await;
        engine.settle().await.unwrap();
        assert_eq!(read(engine).await, Ok(0xd4));
        assert_eq!(engine.audit(true).await.unwrap().findings, []);
    });
}

#[test]
fn a_write_to_a_part_of_a_damaged_block_stops_nothing() {
    let content: Vec<u8> = (0..8192u32).map(|n| ((n * n) >> 3) as u8 ^ (n >> 8) as u8).collect();
    let pool = after(15, async |engine| {
        engine.write(FILE, 0, &[&content], AT).await.unwrap();
        engine.settle().await.unwrap();
    });
    let object = media::objects(&pool).into_iter().find(|object| object.descriptor.kind == ObjectKind::Data).unwrap();
    pool.drives[object.unit.drive].flip(object.offset_bytes() + 200, 1);
    for unit in media::siblings(&media::units(&pool), &object.unit).iter().take(2) {
        pool.drives[unit.drive].flip(unit.offset_bytes + 600, 1);
    }
    live(&pool, async |engine| {
        engine.write(FILE, 100, &[&[5; 50]], AT).await.unwrap();
        engine.settle().await.unwrap();
        assert_eq!(read(engine).await, refused());
    });
    live(&pool, async |engine| {
        assert_eq!(read(engine).await, refused());
        write(engine, 0, 0xd4).await;
        engine.settle().await.unwrap();
        assert_eq!(read(engine).await, Ok(0xd4));
    });
}
