//! Lanes: the way of every request to a drive (R-IO-01 to R-IO-05).
//!
//! ```text
//!   principal, request ──> queue (queue.rs) ──> turn (turns.rs, bulk writes) ──> drive
//!                            at most depth at the drive         answers, or not in time
//! ```
//!
//! A drive that hangs neither answers nor fails, so every request has a limit, counted
//! from when the drive has it; after it the caller is told [`MediaFault::Timeout`] and
//! the slot is free again. What was started may still happen; that is harmless, since a
//! drive that missed a write or a flush is out of the group by the time anything depends
//! on it, and the buffers belong to the I/O. A drive that is out gives its waiting
//! requests back at once.
//!
//! How long each request was at the drive is counted (`slow.rs`).
//!
//! Cost of a request when nothing waits: one look at ten small counters, two readings of
//! the clock, no thread hop, no system call, no copy, and no allocation but for what the
//! port itself boxes and the timer of the limit (two, one fewer than before there was a
//! queue). A request that waits costs one small allocation. A request longer than
//! the profile's `io_bytes_max` is cut: a write without, a read with a copy of its bytes.
//! Flushes are neither queued nor counted against the depth: they are ordered by whoever
//! waits for them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use base::buf::{Buf, BufMut};
use base::port::{Clock, Drive, DriveInfo, LocalFuture, MediaFault, World};
use base::time::Nanos;
use futures_util::future::{Either, select};

use crate::hedge::HedgeBudget;
use crate::principal::{Goal, Principal, Shares};
use crate::profile::{DriveClass, Profile, Profiles, WritePattern};
use crate::queue::{Limits, Queue, Request, Usage};
use crate::slow::{Kind, SlowSettings, Times};
use crate::turns::{Bulk, Turns};

/// How the drives of a group are shared and watched. Everything may change while the
/// group is open, see [`Group::set_flow`](crate::Group::set_flow).
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Parts of a drive by principal.
    pub shares: Shares,
    /// Profiles by model.
    pub profiles: Profiles,
    /// Reads that may be reconstructed because they are late, in parts per million of all
    /// reads that could be; 0 switches hedged reads off.
    pub hedged_reads_ppm: u32,
    /// How long after its last request a latency principal counts as active.
    pub quiet: Duration,
    /// When a drive is put out for being slow.
    pub slow: SlowSettings,
}

impl Default for FlowSettings {
    fn default() -> FlowSettings {
        FlowSettings {
            shares: Shares::default(),
            profiles: Profiles::default(),
            hedged_reads_ppm: 30_000,
            quiet: Duration::from_millis(20),
            slow: SlowSettings::default(),
        }
    }
}

/// What the lanes of a group share.
pub(crate) struct Flow {
    world: World,
    settings: RefCell<FlowSettings>,
    lanes: RefCell<Vec<Weak<LaneState>>>,
    turns: RefCell<Turns<Rc<Gate>>>,
    next_lane: Cell<u64>,
    pub budget: RefCell<HedgeBudget>,
}

/// The way to one drive; a handle.
#[derive(Clone)]
pub(crate) struct Lane {
    state: Rc<LaneState>,
}

struct LaneState {
    id: u64,
    drive: Rc<dyn Drive>,
    flow: Rc<Flow>,
    model: String,
    turns: bool,
    profile: RefCell<Rc<Profile>>,
    queue: RefCell<Queue<Rc<Gate>>>,
    /// The drive is not used any more.
    retired: Cell<bool>,
    punctuality: Cell<Punctuality>,
    /// Since somebody last looked.
    times: RefCell<Times>,
}

/// How well a drive keeps its times; what its health is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Punctuality {
    /// Reads that had a timeout.
    pub reads: u64,
    /// Of these, late.
    pub late: u64,
    /// Share of late ones among the last hundred or so, in parts per million.
    pub late_ppm: u32,
    /// Mean time at the drive of the last twenty or so reads of clients and metadata, in
    /// nanoseconds; 0 before the first.
    pub read_ns: u64,
}

