//! The queue of one drive: who may be issued next (R-IO-02, -03, -04). A pure state
//! machine: requests and completions go in, requests to issue come out.
//!
//! *Shares.* Start-time fair queueing with a bounded number of requests at the drive,
//! SFQ(D) (Jin, Chase, Kaur: Interposed Proportional Sharing for a Storage Service
//! Utility, SIGMETRICS 2004). Each principal has a line of its own. Virtual time is the
//! start tag of the request issued last. The head of a line would start at
//! `max(virtual time, finish of the line)`; the line whose head starts first goes next;
//! its finish then moves by cost / share. So lines that always have something waiting
//! get the drive in proportion to their shares, a line that pauses gains no credit, and
//! no line waits for ever, since every other one overtakes it after finitely much.
//!
//! *Latency.* Shares alone do not keep latency flat: a drive that holds 32 background
//! requests makes the next client read wait behind them, whatever its share. So while
//! somebody who wants latency was seen a moment ago, throughput principals may have only
//! [`Limits::background_depth`] requests at the drive. The bound is lifted when the drive
//! is quiet, and when latency principals wait themselves: then there are more of them
//! than slots, and shares decide alone.
//!
//! *Work.* A request waits only while the slots it may use are taken. Whatever completes
//! lets the next one go, so nothing needs a timer.

use std::collections::VecDeque;
use std::time::Duration;

use base::time::Nanos;

use crate::principal::{Goal, PRINCIPALS, Principal, Shares};

/// How many requests a drive is given at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub depth: u32,
    /// Of throughput principals, while latency principals are active. At least 1.
    pub background_depth: u32,
    /// Of throughput principals, while none is.
    pub background_depth_idle: u32,
    /// How long after its last request a latency principal counts as active.
    pub quiet: Duration,
}

/// What a drive did for one principal, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests issued.
    pub requests: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// Of the requests, those that had to wait.
    pub waited: u64,
    /// Time they waited in all.
    pub wait_ns: u64,
    /// The longest wait.
    pub wait_ns_max: u64,
    /// Requests at the drive now.
    pub in_flight: u32,
    /// Requests waiting now.
    pub waiting: u32,
}

/// A request in the words of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// On whose behalf.
    pub principal: Principal,
    /// Bytes it moves.
    pub bytes: u64,
    /// What it costs the drive, in bytes it could move sequentially instead.
    pub cost: u64,
}

struct Waiting<T> {
    id: u64,
    since: Nanos,
    request: Request,
    ticket: T,
}

struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    finish: u64,
    usage: Usage,
}

/// See the module's head. `T` is what the caller wants back when a waiting request may go.
pub struct Queue<T> {
    limits: Limits,
    shares: Shares,
    lines: [Line<T>; PRINCIPALS],
    virtual_now: u64,
    next_id: u64,
    latency_seen: Option<Nanos>,
}

/// Tags are costs in 1/1,024 byte per share.
const TAG_SCALE: u64 = 1024;

impl<T> Queue<T> {
    /// An idle queue.
    pub fn new(limits: Limits, shares: Shares) -> Queue<T> {
        let line = |_| Line { waiting: VecDeque::new(), finish: 0, usage: Usage::default() };
        Queue { limits, shares, lines: Principal::ALL.map(line), virtual_now: 0, next_id: 0, latency_seen: None }
    }

    /// Other limits and shares from now on; requests at the drive stay there.
    pub fn adjust(&mut self, limits: Limits, shares: Shares) {
        (self.limits, self.shares) = (limits, shares);
    }

    /// What was done for `principal`, and what waits.
    pub fn usage(&self, principal: Principal) -> Usage {
        self.lines[principal.index()].usage
    }

    /// Requests at the drive, and waiting.
    pub fn load(&self) -> (u32, u32) {
        let sum = |of: fn(&Usage) -> u32| self.lines.iter().map(|line| of(&line.usage)).sum();
        (sum(|usage| usage.in_flight), sum(|usage| usage.waiting))
    }

