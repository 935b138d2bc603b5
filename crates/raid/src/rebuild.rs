//! Rebuilding one stripe: d good units are read once, and the missing unit of every drive
//! that is being filled is written (R-REB-02). In which order, `circular.rs` says; which
//! stripes there are, the layer above knows, so only written ones are ever touched
//! (R-REB-06).
//!
//! Two drives lost and a bad sector on a third: the stripe is read again in full and every
//! version that proves itself is tried, as for a read (R-INT-21). Where that is one unit
//! too many the stripe is lost, is said to be, and the rebuild goes on.

use std::rc::Rc;

use base::buf::Buf;
use futures_util::future::join_all;

use crate::group::Group;
use crate::layout::{Segment, Slot, StripeId};
use crate::member::{FailReason, Member};
use crate::membership::RemoveRefused;
use crate::owed::Owed;
use crate::principal::Principal;
use crate::repair::{Collected, Stripe};
use crate::unit::{Damage, headed_for};

/// What became of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// No drive owes a unit of it.
    NothingOwed,
    /// This many missing units are written.
    Units(u8),
    /// Too few good units are left.
    Lost,
}

impl Group {
    /// Says which units the drive in `slot` owes; before that it owes all of them.
    pub fn set_owed(&self, slot: Slot, stripes: impl IntoIterator<Item = StripeId>) {
        let member = self.filling(slot).unwrap_or_else(|| self.inner.member(slot));
        member.owed.replace(Owed::these(stripes));
    }

    /// Those of `stripes` that have a unit in `slot`.
    pub fn units_in(&self, slot: Slot, stripes: Vec<StripeId>) -> Vec<StripeId> {
        let header = self.inner.header.borrow();
        let lies_in = |id: &StripeId| {
            let segment = header.segments.get(&id.segment);
            segment.is_some_and(|segment| segment.places.iter().any(|place| place.slot == slot))
        };
        stripes.into_iter().filter(lies_in).collect()
    }

    /// Slots that are being filled, or whose twin is, and the units that are owed as far as that
    /// is known.
    pub fn rebuilding(&self) -> Vec<(Slot, Option<u64>)> {
        self.all_filling().iter().map(|member| (member.slot, member.owed.borrow().units())).collect()
    }

    /// The drive that is filled in `slot` owes nothing any more: its units are made durable, and
    /// it is good; if it is a twin, the slot is its own and the old drive is out. `Ok(false)` if it
    /// does owe something, or has failed meanwhile.
    pub async fn become_whole(&self, slot: Slot) -> Result<bool, RemoveRefused> {
        let Some(member) = self.filling(slot).filter(|member| member.owed.borrow().units() == Some(0)) else {
            return Ok(false);
        };
        if let Err(fault) = member.flush().await {
            self.fail(&member, FailReason::of_flush(fault));
            return Ok(false);
        }
        if self.is_twin(&member) {
            return self.swap(&member).await;
        }
        self.member_filled(slot).await?;
        Ok(member.is_good())
    }

    /// The first stripe at `from` or behind it of which some drive owes a unit.
    pub fn next_owed(&self, from: StripeId) -> Option<StripeId> {
        self.all_filling().iter().filter_map(|member| member.owed.borrow().next_from(from)).min()
    }

    /// Nothing refers to stripe `id` any more: nobody owes a unit of it.
    pub fn forgive(&self, id: StripeId) {
        let members = self.inner.all_members().into_iter().chain(self.twin());
        members.for_each(|member| member.owed.borrow_mut().settle(id));
    }

