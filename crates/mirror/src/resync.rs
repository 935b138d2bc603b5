//! Resync: the other site is made equal again while this one serves (`protocols.md` C.5, decision
//! 0053). What differs is found and sent by whoever carries it out; here is what clients may do
//! meanwhile, and when both are equal.
//!
//! ```text
//!  behind ─► rows ─────► halts ─► rest ─► files ──────────────► drains ─► copies ─► equal ─► asked
//!  clients:  alone       no change        changes to both;      reads                │
//!            (as before)                  writes to both if the file was reached     └ decision 0051
//! ```
//!
//! * Whatever ends the link ends the resync, and this site is alone as before. The next one begins
//!   at the beginning and finds what is equal already.
//! * A write that goes to both is acknowledged when both have it; it stays out of this site's
//!   in-flight map, since all that was written since the snapshot is looked at anyway.
//! * Whoever compares a range holds it, so nothing is sent late over something newer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Buf, FileId, Nanos, Osn};

use crate::link::Phase;
use crate::locks::{Ticket, Want};
use crate::site::{Level, Mirror};
use crate::step::{Action, PACE_MIN, Progress};
use crate::wire::Message;

/// After one that failed the next one begins when a link would have proved itself so many times.
const FAILED_STEADIES: u32 = 12;

/// Questions of a resync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Queries {
    waiting: VecDeque<(u64, Buf)>,
    /// Sent: by whose number, and how long.
    sent: BTreeMap<Osn, (u64, u64)>,
    sent_bytes: u64,
    /// What was sent is paid for, at the pace that is allowed.
    paid_at: Nanos,
}

/// Ranges that a resync has for itself, by its own names for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Holds {
    tickets: BTreeMap<u64, Ticket>,
    names: BTreeMap<Ticket, u64>,
}

impl Queries {
    pub(crate) fn is_sent(&mut self, osn: Osn, (query, bytes): (u64, u64)) {
        self.sent.insert(osn, (query, bytes));
        self.sent_bytes += bytes;
    }
}

impl Mirror {
    /// Whether writes to a file go to both while files are compared.
    pub(crate) fn is_reached(&self, file: FileId) -> bool {
        match self.level {
            Level::Files { reached, until } => file <= reached || file > until,
            _ => false,
        }
    }

    /// Through which file the resync that runs has come: what is written to it or to one before goes
    /// to both. None while no file was reached.
    #[must_use]
    pub fn resync_reached(&self) -> Option<FileId> {
        match self.level {
            Level::Files { reached, .. } if reached > FileId(0) => Some(reached),
            Level::Drains(_) | Level::Copies(_) | Level::Equal => Some(FileId(u64::MAX)),
            _ => None,
        }
    }

    /// Whether some of what is begun goes to both.
    pub(crate) fn tells_both(&self) -> bool {
        let catches = matches!(self.level, Level::Files { .. } | Level::Drains(_) | Level::Copies(_) | Level::Equal);
        self.is_together() || catches
    }

    pub(crate) fn watch_resync(&mut self) {
        let is_late = |since: Nanos| self.now.since(since) >= self.config.out_of_sync_delay;
        match self.level {
            Level::No if self.may_resync() => {
                self.level_number += 1;
                self.set_level(Level::Rows);
                self.actions.push(Action::Resync(self.level_number));
            }
            Level::No | Level::Equal => {}
            _ if self.kept.paused => self.give_up_resync(),
            // Clients wait.
            Level::Halts(since) | Level::Rest(since) | Level::Drains(since) | Level::Copies(since)
                if is_late(since) =>
            {
                self.give_up_resync();
            }
            _ => {}
        }
    }

    fn may_resync(&self) -> bool {
        if self.now < self.resync_not_before {
            return false;
        }
        let steady = |link: &crate::link::Link| self.now.since(link.up_at) >= self.config.steady;
        let behind = self.phase() == Some(&Phase::Behind) && self.link.as_ref().is_some_and(steady);
        behind && self.acknowledges_alone() && !self.kept.paused
    }

    /// What goes to both stays equal only over this link: without it, the other site is told anew
    /// what it lacks.
    fn give_up_resync(&mut self) {
        if self.tells_both() {
            return self.hang_up();
        }
        self.set_level(Level::No);
        if let Some(link) = &mut self.link {
            link.up_at = self.now;
        }
    }

    /// Whoever carries it out is told when it is not wanted any more.
    pub(crate) fn set_level(&mut self, level: Level) {
        let was = std::mem::replace(&mut self.level, level);
        if level != Level::No || was == Level::No {
            return;
        }
        self.forget_queries();
        let held: Vec<Ticket> = std::mem::take(&mut self.holds).names.into_keys().collect();
        held.into_iter().for_each(|ticket| self.release(ticket));
        if was != Level::Equal {
            self.actions.push(Action::EndResync(self.level_number));
        }
    }

