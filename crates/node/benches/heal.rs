//! Scrub and rebuild of an idle pool on files, beside btrfs RAID-6 over loop devices of as many files on the same disk,
//! in turns; medians. Eight drives of 512 MiB, 1 GiB of data that neither compresses nor repeats. Loop devices and
//! mounts need root; without btrfs only our own rates are printed. `VMHOLD_BENCH_PAIRS` (3) sets the effort.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

#[path = "../../vmhold/benches/btrfs/mod.rs"]
mod btrfs;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::WallNanos;
use base::port::{Drive, Leg};
use btrfs::{Btrfs, run};
use engine::store::Change;
use engine::{Engine, Options, ScrubPolicy, Store};
use raid::{DriveState, Group, GroupOptions, Slot};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use world_real::{Ring, create_sparse_file, create_zeroed_file, open_drive, open_leg, real_world};

const DRIVES: usize = 8;
const DRIVE_BYTES: u64 = 512 << 20;
const LEG_BYTES: u64 = 256 << 20;
const DATA_BYTES: u64 = 1 << 30;
const CHUNK_BYTES: usize = 256 << 10;
/// The one that is lost.
const LOST: usize = 3;

/// Seconds.
#[derive(Clone, Copy)]
struct Took {
    scrub: f64,
    /// As fast as it can, one stripe after the other; the peer has one way only.
    check: f64,
    rebuild: f64,
}

fn main() {
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let pairs = std::env::var("VMHOLD_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let folder = |name: &str| std::env::temp_dir().join(format!("vmhold-heal-{}-{name}", std::process::id()));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for turn in 0..2 {
            if (pair + turn) % 2 == 0 {
                ours.push(pool(&folder("ours")));
            } else {
                match peer(&folder("btrfs")) {
                    Ok(took) => theirs.push(took),
                    Err(why) => println!("SKIPPED: btrfs RAID-6 over loop devices: {why}"),
                }
            }
        }
    }
    println!("| idle pool of 8 files on a disk, 1 GiB of data | ours MB/s | btrfs RAID-6 MB/s | ratio |");
    println!("|---|---|---|---|");
    print_row("scrub that was asked for (a stripe each 20 ms at most)", &ours, &theirs, |took| took.scrub);
    print_row("scrub of `fsck`, as fast as it can", &ours, &theirs, |took| took.check);
    print_row("rebuild of one drive", &ours, &theirs, |took| took.rebuild);
}

/// Rates of data that is covered, not of bytes on the drives.
fn print_row(what: &str, ours: &[Took], theirs: &[Took], part: fn(&Took) -> f64) {
    let rate = |of: &[Took]| {
        let mut seconds: Vec<f64> = of.iter().map(part).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).map(|seconds| DATA_BYTES as f64 / seconds / 1e6)
    };
    let (Some(own), peer) = (rate(ours), rate(theirs)) else { return };
    match peer {
        Some(peer) => println!("| {what} | {own:.0} | {peer:.0} | {:.2} |", own / peer),
        None => println!("| {what} | {own:.0} | not measured | |"),
    }
}

/// Bytes that do not compress and never repeat.
fn noise(chunk: u64) -> Vec<u8> {
    let mut dice = chunk.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; CHUNK_BYTES];
    for piece in bytes.chunks_mut(8) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        piece.copy_from_slice(&dice.to_le_bytes());
    }
    bytes
}

// ---- ours ----

fn pool(folder: &Path) -> Took {
    fs::create_dir_all(folder).unwrap();
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let took = LocalSet::new().block_on(&runtime, heal(folder));
    drop(runtime);
    fs::remove_dir_all(folder).unwrap();
    took
}

