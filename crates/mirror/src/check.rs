//! The integrity check's point: a moment at which both sites have done the same operations and nothing is
//! in flight (`protocols.md` C.7, D-09). What is compared afterwards, beside clients, is not looked at here.
//!
//! ```text
//!  wanted ─► drains ─────────────► runs ──────────────► done
//!  clients:  reads; the rest waits  everything            └ the sites differ: goes on alone
//!            (until nothing is in   (the other site is
//!             flight)                told at the point)
//! ```
//!
//! * The other site is told over the link, in order: all before the point is there before it, and nothing
//!   that comes after. So clients wait for what is under way to end, and for nothing else.
//! * Only while the record says in sync and both are together. Whatever ends that ends the check: it found
//!   nothing then, which is not the same as finding no difference.
//! * That the sites differ is written down before the witness is asked, so a crash does not forget it.

use std::time::Duration;

use base::{Buf, Nanos, Osn};
use witness::Stance;

use crate::record::Record;
use crate::site::{Level, Mirror, Then};
use crate::step::Action;
use crate::wire::Message;

/// How long clients wait at most for the point; then there is none.
const DRAIN_MAX: Duration = Duration::from_millis(1000);
/// The question that tells the other site of the point, among those of a check.
pub const POINT: u64 = 0;

/// How far a check is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Check {
    #[default]
    No,
    /// What is under way ends; then the other site is told this.
    Drains { since: Nanos, point: Buf },
    /// The sites are compared.
    Runs,
}

impl Mirror {
    /// Whether a check can begin now: the primary is in sync, both are linked and settled, and nobody
    /// checks or hands over.
    #[must_use]
    pub fn may_check(&self) -> bool {
        let in_sync = self.known().is_some_and(|known| known.in_sync) && self.is_together();
        let free = self.level == Level::No && self.check == Check::No && self.hands_over.is_none();
        let serves = self.stance() == Stance::Serves { alone: false };
        self.is_primary() && in_sync && free && serves && !self.kept.paused && !self.kept.differs
    }

    /// What is in flight as far as this site knows: writes, changes, and what it was asked to prepare.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let flights = self.kept.flights.iter().filter(|flight| flight.osn > self.low_water).count();
        flights + self.kept.prepared.len() + self.checks.len() + self.open.len()
    }

    pub(crate) fn want_check(&mut self, point: Buf) {
        if !self.may_check() {
            return self.actions.push(Action::NoCheck);
        }
        self.check = Check::Drains { since: self.now, point };
    }

    pub(crate) fn is_draining_for_check(&self) -> bool {
        matches!(self.check, Check::Drains { .. })
    }

    pub(crate) fn is_check(&self, number: u64) -> bool {
        self.check == Check::Runs && number == self.level_number
    }

    pub(crate) fn watch_check(&mut self) {
        if let Check::Drains { since, .. } = self.check
            && self.now.since(since) >= DRAIN_MAX
        {
            self.end_check();
        }
    }

    /// The point, as soon as nothing is in flight.
    pub(crate) fn go_on_checking(&mut self) {
        if self.check != Check::No && !self.is_together() {
            return self.end_check();
        }
        if !self.is_draining_for_check() || !self.is_drained() {
            return;
        }
        self.advance_low_water();
        let Some(osn) = self.issuer.as_mut().and_then(crate::issuer::Issuer::take) else { return };
        let Check::Drains { point, .. } = std::mem::replace(&mut self.check, Check::Runs) else { return };
        self.level_number += 1;
        self.actions.push(Action::Point { number: self.level_number, osn, in_flight: self.in_flight() });
        self.ask_at_once(osn, (POINT, point));
        // What waited may go on.
        self.start();
    }

    /// No point was found, or what was compared is not the same any more.
    pub(crate) fn end_check(&mut self) {
        match std::mem::take(&mut self.check) {
            Check::No => {}
            Check::Drains { .. } => {
                self.actions.push(Action::NoCheck);
                self.start();
            }
            Check::Runs => {
                self.forget_queries();
                self.actions.push(Action::EndCheck(self.level_number));
            }
        }
    }

    /// Everything was compared.
    pub(crate) fn checked_all(&mut self, number: u64) {
        if self.is_check(number) {
            self.check = Check::No;
            self.forget_queries();
        }
    }

    /// The sites were found to differ. Also where they have parted meanwhile: the next resync has to know.
    pub(crate) fn differs(&mut self) {
        self.append(Record::Differs, Then::Nothing);
    }

    fn ask_at_once(&mut self, osn: Osn, (query, body): (u64, Buf)) {
        let bytes = body.len() as u64;
        self.queries.is_sent(osn, (query, bytes));
        self.send(Message::Query { osn, body });
    }
}
