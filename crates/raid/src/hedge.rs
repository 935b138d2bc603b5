//! Hedged reads (R-IO-07): a read that somebody waits for and whose drive is late is
//! answered from the other drives of its stripe, if that is faster.
//!
//! ```text
//!   ask the drive ── in time ──> answer
//!        │ late (timeout of profile and kind of read)
//!        ├── not allowed: wait on
//!        └── allowed: also read the same range of d other units
//!               whichever gives bytes that pass the caller's check first is the answer;
//!               the other one ends alone, so its slots at the drives stay counted
//! ```
//!
//! A reconstruction costs d reads, and slow drives make more reads late, so hedging could
//! feed itself. It is held down by a budget: each read that could be hedged earns a small
//! part of a token, a hedge takes a whole one, and only so many can be saved up (`faults.md`
//! B-37: drives are slow 0.2 to 0.6 % of the time; 3 % is the default). And it is not
//! done when as many units of the stripe are absent as there is parity: then nothing can
//! be reconstructed, and the drives have enough to do.

use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::port::MediaFault;
use futures_util::future::{Either, select};

use crate::group::Group;
use crate::lane::{Lane, OwnedRead};
use crate::layout::Segment;
use crate::member::Member;
use crate::principal::Principal;
use crate::read::Range;
use crate::slow::READS_LEFT;
use crate::unit::Damage;

/// What one hedge takes.
const TOKEN: u64 = 1_000_000;
/// Hedges that can be saved up.
const SAVED_MAX: u64 = 16 * TOKEN;

/// How many late reads may be hedged. Counts in millionths of a hedge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HedgeBudget {
    earned_ppm: u32,
    saved: u64,
}

impl HedgeBudget {
    /// Earns `earned_ppm` millionths of a hedge with each read.
    pub fn new(earned_ppm: u32) -> HedgeBudget {
        HedgeBudget { earned_ppm, saved: if earned_ppm == 0 { 0 } else { SAVED_MAX } }
    }

    /// Earns another part from now on; 0 takes what was saved.
    pub fn adjust(&mut self, earned_ppm: u32) {
        if (earned_ppm == 0) != (self.earned_ppm == 0) {
            *self = HedgeBudget::new(earned_ppm);
        }
        self.earned_ppm = earned_ppm;
    }

    fn earn(&mut self) {
        self.saved = (self.saved + u64::from(self.earned_ppm)).min(SAVED_MAX);
    }

    fn take(&mut self) -> bool {
        let can = self.saved >= TOKEN;
        if can {
            self.saved -= TOKEN;
        }
        can
    }
}

/// Reads that were late, and what was done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeCounters {
    /// Reads that were late.
    pub late: u64,
    /// Of these, hedged.
    pub hedged: u64,
    /// Of these, answered by reconstruction.
    pub won: u64,
    /// Late reads not hedged because the budget was used up.
    pub over_budget: u64,
    /// Late reads not hedged because too many units of the stripe are absent.
    pub no_redundancy: u64,
}

/// A timed read on its way.
struct Timed {
    lane: Lane,
    member: Rc<Member>,
    io: OwnedRead,
}

