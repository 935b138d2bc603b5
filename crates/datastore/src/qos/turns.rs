//! Whose request is next when there is more than the store does at a time. Pure.
//!
//! Start-time fair queueing: each flow (a VM) has a tag that rises by what its requests cost;
//! of those that wait the one with the lowest tag is next, so flows that always have something
//! get equal shares by cost, however many requests each has and however large they are. At most
//! [`WINDOW`] is under way, unless one flow was alone for a while ([`MEMORY`]): then it waits for nobody.
//! A flow with a *minimum* does not wait while it has had less than that.

use std::collections::{BTreeMap, VecDeque};

use base::Nanos;

use super::bucket::Bucket;

/// Cost that is under way before anybody waits.
pub(crate) const WINDOW: u64 = 512;

/// After so much work of one flow alone it is alone: a VM that has one request at a time is
/// between two of them most of the time, and is there all the same.
const MEMORY: u64 = 64 * WINDOW;

/// One who shares.
pub(crate) type FlowId = u32;

/// A request that waits.
struct Waiting {
    ticket: u64,
    cost: u64,
    tag: u64,
}

#[derive(Default)]
struct Flow {
    /// Where its next request starts.
    next_tag: u64,
    under_way: u64,
    waiting: VecDeque<Waiting>,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Turns {
    flows: BTreeMap<FlowId, Flow>,
    minimums: BTreeMap<FlowId, Bucket>,
    /// Tag of the request that was started last.
    tag: u64,
    under_way: u64,
    waiting: usize,
    last_ticket: u64,
    /// All work that was started.
    started: u64,
    /// Who came last, and how much had been started when somebody came after somebody else.
    last: Option<FlowId>,
    shared_at: Option<u64>,
}

impl Turns {
    /// A request of `flow` is there. It starts now, or gets a ticket and waits.
    pub fn arrive(&mut self, flow: FlowId, cost: u64, now: Nanos) -> Option<u64> {
        let is_due = self.has_its_minimum_due(flow, now);
        if self.last.replace(flow).is_some_and(|last| last != flow) {
            self.shared_at = Some(self.started);
        }
        let goes = self.waiting == 0 && self.fits(cost);
        let own = self.flows.entry(flow).or_default();
        let tag = own.next_tag.max(self.tag);
        own.next_tag = tag + cost;
        let follows = !own.waiting.is_empty();
        if !follows && (is_due || goes) {
            self.start(flow, cost, tag, now);
            return None;
        }
        self.last_ticket += 1;
        own.waiting.push_back(Waiting { ticket: self.last_ticket, cost, tag });
        self.waiting += 1;
        Some(self.last_ticket)
    }

    /// Whether something may start as far as the window goes.
    fn fits(&self, cost: u64) -> bool {
        let is_alone = self.shared_at.is_none_or(|at| self.started - at > MEMORY);
        is_alone || self.under_way == 0 || self.under_way + cost <= WINDOW
    }

    /// The request of a ticket is not wanted any more.
    pub fn leave(&mut self, flow: FlowId, ticket: u64) {
        let Some(own) = self.flows.get_mut(&flow) else { return };
        let before = own.waiting.len();
        own.waiting.retain(|waiting| waiting.ticket != ticket);
        self.waiting -= before - own.waiting.len();
        self.forget_if_idle(flow);
    }

    /// A request of `flow` is done; tickets whose turn it is now are shown.
    pub fn done(&mut self, flow: FlowId, cost: u64, now: Nanos, mut starts: impl FnMut(u64)) {
        self.under_way -= cost;
        if let Some(own) = self.flows.get_mut(&flow) {
            own.under_way -= cost;
        }
        self.forget_if_idle(flow);
        while self.waiting > 0 {
            let Some(next) = self.next(now) else { return };
            let Some(first) = self.flows.get_mut(&next).and_then(|flow| flow.waiting.pop_front()) else { return };
            self.waiting -= 1;
            self.start(next, first.cost, first.tag, now);
            starts(first.ticket);
        }
    }

