//! Scrub: every unit of every written stripe is read and checked, data and parity, and
//! every data object in it as well, and what is damaged is rewritten at once, before the
//! damage can add up (R-SCR-01 to -05, `faults.md` F01).
//!
//! ```text
//!   stripes  ├──done──┤cursor├────── one stripe per interval ──────┤   then from the start
//!   interval = time left of the pass / stripes left, but never below a floor
//!   soon after writing (media that want it): what was written lately, before the pass goes on
//! ```
//!
//! The interval is fixed as long as the number of stripes is: a steady trickle, not bursts.
//! A pass that was asked for runs at the floor. A rebuild goes first. Nobody is locked out:
//! as for a rebuild, the era of a reader keeps the stripe from being written anew.
//!
//! Where the pass is and what the last ones found is in a register, so that a restart goes
//! on and not back to the start.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use base::{Buf, Nanos, ObjectId, WallNanos, content_check};
use futures_util::future::{Either, select};
use raid::{CasRefused, Principal, StripeId};
use tokio::sync::Notify;

use crate::cleaner::object_at;
use crate::engine::Engine;
use crate::format::{FormatError, ObjectKind, Place, Take};
use crate::inner::Inner;
use crate::options::Event;
use crate::read::decode;
use crate::store::StoreRefusal;

/// Name of the register that holds the record of the scrub.
const SCRUB_REGISTER: &str = "scrub";
const FORMAT: u16 = 1;
/// The record is saved about this often.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Passes remembered.
const HISTORY: usize = 16;
/// Stripes written lately that wait to be read back; beyond, the oldest are left to the pass.
const FRESH_MAX: usize = 65_536;
/// While there is nothing to look at, or somebody goes first.
const IDLE: Duration = Duration::from_secs(1);
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How stripes are looked at in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPolicy {
    /// Time for one pass over everything: 14 days on flash, 7 on disks (R-SCR-03, -04).
    pub full_pass: Duration,
    /// Stripes are never further apart in time than the pass demands, nor closer than this.
    pub interval_min: Duration,
    /// What is written is read back this soon after; `None` leaves it to the pass (R-SCR-02).
    pub read_back_after: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl ScrubPolicy {
    /// For flash.
    pub const FLASH: ScrubPolicy = ScrubPolicy {
        full_pass: DAY.saturating_mul(14),
        interval_min: Duration::from_millis(20),
        read_back_after: None,
    };
    /// For disks that turn.
    pub const DISK: ScrubPolicy = ScrubPolicy {
        full_pass: DAY.saturating_mul(7),
        interval_min: Duration::from_millis(50),
        read_back_after: Some(Duration::from_secs(30)),
    };
}

/// What a scrub found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// Stripes read.
    pub stripes: u64,
    /// Data objects whose content was recomputed.
    pub objects: u64,
    /// Objects that are not what they say although their unit is whole.
    pub objects_damaged: u64,
    /// Damaged units that were rewritten and are right again.
    pub units_repaired: u64,
    /// Damaged units that could not be rewritten.
    pub units_unrepaired: u64,
    /// Units on absent drives.
    pub units_absent: u64,
    /// Stripes with too few good units left.
    pub stripes_lost: u64,
    /// Stripes whose parity does not fit good data: a defect of this program.
    pub stripes_inconsistent: u64,
}

impl Scrub {
    fn add(&mut self, other: &Scrub) {
        self.stripes += other.stripes;
        self.objects += other.objects;
        self.objects_damaged += other.objects_damaged;
        self.units_repaired += other.units_repaired;
        self.units_unrepaired += other.units_unrepaired;
        self.units_absent += other.units_absent;
        self.stripes_lost += other.stripes_lost;
        self.stripes_inconsistent += other.stripes_inconsistent;
    }

    /// The counts in the order of the format.
    fn counts(&self) -> [u64; 8] {
        [
            self.stripes,
            self.objects,
            self.objects_damaged,
            self.units_repaired,
            self.units_unrepaired,
            self.units_absent,
            self.stripes_lost,
            self.stripes_inconsistent,
        ]
    }

