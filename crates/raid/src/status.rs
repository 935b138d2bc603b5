//! What the group says about itself: state, drives, space, counters and events.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};

use base::id::{DriveId, GroupId};

use crate::group::Group;
use crate::layout::{FULL_GROUP_DRIVES, SegmentId, Slot, StripeId};
use crate::member::{DriveState, FailReason};
use crate::slow::Slowness;
use crate::twin::{TwinEnd, TwinStatus};
use crate::unit::Damage;

/// Events kept until someone drains them.
const EVENTS_MAX: usize = 1024;

/// How well the group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Every drive is good.
    Online,
    /// Drives are absent; every stripe survives at least one more.
    Degraded,
    /// Drives are absent; some stripe survives no further loss.
    Critical,
    /// Stripes are unreadable, or the header has no majority.
    Faulted,
}

/// A drive, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveStatus {
    /// Its slot.
    pub slot: Slot,
    /// Its id.
    pub id: DriveId,
    /// Its model.
    pub model: String,
    /// Its serial number or path.
    pub serial: String,
    /// How it is driven; empty when absent.
    pub access: &'static str,
    /// Its state.
    pub state: DriveState,
    /// Why it is failed, if that happened while this group was open.
    pub fail_reason: Option<FailReason>,
    /// How slow it is, while it is far slower than the others.
    pub slow: Option<Slowness>,
    /// I/O errors since the group was opened.
    pub io_errors: u64,
    /// Units on it found damaged.
    pub damaged_units: u64,
    /// Units on it repaired.
    pub repaired_units: u64,
    /// Units it still lacks, while it is rebuilding and that is known.
    pub owed_units: Option<u64>,
    /// The drive that takes its slot once it holds everything, while it is being retired.
    pub twin: Option<TwinStatus>,
    /// Extents on it.
    pub extents_total: u32,
    /// Free ones of these.
    pub extents_free: u32,
}

/// The group, for people.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Its id.
    pub group: GroupId,
    /// Its name.
    pub name: String,
    /// How well it is.
    pub state: GroupState,
    /// More drives any of which may fail without loss; 0 in lab groups without parity.
    pub failures_tolerated: u8,
    /// Whether header and registers can still be changed.
    pub latched: bool,
    /// Members by slot.
    pub drives: Vec<DriveStatus>,
    /// Open segments.
    pub segments: usize,
    /// Said loudly when the group has too few drives to be trusted.
    pub warning: Option<String>,
    /// Raised at every change of a member.
    pub membership: u64,
    /// Raised each time the group is opened.
    pub session: u64,
}

/// Room in bytes of stripe payload (unit headers and parity taken off).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Segments that can still be opened on healthy drives.
    pub segments_free: u32,
    /// Stripes in them.
    pub stripes_free: u64,
    /// Payload bytes of these stripes.
    pub data_bytes_free: u64,
    /// Payload bytes of the stripes of open segments.
    pub data_bytes_open: u64,
}

