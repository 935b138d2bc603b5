//! A world of one thread and memory drives that can be hurt in every way of `faults.md`
//! F01 to F14 that concerns a drive.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod history;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::buf::{Buf, BufMut};
use base::port::{Chance, Clock, Drive, DriveInfo, LocalFuture, MediaFault, Spawn, World};
use base::time::{Nanos, WallNanos};

/// Sector of the simulated media.
pub const SECTOR: usize = 512;

type Task = LocalFuture<'static, ()>;

/// Runs futures on this thread, one poll each in turn.
#[derive(Default)]
pub struct Loop {
    fresh: RefCell<VecDeque<Task>>,
    now: Rc<Cell<u64>>,
    seed: Cell<u64>,
}

impl Spawn for Loop {
    fn spawn(&self, _name: &'static str, task: Task) {
        self.fresh.borrow_mut().push_back(task);
    }
}

impl Clock for Loop {
    fn now(&self) -> Nanos {
        self.now.set(self.now.get() + 1000);
        Nanos(self.now.get())
    }
    fn wall(&self) -> WallNanos {
        WallNanos(self.now.get())
    }
    /// Time passes only for who waits long: the drives here answer after a few turns, so a
    /// limit on them is not met.
    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        const TURNS: u32 = 100;
        let (now, mut turns) = (self.now.clone(), 0);
        Box::pin(std::future::poll_fn(move |context| {
            turns += 1;
            if turns > TURNS {
                now.set(now.get().max(at.0));
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }))
    }
}

impl Chance for Loop {
    fn maybe(&self, _site: &'static str) -> bool {
        false
    }
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.random() >> 32) as u8;
        }
    }
}

impl Loop {
    pub fn random(&self) -> u64 {
        let mut z = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A loop and the world made of it.
pub struct Bench {
    pub turns: Rc<Loop>,
    tasks: RefCell<Vec<Task>>,
}

impl Bench {
    pub fn new(seed: u64) -> Bench {
        let turns = Rc::new(Loop::default());
        turns.seed.set(seed);
        Bench { turns, tasks: RefCell::default() }
    }

    pub fn world(&self) -> World {
        World { clock: self.turns.clone(), spawn: self.turns.clone(), chance: self.turns.clone() }
    }

    /// Runs `main` and everything spawned until both are done.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let mut context = Context::from_waker(Waker::noop());
        let mut result = None;
        for _ in 0..10_000_000 {
            if result.is_none()
                && let Poll::Ready(value) = main.as_mut().poll(&mut context)
            {
                result = Some(value);
            }
            self.tasks.borrow_mut().extend(self.turns.fresh.borrow_mut().drain(..));
            let mut tasks = self.tasks.take();
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            let idle = tasks.is_empty() && self.turns.fresh.borrow().is_empty();
            self.tasks.borrow_mut().extend(tasks);
            if idle && let Some(value) = result {
                return value;
            }
        }
        panic!("nothing finishes");
    }

    /// Polls `main` and everything spawned at most `polls` times, then drops all of it:
    /// a crash. `None` if `main` was not done.
    pub fn crash_after<T>(&self, polls: usize, main: impl Future<Output = T>) -> Option<T> {
        let mut main = pin!(main);
        let mut context = Context::from_waker(Waker::noop());
        let mut result = None;
        for _ in 0..polls {
            if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
                result = Some(value);
                break;
            }
            self.tasks.borrow_mut().extend(self.turns.fresh.borrow_mut().drain(..));
            let mut tasks = self.tasks.take();
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            self.tasks.borrow_mut().extend(tasks);
        }
        self.tasks.borrow_mut().clear();
        self.turns.fresh.borrow_mut().clear();
        result
    }
}

/// Waits for so many turns of the loop.
pub async fn yields(turns: u32) {
    for _ in 0..turns {
        let mut yielded = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }
}

/// One entry of a drive's write trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub offset_bytes: u64,
    pub len_bytes: usize,
}

/// What the next operations of a drive do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// The next write is acknowledged and dropped.
    LoseWrite,
    /// Of the next write only the first half of the sectors arrives.
    TearWrite,
    /// The next write goes this many bytes further.
    ShiftWrite(i64),
    /// The next read returns what is this many bytes further.
    ShiftRead(i64),
}

