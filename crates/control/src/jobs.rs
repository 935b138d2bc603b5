//! Jobs: anything that goes on longer than a second, and the promises its progress keeps.
//!
//! Whoever does the work holds a [`JobHandle`] and tells how far it is; everyone else reads
//! [`Job`]s from the [`JobBook`]. The book is the only place that turns what workers tell
//! into percent, rate and remaining time, so these hold for every job in every view:
//!
//! * `0 <= percent <= 100`, and 100 exactly when the state is `done`;
//! * percent never falls within a pass; starting over raises `pass`;
//! * remaining time is unknown until 30 s or 1 % have passed, and while paused.
//!
//! Work that a store does by itself outlives the process: it is taken up again as the job it was
//! ([`JobBook::take_up`]), in its next pass.
//!
//! A job that must be paused or stopped is asked to ([`JobBook::ask`]); the worker looks at
//! [`JobHandle::wish`] between its steps.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::envelope::Document;
use crate::ledger::Ledger;
use crate::problem::Problem;
use crate::text::{self, Table, left, right};

/// Ended jobs that are remembered.
const ENDED_MAX: usize = 200;
/// Running work is never shown as done.
const RUNNING_PERCENT_MAX: f64 = 99.9;
const ETA_AFTER_SECONDS: f64 = 30.0;
const ETA_AFTER_PERCENT: f64 = 1.0;
/// Weight of the newest measurement in the smoothed rate.
const RATE_WEIGHT: f64 = 0.2;

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// At work.
    Running,
    /// Waits, because it was asked to or because something goes first.
    Paused,
    /// All of it is done.
    Done,
    /// It ended without being done; `result` says why.
    Failed,
    /// It was asked to stop and did.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A job as everyone sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// `J-1042`.
    pub id: String,
    /// `rebuild`, `scrub`, `fsck`.
    pub kind: String,
    /// `full` or `delta`, where there is a difference.
    pub mode: Option<String>,
    /// What it is about, as in `flash0/7`.
    pub object: String,
    /// How it stands.
    pub state: JobState,
    /// 0 to 100; 100 exactly when done. Unknown while its size is.
    pub percent: Option<f64>,
    /// Work behind it.
    pub done_bytes: u64,
    /// All of its work, as far as known.
    pub total_bytes: Option<u64>,
    /// Whether `total_bytes` may still change.
    pub total_is_estimate: bool,
    /// Smoothed.
    pub rate_bytes_per_second: Option<f64>,
    /// Remaining time.
    pub eta_seconds: Option<f64>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// 1, and one more each time it had to start over.
    pub pass: u32,
    /// What holds it back, as in `user_io_priority`.
    pub limited_by: Option<String>,
    /// Whether `pause` is taken.
    pub can_pause: bool,
    /// Whether `cancel` is taken.
    pub can_cancel: bool,
    /// Steps that failed and were left out.
    pub errors: u64,
    /// How it ended, in words.
    pub result: Option<String>,
}

impl Document for Job {
    const SCHEMA: &'static str = "vmhold.job.show/v1";
}

impl Job {
    /// Percent as a share, for gauges.
    #[must_use]
    pub fn progress_ratio(&self) -> Option<f64> {
        self.percent.map(|percent| percent / 100.0)
    }

    /// `[#####......]  38 %  610 MiB/s  12 min left`.
    #[must_use]
    pub fn progress(&self) -> String {
        let mut out = text::or_dash(self.percent, |percent| {
            format!("{} {:>3.0} %", text::bar(percent / 100.0, 20), percent.floor())
        });
        if self.state != JobState::Running {
            out.push_str(&format!("  {}", self.state.word()));
        }
        if let Some(rate) = self.rate_bytes_per_second.filter(|_| self.state == JobState::Running) {
            out.push_str(&format!("  {}/s", text::bytes(rate.max(0.0) as u64)));
        }
        if let Some(eta) = self.eta_seconds {
            out.push_str(&format!("  {} left", text::duration(eta)));
        }
        out
    }
}

/// `job list`, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobList(pub Vec<Job>);

impl Document for JobList {
    const SCHEMA: &'static str = "vmhold.job.list/v1";
}

