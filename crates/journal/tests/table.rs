//! The recovery table (`src/recover.rs`), enumerated: every kind of damage on every leg
//! at every record, against a model that knows what was written and what was claimed.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::collections::BTreeSet;

use base::{Buf, Epoch, FileId, GroupId, Incarnation, Osn};
use double::Dice;
use journal::format::{BLOCK_BYTES, RECORD_HEADER_BYTES, RecordHeader, RingId, TrimPoint};
use journal::recover::{Decision, Image, Slot, decide, recover};
use journal::{Kind, Scope, Sequence, Tag};
use zerocopy::IntoBytes;

const SLOTS: [Slot; 8] = [
    Slot::Whole,
    Slot::HeaderOnly,
    Slot::Blank,
    Slot::Lapped,
    Slot::Branch,
    Slot::Misplaced,
    Slot::Garbage,
    Slot::Unreadable,
];

/// Every input of the table: what must hold of its answer, whatever the letters are.
#[test]
fn every_row_keeps_the_promises() {
    let mut letters = BTreeSet::new();
    let singles = SLOTS.iter().map(|&slot| vec![slot]);
    let pairs = SLOTS.iter().flat_map(|&a| SLOTS.iter().map(move |&b| vec![a, b]));
    for legs in singles.chain(pairs) {
        for acknowledged in [false, true] {
            for confined in [false, true] {
                for joins in [false, true] {
                    let header = legs.iter().position(|&slot| slot == Slot::HeaderOnly);
                    let joined = header.filter(|_| joins && legs.len() == 2).map(|header| (header, 1 - header));
                    let (letter, decision) = decide(&legs, joined, acknowledged, confined);
                    letters.insert(letter);
                    let case = format!("{legs:?} joined {joined:?} acknowledged {acknowledged} {letter}");
                    match decision {
                        Decision::Take(leg) => assert_eq!(legs[leg], Slot::Whole, "{case}"),
                        _ => assert!(!legs.contains(&Slot::Whole), "a good copy always wins: {case}"),
                    }
                    match decision {
                        Decision::Cut => {
                            assert!(!acknowledged && joined.is_none(), "damaged is not absent: {case}");
                            assert!(legs.iter().any(|&slot| slot != Slot::Unreadable), "unknown: {case}");
                        }
                        Decision::Block(leg) => {
                            assert!(acknowledged && confined && legs[leg] == Slot::HeaderOnly, "{case}");
                        }
                        Decision::Join { header, body } => assert_eq!(joined, Some((header, body)), "{case}"),
                        Decision::Stop | Decision::Take(_) => {}
                    }
                }
            }
        }
    }
    let all: BTreeSet<char> = ('A'..='Q').collect();
    assert_eq!(letters, all, "every row is reached");
}

/// One kind of damage to one record on one leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    None,
    HeaderFlip,
    BodyFlip,
    Blank,
    Lapped,
    Branch,
    Misplaced,
    Unreadable,
    BodyUnreadable,
}

const HARMS: [Harm; 9] = [
    Harm::None,
    Harm::HeaderFlip,
    Harm::BodyFlip,
    Harm::Blank,
    Harm::Lapped,
    Harm::Branch,
    Harm::Misplaced,
    Harm::Unreadable,
    Harm::BodyUnreadable,
];

impl Harm {
    fn leaves_header(self) -> bool {
        matches!(self, Harm::None | Harm::BodyFlip | Harm::BodyUnreadable)
    }
    fn leaves_body(self) -> bool {
        matches!(self, Harm::None | Harm::HeaderFlip | Harm::Lapped | Harm::Branch | Harm::Misplaced)
    }
    /// Whether the header still counts as a witness of what was acknowledged.
    fn leaves_witness(self) -> bool {
        self.leaves_header() || self == Harm::Branch
    }
}

