//! Formatting a journal, and opening one: read, decide, mend, only then go on.

use std::rc::Rc;

use base::port::{Leg, MediaFault, World};
use base::{Buf, BufMut, GroupId, Incarnation};
use zerocopy::IntoBytes;

use crate::format::{BLOCK_BYTES, LegLabel, RECORD_HEADER_BYTES, RING_START_BYTES, RecordHeader, RingId, TrimPoint};
use crate::journal::{Config, Journal};
use crate::pump::write_ring;
use crate::record::{Kind, Record, Scope, Sequence, Tag};
use crate::recover::{Blocked, Gap, Image, Mend, Recovery, recover};
use crate::ring::{LEGS_MAX, Ring};
use crate::state::{LegSlot, Start};
use crate::timed::TimedLeg;

/// Bytes read or written at a time when a whole ring is.
const CHUNK_BYTES: u64 = 4 << 20;

/// What the engine's root says about the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRoot {
    /// The pool the journal serves.
    pub pool: GroupId,
    /// From where to replay.
    pub trim: TrimPoint,
    /// The legs that hold every stable record.
    pub incarnations: Vec<Incarnation>,
}

/// What a leg turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegVerdict {
    /// One the root names; this many batches had to be written to it again.
    Member {
        /// Batches mended from the other leg.
        mended_batches: u64,
    },
    /// No leg header and nothing else in its place.
    Blank,
    /// Of another pool.
    Foreign,
    /// Of this pool, but not a life of it that the root names.
    OldIncarnation,
    /// Both copies of its header are damaged.
    Damaged,
    /// It cannot be read, or failed while it was mended.
    Faulty(MediaFault),
    /// The same life as another leg: one of the two is a copy.
    Duplicate,
    /// Smaller than its header says.
    Truncated,
}

/// What opening found.
#[derive(Debug)]
pub struct Recovered {
    /// Records to replay, in order; all of them are stable now. Bodies are slices of the
    /// images read.
    pub records: Vec<Record>,
    /// Ranges whose newest content is lost on every leg.
    pub blocked: Vec<Blocked>,
    /// One per leg, as given.
    pub legs: Vec<LegVerdict>,
    /// How often each row of the recovery table was used, `A` first.
    pub letters: [u64; 17],
}

/// Why the journal was not opened. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// No leg the root names is there.
    #[error("no leg of this journal is present: {legs:?}")]
    NoMember {
        /// One per leg, as given.
        legs: Vec<LegVerdict>,
    },
    /// Legs of one journal disagree about its shape.
    #[error("the legs do not describe the same ring")]
    Mismatch,
    /// Acknowledged records are gone and nothing says what they were. With the anchor's
    /// sequence first, the leg is blank or an older image.
    #[error("acknowledged records {} to {} are gone (case {}), OSNs above {}", .gap.first, .gap.last, .gap.letter, .gap.after_osn)]
    Gone {
        /// What may be gone.
        gap: Gap,
        /// One per leg, as given.
        legs: Vec<LegVerdict>,
    },
    /// Every leg failed while it was mended.
    #[error("every leg failed while the journal was opened: {legs:?}")]
    Failed {
        /// One per leg, as given.
        legs: Vec<LegVerdict>,
    },
}

/// Why formatting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatRefused {
    /// One or two legs, each with its own incarnation.
    #[error("a journal has one or two legs with an incarnation each")]
    Legs,
    /// The ring would be smaller than [`RING_BYTES_MIN`].
    #[error("a leg is smaller than {needed_bytes} bytes")]
    TooSmall {
        /// Smallest legal capacity.
        needed_bytes: u64,
    },
    /// A leg failed.
    #[error("a leg failed: {0}")]
    Fault(#[from] MediaFault),
}

/// Smallest ring, in bytes.
pub const RING_BYTES_MIN: u64 = 16 * BLOCK_BYTES;

