//! Where everything is: pure placement maths.
//!
//! ```text
//!  drive   | label A | label B | promises | registers (2 slots each, by seat) | extent 0 | extent 1 | ...
//!  extent  | row 0 | row 1 | ... | row R-1 |            one row holds one stripe unit
//!  segment = one extent on each of w drives, in an order (its *positions* 0..w)
//!  stripe  = (segment, row): the w units in that row
//!  role    = what a unit is: 0..d data, d = P, d + 1 = Q;  role = (position + row) mod w
//! ```
//!
//! Roles turn by one position per row. Where a segment's rows do not divide by its width
//! some positions hold parity once more than others; these go to the drives that hold the
//! least of it (R-RAID-04). Drives are chosen by most free extents, ties by a start that
//! moves with the segment id, which keeps space use even when a stripe is narrower than
//! the group (R-RAID-06).

use std::fmt;

use crate::paxos::Seat;

/// Most drives a group can have.
pub const DRIVES_MAX: usize = 32;
/// Bytes of a unit taken by its header.
pub const UNIT_HEADER_BYTES: usize = 512;
/// Most extents per drive; bounds the group header.
pub const EXTENTS_MAX: u32 = 4096;
/// Groups with fewer drives than this are lab groups: they work, and say what they
/// cannot survive.
pub const FULL_GROUP_DRIVES: usize = 5;

/// Index of a drive in its group, fixed when it joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

/// A run of stripes over a fixed set of drives. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// Place of a stripe: a row of a segment. Its content is told apart by generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StripeId {
    /// The segment.
    pub segment: SegmentId,
    /// Row in it, below [`rows per segment`](crate::Group::rows_per_segment).
    pub row: u32,
}

impl StripeId {
    /// The id as one number; order is kept.
    pub fn pack(self) -> u64 {
        u64::from(self.segment.0) << 32 | u64::from(self.row)
    }
    /// Inverse of [`pack`](StripeId::pack).
    pub fn unpack(packed: u64) -> StripeId {
        let row = u32::try_from(packed & 0xffff_ffff).expect("masked to 32 bits");
        let segment = u32::try_from(packed >> 32).expect("shifted to 32 bits");
        StripeId { segment: SegmentId(segment), row }
    }
}

impl fmt::Display for StripeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.segment.0, self.row)
    }
}

/// Data and parity units of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Data units.
    pub data: u8,
    /// Parity units: 2, or less in a lab group.
    pub parity: u8,
}

impl Geometry {
    /// Units of a stripe.
    pub fn width(self) -> usize {
        usize::from(self.data) + usize::from(self.parity)
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

/// One extent of one drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The drive.
    pub slot: Slot,
    /// Index of the extent on it.
    pub extent: u16,
}

/// A segment and where it lies; position i is `places[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its id.
    pub id: SegmentId,
    /// Its geometry.
    pub geometry: Geometry,
    /// Its extents by position, as many as the geometry is wide, on different drives.
    pub places: Vec<Place>,
}

impl Segment {
    /// Role of the unit at `position` in `row`.
    pub fn role_at(&self, position: usize, row: u32) -> usize {
        let width = self.geometry.width();
        (position + row as usize % width) % width
    }
    /// Position of the unit with `role` in `row`.
    pub fn position_of(&self, role: usize, row: u32) -> usize {
        let width = self.geometry.width();
        (role + width - row as usize % width) % width
    }
    /// Extent that holds the unit with `role` in `row`.
    pub fn place_of(&self, role: usize, row: u32) -> Place {
        self.places[self.position_of(role, row)]
    }
}

/// How wide and how safe new segments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most data units of a stripe.
    pub data_width_max: u8,
    /// Parity units of a stripe.
    pub parity: u8,
    /// Drives the group was created with; below [`FULL_GROUP_DRIVES`] parity may shrink.
    pub founding_drives: u8,
    /// Rows of a segment.
    pub rows: u32,
}

