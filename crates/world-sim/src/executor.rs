//! One thread, one seed, one order of events.
//!
//! A *step* is one poll of a task or one event (a timer, a completion of an I/O). At
//! each step the seed chooses among all tasks that were woken and the earliest event
//! that is due; so two completions and the tasks they wake interleave in every way that
//! a real single-threaded shard could show. Time stands still inside a poll; each poll
//! costs a drawn 0 to 2 µs; when nothing can run, time jumps to the next event.
//!
//! [`SimWorld::crash_after`] stops the run after a given number of steps: that is every
//! await boundary and every completion. Then [`SimNode::kill`](crate::SimNode::kill)
//! drops the node's tasks, [`SimMedia::power_cut`](crate::SimMedia::power_cut) settles
//! what its media hold, and a new node opens them again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use base::port::LocalFuture;

use crate::digest::Digest;
use crate::media::{Medium, SimMedia};
use crate::node::{MaybeSite, SimNode};
use crate::rng::Rng;

/// Tasks that were woken, in the order of their waking.
type Ready = Arc<Mutex<Vec<u64>>>;

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

struct Task {
    node: u64,
    name: &'static str,
    future: LocalFuture<'static, ()>,
    waker: Arc<TaskWaker>,
}

/// When an event happens; a drawn number orders events of the same instant.
pub(crate) type EventKey = (u64, u32, u64);

pub(crate) enum Event {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum RunEnd<T> {
    /// The future finished.
    Done(T),
    /// The step asked for by [`SimWorld::crash_after`] was reached.
    CrashPoint,
    /// Nothing is left that could wake the future: a deadlock, or a hung drive.
    Stuck,
    /// The limit of [`SimWorld::limit_time`] was reached.
    OutOfTime,
}

impl<T> RunEnd<T> {
    /// The result of a run that must have finished.
    #[track_caller]
    pub fn done(self) -> T {
        match self {
            RunEnd::Done(value) => value,
            RunEnd::CrashPoint => panic!("the run reached its crash point"),
            RunEnd::Stuck => panic!("the run is stuck: nothing can wake it"),
            RunEnd::OutOfTime => panic!("the run is out of simulated time"),
        }
    }
}

/// What all handles of one world share.
pub(crate) struct Core {
    pub(crate) seed: u64,
    now_ns: Cell<u64>,
    steps: Cell<u64>,
    crash_at_step: Cell<u64>,
    time_limit_ns: Cell<u64>,
    next_id: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    ready: Ready,
    rng: RefCell<Rng>,
    digest: RefCell<Digest>,
    trace: RefCell<Option<Trace>>,
    dead_nodes: RefCell<BTreeSet<u64>>,
    pub(crate) media: RefCell<Vec<Weak<Medium>>>,
    pub(crate) sites: RefCell<BTreeMap<&'static str, MaybeSite>>,
    pub(crate) chance_rng: RefCell<Rng>,
}

/// Receives one line per event.
type Trace = Box<dyn FnMut(&str)>;

impl Core {
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    /// Records an event in the digest and, when asked for, in the trace.
    pub(crate) fn note(&self, kind: &str, values: [u64; 4]) {
        self.digest.borrow_mut().event(kind, values);
        if let Some(trace) = self.trace.borrow_mut().as_mut() {
            trace(&format!("{:>14} ns  step {:>8}  {kind} {values:x?}", self.now_ns.get(), self.steps.get()));
        }
    }

    pub(crate) fn schedule(&self, at_ns: u64, event: Event) -> EventKey {
        let order = self.rng.borrow_mut().next_u64() as u32;
        let key = (at_ns, order, self.fresh_id());
        self.events.borrow_mut().insert(key, event);
        key
    }

