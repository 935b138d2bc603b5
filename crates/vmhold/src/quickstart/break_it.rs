//! `quickstart break`: lose a drive, flip bits, pull, push and swap drives, have one lie, kill the
//! server.
//! What would lose data is refused: the point is to see what a store survives.

mod bits;
mod lies;
mod moved;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use control::inject::FaultKind;
use control::pool::{Drive, DriveState, Pool};
use control::status::Status;
use control::{Document, Envelope, Exit, Problem, codes};
use rustix::process::Signal;
use serde::Serialize;

use crate::appliance;
use crate::cli::Global;
use crate::place::{Place, unusable};
use crate::quickstart::break_it::lies::Lie;
use crate::quickstart::manifest::Manifest;
use crate::quickstart::pair::Target;
use crate::quickstart::running;
use crate::say::Say;

const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// The server looks at its drives about once a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `quickstart break`.
#[derive(Debug, Args)]
#[command(after_help = BREAK_HELP)]
pub struct BreakCommand {
    /// What to break.
    #[command(subcommand)]
    pub what: What,
}

const BREAK_HELP: &str = "\
What happens then, and where to look:
  drive        waited for 10 s, then a spare takes its place and is filled: pool show --map
  pull, push   known by its label; only what it missed is filled in: pool show --map
  swap-drives  both are found again by their labels: drive list
  bits         found by their checks when read or scrubbed, and repaired: check, drive list
  slow         late reads are answered from the other drives: pool show (late reads)
  eio          read around; too many errors, and the drive is put out: drive list, events list
  lost-write   an old unit says that it is old; found when read or scrubbed: check
  misplaced    a unit says where it belongs; found when read or scrubbed: check
  torn         a unit's check does not match; found when read or scrubbed: check
  site         the other one serves on the same address: replication status, check
  witness      nothing stops, nobody could take over: replication status
  kill         the journal has every acknowledged write; resume replays it: resume, check

Each but kill is refused where it would be one drive too many. Load all the while:
  vmhold bench --mix 70/30 --duration 1m --verify        and always: vmhold quickstart check";

/// What can be broken.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Lose a drive
    Drive {
        /// Its number, as in 3 or flash0/3
        drive: String,
        /// How it is lost
        #[arg(long, value_enum, default_value = "unlink")]
        how: How,
    },
    /// Flip random bits in what the drives hold; on no more drives than the pool can lose
    Bits {
        /// How many
        count: u32,
        /// Only on this drive
        #[arg(long)]
        drive: Option<String>,
    },
    /// Pull a drive out; push it back, and only what it missed is filled in
    Pull {
        /// Its number, as in 3 or flash0/3
        drive: String,
    },
    /// Push a pulled drive back in
    Push {
        /// Its number, as in 3 or flash0/3
        drive: String,
    },
    /// Swap two drives: each stands where the other was
    SwapDrives {
        /// One
        first: String,
        /// The other
        second: String,
    },
    /// Have a drive answer late
    Slow {
        /// Which and how much.
        #[command(flatten)]
        lie: Lie,
        /// By how much
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", default_value = "100ms")]
        delay: Duration,
    },
    /// Have a drive answer with I/O errors
    Eio(Lie),
    /// Have a drive lose writes and say they are done
    LostWrite(Lie),
    /// Have a drive put writes in the wrong place
    Misplaced(Lie),
    /// Have a drive do writes only in part
    Torn(Lie),
    /// kill -9 the server
    Kill,
    /// Of two sites.
    #[command(flatten)]
    Pair(Target),
}

/// Ways to lose a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its file is gone
    Unlink,
    /// Its file is cut off
    Truncate,
    /// Another, empty file stands in its place
    Replace,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Broken {
    what: &'static str,
    drives: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<How>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

impl Document for Broken {
    const SCHEMA: &'static str = "vmhold.quickstart.break/v1";
}

/// Breaks something.
pub fn run(command: &BreakCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let dir = global.dir.display();
    match &command.what {
        What::Drive { drive, how } => {
            let (manifest, _) = running(&place, global)?;
            let number = number(drive, &manifest)?;
            must_tolerate(global, number)?;
            let heals = heals(&pool(global)?);
            lose(&path_of(global, number)?, *how)?;
            wait_until_noticed(global, number)?;
            let broken = Broken { what: "drive", drives: vec![number], how: Some(*how), bits: None, pid: None };
            Ok(say.done(broken, |_| {
                format!("drive {number} is lost ({how:?})\n{heals}\nwatch: vmhold pool show flash0 --map --dir {dir}\nprove: vmhold quickstart check --dir {dir}\n").to_lowercase()
            }))
        }
        What::Bits { count, drive } => bits::flip_some(*count, drive.as_deref(), global, say),
        What::Pull { drive } => moved::pull(drive, global, say),
        What::Push { drive } => moved::push(drive, global, say),
        What::SwapDrives { first, second } => moved::swap((first, second), global, say),
        What::Slow { lie, delay } => lies::begin(lie, ("slow", FaultKind::Slow), Some(*delay), global, say),
        What::Eio(lie) => lies::begin(lie, ("eio", FaultKind::Eio), None, global, say),
        What::LostWrite(lie) => lies::begin(lie, ("lost-write", FaultKind::LostWrite), None, global, say),
        What::Misplaced(lie) => lies::begin(lie, ("misplaced", FaultKind::Misplaced), None, global, say),
        What::Torn(lie) => lies::begin(lie, ("torn", FaultKind::Torn), None, global, say),
        What::Pair(_) => Err(super::no_pair(global)),
        What::Kill => {
            let (_, announced) = running(&place, global)?;
            let pid = announced.process.pid;
            if !announced.process.signal(Signal::KILL) || !announced.process.wait(KILLED_WITHIN) {
                return Err(Problem::new(&codes::CONFLICT, format!("process {pid} cannot be killed")));
            }
            let broken = Broken { what: "kill", drives: Vec::new(), how: None, bits: None, pid: Some(pid) };
            Ok(say.done(broken, |_| {
                format!("server {pid} was killed in the middle of it\nnow: vmhold quickstart resume --dir {dir}\n")
            }))
        }
    }
}

/// A drive by number or `POOL/NUMBER`.
fn number(drive: &str, manifest: &Manifest) -> Result<u8, Problem> {
    let digits = drive.rsplit_once('/').map_or(drive, |(_, digits)| digits);
    let number = digits.parse().ok().filter(|number| (1..=manifest.shape.drives).contains(number));
    number.ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("no drive {drive:?}"))
            .step(format!("drives are numbered 1 to {}", manifest.shape.drives))
    })
}

