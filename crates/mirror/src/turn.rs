//! How the present term began, as this site saw it: what of the clients' pause passed in which phase.
//!
//! ```text
//!  takes over:   last sign of the primary ──► asks the witness ──► is told yes ──► (opens its doors)
//!  hands over:   stops its clients ────────────────────────────► the record names the other one
//! ```

use base::{Epoch, Nanos};
use witness::AskKind;

use crate::site::Mirror;

/// The beginning of a term. Times are this site's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    /// Its number.
    pub epoch: Epoch,
    /// When this site learned of it.
    pub learned: Nanos,
    /// Last sign of the other site, at whoever becomes primary.
    pub heard: Option<Nanos>,
    /// When the witness was first asked for it.
    pub asked: Option<Nanos>,
    /// When clients were stopped here, at whoever handed over.
    pub stopped: Option<Nanos>,
}

impl Mirror {
    /// How the present term began; none if this site was in it when it was opened.
    #[must_use]
    pub const fn turn(&self) -> Option<Turn> {
        self.turn
    }

    /// The witness is asked.
    pub(crate) fn note_question(&mut self, kind: AskKind) {
        if matches!(kind, AskKind::TakeOver { .. } | AskKind::Force { .. }) {
            // What was asked before the other one was heard again is another story.
            self.asked_to_serve = self.asked_to_serve.filter(|at| *at >= self.heard_at).or(Some(self.now));
        }
    }

    /// The record has begun a term; `was_in_office` if this site was open before.
    pub(crate) fn note_turn(&mut self, epoch: Epoch, is_primary: bool, was_in_office: bool) {
        let asked = self.asked_to_serve.take();
        self.turn = was_in_office.then_some(Turn {
            epoch,
            learned: self.now,
            heard: is_primary.then_some(self.heard_at),
            asked: asked.filter(|_| is_primary),
            stopped: self.hands_over.filter(|_| !is_primary),
        });
    }
}
