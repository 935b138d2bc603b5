//! Giving out OSNs: strictly rising, also over restarts and changes of primary (R-REPL-14).
//!
//! An OSN may be at the other site before anything with it is stable here; a primary that
//! gave it out again after a crash would have two operations of one number. So numbers are
//! given out only below a mark that is stable, and a new life begins above the mark. A mark
//! is written once for many numbers, so it costs nothing that can be measured.

use base::{Epoch, Osn};

/// Gives out OSNs of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuer {
    epoch: Epoch,
    last: u64,
    /// Stable: a later life begins above it.
    mark: u64,
    /// Appended, not stable yet.
    next_mark: Option<u64>,
    step: u64,
}

impl Issuer {
    /// For the primary of `epoch`, which finds `mark` in its journal or trees. A mark of
    /// another epoch is of no use. `step`: how many numbers a mark is good for.
    #[must_use]
    pub fn new(epoch: Epoch, mark: Osn, step: u64) -> Self {
        let mark = if mark.epoch() == epoch { mark.counter() } else { 0 };
        Self { epoch, last: mark, mark, next_mark: None, step }
    }

    /// The next number, unless a mark must be made stable first.
    pub fn take(&mut self) -> Option<Osn> {
        if self.last >= self.mark {
            return None;
        }
        self.last += 1;
        Some(Osn::of(self.epoch, self.last))
    }

    /// The last number given out, or the mark of the life before.
    #[must_use]
    pub fn last(&self) -> Osn {
        Osn::of(self.epoch, self.last)
    }

    /// Whether a number can be had.
    #[must_use]
    pub const fn has_next(&self) -> bool {
        self.last < self.mark
    }

    /// The mark to be made stable, when half of the present one is used up.
    pub fn wanted_mark(&mut self) -> Option<Osn> {
        if self.next_mark.is_some() || self.mark - self.last > self.step / 2 {
            return None;
        }
        let mark = self.mark + self.step;
        self.next_mark = Some(mark);
        Some(Osn::of(self.epoch, mark))
    }

    /// The mark asked for is stable.
    pub fn marked(&mut self, mark: Osn) {
        if mark.epoch() == self.epoch && Some(mark.counter()) == self.next_mark {
            self.mark = mark.counter();
            self.next_mark = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over crashes at any point and changes of primary, whether the last mark was stable or
    /// not.
    #[test]
    fn no_number_is_given_out_twice() {
        let mut rng = world_sim::Rng::new(7);
        let (mut stable, mut last, mut epoch) = (Osn(0), Osn(0), Epoch(1));
        let mut issuer = Issuer::new(epoch, stable, 5);
        let mut appended = None;
        for _ in 0..10_000 {
            match rng.below(8) {
                0..5 => {
                    if let Some(osn) = issuer.take() {
                        assert!(osn > last, "{osn} after {last}");
                        last = osn;
                    }
                }
                5 => appended = issuer.wanted_mark().or(appended),
                6 => {
                    if let Some(mark) = appended.take() {
                        stable = mark;
                        issuer.marked(mark);
                    }
                }
                _ => {
                    if rng.percent(30) {
                        epoch = epoch.next();
                    }
                    stable = appended.take().filter(|_| rng.percent(50)).unwrap_or(stable);
                    issuer = Issuer::new(epoch, stable, 5);
                }
            }
        }
        assert!(epoch > Epoch(100) && last.epoch() > Epoch(100), "it got somewhere: {last:?}");
    }
}
