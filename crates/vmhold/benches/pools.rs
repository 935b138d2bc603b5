//! vmhold beside others that keep blocks, and what it needs for itself:
//!
//! * btrfs RAID-6 over loop devices on the same disk, written directly and durably by
//!   threads in this process: no server and no network in its way;
//! * nbdkit's memory export over a unix socket: what a network block device costs that
//!   stores nothing;
//! * idle processor time, restart after a crash, and memory with a small cache while more
//!   than that is written.
//!
//! Pairs in turns, medians, as in `peers`. A peer that is not installed is skipped, and
//! said so. Loop devices and mounts need root. `VMHOLD_BENCH_PAIRS` (5) and
//! `VMHOLD_BENCH_SECONDS` (3) set the effort.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

mod btrfs;
mod store;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use btrfs::{Btrfs, run};
use store::{Store, effort, median};

const O_DIRECT: i32 = 0o40_000;
const O_DSYNC: i32 = 0o10_000;
const FILES: usize = 4;
const FILE_BYTES: usize = 32 << 20;

fn main() {
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let (pairs, seconds) = (effort("VMHOLD_BENCH_PAIRS", 5), effort("VMHOLD_BENCH_SECONDS", 3));
    beside_btrfs(pairs, seconds);
    beside_nbdkit(pairs, seconds);
    needs(pairs, seconds);
}

fn folder(below: &Path, name: &str) -> PathBuf {
    below.join(format!("vmhold-pools-{}-{name}", std::process::id()))
}

// ---- btrfs ----

/// Name, block bytes, depth, sequential.
const DURABLE: [(&str, usize, usize, bool); 3] = [
    ("8 KiB durable random writes, depth 16", 8 << 10, 16, false),
    ("8 KiB durable random writes, depth 1", 8 << 10, 1, false),
    ("1 MiB durable sequential writes, depth 4", 1 << 20, 4, true),
];

fn beside_btrfs(pairs: usize, seconds: usize) {
    let mut found: Vec<Vec<(f64, f64)>> = vec![Vec::new(); DURABLE.len()];
    for pair in 0..pairs {
        let mut rates = [Vec::new(), Vec::new()];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            rates[which] = if which == 0 {
                let store = Store::make(&folder(&std::env::temp_dir(), "ours"), "");
                DURABLE.iter().map(|load| store.rate(&arguments(load, seconds))).collect()
            } else {
                match Btrfs::make(&folder(&std::env::temp_dir(), "btrfs")) {
                    Ok(peer) => DURABLE.iter().map(|load| direct_writes(&peer.mount, load, seconds)).collect(),
                    Err(why) => return println!("SKIPPED: btrfs RAID-6 over loop devices: {why}"),
                }
            };
        }
        let [ours, theirs] = rates;
        found.iter_mut().zip(ours.into_iter().zip(theirs)).for_each(|(row, pair)| row.push(pair));
    }
    println!("| beside btrfs RAID-6, 8 loop devices on the same disk | ours/s | btrfs/s | rate ratio |");
    println!("|---|---|---|---|");
    for (load, row) in DURABLE.iter().zip(&found) {
        let part = |value: fn(&(f64, f64)) -> f64| median(row.iter().map(value).collect());
        let (ours, theirs, ratio) = (part(|pair| pair.0), part(|pair| pair.1), part(|(a, b)| a / b));
        println!("| {} | {ours:.0} | {theirs:.0} | {ratio:.2} |", load.0);
    }
    println!();
}

fn arguments(&(_, block, depth, sequential): &(&str, usize, usize, bool), seconds: usize) -> Vec<&'static str> {
    let texts = [
        ("--mix", "write".to_owned()),
        ("--block-size", block.to_string()),
        ("--depth", depth.to_string()),
        ("--files", FILES.to_string()),
        ("--file-size", FILE_BYTES.to_string()),
        ("--duration", format!("{seconds}s")),
        ("--pattern", if sequential { "sequential" } else { "random" }.to_owned()),
    ];
    texts.into_iter().flat_map(|(name, value)| [name, &*value.leak()]).collect()
}

