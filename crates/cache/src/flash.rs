//! Regions of a host's flash: one file or block device shared by the logs of its disks.
//! Twin of `docs/formats/host.md`.
//!
//! ```text
//!   0        4096     8192
//!   | table  | table' | region | region | free ... | region | free |
//! ```
//!
//! The table is written to its two places in turns and names every region: whose, what for,
//! from where to where. A region is found again by its owner's id; what a region holds is its
//! owner's business. Nothing in a region is ever believed because of the table alone.

use std::cell::RefCell;
use std::rc::Rc;

use base::check::MEDIA_CHECK_CRC64_NVME;
use base::port::{Leg, LegInfo, LocalFuture, MediaFault};
use base::{Buf, BufMut, GroupId, media_check};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::root::DiskId;

const TABLE_BYTES: u64 = 4096;
const REGIONS_AT_BYTES: u64 = 2 * TABLE_BYTES;
/// Regions start and end at multiples of this.
pub const REGION_ALIGN_BYTES: u64 = 4096;
/// Most regions of one flash.
pub const REGIONS_MAX: usize = 62;

const MAGIC: [u8; 8] = *b"vmholdHF";
const VERSION: u16 = 1;
const CHECK_AT: usize = TABLE_BYTES as usize - 8;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U16,
    check_kind: u8,
    reserved: u8,
    regions: U16,
    reserved_too: U16,
    flash: [u8; 16],
    generation: U64,
    capacity_bytes: U64,
    reserved_rest: [u8; 16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    disk: [u8; 16],
    kind: u8,
    reserved: [u8; 15],
    start_bytes: U64,
    length_bytes: U64,
    reserved_rest: [u8; 16],
}

const _: () = assert!(size_of::<Head>() == 64 && size_of::<Entry>() == 64);
const _: () = assert!(64 + REGIONS_MAX * 64 <= CHECK_AT);

/// What a region is for; each is accounted by itself. The numbers are on media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionKind {
    /// The log of a disk of this host.
    OwnLog,
    /// Copies of another host's log.
    Replica,
    /// Clean blocks that were read.
    CleanCache,
}

impl RegionKind {
    const fn number(self) -> u8 {
        match self {
            RegionKind::OwnLog => 1,
            RegionKind::Replica => 2,
            RegionKind::CleanCache => 3,
        }
    }

