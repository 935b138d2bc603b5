//! Bytes on a leg. The twin of `docs/formats/journal.md`: change both or neither.
//!
//! ```text
//! leg:    0        4096      8192                                capacity
//!         | header | header' | ring: blocks of 4 KiB ............... |
//! batch:  whole blocks; records packed at 64-byte lines, rest zero
//! record: | header 128 | body | zero to the next line |
//! ```
//!
//! Only this module turns a header into bytes or back.

use base::check::{MEDIA_CHECK_CRC64_NVME, MediaChecker, media_check_parts};
use base::{Epoch, FileId, GroupId, Incarnation, Osn, media_check};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::record::{Kind, Scope, Sequence, Tag};

/// Version this code writes; it reads this one only (the first).
pub const FORMAT_VERSION: u16 = 1;
/// Unit of the ring; batches start and end at multiples of it.
pub const BLOCK_BYTES: u64 = 4096;
/// Unit inside a batch; records start at multiples of it.
pub const LINE_BYTES: u64 = 64;
/// Where the ring starts on a leg: after two copies of the leg header.
pub const RING_START_BYTES: u64 = 2 * BLOCK_BYTES;
/// A record's header.
pub const RECORD_HEADER_BYTES: usize = 128;
/// No batch is longer (the place of a record in its batch is a `u16` of lines).
pub const BATCH_BYTES_LIMIT: u64 = 4 << 20;

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);
const _: () = assert!(size_of::<LegHeader>() == BLOCK_BYTES as usize);
const _: () =
    assert!((RECORD_HEADER_BYTES as u64).is_multiple_of(LINE_BYTES) && BLOCK_BYTES.is_multiple_of(LINE_BYTES));
const _: () = assert!(BATCH_BYTES_LIMIT <= (u16::MAX as u64 + 1) * LINE_BYTES);
const _: () = assert!(BATCH_BYTES_LIMIT / BLOCK_BYTES <= u16::MAX as u64);

const RECORD_MAGIC: [u8; 4] = *b"vhJr";
const LEG_MAGIC: [u8; 8] = *b"vmholdJL";
/// Bytes of a record header that its check covers.
const CHECKED_BYTES: usize = 120;

/// Header of a record as it lies on media, 128 bytes, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// `vhJr`; first, so that a scan looks at four bytes per line.
    pub magic: [u8; 4],
    /// [`FORMAT_VERSION`].
    pub format_version: U16,
    /// [`Kind`].
    pub kind: U16,
    /// None defined; 0.
    pub flags: U32,
    /// Ordered stream (datastore).
    pub stream: U32,
    /// Place in this journal's order.
    pub sequence: U64,
    /// Operation sequence number.
    pub osn: U64,
    /// Owner's term.
    pub epoch: U64,
    /// Bytes of ring written before this record since the ring's birth, laps included:
    /// tells a lap from the one before, and a misplaced record from one at home.
    pub position_bytes: U64,
    /// `header_check` of the record before: the chain.
    pub previous: U64,
    /// Random number of the opening that wrote it, so that two lives which reuse a
    /// sequence after a cut never have the same chain.
    pub opening: U64,
    /// Highest sequence known stable when this batch was written: what lies at or
    /// below it was (or could have been) acknowledged.
    pub stable_through: U64,
    /// Scope: file.
    pub file: U64,
    /// Scope: first byte.
    pub offset_bytes: U64,
    /// Scope: length.
    pub length_bytes: U64,
    /// Length of the body that follows.
    pub body_bytes: U32,
    /// Algorithm of `body_check`.
    pub body_check_kind: u8,
    /// Algorithm of `header_check`.
    pub header_check_kind: u8,
    /// 0.
    pub reserved: U16,
    /// Check of the body, seeded with the OSN: the same on every shelf.
    pub body_check: U64,
    /// Length of the batch in blocks.
    pub batch_blocks: U16,
    /// Where in its batch this record starts, in lines.
    pub batch_line: U16,
    /// Records in the batch.
    pub batch_records: U16,
    /// Which of them this is.
    pub batch_index: U16,
    /// Check of the 120 bytes before, seeded with the ring's identity; also the
    /// digest that the next record carries as `previous`.
    pub header_check: U64,
}

