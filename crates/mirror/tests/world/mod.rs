//! Two sites, a witness, a network and clients, from a seed. The sites are the product's; the
//! judge is the product's; everything else is here.
//!
//! Clocks of sites run up to 9 % fast or slow. A link breaks, is cut (frames vanish), comes
//! back; each end notices in its own time. Questions to the witness and its answers are lost,
//! late, or cut off. Power cuts keep any number of the records that were not stable. An
//! observer who sees everything checks after each event that no two sites serve.
#![allow(dead_code, reason = "each test uses a part of it")]

mod checks;
mod clients;
mod faults;
mod resync;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base::{Buf, Epoch, FileId, Nanos, Osn, PairId, SiteId, WallNanos};
use mirror::wire::{Frame, LENGTH_BYTES};
use mirror::{
    Action, Answer, Change, Command, Config, FlightsMax, Input, Kept, Mirror, OpId, Progress, Reader, Request, Span,
    Write, locks,
};
use resync::{Parcel, Step};
use store::{BLOCK_BYTES, Disk, number};
use witness::lease::Grant;
use witness::{Ask, AskKind, Grounds, Lease, Memory, Standing, Transition, TransitionKind, Verdict, judge};
use world_sim::oracle::OpenRead;
use world_sim::{Digest, Oracle, Rng, Stamp};

pub const PAIR: PairId = PairId([7; 16]);
pub const SITES: [SiteId; 2] = [SiteId([1; 16]), SiteId([2; 16])];
const CLIENTS: usize = 4;
const FILES: u64 = 3;
const BLOCKS: u64 = 12;
const NAMES: u64 = 3;
/// Registers of names are files of the oracle from here on.
const NAME_FILES: u64 = 1000;

pub fn millis(of: u64) -> Duration {
    Duration::from_millis(of)
}

pub fn config(site: usize) -> Config {
    Config {
        out_of_sync_delay: millis(1500),
        takeover_delay: millis(300),
        silence: millis(800),
        steady: millis(700),
        term_min: millis(1000),
        answer_within: millis(500),
        beat: millis(50),
        flights_max: FlightsMax { count: 6, bytes: 150 },
        operations_max: 6,
        mark_step: 6,
        ..Config::new(SITES[site], SITES[1 - site], PAIR)
    }
}

