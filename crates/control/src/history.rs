//! Load and latency over time: ten seconds a point for a day, a quarter of an hour a point
//! for ninety days.
//!
//! A point is the mean over the pictures in it, each about one second; latency is weighted
//! by the operations of its second, so the parts of a point sum to its total like those of
//! an operation do. A time without a picture is a hole and not a zero. Points go to two
//! ledgers, one line each; what a crash takes is the point being collected, and a line that
//! is torn is passed over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::ledger::Ledger;
use crate::status::{Latency, Load};

const FINE_SECONDS: i64 = 10;
const FINE_KEPT: usize = 8640;
const COARSE_SECONDS: i64 = 900;
const COARSE_KEPT: usize = 8640;

/// One point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Beginning of its time.
    pub at: Timestamp,
    /// Seconds of it that were seen.
    pub seconds: f64,
    /// Operations in it.
    pub operations: f64,
    /// Mean load.
    pub load: Load,
    /// Mean latency; `p99` is the worst of any second in it.
    pub latency_ms: Latency,
}

/// Answer of `/v1/history`: points, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Length of a point's time.
    pub step_seconds: u32,
    /// Points; where some are missing, nothing is known.
    pub points: Vec<Point>,
}

impl Document for History {
    const SCHEMA: &'static str = "vmhold.history/v1";
}

/// Sums from which a point is made.
#[derive(Default)]
struct Sum {
    begins: Option<i64>,
    points: Vec<Point>,
}

fn mean(points: &[Point], weight: impl Fn(&Point) -> f64, of: impl Fn(&Point) -> Option<f64>) -> Option<f64> {
    let known: Vec<(f64, f64)> = points.iter().filter_map(|point| Some((weight(point), of(point)?))).collect();
    let weights: f64 = known.iter().map(|(weight, _)| weight).sum();
    (weights > 0.0).then(|| known.iter().map(|(weight, value)| weight * value).sum::<f64>() / weights)
}

impl Sum {
    /// Takes a point in; gives the one that is complete, if its time is over.
    fn add(&mut self, point: Point, step_seconds: i64) -> Option<Point> {
        let begins = point.at.as_second().div_euclid(step_seconds) * step_seconds;
        let complete = self.begins.filter(|now| *now != begins).map(|now| self.point(now));
        if self.begins != Some(begins) {
            self.points.clear();
            self.begins = Some(begins);
        }
        self.points.push(point);
        complete
    }

    fn point(&self, begins: i64) -> Point {
        let points = &self.points;
        let by_time = |of: fn(&Load) -> Option<f64>| mean(points, |point| point.seconds, |point| of(&point.load));
        let by_work =
            |of: fn(&Latency) -> Option<f64>| mean(points, |point| point.operations, |point| of(&point.latency_ms));
        let worst =
            |of: fn(&Latency) -> Option<f64>| points.iter().filter_map(|point| of(&point.latency_ms)).reduce(f64::max);
        Point {
            at: Timestamp::from_second(begins).unwrap_or(points[0].at),
            seconds: points.iter().map(|point| point.seconds).sum(),
            operations: points.iter().map(|point| point.operations).sum(),
            load: Load {
                reads_per_second: by_time(|load| load.reads_per_second),
                writes_per_second: by_time(|load| load.writes_per_second),
                others_per_second: by_time(|load| load.others_per_second),
                bytes_per_second: by_time(|load| load.bytes_per_second),
                cpu_percent: by_time(|load| load.cpu_percent),
            },
            latency_ms: Latency {
                total: by_work(|latency| latency.total),
                host: by_work(|latency| latency.host),
                net: by_work(|latency| latency.net),
                queue: by_work(|latency| latency.queue),
                journal: by_work(|latency| latency.journal),
                mirror: by_work(|latency| latency.mirror),
                flash: by_work(|latency| latency.flash),
                contention: by_work(|latency| latency.contention),
                qos: by_work(|latency| latency.qos),
                p50: by_work(|latency| latency.p50),
                p95: worst(|latency| latency.p95),
                p99: worst(|latency| latency.p99),
            },
        }
    }
}

#[derive(Default)]
struct Pages {
    fine: VecDeque<Point>,
    coarse: VecDeque<Point>,
    collecting: Sum,
    rolling: Sum,
}

/// See the module's head.
pub struct HistoryBook {
    pages: Mutex<Pages>,
    fine: Box<dyn Ledger>,
    coarse: Box<dyn Ledger>,
}

fn read<'a>(lines: impl Iterator<Item = &'a str>, kept: usize) -> VecDeque<Point> {
    let mut points: VecDeque<Point> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    points.make_contiguous().sort_by_key(|point: &Point| point.at);
    points.drain(..points.len().saturating_sub(kept));
    points
}

fn push(points: &mut VecDeque<Point>, point: Point, kept: usize, ledger: &dyn Ledger) {
    let line = serde_json::to_string(&point).expect("points hold only numbers and a time");
    // A line that is not kept is a hole after the next start, and shown as one.
    let _ = ledger.append(&line);
    if points.len() == kept {
        points.pop_front();
    }
    points.push_back(point);
}

