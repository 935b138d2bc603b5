//! Counting: operations, bytes, latency percentiles, pauses, errors.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::workload::Kind;

/// Errors kept with their text; the rest is only counted.
const ERRORS_KEPT: usize = 20;
/// Latencies above an hour are counted as an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Of one kind of operation.
#[derive(Debug)]
struct PerKind {
    operations: u64,
    bytes: u64,
    latency_ns: Histogram<u64>,
}

/// Everything measured since a moment.
#[derive(Debug)]
pub struct Tally {
    since: Instant,
    last: Instant,
    longest_pause: Duration,
    per_kind: [PerKind; 3],
    /// Failed operations.
    pub error_count: u64,
    /// Texts of the first of them.
    pub errors: Vec<String>,
    /// Units checked by reads.
    pub units_checked: u64,
    /// Units that a read found half written, while a write of them was under way.
    pub torn_reads: u64,
}

/// Latency percentiles in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct LatencyMs {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Result for one kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindReport {
    /// Which.
    pub kind: Kind,
    /// Completed without error.
    pub operations: u64,
    /// Payload.
    pub bytes: u64,
    /// Rate of operations.
    pub operations_per_second: f64,
    /// Rate of payload.
    pub bytes_per_second: f64,
    /// From the call to its answer.
    pub latency_ms: LatencyMs,
}

impl Tally {
    /// Starts counting.
    pub fn new(now: Instant) -> Self {
        let per_kind = || PerKind {
            operations: 0,
            bytes: 0,
            latency_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("bounds are valid"),
        };
        Tally {
            since: now,
            last: now,
            longest_pause: Duration::ZERO,
            per_kind: [per_kind(), per_kind(), per_kind()],
            error_count: 0,
            errors: Vec::new(),
            units_checked: 0,
            torn_reads: 0,
        }
    }

    /// A finished operation.
    pub fn done(&mut self, kind: Kind, bytes: u64, started: Instant, now: Instant) {
        let per_kind = &mut self.per_kind[kind as usize];
        per_kind.operations += 1;
        per_kind.bytes += bytes;
        per_kind.latency_ns.saturating_record(now.duration_since(started).as_nanos() as u64);
        self.longest_pause = self.longest_pause.max(now.duration_since(self.last));
        self.last = now;
    }

    /// A failed operation.
    pub fn failed(&mut self, text: impl FnOnce() -> String) {
        self.error_count += 1;
        if self.errors.len() < ERRORS_KEPT {
            self.errors.push(text());
        }
    }

    /// Operations of each kind: read, write, other.
    pub fn counts(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind| self.per_kind[kind].operations)
    }

    /// Operations of all kinds.
    pub fn operations(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// Payload of all kinds.
    pub fn bytes(&self) -> u64 {
        self.per_kind.iter().map(|per_kind| per_kind.bytes).sum()
    }

    /// From the start to the last finished operation.
    pub fn elapsed(&self) -> Duration {
        self.last.duration_since(self.since)
    }

    /// Longest time in which no operation finished.
    pub fn longest_pause(&self) -> Duration {
        self.longest_pause
    }

    /// Kinds of which anything was done.
    pub fn kinds(&self) -> Vec<KindReport> {
        let seconds = self.elapsed().as_secs_f64().max(1e-9);
        let report = |kind: Kind| {
            let per_kind = &self.per_kind[kind as usize];
            KindReport {
                kind,
                operations: per_kind.operations,
                bytes: per_kind.bytes,
                operations_per_second: per_kind.operations as f64 / seconds,
                bytes_per_second: per_kind.bytes as f64 / seconds,
                latency_ms: latency_ms(&per_kind.latency_ns),
            }
        };
        let kinds = [Kind::Read, Kind::Write, Kind::Other].map(report);
        kinds.into_iter().filter(|report| report.operations > 0).collect()
    }
}

fn latency_ms(histogram: &Histogram<u64>) -> LatencyMs {
    let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1e6;
    LatencyMs {
        mean: histogram.mean() / 1e6,
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p99_9: at(99.9),
        max: histogram.max() as f64 / 1e6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_percentiles_and_pauses_are_those_of_what_was_done() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for second in 1..=100_u32 {
            let now = start + Duration::from_millis(10) * second;
            tally.done(Kind::Write, 8192, now - Duration::from_micros(second.into()), now);
        }
        let [write] = &tally.kinds()[..] else { panic!("one kind was done") };
        assert_eq!((write.operations, write.bytes), (100, 819_200));
        assert!((write.operations_per_second - 100.0).abs() < 0.01);
        assert!((write.latency_ms.p50 - 0.050).abs() < 0.001 && (write.latency_ms.max - 0.1).abs() < 0.001);
        assert_eq!(tally.longest_pause(), Duration::from_millis(10));
    }
}
