//! The stripe unit: a 512-byte header that says what the unit is, where it belongs and
//! what its payload and its whole stripe must look like (R-STR-01, -02).
//!
//! What finds what (R-STR-03, `faults.md` F01 to F06):
//!
//! | damage | found by |
//! |---|---|
//! | bit flip, torn write | header check, payload check |
//! | lost write | generation, or a segment that owned this place before |
//! | misplaced write | the header names another place; old content at the right one |
//! | wrong-offset read | the same, gone on the second read |
//! | swapped units | role and position |
//! | whole stripe from different writes | the stripe digest over all payload checks |
//!
//! The payload check is seeded with the unit's identity, so the same bytes under
//! another generation, place or role do not pass. The byte layout is in
//! `docs/formats/raid.md`.

use base::buf::{Buf, BufMut};
use base::check::{MEDIA_CHECK_CRC64_NVME, media_check};
use base::id::{DriveId, GroupId};
use base::port::MediaFault;

use crate::fields::{Reader, Writer};
use crate::layout::{DRIVES_MAX, Geometry, Place, Segment, SegmentId, Slot, StripeId, UNIT_HEADER_BYTES};

const MAGIC: &[u8; 8] = b"vmh.unit";
const FORMAT: u16 = 1;
/// The header check is the last field.
const CHECKED_BYTES: usize = UNIT_HEADER_BYTES - 8;

/// What is wrong with a unit that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Damage {
    /// Its drive is failed or missing.
    #[error("drive absent")]
    Absent,
    /// The drive answered with a fault.
    #[error("unreadable")]
    Unreadable,
    /// Zeros: the write never happened.
    #[error("blank")]
    Blank,
    /// The header's own check fails.
    #[error("header damaged")]
    Header,
    /// The payload check fails.
    #[error("payload damaged")]
    Payload,
    /// A unit of another group.
    #[error("foreign")]
    Foreign,
    /// A unit of another place.
    #[error("misplaced")]
    Misplaced,
    /// Another unit of this very stripe.
    #[error("swapped")]
    Swapped,
    /// What was here before: a write was lost.
    #[error("stale")]
    Stale,
    /// Good by itself, but of another set of units than its peers.
    #[error("stripe digest differs")]
    Digest,
    /// The caller's own check refused the bytes.
    #[error("content refused by its reference")]
    Content,
}

impl From<MediaFault> for Damage {
    fn from(fault: MediaFault) -> Damage {
        match fault {
            // Who asks a drive that hangs again only waits again.
            MediaFault::Gone | MediaFault::Timeout => Damage::Absent,
            MediaFault::Io | MediaFault::ReadOnly => Damage::Unreadable,
        }
    }
}

/// The header of a stripe unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitHeader {
    /// The group it belongs to.
    pub group: GroupId,
    /// The drive it was written to.
    pub drive: DriveId,
    /// The stripe.
    pub stripe: StripeId,
    /// Generation of the stripe's content; never reused in a pool.
    pub generation: u64,
    /// Role: data unit index, then P, then Q.
    pub role: u8,
    /// Position in the segment.
    pub position: u8,
    /// Geometry of the stripe.
    pub geometry: Geometry,
    /// Extents of the whole segment by position.
    pub places: Vec<Place>,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Check of the payload, see [`payload_check`].
    pub payload_check: u64,
    /// Check over the payload checks of all units by role, see [`stripe_digest`].
    pub stripe_digest: u64,
}

/// Check of a unit's payload, bound to its stripe, generation and role.
pub fn payload_check(stripe: StripeId, generation: u64, role: u8, payload: &[u8]) -> u64 {
    let place = stripe.pack().rotate_left(17);
    let role = u64::from(role).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    media_check(generation ^ place ^ role, payload).0
}

/// Check over the payload checks of all units of a stripe, in role order.
pub fn stripe_digest(generation: u64, payload_checks: &[u64]) -> u64 {
    let bytes: Vec<u8> = payload_checks.iter().flat_map(|check| check.to_le_bytes()).collect();
    media_check(generation, &bytes).0
}

impl UnitHeader {
    /// Writes the header into the first 512 bytes of a unit.
    pub fn encode_into(&self, unit: &mut [u8]) {
        let mut out = Writer { bytes: Vec::with_capacity(UNIT_HEADER_BYTES) };
        out.raw(MAGIC);
        out.u16(FORMAT);
        out.u8(MEDIA_CHECK_CRC64_NVME);
        out.u8(0);
        out.u8(self.geometry.data);
        out.u8(self.geometry.parity);
        out.u8(self.role);
        out.u8(self.position);
        out.raw(&self.group.0);
        out.raw(&self.drive.0);
        out.u64(self.generation);
        out.u32(self.stripe.segment.0);
        out.u32(self.stripe.row);
        out.u32(self.payload_bytes);
        out.u32(0);
        out.u64(self.payload_check);
        out.u64(self.stripe_digest);
        out.u64(0);
        for place in &self.places {
            out.u8(place.slot.0);
            out.u16(place.extent);
        }
        out.pad_to(CHECKED_BYTES);
        let check = media_check(0, &out.bytes).0;
        out.u64(check);
        unit[..UNIT_HEADER_BYTES].copy_from_slice(&out.bytes);
    }

