//! How often an amount of time was seen, for percentiles.

/// Steps per doubling.
const STEPS: u64 = 8;
/// Everything from about eighteen minutes on is one bucket.
const BUCKETS: usize = 34 * STEPS as usize;

/// How often an amount of time was seen: counts in buckets an eighth of a doubling wide, so
/// a percentile is right within 10 %.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]) }
    }
}

const fn bucket_of(time_ns: u64) -> usize {
    let value = time_ns / 8 + STEPS;
    let doubling = (63 - value.leading_zeros()) as u64 - 3;
    let step = (value >> doubling) - STEPS;
    let bucket = (doubling * STEPS + step) as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The upper end of a bucket.
const fn end_of(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    (((step + STEPS + 1) << doubling) - STEPS) * 8
}

impl Spread {
    /// Adds one.
    pub fn add(&mut self, time_ns: u64) {
        self.counts[bucket_of(time_ns)] += 1;
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Spread) -> Spread {
        let mut counts = Box::new([0; BUCKETS]);
        for (count, (now, then)) in counts.iter_mut().zip(self.counts.iter().zip(earlier.counts.iter())) {
            *count = now.saturating_sub(*then);
        }
        Spread { counts }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Spread) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that a share of all did not exceed, for instance 0.99; `None` without any.
    #[must_use]
    pub fn percentile_ns(&self, share: f64) -> Option<u64> {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Some(end_of(bucket));
            }
        }
        None
    }

    /// What it holds; it holds nothing then.
    pub fn take(&mut self) -> Counts {
        let seen = self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0);
        Counts(seen.map(|(bucket, count)| (bucket as u16, std::mem::take(count) as u32)).collect())
    }

    /// Adds what was taken of another.
    pub fn put(&mut self, counts: &Counts) {
        for (bucket, count) in &counts.0 {
            self.counts[*bucket as usize] += u64::from(*count);
        }
    }
}

/// What a [`Spread`] held over a short time, in little room: buckets that were seen, and how
/// often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<(u16, u32)>);

impl Counts {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn percentiles_are_right_within_a_tenth() {
        let mut spread = Spread::default();
        (1..=10_000_u64).for_each(|n| spread.add(n * 1000));
        for (share, exact) in [(0.5, 5_000_000.0), (0.95, 9_500_000.0), (0.99, 9_900_000.0), (1.0, 10_000_000.0)] {
            let found = spread.percentile_ns(share).unwrap() as f64;
            assert!(found >= exact && found <= exact * 1.13, "{share}: {found} for {exact}");
        }
        assert_eq!(Spread::default().percentile_ns(0.5), None);
        assert_eq!(spread.since(&spread).count(), 0);
    }

    #[test]
    fn every_time_has_a_bucket_and_buckets_rise() {
        let mut last = 0;
        for exponent in 0..64 {
            let bucket = bucket_of(1 << exponent);
            assert!(bucket >= last && bucket < BUCKETS, "{exponent}");
            assert!(bucket == BUCKETS - 1 || end_of(bucket) > 1 << exponent, "{exponent}: {}", end_of(bucket));
            last = bucket;
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert!(Duration::from_nanos(end_of(BUCKETS - 1)) > Duration::from_secs(600));
    }

    #[test]
    fn what_is_taken_in_parts_is_the_same_as_the_whole() {
        let (mut whole, mut parts, mut sum) = (Spread::default(), Spread::default(), Spread::default());
        for n in 0..1000_u64 {
            whole.add(n * n);
            parts.add(n * n);
            if n % 100 == 99 {
                let taken = parts.take();
                assert_eq!((taken.count(), parts.count()), (100, 0));
                sum.put(&taken);
            }
        }
        assert_eq!(sum, whole);
    }
}