impl Policy {
    /// Geometry of a stripe over at most `drives` drives: as wide as allowed, narrow
    /// rather than born degraded (`design.md` 11.7); `None` when there are too few.
    pub fn geometry(&self, drives: usize) -> Option<Geometry> {
        let lab = usize::from(self.founding_drives) < FULL_GROUP_DRIVES;
        let parity =
            if lab { usize::from(self.parity).min(drives.saturating_sub(1)) } else { usize::from(self.parity) };
        let data = drives.saturating_sub(parity).min(usize::from(self.data_width_max));
        let as_u8 = |units: usize| u8::try_from(units).expect("at most 32 drives");
        (data > 0).then(|| Geometry { data: as_u8(data), parity: as_u8(parity) })
    }

    /// Drives of the next segment, by position.
    pub fn choose(&self, id: SegmentId, load: &Load) -> Option<(Geometry, Vec<Slot>)> {
        let drives = load.free.len();
        let mut usable: Vec<usize> = (0..drives).filter(|&slot| load.free[slot] > 0).collect();
        let geometry = self.geometry(usable.len())?;
        let width = geometry.width();
        let start = id.0 as usize % drives * width % drives;
        usable.sort_by_key(|&slot| (u32::MAX - load.free[slot], (slot + drives - start) % drives));
        usable.truncate(width);
        let slots = self.arrange(geometry, usable, load);
        Some((geometry, slots.into_iter().map(|slot| Slot(u8::try_from(slot).expect("at most 32"))).collect()))
    }

    /// Gives the positions with most parity units to the drives with fewest for what they
    /// hold; otherwise in the order of slots. For what they hold, as a drive that has just
    /// joined is to catch up in data and parity alike.
    fn arrange(&self, geometry: Geometry, mut slots: Vec<usize>, load: &Load) -> Vec<usize> {
        let mut positions: Vec<usize> = (0..geometry.width()).collect();
        let uneven = !self.rows.is_multiple_of(geometry.width() as u32);
        slots.sort_unstable();
        if uneven {
            positions.sort_by_key(|&position| std::cmp::Reverse(self.parity_rows(geometry, position)));
            slots.sort_by_key(|&slot| load.parity_density(slot));
        }
        let mut placed: Vec<_> = positions.into_iter().zip(slots).collect();
        placed.sort_unstable();
        placed.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Rows of a segment in which `position` holds a parity unit.
    fn parity_rows(&self, geometry: Geometry, position: usize) -> u64 {
        let width = geometry.width();
        let rest = self.rows as usize % width;
        let in_rest = (0..rest).filter(|row| (position + row) % width >= usize::from(geometry.data)).count();
        u64::from(self.rows / width as u32) * u64::from(geometry.parity) + in_rest as u64
    }
}

/// What the drives hold, by slot; decides where the next segment goes.
#[derive(Clone, Debug)]
pub struct Load {
    /// Free extents; 0 for a drive that may not be used.
    pub free: Vec<u32>,
    /// Parity units of the segments that are open.
    pub parity_units: Vec<u64>,
    /// Extents of the segments that are open.
    pub used: Vec<u64>,
}

impl Load {
    /// Of so many drives that hold nothing, each with `free` free extents.
    pub fn of_empty(drives: usize, free: u32) -> Load {
        Load { free: vec![free; drives], parity_units: vec![0; drives], used: vec![0; drives] }
    }

    /// Parity units per extent in use, as a number to sort by.
    fn parity_density(&self, slot: usize) -> u64 {
        const ONE: u64 = 1 << 24;
        self.parity_units[slot] * ONE / self.used[slot].max(1)
    }

