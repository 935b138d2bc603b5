//! Counters of one moment; two of them make rates.

use std::time::Instant;

use base::meter::{Meter, Spread, Sums, Totals};
use control::activity::mean_latency;
use control::status::{Latency, Load, Memory};
use engine::store::Store;
use nfs::v3;

use crate::shard::Shard;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    at: Option<Instant>,
    calls: Vec<u64>,
    times: Totals,
    bytes: u64,
    cpu_seconds: Option<f64>,
}

const READ: usize = 6;
const WRITE: usize = 7;

impl Sample {
    pub fn of(shard: &Shard) -> Sample {
        let front = shard.front();
        let counts = front.as_ref().map(|front| front.service.counts()).unwrap_or_default();
        let door = front.map(|front| front.door.counts()).unwrap_or_default();
        Sample {
            at: Some(Instant::now()),
            calls: counts.calls.to_vec(),
            times: shard.engine.meter().map(Meter::totals).unwrap_or_default(),
            bytes: door.received_bytes + door.sent_bytes,
            cpu_seconds: cpu_seconds(),
        }
    }

    fn span_seconds(&self, earlier: &Sample) -> Option<f64> {
        let span = self.at?.duration_since(earlier.at?).as_secs_f64();
        (span > 0.0).then_some(span)
    }

    /// Rates since `earlier`; unknown until there are two samples.
    pub fn load(&self, earlier: &Sample) -> Load {
        let Some(span) = self.span_seconds(earlier) else { return Load::default() };
        // They begin anew with the front: a site of a pair has one while it is primary.
        let calls = |which: usize| self.calls[which].saturating_sub(earlier.calls[which]) as f64;
        let all: f64 = (1..v3::PROCEDURES as usize).map(calls).sum();
        let cpu = self.cpu_seconds.zip(earlier.cpu_seconds).map(|(now, then)| (now - then) / span * 100.0);
        Load {
            reads_per_second: Some(calls(READ) / span),
            writes_per_second: Some(calls(WRITE) / span),
            others_per_second: Some((all - calls(READ) - calls(WRITE)) / span),
            bytes_per_second: Some(self.bytes.saturating_sub(earlier.bytes) as f64 / span),
            cpu_percent: cpu,
        }
    }

    /// Mean time of the NFS calls since `earlier`, by part. The parts sum to the total.
    pub fn latency(&self, earlier: &Sample) -> Latency {
        if self.span_seconds(earlier).is_none() {
            return Latency::default();
        }
        let mut sums = Sums::default();
        let mut spread = Spread::default();
        for kind in 0..3 {
            sums.merge(&self.times.kinds[kind].since(&earlier.times.kinds[kind]));
            spread.merge(&self.times.spreads[kind].since(&earlier.times.spreads[kind]));
        }
        let percentile = |share| spread.percentile_ns(share).map(|ns| ns as f64 / 1e6);
        let parts_ms = sums.parts_ns.map(|ns| ns as f64 / 1e6);
        mean_latency(sums.count, &parts_ms, [0.5, 0.95, 0.99].map(percentile))
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(usage.tv_sec as f64 + usage.tv_nsec as f64 / 1e9)
}

/// Memory of this process.
pub(crate) fn memory(shard: &Shard) -> Memory {
    let resident = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| {
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    });
    let cache = shard.engine.cache();
    Memory { resident_bytes: resident, cache_bytes: Some(cache.0), cache_limit_bytes: Some(cache.1) }
}
