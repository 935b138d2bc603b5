//! The cleaner: makes whole stripes free by moving what is live in the emptiest ones.
//!
//! A stripe is read whole and verified; what it holds is known from the descriptors in
//! it, and what of that is live from the tables, which must name this very place. Live
//! blocks are copied as they stand, descriptor and check included, so damage cannot be
//! copied unnoticed (R-INT-03). Pages are simply written again by the next checkpoint.

use base::ObjectId;
use raid::Principal;

use crate::format::{DESCRIPTOR_BYTES, Descriptor, OBJECT_ALIGN_BYTES, ObjectKind, Place};
use crate::inner::Inner;
use crate::mover::{Move, Mover};
use crate::options::Event;
use crate::pages::PageEntry;
use crate::store::StoreRefusal;
use crate::stripes::Usage;
use crate::tree::PageId;

/// Stripes looked for at a time.
const VICTIMS: usize = 64;
/// Stripes filled at a time with what is moved.
const STRIPES_MOVED_MAX: u64 = 16;
/// Stripes left for the checkpoint behind, besides its pages.
const STRIPES_FOR_PAGES: u64 = 4;
/// What a dirty page costs in a checkpoint at most, the table page that names it included.
const PAGE_COST_BYTES: u64 = 2 * 4400;

impl Inner {
    /// Empties a few stripes, those with the fewest live bytes first. Returns how many it
    /// took on; they are free after the next checkpoint.
    pub async fn clean(&self, mover: &mut Mover) -> Result<usize, StoreRefusal> {
        let full = self.stripe_bytes();
        let free = self.state.borrow().stripes.free_count() as u64 + self.group.space().stripes_free;
        // What is moved needs room itself, and so do the pages that say so, until the
        // checkpoint frees the victims.
        let pages = self.state.borrow().pages.dirty_count() as u64 * PAGE_COST_BYTES / u64::from(full);
        let room = free.saturating_sub(STRIPES_FOR_PAGES + pages) / 2;
        if room == 0 {
            return Ok(0);
        }
        let budget = room.min(STRIPES_MOVED_MAX) * u64::from(full);
        // A full stripe of a narrower segment is no victim: moving it would gain nothing.
        let limit = |segment| self.group.payload_bytes_per_stripe(segment).unwrap_or(full) / 32 * 31;
        let mut victims = self.state.borrow().stripes.victims(VICTIMS + mover.stuck.len(), limit);
        victims.retain(|victim| !mover.stuck.contains(&victim.stripe));
        let mut taken = 0;
        let mut moved_bytes = 0u64;
        for victim in victims.into_iter().take(VICTIMS) {
            moved_bytes += u64::from(victim.live_bytes);
            if taken > 0 && moved_bytes > budget {
                break;
            }
            self.empty_stripe(mover, victim).await?;
            taken += 1;
            self.world.yield_now().await;
        }
        mover.data.drain(self).await?;
        self.counters.borrow_mut().stripes_cleaned += taken as u64;
        Ok(taken)
    }

    /// Bytes of payload of a stripe as they are written now.
    pub fn stripe_bytes(&self) -> u32 {
        let newest = self.state.borrow().stripes.segments().last();
        let open = newest.and_then(|segment| self.group.payload_bytes_per_stripe(segment));
        open.unwrap_or_else(|| {
            let space = self.group.space();
            (space.data_bytes_free / space.stripes_free.max(1)).clamp(1, u64::from(u32::MAX)) as u32
        })
    }

    async fn empty_stripe(&self, mover: &mut Mover, victim: Usage) -> Result<(), StoreRefusal> {
        let Ok(units) =
            self.group.acting_as(Principal::CleanerRead).read_stripe(victim.stripe, victim.generation).await
        else {
            mover.stuck.insert(victim.stripe);
            self.event(Event::StripeStuck { stripe: victim.stripe });
            return Ok(());
        };
        for (unit, payload) in (0u32..).zip(&units) {
            let mut at = 0;
            while let Some((descriptor, check)) = object_at(payload, at) {
                let place = Place {
                    stripe: victim.stripe,
                    offset_bytes: unit * self.group.unit_payload_bytes() + at as u32,
                    stored_bytes: descriptor.stored_bytes,
                    check,
                };
                let end = at + place.object_bytes() as usize;
                self.move_object(mover, &descriptor, place, &payload[at..end]).await?;
                at = end;
            }
        }
        Ok(())
    }

    async fn move_object(
        &self,
        mover: &mut Mover,
        descriptor: &Descriptor,
        place: Place,
        object: &[u8],
    ) -> Result<(), StoreRefusal> {
        match descriptor.kind {
            ObjectKind::Data => {
                let id = ObjectId(descriptor.id);
                let row = self.resident(|state| state.object(id)).await?;
                if row.is_some_and(|row| row.place == place) {
                    let to = mover.data.copy(self, object, place).await?;
                    mover.data.consequences.moves.push(Move { object: id, from: place, to });
                    self.counters.borrow_mut().objects_moved += 1;
                }
            }
            ObjectKind::Page => {
                let (id, here) = (PageId(descriptor.id), PageEntry { place, version: descriptor.sequence });
                if self.resident(|state| state.pages.entry(id)).await? == here {
                    self.rewrite_page(mover, id).await?;
                }
            }
            ObjectKind::Usage | ObjectKind::Index if mover.holds_table_at(&place) => {
                self.leave_table_object(mover, descriptor, place, object);
            }
            ObjectKind::Usage | ObjectKind::Index => {}
            ObjectKind::Delta => self.move_delta(mover, descriptor, place, object).await?,
        }
        Ok(())
    }

    /// Has the next checkpoint write page `id` to a new place.
    async fn rewrite_page(&self, mover: &mut Mover, id: PageId) -> Result<(), StoreRefusal> {
        if id.level() > 0 {
            mover.touched_tables.insert(id);
            return Ok(());
        }
        self.resident(|state| {
            state.changed = true;
            state.pages.touch(id)
        })
        .await
    }

    async fn move_delta(
        &self,
        mover: &mut Mover,
        descriptor: &Descriptor,
        place: Place,
        object: &[u8],
    ) -> Result<(), StoreRefusal> {
        let Some(index) = mover.deltas.iter().position(|known| *known == place) else { return Ok(()) };
        debug_assert_eq!(descriptor.kind, ObjectKind::Delta);
        let to = mover.meta.copy(self, object, place).await?;
        mover.deltas[index] = to;
        let mut state = self.state.borrow_mut();
        state.stripes.add_live(to.stripe, to.object_bytes());
        state.stripes.sub_live(place.stripe, place.object_bytes());
        state.changed = true;
        Ok(())
    }
}

/// The object that starts at `at` of a unit's payload, if one does.
pub(crate) fn object_at(payload: &[u8], at: usize) -> Option<(Descriptor, base::MediaCheck)> {
    debug_assert_eq!(at % OBJECT_ALIGN_BYTES, 0);
    let rest = payload.get(at..).filter(|rest| rest.len() >= DESCRIPTOR_BYTES)?;
    Descriptor::open(rest).ok()
}
