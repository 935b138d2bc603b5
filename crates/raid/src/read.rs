//! Reading a range of one data unit: the aligned sectors around it, no more, checked by
//! the caller, who knows what belongs there.
//!
//! ```text
//!  read sectors ── passes ──> answer          (late: also from the others, see hedge.rs)
//!      │ refused or fault
//!  read again ──── passes ──> answer          (a wrong-offset read is gone the second time)
//!      │ drive absent                │ still wrong
//!  same range of d others            │
//!   rebuild ────── passes ──> answer │        (d small reads, nothing written)
//!      └────────────┬────────────────┘
//!  lock the stripe, read all units whole, take a version that proves itself,
//!  rebuild ─────── passes ──> answer, repair in the background
//!      └ no version passes ─> Unreadable
//! ```

use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::port::MediaFault;
use futures_util::future::join_all;

use crate::group::{Group, SECTORS_BYTES};
use crate::lane::Lane;
use crate::layout::{Segment, Slot, StripeId, UNIT_HEADER_BYTES};
use crate::member::{FailReason, Member, Strike};
use crate::slow::Observed;
use crate::unit::Damage;

/// Why a range cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// More units are damaged or absent than parity can stand in for.
    #[error("too much of the stripe is damaged or absent")]
    TooMuchDamage,
    /// The stripe proves itself whole, and its content is not what the caller expects:
    /// the reference is wrong, or every unit of a newer write was lost.
    #[error("the stripe is whole but not what its reference says")]
    NotWanted,
    /// The segment is not open, or the range is not within one data unit.
    #[error("no such stripe or range")]
    NoSuchStripe,
}

/// A range of one unit of a stripe.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub id: StripeId,
    pub role: usize,
    /// In the unit, header counted.
    start_bytes: usize,
    len_bytes: usize,
}

impl Range {
    /// The aligned range around this one: start and length.
    pub fn aligned(&self, align_bytes: usize) -> (usize, usize) {
        let start = self.start_bytes / align_bytes * align_bytes;
        (start, (self.start_bytes + self.len_bytes).next_multiple_of(align_bytes) - start)
    }

    /// The range out of `sectors`, which begin at `start` of the unit, if it passes.
    pub fn cut(&self, sectors: BufMut, start: usize, verify: &dyn Fn(&[u8]) -> bool) -> Result<Buf, Damage> {
        let from = self.start_bytes - start;
        let bytes = sectors.freeze().slice(from..from + self.len_bytes);
        if verify(&bytes) { Ok(bytes) } else { Err(Damage::Content) }
    }
}