    /// Accounts for a segment whose drives were chosen.
    pub fn add(&mut self, policy: &Policy, geometry: Geometry, slots: &[Slot]) {
        for (position, slot) in slots.iter().enumerate() {
            self.free[usize::from(slot.0)] = self.free[usize::from(slot.0)].saturating_sub(1);
            self.used[usize::from(slot.0)] += 1;
            self.parity_units[usize::from(slot.0)] += policy.parity_rows(geometry, position);
        }
    }
}

/// Offsets on a drive, the same on every drive of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a stripe unit, header included; a multiple of 4,096.
    pub unit_bytes: u32,
    /// Rows of an extent.
    pub rows: u32,
    /// Bytes of one slot of the group header's register.
    pub header_slot_bytes: u32,
    /// Seats that have room for their votes: 2, or 1 on a group made before there were two.
    pub seats: u8,
}

impl Shape {
    /// Second copy of the label; the first is at 0.
    pub const LABEL_B_BYTES: u64 = 64 << 10;
    /// Promises: two copies for each of two seats.
    const SESSIONS_BYTES: u64 = 128 << 10;
    /// Bytes of all promises, which lie side by side.
    pub const PROMISES_BYTES: usize = 4 * Self::BLOCK_BYTES;
    /// Registers.
    const REGISTERS_BYTES: u64 = 256 << 10;
    /// Bytes of one slot of a named blob.
    pub const BLOB_SLOT_BYTES: u32 = 32 << 10;
    /// Registers of a group: the group header and the named blobs.
    pub const REGISTERS: usize = 16;
    /// Size and alignment of labels and session blocks.
    pub const BLOCK_BYTES: usize = 4096;

    /// The shape of a group whose smallest drive has `capacity_bytes`; `extent_bytes` 0
    /// chooses. About 2,000 extents per drive, never more than [`EXTENTS_MAX`], at least
    /// 4 rows each.
    pub fn plan(unit_bytes: u32, extent_bytes: u64, capacity_bytes: u64) -> Shape {
        let unit = u64::from(unit_bytes);
        let at_least = (capacity_bytes / u64::from(EXTENTS_MAX)).div_ceil(unit).max(1);
        let rows = match extent_bytes {
            0 => (capacity_bytes / 64 / unit).clamp(4, 16).max((capacity_bytes / 2048).div_ceil(unit)),
            bytes => (bytes / unit).max(1),
        }
        .max(at_least);
        let extents = (capacity_bytes / (rows * unit)).clamp(1, u64::from(EXTENTS_MAX) / 4) * 4;
        let header_slot = (16 << 10) + extents * 7 * DRIVES_MAX as u64;
        Shape {
            unit_bytes,
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            header_slot_bytes: u32::try_from(header_slot.next_multiple_of(4096)).expect("at most a MiB"),
            seats: 2,
        }
    }

    /// Whether numbers read from media can be a shape at all.
    pub fn is_sane(&self) -> bool {
        let unit = (4096..=4 << 20).contains(&self.unit_bytes) && self.unit_bytes.is_multiple_of(4096);
        let slot = ((16 << 10) + 4096..=1 << 20).contains(&self.header_slot_bytes)
            && self.header_slot_bytes.is_multiple_of(4096);
        unit && slot && self.rows > 0 && (1..=2).contains(&self.seats)
    }

