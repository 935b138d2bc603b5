//! What VMs and disks did: the last minute by the second, a day in steps of ten seconds, ninety
//! days in steps of a quarter of an hour.
//!
//! ```text
//!  Measured, once a second --> last minute (memory)                          now, iostat
//!                         \--> step of 10 s --> `activity-fine-*.jsonl`      a day
//!                         \--> step of 900 s -> `activity-rolled-*.jsonl`    90 days
//! ```
//! A step without operations is written down, too: where there is none, nothing is known. A step
//! holds, for each VM and each disk that did something, the sums of its operations' times
//! by part, so parts still sum to the total after any roll-up, and percentiles from the histogram
//! of the whole step. It is one line of a segment, a file for a span of time; lines before it give VMs
//! and disks their numbers (`docs/formats/activity.md`).
//!
//! Bounded: [`ROWS_MAX`] rows in a step (those with most work), and a fixed number of segments, the
//! oldest of which is written anew. What was collected of a step when the process is killed is
//! lost: a hole of less than ten seconds, and of less than a quarter of an hour in the rolled
//! level; a stop writes both.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::meter::{Kind, PARTS, Part, Sums};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::activity::{
    Activity, ActivityList, ActivityPoint, ActivityRow, Contributor, Contributors, Measured, Tally, VmLatency,
    mean_latency, slow_part,
};

/// Seconds kept in memory one by one.
const RECENT: usize = 60;
/// Over how many of them "now" is.
const NOW_SECONDS: usize = 10;
/// VMs and disks in a step.
const ROWS_MAX: usize = 256;
/// Points in an answer.
const POINTS_MAX: i64 = 720;
/// VMs with totals since the start.
const TOTALS_MAX: usize = 2000;
const DAY_SECONDS: i64 = 86_400;
const HOUR_SECONDS: i64 = 3600;

/// Where segments are kept. Names are those of [`segment_names`].
pub trait SegmentFolder: Send + Sync {
    /// The text of one; nothing if there is none.
    ///
    /// # Errors
    /// The file's.
    fn read(&self, name: &str) -> io::Result<String>;
    /// Appends to one, which is made if it is not there.
    ///
    /// # Errors
    /// The file's.
    fn append(&self, name: &str, text: &str) -> io::Result<()>;
    /// Removes one, if it is there.
    ///
    /// # Errors
    /// The file's.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// How fine steps are, and how long they are kept.
struct Level {
    name: &'static str,
    step_seconds: i64,
    segment_seconds: i64,
    segments: i64,
    /// At least so far back everything is there.
    kept_seconds: i64,
}

const FINE: Level =
    Level { name: "fine", step_seconds: 10, segment_seconds: 4 * HOUR_SECONDS, segments: 8, kept_seconds: DAY_SECONDS };

const ROLLED: Level = Level {
    name: "rolled",
    step_seconds: 900,
    segment_seconds: 10 * DAY_SECONDS,
    segments: 11,
    kept_seconds: 90 * DAY_SECONDS,
};

impl Level {
    /// Name of the segment that a moment belongs to, with the number of its span of time.
    fn segment_of(&self, at: i64) -> (i64, String) {
        let span = at.div_euclid(self.segment_seconds);
        (span, self.segment_name(span.rem_euclid(self.segments)))
    }

    fn segment_name(&self, place: i64) -> String {
        format!("activity-{}-{place}.jsonl", self.name)
    }
}

/// Names of all segments there may be.
#[must_use]
pub fn segment_names() -> Vec<String> {
    let of = |level: &'static Level| (0..level.segments).map(|place| level.segment_name(place));
    of(&FINE).chain(of(&ROLLED)).collect()
}

/// A VM or a disk of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Series {
    datastore: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    vm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    disk: Option<String>,
}

/// One line of a segment: a name for a number, or a step.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Named { number: u64, series: Series },
    Step { at: i64, seconds: f64, left_out: u64, rows: Vec<[u64; ROW_FIELDS]> },
}

