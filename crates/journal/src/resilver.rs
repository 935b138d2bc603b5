//! Looking after the legs of a journal at work: reading them again, and taking in a new
//! one for one that was lost.
//!
//! Both go through the batches in the ring, oldest first, one at a time. A batch is read,
//! checked record by record against its mark, and only then written anywhere. While one
//! is in hand trims wait, so that its place is not given to a new batch in between.
//!
//! # Taking in a leg
//!
//! 1. The new leg is filled with zeros (long, but in nobody's way).
//! 2. The batches are copied, each checked. New ones come meanwhile; it follows.
//! 3. Submitting pauses until what is in flight is durable; the rest is copied; the label
//!    is written; the leg is active. From here on every batch goes to it too.
//! 4. The caller writes [`incarnations`](crate::Journal::incarnations) to the root. Until
//!    then a crash finds a leg that the root does not name, and leaves it out.

use std::rc::Rc;

use base::port::{Leg, MediaFault};
use base::{Buf, BufMut, Incarnation};

use crate::format::{LegLabel, RECORD_HEADER_BYTES, RING_START_BYTES, RecordHeader, RingId};
use crate::journal::Journal;
use crate::open::{write_label, write_zeros};
use crate::pump::write_ring;
use crate::ring::BatchMark;
use crate::state::{LegSlot, Shared};
use crate::timed::TimedLeg;

/// Why a leg was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddLegRefused {
    /// The journal has two working legs, took in too many since it was opened, or has
    /// latched.
    #[error("the journal takes no further leg now")]
    NoPlace,
    /// It has had a leg of this incarnation.
    #[error("this incarnation is not new")]
    NotNew,
    /// The leg is smaller than the ring.
    #[error("the leg is smaller than {needed_bytes} bytes")]
    TooSmall {
        /// Smallest capacity that would do.
        needed_bytes: u64,
    },
    /// A batch is damaged on every leg, and would be on the new one. The next trims make
    /// it go away: checkpoint and try again.
    #[error("a batch cannot be read whole from any leg")]
    Damaged,
    /// The new leg failed.
    #[error("the new leg failed: {0}")]
    Fault(#[from] MediaFault),
}

/// What reading the legs again found (R-NV-04 while running; `faults.md` F22).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Copies of batches that were read and right.
    pub right: u64,
    /// Copies that were not, and were written again from another leg.
    pub mended: u64,
    /// Batches that no leg has whole.
    pub damaged: u64,
}

/// Keeps trims waiting while a batch is in hand.
struct Hold<'a>(&'a Shared);

impl<'a> Hold<'a> {
    fn new(shared: &'a Shared) -> Hold<'a> {
        shared.state.borrow_mut().holds += 1;
        Hold(shared)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.holds -= 1;
        state.trim_held();
    }
}

/// Keeps batches from being submitted.
struct Pause<'a>(&'a Shared);

impl<'a> Pause<'a> {
    fn new(shared: &'a Shared) -> Pause<'a> {
        shared.state.borrow_mut().pauses += 1;
        Pause(shared)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.pauses -= 1;
        state.wake_pump();
    }
}

impl Journal {
    /// Reads every stable batch from every leg again, checks it, and writes it anew where
    /// it is damaged and another leg has it.
    pub async fn verify(&self) -> Verified {
        let shared = self.shared();
        let mut verified = Verified::default();
        let mut next = 0;
        loop {
            let hold = Hold::new(shared);
            let Some((number, mark)) = shared.state.borrow().ring.stable_from(next) else {
                return verified;
            };
            verify_batch(shared, mark, &mut verified).await;
            next = number + 1;
            drop(hold);
        }
    }

    /// Takes in `leg`, whose content is lost, as a new life named `incarnation`. Service
    /// goes on; submitting pauses only for what came in while the rest was copied. The
    /// leg counts for nothing until the root names it (see the head of this file).
    pub async fn add_leg(&self, leg: Rc<dyn Leg>, incarnation: Incarnation) -> Result<(), AddLegRefused> {
        let shared = self.shared();
        let label = LegLabel { incarnation, ..shared.label };
        self.may_add(leg.as_ref(), &label)?;
        let length_bytes = RING_START_BYTES + label.ring_bytes;
        let timed = TimedLeg::wrap(&leg, &shared.world);
        write_zeros(timed.as_ref(), length_bytes).await?;
        let next = copy_from(shared, 0, &timed).await?;
        let pause = Pause::new(shared);
        while shared.state.borrow().ring.in_flight() > 0 {
            self.may_add(leg.as_ref(), &label)?;
            shared.world.clock.sleep_until(shared.world.clock.now() + shared.config.seal_after / 10).await;
        }
        copy_from(shared, next, &timed).await?;
        write_label(timed.as_ref(), &label).await?;
        self.may_add(leg.as_ref(), &label)?;
        let mut state = shared.state.borrow_mut();
        state.ring.join();
        state.legs.push(LegSlot { leg, incarnation, active: true });
        drop(state);
        drop(pause);
        Ok(())
    }

