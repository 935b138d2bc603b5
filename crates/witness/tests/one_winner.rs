//! All that can happen between two sites and a witness, within small bounds: questions and
//! answers lost, repeated and late, sites and witness restarted at any step, the link up or
//! not, clocks running. The judge and the seats are the product's.
//!
//! The model adds the data: a site *has all* when it holds every acknowledged operation.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base::{Epoch, Nanos, Osn, PairId, SiteId, WallNanos};
use witness::lease::Grant;
use witness::{
    Ask, AskKind, Grounds, Lease, Memory, Seat, Stance, Standing, Transition, TransitionKind, Verdict, judge,
};

const PAIR: PairId = PairId([7; 16]);
const SITES: [SiteId; 2] = [SiteId([1; 16]), SiteId([2; 16])];
const TICK: Duration = Duration::from_secs(1);

/// How far the model looks.
#[derive(Clone, Copy)]
struct Bounds {
    /// Which questions are asked.
    kinds: fn(&AskKind) -> bool,
    ticks: u64,
    versions: u64,
    in_flight: usize,
    crashes: u8,
}

/// A question on its way, or the answer to it.
#[derive(Clone, Hash)]
struct Flight {
    site: usize,
    sent: Nanos,
    ask: Ask,
    verdict: Option<Verdict>,
}

#[derive(Clone)]
struct Model {
    now: Nanos,
    standing: Standing,
    grant: Grant,
    seats: [Seat; 2],
    has_all: [bool; 2],
    flights: Vec<Flight>,
    crashes: u8,
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn start() -> Model {
    let now = Nanos(0) + TICK * 10;
    let standing = Standing {
        pair: PAIR,
        version: 1,
        epoch: Epoch(1),
        primary: SITES[0],
        secondary: Some(SITES[1]),
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: 1000,
        last: Transition { kind: TransitionKind::InSync, by: SITES[0], at: WallNanos(0) },
    };
    let memory = Memory { known: Some(standing), asked: None };
    let seat = |site: usize| Seat::new(SITES[site], PAIR, memory, Nanos(0));
    Model {
        now,
        standing,
        grant: Grant::ended(now),
        seats: [seat(0), seat(1)],
        has_all: [true, true],
        flights: Vec::new(),
        crashes: 0,
    }
}

impl Model {
    /// The same for two states that differ only in the order of their messages.
    fn fingerprint(&self) -> u64 {
        let mut flights: Vec<u64> = self.flights.iter().map(hash).collect();
        flights.sort_unstable();
        hash(&(self.now, self.standing, self.grant, &self.seats, self.has_all, self.crashes, flights))
    }

    fn serves(&self, site: usize) -> Option<bool> {
        match self.seats[site].stance(self.now) {
            Stance::Serves { alone } => Some(alone),
            _ => None,
        }
    }

    /// Everything that can happen next, each with its name for the trace.
    fn steps(&self, bounds: Bounds) -> Vec<(String, Model)> {
        let mut next = Vec::new();
        if self.now < Nanos(0) + TICK * u32::try_from(10 + bounds.ticks).unwrap() {
            next.push(("a second passes".into(), Model { now: self.now + TICK, ..self.clone() }));
        }
        for site in 0..2 {
            self.site_steps(site, bounds, &mut next);
        }
        for at in 0..self.flights.len() {
            self.flight_steps(at, &mut next);
        }
        if self.crashes < bounds.crashes {
            let grant = Grant::from(self.now, self.standing.lease());
            next.push(("witness restarts".into(), Model { grant, crashes: self.crashes + 1, ..self.clone() }));
        }
        next
    }

