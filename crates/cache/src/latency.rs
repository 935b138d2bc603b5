//! How long things took: counts by powers of two, enough for a median and a tail.

use std::time::Duration;

const BUCKETS: usize = 40;

/// Times of one kind of operation.
#[derive(Clone, Debug)]
pub struct Latency {
    count: u64,
    total_ns: u64,
    /// Operations that took less than 2^i nanoseconds, and not less than half of that.
    buckets: [u64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { count: 0, total_ns: 0, buckets: [0; BUCKETS] }
    }
}

impl Latency {
    /// One more took `time`.
    pub fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
        let bucket = (u64::BITS - ns.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Operations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// Mean; unknown without an operation.
    pub fn mean(&self) -> Option<Duration> {
        self.total_ns.checked_div(self.count).map(Duration::from_nanos)
    }

    /// What `share` of the operations did not exceed, to a factor of two; unknown without one.
    pub fn at_most(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            count > 0 && seen >= wanted
        });
        bucket.map(|bucket| Duration::from_nanos(1 << bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_right_to_a_factor_of_two_and_nothing_is_unknown() {
        let mut latency = Latency::default();
        assert_eq!((latency.mean(), latency.at_most(0.5)), (None, None));
        for us in 1..=100 {
            latency.add(Duration::from_micros(us));
        }
        let median = latency.at_most(0.5).unwrap();
        assert!(median >= Duration::from_micros(50) && median <= Duration::from_micros(100), "{median:?}");
        assert!(latency.at_most(0.99).unwrap() >= Duration::from_micros(99));
        assert_eq!(latency.mean(), Some(Duration::from_nanos(50_500)));
    }
}
