//! The group: making one, its segments, and the state the other files work on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use base::buf::{BufMut, BufPool};
use base::id::{DriveId, GroupId};
use base::port::{Chance, Drive, MediaFault, World};
use futures_util::future::join_all;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::assemble::{Assembly, read_label};
use crate::decide::{Decided, Latched, Versioned, aligned};
use crate::header::{GroupHeader, MemberRecord, Standing};
use crate::hedge::HedgeCounters;
use crate::label::LabelState;
use crate::lane::{Flow, FlowSettings, Lane, LaneStatus};
use crate::layout::{DRIVES_MAX, Extents, Geometry, Load, Place, Policy, Segment, SegmentId, Shape, Slot, StripeId};
use crate::member::{DriveState, Member};
use crate::membership::write_labels;
use crate::paxos::Seat;
use crate::principal::Principal;
use crate::profile::DriveClass;
use crate::proposal::Hand;
use crate::register::{SlotValue, Stamp, encode_session, encode_slot};
use crate::slow::Judge;
use crate::status::{Record, Space};

/// How to make a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Name, for people; at most 64 bytes are used.
    pub name: String,
    /// Bytes of a stripe unit with its header: a multiple of 4,096, at least 8,192.
    pub unit_bytes: u32,
    /// Most data units of a stripe; narrower when there are fewer drives.
    pub data_width_max: u8,
    /// Parity units of a stripe: 2 (R-RAID-03). Lab groups of 1 or 2 drives get less.
    pub parity: u8,
    /// Bytes of an extent, rounded down to whole units; 0 chooses.
    pub extent_bytes: u64,
    /// Whether drives that carry a label of another group, or unknown bytes where the
    /// label belongs, may be taken.
    pub overwrite: bool,
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            name: "pool".to_owned(),
            unit_bytes: 132 << 10,
            data_width_max: 10,
            parity: 2,
            extent_bytes: 0,
            overwrite: false,
        }
    }
}

/// Why a group was not made. Nothing was written, except after `Media`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateRefused {
    /// None, or more than 32.
    #[error("a group has 1 to 32 drives, not {0}")]
    DriveCount(usize),
    /// Unit size, width or parity out of range.
    #[error("unit size, data width or parity is out of range")]
    Options,
    /// A drive is too small to hold at least four extents.
    #[error("drive {index} is too small: {capacity_bytes} bytes")]
    TooSmall {
        /// Its index in the list given.
        index: usize,
        /// Its size.
        capacity_bytes: u64,
    },
    /// A drive wants an alignment above 4,096 bytes.
    #[error("drive {index} wants an alignment above 4,096 bytes")]
    Alignment {
        /// Its index in the list given.
        index: usize,
    },
    /// A drive belongs to a group or holds something else, and `overwrite` was not given.
    #[error("drive {index} is in use")]
    InUse {
        /// Its index in the list given.
        index: usize,
        /// The group on its label, if it has one.
        group: Option<GroupId>,
    },
    /// A drive failed while the group was made.
    #[error("drive {index}: {fault}")]
    Media {
        /// Its index in the list given.
        index: usize,
        /// What it said.
        fault: MediaFault,
    },
}

/// Why no segment could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSpace {
    /// Too few healthy drives have a free extent.
    #[error("no free extents on enough healthy drives")]
    Full,
    /// No majority of the drives takes header changes.
    #[error("no majority of the drives takes header changes")]
    Latched,
}

impl From<Latched> for NoSpace {
    fn from(_: Latched) -> NoSpace {
        NoSpace::Latched
    }
}

/// A segment, for the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its id.
    pub id: SegmentId,
    /// Its geometry.
    pub geometry: Geometry,
    /// Its rows.
    pub rows: u32,
    /// Members of it to which nothing can be written.
    pub absent: u8,
}

