//! A small deterministic world for the journal's own tests: seeded dice, virtual time,
//! tasks that run only when woken, and legs in memory whose unfinished writes leave any
//! subset of their sectors behind when the power goes.

#![allow(dead_code, reason = "each test file uses a part")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use base::port::{Chance, Clock, Leg, LegInfo, LegKind, LocalFuture, MediaFault, Spawn, World};
use base::time::{Nanos, WallNanos};
use base::{Buf, BufMut};

pub const SECTOR_BYTES: usize = 512;

/// SplitMix64.
pub struct Dice(Cell<u64>);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Cell::new(seed))
    }
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Flag(AtomicBool);
impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task = (Arc<Flag>, LocalFuture<'static, ()>);

/// One boot of the machine.
pub struct Machine {
    pub dice: Rc<Dice>,
    now: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    timer_count: Cell<u64>,
    new_tasks: RefCell<Vec<Task>>,
    variation: bool,
}

struct Sleep {
    machine: Rc<Machine>,
    /// When, and which of those at the same time.
    key: (u64, u64),
}
impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.machine.now.get() >= self.key.0 {
            return Poll::Ready(());
        }
        self.machine.timers.borrow_mut().insert(self.key, context.waker().clone());
        Poll::Pending
    }
}
impl Drop for Sleep {
    fn drop(&mut self) {
        self.machine.timers.borrow_mut().remove(&self.key);
    }
}

struct Door(Rc<Machine>);
impl Clock for Door {
    fn now(&self) -> Nanos {
        Nanos(self.0.now.get())
    }
    fn wall(&self) -> WallNanos {
        WallNanos(self.0.now.get())
    }
    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        self.0.sleep_until(at.0)
    }
}
impl Spawn for Door {
    fn spawn(&self, _name: &'static str, task: LocalFuture<'static, ()>) {
        self.0.new_tasks.borrow_mut().push((Arc::new(Flag(AtomicBool::new(true))), task));
    }
}
impl Chance for Door {
    fn maybe(&self, _site: &'static str) -> bool {
        self.0.variation && self.0.dice.one_in(4)
    }
    fn fill(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.0.dice.next() as u8);
    }
}

impl Machine {
    pub fn boot(seed: u64, variation: bool) -> Rc<Machine> {
        Rc::new(Machine {
            dice: Rc::new(Dice::new(seed)),
            now: Cell::new(1),
            timers: RefCell::default(),
            timer_count: Cell::new(0),
            new_tasks: RefCell::default(),
            variation,
        })
    }

    pub fn world(self: &Rc<Machine>) -> World {
        let door = Rc::new(Door(self.clone()));
        World { clock: door.clone(), spawn: door.clone(), chance: door }
    }

    pub fn sleep(self: &Rc<Machine>, nanos: u64) -> LocalFuture<'static, ()> {
        self.sleep_until(self.now.get() + nanos)
    }

    fn sleep_until(self: &Rc<Machine>, at: u64) -> LocalFuture<'static, ()> {
        let id = self.timer_count.get();
        self.timer_count.set(id + 1);
        Box::pin(Sleep { machine: self.clone(), key: (at, id) })
    }

    /// Runs `main` and everything spawned until `main` is done, or for at most `polls`
    /// polls (a power cut): then `None`. Panics if nothing can run any more.
    pub fn run<T: 'static>(self: &Rc<Machine>, polls: u64, main: impl Future<Output = T> + 'static) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.new_tasks.borrow_mut().push((
            Arc::new(Flag(AtomicBool::new(true))),
            Box::pin(async move {
                let value = main.await;
                *slot.borrow_mut() = Some(value);
            }),
        ));
        let mut tasks: Vec<Task> = Vec::new();
        let mut left = polls;
        while result.borrow().is_none() {
            tasks.append(&mut self.new_tasks.borrow_mut());
            let ready: Vec<usize> =
                (0..tasks.len()).filter(|&index| tasks[index].0.0.load(Ordering::Relaxed)).collect();
            if ready.is_empty() {
                let Some(((at, _), waker)) = self.timers.borrow_mut().pop_first() else {
                    panic!("everything waits and nothing will wake it");
                };
                self.now.set(self.now.get().max(at));
                waker.wake();
                continue;
            }
            if left == 0 {
                return None;
            }
            left -= 1;
            let pick = ready[self.dice.below(ready.len() as u64) as usize];
            let (flag, task) = &mut tasks[pick];
            flag.0.store(false, Ordering::Relaxed);
            let waker = Waker::from(flag.clone());
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                drop(tasks.swap_remove(pick));
            }
        }
        result.borrow_mut().take()
    }
}

