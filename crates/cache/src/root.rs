//! What a log says of itself, and where its replay begins: two slots at its start, written
//! in turns, so that a torn write leaves the one before. Twin of `docs/formats/host.md`.
//!
//! A root written is a *checkpoint* (R-CKP-01): a serial and the disk's id, with the trim
//! point of the ring that belongs to it.

use std::fmt;
use std::rc::Rc;

use base::check::MEDIA_CHECK_CRC64_NVME;
use base::port::{Leg, MediaFault};
use base::{BufMut, Epoch, GroupId, Incarnation, Osn, media_check};
use journal::{JournalRoot, TrimPoint};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A slot.
pub const SLOT_BYTES: u64 = 4096;
/// Where the ring's leg starts: after both slots.
pub const RING_AT_BYTES: u64 = 2 * SLOT_BYTES;
/// Longest name of a disk, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest name of a backing store.
pub const BACKING_BYTES_MAX: usize = 2048;

const MAGIC: [u8; 8] = *b"vmholdHR";
const VERSION: u16 = 1;
const CHECK_AT: usize = SLOT_BYTES as usize - 8;

/// Identity of an accelerated disk, drawn when it is attached for the first time.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub [u8; 16]);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is demanded before a write is acknowledged. The numbers are on media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// *wt*: the backing store has it.
    WriteThrough,
    /// *wb*: own flash has it.
    WriteBack,
}

impl Policy {
    /// `wt` or `wb`.
    pub const fn word(self) -> &'static str {
        match self {
            Policy::WriteThrough => "wt",
            Policy::WriteBack => "wb",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Policy::WriteThrough => 0,
            Policy::WriteBack => 1,
        }
    }

    fn of(number: u8) -> Option<Policy> {
        [Policy::WriteThrough, Policy::WriteBack].into_iter().find(|policy| policy.number() == number)
    }
}

/// The fixed part of a slot; name and backing follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Slot {
    magic: [u8; 8],
    version: U16,
    check_kind: u8,
    policy: u8,
    name_bytes: U16,
    backing_bytes: U16,
    generation: U64,
    disk: [u8; 16],
    flash: [u8; 16],
    checkpoint: U64,
    term: U64,
    capacity_bytes: U64,
    incarnation: [u8; 16],
    trim: [u8; TrimPoint::BYTES],
}

/// See the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRoot {
    /// Raised with every write of a root.
    pub generation: u64,
    /// Whose log it is.
    pub disk: DiskId,
    /// What people call the disk.
    pub name: String,
    /// Path or URI of the backing store.
    pub backing: String,
    /// Size of the disk in bytes, as it was when it was attached.
    pub capacity_bytes: u64,
    /// The policy in force.
    pub policy: Policy,
    /// Everything up to this serial is in the backing store.
    pub checkpoint: Osn,
    /// Term of the owner who writes the log.
    pub term: Epoch,
    /// What the ring needs to be opened.
    pub journal: JournalRoot,
}

