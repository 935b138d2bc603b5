//! Members come and go while the group works: drives are added, take the place of others,
//! come back, are put out. Each is one decided header, one member at a time, so any two
//! majorities that follow each other share a drive (`decide.rs`).
//!
//! ```text
//!   add_members    a new slot at the end           Good at once: nothing was ever on it
//!   replace_member a new drive in a slot whose
//!                  drive is out or not there       Rebuilding, or Good if nothing is to be filled
//!   rejoin_member  the slot's own drive, back      Rebuilding: what it missed is filled
//!   member_filled  all that belongs on it is there Rebuilding -> Good
//!   remove_member  put out on request              Failed (Retired)
//!   begin_twin     a new drive takes the slot of a good one once it holds everything (`twin.rs`)
//! ```
//!
//! A drive joins in three steps, none of which a crash can leave half done: it is made an
//! acceptor (session promise and every decided value, durably), then it gets its labels,
//! then the header with it in it is decided. Before the last step it is a drive that no
//! header knows, and may be taken again.
//!
//! Expansion moves no data (R-EXP-04): geometry belongs to the segment, so old stripes
//! stay as they are and the next segment opened takes the new drives first, as they have
//! most free extents.

use std::rc::Rc;

use base::buf::BufMut;
use base::id::{DriveId, GroupId};
use base::port::{Drive, MediaFault};

use crate::assemble::{Finding, read_label};
use crate::decide::{Latched, aligned};
use crate::group::{Group, Inner};
use crate::header::{GroupHeader, MemberRecord, Standing};
use crate::label::{Label, LabelState};
use crate::lane::Lane;
use crate::layout::{DRIVES_MAX, Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::paxos::Seat;
use crate::principal::Principal;
use crate::register::encode_session;
use crate::status::Event;

/// Why a drive did not join. Nothing on it was changed, except after `Media`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// The group would have more than 32 members.
    #[error("a group has at most {DRIVES_MAX} drives")]
    TooMany,
    /// The slot does not exist.
    #[error("there is no slot {}", .0.0)]
    NoSuchSlot(Slot),
    /// The drive in the slot is not good: it is replaced, not retired.
    #[error("the drive in slot {} is not good", .0.0)]
    NotGood(Slot),
    /// A drive is being retired already: the one in this slot.
    #[error("the drive in slot {} is being retired", .0.0)]
    TwinThere(Slot),
    /// The drive in the slot is in use; it has to be put out first.
    #[error("the drive in slot {} is in use", .0.0)]
    SlotInUse(Slot),
    /// The drive is too small.
    #[error("the drive is too small: {capacity_bytes} bytes, and it has to hold {needed_bytes}")]
    TooSmall {
        /// Its size.
        capacity_bytes: u64,
        /// What it has to hold.
        needed_bytes: u64,
    },
    /// The drive wants an alignment above 4,096 bytes.
    #[error("the drive wants an alignment above 4,096 bytes")]
    Alignment,
    /// The drive carries the label of a group, or unknown bytes where the label belongs,
    /// and overwriting was not asked for; or it is a member of this group already.
    #[error("the drive is in use{}", .group.map_or(String::new(), |group| format!(" by group {group}")))]
    InUse {
        /// The group on its label, if it has one.
        group: Option<GroupId>,
    },
    /// The drive that wants to come back is not the one that belongs into the slot.
    #[error("it is not the drive of slot {}", .0.0)]
    Stranger(Slot),
    /// No slot waits for this drive with what it holds.
    #[error("no slot waits for this drive")]
    Unawaited,
    /// The drive failed while it was made ready.
    #[error("the drive does not take what a member must hold: {0}")]
    Media(MediaFault),
    /// It gave back other bytes than were written to it.
    #[error("the drive gives back other bytes than were written to it")]
    Bad,
    /// No majority of the drives takes changes.
    #[error("no majority of the drives takes changes")]
    Latched,
}

impl From<Latched> for JoinRefused {
    fn from(_: Latched) -> JoinRefused {
        JoinRefused::Latched
    }
}

/// Why not all drives were added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refused}")]
pub struct Added {
    /// Slots of those before, which have joined.
    pub joined: Vec<Slot>,
    /// Which of the drives did not, counted as they were given; `None` if it is none of them alone.
    pub at: Option<usize>,
    /// Why not.
    pub refused: JoinRefused,
}

/// Extents that a drive has at least.
const EXTENTS_LEAST: u32 = 4;

/// Why a member was not put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveRefused {
    /// The slot does not exist.
    #[error("there is no slot {}", .0.0)]
    NoSuchSlot(Slot),
    /// Stripes would be unreadable without it.
    #[error("data would be lost without the drive in slot {}", .0.0)]
    Needed(Slot),
    /// No majority of the drives takes changes.
    #[error("no majority of the drives takes changes")]
    Latched,
}

