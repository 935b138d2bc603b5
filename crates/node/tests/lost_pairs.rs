//! Every pair of lost drives, and a fault of every class on a third unit of a stripe, on simulated
//! drives and on real files: what parity covers is answered and repaired, what it does not cover is
//! named, wrong bytes are never returned.
//!
//! `cargo test -p node --test lost_pairs -- --nocapture` prints both tables.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use base::port::{Drive, DriveInfo, LocalFuture, MediaFault, World};
use base::{Buf, BufMut};
use raid::unit::UnitHeader;
use raid::{Event, Group, GroupOptions, Slot, StripeId, UNIT_HEADER_BYTES, Unreadable};
use tokio::task::LocalSet;
use world_real::{create_sparse_file, open_drive, real_world};
use world_sim::{SimMedia, SimWorld};

const DRIVES: usize = 8;
const DATA: usize = 5;
const WIDTH: usize = DATA + 2;
const UNIT: usize = 16 << 10;
const DRIVE_BYTES: u64 = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    FlipPayload,
    FlipHeader,
    Corrupt,
    Unreadable,
    Torn,
    Lost,
    Misplaced,
    WrongRead,
    SwapRows,
    SwapUnits,
}

const CLASSES: [Class; 10] = [
    Class::FlipPayload,
    Class::FlipHeader,
    Class::Corrupt,
    Class::Unreadable,
    Class::Torn,
    Class::Lost,
    Class::Misplaced,
    Class::WrongRead,
    Class::SwapRows,
    Class::SwapUnits,
];

impl Class {
    /// Units of the stripe that are wrong on the drives, and of the stripe in the next row.
    fn damages(self) -> (usize, usize) {
        match self {
            Class::WrongRead => (0, 0),
            Class::Misplaced | Class::SwapRows => (1, 1),
            Class::SwapUnits => (2, 0),
            _ => (1, 0),
        }
    }
}

/// Where a drive's bytes are, to be changed behind its back.
enum Media {
    Simulated(SimMedia),
    Real(File),
}

impl Media {
    fn peek(&self, offset: u64) -> Vec<u8> {
        match self {
            Media::Simulated(media) => media.peek(offset, UNIT),
            Media::Real(file) => {
                let mut bytes = vec![0; UNIT];
                file.read_exact_at(&mut bytes, offset).unwrap();
                bytes
            }
        }
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        match self {
            Media::Simulated(media) => media.poke(offset, bytes),
            Media::Real(file) => file.write_all_at(bytes, offset).unwrap(),
        }
    }
}

/// A drive that can be pulled, has a place that cannot be read, or reads from the wrong place once.
struct Hurt {
    inner: Rc<dyn Drive>,
    gone: Cell<bool>,
    bad: RefCell<Range<u64>>,
    misread_at: Cell<Option<u64>>,
}

impl Hurt {
    fn new(inner: Rc<dyn Drive>) -> Rc<Hurt> {
        Rc::new(Hurt { inner, gone: Cell::new(false), bad: RefCell::new(0..0), misread_at: Cell::new(None) })
    }
}

impl Drive for Hurt {
    fn info(&self) -> DriveInfo {
        self.inner.info()
    }
    fn read(&self, mut offset: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        let end = offset + buf.len() as u64;
        if self.gone.get() {
            return Box::pin(std::future::ready((Err(MediaFault::Gone), buf)));
        }
        if self.bad.borrow().start < end && offset < self.bad.borrow().end {
            return Box::pin(std::future::ready((Err(MediaFault::Io), buf)));
        }
        if self.misread_at.get().is_some_and(|at| (offset..end).contains(&at)) {
            self.misread_at.set(None);
            offset += UNIT as u64;
        }
        self.inner.read(offset, buf)
    }
    fn write(&self, offset: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        if self.gone.get() {
            return Box::pin(std::future::ready(Err(MediaFault::Gone)));
        }
        if self.bad.borrow().contains(&offset) || self.bad.borrow().start == offset + UNIT_HEADER_BYTES as u64 {
            self.bad.replace(0..0);
        }
        self.inner.write(offset, data)
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        if self.gone.get() {
            return Box::pin(std::future::ready(Err(MediaFault::Gone)));
        }
        self.inner.flush()
    }
}

/// A unit of a stripe on a drive, as it was before the last write and as it should be.
struct Unit {
    drive: usize,
    offset: u64,
    before: Vec<u8>,
    right: Vec<u8>,
}

