//! What the CPU pays per record, the leg write left out: `cargo run --release -p journal
//! --example append_cost`. Legs here answer at once and keep nothing.

#![allow(clippy::unwrap_used, reason = "a measuring tool")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use base::port::{Chance, Clock, Leg, LegInfo, LegKind, LocalFuture, MediaFault, Spawn, World};
use base::time::{Nanos, WallNanos};
use base::{Buf, BufMut, Epoch, FileId, GroupId, Incarnation, Osn};
use journal::{Config, Journal, Kind, NewRecord, Scope, Sequence, Tag};

struct Instantly {
    start: Instant,
    tasks: RefCell<Vec<LocalFuture<'static, ()>>>,
}

impl Clock for Instantly {
    fn now(&self) -> Nanos {
        Nanos(self.start.elapsed().as_nanos() as u64)
    }
    fn wall(&self) -> WallNanos {
        WallNanos(0)
    }
    fn sleep_until(&self, _at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}
impl Spawn for Instantly {
    fn spawn(&self, _name: &'static str, task: LocalFuture<'static, ()>) {
        self.tasks.borrow_mut().push(task);
    }
}
impl Chance for Instantly {
    fn maybe(&self, _site: &'static str) -> bool {
        false
    }
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

struct NoLeg {
    head: RefCell<Vec<u8>>,
    writes: Cell<u64>,
}

impl Leg for NoLeg {
    fn info(&self) -> LegInfo {
        LegInfo { kind: LegKind::Simulated, name: "none".into(), capacity_bytes: 1 << 30, align_bytes: 4096 }
    }
    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        let head = self.head.borrow();
        let from = (offset_bytes as usize).min(head.len());
        let len = (head.len() - from).min(buf.len());
        buf[..len].copy_from_slice(&head[from..from + len]);
        Box::pin(ready((Ok(()), buf)))
    }
    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.writes.set(self.writes.get() + 1);
        let mut head = self.head.borrow_mut();
        if offset_bytes == 0 && head.is_empty() || offset_bytes < 12_288 && data.len() == 4096 {
            head.resize(12_288, 0);
            let at = offset_bytes as usize;
            let len = data.len().min(12_288 - at);
            head[at..at + len].copy_from_slice(&data[..len]);
        }
        Box::pin(ready(Ok(())))
    }
}

fn run<T>(door: &Instantly, main: impl Future<Output = T>) -> T {
    let mut main = pin!(main);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
            return value;
        }
        let mut tasks = door.tasks.take();
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        door.tasks.borrow_mut().append(&mut tasks);
    }
}

async fn rounds(journal: &Journal, depth: u64, count: u64, body: &[u8]) {
    let held = Rc::new(RefCell::new(VecDeque::new()));
    let holder = held.clone();
    // As a destager would: hold the last 4 MiB or so of bodies.
    journal.set_on_stable(move |record| {
        let mut held = holder.borrow_mut();
        held.push_back(record.body);
        if held.len() > 500 {
            held.pop_front();
        }
    });
    let mut osn = 0;
    while osn < count {
        let mut last = Sequence(0);
        for _ in 0..depth {
            osn += 1;
            let scope = Scope { file: FileId(1), offset_bytes: osn * 8192, length_bytes: body.len() as u64 };
            let tag = Tag { kind: Kind::WRITE, stream: 1, epoch: Epoch(1), osn: Osn(osn), scope };
            last = journal.try_append(NewRecord { tag, body: &[body] }).unwrap().sequence;
        }
        let through = journal.stable(last).await.unwrap().through();
        journal.trim(through);
    }
}

fn main() {
    let door = Rc::new(Instantly { start: Instant::now(), tasks: RefCell::default() });
    let world = World { clock: door.clone(), spawn: door.clone(), chance: door.clone() };
    let leg = Rc::new(NoLeg { head: RefCell::default(), writes: Cell::new(0) });
    let legs: Vec<Rc<dyn Leg>> = vec![leg.clone()];
    run(&door, async {
        let incarnations = [Incarnation([1; 16])];
        let root = Journal::format(&legs, GroupId([1; 16]), &incarnations, Sequence(1)).await.unwrap();
        let (journal, _) = Journal::open(legs, &root, world, Config::default()).await.unwrap();
        let body: Vec<u8> = (0..1 << 20).map(|index| (index * 31) as u8).collect();
        for (len, count) in [(512, 200_000), (8192, 200_000), (65_536, 30_000), (1 << 20, 2_000)] {
            for depth in [1, 4, 16] {
                if depth * len > 8 << 20 {
                    continue;
                }
                let writes = leg.writes.get();
                let start = Instant::now();
                rounds(&journal, depth, count, &body[..len as usize]).await;
                let each = start.elapsed().as_nanos() as f64 / count as f64;
                let writes = leg.writes.get() - writes;
                println!("{len:>8} B depth {depth:>2}: {each:>9.0} ns per record, {writes} writes for {count}");
            }
        }
        poll_fn(|_| Poll::Ready(())).await;
    });
}