impl Group {
    /// Reads `len_bytes` at `offset_bytes` of the data of stripe `id`, where data unit u
    /// holds bytes u × [`unit_payload_bytes`](Group::unit_payload_bytes) onwards; the
    /// range may not straddle two units. `verify` decides whether bytes are the right
    /// ones; nothing it refuses is returned. Damage on the way is repaired.
    pub async fn read(
        &self,
        id: StripeId,
        offset_bytes: u32,
        len_bytes: u32,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Buf, Unreadable> {
        let segment = self.segment(id.segment).ok_or(Unreadable::NoSuchStripe)?;
        let range = self.range(&segment, id, offset_bytes, len_bytes).ok_or(Unreadable::NoSuchStripe)?;
        self.inner.record.count(|counters| counters.reads += 1);
        let first = self.read_in_time(&segment, range, verify).await;
        match first {
            Ok(bytes) => return Ok(bytes),
            Err(Damage::Absent) => {
                if let Some(bytes) = self.read_around(&segment, range).await.filter(|bytes| verify(bytes)) {
                    self.inner.record.count(|counters| counters.reads_reconstructed += 1);
                    return Ok(bytes);
                }
            }
            Err(damage) => {
                if let Ok(bytes) = self.read_range(&segment, range, verify).await {
                    if damage == Damage::Unreadable {
                        self.strike(segment.place_of(range.role, id.row).slot, Strike::Healed);
                    }
                    self.inner.record.count(|counters| counters.reads_on_second_try += 1);
                    return Ok(bytes);
                }
            }
        }
        self.read_from_whole(segment, range, verify).await
    }

    fn range(&self, segment: &Segment, id: StripeId, offset_bytes: u32, len_bytes: u32) -> Option<Range> {
        let payload = self.unit_payload_bytes();
        let (role, within) = (offset_bytes / payload, offset_bytes % payload);
        let fits = role < u32::from(segment.geometry.data)
            && id.row < self.inner.shape.rows
            && len_bytes > 0
            && len_bytes <= payload - within;
        let start_bytes = UNIT_HEADER_BYTES + within as usize;
        fits.then_some(Range { id, role: role as usize, start_bytes, len_bytes: len_bytes as usize })
    }

    /// Reads the sectors around the range from the unit's own drive.
    pub(crate) async fn read_range(
        &self,
        segment: &Segment,
        range: Range,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Buf, Damage> {
        let (start, len) = range.aligned(self.inner.align_bytes.get() as usize);
        let bytes = self.read_sectors(segment, range.id, range.role, (start, len)).await?;
        range.cut(bytes, start, verify)
    }

    async fn read_sectors(
        &self,
        segment: &Segment,
        id: StripeId,
        role: usize,
        (start, len): (usize, usize),
    ) -> Result<BufMut, Damage> {
        let place = segment.place_of(role, id.row);
        if !self.inner.member(place.slot).holds(id) {
            return Err(Damage::Absent);
        }
        let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row) + start as u64;
        self.read_media(place.slot, offset, self.take_sectors(len)).await
    }

    pub(crate) fn take_sectors(&self, len_bytes: usize) -> BufMut {
        let pool = if len_bytes <= SECTORS_BYTES { &self.inner.sectors } else { &self.inner.units };
        pool.take(len_bytes)
    }

    /// Rebuilds the range from the same range of d other units. Not proved by unit checks,
    /// so only good for an answer that the caller's check accepts.
    pub(crate) async fn read_around(&self, segment: &Segment, range: Range) -> Option<Buf> {
        let geometry = segment.geometry;
        let good = |role: usize| self.inner.member(segment.place_of(role, range.id.row).slot).holds(range.id);
        let mut sources: Vec<usize> = (0..geometry.width()).filter(|&role| role != range.role && good(role)).collect();
        // Drives that are busy with bulk writes come last.
        sources.sort_by_key(|&role| self.inner.member(segment.place_of(role, range.id.row).slot).is_in_bulk_turn());
        sources.truncate(usize::from(geometry.data));
        if sources.len() < usize::from(geometry.data) {
            return None;
        }
        // The header is not covered by parity: leave it out of the range.
        let (start, len) = range.aligned(self.inner.align_bytes.get() as usize);
        let reads = sources.iter().map(|&role| self.read_sectors(segment, range.id, role, (start, len)));
        let reads: Result<Vec<BufMut>, Damage> = join_all(reads).await.into_iter().collect();
        let reads = reads.ok()?;
        let mut present: Vec<Option<&[u8]>> = vec![None; geometry.width()];
        for (&role, bytes) in sources.iter().zip(&reads) {
            present[role] = Some(bytes);
        }
        let mut target = self.take_sectors(len);
        parity::reconstruct(usize::from(geometry.data), &present, &mut [(range.role, &mut target[..])]).ok()?;
        let from = range.start_bytes - start;
        Some(target.freeze().slice(from..from + range.len_bytes))
    }

    /// Answers from a stripe all of whose units were checked as a whole, and has it
    /// repaired.
    async fn read_from_whole(
        &self,
        segment: Rc<Segment>,
        range: Range,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Buf, Unreadable> {
        let guard = self.inner.locks.lock(range.id).await;
        if self.segment(range.id.segment).is_none() {
            return Err(Unreadable::NoSuchStripe);
        }
        // Someone else may have repaired it while we waited.
        if let Ok(bytes) = self.read_range(&segment, range, verify).await {
            return Ok(bytes);
        }
        let collected = self.collect(segment, range.id, None).await;
        let mut whole = false;
        for version in collected.versions() {
            let Some(stripe) = self.prove(&collected, version) else { continue };
            whole = true;
            let bytes = stripe.units[range.role].slice(range.start_bytes..range.start_bytes + range.len_bytes);
            if verify(&bytes) {
                self.inner.record.count(|counters| counters.reads_reconstructed += 1);
                self.repair_later(guard, collected.segment(), stripe);
                return Ok(bytes);
            }
        }
        if whole {
            self.inner.record.count(|counters| counters.reads_failed += 1);
            return Err(Unreadable::NotWanted);
        }
        Err(self.lose(range.id))
    }

    /// Reads from a member. A drive that says it is gone is failed at once; other faults
    /// are the caller's to count, once for all its tries, with [`strike`](Group::strike).
    pub(crate) async fn read_media(&self, slot: Slot, offset_bytes: u64, buf: BufMut) -> Result<BufMut, Damage> {
        let member = self.inner.member(slot);
        if !member.takes_part() {
            return Err(Damage::Absent);
        }
        let outcome = member.read(self.principal.reading(), offset_bytes, buf).await;
        self.note_fault(&member, outcome.as_ref().map(|_| ()).map_err(|fault| *fault));
        outcome.map_err(Damage::from)
    }

    /// Draws the consequences of a read for its drive.
    pub(crate) fn note_fault(&self, member: &Rc<Member>, outcome: Result<(), MediaFault>) {
        match outcome {
            Err(MediaFault::Gone) => self.fail(member, FailReason::Gone),
            Err(MediaFault::Timeout) => self.strike(member.slot, Strike::Hangs),
            _ => {}
        }
        self.look_for_slow();
    }

    /// Counts an error a drive reported, and fails the drive if it is one too many. Never
    /// the drive that costs the last redundancy: its good sectors are worth more.
    pub(crate) fn strike(&self, slot: Slot, strike: Strike) {
        let member = self.inner.member(slot);
        let too_many = member.strike(strike, self.inner.world.clock.now());
        let others_good = || self.inner.members.borrow().iter().all(|member| member.slot == slot || member.is_good());
        if too_many && others_good() {
            self.fail(&member, FailReason::Errors);
        }
    }

    /// Ends a round of watching for slow drives when it is time. One that was far slower than the
    /// others for long is put out, if the group can lose one more after that.
    pub(crate) fn look_for_slow(&self) {
        let (now, settings) = (self.inner.world.clock.now(), self.inner.flow.slow());
        if !self.inner.judge.borrow().is_due(now, settings) {
            return;
        }
        let members = self.inner.all_members();
        let membership = self.inner.header.borrow().membership;
        let mut judge = self.inner.judge.borrow_mut();
        // With a drive absent or being filled the others have other work, and nobody may go.
        if !judge.watches(membership) || !members.iter().all(|member| member.is_good()) {
            judge.start_over(now, membership);
            members.iter().filter_map(|member| member.lane.as_ref()).for_each(Lane::forget_times);
            return;
        }
        let observed: Vec<Observed> = members.iter().filter_map(observe).collect();
        if !judge.judge(now, settings, &observed) {
            return;
        }
        members.iter().filter_map(|member| member.lane.as_ref()).for_each(Lane::forget_times);
        let worst = judge.worst(now);
        let Some(member) = members.iter().find(|member| Some(member.id) == worst) else { return };
        if self.margin() >= 2 && !self.inner.latched.get() && self.retiring().is_none() {
            judge.rest(now);
            drop(judge);
            self.fail(member, FailReason::Slow);
        }
    }
}

fn observe(member: &Rc<Member>) -> Option<Observed> {
    let lane = member.lane.as_ref()?;
    let profile = lane.profile();
    Some(Observed { drive: member.id, class: profile.class, least: profile.slow_least(), times: lane.times() })
}