/// An open RAID group. A handle: clones share the group. Each handle says on whose behalf
/// it asks the drives; see [`Group::acting_as`].
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Rc<Inner>,
    pub(crate) principal: Principal,
}

/// What an open group is made of.
pub(crate) struct Parts {
    pub flow: Rc<Flow>,
    pub header: GroupHeader,
    pub members: Vec<Member>,
    pub values: Vec<Versioned>,
    pub seat: Seat,
    pub session: u64,
    pub assembly: Assembly,
}

pub(crate) struct Inner {
    pub world: World,
    pub group: GroupId,
    pub shape: Shape,
    /// The controller's seat.
    pub seat: Seat,
    /// The ballot it holds.
    pub session: u64,
    /// By slot. A drive that takes another's place is a new member in its slot; who
    /// still works with the old one holds a handle of its own.
    pub members: RefCell<Vec<Rc<Member>>>,
    /// A drive that is filled to take the slot of another, see `twin.rs`.
    pub twin: RefCell<Option<Rc<Member>>>,
    /// The record of a twin may say more than there is.
    pub twin_unsettled: Cell<bool>,
    pub flow: Rc<Flow>,
    pub hedges: Cell<HedgeCounters>,
    /// Watches for slow drives.
    pub judge: RefCell<Judge>,
    /// As last decided.
    pub header: RefCell<GroupHeader>,
    pub extents: RefCell<Vec<Extents>>,
    pub decided: Decided,
    pub latched: Cell<bool>,
    /// The ballot of who took the group.
    pub fenced: Cell<Option<u64>>,
    pub record: Record,
    pub locks: Rc<StripeLocks>,
    pub units: BufPool,
    pub sectors: BufPool,
    /// Largest alignment of the members.
    pub align_bytes: Cell<u32>,
    /// Remembered until drives or segments change.
    pub space: Cell<Option<Space>>,
    pub assembly: Assembly,
}

impl Inner {
    pub fn member(&self, slot: Slot) -> Rc<Member> {
        self.members.borrow()[usize::from(slot.0)].clone()
    }

    /// Writes the blocks of this controller's seat.
    pub fn hand(&self) -> Hand {
        Hand { group: self.group, shape: self.shape, seat: self.seat }
    }

    /// Every member now, by slot.
    pub fn all_members(&self) -> Vec<Rc<Member>> {
        self.members.borrow().clone()
    }
}

/// Stripes that are being written or repaired, so that a repair never lands on a newer
/// stripe in the same place.
#[derive(Default)]
pub(crate) struct StripeLocks {
    held: RefCell<BTreeMap<StripeId, Arc<Mutex<()>>>>,
}

/// Sole right to write the units of a stripe.
pub(crate) struct StripeGuard {
    locks: Rc<StripeLocks>,
    id: StripeId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl StripeLocks {
    pub async fn lock(self: &Rc<StripeLocks>, id: StripeId) -> StripeGuard {
        let lock = self.held.borrow_mut().entry(id).or_default().clone();
        let guard = Some(lock.lock_owned().await);
        StripeGuard { locks: self.clone(), id, guard }
    }

    fn held_in(&self, segments: &[SegmentId]) -> Vec<StripeId> {
        self.held.borrow().keys().filter(|id| segments.contains(&id.segment)).copied().collect()
    }
}

impl StripeGuard {
    /// The stripe.
    pub fn id(&self) -> StripeId {
        self.id
    }
}

impl Drop for StripeGuard {
    fn drop(&mut self) {
        self.guard = None;
        let mut held = self.locks.held.borrow_mut();
        if held.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            held.remove(&self.id);
        }
    }
}

/// Buffers kept for reuse: whole units, and ranges of a few sectors.
/// Data units that a stripe keeps which leaves out a slow drive, if it gets narrower by that.
const DATA_WITHOUT_SLOW_MIN: u8 = 4;
const UNITS_KEPT: usize = 64;
const SECTORS_KEPT: usize = 256;
pub(crate) const SECTORS_BYTES: usize = 16 << 10;