impl Group {
    /// Adds `drives` to the group, one decided step each; new stripes use them from now
    /// on. Returns their slots. Every drive is looked at and tried out before the first one
    /// joins; when one fails on the way, those before it have joined, and the error says how
    /// many (R-EXP-01, -04, -05).
    pub async fn add_members(&self, drives: Vec<Rc<dyn Drive>>, overwrite: bool) -> Result<Vec<Slot>, Added> {
        let none_joined = |at, refused| Added { joined: Vec::new(), at, refused };
        if self.inner.members.borrow().len() + drives.len() > DRIVES_MAX {
            return Err(none_joined(None, JoinRefused::TooMany));
        }
        let drives = self.inner.flow.lanes(drives);
        for (at, drive) in drives.iter().enumerate() {
            let checked = self.check_newcomer(drive, EXTENTS_LEAST, overwrite).await;
            checked.map_err(|refused| none_joined(Some(at), refused))?;
        }
        for (at, drive) in drives.iter().enumerate() {
            self.try_out(drive).await.map_err(|refused| none_joined(Some(at), refused))?;
        }
        let mut joined = Vec::new();
        for (at, drive) in drives.into_iter().enumerate() {
            match self.add_member(drive, overwrite).await {
                Ok(slot) => joined.push(slot),
                Err(refused) => return Err(Added { joined, at: Some(at), refused }),
            }
        }
        Ok(joined)
    }

    async fn add_member(&self, drive: Lane, overwrite: bool) -> Result<Slot, JoinRefused> {
        // Again: it may be the one that has just joined under another name.
        self.check_newcomer(&drive, EXTENTS_LEAST, overwrite).await?;
        let slot = Slot(u8::try_from(self.inner.members.borrow().len()).expect("at most 32"));
        self.join(slot, drive, self.new_drive_id(), Standing::Good).await?;
        Ok(slot)
    }

    /// Whether `drives` could be added now: what [`add_members`](Group::add_members) would
    /// refuse, without changing anything.
    pub async fn could_add(&self, drives: Vec<Rc<dyn Drive>>, overwrite: bool) -> Result<(), JoinRefused> {
        if self.inner.latched.get() {
            return Err(JoinRefused::Latched);
        }
        if self.inner.members.borrow().len() + drives.len() > DRIVES_MAX {
            return Err(JoinRefused::TooMany);
        }
        for drive in self.inner.flow.lanes(drives) {
            self.check_newcomer(&drive, EXTENTS_LEAST, overwrite).await?;
        }
        Ok(())
    }

    /// Lets stripes of segments opened from now on have up to `data_width_max` data units
    /// (R-EXP-01, -02). `false`: the group cannot have stripes that wide.
    pub async fn widen_stripes(&self, data_width_max: u8) -> Result<bool, RemoveRefused> {
        let parity = self.inner.header.borrow().policy.parity;
        if data_width_max == 0 || usize::from(data_width_max) + usize::from(parity) > DRIVES_MAX {
            return Ok(false);
        }
        let widened = self.change_header(|header| {
            let changed = header.policy.data_width_max != data_width_max;
            changed.then(|| header.policy.data_width_max = data_width_max)
        });
        widened.await.map_err(|_| RemoveRefused::Latched)?;
        Ok(true)
    }

    /// Puts `drive` into `slot`, whose own drive must be failed or missing. It is
    /// [`DriveState::Rebuilding`] if segments lie on the slot, until
    /// [`member_filled`](Group::member_filled); new stripes are written to it at once.
    pub async fn replace_member(&self, slot: Slot, drive: Rc<dyn Drive>, overwrite: bool) -> Result<(), JoinRefused> {
        let extents = self.vacant(slot)?;
        let drive = self.inner.flow.lane(drive);
        self.check_newcomer(&drive, extents, overwrite).await?;
        self.try_out(&drive).await?;
        self.put_out(slot).await?;
        self.join(slot, drive, self.new_drive_id(), self.standing_to_join(slot)).await
    }

