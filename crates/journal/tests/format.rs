//! The bytes: what is written is read, what is damaged is refused, nothing panics.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::rc::Rc;

use base::port::Leg;
use base::{Buf, Epoch, FileId, GroupId, Incarnation, Osn};
use double::{Dice, Machine, MemoryLeg};
use journal::format::{BLOCK_BYTES, LINE_BYTES, LegLabel, RECORD_HEADER_BYTES, RING_START_BYTES, RecordHeader, RingId};
use journal::recover::{Image, recover};
use journal::{Config, Journal, Kind, NewRecord, Scope, Sequence, Tag, TrimPoint};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const RING: RingId = RingId(42);

fn any_tag() -> impl Strategy<Value = Tag> {
    any::<(u16, u32, u64, u64, u64, u64, u64)>().prop_map(|(kind, stream, epoch, osn, file, offset, length)| Tag {
        kind: Kind(kind),
        stream,
        epoch: Epoch(epoch),
        osn: Osn(osn),
        scope: Scope { file: FileId(file), offset_bytes: offset, length_bytes: length },
    })
}

fn closed(sequence: u64, tag: &Tag, body: &[u8]) -> RecordHeader {
    let mut header = RecordHeader::new(Sequence(sequence), tag, &[body], &[]);
    header.batch_blocks.set((header.record_bytes().div_ceil(BLOCK_BYTES)) as u16);
    header.batch_records.set(1);
    header.close(RING);
    header
}

proptest! {
    #[test]
    fn a_header_is_read_as_it_was_written(tag in any_tag(), sequence: u64, body: Vec<u8>) {
        let header = closed(sequence, &tag, &body);
        let read = RecordHeader::decode(header.as_bytes(), RING).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!((read.tag(), read.sequence()), (tag, Sequence(sequence)));
        prop_assert!(read.body_matches(&body));
        prop_assert_eq!(RecordHeader::decode(header.as_bytes(), RingId(43)), None, "another ring's");
    }

    #[test]
    fn labels_and_trim_points_are_read_as_they_were_written(
        pool: [u8; 16], incarnation: [u8; 16], words: [u64; 4], blocks in 1_u64..1 << 40, bit in 0..4096_usize * 8,
    ) {
        let trim = TrimPoint {
            through: Sequence(words[0]),
            anchor_first: Sequence(words[1]),
            anchor_position_bytes: words[2],
            anchor_previous: words[3],
        };
        prop_assert_eq!(TrimPoint::decode(&trim.encode()), trim);
        let label = LegLabel {
            pool: GroupId(pool),
            incarnation: Incarnation(incarnation),
            ring: RingId(words[0]),
            ring_bytes: blocks * BLOCK_BYTES,
            first_sequence: Sequence(words[1]),
        };
        let mut block = label.encode();
        prop_assert_eq!(LegLabel::decode(&block), Some(label));
        block[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(LegLabel::decode(&block), None);
    }
}

/// No structure on media is without a check of 64 bits: every bit of a leg header, of a
/// record's header and of its body is covered. (The journal's part of R-INT-14.)
#[test]
fn every_bit_is_covered() {
    let tag = Tag { kind: Kind::WRITE, stream: 1, epoch: Epoch(2), osn: Osn(3), scope: Scope::default() };
    let body = [5; 200];
    let header = closed(9, &tag, &body);
    for bit in 0..RECORD_HEADER_BYTES * 8 {
        let mut bytes = header.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(RecordHeader::decode(&bytes, RING), None, "bit {bit}");
    }
    for bit in 0..body.len() * 8 {
        let mut bad = body;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!header.body_matches(&bad), "bit {bit}");
    }
}

/// The byte boxes of `docs/formats/journal.md`, pinned: a change here is a new version.
#[test]
fn the_bytes_are_those_of_the_document() {
    let scope = Scope { file: FileId(0x11), offset_bytes: 0x22, length_bytes: 0x33 };
    let tag = Tag { kind: Kind::OPERATION, stream: 0x44, epoch: Epoch(0x55), osn: Osn(0x66), scope };
    let header = closed(0x77, &tag, b"abc");
    let bytes = header.as_bytes();
    assert_eq!(&bytes[..8], b"vhJr\x01\x00\x02\x00");
    let words: Vec<u64> = bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[1], 0x44 << 32, "flags, stream");
    assert_eq!(words[2..12], [0x77, 0x66, 0x55, 0, 0, 0, 0, 0x11, 0x22, 0x33]);
    assert_eq!(words[12], 3 | 1 << 32 | 1 << 40, "body length, check algorithms");
    assert_eq!(words[14], 1 | 1 << 32, "batch: blocks, line, records, index");
    assert_eq!((words[13], words[15]), (header.body_check.get(), header.header_check.get()));
}