impl JobList {
    /// `job list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no jobs: nothing goes on, and nothing went on since records began\n".to_owned();
        }
        let mut table = Table::new(&[
            left("JOB"),
            left("KIND"),
            left("OBJECT"),
            left("STATE"),
            right("DONE"),
            left("STARTED (UTC)"),
            left("RESULT"),
        ]);
        for job in &self.0 {
            table.row(vec![
                job.id.clone(),
                job.kind.clone(),
                job.object.clone(),
                job.state.word().to_owned(),
                text::or_dash(job.percent, |percent| format!("{:.0} %", percent.floor())),
                job.started_at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                job.result.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.render(width)
    }
}

/// What a worker is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    #[default]
    Go,
    /// Pause until asked to go on.
    Pause,
    /// Stop for good.
    Cancel,
}

/// What is known when a job begins.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// `rebuild`.
    pub kind: &'static str,
    /// `full`, `delta`.
    pub mode: Option<&'static str>,
    /// What it is about.
    pub object: String,
    /// Work to do, if known.
    pub total_bytes: Option<u64>,
    /// Whether that may change.
    pub total_is_estimate: bool,
    /// Whether the worker looks for [`Wish::Pause`].
    pub can_pause: bool,
    /// Whether the worker looks for [`Wish::Cancel`].
    pub can_cancel: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    job: Job,
    wish: Wish,
    /// Whether it was asked since the worker last took the wish.
    is_asked: bool,
    /// Where and when the rate was measured last.
    measured: (Timestamp, u64),
}

#[derive(Debug, Default)]
struct Pages {
    last_number: u64,
    entries: VecDeque<Entry>,
    /// Raised with every change, so that watchers see that there is something to see.
    changes: u64,
}

impl Pages {
    fn forget_the_oldest(&mut self) {
        while self.entries.iter().filter(|entry| entry.job.state.is_ended()).count() > ENDED_MAX {
            let Some(oldest) = self.entries.iter().position(|entry| entry.job.state.is_ended()) else { return };
            self.entries.remove(oldest);
        }
    }
}

/// All jobs of a store: those at work and the last that ended. Each is a line of a ledger
/// when it begins and another one when it ends.
pub struct JobBook {
    pages: Mutex<Pages>,
    ledger: Box<dyn Ledger>,
}

impl fmt::Debug for JobBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobBook").field(&*self.pages()).finish()
    }
}