/// A drive in memory.
pub struct MemoryDrive {
    pub serial: String,
    pub capacity_bytes: Cell<u64>,
    sectors: RefCell<BTreeMap<u64, [u8; SECTOR]>>,
    /// Writes since the last flush, for power cuts.
    volatile: RefCell<Vec<(u64, Option<[u8; SECTOR]>)>>,
    pub gone: Cell<bool>,
    pub read_only: Cell<bool>,
    pub flush_fails: Cell<bool>,
    /// Reads that touch a sector of this range fail.
    pub bad: RefCell<Vec<std::ops::Range<u64>>>,
    /// Writes into a bad range heal it.
    pub writes_heal: Cell<bool>,
    /// This many following reads fail.
    pub read_errors: Cell<u32>,
    pub write_errors: Cell<u32>,
    pub tricks: RefCell<VecDeque<Trick>>,
    /// Yields before each operation.
    pub yields: Cell<u32>,
    pub writes: RefCell<Vec<Trace>>,
    pub reads: Cell<u64>,
    pub flushes: Cell<u64>,
    pub read_bytes: Cell<u64>,
    /// Where the last read ended, and how far reads have gone to begin elsewhere.
    head: Cell<u64>,
    pub seek_bytes: Cell<u64>,
}

impl MemoryDrive {
    pub fn new(serial: &str, capacity_bytes: u64) -> Rc<MemoryDrive> {
        Rc::new(MemoryDrive {
            serial: serial.to_owned(),
            capacity_bytes: Cell::new(capacity_bytes),
            sectors: RefCell::default(),
            volatile: RefCell::default(),
            gone: Cell::new(false),
            read_only: Cell::new(false),
            flush_fails: Cell::new(false),
            bad: RefCell::default(),
            writes_heal: Cell::new(true),
            read_errors: Cell::new(0),
            write_errors: Cell::new(0),
            tricks: RefCell::default(),
            yields: Cell::new(0),
            writes: RefCell::default(),
            reads: Cell::new(0),
            flushes: Cell::new(0),
            read_bytes: Cell::new(0),
            head: Cell::new(0),
            seek_bytes: Cell::new(0),
        })
    }

    /// The same bytes on another drive.
    pub fn copy(&self, serial: &str) -> Rc<MemoryDrive> {
        let copy = MemoryDrive::new(serial, self.capacity_bytes.get());
        *copy.sectors.borrow_mut() = self.sectors.borrow().clone();
        copy
    }

