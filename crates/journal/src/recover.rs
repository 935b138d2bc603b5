//! What of the legs' content is true. Pure: bytes in, records or a typed verdict out.
//!
//! # The question
//!
//! After a crash each leg holds, from the anchor on, batches in order, then the batches
//! that were on their way (any subset of their sectors), then older laps, or what an
//! earlier life wrote beyond the point where it was cut. Any of it may be damaged. A
//! record that was *acknowledged* must come back or be reported; one that was not may
//! come back or not, but as a whole batch and without a gap before it.
//!
//! # What tells them apart
//!
//! * A record *at home* names its position (laps counted), carries the next sequence
//!   and the digest of the record before it. An older lap, a misplaced record and a
//!   record of a life that was cut fail one of the three.
//! * A record is *acknowledged* if its sequence is at most some `stable_through` found
//!   in any undamaged header further on, on either leg, or the root's trim. Such a claim
//!   is never false: what was stable once is stable for ever, in every life.
//! * So a record that is not there and not acknowledged is the *tail*; one that is not
//!   there and acknowledged is *damage in the middle*. A damaged record is unknown, never
//!   absent: it is the tail only because nothing shows that it was acknowledged.
//!
//! # The table
//!
//! One decision per record, from what each leg shows at its place ([`Slot`]), whether it
//! is acknowledged, and whether its loss is confined to a range. First row that fits:
//!
//! | letter | legs | acknowledged | decision |
//! |---|---|---|---|
//! | A | all whole | any | take |
//! | B | one whole; other unreadable | any | take, mend the other |
//! | C | one whole; other blank | any | take, mend: torn or lost write, or blank leg |
//! | D | one whole; other garbage or header only | any | take, mend: torn or damaged |
//! | E | one whole; other of an older lap | any | take, mend: lost write, older image |
//! | F | one whole; other of a life that was cut | any | take, mend: lost write |
//! | G | one whole; other misplaced | any | take, mend: misdirected write |
//! | H | none whole; header on one, its body on the other | any | put together, mend both |
//! | I | none readable | any | stop: nothing is known of it |
//! | J | none whole, some readable, all blank | no | tail, clean |
//! | K | none whole; some garbage or header only | no | tail, torn |
//! | L | none whole; an older lap, else blank | no | tail, lapped or lost batch |
//! | M | none whole; a life that was cut | no | tail, before an earlier cut |
//! | N | none whole; misplaced | no | tail, a misdirected write lies there |
//! | O | header only | yes, loss confined | block the range, go on |
//! | P | header only | yes, not confined | stop: the operation is gone |
//! | Q | no header | yes | stop: say which sequences and OSNs may be gone |
//!
//! With two legs a leg that cannot be read says nothing; the other decides alone. A leg
//! the root does not name is not here at all (`open.rs`).
//!
//! # Batches
//!
//! A batch is acknowledged as a whole, so it comes back as a whole: a tail inside a
//! batch cuts at its start, and the next life writes from there.
//!
//! # Limit
//!
//! Damage to the very last acknowledged batches on a journal of one leg, in a crash
//! before any later batch or seal (5 ms of quiet) claimed them, looks like a torn tail.

use base::{Buf, BufMut, Osn};

use crate::format::{BLOCK_BYTES, LINE_BYTES, RECORD_HEADER_BYTES, RecordHeader, RingId, TrimPoint};
use crate::record::{Kind, Record, Sequence, Tag};
use crate::ring::BatchMark;

/// What was read of a leg's ring, in the order of positions from the anchor's on, one
/// lap long.
pub struct Image {
    /// The bytes; unreadable blocks hold anything.
    pub bytes: Buf,
    /// Unreadable blocks, counted from the anchor's, ascending.
    pub unreadable: Vec<u64>,
}

impl Image {
    /// The bytes of a range, if it lies inside and all of it could be read.
    fn read(&self, at: u64, len: u64) -> Option<&[u8]> {
        let end = at.checked_add(len)?;
        let bytes = self.bytes.get(usize::try_from(at).ok()?..usize::try_from(end).ok()?)?;
        let first_bad = self.unreadable.partition_point(|&block| (block + 1) * BLOCK_BYTES <= at);
        match self.unreadable.get(first_bad) {
            Some(&block) if block * BLOCK_BYTES < end => None,
            _ => Some(bytes),
        }
    }
}