    /// Bytes of one slot of register `index`.
    pub fn slot_bytes(&self, index: usize) -> u32 {
        if index == 0 { self.header_slot_bytes } else { Self::BLOB_SLOT_BYTES }
    }
    /// Bytes of all registers of one seat.
    fn registers_bytes(&self) -> u64 {
        2 * (u64::from(self.header_slot_bytes) + (Self::REGISTERS as u64 - 1) * u64::from(Self::BLOB_SLOT_BYTES))
    }
    /// Where slot `which` (0 or 1) of register `index` starts, as `seat` writes it.
    pub fn register_offset_bytes(&self, seat: Seat, index: usize, which: usize) -> u64 {
        let header = u64::from(self.header_slot_bytes);
        let blob = u64::from(Self::BLOB_SLOT_BYTES);
        let start = Self::REGISTERS_BYTES + seat.index() as u64 * self.registers_bytes();
        match index {
            0 => start + which as u64 * header,
            _ => start + 2 * header + ((index as u64 - 1) * 2 + which as u64) * blob,
        }
    }
    /// Where copy `which` (0 or 1) of the promise of `seat` starts.
    pub fn session_offset_bytes(seat: Seat, which: usize) -> u64 {
        Self::SESSIONS_BYTES + ((seat.index() * 2 + which) * Self::BLOCK_BYTES) as u64
    }
    /// The seats that have room on the drives.
    pub fn seats(&self) -> impl Iterator<Item = Seat> {
        Seat::ALL.into_iter().take(usize::from(self.seats))
    }
    /// Where extent 0 starts.
    pub fn data_start_bytes(&self) -> u64 {
        (Self::REGISTERS_BYTES + u64::from(self.seats) * self.registers_bytes()).next_multiple_of(1 << 20)
    }
    /// Bytes of an extent.
    pub fn extent_bytes(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.unit_bytes)
    }
    /// Extents of a drive of `capacity_bytes`.
    pub fn extents(&self, capacity_bytes: u64) -> u32 {
        let extents = capacity_bytes.saturating_sub(self.data_start_bytes()) / self.extent_bytes();
        u32::try_from(extents).unwrap_or(u32::MAX).min(self.extents_max())
    }
    /// Most extents a drive of this group may have, so that the header fits its slot.
    pub fn extents_max(&self) -> u32 {
        ((self.header_slot_bytes - (16 << 10)) / (7 * DRIVES_MAX as u32)).min(EXTENTS_MAX)
    }
    /// Where the unit in `extent` and `row` starts.
    pub fn unit_offset_bytes(&self, extent: u16, row: u32) -> u64 {
        self.data_start_bytes() + u64::from(extent) * self.extent_bytes() + u64::from(row) * u64::from(self.unit_bytes)
    }
    /// Payload bytes of a unit.
    pub fn unit_payload_bytes(&self) -> u32 {
        self.unit_bytes - UNIT_HEADER_BYTES as u32
    }
}

/// Which extents of a drive are taken.
#[derive(Clone, Debug)]
pub struct Extents {
    taken: Vec<bool>,
    free: u32,
    next: usize,
}

impl Extents {
    /// A drive with `count` free extents.
    pub fn new(count: u32) -> Extents {
        Extents { taken: vec![false; count as usize], free: count, next: 0 }
    }
    /// The drive has `count` extents now, if that is more.
    pub fn grow(&mut self, count: u32) {
        let more = (count as usize).saturating_sub(self.taken.len());
        self.taken.resize(self.taken.len() + more, false);
        self.free += u32::try_from(more).expect("made from a u32");
    }
    /// Free extents.
    pub fn free(&self) -> u32 {
        self.free
    }
    /// All extents.
    pub fn total(&self) -> u32 {
        u32::try_from(self.taken.len()).expect("made from a u32")
    }
    /// The next free extent in circular order, without taking it.
    pub fn peek(&self) -> Option<u16> {
        let len = self.taken.len();
        let found = (0..len).map(|step| (self.next + step) % len).find(|&extent| !self.taken[extent])?;
        u16::try_from(found).ok()
    }
    /// Takes `extent`; false if it does not exist or is taken already.
    pub fn take(&mut self, extent: u16) -> bool {
        match self.taken.get_mut(usize::from(extent)) {
            Some(taken) if !*taken => {
                *taken = true;
                self.free -= 1;
                self.next = usize::from(extent) + 1;
                true
            }
            _ => false,
        }
    }
    /// Gives a taken extent back.
    pub fn give_back(&mut self, extent: u16) {
        let taken = &mut self.taken[usize::from(extent)];
        assert!(*taken, "only taken extents come back");
        *taken = false;
        self.free += 1;
    }
}
