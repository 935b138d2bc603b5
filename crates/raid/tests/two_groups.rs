//! Drives of two groups in one enclosure, for long: pulled, pushed back, swapped, mixed, pulled in
//! the middle of a decision, with controllers that crash or take the group from each other. Each
//! group is the right one or is refused, and the history of its registers is that of one register.
//!
//! Short walks run in CI; `cargo xtask soak --only assembly` takes 10,000 steps with each of many
//! seeds. `VMHOLD_WALK_SEEDS`, `VMHOLD_WALK_FROM` and `VMHOLD_WALK_STEPS` set the numbers.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use base::id::GroupId;
use base::port::Drive;
use double::history::History;
use double::{Bench, MemoryDrive, Rig, ports, yields};
use raid::{DriveState, Group, OpenRefused, Seat, Slot};

const REGISTERS: [&str; 2] = ["root", "owner"];
const DRIVES: usize = 5;
const BAYS: usize = 12;
/// Every so often all drives are put back: then each group has to open.
const GATHER_EVERY: usize = 50;

/// A group, and what everybody has seen of it.
struct Herd {
    id: GroupId,
    drives: Vec<Rc<MemoryDrive>>,
    histories: [RefCell<History>; 2],
    /// Slots whose drives have a vote; `None` while nobody can say.
    voting: Option<BTreeSet<usize>>,
    /// Makes every value another one.
    values: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pull,
    Push,
    /// Two bays change their drives.
    Swap,
    /// A drive of the other group comes into the place of one.
    Mix,
    /// Everything is put back.
    Gather,
    Decide,
    /// A drive is pulled in the middle of a decision.
    PullMeanwhile,
    CrashOpening,
    CrashDeciding,
    /// Two controllers at once, both cut off.
    CrashBoth,
    /// What is missing is put out, what is back is taken in.
    Heal,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    steps: u64,
    opened: u64,
    refused: u64,
    changes: u64,
    crashes: u64,
}

struct Enclosure {
    bench: Bench,
    herds: [Herd; 2],
    /// Herd and slot of what is in each bay.
    bays: [Option<(usize, usize)>; BAYS],
    out: Vec<(usize, usize)>,
    tally: Tally,
}

impl Herd {
    fn new(bench: &Bench, name: &str) -> Herd {
        let drives: Vec<_> = (0..DRIVES).map(|slot| MemoryDrive::new(&format!("{name}{slot}"), 6 << 20)).collect();
        let group = bench.run(Group::create(ports(&drives), Rig::options(3), bench.world())).unwrap();
        drives.iter().for_each(|drive| drive.writes.borrow_mut().clear());
        let voting = Some((0..DRIVES).collect());
        Herd { id: group.id(), drives, histories: Default::default(), voting, values: Cell::new(0) }
    }

    /// A controller: takes the group from the drives that are `there`, looks, changes something.
    /// How many changes it was told are made.
    async fn control(&self, seat: Seat, there: Vec<Rc<dyn Drive>>, bench: &Bench) -> Result<(Group, u64), OpenRefused> {
        self.control_for(3, seat, there, bench).await
    }

    /// As `control`, with fewer than `most` changes of each register.
    async fn control_for(
        &self,
        most: u64,
        seat: Seat,
        there: Vec<Rc<dyn Drive>>,
        bench: &Bench,
    ) -> Result<(Group, u64), OpenRefused> {
        let floors = [0, 1].map(|index| self.histories[index].borrow().begin());
        let group = Group::open_as(seat, there, Some(self.id), bench.world()).await?;
        let mut changes = 0;
        // A group that lost its majority, or another took, while it was opened says nothing.
        if !group.is_owner().await {
            return Ok((group, changes));
        }
        for ((name, history), floor) in REGISTERS.iter().zip(&self.histories).zip(floors) {
            let mut seen = group.register_read(name).await;
            history.borrow_mut().end(floor, seen.version, &seen.bytes);
            for _ in 0..bench.turns.random() % most {
                yields((bench.turns.random() % 3 * 20) as u32).await;
                let floor = history.borrow().begin();
                let value = format!("{seat:?} {}", self.values.replace(self.values.get() + 1)).into_bytes();
                let Ok(version) = group.register_cas(name, seen.version, &value).await else {
                    return Ok((group, changes));
                };
                assert_eq!(version, seen.version + 1);
                seen.version = version;
                history.borrow_mut().end(floor, version, &value);
                changes += 1;
            }
        }
        Ok((group, changes))
    }

