//! The label: who a drive is. Two copies, written once when the drive joins, so a drive
//! is identified before anything else on it is read, and nothing is ever written to a
//! drive that is not identified (`faults.md` F08).

use base::check::media_check;
use base::id::{DriveId, GroupId};

use crate::fields::{Reader, Writer};
use crate::layout::{Shape, Slot};

const MAGIC: &[u8; 8] = b"vmh.labl";
/// Format of a group with two seats; one of before there were two has [`ONE_SEAT_FORMAT`].
const FORMAT: u16 = 2;
const ONE_SEAT_FORMAT: u16 = 1;
const CHECKED_BYTES: usize = Shape::BLOCK_BYTES - 8;

/// Identity of a member drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its group.
    pub group: GroupId,
    /// Its own id.
    pub drive: DriveId,
    /// Its slot in the group.
    pub slot: Slot,
    /// Offsets on the drive.
    pub shape: Shape,
    /// Extents on the drive.
    pub extents: u32,
    /// Name of the group.
    pub name: String,
}

/// What the label blocks of a drive hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelState {
    /// A good label.
    Good(Label),
    /// Zeros: never written.
    Blank,
    /// Something that is not a good label of ours.
    Unknown,
}

impl Label {
    /// The label as a block of [`Shape::BLOCK_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(MAGIC);
        let has_seats = self.shape.seats > 1;
        out.u16(if has_seats { FORMAT } else { ONE_SEAT_FORMAT });
        out.u8(self.slot.0);
        out.u8(if has_seats { self.shape.seats } else { 0 });
        out.raw(&self.group.0);
        out.raw(&self.drive.0);
        out.u32(self.shape.unit_bytes);
        out.u32(self.shape.rows);
        out.u32(self.shape.header_slot_bytes);
        out.u32(self.extents);
        out.text(&self.name);
        out.pad_to(CHECKED_BYTES);
        let check = media_check(0, &out.bytes).0;
        out.u64(check);
        out.bytes
    }

    /// Reads one copy. Never panics, whatever the bytes.
    pub fn decode(block: &[u8]) -> LabelState {
        if block.len() != Shape::BLOCK_BYTES {
            return LabelState::Unknown;
        }
        let (checked, check) = block.split_at(CHECKED_BYTES);
        if check != media_check(0, checked).0.to_le_bytes() {
            let blank = block.iter().all(|&byte| byte == 0);
            return if blank { LabelState::Blank } else { LabelState::Unknown };
        }
        Self::fields(checked).map_or(LabelState::Unknown, LabelState::Good)
    }

    fn fields(checked: &[u8]) -> Option<Label> {
        let mut input = Reader::new(checked);
        let (magic, format) = (input.raw(8)?, input.u16()?);
        if magic != MAGIC || !(ONE_SEAT_FORMAT..=FORMAT).contains(&format) {
            return None;
        }
        let slot = Slot(input.u8()?);
        let seats = input.u8()?;
        let seats = if format == ONE_SEAT_FORMAT { 1 } else { seats };
        let (group, drive) = (GroupId(input.array()?), DriveId(input.array()?));
        let (unit_bytes, rows, header_slot_bytes) = (input.u32()?, input.u32()?, input.u32()?);
        let shape = Shape { unit_bytes, rows, header_slot_bytes, seats };
        let extents = input.u32()?;
        let name = input.text()?;
        let sane = shape.is_sane() && usize::from(slot.0) < crate::layout::DRIVES_MAX && extents <= shape.extents_max();
        sane.then_some(Label { group, drive, slot, shape, extents, name })
    }
}

impl LabelState {
    /// What two copies say together: the good one, if any; blank only if both are.
    pub fn merge(self, other: LabelState) -> LabelState {
        match (self, other) {
            (LabelState::Good(label), _) | (_, LabelState::Good(label)) => LabelState::Good(label),
            (LabelState::Blank, LabelState::Blank) => LabelState::Blank,
            _ => LabelState::Unknown,
        }
    }
}