pub fn founded() -> Standing {
    Standing {
        pair: PAIR,
        version: 1,
        epoch: Epoch(1),
        primary: SITES[0],
        secondary: Some(SITES[1]),
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: 1000,
        last: Transition { kind: TransitionKind::InSync, by: SITES[0], at: WallNanos(0) },
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Milliseconds between two faults, about.
    pub every_ms: u64,
    /// Longest time that a site is down.
    pub down_ms_max: u64,
    pub crashes: bool,
    pub cuts: bool,
    pub witness: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Tick(usize, u64),
    Stable(usize, u64, u64),
    Frame(usize, u64, Buf),
    LinkUp(usize, u64),
    LinkDown(usize, u64),
    Connect,
    Question(usize, u64, u64, Ask),
    Verdict(usize, u64, u64, Verdict),
    Read(usize, u64, Reader, Span, Option<Osn>),
    Resolve(usize, u64, OpId),
    Check(usize, u64, Osn),
    Course(usize, u64, u64, Step),
    Asked(usize, u64, (u64, Osn), u64),
    Client(usize),
    Impatient(usize, OpId),
    Fault,
    Restart(usize),
    Mend(Cut),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    Link,
    Witness(usize),
    WitnessDown,
}

#[derive(Clone)]
struct Site {
    mirror: Option<Mirror>,
    life: u64,
    disk: Disk,
    /// The resync that it wants done.
    resync: Option<u64>,
    /// Parts in a million by which its clock is fast.
    drift: i64,
    stable_at: Nanos,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    /// Which end believes in it.
    ends: [bool; 2],
    /// When the last frame to each end arrives.
    last: [Nanos; 2],
    /// A frame to this end was lost: none behind it arrives either, as a stream has no gaps.
    lost: [bool; 2],
}

#[derive(Clone, Debug)]
enum Doing {
    Read(Vec<OpenReadOf>),
    Write(Vec<Stamp>),
    Change { name: u64, stamp: Stamp, retry: u32 },
}

type OpenReadOf = (u64, u64);

#[derive(Clone)]
struct Client {
    op: Option<(OpId, Doing)>,
    reads: Vec<OpenRead>,
    at: usize,
    sequence: u64,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Journal(usize),
    /// To this site.
    Frame(usize),
    Question(usize),
    Store,
    Connect,
    /// That the other end of a link is gone.
    Noticing,
    Client,
}

/// A world without chance: one operation, and reads of what it may change.
#[derive(Clone, Copy)]
pub struct Script {
    /// Microseconds that everything takes.
    pub takes: fn(Takes) -> u64,
    /// A change of a name, or a write.
    pub change: bool,
    /// How long a client waits.
    pub patience_ms: u64,
}

/// What must have been seen over all seeds, since a world in which nothing happens proves
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub acknowledged: u64,
    pub takeovers: u64,
    pub handed_over: u64,
    pub gone_alone: u64,
    pub back_in_sync: u64,
    pub restored: u64,
    pub dropped: u64,
    pub committed_on_takeover: u64,
    pub refused: u64,
    pub busy: u64,
    pub answered_from_cache: u64,
    pub resynced: u64,
    /// Acknowledged while a resync ran that had come past their file.
    pub written_in_resync: u64,
    pub gone: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        for (mine, theirs) in [
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.takeovers, other.takeovers),
            (&mut self.handed_over, other.handed_over),
            (&mut self.gone_alone, other.gone_alone),
            (&mut self.back_in_sync, other.back_in_sync),
            (&mut self.restored, other.restored),
            (&mut self.dropped, other.dropped),
            (&mut self.committed_on_takeover, other.committed_on_takeover),
            (&mut self.refused, other.refused),
            (&mut self.busy, other.busy),
            (&mut self.answered_from_cache, other.answered_from_cache),
            (&mut self.resynced, other.resynced),
            (&mut self.written_in_resync, other.written_in_resync),
            (&mut self.gone, other.gone),
        ] {
            *mine += theirs;
        }
    }
}

