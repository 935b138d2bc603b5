//! What a site may do for one replicated datastore, by what it has been told.
//!
//! ```text
//!              record names me primary?
//!    no record ── Unknown        │
//!    secondary ── Standby        ├─ not in sync, nothing half asked ── Serves { alone }
//!                                ├─ in sync, a lease holds ─────────── Serves { both }
//!                                └─ otherwise ─────────────────────── Fenced
//! ```
//!
//! A primary in sync serves while it holds a lease of the witness *or* of its secondary, so
//! the loss of either stops nothing; it loses both before anybody can take over. A primary
//! that is not in sync needs no lease: nobody may take over from it by himself.
//!
//! Three traps, each found by the model check:
//! * A question without an answer may still be carried out, later. After asking *in sync* a
//!   primary no longer acknowledges alone, after asking *hand over* it no longer serves,
//!   until the record has a version that the question cannot land on.
//! * What was asked outlives a crash of the site, so it is part of the durable [`Memory`].
//! * A new primary waits until the lease that it gave to the old one is over, and after a
//!   restart it does not know when it last gave one.

use std::time::Duration;

use base::{Epoch, Nanos, PairId, SiteId};

use crate::judge::{Ask, AskKind, Lease, Verdict};
use crate::lease::{Grant, Tenure};
use crate::record::{Standing, TransitionKind};

/// A question that binds the asker until the record has moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// *In sync*, thought on this version.
    InSync(u64),
    /// *Hand over*, thought on this version.
    HandOver(u64),
}

/// What a site must remember across a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// The newest record it has seen.
    pub known: Option<Standing>,
    /// What it asked on that record.
    pub asked: Option<Asked>,
}

/// What a site may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stance {
    /// It has never seen a record, or has not asked since its start.
    Unknown,
    /// It holds the other copy, or none.
    Standby,
    /// It is primary and may answer clients.
    Serves {
        /// Whether it may acknowledge what only it holds.
        alone: bool,
    },
    /// It is primary, and must not answer anybody: no lease, or something half asked.
    Fenced,
}

/// Why a question must not be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// Only a primary that serves asks this.
    #[error("only a primary that serves may ask this")]
    NotServing,
    /// Only a primary asks this.
    #[error("only the primary may ask this")]
    NotPrimary,
    /// Only a secondary asks this.
    #[error("only a secondary may ask this")]
    NotStandby,
}

/// A site's part in one replicated datastore.
///
/// Whoever drives it makes [`Seat::memory`] durable whenever it changed, before the next
/// question leaves and before anything is done by the new [`Stance`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    me: SiteId,
    pair: PairId,
    memory: Memory,
    /// Heard from the witness since the start.
    confirmed: bool,
    from_witness: Tenure,
    from_secondary: Tenure,
    given: Option<Grant>,
}

impl Seat {
    /// A site with what it remembers; nothing of it for one that is new.
    #[must_use]
    pub fn new(me: SiteId, pair: PairId, memory: Memory, now: Nanos) -> Self {
        let given = memory.known.map(|known| Grant::from(now, known.lease()));
        let (from_witness, from_secondary) = (Tenure::default(), Tenure::default());
        Self { me, pair, memory, confirmed: false, from_witness, from_secondary, given }
    }

    /// What must be durable; see [`Seat`].
    #[must_use]
    pub const fn memory(&self) -> Memory {
        self.memory
    }

    /// What this site may do at `now`.
    #[must_use]
    pub fn stance(&self, now: Nanos) -> Stance {
        let Some(known) = self.memory.known else { return Stance::Unknown };
        if !self.confirmed {
            return Stance::Unknown;
        }
        if known.primary != self.me {
            return Stance::Standby;
        }
        let handing_over = self.memory.asked == Some(Asked::HandOver(known.version));
        let was_secondary_lately = self.given.is_some_and(|grant| !grant.is_over(now));
        if handing_over || was_secondary_lately {
            return Stance::Fenced;
        }
        if !known.in_sync && self.memory.asked != Some(Asked::InSync(known.version)) {
            return Stance::Serves { alone: true };
        }
        let leased = self.from_witness.holds(now) || self.from_secondary.holds(now);
        if leased { Stance::Serves { alone: false } } else { Stance::Fenced }
    }

    /// The question of this kind, bound to what this site knows.
    ///
    /// # Errors
    /// [`NotNow`] where asking could only do harm.
    pub fn ask(&mut self, kind: AskKind, now: Nanos) -> Result<Ask, NotNow> {
        let stance = self.stance(now);
        let seen_version = self.memory.known.map_or(0, |known| known.version);
        let primary = self.memory.known.is_some_and(|known| known.primary == self.me);
        match kind {
            AskKind::Renew { .. } | AskKind::Join { .. } | AskKind::Leave | AskKind::GoAlone { .. } if !primary => {
                return Err(NotNow::NotPrimary);
            }
            // Asked before: it may have landed or not, and nothing is done until that is known.
            AskKind::HandOver if primary && self.memory.asked == Some(Asked::HandOver(seen_version)) => {}
            AskKind::InSync | AskKind::HandOver if !matches!(stance, Stance::Serves { .. }) => {
                return Err(NotNow::NotServing);
            }
            AskKind::TakeOver { .. } | AskKind::Force { .. } if stance != Stance::Standby => {
                return Err(NotNow::NotStandby);
            }
            AskKind::InSync => self.memory.asked = Some(Asked::InSync(seen_version)),
            AskKind::HandOver => self.memory.asked = Some(Asked::HandOver(seen_version)),
            _ => {}
        }
        Ok(Ask { pair: self.pair, from: self.me, seen_version, kind })
    }

    /// The answer to the question that was sent at `sent`. An answer is taken only for the
    /// question it belongs to, from the witness that was asked.
    pub fn answered(&mut self, ask: &Ask, sent: Nanos, verdict: &Verdict) {
        let Some(standing) = verdict.standing else { return };
        if self.memory.known.is_some_and(|known| known.version > standing.version) {
            return;
        }
        self.learn(standing);
        self.confirmed = true;
        let mine = standing.primary == self.me && ask.from == self.me;
        if verdict.outcome == Ok(Lease::Runs) && mine {
            self.from_witness.renewed(sent, standing.lease());
        }
    }

    /// The peer told of a record; it counts like any other (versions never go back).
    pub fn learn(&mut self, standing: Standing) {
        let known = self.memory.known;
        if known.is_some_and(|known| known.version >= standing.version) {
            return;
        }
        if known.is_none_or(|known| known.epoch != standing.epoch) {
            self.from_witness.end();
            self.from_secondary.end();
        }
        self.memory = Memory { known: Some(standing), asked: None };
        if standing.last.kind == TransitionKind::HandOver && standing.primary == self.me {
            // Whoever it was given to has stopped before it asked, and remembers that over a crash.
            self.given = None;
        }
    }

    /// The primary of `epoch` asks its secondary for a lease; how long it is, if it gets one.
    pub fn lend(&mut self, epoch: Epoch, now: Nanos) -> Option<Duration> {
        let known = self.memory.known?;
        let standby = self.stance(now) == Stance::Standby && known.secondary == Some(self.me);
        if !standby || known.epoch != epoch {
            return None;
        }
        self.given = Some(Grant::from(now, known.lease()));
        Some(known.lease())
    }

    /// The secondary granted a lease in `epoch` for a question sent at `sent`.
    pub fn lent(&mut self, epoch: Epoch, sent: Nanos, lease: Duration) {
        if self.memory.known.is_some_and(|known| known.epoch == epoch && known.primary == self.me) {
            self.from_secondary.renewed(sent, lease);
        }
    }
}