    fn of_counts(counts: [u64; 8]) -> Scrub {
        let [stripes, objects, objects_damaged, units_repaired, units_unrepaired, units_absent, lost, inconsistent] =
            counts;
        Scrub {
            stripes,
            objects,
            objects_damaged,
            units_repaired,
            units_unrepaired,
            units_absent,
            stripes_lost: lost,
            stripes_inconsistent: inconsistent,
        }
    }
}

/// A pass over everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubPass {
    /// Counts from 1.
    pub number: u64,
    /// When it began.
    pub started: WallNanos,
    /// When it ended; 0 while it runs.
    pub ended: WallNanos,
    /// Somebody asked for it: it runs at the floor.
    pub asked_for: bool,
    /// What it found.
    pub found: Scrub,
}

/// The scrub as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Nothing is looked at until it is let go on.
    pub paused: bool,
    /// A rebuild goes first.
    pub waits_for_rebuild: bool,
    /// The pass under way.
    pub pass: ScrubPass,
    /// Stripes the pass has to look at, as far as is known now.
    pub stripes_total: u64,
    /// Of these, looked at or gone.
    pub stripes_done: u64,
    /// Time between two stripes.
    pub interval: Duration,
    /// The pass takes longer than it may.
    pub overdue: bool,
    /// Stripes written lately that are still to be read back.
    pub fresh: u64,
    /// How late the oldest of them is.
    pub fresh_lag: Duration,
    /// Passes done, newest last.
    pub history: Vec<ScrubPass>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    paused: bool,
    cursor: StripeId,
    pass: ScrubPass,
    history: Vec<ScrubPass>,
}

impl Record {
    fn begin_pass(&mut self, started: WallNanos, asked_for: bool) {
        self.pass = ScrubPass { number: self.pass.number + 1, started, asked_for, ..ScrubPass::default() };
        self.cursor = StripeId::default();
    }
}

/// What an open engine knows of its scrub.
#[derive(Default)]
pub(crate) struct Scrubber {
    record: RefCell<Record>,
    version: Cell<u64>,
    saved: Cell<Option<Nanos>>,
    /// When the pass under way has to be done.
    due: Cell<Option<Nanos>>,
    fresh: RefCell<VecDeque<(Nanos, StripeId, u64)>>,
    changed: Notify,
}

impl Engine {
    /// Checks and repairs every stripe that is written when it begins and not freed
    /// before its turn, as fast as it can.
    pub async fn scrub(&self) -> Result<Scrub, StoreRefusal> {
        let inner = &self.inner;
        let written = inner.state.borrow().stripes.written();
        let mut scrub = Scrub::default();
        for (stripe, _) in written {
            inner.refuse_if_stopped()?;
            if let Some(found) = inner.scrub_one(stripe).await {
                scrub.add(&found);
            }
        }
        Ok(scrub)
    }

    /// Begins a pass now, at the floor of the interval: what it finds at its end is true of every
    /// stripe since this call. One that goes on by itself makes way; one that was asked for goes
    /// on, also if it is paused.
    pub async fn scrub_start(&self) {
        let inner = &self.inner;
        {
            let mut record = inner.scrubber.record.borrow_mut();
            record.paused = false;
            if record.pass.ended.0 != 0 || !record.pass.asked_for {
                record.begin_pass(inner.world.clock.wall(), true);
                inner.scrubber.due.set(None);
            }
        }
        inner.save_scrub().await;
        inner.scrubber.changed.notify_one();
    }

    /// Pauses, or lets go on.
    pub async fn scrub_pause(&self, paused: bool) {
        self.inner.scrubber.record.borrow_mut().paused = paused;
        self.inner.save_scrub().await;
        self.inner.scrubber.changed.notify_one();
    }

