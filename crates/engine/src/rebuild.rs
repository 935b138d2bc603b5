//! Rebuild: what the drives that are being filled lack is read from the others and
//! written, stripe after stripe, in the order of [`Circular`].
//!
//! ```text
//!  a drive joins ──> turn of the pass ──> mover lock, data drained ──> group takes it in
//!      │                                        what it owes = stripes that hold something
//!      └──────> record saved ──> batch of stripes, a few at a time ──> cursor moves
//!                   ^                                 │
//!                   └──── now and then: flush, save ──┴──> owes nothing: whole, gets its vote
//! ```
//!
//! Clients are never waited for and never wait: a stripe is kept from being written anew
//! by the era that every reader holds, not by a lock. What is written during the pass
//! holds the new drive's unit already (told by generation); what is freed leaves the pass.
//!
//! The record is a blob, saved only after a flush, so what it calls done is done. A crash
//! costs a few stripes that are looked at twice.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use base::Nanos;
use base::port::Drive;
use futures_util::StreamExt;
use futures_util::stream;
use raid::{CasRefused, Circular, JoinRefused, Joined, Principal, Rebuilt, Slot, StripeId};
use tokio::sync::{Mutex, Notify};

use crate::engine::Engine;
use crate::inner::Inner;
use crate::mover::Mover;

/// Name of the register that holds the record of the pass.
const REBUILD_REGISTER: &str = "rebuild";
/// Stripes between two looks at who wants to join.
const BATCH: usize = 16;
/// Stripes rebuilt before the record is saved again.
const SAVE_EVERY: u64 = 256;
/// Lost stripes remembered by place; beyond, only their number is.
const LOST_KEPT: usize = 4096;

/// A drive that is being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildingDrive {
    /// Its slot.
    pub slot: Slot,
    /// Stripe at which it joined.
    pub start: StripeId,
    /// Units it owed when it joined.
    pub units_total: u64,
    /// Units it still owes.
    pub units_left: u64,
    /// It was a member before, and only what is newer is written to it.
    pub came_back: bool,
    /// It is the twin of a drive that is being retired.
    pub is_twin: bool,
}

/// The pass, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildStatus {
    /// Raised at each restart within the pass.
    pub pass: u32,
    /// The next stripe that is looked at.
    pub cursor: StripeId,
    /// The drives that take part.
    pub drives: Vec<RebuildingDrive>,
    /// Bytes of a unit.
    pub unit_bytes: u64,
    /// Stripes found beyond repair since the engine was opened.
    pub stripes_lost: u64,
    /// When the pass was begun or taken up again in this life.
    pub since: Option<Nanos>,
}

/// What an open engine knows of the pass.
#[derive(Default)]
pub(crate) struct Rebuild {
    /// Held for a batch of stripes, and by whoever lets a drive join.
    turn: Mutex<()>,
    order: RefCell<Circular>,
    /// Version of the register.
    version: Cell<u64>,
    /// Stripes since the record was saved.
    unsaved: Cell<u64>,
    since: Cell<Option<Nanos>>,
    lost: RefCell<Vec<StripeId>>,
    lost_count: Cell<u64>,
    /// Somebody owes something.
    pub work: Notify,
}

impl Engine {
    /// Puts `drive` in the place of the one that is out of `slot` and fills it.
    pub async fn join_drive(&self, slot: Slot, drive: Rc<dyn Drive>) -> Result<(), JoinRefused> {
        let inner = &self.inner;
        let _turn = inner.rebuild.turn.lock().await;
        let mut mover = inner.mover.lock().await;
        // No stripe is under way while the drive joins: each is whole on it or owed.
        inner.land_all(&mut mover).await?;
        inner.group.replace_member(slot, drive, false).await?;
        inner.begin_filling(slot, 0).await;
        Ok(())
    }

    /// Takes a drive that went away back in, and fills in only what it missed.
    pub async fn rejoin_drive(&self, drive: Rc<dyn Drive>) -> Result<Slot, JoinRefused> {
        let inner = &self.inner;
        let slot = inner.group.awaits(drive.clone()).await.ok_or(JoinRefused::Unawaited)?;
        let _turn = inner.rebuild.turn.lock().await;
        let mut mover = inner.mover.lock().await;
        inner.land_all(&mut mover).await?;
        let whole_below = inner.group.rejoin_member(slot, drive).await?;
        inner.begin_filling(slot, whole_below).await;
        Ok(slot)
    }

