//! Model check of Disk Paxos over the drives: every interleaving of two proposers within
//! bounds, and long random ones with members that come and go. The deciding is the product's
//! (`raid::paxos`); drives, controllers, crashes and losses are a model: a drive that is away
//! is one whose steps do not come, a stale one that comes back one whose steps come late.
//!
//! Watched: for no version of a register are two values chosen, and whoever prepares goes on
//! from everything that was chosen before.

#![allow(clippy::unwrap_used, clippy::large_enum_variant, missing_docs, reason = "tests")]

use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use raid::paxos::{Prepare, Prepared, Round, Seat, Verdict, Vote};
use raid::register::Stamp;

const HEADER: usize = 0;
const BLOB: usize = 1;
const REGISTERS: usize = 2;
/// Most drives of a model.
const DRIVES: usize = 6;

type Drive = u8;
type Votes = [Option<Vote<Value>>; REGISTERS];
const NO_VOTES: Votes = [None; REGISTERS];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    Members(Members),
    Blob(u16),
}

/// Drives, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Members(u8);

impl Members {
    fn of(value: Value) -> Members {
        let Value::Members(members) = value else { panic!("register 0 holds members") };
        members
    }
    fn has(self, drive: Drive) -> bool {
        self.0 >> drive & 1 == 1
    }
    fn count(self) -> usize {
        self.0.count_ones() as usize
    }
    fn all(self) -> impl Iterator<Item = Drive> {
        (0..8).filter(move |&drive| self.has(drive))
    }
}

fn members(value: &Value) -> Option<BTreeSet<Drive>> {
    Some(Members::of(*value).all().collect())
}

/// What a seat left on a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Blocks {
    promise: u64,
    votes: [Option<Vote<Value>>; REGISTERS],
}

type Media = [Blocks; 2];

fn highest(media: &Media) -> u64 {
    let votes = media.iter().flat_map(|blocks| blocks.votes.iter().flatten()).map(|vote| vote.stamp.session);
    votes.chain(media.iter().map(|blocks| blocks.promise)).max().unwrap()
}

/// As an owner looks at it: promises alone.
fn promised(media: &Media) -> u64 {
    media.iter().map(|blocks| blocks.promise).max().unwrap()
}

fn newest(media: &Media) -> Votes {
    let [one, other] = [media[0].votes, media[1].votes];
    std::array::from_fn(|register| one[register].into_iter().chain(other[register]).max_by_key(|vote| vote.stamp))
}