    /// Writes the units of `id` that are owed. The caller sees to it that its content stays
    /// the one of `generation` meanwhile.
    pub async fn rebuild_stripe(&self, id: StripeId, generation: u64) -> Rebuilt {
        let guard = self.inner.locks.lock(id).await;
        let Some(segment) = self.segment(id.segment) else { return Rebuilt::NothingOwed };
        let targets = self.targets(&segment, id);
        if targets.is_empty() {
            self.forgive(id);
            return Rebuilt::NothingOwed;
        }
        self.inner.record.count(|counters| counters.stripes_rebuilt += 1);
        if let Some(done) = self.copy_to_twin(&segment, id, generation, &targets).await {
            return done;
        }
        let Some((collected, stripe)) = self.whole_stripe(segment, id, generation).await else {
            self.forgive(id);
            self.lose(id);
            return Rebuilt::Lost;
        };
        let segment = collected.segment();
        let writes = targets.iter().map(|(role, member)| self.fill(segment, id, (*role, member), &stripe.units[*role]));
        let written = join_all(writes).await.into_iter().filter(|done| *done).count();
        self.repair(segment, id, &stripe).await;
        drop(guard);
        self.inner.record.count(|counters| counters.units_rebuilt += written as u64);
        Rebuilt::Units(u8::try_from(written).expect("at most 32"))
    }

    /// Roles that are owed, and the drives that owe them.
    fn targets(&self, segment: &Segment, id: StripeId) -> Vec<(usize, Rc<Member>)> {
        let owing = |role: usize| {
            let filling = self.filling(segment.place_of(role, id.row).slot)?;
            let owes = filling.owed.borrow().contains(id);
            owes.then_some((role, filling))
        };
        (0..segment.geometry.width()).filter_map(owing).collect()
    }

    /// Copies the unit of a drive that is being retired to its twin, if that is all there is to
    /// do and the unit is right: one read in place of d.
    async fn copy_to_twin(
        &self,
        segment: &Rc<Segment>,
        id: StripeId,
        generation: u64,
        targets: &[(usize, Rc<Member>)],
    ) -> Option<Rebuilt> {
        let [(role, twin)] = targets else { return None };
        if !self.is_twin(twin) {
            return None;
        }
        let unit = self.read_unit(segment, id, *role, Some(generation)).await.ok()?;
        let written = self.fill(segment, id, (*role, twin), unit.bytes()).await;
        self.inner.record.count(|counters| counters.units_rebuilt += u64::from(written));
        Some(Rebuilt::Units(u8::from(written)))
    }

    /// The stripe from as few units as will do; from all of them when these do not.
    async fn whole_stripe(&self, segment: Rc<Segment>, id: StripeId, generation: u64) -> Option<(Collected, Stripe)> {
        let (width, data) = (segment.geometry.width(), usize::from(segment.geometry.data));
        let there = |role: &usize| self.inner.member(segment.place_of(*role, id.row).slot).holds(id);
        let chosen: Vec<usize> = (0..width).filter(there).take(data).collect();
        let reads = chosen.iter().map(|&role| self.read_unit(&segment, id, role, Some(generation)));
        let mut read = chosen.iter().zip(join_all(reads).await).collect::<std::collections::BTreeMap<_, _>>();
        let units = (0..width).map(|role| read.remove(&role).unwrap_or(Err(Damage::Absent)));
        let few = Collected::new(segment.clone(), id, units.collect());
        let proven =
            |collected: &Collected| collected.versions().into_iter().find_map(|version| self.prove(collected, version));
        if let Some(stripe) = proven(&few) {
            return Some((few, stripe));
        }
        let all = self.collect(segment, id, Some(generation)).await;
        proven(&all).map(|stripe| (all, stripe))
    }

    /// Writes the unit with `role` to the drive that owes it.
    async fn fill(&self, segment: &Segment, id: StripeId, (role, member): (usize, &Rc<Member>), unit: &Buf) -> bool {
        let place = segment.place_of(role, id.row);
        let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row);
        match member.write(Principal::Rebuild, offset, headed_for(unit, member.id)).await {
            Ok(()) => {
                member.owed.borrow_mut().settle(id);
                true
            }
            Err(fault) => {
                self.fail(member, FailReason::of_write(fault));
                false
            }
        }
    }
}