impl Group {
    /// Makes a group over `drives` and opens it. Every drive must be there and sound.
    pub async fn create(
        drives: Vec<Rc<dyn Drive>>,
        options: GroupOptions,
        world: World,
    ) -> Result<Group, CreateRefused> {
        let flow = Flow::new(&world);
        let drives = flow.lanes(drives);
        let shape = plan_shape(&drives, &options)?;
        if !options.overwrite {
            refuse_used(&drives).await?;
        }
        let header = founding_header(&drives, &options, shape, world.chance.as_ref());
        let writes = drives.iter().enumerate().map(|(index, drive)| found_member(drive.clone(), &header, index));
        for (index, outcome) in join_all(writes).await.into_iter().enumerate() {
            outcome.map_err(|fault| CreateRefused::Media { index, fault })?;
        }
        let members = (0u8..).zip(&header.members).zip(drives);
        let members: Vec<Member> =
            members.map(|((slot, record), drive)| Member::new(Slot(slot), record.drive, Some(drive))).collect();
        // The founding header is in slot 0 of each drive.
        members.iter().for_each(|member| member.next_slot.borrow_mut()[0] = 1);
        let (values, assembly) = (founding_values(), Assembly::default());
        let parts = Parts { flow, header, members, values, seat: Seat::First, session: 1, assembly };
        Ok(Group::assembled(parts, world))
    }

    /// Puts an open group together from its parts.
    pub(crate) fn assembled(parts: Parts, world: World) -> Group {
        let Parts { flow, header, members, values, seat, session, assembly } = parts;
        let mut extents: Vec<Extents> = header.members.iter().map(|member| Extents::new(member.extents)).collect();
        for place in header.segments.values().flat_map(|segment| &segment.places) {
            let taken = extents[usize::from(place.slot.0)].take(place.extent);
            assert!(taken, "a decided header gives each extent once");
        }
        let inner = Inner {
            group: header.group,
            shape: header.shape,
            seat,
            session,
            align_bytes: Cell::new(members.iter().map(|member| member.align_bytes).max().unwrap_or(0).max(512)),
            members: RefCell::new(members.into_iter().map(Rc::new).collect()),
            twin: RefCell::default(),
            twin_unsettled: Cell::new(false),
            flow,
            hedges: Cell::default(),
            judge: RefCell::default(),
            extents: RefCell::new(extents),
            decided: Decided { gate: Mutex::new(()), values: RefCell::new(values) },
            latched: Cell::new(false),
            fenced: Cell::new(None),
            record: Record::default(),
            locks: Rc::default(),
            units: BufPool::new(header.shape.unit_bytes as usize, UNITS_KEPT),
            sectors: BufPool::new(SECTORS_BYTES, SECTORS_KEPT),
            space: Cell::new(None),
            header: RefCell::new(header),
            assembly,
            world,
        };
        Group { inner: Rc::new(inner), principal: Principal::UserRead }
    }

    /// The same group for another principal: what is read through the handle is read for
    /// it, what is written is written for its writing half (R-IO-02). A handle as opened
    /// acts for clients.
    #[must_use]
    pub fn acting_as(&self, principal: Principal) -> Group {
        Group { inner: self.inner.clone(), principal }
    }

    /// Shares, profiles and hedging from now on; drives that come later get them, too.
    pub fn set_flow(&self, settings: FlowSettings) {
        self.inner.flow.set(settings);
    }

    /// The settings in force.
    pub fn flow(&self) -> FlowSettings {
        self.inner.flow.settings()
    }

    /// The way to the drive in each slot: profile, queue by principal, how well it keeps its
    /// times (what its health is judged by); `None` where there is no drive.
    pub fn lanes(&self) -> Vec<Option<LaneStatus>> {
        self.inner.all_members().iter().map(|member| member.lane.as_ref().map(Lane::status)).collect()
    }