    fn of(number: u8) -> Option<RegionKind> {
        [RegionKind::OwnLog, RegionKind::Replica, RegionKind::CleanCache]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A piece of flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whose.
    pub disk: DiskId,
    /// What for.
    pub kind: RegionKind,
    /// First byte on the flash.
    pub start_bytes: u64,
    /// Length.
    pub length_bytes: u64,
}

/// Why the flash cannot be used, or a region not be had. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlashRefused {
    /// Its start is all zeros: it was never formatted.
    #[error("it is blank")]
    Blank,
    /// Its start is neither blank nor a table.
    #[error("it holds something else, or both copies of its table are damaged")]
    NotOurs,
    /// It is smaller than its table says.
    #[error("it is smaller than it was: {expected_bytes} bytes are named in its table")]
    Truncated {
        /// Size at formatting.
        expected_bytes: u64,
    },
    /// No free piece is large enough.
    #[error("the largest free piece has {largest_bytes} bytes")]
    NoRoom {
        /// Largest free piece.
        largest_bytes: u64,
    },
    /// The table is full.
    #[error("it has {REGIONS_MAX} regions already")]
    TooMany,
    /// The disk has such a region already.
    #[error("the disk has one already")]
    Exists,
    /// It answers with a fault.
    #[error("{0}")]
    Fault(#[from] MediaFault),
}

#[derive(Clone)]
struct Table {
    generation: u64,
    id: GroupId,
    capacity_bytes: u64,
    regions: Vec<Region>,
}

impl Table {
    fn encode(&self) -> BufMut {
        let mut bytes = BufMut::zeroed(TABLE_BYTES as usize);
        let head = Head {
            magic: MAGIC,
            version: U16::new(VERSION),
            check_kind: MEDIA_CHECK_CRC64_NVME,
            reserved: 0,
            regions: U16::new(self.regions.len() as u16),
            reserved_too: U16::ZERO,
            flash: self.id.0,
            generation: U64::new(self.generation),
            capacity_bytes: U64::new(self.capacity_bytes),
            reserved_rest: [0; 16],
        };
        bytes[..64].copy_from_slice(head.as_bytes());
        for (place, region) in bytes[64..CHECK_AT].chunks_exact_mut(64).zip(&self.regions) {
            let entry = Entry {
                disk: region.disk.0,
                kind: region.kind.number(),
                reserved: [0; 15],
                start_bytes: U64::new(region.start_bytes),
                length_bytes: U64::new(region.length_bytes),
                reserved_rest: [0; 16],
            };
            place.copy_from_slice(entry.as_bytes());
        }
        let check = media_check(0, &bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Table> {
        let (checked, check) = bytes.get(..TABLE_BYTES as usize)?.split_at(CHECK_AT);
        let (head, entries) = Head::read_from_prefix(checked).ok()?;
        let known = head.magic == MAGIC && head.version.get() == VERSION && head.check_kind == MEDIA_CHECK_CRC64_NVME;
        let count = head.regions.get() as usize;
        if !known || media_check(0, checked).0.to_le_bytes() != *check || count > REGIONS_MAX {
            return None;
        }
        let region = |bytes: &[u8]| {
            let (entry, _) = Entry::read_from_prefix(bytes).ok()?;
            let region = Region {
                disk: DiskId(entry.disk),
                kind: RegionKind::of(entry.kind)?,
                start_bytes: entry.start_bytes.get(),
                length_bytes: entry.length_bytes.get(),
            };
            let end = region.start_bytes.checked_add(region.length_bytes)?;
            (region.start_bytes >= REGIONS_AT_BYTES && end <= head.capacity_bytes.get()).then_some(region)
        };
        let regions: Vec<Region> = entries.chunks_exact(64).take(count).map(region).collect::<Option<_>>()?;
        let mut by_start = regions.clone();
        by_start.sort_by_key(|region| region.start_bytes);
        let apart = by_start.windows(2).all(|pair| pair[0].start_bytes + pair[0].length_bytes <= pair[1].start_bytes);
        apart.then_some(Table {
            generation: head.generation.get(),
            id: GroupId(head.flash),
            capacity_bytes: head.capacity_bytes.get(),
            regions,
        })
    }

    /// Free pieces, by place.
    fn free(&self) -> Vec<(u64, u64)> {
        let mut by_start = self.regions.clone();
        by_start.sort_by_key(|region| region.start_bytes);
        let end = self.capacity_bytes / REGION_ALIGN_BYTES * REGION_ALIGN_BYTES;
        let mut free = Vec::new();
        let mut at = REGIONS_AT_BYTES;
        for region in by_start {
            free.push((at, region.start_bytes - at));
            at = region.start_bytes + region.length_bytes;
        }
        free.push((at, end.saturating_sub(at)));
        free
    }
}

/// A host's flash, open.
pub struct Flash {
    leg: Rc<dyn Leg>,
    table: RefCell<Table>,
}

impl Flash {
    /// Makes an empty table named `id` on `leg`. What the flash held is gone.
    pub async fn format(leg: Rc<dyn Leg>, id: GroupId) -> Result<Flash, FlashRefused> {
        let table = Table { generation: 1, id, capacity_bytes: leg.info().capacity_bytes, regions: Vec::new() };
        leg.write(0, table.encode().freeze()).await?;
        leg.write(TABLE_BYTES, table.encode().freeze()).await?;
        Ok(Flash { leg, table: RefCell::new(table) })
    }

    /// Opens what [`format`](Flash::format) made.
    pub async fn open(leg: Rc<dyn Leg>) -> Result<Flash, FlashRefused> {
        let mut newest: Option<Table> = None;
        let (mut blank, mut fault) = (true, None);
        for copy in 0..2 {
            let (result, bytes) = leg.read(copy * TABLE_BYTES, BufMut::zeroed(TABLE_BYTES as usize)).await;
            match result {
                Err(reason) => fault = Some(reason),
                Ok(()) => {
                    blank &= bytes.iter().all(|&byte| byte == 0);
                    newest = newest.into_iter().chain(Table::decode(&bytes)).max_by_key(|table| table.generation);
                }
            }
        }
        let Some(table) = newest else {
            return Err(
                fault.map_or(if blank { FlashRefused::Blank } else { FlashRefused::NotOurs }, FlashRefused::Fault)
            );
        };
        if leg.info().capacity_bytes < table.capacity_bytes {
            return Err(FlashRefused::Truncated { expected_bytes: table.capacity_bytes });
        }
        Ok(Flash { leg, table: RefCell::new(table) })
    }

    /// Its identity.
    pub fn id(&self) -> GroupId {
        self.table.borrow().id
    }

    /// Its size in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.table.borrow().capacity_bytes
    }

    /// Bytes no region has.
    pub fn free_bytes(&self) -> u64 {
        self.table.borrow().free().iter().map(|(_, length)| length).sum()
    }

    /// All regions.
    pub fn regions(&self) -> Vec<Region> {
        self.table.borrow().regions.clone()
    }

    /// Room for a region of `length_bytes` (rounded up). It becomes one with
    /// [`record`](Flash::record), after its owner has written what makes sense of it: a crash
    /// in between leaves free room. Whoever adds regions does so one after the other.
    pub fn room(&self, disk: DiskId, kind: RegionKind, length_bytes: u64) -> Result<Region, FlashRefused> {
        let table = self.table.borrow();
        if table.regions.iter().any(|region| (region.disk, region.kind) == (disk, kind)) {
            return Err(FlashRefused::Exists);
        }
        if table.regions.len() >= REGIONS_MAX {
            return Err(FlashRefused::TooMany);
        }
        let length_bytes = length_bytes.next_multiple_of(REGION_ALIGN_BYTES);
        let free = table.free();
        let Some(&(start_bytes, _)) = free.iter().find(|(_, free)| *free >= length_bytes) else {
            let largest_bytes = free.iter().map(|(_, free)| *free).max().unwrap_or(0);
            return Err(FlashRefused::NoRoom { largest_bytes });
        };
        Ok(Region { disk, kind, start_bytes, length_bytes })
    }

    /// Makes `region` one of this flash.
    pub async fn record(&self, region: Region) -> Result<(), FlashRefused> {
        let mut table = self.table.borrow().clone();
        table.regions.push(region);
        self.store(table).await
    }

    /// Takes a region back.
    pub async fn remove(&self, disk: DiskId, kind: RegionKind) -> Result<(), FlashRefused> {
        let mut table = self.table.borrow().clone();
        table.regions.retain(|region| (region.disk, region.kind) != (disk, kind));
        self.store(table).await
    }

    async fn store(&self, mut table: Table) -> Result<(), FlashRefused> {
        table.generation += 1;
        self.leg.write(table.generation % 2 * TABLE_BYTES, table.encode().freeze()).await?;
        *self.table.borrow_mut() = table;
        Ok(())
    }

    /// `region` as a leg of its own.
    pub fn leg(&self, region: &Region) -> Rc<dyn Leg> {
        Rc::new(Window { leg: self.leg.clone(), start_bytes: region.start_bytes, length_bytes: region.length_bytes })
    }
}

/// A part of a leg as a leg.
pub(crate) struct Window {
    leg: Rc<dyn Leg>,
    start_bytes: u64,
    length_bytes: u64,
}

impl Window {
    /// `leg` from `start_bytes` on.
    pub(crate) fn after(leg: &Rc<dyn Leg>, start_bytes: u64) -> Rc<dyn Leg> {
        let length_bytes = leg.info().capacity_bytes - start_bytes;
        Rc::new(Window { leg: leg.clone(), start_bytes, length_bytes })
    }

