//! Writing: a whole stripe at once, never in place (R-RAID-05).
//!
//! Per stripe of d + p units of U bytes: one job beside the shard (p parity units in one
//! pass over the data, w check passes), then w headers of 512 bytes and w drive writes in
//! parallel. No copy of the payload: the caller's buffers are frozen and handed to the drives.
//!
//! A crash in the middle leaves a stripe nobody refers to yet. A unit that could not be
//! written costs its drive the membership before the write is reported done, so what it
//! kept from before is never taken for current (I4). While a drive is being retired its units are
//! written to its twin as well (`twin.rs`), each with a header of its own: one copy more.

use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::port::MediaFault;
use futures_util::future::{join, join_all};

use crate::group::Group;
use crate::layout::{Segment, StripeId, UNIT_HEADER_BYTES};
use crate::member::{DriveState, FailReason, Member};
use crate::unit::{UnitHeader, headed_for, payload_check, stripe_digest};

/// What became of a stripe that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Units that are on no drive; the stripe survives that many fewer losses.
    pub absent: u8,
}

/// Why a stripe was not written or not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFault {
    /// More units than the parity can stand in for could not be written.
    #[error("too many drives are absent")]
    TooManyAbsent,
    /// A failed drive could not be put out of the group, so the write cannot be
    /// reported done.
    #[error("no majority of the drives takes header changes")]
    Latched,
    /// The segment is not open, or the row is not in it.
    #[error("no such stripe")]
    NoSuchStripe,
}

/// What a unit header says about content.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    pub generation: u64,
    pub payload_check: u64,
    pub stripe_digest: u64,
}

