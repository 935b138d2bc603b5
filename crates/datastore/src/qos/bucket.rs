//! How much may pass in a second. Pure.
//!
//! Something passes while the balance is not negative and then is taken off it, whatever it
//! costs: so a large request passes as soon as a small one would, and is paid for afterwards,
//! and over time exactly the rate passes. What is not used is kept for [`BURST_NS`].

use base::Nanos;

/// How long an unused rate is kept.
const BURST_NS: i128 = 100_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    per_second: u64,
    /// In cost times nanoseconds: what a second of the rate is, is `per_second` times 10^9.
    balance: i128,
    at: Nanos,
}

impl Bucket {
    /// One that is full.
    pub fn new(per_second: u64, now: Nanos) -> Bucket {
        let per_second = per_second.max(1);
        Bucket { per_second, balance: i128::from(per_second) * BURST_NS, at: now }
    }

    fn fill(&mut self, now: Nanos) {
        let passed_ns = i128::try_from(now.since(self.at).as_nanos()).unwrap_or(i128::MAX >> 64);
        let rate = i128::from(self.per_second);
        self.balance = (self.balance + rate * passed_ns).min(rate * BURST_NS);
        self.at = self.at.max(now);
    }

    /// Another rate from now on. What is owed stays owed.
    pub fn set_rate(&mut self, per_second: u64, now: Nanos) {
        self.fill(now);
        self.per_second = per_second.max(1);
        self.balance = self.balance.min(i128::from(self.per_second) * BURST_NS);
    }

    /// From when on something may pass.
    pub fn ready_at(&mut self, now: Nanos) -> Nanos {
        self.fill(now);
        if self.balance >= 0 {
            return now;
        }
        let rate = i128::from(self.per_second);
        let wait_ns = (-self.balance + rate - 1) / rate;
        Nanos(now.0.saturating_add(u64::try_from(wait_ns).unwrap_or(u64::MAX)))
    }

    /// Something that costs so much passes.
    pub fn take(&mut self, cost: u64, now: Nanos) {
        self.fill(now);
        self.balance -= i128::from(cost) * SECOND_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that passes in so many simulated seconds if there is always something.
    fn passes(bucket: &mut Bucket, from: Nanos, seconds: u64, cost: impl Fn(u64) -> u64) -> u64 {
        let (mut now, mut passed) = (from, 0);
        for n in 0.. {
            now = now.max(bucket.ready_at(now));
            if now.0 >= from.0 + seconds * 1_000_000_000 {
                break;
            }
            bucket.take(cost(n), now);
            passed += cost(n);
        }
        passed
    }

    #[test]
    fn exactly_the_rate_passes_whatever_the_sizes() {
        for rate in [1, 7, 500, 100_000] {
            for cost in [1, 2, 256] {
                let mut bucket = Bucket::new(rate, Nanos(0));
                let seconds = (200_000 / rate).clamp(2, 1000);
                let passed = passes(&mut bucket, Nanos(0), seconds, |n| 1 + n % cost);
                let most = rate * seconds + rate / 10 + cost;
                assert!(passed <= most && passed + cost >= rate * seconds, "{rate} {cost}: {passed}");
            }
        }
    }

    #[test]
    fn what_is_not_used_is_kept_for_a_tenth_of_a_second_only() {
        let mut bucket = Bucket::new(1000, Nanos(0));
        bucket.take(100, Nanos(0));
        let later = Nanos(3_600_000_000_000);
        let mut at_once = 0;
        while bucket.ready_at(later) == later {
            bucket.take(1, later);
            at_once += 1;
        }
        assert_eq!(at_once, 101);
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let mut bucket = Bucket::new(1, Nanos(0));
        bucket.take(100, Nanos(0));
        assert!(bucket.ready_at(Nanos(0)) > Nanos(90_000_000_000));
        bucket.set_rate(1000, Nanos(0));
        assert!(bucket.ready_at(Nanos(0)) <= Nanos(100_000_000));
        // A clock that stands still or goes back gives nothing away.
        let owed = bucket.ready_at(Nanos(5));
        assert!(bucket.ready_at(Nanos(0)) <= owed);
    }
}