impl Punctuality {
    /// Takes in one read that had a timeout.
    fn add(&mut self, late: bool) {
        self.reads += 1;
        self.late += u64::from(late);
        let now = if late { 1_000_000 } else { 0 };
        self.late_ppm = (u64::from(self.late_ppm) * 127 / 128) as u32 + now / 128;
    }

    fn took(&mut self, ns: u64) {
        self.read_ns = if self.read_ns == 0 { ns } else { (self.read_ns * 15 + ns) / 16 };
    }
}

/// A drive's lane, for people and for whoever judges the drive.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// Name of the profile in force.
    pub profile: String,
    /// Flash, disk or memory.
    pub class: DriveClass,
    /// Requests the drive is given at a time.
    pub depth: u32,
    /// Requests at the drive now.
    pub in_flight: u32,
    /// Requests waiting now.
    pub waiting: u32,
    /// Whether it holds the turn for bulk writes now.
    pub bulk_turn: bool,
    /// How well it keeps its times.
    pub punctuality: Punctuality,
    /// By principal, in the order of [`Principal::ALL`].
    pub usage: Vec<(Principal, Usage)>,
}

enum GateState {
    Waiting(Option<Waker>),
    Open,
    Refused,
}

/// Where a request waits.
struct Gate(RefCell<GateState>);

impl Gate {
    fn closed() -> Rc<Gate> {
        Rc::new(Gate(RefCell::new(GateState::Waiting(None))))
    }

    fn set(&self, state: GateState) {
        if let GateState::Waiting(Some(waker)) = self.0.replace(state) {
            waker.wake();
        }
    }

    fn is_open(&self) -> bool {
        matches!(*self.0.borrow(), GateState::Open)
    }

    async fn passed(&self) -> Result<(), MediaFault> {
        poll_fn(|context| match &mut *self.0.borrow_mut() {
            GateState::Open => Poll::Ready(Ok(())),
            GateState::Refused => Poll::Ready(Err(MediaFault::Gone)),
            GateState::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// A slot at the drive; free again when dropped.
pub(crate) struct Pass {
    lane: Lane,
    principal: Principal,
    write: bool,
    since: Nanos,
    /// Whether the drive answered.
    served: bool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.lane.note_time(self);
        self.lane.state.queue.borrow_mut().done(self.principal);
        self.lane.open_gates();
    }
}

/// A request that waits for its slot; taken back when dropped.
struct InLine<'a> {
    lane: &'a Lane,
    principal: Principal,
    id: u64,
    gate: Rc<Gate>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.lane.state.queue.borrow_mut().cancel(self.principal, self.id) || !self.gate.is_open() {
            return;
        }
        // The slot was given to a request that nobody wants any more.
        self.lane.state.queue.borrow_mut().done(self.principal);
        self.lane.open_gates();
    }
}

/// The turn of a bulk write, from asking to the end.
struct Turn {
    flow: Rc<Flow>,
    bulk: Bulk,
    gate: Rc<Gate>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let go = {
            let mut turns = self.flow.turns.borrow_mut();
            if self.gate.is_open() {
                turns.done(self.bulk)
            } else {
                turns.cancel(|gate| !Rc::ptr_eq(gate, &self.gate));
                Vec::new()
            }
        };
        go.iter().for_each(|gate| gate.set(GateState::Open));
    }
}

impl Flow {
    /// The flow of a group.
    pub fn new(world: &World) -> Rc<Flow> {
        let settings = FlowSettings::default();
        Rc::new(Flow {
            world: world.clone(),
            turns: RefCell::new(Turns::new(settings.profiles.of("", false).turn_bytes)),
            budget: RefCell::new(HedgeBudget::new(settings.hedged_reads_ppm)),
            settings: RefCell::new(settings),
            lanes: RefCell::default(),
            next_lane: Cell::new(0),
        })
    }