    /// Whether one of the drives is a disk that turns: such drives want their stripes looked at more often.
    pub fn has_disks(&self) -> bool {
        let classes = self
            .inner
            .all_members()
            .into_iter()
            .filter_map(|member| member.lane.as_ref().map(|lane| lane.profile().class));
        classes.into_iter().any(|class| class == DriveClass::Disk)
    }

    /// Late reads and what was done about them.
    pub fn hedges(&self) -> HedgeCounters {
        self.inner.hedges.get()
    }

    /// What was found on each drive when the group was opened.
    pub fn assembly(&self) -> &Assembly {
        &self.inner.assembly
    }
    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.inner.group
    }
    /// The doors to the world this group uses.
    pub fn world(&self) -> &World {
        &self.inner.world
    }
    /// A buffer for one stripe unit: payload goes to
    /// [`UNIT_HEADER_BYTES`](crate::UNIT_HEADER_BYTES).. Holds old bytes.
    pub fn take_unit(&self) -> BufMut {
        self.inner.units.take(self.inner.shape.unit_bytes as usize)
    }
    /// Bytes of a stripe unit, header included.
    pub fn unit_bytes(&self) -> u32 {
        self.inner.shape.unit_bytes
    }
    /// Payload bytes of a stripe unit.
    pub fn unit_payload_bytes(&self) -> u32 {
        self.inner.shape.unit_payload_bytes()
    }
    /// Stripes of a segment; rows are 0 up to this.
    pub fn rows_per_segment(&self) -> u32 {
        self.inner.shape.rows
    }
    /// Geometry of an open segment.
    pub fn geometry(&self, segment: SegmentId) -> Option<Geometry> {
        self.segment(segment).map(|segment| segment.geometry)
    }
    /// Geometry of the next segment, a slow drive counted; `None` when no drives take one.
    pub fn next_geometry(&self) -> Option<Geometry> {
        let header = self.inner.header.borrow();
        let load = self.load(&header);
        header.policy.geometry(load.free.iter().filter(|free| **free > 0).count())
    }
    /// Id of the next segment: those opened before have lower ones.
    pub fn next_segment(&self) -> SegmentId {
        SegmentId(self.inner.header.borrow().next_segment)
    }
    /// Payload bytes of the data units of one stripe of an open segment.
    pub fn payload_bytes_per_stripe(&self, segment: SegmentId) -> Option<u32> {
        self.geometry(segment).map(|geometry| u32::from(geometry.data) * self.unit_payload_bytes())
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<Rc<Segment>> {
        self.inner.header.borrow().segments.get(&id).cloned()
    }

    /// The owner of the stripes says: every stripe of an older generation than this that is
    /// still referred to has been written and flushed. So a drive that goes now lacks
    /// nothing older, should it come back.
    pub fn stripes_are_whole_below(&self, generation: u64) {
        let has_missed_nothing = |member: &&Rc<Member>| member.state.get() != DriveState::Failed;
        for member in self.inner.all_members().iter().filter(has_missed_nothing) {
            member.whole_below.set(generation);
        }
    }

    /// Every open segment, by id.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let header = self.inner.header.borrow();
        header.segments.values().map(|segment| self.describe(segment)).collect()
    }

    fn describe(&self, segment: &Segment) -> SegmentInfo {
        let absent = segment.places.iter().filter(|place| !self.inner.member(place.slot).takes_part()).count();
        SegmentInfo {
            id: segment.id,
            geometry: segment.geometry,
            rows: self.inner.shape.rows,
            absent: u8::try_from(absent).expect("at most 32"),
        }
    }

    /// Whether a segment lacks a drive that can be written: new stripes then belong into a newly
    /// opened, narrower one (`design.md` 11.7). Unknown segments are not degraded.
    pub fn is_degraded(&self, segment: SegmentId) -> bool {
        self.segment(segment).is_some_and(|segment| self.describe(&segment).absent > 0)
    }

    /// What the drives hold; drives that take no new segments have nothing free.
    pub(crate) fn load(&self, header: &GroupHeader) -> Load {
        let mut load = Load::of_empty(header.members.len(), 0);
        for segment in header.segments.values() {
            let slots: Vec<Slot> = segment.places.iter().map(|place| place.slot).collect();
            load.add(&header.policy, segment.geometry, &slots);
        }
        let extents = self.inner.extents.borrow();
        for ((free, member), extents) in load.free.iter_mut().zip(self.inner.all_members()).zip(extents.iter()) {
            *free = if member.takes_part() { extents.free() } else { 0 };
        }
        load
    }

    /// Drives of the next segment. One that is far slower than all others is left out, if theirs
    /// is as safe and not too narrow: every write to the segment would wait for it.
    fn choose(&self, header: &GroupHeader, id: SegmentId) -> Option<(Geometry, Vec<Slot>)> {
        let mut load = self.load(header);
        let all = header.policy.choose(id, &load)?;
        let judge = self.inner.judge.borrow();
        let Some(slow) = header.members.iter().position(|member| judge.is_the_slow_one(member.drive)) else {
            return Some(all);
        };
        load.free[slow] = 0;
        let others = header.policy.choose(id, &load);
        let suffices = |geometry: Geometry| {
            geometry.parity == all.0.parity && (geometry.data == all.0.data || geometry.data >= DATA_WITHOUT_SLOW_MIN)
        };
        Some(others.filter(|(geometry, _)| suffices(*geometry)).unwrap_or(all))
    }

    /// Opens a segment on the healthy drives with most free extents. It is in the group
    /// header, durably, when this returns; a crash before leaves no trace.
    pub async fn open_segment(&self) -> Result<SegmentId, NoSpace> {
        let opened = self.change_header(|header| {
            let id = SegmentId(header.next_segment);
            let (geometry, slots) = self.choose(header, id)?;
            let extents = self.inner.extents.borrow();
            let extent_of = |slot: Slot| extents[usize::from(slot.0)].peek().expect("chosen for its free extents");
            let places: Vec<Place> = slots.into_iter().map(|slot| Place { slot, extent: extent_of(slot) }).collect();
            header.next_segment = header.next_segment.checked_add(1)?;
            header.segments.insert(id, Rc::new(Segment { id, geometry, places: places.clone() }));
            Some((id, places))
        });
        let (id, places) = opened.await?.ok_or(NoSpace::Full)?;
        let mut extents = self.inner.extents.borrow_mut();
        for place in places {
            assert!(extents[usize::from(place.slot.0)].take(place.extent), "peeked and opened one at a time");
        }
        self.inner.space.set(None);
        Ok(id)
    }

    /// Gives the extents of `segments` back; none of their stripes may be referenced any
    /// more. Durable when this returns. Unknown segments are passed over.
    pub async fn release_segments(&self, segments: &[SegmentId]) -> Result<(), NoSpace> {
        let released = self.change_header(|header| {
            let gone: Vec<Rc<Segment>> = segments.iter().filter_map(|id| header.segments.remove(id)).collect();
            (!gone.is_empty()).then_some(gone)
        });
        let gone = released.await?.unwrap_or_default();
        // A repair that started before must not land on what is written there next.
        for id in self.inner.locks.held_in(segments) {
            drop(self.inner.locks.lock(id).await);
        }
        for member in self.inner.all_members().into_iter().chain(self.twin()) {
            gone.iter().for_each(|segment| member.owed.borrow_mut().drop_segment(segment.id));
        }
        gone.iter().for_each(|segment| self.inner.record.forget(segment.id));
        let mut extents = self.inner.extents.borrow_mut();
        for place in gone.iter().flat_map(|segment| &segment.places) {
            extents[usize::from(place.slot.0)].give_back(place.extent);
        }
        self.inner.space.set(None);
        Ok(())
    }
}

