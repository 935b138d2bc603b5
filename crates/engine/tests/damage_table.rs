//! Each structure that the engine keeps on media x each kind of damage, to one copy and
//! beyond what parity stands for. One copy: every answer is right and the damage is
//! repaired. Beyond parity: what cannot be answered is refused and told of; nothing wrong
//! is ever answered. The table is printed (`cargo test -p engine --test damage_table --
//! --nocapture`).
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod media;
mod pool;

use std::collections::BTreeMap;

use base::{FileId, WallNanos};
use engine::format::{DESCRIPTOR_BYTES, ObjectKind};
use engine::store::{Change, StoreRefusal, Table};
use engine::{Engine, Event, OpenFault, Store};
use media::{Object, Unit, forge, objects_in, siblings};
use pool::{Pool, bytes_of};
use raid::Seat;
use raid::label::{Label, LabelState};
use raid::layout::Shape;
use raid::register::{SlotValue, decode_slot};
use world_sim::{Rng, Snapshot};

const FILES: [FileId; 2] = [FileId(1), FileId(2)];
const TABLE: Table = Table(1);
const BLOCK: usize = 8192;
const BLOCKS: u64 = 24;
const ROWS: u8 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Structure {
    Root,
    PageTable,
    HeadPage,
    BlockPage,
    ObjectPage,
    TablePage,
    StripeTable,
    MappingDelta,
    DataObject,
}
use Structure::*;
const STRUCTURES: [Structure; 9] =
    [Root, PageTable, HeadPage, BlockPage, ObjectPage, TablePage, StripeTable, MappingDelta, DataObject];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    BitFlip,
    Lost,
    Torn,
    Misplaced,
    OldVersion,
}
use Damage::*;
const DAMAGES: [Damage; 5] = [BitFlip, Lost, Torn, Misplaced, OldVersion];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    OneCopy,
    BeyondParity,
}
use Extent::*;

/// A pool with a story behind it, closed, and what must be read from it.
struct Story {
    pool: Pool,
    /// The drives when the pool was new and empty.
    blank: Vec<Snapshot>,
    units: Vec<Unit>,
    blocks: BTreeMap<(FileId, u64), Vec<u8>>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a life on damaged media answered.
#[derive(Debug, Default)]
struct Seen {
    right: u64,
    refused: u64,
    repaired: u64,
    stripes_lost: u64,
    told: bool,
    unopened: Option<String>,
}

fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

impl Story {
    fn tell() -> Story {
        let pool = Pool::new(40, 6, 8 << 20);
        let node = pool.world.node();
        pool.world.run_until(pool.format(&node)).done();
        let blank = pool.drives.iter().map(|media| media.snapshot()).collect();
        let (mut blocks, mut rows) = (BTreeMap::new(), BTreeMap::new());
        let work = async {
            let (engine, _) = pool.open(&node).await;
            let create = |&file: &FileId| Change::CreateFile { file, at: WallNanos(1) };
            engine.commit(FILES.iter().map(create).collect()).await.unwrap();
            for version in 1..=2u64 {
                for block in 0..BLOCKS {
                    // The second file shares some blocks with the first.
                    for file in FILES {
                        let seed = if block < 8 { block } else { block + file.0 * 1000 };
                        let bytes = content(seed + version * 100_000);
                        engine.write(file, block * BLOCK as u64, &[&bytes], WallNanos(version)).await.unwrap();
                        blocks.insert((file, block), bytes);
                    }
                }
                for row in 0..ROWS {
                    let (key, value) = (vec![row, 5], vec![version as u8 ^ row; 200]);
                    engine
                        .commit(vec![Change::Put { table: TABLE, key: key.clone(), value: value.clone() }])
                        .await
                        .unwrap();
                    rows.insert(key, value);
                }
                engine.settle().await.unwrap();
                // The root names the logs of some checkpoints, so it is longer than a sector.
                for turn in 0..if version == 1 { 10 } else { 0 } {
                    engine.commit(vec![Change::Put { table: TABLE, key: vec![turn], value: vec![] }]).await.unwrap();
                    engine.checkpoint().await.unwrap();
                }
            }
        };
        pool.world.run_until(work).done();
        pool.cut_power(&node);
        let units = media::units(&pool);
        Story { pool, blank, units, blocks, rows }
    }