    /// A lane to `drive`, with the profile of its model.
    pub fn lane(self: &Rc<Flow>, drive: Rc<dyn Drive>) -> Lane {
        let DriveInfo { model, turns, .. } = drive.info();
        let settings = self.settings.borrow();
        let profile = settings.profiles.of(&model, turns);
        self.next_lane.set(self.next_lane.get() + 1);
        let state = Rc::new(LaneState {
            id: self.next_lane.get(),
            drive,
            flow: self.clone(),
            model,
            turns,
            queue: RefCell::new(Queue::new(limits_of(&profile, &settings), settings.shares)),
            profile: RefCell::new(profile),
            retired: Cell::new(false),
            punctuality: Cell::default(),
            times: RefCell::default(),
        });
        let mut lanes = self.lanes.borrow_mut();
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Rc::downgrade(&state));
        Lane { state }
    }

    /// Lanes to `drives`.
    pub fn lanes(self: &Rc<Flow>, drives: Vec<Rc<dyn Drive>>) -> Vec<Lane> {
        drives.into_iter().map(|drive| self.lane(drive)).collect()
    }

    /// Other settings from now on.
    pub fn set(&self, settings: FlowSettings) {
        self.budget.borrow_mut().adjust(settings.hedged_reads_ppm);
        let lanes =
            self.lanes.borrow().iter().filter_map(Weak::upgrade).map(|state| Lane { state }).collect::<Vec<_>>();
        for lane in &lanes {
            let profile = settings.profiles.of(&lane.state.model, lane.state.turns);
            lane.state.queue.borrow_mut().adjust(limits_of(&profile, &settings), settings.shares);
            lane.state.profile.replace(profile);
        }
        let turn_bytes = lanes.iter().map(|lane| lane.state.profile.borrow().turn_bytes).max();
        self.turns.borrow_mut().adjust(turn_bytes.unwrap_or(1));
        self.settings.replace(settings);
        lanes.iter().for_each(|lane| lane.open_gates());
    }

    /// The settings in force.
    pub fn settings(&self) -> FlowSettings {
        self.settings.borrow().clone()
    }

    /// When a drive is put out for being slow.
    pub fn slow(&self) -> SlowSettings {
        self.settings.borrow().slow
    }
}

fn limits_of(profile: &Profile, settings: &FlowSettings) -> Limits {
    Limits {
        depth: profile.depth,
        background_depth: profile.background_depth,
        background_depth_idle: profile.background_depth_idle,
        quiet: settings.quiet,
    }
}

impl Lane {
    /// How it is treated.
    pub fn profile(&self) -> Rc<Profile> {
        self.state.profile.borrow().clone()
    }

    /// What is known of the drive.
    pub fn info(&self) -> DriveInfo {
        self.state.drive.info()
    }

    /// The drive is used no more; who waits for it is told. One that comes back gets a new
    /// lane.
    pub fn retire(&self) {
        self.state.retired.set(true);
        let waiting = self.state.queue.borrow_mut().drain();
        waiting.iter().for_each(|gate| gate.set(GateState::Refused));
    }

    /// Whether it takes in bulk writes now.
    pub fn is_in_bulk_turn(&self) -> bool {
        self.state.flow.turns.borrow().is_holder(self.state.id)
    }

    /// Whether a read that had a timeout was late.
    pub fn note_read(&self, late: bool) {
        let mut punctuality = self.state.punctuality.get();
        punctuality.add(late);
        self.state.punctuality.set(punctuality);
    }

    /// See [`LaneStatus`].
    pub fn status(&self) -> LaneStatus {
        let (profile, queue) = (self.state.profile.borrow(), self.state.queue.borrow());
        let (in_flight, waiting) = queue.load();
        LaneStatus {
            profile: profile.name.clone(),
            class: profile.class,
            depth: profile.depth,
            in_flight,
            waiting,
            bulk_turn: self.is_in_bulk_turn(),
            punctuality: self.state.punctuality.get(),
            usage: Principal::ALL.map(|principal| (principal, queue.usage(principal))).to_vec(),
        }
    }