impl Group {
    /// Writes stripe `id` under `generation`, which is new in this pool. `data` holds
    /// one whole unit per data unit, payload from [`UNIT_HEADER_BYTES`] on; nothing live
    /// may be in that place. Durable after the next [`flush`](Group::flush).
    ///
    /// `Ok` if at most `parity` units could not be written; the drives that refused are
    /// failed then, durably. Drive it to its end: a write that was dropped half way may
    /// still reach the drives, after whatever is written there next.
    ///
    /// # Panics
    /// When the number or size of the data units is not the segment's.
    pub async fn write_stripe(&self, id: StripeId, generation: u64, data: Vec<BufMut>) -> Result<Written, WriteFault> {
        let segment = self.segment(id.segment).filter(|_| id.row < self.inner.shape.rows);
        let segment = segment.ok_or(WriteFault::NoSuchStripe)?;
        assert_eq!(data.len(), usize::from(segment.geometry.data), "one buffer per data unit");
        assert!(data.iter().all(|unit| unit.len() == self.unit_bytes() as usize), "whole units");
        let parity = (0..segment.geometry.parity).map(|_| self.take_unit()).collect();
        let complete = move || complete_stripe(id, generation, data, parity);
        let complete = self.inner.world.work(complete).await;
        let guard = self.inner.locks.lock(id).await;
        // Sealed for the drives that are written to: nothing is waited for in between.
        let units = self.seal(&segment, id, generation, complete);
        let writes = units.into_iter().enumerate().map(|(role, unit)| {
            let place = segment.place_of(role, id.row);
            let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row);
            let principal = self.principal.writing();
            let member = self.inner.member(place.slot);
            let twin = self.twin_of(place.slot).map(|twin| (headed_for(&unit, twin.id), twin));
            async move {
                let to_twin = async {
                    let (unit, twin) = twin?;
                    let outcome = twin.write(principal, offset, unit).await;
                    Some((twin, outcome))
                };
                let (outcome, to_twin) = join(member.write(principal, offset, unit), to_twin).await;
                (member, outcome, to_twin)
            }
        });
        let mut absent = 0u8;
        for (member, outcome, to_twin) in join_all(writes).await {
            absent += u8::from(!self.note_written(id, (member, outcome), to_twin));
        }
        self.inner.record.not_lost(id);
        drop(guard);
        self.look_for_slow();
        self.conclude(segment.geometry.parity, absent).await
    }

    /// Draws the consequences of writing a unit to a member and its twin. Whether the unit is on
    /// the drive that has the slot now.
    fn note_written(&self, id: StripeId, (member, outcome): Wrote, to_twin: Option<Wrote>) -> bool {
        let settle = |member: &Member| member.owed.borrow_mut().settle(id);
        let twin_took = to_twin.filter(|(twin, outcome)| {
            match outcome {
                Ok(()) => settle(twin),
                Err(fault) => self.fail(twin, FailReason::of_write(*fault)),
            }
            outcome.is_ok()
        });
        match outcome {
            Ok(()) => settle(&member),
            Err(fault) => {
                // A drive that was missing all along now lacks something, too.
                if member.state.get() == DriveState::Missing {
                    member.state.set(DriveState::Good);
                }
                self.fail(&member, FailReason::of_write(fault));
            }
        }
        let holder = self.inner.member(member.slot);
        if Rc::ptr_eq(&holder, &member) { outcome.is_ok() } else { twin_took.is_some() }
    }

    async fn conclude(&self, parity: u8, absent: u8) -> Result<Written, WriteFault> {
        if absent > parity {
            return Err(WriteFault::TooManyAbsent);
        }
        if absent > 0 || self.inner.twin_unsettled.get() {
            self.settle_failures().await.map_err(|_| WriteFault::Latched)?;
        }
        self.inner.record.count(|counters| {
            counters.stripes_written += 1;
            counters.stripes_written_degraded += u64::from(absent > 0);
        });
        Ok(Written { absent })
    }

    /// Writes the headers of all units, in role order, and freezes them.
    fn seal(&self, segment: &Segment, id: StripeId, generation: u64, (units, checks): Complete) -> Vec<Buf> {
        let digest = stripe_digest(generation, &checks);
        let sealed = (0u8..).zip(units).map(|(role, mut unit)| {
            let sums = Sums { generation, payload_check: checks[usize::from(role)], stripe_digest: digest };
            let header = self.unit_header(segment, id, role, sums);
            header.encode_into(&mut unit);
            unit.freeze()
        });
        sealed.collect()
    }

    /// The header of the unit with `role`.
    pub(crate) fn unit_header(&self, segment: &Segment, id: StripeId, role: u8, sums: Sums) -> UnitHeader {
        let position = segment.position_of(usize::from(role), id.row);
        UnitHeader {
            group: self.inner.group,
            drive: self.inner.member(segment.places[position].slot).id,
            stripe: id,
            generation: sums.generation,
            role,
            position: u8::try_from(position).expect("at most 32"),
            geometry: segment.geometry,
            places: segment.places.clone(),
            payload_bytes: self.unit_payload_bytes(),
            payload_check: sums.payload_check,
            stripe_digest: sums.stripe_digest,
        }
    }

    /// Makes every stripe written before durable. A drive whose flush fails is out of
    /// the group before this returns `Ok`.
    pub async fn flush(&self) -> Result<(), WriteFault> {
        let mut members = self.inner.all_members();
        members.extend(self.twin());
        let written = members.iter().filter(|member| member.takes_part() && member.is_unflushed());
        let flushes = written.map(|member| async move { (member, member.flush().await) });
        let mut lost = false;
        for (member, outcome) in join_all(flushes).await {
            if let Err(fault) = outcome {
                lost |= !self.is_twin(member);
                self.fail(member, FailReason::of_flush(fault));
            }
        }
        if lost && self.is_overwhelmed() {
            return Err(WriteFault::TooManyAbsent);
        }
        self.settle_failures().await.map_err(|_| WriteFault::Latched)
    }
}

/// A drive and what became of a write to it.
type Wrote = (Rc<Member>, Result<(), MediaFault>);

/// All units of a stripe and the checks of their payloads, in role order.
type Complete = (Vec<BufMut>, Vec<u64>);

/// Fills `parity` (none, P, or P and Q) and appends it to the data units; says the payload
/// checks of all, in role order.
fn complete_stripe(id: StripeId, generation: u64, mut units: Vec<BufMut>, mut parity: Vec<BufMut>) -> Complete {
    let data: Vec<&[u8]> = units.iter().map(|unit| &unit[UNIT_HEADER_BYTES..]).collect();
    match parity.as_mut_slice() {
        [p, q] => parity::encode(&data, &mut p[UNIT_HEADER_BYTES..], &mut q[UNIT_HEADER_BYTES..]),
        [p] => parity::encode_p(&data, &mut p[UNIT_HEADER_BYTES..]),
        _ => {}
    }
    units.append(&mut parity);
    let check = |(role, unit): (u8, &BufMut)| payload_check(id, generation, role, &unit[UNIT_HEADER_BYTES..]);
    let checks = (0u8..).zip(&units).map(check).collect();
    (units, checks)
}
