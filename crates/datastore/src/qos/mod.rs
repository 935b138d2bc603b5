//! Who may have how much, and whose turn it is: reads and writes pass here before anything is
//! done for them (issue "The VM is the unit", 4).
//!
//! ```text
//!  request --> owner of the file --> maximum of its VM --> its turn --> work
//!              (a look into a map)   ([`bucket`], qos)     ([`turns`], contention)
//! ```
//! What counts is normalised cost ([`base::meter::Kind::cost`]). A VM at its *maximum* is held back; that time is the part
//! `qos` of its latency. Turns are taken only while there is more than a window of work and more
//! than one VM has some; a VM below its *minimum* does not wait for turns. Files of no VM share as one per datastore.
//!
//! Costs a request without limits: one look into the map of owners, one into the flows when it
//! comes and one when it is done, an addition each; no allocation, no reading of the clock beyond one.
//! A request that waits allocates its place.

mod bucket;
mod turns;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::meter::{Kind, Part};
use base::port::{Clock, LocalFuture};
use base::{FileId, Nanos};
use engine::store::Store;

use self::bucket::Bucket;
use self::turns::{FlowId, Turns};
use crate::filesystem::Filesystem;
use crate::handle::DatastoreId;
use crate::vm::VmName;

/// Flows of files that belong to no VM have this bit and the number of their datastore.
const OF_NO_VM: FlowId = 1 << 31;

/// How much a VM may have and shall have, in normalised cost per second; 0 is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmLimits {
    /// Not more than this.
    pub max_per_second: Option<u64>,
    /// Not less than this, if it asks for it and the store can do so much.
    pub min_per_second: Option<u64>,
}

/// A request in a queue of those that wait.
#[derive(Default)]
struct Waiter {
    goes: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn go(&self) {
        self.goes.set(true);
        self.wake();
    }

    fn listen(&self, context: &Context<'_>) {
        *self.waker.borrow_mut() = Some(context.waker().clone());
    }
}

/// The maximum of a VM, and those that it holds back, in order.
struct Limiter {
    bucket: RefCell<Option<Bucket>>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

impl Limiter {
    /// Takes `cost` at once, if nobody is before it and it may.
    fn try_take(&self, cost: u64, now: Nanos) -> bool {
        self.queue.borrow().is_empty() && self.take_or_when(cost, now).is_none()
    }

    /// Takes `cost`, or says from when on it may.
    fn take_or_when(&self, cost: u64, now: Nanos) -> Option<Nanos> {
        let mut bucket = self.bucket.borrow_mut();
        let bucket = bucket.as_mut()?;
        let ready = bucket.ready_at(now);
        if ready > now {
            return Some(ready);
        }
        bucket.take(cost, now);
        None
    }

    fn wake_first(&self) {
        if let Some(first) = self.queue.borrow().front() {
            first.wake();
        }
    }

    /// Waits until it may, in the order of arrival.
    async fn wait(&self, cost: u64, clock: &dyn Clock) {
        let waiter = Rc::new(Waiter::default());
        self.queue.borrow_mut().push_back(waiter.clone());
        let _place = LeaveQueue { limiter: self, waiter: &waiter };
        let mut sleep: Option<LocalFuture<'static, ()>> = None;
        poll_fn(|context| {
            loop {
                waiter.listen(context);
                let is_first = self.queue.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &waiter));
                if !is_first {
                    return Poll::Pending;
                }
                // Asked anew at each waking: the rate may be another.
                let Some(ready) = self.take_or_when(cost, clock.now()) else { return Poll::Ready(()) };
                let sleep = sleep.insert(clock.sleep_until(ready));
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

/// Gives up the place in a limiter's queue.
struct LeaveQueue<'a> {
    limiter: &'a Limiter,
    waiter: &'a Rc<Waiter>,
}

impl Drop for LeaveQueue<'_> {
    fn drop(&mut self) {
        self.limiter.queue.borrow_mut().retain(|one| !Rc::ptr_eq(one, self.waiter));
        self.limiter.wake_first();
    }
}

/// Requests that are held back, and the payload they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub requests: usize,
    /// Payload in bytes.
    pub bytes: usize,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Qos {
    turns: RefCell<Turns>,
    /// By ticket.
    waiting: RefCell<BTreeMap<u64, Rc<Waiter>>>,
    limiters: RefCell<BTreeMap<FlowId, Rc<Limiter>>>,
    names: RefCell<BTreeMap<VmName, FlowId>>,
    limits: RefCell<BTreeMap<VmName, VmLimits>>,
    held: Cell<Held>,
}

impl Qos {
    /// The flow of a VM: the same for as long as the filesystem is open.
    pub fn flow_of(&self, name: &VmName) -> FlowId {
        let mut names = self.names.borrow_mut();
        let next = names.len() as FlowId;
        *names.entry(name.clone()).or_insert(next)
    }

