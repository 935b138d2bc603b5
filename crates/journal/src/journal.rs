//! The driver: append, group commit, stable, trim.
//!
//! One thread. A single background task (`pump.rs`) writes; the calls here only touch
//! memory. Group commit without a delay: the task writes the open batch at once when
//! nothing is in flight and lets it grow while something is.
//!
//! # What an operation costs
//!
//! | operation | copies of the body | allocations | system calls | thread hops |
//! |---|---|---|---|---|
//! | `try_append` | 1, into the batch | 0 (an arena of 2 MiB now and then, reused) | 0 | 0 |
//! | batch | 0 | 3 + 2 per leg (boxed write futures, shared batch) | 1 write per leg, 2 at the ring's end | 0 |
//! | becoming stable, per record | 0 | 0 with a callback; amortised queue growth without | 0 | 0 |
//! | `stable` | - | 0; a waker in a reused list when it has to wait | 0 | 0 |
//! | `trim` | - | 0 | 0 | 0 |
//! | idle seal, at most one per pause | - | as a batch | 1 write of a block per leg | 0 |

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use base::port::{Leg, LegKind, World};
use base::{Buf, Incarnation};
use bytes::BytesMut;
use zerocopy::{FromBytes, IntoBytes};

use crate::arena::Arenas;
use crate::format::{
    BATCH_BYTES_LIMIT, BLOCK_BYTES, LINE_BYTES, LegLabel, RECORD_HEADER_BYTES, RecordHeader, RingId, TrimPoint,
    record_bytes,
};
use crate::record::{Kind, NewRecord, Record, Sequence};
use crate::ring::{BatchMark, Ring, SEAL_RESERVE_BYTES};

/// Limits and times of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// No batch, and so no record with its 128-byte header, is longer.
    pub batch_bytes_max: usize,
    /// Batches on their way at a time.
    pub in_flight_max: u64,
    /// From this size on the open batch is written although another is in flight.
    pub early_bytes: usize,
    /// Bytes accepted and not yet stable; beyond it the appender waits.
    pub pending_bytes_max: usize,
    /// Appenders that may wait for room; more are refused.
    pub waiters_max: usize,
    /// After this much quiet a seal proves what was acknowledged last.
    pub seal_after: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            batch_bytes_max: (1 << 20) + (64 << 10),
            in_flight_max: 3,
            early_bytes: 128 << 10,
            pending_bytes_max: 8 << 20,
            waiters_max: 4096,
            seal_after: Duration::from_millis(5),
        }
    }
}

impl Config {
    /// These limits for a ring of `ring_bytes`: a quarter of it holds the largest
    /// batch, so that trimming always makes room for one.
    fn within(mut self, ring_bytes: u64) -> Config {
        let quarter = (ring_bytes - SEAL_RESERVE_BYTES) / 4 / BLOCK_BYTES * BLOCK_BYTES;
        self.batch_bytes_max = self.batch_bytes_max.min(quarter.min(BATCH_BYTES_LIMIT) as usize);
        assert!(self.batch_bytes_max as u64 >= BLOCK_BYTES && self.in_flight_max >= 1, "something must fit");
        self
    }
}

/// Proof that every record through [`through`](Stable::through) is stable in every
/// place the present membership demands. Only the journal makes one; an
/// acknowledgement asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stable {
    through: Sequence,
}

impl Stable {
    /// The highest sequence this proves.
    pub fn through(&self) -> Sequence {
        self.through
    }
}

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Wait for this one to be [`stable`](Journal::stable).
    pub sequence: Sequence,
}

/// No leg is left. Nothing more is acknowledged until the journal is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal has no working leg left; nothing is acknowledged until it is opened again")]
pub struct Latched;

/// Why a record was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No room in the ring, too much on its way, or others wait: [`Journal::append`] waits.
    #[error("the journal is full for now")]
    Full,
    /// Longer than a batch.
    #[error("the record is longer than a batch may be")]
    TooLong,
    /// As [`Latched`].
    #[error("the journal has latched")]
    Latched,
}

/// How a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// Every stable record is on it.
    Active,
    /// It failed and is not written any more.
    Lost,
}

/// One leg, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegStatus {
    /// Path or device.
    pub name: String,
    /// What it is made of, and so what an acknowledgement promises.
    pub kind: LegKind,
    /// How it is.
    pub state: LegState,
    /// This life of it.
    pub incarnation: Incarnation,
}