fn plan_shape(drives: &[Lane], options: &GroupOptions) -> Result<Shape, CreateRefused> {
    if !(1..=DRIVES_MAX).contains(&drives.len()) {
        return Err(CreateRefused::DriveCount(drives.len()));
    }
    let unit = options.unit_bytes;
    let sane_unit = (8192..=4 << 20).contains(&unit) && unit.is_multiple_of(4096);
    let sane_width = options.data_width_max > 0 && usize::from(options.data_width_max) + 2 <= DRIVES_MAX;
    if !sane_unit || !sane_width || options.parity > 2 {
        return Err(CreateRefused::Options);
    }
    let capacities = drives.iter().map(|drive| drive.info().capacity_bytes);
    let shape = Shape::plan(unit, options.extent_bytes, capacities.min().expect("at least one drive"));
    for (index, drive) in drives.iter().enumerate() {
        let info = drive.info();
        if info.align_bytes > 4096 {
            return Err(CreateRefused::Alignment { index });
        }
        if shape.extents(info.capacity_bytes) < 4 {
            return Err(CreateRefused::TooSmall { index, capacity_bytes: info.capacity_bytes });
        }
    }
    Ok(shape)
}

/// The drives may be written over.
async fn refuse_used(drives: &[Lane]) -> Result<(), CreateRefused> {
    for (index, drive) in drives.iter().enumerate() {
        match read_label(drive).await {
            Ok(LabelState::Blank) => {}
            Ok(LabelState::Good(label)) => return Err(CreateRefused::InUse { index, group: Some(label.group) }),
            Ok(LabelState::Unknown) => return Err(CreateRefused::InUse { index, group: None }),
            Err(fault) => return Err(CreateRefused::Media { index, fault }),
        }
    }
    Ok(())
}

