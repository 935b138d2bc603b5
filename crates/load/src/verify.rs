//! `vmhold bench verify`: reads every unit of a run and proves from the journal that
//! nothing acknowledged is lost, stale, misplaced or damaged. Units never written must
//! read as zeros, so a write that landed in a wrong place is found there too.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Instant;

use tokio::task::LocalSet;

use crate::bench::{VIOLATIONS_KEPT, calling};
use crate::block::{Blocks, Found, Place};
use crate::command::{Console, VerifyArgs};
use crate::expectation::{Breach, Expectations, FileSet};
use crate::failure::Failure;
use crate::fileset;
use crate::journal::Journal;
use crate::nfs3::{FileHandle, NOENT, NfsClient, NfsError};
use crate::report::{VerifyReport, Violation};
use crate::transfer::{TransferError, join_all, read_whole};

/// Bytes read by one call.
const READ_BYTES: u64 = 128 << 10;

/// What to check.
#[derive(Debug)]
pub struct Job<'a> {
    /// Recognises units.
    pub blocks: &'a Blocks,
    /// The files.
    pub files: &'a FileSet,
    /// Their handles; `None` where the file is gone.
    pub handles: &'a [Option<FileHandle>],
    /// Whether the expectations are complete; if not, newer versions are allowed.
    pub closed: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Units looked at.
    pub units_checked: u64,
    /// Units in which an unacknowledged write had happened.
    pub units_newer: u64,
    /// Broken promises.
    pub violation_count: u64,
    /// The first of them, by place.
    pub violations: Vec<Violation>,
}

struct Check<'a> {
    job: Job<'a>,
    /// Next unit to be read.
    front: u64,
    expectations: Expectations,
    checked: Checked,
}

/// Reads every unit and judges it. `depth` reads are in flight.
pub async fn check(
    clients: &[NfsClient],
    job: Job<'_>,
    expectations: Expectations,
    depth: usize,
) -> Result<Checked, Failure> {
    let check = RefCell::new(Check { job, front: 0, expectations, checked: Checked::default() });
    let readers = (0..depth).map(|number| read_on(&check, &clients[number % clients.len()]));
    for outcome in join_all(readers).await {
        outcome.map_err(calling("read the files back"))?;
    }
    let mut checked = check.into_inner().checked;
    checked.violations.sort_by(|a, b| (&a.file, a.offset_bytes).cmp(&(&b.file, b.offset_bytes)));
    Ok(checked)
}

async fn read_on(check: &RefCell<Check<'_>>, client: &NfsClient) -> Result<(), NfsError> {
    loop {
        let Some((units, place, handle)) = check.borrow_mut().next() else { return Ok(()) };
        let unit_bytes = u64::from(check.borrow().job.blocks.shape().unit_bytes);
        let length = ((units.end - units.start) * unit_bytes) as u32;
        let read = match &handle {
            Some(handle) => read_whole(client, handle, place.unit * unit_bytes, length).await,
            None => Err(TransferError::Nfs(NOENT)),
        };
        let mut check = check.borrow_mut();
        match read {
            Ok(data) => check.judge_all(units, place, &data),
            Err(TransferError::Nfs(NOENT | NfsError::Status(70))) => check.judge_gone(units, place),
            Err(TransferError::Nfs(NfsError::Status(status))) => {
                check.note_all(units, place, Breach::Unreadable { status });
            }
            Err(TransferError::Nfs(error)) => return Err(error),
            Err(TransferError::NoProgress | TransferError::NotStable(_)) => {
                check.note_all(units, place, Breach::Unreadable { status: 0 });
            }
        }
    }
}