/// What a leg shows at the place of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Header and body are right.
    Whole,
    /// The header is right, the body is not.
    HeaderOnly,
    /// Zeros.
    Blank,
    /// A right header of an older lap.
    Lapped,
    /// A right header at home, but of a life that was cut here or before.
    Branch,
    /// A right header that belongs elsewhere.
    Misplaced,
    /// No header can be made out.
    Garbage,
    /// The leg gives an error.
    Unreadable,
}

/// What to do about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it from this leg.
    Take(usize),
    /// Header from one leg, body from another.
    Join {
        /// Leg with the header.
        header: usize,
        /// Leg with the body.
        body: usize,
    },
    /// The journal ends before this record's batch.
    Cut,
    /// Its body is lost; this leg has the header.
    Block(usize),
    /// It is lost and nothing says what it was.
    Stop,
}

/// The table at the head of this file. `joined` says that `(header, body)` legs make a
/// whole record together; `confined`, that the loss of the body concerns one known range
/// or nothing.
pub fn decide(legs: &[Slot], joined: Option<(usize, usize)>, acknowledged: bool, confined: bool) -> (char, Decision) {
    let has = |slot: Slot| legs.contains(&slot);
    if let Some(whole) = legs.iter().position(|&slot| slot == Slot::Whole) {
        let other = legs.iter().find(|&&slot| slot != Slot::Whole);
        let letter = match other {
            None => 'A',
            Some(Slot::Unreadable) => 'B',
            Some(Slot::Blank) => 'C',
            Some(Slot::Garbage | Slot::HeaderOnly | Slot::Whole) => 'D',
            Some(Slot::Lapped) => 'E',
            Some(Slot::Branch) => 'F',
            Some(Slot::Misplaced) => 'G',
        };
        return (letter, Decision::Take(whole));
    }
    if let Some((header, body)) = joined {
        return ('H', Decision::Join { header, body });
    }
    if legs.iter().all(|&slot| slot == Slot::Unreadable) {
        return ('I', Decision::Stop);
    }
    if acknowledged {
        return match legs.iter().position(|&slot| slot == Slot::HeaderOnly) {
            Some(leg) if confined => ('O', Decision::Block(leg)),
            Some(_) => ('P', Decision::Stop),
            None => ('Q', Decision::Stop),
        };
    }
    let letter = if has(Slot::Garbage) || has(Slot::HeaderOnly) {
        'K'
    } else if has(Slot::Misplaced) {
        'N'
    } else if has(Slot::Branch) {
        'M'
    } else if has(Slot::Lapped) {
        'L'
    } else {
        'J'
    };
    (letter, Decision::Cut)
}

/// A range whose newest content is lost: reads of it must fail until it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The record that is lost.
    pub sequence: Sequence,
    /// Its names; the scope is the range.
    pub tag: Tag,
}

/// Acknowledged records that are gone and of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub first: Sequence,
    /// The last that may be missing.
    pub last: Sequence,
    /// The highest OSN before the gap: what is gone has a higher one.
    pub after_osn: Osn,
    /// The next OSN that was seen behind the gap, if any: what is gone has a lower one.
    pub before_osn: Option<Osn>,
    /// The row of the table.
    pub letter: char,
}

/// A batch as it should be on every leg, and which legs need it written.
#[derive(Clone, Debug)]
pub(crate) struct Mend {
    pub(crate) mark: BatchMark,
    pub(crate) bytes: Buf,
    /// Legs to write, as bits.
    pub(crate) legs: u8,
}

/// What was found.
pub struct Recovery {
    /// Records to replay, in order: those after the trim, seals left out.
    pub records: Vec<Record>,
    /// Ranges that are lost.
    pub blocked: Vec<Blocked>,
    /// The batches in the ring, anchor first.
    pub batches: Vec<BatchMark>,
    /// Digest of the last record.
    pub digest: u64,
    /// Highest sequence proven acknowledged.
    pub acknowledged: Sequence,
    /// Last record that is not a seal.
    pub last_payload: Sequence,
    /// How often each letter of the table was used, `A` first.
    pub letters: [u64; 17],
    pub(crate) mends: Vec<Mend>,
}

