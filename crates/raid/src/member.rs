//! A member drive while the group is open: its state, its error record, and the only
//! three places where this crate touches media.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use base::buf::{Buf, BufMut};
use base::id::DriveId;
use base::port::MediaFault;
use base::time::Nanos;

use crate::lane::Lane;
use crate::layout::{Shape, Slot, StripeId};
use crate::owed::Owed;
use crate::principal::Principal;

/// State of a drive in the group (R-SPARE-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveState {
    /// Used for everything.
    Good,
    /// Not there when the group was opened; keeps its vote and its place.
    Missing,
    /// Declared failed: out of the group, not believed when it comes back.
    Failed,
    /// Joined in place of another and being filled: written and voting, read where it is
    /// filled already.
    Rebuilding,
}

/// Why a drive was declared failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// Gone, replaced or truncated.
    Gone,
    /// It takes no writes.
    ReadOnly,
    /// A write was refused twice, so it may hold old content.
    LostWrite,
    /// A flush failed, so writes before it may be lost.
    LostFlush,
    /// Too many I/O errors in a minute.
    Errors,
    /// Put out on request.
    Retired,
    /// Far slower than the others for too long.
    Slow,
}

/// A drive whose strikes within [`STRIKE_WINDOW`] add up to this much is failed: eight
/// errors that stay, or many more that a rewrite heals (`faults.md` F02).
const STRIKES_MAX: u32 = 64;
const STRIKE_WINDOW: Duration = Duration::from_secs(60);

/// What an error that the drive reported counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Gone after a rewrite, or on the second try.
    Healed = 1,
    /// There after a rewrite, or nothing could be rewritten.
    Stays = 8,
    /// No answer in time: two of these within the window are too many.
    Hangs = 32,
}

/// A member of an open group.
pub(crate) struct Member {
    pub slot: Slot,
    pub id: DriveId,
    /// The way to the drive, `None` if it is not there.
    pub lane: Option<Lane>,
    pub align_bytes: u32,
    pub model: String,
    pub serial: String,
    pub access: &'static str,
    pub state: Cell<DriveState>,
    pub fail_reason: Cell<Option<FailReason>>,
    /// Writes completed, and how many of them a completed flush covers. Two counters,
    /// not a flag: a flush that is still under way covers nobody yet.
    written: Cell<u64>,
    flushed: Cell<u64>,
    /// Which of the two slots of each register the next value goes to.
    pub next_slot: RefCell<[u8; Shape::REGISTERS]>,
    pub io_errors: Cell<u64>,
    pub damaged_units: Cell<u64>,
    pub repaired_units: Cell<u64>,
    /// Units it lacks; looked at only while it is rebuilding.
    pub owed: RefCell<Owed>,
    /// Every stripe of an older generation that is referred to is whole on it.
    pub whole_below: Cell<u64>,
    recent: RefCell<VecDeque<(Nanos, u32)>>,
}

impl Member {
    /// A member with this identity; `lane` is `None` if it is not there.
    pub fn new(slot: Slot, id: DriveId, lane: Option<Lane>) -> Member {
        let info = lane.as_ref().map(|lane| lane.info());
        let state = if lane.is_some() { DriveState::Good } else { DriveState::Missing };
        Member {
            slot,
            id,
            align_bytes: info.as_ref().map_or(0, |info| info.align_bytes),
            access: info.as_ref().map_or("", |info| info.access),
            model: info.as_ref().map_or(String::new(), |info| info.model.clone()),
            serial: info.map_or(String::new(), |info| info.serial),
            lane,
            state: Cell::new(state),
            fail_reason: Cell::new(None),
            written: Cell::new(0),
            flushed: Cell::new(0),
            next_slot: RefCell::new([0; Shape::REGISTERS]),
            io_errors: Cell::new(0),
            damaged_units: Cell::new(0),
            repaired_units: Cell::new(0),
            owed: RefCell::new(Owed::All),
            whole_below: Cell::new(0),
            recent: RefCell::new(VecDeque::new()),
        }
    }

