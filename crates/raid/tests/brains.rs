//! The group never loses its brains: every sequence of four steps on five bays (a drive is
//! pulled, a stale one pushed back, one of another group put in its place, the owner crashes,
//! what is missing is put out and what is back is taken in) ends in the right group or in a
//! clear refusal. After every step somebody opens the group, looks, and decides something new,
//! so whatever is out is stale.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::collections::BTreeSet;
use std::rc::Rc;

use base::id::GroupId;
use base::port::Drive;
use double::{Bench, MemoryDrive, Rig, ports};
use raid::{DriveState, Finding, Group, OpenRefused, Seat, Slot};

#[derive(Clone, Copy, Debug)]
enum Step {
    Pull(usize),
    /// The drive of ours that is out for longest comes back into the first empty bay.
    PushBack,
    /// A drive of another group in the place of the one in this bay.
    Swap(usize),
    /// An owner crashes while it opens the group.
    CrashOpening(Seat),
    /// An owner crashes while it decides.
    CrashDeciding(Seat),
    /// Missing members are put out, those that came back taken in.
    Heal,
}

/// A shelf with five bays and a group of five, and another group lying about.
struct Shelf {
    bench: Bench,
    /// Ours 0 to 4, the others' 5 to 9.
    drives: Vec<Rc<MemoryDrive>>,
    bays: [Option<usize>; 5],
    out: Vec<usize>,
    /// What each bay has been through, to tell which are alike.
    past: [String; 5],
    ids: [GroupId; 2],
    /// Our members that vote.
    voting: BTreeSet<usize>,
    version: u64,
    value: Vec<u8>,
    /// A value that may or may not have been decided.
    pending: Option<Vec<u8>>,
    taken: Vec<Step>,
}

impl Clone for Shelf {
    fn clone(&self) -> Shelf {
        let bench = Bench::new(self.bench.turns.random());
        let drives = self.drives.iter().map(|drive| drive.copy(&drive.serial)).collect();
        let (out, past, voting) = (self.out.clone(), self.past.clone(), self.voting.clone());
        let (value, pending, taken) = (self.value.clone(), self.pending.clone(), self.taken.clone());
        Shelf { bench, drives, out, past, voting, value, pending, taken, ..*self }
    }
}

impl Shelf {
    fn new(seed: u64) -> Shelf {
        let bench = Bench::new(seed);
        let drives: Vec<_> = (0..10).map(|index| MemoryDrive::new(&format!("d{index}"), 6 << 20)).collect();
        let found = |drives: &[Rc<MemoryDrive>], root: &[u8]| {
            let group = bench.run(Group::create(ports(drives), Rig::options(3), bench.world())).unwrap();
            bench.run(group.register_cas("root", 0, root)).unwrap();
            group.id()
        };
        let ids = [found(&drives[..5], b"0"), found(&drives[5..], b"theirs")];
        Shelf {
            bench,
            drives,
            bays: [Some(0), Some(1), Some(2), Some(3), Some(4)],
            out: (5..10).collect(),
            past: Default::default(),
            ids,
            voting: (0..5).collect(),
            version: 1,
            value: b"0".to_vec(),
            pending: None,
            taken: Vec::new(),
        }
    }

    fn there(&self) -> Vec<Rc<dyn Drive>> {
        self.bays.iter().flatten().map(|&drive| self.drives[drive].clone() as Rc<dyn Drive>).collect()
    }

    fn is_able(&self) -> bool {
        self.bays.iter().flatten().filter(|drive| self.voting.contains(drive)).count() > self.voting.len() / 2
    }

    fn open(&self, seat: Seat, wanted: Option<GroupId>) -> Result<Group, OpenRefused> {
        self.bench.run(Group::open_as(seat, self.there(), wanted, self.bench.world()))
    }