/// Fields of a row: number of the series; count and bytes by kind, without the bytes of others;
/// cost; parts and percentiles in microseconds.
const ROW_FIELDS: usize = 7 + PARTS + 3;

/// What a row holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    counts: [u64; 3],
    bytes: [u64; 2],
    cost: u64,
    parts_us: [u64; PARTS],
    percentiles_us: [u64; 3],
}

impl Row {
    fn of(tally: &Tally) -> Row {
        let all = tally.sums();
        let us = |share| tally.spread.percentile_ns(share).unwrap_or(0) / 1000;
        Row {
            counts: tally.kinds.each_ref().map(|sums| sums.count),
            bytes: [tally.kinds[Kind::Read as usize].bytes, tally.kinds[Kind::Write as usize].bytes],
            cost: all.cost,
            parts_us: all.parts_ns.map(|ns| ns / 1000),
            percentiles_us: [us(0.5), us(0.95), us(0.99)],
        }
    }

    fn fields(&self, number: u64) -> [u64; ROW_FIELDS] {
        let mut fields = [0; ROW_FIELDS];
        let all = [number].into_iter().chain(self.counts).chain(self.bytes).chain([self.cost]);
        let all = all.chain(self.parts_us).chain(self.percentiles_us);
        fields.iter_mut().zip(all).for_each(|(field, value)| *field = value);
        fields
    }

    fn from_fields(fields: &[u64; ROW_FIELDS]) -> Row {
        let mut rest = fields[1..].iter().copied();
        let mut next = || rest.next().unwrap_or(0);
        let counts = [next(), next(), next()];
        let (bytes, cost) = ([next(), next()], next());
        let mut parts_us = [0; PARTS];
        parts_us.iter_mut().for_each(|part| *part = next());
        Row { counts, bytes, cost, parts_us, percentiles_us: [next(), next(), next()] }
    }

    /// Adds another step; of percentiles the worse one stays.
    fn merge(&mut self, other: &Row) {
        let add = |to: &mut [u64], more: &[u64]| to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
        add(&mut self.counts, &other.counts);
        add(&mut self.bytes, &other.bytes);
        add(&mut self.parts_us, &other.parts_us);
        self.cost += other.cost;
        for (worst, more) in self.percentiles_us.iter_mut().zip(other.percentiles_us) {
            *worst = (*worst).max(more);
        }
    }

    fn operations(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn activity(&self, seconds: f64) -> Activity {
        let per_second = |number: u64| if seconds > 0.0 { number as f64 / seconds } else { 0.0 };
        let parts_ms = self.parts_us.map(|us| us as f64 / 1000.0);
        let measured = self.counts[0] + self.counts[1] > 0;
        let percentiles = self.percentiles_us.map(|us| measured.then_some(us as f64 / 1000.0));
        Activity {
            reads_per_second: per_second(self.counts[Kind::Read as usize]),
            writes_per_second: per_second(self.counts[Kind::Write as usize]),
            others_per_second: per_second(self.counts[Kind::Other as usize]),
            bytes_per_second: per_second(self.bytes.iter().sum()),
            cost_per_second: per_second(self.cost),
            latency_ms: mean_latency(self.operations(), &parts_ms, percentiles),
            slow_part: slow_part(&parts_ms).map(str::to_owned),
        }
    }
}

/// A step that is being collected.
#[derive(Default)]
struct Collecting {
    begins: Option<i64>,
    seconds: f64,
    tallies: BTreeMap<Series, Tally>,
}

/// The segment that is written.
#[derive(Default)]
struct Writing {
    /// Its span of time.
    span: Option<i64>,
    name: String,
    numbers: BTreeMap<Series, u64>,
}

/// A level at work.
#[derive(Default)]
struct Stage {
    collecting: Collecting,
    writing: Writing,
}

#[derive(Default)]
struct Pages {
    recent: VecDeque<Measured>,
    stages: [Stage; 2],
    totals: BTreeMap<(String, String), [Sums; 3]>,
}

/// See the module's head.
pub struct ActivityBook {
    pages: Mutex<Pages>,
    folder: Box<dyn SegmentFolder>,
}

/// What totals since the start are of.
pub struct VmTotal {
    /// Datastore.
    pub datastore: String,
    /// VM.
    pub vm: String,
    /// Sums by kind.
    pub kinds: [Sums; 3],
}

/// Which series an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// VMs.
    Vm,
    /// Disks of VMs.
    Disk,
}