    /// Whether the request may go at once; it is at the drive then. A request that may
    /// not has to [`wait`](Queue::wait).
    pub fn try_start(&mut self, request: Request, now: Nanos) -> bool {
        let principal = request.principal;
        if principal.goal() == Goal::Latency {
            self.latency_seen = Some(now);
        }
        let first = self.lines[principal.index()].waiting.is_empty();
        if !first || !self.has_slot(principal, now) {
            return false;
        }
        self.start(request, None);
        true
    }

    /// Puts a request at the end of its principal's line; the number names it.
    pub fn wait(&mut self, request: Request, ticket: T, now: Nanos) -> u64 {
        self.next_id += 1;
        let line = &mut self.lines[request.principal.index()];
        line.usage.waiting += 1;
        line.waiting.push_back(Waiting { id: self.next_id, since: now, request, ticket });
        self.next_id
    }

    /// A waiting request is not wanted any more; false if it was issued already.
    pub fn cancel(&mut self, principal: Principal, id: u64) -> bool {
        let line = &mut self.lines[principal.index()];
        let found = line.waiting.iter().position(|waiting| waiting.id == id);
        if let Some(index) = found {
            line.waiting.remove(index);
            line.usage.waiting -= 1;
        }
        found.is_some()
    }

    /// A request of `principal` is at the drive no more.
    pub fn done(&mut self, principal: Principal) {
        let usage = &mut self.lines[principal.index()].usage;
        usage.in_flight = usage.in_flight.checked_sub(1).expect("only what was issued completes");
    }

    /// The next request to issue; call it until it says none.
    pub fn next(&mut self, now: Nanos) -> Option<T> {
        let can =
            |principal: &Principal| !self.lines[principal.index()].waiting.is_empty() && self.has_slot(*principal, now);
        let head_start = |principal: &Principal| self.virtual_now.max(self.lines[principal.index()].finish);
        let principal = Principal::ALL.into_iter().filter(can).min_by_key(head_start)?;
        let line = &mut self.lines[principal.index()];
        let waiting = line.waiting.pop_front().expect("it has something waiting");
        line.usage.waiting -= 1;
        self.start(waiting.request, Some(now.since(waiting.since)));
        Some(waiting.ticket)
    }

    /// Everything that waits, to be told that the drive is out.
    pub fn drain(&mut self) -> Vec<T> {
        let lines = self.lines.iter_mut();
        lines
            .flat_map(|line| {
                line.usage.waiting = 0;
                line.waiting.drain(..).map(|waiting| waiting.ticket)
            })
            .collect()
    }

    fn has_slot(&self, principal: Principal, now: Nanos) -> bool {
        let (mut all, mut background, mut latency_waits) = (0, 0, false);
        for (line, principal) in self.lines.iter().zip(Principal::ALL) {
            all += line.usage.in_flight;
            match principal.goal() {
                Goal::Latency => latency_waits |= line.usage.waiting > 0,
                Goal::Throughput => background += line.usage.in_flight,
            }
        }
        if all >= self.limits.depth.max(1) {
            return false;
        }
        let active = self.latency_seen.is_some_and(|seen| now.since(seen) < self.limits.quiet);
        let most = if active { self.limits.background_depth } else { self.limits.background_depth_idle };
        principal.goal() == Goal::Latency || latency_waits || background < most.max(1)
    }