    /// The flow whose first request may start.
    fn next(&mut self, now: Nanos) -> Option<FlowId> {
        let waits = |flow: &FlowId| self.flows.get(flow).is_some_and(|flow| !flow.waiting.is_empty());
        let mut minimums = self.minimums.iter_mut();
        let due =
            |(flow, minimum): (&FlowId, &mut Bucket)| (waits(flow) && minimum.ready_at(now) <= now).then_some(*flow);
        if let Some(flow) = minimums.find_map(due) {
            return Some(flow);
        }
        let firsts = self.flows.iter().filter_map(|(id, flow)| Some((flow.waiting.front()?, *id)));
        let (first, flow) = firsts.min_by_key(|(first, id)| (first.tag, *id))?;
        self.fits(first.cost).then_some(flow)
    }

    fn has_its_minimum_due(&mut self, flow: FlowId, now: Nanos) -> bool {
        self.minimums.get_mut(&flow).is_some_and(|minimum| minimum.ready_at(now) <= now)
    }

    fn start(&mut self, flow: FlowId, cost: u64, tag: u64, now: Nanos) {
        self.tag = self.tag.max(tag);
        self.under_way += cost;
        self.started += cost;
        self.flows.entry(flow).or_default().under_way += cost;
        if let Some(minimum) = self.minimums.get_mut(&flow) {
            // More than the minimum is not owed later.
            if minimum.ready_at(now) <= now {
                minimum.take(cost, now);
            }
        }
    }

    fn forget_if_idle(&mut self, flow: FlowId) {
        if self.flows.get(&flow).is_some_and(|flow| flow.under_way == 0 && flow.waiting.is_empty()) {
            self.flows.remove(&flow);
        }
    }

    /// Whether times that are given matter.
    pub fn needs_time(&self) -> bool {
        !self.minimums.is_empty()
    }