/// Where the next record must be.
#[derive(Clone, Copy)]
struct Expected {
    at: u64,
    sequence: Sequence,
    previous: u64,
    /// Start of its batch and index in it.
    batch_at: u64,
    batch_first: Sequence,
    index: u16,
}

struct Taken {
    at: u64,
    header: RecordHeader,
    body: Option<Buf>,
    header_leg: usize,
    body_leg: usize,
    /// Legs that have it whole, as bits.
    whole: u8,
}

enum Next {
    Batch(Vec<Taken>),
    Tail,
    Gone(Gap),
}

struct Walk<'a> {
    legs: &'a [Image],
    ring: RingId,
    window: u64,
    trim: TrimPoint,
    found: Recovery,
    last_osn: Osn,
    /// Filled by the first record that is not whole everywhere.
    scanned: Option<Sequence>,
}

/// Reads the ring back from the images of its legs (one or two, each one lap from the
/// anchor's position).
pub fn recover(legs: &[Image], ring: RingId, trim: TrimPoint) -> Result<Recovery, Gap> {
    let window = legs.iter().map(|leg| leg.bytes.len() as u64).min().unwrap_or(0);
    let found = Recovery {
        records: Vec::new(),
        blocked: Vec::new(),
        batches: Vec::new(),
        digest: trim.anchor_previous,
        acknowledged: trim.through,
        last_payload: Sequence(0),
        letters: [0; 17],
        mends: Vec::new(),
    };
    let mut walk = Walk { legs, ring, window, trim, found, last_osn: Osn(0), scanned: None };
    let mut at = 0;
    while at < window {
        match walk.batch(at) {
            Next::Batch(records) => at += walk.accept(at, records),
            Next::Tail => break,
            Next::Gone(gap) => return Err(gap),
        }
    }
    Ok(walk.found)
}