    /// A controller that comes again and again, a while later each time.
    async fn control_often(&self, seat: Seat, there: Vec<Rc<dyn Drive>>, bench: &Bench) {
        for _ in 0..3 {
            yields((bench.turns.random() % 1500) as u32).await;
            drop(self.control(seat, there.clone(), bench).await);
        }
    }

    /// Who votes, as a controller that has ended its work says.
    fn learn(&mut self, group: &Group) {
        let status = group.status();
        let votes = |slot: &usize| status.drives[*slot].state != DriveState::Failed;
        self.voting = (!status.latched).then(|| (0..DRIVES).filter(votes).collect());
    }
}

impl Enclosure {
    fn new(seed: u64) -> Enclosure {
        let bench = Bench::new(seed);
        let herds = [Herd::new(&bench, "a"), Herd::new(&bench, "b")];
        let mut bays = [None; BAYS];
        let all = (0..2).flat_map(|herd| (0..DRIVES).map(move |slot| (herd, slot)));
        bays.iter_mut().zip(all).for_each(|(bay, drive)| *bay = Some(drive));
        Enclosure { bench, herds, bays, out: Vec::new(), tally: Tally::default() }
    }

    fn pick(&self, below: usize) -> usize {
        (self.bench.turns.random() % below.max(1) as u64) as usize
    }

    fn drive(&self, (herd, slot): (usize, usize)) -> &Rc<MemoryDrive> {
        &self.herds[herd].drives[slot]
    }

    fn there(&self) -> Vec<Rc<dyn Drive>> {
        self.bays.iter().flatten().map(|&drive| self.drive(drive).clone() as Rc<dyn Drive>).collect()
    }

    fn every_drive(&self) -> impl Iterator<Item = &Rc<MemoryDrive>> {
        self.herds.iter().flat_map(|herd| &herd.drives)
    }

    /// Whether a majority is in the bays, if anybody can say.
    fn is_able(&self, herd: usize) -> Option<bool> {
        let voting = self.herds[herd].voting.as_ref()?;
        let there = self.bays.iter().flatten().filter(|(of, slot)| *of == herd && voting.contains(slot)).count();
        Some(there > voting.len() / 2)
    }

    fn draw(&self) -> Step {
        match self.pick(100) {
            0..16 => Step::Pull,
            16..48 => Step::Push,
            48..50 => Step::Swap,
            50..56 => Step::Mix,
            56..64 => Step::Decide,
            64..70 => Step::PullMeanwhile,
            70..78 => Step::CrashOpening,
            78..84 => Step::CrashDeciding,
            84..90 => Step::CrashBoth,
            _ => Step::Heal,
        }
    }

    fn make(&mut self, step: Step) {
        let (herd, bay) = (self.pick(2), self.pick(BAYS));
        match step {
            Step::Pull => self.out.extend(self.bays[bay].take()),
            Step::Push => self.push(),
            Step::Swap => {
                let other = self.pick(BAYS);
                self.bays.swap(bay, other);
            }
            Step::Mix => self.mix(bay),
            Step::Gather => (0..2 * DRIVES).for_each(|_| self.push()),
            Step::Decide => self.decide(herd, None),
            Step::PullMeanwhile => self.decide(herd, Some(bay)),
            Step::CrashOpening => self.crash(herd, 1000, |herd, there, bench| {
                Box::pin(async move { drop(Group::open_as(Seat::First, there, Some(herd.id), bench.world()).await) })
            }),
            Step::CrashDeciding => self.crash(herd, 2000, |herd, there, bench| {
                Box::pin(async move { drop(herd.control_for(30, Seat::Second, there, bench).await) })
            }),
            Step::CrashBoth => self.crash(herd, 6000, |herd, there, bench| {
                let first = herd.control_often(Seat::First, there.clone(), bench);
                let second = herd.control_often(Seat::Second, there, bench);
                Box::pin(async move {
                    futures_util::future::join(first, second).await;
                })
            }),
            Step::Heal => self.heal(herd),
        }
        if matches!(step, Step::CrashOpening | Step::CrashDeciding | Step::CrashBoth) {
            self.pull_some_of(herd);
            self.decide(herd, None);
        }
    }