    /// Bytes as they are now, without any fault.
    pub fn peek(&self, offset_bytes: u64, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes.next_multiple_of(SECTOR)];
        self.peek_into(offset_bytes, &mut bytes);
        bytes.truncate(len_bytes);
        bytes
    }

    /// The same into whole sectors.
    fn peek_into(&self, offset_bytes: u64, bytes: &mut [u8]) {
        let sectors = self.sectors.borrow();
        let first = offset_bytes / SECTOR as u64;
        let mut at = 0;
        for (&sector, content) in sectors.range(first..first + (bytes.len() / SECTOR) as u64) {
            let start = (sector - first) as usize * SECTOR;
            bytes[at..start].fill(0);
            bytes[start..start + SECTOR].copy_from_slice(content);
            at = start + SECTOR;
        }
        bytes[at..].fill(0);
    }

    /// Changes bytes on the media, behind everyone's back.
    pub fn poke(&self, offset_bytes: u64, bytes: &[u8]) {
        assert!(offset_bytes.is_multiple_of(SECTOR as u64) && bytes.len().is_multiple_of(SECTOR));
        let mut sectors = self.sectors.borrow_mut();
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            sectors.insert(offset_bytes / SECTOR as u64 + index as u64, sector.try_into().unwrap());
        }
    }

    /// Flips one bit.
    pub fn flip(&self, offset_bytes: u64, bit: u8) {
        let at = offset_bytes / SECTOR as u64 * SECTOR as u64;
        let mut sector = self.peek(at, SECTOR);
        sector[(offset_bytes - at) as usize] ^= 1 << bit;
        self.poke(at, &sector);
    }

    /// Forgets everything.
    pub fn wipe(&self) {
        self.sectors.borrow_mut().clear();
    }

    /// Power cut: of the sectors written since the last flush, those for which `keep`
    /// says no go back to what they were.
    pub fn power_cut(&self, mut keep: impl FnMut() -> bool) {
        let mut sectors = self.sectors.borrow_mut();
        for (sector, before) in self.volatile.borrow_mut().drain(..).rev() {
            if !keep() {
                match before {
                    Some(before) => sectors.insert(sector, before),
                    None => sectors.remove(&sector),
                };
            }
        }
    }

    async fn pause(&self) {
        yields(self.yields.get()).await;
    }

    fn take_trick(&self, wanted: impl Fn(&Trick) -> bool) -> Option<Trick> {
        let mut tricks = self.tricks.borrow_mut();
        let index = tricks.iter().position(wanted)?;
        tricks.remove(index)
    }

    fn is_bad(&self, offset_bytes: u64, len_bytes: usize) -> bool {
        let end = offset_bytes + len_bytes as u64;
        self.bad.borrow().iter().any(|bad| bad.start < end && offset_bytes < bad.end)
    }

    fn do_read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<(), MediaFault> {
        assert!(offset_bytes.is_multiple_of(SECTOR as u64) && buf.len().is_multiple_of(SECTOR), "aligned");
        if self.gone.get() || offset_bytes + buf.len() as u64 > self.capacity_bytes.get() {
            return Err(MediaFault::Gone);
        }
        self.reads.set(self.reads.get() + 1);
        self.read_bytes.set(self.read_bytes.get() + buf.len() as u64);
        self.seek_bytes.set(self.seek_bytes.get() + self.head.get().abs_diff(offset_bytes));
        self.head.set(offset_bytes + buf.len() as u64);
        if self.read_errors.get() > 0 {
            self.read_errors.set(self.read_errors.get() - 1);
            return Err(MediaFault::Io);
        }
        if self.is_bad(offset_bytes, buf.len()) {
            return Err(MediaFault::Io);
        }
        let shift = match self.take_trick(|trick| matches!(trick, Trick::ShiftRead(_))) {
            Some(Trick::ShiftRead(shift)) => shift,
            _ => 0,
        };
        self.peek_into(offset_bytes.checked_add_signed(shift).unwrap(), buf);
        Ok(())
    }

    fn do_write(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediaFault> {
        assert!(offset_bytes.is_multiple_of(SECTOR as u64) && data.len().is_multiple_of(SECTOR), "aligned");
        if self.gone.get() || offset_bytes + data.len() as u64 > self.capacity_bytes.get() {
            return Err(MediaFault::Gone);
        }
        if self.read_only.get() {
            return Err(MediaFault::ReadOnly);
        }
        if self.write_errors.get() > 0 {
            self.write_errors.set(self.write_errors.get() - 1);
            return Err(MediaFault::Io);
        }
        self.writes.borrow_mut().push(Trace { offset_bytes, len_bytes: data.len() });
        if self.writes_heal.get() {
            let end = offset_bytes + data.len() as u64;
            self.bad.borrow_mut().retain(|bad| bad.end <= offset_bytes || end <= bad.start);
        }
        let trick = self.take_trick(|trick| !matches!(trick, Trick::ShiftRead(_)));
        let (at, len) = match trick {
            Some(Trick::LoseWrite) => return Ok(()),
            Some(Trick::TearWrite) => (offset_bytes, (data.len() / 2).next_multiple_of(SECTOR)),
            Some(Trick::ShiftWrite(shift)) => (offset_bytes.checked_add_signed(shift).unwrap(), data.len()),
            _ => (offset_bytes, data.len()),
        };
        let mut volatile = self.volatile.borrow_mut();
        for sector in at / SECTOR as u64..(at + len as u64) / SECTOR as u64 {
            volatile.push((sector, self.sectors.borrow().get(&sector).copied()));
        }
        self.poke(at, &data[..len]);
        Ok(())
    }
}

impl Drive for MemoryDrive {
    fn info(&self) -> DriveInfo {
        DriveInfo {
            model: "memory".to_owned(),
            serial: self.serial.clone(),
            capacity_bytes: self.capacity_bytes.get(),
            align_bytes: SECTOR as u32,
            turns: false,
            access: "memory",
        }
    }
    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            self.pause().await;
            let outcome = self.do_read(offset_bytes, &mut buf);
            (outcome, buf)
        })
    }
    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            self.pause().await;
            let whole = data.iter().map(|piece| &piece[..]).collect::<Vec<_>>().concat();
            self.do_write(offset_bytes, &whole)
        })
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            self.pause().await;
            if self.gone.get() {
                return Err(MediaFault::Gone);
            }
            if self.flush_fails.get() {
                return Err(MediaFault::Io);
            }
            self.flushes.set(self.flushes.get() + 1);
            self.volatile.borrow_mut().clear();
            Ok(())
        })
    }
}