/// The journal at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalStatus {
    /// Its legs, present ones first to last as given at opening.
    pub legs: Vec<LegStatus>,
    /// Bytes of the ring in use (the anchor included).
    pub fill_bytes: u64,
    /// Bytes of the ring.
    pub capacity_bytes: u64,
    /// Highest stable sequence.
    pub stable_through: Sequence,
    /// Highest trimmed sequence.
    pub trimmed_through: Sequence,
    /// Sequence of the next record.
    pub next: Sequence,
    /// Legs that hold every stable record.
    pub copies: usize,
    /// The root names a leg that is not written: nothing becomes stable until it does
    /// not ([`Journal::root_needed`]).
    pub root_needed: bool,
    /// No leg is left.
    pub latched: bool,
    /// Batches written since the journal was opened.
    pub batches: u64,
    /// Records accepted since the journal was opened, seals included.
    pub records: u64,
    /// Appenders waiting for room.
    pub waiting: usize,
}

pub(crate) struct LegSlot {
    pub(crate) leg: Rc<dyn Leg>,
    pub(crate) incarnation: Incarnation,
    pub(crate) active: bool,
}

/// What opening knows and the driver goes on with.
pub(crate) struct Start {
    pub(crate) ring: Ring,
    pub(crate) label: LegLabel,
    pub(crate) legs: Vec<LegSlot>,
    pub(crate) root: Vec<Incarnation>,
    /// Digest of the last record.
    pub(crate) digest: u64,
    /// What media proves to be stable already.
    pub(crate) proven: Sequence,
    /// Last record that is not a seal.
    pub(crate) last_payload: Sequence,
}

#[derive(Default)]
struct Wakers {
    pump: Option<Waker>,
    taker: Option<Waker>,
    root: Option<Waker>,
    stable: Vec<(Sequence, Waker)>,
    room: VecDeque<(u64, Option<Waker>)>,
    room_ticket: u64,
}

pub(crate) struct State {
    pub(crate) ring: Ring,
    arenas: Arenas,
    /// Sealed, not yet on their way.
    sealed: VecDeque<BytesMut>,
    /// On their way or durable, not yet stable; the first has number `flying_from`.
    flying: VecDeque<Buf>,
    pending_bytes: usize,
    pub(crate) legs: Vec<LegSlot>,
    root: Vec<Incarnation>,
    digest: u64,
    opening: u64,
    /// Highest claim that is on media or on its way there.
    claimed: Sequence,
    /// The highest claim that may be made.
    claimable: Sequence,
    last_payload: Sequence,
    pub(crate) latched: bool,
    pub(crate) closed: bool,
    /// While not 0, submitting waits (a leg is being taken in).
    pub(crate) pauses: u32,
    /// While not 0, trims wait in `held_trim`.
    pub(crate) holds: u32,
    held_trim: Sequence,
    taken: VecDeque<Record>,
    batches: u64,
    records: u64,
    wakers: Wakers,
}

type OnStable = Box<dyn FnMut(Record)>;

pub(crate) struct Shared {
    pub(crate) state: RefCell<State>,
    on_stable: Cell<Option<OnStable>>,
    pub(crate) world: World,
    pub(crate) config: Config,
    /// What the legs' headers say; the incarnation is that of one of them.
    pub(crate) label: LegLabel,
}

/// Ends the background task when the last [`Journal`] goes.
struct Owner(Rc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.closed = true;
        wake(&mut state.wakers.pump);
    }
}

/// A journal that is open. Clones are the same journal. Dropping the last one ends its
/// background task; writes that were started may still reach the legs.
#[derive(Clone)]
pub struct Journal {
    owner: Rc<Owner>,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Journal {
    pub(crate) fn start(start: Start, world: World, config: Config) -> Journal {
        let config = config.within(start.ring.ring_bytes());
        let mut opening = [0; 8];
        world.chance.fill(&mut opening);
        let arena_bytes = config.batch_bytes_max.max(1 << 20) * 2;
        let state = State {
            claimable: start.proven,
            ring: start.ring,
            arenas: Arenas::new(arena_bytes),
            sealed: VecDeque::new(),
            flying: VecDeque::new(),
            pending_bytes: 0,
            legs: start.legs,
            root: Vec::new(),
            digest: start.digest,
            opening: u64::from_le_bytes(opening),
            claimed: start.proven,
            last_payload: start.last_payload,
            latched: false,
            closed: false,
            pauses: 0,
            holds: 0,
            held_trim: Sequence(0),
            taken: VecDeque::new(),
            batches: 0,
            records: 0,
            wakers: Wakers::default(),
        };
        let shared = Rc::new(Shared {
            state: RefCell::new(state),
            on_stable: Cell::new(None),
            world,
            config,
            label: start.label,
        });
        let journal = Journal { owner: Rc::new(Owner(shared.clone())) };
        journal.root_recorded(&start.root);
        let task = Box::pin(crate::pump::run(shared.clone()));
        shared.world.spawn.spawn("journal", task);
        journal
    }

    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.owner.0
    }