    /// Steps that differ in what may come of them.
    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::CrashOpening(Seat::First), Step::CrashDeciding(Seat::Second), Step::Heal];
        if self.bays.contains(&None) && self.out.iter().any(|&drive| drive < 5) {
            steps.push(Step::PushBack);
        }
        let mut seen = BTreeSet::new();
        for bay in 0..5 {
            if self.bays[bay].is_some() && seen.insert(&self.past[bay]) {
                steps.extend([Step::Pull(bay), Step::Swap(bay)]);
            }
        }
        steps
    }

    fn make(&mut self, step: Step) {
        self.taken.push(step);
        match step {
            Step::Pull(bay) => {
                self.out.extend(self.bays[bay].take());
                self.past[bay].push('-');
            }
            Step::PushBack => {
                let bay = self.bays.iter().position(Option::is_none).unwrap();
                let from = self.out.iter().position(|&drive| drive < 5).unwrap();
                let drive = self.out.remove(from);
                self.bays[bay] = Some(drive);
                self.past[bay].push_str(&format!("+{drive}"));
            }
            Step::Swap(bay) => {
                let from = self.out.iter().position(|&drive| drive >= 5).unwrap();
                let other = self.out.remove(from);
                self.out.extend(self.bays[bay].replace(other));
                self.past[bay].push('x');
            }
            Step::CrashOpening(seat) => self.crash_opening(seat),
            Step::CrashDeciding(seat) => self.crash_deciding(seat),
            Step::Heal => self.heal(),
        }
    }

    fn set_yields(&self, yields: u32) {
        self.drives.iter().for_each(|drive| drive.yields.set(yields));
    }

    fn cut_power(&self) {
        self.set_yields(0);
        self.drives.iter().for_each(|drive| drive.power_cut(|| self.bench.turns.random().is_multiple_of(2)));
    }

    fn crash_opening(&self, seat: Seat) {
        self.set_yields(1);
        let polls = (self.bench.turns.random() % 900) as usize;
        let opening = Group::open_as(seat, self.there(), Some(self.ids[0]), self.bench.world());
        drop(self.bench.crash_after(polls, opening));
        self.cut_power();
    }

    fn crash_deciding(&mut self, seat: Seat) {
        let Ok(group) = self.open(seat, Some(self.ids[0])) else { return };
        self.look(&group);
        self.set_yields(1);
        let value = format!("{} of a crashed owner", self.version + 1).into_bytes();
        let polls = (self.bench.turns.random() % 12) as usize;
        match self.bench.crash_after(polls, group.register_cas("root", self.version, &value)) {
            Some(Ok(version)) => (self.version, self.value) = (version, value),
            _ => self.pending = Some(value),
        }
        drop(group);
        self.cut_power();
    }

    fn heal(&mut self) {
        let Ok(group) = self.open(Seat::First, Some(self.ids[0])) else { return };
        self.look(&group);
        for drive in 0..5 {
            let slot = Slot(drive as u8);
            let state = |group: &Group| group.status().drives[drive].state;
            if state(&group) == DriveState::Missing && self.bench.run(group.remove_member(slot)).is_ok() {
                self.voting.remove(&drive);
            }
            let is_back = self.bays.contains(&Some(drive)) && state(&group) == DriveState::Failed;
            let port = self.drives[drive].clone() as Rc<dyn Drive>;
            if is_back && self.bench.run(group.rejoin_member(slot, port)).is_ok() {
                self.voting.insert(drive);
            }
        }
    }

    /// What an owner sees is what was decided last, or what may have been, and is so for good.
    fn look(&mut self, group: &Group) {
        let seen = self.bench.run(group.register_read("root"));
        let old = (self.version, self.value.clone());
        let new = self.pending.take().map(|value| (self.version + 1, value));
        let is = (seen.version, seen.bytes);
        assert!(is == old || Some(&is) == new.as_ref(), "saw {is:?}, not {old:?} or {new:?}: {:?}", self.taken);
        (self.version, self.value) = is;
    }

    /// The group opens with what was decided if a majority is there, and is refused otherwise;
    /// the other group's drives are not written. Then something new is decided.
    fn check(&mut self) {
        let foreign_writes = |shelf: &Shelf| shelf.drives[5..].iter().map(|drive| drive.writes.borrow().len()).sum();
        let before: usize = foreign_writes(self);
        match self.open(Seat::Second, Some(self.ids[0])) {
            Ok(group) => {
                assert!(self.is_able(), "opened without a majority: {:?}", self.taken);
                self.look(&group);
                self.value = format!("{:?}", self.taken).into_bytes();
                let set = self.bench.run(group.register_cas("root", self.version, &self.value));
                self.version += 1;
                assert_eq!(set, Ok(self.version), "{:?}", self.taken);
                for (_, finding) in &group.assembly().drives {
                    assert!(
                        matches!(finding, Finding::Member(_) | Finding::Failed(_) | Finding::Foreign(_)),
                        "{finding:?}"
                    );
                }
            }
            Err(refused) => {
                assert!(!self.is_able(), "{refused:?}: {:?}", self.taken);
                assert!(matches!(refused, OpenRefused::NoQuorum { .. } | OpenRefused::NoGroup(_)), "{refused:?}");
            }
        }
        assert_eq!(foreign_writes(self), before, "a drive of another group was written: {:?}", self.taken);
        self.check_unnamed();
    }

    /// Without a name, one of the two groups opens, as what it is, or neither.
    fn check_unnamed(&mut self) {
        let theirs = self.bays.iter().flatten().filter(|&&drive| drive >= 5).count() >= 3;
        match self.open(Seat::First, None) {
            Ok(group) if group.id() == self.ids[0] => {
                assert!(self.is_able() && !theirs);
                self.look(&group);
            }
            Ok(group) => {
                assert!(theirs && !self.is_able() && group.id() == self.ids[1]);
                assert_eq!(self.bench.run(group.register_read("root")).bytes, b"theirs");
            }
            Err(OpenRefused::Ambiguous { .. }) => assert!(theirs && self.is_able()),
            Err(_) => assert!(!theirs && !self.is_able()),
        }
    }
}

