//! What time decides: renewals, going on alone, taking over, being equal again
//! (`protocols.md` C.4). The record at the witness has the last word on each.
//!
//! * *Going on alone.* The primary has been without its secondary, or without its answer to
//!   an operation, for the out-of-sync delay; or replication is paused. Until the witness has
//!   said yes, writes wait.
//! * *Taking over.* The secondary hears nothing. The witness agrees only if the record says in
//!   sync and the primary's lease is over; so a secondary that lacks anything is never made
//!   primary but by an administrator, who is told from where on it may lack
//!   ([`Mirror::may_lack`]).
//! * *Being equal again* (`resync`). Only over a link that has held for a while, and not soon after the
//!   last change, so that a link that flaps leads to one resync (F51).
//!
//! One question is under way at a time. One without an answer may still be carried out; what
//! that binds the asker to is the seat's business.

use std::time::Duration;

use witness::{Ask, AskKind, Refusal, Stance, Verdict};

use crate::link::Phase;
use crate::site::{Asking, Level, Mirror};
use crate::step::Action;
use crate::wire::Message;

/// Renewals while a lease or somebody's patience lasts: one may be lost and the next be late.
const RENEWALS_PER_LEASE: u32 = 4;
/// Questions for a lease whose answers are still waited for.
const LENDS_MAX: usize = 8;

impl Mirror {
    pub(crate) fn tick(&mut self) {
        self.watch_link();
        self.renew_on_link();
        self.watch_apart();
        self.watch_resync();
        self.watch_hand_over();
        self.watch_check();
        self.settle_idle_map();
        self.actions.push(Action::WakeAt(self.now + self.config.beat));
    }

    fn lease(&self) -> Duration {
        self.kept.memory.known.map_or(Duration::from_secs(1), |known| known.lease())
    }

    fn watch_link(&mut self) {
        let silent = self.now.since(self.heard_at) > self.config.silence;
        if silent && self.phase().is_some_and(|phase| *phase != Phase::Ended) {
            self.hang_up();
        }
    }

    /// Asks the secondary for a lease; that is the heartbeat, too.
    fn renew_on_link(&mut self) {
        let shortest = self.config.takeover_delay.min(self.config.silence).min(self.lease());
        let every = shortest / RENEWALS_PER_LEASE;
        let met = !matches!(self.phase(), None | Some(Phase::Ended | Phase::Greets(_)));
        let due = self.lend_asked_at.is_none_or(|at| self.now.since(at) >= every);
        if !self.is_primary() || !met || !due || !self.remembers() {
            return;
        }
        self.lend_asked_at = Some(self.now);
        self.lend_number += 1;
        self.lends.insert(self.lend_number, self.now);
        while self.lends.len() > LENDS_MAX {
            self.lends.pop_first();
        }
        self.send(Message::Renew { number: self.lend_number });
    }

    pub(crate) fn is_lent(&mut self, number: u64, lease_ms: u32) {
        let (Some(sent), Some(office)) = (self.lends.remove(&number), self.office) else { return };
        if lease_ms > 0 {
            // No secondary lends for longer than the record says.
            let lease = Duration::from_millis(lease_ms.into()).min(self.lease());
            self.seat.lent(office.epoch, sent, lease);
        }
    }

    /// Since when the primary has been without its secondary.
    fn watch_apart(&mut self) {
        let oldest = self.open.values().next().map(|open| open.since);
        let stuck = oldest.filter(|since| self.now.since(*since) >= self.config.out_of_sync_delay);
        if self.tells_both() && stuck.is_some() {
            self.hang_up();
            self.apart_since = stuck;
            return;
        }
        let busy = self.level != Level::No && self.level != Level::Equal;
        let content = self.is_together() || self.acknowledges_alone() || busy || !self.is_primary();
        // Since the secondary was last heard, not since somebody noticed.
        self.apart_since = if content { None } else { self.apart_since.or(Some(self.heard_at)) };
    }

    fn wants_to_go_alone(&self) -> bool {
        let apart = self.apart_since.is_some_and(|since| self.now.since(since) >= self.config.out_of_sync_delay);
        let stuck = self.is_hand_over_stuck();
        let paused = self.kept.paused && self.level == Level::No;
        self.is_primary() && self.is_in_sync() && (apart || stuck || paused || self.kept.differs)
    }