/// What happened since the group was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Stripes written.
    pub stripes_written: u64,
    /// Of these, with at least one unit left out.
    pub stripes_written_degraded: u64,
    /// Range reads answered.
    pub reads: u64,
    /// Of these, by a second read of the same place.
    pub reads_on_second_try: u64,
    /// Of these, by reconstruction.
    pub reads_reconstructed: u64,
    /// Reads that failed for good.
    pub reads_failed: u64,
    /// Units rewritten.
    pub units_repaired: u64,
    /// Registers written, the header included.
    pub registers_written: u64,
    /// Stripes read to rebuild units of them.
    pub stripes_rebuilt: u64,
    /// Units written by rebuilding.
    pub units_rebuilt: u64,
    /// Slots of registers and labels found damaged and written again.
    pub registers_repaired: u64,
    /// Events dropped because nobody drained them.
    pub events_dropped: u64,
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A drive was declared failed.
    DriveFailed {
        /// The drive.
        slot: Slot,
        /// Why.
        reason: FailReason,
    },
    /// A member was not there when the group was opened.
    DriveMissing {
        /// The drive.
        slot: Slot,
    },
    /// A drive joined: it holds new stripes from now on, and has to be filled first if it
    /// took the place of another.
    DriveJoined {
        /// Its slot.
        slot: Slot,
        /// Whether it took the place of another.
        replaces: bool,
    },
    /// A drive that took the place of another holds everything it should.
    DriveFilled {
        /// Its slot.
        slot: Slot,
    },
    /// A drive is being retired behind a twin.
    TwinBegun {
        /// Its slot.
        slot: Slot,
    },
    /// A drive is retired: its twin has its slot.
    DriveRetired {
        /// The slot.
        slot: Slot,
    },
    /// A drive that was being retired keeps its slot.
    TwinEnded {
        /// The slot.
        slot: Slot,
        /// Why.
        why: TwinEnd,
    },
    /// A damaged unit was rewritten and read back.
    UnitRepaired {
        /// Its stripe.
        stripe: StripeId,
        /// Its drive.
        slot: Slot,
        /// What was wrong.
        damage: Damage,
    },
    /// Too much of a stripe is damaged.
    StripeLost {
        /// The stripe.
        stripe: StripeId,
    },
    /// Another controller has taken the group: it has this ballot.
    Fenced {
        /// Its ballot.
        by: u64,
    },
    /// No majority takes header changes any more.
    Latched,
}

/// Events and counters of an open group.
#[derive(Default)]
pub(crate) struct Record {
    events: RefCell<VecDeque<Event>>,
    /// Stripes that could not be read when somebody last tried.
    lost: RefCell<BTreeSet<StripeId>>,
    counters: Cell<Counters>,
}

impl Record {
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Stripe `id` cannot be read. That is told once, however often somebody tries.
    pub fn lost(&self, id: StripeId) {
        if self.lost.borrow_mut().insert(id) {
            self.event(Event::StripeLost { stripe: id });
        }
    }

    /// Stripe `id` was proven whole, was written anew.
    pub fn not_lost(&self, id: StripeId) {
        self.lost.borrow_mut().remove(&id);
    }

    /// Segment `id` is no more.
    pub fn forget(&self, id: SegmentId) {
        self.lost.borrow_mut().retain(|stripe| stripe.segment != id);
    }

    pub fn event(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        if events.len() == EVENTS_MAX {
            events.pop_front();
            self.count(|counters| counters.events_dropped += 1);
        }
        events.push_back(event);
    }
}

impl Group {
    /// Stripes that could not be read since the group was opened, and are not whole since. What
    /// nobody has read is not among them: a scrub reads everything.
    pub fn stripes_lost(&self) -> usize {
        self.inner.record.lost.borrow().len()
    }

    /// Takes the events that happened since the last call, oldest first.
    pub fn drain_events(&self) -> Vec<Event> {
        self.inner.record.events.borrow_mut().drain(..).collect()
    }

    /// What happened since the group was opened.
    pub fn counters(&self) -> Counters {
        self.inner.record.counters.get()
    }

    /// The group as it is now (R-RAID-12, the internal half).
    pub fn status(&self) -> GroupStatus {
        let header = self.inner.header.borrow();
        let extents = self.inner.extents.borrow();
        let members = self.inner.all_members();
        let drives = members.iter().zip(&header.members).zip(extents.iter());
        let drives: Vec<DriveStatus> = drives
            .map(|((member, record), extents)| DriveStatus {
                slot: member.slot,
                id: member.id,
                model: first_of(&member.model, &record.model),
                serial: first_of(&member.serial, &record.serial),
                access: member.access,
                state: member.state.get(),
                fail_reason: member.fail_reason.get(),
                slow: self.inner.judge.borrow().slowness(member.id).filter(|_| member.is_good()),
                io_errors: member.io_errors.get(),
                damaged_units: member.damaged_units.get(),
                repaired_units: member.repaired_units.get(),
                owed_units: (member.state.get() == DriveState::Rebuilding)
                    .then(|| member.owed.borrow().units())
                    .flatten(),
                twin: self.twin_status(member.slot),
                extents_total: extents.total(),
                extents_free: extents.free(),
            })
            .collect();
        let margin = self.margin();
        GroupStatus {
            group: header.group,
            name: header.name.clone(),
            state: self.state(margin),
            failures_tolerated: u8::try_from(margin).unwrap_or(0),
            latched: self.inner.latched.get(),
            segments: header.segments.len(),
            warning: warning(&drives),
            drives,
            membership: header.membership,
            session: self.inner.session,
        }
    }