/// VM and disk, if it is one, of a file.
fn series_of(file: &super::activity::MeasuredFile) -> impl Iterator<Item = Series> {
    let vm = Series { datastore: file.datastore.clone(), vm: file.vm.clone(), disk: None };
    let disk = file.disk.clone().map(|disk| Series { disk: Some(disk), ..vm.clone() });
    [Some(vm), disk].into_iter().flatten()
}

impl Collecting {
    fn add(&mut self, measured: &Measured) {
        self.seconds += measured.seconds;
        for file in &measured.files {
            for series in series_of(file) {
                self.tallies.entry(series).or_default().put(file);
            }
        }
    }

    /// What it has; it has nothing then.
    fn take(&mut self) -> Option<Collecting> {
        let step = std::mem::take(self);
        step.begins.is_some().then_some(step)
    }
}

impl ActivityBook {
    /// With what earlier runs left in `folder`.
    #[must_use]
    pub fn open(folder: Box<dyn SegmentFolder>) -> Arc<Self> {
        Arc::new(Self { pages: Mutex::default(), folder })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was measured up to `at`.
    pub fn add(&self, at: Timestamp, measured: Measured) {
        let mut pages = self.pages();
        for file in &measured.files {
            let own = (file.datastore.clone(), file.vm.clone().unwrap_or_default());
            if pages.totals.len() < TOTALS_MAX || pages.totals.contains_key(&own) {
                let sums = pages.totals.entry(own).or_default();
                sums.iter_mut().zip(&file.kinds).for_each(|(sums, more)| sums.merge(more));
            }
        }
        for (stage, level) in pages.stages.iter_mut().zip([&FINE, &ROLLED]) {
            let begins = at.as_second().div_euclid(level.step_seconds) * level.step_seconds;
            if stage.collecting.begins.is_some_and(|now| now != begins) {
                self.write(stage, level);
            }
            stage.collecting.begins = Some(begins);
            stage.collecting.add(&measured);
        }
        if pages.recent.len() == RECENT {
            pages.recent.pop_front();
        }
        pages.recent.push_back(measured);
    }

    /// Writes down what is collected: the store stops.
    pub fn stop(&self) {
        let mut pages = self.pages();
        for (stage, level) in pages.stages.iter_mut().zip([&FINE, &ROLLED]) {
            self.write(stage, level);
        }
    }

    /// Ends a step: a line in the segment, which is the next one when its time is over.
    fn write(&self, stage: &mut Stage, level: &Level) {
        let Some(step) = stage.collecting.take() else { return };
        let at = step.begins.unwrap_or_default();
        let (span, name) = level.segment_of(at);
        if stage.writing.span != Some(span) {
            if !self.holds(&name, span, level) {
                // What is in its place is too old.
                let _ = self.folder.remove(&name);
            }
            // Numbers that were given by an earlier run are given anew.
            stage.writing = Writing { span: Some(span), name, numbers: BTreeMap::new() };
        }
        let text = lines(&mut stage.writing.numbers, at, step);
        // A step that cannot be kept is a hole, and shown as one.
        let _ = self.folder.append(&stage.writing.name, &text);
    }

    /// Whether a segment is of this span of time.
    fn holds(&self, name: &str, span: i64, level: &Level) -> bool {
        let mut newest = None;
        let text = self.folder.read(name).unwrap_or_default();
        read_segment(&text, (i64::MIN, i64::MAX), &mut |step| newest = newest.max(Some(step.at)));
        newest.is_some_and(|at| level.segment_of(at).0 == span)
    }

    /// What was done over the last so many seconds; at most a minute.
    #[must_use]
    pub fn recent(&self, by: By, seconds: usize) -> ActivityList {
        let pages = self.pages();
        let (seconds, tallies) = tallies(&pages.recent, seconds, |series| match by {
            By::Vm => series.disk.is_none(),
            By::Disk => series.disk.is_some(),
        });
        let work: u64 = tallies.values().map(|tally| tally.sums().cost).sum();
        let row = |(series, tally): (Series, Tally)| row(series, (tally.sums().cost, work), tally.activity(seconds));
        let mut rows: Vec<ActivityRow> = tallies.into_iter().map(row).collect();
        rows.sort_by(|a, b| b.activity.cost_per_second.total_cmp(&a.activity.cost_per_second));
        ActivityList { seconds, rows }
    }

    /// What every VM does now, by datastore and name; `None` before anything was measured.
    #[must_use]
    pub fn now(&self) -> Option<BTreeMap<(String, String), Activity>> {
        let pages = self.pages();
        let (seconds, tallies) = tallies(&pages.recent, NOW_SECONDS, |series| series.disk.is_none());
        let own = |(series, tally): (Series, Tally)| Some(((series.datastore, series.vm?), tally.activity(seconds)));
        (seconds > 0.0).then(|| tallies.into_iter().filter_map(own).collect())
    }

    /// Sums since the start, by VM.
    #[must_use]
    pub fn totals(&self) -> Vec<VmTotal> {
        let pages = self.pages();
        let all = pages.totals.iter();
        all.map(|((datastore, vm), kinds)| VmTotal {
            datastore: datastore.clone(),
            vm: vm.clone(),
            kinds: kinds.clone(),
        })
        .collect()
    }

    /// A VM, or one disk of it, over the last so many seconds.
    #[must_use]
    pub fn latency(
        &self,
        (datastore, vm): (&str, &str),
        disk: Option<&str>,
        seconds: i64,
        now: Timestamp,
    ) -> VmLatency {
        let wanted = |name: Option<&str>| Series {
            datastore: datastore.to_owned(),
            vm: Some(vm.to_owned()),
            disk: name.map(str::to_owned),
        };
        let series = wanted(disk);
        let (measured, disks) = {
            let pages = self.pages();
            let of_vm = |one: &Series| one.datastore == datastore && one.vm.as_deref() == Some(vm);
            tallies(&pages.recent, NOW_SECONDS, of_vm)
        };
        let level = if seconds <= FINE.kept_seconds { &FINE } else { &ROLLED };
        let steps = (seconds / level.step_seconds + POINTS_MAX - 1) / POINTS_MAX;
        let steps = steps.max(1);
        let step_seconds = steps * level.step_seconds;
        let own = disks.get(&series).cloned().unwrap_or_default();
        let work = disks.get(&wanted(None)).map_or(0, |tally| tally.sums().cost);
        let disk_row = |(series, tally): (Series, Tally)| {
            let is_asked = disk.is_none() && series.disk.is_some();
            is_asked.then(|| row(series, (tally.sums().cost, work), tally.activity(measured)))
        };
        VmLatency {
            datastore: datastore.to_owned(),
            vm: vm.to_owned(),
            disk: disk.map(str::to_owned),
            now: (measured > 0.0).then(|| own.activity(measured)),
            usual_ms: self.usual_ms(&series, now),
            disks: disks.into_iter().filter_map(disk_row).collect(),
            step_seconds: u32::try_from(step_seconds).unwrap_or(u32::MAX),
            points: self.points(&series, level, (now.as_second() - seconds, now.as_second()), step_seconds),
        }
    }

    fn points(&self, series: &Series, level: &Level, span: (i64, i64), step_seconds: i64) -> Vec<ActivityPoint> {
        let mut sums: BTreeMap<i64, (f64, Row)> = BTreeMap::new();
        self.each_step(level, span, &mut |step| {
            let own = step.rows.iter().find(|(one, _)| *one == series);
            if own.is_none() && sums.is_empty() {
                // It may not have been there yet.
                return;
            }
            let begins = step.at.div_euclid(step_seconds) * step_seconds;
            let (seconds, sum) = sums.entry(begins).or_default();
            *seconds += step.seconds;
            own.into_iter().for_each(|(_, row)| sum.merge(row));
        });
        let point = |(begins, (seconds, row)): (i64, (f64, Row))| {
            let at = Timestamp::from_second(begins).ok()?;
            Some(ActivityPoint { at, seconds, activity: row.activity(seconds) })
        };
        sums.into_iter().filter_map(point).collect()
    }

    /// Mean latency at the hour of `now` on each of the seven days before.
    fn usual_ms(&self, series: &Series, now: Timestamp) -> Option<f64> {
        let hour = now.as_second().div_euclid(HOUR_SECONDS) * HOUR_SECONDS;
        let mut sum = Row::default();
        for day in 1..=7 {
            let begins = hour - day * DAY_SECONDS;
            self.each_step(&ROLLED, (begins, begins + HOUR_SECONDS - 1), &mut |step| {
                step.rows.iter().filter(|(one, _)| *one == series).for_each(|(_, row)| sum.merge(row));
            });
        }
        sum.activity(1.0).latency_ms.total
    }

    /// Who did what at a moment: in the step that it lies in, or in the newest one of the last
    /// minute if it is `now`.
    #[must_use]
    pub fn contributors(&self, at: Timestamp, now: Timestamp) -> Contributors {
        let level = if (now - at).get_seconds() < FINE.kept_seconds { &FINE } else { &ROLLED };
        let at = at.as_second();
        let mut found = Contributors { at: None, seconds: 0.0, rows: Vec::new(), left_out: 0 };
        let mut rows: Vec<(Series, Row)> = Vec::new();
        let (mut before, mut before_seconds): (BTreeMap<Series, u64>, f64) = (BTreeMap::new(), 0.0);
        // The step that is being collected has no line yet.
        let newest = if now.as_second() - at < 2 * level.step_seconds { 2 * level.step_seconds } else { 0 };
        self.each_step(level, (at - HOUR_SECONDS - level.step_seconds, at), &mut |step| {
            let vms = step.rows.iter().filter(|(series, _)| series.disk.is_none());
            if step.at + level.step_seconds + newest > at {
                found.at = Timestamp::from_second(step.at).ok();
                (found.seconds, found.left_out) = (step.seconds, step.left_out);
                rows = vms.map(|(series, row)| ((*series).clone(), row.clone())).collect();
            } else {
                before_seconds += step.seconds;
                vms.for_each(|(series, row)| *before.entry((*series).clone()).or_default() += row.cost);
            }
        });
        let work: u64 = rows.iter().map(|(_, row)| row.cost).sum();
        let contributor = |(series, values): (Series, Row)| Contributor {
            before_cost_per_second: (before_seconds > 0.0)
                .then(|| before.get(&series).copied().unwrap_or(0) as f64 / before_seconds),
            row: row(series, (values.cost, work), values.activity(found.seconds)),
        };
        found.rows = rows.into_iter().map(contributor).collect();
        found.rows.sort_by(|a, b| b.row.share_percent.total_cmp(&a.row.share_percent));
        found
    }

    /// Shows every step that was written down and begins in the span, in order.
    fn each_step(&self, level: &Level, (from, to): (i64, i64), show: &mut dyn FnMut(&Step<'_>)) {
        let newest = to.div_euclid(level.segment_seconds);
        let oldest = from.div_euclid(level.segment_seconds).max(newest - level.segments + 1);
        for span in oldest..=newest {
            // One that cannot be read is a hole. Of a run of long ago it has only what is out of the span.
            let name = level.segment_of(span * level.segment_seconds).1;
            let Ok(text) = self.folder.read(&name) else { continue };
            read_segment(&text, (from, to), show);
        }
    }
}

/// A step as it was read.
struct Step<'a> {
    at: i64,
    seconds: f64,
    left_out: u64,
    rows: Vec<(&'a Series, Row)>,
}

/// Lines that are not whole (the last one, after a power cut) are passed over.
fn read_segment(text: &str, (from, to): (i64, i64), show: &mut dyn FnMut(&Step<'_>)) {
    let mut names: BTreeMap<u64, Series> = BTreeMap::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Named { number, series }) => drop(names.insert(number, series)),
            Ok(Line::Step { at, seconds, left_out, rows }) if (from..=to).contains(&at) => {
                let row = |fields: &[u64; ROW_FIELDS]| Some((names.get(&fields[0])?, Row::from_fields(fields)));
                show(&Step { at, seconds, left_out, rows: rows.iter().filter_map(row).collect() });
            }
            Ok(Line::Step { .. }) | Err(_) => {}
        }
    }
}