#[derive(Clone)]
pub struct World {
    script: Option<Script>,
    pub config: fn(usize) -> Config,
    events_seen: u64,
    pub now: Nanos,
    rng: Rng,
    events: BTreeMap<(Nanos, u64), Event>,
    serial: u64,
    sites: [Site; 2],
    pub standing: Standing,
    grant: Grant,
    link: Option<Connection>,
    pub links: u64,
    cuts: BTreeSet<Cut>,
    clients: Vec<Client>,
    ops: u64,
    value: u64,
    stamps: BTreeMap<u64, Stamp>,
    parcels: Vec<Parcel>,
    oracle: Oracle,
    faults: Faults,
    faulty: bool,
    stopped: bool,
    last_osn: Osn,
    /// What recoveries sent.
    pub restored: Vec<(Span, Buf)>,
    /// The last write that was sent: to whom, on which link.
    last_write: Option<(usize, u64, Buf)>,
    /// When clients were answered.
    pub answered_at: Vec<Nanos>,
    pub digest: Digest,
    pub seen: Seen,
    traced: bool,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut rng = Rng::new(seed).fork("mirror");
        let now = Nanos(0) + Duration::from_secs(100);
        let site = |rng: &mut Rng| {
            let mut disk = Disk::default();
            disk.kept = Kept { memory: Memory { known: Some(founded()), asked: None }, ..Kept::default() };
            let drift = rng.between(0, 180_000) as i64 - 90_000;
            Site { mirror: None, life: 0, disk, resync: None, drift, stable_at: now }
        };
        let sites = [site(&mut rng), site(&mut rng)];
        let client = |_| Client { op: None, reads: Vec::new(), at: 0, sequence: 0 };
        let mut world = World {
            script: None,
            config,
            events_seen: 0,
            restored: Vec::new(),
            last_write: None,
            answered_at: Vec::new(),
            now,
            rng,
            events: BTreeMap::new(),
            serial: 0,
            sites,
            standing: founded(),
            grant: Grant::ended(now),
            link: None,
            links: 0,
            cuts: BTreeSet::new(),
            clients: (0..CLIENTS).map(client).collect(),
            ops: 0,
            value: 0,
            stamps: BTreeMap::new(),
            parcels: Vec::new(),
            oracle: Oracle::new(),
            faults,
            faulty: true,
            stopped: false,
            last_osn: Osn(0),
            digest: Digest::default(),
            seen: Seen::default(),
            traced: std::env::var_os("VMHOLD_TRACE").is_some(),
        };
        world.after(millis(0), Event::Restart(0));
        world.after(millis(0), Event::Restart(1));
        world.after(millis(faults.every_ms), Event::Fault);
        (0..CLIENTS).for_each(|client| world.after(millis(10), Event::Client(client)));
        world
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Nanos, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.rng.between(low, high))
    }

    /// How long something takes: at random, or as the script says.
    fn takes(&mut self, what: Takes, low: u64, high: u64) -> Duration {
        match &self.script {
            Some(_) if what == Takes::Client => millis(40),
            Some(script) => Duration::from_micros((script.takes)(what)),
            None => self.micros(low, high),
        }
    }

    fn late(&mut self, percent: u32, late: u64, usual: u64) -> u64 {
        if self.script.is_none() && self.faulty && self.rng.percent(percent) { late } else { usual }
    }

    /// A site's own clock.
    fn clock(&self, site: usize) -> Nanos {
        let drift = i128::from(self.now.0) * i128::from(self.sites[site].drift) / 1_000_000;
        Nanos((i128::from(self.now.0) + drift) as u64)
    }

    /// Everything happens for so long, then nothing goes wrong any more, and clients stop in
    /// the end.
    pub fn run(&mut self, faulty: Duration, whole: Duration) {
        self.run_for(faulty);
        self.faulty = false;
        self.run_for(whole);
        self.stopped = true;
        self.run_for(Duration::from_secs(8));
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((&(at, serial), _)) = self.events.first_key_value() {
            if at > until {
                break;
            }
            let event = self.events.remove(&(at, serial)).unwrap();
            self.now = at;
            self.note("event", &serial, || format!("{event:?}"));
            self.happens(event);
            self.observe();
        }
        self.now = until;
    }

    /// One event.
    pub fn step(&mut self) {
        let Some(((at, serial), event)) = self.events.pop_first() else { return };
        self.now = at;
        self.note("event", &serial, || format!("{event:?}"));
        self.happens(event);
        self.observe();
    }

    /// Into the digest, and where it is asked for into the trace.
    fn note(&mut self, kind: &str, value: &impl Hash, what: impl FnOnce() -> String) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        self.digest.event(kind, [self.now.0, hasher.finish(), 0, 0]);
        if self.traced {
            println!("{:>12.6} {}", (self.now.0 as f64) / 1e9 - 100.0, what());
        }
    }

    fn serves(&self, site: usize) -> bool {
        self.sites[site].mirror.as_ref().is_some_and(|mirror| mirror.serves(self.clock(site)))
    }

    fn is_life(&self, site: usize, life: u64) -> bool {
        self.sites[site].life == life && self.sites[site].mirror.is_some()
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick(site, life) if self.is_life(site, life) => self.tell(site, Input::Tick),
            Event::Stable(site, life, ticket) if self.is_life(site, life) => {
                self.sites[site].disk.stable(ticket);
                self.tell(site, Input::Stable(ticket));
                let site = &self.sites[site];
                if site.disk.is_quiet() {
                    assert_eq!(Some(&site.disk.kept), site.mirror.as_ref().map(Mirror::kept), "a fold of its records");
                }
            }
            Event::Frame(to, link, bytes) => self.frame_arrives(to, link, &bytes),
            Event::LinkUp(site, link) => self.link_up(site, link),
            Event::LinkDown(site, link) => self.link_down(site, link),
            Event::Connect => self.connect(),
            Event::Question(site, life, question, ask) => self.question(site, life, question, &ask),
            Event::Verdict(site, life, question, verdict) if self.is_life(site, life) => {
                self.tell(site, Input::Answered(question, verdict));
            }
            Event::Read(site, life, reader, span, at) if self.is_life(site, life) => {
                let (payload, form) = self.sites[site].disk.read(&span, at);
                self.tell(site, Input::Fetched(reader, payload, form));
            }
            Event::Resolve(site, life, op) if self.is_life(site, life) => self.resolve(site, op),
            Event::Check(site, life, osn) if self.is_life(site, life) => {
                let yes = self.script.is_some() || self.rng.percent(95);
                self.tell(site, Input::Checked(osn, yes));
            }
            Event::Course(site, life, number, step) if self.is_life(site, life) => self.course(site, number, step),
            Event::Asked(site, life, from, parcel) if self.is_life(site, life) => self.asked(site, from, parcel),
            Event::Client(client) => self.client(client),
            Event::Impatient(client, op) => self.impatient(client, op),
            Event::Fault => self.fault(),
            Event::Restart(site) => self.restart(site),
            Event::Mend(cut) => self.mend(cut),
            _ => {}
        }
    }

    fn tell(&mut self, site: usize, input: Input) {
        let now = self.clock(site);
        let Some(mirror) = &mut self.sites[site].mirror else { return };
        let actions = mirror.handle(now, input);
        for action in actions {
            self.act(site, action);
        }
    }

    fn act(&mut self, site: usize, action: Action) {
        self.note("action", &(site, &action), || format!("   {site} {action:?}"));
        let life = self.sites[site].life;
        match action {
            Action::Append(ticket, record) => {
                self.count(site, &record);
                self.sites[site].disk.append(ticket, record);
                let delay = self.takes(Takes::Journal(site), 50, 2000);
                let at = (self.now + delay).max(self.sites[site].stable_at);
                self.sites[site].stable_at = at;
                self.at(at, Event::Stable(site, life, ticket));
            }
            Action::Send(link, frame) => self.send(site, link, &frame),
            Action::Hang(link) => self.break_link(link, Some(site)),
            Action::Ask(question, ask) => {
                let late = self.late(5, 3_000_000, 20_000);
                let delay = self.takes(Takes::Question(site), 200, late);
                if !self.is_cut(Cut::Witness(site)) {
                    self.after(delay, Event::Question(site, life, question, ask));
                }
            }
            Action::Read { reader, span, at } => {
                let delay = self.takes(Takes::Store, 10, 1000);
                self.after(delay, Event::Read(site, life, reader, span, at));
            }
            Action::Resolve(op) => {
                let delay = self.takes(Takes::Store, 1, 300);
                self.after(delay, Event::Resolve(site, life, op));
            }
            Action::Check(osn, _) => {
                let delay = self.takes(Takes::Store, 1, 300);
                self.after(delay, Event::Check(site, life, osn));
            }
            Action::Answer(op, answer) => self.answer(site, op, &answer),
            Action::Resync(number) => {
                self.sites[site].resync = Some(number);
                self.goes_on(site, Step::Halts);
            }
            Action::Halted(_) => self.goes_on(site, Step::Rest),
            Action::Held(hold) => self.goes_on(site, Step::Held(hold)),
            Action::Told(query, _) => self.goes_on(site, Step::Told(query)),
            Action::Level(_) => self.goes_on(site, Step::Levels),
            Action::EndResync(number) => {
                assert_eq!(self.sites[site].resync, Some(number), "what is ended was begun");
                self.sites[site].resync = None;
            }
            Action::Asked(link, osn, body) => {
                let delay = self.takes(Takes::Store, 50, 2000);
                self.after(delay, Event::Asked(site, life, (link, osn), number(&body)));
            }
            // Whoever compares two sites is in `replica`.
            Action::Point { .. } | Action::NoCheck | Action::EndCheck(_) => {}
            // Given up before it was asked; what waited goes on.
            Action::NotAsked(AskKind::HandOver) => {}
            Action::NotAsked(kind) => panic!("{kind:?} was not asked"),
            Action::Notice(standing) => self.count_change(site, &standing),
            Action::WakeAt(at) => {
                let delay = at.since(self.clock(site));
                self.after(delay, Event::Tick(site, life));
            }
        }
    }

    // -- the network

    fn is_cut(&self, cut: Cut) -> bool {
        self.cuts.contains(&cut)
    }

    fn send(&mut self, from: usize, link: u64, frame: &Frame) {
        let delay = self.takes(Takes::Frame(1 - from), 100, 3000);
        let encoded = frame.encode(PAIR);
        let bytes: Buf = [&encoded.head[LENGTH_BYTES..], &encoded.payload].concat().into();
        self.check_number(frame);
        let to = 1 - from;
        let (now, cut) = (self.now, self.is_cut(Cut::Link));
        let Some(link) = self.link.as_mut().filter(|now| now.number == link && now.ends == [true; 2]) else { return };
        if cut {
            link.lost[to] = true;
            return;
        }
        link.last[to] = link.last[to].max(now + delay);
        let (at, number) = (link.last[to], link.number);
        if matches!(frame.message, mirror::wire::Message::Write { .. }) {
            self.last_write = Some((to, number, bytes.clone()));
        }
        self.at(at, Event::Frame(to, number, bytes));
    }

    /// Numbers of operations rise, whoever is primary.
    fn check_number(&mut self, frame: &Frame) {
        use mirror::wire::Message;
        if let Message::Write { osn, .. }
        | Message::Restore { osn, .. }
        | Message::Prepare { osn, .. }
        | Message::Query { osn, .. } = frame.message
            && self.standing.epoch == osn.epoch()
        {
            assert!(osn > self.last_osn, "{osn} after {}", self.last_osn);
            self.last_osn = osn;
        }
    }

    fn frame_arrives(&mut self, to: usize, number: u64, bytes: &Buf) {
        let cut = self.is_cut(Cut::Link);
        let Some(link) = self.link.as_mut().filter(|link| link.number == number && link.ends[to]) else { return };
        link.lost[to] |= cut;
        if !link.lost[to] {
            let frame = Frame::decode(PAIR, bytes).expect("what was encoded is decoded");
            self.tell(to, Input::Received(number, frame));
        }
    }

    fn connect(&mut self) {
        let up = self.sites.iter().all(|site| site.mirror.is_some()) && !self.is_cut(Cut::Link);
        if self.link.is_none() && up {
            self.links += 1;
            let number = self.links;
            self.link = Some(Connection { number, ends: [true; 2], last: [self.now; 2], lost: [false; 2] });
            for site in 0..2 {
                let delay = self.takes(Takes::Store, 0, 90);
                self.after(delay, Event::LinkUp(site, number));
            }
        } else if self.link.is_none() {
            self.after(millis(100), Event::Connect);
        }
    }

    fn link_up(&mut self, site: usize, number: u64) {
        if self.link.as_ref().is_some_and(|link| link.number == number && link.ends[site]) {
            self.tell(site, Input::LinkUp(number));
        }
    }

    fn link_down(&mut self, site: usize, number: u64) {
        let Some(link) = self.link.as_mut().filter(|link| link.number == number) else { return };
        if std::mem::replace(&mut link.ends[site], false) {
            self.tell(site, Input::LinkDown(number));
        }
        if self.link.as_ref().is_some_and(|link| link.ends == [false; 2]) {
            self.link = None;
            let delay = self.takes(Takes::Connect, 1000, 300_000);
            self.after(delay, Event::Connect);
        }
    }

    /// The link ends, for `by` at once and for whoever else after some time.
    fn break_link(&mut self, number: u64, by: Option<usize>) {
        if self.link.as_ref().is_none_or(|link| link.number != number) {
            return;
        }
        for site in 0..2 {
            let delay = if by == Some(site) { Duration::ZERO } else { self.takes(Takes::Noticing, 100, 2_000_000) };
            self.after(delay, Event::LinkDown(site, number));
        }
    }

    // -- the witness

    fn question(&mut self, site: usize, life: u64, question: u64, ask: &Ask) {
        if self.is_cut(Cut::WitnessDown) {
            return;
        }
        let lease_left = self.grant.left(self.now);
        let grounds = Grounds { lease_left, told_by_other: None, wall: WallNanos(0) };
        let verdict = judge::judge(Some(&self.standing), ask, &grounds);
        let before = self.standing;
        self.standing = verdict.standing.unwrap();
        if self.standing.epoch > before.epoch {
            self.last_osn = Osn(0);
        }
        match verdict.outcome {
            Ok(Lease::Runs) => self.grant = Grant::from(self.now, self.standing.lease()),
            Ok(Lease::Over) => self.grant = Grant::ended(self.now),
            _ => {}
        }
        let late = self.late(3, 1_500_000, 10_000);
        let delay = self.takes(Takes::Question(site), 200, late);
        if !self.is_cut(Cut::Witness(site)) {
            self.after(delay, Event::Verdict(site, life, question, verdict));
        }
    }

    // -- the datastore of a site, as far as the mirror needs one

    fn resolve(&mut self, site: usize, op: OpId) {
        let Some((_, Doing::Change { name, stamp, .. })) = self.client_of(op) else {
            return self.tell(site, Input::Resolved(op, Err(Buf::new())));
        };
        let value = self.value_of(stamp);
        let request = Buf::copy_from_slice(&value.to_le_bytes());
        let store = &self.sites[site].disk.store;
        if let Some(reply) = store.answers.get(&request).cloned() {
            // A retry is answered with what was answered first.
            self.seen.answered_from_cache += 1;
            return self.tell(site, Input::Resolved(op, Err(reply)));
        }
        let before = store.names.get(&name).copied().unwrap_or_default();
        let body = [name.to_le_bytes(), value.to_le_bytes()].concat();
        let change = Change { request, body: body.into(), reply: Buf::copy_from_slice(&before.to_le_bytes()) };
        self.tell(site, Input::Resolved(op, Ok(change)));
    }

    fn count(&mut self, site: usize, record: &mirror::Record) {
        match record {
            mirror::Record::Restore { span, payload, .. } => {
                self.seen.restored += 1;
                self.restored.push((*span, payload.clone()));
            }
            mirror::Record::Dropped { osn } => {
                let done = self.sites.iter().any(|site| site.disk.done.contains(osn));
                assert!(!done, "what a site did is never undone");
                self.seen.dropped += 1;
            }
            mirror::Record::Write { tracked: true, .. } => {
                let mirror = self.sites[site].mirror.as_ref().unwrap();
                assert!(mirror.kept().flights.count() <= (self.config)(site).flights_max.count, "the map is bounded");
            }
            mirror::Record::Committed { osn, .. } => {
                let mine = self.sites[site].disk.kept.memory.known.unwrap();
                let inherited = mine.primary == SITES[site] && osn.epoch() < mine.epoch;
                self.seen.committed_on_takeover += u64::from(inherited);
            }
            _ => {}
        }
    }

    fn count_change(&mut self, site: usize, standing: &Standing) {
        if standing.last.by != SITES[site] {
            return;
        }
        match standing.last.kind {
            TransitionKind::TakeOver => self.seen.takeovers += 1,
            TransitionKind::HandOver => self.seen.handed_over += 1,
            TransitionKind::GoAlone => self.seen.gone_alone += 1,
            TransitionKind::InSync => self.seen.back_in_sync += 1,
            _ => {}
        }
    }
}
