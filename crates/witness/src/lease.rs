//! Leases on two monotonic clocks that may differ in rate.
//!
//! The holder counts from the moment it *sent* its question, the granter from the moment it
//! *answered*. With both rates within `1 ± r` of true time, a lease of `d` seconds by the
//! granter's clock lasts at least `d / (1 + r)` true seconds; the holder's count of `h`
//! lasts at most `h / (1 - r)`. So `h = d (1 - r) / (1 + r)` ends first in any case
//! (Gray & Cheriton, SOSP 1989; fault F60 asks for r = 10 %). Wall clocks play no part.

use std::time::Duration;

use base::time::Nanos;

/// Most that a clock's rate may differ from true time, in parts per million.
pub const DRIFT_PPM: u64 = 100_000;

/// Shortest lease, so that a round trip of 200 ms and a missed renewal fit into it.
pub const LEASE_MS_MIN: u32 = 1_000;
/// Longest lease: how long a takeover waits at most.
pub const LEASE_MS_MAX: u32 = 120_000;

/// What the holder may count of a lease of `granted`.
#[must_use]
pub fn held(granted: Duration) -> Duration {
    let nanos = granted.as_nanos() * u128::from(1_000_000 - DRIFT_PPM) / u128::from(1_000_000 + DRIFT_PPM);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The holder's side: until when it may act on its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure {
    until: Option<Nanos>,
}

impl Tenure {
    /// A question sent at `sent` was granted for `lease`. Answers may arrive in any order.
    pub fn renewed(&mut self, sent: Nanos, lease: Duration) {
        self.until = self.until.max(Some(sent + held(lease)));
    }

    /// The holder gives its lease up, or was told that it has none.
    pub fn end(&mut self) {
        self.until = None;
    }

    /// Whether the holder may act at `now`.
    #[must_use]
    pub fn holds(&self, now: Nanos) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When it ends, if it was ever granted.
    #[must_use]
    pub const fn until(&self) -> Option<Nanos> {
        self.until
    }
}

/// The granter's side: until when somebody else must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    until: Nanos,
}

impl Grant {
    /// Granted at `now`, or not known to be over since `now` (after a restart).
    #[must_use]
    pub fn from(now: Nanos, lease: Duration) -> Self {
        Self { until: now + lease }
    }

    /// The holder has said that it has stopped.
    #[must_use]
    pub const fn ended(now: Nanos) -> Self {
        Self { until: now }
    }

    /// Whether the holder may no longer act.
    #[must_use]
    pub fn is_over(&self, now: Nanos) -> bool {
        now >= self.until
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self, now: Nanos) -> Duration {
        self.until.since(now)
    }
}