impl JobBook {
    /// A book with the lines an earlier run left in its ledger; the last line of a job
    /// counts. What was at work when that run ended is shown as failed.
    #[must_use]
    pub fn open<'a>(lines: impl Iterator<Item = &'a str>, ledger: Box<dyn Ledger>) -> Arc<Self> {
        let mut jobs: BTreeMap<u64, Job> = BTreeMap::new();
        for job in lines.filter_map(|line| serde_json::from_str::<Job>(line).ok()) {
            number_of(&job.id).map(|number| jobs.insert(number, job));
        }
        let entry = |(number, mut job): (u64, Job)| {
            if !job.state.is_ended() {
                job.state = JobState::Failed;
                job.result = Some("the server ended before it was done".to_owned());
            }
            Entry { number, measured: (job.started_at, job.done_bytes), wish: Wish::Go, is_asked: false, job }
        };
        let last_number = jobs.keys().next_back().copied().unwrap_or(0);
        let entries = jobs.into_iter().map(entry).collect();
        let mut pages = Pages { last_number, entries, changes: 0 };
        pages.forget_the_oldest();
        Arc::new(Self { pages: Mutex::new(pages), ledger })
    }

    /// A line that is not kept costs history, not work: the job goes on.
    fn keep(&self, job: &Job) {
        let line = serde_json::to_string(job).expect("jobs hold only strings and finite numbers");
        let _ = self.ledger.append(&line);
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a job.
    #[must_use]
    pub fn start(self: &Arc<Self>, new: NewJob, now: Timestamp) -> JobHandle {
        let mut pages = self.pages();
        pages.last_number += 1;
        let number = pages.last_number;
        let job = Job {
            id: format!("J-{number}"),
            kind: new.kind.to_owned(),
            mode: new.mode.map(str::to_owned),
            object: new.object,
            state: JobState::Running,
            percent: new.total_bytes.map(|_| 0.0),
            done_bytes: 0,
            total_bytes: new.total_bytes,
            total_is_estimate: new.total_is_estimate,
            rate_bytes_per_second: None,
            eta_seconds: None,
            started_at: now,
            ended_at: None,
            pass: 1,
            limited_by: None,
            can_pause: new.can_pause,
            can_cancel: new.can_cancel,
            errors: 0,
            result: None,
        };
        pages.entries.push_back(Entry { number, job, wish: Wish::Go, is_asked: false, measured: (now, 0) });
        pages.forget_the_oldest();
        pages.changes += 1;
        self.keep(&pages.entries[pages.entries.len() - 1].job);
        drop(pages);
        JobHandle { book: self.clone(), number }
    }

    /// Goes on with the newest job of this kind and object if the process ended under it: in a
    /// new pass, at `done_bytes`. Else begins one.
    #[must_use]
    pub fn take_up(self: &Arc<Self>, new: NewJob, done_bytes: u64, now: Timestamp) -> JobHandle {
        let mut pages = self.pages();
        let same = |entry: &&mut Entry| entry.job.kind == new.kind && entry.job.object == new.object;
        let newest = pages.entries.iter_mut().rev().find(same);
        // Only who ends a job knows when.
        let cut_short = newest.filter(|entry| entry.job.state == JobState::Failed && entry.job.ended_at.is_none());
        let Some(entry) = cut_short else {
            drop(pages);
            let handle = self.start(new, now);
            handle.change(|entry| entry.measured = (now, done_bytes));
            return handle;
        };
        let job = &mut entry.job;
        (job.state, job.result, job.mode) = (JobState::Running, None, new.mode.map(str::to_owned));
        (job.pass, job.done_bytes) = (job.pass + 1, done_bytes);
        (job.total_bytes, job.total_is_estimate) = (new.total_bytes, new.total_is_estimate);
        (job.can_pause, job.can_cancel, job.errors) = (new.can_pause, new.can_cancel, 0);
        job.percent = new.total_bytes.map(|_| 0.0);
        // What an earlier life did is no speed.
        (job.rate_bytes_per_second, job.eta_seconds, job.limited_by) = (None, None, None);
        entry.measured = (now, done_bytes);
        let number = entry.number;
        self.keep(&entry.job);
        pages.changes += 1;
        drop(pages);
        JobHandle { book: self.clone(), number }
    }

    /// All jobs, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Job> {
        self.pages().entries.iter().rev().map(|entry| entry.job.clone()).collect()
    }

    /// Those that have not ended, oldest first.
    #[must_use]
    pub fn at_work(&self) -> Vec<Job> {
        let pages = self.pages();
        pages.entries.iter().filter(|entry| !entry.job.state.is_ended()).map(|entry| entry.job.clone()).collect()
    }

    /// Grows whenever any job changes.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.pages().changes
    }

    /// One job by its id.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn find(&self, id: &str) -> Result<Job, Problem> {
        let pages = self.pages();
        let found = pages.entries.iter().find(|entry| entry.job.id == id);
        found.map(|entry| entry.job.clone()).ok_or_else(|| unknown(id))
    }

    /// Asks a job to pause, to go on or to stop. With `dry_run` it is only checked whether
    /// the job would take it.
    ///
    /// # Errors
    /// `NOT_FOUND`; `CONFLICT` when the job has ended or does not take it.
    pub fn ask(&self, id: &str, wish: Wish, dry_run: bool) -> Result<Job, Problem> {
        let mut pages = self.pages();
        let entry = pages.entries.iter_mut().find(|entry| entry.job.id == id).ok_or_else(|| unknown(id))?;
        let job = &entry.job;
        if job.state.is_ended() {
            let what = format!("job {id} has ended already: {}", job.state.word());
            return Err(Problem::new(&codes::CONFLICT, what).step(format!("vmhold job show {id}")));
        }
        let takes = match wish {
            Wish::Go | Wish::Pause => job.can_pause,
            Wish::Cancel => job.can_cancel,
        };
        if !takes {
            let what = format!("job {id} ({} {}) cannot be asked for that", job.kind, job.object);
            return Err(Problem::new(&codes::CONFLICT, what)
                .why("stopping or delaying it would leave data with less redundancy than it should have")
                .step(format!("follow it: vmhold job show {id} --watch")));
        }
        if !dry_run {
            (entry.wish, entry.is_asked) = (wish, true);
        }
        Ok(entry.job.clone())
    }
}

