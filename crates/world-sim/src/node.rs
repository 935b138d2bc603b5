//! A node is one life of one server process: its tasks, its clock, its handles to
//! media. [`kill`](SimNode::kill) ends it for good; whoever still holds a handle of a
//! dead node gets no answer and does no I/O.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::port::{Chance, Clock, Drive, Job, Leg, LocalFuture, Spawn, World};
use base::{Nanos, WallNanos};

use crate::drive::{SimDrive, SimLeg};
use crate::executor::{Core, Event, EventKey};
use crate::media::SimMedia;
use crate::rng::{Rng, label_hash};

/// 2026-01-01 00:00 UTC, where simulated wall clocks start.
const WALL_START_NS: u64 = 1_767_225_600_000_000_000;

/// Longest a job takes.
const WORK_NS_MAX: u64 = 300_000;

/// How often a `maybe` site was asked and said yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaybeSite {
    /// Whether this seed uses the site at all (one seed in four).
    pub enabled: bool,
    /// Times asked.
    pub asked: u64,
    /// Times answered yes.
    pub fired: u64,
}

pub(crate) struct Life {
    pub(crate) core: Rc<Core>,
    pub(crate) id: u64,
    alive: Cell<bool>,
    /// Monotonic clocks of different lives do not agree, so that comparing them shows.
    clock_start_ns: u64,
    wall_offset_ns: Cell<i64>,
}

impl Life {
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.get()
    }
}

/// One life of one server process; a handle, cheap to clone.
#[derive(Clone)]
pub struct SimNode {
    pub(crate) life: Rc<Life>,
}

impl SimNode {
    pub(crate) fn start(core: Rc<Core>) -> SimNode {
        let id = core.fresh_id();
        let clock_start_ns = Rng::new(core.seed ^ id).fork("clock").below(1 << 50);
        core.note("node-start", [id, 0, 0, 0]);
        SimNode {
            life: Rc::new(Life { core, id, alive: Cell::new(true), clock_start_ns, wall_offset_ns: Cell::new(0) }),
        }
    }

    /// The doors that are not media.
    pub fn world(&self) -> World {
        let doors = Rc::new(self.clone());
        World { clock: doors.clone(), spawn: doors.clone(), chance: doors }
    }

    /// Opens `media` as a drive of this node.
    pub fn drive(&self, media: &SimMedia) -> Rc<dyn Drive> {
        Rc::new(SimDrive::open(media.clone(), self.clone()))
    }

    /// Opens `media` as a journal leg of this node.
    pub fn leg(&self, media: &SimMedia) -> Rc<dyn Leg> {
        Rc::new(SimLeg::open(media.clone(), self.clone()))
    }

    /// Ends this life: its tasks are dropped and it does no more I/O. What was in flight
    /// lands later or not at all: call [`SimMedia::power_cut`] or
    /// [`SimMedia::process_crash`] on its media to settle it now.
    pub fn kill(&self) {
        self.life.alive.set(false);
        let dropped = self.life.core.drop_tasks(self.life.id);
        self.life.core.note("node-kill", [self.life.id, dropped as u64, 0, 0]);
    }

    /// Whether [`kill`](SimNode::kill) was not called yet.
    pub fn is_alive(&self) -> bool {
        self.life.is_alive()
    }

    /// Sets this node's wall clock off by `ns` (an operator or a bad time server).
    pub fn step_wall_clock(&self, ns: i64) {
        self.life.wall_offset_ns.set(ns);
    }
}

impl Clock for SimNode {
    fn now(&self) -> Nanos {
        Nanos(self.life.clock_start_ns + self.life.core.now_ns())
    }

    fn wall(&self) -> WallNanos {
        let wall = WALL_START_NS + self.life.core.now_ns();
        WallNanos(wall.saturating_add_signed(self.life.wall_offset_ns.get()))
    }

    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        let at_ns = at.0.saturating_sub(self.life.clock_start_ns);
        Box::pin(Sleep { core: self.life.core.clone(), at_ns, event: None })
    }
}

/// Wakes its task at a time; takes its event back when dropped.
struct Sleep {
    core: Rc<Core>,
    at_ns: u64,
    event: Option<EventKey>,
}

impl Sleep {
    fn forget_event(&mut self) {
        if let Some(key) = self.event.take() {
            self.core.unschedule(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.forget_event();
        if self.core.now_ns() >= self.at_ns {
            return Poll::Ready(());
        }
        let key = self.core.schedule(self.at_ns, Event::Wake(context.waker().clone()));
        self.event = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget_event();
    }
}

impl Spawn for SimNode {
    fn spawn(&self, name: &'static str, task: LocalFuture<'static, ()>) {
        if self.is_alive() {
            self.life.core.spawn(self.life.id, name, task);
        }
    }

    /// The job is done here and now, its result is seen a drawn time later: a job knows
    /// nothing but what it was given, so when it ran cannot matter, only when it ends, and
    /// in what order with others.
    fn work(&self, job: Job) -> LocalFuture<'static, ()> {
        job();
        let core = &self.life.core;
        let at_ns = core.now_ns() + core.draw(WORK_NS_MAX);
        core.note("work", [self.life.id, at_ns, 0, 0]);
        Box::pin(Sleep { core: core.clone(), at_ns, event: None })
    }
}

impl Chance for SimNode {
    fn maybe(&self, site: &'static str) -> bool {
        let core = &self.life.core;
        let mut sites = core.sites.borrow_mut();
        let entry = sites.entry(site).or_insert_with(|| {
            let enabled = label_hash(core.seed, site).is_multiple_of(4);
            MaybeSite { enabled, ..MaybeSite::default() }
        });
        entry.asked += 1;
        let fires = entry.enabled && core.chance_rng.borrow_mut().percent(25);
        entry.fired += u64::from(fires);
        if fires {
            core.note(site, [3, self.life.id, 0, 0]);
        }
        fires
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.life.core.chance_rng.borrow_mut().fill(bytes);
    }
}

/// Sleeps for `time` on `clock`; a convenience for scenarios.
pub async fn sleep_for(clock: &dyn Clock, time: Duration) {
    clock.sleep_until(clock.now() + time).await;
}

/// A future that gives way once to everything else that can run.
pub async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