    /// A number below `bound`.
    pub(crate) fn draw(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    pub(crate) fn unschedule(&self, key: EventKey) {
        let event = self.events.borrow_mut().remove(&key);
        drop(event);
    }

    pub(crate) fn spawn(&self, node: u64, name: &'static str, future: LocalFuture<'static, ()>) {
        let id = self.fresh_id();
        self.note(name, [1, node, id, 0]);
        let waker = self.waker(id);
        self.tasks.borrow_mut().insert(id, Task { node, name, future, waker: waker.clone() });
        waker.wake();
    }

    fn waker(&self, id: u64) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: self.ready.clone() })
    }

    /// Drops every task of `node`, now and for ever. Their destructors run outside all borrows.
    pub(crate) fn drop_tasks(&self, node: u64) -> usize {
        self.dead_nodes.borrow_mut().insert(node);
        let mut dropped = 0;
        loop {
            let mut tasks = self.tasks.borrow_mut();
            let Some(id) = tasks.iter().find(|(_, task)| task.node == node).map(|(&id, _)| id) else {
                return dropped;
            };
            let task = tasks.remove(&id);
            drop(tasks);
            drop(task);
            dropped += 1;
        }
    }

    fn next_event_at(&self) -> Option<u64> {
        self.events.borrow().first_key_value().map(|(key, _)| key.0)
    }

    fn fire_first_event(&self) {
        let Some((key, event)) = self.events.borrow_mut().pop_first() else { return };
        self.now_ns.set(self.now_ns.get().max(key.0));
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Call(call) => call(),
        }
    }

    /// Chooses the next thing to do: a woken task, or an event (`None`).
    fn choose(&self) -> Option<Choice> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let next_event = self.next_event_at();
        let due = usize::from(next_event.is_some_and(|at| at <= self.now_ns.get()));
        if ready.len() + due == 0 {
            return next_event.map(Choice::Event);
        }
        let index = self.rng.borrow_mut().index(ready.len() + due);
        if index < ready.len() {
            return Some(Choice::Task(ready.swap_remove(index)));
        }
        next_event.map(Choice::Event)
    }

    fn poll_task(&self, id: u64) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return };
        self.note(task.name, [2, task.node, id, 0]);
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.waker.clone());
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            && !self.dead_nodes.borrow().contains(&task.node)
        {
            self.tasks.borrow_mut().insert(id, task);
        }
    }

    fn spend(&self) {
        let cost = self.rng.borrow_mut().below(2_000);
        self.now_ns.set(self.now_ns.get() + cost);
    }
}

enum Choice {
    Task(u64),
    Event(u64),
}

/// Tasks, events and media hold the core, and the core holds them: whoever drops the
/// last handle of the world takes the knot apart, so that thousands of seeds in one
/// process leave nothing behind.
struct Knot {
    core: Rc<Core>,
}

impl Drop for Knot {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.core.tasks.borrow_mut());
        drop(tasks);
        let events = std::mem::take(&mut *self.core.events.borrow_mut());
        drop(events);
        for medium in self.core.media.take() {
            if let Some(medium) = medium.upgrade() {
                SimMedia { medium }.forget_io();
            }
        }
    }
}

/// A whole simulated world; a handle, cheap to clone. When the last one is dropped, no
/// task of the world runs any more.
#[derive(Clone)]
pub struct SimWorld {
    pub(crate) core: Rc<Core>,
    _knot: Rc<Knot>,
}

impl SimWorld {
    /// The world of `seed`.
    pub fn new(seed: u64) -> SimWorld {
        let root = Rng::new(seed);
        let core = Core {
            seed,
            now_ns: Cell::new(0),
            steps: Cell::new(0),
            crash_at_step: Cell::new(u64::MAX),
            time_limit_ns: Cell::new(u64::MAX),
            next_id: Cell::new(0),
            tasks: RefCell::default(),
            events: RefCell::default(),
            ready: Ready::default(),
            rng: RefCell::new(root.fork("order")),
            digest: RefCell::default(),
            trace: RefCell::default(),
            dead_nodes: RefCell::default(),
            media: RefCell::default(),
            sites: RefCell::default(),
            chance_rng: RefCell::new(root.fork("chance")),
        };
        let core = Rc::new(core);
        SimWorld { core: core.clone(), _knot: Rc::new(Knot { core }) }
    }