fn unknown(id: &str) -> Problem {
    Problem::new(&codes::NOT_FOUND, format!("no job {id:?}")).step("vmhold job list")
}

fn number_of(id: &str) -> Option<u64> {
    id.strip_prefix("J-")?.parse().ok()
}

/// The end of a job that its worker holds. A handle that is dropped before the job ended
/// leaves it as failed: nobody is at work on it any more.
#[derive(Debug)]
pub struct JobHandle {
    book: Arc<JobBook>,
    number: u64,
}

impl JobHandle {
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut pages = self.book.pages();
        let entry = pages.entries.iter_mut().find(|entry| entry.number == self.number);
        if let Some(entry) = entry.filter(|entry| !entry.job.state.is_ended()) {
            change(entry);
            if entry.job.state.is_ended() {
                self.book.keep(&entry.job);
            }
            pages.changes += 1;
        }
    }

    /// `J-1042`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("J-{}", self.number)
    }

    /// What the worker is asked for.
    #[must_use]
    pub fn wish(&self) -> Wish {
        let pages = self.book.pages();
        pages.entries.iter().find(|entry| entry.number == self.number).map_or(Wish::Cancel, |entry| entry.wish)
    }

    /// What the worker was asked for since it last asked this.
    #[must_use]
    pub fn take_wish(&self) -> Option<Wish> {
        let mut pages = self.book.pages();
        let entry = pages.entries.iter_mut().find(|entry| entry.number == self.number)?;
        std::mem::take(&mut entry.is_asked).then_some(entry.wish)
    }

    /// Tells how far it is within this pass. What was told before is never taken back.
    pub fn advance(&self, done_bytes: u64, now: Timestamp) {
        self.change(|entry| {
            entry.job.done_bytes = entry.job.done_bytes.max(done_bytes);
            entry.job.state = JobState::Running;
            measure(entry, now);
        });
    }

    /// Tells that the work is larger or smaller than thought. Percent does not fall by it.
    pub fn resize(&self, total_bytes: u64, is_estimate: bool, now: Timestamp) {
        self.change(|entry| {
            entry.job.total_bytes = Some(total_bytes);
            entry.job.total_is_estimate = is_estimate;
            measure(entry, now);
        });
    }

    /// Tells that it has to start over: a new pass from 0.
    pub fn start_over(&self, now: Timestamp) {
        self.change(|entry| {
            entry.job.pass += 1;
            entry.job.done_bytes = 0;
            entry.job.percent = entry.job.total_bytes.map(|_| 0.0);
            entry.job.rate_bytes_per_second = None;
            entry.job.eta_seconds = None;
            entry.measured = (now, 0);
        });
    }

    /// Tells that it waits, and for what.
    pub fn pause(&self, limited_by: &str) {
        self.change(|entry| {
            entry.job.state = JobState::Paused;
            entry.job.limited_by = Some(limited_by.to_owned());
            entry.job.rate_bytes_per_second = None;
            entry.job.eta_seconds = None;
        });
    }

    /// Tells what holds it back while it goes on; `None` is nothing.
    pub fn limited_by(&self, what: Option<&str>) {
        self.change(|entry| entry.job.limited_by = what.map(str::to_owned));
    }

    /// Counts a step that failed and was left out.
    pub fn error(&self) {
        self.change(|entry| entry.job.errors += 1);
    }

    /// Ends it.
    pub fn end(self, state: JobState, result: impl Into<String>, now: Timestamp) {
        debug_assert!(state.is_ended(), "a job ends done, failed or cancelled");
        self.change(|entry| end(entry, state, result.into(), Some(now)));
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.change(|entry| end(entry, JobState::Failed, "its work ended without a word".to_owned(), None));
    }
}

fn end(entry: &mut Entry, state: JobState, result: String, now: Option<Timestamp>) {
    let job = &mut entry.job;
    job.state = state;
    job.ended_at = now;
    job.result = Some(result);
    job.eta_seconds = None;
    job.rate_bytes_per_second = None;
    job.limited_by = None;
    if state == JobState::Done {
        job.percent = Some(100.0);
        job.total_bytes = Some(job.total_bytes.unwrap_or(job.done_bytes).max(job.done_bytes));
        job.total_is_estimate = false;
    }
}