/// Whatever bytes lie there: no panic, and what is taken has passed its checks.
#[test]
fn any_bytes_never_panic() {
    bolero::check!().with_iterations(20_000).for_each(|input: &[u8]| {
        if let Some(header) = RecordHeader::decode(input, RING) {
            assert!(header.record_bytes() <= u64::from(header.batch_blocks.get()) * BLOCK_BYTES);
        }
        let _ = LegLabel::decode(input);
        let mut bytes = input.to_vec();
        bytes.resize(input.len().next_multiple_of(4096), 0);
        let unreadable = input.first().map(|&first| u64::from(first % 4)).into_iter().collect();
        let trim =
            TrimPoint { through: Sequence(1), anchor_first: Sequence(1), anchor_position_bytes: 0, anchor_previous: 0 };
        let image = Image { bytes: Buf::from(bytes), unreadable };
        if let Ok(found) = recover(&[image], RING, trim) {
            assert!(found.batches.is_empty() || !input.is_empty());
        }
    });
}

/// Valid headers with any fields at all: closed, so that they pass their check.
#[test]
fn any_valid_header_never_panics() {
    let dice = Dice::new(1);
    for _ in 0..20_000 {
        let mut bytes = vec![0; 4 * 4096];
        let mut at = 0;
        while at + RECORD_HEADER_BYTES <= bytes.len() {
            let tag = Tag { kind: Kind::WRITE, stream: 0, epoch: Epoch(0), osn: Osn(0), scope: Scope::default() };
            let mut header =
                RecordHeader::new(Sequence(dice.below(4)), &tag, &[&[0; 100][..dice.below(100) as usize]], &[]);
            let some = |limit: u64| if dice.one_in(3) { dice.next() } else { dice.below(limit) };
            header.position_bytes.set(if dice.one_in(4) { some(8).wrapping_mul(4096) } else { at as u64 });
            header.previous.set(some(2));
            header.stable_through.set(some(4));
            header.batch_blocks.set(some(5) as u16);
            header.batch_line.set(some(3) as u16);
            header.batch_records.set(some(4) as u16);
            header.batch_index.set(some(3) as u16);
            if dice.one_in(5) {
                header.body_bytes.set(dice.next() as u32);
            }
            header.close(RING);
            bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
            at += LINE_BYTES as usize * (2 + dice.below(4) as usize);
        }
        let trim = TrimPoint {
            through: Sequence(dice.below(3)),
            anchor_first: Sequence(dice.below(3)),
            anchor_position_bytes: 0,
            anchor_previous: dice.below(2),
        };
        let images: Vec<Image> =
            (0..1 + dice.below(2)).map(|_| Image { bytes: Buf::from(bytes.clone()), unreadable: Vec::new() }).collect();
        let _ = recover(&images, RING, trim);
    }
}

/// The log of a crashed node, decoded from its raw bytes: every entry carries file id,
/// offset, length and OSN, under a check that holds.
///
/// Decides R-REPL-15.
#[test]
fn the_log_of_a_crashed_node_has_the_four_fields() {
    let leg = MemoryLeg::new(1 << 20);
    let machine = Machine::boot(1, false);
    let plugged: Vec<Rc<dyn Leg>> = vec![leg.plug(&machine)];
    let world = machine.world();
    let scope_of = |osn: u64| Scope { file: FileId(osn % 3 + 1), offset_bytes: osn * 8192, length_bytes: 8192 };
    let main = async move {
        let pool = GroupId([1; 16]);
        let root = Journal::format(&plugged, pool, &[Incarnation([1; 16])], Sequence(1)).await.unwrap();
        let (journal, _) = Journal::open(plugged, &root, world, Config::default()).await.unwrap();
        for osn in 1..=40 {
            let tag = Tag { kind: Kind::WRITE, stream: 1, epoch: Epoch(7), osn: Osn(osn), scope: scope_of(osn) };
            let sequence = journal.append(NewRecord { tag, body: &[&[osn as u8; 8192]] }).await.unwrap().sequence;
            journal.stable(sequence).await.unwrap();
        }
    };
    machine.run(u64::MAX, main).unwrap();
    leg.cut(|| false);
    let bytes = leg.bytes.borrow();
    let label = LegLabel::decode(&bytes).unwrap();
    let ring = &bytes[RING_START_BYTES as usize..];
    let mut osns = Vec::new();
    for at in (0..ring.len()).step_by(LINE_BYTES as usize) {
        let Some(header) = RecordHeader::decode(&ring[at..], label.ring) else { continue };
        let tag = header.tag();
        if tag.kind == Kind::WRITE {
            assert_eq!(tag.scope, scope_of(tag.osn.0));
            let body = &ring[at + RECORD_HEADER_BYTES..][..header.body_bytes.get() as usize];
            assert!(header.body_matches(body) && body.iter().all(|&byte| byte == tag.osn.0 as u8));
            osns.push(tag.osn.0);
        }
    }
    assert_eq!(osns, (1..=40).collect::<Vec<u64>>());
}