/// A bench with drives.
pub struct Rig {
    pub bench: Bench,
    pub drives: Vec<Rc<MemoryDrive>>,
}

/// Ports of `drives`.
pub fn ports(drives: &[Rc<MemoryDrive>]) -> Vec<Rc<dyn Drive>> {
    drives.iter().map(|drive| drive.clone() as Rc<dyn Drive>).collect()
}

/// Unit size the tests use.
pub const UNIT: u32 = 16 << 10;

impl Rig {
    /// `count` drives of 8 MiB.
    pub fn new(count: usize, seed: u64) -> Rig {
        let drives = (0..count).map(|index| MemoryDrive::new(&format!("m{index}"), 8 << 20)).collect();
        Rig { bench: Bench::new(seed), drives }
    }

    pub fn options(data_width_max: u8) -> raid::GroupOptions {
        raid::GroupOptions { data_width_max, unit_bytes: UNIT, ..raid::GroupOptions::default() }
    }

    pub fn create(&self, data_width_max: u8) -> raid::Group {
        let create = raid::Group::create(ports(&self.drives), Self::options(data_width_max), self.bench.world());
        self.bench.run(create).unwrap()
    }

    pub fn open(&self) -> Result<raid::Group, raid::OpenRefused> {
        self.bench.run(raid::Group::open(ports(&self.drives), None, self.bench.world()))
    }
}

/// Payload of data unit `unit` of a stripe: anything, but a function of these.
pub fn payload(id: raid::StripeId, generation: u64, unit: usize, len_bytes: usize) -> Vec<u8> {
    let mut state = id.pack() ^ generation.rotate_left(40) ^ (unit as u64).rotate_left(20) ^ 0x5151;
    let mut bytes = Vec::with_capacity(len_bytes + 8);
    while bytes.len() < len_bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(len_bytes);
    bytes
}

/// Writes a stripe of such payloads.
pub async fn write(
    group: &raid::Group,
    id: raid::StripeId,
    generation: u64,
) -> Result<raid::Written, raid::WriteFault> {
    let data = group.geometry(id.segment).unwrap().data;
    let units = (0..usize::from(data)).map(|unit| {
        let mut buf = group.take_unit();
        let bytes = payload(id, generation, unit, group.unit_payload_bytes() as usize);
        buf[raid::UNIT_HEADER_BYTES..].copy_from_slice(&bytes);
        buf
    });
    group.write_stripe(id, generation, units.collect()).await
}

/// Reads `len_bytes` at `offset_bytes` of data unit `unit` and compares.
pub async fn check_range(
    group: &raid::Group,
    id: raid::StripeId,
    generation: u64,
    unit: usize,
    range: std::ops::Range<usize>,
) -> Result<(), raid::Unreadable> {
    let len = group.unit_payload_bytes() as usize;
    let wanted = payload(id, generation, unit, len)[range.clone()].to_vec();
    let offset = (unit * len + range.start) as u32;
    let bytes = group.read(id, offset, range.len() as u32, &|bytes| bytes == wanted).await?;
    assert_eq!(&bytes[..], &wanted[..], "verified and returned differ");
    Ok(())
}

/// Reads every data unit whole and compares.
pub async fn check_stripe(group: &raid::Group, id: raid::StripeId, generation: u64) -> Result<(), raid::Unreadable> {
    let units = group.read_stripe(id, generation).await?;
    let len = group.unit_payload_bytes() as usize;
    for (unit, bytes) in units.iter().enumerate() {
        assert!(bytes[..] == payload(id, generation, unit, len)[..], "wrong bytes in {id} unit {unit}");
    }
    Ok(())
}

/// Where the unit with `role` of a stripe is: drive index and offset. From the unit
/// headers on the drives, as a test of the format would find it.
pub fn find_unit(rig: &Rig, group: &raid::Group, id: raid::StripeId, generation: u64, role: usize) -> (usize, u64) {
    let unit = u64::from(group.unit_bytes());
    for (index, drive) in rig.drives.iter().enumerate() {
        let mut offset = 0;
        while offset + unit <= drive.capacity_bytes.get() {
            if let Ok(header) = raid::unit::UnitHeader::decode(&drive.peek(offset, SECTOR))
                && header.stripe == id
                && header.generation == generation
                && usize::from(header.role) == role
            {
                return (index, offset);
            }
            offset += 4096;
        }
    }
    panic!("no unit {role} of {id}");
}

/// Silences an unused import when a test binary needs no pinning.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
