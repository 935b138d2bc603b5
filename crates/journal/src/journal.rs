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
//! | `append_with`, large payload, legs in memory | 0 | 0 | 0 | 0 |
//! | batch | 0 | 3 + 3 per leg (boxed write futures, lists of pieces) | 1 write per leg, 2 at the ring's end | 0 |
//! | becoming stable, per record | 0 | 0 with a callback; amortised queue growth without | 0 | 0 |
//! | `stable` | - | 0; a waker in a reused list when it has to wait | 0 | 0 |
//! | `trim` | - | 0 | 0 | 0 |
//! | watching for a leg that hangs | - | 1 timer per [`Config::leg_limit`] of work | 0 | 0 |
//! | idle seal, at most one per pause | - | as a batch | 1 write of a block per leg | 0 |

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use base::port::{LegKind, World};
use base::{Buf, Incarnation};

use crate::format::{BATCH_BYTES_LIMIT, BLOCK_BYTES, RECORD_HEADER_BYTES, TrimPoint};
use crate::record::{NewRecord, Record, Sequence};
use crate::ring::SEAL_RESERVE_BYTES;
use crate::state::{LegSlot, RoomTurn, Shared, Start, State, wake};

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
    /// A payload from this size on is written from where it lies, if all legs can.
    pub gather_bytes: usize,
    /// Appenders that may wait for room; more are refused.
    pub waiters_max: usize,
    /// After this much quiet a seal proves what was acknowledged last.
    pub seal_after: Duration,
    /// A leg that has not answered a write for this long is lost.
    pub leg_limit: Duration,
}

/// How long a leg may be silent: longer than a device that resets itself takes, shorter
/// than clients wait before they give up.
pub(crate) const LEG_LIMIT: Duration = Duration::from_secs(10);

impl Default for Config {
    fn default() -> Config {
        Config {
            batch_bytes_max: (1 << 20) + (64 << 10),
            in_flight_max: 3,
            early_bytes: 128 << 10,
            pending_bytes_max: 8 << 20,
            gather_bytes: 32 << 10,
            waiters_max: 4096,
            seal_after: Duration::from_millis(5),
            leg_limit: LEG_LIMIT,
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

/// How full the journal is: what [`Journal::status`] says, without its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of the ring in use (the anchor included).
    pub used_bytes: u64,
    /// Bytes of the ring.
    pub capacity_bytes: u64,
    /// Appenders waiting for room.
    pub waiting: usize,
    /// Highest stable sequence.
    pub stable_through: Sequence,
    /// Highest trimmed sequence.
    pub trimmed_through: Sequence,
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

impl Journal {
    pub(crate) fn start(start: Start, world: World, config: Config) -> Journal {
        let config = config.within(start.ring.ring_bytes());
        let (label, root) = (start.label, start.root.clone());
        let state = State::new(start, &world, &config);
        let shared = Rc::new(Shared { state: RefCell::new(state), on_stable: Cell::new(None), world, config, label });
        let journal = Journal { owner: Rc::new(Owner(shared.clone())) };
        journal.root_recorded(&root);
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
        self.try_append_with(record, &Buf::new())
    }

    fn try_append_with(&self, record: NewRecord<'_>, payload: &Buf) -> Result<Appended, Refusal> {
        let mut state = self.shared().state.borrow_mut();
        if !state.wakers.room.is_empty() {
            return Err(if state.latched { Refusal::Latched } else { Refusal::Full });
        }
        state.accept(self.shared(), record, payload)
    }

    /// Accepts a record, waiting for room in the order of arrival. The wait ends when
    /// the engine trims, so whoever waits here must not be who trims.
    pub async fn append(&self, record: NewRecord<'_>) -> Result<Appended, Refusal> {
        self.append_with(record, &Buf::new()).await
    }

    /// As [`append`](Journal::append), with `payload` behind the body. If it is large and all
    /// legs can write it from where it lies it is not copied but held until the record is
    /// destaged, and comes back as [`Record::payload`].
    pub async fn append_with(&self, record: NewRecord<'_>, payload: &Buf) -> Result<Appended, Refusal> {
        match self.try_append_with(record, payload) {
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
            let answer = state.accept(self.shared(), record, payload);
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

    /// Bytes of the ring in use, the anchor included.
    pub fn fill_bytes(&self) -> u64 {
        self.shared().state.borrow().ring.fill_bytes()
    }

    /// Bytes of the ring.
    pub fn capacity_bytes(&self) -> u64 {
        self.shared().state.borrow().ring.ring_bytes()
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

    /// How full it is. Allocates nothing.
    pub fn fill(&self) -> Fill {
        let state = self.shared().state.borrow();
        Fill {
            used_bytes: state.ring.fill_bytes(),
            capacity_bytes: state.ring.ring_bytes(),
            waiting: state.wakers.room.len(),
            stable_through: state.ring.stable_through(),
            trimmed_through: state.ring.trimmed_through(),
        }
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