/// Each record is a block of header (and some body) and a block of body, so that each
/// can be unreadable by itself.
const RECORD_BYTES: usize = 2 * BLOCK_BYTES as usize;
const BODY_BYTES: usize = RECORD_BYTES - RECORD_HEADER_BYTES;
const WINDOW_BLOCKS: usize = 32;
const FIRST: u64 = 100;

#[derive(Clone)]
struct Written {
    header: RecordHeader,
    at: usize,
    batch: usize,
}

struct Story {
    ring: RingId,
    trim: TrimPoint,
    bytes: Vec<u8>,
    records: Vec<Written>,
}

/// Batches of these kinds; `claims` says whether each batch claims all before it, or
/// only the anchor.
fn tell(batches: &[&[Kind]], claims: bool) -> Story {
    let ring = RingId::born(GroupId([3; 16]), &[Incarnation([4; 16])], Sequence(1));
    let anchor_position_bytes = (5 * WINDOW_BLOCKS as u64 + 7) * BLOCK_BYTES;
    let mut story = Story {
        ring,
        trim: TrimPoint {
            through: Sequence(FIRST),
            anchor_first: Sequence(FIRST),
            anchor_position_bytes,
            anchor_previous: 77,
        },
        bytes: vec![0; WINDOW_BLOCKS * BLOCK_BYTES as usize],
        records: Vec::new(),
    };
    let (mut at, mut sequence, mut previous) = (0, FIRST, 77);
    for (batch, kinds) in batches.iter().enumerate() {
        let claim = if claims { sequence - 1 } else { FIRST.min(sequence - 1) };
        for (index, &kind) in kinds.iter().enumerate() {
            let body = body_of(sequence);
            let scope = Scope { file: FileId(9), offset_bytes: sequence * 8192, length_bytes: 8192 };
            let tag = Tag { kind, stream: 0, epoch: Epoch(1), osn: Osn(sequence * 10), scope };
            let mut header = RecordHeader::new(Sequence(sequence), &tag, &[&body], &[]);
            header.position_bytes.set(anchor_position_bytes + at as u64);
            header.previous.set(previous);
            header.opening.set(5);
            header.stable_through.set(claim);
            header.batch_blocks.set((kinds.len() * RECORD_BYTES / BLOCK_BYTES as usize) as u16);
            header.batch_line.set((index * RECORD_BYTES / 64) as u16);
            header.batch_records.set(kinds.len() as u16);
            header.batch_index.set(index as u16);
            header.close(ring);
            previous = header.header_check.get();
            story.bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
            story.bytes[at + RECORD_HEADER_BYTES..at + RECORD_BYTES].copy_from_slice(&body);
            story.records.push(Written { header, at, batch });
            at += RECORD_BYTES;
            sequence += 1;
        }
    }
    story
}

fn body_of(sequence: u64) -> Vec<u8> {
    let dice = Dice::new(sequence);
    (0..BODY_BYTES).map(|_| dice.next() as u8).collect()
}