    /// The newest object of a structure, and the one before it.
    fn find(&self, structure: Structure) -> (Object, Object) {
        let is_page =
            |object: &Object, tree| object.descriptor.kind == ObjectKind::Page && object.descriptor.owner == tree;
        let wanted = |object: &Object| match structure {
            Root => false,
            PageTable => is_page(object, 0),
            HeadPage => is_page(object, 1),
            BlockPage => is_page(object, 2),
            ObjectPage => is_page(object, 3),
            TablePage => is_page(object, 32 + u64::from(TABLE.0)),
            StripeTable => object.descriptor.kind == ObjectKind::Usage,
            MappingDelta => object.descriptor.kind == ObjectKind::Delta,
            DataObject => object.descriptor.kind == ObjectKind::Data,
        };
        let mut found: Vec<Object> = objects_in(&self.pool, &self.units).into_iter().filter(wanted).collect();
        // Pages have versions; usage and delta objects are numbered by checkpoint.
        let age = |object: &Object| match object.descriptor.kind {
            ObjectKind::Page | ObjectKind::Data => object.descriptor.sequence,
            _ => object.descriptor.id,
        };
        found.sort_by_key(age);
        let newest = found.pop().unwrap();
        let same = |older: &Object| match newest.descriptor.kind {
            ObjectKind::Page => older.descriptor.id == newest.descriptor.id,
            _ => age(older) < age(&newest),
        };
        let older = found.into_iter().rev().find(same).unwrap();
        (newest, older)
    }

    fn harm(&self, structure: Structure, damage: Damage, extent: Extent) {
        if structure == Root {
            return self.harm_root(damage, extent);
        }
        let (target, older) = self.find(structure);
        if (damage, extent) == (OldVersion, BeyondParity) {
            let node = self.pool.world.node();
            self.pool.world.run_until(forge(&self.pool, &node, &target, &older.bytes)).done();
            return self.pool.cut_power(&node);
        }
        self.harm_object(&target, &older, damage);
        let others = siblings(&self.units, &target.unit);
        for other in others.iter().take(if extent == BeyondParity { 2 } else { 0 }) {
            let media = &self.pool.drives[other.drive];
            match damage {
                BitFlip | OldVersion => media.flip(other.offset_bytes + 4000, 8),
                Lost | Torn | Misplaced => {
                    media.restore(&self.blank[other.drive], other.offset_bytes..other.end_bytes())
                }
            }
        }
    }

    fn harm_object(&self, target: &Object, older: &Object, damage: Damage) {
        let (unit, start) = (&target.unit, target.offset_bytes());
        let media = &self.pool.drives[unit.drive];
        match damage {
            BitFlip => media.flip(start + target.bytes.len() as u64 / 2, 16),
            Lost => media.restore(&self.blank[unit.drive], unit.offset_bytes..unit.end_bytes()),
            Torn => {
                let middle = (start + target.bytes.len() as u64 / 2) / 512 * 512;
                media.restore(&self.blank[unit.drive], middle..unit.end_bytes());
                // A page of the page table is mostly zeros; then it is torn where it says something.
                if media.peek(start, target.bytes.len()) == target.bytes {
                    let first = (start + DESCRIPTOR_BYTES as u64) / 512 * 512;
                    media.restore(&self.blank[unit.drive], first..unit.end_bytes());
                }
            }
            Misplaced => {
                let same_drive = |other: &&Unit| other.drive == unit.drive && other.offset_bytes != unit.offset_bytes;
                let other = self.units.iter().find(same_drive).unwrap();
                let len = (unit.end_bytes() - unit.offset_bytes) as usize;
                media.poke(unit.offset_bytes, &media.peek(other.offset_bytes, len));
            }
            OldVersion => media.poke(start, &older.bytes[..older.bytes.len().min(target.bytes.len())]),
        }
    }

    /// Where drive `drive` keeps the newest value of the root's register, and where the
    /// one before.
    fn root_slots(&self, drive: usize) -> (u64, u64, usize) {
        let media = &self.pool.drives[drive];
        let LabelState::Good(label) = Label::decode(&media.peek(0, 4096)) else { panic!("a label") };
        let shape: Shape = label.shape;
        let len = Shape::BLOB_SLOT_BYTES as usize;
        let value = |index: usize, which| {
            decode_slot(label.group, index, &media.peek(shape.register_offset_bytes(Seat::First, index, which), len))
        };
        // The engine's root is the only register of this pool besides the header.
        let stamp = |slot: &Option<SlotValue>| slot.as_ref().map(|value| value.stamp);
        let newest = usize::from(stamp(&value(1, 1)) > stamp(&value(1, 0)));
        let offset = |which| shape.register_offset_bytes(Seat::First, 1, which);
        (offset(newest), offset(1 - newest), len)
    }