    /// These limits and no others hold from now on; who is held back is asked anew.
    pub fn set_all(&self, limits: BTreeMap<VmName, VmLimits>, now: Nanos) {
        let before = self.limits.replace(limits.clone());
        for name in before.keys().filter(|name| !limits.contains_key(name)) {
            self.set(self.flow_of(name), VmLimits::default(), now);
        }
        for (name, wish) in limits {
            self.set(self.flow_of(&name), wish, now);
        }
    }

    /// As [`set_all`](Self::set_all), of one VM.
    pub fn set_one(&self, name: VmName, wish: VmLimits, now: Nanos) {
        self.set(self.flow_of(&name), wish, now);
        match wish == VmLimits::default() {
            true => drop(self.limits.borrow_mut().remove(&name)),
            false => drop(self.limits.borrow_mut().insert(name, wish)),
        }
    }

    fn set(&self, flow: FlowId, wish: VmLimits, now: Nanos) {
        self.turns.borrow_mut().set_minimum(flow, wish.min_per_second, now);
        let mut limiters = self.limiters.borrow_mut();
        match (limiters.get(&flow), wish.max_per_second) {
            (None, None) => {}
            (None, Some(rate)) => {
                let bucket = RefCell::new(Some(Bucket::new(rate, now)));
                limiters.insert(flow, Rc::new(Limiter { bucket, queue: RefCell::default() }));
            }
            (Some(limiter), Some(rate)) => {
                limiter.bucket.borrow_mut().get_or_insert_with(|| Bucket::new(rate, now)).set_rate(rate, now);
                limiter.wake_first();
            }
            (Some(limiter), None) => {
                // Those that wait go one after the other.
                *limiter.bucket.borrow_mut() = None;
                limiter.wake_first();
                limiters.remove(&flow);
            }
        }
    }

    fn hold(&self, bytes: usize) -> Holding<'_> {
        let held = self.held.get();
        self.held.set(Held { requests: held.requests + 1, bytes: held.bytes + bytes });
        Holding { qos: self, bytes }
    }

    fn now(&self, clock: &dyn Clock) -> Nanos {
        if self.turns.borrow().needs_time() { clock.now() } else { Nanos(0) }
    }

    /// Waits for the turn of a ticket.
    async fn turn(&self, (flow, cost): (FlowId, u64), ticket: u64, clock: &dyn Clock) {
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().insert(ticket, waiter.clone());
        let mut place = Place { work: Some(Work { qos: self, clock, flow, cost }), ticket, waiter: &waiter };
        poll_fn(|context| {
            waiter.listen(context);
            if waiter.goes.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // From here on whoever waited has it.
        std::mem::forget(place.work.take());
    }
}

/// Work that is under way. Dropping it ends it.
pub(crate) struct Work<'a> {
    qos: &'a Qos,
    clock: &'a dyn Clock,
    flow: FlowId,
    cost: u64,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let now = self.qos.now(self.clock);
        let waiting = &self.qos.waiting;
        self.qos.turns.borrow_mut().done(self.flow, self.cost, now, |ticket| {
            if let Some(waiter) = waiting.borrow_mut().remove(&ticket) {
                waiter.go();
            }
        });
    }
}

/// A place among those that wait for their turn. Dropping it gives it up, or the turn that has
/// come meanwhile.
struct Place<'a> {
    work: Option<Work<'a>>,
    ticket: u64,
    waiter: &'a Waiter,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if self.waiter.goes.get() {
            return drop(work);
        }
        work.qos.waiting.borrow_mut().remove(&self.ticket);
        work.qos.turns.borrow_mut().leave(work.flow, self.ticket);
        // It never began.
        std::mem::forget(work);
    }
}

/// A request is held back. Dropping it ends that.
struct Holding<'a> {
    qos: &'a Qos,
    bytes: usize,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let held = self.qos.held.get();
        self.qos.held.set(Held { requests: held.requests - 1, bytes: held.bytes - self.bytes });
    }
}