impl Journal {
    /// Makes an empty journal on `legs`, writing all of them once, and returns what the
    /// root must say. The first record appended will have a sequence above
    /// `first_sequence`, which goes to the anchor. What the legs held is gone.
    pub async fn format(
        legs: &[Rc<dyn Leg>],
        pool: GroupId,
        incarnations: &[Incarnation],
        first_sequence: Sequence,
    ) -> Result<JournalRoot, FormatRefused> {
        let distinct = incarnations.len() < 2 || incarnations[0] != incarnations[1];
        if !(1..=LEGS_MAX).contains(&legs.len()) || legs.len() != incarnations.len() || !distinct {
            return Err(FormatRefused::Legs);
        }
        let smallest = legs.iter().map(|leg| leg.info().capacity_bytes).min().unwrap_or(0);
        let ring_bytes = smallest.saturating_sub(RING_START_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
        if ring_bytes < RING_BYTES_MIN {
            return Err(FormatRefused::TooSmall { needed_bytes: RING_START_BYTES + RING_BYTES_MIN });
        }
        let ring = RingId::born(pool, incarnations, first_sequence);
        let trim = TrimPoint {
            through: first_sequence,
            anchor_first: first_sequence,
            anchor_position_bytes: 0,
            anchor_previous: ring.0,
        };
        let anchor = anchor_batch(ring, trim);
        for (leg, &incarnation) in legs.iter().zip(incarnations) {
            write_zeros(leg.as_ref(), RING_START_BYTES + ring_bytes).await?;
            write_ring(leg.clone(), ring_bytes, 0, vec![anchor.clone()]).await?;
            write_label(leg.as_ref(), &LegLabel { pool, incarnation, ring, ring_bytes, first_sequence }).await?;
        }
        Ok(JournalRoot { pool, trim, incarnations: incarnations.to_vec() })
    }

    /// Opens the journal that `root` describes from those of `legs` that belong to it.
    /// Everything is checked, and copies made whole, before this returns. If a leg that
    /// the root names is not there, [`root_needed`](Journal::root_needed) is due before
    /// anything becomes stable, and before the engine serves.
    pub async fn open(
        legs: Vec<Rc<dyn Leg>>,
        root: &JournalRoot,
        world: World,
        config: Config,
    ) -> Result<(Journal, Recovered), OpenRefused> {
        let timed: Vec<Rc<dyn Leg>> = legs.iter().map(|leg| TimedLeg::wrap(leg, &world)).collect();
        let (mut verdicts, members) = identify(&timed, root).await;
        let Some(&(_, label)) = members.first() else {
            return Err(OpenRefused::NoMember { legs: verdicts });
        };
        if members.iter().any(|(_, other)| (other.ring, other.ring_bytes) != (label.ring, label.ring_bytes)) {
            return Err(OpenRefused::Mismatch);
        }
        let anchor = root.trim.anchor_position_bytes;
        let mut images = Vec::new();
        for &(index, _) in &members {
            images.push(read_ring(timed[index].as_ref(), label.ring_bytes, anchor).await);
        }
        let found = match recover(&images, label.ring, root.trim) {
            Ok(found) => found,
            Err(gap) => return Err(OpenRefused::Gone { gap, legs: verdicts }),
        };
        drop(images);
        let whole = mend(&timed, &members, &found.mends, &mut verdicts).await;
        let slot = |&(index, label): &(usize, LegLabel)| LegSlot {
            leg: legs[index].clone(),
            incarnation: label.incarnation,
            active: true,
        };
        let slots: Vec<LegSlot> = whole.iter().map(slot).collect();
        if slots.is_empty() {
            return Err(OpenRefused::Failed { legs: verdicts });
        }
        let Recovery { records, blocked, letters, .. } = found;
        let start = Start {
            ring: Ring::new(label.ring_bytes, found.batches, root.trim.through, slots.len()),
            label,
            legs: slots,
            root: root.incarnations.clone(),
            digest: found.digest,
            proven: found.acknowledged,
            last_payload: found.last_payload,
        };
        let journal = Journal::start(start, world, config);
        if journal.seal_opening().await.is_err() {
            return Err(OpenRefused::Failed { legs: verdicts });
        }
        Ok((journal, Recovered { records, blocked, legs: verdicts, letters }))
    }
}

/// The first batch of a ring: one seal.
fn anchor_batch(ring: RingId, trim: TrimPoint) -> Buf {
    let tag = Tag { kind: Kind::SEAL, stream: 0, epoch: base::Epoch(0), osn: base::Osn(0), scope: Scope::default() };
    let mut header = RecordHeader::new(trim.anchor_first, &tag, &[], &[]);
    header.previous.set(trim.anchor_previous);
    header.stable_through.set(trim.anchor_first.0);
    header.batch_blocks.set(1);
    header.batch_records.set(1);
    header.close(ring);
    let mut block = BufMut::zeroed(BLOCK_BYTES as usize);
    block[..RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
    block.freeze()
}

pub(crate) async fn write_zeros(leg: &dyn Leg, length_bytes: u64) -> Result<(), MediaFault> {
    let zeros = BufMut::zeroed(CHUNK_BYTES.min(length_bytes) as usize).freeze();
    let mut at = 0;
    while at < length_bytes {
        let piece = CHUNK_BYTES.min(length_bytes - at);
        leg.write(at, zeros.slice(..piece as usize)).await?;
        at += piece;
    }
    Ok(())
}

/// Writes both copies, one after the other: a crash leaves at least one.
pub(crate) async fn write_label(leg: &dyn Leg, label: &LegLabel) -> Result<(), MediaFault> {
    let mut block = BufMut::zeroed(BLOCK_BYTES as usize);
    block.copy_from_slice(&label.encode());
    let block = block.freeze();
    leg.write(0, block.clone()).await?;
    leg.write(BLOCK_BYTES, block).await
}

/// Looks at every leg's header. Returns a verdict per leg and the members.
async fn identify(legs: &[Rc<dyn Leg>], root: &JournalRoot) -> (Vec<LegVerdict>, Vec<(usize, LegLabel)>) {
    let mut verdicts = Vec::new();
    let mut members: Vec<(usize, LegLabel)> = Vec::new();
    for (index, leg) in legs.iter().enumerate() {
        let verdict = match read_label(leg.as_ref()).await {
            Err(verdict) => verdict,
            Ok(label) if label.pool != root.pool => LegVerdict::Foreign,
            Ok(label) if !root.incarnations.contains(&label.incarnation) => LegVerdict::OldIncarnation,
            Ok(label) if leg.info().capacity_bytes < RING_START_BYTES + label.ring_bytes => LegVerdict::Truncated,
            Ok(label) if members.iter().any(|(_, known)| known.incarnation == label.incarnation) => {
                LegVerdict::Duplicate
            }
            Ok(label) => {
                members.push((index, label));
                LegVerdict::Member { mended_batches: 0 }
            }
        };
        verdicts.push(verdict);
    }
    (verdicts, members)
}

async fn read_label(leg: &dyn Leg) -> Result<LegLabel, LegVerdict> {
    let mut blank = true;
    let mut fault = None;
    for copy in 0..2 {
        let (result, block) = leg.read(copy * BLOCK_BYTES, BufMut::zeroed(BLOCK_BYTES as usize)).await;
        match result {
            Err(reason) => fault = Some(reason),
            Ok(()) => match LegLabel::decode(&block) {
                Some(label) => return Ok(label),
                None => blank &= block.iter().all(|&byte| byte == 0),
            },
        }
    }
    Err(match fault {
        Some(reason) => LegVerdict::Faulty(reason),
        None if blank => LegVerdict::Blank,
        None => LegVerdict::Damaged,
    })
}

/// Reads one lap from `anchor_position_bytes` on. What gives an error is read again
/// block by block, and noted if it still does; a leg that hangs is not asked again.
async fn read_ring(leg: &dyn Leg, ring_bytes: u64, anchor_position_bytes: u64) -> Image {
    let mut bytes = BufMut::zeroed(ring_bytes as usize);
    let mut unreadable = Vec::new();
    let mut at = 0;
    let mut hangs = false;
    while at < ring_bytes {
        let offset = (anchor_position_bytes + at) % ring_bytes;
        let piece = CHUNK_BYTES.min(ring_bytes - at).min(ring_bytes - offset);
        let into = &mut bytes[at as usize..(at + piece) as usize];
        let read = if hangs { Err(MediaFault::Timeout) } else { read_into(leg, RING_START_BYTES + offset, into).await };
        for block in 0..if read.is_ok() { 0 } else { piece / BLOCK_BYTES } {
            let from = block * BLOCK_BYTES;
            let into = &mut bytes[(at + from) as usize..(at + from + BLOCK_BYTES) as usize];
            hangs |= read == Err(MediaFault::Timeout);
            if hangs || read_into(leg, RING_START_BYTES + offset + from, into).await.is_err() {
                unreadable.push(at / BLOCK_BYTES + block);
            }
        }
        at += piece;
    }
    Image { bytes: bytes.freeze(), unreadable }
}

async fn read_into(leg: &dyn Leg, offset_bytes: u64, into: &mut [u8]) -> Result<(), MediaFault> {
    let (result, piece) = leg.read(offset_bytes, BufMut::zeroed(into.len())).await;
    result?;
    into.copy_from_slice(&piece);
    Ok(())
}

/// Makes every member hold every batch that was found. Returns those that do.
async fn mend(
    legs: &[Rc<dyn Leg>],
    members: &[(usize, LegLabel)],
    mends: &[Mend],
    verdicts: &mut [LegVerdict],
) -> Vec<(usize, LegLabel)> {
    let mut whole = Vec::new();
    for (member, &(place, label)) in members.iter().enumerate() {
        let leg = &legs[place];
        let mut verdict = LegVerdict::Member { mended_batches: 0 };
        for mend in mends.iter().filter(|mend| mend.legs & 1 << member != 0) {
            let write = write_ring(leg.clone(), label.ring_bytes, mend.mark.position_bytes, vec![mend.bytes.clone()]);
            match (write.await, &mut verdict) {
                (Ok(()), LegVerdict::Member { mended_batches }) => *mended_batches += 1,
                (Ok(()), _) => {}
                (Err(fault), verdict) => *verdict = LegVerdict::Faulty(fault),
            }
        }
        if matches!(verdict, LegVerdict::Member { .. }) {
            whole.push((place, label));
        }
        verdicts[place] = verdict;
    }
    whole
}