    /// The scrub as it is now.
    pub fn scrub_status(&self) -> ScrubStatus {
        let inner = &self.inner;
        let (record, state) = (inner.scrubber.record.borrow(), inner.state.borrow());
        let done = record.pass.found.stripes;
        let left = state.stripes.written_count().saturating_sub(done);
        let now = inner.world.clock.now();
        let fresh = inner.scrubber.fresh.borrow();
        ScrubStatus {
            paused: record.paused,
            waits_for_rebuild: !inner.group.rebuilding().is_empty(),
            pass: record.pass,
            stripes_total: done + left,
            stripes_done: done,
            interval: inner.scrub_interval(&record, left),
            overdue: inner.scrubber.due.get().is_some_and(|due| now > due),
            fresh: fresh.len() as u64,
            fresh_lag: fresh.front().map_or(Duration::ZERO, |(at, _, _)| now.since(*at)),
            history: record.history.clone(),
        }
    }
}

impl Inner {
    /// Looks at one stripe, if it still holds something.
    async fn scrub_one(&self, stripe: StripeId) -> Option<Scrub> {
        let _era = self.era();
        let generation = self.state.borrow().stripes.written_generation(stripe)?;
        let (verdict, units) = self.group.acting_as(Principal::Scrub).scrub_and_read(stripe, generation).await;
        let mut found = Scrub {
            stripes: 1,
            units_repaired: verdict.repaired.len() as u64,
            units_unrepaired: verdict.unrepaired.len() as u64,
            units_absent: u64::from(verdict.absent),
            stripes_lost: u64::from(verdict.lost),
            stripes_inconsistent: u64::from(verdict.inconsistent),
            ..Scrub::default()
        };
        for (unit, payload) in (0u32..).zip(&units) {
            self.check_objects(stripe, unit, payload, &mut found).await;
            self.world.yield_now().await;
        }
        Some(found)
    }

    /// Recomputes every data object of a unit that somebody refers to (R-SCR-05): that the
    /// unit is whole proves what was written, not that it was right.
    async fn check_objects(&self, stripe: StripeId, unit: u32, payload: &Buf, found: &mut Scrub) {
        let mut at = 0;
        while let Some((descriptor, check)) = object_at(payload, at) {
            let offset_bytes = unit * self.group.unit_payload_bytes() + at as u32;
            let place = Place { stripe, offset_bytes, stored_bytes: descriptor.stored_bytes, check };
            let end = at + place.object_bytes() as usize;
            if descriptor.kind == ObjectKind::Data {
                found.objects += 1;
                let key = self.state.borrow().content_key;
                let content = decode(&descriptor, &payload[at..end.min(payload.len())]);
                if !content.is_ok_and(|content| content_check(&key, &content) == descriptor.content) {
                    self.object_damaged(ObjectId(descriptor.id), place, found).await;
                }
            }
            at = end;
        }
        // Behind the last object there are zeros. Anything else was an object once.
        if payload.get(at..).is_some_and(|rest| rest.iter().any(|&byte| byte != 0)) {
            found.objects_damaged += 1;
            self.event(Event::ObjectDamaged {
                stripe,
                offset_bytes: unit * self.group.unit_payload_bytes() + at as u32,
            });
        }
    }

    async fn object_damaged(&self, id: ObjectId, place: Place, found: &mut Scrub) {
        let row = self.resident(|state| state.object(id)).await;
        if row.is_ok_and(|row| row.is_some_and(|row| row.place == place)) {
            found.objects_damaged += 1;
            self.event(Event::ObjectDamaged { stripe: place.stripe, offset_bytes: place.offset_bytes });
        }
    }

    /// Time until the next step.
    fn scrub_pause_time(&self) -> Duration {
        let record = self.scrubber.record.borrow();
        let written = self.state.borrow().stripes.written_count();
        match written.saturating_sub(record.pass.found.stripes) {
            _ if written == 0 || !self.may_scrub() => IDLE,
            left => self.scrub_interval(&record, left).min(IDLE_MAX),
        }
    }

    /// What was asked for, or what the drives want. Disks want to be looked at more often, and one is
    /// enough: a stripe is as good as its worst drive.
    fn scrub_policy(&self) -> ScrubPolicy {
        let of_drives = || if self.group.has_disks() { ScrubPolicy::DISK } else { ScrubPolicy::FLASH };
        self.options.scrub.unwrap_or_else(of_drives)
    }

