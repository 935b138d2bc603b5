//! The group header: register 0. Members and their states, the names of the other
//! registers, and every segment with its extents; so a group assembles itself from its
//! drives alone. Bounded: it fits its slot by construction ([`Shape::extents_max`]).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base::id::{DriveId, GroupId};

use crate::fields::{Reader, Writer};
use crate::layout::{DRIVES_MAX, Geometry, Place, Policy, Segment, SegmentId, Shape, Slot};

/// Format of a group with two seats; one of before there were two has [`ONE_SEAT_FORMAT`].
const FORMAT: u16 = 3;
const ONE_SEAT_FORMAT: u16 = 2;
/// Longest name of a register, in bytes.
pub const REGISTER_NAME_BYTES_MAX: usize = 32;

/// Longest model and serial of a member, in bytes: 32 members fit.
const TEXT_BYTES_MAX: usize = 96;

/// What was decided about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds what it should and has a vote.
    Good,
    /// It was declared failed: no vote, and nothing on it is trusted.
    Failed,
    /// It joined in place of another and is being filled: it has a vote, and holds every
    /// stripe written since.
    Filling,
    /// Good, and about to give its slot to its twin: no vote.
    Leaving,
}

impl Standing {
    /// Whether the member is one of the acceptors.
    pub fn votes(self) -> bool {
        matches!(self, Standing::Good | Standing::Filling)
    }
}

/// A member as the header knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id, as on its label.
    pub drive: DriveId,
    /// What was decided about it.
    pub standing: Standing,
    /// Its extents.
    pub extents: u32,
    /// Of a failed member: stripes of older generations than this are whole on it, should
    /// the same drive come back. 0 trusts nothing.
    pub whole_below: u64,
    /// Model when it joined, for people.
    pub model: String,
    /// Serial number or path when it joined, for people.
    pub serial: String,
}

/// The group header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The group.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// Offsets on its drives.
    pub shape: Shape,
    /// How new segments are made.
    pub policy: Policy,
    /// Raised at every change of a member.
    pub membership: u64,
    /// Members by slot.
    pub members: Vec<MemberRecord>,
    /// Names of registers 1, 2, ...
    pub registers: Vec<String>,
    /// Id of the next segment.
    pub next_segment: u32,
    /// Segments by id.
    pub segments: BTreeMap<SegmentId, Rc<Segment>>,
}

impl GroupHeader {
    /// Votes there are, and how many make a majority.
    pub fn quorum(&self) -> (usize, usize) {
        let votes = self.members.iter().filter(|member| member.standing.votes()).count();
        (votes, votes / 2 + 1)
    }