/// A stripe with its units by role.
struct Stripe {
    id: StripeId,
    generation: u64,
    units: Vec<Unit>,
}

/// What is done to unit `role` of stripe `number`, with two drives lost.
struct Fault {
    class: Class,
    number: usize,
    role: usize,
    lost: [usize; 2],
}

struct Stage {
    world: World,
    media: Vec<Media>,
    drives: Vec<Rc<Hurt>>,
    stripes: Vec<Stripe>,
}

/// Payload of a data unit: anything, but a function of these.
fn payload(id: StripeId, generation: u64, unit: usize) -> Vec<u8> {
    let mut state = id.pack() ^ generation.rotate_left(40) ^ (unit as u64).rotate_left(20) ^ 0x5151;
    let word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(word).take(UNIT - UNIT_HEADER_BYTES).collect()
}

async fn write(group: &Group, id: StripeId, generation: u64) {
    let units = (0..DATA).map(|unit| {
        let mut buf = group.take_unit();
        buf[UNIT_HEADER_BYTES..].copy_from_slice(&payload(id, generation, unit));
        buf
    });
    group.write_stripe(id, generation, units.collect()).await.unwrap();
}

fn ports<'a>(drives: impl Iterator<Item = &'a Rc<Hurt>>) -> Vec<Rc<dyn Drive>> {
    drives.map(|drive| drive.clone() as Rc<dyn Drive>).collect()
}

impl Stage {
    /// Two segments with two stripes each, every one written twice.
    async fn new(world: World, media: Vec<Media>, drives: Vec<Rc<Hurt>>) -> Stage {
        let options = GroupOptions { unit_bytes: UNIT as u32, data_width_max: DATA as u8, ..GroupOptions::default() };
        let group = Group::create(ports(drives.iter()), options, world.clone()).await.unwrap();
        let mut stage = Stage { world, media, drives, stripes: Vec::new() };
        for _ in 0..2 {
            let segment = group.open_segment().await.unwrap();
            for row in 0..2 {
                let (id, generation) = (StripeId { segment, row }, 200 + u64::from(row));
                write(&group, id, generation - 100).await;
                group.flush().await.unwrap();
                let mut units: Vec<Unit> = (0..WIDTH).map(|role| stage.find(id, generation - 100, role)).collect();
                write(&group, id, generation).await;
                group.flush().await.unwrap();
                units.iter_mut().for_each(|unit| unit.right = stage.media[unit.drive].peek(unit.offset));
                stage.stripes.push(Stripe { id, generation, units });
            }
        }
        stage
    }

    fn find(&self, id: StripeId, generation: u64, role: usize) -> Unit {
        for (drive, media) in self.media.iter().enumerate() {
            for offset in (0..DRIVE_BYTES - UNIT as u64).step_by(4096) {
                let before = media.peek(offset);
                let header = UnitHeader::decode(&before);
                let is_it = |header: UnitHeader| {
                    (header.stripe, header.generation, usize::from(header.role)) == (id, generation, role)
                };
                if header.is_ok_and(is_it) {
                    return Unit { drive, offset, before, right: Vec::new() };
                }
            }
        }
        panic!("no unit {role} of {id}");
    }

    fn poke(&self, unit: &Unit, bytes: &[u8]) {
        self.media[unit.drive].poke(unit.offset, bytes);
    }

    /// Does `class` to unit `role` of stripe `number`; another one that is swapped with it is not
    /// one of `lost`.
    fn hurt(&self, class: Class, number: usize, role: usize, lost: [usize; 2]) {
        let (unit, below) = (&self.stripes[number].units[role], &self.stripes[number + 1]);
        let mut bytes = unit.right.clone();
        let under = || {
            let at = unit.offset + UNIT as u64;
            below.units.iter().find(|other| (other.drive, other.offset) == (unit.drive, at)).expect("the next row")
        };
        match class {
            Class::FlipPayload => bytes[5000] ^= 8,
            Class::FlipHeader => bytes[50] ^= 1,
            Class::Corrupt => bytes[1024..3072].fill(0xa5),
            Class::Torn => bytes[UNIT / 2..].copy_from_slice(&unit.before[UNIT / 2..]),
            Class::Lost => bytes.copy_from_slice(&unit.before),
            Class::Unreadable => {
                let start = unit.offset + UNIT_HEADER_BYTES as u64;
                self.drives[unit.drive].bad.replace(start..unit.offset + 8192);
            }
            Class::WrongRead => {}
            Class::Misplaced => {
                self.poke(under(), &bytes);
                bytes.copy_from_slice(&unit.before);
            }
            Class::SwapRows => {
                self.poke(under(), &bytes);
                bytes.copy_from_slice(&under().right);
            }
            Class::SwapUnits => {
                let others = (1..WIDTH).map(|step| &self.stripes[number].units[(role + step) % WIDTH]);
                let other = others.into_iter().find(|other| !lost.contains(&other.drive)).expect("seven units");
                self.poke(other, &bytes);
                bytes.copy_from_slice(&other.right);
            }
        }
        self.poke(unit, &bytes);
    }

