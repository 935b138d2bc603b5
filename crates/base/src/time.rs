//! Two kinds of time that cannot be confused.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic time in nanoseconds since an arbitrary start. Leases, timeouts and
/// latencies use this and nothing else (`faults.md` F60).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

/// Wall-clock time in nanoseconds since 1970-01-01 UTC. Only for what people and
/// clients read: file times, events, logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallNanos(pub u64);

impl Nanos {
    /// Time since `earlier`; zero if `earlier` is in the future.
    pub fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;
    fn add(self, more: Duration) -> Nanos {
        Nanos(self.0.saturating_add(u64::try_from(more.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Nanos {
    type Output = Nanos;
    fn sub(self, less: Duration) -> Nanos {
        Nanos(self.0.saturating_sub(u64::try_from(less.as_nanos()).unwrap_or(u64::MAX)))
    }
}