impl Group {
    /// The aligned sectors around a range, from the unit's own drive or, when that is late,
    /// from the others. What it returns passed `verify`.
    pub(crate) async fn read_in_time(
        &self,
        segment: &Rc<Segment>,
        range: Range,
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Buf, Damage> {
        let slot = segment.place_of(range.role, range.id.row).slot;
        let principal = self.principal.reading();
        let member = self.inner.member(slot);
        let Some(lane) = member.usable_lane().filter(|_| member.holds(range.id)) else { return Err(Damage::Absent) };
        let profile = lane.profile();
        let timeout = match principal {
            Principal::UserRead => profile.user_read_timeout,
            Principal::MetadataRead => profile.metadata_read_timeout,
            _ => std::time::Duration::ZERO,
        };
        let (start, len) = range.aligned(self.inner.align_bytes.get() as usize);
        if timeout.is_zero() || len > profile.io_bytes_max as usize {
            return self.read_range(segment, range, verify).await;
        }
        if self.is_avoided(&member, &lane, segment)
            && let Some(bytes) = self.read_around(segment, range).await.filter(|bytes| verify(bytes))
        {
            self.inner.record.count(|counters| counters.reads_reconstructed += 1);
            return Ok(bytes);
        }
        lane.flow().budget.borrow_mut().earn();
        let clock = self.inner.world.clock.clone();
        let late = clock.sleep_until(clock.now() + timeout);
        let offset =
            self.inner.shape.unit_offset_bytes(segment.place_of(range.role, range.id.row).extent, range.id.row);
        let io = self.start_read(&lane, principal, offset + start as u64, len);
        match select(io, late).await {
            Either::Left((done, _)) => {
                lane.note_read(false);
                range.cut(self.judge_read(&member, done)?, start, verify)
            }
            Either::Right(((), io)) => {
                lane.note_read(true);
                self.read_late(segment, range, verify, Timed { lane, member, io }).await
            }
        }
    }

    fn start_read(&self, lane: &Lane, principal: Principal, offset_bytes: u64, len_bytes: usize) -> OwnedRead {
        let buf = self.take_sectors(len_bytes);
        match lane.try_admit(principal, len_bytes) {
            Some(pass) => lane.issue(pass, offset_bytes, buf),
            None => {
                let lane = lane.clone();
                Box::pin(async move { lane.read(principal, offset_bytes, buf).await })
            }
        }
    }

    /// What a read says about its drive.
    pub(crate) fn judge_read(
        &self,
        member: &Rc<Member>,
        (outcome, buf): (Result<(), MediaFault>, BufMut),
    ) -> Result<BufMut, Damage> {
        self.note_fault(member, outcome);
        outcome.map(|()| buf).map_err(Damage::from)
    }

    /// Goes on with a read that is late.
    async fn read_late(
        &self,
        segment: &Rc<Segment>,
        range: Range,
        verify: &dyn Fn(&[u8]) -> bool,
        timed: Timed,
    ) -> Result<Buf, Damage> {
        let (start, _) = range.aligned(self.inner.align_bytes.get() as usize);
        self.count_hedge(|hedge| hedge.late += 1);
        let own = self.finish_late(timed);
        if !self.may_hedge(segment) {
            return range.cut(own.await?, start, verify);
        }
        self.count_hedge(|hedge| hedge.hedged += 1);
        let (group, around) = (self.clone(), segment.clone());
        let others: OtherUnits = Box::pin(async move { group.read_around(&around, range).await });
        match select(own, others).await {
            Either::Left((own, others)) => {
                let cut = own.and_then(|bytes| range.cut(bytes, start, verify));
                self.let_end(Box::pin(async move { drop(others.await) }));
                cut
            }
            Either::Right((others, own)) => match others.filter(|bytes| verify(bytes)) {
                Some(bytes) => {
                    self.count_hedge(|hedge| hedge.won += 1);
                    self.inner.record.count(|counters| counters.reads_reconstructed += 1);
                    self.let_end(Box::pin(async move { drop(own.await) }));
                    Ok(bytes)
                }
                None => range.cut(own.await?, start, verify),
            },
        }
    }

    /// The rest of a late read, with the limit that every read has.
    fn finish_late(&self, timed: Timed) -> base::port::LocalFuture<'static, Result<BufMut, Damage>> {
        let group = self.clone();
        Box::pin(async move {
            let Timed { lane, member, io } = timed;
            let limit = lane.profile().read_limit;
            let given_up = lane.clock().sleep_until(lane.clock().now() + limit);
            let done = match select(io, given_up).await {
                Either::Left((done, _)) => done,
                Either::Right(_) => (Err(MediaFault::Timeout), BufMut::zeroed(0)),
            };
            group.judge_read(&member, done)
        })
    }

    /// Whether a read is not left to its drive, because that is the one that is far slower than the
    /// others (`slow.rs`). It costs what it would if the drive were out, where it soon is.
    fn is_avoided(&self, member: &Member, lane: &Lane, segment: &Segment) -> bool {
        self.inner.judge.borrow().is_the_slow_one(member.id)
            && lane.reads_timed() >= READS_LEFT
            && self.has_redundancy(segment)
    }

    fn has_redundancy(&self, segment: &Segment) -> bool {
        let absent = segment.places.iter().filter(|place| !self.inner.member(place.slot).is_good()).count();
        absent < usize::from(segment.geometry.parity)
    }

    fn may_hedge(&self, segment: &Segment) -> bool {
        if !self.has_redundancy(segment) {
            self.count_hedge(|hedge| hedge.no_redundancy += 1);
            return false;
        }
        let can = self.inner.flow.budget.borrow_mut().take();
        self.count_hedge(|hedge| hedge.over_budget += u64::from(!can));
        can
    }

    fn count_hedge(&self, count: impl FnOnce(&mut HedgeCounters)) {
        let mut counters = self.inner.hedges.get();
        count(&mut counters);
        self.inner.hedges.set(counters);
    }

    /// The loser of a race goes on alone until it is done.
    fn let_end(&self, rest: base::port::LocalFuture<'static, ()>) {
        self.inner.world.spawn.spawn("raid late read", rest);
    }
}

type OtherUnits = base::port::LocalFuture<'static, Option<Buf>>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides R-IO-07 in part: the budget.
    #[test]
    fn a_budget_is_a_part_of_the_reads_and_a_little_saved_up() {
        let mut budget = HedgeBudget::new(30_000);
        let mut hedged = 0;
        for _ in 0..100_000 {
            budget.earn();
            hedged += u32::from(budget.take());
        }
        assert!((3014..=3016).contains(&hedged), "3 % and sixteen saved up: {hedged}");
        budget.adjust(0);
        budget.earn();
        assert!(!budget.take(), "switched off");
        budget.adjust(1);
        assert!(budget.take());
    }
}