impl Check<'_> {
    /// Next units to read, all of one file.
    fn next(&mut self) -> Option<(Range<u64>, Place, Option<FileHandle>)> {
        if self.front >= self.job.files.units() {
            return None;
        }
        let start = self.front;
        let place = self.job.files.place(start);
        let count = (READ_BYTES / u64::from(self.job.blocks.shape().unit_bytes)).max(1);
        self.front = (start + count).min(self.job.files.range(place.file).end);
        Some((start..self.front, place, self.job.handles[place.file as usize]))
    }

    fn judge_all(&mut self, units: Range<u64>, place: Place, data: &[u8]) {
        let unit_bytes = self.job.blocks.shape().unit_bytes as usize;
        for (unit, bytes) in units.clone().zip(data.chunks_exact(unit_bytes)) {
            let place = Place { unit: place.unit + (unit - units.start), ..place };
            self.judge(unit, place, self.job.blocks.recognise(bytes));
        }
    }

    fn judge_gone(&mut self, units: Range<u64>, place: Place) {
        for unit in units.clone() {
            self.judge(unit, Place { unit: place.unit + (unit - units.start), ..place }, Found::Zeros);
        }
    }

    fn judge(&mut self, unit: u64, place: Place, found: Found) {
        self.checked.units_checked += 1;
        let floor = self.expectations.floor(unit);
        match self.expectations.judge((unit, place), floor, self.job.blocks, found) {
            Ok(None) => {}
            Ok(Some(_)) => self.checked.units_newer += 1,
            Err(Breach::NeverWritten { .. }) if !self.job.closed => self.checked.units_newer += 1,
            Err(breach) => self.note(unit, place, breach),
        }
    }

    fn note_all(&mut self, units: Range<u64>, place: Place, breach: Breach) {
        for unit in units.clone() {
            self.checked.units_checked += 1;
            self.note(unit, Place { unit: place.unit + (unit - units.start), ..place }, breach);
        }
    }

    fn note(&mut self, unit: u64, place: Place, breach: Breach) {
        self.checked.violation_count += 1;
        if self.checked.violations.len() < VIOLATIONS_KEPT {
            self.checked.violations.push(Violation {
                file: self.job.files.files()[place.file as usize].path.clone(),
                offset_bytes: place.unit * u64::from(self.job.blocks.shape().unit_bytes),
                expected_version_min: self.expectations.floor(unit),
                expected_version_max: self.expectations.issued(unit),
                breach,
            });
        }
    }
}

/// Checks a journal against the server. The report is not printed.
pub fn run(arguments: &VerifyArgs, console: Console) -> Result<VerifyReport, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run_here(arguments, console))
}

/// Checks a journal inside the caller's `LocalSet`.
pub async fn run_here(arguments: &VerifyArgs, console: Console) -> Result<VerifyReport, Failure> {
    let started = Instant::now();
    let mut journal = Journal::read(&arguments.journal)?;
    let header = &journal.header;
    let target = match &arguments.target {
        Some(target) => target.clone(),
        None => header.target.parse()?,
    };
    let mounted = arguments.connect.mount(&target).await?;
    let parent = mounted.walk(&mounted.below).await?;
    let client = &mounted.client;
    let handles = match client.lookup(&parent, header.directory.as_bytes()).await {
        Ok((directory, _)) => fileset::look_up(client, &directory, &journal.files).await,
        Err(NOENT) => Ok(vec![None; header.files.len()]),
        Err(error) => Err(error),
    };
    let handles = handles.map_err(calling("look the files up"))?;
    let blocks = Blocks::new(header.shape);
    let expectations = std::mem::replace(&mut journal.expectations, Expectations::new(0));
    let job = Job { blocks: &blocks, files: &journal.files, handles: &handles, closed: journal.closed };
    let bar = crate::bench::progress(console, "checking", None);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let checked = check(std::slice::from_ref(client), job, expectations, arguments.depth.max(1)).await;
    bar.finish_and_clear();
    let report = report(&journal, arguments.connect.target(&target).to_string(), checked?, started);
    if arguments.remove && report.ok {
        let removed = fileset::remove_tree(client, &parent, header.directory.as_bytes()).await;
        removed.map_err(calling("remove the files"))?;
    }
    Ok(report)
}

fn report(journal: &Journal, target: String, checked: Checked, started: Instant) -> VerifyReport {
    VerifyReport {
        ok: checked.violation_count == 0,
        target,
        directory: journal.header.directory.clone(),
        run_id: format!("{:016x}", journal.header.shape.run_id),
        journal_closed: journal.closed,
        acknowledged_writes: journal.acknowledged_writes,
        unacknowledged_writes: journal.issued_writes.saturating_sub(journal.acknowledged_writes),
        units_checked: checked.units_checked,
        units_newer_than_acknowledged: checked.units_newer,
        elapsed_seconds: started.elapsed().as_secs_f64(),
        violation_count: checked.violation_count,
        violations: checked.violations,
    }
}