    /// Nobody waits for answers any more.
    pub(crate) fn forget_queries(&mut self) {
        self.queries = Queries { paid_at: self.queries.paid_at, ..Queries::default() };
    }

    fn is_resync(&self, number: u64) -> bool {
        number == self.level_number && !matches!(self.level, Level::No | Level::Equal)
    }

    pub(crate) fn resync_is(&mut self, number: u64, progress: Progress) {
        if !self.is_resync(number) {
            return;
        }
        match (progress, self.level) {
            (Progress::Halt, Level::Rows) => self.set_level(Level::Halts(self.now)),
            (Progress::Files { until }, Level::Rest(_)) => {
                self.set_level(Level::Files { reached: FileId(0), until });
            }
            (Progress::Reached(file), Level::Files { reached, until }) => {
                self.set_level(Level::Files { reached: reached.max(file), until });
            }
            (Progress::Drain, Level::Files { .. }) => self.set_level(Level::Drains(self.now)),
            (Progress::Failed, _) => {
                // Such as a site that is full, or another's: clients need not feel each attempt.
                self.resync_not_before = self.now + self.config.steady * FAILED_STEADIES;
                self.give_up_resync();
            }
            _ => {}
        }
    }

    pub(crate) fn levelled(&mut self, number: u64) {
        if matches!(self.level, Level::Copies(_)) && number == self.level_number {
            self.set_level(Level::Equal);
        }
    }

    pub(crate) fn go_on_resyncing(&mut self) {
        match self.level {
            Level::Halts(since) if self.is_halted() => {
                self.set_level(Level::Rest(since));
                self.actions.push(Action::Halted(self.level_number));
            }
            Level::Drains(since) if self.is_drained() => {
                self.set_level(Level::Copies(since));
                self.actions.push(Action::Level(self.level_number));
            }
            _ => {}
        }
        self.send_queries();
    }

    pub(crate) fn query(&mut self, number: u64, query: u64, body: Buf) {
        if self.is_resync(number) || self.is_check(number) {
            self.queries.waiting.push_back((query, body));
        }
    }

    /// As many as the pace allows; one at any time.
    fn send_queries(&mut self) {
        let pace = self.config.resync;
        while let Some((_, body)) = self.queries.waiting.front() {
            let bytes = body.len() as u64;
            let queries = &self.queries;
            let has_room = queries.sent.is_empty() || queries.sent_bytes + bytes <= pace.in_flight_bytes;
            // What falls due before the next look around may leave now.
            let is_paid = queries.paid_at <= self.now + self.config.beat;
            if !has_room || !is_paid {
                return;
            }
            let Some(osn) = self.issuer.as_mut().and_then(crate::issuer::Issuer::take) else { return };
            let Some((query, body)) = self.queries.waiting.pop_front() else { return };
            self.queries.is_sent(osn, (query, bytes));
            let takes = bytes.saturating_mul(1_000_000_000) / pace.per_second_bytes.max(PACE_MIN);
            self.queries.paid_at = self.queries.paid_at.max(self.now) + Duration::from_nanos(takes);
            self.send(Message::Query { osn, body });
        }
    }

    pub(crate) fn told(&mut self, osn: Osn, body: Buf) {
        if let Some((query, bytes)) = self.queries.sent.remove(&osn) {
            self.queries.sent_bytes -= bytes;
            self.actions.push(Action::Told(query, body));
        }
    }

    pub(crate) fn reply(&mut self, link: u64, osn: Osn, body: Buf) {
        if self.link.as_ref().is_some_and(|now| now.number == link && now.phase == Phase::Follows) {
            self.send(Message::Reply { osn, body });
        }
    }

    pub(crate) fn hold(&mut self, number: u64, hold: u64, wants: Vec<Want>) {
        if !self.is_resync(number) {
            return;
        }
        let (ticket, held) = self.locks.ask(wants);
        self.holds.tickets.insert(hold, ticket);
        self.holds.names.insert(ticket, hold);
        if held {
            self.is_held(ticket);
        }
    }

    pub(crate) fn is_held(&mut self, ticket: Ticket) {
        if let Some(hold) = self.holds.names.get(&ticket) {
            self.actions.push(Action::Held(*hold));
        }
    }

    pub(crate) fn release_hold(&mut self, hold: u64) {
        if let Some(ticket) = self.holds.tickets.remove(&hold) {
            self.holds.names.remove(&ticket);
            self.release(ticket);
        }
    }
}