impl LogRoot {
    /// Its bytes.
    pub fn encode(&self) -> BufMut {
        let [incarnation] = self.journal.incarnations[..] else { unreachable!("a host's log has one leg") };
        assert!(self.name.len() <= NAME_BYTES_MAX && self.backing.len() <= BACKING_BYTES_MAX, "checked at attaching");
        let slot = Slot {
            magic: MAGIC,
            version: U16::new(VERSION),
            check_kind: MEDIA_CHECK_CRC64_NVME,
            policy: self.policy.number(),
            name_bytes: U16::new(self.name.len() as u16),
            backing_bytes: U16::new(self.backing.len() as u16),
            generation: U64::new(self.generation),
            disk: self.disk.0,
            flash: self.journal.pool.0,
            checkpoint: U64::new(self.checkpoint.0),
            term: U64::new(self.term.0),
            capacity_bytes: U64::new(self.capacity_bytes),
            incarnation: incarnation.0,
            trim: self.journal.trim.encode(),
        };
        let mut bytes = BufMut::zeroed(SLOT_BYTES as usize);
        let mut at = 0;
        for part in [slot.as_bytes(), self.name.as_bytes(), self.backing.as_bytes()] {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let check = media_check(0, &bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.0.to_le_bytes());
        bytes
    }

    /// The root in `bytes`, if it is one, undamaged and of a version we know.
    pub fn decode(bytes: &[u8]) -> Option<LogRoot> {
        let (checked, check) = bytes.get(..SLOT_BYTES as usize)?.split_at(CHECK_AT);
        let (slot, rest) = Slot::read_from_prefix(checked).ok()?;
        let known = slot.magic == MAGIC && slot.version.get() == VERSION && slot.check_kind == MEDIA_CHECK_CRC64_NVME;
        if !known || media_check(0, checked).0.to_le_bytes() != *check {
            return None;
        }
        let (name_bytes, backing_bytes) = (slot.name_bytes.get() as usize, slot.backing_bytes.get() as usize);
        if name_bytes > NAME_BYTES_MAX || backing_bytes > BACKING_BYTES_MAX {
            return None;
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8(rest.get(range)?.to_vec()).ok();
        Some(LogRoot {
            generation: slot.generation.get(),
            disk: DiskId(slot.disk),
            name: text(0..name_bytes)?,
            backing: text(name_bytes..name_bytes + backing_bytes)?,
            capacity_bytes: slot.capacity_bytes.get(),
            policy: Policy::of(slot.policy)?,
            checkpoint: Osn(slot.checkpoint.get()),
            term: Epoch(slot.term.get()),
            journal: JournalRoot {
                pool: GroupId(slot.flash),
                trim: TrimPoint::decode(&slot.trim),
                incarnations: vec![Incarnation(slot.incarnation)],
            },
        })
    }

    /// Writes it to the slot whose turn it is.
    pub async fn write(&self, log: &dyn Leg) -> Result<(), MediaFault> {
        let at = self.generation % 2 * SLOT_BYTES;
        log.write(at, self.encode().freeze()).await
    }

    /// The newest root at the start of `log`; none if neither slot holds one.
    pub async fn read(log: &Rc<dyn Leg>) -> Result<Option<LogRoot>, MediaFault> {
        let mut newest: Option<LogRoot> = None;
        let mut fault = None;
        for slot in 0..2 {
            let (result, bytes) = log.read(slot * SLOT_BYTES, BufMut::zeroed(SLOT_BYTES as usize)).await;
            match result {
                Err(reason) => fault = Some(reason),
                Ok(()) => {
                    let found = LogRoot::decode(&bytes);
                    newest = newest.into_iter().chain(found).max_by_key(|root| root.generation);
                }
            }
        }
        match (newest, fault) {
            (None, Some(fault)) => Err(fault),
            (newest, _) => Ok(newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::Sequence;

    fn root() -> LogRoot {
        let trim = TrimPoint {
            through: Sequence(9),
            anchor_first: Sequence(8),
            anchor_position_bytes: 4096,
            anchor_previous: 77,
        };
        LogRoot {
            generation: 3,
            disk: DiskId([1; 16]),
            name: "web-01".into(),
            backing: "/srv/web-01.img".into(),
            capacity_bytes: 1 << 40,
            policy: Policy::WriteBack,
            checkpoint: Osn(8),
            term: Epoch(2),
            journal: JournalRoot { pool: GroupId([4; 16]), trim, incarnations: vec![Incarnation([5; 16])] },
        }
    }

    /// A checkpoint is a serial and the id of its disk, and stands on flash.
    ///
    /// Decides R-CKP-01.
    #[test]
    fn what_goes_in_comes_back_and_any_flipped_bit_is_found() {
        let root = root();
        let mut bytes = root.encode();
        assert_eq!(LogRoot::decode(&bytes), Some(root));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LogRoot::decode(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_understood() {
        bolero::check!().with_iterations(2_000).for_each(|bytes: &[u8]| {
            let mut slot = root().encode();
            let len = bytes.len().min(slot.len() - 8);
            slot[..len].copy_from_slice(&bytes[..len]);
            let check = media_check(0, &slot[..CHECK_AT]);
            slot[CHECK_AT..].copy_from_slice(&check.0.to_le_bytes());
            if let Some(found) = LogRoot::decode(&slot) {
                assert_eq!(LogRoot::decode(&found.encode()), Some(found));
            }
        });
    }
}
