//! The journal on a real file beside raw direct synchronous writes of the same size and
//! depth by threads, in turns; medians of the pairs. `VMHOLD_BENCH_PAIRS` (5) and
//! `VMHOLD_BENCH_SECONDS` (3) set the effort.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::port::Leg;
use base::{Epoch, FileId, GroupId, Incarnation, Osn};
use journal::{Config, Journal, Kind, NewRecord, Scope, Sequence, Tag};
use world_real::{Ring, create_zeroed_file, open_leg, real_world};

const LEG_BYTES: u64 = 64 << 20;
const BODY_BYTES: usize = 8 << 10;
/// What a record of [`BODY_BYTES`] takes on a leg at least: its header, whole blocks.
const RAW_BYTES: usize = 12 << 10;
const O_DIRECT_DSYNC: i32 = 0o50_000;

fn main() {
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let effort = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (pairs, seconds): (usize, u64) = (effort("VMHOLD_BENCH_PAIRS", 5), effort("VMHOLD_BENCH_SECONDS", 3) as u64);
    let path = std::env::temp_dir().join(format!("vmhold-journal-bench-{}", std::process::id()));
    println!("| journal append, 8 KiB, on a file on disk | records/s | raw writes/s | ratio |\n|---|---|---|---|");
    for depth in [1, 16, 64] {
        let mut found = Vec::new();
        for pair in 0..pairs {
            let mut rates = [0.0; 2];
            for turn in 0..2 {
                let which = (pair + turn) % 2;
                let _ = std::fs::remove_file(&path);
                create_zeroed_file(&path, LEG_BYTES).unwrap();
                rates[which] = if which == 0 { appends(&path, depth, seconds) } else { raw(&path, depth, seconds) };
            }
            found.push((rates[0], rates[1]));
        }
        let median = |value: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = found.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (ours, raw, ratio) = (median(|pair| pair.0), median(|pair| pair.1), median(|(a, b)| a / b));
        println!("| depth {depth} | {ours:.0} | {raw:.0} | {ratio:.2} |");
    }
    let _ = std::fs::remove_file(&path);
}

/// Records made stable per second by `depth` writers.
fn appends(path: &Path, depth: usize, seconds: u64) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let ring = Ring::start().ok();
        let leg = open_leg(path, ring.as_ref()).unwrap() as Rc<dyn Leg>;
        let life = [Incarnation([1; 16])];
        let root = Journal::format(std::slice::from_ref(&leg), GroupId([7; 16]), &life, Sequence(1)).await.unwrap();
        let (journal, _) = Journal::open(vec![leg], &root, real_world(), Config::default()).await.unwrap();
        journal.set_on_stable(drop);
        let until = Instant::now() + Duration::from_secs(seconds);
        let started = Instant::now();
        let writers: Vec<_> =
            (0..depth).map(|number| tokio::task::spawn_local(write(journal.clone(), number, until))).collect();
        let mut written = 0;
        for writer in writers {
            written += writer.await.unwrap();
        }
        written as f64 / started.elapsed().as_secs_f64()
    })
}

async fn write(journal: Journal, number: usize, until: Instant) -> u64 {
    let body = vec![number as u8; BODY_BYTES];
    let scope = Scope { file: FileId(1), offset_bytes: 0, length_bytes: BODY_BYTES as u64 };
    let mut written = 0;
    while Instant::now() < until {
        let tag = Tag { kind: Kind::WRITE, stream: 0, epoch: Epoch(0), osn: Osn(written + 1), scope };
        let appended = journal.append(NewRecord { tag, body: &[&body] }).await.unwrap();
        let stable = journal.stable(appended.sequence).await.unwrap();
        written += 1;
        if written % 64 == 0 {
            journal.trim(stable.through());
        }
    }
    written
}

/// Direct synchronous writes per second by `depth` threads.
fn raw(path: &Path, depth: usize, seconds: u64) -> f64 {
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..depth {
            scope.spawn(|| {
                let file = OpenOptions::new().write(true).custom_flags(O_DIRECT_DSYNC).open(path).unwrap();
                let room = vec![5u8; RAW_BYTES + 4096];
                let from = room.as_ptr().align_offset(4096);
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed) % (LEG_BYTES / RAW_BYTES as u64);
                    file.write_all_at(&room[from..from + RAW_BYTES], place * RAW_BYTES as u64).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner() as f64 / started.elapsed().as_secs_f64()
}
