//! Register slots and session blocks: the codec of what drives hold as acceptors of the
//! group header and of the named blobs.
//!
//! Each register has two slots on each drive. A new value goes into the slot that does
//! *not* hold the newest good one, so a torn write never destroys what was decided. A
//! value carries `(session, version)`: the version is the compare-and-set version, the
//! session is raised, on a majority, each time a group is opened, before anything is
//! rewritten. Values are ordered by session first, so what a crashed owner left on a
//! minority can never win over what a later owner decided (`protocols.md` C.6).

use base::check::media_check;
use base::id::GroupId;

use crate::fields::{Reader, Writer};
use crate::layout::Shape;

const SLOT_MAGIC: &[u8; 8] = b"vmh.regs";
const SESSION_MAGIC: &[u8; 8] = b"vmh.sess";
const FORMAT: u16 = 1;
/// Bytes of a slot before its value.
pub const SLOT_HEADER_BYTES: usize = 128;
const SLOT_CHECKED_BYTES: usize = SLOT_HEADER_BYTES - 8;
const SESSION_CHECKED_BYTES: usize = Shape::BLOCK_BYTES - 8;

/// Order of values of a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Opening of the group that wrote it.
    pub session: u64,
    /// Compare-and-set version; 0 is "never set".
    pub version: u64,
}

/// A register's value as one slot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotValue {
    /// Its order.
    pub stamp: Stamp,
    /// The value.
    pub bytes: Vec<u8>,
}

/// A slot image of whole 4 KiB blocks for register `index`.
pub fn encode_slot(group: GroupId, index: usize, value: &SlotValue) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(SLOT_MAGIC);
    out.u16(FORMAT);
    out.u16(u16::try_from(index).expect("few registers"));
    out.u32(u32::try_from(value.bytes.len()).expect("fits its slot"));
    out.raw(&group.0);
    out.u64(value.stamp.session);
    out.u64(value.stamp.version);
    out.u64(media_check(value.stamp.version, &value.bytes).0);
    out.pad_to(SLOT_CHECKED_BYTES);
    let check = media_check(0, &out.bytes).0;
    out.u64(check);
    out.raw(&value.bytes);
    let len = out.bytes.len().next_multiple_of(Shape::BLOCK_BYTES);
    out.pad_to(len);
    out.bytes
}

/// What the header of a slot says of the value behind it.
struct SlotHeader {
    stamp: Stamp,
    len_bytes: usize,
    check: u64,
}

/// The header of a slot of register `index` of `group`, if it is whole and good.
fn decode_header(group: GroupId, index: usize, header: &[u8]) -> Option<SlotHeader> {
    let (checked, check) = header.split_at_checked(SLOT_CHECKED_BYTES)?;
    if check != media_check(0, checked).0.to_le_bytes() {
        return None;
    }
    let mut input = Reader::new(checked);
    let known = input.raw(8)? == SLOT_MAGIC && input.u16()? == FORMAT && usize::from(input.u16()?) == index;
    let len_bytes = usize::try_from(input.u32()?).ok()?;
    if !known || input.raw(16)? != group.0 {
        return None;
    }
    Some(SlotHeader { stamp: Stamp { session: input.u64()?, version: input.u64()? }, len_bytes, check: input.u64()? })
}

/// Bytes of the slot image whose first block this is, in whole blocks. `None` if none of register
/// `index` of `group` begins here.
pub fn slot_image_bytes(group: GroupId, index: usize, first: &[u8]) -> Option<usize> {
    let header = decode_header(group, index, first.get(..SLOT_HEADER_BYTES)?)?;
    header.len_bytes.checked_add(SLOT_HEADER_BYTES)?.checked_next_multiple_of(Shape::BLOCK_BYTES)
}

/// The value in `slot`, if it is a whole and good one of register `index` of `group`.
/// Never panics, whatever the bytes.
pub fn decode_slot(group: GroupId, index: usize, slot: &[u8]) -> Option<SlotValue> {
    let (header, rest) = slot.split_at_checked(SLOT_HEADER_BYTES)?;
    let SlotHeader { stamp, len_bytes, check } = decode_header(group, index, header)?;
    let bytes = rest.get(..len_bytes)?;
    (check == media_check(stamp.version, bytes).0).then(|| SlotValue { stamp, bytes: bytes.to_vec() })
}

/// A session block: the promise that sessions below `session` are over.
pub fn encode_session(group: GroupId, session: u64) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(SESSION_MAGIC);
    out.u16(FORMAT);
    out.raw(&group.0);
    out.u64(session);
    out.pad_to(SESSION_CHECKED_BYTES);
    let check = media_check(0, &out.bytes).0;
    out.u64(check);
    out.bytes
}

/// The session in `block`, if it is a good one of `group`. Never panics.
pub fn decode_session(group: GroupId, block: &[u8]) -> Option<u64> {
    let (checked, check) = block.split_at_checked(SESSION_CHECKED_BYTES)?;
    // Of the four that every decision reads on every drive, those of a seat nobody took are blank.
    if !checked.starts_with(&SESSION_MAGIC[..]) || check != media_check(0, checked).0.to_le_bytes() {
        return None;
    }
    let mut input = Reader::new(checked);
    let known = input.raw(8)? == SESSION_MAGIC && input.u16()? == FORMAT && input.raw(16)? == group.0;
    if known { input.u64() } else { None }
}