impl Walk<'_> {
    fn batch(&mut self, batch_at: u64) -> Next {
        let sequence = self.found.batches.last().map_or(self.trim.anchor_first, |mark| mark.last.next());
        let previous = self.found.digest;
        let mut expected = Expected { at: batch_at, sequence, previous, batch_at, batch_first: sequence, index: 0 };
        let mut records: Vec<Taken> = Vec::new();
        loop {
            let taken = match self.record(expected) {
                Ok(taken) => taken,
                Err((_, Decision::Cut)) => return Next::Tail,
                Err((letter, _)) => return Next::Gone(self.gap(expected, letter)),
            };
            let header = taken.header;
            expected.at += header.record_bytes();
            expected.sequence = expected.sequence.next();
            expected.previous = header.header_check.get();
            expected.index += 1;
            records.push(taken);
            if expected.index == header.batch_records.get() {
                return Next::Batch(records);
            }
        }
    }

    fn record(&mut self, expected: Expected) -> Result<Taken, (char, Decision)> {
        let shown = self.shown(expected);
        let slots: Vec<Slot> = shown.iter().map(|&(slot, _)| slot).collect();
        let mut whole = 0;
        for (leg, _) in slots.iter().enumerate().filter(|&(_, &slot)| slot == Slot::Whole) {
            whole |= 1 << leg;
        }
        let joined = self.join(&shown, expected.at);
        let header = shown.iter().find(|shown| shown.0 == Slot::HeaderOnly).and_then(|shown| shown.1);
        let confined = header.is_some_and(|header| {
            let kind = Kind(header.kind.get());
            kind == Kind::WRITE || kind == Kind::SEAL || header.sequence() <= self.trim.through
        });
        let acknowledged = whole == 0 && expected.batch_first <= self.acknowledged(expected.batch_at);
        let (letter, decision) = decide(&slots, joined, acknowledged, confined);
        self.found.letters[letter as usize - 'A' as usize] += 1;
        let (header_leg, body_leg) = match decision {
            Decision::Take(leg) | Decision::Block(leg) => (leg, leg),
            Decision::Join { header, body } => (header, body),
            Decision::Cut | Decision::Stop => return Err((letter, decision)),
        };
        let header = shown[header_leg].1.expect("a leg that shows a header has one");
        let body_at = expected.at + RECORD_HEADER_BYTES as u64;
        let lost = matches!(decision, Decision::Block(_));
        let body = (!lost).then(|| self.slice(body_leg, body_at, u64::from(header.body_bytes.get())));
        let whole = if lost { 1 << header_leg } else { whole };
        Ok(Taken { at: expected.at, header, body, header_leg, body_leg, whole })
    }

    /// What the legs show. Where two are whole and differ (each was opened alone, and
    /// neither acknowledged anything, see `docs/formats/journal.md`) the first counts.
    fn shown(&self, expected: Expected) -> Vec<(Slot, Option<RecordHeader>)> {
        let mut shown: Vec<(Slot, Option<RecordHeader>)> =
            self.legs.iter().map(|leg| self.slot(leg, expected)).collect();
        let first = shown.iter().find(|shown| shown.0 == Slot::Whole).copied();
        for other in shown.iter_mut().filter(|other| other.0 == Slot::Whole) {
            if first.is_some_and(|first| first.1 != other.1) {
                *other = (Slot::Branch, None);
            }
        }
        shown
    }

    fn slice(&self, leg: usize, at: u64, len: u64) -> Buf {
        self.legs[leg].bytes.slice(at as usize..(at + len) as usize)
    }

    /// What `leg` shows where `expected` should be.
    fn slot(&self, leg: &Image, expected: Expected) -> (Slot, Option<RecordHeader>) {
        let Some(bytes) = leg.read(expected.at, RECORD_HEADER_BYTES as u64) else {
            return (Slot::Unreadable, None);
        };
        let Some(header) = RecordHeader::decode(bytes, self.ring) else {
            let blank = bytes.iter().all(|&byte| byte == 0);
            return (if blank { Slot::Blank } else { Slot::Garbage }, None);
        };
        let position = self.trim.anchor_position_bytes + expected.at;
        let found = header.position_bytes.get();
        if found != position {
            let lapped = found < position && (position - found).is_multiple_of(self.window);
            return (if lapped { Slot::Lapped } else { Slot::Misplaced }, None);
        }
        let batch_bytes = u64::from(header.batch_blocks.get()) * BLOCK_BYTES;
        let at_home = header.sequence() == expected.sequence
            && header.previous.get() == expected.previous
            && header.batch_index.get() == expected.index
            && header.batch_position() == self.trim.anchor_position_bytes + expected.batch_at
            && expected.batch_at + batch_bytes <= self.window;
        if !at_home {
            return (Slot::Branch, None);
        }
        let body_at = expected.at + RECORD_HEADER_BYTES as u64;
        let body = leg.read(body_at, u64::from(header.body_bytes.get()));
        let whole = body.is_some_and(|body| header.body_matches(body));
        (if whole { Slot::Whole } else { Slot::HeaderOnly }, Some(header))
    }

    /// Two legs that make one whole record: a header, and its body elsewhere.
    fn join(&self, shown: &[(Slot, Option<RecordHeader>)], at: u64) -> Option<(usize, usize)> {
        let headers = shown.iter().enumerate().filter(|(_, shown)| shown.0 == Slot::HeaderOnly);
        for (header_leg, (_, header)) in headers {
            let header = header.expect("it shows a header");
            let body_at = at + RECORD_HEADER_BYTES as u64;
            let body_len = u64::from(header.body_bytes.get());
            let fits = |leg: &Image| leg.read(body_at, body_len).is_some_and(|body| header.body_matches(body));
            if let Some(body_leg) = self.legs.iter().position(fits) {
                return Some((header_leg, body_leg));
            }
        }
        None
    }

    /// Highest sequence proven acknowledged, by every undamaged header from `from` on.
    fn acknowledged(&mut self, from: u64) -> Sequence {
        if self.scanned.is_none() {
            let claims = self.headers(from).map(|(_, header)| header.stable_through.get());
            let highest = claims.max().unwrap_or(0).max(self.found.acknowledged.0);
            self.found.acknowledged = Sequence(highest);
            self.scanned = Some(self.found.acknowledged);
        }
        self.found.acknowledged
    }

    /// Every undamaged header at home in the window from `from` on, on any leg.
    fn headers(&self, from: u64) -> impl Iterator<Item = (u64, RecordHeader)> {
        let lines = (from / LINE_BYTES..self.window / LINE_BYTES).map(|line| line * LINE_BYTES);
        lines.flat_map(move |at| {
            self.legs.iter().filter_map(move |leg| {
                let header = RecordHeader::decode(leg.read(at, RECORD_HEADER_BYTES as u64)?, self.ring)?;
                (header.position_bytes.get() == self.trim.anchor_position_bytes + at).then_some((at, header))
            })
        })
    }

    fn gap(&mut self, expected: Expected, letter: char) -> Gap {
        let acknowledged = self.acknowledged(expected.batch_at);
        let behind = self.headers(expected.at).filter(|(_, header)| header.sequence() > expected.sequence);
        let next = behind.min_by_key(|(_, header)| header.sequence.get()).map(|(_, header)| header);
        let last = next.map_or(acknowledged, |next| next.sequence().before());
        Gap {
            first: expected.sequence,
            last: last.max(expected.sequence),
            after_osn: self.last_osn,
            before_osn: next.map(|next| Osn(next.osn.get())),
            letter,
        }
    }

    /// Takes a batch over into what was found. Returns its length.
    fn accept(&mut self, batch_at: u64, records: Vec<Taken>) -> u64 {
        let (first, last) = (records[0].header, records[records.len() - 1].header);
        let mark = BatchMark {
            first: first.sequence(),
            last: last.sequence(),
            position_bytes: first.position_bytes.get(),
            length_bytes: u64::from(first.batch_blocks.get()) * BLOCK_BYTES,
            previous: self.found.digest,
        };
        self.mend(batch_at, mark, &records);
        self.found.batches.push(mark);
        self.found.digest = last.header_check.get();
        for taken in records {
            self.accept_record(taken);
        }
        mark.length_bytes
    }

    fn accept_record(&mut self, taken: Taken) {
        let (sequence, tag) = (taken.header.sequence(), taken.header.tag());
        self.found.acknowledged = self.found.acknowledged.max(Sequence(taken.header.stable_through.get()));
        if tag.kind == Kind::SEAL {
            return;
        }
        self.last_osn = self.last_osn.max(tag.osn);
        self.found.last_payload = sequence;
        if sequence <= self.trim.through {
            return;
        }
        match taken.body {
            Some(body) => self.found.records.push(Record { sequence, tag, body, payload: Buf::new() }),
            None => self.found.blocked.push(Blocked { sequence, tag }),
        }
    }

    /// Notes the batch for writing to the legs that do not have all of it. Where a body
    /// is lost, its header at least gets to every leg.
    fn mend(&mut self, batch_at: u64, mark: BatchMark, records: &[Taken]) {
        let all = (1_u8 << self.legs.len()) - 1;
        let everywhere = records.iter().fold(all, |bits, taken| bits & taken.whole);
        if everywhere == all {
            return;
        }
        let bytes = if everywhere == 0 {
            self.assemble(batch_at, mark, records)
        } else {
            self.slice(everywhere.trailing_zeros() as usize, batch_at, mark.length_bytes)
        };
        self.found.mends.push(Mend { mark, bytes, legs: all & !everywhere });
    }

    fn assemble(&self, batch_at: u64, mark: BatchMark, records: &[Taken]) -> Buf {
        let mut bytes = BufMut::zeroed(mark.length_bytes as usize);
        for taken in records {
            let start = (taken.at - batch_at) as usize;
            let header = self.slice(taken.header_leg, taken.at, RECORD_HEADER_BYTES as u64);
            bytes[start..start + RECORD_HEADER_BYTES].copy_from_slice(&header);
            let body_at = taken.at + RECORD_HEADER_BYTES as u64;
            let body = self.slice(taken.body_leg, body_at, u64::from(taken.header.body_bytes.get()));
            bytes[start + RECORD_HEADER_BYTES..][..body.len()].copy_from_slice(&body);
        }
        bytes.freeze()
    }
}