    /// Whether everything that should be on it is: it is read.
    pub fn is_good(&self) -> bool {
        self.state.get() == DriveState::Good
    }

    /// Whether it is written to, and votes: a member that is being filled does both.
    pub fn takes_part(&self) -> bool {
        matches!(self.state.get(), DriveState::Good | DriveState::Rebuilding)
    }

    /// Whether its unit of stripe `id` can be expected on it.
    pub fn holds(&self, id: StripeId) -> bool {
        match self.state.get() {
            DriveState::Good => true,
            DriveState::Rebuilding => !self.owed.borrow().contains(id),
            DriveState::Missing | DriveState::Failed => false,
        }
    }

    /// The way to the drive, if it is used.
    pub fn usable_lane(&self) -> Option<Lane> {
        self.lane.clone().filter(|_| self.takes_part())
    }

    fn live(&self) -> Result<Lane, MediaFault> {
        self.usable_lane().ok_or(MediaFault::Gone)
    }

    /// Whether the drive takes in bulk writes now.
    pub fn is_in_bulk_turn(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_in_bulk_turn)
    }

    /// Fills `buf` from `offset_bytes`; [`MediaFault::Gone`] if the drive is not used.
    pub async fn read(&self, principal: Principal, offset_bytes: u64, buf: BufMut) -> Result<BufMut, MediaFault> {
        let lane = self.live()?;
        let (outcome, buf) = lane.read(principal, offset_bytes, buf).await;
        outcome.map(|()| buf)
    }

    /// Writes `data` at `offset_bytes`, trying an I/O error once more.
    pub async fn write(&self, principal: Principal, offset_bytes: u64, data: Buf) -> Result<(), MediaFault> {
        let lane = self.live()?;
        let mut outcome = lane.write(principal, offset_bytes, data.clone()).await;
        if outcome == Err(MediaFault::Io) {
            outcome = lane.write(principal, offset_bytes, data).await;
        }
        self.written.set(self.written.get() + 1);
        outcome
    }

    /// Whether a write completed that no completed flush covers.
    pub fn is_unflushed(&self) -> bool {
        self.written.get() > self.flushed.get()
    }

    /// Makes completed writes durable. Not tried again: a second flush may succeed
    /// without the writes the first one lost.
    pub async fn flush(&self) -> Result<(), MediaFault> {
        let lane = self.live()?;
        let covered = self.written.get();
        lane.flush().await?;
        self.flushed.set(self.flushed.get().max(covered));
        Ok(())
    }

    /// Records an error the drive reported; true if it is one too many.
    pub fn strike(&self, strike: Strike, now: Nanos) -> bool {
        self.io_errors.set(self.io_errors.get() + 1);
        let mut recent = self.recent.borrow_mut();
        recent.push_back((now, strike as u32));
        while recent.front().is_some_and(|&(at, _)| now.since(at) > STRIKE_WINDOW) {
            recent.pop_front();
        }
        recent.iter().map(|&(_, weight)| weight).sum::<u32>() >= STRIKES_MAX
    }
}

impl FailReason {
    /// Why a drive fails whose write ended in `fault` for good.
    pub(crate) fn of_write(fault: MediaFault) -> FailReason {
        match fault {
            MediaFault::Gone => FailReason::Gone,
            MediaFault::ReadOnly => FailReason::ReadOnly,
            MediaFault::Io | MediaFault::Timeout => FailReason::LostWrite,
        }
    }
    /// Why a drive fails whose flush ended in `fault`.
    pub(crate) fn of_flush(fault: MediaFault) -> FailReason {
        match fault {
            MediaFault::Gone => FailReason::Gone,
            MediaFault::ReadOnly => FailReason::ReadOnly,
            MediaFault::Io | MediaFault::Timeout => FailReason::LostFlush,
        }
    }
}