/// Lays the harms of one leg (one per record) over what was written.
fn image(story: &Story, harms: &[Harm], dice: &Dice) -> Image {
    let mut bytes = story.bytes.clone();
    let mut unreadable = Vec::new();
    for (record, &harm) in story.records.iter().zip(harms) {
        let header = record.header;
        let mut rewrite = |change: &dyn Fn(&mut RecordHeader)| {
            let mut header = header;
            change(&mut header);
            header.close(story.ring);
            bytes[record.at..record.at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
        };
        let position = header.position_bytes.get();
        match harm {
            Harm::None => {}
            Harm::Lapped => {
                rewrite(&|header| header.position_bytes.set(position - WINDOW_BLOCKS as u64 * BLOCK_BYTES));
            }
            Harm::Misplaced => rewrite(&|header| header.position_bytes.set(position + BLOCK_BYTES)),
            Harm::Branch => rewrite(&|header| header.previous.set(!header.previous.get())),
            Harm::HeaderFlip => {
                let bit = dice.below(RECORD_HEADER_BYTES as u64 * 8) as usize;
                bytes[record.at + bit / 8] ^= 1 << (bit % 8);
            }
            Harm::BodyFlip => {
                let bit = dice.below(BODY_BYTES as u64 * 8) as usize;
                bytes[record.at + RECORD_HEADER_BYTES + bit / 8] ^= 1 << (bit % 8);
            }
            Harm::Blank => bytes[record.at..record.at + RECORD_BYTES].fill(0),
            Harm::Unreadable => {
                let block = record.at as u64 / BLOCK_BYTES;
                unreadable.extend([block, block + 1]);
            }
            Harm::BodyUnreadable => unreadable.push(record.at as u64 / BLOCK_BYTES + 1),
        }
    }
    Image { bytes: Buf::from(bytes), unreadable }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Sequences replayed and sequences blocked.
    Replayed(Vec<u64>, Vec<u64>),
    /// The first sequence that is gone.
    Gone(u64),
}

/// What must come out, told from the harms alone. `legs[leg][record]`.
fn expect(story: &Story, legs: &[Vec<Harm>]) -> Outcome {
    let (mut replayed, mut blocked) = (Vec::new(), Vec::new());
    let batches = story.records.last().unwrap().batch + 1;
    for batch in 0..batches {
        let of_batch = story.records.iter().enumerate().filter(|(_, record)| record.batch == batch);
        let first = of_batch.clone().next().unwrap().1.header.sequence.get();
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for (index, record) in of_batch {
            let sequence = record.header.sequence.get();
            let witnesses = story.records.iter().enumerate().filter(|(other, _)| {
                story.records[*other].batch >= batch && legs.iter().any(|leg| leg[*other].leaves_witness())
            });
            let claimed = witnesses.map(|(_, other)| other.header.stable_through.get()).max().unwrap_or(0);
            let acknowledged = first <= claimed.max(FIRST);
            let header = legs.iter().any(|leg| leg[index].leaves_header());
            let body = legs.iter().any(|leg| leg[index].leaves_body());
            let known = legs.iter().any(|leg| leg[index] != Harm::Unreadable);
            let kind = Kind(record.header.kind.get());
            let confined = kind == Kind::WRITE || kind == Kind::SEAL || sequence <= FIRST;
            match (header && body, acknowledged) {
                (true, _) => kept.push((sequence, kind)),
                (false, true) if header && confined => lost.push((sequence, kind)),
                (false, true) => return Outcome::Gone(sequence),
                (false, false) if !known => return Outcome::Gone(sequence),
                (false, false) => return Outcome::Replayed(replayed, blocked),
            }
        }
        let told = |list: Vec<(u64, Kind)>| {
            list.into_iter().filter(|&(sequence, kind)| sequence > FIRST && kind != Kind::SEAL).map(|(s, _)| s)
        };
        replayed.extend(told(kept));
        blocked.extend(told(lost));
    }
    Outcome::Replayed(replayed, blocked)
}

/// Runs recovery, checks everything it says, and counts letters.
fn observe(story: &Story, legs: &[Vec<Harm>], dice: &Dice, letters: &mut [u64; 17]) -> Outcome {
    let images: Vec<Image> = legs.iter().map(|harms| image(story, harms, dice)).collect();
    match recover(&images, story.ring, story.trim) {
        Ok(found) => {
            letters.iter_mut().zip(found.letters).for_each(|(sum, count)| *sum += count);
            for record in &found.records {
                assert_eq!(record.body, body_of(record.sequence.0), "{legs:?}");
                assert_eq!(record.tag.osn, Osn(record.sequence.0 * 10));
            }
            for blocked in &found.blocked {
                assert_eq!(blocked.tag.scope.offset_bytes, blocked.sequence.0 * 8192, "the range is named");
            }
            let replayed = found.records.iter().map(|record| record.sequence.0).collect();
            Outcome::Replayed(replayed, found.blocked.iter().map(|blocked| blocked.sequence.0).collect())
        }
        Err(gap) => {
            letters[gap.letter as usize - 'A' as usize] += 1;
            assert!(gap.first <= gap.last && gap.after_osn < Osn(gap.first.0 * 10), "{gap:?}");
            assert!(gap.before_osn.is_none_or(|osn| osn > Osn(gap.last.0 * 10)), "{gap:?}");
            Outcome::Gone(gap.first.0)
        }
    }
}

const W: Kind = Kind::WRITE;
const OP: Kind = Kind::OPERATION;
const SEAL: Kind = Kind::SEAL;
const BATCHES: &[&[Kind]] = &[&[SEAL], &[W, W], &[OP], &[W, OP, W], &[SEAL]];

/// Every harm on every leg at every record, with and without later claims.
///
/// Decides R-NV-04.
#[test]
fn every_single_record_times_every_harm_on_one_and_two_legs() {
    let dice = Dice::new(1);
    let mut letters = [0; 17];
    let mut cases = 0;
    for claims in [false, true] {
        let story = tell(BATCHES, claims);
        for record in 0..story.records.len() {
            let harmed = |harm: Harm| {
                let mut harms = vec![Harm::None; story.records.len()];
                harms[record] = harm;
                harms
            };
            let singles = HARMS.iter().map(|&a| vec![harmed(a)]);
            let pairs = HARMS.iter().flat_map(|&a| HARMS.iter().map(move |&b| (a, b)));
            let pairs = pairs.map(|(a, b)| vec![harmed(a), harmed(b)]);
            for legs in singles.chain(pairs) {
                assert_eq!(observe(&story, &legs, &dice, &mut letters), expect(&story, &legs), "{legs:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 8 * (9 + 81));
    // J: nothing lies behind the last batch here, so the clean tail counts each time.
    for (index, count) in letters.iter().enumerate() {
        assert!(*count > 0, "row {} was not reached", (b'A' + index as u8) as char);
    }
}

/// Many records harmed at once, the witnesses among them.
#[test]
fn any_mix_of_harms() {
    let dice = Dice::new(2);
    let mut letters = [0; 17];
    for case in 0..6_000 {
        let story = tell(BATCHES, case % 2 == 0);
        let count = 1 + dice.below(2);
        let rarity = 1 + dice.below(8);
        let harm = || if dice.one_in(rarity) { HARMS[dice.below(9) as usize] } else { Harm::None };
        let legs: Vec<Vec<Harm>> = (0..count).map(|_| (0..story.records.len()).map(|_| harm()).collect()).collect();
        assert_eq!(observe(&story, &legs, &dice, &mut letters), expect(&story, &legs), "{legs:?}");
    }
}

/// Every bit of a header and a sample of body bits: one bad bit in one leg never wins
/// over a good copy, and alone is never applied.
#[test]
fn no_single_bit_is_believed() {
    let story = tell(BATCHES, true);
    let healthy = || Image { bytes: Buf::from(story.bytes.clone()), unreadable: Vec::new() };
    let good = recover(&[healthy()], story.ring, story.trim).unwrap();
    for bit in (0..RECORD_HEADER_BYTES * 8).chain((RECORD_HEADER_BYTES * 8..RECORD_BYTES * 8).step_by(4099)) {
        let mut bytes = story.bytes.clone();
        bytes[story.records[2].at + bit / 8] ^= 1 << (bit % 8);
        let bad = || Image { bytes: Buf::from(bytes.clone()), unreadable: Vec::new() };
        for images in [[bad(), healthy()], [healthy(), bad()]] {
            let found = recover(&images, story.ring, story.trim).unwrap();
            assert_eq!(found.records, good.records, "bit {bit}");
        }
        match recover(&[bad()], story.ring, story.trim) {
            Err(gap) => assert_eq!((gap.first, gap.last), (Sequence(FIRST + 2), Sequence(FIRST + 2))),
            Ok(found) => assert_eq!(found.blocked[0].sequence, Sequence(FIRST + 2), "bit {bit}"),
        }
    }
}