    /// The next read of that unit comes from one unit further, if the class says so.
    fn misread(&self, class: Class, number: usize, role: usize) {
        let unit = &self.stripes[number].units[role];
        if class == Class::WrongRead {
            self.drives[unit.drive].misread_at.set(Some(unit.offset + 600));
        }
    }

    fn restore(&self, number: usize) {
        self.drives.iter().for_each(|drive| {
            drive.bad.replace(0..0);
            drive.misread_at.set(None);
        });
        let stripes = &self.stripes[number..number + 2];
        stripes.iter().flat_map(|stripe| &stripe.units).for_each(|unit| self.poke(unit, &unit.right));
    }

    fn lost_units(&self, number: usize, lost: [usize; 2]) -> usize {
        self.stripes[number].units.iter().filter(|unit| lost.contains(&unit.drive)).count()
    }

    /// Whether the whole of a stripe is read; what is read is right.
    async fn reads(&self, group: &Group, number: usize) -> bool {
        let stripe = &self.stripes[number];
        let read = group.read_stripe(stripe.id, stripe.generation).await;
        for (unit, bytes) in read.iter().flatten().enumerate() {
            assert!(bytes[..] == payload(stripe.id, stripe.generation, unit)[..], "wrong bytes in {}", stripe.id);
        }
        assert!(read.is_ok() || read == Err(Unreadable::TooMuchDamage), "{read:?}");
        read.is_ok()
    }

    /// The same for one data unit by itself.
    async fn reads_unit(&self, group: &Group, number: usize, unit: usize) -> bool {
        let stripe = &self.stripes[number];
        let wanted = payload(stripe.id, stripe.generation, unit);
        let offset = (unit * wanted.len()) as u32;
        let read = group.read(stripe.id, offset, wanted.len() as u32, &|bytes| bytes == wanted).await;
        assert!(read.as_ref().is_ok_and(|bytes| bytes[..] == wanted[..]) || read == Err(Unreadable::TooMuchDamage));
        read.is_ok()
    }

    /// The units that are not on lost drives are as they should be on their media.
    fn is_repaired(&self, number: usize, lost: [usize; 2]) -> bool {
        let mut units = self.stripes[number].units.iter().filter(|unit| !lost.contains(&unit.drive));
        units.all(|unit| self.media[unit.drive].peek(unit.offset) == unit.right)
    }

    /// One cell: whether the fault was masked. If not, exactly the stripes that it cost were named.
    async fn cell(&self, group: &Group, fault: Fault) -> bool {
        let Fault { class, number, role, lost } = fault;
        let what = || format!("{class:?} of unit {role} of {} without {lost:?}", self.stripes[number].id);
        let (own, next) = class.damages();
        let covered = [self.lost_units(number, lost) + own <= 2, self.lost_units(number + 1, lost) + next <= 2];
        self.hurt(class, number, role, lost);
        drop(group.drain_events());
        self.misread(class, number, role);
        let by_unit = self.reads_unit(group, number, role.min(DATA - 1)).await;
        assert!(by_unit || !covered[0], "{}", what());
        self.misread(class, number, role);
        assert_eq!(self.reads(group, number).await, covered[0], "{}", what());
        for (which, covered) in [(number, covered[0]), (number + 1, covered[1])] {
            self.misread(class, number, role);
            let verdict = group.scrub_stripe(self.stripes[which].id, self.stripes[which].generation).await;
            assert!(verdict.lost != covered && verdict.unrepaired.is_empty(), "{}: {verdict:?}", what());
            assert!(!covered || self.is_repaired(which, lost), "{}: not repaired", what());
        }
        let named = group.drain_events().into_iter().filter_map(|event| match event {
            Event::StripeLost { stripe } => Some(stripe),
            _ => None,
        });
        let cost = [number, number + 1].into_iter().zip(covered).filter(|(_, covered)| !covered);
        let cost: BTreeSet<StripeId> = cost.map(|(which, _)| self.stripes[which].id).collect();
        assert_eq!(named.collect::<BTreeSet<StripeId>>(), cost, "{}", what());
        // The other segment is none of its business.
        assert!(self.reads(group, (number + 2) % 4).await, "{}", what());
        self.restore(number);
        for which in [number, number + 1] {
            let verdict = group.scrub_stripe(self.stripes[which].id, self.stripes[which].generation).await;
            assert!(!verdict.lost && verdict.repaired.is_empty(), "{}: whole again: {verdict:?}", what());
        }
        assert_eq!(group.stripes_lost(), 0);
        covered[0]
    }