async fn heal(folder: &Path) -> Took {
    let (ring, world) = (Ring::start().ok(), real_world());
    let paths: Vec<PathBuf> = (0..=DRIVES).map(|number| folder.join(format!("drive{number}"))).collect();
    paths.iter().for_each(|path| create_sparse_file(path, DRIVE_BYTES).unwrap());
    create_zeroed_file(&folder.join("journal"), LEG_BYTES).unwrap();
    let open = |path: &PathBuf| open_drive(path, ring.as_ref()).unwrap() as Rc<dyn Drive>;
    let drives = paths[..DRIVES].iter().map(open).collect();
    let legs: Vec<Rc<dyn Leg>> = vec![open_leg(&folder.join("journal"), ring.as_ref()).unwrap()];
    let group = Group::create(drives, GroupOptions::default(), world.clone()).await.unwrap();
    Engine::format(&group, &legs, &world).await.unwrap();
    drop(group);
    let group = Group::open(paths[..DRIVES].iter().map(open).collect(), None, world.clone()).await.unwrap();
    // The pass that goes on by itself is for another day.
    let policy = ScrubPolicy { full_pass: Duration::from_secs(1 << 30), ..ScrubPolicy::FLASH };
    let options = Options { scrub: Some(policy), ..Options::default() };
    let (engine, _) = Engine::open(group, legs, world, options).await.unwrap();
    let file = engine.next_file_id();
    engine.commit(vec![Change::CreateFile { file, at: WallNanos(1) }]).await.unwrap();
    for chunk in 0..DATA_BYTES / CHUNK_BYTES as u64 {
        engine.write(file, chunk * CHUNK_BYTES as u64, &[&noise(chunk)], WallNanos(2)).await.unwrap();
    }
    engine.settle().await.unwrap();
    let started = Instant::now();
    engine.scrub_start().await;
    let begun = engine.scrub_status().pass.number;
    while engine.scrub_status().history.last().is_none_or(|pass| pass.number < begun) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scrub = started.elapsed().as_secs_f64();
    let found = engine.scrub_status().history.last().unwrap().found;
    assert_eq!((found.units_repaired, found.stripes_lost), (0, 0));
    let started = Instant::now();
    assert_eq!(engine.scrub().await.unwrap().units_repaired, 0);
    let check = started.elapsed().as_secs_f64();
    fs::remove_file(&paths[LOST]).unwrap();
    while engine.group().status().drives[LOST].state != DriveState::Failed {
        // The next flush finds out.
        engine.write(file, 0, &[&noise(1 << 40)], WallNanos(3)).await.unwrap();
        engine.settle().await.unwrap();
        engine.checkpoint().await.unwrap();
    }
    let started = Instant::now();
    engine.join_drive(Slot(LOST as u8), open(&paths[DRIVES])).await.unwrap();
    while engine.rebuild_status().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rebuild = started.elapsed().as_secs_f64();
    assert_eq!(engine.group().status().failures_tolerated, 2);
    Took { scrub, check, rebuild }
}

// ---- btrfs ----

fn peer(folder: &Path) -> Result<Took, String> {
    let mut peer = Btrfs::make(folder)?;
    let said = |why: std::io::Error| why.to_string();
    let mut file = File::create(peer.mount.join("file")).map_err(said)?;
    for chunk in 0..DATA_BYTES / CHUNK_BYTES as u64 {
        file.write_all(&noise(chunk)).map_err(said)?;
    }
    file.sync_all().map_err(said)?;
    drop(file);
    let mount = peer.mount.display().to_string();
    // Only what has settled is there to be scrubbed.
    run("btrfs", &["filesystem", "sync", &mount])?;
    let started = Instant::now();
    run("btrfs", &["scrub", "start", "-B", &mount])?;
    let scrub = started.elapsed().as_secs_f64();
    peer.unmount()?;
    run("losetup", &["--detach", &peer.loops[LOST]])?;
    let new = peer.add_loop()?;
    peer.mount("degraded")?;
    let started = Instant::now();
    run("btrfs", &["replace", "start", "-B", "-f", &(LOST + 1).to_string(), &new, &mount])?;
    let rebuild = started.elapsed().as_secs_f64();
    Ok(Took { scrub, check: scrub, rebuild })
}