    fn scrub_interval(&self, record: &Record, left: u64) -> Duration {
        let policy = self.scrub_policy();
        if record.pass.asked_for {
            return policy.interval_min;
        }
        let time_left = self.scrubber.due.get().map_or(policy.full_pass, |due| due.since(self.world.clock.now()));
        let parts = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
        (time_left / parts).max(policy.interval_min)
    }

    /// A stripe was just written.
    pub fn note_fresh(&self, stripe: StripeId, generation: u64) {
        if self.scrub_policy().read_back_after.is_some() {
            let mut fresh = self.scrubber.fresh.borrow_mut();
            fresh.push_back((self.world.clock.now(), stripe, generation));
            if fresh.len() > FRESH_MAX {
                fresh.pop_front();
            }
        }
    }

    /// When something is to be read back, at the earliest.
    fn next_read_back(&self) -> Nanos {
        let after = self.scrub_policy().read_back_after.unwrap_or(IDLE_MAX);
        let oldest = self.scrubber.fresh.borrow().front().map(|(at, _, _)| *at);
        let now = self.world.clock.now();
        // A while from now at least, for the case that it cannot be done at once.
        (oldest.unwrap_or(now) + after).max(now + IDLE_MIN)
    }

    /// Reads back what was written long enough ago.
    async fn read_back(&self) {
        let Some(after) = self.scrub_policy().read_back_after else { return self.scrubber.fresh.borrow_mut().clear() };
        loop {
            let next = self.scrubber.fresh.borrow().front().copied();
            let Some((at, stripe, generation)) = next else { return };
            if self.world.clock.now().since(at) < after || self.is_stopped() {
                return;
            }
            self.scrubber.fresh.borrow_mut().pop_front();
            if self.state.borrow().stripes.written_generation(stripe) == Some(generation) {
                let found = self.scrub_one(stripe).await.unwrap_or_default();
                let mut counters = self.counters.borrow_mut();
                counters.stripes_read_back += 1;
                counters.units_repaired_on_read_back += found.units_repaired;
            }
        }
    }

    /// Takes up the record of before, when the engine is opened.
    pub async fn resume_scrub(&self) {
        let found = self.group.register_read(SCRUB_REGISTER).await;
        self.scrubber.version.set(found.version);
        self.scrubber.record.replace(Record::decode(&found.bytes).unwrap_or_default());
    }

    async fn save_scrub(&self) {
        let bytes = self.scrubber.record.borrow().encode();
        match self.group.register_cas(SCRUB_REGISTER, self.scrubber.version.get(), &bytes).await {
            Ok(version) => self.scrubber.version.set(version),
            Err(CasRefused::Version { current }) => self.scrubber.version.set(current),
            Err(CasRefused::Latched | CasRefused::Fenced | CasRefused::TooLarge) => {}
        }
        self.scrubber.saved.set(Some(self.world.clock.now()));
    }

    /// Whether the pass may go on now.
    fn may_scrub(&self) -> bool {
        !self.scrubber.record.borrow().paused && self.group.rebuilding().is_empty()
    }

    /// A step of the pass. False: there is nothing to look at.
    async fn scrub_step(&self) -> bool {
        let (pass, cursor) = {
            let mut record = self.scrubber.record.borrow_mut();
            if record.pass.number == 0 || record.pass.ended.0 != 0 {
                record.begin_pass(self.world.clock.wall(), false);
            }
            (record.pass.number, record.cursor)
        };
        if self.scrubber.due.get().is_none() {
            self.scrubber.due.set(Some(self.scrub_due()));
        }
        let next = self.state.borrow().stripes.next_written(cursor);
        let Some(stripe) = next else { return self.end_pass().await };
        let found = self.scrub_one(stripe).await.unwrap_or_default();
        {
            let mut record = self.scrubber.record.borrow_mut();
            if record.pass.number != pass {
                return true; // Another was asked for meanwhile.
            }
            record.pass.found.add(&found);
            record.cursor = StripeId { row: stripe.row + 1, ..stripe };
        }
        let since_saved = self.scrubber.saved.get().map(|saved| self.world.clock.now().since(saved));
        if since_saved.is_none_or(|since| since >= SAVE_EVERY) {
            self.save_scrub().await;
        }
        true
    }

