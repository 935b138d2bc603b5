//! The last batch torn in every way, at every place of the ring, over what an earlier lap
//! left there.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::rc::Rc;

use base::port::Leg;
use base::{Epoch, FileId, GroupId, Incarnation, Osn};
use double::{Machine, MemoryLeg, SECTOR_BYTES};
use journal::{Config, Journal, JournalRoot, Kind, NewRecord, Recovered, Scope, Sequence, Tag};

const RING_BLOCKS: usize = 16;
const CAPACITY_BYTES: usize = (2 + RING_BLOCKS) * 4096;

fn tag(osn: u64) -> Tag {
    let scope = Scope { file: FileId(1), offset_bytes: osn * 4096, length_bytes: 4096 };
    Tag { kind: Kind::WRITE, stream: 0, epoch: Epoch(1), osn: Osn(osn), scope }
}

fn body(osn: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (osn as usize + index / 64 + 1) as u8).collect()
}

/// Writes and trims `before` records of one block each, one of `keep_len` that is
/// acknowledged, then one of `last_len` whose write never ends. Returns the root.
async fn fill(machine: Rc<Machine>, legs: Vec<Rc<MemoryLeg>>, before: u64, last_len: usize) -> JournalRoot {
    let plugged: Vec<Rc<dyn Leg>> = legs.iter().map(|leg| leg.plug(&machine)).collect();
    let incarnations: Vec<Incarnation> = (1..=legs.len()).map(|leg| Incarnation([leg as u8; 16])).collect();
    let mut root = Journal::format(&plugged, GroupId([1; 16]), &incarnations, Sequence(1)).await.unwrap();
    // Seals would move the tail on; here they wait for ever.
    let config = Config { seal_after: std::time::Duration::from_secs(1), ..Config::default() };
    let (journal, _) = Journal::open(plugged, &root, machine.world(), config).await.unwrap();
    for osn in 1..=before + 1 {
        let sequence = journal.try_append(NewRecord { tag: tag(osn), body: &[&body(osn, 3_900)] }).unwrap().sequence;
        let through = journal.stable(sequence).await.unwrap().through();
        if osn <= before {
            root.trim = journal.trim_point_for(through);
            journal.trim(through);
        }
    }
    legs.iter().for_each(|leg| leg.hold.set(true));
    let last = NewRecord { tag: tag(before + 2), body: &[&body(before + 2, last_len)] };
    journal.try_append(last).unwrap();
    machine.sleep(1_000_000).await;
    root
}

fn reopen(images: &[Vec<u8>], root: &JournalRoot) -> Recovered {
    let machine = Machine::boot(9, false);
    let legs: Vec<Rc<dyn Leg>> = images
        .iter()
        .map(|image| {
            let leg = MemoryLeg::new(image.len());
            leg.bytes.borrow_mut().copy_from_slice(image);
            leg.plug(&machine)
        })
        .collect();
    let (world, root) = (machine.world(), root.clone());
    let open = async move { Journal::open(legs, &root, world, Config::default()).await.unwrap().1 };
    machine.run(u64::MAX, open).unwrap()
}