    fn may_add(&self, leg: &dyn Leg, label: &LegLabel) -> Result<(), AddLegRefused> {
        let state = self.shared().state.borrow();
        let needed_bytes = RING_START_BYTES + label.ring_bytes;
        if state.latched || !state.ring.may_join() {
            return Err(AddLegRefused::NoPlace);
        }
        if state.legs.iter().any(|slot| slot.incarnation == label.incarnation) {
            return Err(AddLegRefused::NotNew);
        }
        if leg.info().capacity_bytes < needed_bytes {
            return Err(AddLegRefused::TooSmall { needed_bytes });
        }
        Ok(())
    }
}

/// The legs that are written.
fn active_legs(shared: &Shared) -> Vec<Rc<dyn Leg>> {
    let state = shared.state.borrow();
    state.legs.iter().filter(|slot| slot.active).map(|slot| TimedLeg::wrap(&slot.leg, &shared.world)).collect()
}

async fn verify_batch(shared: &Shared, mark: BatchMark, verified: &mut Verified) {
    let mut good: Option<Buf> = None;
    let mut bad = Vec::new();
    for leg in active_legs(shared) {
        match read_batch(shared, leg.as_ref(), mark).await {
            Some(bytes) => {
                verified.right += 1;
                good = Some(bytes);
            }
            None => bad.push(leg),
        }
    }
    let Some(bytes) = good else {
        verified.damaged += 1;
        return;
    };
    for leg in bad {
        let write = write_ring(leg, shared.label.ring_bytes, mark.position_bytes, vec![bytes.clone()]);
        verified.mended += u64::from(write.await.is_ok());
    }
}

/// Copies the durable batches from number `next` on to `leg`. Returns the number after.
async fn copy_from(shared: &Shared, mut next: u64, leg: &Rc<dyn Leg>) -> Result<u64, AddLegRefused> {
    loop {
        let _hold = Hold::new(shared);
        let Some((number, mark)) = shared.state.borrow().ring.durable_from(next) else {
            return Ok(next);
        };
        let mut good = None;
        for source in active_legs(shared) {
            if good.is_none() {
                good = read_batch(shared, source.as_ref(), mark).await;
            }
        }
        let bytes = good.ok_or(AddLegRefused::Damaged)?;
        write_ring(leg.clone(), shared.label.ring_bytes, mark.position_bytes, vec![bytes]).await?;
        next = number + 1;
    }
}

/// The bytes of a batch, if all its records are there and right.
async fn read_batch(shared: &Shared, leg: &dyn Leg, mark: BatchMark) -> Option<Buf> {
    let offset = mark.position_bytes % shared.label.ring_bytes;
    let before_end = mark.length_bytes.min(shared.label.ring_bytes - offset);
    let (result, first) = leg.read(RING_START_BYTES + offset, BufMut::zeroed(before_end as usize)).await;
    result.ok()?;
    if before_end == mark.length_bytes {
        return batch_is_right(&first, mark, shared.label.ring).then(|| first.freeze());
    }
    let rest_bytes = (mark.length_bytes - before_end) as usize;
    let (result, rest) = leg.read(RING_START_BYTES, BufMut::zeroed(rest_bytes)).await;
    result.ok()?;
    let mut bytes = BufMut::zeroed(mark.length_bytes as usize);
    bytes[..first.len()].copy_from_slice(&first);
    bytes[first.len()..].copy_from_slice(&rest);
    batch_is_right(&bytes, mark, shared.label.ring).then(|| bytes.freeze())
}

fn batch_is_right(bytes: &[u8], mark: BatchMark, ring: RingId) -> bool {
    let mut previous = mark.previous;
    let mut at = 0;
    (mark.first.0..=mark.last.0).all(|sequence| {
        let header = bytes.get(at..).and_then(|bytes| RecordHeader::decode(bytes, ring));
        let Some(header) = header else { return false };
        let body_at = at + RECORD_HEADER_BYTES;
        let body = bytes.get(body_at..body_at + header.body_bytes.get() as usize);
        let right = header.sequence.get() == sequence
            && header.previous.get() == previous
            && header.position_bytes.get() == mark.position_bytes + at as u64
            && body.is_some_and(|body| header.body_matches(body));
        previous = header.header_check.get();
        at += header.record_bytes() as usize;
        right
    })
}
