//! Assembly from drives in any order, some missing, foreign, blank, doubled or shrunk.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::rc::Rc;

use base::id::GroupId;
use double::{Bench, MemoryDrive, Rig, ports};
use raid::{CreateRefused, Finding, Group, GroupState, OpenRefused, Slot};

/// Two groups of five on one bench, each with its own root.
struct Shelf {
    bench: Bench,
    a: Vec<Rc<MemoryDrive>>,
    b: Vec<Rc<MemoryDrive>>,
    ids: [GroupId; 2],
}

impl Shelf {
    fn new(seed: u64) -> Shelf {
        let bench = Bench::new(seed);
        let drives = |name: &str| -> Vec<_> {
            (0..5).map(|index| MemoryDrive::new(&format!("{name}{index}"), 4 << 20)).collect()
        };
        let (a, b) = (drives("a"), drives("b"));
        let make = |drives: &[Rc<MemoryDrive>], root: &[u8]| {
            let group = bench.run(Group::create(ports(drives), Rig::options(3), bench.world())).unwrap();
            bench.run(group.register_cas("root", 0, root)).unwrap();
            group.id()
        };
        let ids = [make(&a, b"root of a"), make(&b, b"root of b")];
        Shelf { bench, a, b, ids }
    }

    fn open(&self, drives: &[Rc<MemoryDrive>], wanted: Option<GroupId>) -> Result<Group, OpenRefused> {
        self.bench.run(Group::open(ports(drives), wanted, self.bench.world()))
    }

    fn root(&self, group: &Group) -> Vec<u8> {
        self.bench.run(group.register_read("root")).bytes
    }
}

#[test]
fn order_does_not_matter() {
    let shelf = Shelf::new(1);
    let mut drives = shelf.a.clone();
    for turn in 0..5 {
        drives.rotate_left(1);
        drives.swap(0, turn);
        let group = shelf.open(&drives, None).unwrap();
        assert_eq!(shelf.root(&group), b"root of a");
        assert_eq!(group.status().state, GroupState::Online);
        assert!(group.assembly().drives.iter().all(|(_, finding)| matches!(finding, Finding::Member(_))));
    }
}