    /// How much a flow has before it waits for others; nothing ends that.
    pub fn set_minimum(&mut self, flow: FlowId, per_second: Option<u64>, now: Nanos) {
        match per_second {
            None => drop(self.minimums.remove(&flow)),
            Some(rate) => match self.minimums.get_mut(&flow) {
                Some(minimum) => minimum.set_rate(rate, now),
                None => drop(self.minimums.insert(flow, Bucket::new(rate, now))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that does so much in a second, one request after the other in the order they were
    /// started, and flows that each have `depth` requests of `cost` at all times.
    struct Bench {
        turns: Turns,
        now: Nanos,
        per_second: u64,
        at_work: VecDeque<(FlowId, u64)>,
        tickets: BTreeMap<u64, (FlowId, u64)>,
        served: BTreeMap<FlowId, u64>,
        longest_ns: BTreeMap<FlowId, u64>,
        arrived: BTreeMap<FlowId, VecDeque<Nanos>>,
    }

    impl Bench {
        fn new(per_second: u64) -> Bench {
            Bench {
                turns: Turns::default(),
                now: Nanos(0),
                per_second,
                at_work: VecDeque::new(),
                tickets: BTreeMap::new(),
                served: BTreeMap::new(),
                longest_ns: BTreeMap::new(),
                arrived: BTreeMap::new(),
            }
        }

        fn ask(&mut self, flow: FlowId, cost: u64) {
            self.arrived.entry(flow).or_default().push_back(self.now);
            match self.turns.arrive(flow, cost, self.now) {
                None => self.at_work.push_back((flow, cost)),
                Some(ticket) => drop(self.tickets.insert(ticket, (flow, cost))),
            }
        }

        /// Each flow asks again as soon as it is answered.
        fn run(&mut self, flows: &[(FlowId, usize, u64)], seconds: u64) {
            for (flow, depth, cost) in flows {
                (0..*depth).for_each(|_| self.ask(*flow, *cost));
            }
            let end = self.now.0 + seconds * 1_000_000_000;
            while self.now.0 < end {
                let Some((flow, cost)) = self.at_work.pop_front() else { break };
                self.now = Nanos(self.now.0 + cost * 1_000_000_000 / self.per_second);
                *self.served.entry(flow).or_default() += cost;
                let arrived = self.arrived.get_mut(&flow).unwrap().pop_front().unwrap();
                let longest = self.longest_ns.entry(flow).or_default();
                *longest = (*longest).max(self.now.0 - arrived.0);
                let (mut started, tickets) = (Vec::new(), &mut self.tickets);
                self.turns.done(flow, cost, self.now, |ticket| started.push(tickets.remove(&ticket).unwrap()));
                self.at_work.extend(started);
                self.ask(flow, cost);
            }
        }
    }

    #[test]
    fn shares_are_equal_by_cost_whatever_depth_and_size() {
        let mut bench = Bench::new(100_000);
        bench.run(&[(1, 2000, 2), (2, 8, 256), (3, 600, 1)], 10);
        let all: u64 = bench.served.values().sum();
        assert!(all >= 990_000, "nothing is left undone: {all}");
        for (flow, served) in &bench.served {
            let share = *served as f64 / all as f64;
            assert!((0.32..0.35).contains(&share), "flow {flow} has {share}");
        }
    }

    #[test]
    fn a_quiet_vm_beside_a_noisy_one_waits_for_a_window_and_no_longer() {
        let mut bench = Bench::new(100_000);
        // What was there before the second one came is not taken back.
        bench.run(&[(1, 5000, 2), (2, 1, 1)], 1);
        bench.longest_ns.clear();
        bench.run(&[], 5);
        let window_ns = (WINDOW + 4) * 1_000_000_000 / 100_000;
        assert!(bench.longest_ns[&2] <= window_ns, "{}", bench.longest_ns[&2]);
        // In order of arrival it would be 10,000 units of work.
        assert!(bench.longest_ns[&1] > 15 * bench.longest_ns[&2]);
    }

    #[test]
    fn who_is_alone_waits_for_nobody() {
        let mut turns = Turns::default();
        assert!((0..10_000).all(|_| turns.arrive(1, 256, Nanos(0)).is_none()));
        let ticket = turns.arrive(2, 1, Nanos(0));
        assert!(ticket.is_some());
        assert!(turns.arrive(1, 1, Nanos(0)).is_some(), "now there are two");
        turns.leave(2, ticket.unwrap());
        let mut started = 0;
        (0..10_000).for_each(|_| turns.done(1, 256, Nanos(0), |_| started += 1));
        assert_eq!((started, turns.waiting, turns.under_way), (1, 0, 1), "it was its turn when there was room");
        // One that is between two requests is there still; one that was not seen for long is not.
        assert!((0..WINDOW - 1).all(|_| turns.arrive(1, 1, Nanos(0)).is_none()));
        let waits = turns.arrive(1, 1, Nanos(0));
        turns.leave(1, waits.unwrap());
        (0..MEMORY).for_each(|_| {
            turns.done(1, 1, Nanos(0), |_| {});
            assert!(turns.arrive(1, 1, Nanos(0)).is_none());
        });
        assert!((0..10_000).all(|_| turns.arrive(1, 256, Nanos(0)).is_none()), "alone again");
    }

    #[test]
    fn a_minimum_goes_before_equal_shares() {
        let mut bench = Bench::new(10_000);
        bench.turns.set_minimum(9, Some(6000), Nanos(0));
        let others = (1..=8).map(|flow| (flow, 400, 2));
        bench.run(&others.chain([(9, 400, 2)]).collect::<Vec<_>>(), 10);
        let served = bench.served[&9];
        assert!(served >= 57_000, "six in ten of the store were promised: {served}");
        let rest: u64 = bench.served.iter().filter(|(flow, _)| **flow != 9).map(|(_, served)| served).sum();
        assert!(rest >= 30_000, "the others have what is left: {rest}");
        bench.turns.set_minimum(9, None, bench.now);
        bench.served.clear();
        bench.run(&[], 10);
        let share = bench.served[&9] as f64 / bench.served.values().sum::<u64>() as f64;
        assert!((0.10..0.13).contains(&share), "one of nine again: {share}");
    }

    #[test]
    fn everything_that_waits_is_started_in_the_end() {
        let mut turns = Turns::default();
        let mut at_work = VecDeque::new();
        let mut waiting = BTreeMap::new();
        for n in 0..3000_u64 {
            let (flow, cost) = ((n % 7) as u32, 1 + n % 300);
            match turns.arrive(flow, cost, Nanos(n)) {
                None => at_work.push_back((flow, cost)),
                Some(ticket) => drop(waiting.insert(ticket, (flow, cost))),
            }
        }
        while let Some((flow, cost)) = at_work.pop_front() {
            turns.done(flow, cost, Nanos(0), |ticket| at_work.push_back(waiting.remove(&ticket).unwrap()));
        }
        assert!(waiting.is_empty() && turns.flows.is_empty());
        assert_eq!((turns.under_way, turns.waiting), (0, 0));
    }
}