    fn harm_root(&self, damage: Damage, extent: Extent) {
        let drives = if extent == OneCopy { 1 } else { self.pool.drives.len() };
        for (drive, media) in self.pool.drives.iter().enumerate().take(drives) {
            let (newest, elder, len) = self.root_slots(drive);
            if damage == OldVersion {
                media.poke(newest, &media.peek(elder, len));
                continue;
            }
            // Beyond what copies stand for: both slots everywhere.
            for at in [newest, elder].into_iter().take(if extent == OneCopy { 1 } else { 2 }) {
                match damage {
                    BitFlip => media.flip(at + 200, 2),
                    Lost => media.poke(at, &vec![0; len]),
                    Torn => media.poke(at + 512, &vec![0; len - 512]),
                    // What belongs at the start of the drive.
                    _ => media.poke(at, &media.peek(0, len)),
                }
            }
        }
    }

    /// Opens the pool and asks for everything. Panics at a wrong answer.
    fn look(&self) -> Seen {
        let node = self.pool.world.node();
        let looking = async {
            let mut seen = Seen::default();
            let engine = match self.pool.try_open(&node).await {
                Ok((engine, _)) => engine,
                Err(
                    refused @ (OpenFault::Format(_) | OpenFault::Journal(_) | OpenFault::Replay(_) | OpenFault::Empty),
                ) => {
                    return Seen { unopened: Some(refused.to_string()), ..seen };
                }
                Err(other) => panic!("{other}"),
            };
            self.ask(&engine, &mut seen).await;
            let scrub = engine.scrub().await.unwrap();
            seen.stripes_lost = scrub.stripes_lost;
            seen.repaired = engine.group().counters().units_repaired;
            seen.told = engine.take_events().iter().any(|event| !matches!(event, Event::Stopped { .. }));
            if seen.refused == 0 && seen.stripes_lost == 0 {
                let again = engine.scrub().await.unwrap();
                assert_eq!((again.units_repaired, again.stripes_lost, again.stripes_inconsistent), (0, 0, 0));
                assert_eq!(engine.audit(true).await.unwrap().findings, []);
            }
            seen
        };
        self.pool.world.run_until(looking).done()
    }

    async fn ask(&self, engine: &Engine, seen: &mut Seen) {
        let mut count = |answer: Result<bool, StoreRefusal>, what: &dyn std::fmt::Debug| match answer {
            Ok(true) => seen.right += 1,
            Err(StoreRefusal::Unreadable { .. }) => seen.refused += 1,
            other => panic!("{what:?}: {other:?}"),
        };
        for (&(file, block), bytes) in &self.blocks {
            let read = engine.read(file, block * BLOCK as u64, BLOCK).await;
            count(read.map(|read| bytes_of(&read) == *bytes), &(file, block));
        }
        for (key, value) in &self.rows {
            let found = engine.get(TABLE, key).await;
            count(found.map(|found| found.is_some_and(|found| found[..] == value[..])), key);
        }
        for file in FILES {
            let head = engine.head(file).await;
            count(head.map(|head| head.is_some_and(|head| head.size_bytes == BLOCKS * BLOCK as u64)), &file);
        }
    }
}

fn told(seen: &Seen) -> String {
    if let Some(why) = &seen.unopened {
        return format!("not opened: {why}");
    }
    let all = seen.right + seen.refused;
    match (seen.refused, seen.stripes_lost, seen.repaired) {
        (0, 0, 0) => "all right".to_owned(),
        (0, 0, repaired) => format!("all right, {repaired} repaired"),
        (0, lost, _) => format!("all right, {lost} stripe lost"),
        (refused, _, _) => format!("{refused} of {all} refused, none wrong"),
    }
}

/// Decides R-INT-18. Decides R-META-05. Decides R-META-06.
#[test]
fn every_structure_times_every_damage() {
    println!("| structure | damage | to one copy | beyond parity |\n|---|---|---|---|");
    for structure in STRUCTURES {
        for damage in DAMAGES {
            let [one, beyond] = [OneCopy, BeyondParity].map(|extent| {
                let story = Story::tell();
                story.harm(structure, damage, extent);
                story.look()
            });
            println!("| {structure:?} | {damage:?} | {} | {} |", told(&one), told(&beyond));
            let case = format!("{structure:?} {damage:?}: {one:?}, {beyond:?}");
            assert!(one.unopened.is_none() && one.refused == 0 && one.stripes_lost == 0, "{case}");
            if structure == Root {
                // An old root and the journal behind it are the newest state.
                assert!(beyond.unopened.is_some() || damage == OldVersion, "{case}");
                continue;
            }
            assert!(one.repaired > 0, "{case}");
            match structure {
                // Needed to open at all; read by nobody in service.
                StripeTable => assert!(beyond.unopened.is_some(), "{case}"),
                MappingDelta => {
                    let shown = beyond.stripes_lost > 0 || beyond.unopened.is_some();
                    assert!(shown || damage == OldVersion, "{case}");
                }
                // A stripe that is lost as a whole takes the stripe table in it along.
                _ => assert!(beyond.refused > 0 && beyond.told || beyond.unopened.is_some(), "{case}"),
            }
        }
    }
}
