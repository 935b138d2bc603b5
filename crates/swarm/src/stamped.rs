//! Files that several clients write at once: every block names its write, and the oracle
//! judges whether the whole history can have happened one after the other.

use std::cell::RefCell;
use std::rc::Rc;

use base::{FileId, WallNanos};
use engine::store::StoreRefusal;
use engine::{Engine, Store};
use world_sim::{Oracle, Rng, Stamp};

use crate::client::bytes_of;

const BLOCK: usize = world_sim::oracle::BLOCK_BYTES;
/// Blocks of a shared file.
pub const BLOCKS: u64 = 40;
/// Most blocks of one operation.
const BLOCKS_MAX: u64 = 6;

/// One writer and reader of shared files.
pub struct Stamper {
    number: u64,
    rng: RefCell<Rng>,
    sequence: RefCell<u64>,
    oracle: Rc<RefCell<Oracle>>,
}

impl Stamper {
    /// Client `number`, reporting to `oracle`.
    pub fn new(number: u64, rng: Rng, oracle: Rc<RefCell<Oracle>>) -> Stamper {
        Stamper { number, rng: RefCell::new(rng), sequence: RefCell::new(0), oracle }
    }

    /// Does `count` reads and writes on `files`, or fewer if the store stops.
    pub async fn work(&self, engine: &Engine, files: &[FileId], count: u64) {
        for _ in 0..count {
            let (file, first, blocks, write) = {
                let mut rng = self.rng.borrow_mut();
                let first = rng.below(BLOCKS);
                let blocks = rng.between(1, BLOCKS_MAX).min(BLOCKS - first);
                (files[rng.index(files.len())], first, blocks, rng.percent(60))
            };
            let range = first..first + blocks;
            let done = if write {
                self.write(engine, file, range).await
            } else {
                read(engine, &self.oracle, file, range).await
            };
            match done {
                Ok(()) | Err(StoreRefusal::NoSpace) => {}
                Err(StoreRefusal::Stopped) => return,
                Err(other) => panic!("{other}: shared file {file} from block {first}"),
            }
        }
    }

    async fn write(&self, engine: &Engine, file: FileId, range: std::ops::Range<u64>) -> Result<(), StoreRefusal> {
        let sequence = {
            let mut sequence = self.sequence.borrow_mut();
            *sequence += 1;
            *sequence
        };
        let stamp = |block| Stamp { client: self.number, sequence, file: file.0, block };
        let mut data = vec![0; BLOCK * (range.end - range.start) as usize];
        for (block, bytes) in range.clone().zip(data.chunks_mut(BLOCK)) {
            stamp(block).fill(bytes);
            self.oracle.borrow_mut().write_started(stamp(block));
        }
        engine.write(file, range.start * BLOCK as u64, &[&data], WallNanos(sequence)).await?;
        range.for_each(|block| self.oracle.borrow_mut().write_acknowledged(stamp(block)));
        Ok(())
    }
}

/// Reads blocks and reports what they hold.
pub async fn read(
    engine: &Engine,
    oracle: &RefCell<Oracle>,
    file: FileId,
    range: std::ops::Range<u64>,
) -> Result<(), StoreRefusal> {
    let open: Vec<_> = range.clone().map(|block| oracle.borrow_mut().read_started(file.0, block)).collect();
    let len = BLOCK * open.len();
    let mut bytes = bytes_of(&engine.read(file, range.start * BLOCK as u64, len).await?);
    bytes.resize(len, 0);
    for ((block, open), found) in range.zip(open).zip(bytes.chunks(BLOCK)) {
        let Ok(value) = Stamp::parse(found) else { panic!("shared file {file}, block {block}: no client wrote this") };
        oracle.borrow_mut().read_returned(open, value);
    }
    Ok(())
}