    /// A stream of random numbers of this seed for the scenario itself.
    pub fn rng(&self, label: &str) -> Rng {
        Rng::new(self.core.seed).fork(label)
    }

    /// A new node: one life of one server process.
    pub fn node(&self) -> SimNode {
        SimNode::start(self.core.clone())
    }

    /// A blank drive of `capacity_bytes` that outlives nodes.
    pub fn drive_media(&self, name: &str, capacity_bytes: u64) -> SimMedia {
        SimMedia::new(self.core.clone(), name, capacity_bytes, false)
    }

    /// A blank journal leg of `capacity_bytes` that outlives nodes: durable on return.
    pub fn leg_media(&self, name: &str, capacity_bytes: u64) -> SimMedia {
        SimMedia::new(self.core.clone(), name, capacity_bytes, true)
    }

    /// Runs everything until `future` finishes or the run ends otherwise.
    pub fn run_until<F: Future>(&self, future: F) -> RunEnd<F::Output> {
        let core = &self.core;
        let root = core.fresh_id();
        let root_waker = core.waker(root);
        let waker = Waker::from(root_waker.clone());
        let mut future = pin!(future);
        root_waker.clone().wake();
        loop {
            if core.steps.get() >= core.crash_at_step.get() {
                core.crash_at_step.set(u64::MAX);
                core.note("crash-point", [core.steps.get(), 0, 0, 0]);
                return RunEnd::CrashPoint;
            }
            core.steps.set(core.steps.get() + 1);
            match core.choose() {
                None => return RunEnd::Stuck,
                Some(Choice::Event(at)) if at > core.time_limit_ns.get() => return RunEnd::OutOfTime,
                Some(Choice::Event(_)) => core.fire_first_event(),
                Some(Choice::Task(id)) if id == root => {
                    root_waker.queued.store(false, Ordering::Relaxed);
                    core.note("root", [2, 0, 0, 0]);
                    if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return RunEnd::Done(value);
                    }
                    core.spend();
                }
                Some(Choice::Task(id)) => {
                    core.poll_task(id);
                    core.spend();
                }
            }
            if core.now_ns.get() > core.time_limit_ns.get() {
                return RunEnd::OutOfTime;
            }
        }
    }

    /// Ends the current or next run with [`RunEnd::CrashPoint`] after `steps` more steps.
    pub fn crash_after(&self, steps: u64) {
        self.core.crash_at_step.set(self.core.steps.get() + steps);
    }

    /// Takes back [`crash_after`](SimWorld::crash_after).
    pub fn crash_never(&self) {
        self.core.crash_at_step.set(u64::MAX);
    }

    /// Ends runs with [`RunEnd::OutOfTime`] once `ns` more simulated nanoseconds passed.
    pub fn limit_time(&self, ns: u64) {
        self.core.time_limit_ns.set(self.core.now_ns.get().saturating_add(ns));
    }

    /// Steps (polls and events) so far.
    pub fn steps(&self) -> u64 {
        self.core.steps.get()
    }

    /// Simulated time since the start of the world.
    pub fn elapsed_ns(&self) -> u64 {
        self.core.now_ns.get()
    }

    /// Digest of all events so far.
    pub fn digest(&self) -> Digest {
        *self.core.digest.borrow()
    }

    /// Adds an event of the scenario's own to the digest.
    pub fn note(&self, kind: &str, values: [u64; 4]) {
        self.core.note(kind, values);
    }

    /// Sends one line per event to `sink` from now on.
    pub fn trace_to(&self, sink: impl FnMut(&str) + 'static) {
        *self.core.trace.borrow_mut() = Some(Box::new(sink));
    }

    /// Every `maybe` site that was asked, with its counts.
    pub fn sites(&self) -> BTreeMap<&'static str, MaybeSite> {
        self.core.sites.borrow().clone()
    }
}