/// Refuses when `drive` would be one too many.
fn must_tolerate(global: &Global, drive: u8) -> Result<(), Problem> {
    let standing = Standing::of(global)?;
    if standing.tolerated > 0 || standing.lost.contains(&u32::from(drive)) {
        return Ok(());
    }
    Err(Problem::new(
        &codes::WOULD_LOSE_REDUNDANCY,
        format!("drive {drive} is one too many: the pool cannot lose another"),
    )
    .why("a demo shows what is survived, and this would not be")
    .step("repair what earlier faults left, or bring drives back: vmhold quickstart check, pool show --map")
    .note("there is no --force for this"))
}

/// What the pool can lose.
struct Standing {
    pool: Pool,
    /// Numbers of drives that are out, or whose bytes may be wrong.
    lost: Vec<u32>,
    /// How many more it can lose.
    tolerated: usize,
}

impl Standing {
    fn of(global: &Global) -> Result<Standing, Problem> {
        let pool = pool(global)?;
        let mut lost = [out(&pool), pool.doubted_drives.clone()].concat();
        let mut flipped = bits::not_repaired(&Place::of(&global.dir), &pool);
        flipped.retain(|drive| !lost.contains(drive));
        let tolerated = (pool.failures_tolerated.unwrap_or(0) as usize).saturating_sub(flipped.len());
        lost.extend(flipped);
        Ok(Standing { pool, lost, tolerated })
    }
}

/// The next step must see what this one did: a server that has not noticed a loss would
/// allow one too many.
fn wait_until_noticed(global: &Global, drive: u8) -> Result<(), Problem> {
    let begun = Instant::now();
    while begun.elapsed() < NOTICED_WITHIN {
        if out(&pool(global)?).contains(&u32::from(drive)) {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(Problem::new(&codes::TIMED_OUT, format!("drive {drive} is lost, and the server has not noticed yet")))
}

/// Drives that are out.
fn out(pool: &Pool) -> Vec<u32> {
    let is_out = |drive: &&Drive| !matches!(drive.state, DriveState::Online | DriveState::Spare);
    pool.drives.iter().filter(is_out).map(|drive| drive.slot).collect()
}

/// The demo's pool as it is now.
fn pool(global: &Global) -> Result<Pool, Problem> {
    let status: Envelope<Status> = appliance::client(global)?.get("/v1/status")?;
    let pools = status.into_result()?.facts.pools;
    pools.into_iter().next().ok_or_else(|| Problem::new(&codes::POOL_NOT_FOUND, "the demo has no pool"))
}

/// The file of the drive in a slot: a spare may have taken the place.
fn path_of(global: &Global, number: u8) -> Result<PathBuf, Problem> {
    let drives = pool(global)?.drives;
    let drive = drives.into_iter().find(|drive| drive.slot == u32::from(number));
    let drive = drive.ok_or_else(|| Problem::new(&codes::NOT_FOUND, format!("no drive {number}")))?;
    Ok(PathBuf::from(drive.path))
}

/// What happens next, by itself.
fn heals(pool: &Pool) -> String {
    let spare = pool.drives.iter().find(|drive| drive.state == DriveState::Spare);
    match spare {
        Some(spare) => format!("next: spare {} takes its place in about 10 s, unless it comes back", spare.slot),
        None => "next: nothing by itself, there is no spare; vmhold drive spare add file adds one".to_owned(),
    }
}

fn lose(path: &Path, how: How) -> Result<(), Problem> {
    let lost = match how {
        How::Unlink => std::fs::remove_file(path),
        How::Truncate => OpenOptions::new().write(true).open(path).and_then(|file| {
            let half = file.metadata()?.len() / 2;
            file.set_len(half)
        }),
        How::Replace => std::fs::metadata(path).and_then(|meta| {
            std::fs::remove_file(path)?;
            node::create_sparse_file(path, meta.len())
        }),
    };
    lost.map_err(|error| unusable(path, &error))
}