    fn open_gates(&self) {
        loop {
            let gate = self.state.queue.borrow_mut().next(self.state.flow.world.clock.now());
            let Some(gate) = gate else { return };
            gate.set(GateState::Open);
        }
    }

    fn request(&self, principal: Principal, bytes: usize, write: bool) -> Request {
        let bytes = bytes as u64;
        Request { principal, bytes, cost: self.state.profile.borrow().cost(bytes, write) }
    }

    /// A slot for reading `bytes`, if one is free for `principal` now.
    pub fn try_admit(&self, principal: Principal, bytes: usize) -> Option<Pass> {
        let now = self.state.flow.world.clock.now();
        let started = self.state.queue.borrow_mut().try_start(self.request(principal, bytes, false), now);
        started.then(|| Pass { lane: self.clone(), principal, write: false, since: now, served: false })
    }

    async fn admit(&self, request: Request, write: bool) -> Result<Pass, MediaFault> {
        if self.state.retired.get() {
            return Err(MediaFault::Gone);
        }
        let principal = request.principal;
        let now = self.state.flow.world.clock.now();
        let pass = |since| Pass { lane: self.clone(), principal, write, since, served: false };
        if self.state.queue.borrow_mut().try_start(request, now) {
            return Ok(pass(now));
        }
        let gate = Gate::closed();
        let id = self.state.queue.borrow_mut().wait(request, gate.clone(), now);
        let place = InLine { lane: self, principal, id, gate };
        place.gate.passed().await?;
        let passed = pass(self.state.flow.world.clock.now());
        // The pass gives the slot back from here on.
        place.gate.set(GateState::Refused);
        Ok(passed)
    }

    /// Waits for the turn of a bulk write, if this drive takes turns.
    async fn turn(&self, principal: Principal, bytes: usize) -> Result<Option<Turn>, MediaFault> {
        let turns = self.state.profile.borrow().write_pattern == WritePattern::Turns;
        if !turns || principal.goal() == Goal::Latency {
            return Ok(None);
        }
        let bulk = Bulk { drive: self.state.id, bytes: bytes as u64, rebuild: principal == Principal::Rebuild };
        let turn = Turn { flow: self.state.flow.clone(), bulk, gate: Gate::closed() };
        let go = self.state.flow.turns.borrow_mut().ask(bulk, turn.gate.clone());
        go.iter().for_each(|gate| gate.set(GateState::Open));
        turn.gate.passed().await?;
        Ok(Some(turn))
    }