    /// All cells of a pair: how many faults of each class were masked, and how many named.
    async fn row(&self, group: &Group, lost: [usize; 2]) -> Vec<[usize; 2]> {
        let mut row = Vec::new();
        for class in CLASSES {
            let mut counts = [0; 2];
            for number in [0, 2] {
                for role in 0..WIDTH {
                    if !lost.contains(&self.stripes[number].units[role].drive) {
                        counts[usize::from(!self.cell(group, Fault { class, number, role, lost }).await)] += 1;
                    }
                }
            }
            row.push(counts);
        }
        row
    }

    /// The pair was never there; then it is pulled from an open group, and taken back.
    async fn pair(&self, lost: [usize; 2]) -> [Vec<[usize; 2]>; 2] {
        let left = self.drives.iter().enumerate().filter(|(drive, _)| !lost.contains(drive));
        let group = Group::open(ports(left.map(|(_, drive)| drive)), None, self.world.clone()).await.unwrap();
        let missing = self.row(&group, lost).await;
        drop(group);
        let group = Group::open(ports(self.drives.iter()), None, self.world.clone()).await.unwrap();
        lost.iter().for_each(|&drive| self.drives[drive].gone.set(true));
        let failed = self.row(&group, lost).await;
        for drive in lost {
            self.drives[drive].gone.set(false);
            let slot = Slot(drive as u8);
            group.rejoin_member(slot, self.drives[drive].clone()).await.unwrap();
            group.member_filled(slot).await.unwrap();
        }
        [missing, failed]
    }

    async fn table(&self, title: &str) {
        let mut text = format!("\n{title}: faults on a third unit that were masked + named, with two drives lost\n");
        let _ = writeln!(text, "| lost | {} |", CLASSES.map(|class| format!("{class:?}")).join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(CLASSES.len() + 1));
        let mut cells = 0;
        for first in 0..DRIVES {
            for second in first + 1..DRIVES {
                let [missing, failed] = self.pair([first, second]).await;
                assert_eq!(missing, failed, "it makes no difference how they were lost");
                let texts: Vec<String> = missing.iter().map(|[masked, named]| format!("{masked}+{named}")).collect();
                let _ = writeln!(text, "| {first}, {second} | {} |", texts.join(" | "));
                cells += 2 * missing.iter().flatten().sum::<usize>();
            }
        }
        println!("{text}{cells} faults in all");
    }
}

/// Decides R-RAID-03, R-STR-03, at the edge of the budget and beyond it: with every pair of drives lost, and every class
/// of fault on a third unit, what can be read is right and repaired, and what cannot is named.
#[test]
fn every_pair_and_a_fault_on_a_third_unit_on_simulated_drives() {
    let sim = SimWorld::new(1);
    let node = sim.node();
    let media: Vec<SimMedia> = (0..DRIVES).map(|number| sim.drive_media(&format!("d{number}"), DRIVE_BYTES)).collect();
    let drives = media.iter().map(|media| Hurt::new(node.drive(media))).collect();
    let media = media.into_iter().map(Media::Simulated).collect();
    sim.run_until(async { Stage::new(node.world(), media, drives).await.table("simulated drives").await }).done();
}

#[test]
fn every_pair_and_a_fault_on_a_third_unit_on_real_files() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..DRIVES).map(|number| folder.path().join(format!("drive{number}"))).collect();
    paths.iter().for_each(|path| create_sparse_file(path, DRIVE_BYTES).unwrap());
    let media = paths.iter().map(|path| OpenOptions::new().read(true).write(true).open(path).unwrap());
    let media = media.map(Media::Real).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let drives = paths.iter().map(|path| Hurt::new(open_drive(path, None).unwrap())).collect();
        Stage::new(real_world(), media, drives).await.table("real files").await;
    });
}