    fn is_inside(&self, offset_bytes: u64, length: usize) -> bool {
        offset_bytes.checked_add(length as u64).is_some_and(|end| end <= self.length_bytes)
    }
}

impl Leg for Window {
    fn info(&self) -> LegInfo {
        LegInfo { capacity_bytes: self.length_bytes, ..self.leg.info() }
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        assert!(self.is_inside(offset_bytes, buf.len()), "a window is read inside");
        self.leg.read(self.start_bytes + offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        assert!(self.is_inside(offset_bytes, data.len()), "a window is written inside");
        self.leg.write(self.start_bytes + offset_bytes, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(disk: u8, start_bytes: u64, length_bytes: u64) -> Region {
        Region { disk: DiskId([disk; 16]), kind: RegionKind::OwnLog, start_bytes, length_bytes }
    }

    fn table(regions: Vec<Region>) -> Table {
        Table { generation: 7, id: GroupId([9; 16]), capacity_bytes: 1 << 20, regions }
    }

    #[test]
    fn a_table_comes_back_and_any_flipped_bit_is_found() {
        let table = table(vec![region(1, 8192, 4096), region(2, 16_384, 8192)]);
        let mut bytes = table.encode();
        assert_eq!(Table::decode(&bytes).unwrap().regions, table.regions);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Table::decode(&bytes).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn regions_that_overlap_or_lie_outside_are_refused() {
        for regions in [
            vec![region(1, 8192, 8192), region(2, 12_288, 4096)],
            vec![region(1, 4096, 4096)],
            vec![region(1, 8192, 1 << 20)],
            vec![region(1, u64::MAX, 4096)],
        ] {
            assert!(Table::decode(&table(regions).encode()).is_none());
        }
    }

    #[test]
    fn free_pieces_are_between_regions_and_behind_them() {
        let table = table(vec![region(2, 16_384, 8192), region(1, 8192, 4096)]);
        assert_eq!(table.free(), [(8192, 0), (12_288, 4096), (24_576, (1 << 20) - 24_576)]);
    }
}