impl RecordHeader {
    /// The header of a record as far as it is known when it is appended.
    pub fn new(sequence: Sequence, tag: &Tag, body: &[&[u8]], payload: &[u8]) -> RecordHeader {
        let body_bytes = body.iter().map(|part| part.len()).sum::<usize>() + payload.len();
        let mut check = MediaChecker::new(tag.osn.0);
        body.iter().for_each(|part| check.update(part));
        check.update(payload);
        RecordHeader {
            magic: RECORD_MAGIC,
            format_version: U16::new(FORMAT_VERSION),
            kind: U16::new(tag.kind.0),
            flags: U32::ZERO,
            stream: U32::new(tag.stream),
            sequence: U64::new(sequence.0),
            osn: U64::new(tag.osn.0),
            epoch: U64::new(tag.epoch.0),
            position_bytes: U64::ZERO,
            previous: U64::ZERO,
            opening: U64::ZERO,
            stable_through: U64::ZERO,
            file: U64::new(tag.scope.file.0),
            offset_bytes: U64::new(tag.scope.offset_bytes),
            length_bytes: U64::new(tag.scope.length_bytes),
            body_bytes: U32::new(u32::try_from(body_bytes).expect("a body is far below 4 GiB")),
            body_check_kind: MEDIA_CHECK_CRC64_NVME,
            header_check_kind: MEDIA_CHECK_CRC64_NVME,
            reserved: U16::ZERO,
            body_check: U64::new(check.finish().0),
            batch_blocks: U16::ZERO,
            batch_line: U16::ZERO,
            batch_records: U16::ZERO,
            batch_index: U16::ZERO,
            header_check: U64::ZERO,
        }
    }

    /// Names of the record.
    pub fn tag(&self) -> Tag {
        Tag {
            kind: Kind(self.kind.get()),
            stream: self.stream.get(),
            epoch: Epoch(self.epoch.get()),
            osn: Osn(self.osn.get()),
            scope: Scope {
                file: FileId(self.file.get()),
                offset_bytes: self.offset_bytes.get(),
                length_bytes: self.length_bytes.get(),
            },
        }
    }

    /// Its place in the journal's order.
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }

    /// Header and body, rounded up to lines.
    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.body_bytes.get() as usize)
    }

    /// Where its batch starts.
    pub fn batch_position(&self) -> u64 {
        self.position_bytes.get().wrapping_sub(u64::from(self.batch_line.get()) * LINE_BYTES)
    }

    /// Whether `body` is this record's.
    pub fn body_matches(&self, body: &[u8]) -> bool {
        self.body_check_kind == MEDIA_CHECK_CRC64_NVME
            && body.len() == self.body_bytes.get() as usize
            && media_check(self.osn.get(), body).0 == self.body_check.get()
    }

    /// Completes the header: computes its check over all the rest.
    pub fn close(&mut self, ring: RingId) {
        self.header_check = U64::new(self.expected_check(ring));
    }

    fn expected_check(&self, ring: RingId) -> u64 {
        media_check(ring.0, &self.as_bytes()[..CHECKED_BYTES]).0
    }

    /// The header at the start of `bytes` if it is one of `ring`, undamaged and of a
    /// version we know.
    pub fn decode(bytes: &[u8], ring: RingId) -> Option<RecordHeader> {
        if bytes.get(..4)? != RECORD_MAGIC {
            return None;
        }
        let (header, _) = RecordHeader::read_from_prefix(bytes).ok()?;
        let version_known =
            header.format_version.get() == FORMAT_VERSION && header.header_check_kind == MEDIA_CHECK_CRC64_NVME;
        if !version_known || header.expected_check(ring) != header.header_check.get() {
            return None;
        }
        header.fits_its_batch().then_some(header)
    }

    fn fits_its_batch(&self) -> bool {
        let end = u64::from(self.batch_line.get()) * LINE_BYTES + self.record_bytes();
        let batch_bytes = u64::from(self.batch_blocks.get()) * BLOCK_BYTES;
        self.batch_index.get() < self.batch_records.get()
            && (self.batch_index.get() == 0) == (self.batch_line.get() == 0)
            && self.batch_position().is_multiple_of(BLOCK_BYTES)
            && batch_bytes <= BATCH_BYTES_LIMIT
            && end <= batch_bytes
    }
}

/// Bytes a record with a body of `body_bytes` takes in its batch.
pub fn record_bytes(body_bytes: usize) -> u64 {
    ((RECORD_HEADER_BYTES + body_bytes) as u64).next_multiple_of(LINE_BYTES)
}

/// Identity of a ring from its formatting on, the same on all its legs; seeds every
/// record header's check, so that records of another ring or another life are noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingId(pub u64);