/// What the leg holds after the cut if exactly the sectors in `mask` of its unfinished
/// writes (counted through) arrived.
fn torn(leg: &MemoryLeg, mask: u64) -> Vec<u8> {
    let mut bytes = leg.bytes.borrow().clone();
    let mut sector = 0;
    for (offset, data) in leg.unfinished() {
        for (index, piece) in data.chunks(SECTOR_BYTES).enumerate() {
            if mask & 1 << sector != 0 {
                bytes[offset + index * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(piece);
            }
            sector += 1;
        }
    }
    bytes
}

fn whole(leg: &MemoryLeg, image: &[u8], record_bytes: usize) -> bool {
    let mut left = record_bytes;
    leg.unfinished().iter().all(|(offset, data)| {
        let len = left.min(data.len());
        left -= len;
        image[*offset..offset + len] == data[..len]
    })
}

fn check(recovered: &Recovered, before: u64, last_len: usize, last_is_whole: bool) {
    let osns: Vec<u64> = recovered.records.iter().map(|record| record.tag.osn.0).collect();
    let expected = if last_is_whole { vec![before + 1, before + 2] } else { vec![before + 1] };
    assert_eq!(osns, expected);
    assert_eq!(recovered.records[0].body, body(before + 1, 3_900));
    if last_is_whole {
        assert_eq!(recovered.records[1].body, body(before + 2, last_len));
    }
}

/// 2^8 subsets of the sectors of a one-block batch, at every block of the ring, over
/// zeros (first lap) and over a valid batch of the lap before (second lap).
#[test]
fn every_subset_of_the_last_batch_at_every_place() {
    for before in 0..2 * RING_BLOCKS as u64 {
        let leg = MemoryLeg::new(CAPACITY_BYTES);
        let machine = Machine::boot(before, false);
        let root = machine.run(u64::MAX, fill(machine.clone(), vec![leg.clone()], before, 3_900)).unwrap();
        for mask in 0..1 << 8 {
            let image = torn(&leg, mask);
            let complete = whole(&leg, &image, 128 + 3_900);
            assert_eq!(complete, mask == 0xff);
            check(&reopen(&[image], &root), before, 3_900, complete);
        }
    }
}

/// A batch of two blocks that goes around the ring's end, all 2^16 subsets thinned out.
#[test]
fn a_batch_around_the_end_of_the_ring() {
    let before = RING_BLOCKS as u64 - 3;
    let leg = MemoryLeg::new(CAPACITY_BYTES);
    let machine = Machine::boot(1, false);
    leg.hold.set(false);
    let root = machine.run(u64::MAX, fill(machine.clone(), vec![leg.clone()], before, 7_900)).unwrap();
    let first = leg.unfinished();
    assert_eq!((first.len(), first[0].0, first[0].1.len()), (1, CAPACITY_BYTES - 4096, 4096), "it is split");
    // The second piece is written after the first: a cut leaves any part of the first.
    for mask in 0..1 << 8 {
        check(&reopen(&[torn(&leg, mask)], &root), before, 7_900, false);
    }
}

/// Two legs, each with its own subset: the last batch is back if the legs have it
/// between them, and never wrong.
#[test]
fn two_legs_torn_differently() {
    let legs = [MemoryLeg::new(CAPACITY_BYTES), MemoryLeg::new(CAPACITY_BYTES)];
    let machine = Machine::boot(3, false);
    let root = machine.run(u64::MAX, fill(machine.clone(), legs.to_vec(), 20, 3_900)).unwrap();
    for case in 0..4096_u64 {
        let masks = [case % 256, (case * 167 + case / 256) % 256];
        let images = [torn(&legs[0], masks[0]), torn(&legs[1], masks[1])];
        // The header lies in the first sector, the body in all: header and body of one
        // leg, or the header of one and the whole body of the other.
        let body_whole = |leg: usize| {
            let (offset, data) = &legs[leg].unfinished()[0];
            images[leg][offset + 128..offset + 4028] == data[128..4028]
        };
        let header_whole = |leg: usize| masks[leg] & 1 != 0;
        let expected = (header_whole(0) || header_whole(1)) && (body_whole(0) || body_whole(1));
        check(&reopen(&images, &root), 20, 3_900, expected);
    }
}

/// What one leg lacks is written to it before anything is handed out: afterwards each
/// leg alone tells the same.
#[test]
fn after_opening_each_leg_alone_is_enough() {
    let legs = [MemoryLeg::new(CAPACITY_BYTES), MemoryLeg::new(CAPACITY_BYTES)];
    let machine = Machine::boot(3, false);
    let root = machine.run(u64::MAX, fill(machine.clone(), legs.to_vec(), 20, 3_900)).unwrap();
    let images = [torn(&legs[0], 0xff), torn(&legs[1], 0x0f)];
    for (leg, image) in legs.iter().zip(&images) {
        leg.bytes.borrow_mut().copy_from_slice(image);
    }
    legs.iter().for_each(|leg| {
        leg.hold.set(false);
        leg.cut(|| false);
    });
    let machine = Machine::boot(4, false);
    let plugged: Vec<Rc<dyn Leg>> = legs.iter().map(|leg| leg.plug(&machine)).collect();
    let (world, known) = (machine.world(), root.clone());
    let open = async move { Journal::open(plugged, &known, world, Config::default()).await.unwrap().1 };
    let recovered = machine.run(u64::MAX, open).unwrap();
    check(&recovered, 20, 3_900, true);
    for leg in &legs {
        check(&reopen(&[leg.bytes.borrow().clone()], &root), 20, 3_900, true);
    }
}