    fn wants_to_take_over(&self) -> bool {
        let Some(known) = self.known() else { return false };
        let silent = self.now.since(self.heard_at) >= self.config.takeover_delay;
        let steady = self.now.since(self.office_since) >= self.config.term_min;
        let may = known.in_sync && known.secondary == Some(self.config.me) && self.now >= self.not_before;
        may && silent && steady && self.stance() == Stance::Standby
    }

    /// Nothing is in flight and a map still lists something.
    fn settle_idle_map(&mut self) {
        if self.is_quiet() && self.kept.flights.count() > 0 {
            self.settle_map();
        }
    }

    /// Asks the witness what is to be asked now.
    pub(crate) fn ask_on(&mut self) {
        if let Some(ask) = self.held_back.filter(|_| self.remembers()) {
            self.held_back = None;
            return self.put(ask);
        }
        let waits = |asking: Asking| self.now.since(asking.sent) < self.config.answer_within;
        if self.held_back.is_some() || self.question.is_some_and(waits) || !self.remembers() {
            return;
        }
        self.question = None;
        let Some(kind) = self.next_question() else { return };
        self.asked_at = Some(self.now);
        let Ok(ask) = self.seat.ask(kind, self.now) else { return self.is_not_asked(kind) };
        if self.seat.memory() == self.kept.memory {
            self.put(ask);
        } else {
            // What it binds this site to must outlive a crash before it leaves.
            self.held_back = Some(ask);
            self.append(crate::record::Record::Seat(self.seat.memory()), crate::site::Then::Nothing);
            self.hold_until_stable();
        }
    }

    fn is_not_asked(&mut self, kind: AskKind) {
        let is_command =
            matches!(kind, AskKind::Force { .. } | AskKind::Found { .. } | AskKind::Join { .. } | AskKind::Leave);
        if is_command {
            self.actions.push(Action::NotAsked(kind));
        }
    }

    fn put(&mut self, ask: Ask) {
        self.note_question(ask.kind);
        self.question_number += 1;
        self.question = Some(Asking { number: self.question_number, ask, sent: self.now });
        self.actions.push(Action::Ask(self.question_number, ask));
    }

    fn next_question(&mut self) -> Option<AskKind> {
        let since = self.asked_at.map(|at| self.now.since(at));
        if since.is_some_and(|since| since < self.config.beat) {
            return None;
        }
        if let Some(known) = self.kept.memory.known.filter(|_| self.amnesia) {
            // What an administrator wanted was thought on what is known now. Nobody knows how long
            // it takes until the witness has its memory again, nor what it will say then.
            while let Some(kind) = self.wanted.pop_front() {
                self.is_not_asked(kind);
            }
            return Some(AskKind::Restore { known });
        }
        if let Some(kind) = self.wanted.pop_front() {
            return Some(kind);
        }
        if self.wants_to_go_alone() {
            return Some(AskKind::GoAlone { in_sync_through: self.low_water });
        }
        if self.asks_to_hand_over() {
            return Some(AskKind::HandOver);
        }
        let unsaid = self.is_together() && self.kept.memory.known.is_some_and(|known| !known.in_sync);
        if (self.level == Level::Equal || unsaid) && matches!(self.stance(), Stance::Serves { .. }) {
            return Some(AskKind::InSync);
        }
        if self.wants_to_take_over() {
            return Some(AskKind::TakeOver { in_sync_through: self.low_water });
        }
        let due = since.is_none_or(|since| since >= self.lease() / RENEWALS_PER_LEASE);
        let epoch = self.office.filter(|office| office.primary).map(|office| office.epoch);
        due.then(|| epoch.map_or(AskKind::Look, |epoch| AskKind::Renew { epoch }))
    }

    pub(crate) fn answered(&mut self, number: u64, verdict: &Verdict) {
        let Some(asking) = self.question.filter(|asking| asking.number == number) else { return };
        self.question = None;
        self.seat.answered(&asking.ask, asking.sent, verdict);
        self.amnesia =
            verdict.outcome == Err(Refusal::Amnesia) || self.amnesia && verdict.outcome == Err(Refusal::WaitsForOther);
        if let Err(Refusal::LeaseRuns(left)) = verdict.outcome {
            self.not_before = self.now + left;
        }
    }
}