/// Direct, synchronous writes by `depth` threads into files that are there; per second.
fn direct_writes(below: &Path, &(_, block, depth, sequential): &(&str, usize, usize, bool), seconds: usize) -> f64 {
    let paths: Vec<PathBuf> = (0..FILES).map(|number| below.join(format!("file{number}"))).collect();
    for path in &paths {
        fs::write(path, noise(FILE_BYTES, 1)).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
    }
    let (done, next, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..depth {
            let (paths, done, next, stop) = (&paths, &done, &next, &stop);
            scope.spawn(move || {
                let open = |path| OpenOptions::new().write(true).custom_flags(O_DIRECT | O_DSYNC).open(path).unwrap();
                let files: Vec<File> = paths.iter().map(open).collect();
                let mut dice = thread as u64 * 77 + 1;
                let mut room = noise(block + 4096, dice);
                let from = room.as_ptr().align_offset(4096);
                while !stop.load(Ordering::Relaxed) {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    dice = step(dice);
                    let per_file = (FILE_BYTES / block) as u64;
                    let place = if sequential { turn } else { dice >> 20 } % (per_file * FILES as u64);
                    let bytes = &mut room[from..from + block];
                    bytes[..8].copy_from_slice(&dice.to_le_bytes());
                    let (file, at) = (&files[(place / per_file) as usize], place % per_file * block as u64);
                    file.write_all_at(bytes, at).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(seconds as u64));
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner() as f64 / started.elapsed().as_secs_f64()
}

fn step(dice: u64) -> u64 {
    dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = seed;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        dice = step(dice);
        chunk.copy_from_slice(&(dice ^ dice >> 29).to_le_bytes()[..chunk.len()]);
    }
    bytes
}

// ---- nbdkit ----

fn beside_nbdkit(pairs: usize, seconds: usize) {
    for program in ["nbdkit", "qemu-img"] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
            return println!("SKIPPED: nbdkit's memory export: {program} is not installed (nbdkit, qemu-utils)");
        }
    }
    let load = ("", 8 << 10, 16, false);
    let mut found = Vec::new();
    for pair in 0..pairs {
        let mut rates = [0.0; 2];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            rates[which] = if which == 0 {
                Store::make(&folder(Path::new("/dev/shm"), "ours"), "").rate(&arguments(&load, seconds))
            } else {
                nbdkit_rate(&folder(Path::new("/dev/shm"), "nbdkit"), seconds)
            };
        }
        found.push((rates[0], rates[1]));
    }
    println!("| beside nbdkit's memory export, unix socket | ours/s | nbdkit/s | rate ratio |\n|---|---|---|---|");
    let part = |value: fn(&(f64, f64)) -> f64| median(found.iter().map(value).collect());
    let (ours, theirs, ratio) = (part(|pair| pair.0), part(|pair| pair.1), part(|(a, b)| a / b));
    println!("| 8 KiB writes, depth 16 (ours stable on tmpfs, over TCP) | {ours:.0} | {theirs:.0} | {ratio:.2} |\n");
}

/// As many writes as take about that long, by QEMU's own client.
fn nbdkit_rate(folder: &Path, seconds: usize) -> f64 {
    fs::create_dir_all(folder).unwrap();
    let socket = folder.join("socket").display().to_string();
    let start = ["--foreground", "--unix", &socket, "memory", "128M"];
    let mut server: Child = Command::new("nbdkit").args(start).spawn().unwrap();
    while !Path::new(&socket).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let target = format!("nbd+unix:///?socket={socket}");
    let timed = |count: usize| {
        let count = count.to_string();
        let bench = ["bench", "-f", "raw", "-w", "-t", "none", "-c", &count, "-d", "16", "-s", "8192", &target];
        let text = run("qemu-img", &bench).unwrap();
        let seconds = text.rsplit("in ").next().and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        seconds.parse::<f64>().unwrap()
    };
    let warm = 10_000.0 / timed(10_000);
    let count = (warm * seconds as f64) as usize;
    let rate = count as f64 / timed(count);
    let _ = server.kill();
    let _ = server.wait();
    let _ = fs::remove_dir_all(folder);
    rate
}

// ---- what it needs for itself ----

fn needs(rounds: usize, seconds: usize) {
    let mut idle = Vec::new();
    let mut restart = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..rounds {
        let mut store = Store::make(&folder(&std::env::temp_dir(), "needs"), "");
        // The journal is as full as it gets when the server is killed in the middle of writing.
        store.rate(&arguments(&("", 64 << 10, 16, false), seconds));
        let journal = store.dir.join("journal");
        let journal = if journal.exists() { journal } else { store.dir.join("journal-1") };
        let ready = store.crash_and_restart().as_secs_f64();
        restart.push((ready, read_seconds(&journal)));
        std::thread::sleep(Duration::from_secs(12));
        let before = store.cpu_seconds();
        std::thread::sleep(Duration::from_secs(10));
        idle.push((store.cpu_seconds() - before) * 10.0);
        drop(store);
        let store = Store::make(&folder(&std::env::temp_dir(), "small"), &format!("cache_bytes = {}", 16 << 20));
        let load = ["--mix", "write", "--files", "4", "--file-size", "192M", "--fill", "--duration"];
        let duration = format!("{seconds}s");
        store.rate(&[&load[..], &[&duration]].concat());
        memory.push(store.peak_bytes() / f64::from(1 << 20));
    }
    println!("| what it needs | measured | limit |\n|---|---|---|");
    println!("| processor when idle, after load | {:.2} % of a core | 2 % |", median(idle));
    let ready = median(restart.iter().map(|found| found.0).collect());
    let read = median(restart.iter().map(|found| found.1).collect());
    println!("| ready after kill -9 under writes | {ready:.2} s | time to read the journal {read:.2} s, and 1 s |");
    println!("| most memory, 16 MiB of cache, 768 MiB written and overwritten | {:.0} MiB | bounded |", median(memory));
}

/// How long a direct read of the journal takes.
fn read_seconds(path: &Path) -> f64 {
    let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path);
    let Ok(file) = file.or_else(|_| File::open(path)) else { return 0.0 };
    let mut room = vec![0; (4 << 20) + 4096];
    let from = room.as_ptr().align_offset(4096);
    let started = Instant::now();
    let mut at = 0;
    while let Ok(read) = file.read_at(&mut room[from..from + (4 << 20)], at)
        && read > 0
    {
        at += read as u64;
    }
    started.elapsed().as_secs_f64()
}