impl HistoryBook {
    /// With the lines earlier runs left in both ledgers, and the ledgers.
    #[must_use]
    pub fn open<'a>(
        fine: (impl Iterator<Item = &'a str>, Box<dyn Ledger>),
        coarse: (impl Iterator<Item = &'a str>, Box<dyn Ledger>),
    ) -> Arc<Self> {
        let mut pages =
            Pages { fine: read(fine.0, FINE_KEPT), coarse: read(coarse.0, COARSE_KEPT), ..Pages::default() };
        // What the last run had rolled up only in part is rolled up again.
        let rolled = pages.coarse.back().map_or(i64::MIN, |point| point.at.as_second() + COARSE_SECONDS);
        for point in pages.fine.iter().filter(|point| point.at.as_second() >= rolled).cloned().collect::<Vec<_>>() {
            if let Some(complete) = pages.rolling.add(point, COARSE_SECONDS) {
                push(&mut pages.coarse, complete, COARSE_KEPT, &*coarse.1);
            }
        }
        Arc::new(Self { pages: Mutex::new(pages), fine: fine.1, coarse: coarse.1 })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the last second showed.
    pub fn add(&self, at: Timestamp, load: &Load, latency_ms: &Latency) {
        let rates = [load.reads_per_second, load.writes_per_second, load.others_per_second];
        if rates.iter().all(Option::is_none) {
            return;
        }
        let operations = rates.into_iter().flatten().sum();
        let point = Point { at, seconds: 1.0, operations, load: load.clone(), latency_ms: latency_ms.clone() };
        let mut pages = self.pages();
        let Some(complete) = pages.collecting.add(point, FINE_SECONDS) else { return };
        push(&mut pages.fine, complete.clone(), FINE_KEPT, &*self.fine);
        if let Some(rolled) = pages.rolling.add(complete, COARSE_SECONDS) {
            push(&mut pages.coarse, rolled, COARSE_KEPT, &*self.coarse);
        }
    }

    /// The last so many seconds, at the finest step that reaches back so far.
    #[must_use]
    pub fn last(&self, seconds: u32, now: Timestamp) -> History {
        let pages = self.pages();
        let is_fine = i64::from(seconds) <= FINE_SECONDS * FINE_KEPT as i64;
        let (points, step) = if is_fine { (&pages.fine, FINE_SECONDS) } else { (&pages.coarse, COARSE_SECONDS) };
        let from = now - SignedDuration::from_secs(i64::from(seconds));
        let first = points.partition_point(|point| point.at < from);
        History { step_seconds: step as u32, points: points.range(first..).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryLedger;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn book(lines: &(MemoryLedger, MemoryLedger)) -> Arc<HistoryBook> {
        let (fine, coarse) = (lines.0.lines(), lines.1.lines());
        HistoryBook::open(
            (fine.iter().map(String::as_str).chain(["{torn"]), Box::new(lines.0.clone())),
            (coarse.iter().map(String::as_str), Box::new(lines.1.clone())),
        )
    }

    fn second(book: &HistoryBook, second: i64, reads: f64, journal: f64) {
        let load = Load { reads_per_second: Some(reads), ..Load::default() };
        let latency = Latency {
            total: Some(journal + 0.5),
            journal: Some(journal),
            flash: Some(0.5),
            p99: Some(journal * 2.0),
            ..Latency::default()
        };
        book.add(at(second), &load, &latency);
    }

    #[test]
    fn a_point_is_weighted_by_its_operations_and_its_parts_sum_up() {
        let lines = Default::default();
        let book = book(&lines);
        for n in 0..11 {
            second(&book, n, if n < 5 { 100.0 } else { 300.0 }, if n < 5 { 1.0 } else { 2.0 });
        }
        let history = book.last(60, at(11));
        assert_eq!((history.step_seconds, history.points.len()), (10, 1));
        let point = &history.points[0];
        assert_eq!((point.seconds, point.load.reads_per_second), (10.0, Some(200.0)));
        assert_eq!(point.latency_ms.journal, Some(1.75), "three times as many took two");
        let sum = point.latency_ms.journal.unwrap() + point.latency_ms.flash.unwrap();
        assert!((point.latency_ms.total.unwrap() - sum).abs() < 1e-9);
        assert_eq!(point.latency_ms.p99, Some(4.0), "the worst second");
        assert_eq!(point.latency_ms.net, None, "unknown stays unknown");
    }

    #[test]
    fn a_day_is_fine_and_ninety_days_are_rolled_up_and_bounded() {
        let lines = Default::default();
        let book = book(&lines);
        for n in 0..3 * 8640 {
            second(&book, n * 10, 50.0, 1.0);
        }
        let now = at(3 * 86_400);
        let day = book.last(86_400, now);
        assert!(day.points.len() <= FINE_KEPT && day.points.len() >= FINE_KEPT - 2, "{}", day.points.len());
        let week = book.last(7 * 86_400, now);
        assert_eq!(week.step_seconds, 900);
        assert!((3 * 96 - 2..=3 * 96).contains(&week.points.len()), "{}", week.points.len());
    }

    #[test]
    fn a_time_without_pictures_is_a_hole_and_a_restart_goes_on() {
        let lines = Default::default();
        let first = book(&lines);
        (0..1000).for_each(|n| second(&first, n, 10.0, 1.0));
        let again = book(&lines);
        (5000..6000).for_each(|n| second(&again, n, 10.0, 1.0));
        let points = again.last(86_400, at(6000)).points;
        let longest = points.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).as_secs()).max();
        assert!(longest.unwrap() > 3900, "{longest:?}");
        let rolled = again.last(30 * 86_400, at(6000)).points;
        let total: f64 = rolled.iter().map(|point| point.operations).sum();
        assert!(rolled[0].operations > 8000.0 && total >= 9000.0, "what was rolled up in part is not lost: {total}");
    }
}