impl RingId {
    /// The identity of the ring born for `pool` on legs with these `incarnations`.
    pub fn born(pool: GroupId, incarnations: &[Incarnation], first_sequence: Sequence) -> RingId {
        let legs: Vec<u8> = incarnations.iter().flat_map(|incarnation| incarnation.0).collect();
        RingId(media_check_parts(first_sequence.0, &[&pool.0[..], &legs]).0)
    }
}

/// First block of a leg, twice. Says whose it is and which life of it this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LegHeader {
    magic: [u8; 8],
    format_version: U16,
    check_kind: u8,
    reserved: [u8; 5],
    pool: [u8; 16],
    incarnation: [u8; 16],
    ring: U64,
    ring_bytes: U64,
    first_sequence: U64,
    padding: [u8; 4096 - 80],
    check: U64,
}

/// What a leg header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegLabel {
    /// The pool it serves.
    pub pool: GroupId,
    /// This life of the leg.
    pub incarnation: Incarnation,
    /// The ring it holds.
    pub ring: RingId,
    /// Size of the ring.
    pub ring_bytes: u64,
    /// Sequence of the ring's first record.
    pub first_sequence: Sequence,
}

impl LegLabel {
    /// The block to write.
    pub fn encode(&self) -> [u8; BLOCK_BYTES as usize] {
        let mut header = LegHeader {
            magic: LEG_MAGIC,
            format_version: U16::new(FORMAT_VERSION),
            check_kind: MEDIA_CHECK_CRC64_NVME,
            reserved: [0; 5],
            pool: self.pool.0,
            incarnation: self.incarnation.0,
            ring: U64::new(self.ring.0),
            ring_bytes: U64::new(self.ring_bytes),
            first_sequence: U64::new(self.first_sequence.0),
            padding: [0; 4096 - 80],
            check: U64::ZERO,
        };
        header.check = U64::new(media_check(0, &header.as_bytes()[..BLOCK_BYTES as usize - 8]).0);
        let mut block = [0; BLOCK_BYTES as usize];
        block.copy_from_slice(header.as_bytes());
        block
    }

    /// The label in `block`, if it is an undamaged one of a version we know.
    pub fn decode(block: &[u8]) -> Option<LegLabel> {
        let (header, _) = LegHeader::read_from_prefix(block).ok()?;
        let known = header.magic == LEG_MAGIC
            && header.format_version.get() == FORMAT_VERSION
            && header.check_kind == MEDIA_CHECK_CRC64_NVME;
        let check = media_check(0, &header.as_bytes()[..BLOCK_BYTES as usize - 8]).0;
        let ring_bytes = header.ring_bytes.get();
        if !known || check != header.check.get() || ring_bytes == 0 || !ring_bytes.is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        Some(LegLabel {
            pool: GroupId(header.pool),
            incarnation: Incarnation(header.incarnation),
            ring: RingId(header.ring.get()),
            ring_bytes,
            first_sequence: Sequence(header.first_sequence.get()),
        })
    }
}

/// From where a ring is to be read back. Stands in the engine's root; what lies before
/// it may be overwritten as soon as that root is durable.
///
/// It names the *anchor*: the batch that holds record `through`. The anchor stays in
/// the ring although it is trimmed, so that a leg which lacks it is known to be blank
/// or an older image, and an empty journal is never confused with a lost one (F23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimPoint {
    /// Every record up to this one is in the root.
    pub through: Sequence,
    /// First record of the anchor.
    pub anchor_first: Sequence,
    /// Where the anchor starts.
    pub anchor_position_bytes: u64,
    /// Digest of the record before the anchor.
    pub anchor_previous: u64,
}

impl TrimPoint {
    /// Size of [`encode`](TrimPoint::encode)'s result.
    pub const BYTES: usize = 32;

    /// As it stands in a root. The root's own check guards it.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let words = [self.through.0, self.anchor_first.0, self.anchor_position_bytes, self.anchor_previous];
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(words.map(U64::new).as_bytes());
        bytes
    }

    /// Reads what [`encode`](TrimPoint::encode) wrote.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> TrimPoint {
        let words: [U64; 4] = zerocopy::transmute!(*bytes);
        TrimPoint {
            through: Sequence(words[0].get()),
            anchor_first: Sequence(words[1].get()),
            anchor_position_bytes: words[2].get(),
            anchor_previous: words[3].get(),
        }
    }
}