fn founding_header(drives: &[Lane], options: &GroupOptions, shape: Shape, chance: &dyn Chance) -> GroupHeader {
    let mut group = GroupId::default();
    chance.fill(&mut group.0);
    let member = |drive: &Lane| {
        let info = drive.info();
        let mut id = DriveId::default();
        chance.fill(&mut id.0);
        let extents = shape.extents(info.capacity_bytes);
        let standing = Standing::Good;
        MemberRecord { drive: id, standing, extents, whole_below: 0, model: info.model, serial: info.serial }
    };
    let policy = Policy {
        data_width_max: options.data_width_max,
        parity: options.parity,
        founding_drives: u8::try_from(drives.len()).expect("at most 32"),
        rows: shape.rows,
    };
    GroupHeader {
        group,
        name: options.name.chars().take(64).collect(),
        shape,
        policy,
        membership: 1,
        members: drives.iter().map(member).collect(),
        registers: Vec::new(),
        next_segment: 1,
        segments: BTreeMap::new(),
    }
}

fn founding_values() -> Vec<Versioned> {
    let mut values = vec![Versioned::default(); Shape::REGISTERS];
    values[0].version = 1;
    values
}

/// Writes session block, header and last the labels of a new member: a drive with a
/// label has a header.
async fn found_member(drive: Lane, header: &GroupHeader, index: usize) -> Result<(), MediaFault> {
    let shape = header.shape;
    let value = SlotValue { stamp: Stamp { session: 1, version: 1 }, bytes: header.encode() };
    let session = aligned(&encode_session(header.group, 1));
    let put = |offset_bytes, data| drive.write(Principal::MetadataWrite, offset_bytes, data);
    put(Shape::session_offset_bytes(Seat::First, 0), session).await?;
    let image = aligned(&encode_slot(header.group, 0, &value));
    put(shape.register_offset_bytes(Seat::First, 0, 0), image).await?;
    drive.flush().await?;
    write_labels(&drive, header, Slot(u8::try_from(index).expect("at most 32"))).await
}
