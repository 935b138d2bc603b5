//! Files and names as the scenarios of a pair make them.

use base::{FileId, WallNanos};
use engine::Store;
use engine::store::{Change, Table};
use replica::Replica;
use world_sim::Rng;

pub const BLOCK: usize = 8192;
pub const NAMES: Table = Table(9);

pub fn at(time: u64) -> WallNanos {
    WallNanos(time)
}

/// Blocks that neither compress nor are alike.
pub fn content(seed: u64, blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0; blocks * BLOCK];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// A row.
pub fn name(key: u8, value: &str) -> Change {
    Change::Put { table: NAMES, key: vec![key], value: value.as_bytes().to_vec() }
}

/// A file of so many blocks, with a name.
pub async fn create(store: &Replica, blocks: usize) -> FileId {
    let file = store.next_file_id();
    store.commit(vec![Change::CreateFile { file, at: at(1) }, name(file.0 as u8, "of a file")]).await.unwrap();
    store.write(file, 0, &[&content(file.0, blocks)], at(2)).await.unwrap();
    file
}
