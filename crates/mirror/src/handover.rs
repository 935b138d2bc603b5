//! The planned change of primary: nothing is lost, nothing is done twice, and clients wait for as long as
//! the last operations take and the sites need to meet again.
//!
//! ```text
//!  primary                                   witness            secondary
//!   starts nothing new, ends what is under way
//!   writes down that it asks (fenced from here) ── HAND OVER ──►
//!   ◄── the record: the other one is primary, in sync ──
//!   tells it over the link ──────────────────────────────────► primary of the next epoch
//! ```
//!
//! Both must be together and in sync at first. Before the question is asked all can be taken back: what
//! waited goes on. From then on the site answers nobody until it knows what became of it; it asks
//! again, and when the out-of-sync delay is over it asks to go on alone instead. Only one of the two lands.

use witness::{AskKind, Asked, Stance};

use crate::site::Mirror;
use crate::step::Action;

impl Mirror {
    /// An administrator wants the other site to be primary.
    pub(crate) fn want_hand_over(&mut self) {
        let may = self.is_primary() && self.is_together() && self.known().is_some_and(|known| known.in_sync);
        if !may || self.kept.differs || self.is_draining_for_check() {
            return self.actions.push(Action::NotAsked(AskKind::HandOver));
        }
        self.hands_over = self.hands_over.or(Some(self.now));
    }

    /// Whether this site is about to hand over, or may have done so.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.hands_over.is_some()
    }

    /// Gives it up where it cannot be, as long as nothing was asked.
    pub(crate) fn watch_hand_over(&mut self) {
        let Some(since) = self.hands_over else { return };
        if !self.is_primary() {
            self.hands_over = None;
            return;
        }
        let is_late = self.now.since(since) >= self.config.out_of_sync_delay;
        if !self.has_asked_to_hand_over() && (is_late || !self.is_together()) {
            self.hands_over = None;
            self.actions.push(Action::NotAsked(AskKind::HandOver));
        }
    }

    fn has_asked_to_hand_over(&self) -> bool {
        let version = self.kept.memory.known.map(|known| known.version);
        version.is_some_and(|version| self.kept.memory.asked == Some(Asked::HandOver(version)))
    }

    /// Whether the question is to be asked now.
    pub(crate) fn asks_to_hand_over(&self) -> bool {
        if self.has_asked_to_hand_over() {
            return true;
        }
        let serves = matches!(self.stance(), Stance::Serves { .. });
        self.hands_over.is_some() && serves && self.is_together() && self.is_drained()
    }

    /// Whether it is not known for too long what became of it.
    pub(crate) fn is_hand_over_stuck(&self) -> bool {
        // After a restart nobody knows since when.
        let since = self.hands_over.unwrap_or(self.office_since);
        self.has_asked_to_hand_over() && self.now.since(since) >= self.config.out_of_sync_delay
    }
}