    /// Losses the worst stripe survives; negative when it is lost already.
    pub(crate) fn margin(&self) -> i32 {
        let header = self.inner.header.borrow();
        let absent = |slot: Slot, id: SegmentId| {
            let member = self.inner.member(slot);
            !(member.is_good() || member.takes_part() && !member.owed.borrow().touches(id))
        };
        let of_segments = header.segments.values().map(|segment| {
            let absent = segment.places.iter().filter(|place| absent(place.slot, segment.id)).count();
            i32::from(segment.geometry.parity) - i32::try_from(absent).expect("at most 32")
        });
        let good = self.inner.members.borrow().iter().filter(|member| member.takes_part()).count();
        let of_new = header.policy.geometry(good).map_or(0, |geometry| i32::from(geometry.parity));
        of_segments.min().map_or(of_new, |worst| worst.min(of_new))
    }

    /// Whether some segment lacks more drives than its parity can stand in for. A drive
    /// that is being filled is there: what it still owes cannot come back by waiting.
    pub(crate) fn is_overwhelmed(&self) -> bool {
        let header = self.inner.header.borrow();
        header.segments.values().any(|segment| {
            let absent = segment.places.iter().filter(|place| !self.inner.member(place.slot).takes_part()).count();
            absent > usize::from(segment.geometry.parity)
        })
    }

    fn state(&self, margin: i32) -> GroupState {
        let absent = self.inner.members.borrow().iter().any(|member| !member.is_good());
        match margin {
            _ if self.inner.latched.get() => GroupState::Faulted,
            ..0 => GroupState::Faulted,
            _ if !absent => GroupState::Online,
            0 => GroupState::Critical,
            _ => GroupState::Degraded,
        }
    }

    /// How much more can be written on healthy drives, by placing segment after segment
    /// as [`open_segment`](Group::open_segment) would.
    pub fn space(&self) -> Space {
        if let Some(space) = self.inner.space.get() {
            return space;
        }
        let header = self.inner.header.borrow();
        let payload = u64::from(header.shape.unit_payload_bytes());
        let rows = u64::from(header.shape.rows);
        let mut space = Space::default();
        for segment in header.segments.values() {
            space.data_bytes_open += rows * payload * u64::from(segment.geometry.data);
        }
        let mut load = self.load(&header);
        if self.inner.latched.get() {
            load.free.fill(0);
        }
        let mut id = crate::SegmentId(header.next_segment);
        while let Some((geometry, slots)) = header.policy.choose(id, &load) {
            load.add(&header.policy, geometry, &slots);
            space.segments_free += 1;
            space.stripes_free += rows;
            space.data_bytes_free += rows * payload * u64::from(geometry.data);
            id.0 = id.0.wrapping_add(1);
        }
        self.inner.space.set(Some(space));
        space
    }
}

fn first_of(now: &str, then: &str) -> String {
    if now.is_empty() { then.to_owned() } else { now.to_owned() }
}

fn warning(drives: &[DriveStatus]) -> Option<String> {
    let count = drives.len();
    let cannot = match count {
        1 => "it survives no drive failure: the loss or damage of its drive loses data",
        2 => "it survives one drive failure, and does not start with one drive missing",
        3 => "it survives two drive failures for reading, but its header survives one at a time",
        4 => "two drives failing at once stop changes of its header",
        _ => return None,
    };
    Some(format!(
        "LAB POOL of {count} drive(s): {cannot}. Use {FULL_GROUP_DRIVES} or more drives for data that matters."
    ))
}