    /// The header as a register value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        let has_seats = self.shape.seats > 1;
        out.u16(if has_seats { FORMAT } else { ONE_SEAT_FORMAT });
        out.raw(&self.group.0);
        out.text(&self.name);
        out.u32(self.shape.unit_bytes);
        out.u32(self.shape.rows);
        out.u32(self.shape.header_slot_bytes);
        if has_seats {
            out.u8(self.shape.seats);
        }
        out.u8(self.policy.data_width_max);
        out.u8(self.policy.parity);
        out.u8(self.policy.founding_drives);
        out.u64(self.membership);
        out.u8(u8::try_from(self.members.len()).expect("at most 32 members"));
        for member in &self.members {
            out.raw(&member.drive.0);
            out.u8(member.standing as u8);
            out.u32(member.extents);
            out.u64(member.whole_below);
            out.text(cut(&member.model));
            out.text(cut(&member.serial));
        }
        out.u8(u8::try_from(self.registers.len()).expect("at most 15 names"));
        self.registers.iter().for_each(|name| out.text(name));
        self.encode_segments(&mut out);
        out.bytes
    }

    fn encode_segments(&self, out: &mut Writer) {
        out.u32(self.next_segment);
        out.u32(u32::try_from(self.segments.len()).expect("bounded by extents"));
        for segment in self.segments.values() {
            out.u32(segment.id.0);
            out.u8(segment.geometry.data);
            out.u8(segment.geometry.parity);
            for place in &segment.places {
                out.u8(place.slot.0);
                out.u16(place.extent);
            }
        }
    }

    /// Reads a header and checks that it makes sense: every extent exists and belongs
    /// to one segment at most. Never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let mut input = Reader::new(bytes);
        let format = input.u16()?;
        if !(ONE_SEAT_FORMAT..=FORMAT).contains(&format) {
            return None;
        }
        let group = GroupId(input.array()?);
        let name = input.text()?;
        let (unit_bytes, rows, header_slot_bytes) = (input.u32()?, input.u32()?, input.u32()?);
        let seats = if format == FORMAT { input.u8()? } else { 1 };
        let shape = Shape { unit_bytes, rows, header_slot_bytes, seats };
        let (data_width_max, parity, founding_drives) = (input.u8()?, input.u8()?, input.u8()?);
        let policy = Policy { data_width_max, parity, founding_drives, rows: shape.rows };
        let membership = input.u64()?;
        let member_count = input.u8()?;
        let members = (0..member_count).map(|_| decode_member(&mut input)).collect::<Option<Vec<_>>>()?;
        let register_count = input.u8()?;
        let registers = (0..register_count).map(|_| input.text()).collect::<Option<Vec<_>>>()?;
        let next_segment = input.u32()?;
        let segments = decode_segments(&mut input, next_segment)?;
        let header = GroupHeader { group, name, shape, policy, membership, members, registers, next_segment, segments };
        header.is_sane().then_some(header)
    }

    fn is_member_sane(&self, member: &MemberRecord) -> bool {
        let texts = [&member.model, &member.serial];
        member.extents <= self.shape.extents_max() && texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX)
    }

    fn is_sane(&self) -> bool {
        let counts = self.shape.is_sane()
            && (1..=DRIVES_MAX).contains(&self.members.len())
            && self.registers.len() < Shape::REGISTERS
            && (1..=DRIVES_MAX).contains(&usize::from(self.policy.data_width_max))
            && self.policy.parity <= 2
            && self.members.iter().all(|member| self.is_member_sane(member));
        let mut taken = BTreeSet::new();
        counts
            && self.segments.values().flat_map(|segment| &segment.places).all(|place| {
                let member = self.members.get(usize::from(place.slot.0));
                let exists = member.is_some_and(|member| u32::from(place.extent) < member.extents);
                exists && taken.insert((place.slot, place.extent))
            })
    }
}

/// Text for people, short enough.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn decode_member(input: &mut Reader<'_>) -> Option<MemberRecord> {
    let drive = DriveId(input.array()?);
    let standing = match input.u8()? {
        0 => Standing::Good,
        1 => Standing::Failed,
        2 => Standing::Filling,
        3 => Standing::Leaving,
        _ => return None,
    };
    let (extents, whole_below) = (input.u32()?, input.u64()?);
    Some(MemberRecord { drive, standing, extents, whole_below, model: input.text()?, serial: input.text()? })
}

fn decode_segments(input: &mut Reader<'_>, next_segment: u32) -> Option<BTreeMap<SegmentId, Rc<Segment>>> {
    let count = input.u32()?;
    let mut segments = BTreeMap::new();
    for _ in 0..count {
        let id = SegmentId(input.u32()?);
        let geometry = Geometry { data: input.u8()?, parity: input.u8()? };
        let width = geometry.width();
        if id.0 >= next_segment || geometry.data == 0 || geometry.parity > 2 || width > DRIVES_MAX {
            return None;
        }
        let place = |input: &mut Reader<'_>| Some(Place { slot: Slot(input.u8()?), extent: input.u16()? });
        let places = (0..width).map(|_| place(input)).collect::<Option<Vec<_>>>()?;
        let slots: BTreeSet<Slot> = places.iter().map(|place| place.slot).collect();
        let fresh = segments.insert(id, Rc::new(Segment { id, geometry, places })).is_none();
        if !fresh || slots.len() != width {
            return None;
        }
    }
    Some(segments)
}