    fn push(&mut self) {
        let empty = self.bays.iter().position(Option::is_none);
        if let Some(bay) = empty.filter(|_| !self.out.is_empty()) {
            self.bays[bay] = Some(self.out.swap_remove(self.pick(self.out.len())));
        }
    }

    fn mix(&mut self, bay: usize) {
        let of_other = |&(herd, _): &(usize, usize)| self.bays[bay].is_some_and(|(here, _)| here != herd);
        if let Some(from) = self.out.iter().position(of_other) {
            let other = self.out.swap_remove(from);
            self.out.extend(self.bays[bay].replace(other));
        }
    }

    /// A controller does its work and goes; meanwhile the drive in bay `pulled` is pulled.
    fn decide(&mut self, herd: usize, pulled: Option<usize>) {
        let able = self.is_able(herd);
        let victim = pulled.and_then(|bay| self.bays[bay]);
        let seat = if self.pick(2) == 0 { Seat::First } else { Seat::Second };
        self.set_yields(u32::from(victim.is_some()));
        let turns = self.pick(600) as u32;
        let drive = victim.map(|victim| self.drive(victim).clone());
        let pull = async {
            yields(turns).await;
            drive.iter().for_each(|drive| drive.gone.set(true));
        };
        let control = self.herds[herd].control(seat, self.there(), &self.bench);
        let (controlled, ()) = self.bench.run(futures_util::future::join(control, pull));
        self.set_yields(0);
        if let (Some(bay), Some(drive)) = (pulled, drive) {
            drive.gone.set(false);
            self.out.extend(self.bays[bay].take());
            // What was not flushed may be gone with it.
            self.cut_power(&drive);
        }
        self.stays_in(herd);
        let is_touched = victim.is_some_and(|(of, _)| of == herd);
        match controlled {
            Ok((group, changes)) => {
                assert!(able != Some(false), "opened without a majority");
                self.tally.opened += 1;
                self.tally.changes += changes;
                self.herds[herd].learn(&group);
            }
            Err(refused) => {
                assert!(able != Some(true) || is_touched, "{refused:?} with a majority");
                self.tally.refused += 1;
                if is_touched {
                    self.herds[herd].voting = None;
                }
            }
        }
    }