impl<S: Store> Filesystem<S> {
    /// Lets a read or a write begin when its VM may have it and it is its turn.
    pub(crate) async fn begin(&self, (datastore, file): (DatastoreId, FileId), kind: Kind, bytes: usize) -> Work<'_> {
        let (qos, clock) = (&self.qos, &*self.world.clock);
        let (flow, cost) = (self.flow_of(file).unwrap_or(OF_NO_VM | datastore.0), kind.cost(bytes as u64));
        let limiter = qos.limiters.borrow().get(&flow).cloned();
        if let Some(limiter) = limiter.filter(|limiter| !limiter.try_take(cost, clock.now())) {
            let _held = qos.hold(bytes);
            Box::pin(self.timed(Part::Qos, limiter.wait(cost, clock))).await;
        }
        let now = qos.now(clock);
        let ticket = qos.turns.borrow_mut().arrive(flow, cost, now);
        if let Some(ticket) = ticket {
            let _held = qos.hold(bytes);
            Box::pin(qos.turn((flow, cost), ticket, clock)).await;
        }
        Work { qos, clock, flow, cost }
    }

    async fn timed(&self, part: Part, wait: impl Future<Output = ()>) {
        match self.store.meter() {
            Some(meter) => meter.wait(part, wait).await,
            None => wait.await,
        }
    }

    /// Requests that wait for their VM's limit or their turn.
    pub fn held(&self) -> Held {
        self.qos.held.get()
    }

    /// Ends all holding back: the store stops, and answers what is under way.
    pub fn let_all_go(&self) {
        self.qos.set_all(BTreeMap::new(), self.world.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::WallNanos;
    use std::pin::{Pin, pin};

    /// A clock that goes as it is told, and sleeps that end when it has.
    #[derive(Default)]
    struct Told(Rc<Cell<u64>>);

    impl Clock for Told {
        fn now(&self) -> Nanos {
            Nanos(self.0.get())
        }

        fn wall(&self) -> WallNanos {
            WallNanos(self.0.get())
        }

        fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
            let now = self.0.clone();
            Box::pin(poll_fn(move |_| if now.get() >= at.0 { Poll::Ready(()) } else { Poll::Pending }))
        }
    }

    fn poll<F: Future>(work: &mut Pin<Box<F>>) -> bool {
        work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn name(vm: &str) -> VmName {
        VmName { datastore: "demo".into(), vm: vm.into() }
    }

    fn limiter(qos: &Qos, vm: &str) -> Rc<Limiter> {
        qos.limiters.borrow()[&qos.flow_of(&name(vm))].clone()
    }

    #[test]
    fn who_is_held_back_goes_in_order_and_at_once_when_the_limit_goes() {
        let (qos, clock) = (Qos::default(), Told::default());
        let limits = |max| VmLimits { max_per_second: max, min_per_second: None };
        qos.set_one(name("100"), limits(Some(10)), Nanos(0));
        let own = limiter(&qos, "100");
        assert!(own.try_take(100, clock.now()), "what is kept for a moment");
        assert!(!own.try_take(1, clock.now()));
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(own.wait(10, &clock))).collect();
        assert!(waits.iter_mut().all(|wait| !poll(wait)));
        clock.0.set(9_900_000_000);
        assert!(!poll(&mut waits[1]), "in order");
        assert!(poll(&mut waits[0]));
        assert!(!poll(&mut waits[1]));
        // Whoever gives up lets the next one come.
        drop(waits.remove(1));
        clock.0.set(10_900_000_000);
        assert!(poll(&mut waits[1]));
        drop(waits);

        let mut late = Box::pin(own.wait(1000, &clock));
        assert!(!poll(&mut late));
        qos.set_one(name("100"), limits(Some(1_000_000)), clock.now());
        clock.0.set(clock.0.get() + 1_000_000);
        assert!(poll(&mut late), "another rate is heard of at once");
        clock.0.set(clock.0.get() + 1_000_000_000);
        let mut last = Box::pin(own.wait(1, &clock));
        assert!(own.try_take(1 << 40, clock.now()) && !poll(&mut last), "paid for afterwards");
        qos.set_all(BTreeMap::new(), clock.now());
        assert!(poll(&mut last));
        assert!(poll(&mut Box::pin(own.wait(1 << 40, &clock))), "no limit, no wait");
        assert!(qos.limiters.borrow().is_empty());
    }

    #[test]
    fn a_turn_that_is_given_up_is_the_next_ones() {
        let (qos, clock) = (Qos::default(), Told::default());
        let arrive = |flow, cost| qos.turns.borrow_mut().arrive(flow, cost, Nanos(0));
        assert_eq!(arrive(1, turns::WINDOW), None);
        let first = Work { qos: &qos, clock: &clock, flow: 1, cost: turns::WINDOW };
        let tickets: Vec<u64> = (0..3).map(|_| arrive(2, turns::WINDOW).unwrap()).collect();
        let mut waits: Vec<_> =
            tickets.into_iter().map(|ticket| Box::pin(qos.turn((2, turns::WINDOW), ticket, &clock))).collect();
        assert!(waits.iter_mut().all(|wait| !poll(wait)));
        drop(waits.remove(1));
        drop(first);
        // Its turn has come, and it goes away without having seen it.
        drop(waits.remove(0));
        let mut last = pin!(waits.remove(0));
        assert!(last.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        drop(Work { qos: &qos, clock: &clock, flow: 2, cost: turns::WINDOW });
        assert!(qos.waiting.borrow().is_empty());
        assert_eq!(arrive(3, 1), None, "nothing is left under way");
    }
}