/// Percent, rate and remaining time from what is done.
fn measure(entry: &mut Entry, now: Timestamp) {
    let job = &mut entry.job;
    let Some(total) = job.total_bytes else { return };
    let reached = if total == 0 { 0.0 } else { job.done_bytes as f64 / total as f64 * 100.0 };
    let percent = job.percent.unwrap_or(0.0).max(reached.min(RUNNING_PERCENT_MAX));
    job.percent = Some(percent);
    if job.state != JobState::Running {
        return;
    }
    let (then, done_then) = entry.measured;
    let seconds = now.duration_since(then).as_secs_f64();
    if seconds >= 1.0 {
        let newest = job.done_bytes.saturating_sub(done_then) as f64 / seconds;
        let smoothed = job.rate_bytes_per_second.map_or(newest, |rate| rate + RATE_WEIGHT * (newest - rate));
        job.rate_bytes_per_second = Some(smoothed);
        entry.measured = (now, job.done_bytes);
    }
    let age_seconds = now.duration_since(job.started_at).as_secs_f64();
    let is_known = age_seconds >= ETA_AFTER_SECONDS || percent >= ETA_AFTER_PERCENT;
    let left = total.saturating_sub(job.done_bytes) as f64;
    job.eta_seconds = job.rate_bytes_per_second.filter(|rate| is_known && *rate > 0.0).map(|rate| left / rate);
}

#[cfg(test)]
pub mod samples {
    //! A job as the tests of texts need it.

    use super::*;
    use crate::ledger::MemoryLedger;