    /// `work` is cut off somewhere, the power goes or does not, and drives are pulled before anybody
    /// has looked.
    fn crash<'a>(
        &'a mut self,
        herd: usize,
        polls_max: usize,
        work: impl FnOnce(&'a Herd, Vec<Rc<dyn Drive>>, &'a Bench) -> double::Boxed<'a, ()>,
    ) {
        // They do not answer in step, so that some have a vote and others do not.
        self.every_drive().for_each(|drive| drive.yields.set(1 + self.pick(4) as u32));
        let polls = self.pick(polls_max);
        let this: &'a Enclosure = self;
        let _done_or_cut_off = this.bench.crash_after(polls, work(&this.herds[herd], this.there(), &this.bench));
        this.set_yields(0);
        this.every_drive().for_each(|drive| this.cut_power(drive));
        this.stays_in(herd);
    }

    /// What was not flushed is there, is gone, or is there in part.
    fn cut_power(&self, drive: &MemoryDrive) {
        let what = self.pick(3);
        drive.power_cut(|| what == 0 || what == 1 && self.pick(2) == 0);
    }

    fn pull_some_of(&mut self, herd: usize) {
        for _ in 0..self.pick(4) {
            let victim = (herd, self.pick(DRIVES));
            if let Some(bay) = self.bays.iter().position(|there| *there == Some(victim)) {
                self.out.extend(self.bays[bay].take());
            }
        }
    }

    fn heal(&mut self, herd: usize) {
        let there = self.there();
        let of = &self.herds[herd];
        let Ok((group, changes)) = self.bench.run(of.control(Seat::First, there, &self.bench)) else { return };
        for slot in 0..DRIVES {
            let number = Slot(slot as u8);
            let state = |group: &Group| group.status().drives[slot].state;
            if state(&group) == DriveState::Missing {
                let _ = self.bench.run(group.remove_member(number));
            }
            if state(&group) == DriveState::Failed && self.bays.contains(&Some((herd, slot))) {
                let drive = of.drives[slot].clone();
                let _ = self.bench.run(async {
                    group.rejoin_member(number, drive).await.ok()?;
                    group.member_filled(number).await.ok()
                });
            }
        }
        self.tally.changes += changes;
        self.herds[herd].learn(&group);
        self.stays_in(herd);
    }

    fn set_yields(&self, yields: u32) {
        self.every_drive().for_each(|drive| drive.yields.set(yields));
    }

    /// Who worked on a group has written to no drive of the other one.
    fn stays_in(&self, herd: usize) {
        let others = &self.herds[1 - herd].drives;
        assert!(others.iter().all(|drive| drive.writes.borrow().is_empty()), "a drive of another group was written");
        self.every_drive().for_each(|drive| drive.writes.borrow_mut().clear());
    }

    /// Without a name, one of the two opens, as what it is, or neither.
    fn check_unnamed(&mut self) {
        let able = [self.is_able(0), self.is_able(1)];
        let opened = self.bench.run(Group::open(self.there(), None, self.bench.world()));
        match opened {
            Ok(group) => {
                let herd = self.herds.iter().position(|herd| herd.id == group.id()).unwrap();
                assert!(able[herd] != Some(false) && able[1 - herd] != Some(true), "{able:?}, opened {herd}");
                for (name, history) in REGISTERS.iter().zip(&self.herds[herd].histories) {
                    let seen = self.bench.run(group.register_read(name));
                    let floor = history.borrow().begin();
                    history.borrow_mut().end(floor, seen.version, &seen.bytes);
                }
                self.stays_in(herd);
            }
            Err(OpenRefused::Ambiguous { .. }) => assert!(!able.contains(&Some(false)), "{able:?}, ambiguous"),
            Err(refused) => assert!(!able.contains(&Some(true)), "{able:?}, {refused:?}"),
        }
        self.every_drive().for_each(|drive| drive.writes.borrow_mut().clear());
    }

    fn walk(&mut self, steps: usize) {
        for number in 1..=steps {
            let step = if number.is_multiple_of(GATHER_EVERY) { Step::Gather } else { self.draw() };
            self.make(step);
            self.tally.steps += 1;
            self.tally.crashes += u64::from(matches!(step, Step::CrashOpening | Step::CrashDeciding | Step::CrashBoth));
            match step {
                // All are there: both open, and nothing is lost.
                Step::Gather => (0..2).for_each(|herd| {
                    let before = self.tally.opened;
                    self.decide(herd, None);
                    assert_eq!(self.tally.opened, before + 1, "refused with every drive there");
                }),
                _ if self.pick(4) == 0 => self.check_unnamed(),
                _ => self.decide(self.pick(2), None),
            }
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Decides R-RAID-08, with `brains.rs` for every sequence of four: drives of two groups pulled,
/// pushed, swapped and mixed, with crashes, for 10,000 steps each in the soak.
#[test]
fn long_walks_of_pulling_pushing_mixing_and_crashing() {
    let (from, seeds) = (number("VMHOLD_WALK_FROM", 0), number("VMHOLD_WALK_SEEDS", 6));
    let steps = number("VMHOLD_WALK_STEPS", 500);
    let mut all = Tally::default();
    for seed in from..from + seeds {
        println!("seed {seed}");
        let mut enclosure = Enclosure::new(seed);
        enclosure.walk(steps as usize);
        let tally = enclosure.tally;
        assert!(tally.opened > 0 && tally.changes > 0, "{tally:?}");
        all.steps += tally.steps;
        all.opened += tally.opened;
        all.refused += tally.refused;
        all.changes += tally.changes;
        all.crashes += tally.crashes;
    }
    println!("{all:?}");
    assert!(steps < 500 || all.refused > 0 && all.crashes > 0, "{all:?}");
}