    fn site_steps(&self, site: usize, bounds: Bounds, next: &mut Vec<(String, Model)>) {
        let peer = 1 - site;
        let epoch = self.seats[site].memory().known.unwrap().epoch;
        let through = Osn(0);
        let primary = self.seats[site].memory().known.unwrap().primary == SITES[site];
        let kinds = [
            AskKind::Look,
            AskKind::Renew { epoch },
            AskKind::GoAlone { in_sync_through: through },
            AskKind::InSync,
            AskKind::HandOver,
            AskKind::TakeOver { in_sync_through: through },
        ];
        let room = self.flights.len() < bounds.in_flight && self.standing.version < bounds.versions;
        for kind in kinds.into_iter().filter(|kind| room && (bounds.kinds)(kind)) {
            // A primary that looks learns nothing that a renewal does not tell it, and *in sync*
            // is asked at the end of a resync only.
            if kind == AskKind::Look && primary || kind == AskKind::InSync && !self.has_all[peer] {
                continue;
            }
            // One question of a kind at a time: a repeated one is a message that arrives again.
            if self.flights.iter().any(|flight| flight.site == site && is_like(&flight.ask.kind, &kind)) {
                continue;
            }
            let mut model = self.clone();
            let Ok(ask) = model.seats[site].ask(kind, self.now) else { continue };
            model.flights.push(Flight { site, sent: self.now, ask, verdict: None });
            next.push((format!("site {site} asks {kind:?}"), model));
        }
        if self.crashes < bounds.crashes {
            let mut model = self.clone();
            model.seats[site] = Seat::new(SITES[site], PAIR, self.seats[site].memory(), self.now);
            model.crashes += 1;
            next.push((format!("site {site} restarts"), model));
        }
        if self.serves(site) == Some(true) {
            let mut alone = self.clone();
            alone.has_all[peer] = false;
            next.push((format!("site {site} acknowledges alone"), alone));
            if self.seats[peer].stance(self.now) == Stance::Standby {
                let mut resynced = self.clone();
                resynced.has_all[peer] = true;
                next.push((format!("site {site} resyncs its peer"), resynced));
            }
        }
        let mut lent = self.clone();
        if primary && let Some(lease) = lent.seats[peer].lend(epoch, self.now) {
            lent.seats[site].lent(epoch, self.now, lease);
            next.push((format!("site {peer} lends site {site} a lease"), lent));
        }
    }

    fn flight_steps(&self, at: usize, next: &mut Vec<(String, Model)>) {
        let flight = &self.flights[at];
        let mut without = self.clone();
        without.flights.remove(at);
        match &flight.verdict {
            None => {
                // delivered once, or delivered now and again later
                for (base, word) in [(&without, "arrives"), (self, "arrives, and will again")] {
                    let mut model = base.clone();
                    let verdict = model.witness_answers(&flight.ask);
                    let changed = model.standing != self.standing || model.grant != self.grant;
                    if changed {
                        next.push((format!("{:?} {word}, its answer is lost", flight.ask.kind), model.clone()));
                    } else if word != "arrives" {
                        continue;
                    }
                    model.flights.push(Flight { verdict: Some(verdict), ..flight.clone() });
                    next.push((format!("{:?} {word}", flight.ask.kind), model));
                }
            }
            Some(verdict) => {
                let mut model = without.clone();
                model.seats[flight.site].answered(&flight.ask, flight.sent, verdict);
                next.push((format!("site {} reads {verdict:?}", flight.site), model));
            }
        }
        next.push(("a message is lost".into(), without));
    }

    fn witness_answers(&mut self, ask: &Ask) -> Verdict {
        let lease_left = self.grant.left(self.now);
        let verdict =
            judge::judge(Some(&self.standing), ask, &Grounds { lease_left, told_by_other: None, wall: WallNanos(0) });
        self.standing = verdict.standing.unwrap();
        match verdict.outcome {
            Ok(Lease::Runs) => self.grant = Grant::from(self.now, self.standing.lease()),
            Ok(Lease::Over) => self.grant = Grant::ended(self.now),
            _ => {}
        }
        verdict
    }

    fn wrong(&self) -> Option<&'static str> {
        let serving = [self.serves(0), self.serves(1)];
        if serving[0].is_some() && serving[1].is_some() {
            return Some("both sites serve");
        }
        let lacks = (0..2).any(|site| serving[site].is_some() && !self.has_all[site]);
        lacks.then_some("a site serves that lacks an acknowledged write")
    }
}