/// The lines of a step: names that are new to the segment, then the step.
fn lines(numbers: &mut BTreeMap<Series, u64>, at: i64, step: Collecting) -> String {
    let mut tallies: Vec<(Series, Row)> =
        step.tallies.into_iter().map(|(series, tally)| (series, Row::of(&tally))).collect();
    tallies.sort_by_key(|(_, row)| std::cmp::Reverse(row.cost));
    let is_vm = |(series, _): &(Series, Row)| series.disk.is_none();
    let left_out = tallies.iter().skip(ROWS_MAX).filter(|row| is_vm(row)).count() as u64;
    tallies.truncate(ROWS_MAX);
    let mut text = String::new();
    let mut rows = Vec::with_capacity(tallies.len());
    for (series, row) in tallies {
        let next = numbers.len() as u64;
        let number = *numbers.entry(series.clone()).or_insert(next);
        if number == next {
            push_line(&mut text, &Line::Named { number, series });
        }
        rows.push(row.fields(number));
    }
    push_line(&mut text, &Line::Step { at, seconds: step.seconds, left_out, rows });
    text
}

fn push_line(text: &mut String, line: &Line) {
    text.push_str(&serde_json::to_string(line).expect("lines hold only strings and finite numbers"));
    text.push('\n');
}

/// Sums of the newest so many seconds, for the series that are wanted, and how long those were.
fn tallies(
    recent: &VecDeque<Measured>,
    seconds: usize,
    wanted: impl Fn(&Series) -> bool,
) -> (f64, BTreeMap<Series, Tally>) {
    let (mut span, mut tallies): (f64, BTreeMap<Series, Tally>) = (0.0, BTreeMap::new());
    for measured in recent.iter().rev().take(seconds.max(1)) {
        span += measured.seconds;
        for file in &measured.files {
            for series in series_of(file).filter(&wanted) {
                tallies.entry(series).or_default().put(file);
            }
        }
    }
    (span, tallies)
}