    /// Takes the drive of `slot` back after it was failed or missing. What it holds is
    /// kept, to be filled only where it missed something: returns the generation below
    /// which every stripe is whole on it, 0 if nothing on it is trusted.
    pub async fn rejoin_member(&self, slot: Slot, drive: Rc<dyn Drive>) -> Result<u64, JoinRefused> {
        let extents = self.vacant(slot)?;
        let drive = self.inner.flow.lane(drive);
        self.check_size(&drive, extents)?;
        let label = read_label(&drive).await.map_err(JoinRefused::Media)?;
        let id = self.inner.member(slot).id;
        match label {
            LabelState::Good(label) if (label.group, label.drive, label.slot) == (self.inner.group, id, slot) => {}
            _ => return Err(JoinRefused::Stranger(slot)),
        }
        self.put_out(slot).await?;
        let whole_below = self.inner.header.borrow().members[usize::from(slot.0)].whole_below;
        self.join(slot, drive, id, self.standing_to_join(slot)).await?;
        Ok(whole_below)
    }

    /// Everything that belongs on the drive in `slot` is there: it is good from now on.
    /// Nothing happens unless it was being filled.
    pub async fn member_filled(&self, slot: Slot) -> Result<(), RemoveRefused> {
        let member = self.existing(slot)?;
        let filled = self.change_header(|header| {
            let record = &mut header.members[usize::from(slot.0)];
            let filling = record.standing == Standing::Filling && member.state.get() == DriveState::Rebuilding;
            filling.then(|| {
                record.standing = Standing::Good;
                header.membership += 1;
            })
        });
        if filled.await.map_err(|_| RemoveRefused::Latched)?.is_some() {
            member.state.set(DriveState::Good);
            self.inner.space.set(None);
            self.inner.record.event(Event::DriveFilled { slot });
        }
        Ok(())
    }

    /// Puts the drive in `slot` out of the group, durably, unless data would be lost by
    /// it. It is [`FailReason::Retired`] from then on.
    pub async fn remove_member(&self, slot: Slot) -> Result<(), RemoveRefused> {
        let member = self.existing(slot)?;
        if member.is_good() && self.would_lose(slot) {
            return Err(RemoveRefused::Needed(slot));
        }
        if member.state.get() == DriveState::Missing {
            member.state.set(DriveState::Failed);
            member.fail_reason.set(Some(FailReason::Retired));
        }
        self.fail(&member, FailReason::Retired);
        self.settle_failures().await.map_err(|_| RemoveRefused::Latched)
    }

    /// Id of the drive that is, or was, in `slot`.
    pub fn drive_in(&self, slot: Slot) -> Option<DriveId> {
        self.inner.header.borrow().members.get(usize::from(slot.0)).map(|record| record.drive)
    }

    /// The slot that waits for exactly this drive, and that it may come back to with what
    /// it holds: it was a member, and only went away. Reads the label, nothing else.
    pub async fn awaits(&self, drive: Rc<dyn Drive>) -> Option<Slot> {
        let Ok(LabelState::Good(label)) = read_label(&self.inner.flow.lane(drive)).await else { return None };
        let header = self.inner.header.borrow();
        let record = header.members.get(usize::from(label.slot.0))?;
        let is_out = match record.standing {
            Standing::Failed => record.whole_below > 0,
            Standing::Good => self.inner.member(label.slot).state.get() == DriveState::Missing,
            Standing::Filling | Standing::Leaving => false,
        };
        (label.group == header.group && record.drive == label.drive && is_out).then_some(label.slot)
    }

    /// What the label of a drive that is not in use says.
    pub async fn finding(&self, drive: Rc<dyn Drive>) -> Finding {
        match read_label(&self.inner.flow.lane(drive)).await {
            Err(fault) => Finding::Unreadable(fault),
            Ok(LabelState::Blank) => Finding::Blank,
            Ok(LabelState::Unknown) => Finding::Unknown,
            Ok(LabelState::Good(label)) if label.group != self.inner.group => Finding::Foreign(label.group),
            Ok(LabelState::Good(label)) if self.drive_in(label.slot) == Some(label.drive) => {
                Finding::Failed(label.slot)
            }
            Ok(LabelState::Good(label)) => Finding::Mismatch(label.slot),
        }
    }

    /// Size that a drive needs to take `slot`.
    pub fn needed_bytes(&self, slot: Slot) -> u64 {
        let header = self.inner.header.borrow();
        let extents = header.members.get(usize::from(slot.0)).map_or(0, |record| record.extents);
        header.shape.data_start_bytes() + u64::from(extents) * header.shape.extent_bytes()
    }

    /// Whether the header says that the drive in `slot` is being filled.
    pub(crate) fn is_filling(&self, slot: Slot) -> bool {
        let header = self.inner.header.borrow();
        header.members.get(usize::from(slot.0)).is_some_and(|record| record.standing == Standing::Filling)
    }

