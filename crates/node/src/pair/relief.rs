//! When a primary that cannot open its doors makes the other site primary.
//!
//! Its disks and its lease may be well, and still no client is answered: the hook that moves the address
//! fails, the address is taken, the filesystem does not open. The other site may do better. It is given the
//! chance as in a planned change of primary, so nothing is lost; and not again and again, where both
//! fail alike.

use std::time::Duration;

use base::{Epoch, Nanos};

/// How long doors may stay shut before the other site is asked.
const SHUT_FOR: Duration = Duration::from_secs(5);
/// How long a site that was asked to take it back keeps trying by itself.
const NOT_AGAIN_FOR: Duration = Duration::from_secs(300);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Relief {
    shut: Option<(Epoch, Nanos)>,
    relieved: Option<Nanos>,
}

impl Relief {
    /// The doors did not open at `now`, in this term. Whether the other site is to serve.
    pub fn is_due(&mut self, epoch: Epoch, now: Nanos) -> bool {
        // How long they were shut in a term before does not count.
        let (_, since) = self.shut.filter(|(term, _)| *term == epoch).unwrap_or((epoch, now));
        self.shut = Some((epoch, since));
        let lately = self.relieved.is_some_and(|at| now.since(at) < NOT_AGAIN_FOR);
        now.since(since) >= SHUT_FOR && !lately
    }

    /// The other site is primary now.
    pub fn relieved(&mut self, now: Nanos) {
        (self.shut, self.relieved) = (None, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn doors_that_stay_shut_are_a_reason_once() {
        let mut relief = Relief::default();
        assert!(!relief.is_due(Epoch(2), at(10)));
        assert!(!relief.is_due(Epoch(2), at(14)));
        assert!(relief.is_due(Epoch(2), at(15)));
        assert!(relief.is_due(Epoch(2), at(16)), "it did not work yet");
        relief.relieved(at(17));
        assert!(!relief.is_due(Epoch(4), at(20)), "a new term");
        assert!(!relief.is_due(Epoch(4), at(60)), "the other one could not, either");
        assert!(relief.is_due(Epoch(4), at(320)));
    }
}