/// How far a proposer is on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Not asked.
    None,
    Write,
    Read,
    Heard(u64, Votes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Prepare,
    Vote { register: usize, vote: Vote<Value> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Proposer {
    Idle,
    Busy { ballot: u64, work: Work, acceptors: Members, steps: [Step; DRIVES], votes: Votes, carry: u8 },
    Leading { ballot: u64, votes: Votes },
}

/// Phase 1 as far as it is heard.
fn prepared(ballot: u64, acceptors: Members, steps: &[Step]) -> Prepared<Value> {
    let mut prepare = Prepare::new(ballot, acceptors.all());
    for (drive, step) in steps.iter().enumerate() {
        if let Step::Heard(highest, votes) = step {
            prepare.heard(drive as Drive, *highest, votes.to_vec());
        }
    }
    prepare.outcome(members)
}

/// Phase 2 as far as it is heard.
fn verdict(ballot: u64, acceptors: Members, steps: &[Step]) -> Verdict {
    let mut round = Round::new(ballot, acceptors.all());
    for (drive, step) in steps.iter().enumerate() {
        if let Step::Heard(highest, _) = step {
            round.heard(drive as Drive, *highest);
        }
    }
    round.verdict()
}

#[derive(Clone, Debug)]
struct Model {
    media: [Media; DRIVES],
    drives: Drive,
    /// Whether members come and go; a header that stays as it is needs not be carried on.
    changing: bool,
    proposers: [Proposer; 2],
    /// What was chosen, by register and version - 1, and the first ballot it was chosen with.
    chosen: [Vec<(Value, u64)>; REGISTERS],
    fresh: u16,
    starts: u16,
    crashes: u16,
    changes: u16,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// A controller looks at the drives of the mask, and prepares if it finds a majority.
    Start(usize, u8),
    Step(usize, Drive),
    Conclude(usize),
    Crash(usize),
    Set(usize),
    PutOut(usize, Drive),
    TakeIn(usize, Drive),
}

/// How often what may happen.
#[derive(Clone, Copy)]
struct Bounds {
    founders: u8,
    drives: u8,
    starts: u16,
    crashes: u16,
    values: u16,
    changes: u16,
    least_members: usize,
}

impl Model {
    fn new(bounds: Bounds) -> Model {
        let founders = Members((1 << bounds.founders) - 1);
        let header = Vote { stamp: Stamp { session: 1, version: 1 }, value: Value::Members(founders) };
        let votes = [Some(header), None];
        let mut media = [Media::default(); DRIVES];
        for drive in founders.all() {
            media[usize::from(drive)][0] = Blocks { promise: 1, votes };
        }
        let chosen = [vec![(header.value, 1)], vec![]];
        let proposers = [Proposer::Leading { ballot: 1, votes }, Proposer::Idle];
        Model {
            media,
            drives: bounds.drives,
            changing: bounds.changes > 0,
            proposers,
            chosen,
            fresh: bounds.values,
            starts: bounds.starts,
            crashes: bounds.crashes,
            changes: bounds.changes,
        }
    }

    fn moves(&self, masks: &[u8], least_members: usize) -> Vec<Move> {
        let mut moves = Vec::new();
        for seat in 0..2 {
            match &self.proposers[seat] {
                Proposer::Idle if self.starts > 0 => moves.extend(masks.iter().map(|&mask| Move::Start(seat, mask))),
                Proposer::Idle => {}
                Proposer::Busy { ballot, steps, acceptors, .. } => {
                    let open = (0..).zip(steps).filter(|(_, step)| matches!(step, Step::Write | Step::Read));
                    moves.extend(open.map(|(drive, _)| Move::Step(seat, drive)));
                    let is_over = verdict(*ballot, *acceptors, steps) != Verdict::Open;
                    moves.extend(is_over.then_some(Move::Conclude(seat)));
                }
                Proposer::Leading { votes, .. } => {
                    moves.extend((self.fresh > 0).then_some(Move::Set(seat)));
                    let now = Members::of(votes[HEADER].unwrap().value);
                    let all = (0..self.drives).filter(|_| self.changes > 0);
                    moves.extend(all.filter_map(|drive| match now.has(drive) {
                        true => (now.count() > least_members).then_some(Move::PutOut(seat, drive)),
                        false => Some(Move::TakeIn(seat, drive)),
                    }));
                }
            }
            let crash = self.crashes > 0 && self.proposers[seat] != Proposer::Idle;
            moves.extend(crash.then_some(Move::Crash(seat)));
        }
        moves
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Start(seat, mask) => self.start(seat, mask),
            Move::Step(seat, drive) => self.step(seat, drive),
            Move::Conclude(seat) => self.conclude(seat),
            Move::Crash(seat) => {
                self.crashes -= 1;
                self.proposers[seat] = Proposer::Idle;
            }
            Move::Set(seat) => {
                let value = Value::Blob(self.fresh);
                self.fresh -= 1;
                let now = self.members_of(seat);
                self.propose(seat, BLOB, value, now);
            }
            Move::PutOut(seat, drive) => {
                self.changes -= 1;
                let now = Members(self.members_of(seat).0 & !(1 << drive));
                self.propose(seat, HEADER, Value::Members(now), now);
            }
            Move::TakeIn(seat, drive) => {
                self.changes -= 1;
                self.admit(seat, drive);
                let now = Members(self.members_of(seat).0 | 1 << drive);
                self.propose(seat, HEADER, Value::Members(now), now);
            }
        }
    }

    fn members_of(&self, seat: usize) -> Members {
        let Proposer::Leading { votes, .. } = &self.proposers[seat] else { panic!() };
        Members::of(votes[HEADER].unwrap().value)
    }

    fn start(&mut self, seat: usize, mask: u8) {
        self.starts -= 1;
        let there: Vec<Drive> = Members(mask).all().collect();
        let votes = there.iter().filter_map(|&drive| newest(&self.media[usize::from(drive)])[HEADER]);
        let Some(header) = votes.max_by_key(|vote| vote.stamp) else { return };
        let acceptors = Members::of(header.value);
        if there.iter().filter(|&&drive| acceptors.has(drive)).count() <= acceptors.count() / 2 {
            return;
        }
        let seen = there.iter().map(|&drive| highest(&self.media[usize::from(drive)])).max().unwrap();
        let ballot = Seat::ALL[seat].ballot_above(seen);
        self.prepare(seat, ballot, acceptors);
    }

    fn prepare(&mut self, seat: usize, ballot: u64, acceptors: Members) {
        self.begin(seat, Work::Prepare, (ballot, acceptors), (NO_VOTES, 0));
    }

    fn begin(&mut self, seat: usize, work: Work, (ballot, acceptors): (u64, Members), (votes, carry): (Votes, u8)) {
        let step = |drive| if acceptors.has(drive as Drive) { Step::Write } else { Step::None };
        let steps = std::array::from_fn(step);
        self.proposers[seat] = Proposer::Busy { ballot, work, acceptors, steps, votes, carry };
    }

    /// A newcomer is made an acceptor before a header names it.
    fn admit(&mut self, seat: usize, drive: Drive) {
        let Proposer::Leading { ballot, votes } = &self.proposers[seat] else { panic!() };
        let blocks = Blocks { promise: *ballot, votes: *votes };
        self.media[usize::from(drive)] = Media::default();
        self.media[usize::from(drive)][seat] = blocks;
    }

    fn propose(&mut self, seat: usize, register: usize, value: Value, acceptors: Members) {
        let Proposer::Leading { ballot, votes } = self.proposers[seat].clone() else { panic!() };
        let version = votes[register].as_ref().map_or(0, |vote| vote.stamp.version) + 1;
        let vote = Vote { stamp: Stamp { session: ballot, version }, value };
        self.begin(seat, Work::Vote { register, vote }, (ballot, acceptors), (votes, REGISTERS as u8));
    }

    fn step(&mut self, seat: usize, drive: Drive) {
        let Proposer::Busy { ballot, work, steps, .. } = &mut self.proposers[seat] else { panic!() };
        let media = &mut self.media[usize::from(drive)];
        let step = &mut steps[usize::from(drive)];
        *step = match (&*step, work) {
            (Step::Write, Work::Prepare) => {
                media[seat].promise = *ballot;
                Step::Read
            }
            (Step::Write, Work::Vote { register, vote }) => {
                media[seat].votes[*register] = Some(*vote);
                Step::Read
            }
            (Step::Read, Work::Prepare) => Step::Heard(highest(media), newest(media)),
            (Step::Read, Work::Vote { .. }) => Step::Heard(promised(media), NO_VOTES),
            _ => panic!(),
        }
    }

    fn conclude(&mut self, seat: usize) {
        let Proposer::Busy { ballot, work, acceptors, steps, mut votes, carry } = self.proposers[seat].clone() else {
            panic!()
        };
        self.proposers[seat] = Proposer::Idle;
        match work {
            Work::Prepare => match prepared(ballot, acceptors, &steps) {
                Prepared::Ready(votes) => {
                    let votes = votes.try_into().unwrap();
                    self.nothing_is_lost(ballot, &votes);
                    let first = if self.changing { HEADER } else { BLOB };
                    self.carry_on(seat, ballot, votes, first as u8);
                }
                Prepared::Again(header) => self.prepare(seat, ballot, Members::of(header.value)),
                Prepared::Lost { .. } | Prepared::Open => {}
            },
            Work::Vote { register, vote } => {
                if verdict(ballot, acceptors, &steps) == Verdict::Won {
                    self.choose(register, &vote);
                    votes[register] = Some(vote);
                    self.carry_on(seat, ballot, votes, carry);
                }
            }
        }
    }

    /// What goes on is chosen under the new ballot, register by register.
    fn carry_on(&mut self, seat: usize, ballot: u64, mut votes: Votes, carried: u8) {
        let Some(register) = (usize::from(carried)..REGISTERS).find(|&register| votes[register].is_some()) else {
            self.proposers[seat] = Proposer::Leading { ballot, votes };
            return;
        };
        let vote = votes[register].as_mut().unwrap();
        vote.stamp.session = ballot;
        let vote = *vote;
        let acceptors = Members::of(votes[HEADER].unwrap().value);
        self.begin(seat, Work::Vote { register, vote }, (ballot, acceptors), (votes, register as u8 + 1));
    }

    fn choose(&mut self, register: usize, vote: &Vote<Value>) {
        let at = vote.stamp.version as usize - 1;
        let chosen = &mut self.chosen[register];
        assert!(at <= chosen.len(), "a version was passed over");
        match chosen.get_mut(at) {
            Some((before, ballot)) => {
                assert_eq!(*before, vote.value, "two values for version {}", at + 1);
                *ballot = (*ballot).min(vote.stamp.session);
            }
            None => chosen.push((vote.value, vote.stamp.session)),
        }
    }

    /// Whoever prepared with `ballot` goes on from all that lower ballots have chosen. (What a
    /// higher one has chosen it need not know: nothing of its own will be chosen any more.)
    fn nothing_is_lost(&self, ballot: u64, votes: &Votes) {
        for (register, chosen) in self.chosen.iter().enumerate() {
            let Some(at) = chosen.iter().rposition(|(_, with)| *with < ballot) else { continue };
            let vote = votes[register].as_ref().expect("a chosen value is lost");
            let version = vote.stamp.version as usize;
            assert!(version > at, "version {} is lost, {version} is left", at + 1);
            assert!(version > at + 1 || vote.value == chosen[at].0, "the value of version {version} is lost");
        }
    }

    /// The same for states that differ only in which drive is which, where no members come
    /// and go; 128 bits, so that two states are taken for one with no likelihood that counts.
    fn digest(&self, alike: bool) -> [u64; 2] {
        let mut drives = [[0; 2]; DRIVES];
        for (drive, digest) in drives.iter_mut().enumerate().take(usize::from(self.drives)) {
            let mut mix = Mix([1, 2]);
            self.media[drive].hash(&mut mix);
            for proposer in &self.proposers {
                if let Proposer::Busy { steps, .. } = proposer {
                    steps[drive].hash(&mut mix);
                }
            }
            *digest = mix.0;
        }
        if alike {
            drives.sort_unstable();
        }
        let mut mix = Mix([3, 4]);
        drives.hash(&mut mix);
        for proposer in &self.proposers {
            match proposer {
                Proposer::Busy { ballot, work, acceptors, votes, carry, .. } => {
                    (ballot, work, acceptors, votes, carry).hash(&mut mix);
                }
                other => other.hash(&mut mix),
            }
        }
        (&self.chosen, self.fresh, self.starts, self.crashes, self.changes).hash(&mut mix);
        mix.0
    }
}

/// A fast hash of 128 bits.
struct Mix([u64; 2]);

impl Mix {
    fn word(&mut self, word: u64) {
        for (state, factor) in self.0.iter_mut().zip([0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93]) {
            let product = u128::from(*state ^ word) * u128::from(factor | 1u64);
            *state = (product >> 64) as u64 ^ (product as u64).rotate_left(23) ^ factor;
        }
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0[0]
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.word(u64::from(byte)));
    }
    fn write_u8(&mut self, word: u8) {
        self.word(u64::from(word));
    }
    fn write_u16(&mut self, word: u16) {
        self.word(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }
    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }
    fn write_isize(&mut self, word: isize) {
        self.word(word as u64);
    }
}