    /// Writes a unit at the start, in the middle and at the end of where stripes go, and
    /// reads all of it back after a flush (R-SPARE-04).
    pub(crate) async fn try_out(&self, drive: &Lane) -> Result<(), JoinRefused> {
        let shape = self.inner.shape;
        let last = shape.extents(drive.info().capacity_bytes).saturating_sub(1);
        let places = [0, last / 2, last].map(|extent| u16::try_from(extent).expect("at most 4,096 extents"));
        let mut salt = [0; 8];
        self.inner.world.chance.fill(&mut salt);
        let pattern = |extent: u16| {
            let mut unit = BufMut::zeroed(shape.unit_bytes as usize);
            let mut word = u64::from_le_bytes(salt) ^ u64::from(extent).rotate_left(32);
            for bytes in unit.chunks_exact_mut(8) {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            unit
        };
        for extent in places {
            let at = shape.unit_offset_bytes(extent, 0);
            let written = drive.write(Principal::Rebuild, at, pattern(extent).freeze()).await;
            written.map_err(JoinRefused::Media)?;
        }
        drive.flush().await.map_err(JoinRefused::Media)?;
        for extent in places {
            let buf = BufMut::zeroed(shape.unit_bytes as usize);
            let (outcome, buf) = drive.read(Principal::Rebuild, shape.unit_offset_bytes(extent, 0), buf).await;
            outcome.map_err(JoinRefused::Media)?;
            if buf[..] != pattern(extent)[..] {
                return Err(JoinRefused::Bad);
            }
        }
        Ok(())
    }

    fn existing(&self, slot: Slot) -> Result<Rc<Member>, RemoveRefused> {
        let members = self.inner.members.borrow();
        members.get(usize::from(slot.0)).cloned().ok_or(RemoveRefused::NoSuchSlot(slot))
    }

    /// Extents a drive must have to take `slot`, if that is free to take.
    fn vacant(&self, slot: Slot) -> Result<u32, JoinRefused> {
        let member = self.existing(slot).map_err(|_| JoinRefused::NoSuchSlot(slot))?;
        // A twin takes the slot of a drive that fails by itself.
        if member.takes_part() || self.retiring() == Some(slot) {
            return Err(JoinRefused::SlotInUse(slot));
        }
        Ok(self.inner.header.borrow().members[usize::from(slot.0)].extents)
    }

    fn would_lose(&self, slot: Slot) -> bool {
        let header = self.inner.header.borrow();
        header.segments.values().any(|segment| {
            let absent = |place: &&crate::layout::Place| place.slot == slot || !self.inner.member(place.slot).is_good();
            segment.places.iter().filter(absent).count() > usize::from(segment.geometry.parity)
        })
    }

    fn standing_to_join(&self, slot: Slot) -> Standing {
        let header = self.inner.header.borrow();
        let used = header.segments.values().flat_map(|segment| &segment.places).any(|place| place.slot == slot);
        if used { Standing::Filling } else { Standing::Good }
    }

    pub(crate) fn new_drive_id(&self) -> DriveId {
        let mut id = DriveId::default();
        self.inner.world.chance.fill(&mut id.0);
        id
    }

    fn check_size(&self, drive: &Lane, extents: u32) -> Result<(), JoinRefused> {
        let (info, shape) = (drive.info(), self.inner.shape);
        if info.align_bytes > 4096 {
            return Err(JoinRefused::Alignment);
        }
        if shape.extents(info.capacity_bytes) < extents {
            let needed_bytes = shape.data_start_bytes() + u64::from(extents) * shape.extent_bytes();
            return Err(JoinRefused::TooSmall { capacity_bytes: info.capacity_bytes, needed_bytes });
        }
        Ok(())
    }

    /// A drive that wants to join must be large enough, and empty or given up. A label of
    /// this group that its header does not know is what an interrupted join left.
    pub(crate) async fn check_newcomer(&self, drive: &Lane, extents: u32, overwrite: bool) -> Result<(), JoinRefused> {
        self.check_size(drive, extents)?;
        match read_label(drive).await.map_err(JoinRefused::Media)? {
            LabelState::Blank => Ok(()),
            LabelState::Good(label) if self.twin().is_some_and(|twin| twin.id == label.drive) => {
                Err(JoinRefused::InUse { group: Some(label.group) })
            }
            LabelState::Good(label) if label.group == self.inner.group => {
                let header = self.inner.header.borrow();
                let member = header.members.iter().find(|member| member.drive == label.drive);
                match member.map(|member| member.standing) {
                    None => Ok(()),
                    Some(Standing::Failed) if overwrite => Ok(()),
                    Some(_) => Err(JoinRefused::InUse { group: Some(label.group) }),
                }
            }
            LabelState::Good(_) | LabelState::Unknown if overwrite => Ok(()),
            LabelState::Good(label) => Err(JoinRefused::InUse { group: Some(label.group) }),
            LabelState::Unknown => Err(JoinRefused::InUse { group: None }),
        }
    }

    /// A member that is missing is put out before another takes its slot.
    async fn put_out(&self, slot: Slot) -> Result<(), JoinRefused> {
        let member = self.inner.member(slot);
        if member.state.get() == DriveState::Missing {
            member.state.set(DriveState::Failed);
        }
        Ok(self.settle_failures().await?)
    }

    /// The three steps of joining; see the head of this file.
    async fn join(&self, slot: Slot, drive: Lane, id: DriveId, standing: Standing) -> Result<(), JoinRefused> {
        let _gate = self.inner.decided.gate.lock().await;
        if self.inner.latched.get() {
            return Err(JoinRefused::Latched);
        }
        let member = Rc::new(Member::new(slot, id, Some(drive.clone())));
        let mut next = self.inner.header.borrow().clone();
        let at = usize::from(slot.0);
        let replaces = at < next.members.len();
        // Two that wait for one slot: the second finds it taken.
        let taken = replaces && next.members[at].standing != Standing::Failed;
        if taken || at > next.members.len() {
            return Err(JoinRefused::SlotInUse(slot));
        }
        let info = drive.info();
        let extents = self.inner.shape.extents(info.capacity_bytes);
        let (model, serial) = (info.model, info.serial);
        let record = MemberRecord { drive: id, standing, extents, whole_below: 0, model, serial };
        if replaces {
            next.members[at] = record;
        } else {
            next.members.push(record);
        }
        next.membership += 1;
        self.make_acceptor(&member).await.map_err(JoinRefused::Media)?;
        write_labels(&drive, &next, slot).await.map_err(JoinRefused::Media)?;
        let version = self.inner.decided.values.borrow()[0].version + 1;
        let mut voters = self.voters();
        voters.push(member.clone());
        self.write_register(0, version, &next.encode(), (&voters, next.acceptors())).await?;
        if standing == Standing::Filling && member.takes_part() {
            member.state.set(DriveState::Rebuilding);
        }
        self.install(member, extents, replaces);
        self.adopt(next, version);
        self.inner.record.event(Event::DriveJoined { slot, replaces });
        Ok(())
    }

    pub(crate) fn install(&self, member: Rc<Member>, extents: u32, replaces: bool) {
        let inner = &self.inner;
        inner.align_bytes.set(inner.align_bytes.get().max(member.align_bytes));
        let at = usize::from(member.slot.0);
        if replaces {
            inner.extents.borrow_mut()[at].grow(extents);
            inner.members.borrow_mut()[at] = member;
        } else {
            inner.extents.borrow_mut().push(crate::layout::Extents::new(extents));
            inner.members.borrow_mut().push(member);
        }
    }

    /// Gives a drive the promise and every decided value, durably. What another seat left on it
    /// in an earlier life goes: the drive is no acceptor of anybody now.
    pub(crate) async fn make_acceptor(&self, member: &Member) -> Result<(), MediaFault> {
        let Inner { group, session, seat, shape, .. } = *self.inner;
        let put = |offset_bytes, data| member.write(Principal::MetadataWrite, offset_bytes, data);
        let blank = aligned(&[0; Shape::BLOCK_BYTES]);
        let promise = aligned(&encode_session(group, session));
        for of in Seat::ALL {
            for which in 0..2 {
                let block = if of == seat { &promise } else { &blank };
                put(Shape::session_offset_bytes(of, which), block.clone()).await?;
            }
        }
        for index in 0..Shape::REGISTERS {
            let image = self.decided_image(index);
            for of in shape.seats() {
                for which in 0..2 {
                    let mine = image.clone().filter(|_| of == seat && which == 0);
                    put(shape.register_offset_bytes(of, index, which), mine.unwrap_or_else(|| blank.clone())).await?;
                }
            }
            member.next_slot.borrow_mut()[index] = u8::from(image.is_some());
        }
        member.flush().await
    }
}

/// Says who a drive is.
pub(crate) async fn write_labels(drive: &Lane, header: &GroupHeader, slot: Slot) -> Result<(), MediaFault> {
    let record = &header.members[usize::from(slot.0)];
    let label = Label {
        group: header.group,
        drive: record.drive,
        slot,
        shape: header.shape,
        extents: record.extents,
        name: header.name.clone(),
    };
    let label = aligned(&label.encode());
    drive.write(Principal::MetadataWrite, 0, label.clone()).await?;
    drive.write(Principal::MetadataWrite, Shape::LABEL_B_BYTES, label).await?;
    drive.flush().await
}