    /// Reads a header whose own check holds; says [`Damage::Blank`] or
    /// [`Damage::Header`] otherwise. Never panics, whatever the bytes.
    pub fn decode(unit: &[u8]) -> Result<UnitHeader, Damage> {
        let bytes = unit.get(..UNIT_HEADER_BYTES).ok_or(Damage::Header)?;
        let (checked, check) = bytes.split_at(CHECKED_BYTES);
        if check != media_check(0, checked).0.to_le_bytes() {
            let blank = bytes.iter().all(|&byte| byte == 0);
            return Err(if blank { Damage::Blank } else { Damage::Header });
        }
        Self::fields(checked).ok_or(Damage::Header)
    }

    fn fields(checked: &[u8]) -> Option<UnitHeader> {
        let mut input = Reader::new(checked);
        let known = input.raw(8)? == MAGIC && input.u16()? == FORMAT && input.u8()? == MEDIA_CHECK_CRC64_NVME;
        let _flags = input.u8()?;
        let geometry = Geometry { data: input.u8()?, parity: input.u8()? };
        let (role, position) = (input.u8()?, input.u8()?);
        let width = geometry.width();
        let sane = width <= DRIVES_MAX && usize::from(role) < width && usize::from(position) < width;
        if !known || !sane {
            return None;
        }
        let group = GroupId(input.array()?);
        let drive = DriveId(input.array()?);
        let generation = input.u64()?;
        let stripe = StripeId { segment: SegmentId(input.u32()?), row: input.u32()? };
        let payload_bytes = input.u32()?;
        let _reserved = input.u32()?;
        let (payload_check, stripe_digest) = (input.u64()?, input.u64()?);
        let _reserved = input.u64()?;
        let place = |input: &mut Reader<'_>| Some(Place { slot: Slot(input.u8()?), extent: input.u16()? });
        let places = (0..width).map(|_| place(&mut input)).collect::<Option<Vec<_>>>()?;
        Some(UnitHeader {
            group,
            drive,
            stripe,
            generation,
            role,
            position,
            geometry,
            places,
            payload_bytes,
            payload_check,
            stripe_digest,
        })
    }
}

/// The unit as it stands on `drive`: a copy with another header where it says another drive.
pub(crate) fn headed_for(unit: &Buf, drive: DriveId) -> Buf {
    match UnitHeader::decode(unit) {
        Ok(header) if header.drive != drive => {
            let mut copy = BufMut::zeroed(unit.len());
            copy.copy_from_slice(unit);
            UnitHeader { drive, ..header }.encode_into(&mut copy);
            copy.freeze()
        }
        _ => unit.clone(),
    }
}

/// What a unit must say to be the one that was asked for.
pub(crate) struct Wanted<'a> {
    pub group: GroupId,
    pub drive: DriveId,
    pub segment: &'a Segment,
    pub row: u32,
    pub role: usize,
    /// `None` when the reader does not know it.
    pub generation: Option<u64>,
}

impl Wanted<'_> {
    /// Header of the `unit` (whole, as read) if everything about it is right.
    pub fn check(&self, unit: &[u8]) -> Result<UnitHeader, Damage> {
        let header = UnitHeader::decode(unit)?;
        self.check_identity(&header)?;
        let payload = &unit[UNIT_HEADER_BYTES..];
        let len_is = usize::try_from(header.payload_bytes) == Ok(payload.len());
        if !len_is || payload_check(header.stripe, header.generation, header.role, payload) != header.payload_check {
            return Err(Damage::Payload);
        }
        Ok(header)
    }

    fn check_identity(&self, header: &UnitHeader) -> Result<(), Damage> {
        let stripe = StripeId { segment: self.segment.id, row: self.row };
        let position = self.segment.position_of(self.role, self.row);
        if header.group != self.group {
            return Err(Damage::Foreign);
        }
        if header.stripe != stripe {
            let here = self.segment.places[position];
            let was_here = header.drive == self.drive
                && header.stripe.row == self.row
                && header.places.get(usize::from(header.position)) == Some(&here);
            return Err(if was_here { Damage::Stale } else { Damage::Misplaced });
        }
        if usize::from(header.role) != self.role || usize::from(header.position) != position {
            return Err(Damage::Swapped);
        }
        let same_shape = header.geometry == self.segment.geometry && header.places == self.segment.places;
        if header.drive != self.drive || !same_shape {
            return Err(Damage::Misplaced);
        }
        match self.generation {
            Some(wanted) if header.generation != wanted => Err(Damage::Stale),
            _ => Ok(()),
        }
    }
}
