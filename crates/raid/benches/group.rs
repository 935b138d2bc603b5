//! Software time of the group over drives that are plain memory: what is left is ours.
//! Run with `cargo bench -p raid --bench group`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use base::buf::{Buf, BufMut};
use base::check::media_check;
use base::port::{Chance, Clock, Drive, DriveInfo, LocalFuture, MediaFault, Spawn, World};
use base::time::{Nanos, WallNanos};
use raid::{Group, GroupOptions, StripeId};

const DRIVE_BYTES: usize = 64 << 20;

/// Memory that answers at once.
struct Memory(RefCell<Vec<u8>>);

impl Drive for Memory {
    fn info(&self) -> DriveInfo {
        let capacity_bytes = DRIVE_BYTES as u64;
        DriveInfo {
            model: "memory".into(),
            serial: "".into(),
            capacity_bytes,
            align_bytes: 512,
            turns: false,
            access: "memory",
        }
    }
    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        let (at, len) = (offset_bytes as usize, buf.len());
        buf.copy_from_slice(&self.0.borrow()[at..at + len]);
        Box::pin(std::future::ready((Ok(()), buf)))
    }
    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        let mut at = offset_bytes as usize;
        for piece in data {
            self.0.borrow_mut()[at..at + piece.len()].copy_from_slice(&piece);
            at += piece.len();
        }
        Box::pin(std::future::ready(Ok(())))
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A drive that is not there any more.
struct Gone;

impl Drive for Gone {
    fn info(&self) -> DriveInfo {
        Memory(RefCell::default()).info()
    }
    fn read(&self, _: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(std::future::ready((Err(MediaFault::Gone), buf)))
    }
    fn write(&self, _: u64, _: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(std::future::ready(Err(MediaFault::Gone)))
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(std::future::ready(Err(MediaFault::Gone)))
    }
}

/// A world in which nothing happens by itself.
struct Still;

impl Clock for Still {
    fn now(&self) -> Nanos {
        Nanos(0)
    }
    fn wall(&self) -> WallNanos {
        WallNanos(0)
    }
    fn sleep_until(&self, _: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
impl Spawn for Still {
    fn spawn(&self, _: &'static str, _: LocalFuture<'static, ()>) {}
}
/// Each number once: drives must not have the same id.
#[derive(Default)]
struct Numbers(Cell<u8>);

impl Chance for Numbers {
    fn maybe(&self, _: &'static str) -> bool {
        false
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.0.set(self.0.get().wrapping_add(1));
        bytes.fill(self.0.get());
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory answers at once"),
    }
}

fn world() -> World {
    World { clock: Rc::new(Still), spawn: Rc::new(Still), chance: Rc::new(Numbers::default()) }
}

/// Median of `count` timings of `work`, in microseconds.
fn median_us(count: usize, mut work: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..count)
        .map(|index| {
            let start = Instant::now();
            work(index);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

fn main() {
    let drives: Vec<Rc<Memory>> = (0..12).map(|_| Rc::new(Memory(RefCell::new(vec![0; DRIVE_BYTES])))).collect();
    let ports: Vec<Rc<dyn Drive>> = drives.iter().map(|drive| drive.clone() as Rc<dyn Drive>).collect();
    let group = now(Group::create(ports.clone(), GroupOptions::default(), world())).unwrap();
    let segment = now(group.open_segment()).unwrap();
    let rows = group.rows_per_segment() as usize;
    let payload = group.unit_payload_bytes();
    println!("| what | median |");
    println!("|---|---|");

    let mut generation = 0;
    let write_us = median_us(300, |index| {
        let units = (0..10).map(|_| group.take_unit()).collect();
        generation += 1;
        let id = StripeId { segment, row: (index % rows) as u32 };
        now(group.write_stripe(id, generation, units)).unwrap();
    });
    let unit = vec![1u8; group.unit_bytes() as usize];
    let mut target = unit.clone();
    let copy_us = median_us(300, |_| (0..12).for_each(|_| target.copy_from_slice(std::hint::black_box(&unit))));
    println!("| write a 10+2 stripe of 132 KiB units (12 units into memory) | {write_us:.0} µs |");
    println!("| of this, the drives' own memory copy (12 units, warm) | {copy_us:.0} µs |");
    println!("| payload rate of that | {:.1} GB/s |", f64::from(payload) * 10.0 / write_us / 1e3);

    let ids: Vec<StripeId> = (0..rows as u32).map(|row| StripeId { segment, row }).collect();
    let read = |group: &Group, index: usize, len: u32| {
        let unit = index as u32 % 10;
        let offset = unit * payload + (index as u32 * 8256) % (payload - len);
        let verify = |bytes: &[u8]| media_check(1, bytes).0 != 1;
        now(group.read(ids[index % rows], offset, len, &verify)).unwrap();
    };
    for len in [4096, 8192] {
        let us = median_us(20_000, |index| read(&group, index, len));
        println!("| read {len} bytes, verified by a CRC | {us:.2} µs |");
    }
    let mut two_gone = ports;
    two_gone[3] = Rc::new(Gone);
    two_gone[7] = Rc::new(Gone);
    let group = now(Group::open(two_gone, None, world())).unwrap();
    let us = median_us(20_000, |index| read(&group, index, 8192));
    println!("| read 8192 bytes, two of twelve drives gone (one read in six is rebuilt) | {us:.2} µs |");
    let lost: Vec<usize> = (0..240).filter(|&index| rebuilt(&group, || read(&group, index, 8192))).collect();
    let us = median_us(5_000, |index| read(&group, lost[index % lost.len()], 8192));
    println!("| the rebuilt ones among these | {us:.1} µs |");
}

/// Whether `work` needed a reconstruction.
fn rebuilt(group: &Group, work: impl FnOnce()) -> bool {
    let before = group.counters().reads_reconstructed;
    work();
    group.counters().reads_reconstructed > before
}