fn is_like(one: &AskKind, other: &AskKind) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Visits everything within the bounds; how many states there were, and what was reached.
fn explore(bounds: Bounds) -> (usize, Reached) {
    let mut seen: HashMap<u64, Option<(u64, String)>> = HashMap::new();
    let mut queue = VecDeque::from([start()]);
    let mut reached = Reached::default();
    seen.insert(queue[0].fingerprint(), None);
    while let Some(model) = queue.pop_front() {
        reached.note(&model);
        let from = model.fingerprint();
        if let Some(why) = model.wrong() {
            panic!("{why}:\n{}", trace(&seen, from));
        }
        for (name, next) in model.steps(bounds) {
            if next.flights.len() > bounds.in_flight {
                continue;
            }
            let to = next.fingerprint();
            if let Entry::Vacant(place) = seen.entry(to) {
                place.insert(Some((from, name)));
                queue.push_back(next);
            }
        }
    }
    (seen.len(), reached)
}

fn trace(seen: &HashMap<u64, Option<(u64, String)>>, mut at: u64) -> String {
    let mut steps = Vec::new();
    while let Some((before, name)) = &seen[&at] {
        steps.push(name.clone());
        at = *before;
    }
    steps.reverse();
    steps.join("\n")
}

/// What must have been seen, since a model in which nothing happens proves nothing.
#[derive(Default, Debug)]
struct Reached {
    second_serves_alone: bool,
    second_serves_in_sync: bool,
    back_in_sync: bool,
    first_serves_alone: bool,
    someone_lacks: bool,
}

impl Reached {
    fn note(&mut self, model: &Model) {
        self.second_serves_alone |= model.serves(1) == Some(true);
        self.second_serves_in_sync |= model.serves(1) == Some(false);
        self.first_serves_alone |= model.serves(0) == Some(true);
        self.back_in_sync |= model.standing.version > 2 && model.standing.in_sync;
        self.someone_lacks |= model.has_all.contains(&false);
    }
}

fn check(bounds: Bounds) -> Reached {
    let (states, reached) = explore(bounds);
    println!("{states} states, {reached:?}");
    reached
}

/// One more second and one more crash than in CI, where `VMHOLD_MODEL_DEEP` is set
/// (`cargo xtask soak --only witness`).
fn deeper(bounds: Bounds) -> Bounds {
    let more = u8::from(std::env::var_os("VMHOLD_MODEL_DEEP").is_some());
    Bounds { ticks: bounds.ticks + u64::from(more), crashes: bounds.crashes + more, ..bounds }
}

fn is_hand_over(kind: &AskKind) -> bool {
    matches!(kind, AskKind::HandOver)
}

#[test]
fn going_alone_and_taking_over_never_both_win() {
    let bounds = Bounds { kinds: |kind| !is_hand_over(kind), ticks: 1, versions: 4, in_flight: 2, crashes: 0 };
    let reached = check(deeper(bounds));
    assert!(reached.second_serves_alone && reached.first_serves_alone, "{reached:?}");
    assert!(reached.back_in_sync && reached.someone_lacks, "{reached:?}");
}

#[test]
fn handing_over_never_leaves_two_that_serve() {
    let kinds = |kind: &AskKind| !matches!(kind, AskKind::InSync);
    let reached = check(deeper(Bounds { kinds, ticks: 1, versions: 3, in_flight: 2, crashes: 0 }));
    assert!(reached.second_serves_in_sync && reached.first_serves_alone && reached.someone_lacks, "{reached:?}");
}

#[test]
fn a_restart_of_anybody_changes_nothing_of_it() {
    let reached = check(deeper(Bounds { kinds: |_| true, ticks: 2, versions: 3, in_flight: 1, crashes: 1 }));
    assert!(reached.second_serves_alone && reached.second_serves_in_sync && reached.back_in_sync, "{reached:?}");
}