    /// Seals what opening found, if media does not prove all of it yet. Returns when the
    /// seal is stable, or can not become so before the root is written.
    pub(crate) async fn seal_opening(&self) -> Result<(), Latched> {
        let shared = self.shared();
        let put_seal = || {
            let mut state = shared.state.borrow_mut();
            let due = state.wants_seal() && state.ring.root_agrees();
            due.then(|| state.put_seal(shared))
        };
        let Some(sequence) = put_seal() else {
            return Ok(());
        };
        poll_fn(|context| {
            let mut state = shared.state.borrow_mut();
            if state.latched {
                return Poll::Ready(Err(Latched));
            }
            if state.ring.stable_through() >= sequence || !state.ring.root_agrees() {
                return Poll::Ready(Ok(()));
            }
            state.wakers.stable.push((sequence, context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Accepts a record now or says why not. Its body is copied once. It is not stable
    /// yet: acknowledge only with what [`stable`](Journal::stable) returns.
    pub fn try_append(&self, record: NewRecord<'_>) -> Result<Appended, Refusal> {
        let mut state = self.shared().state.borrow_mut();
        if !state.wakers.room.is_empty() {
            return Err(if state.latched { Refusal::Latched } else { Refusal::Full });
        }
        state.accept(self.shared(), record)
    }

    /// Accepts a record, waiting for room in the order of arrival. The wait ends when
    /// the engine trims, so whoever waits here must not be who trims.
    pub async fn append(&self, record: NewRecord<'_>) -> Result<Appended, Refusal> {
        match self.try_append(record) {
            Err(Refusal::Full) => {}
            done => return done,
        }
        let turn = RoomTurn::queue(self.shared())?;
        poll_fn(|context| {
            let mut state = self.shared().state.borrow_mut();
            if !state.latched && state.wakers.room.front().is_none_or(|&(ticket, _)| ticket != turn.ticket) {
                turn.leave_waker(&mut state, context.waker());
                return Poll::Pending;
            }
            let answer = state.accept(self.shared(), record);
            if answer == Err(Refusal::Full) {
                turn.leave_waker(&mut state, context.waker());
                return Poll::Pending;
            }
            Poll::Ready(answer)
        })
        .await
    }

    /// Returns when every record through `sequence` is stable.
    pub async fn stable(&self, sequence: Sequence) -> Result<Stable, Latched> {
        poll_fn(|context| {
            let mut state = self.shared().state.borrow_mut();
            let through = state.ring.stable_through();
            if sequence <= through {
                return Poll::Ready(Ok(Stable { through }));
            }
            if state.latched {
                return Poll::Ready(Err(Latched));
            }
            state.wakers.stable.push((sequence, context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Longest body a record may have here: set by the configuration and the ring.
    pub fn body_bytes_max(&self) -> usize {
        self.shared().config.batch_bytes_max - RECORD_HEADER_BYTES
    }

    /// Proof of what is stable now.
    pub fn stable_now(&self) -> Stable {
        Stable { through: self.shared().state.borrow().ring.stable_through() }
    }

    /// Calls `apply` with each record that becomes stable, in order of sequence, once,
    /// seals left out, *before* anyone who waits in [`stable`](Journal::stable) goes on.
    /// It may call the journal. Records that became stable before this call stay in the
    /// queue of [`next_stable`](Journal::next_stable).
    pub fn set_on_stable(&self, apply: impl FnMut(Record) + 'static) {
        self.shared().on_stable.set(Some(Box::new(apply)));
    }

    /// For those without a callback: waits for stable records and appends all there
    /// are to `into`, in order of sequence, seals left out.
    pub async fn next_stable(&self, into: &mut Vec<Record>) -> Result<Stable, Latched> {
        poll_fn(|context| {
            let mut state = self.shared().state.borrow_mut();
            if !state.taken.is_empty() {
                into.extend(state.taken.drain(..));
                return Poll::Ready(Ok(Stable { through: state.ring.stable_through() }));
            }
            if state.latched {
                return Poll::Ready(Err(Latched));
            }
            state.wakers.taker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What the root must hold so that everything through `through` (stable, applied
    /// and durable elsewhere) may be forgotten. Sequences of seals may be skipped.
    pub fn trim_point_for(&self, through: Sequence) -> TrimPoint {
        self.shared().state.borrow().ring.trim_point_for(through)
    }

    /// Frees the ring through `through`. The root with its
    /// [`trim_point_for`](Journal::trim_point_for) is durable already.
    pub fn trim(&self, through: Sequence) {
        let mut state = self.shared().state.borrow_mut();
        state.held_trim = state.held_trim.max(through);
        state.trim_held();
    }

    /// The incarnations the next root must name: those of the legs being written. When
    /// none is left, what the root names already: its legs still hold what is stable.
    pub fn incarnations(&self) -> Vec<Incarnation> {
        let state = self.shared().state.borrow();
        if state.latched {
            return state.root.clone();
        }
        state.legs.iter().filter(|leg| leg.active).map(|leg| leg.incarnation).collect()
    }

    /// A root naming exactly `named` is durable. Until the root names only legs that
    /// are written, nothing becomes stable (I4).
    pub fn root_recorded(&self, named: &[Incarnation]) {
        let shared = self.shared();
        let mut state = shared.state.borrow_mut();
        state.root = named.to_vec();
        let find = |wanted| state.legs.iter().position(|leg| leg.incarnation == wanted);
        let bits = named.iter().try_fold(0, |bits, &wanted| Some(bits | 1 << find(wanted)?));
        let stable = state.ring.root_recorded(bits);
        wake(&mut state.wakers.pump);
        drop(state);
        shared.deliver(stable.end - stable.start);
    }

    /// Returns when the root has to be written with the present
    /// [`incarnations`](Journal::incarnations) before anything more can become stable:
    /// a leg was lost, or was missing at opening. The owner of the root runs this in a
    /// loop; the root it writes need not trim and must not wait for the journal.
    pub async fn root_needed(&self) {
        poll_fn(|context| {
            let mut state = self.shared().state.borrow_mut();
            if !state.latched && !state.ring.root_agrees() {
                return Poll::Ready(());
            }
            state.wakers.root = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The journal at a glance.
    pub fn status(&self) -> JournalStatus {
        let state = self.shared().state.borrow();
        let leg_status = |slot: &LegSlot| {
            let info = slot.leg.info();
            let state = if slot.active { LegState::Active } else { LegState::Lost };
            LegStatus { name: info.name, kind: info.kind, state, incarnation: slot.incarnation }
        };
        JournalStatus {
            legs: state.legs.iter().map(leg_status).collect(),
            fill_bytes: state.ring.fill_bytes(),
            capacity_bytes: state.ring.ring_bytes(),
            stable_through: state.ring.stable_through(),
            trimmed_through: state.ring.trimmed_through(),
            next: state.ring.next(),
            copies: state.legs.iter().filter(|leg| leg.active).count(),
            root_needed: !state.latched && !state.ring.root_agrees(),
            latched: state.latched,
            batches: state.batches,
            records: state.records,
            waiting: state.wakers.room.len(),
        }
    }
}

/// A place in the queue for room, left when dropped.
struct RoomTurn<'a> {
    shared: &'a Shared,
    ticket: u64,
}

impl<'a> RoomTurn<'a> {
    fn queue(shared: &'a Shared) -> Result<RoomTurn<'a>, Refusal> {
        let mut state = shared.state.borrow_mut();
        if state.wakers.room.len() >= shared.config.waiters_max {
            return Err(Refusal::Full);
        }
        state.wakers.room_ticket += 1;
        let ticket = state.wakers.room_ticket;
        state.wakers.room.push_back((ticket, None));
        Ok(RoomTurn { shared, ticket })
    }

    fn leave_waker(&self, state: &mut State, waker: &Waker) {
        if let Some(place) = state.wakers.room.iter_mut().find(|place| place.0 == self.ticket) {
            place.1 = Some(waker.clone());
        }
    }
}

impl Drop for RoomTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        state.wakers.room.retain(|place| place.0 != self.ticket);
        state.wake_room();
    }
}

impl State {
    /// Lets the first in the queue look again.
    fn wake_room(&mut self) {
        if let Some((_, waker)) = self.wakers.room.front_mut() {
            wake(waker);
        }
    }

    pub(crate) fn wake_pump(&mut self) {
        wake(&mut self.wakers.pump);
    }

    /// Does the trim that was asked for, unless a batch is in hand.
    pub(crate) fn trim_held(&mut self) {
        if self.holds == 0 {
            self.ring.trim(self.held_trim);
            self.wake_room();
            self.wake_pump();
        }
    }

    fn accept(&mut self, shared: &Shared, record: NewRecord<'_>) -> Result<Appended, Refusal> {
        let body_bytes: usize = record.body.iter().map(|part| part.len()).sum();
        let record_bytes = record_bytes(body_bytes);
        if self.latched {
            return Err(Refusal::Latched);
        }
        if record_bytes > shared.config.batch_bytes_max as u64 {
            return Err(Refusal::TooLong);
        }
        let pending = self.pending_bytes + record_bytes as usize;
        if pending > shared.config.pending_bytes_max && self.pending_bytes > 0 {
            return Err(Refusal::Full);
        }
        if !self.ring.has_room(record_bytes) {
            return Err(Refusal::Full);
        }
        let sequence = self.put(shared, record, record_bytes);
        self.last_payload = sequence;
        if shared.world.chance.maybe("journal: tiny batch") {
            self.seal();
        }
        wake(&mut self.wakers.pump);
        Ok(Appended { sequence })
    }

    /// Copies the record to the end of the open batch, a new one if it does not fit.
    fn put(&mut self, shared: &Shared, record: NewRecord<'_>, record_bytes: u64) -> Sequence {
        let grown = self.ring.open_bytes() + record_bytes;
        let fits = grown <= shared.config.batch_bytes_max as u64 && self.arenas.has_room(record_bytes as usize);
        if !fits {
            if self.ring.open_bytes() > 0 {
                self.seal();
            }
            if !self.arenas.has_room(record_bytes as usize) {
                self.arenas.renew();
            }
        }
        let placed = self.ring.accept(record_bytes);
        let header = RecordHeader::new(placed.sequence, &record.tag, record.body);
        let batch = self.arenas.batch();
        debug_assert_eq!(batch.len() as u64, placed.batch_offset_bytes);
        let end = batch.len() + record_bytes as usize;
        batch.extend_from_slice(header.as_bytes());
        record.body.iter().for_each(|part| batch.extend_from_slice(part));
        batch.resize(end, 0);
        self.pending_bytes += record_bytes as usize;
        self.records += 1;
        placed.sequence
    }

    fn seal(&mut self) {
        self.ring.seal();
        let batch = self.arenas.cut();
        self.sealed.push_back(batch);
    }

    /// The next batch to write, if the policy lets one go now.
    pub(crate) fn take_batch(&mut self, shared: &Shared) -> Option<(u64, BatchMark, Buf)> {
        if self.latched || self.pauses > 0 {
            return None;
        }
        let in_flight = self.ring.in_flight();
        if self.sealed.is_empty() {
            let open_bytes = self.ring.open_bytes();
            let early = open_bytes >= shared.config.early_bytes as u64;
            if open_bytes == 0 || in_flight > 0 && !early && !shared.world.chance.maybe("journal: early batch") {
                return None;
            }
        }
        if in_flight >= shared.config.in_flight_max {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let mut batch = self.sealed.pop_front().expect("just sealed");
        let (number, mark) = self.ring.to_submit().expect("sealed batches are marked");
        let previous = self.digest;
        self.close(&mut batch, mark, shared.label.ring);
        self.ring.submitted(previous);
        let batch = batch.freeze();
        self.flying.push_back(batch.clone());
        self.batches += 1;
        Some((number, mark, batch))
    }

    /// Completes the headers of a batch: place, chain, claim.
    fn close(&mut self, batch: &mut [u8], mark: BatchMark, ring_id: RingId) {
        let records = u16::try_from(mark.last.0 - mark.first.0 + 1).expect("a batch has fewer records than lines");
        let blocks = u16::try_from(mark.length_bytes / BLOCK_BYTES).expect("a batch is bounded");
        self.claimed = self.claimable;
        let mut at = 0;
        for index in 0..records {
            let (header, _) = RecordHeader::mut_from_prefix(&mut batch[at..]).expect("records were put here");
            header.position_bytes.set(mark.position_bytes + at as u64);
            header.previous.set(self.digest);
            header.opening.set(self.opening);
            header.stable_through.set(self.claimed.0);
            header.batch_blocks.set(blocks);
            header.batch_line.set((at as u64 / LINE_BYTES) as u16);
            header.batch_records.set(records);
            header.batch_index.set(index);
            header.close(ring_id);
            self.digest = header.header_check.get();
            at += header.record_bytes() as usize;
        }
    }

    /// Whether a seal is due once it has been quiet for a while.
    pub(crate) fn wants_seal(&self) -> bool {
        !self.latched
            && self.ring.in_flight() == 0
            && self.ring.open_bytes() == 0
            && self.sealed.is_empty()
            && self.claimed < self.last_payload.min(self.claimable)
            && self.ring.free_for_seal_bytes() >= BLOCK_BYTES
    }

    /// Appends a seal.
    pub(crate) fn put_seal(&mut self, shared: &Shared) -> Sequence {
        let tag = crate::record::Tag {
            kind: Kind::SEAL,
            stream: 0,
            epoch: base::Epoch(0),
            osn: base::Osn(0),
            scope: crate::record::Scope::default(),
        };
        let sequence = self.put(shared, NewRecord { tag, body: &[] }, record_bytes(0));
        wake(&mut self.wakers.pump);
        sequence
    }

    pub(crate) fn set_pump_waker(&mut self, waker: &Waker) {
        match &mut self.wakers.pump {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }
}

impl Shared {
    /// A leg finished writing `batch`, or failed to.
    pub(crate) fn completed(&self, leg: usize, batch: u64, result: Result<(), base::port::MediaFault>) {
        let mut state = self.state.borrow_mut();
        let stable = match result {
            Ok(()) => state.ring.completed(leg, batch),
            Err(_) => {
                state.legs[leg].active = false;
                state.latched |= state.legs.iter().all(|slot| !slot.active);
                wake(&mut state.wakers.root);
                state.ring.lost(leg)
            }
        };
        drop(state);
        self.deliver(stable.end - stable.start);
        if result.is_err() {
            self.wake_all();
        }
    }

    /// The oldest `count` flying batches became stable: hand out their records, then
    /// wake who waits for them.
    fn deliver(&self, count: u64) {
        for _ in 0..count {
            let batch = self.state.borrow_mut().flying.pop_front().expect("stable batches were flying");
            self.deliver_batch(&batch);
        }
        let mut state = self.state.borrow_mut();
        if state.ring.root_agrees() {
            state.claimable = state.ring.stable_through();
        }
        if count == 0 {
            return;
        }
        let through = state.ring.stable_through();
        let mut woken = Vec::new();
        state.wakers.stable.retain(|(sequence, waker)| {
            let keep = *sequence > through;
            if !keep {
                woken.push(waker.clone());
            }
            keep
        });
        if !state.taken.is_empty() {
            wake(&mut state.wakers.taker);
        }
        wake(&mut state.wakers.pump);
        state.wake_room();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn deliver_batch(&self, batch: &Buf) {
        let mut apply = self.on_stable.take();
        let mut at = 0;
        while let Some(header) = RecordHeader::decode(&batch[at..], self.label.ring) {
            let body_at = at + RECORD_HEADER_BYTES;
            at += header.record_bytes() as usize;
            self.state.borrow_mut().pending_bytes -= header.record_bytes() as usize;
            if Kind(header.kind.get()) == Kind::SEAL {
                continue;
            }
            let body = batch.slice(body_at..body_at + header.body_bytes.get() as usize);
            let record = Record { sequence: header.sequence(), tag: header.tag(), body };
            match &mut apply {
                Some(apply) => apply(record),
                None => self.state.borrow_mut().taken.push_back(record),
            }
        }
        if apply.is_some() {
            self.on_stable.set(apply);
        }
    }

    /// A leg is lost, perhaps the last: everyone who waits looks again.
    fn wake_all(&self) {
        let mut state = self.state.borrow_mut();
        let mut woken: Vec<Waker> = state.wakers.stable.drain(..).map(|(_, waker)| waker).collect();
        woken.extend(state.wakers.room.iter_mut().filter_map(|place| place.1.take()));
        woken.extend(state.wakers.taker.take());
        woken.extend(state.wakers.pump.take());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}