    /// Fills `drive` with what the good drive in `slot` holds, and lets it take the slot then
    /// (decision 0028). The old drive is a member until then, so nothing is less redundant.
    pub async fn retire_drive(&self, slot: Slot, drive: Rc<dyn Drive>) -> Result<(), JoinRefused> {
        let inner = &self.inner;
        let _turn = inner.rebuild.turn.lock().await;
        let mut mover = inner.mover.lock().await;
        // No stripe is under way while the twin comes: each is whole on it or owed.
        inner.land_all(&mut mover).await?;
        inner.group.begin_twin(slot, drive, false).await?;
        inner.begin_filling(slot, 0).await;
        Ok(())
    }

    /// Ends retiring the drive in `slot`, which keeps its place. `Ok(false)`: it is not being
    /// retired.
    pub async fn cancel_retiring(&self, slot: Slot) -> Result<bool, JoinRefused> {
        let inner = &self.inner;
        let _turn = inner.rebuild.turn.lock().await;
        let mut mover = inner.mover.lock().await;
        // No write to the twin is under way when it is let go.
        inner.land_all(&mut mover).await?;
        let ended = inner.group.cancel_twin(slot).await.map_err(|_| JoinRefused::Latched)?;
        inner.finish_drives().await;
        Ok(ended)
    }

    /// The rebuild as it is now; `None` when every drive is whole.
    pub fn rebuild_status(&self) -> Option<RebuildStatus> {
        let inner = &self.inner;
        let rebuilding = inner.group.rebuilding();
        if rebuilding.is_empty() {
            return None;
        }
        let order = inner.rebuild.order.borrow();
        let drives = rebuilding.into_iter().filter_map(|(slot, left)| {
            let joined = order.joined.get(&slot)?;
            Some(RebuildingDrive {
                slot,
                start: joined.start,
                units_total: joined.units,
                units_left: left.unwrap_or(joined.units).min(joined.units),
                came_back: joined.whole_below > 0,
                is_twin: inner.group.retiring() == Some(slot),
            })
        });
        Some(RebuildStatus {
            pass: order.pass,
            cursor: order.cursor,
            drives: drives.collect(),
            unit_bytes: u64::from(inner.group.unit_bytes()),
            stripes_lost: inner.rebuild.lost_count.get(),
            since: inner.rebuild.since.get(),
        })
    }
}

impl Inner {
    /// Writes every open stripe and waits for all of them.
    async fn land_all(&self, mover: &mut Mover) -> Result<(), JoinRefused> {
        mover.data.drain(self).await.map_err(|_| JoinRefused::Latched)?;
        mover.meta.drain(self).await.map_err(|_| JoinRefused::Latched)
    }

    /// The drive in `slot` has just joined; the caller holds the turn and the mover lock.
    async fn begin_filling(&self, slot: Slot, whole_below: u64) {
        if !self.group.rebuilding().iter().any(|(filling, _)| *filling == slot) {
            return; // No segment lies on the slot: there is nothing to fill.
        }
        let (from_generation, owed) = {
            let mut state = self.state.borrow_mut();
            let owed = state.stripes.settled().filter(|(_, generation)| *generation >= whole_below);
            let owed: Vec<StripeId> = owed.map(|(stripe, _)| stripe).collect();
            (state.next_generation(), owed)
        };
        let owed = self.group.units_in(slot, owed);
        let Some(drive) = self.group.drive_filling(slot) else { return };
        let units = owed.len() as u64;
        self.group.set_owed(slot, owed);
        let joined = Joined { drive, start: StripeId::default(), from_generation, whole_below, units };
        self.rebuild.order.borrow_mut().join(slot, joined);
        if self.rebuild.since.get().is_none() {
            self.rebuild.since.set(Some(self.world.clock.now()));
        }
        self.save_rebuild().await;
        self.rebuild.work.notify_one();
    }

    /// Takes up the pass of before, when the engine is opened and nothing was written yet.
    pub async fn resume_rebuild(&self) {
        let found = self.group.register_read(REBUILD_REGISTER).await;
        self.rebuild.version.set(found.version);
        let mut order = Circular::decode(&found.bytes).unwrap_or_default();
        let rebuilding: Vec<Slot> = self.group.rebuilding().into_iter().map(|(slot, _)| slot).collect();
        order
            .joined
            .retain(|slot, joined| rebuilding.contains(slot) && self.group.drive_filling(*slot) == Some(joined.drive));
        order.pass += u32::from(!rebuilding.is_empty());
        for slot in rebuilding {
            // One whose joining was cut short is not in the record and owes everything.
            let owed = {
                let state = self.state.borrow();
                let owes = |(stripe, generation): &(StripeId, u64)| order.owes(slot, *stripe, *generation);
                state.stripes.settled().filter(owes).map(|(stripe, _)| stripe).collect()
            };
            let owed = self.group.units_in(slot, owed);
            if !order.joined.contains_key(&slot) {
                let Some(drive) = self.group.drive_filling(slot) else { continue };
                let (from_generation, units) = (self.state.borrow_mut().next_generation(), owed.len() as u64);
                let start = StripeId::default();
                order.join(slot, Joined { drive, start, from_generation, whole_below: 0, units });
            }
            self.group.set_owed(slot, owed);
            self.rebuild.since.set(Some(self.world.clock.now()));
            self.rebuild.work.notify_one();
        }
        self.rebuild.order.replace(order);
    }