fn walk(shelf: &Shelf, depth: usize, count: &mut usize) {
    for step in shelf.steps() {
        let mut shelf = shelf.clone();
        shelf.make(step);
        shelf.check();
        *count += 1;
        if depth > 1 {
            walk(&shelf, depth - 1, count);
        }
    }
}

/// Decides R-RAID-08: all sequences of four steps; `VMHOLD_BRAINS_STEPS` sets another length.
#[test]
fn every_sequence_of_steps_ends_in_the_right_group_or_a_refusal() {
    let steps = std::env::var("VMHOLD_BRAINS_STEPS").map_or(4, |text| text.parse().expect("a number of steps"));
    let mut count = 0;
    walk(&Shelf::new(1), steps, &mut count);
    println!("{count} sequences");
    assert!(count > 1000 || steps < 4, "{count} sequences");
}

/// The place of a vote that cannot be read may hold the newest vote of all: the drive is not
/// heard, rather than taken for one that never voted, and no register goes back.
#[test]
fn a_vote_that_cannot_be_read_is_not_no_vote() {
    let rig = Rig::new(5, 60);
    let group = rig.create(3);
    rig.bench.run(group.register_cas("root", 0, b"old")).unwrap();
    let stale = [3, 4].map(|drive| rig.drives[drive].copy(&rig.drives[drive].serial));
    rig.bench.run(group.register_cas("root", 1, b"new")).unwrap();
    let slot = rig.drives[2].writes.borrow().last().unwrap().offset_bytes;
    drop(group);
    rig.drives[2].bad.borrow_mut().push(slot..slot + 512);
    // A majority, of which only the drive that errs has the newest value.
    let three = || ports(&[rig.drives[2].clone(), stale[0].clone(), stale[1].clone()]);
    let refused = rig.bench.run(Group::open(three(), None, rig.bench.world())).err().unwrap();
    assert!(matches!(refused, OpenRefused::Latched(_)), "{refused:?}");
    rig.drives[2].bad.borrow_mut().clear();
    let group = rig.bench.run(Group::open(three(), None, rig.bench.world())).unwrap();
    assert_eq!(&rig.bench.run(group.register_read("root")).bytes[..], b"new");
}

/// A drive that errs where the promises or a vote are is not heard at that opening, and stays
/// a member with all its data: nobody is put out for a read.
#[test]
fn a_read_that_errs_at_opening_puts_nobody_out() {
    for promises in [true, false] {
        let rig = Rig::new(5, 61);
        let group = rig.create(3);
        rig.bench.run(group.register_cas("root", 0, b"new")).unwrap();
        let slot = rig.drives[1].writes.borrow().last().unwrap().offset_bytes;
        drop(group);
        let at = if promises { 128 << 10 } else { slot };
        rig.drives[1].writes_heal.set(!promises);
        rig.drives[1].bad.borrow_mut().push(at..at + 512);
        let group = rig.bench.run(Group::open(ports(&rig.drives), None, rig.bench.world())).unwrap();
        assert!(group.status().drives.iter().all(|drive| drive.state == DriveState::Good), "promises: {promises}");
        let version = rig.bench.run(group.register_read("root")).version;
        rig.bench.run(group.register_cas("root", version, b"newer")).unwrap();
        assert_eq!(rig.drives[1].bad.borrow().is_empty(), !promises, "the slot that erred was written again");
    }
}

/// A slot has room for more than its value: what lies behind it is nobody's vote, and a drive
/// that cannot read it is heard.
#[test]
fn what_cannot_be_read_behind_a_vote_is_no_part_of_it() {
    let rig = Rig::new(5, 62);
    let group = rig.create(3);
    let value = vec![7; 5000];
    rig.bench.run(group.register_cas("root", 0, &value)).unwrap();
    let slot = rig.drives[2].writes.borrow().last().unwrap().offset_bytes;
    drop(group);
    rig.drives[2].bad.borrow_mut().push(slot + 8192..slot + 8704);
    // Without it they are no majority.
    let three = ports(&rig.drives[..3]);
    let group = rig.bench.run(Group::open(three, None, rig.bench.world())).unwrap();
    assert_eq!(rig.bench.run(group.register_read("root")).bytes, value);
}
