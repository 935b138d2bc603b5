//! A small simulated pool to run the engine on.
#![allow(dead_code, reason = "each test file uses a part")]

use std::ops::Range;
use std::time::Duration;

use base::{FileId, WallNanos};
use engine::store::{Change, Piece, ReadOut};
use engine::{Engine, OpenFault, Opened, Options, Store};
use raid::{Group, GroupOptions};
use world_sim::{SimMedia, SimNode, SimWorld};

/// Media of one pool; outlives the nodes that open it.
pub struct Pool {
    pub world: SimWorld,
    pub drives: Vec<SimMedia>,
    pub drive_bytes: u64,
    pub legs: Vec<SimMedia>,
    pub options: Options,
    /// Bytes of an extent; 0: as the drives suggest.
    pub extent_bytes: u64,
}

impl Pool {
    pub fn new(seed: u64, drives: usize, drive_bytes: u64) -> Pool {
        let world = SimWorld::new(seed);
        let drives = (0..drives).map(|n| world.drive_media(&format!("drive{n}"), drive_bytes)).collect();
        let legs = (0..2).map(|n| world.leg_media(&format!("leg{n}"), 6 << 20)).collect();
        let options = Options {
            cache_bytes: 1 << 20,
            cached_pages: 128,
            fingerprints: 4096,
            destage_blocks: 32,
            checkpoint_every: Duration::from_millis(500),
            ..Options::default()
        };
        Pool { world, drives, drive_bytes, legs, options, extent_bytes: 0 }
    }

    pub async fn format(&self, node: &SimNode) {
        let (unit_bytes, data_width_max, extent_bytes) = (68 << 10, 4, self.extent_bytes);
        let group = GroupOptions { unit_bytes, data_width_max, extent_bytes, ..GroupOptions::default() };
        let drives = self.drives.iter().map(|media| node.drive(media)).collect();
        let group = Group::create(drives, group, node.world()).await.expect("a fresh group");
        let legs: Vec<_> = self.legs.iter().map(|media| node.leg(media)).collect();
        Engine::format(&group, &legs, &node.world()).await.expect("a fresh engine");
    }

    pub async fn open(&self, node: &SimNode) -> (Engine, Opened) {
        self.try_open(node).await.expect("the engine opens")
    }

    pub async fn try_open(&self, node: &SimNode) -> Result<(Engine, Opened), OpenFault> {
        let drives = self.drives.iter().map(|media| node.drive(media)).collect();
        let group = Group::open(drives, None, node.world()).await.expect("the group opens");
        let legs = self.legs.iter().map(|media| node.leg(media)).collect();
        Engine::open(group, legs, node.world(), self.options.clone()).await
    }

    /// Makes it, with a file of `blocks` blocks of round 0 on media, and leaves it closed.
    pub fn format_with_file(&self, blocks: u64) -> FileId {
        let node = self.world.node();
        let filling = async {
            self.format(&node).await;
            let (engine, _) = self.open(&node).await;
            let file = engine.next_file_id();
            let create = Change::CreateFile { file, at: WallNanos(1) };
            engine.commit(vec![create]).await.expect("an empty pool has room");
            write_blocks(&engine, file, 0..blocks, 0).await;
            engine.settle().await.expect("nothing was broken yet");
            file
        };
        let file = self.world.run_until(filling).done();
        node.kill();
        file
    }

    /// Ends the node's life; what is not durable may be lost.
    pub fn cut_power(&self, node: &SimNode) {
        node.kill();
        self.drives.iter().chain(&self.legs).for_each(SimMedia::power_cut);
    }
}

pub fn bytes_of(read: &ReadOut) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in &read.pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Zeros(count) => bytes.resize(bytes.len() + count, 0),
        }
    }
    bytes
}

/// What a block of a file holds after it was written in a round; no two are alike.
pub fn content_in(file: FileId, block: u64, round: u8) -> Vec<u8> {
    let mut state = file.0 << 32 ^ block << 8 ^ u64::from(round) ^ 0x1234_5678;
    let word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    std::iter::repeat_with(word).take(8192).collect()
}

/// Writes blocks of a file for a round.
pub async fn write_blocks(engine: &Engine, file: FileId, blocks: Range<u64>, round: u8) {
    for block in blocks {
        let content = content_in(file, block, round);
        engine.write(file, block * 8192, &[&content], WallNanos(2)).await.expect("the write is taken");
    }
}

/// Blocks of a file are as they were written in a round.
pub async fn check_blocks(engine: &Engine, file: FileId, blocks: Range<u64>, round: u8) {
    for block in blocks {
        let read = engine.read(file, block * 8192, 8192).await.expect("the block is read");
        assert!(bytes_of(&read) == content_in(file, block, round), "block {block} of round {round}");
    }
}