    /// One that is nearly done.
    pub fn fsck() -> Job {
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let began: Timestamp = "2026-11-20T09:00:00Z".parse().unwrap();
        let new = NewJob { kind: "fsck", object: "flash0".into(), total_bytes: Some(1000), ..NewJob::default() };
        let handle = book.start(new, began);
        handle.advance(999, began);
        book.at_work().remove(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::MemoryLedger;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn rebuild(total_bytes: Option<u64>) -> NewJob {
        NewJob { kind: "rebuild", object: "flash0/7".into(), total_bytes, can_pause: true, ..NewJob::default() }
    }

    /// What a worker may tell, in any order.
    #[derive(Clone, Debug)]
    enum Told {
        Advance(u64),
        Resize(u64),
        StartOver,
        Pause,
        Error,
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            6 => (0..2000_u64).prop_map(Told::Advance),
            2 => (0..2000_u64).prop_map(Told::Resize),
            1 => Just(Told::StartOver),
            1 => Just(Told::Pause),
            1 => Just(Told::Error),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever workers tell, in whatever order, and wherever it ends: progress keeps
        /// its promises (`experience.md` 3.6, U4).
        #[test]
        fn progress_keeps_its_promises(
            total in proptest::option::of(0..1500_u64),
            story in proptest::collection::vec((0..40_i64, told()), 0..40),
            is_done: bool,
        ) {
            let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
            let handle = book.start(rebuild(total), at(0));
            let (mut now, mut before) = (0, book.find("J-1").unwrap());
            for (seconds, told) in story {
                now += seconds;
                match told {
                    Told::Advance(done) => handle.advance(done, at(now)),
                    Told::Resize(total) => handle.resize(total, true, at(now)),
                    Told::StartOver => handle.start_over(at(now)),
                    Told::Pause => handle.pause("user_io_priority"),
                    Told::Error => handle.error(),
                }
                let job = book.find("J-1").unwrap();
                let percent = job.percent.unwrap_or(0.0);
                prop_assert!((0.0..100.0).contains(&percent), "{job:?}");
                if job.pass == before.pass {
                    prop_assert!(percent >= before.percent.unwrap_or(0.0), "fell: {before:?} {job:?}");
                    prop_assert!(job.done_bytes >= before.done_bytes);
                } else {
                    prop_assert_eq!(job.pass, before.pass + 1);
                }
                if job.state == JobState::Paused || (now < 30 && percent < 1.0) {
                    prop_assert_eq!(job.eta_seconds, None);
                }
                prop_assert!(job.eta_seconds.is_none_or(|eta| eta.is_finite() && eta >= 0.0));
                before = job;
            }
            let state = if is_done { JobState::Done } else { JobState::Cancelled };
            handle.end(state, "told", at(now));
            let job = book.find("J-1").unwrap();
            prop_assert_eq!(job.percent == Some(100.0), is_done, "{:?}", job);
            prop_assert!(job.total_bytes.is_none_or(|total| !is_done || total >= job.done_bytes));
        }
    }

    #[test]
    fn a_worker_that_goes_away_leaves_a_failed_job() {
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        drop(book.start(rebuild(Some(10)), at(0)));
        let job = book.find("J-1").unwrap();
        assert_eq!((job.state, book.at_work().len()), (JobState::Failed, 0));
    }

    #[test]
    fn jobs_of_an_earlier_run_are_kept_and_numbers_go_on() {
        let ledger = MemoryLedger::default();
        let book = JobBook::open(std::iter::empty(), Box::new(ledger.clone()));
        book.start(rebuild(None), at(0)).end(JobState::Done, "rebuilt", at(5));
        let at_work = book.start(rebuild(None), at(6));
        let lines = ledger.lines();
        let again = JobBook::open(lines.iter().map(String::as_str).chain(["{torn"]), Box::new(ledger));
        assert_eq!(again.find("J-1").unwrap(), book.find("J-1").unwrap());
        assert_eq!(again.find("J-2").unwrap().state, JobState::Failed, "nobody is at work on it now");
        assert_eq!(again.start(rebuild(None), at(7)).id(), "J-3");
        drop(at_work);
    }

    #[test]
    fn a_wish_reaches_the_worker_only_if_it_takes_it() {
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let handle = book.start(rebuild(Some(10)), at(0));
        assert_eq!(book.ask("J-1", Wish::Cancel, false).unwrap_err().code(), &codes::CONFLICT);
        book.ask("J-1", Wish::Pause, true).unwrap();
        assert_eq!(handle.wish(), Wish::Go, "a dry run changes nothing");
        book.ask("J-1", Wish::Pause, false).unwrap();
        assert_eq!(handle.wish(), Wish::Pause);
        handle.end(JobState::Done, "rebuilt", at(9));
        assert_eq!(book.ask("J-1", Wish::Go, false).unwrap_err().code(), &codes::CONFLICT);
        assert_eq!(book.ask("J-9", Wish::Go, false).unwrap_err().code(), &codes::NOT_FOUND);
    }

    #[test]
    fn work_that_outlives_the_process_is_the_same_job_in_its_next_pass() {
        let scrub = || NewJob {
            kind: "scrub",
            object: "flash0".into(),
            total_bytes: Some(1000),
            can_pause: true,
            ..NewJob::default()
        };
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let handle = book.take_up(scrub(), 0, at(0));
        handle.advance(400, at(10));
        let line = serde_json::to_string(&book.find("J-1").unwrap()).unwrap();
        let next = JobBook::open([line.as_str()].into_iter(), Box::new(MemoryLedger::default()));
        assert_eq!(next.find("J-1").unwrap().state, JobState::Failed);
        let handle = next.take_up(scrub(), 390, at(20));
        handle.advance(410, at(30));
        let job = next.find("J-1").unwrap();
        assert_eq!((job.state, job.pass, job.percent), (JobState::Running, 2, Some(41.0)));
        assert_eq!(job.rate_bytes_per_second, Some(2.0), "what an earlier life did is no speed");
        handle.end(JobState::Done, "all read", at(40));
        let handle = next.take_up(scrub(), 0, at(50));
        assert_eq!(handle.id(), "J-2", "what has ended is not taken up");
        assert_eq!(handle.take_wish(), None);
        next.ask("J-2", Wish::Pause, false).unwrap();
        assert_eq!((handle.take_wish(), handle.take_wish()), (Some(Wish::Pause), None), "once");
    }

    #[test]
    fn only_the_last_ended_jobs_are_kept() {
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let running = book.start(rebuild(None), at(0));
        for _ in 0..ENDED_MAX + 50 {
            book.start(rebuild(None), at(0)).end(JobState::Done, "ok", at(1));
        }
        assert!(book.list().len() <= ENDED_MAX + 2);
        assert!(book.find(&running.id()).is_ok(), "what is at work is never dropped");
    }

    #[test]
    fn the_list_fits_eighty_columns() {
        let book = JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        book.start(rebuild(Some(10)), at(0)).end(JobState::Done, "rebuilt", at(9));
        let text = JobList(book.list()).human(80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("J-1") && text.contains("100 %"), "{text}");
    }
}