    async fn within<T>(&self, limit: Duration, io: LocalFuture<'_, T>) -> Option<T> {
        let clock = &self.state.flow.world.clock;
        let late = clock.sleep_until(clock.now() + limit);
        match select(pin!(io), late).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// Fills `buf` from `offset_bytes` for `principal`.
    pub async fn read(&self, principal: Principal, offset_bytes: u64, buf: BufMut) -> (Result<(), MediaFault>, BufMut) {
        let most = self.state.profile.borrow().io_bytes_max as usize;
        if buf.len() <= most {
            return self.read_piece(principal, offset_bytes, buf).await;
        }
        let mut whole = buf;
        for at in (0..whole.len()).step_by(most) {
            let piece = BufMut::zeroed(most.min(whole.len() - at));
            let (outcome, piece) = self.read_piece(principal, offset_bytes + at as u64, piece).await;
            if outcome.is_err() {
                return (outcome, whole);
            }
            whole[at..at + piece.len()].copy_from_slice(&piece);
        }
        (Ok(()), whole)
    }

    async fn read_piece(
        &self,
        principal: Principal,
        offset_bytes: u64,
        buf: BufMut,
    ) -> (Result<(), MediaFault>, BufMut) {
        let len_bytes = buf.len();
        let mut pass = match self.admit(self.request(principal, len_bytes, false), false).await {
            Ok(pass) => pass,
            Err(fault) => return (Err(fault), buf),
        };
        let limit = self.state.profile.borrow().read_limit;
        match self.within(limit, self.state.drive.read(offset_bytes, buf)).await {
            Some(done) => {
                pass.served = true;
                done
            }
            None => (Err(MediaFault::Timeout), BufMut::zeroed(len_bytes)),
        }
    }

    /// The read of a slot that was already given; without a limit: its caller has one.
    pub fn issue(&self, pass: Pass, offset_bytes: u64, buf: BufMut) -> OwnedRead {
        let lane = self.clone();
        Box::pin(async move {
            // All of it, or the slot would be free at once.
            let mut pass = pass;
            let done = lane.state.drive.read(offset_bytes, buf).await;
            pass.served = true;
            done
        })
    }

    /// Takes in how long a request was at the drive; one that was given up, how long at least.
    fn note_time(&self, pass: &Pass) {
        let took = self.state.flow.world.clock.now().since(pass.since);
        self.state.times.borrow_mut().add(Kind::of(pass.principal.goal(), pass.write), took);
        if pass.served && pass.principal.goal() == Goal::Latency {
            let mut punctuality = self.state.punctuality.get();
            punctuality.took(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            self.state.punctuality.set(punctuality);
        }
    }

    /// How long requests were at the drive, so far.
    pub fn times(&self) -> Times {
        self.state.times.borrow().clone()
    }

    /// Reads that somebody waited for, since then.
    pub fn reads_timed(&self) -> u64 {
        self.state.times.borrow().requests(Kind::Read)
    }

    /// Counts from here on.
    pub fn forget_times(&self) {
        self.state.times.replace(Times::default());
    }

    /// Writes `data` at `offset_bytes` for `principal`.
    pub async fn write(&self, principal: Principal, offset_bytes: u64, data: Buf) -> Result<(), MediaFault> {
        let (most, limit) = {
            let profile = self.state.profile.borrow();
            (profile.io_bytes_max as usize, profile.write_limit)
        };
        let turn = self.turn(principal, data.len()).await?;
        for at in (0..data.len()).step_by(most) {
            let piece = data.slice(at..data.len().min(at + most));
            let _pass = self.admit(self.request(principal, piece.len(), true), true).await?;
            let io = self.state.drive.write(offset_bytes + at as u64, vec![piece]);
            self.within(limit, io).await.unwrap_or(Err(MediaFault::Timeout))?;
        }
        turn.into_iter().for_each(|turn| self.settle(turn));
        Ok(())
    }

    /// Keeps the turn for as long as the drive stays slow after its write.
    fn settle(&self, turn: Turn) {
        let settle = self.state.profile.borrow().settle;
        if settle.is_zero() {
            return;
        }
        let world = &self.state.flow.world;
        let calm = world.clock.sleep_until(world.clock.now() + settle);
        let rest = async move {
            calm.await;
            drop(turn);
        };
        world.spawn.spawn("raid bulk turn", Box::pin(rest));
    }

    /// Makes completed writes durable.
    pub async fn flush(&self) -> Result<(), MediaFault> {
        let limit = self.state.profile.borrow().write_limit;
        let since = self.clock().now();
        let outcome = self.within(limit, self.state.drive.flush()).await.unwrap_or(Err(MediaFault::Timeout));
        self.state.times.borrow_mut().add(Kind::Flush, self.clock().now().since(since));
        outcome
    }

    /// The group's flow.
    pub fn flow(&self) -> &Flow {
        &self.state.flow
    }

    /// Time.
    pub fn clock(&self) -> &dyn Clock {
        self.state.flow.world.clock.as_ref()
    }
}

/// A read that owns everything it needs, so that who gave up on it can let it end alone.
pub(crate) type OwnedRead = LocalFuture<'static, (Result<(), MediaFault>, BufMut)>;