    /// Saves the record. What it calls done must be durable: the caller has flushed, or
    /// the cursor has not moved since somebody did.
    async fn save_rebuild(&self) {
        let bytes = self.rebuild.order.borrow().encode();
        match self.group.register_cas(REBUILD_REGISTER, self.rebuild.version.get(), &bytes).await {
            Ok(version) => self.rebuild.version.set(version),
            Err(CasRefused::Version { current }) => self.rebuild.version.set(current),
            // The group says so by itself; the pass goes on, and starts over after a restart.
            Err(CasRefused::Latched | CasRefused::Fenced | CasRefused::TooLarge) => {}
        }
        self.rebuild.unsaved.set(0);
    }

    /// A batch of stripes. False when nobody owes anything.
    async fn rebuild_batch(&self) -> bool {
        let _turn = self.rebuild.turn.lock().await;
        let Some(batch) = self.next_owed_batch() else {
            self.finish_drives().await;
            return false;
        };
        let last = *batch.last().expect("a batch is not empty");
        let in_flight = self.options.rebuild_in_flight.max(1);
        let mut done = stream::iter(batch.into_iter().map(|stripe| self.rebuild_one(stripe))).buffered(in_flight);
        let mut count = 0;
        while done.next().await.is_some() {
            count += 1;
        }
        self.rebuild.order.borrow_mut().pass(last);
        self.rebuild.unsaved.set(self.rebuild.unsaved.get() + count);
        self.finish_drives().await;
        if self.rebuild.unsaved.get() >= SAVE_EVERY && self.group.flush().await.is_ok() {
            self.save_rebuild().await;
        }
        true
    }

    /// The next stripes that somebody owes, in the order of the pass, not going round.
    fn next_owed_batch(&self) -> Option<Vec<StripeId>> {
        let first = self.rebuild.order.borrow().next(|from| self.group.next_owed(from))?;
        let follow = |stripe: &StripeId| self.group.next_owed(StripeId { row: stripe.row + 1, ..*stripe });
        Some(std::iter::successors(Some(first), follow).take(BATCH).collect())
    }

    async fn rebuild_one(&self, stripe: StripeId) {
        // While this is held nothing else is written in the stripe's place.
        let _era = self.era();
        let generation = self.state.borrow().stripes.settled_generation(stripe);
        let Some(generation) = generation else { return self.group.forgive(stripe) };
        let group = self.group.acting_as(Principal::Rebuild);
        if group.rebuild_stripe(stripe, generation).await == Rebuilt::Lost {
            self.rebuild.lost_count.set(self.rebuild.lost_count.get() + 1);
            let mut lost = self.rebuild.lost.borrow_mut();
            if lost.len() < LOST_KEPT {
                lost.push(stripe);
            }
        }
    }

    /// Drives that owe nothing become members again; those that failed leave.
    async fn finish_drives(&self) {
        let rebuilding = self.group.rebuilding();
        let gone: Vec<Slot> = {
            let order = self.rebuild.order.borrow();
            let is_there = |slot: &Slot| rebuilding.iter().any(|(there, _)| there == slot);
            order.joined.keys().copied().filter(|slot| !is_there(slot)).collect()
        };
        let mut changed = !gone.is_empty();
        gone.into_iter().for_each(|slot| self.rebuild.order.borrow_mut().leave(slot));
        for (slot, _) in rebuilding.into_iter().filter(|(_, owed)| *owed == Some(0)) {
            if matches!(self.group.become_whole(slot).await, Ok(true)) {
                self.rebuild.order.borrow_mut().leave(slot);
                changed = true;
            }
        }
        if changed && self.group.flush().await.is_ok() {
            self.save_rebuild().await;
        }
        if self.group.rebuilding().is_empty() {
            self.rebuild.since.set(None);
        }
        if changed {
            self.look_at_space();
        }
    }
}

impl Rebuild {
    /// Stripes found beyond repair; each is told once.
    pub fn take_lost(&self) -> Vec<StripeId> {
        self.lost.take()
    }
}

/// Rebuilds whenever a drive owes something, until the engine stops.
pub(crate) async fn rebuild_for_ever(inner: Rc<Inner>) {
    loop {
        inner.rebuild.work.notified().await;
        loop {
            if inner.is_stopped() {
                return;
            }
            let more = inner.rebuild_batch().await;
            if !more {
                break;
            }
            inner.world.yield_now().await;
        }
    }
}