    fn start(&mut self, request: Request, waited: Option<Duration>) {
        let share = u64::from(self.shares.of(request.principal));
        let line = &mut self.lines[request.principal.index()];
        let start = self.virtual_now.max(line.finish);
        self.virtual_now = start;
        line.finish = start + (request.cost.max(1) * TAG_SCALE / share).max(1);
        line.usage.requests += 1;
        line.usage.bytes += request.bytes;
        line.usage.in_flight += 1;
        if let Some(waited) = waited {
            let wait_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            line.usage.waited += 1;
            line.usage.wait_ns = line.usage.wait_ns.saturating_add(wait_ns);
            line.usage.wait_ns_max = line.usage.wait_ns_max.max(wait_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { depth: 8, background_depth: 2, background_depth_idle: 6, quiet: Duration::from_millis(20) };

    fn request(principal: Principal, cost: u64) -> Request {
        Request { principal, bytes: cost, cost }
    }

    /// Keeps every line of `principals` at `backlog` waiting requests and serves `rounds` of
    /// them, oldest at the drive first; returns the cost served by principal.
    fn saturate(queue: &mut Queue<Request>, principals: &[Principal], rounds: usize) -> [u64; PRINCIPALS] {
        let mut served = [0; PRINCIPALS];
        let mut at_drive: VecDeque<Request> = VecDeque::new();
        let mut size = 0u64;
        for now in (0..rounds as u64).map(|round| Nanos(round * 10_000)) {
            for &principal in principals {
                while queue.usage(principal).waiting < 4 {
                    size = size.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let request = request(principal, 4096 << (size >> 61));
                    if queue.usage(principal).waiting > 0 || !queue.try_start(request, now) {
                        queue.wait(request, request, now);
                    } else {
                        at_drive.push_back(request);
                    }
                }
            }
            while let Some(request) = queue.next(now) {
                at_drive.push_back(request);
            }
            let done = at_drive.pop_front().expect("a saturated drive is never idle");
            served[done.principal.index()] += done.cost;
            queue.done(done.principal);
        }
        served
    }

    /// Decides R-IO-02.
    #[test]
    fn with_everyone_waiting_the_drive_is_shared_as_configured() {
        for shares in [Shares::default(), Shares::EQUAL, Shares::EQUAL.with(Principal::Scanner, 700)] {
            let mut queue = Queue::new(LIMITS, shares);
            let served = saturate(&mut queue, &Principal::ALL, 400_000);
            let (all, total): (u64, u32) = (served.iter().sum(), Principal::ALL.map(|p| shares.of(p)).iter().sum());
            for principal in Principal::ALL {
                let got = served[principal.index()] as f64 / all as f64;
                let wanted = f64::from(shares.of(principal)) / f64::from(total);
                assert!((got / wanted - 1.0).abs() < 0.05, "{principal} got {got:.4} of the drive, wanted {wanted:.4}");
            }
        }
    }

    /// Two subsystems that keep long queues of their own and feed the drive from them: the
    /// length of what they hold does not matter. Decides R-IO-04.
    #[test]
    fn a_longer_queue_of_ones_own_buys_nothing() {
        let mut queue = Queue::new(LIMITS, Shares::default());
        let now = Nanos(0);
        for _ in 0..10_000 {
            queue.wait(request(Principal::Scrub, 65_536), Principal::Scrub, now);
        }
        let (mut scrubbed, mut rebuilt) = (0, 0);
        for _ in 0..4000 {
            if queue.usage(Principal::Rebuild).waiting == 0 {
                queue.wait(request(Principal::Rebuild, 65_536), Principal::Rebuild, now);
            }
            while let Some(principal) = queue.next(now) {
                if principal == Principal::Scrub {
                    scrubbed += 1
                } else {
                    rebuilt += 1
                }
                queue.done(principal);
                if queue.usage(Principal::Rebuild).waiting == 0 {
                    break;
                }
            }
        }
        let ratio = f64::from(rebuilt) / f64::from(scrubbed);
        assert!((2.85..3.15).contains(&ratio), "60 to 20, got {ratio}");
    }

    #[test]
    fn background_leaves_slots_to_clients_while_they_are_active_and_only_then() {
        let mut queue = Queue::new(LIMITS, Shares::default());
        let scrub = request(Principal::Scrub, 1 << 17);
        let filled = |queue: &mut Queue<()>, now| (0..20).filter(|_| queue.try_start(scrub, now)).count();
        assert_eq!(filled(&mut queue, Nanos(0)), 6, "nobody else is there");
        assert!(queue.try_start(request(Principal::UserRead, 8192), Nanos(1_000_000)), "and still there is room");
        (0..6).for_each(|_| queue.done(Principal::Scrub));
        assert_eq!(filled(&mut queue, Nanos(2_000_000)), 2, "a client was here a moment ago");
        assert_eq!(filled(&mut queue, Nanos(30_000_000)), 4, "it is quiet again");
    }

    #[test]
    fn who_was_held_back_gets_no_credit_for_it() {
        let mut queue = Queue::new(LIMITS, Shares::default());
        let now = Nanos(1);
        assert!(queue.try_start(request(Principal::UserRead, 8192), now));
        for _ in 0..50 {
            queue.wait(request(Principal::Scrub, 8192), Principal::Scrub, now);
        }
        // Clients alone for long: their virtual time runs ahead.
        for _ in 0..1000 {
            assert!(queue.try_start(request(Principal::UserRead, 8192), now));
            queue.done(Principal::UserRead);
        }
        for _ in 0..40 {
            queue.wait(request(Principal::UserRead, 8192), Principal::UserRead, now);
        }
        let mut scrubs = 0;
        for _ in 0..21 {
            let principal = queue.next(now).expect("something waits");
            scrubs += u32::from(principal == Principal::Scrub);
            queue.done(principal);
        }
        assert!(scrubs <= 2, "20 to 400, and nothing saved up: {scrubs}");
    }

    proptest! {
        /// Whatever comes: the depth is kept, nothing is lost or issued twice, a request
        /// waits only when the slots it may use are taken, and everything is issued in the end.
        #[test]
        fn bounded_work_conserving_and_without_starvation(
            steps in prop::collection::vec((0usize..PRINCIPALS, 0u8..4, 1u64..200_000), 1..300)
        ) {
            let mut queue: Queue<(u64, Principal)> = Queue::new(LIMITS, Shares::default());
            let mut at_drive: Vec<Principal> = Vec::new();
            let (mut expected, mut issued, mut numbers) = (0u64, 0u64, Vec::new());
            for (step, (which, what, cost)) in steps.into_iter().enumerate() {
                let now = Nanos(step as u64 * 3_000_000);
                let principal = Principal::ALL[which];
                match what {
                    0 if !at_drive.is_empty() => {
                        let done = at_drive.swap_remove(which % at_drive.len());
                        queue.done(done);
                    }
                    1 if !numbers.is_empty() => {
                        let (id, principal) = numbers.swap_remove(which % numbers.len());
                        expected -= u64::from(queue.cancel(principal, id));
                    }
                    _ => {
                        expected += 1;
                        if queue.try_start(request(principal, cost), now) {
                            at_drive.push(principal);
                            issued += 1;
                        } else {
                            let number = queue.next_id + 1;
                            let id = queue.wait(request(principal, cost), (number, principal), now);
                            prop_assert_eq!(id, number);
                            numbers.push((id, principal));
                        }
                    }
                }
                while let Some((id, principal)) = queue.next(now) {
                    at_drive.push(principal);
                    numbers.retain(|known| known.0 != id);
                    issued += 1;
                }
                let (in_flight, waiting) = queue.load();
                prop_assert_eq!(in_flight as usize, at_drive.len());
                prop_assert!(in_flight <= LIMITS.depth);
                prop_assert!(waiting == 0 || in_flight >= LIMITS.background_depth);
            }
            while let Some(done) = at_drive.pop() {
                queue.done(done);
                while let Some((_, principal)) = queue.next(Nanos(u64::MAX)) {
                    at_drive.push(principal);
                    issued += 1;
                }
            }
            prop_assert_eq!(issued, expected);
            prop_assert_eq!(queue.load(), (0, 0));
        }
    }
}