/// A leg in memory. It outlives machines; plug it in with [`MemoryLeg::plug`].
pub struct MemoryLeg {
    pub bytes: RefCell<Vec<u8>>,
    unfinished: RefCell<BTreeMap<u64, (usize, Buf)>>,
    next_write: Cell<u64>,
    pub writes: Cell<u64>,
    /// Every write fails with this.
    pub write_fault: Cell<Option<MediaFault>>,
    /// Writes started while this is set never finish.
    pub hold: Cell<bool>,
    /// Reads of these 4 KiB blocks fail.
    pub unreadable: RefCell<BTreeSet<u64>>,
    /// Whether it takes pieces from where they lie.
    pub gathers: Cell<bool>,
    machine: RefCell<Option<Rc<Machine>>>,
}

impl MemoryLeg {
    pub fn new(capacity_bytes: usize) -> Rc<MemoryLeg> {
        Rc::new(MemoryLeg {
            bytes: RefCell::new(vec![0xa5; capacity_bytes]),
            unfinished: RefCell::default(),
            next_write: Cell::new(0),
            writes: Cell::new(0),
            write_fault: Cell::new(None),
            hold: Cell::new(false),
            unreadable: RefCell::default(),
            gathers: Cell::new(false),
            machine: RefCell::new(None),
        })
    }

    pub fn plug(self: &Rc<MemoryLeg>, machine: &Rc<Machine>) -> Rc<dyn Leg> {
        *self.machine.borrow_mut() = Some(machine.clone());
        self.clone()
    }

    fn machine(&self) -> Rc<Machine> {
        self.machine.borrow().clone().unwrap()
    }

    /// Unfinished writes, oldest first.
    pub fn unfinished(&self) -> Vec<(usize, Buf)> {
        self.unfinished.borrow().values().cloned().collect()
    }

    /// The power goes: of every unfinished write the sectors for which `keep` says so
    /// are there.
    pub fn cut(&self, mut keep: impl FnMut() -> bool) {
        for (_, (offset, data)) in std::mem::take(&mut *self.unfinished.borrow_mut()) {
            for (index, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                if keep() {
                    let at = offset + index * SECTOR_BYTES;
                    self.bytes.borrow_mut()[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        *self.machine.borrow_mut() = None;
    }
}

impl Leg for MemoryLeg {
    fn info(&self) -> LegInfo {
        LegInfo {
            kind: LegKind::Simulated,
            name: "memory".into(),
            capacity_bytes: self.bytes.borrow().len() as u64,
            align_bytes: SECTOR_BYTES as u32,
        }
    }

    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            let blocks = offset_bytes / 4096..(offset_bytes + buf.len() as u64).div_ceil(4096);
            if self.unreadable.borrow().range(blocks).next().is_some() {
                return (Err(MediaFault::Io), buf);
            }
            let at = offset_bytes as usize;
            let len = buf.len();
            buf.copy_from_slice(&self.bytes.borrow()[at..at + len]);
            (Ok(()), buf)
        })
    }

    fn gathers(&self) -> bool {
        self.gathers.get()
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        assert!(offset_bytes.is_multiple_of(4096) && data.len().is_multiple_of(4096), "whole blocks");
        assert_eq!(data.as_ptr() as usize % 4096, 0, "aligned memory");
        self.writes.set(self.writes.get() + 1);
        let id = self.next_write.get();
        self.next_write.set(id + 1);
        self.unfinished.borrow_mut().insert(id, (offset_bytes as usize, data));
        let machine = self.machine();
        let hold = self.hold.get();
        let pause = 1_000 + machine.dice.below(50_000);
        Box::pin(async move {
            machine.sleep(pause).await;
            if hold {
                std::future::pending::<()>().await;
            }
            if let Some(fault) = self.write_fault.get() {
                return Err(fault);
            }
            let (offset, data) = self.unfinished.borrow_mut().remove(&id).unwrap();
            self.bytes.borrow_mut()[offset..offset + data.len()].copy_from_slice(&data);
            let blocks = offset as u64 / 4096..(offset + data.len()) as u64 / 4096;
            self.unreadable.borrow_mut().retain(|block| !blocks.contains(block));
            Ok(())
        })
    }
}
