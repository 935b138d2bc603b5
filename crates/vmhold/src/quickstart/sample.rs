//! Sample data of a demo: blocks that say what they are, with a file of every
//! acknowledgement, and the proof that all of it is still there.

use control::check::{CheckpointReport, FsckReport, WriteCheck};
use control::client::Call;
use control::{Document, Envelope, Exit, Problem};
use load::command::{BenchArgs, ConnectArgs, Console, VerifyArgs};
use load::expectation::Breach;
use load::report::VerifyReport;
use load::workload::Pattern;
use serde::Serialize;

use crate::appliance;
use crate::cli::Global;
use crate::load_command::{console, problem_of, target};
use crate::place::{Announcement, Place};
use crate::quickstart::running;
use crate::say::Say;

/// Fewer units than the report of the check lists findings, so that its counts are exact.
const FILES: u64 = 2;
const FILE_BYTES: u64 = 3 << 20;
const UNIT_BYTES: u64 = 8 << 10;
const OVERWRITES: u64 = 400;
const DEPTH: usize = 16;

/// `quickstart check`.
#[derive(Debug, Serialize)]
struct DemoCheck {
    #[serde(flatten)]
    writes: WriteCheck,
    fsck: FsckReport,
}

impl Document for DemoCheck {
    const SCHEMA: &'static str = WriteCheck::SCHEMA;
}

/// Writes the sample and its journal of acknowledgements, and brings it to the drives.
pub fn write(place: &Place, announced: &Announcement, global: &Global) -> Result<(), Problem> {
    let args = BenchArgs {
        target: Some(target(announced)),
        connect: ConnectArgs::default(),
        mix: "write".parse().map_err(|_| unreachable_mix())?,
        block_size: vec![UNIT_BYTES],
        unit: UNIT_BYTES,
        depth: DEPTH,
        connections: 1,
        files: FILES,
        file_size: FILE_BYTES,
        vms: None,
        vm_size: FILE_BYTES,
        pattern: Pattern::Random,
        duration: None,
        ops: Some(OVERWRITES),
        warmup: std::time::Duration::ZERO,
        seed: None,
        compressible: 25,
        dedup: 10,
        verify: false,
        verify_end: false,
        fill: Some(true),
        journal: Some(place.acknowledged()),
        keep: true,
        max_errors: 0,
    };
    load::bench::run(&args, Console::default()).map_err(|failure| problem_of(&failure))?;
    // On the drives there is something to break; in the journal there is nothing to see.
    let call = Call { method: "POST", path: "/v1/checkpoint", ..Call::default() };
    let made: Envelope<CheckpointReport> = appliance::patient_client(global)?.call(&call)?;
    made.into_result().map(drop)
}

/// Proves every acknowledged write, then checks every reference.
pub fn check(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (_, announced) = running(&place, global)?;
    check_at(&place, &announced, global, say)
}

/// The same of the server that announced itself; what was acknowledged is written down in `place`.
pub fn check_at(place: &Place, announced: &Announcement, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let writes = if place.acknowledged().exists() {
        let args = VerifyArgs {
            journal: place.acknowledged(),
            target: Some(target(announced)),
            connect: ConnectArgs::default(),
            depth: DEPTH,
            remove: false,
        };
        counted(&load::verify::run(&args, console(say)).map_err(|failure| problem_of(&failure))?)
    } else {
        WriteCheck { writes_checked: 0, bytes_read: 0, lost: 0, stale: 0, misplaced: 0, damaged: 0 }
    };
    let call = Call { method: "POST", path: "/v1/fsck", ..Call::default() };
    let fsck: Envelope<FsckReport> = appliance::patient_client(global)?.call(&call)?;
    let checked = DemoCheck { writes, fsck: fsck.into_result()? };
    say.document(&checked, |checked| format!("{}{}", checked.writes.human(), checked.fsck.human()));
    Ok(if checked.writes.is_clean() { checked.fsck.exit() } else { Exit::Failed })
}

impl Document for &DemoCheck {
    const SCHEMA: &'static str = DemoCheck::SCHEMA;
}

fn counted(report: &VerifyReport) -> WriteCheck {
    let mut check = WriteCheck {
        writes_checked: report.acknowledged_writes,
        bytes_read: report.units_checked * UNIT_BYTES,
        lost: 0,
        stale: 0,
        misplaced: 0,
        damaged: 0,
    };
    for violation in &report.violations {
        *match violation.breach {
            Breach::Lost => &mut check.lost,
            Breach::Stale { .. } => &mut check.stale,
            Breach::Misplaced { .. } | Breach::Foreign { .. } => &mut check.misplaced,
            _ => &mut check.damaged,
        } += 1;
    }
    check
}

fn unreachable_mix() -> Problem {
    Problem::new(&control::codes::BUG, "the load generator does not know the mix `write`")
}