#[test]
fn a_minority_may_be_missing_and_a_majority_may_not() {
    let shelf = Shelf::new(2);
    for missing in 0..=5 {
        let drives = shelf.a[missing..].to_vec();
        match shelf.open(&drives, None) {
            Ok(group) => {
                assert!(missing <= 2);
                assert_eq!(shelf.root(&group), b"root of a");
            }
            Err(OpenRefused::NoQuorum { present, votes: 5, needed: 3, .. }) => assert_eq!(present, 5 - missing),
            Err(OpenRefused::NoGroup(_)) => assert_eq!(missing, 5),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn mixed_groups_are_told_apart_and_foreign_drives_are_not_written() {
    let shelf = Shelf::new(3);
    let mixed: Vec<_> = shelf.a.iter().chain(&shelf.b).cloned().collect();
    assert!(matches!(shelf.open(&mixed, None), Err(OpenRefused::Ambiguous { groups, .. }) if groups.len() == 2));
    let before: Vec<usize> = shelf.b.iter().map(|drive| drive.writes.borrow().len()).collect();
    let group = shelf.open(&mixed, Some(shelf.ids[0])).unwrap();
    assert_eq!(shelf.root(&group), b"root of a");
    // A minority of b does not make the choice ambiguous.
    let mixed: Vec<_> = shelf.a.iter().chain(&shelf.b[..2]).cloned().collect();
    let group = shelf.open(&mixed, None).unwrap();
    assert_eq!(group.assembly().drives[5], ("b0".to_owned(), Finding::Foreign(shelf.ids[1])));
    let after: Vec<usize> = shelf.b.iter().map(|drive| drive.writes.borrow().len()).collect();
    assert_eq!(before, after, "a foreign drive was written");
}

#[test]
fn blank_doubled_damaged_and_shrunk_drives_are_left_alone() {
    type Check = fn(&Finding) -> bool;
    type Hurt = fn(&MemoryDrive);
    let cases: [(&str, Hurt, Check); 4] = [
        ("blank", |drive| drive.wipe(), |finding| *finding == Finding::Blank),
        (
            "labels destroyed",
            |drive| [0, 64 << 10].into_iter().for_each(|at| drive.flip(at + 30, 1)),
            |finding| *finding == Finding::Unknown,
        ),
        ("shrunk", |drive| drive.capacity_bytes.set(2 << 20), |finding| *finding == Finding::Mismatch(Slot(1))),
        ("gone", |drive| drive.gone.set(true), |finding| matches!(finding, Finding::Unreadable(_))),
    ];
    for (name, hurt, check) in cases {
        let shelf = Shelf::new(4);
        hurt(&shelf.a[1]);
        let before = shelf.a[1].writes.borrow().len();
        let group = shelf.open(&shelf.a, None).unwrap();
        assert!(check(&group.assembly().drives[1].1), "{name}: {:?}", group.assembly().drives[1].1);
        assert_eq!(shelf.root(&group), b"root of a");
        assert_eq!(shelf.a[1].writes.borrow().len(), before, "{name}");
    }
    let shelf = Shelf::new(5);
    let mut drives = shelf.a.clone();
    drives.push(shelf.a[1].copy("clone of a1"));
    let group = shelf.open(&drives, None).unwrap();
    assert_eq!(group.assembly().drives[1].1, Finding::Twin(Slot(1)));
    assert_eq!(group.assembly().drives[5].1, Finding::Twin(Slot(1)));
    assert_eq!(shelf.root(&group), b"root of a");
}

#[test]
fn one_damaged_copy_of_a_label_does_no_harm() {
    for copy in [0, 64 << 10] {
        let shelf = Shelf::new(6);
        shelf.a.iter().for_each(|drive| drive.flip(copy + 100, 4));
        assert_eq!(shelf.open(&shelf.a, None).unwrap().status().state, GroupState::Online);
        // It is written again, so that the other copy may be the next to go.
        let other = (64 << 10) - copy;
        shelf.a.iter().for_each(|drive| drive.flip(other + 100, 4));
        assert_eq!(shelf.open(&shelf.a, None).unwrap().status().state, GroupState::Online);
    }
}

#[test]
fn used_drives_are_not_taken_unless_told() {
    let shelf = Shelf::new(7);
    let refused = shelf.bench.run(Group::create(ports(&shelf.a), Rig::options(3), shelf.bench.world()));
    assert_eq!(refused.err(), Some(CreateRefused::InUse { index: 0, group: Some(shelf.ids[0]) }));
    let options = raid::GroupOptions { overwrite: true, ..Rig::options(3) };
    let group = shelf.bench.run(Group::create(ports(&shelf.a), options, shelf.bench.world())).unwrap();
    assert_ne!(group.id(), shelf.ids[0]);
    drop(group);
    // Nothing of the old group shows through.
    let group = shelf.open(&shelf.a, None).unwrap();
    assert_eq!(shelf.bench.run(group.register_read("root")).version, 0);
}

/// Bays of an enclosure, and what should come of opening what is in them.
struct Walk {
    shelf: Shelf,
    bays: Vec<Option<Rc<MemoryDrive>>>,
    out: Vec<Rc<MemoryDrive>>,
    wiped: Vec<String>,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let shelf = Shelf::new(seed);
        let bays = shelf.a.iter().cloned().map(Some).collect();
        let out = shelf.b.clone();
        Walk { shelf, bays, out, wiped: Vec::new() }
    }

    fn pick(&self, below: usize) -> usize {
        (self.shelf.bench.turns.random() % below.max(1) as u64) as usize
    }

    /// 0 pull, 1 push, 2 swap, 3 push a foreign one, 4 blank.
    fn step(&mut self, op: usize) {
        let bay = self.pick(self.bays.len());
        match op {
            0 => self.out.extend(self.bays[bay].take()),
            1 | 3 => {
                let wanted = if op == 3 { 'b' } else { 'a' };
                let found = self.out.iter().position(|drive| drive.serial.starts_with(wanted));
                if let (None, Some(found)) = (&self.bays[bay], found) {
                    self.bays[bay] = Some(self.out.remove(found));
                }
            }
            2 => {
                let other = self.pick(self.bays.len());
                self.bays.swap(bay, other);
            }
            _ => {
                if let Some(drive) = &self.bays[bay] {
                    drive.wipe();
                    self.wiped.push(drive.serial.clone());
                }
            }
        }
    }

    fn present(&self, group: char) -> usize {
        let sound = |drive: &&Rc<MemoryDrive>| drive.serial.starts_with(group) && !self.wiped.contains(&drive.serial);
        self.bays.iter().flatten().filter(sound).count()
    }

    /// Each group opens with its own root if a majority is in the bays, and is refused
    /// otherwise; no drive of the other group and no blank one is written.
    fn check(&self) {
        let drives: Vec<_> = self.bays.iter().flatten().cloned().collect();
        for (name, id) in [('a', self.shelf.ids[0]), ('b', self.shelf.ids[1])] {
            let others =
                |drive: &&Rc<MemoryDrive>| !drive.serial.starts_with(name) || self.wiped.contains(&drive.serial);
            let written = || drives.iter().filter(others).map(|drive| drive.writes.borrow().len()).sum::<usize>();
            let before = written();
            match self.shelf.open(&drives, Some(id)) {
                Ok(group) => {
                    assert!(self.present(name) >= 3, "opened without a majority");
                    assert_eq!(self.shelf.root(&group), format!("root of {name}").as_bytes());
                }
                Err(_) => assert!(self.present(name) < 3, "refused with a majority"),
            }
            assert_eq!(written(), before, "a drive of no concern was written");
        }
    }
}

#[test]
fn every_sequence_of_four_mishaps() {
    for sequence in 0..5usize.pow(4) {
        let mut walk = Walk::new(sequence as u64);
        for position in 0..4 {
            walk.step(sequence / 5usize.pow(position) % 5);
        }
        walk.check();
    }
}