/// How a state was come by, for people.
#[derive(Clone, Default)]
struct Path(Option<Rc<(Move, Path)>>);

impl Path {
    fn and(&self, next: Move) -> Path {
        Path(Some(Rc::new((next, self.clone()))))
    }

    /// Does `work`, and tells the way when it panics.
    fn checked(&self, work: impl FnOnce()) {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            let (mut moves, mut rest) = (vec![], self);
            while let Some(step) = &rest.0 {
                moves.push(step.0);
                rest = &step.1;
            }
            moves.reverse();
            println!("the way there: {moves:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Visits every state within bounds; returns how many, and how often something was chosen.
fn explore(bounds: Bounds) -> (usize, usize) {
    let masks: Vec<u8> = (0..1u8 << bounds.drives).filter(|mask| mask.count_ones() >= 2).collect();
    let mut seen = HashSet::new();
    let mut open = vec![(Model::new(bounds), Path::default())];
    let mut most = 0;
    while let Some((model, path)) = open.pop() {
        most = most.max(model.chosen[BLOB].len());
        for next in model.moves(&masks, bounds.least_members) {
            let mut model = model.clone();
            let path = path.and(next);
            path.checked(|| model.make(next));
            if seen.insert(model.digest(bounds.changes == 0)) {
                open.push((model, path));
            }
        }
    }
    println!("{} states, {most} values chosen", seen.len());
    (seen.len(), most)
}

/// One more of what makes most states, where `VMHOLD_MODEL_DEEP` is set
/// (`cargo xtask soak --only brains`).
fn deeper() -> u16 {
    u16::from(std::env::var_os("VMHOLD_MODEL_DEEP").is_some())
}

const THREE: Bounds = Bounds { founders: 3, drives: 3, starts: 1, crashes: 0, values: 1, changes: 0, least_members: 3 };

/// Every interleaving: the first controller owns the group and sets values while the second
/// takes it, and takes it back; in a second round one of them crashes anywhere.
#[test]
fn two_proposers_on_three_drives_in_every_order() {
    let (states, most) = explore(Bounds { starts: 2, values: 2 + deeper(), ..THREE });
    assert!(states > 300_000 && most >= 2, "{states} states, {most} values");
    let (states, most) = explore(Bounds { starts: 2 + deeper(), crashes: 1, ..THREE });
    assert!(states > 200_000 && most == 1, "{states} states, {most} values");
}

/// The same while one of three drives is put out by its owner.
#[test]
fn a_member_goes_while_another_takes_the_group() {
    let drives = 3 + deeper() as u8;
    let (states, most) = explore(Bounds { changes: 1, least_members: 2, drives, ..THREE });
    assert!(states > 200_000 && most == 1, "{states} states, {most} values");
}

/// Decides R-RAID-07: five drives of six, two controllers that take the group from each other
/// and crash anywhere, drives that stay away for long and come back as they were, members that
/// come and go one at a time.
#[test]
fn long_walks_with_members_that_come_and_go() {
    let walks = if deeper() > 0 { 20_000 } else { 400 };
    let (mut blobs, mut headers) = (0, 0);
    for seed in 0..walks {
        let model = walk(seed, 4000);
        blobs += model.chosen[BLOB].len();
        headers += model.chosen[HEADER].len();
    }
    println!("{walks} walks: {blobs} values and {headers} headers chosen");
    assert!(blobs > 20 * walks as usize && headers > 5 * walks as usize, "{blobs} values, {headers} headers");
}

fn walk(seed: u64, steps: usize) -> Model {
    let mut state = seed;
    let mut below = move |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most.max(1)
    };
    let lots = 60_000;
    let bounds =
        Bounds { founders: 5, drives: 6, starts: lots, crashes: lots, values: lots, changes: lots, least_members: 3 };
    let mut model = Model::new(bounds);
    let mut path = Path::default();
    let mut away = 0u8;
    for _ in 0..steps {
        if below(40) == 0 {
            away = below(64) as u8 & below(64) as u8;
        }
        let there = !away & 63;
        let is_there = |drive: Drive| there >> drive & 1 == 1;
        let mut moves = model.moves(&[there & (below(64) | below(64)) as u8], bounds.least_members);
        let reluctant = below(12) > 0;
        moves.retain(|next| match next {
            Move::Step(_, drive) | Move::TakeIn(_, drive) => is_there(*drive),
            Move::Crash(_) | Move::Start(..) | Move::PutOut(..) => !reluctant,
            _ => true,
        });
        if moves.is_empty() {
            continue;
        }
        let next = moves[below(moves.len())];
        path = path.and(next);
        path.checked(|| model.make(next));
    }
    model
}
