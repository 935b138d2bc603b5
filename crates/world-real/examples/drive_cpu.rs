//! CPU time per 8 KiB I/O for each way of driving a file, at depth 1 and 16.
//!
//! `cargo run --release -p world-real --example drive_cpu -- [folder on a disk] [seconds]`
//!
//! CPU time is that of the whole process, so threads count. The file is filled first:
//! writes into holes cost the file system more.
#![allow(clippy::unwrap_used, reason = "a measuring program")]

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::BufPool;
use base::port::{Drive, Leg};
use rustix::time::{ClockId, clock_gettime};
use world_real::{Ring, create_zeroed_file, open_drive, open_leg};

const BLOCK_BYTES: u64 = 8192;
const FILE_BYTES: u64 = 256 << 20;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn next_place(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % (FILE_BYTES / BLOCK_BYTES) * BLOCK_BYTES
}

#[derive(Clone)]
enum Op {
    Read(Rc<dyn Drive>),
    Write(Rc<dyn Drive>),
    LegWrite(Rc<dyn Leg>),
}

async fn one(op: &Op, at: u64, pool: &BufPool) {
    match op {
        Op::Read(drive) => drive.read(at, pool.take(BLOCK_BYTES as usize)).await.0.unwrap(),
        Op::Write(drive) => drive.write(at, vec![pool.take(BLOCK_BYTES as usize).freeze()]).await.unwrap(),
        Op::LegWrite(leg) => leg.write(at, pool.take(BLOCK_BYTES as usize).freeze()).await.unwrap(),
    }
}

async fn measure(label: &str, op: Op, depth: u64, time: Duration) {
    let pool = BufPool::new(BLOCK_BYTES as usize, 64);
    let (start, cpu_start) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..depth)
        .map(|task| {
            let (op, pool) = (op.clone(), pool.clone());
            tokio::task::spawn_local(async move {
                let (mut state, mut count) = (task, 0u64);
                while start.elapsed() < time {
                    one(&op, next_place(&mut state), &pool).await;
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    let (cpu, wall) = (cpu_time() - cpu_start, start.elapsed());
    let per_op = cpu.as_secs_f64() * 1e6 / count as f64;
    println!("{label:40} depth {depth:2}  {per_op:7.2} us CPU/op  {:9.0} op/s", count as f64 / wall.as_secs_f64());
}

async fn measure_drive(label: &str, path: &Path, ring: Option<&Ring>, time: Duration) {
    let drive = open_drive(path, ring).unwrap();
    let access = drive.info().access;
    for depth in [1, 16] {
        measure(&format!("{label} read ({access})"), Op::Read(drive.clone()), depth, time).await;
        measure(&format!("{label} write ({access})"), Op::Write(drive.clone()), depth, time).await;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| ".".to_string());
    let time = Duration::from_secs_f64(arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0));
    let disk = tempfile::tempdir_in(folder).unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (on_disk, in_memory) = (disk.path().join("file"), memory.path().join("file"));
    create_zeroed_file(&on_disk, FILE_BYTES).unwrap();
    create_zeroed_file(&in_memory, FILE_BYTES).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let ring = Ring::start().unwrap();
        measure_drive("memory", &in_memory, None, time).await;
        measure_drive("disk", &on_disk, Some(&ring), time).await;
        measure_drive("disk", &on_disk, None, time).await;
        for depth in [1, 16] {
            measure("leg, memory", Op::LegWrite(open_leg(&in_memory, None).unwrap()), depth, time).await;
            measure("leg, disk, ring", Op::LegWrite(open_leg(&on_disk, Some(&ring)).unwrap()), depth, time).await;
        }
    });
}