    /// When the pass under way must be done, by the monotonic clock: what is left of its
    /// time since it began, as far as the wall clock can tell.
    fn scrub_due(&self) -> Nanos {
        let started = self.scrubber.record.borrow().pass.started;
        let gone = Duration::from_nanos(self.world.clock.wall().0.saturating_sub(started.0));
        self.world.clock.now() + self.scrub_policy().full_pass.saturating_sub(gone)
    }

    /// The pass has been over everything. False if that was nothing.
    async fn end_pass(&self) -> bool {
        let done = {
            let mut record = self.scrubber.record.borrow_mut();
            if record.pass.found.stripes == 0 {
                return false;
            }
            record.pass.ended = self.world.clock.wall();
            let pass = record.pass;
            record.history.push(pass);
            let surplus = record.history.len().saturating_sub(HISTORY);
            record.history.drain(..surplus);
            record.pass.asked_for = false;
            pass
        };
        self.event(Event::ScrubDone { found: done.found });
        self.scrubber.due.set(None);
        self.save_scrub().await;
        true
    }
}

/// Scrubs until the engine stops.
pub(crate) async fn scrub_for_ever(inner: Rc<Inner>) {
    let mut next = inner.world.clock.now() + inner.scrub_pause_time();
    loop {
        // Reading back has its own time.
        let soon = inner.next_read_back();
        let changed = std::pin::pin!(inner.scrubber.changed.notified());
        let told = matches!(select(changed, inner.world.clock.sleep_until(next.min(soon))).await, Either::Left(_));
        if inner.is_stopped() {
            return;
        }
        inner.read_back().await;
        if told || inner.world.clock.now() >= next {
            if !told && inner.may_scrub() {
                inner.scrub_step().await;
            }
            next = inner.world.clock.now() + inner.scrub_pause_time();
        }
    }
}

fn encode_pass(pass: &ScrubPass, out: &mut Vec<u8>) {
    let words = [pass.number, pass.started.0, pass.ended.0, u64::from(pass.asked_for)];
    words.iter().chain(&pass.found.counts()).for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn decode_pass(take: &mut Take<'_>) -> Result<ScrubPass, FormatError> {
    let (number, started, ended) = (take.u64()?, WallNanos(take.u64()?), WallNanos(take.u64()?));
    let asked_for = take.u64()? != 0;
    let mut counts = [0; 8];
    for count in &mut counts {
        *count = take.u64()?;
    }
    Ok(ScrubPass { number, started, ended, asked_for, found: Scrub::of_counts(counts) })
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.push(u8::from(self.paused));
        out.push(self.history.len() as u8);
        out.extend_from_slice(&self.cursor.pack().to_le_bytes());
        encode_pass(&self.pass, &mut out);
        self.history.iter().for_each(|pass| encode_pass(pass, &mut out));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Record, FormatError> {
        let mut take = Take(bytes);
        if take.u16()? != FORMAT {
            return Err(FormatError("scrub record"));
        }
        let (paused, count) = (take.u8()? != 0, take.u8()?);
        let cursor = StripeId::unpack(take.u64()?);
        let pass = decode_pass(&mut take)?;
        let history = (0..count).map(|_| decode_pass(&mut take)).collect::<Result<Vec<_>, _>>()?;
        Ok(Record { paused, cursor, pass, history })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_back_and_a_cut_one_is_refused() {
        let found = Scrub::of_counts([1, 2, 3, 4, 5, 6, 7, 8]);
        let pass = ScrubPass { number: 3, started: WallNanos(5), ended: WallNanos(9), asked_for: true, found };
        let cursor = StripeId::unpack(77);
        let record = Record { paused: true, cursor, pass, history: vec![pass; 2] };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err());
        }
    }
}