fn row(series: Series, (cost, work): (u64, u64), activity: Activity) -> ActivityRow {
    let Series { datastore, vm, disk } = series;
    let share_percent = if work > 0 { cost as f64 / work as f64 * 100.0 } else { 0.0 };
    ActivityRow { datastore, vm, disk, share_percent, activity }
}

/// Name of a part, as metrics have it, and its time in seconds.
pub(crate) fn part_seconds(kinds: &[Sums; 3]) -> impl Iterator<Item = (&'static str, f64)> + '_ {
    Part::ALL.into_iter().map(|part| {
        let ns: u64 = kinds.iter().map(|sums| sums.parts_ns[part as usize]).sum();
        (crate::activity::part_name(part), ns as f64 / 1e9)
    })
}

/// Segments in memory, for tests and for stores without a folder.
#[derive(Clone, Debug, Default)]
pub struct MemoryFolder(Arc<Mutex<BTreeMap<String, String>>>);

impl MemoryFolder {
    fn texts(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentFolder for MemoryFolder {
    fn read(&self, name: &str) -> io::Result<String> {
        Ok(self.texts().get(name).cloned().unwrap_or_default())
    }

    fn append(&self, name: &str, text: &str) -> io::Result<()> {
        self.texts().entry(name.to_owned()).or_default().push_str(text);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.texts().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::samples::disk;

    const BEGIN: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(BEGIN + second).unwrap()
    }

    fn second(book: &ActivityBook, second: i64, files: Vec<crate::activity::MeasuredFile>) {
        book.add(at(second), Measured { seconds: 1.0, files });
    }

    fn parts(activity: &Activity) -> f64 {
        let latency = &activity.latency_ms;
        [latency.queue, latency.journal, latency.mirror, latency.flash, latency.contention, latency.qos]
            .into_iter()
            .flatten()
            .sum()
    }

    #[test]
    fn now_is_the_last_ten_seconds_and_unknown_before_the_first() {
        let book = ActivityBook::open(Box::new(MemoryFolder::default()));
        assert_eq!(book.now(), None);
        assert_eq!(book.recent(By::Vm, 5), ActivityList { seconds: 0.0, rows: Vec::new() });
        for n in 0..30 {
            second(&book, n, vec![disk("100", 0, if n < 20 { 1000 } else { 10 }, 0), disk("100", 1, 30, 0)]);
        }
        let now = book.now().unwrap();
        assert_eq!(now[&("demo".to_owned(), "100".to_owned())].reads_per_second, 40.0);
        let disks = book.recent(By::Disk, 5).rows;
        assert_eq!(disks.iter().map(|row| row.activity.reads_per_second).collect::<Vec<_>>(), [30.0, 10.0]);
        assert_eq!(disks[0].share_percent, 75.0);
        assert!((parts(&disks[0].activity) - disks[0].activity.latency_ms.total.unwrap()).abs() < 1e-9);
    }

    #[test]
    fn a_day_is_fine_and_later_ones_are_rolled_up_with_the_same_sums() {
        let book = ActivityBook::open(Box::new(MemoryFolder::default()));
        for n in 0..2 * 86_400 / 60 {
            second(&book, n * 60, vec![disk("100", 0, 60, 60)]);
        }
        let now = at(2 * 86_400);
        let hour = book.latency(("demo", "100"), None, 3600, now);
        assert_eq!(hour.step_seconds, 10);
        assert!((59..=60).contains(&hour.points.len()), "{}", hour.points.len());
        let day = book.latency(("demo", "100"), None, 86_400, now);
        assert_eq!(day.step_seconds, 120);
        assert!((719..=721).contains(&day.points.len()), "{}", day.points.len());
        let week = book.latency(("demo", "100"), None, 7 * 86_400, now);
        assert_eq!(week.step_seconds, 900);
        assert!((190..=192).contains(&week.points.len()), "{}", week.points.len());
        for point in hour.points.iter().chain(&day.points).chain(&week.points) {
            let latency = &point.activity.latency_ms;
            assert!((parts(&point.activity) - latency.total.unwrap()).abs() < 1e-6);
            assert!((latency.total.unwrap() - 1.5).abs() < 1e-6 && latency.p99.unwrap() >= 1.5);
        }
        assert_eq!(week.usual_ms.map(|ms| (ms * 10.0).round()), Some(15.0));
        assert_eq!(book.latency(("demo", "none"), None, 3600, now).points, []);
    }

    #[test]
    fn a_disk_has_its_own_and_a_restart_goes_on() {
        let folder = MemoryFolder::default();
        let book = ActivityBook::open(Box::new(folder.clone()));
        (0..100).for_each(|n| second(&book, n, vec![disk("100", 0, 10, 0), disk("100", 1, 30, 0)]));
        book.stop();
        let again = ActivityBook::open(Box::new(folder.clone()));
        // A torn line at the end of a segment hides nothing.
        let name = FINE.segment_of(BEGIN).1;
        folder.append(&name, "{\"at\":1,\n").unwrap();
        (100..200).for_each(|n| second(&again, n, vec![disk("100", 0, 10, 0)]));
        again.stop();
        let own = again.latency(("demo", "100"), Some("images/100/vm-100-disk-1.raw"), 3600, at(200));
        assert_eq!((own.points.len(), own.now.unwrap().reads_per_second), (20, 0.0));
        assert!(own.points[..10].iter().all(|point| point.activity.reads_per_second == 30.0));
        assert!(own.points[10..].iter().all(|point| point.activity.latency_ms.total.is_none()), "idle is no latency");
        let all = again.latency(("demo", "100"), None, 3600, at(200));
        assert_eq!((all.points.len(), all.disks.len()), (20, 1));
        assert_eq!(all.points[19].activity.reads_per_second, 10.0);
    }

    #[test]
    fn who_did_more_than_before_is_found_at_the_moment() {
        let book = ActivityBook::open(Box::new(MemoryFolder::default()));
        for n in 0..3600 {
            let noisy = if (1800..1830).contains(&n) { 900 } else { 1 };
            second(&book, n, vec![disk("100", 0, 100, 0), disk("101", 0, noisy, 0)]);
        }
        let spike = book.contributors(at(1815), at(3600));
        assert_eq!((spike.at, spike.seconds, spike.rows.len()), (Some(at(1810)), 10.0, 2));
        let first = &spike.rows[0];
        assert_eq!((first.row.vm.as_deref(), first.row.share_percent), (Some("101"), 90.0));
        assert!(first.before_cost_per_second.unwrap() < 10.0, "{spike:?}");
        let now = book.contributors(at(3600), at(3600));
        assert_eq!(now.rows[0].row.vm.as_deref(), Some("100"), "{now:?}");
        assert_eq!(book.contributors(at(-7200), at(3600)).at, None, "unknown is not nobody");
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let folder = MemoryFolder::default();
        let book = ActivityBook::open(Box::new(folder.clone()));
        let last = 24 * 150 * 3600;
        for n in 0..=24 * 150 {
            second(&book, n * 3600, vec![disk("100", 0, 10, 0)]);
        }
        assert_eq!(folder.texts().keys().cloned().collect::<Vec<_>>(), {
            let mut all = segment_names();
            all.sort();
            all
        });
        let steps = |level: &Level| {
            let text: String =
                (0..level.segments).map(|place| folder.read(&level.segment_name(place)).unwrap()).collect();
            text.matches("\"at\":").count()
        };
        assert!((24..=32).contains(&steps(&FINE)), "{}", steps(&FINE));
        assert!((24 * 90..=24 * 110).contains(&steps(&ROLLED)), "{}", steps(&ROLLED));
        let quarter = book.latency(("demo", "100"), None, 90 * 86_400, at(last)).points.len();
        assert!((700..=721).contains(&quarter), "{quarter}");

        let many = (0..600).map(|n| disk(&n.to_string(), 0, 1, 0)).collect();
        second(&book, last + 3600, many);
        book.stop();
        let found = book.contributors(at(last + 3600), at(last + 3600));
        assert_eq!(found.rows.len() as u64 + found.left_out, 600);
        assert!(found.left_out > 0 && found.rows.len() <= ROWS_MAX);
    }
}
