//! The primary: operations of clients, from the lock to the answer.
//!
//! A write is sent and appended at once, a change asks the other site first
//! (`protocols.md` C.3):
//!
//! ```text
//!  primary                         secondary
//!   work it out under locks
//!   PREPARE ───────────────────────► can it be done? PREPARED stable
//!   ◄──────────────────────── VOTE yes
//!   COMMITTED stable ─► answer
//!   COMMIT ────────────────────────► COMMITTED stable
//!   ◄───────────────────── DURABLE      (until then the primary keeps what it committed)
//! ```
//!
//! After the vote nothing can fail any more, so nothing that was done is ever undone
//! (R-2PC-02). A failover between vote and commit commits, because the client may have been
//! told; a primary that lost its memory of a change before it committed drops it, because
//! nobody was.

use std::collections::VecDeque;

use base::{Buf, Nanos, Osn};

use crate::locks::{Ticket, Use, Want};
use crate::operation::{Change, Form, Span, WRITE_BYTES_MAX, Write};
use crate::record::Record;
use crate::site::{Level, Mirror, Mode, Then};
use crate::step::{Action, Answer, OpId, Reader, Request};
use crate::wire::Message;

/// An operation that is not known to be on both sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Open {
    pub since: Nanos,
    pub local: bool,
    pub remote: bool,
}

/// A client's operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    pub ticket: Ticket,
    pub stage: Stage,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// For its locks, then for a mode that allows it.
    Waits(Request),
    Reads,
    Resolves,
    /// Worked out; to be prepared or, alone, committed.
    Resolved(Change),
    Writes {
        osn: Osn,
        local: bool,
        remote: bool,
    },
    Prepares {
        osn: Osn,
        change: Change,
    },
    Commits {
        osn: Osn,
        reply: Buf,
        local: bool,
    },
    /// As soon as this site serves.
    Answers(Answer),
}

fn want_of(span: &Span, usage: Use) -> Want {
    Want { file: span.file, from: span.offset_bytes, to: span.end_bytes(), usage }
}

impl Mirror {
    pub(crate) fn client(&mut self, id: OpId, request: Request) {
        if !self.is_primary() {
            return self.actions.push(Action::Answer(id, Answer::NotPrimary));
        }
        if self.ops.len() >= self.config.operations_max {
            return self.actions.push(Action::Answer(id, Answer::Busy));
        }
        if let Request::Write(write) = &request
            && (write.payload.len() > WRITE_BYTES_MAX
                || write.offset_bytes.checked_add(write.payload.len() as u64).is_none())
        {
            return self.actions.push(Action::Answer(id, Answer::TooLarge));
        }
        let wants = match &request {
            Request::Read(span) => vec![want_of(span, Use::Reads)],
            Request::Write(write) => vec![want_of(&write.span(), Use::Writes)],
            Request::Change(wants) => wants.clone(),
        };
        let (ticket, held) = self.locks.ask(wants);
        self.by_ticket.insert(ticket, id);
        self.ops.insert(id, Op { ticket, stage: Stage::Waits(request) });
        if held {
            self.queue(id);
        }
    }

    fn queue(&mut self, id: OpId) {
        match self.ops.get(&id).map(|op| &op.stage) {
            Some(Stage::Waits(Request::Read(_))) => self.reads.push_back(id),
            Some(_) => self.changes.push_back(id),
            None => {}
        }
    }

    /// Starts what has its locks and what the mode allows, in order.
    pub(crate) fn start(&mut self) {
        let mode = self.mode();
        if mode == Mode::Hold {
            return;
        }
        while let Some(id) = self.reads.pop_front() {
            let Some(op) = self.ops.get_mut(&id) else { continue };
            if let Stage::Waits(Request::Read(span)) = std::mem::replace(&mut op.stage, Stage::Reads) {
                self.actions.push(Action::Read { reader: Reader::Client(id), span, at: None });
            }
        }
        let mut kept_back = VecDeque::new();
        while mode != Mode::Reads && self.start_next(mode, &mut kept_back) {}
        kept_back.append(&mut self.changes);
        self.changes = kept_back;
    }

    fn start_next(&mut self, mode: Mode, kept_back: &mut VecDeque<OpId>) -> bool {
        let Some(id) = self.changes.front().copied() else { return false };
        let Some(stage) = self.ops.get(&id).map(|op| op.stage.clone()) else {
            self.changes.pop_front();
            return true;
        };
        let both = mode == Mode::Both || mode == Mode::Catches;
        let next = match stage {
            Stage::Waits(Request::Write(write)) => self.write(write, mode),
            Stage::Waits(Request::Change(_)) | Stage::Resolved(_) if mode == Mode::Writes => {
                self.changes.pop_front();
                kept_back.push_back(id);
                return true;
            }
            Stage::Waits(Request::Change(_)) => {
                self.actions.push(Action::Resolve(id));
                Some(Stage::Resolves)
            }
            Stage::Resolved(change) => self.prepare(change, both),
            _ => return false,
        };
        let (Some(stage), Some(op)) = (next, self.ops.get_mut(&id)) else { return false };
        if let Stage::Writes { osn, .. } | Stage::Prepares { osn, .. } | Stage::Commits { osn, .. } = &stage {
            self.by_osn.insert(*osn, id);
        }
        op.stage = stage;
        self.changes.pop_front();
        true
    }

    fn write(&mut self, write: Write, mode: Mode) -> Option<Stage> {
        let both = mode == Mode::Both || mode == Mode::Catches && self.is_reached(write.file);
        let osn = self.number(both, write.payload.len() as u64)?;
        let low_water = self.low_water;
        // Until the record says in sync, the delta since the snapshot lists it.
        let tracked = mode == Mode::Both;
        self.append(Record::Write { osn, low_water, write: write.clone(), tracked }, Then::Local(osn));
        if both {
            self.send(Message::Write { osn, write });
        }
        Some(Stage::Writes { osn, local: false, remote: !both })
    }

    fn prepare(&mut self, change: Change, both: bool) -> Option<Stage> {
        let osn = self.number(both, 0)?;
        if both {
            self.send(Message::Prepare { osn, change: change.clone() });
            return Some(Stage::Prepares { osn, change });
        }
        let reply = change.reply.clone();
        self.commit(osn, change, false);
        Some(Stage::Commits { osn, reply, local: false })
    }

    /// The next number, if one can be had and what it is for has room in the map.
    fn number(&mut self, both: bool, length_bytes: u64) -> Option<Osn> {
        let max = self.config.flights_max;
        if both && (!self.kept.flights.has_room(length_bytes, max) || self.open.len() >= max.count) {
            self.settle_map();
            if !self.kept.flights.has_room(length_bytes, max) || self.open.len() >= max.count {
                return None;
            }
        }
        let osn = self.issuer.as_mut()?.take()?;
        if both {
            self.open.insert(osn, Open { since: self.now, local: false, remote: false });
        }
        Some(osn)
    }

    /// Trims the map where that does anything.
    pub(crate) fn settle_map(&mut self) {
        if self.low_water > self.kept.flights.low_water() {
            self.append(Record::LowWater(self.low_water), Then::Nothing);
        }
    }

    pub(crate) fn commit(&mut self, osn: Osn, change: Change, owed: bool) {
        let low_water = self.low_water;
        self.append(Record::Committed { osn, low_water, change, owed }, Then::Local(osn));
    }

    /// Commits what the other site was asked to prepare.
    pub(crate) fn commit_prepared(&mut self, osn: Osn) -> bool {
        let Some(op) = self.by_osn.get(&osn).and_then(|id| self.ops.get_mut(id)) else { return false };
        let Stage::Prepares { change, .. } = &op.stage else { return false };
        let change = change.clone();
        op.stage = Stage::Commits { osn, reply: change.reply.clone(), local: false };
        self.commit(osn, change, true);
        true
    }

    pub(crate) fn commit_all_preparing(&mut self) {
        for osn in self.by_osn.keys().copied().collect::<Vec<_>>() {
            self.commit_prepared(osn);
        }
    }

    /// A reply without a change is told by what this site holds: it passes the same gate as all
    /// others, or a site that is not primary any more would give it.
    pub(crate) fn resolved(&mut self, id: OpId, worked_out: Result<Change, Buf>) {
        let Some(op) = self.ops.get_mut(&id).filter(|op| op.stage == Stage::Resolves) else { return };
        let answer = match worked_out {
            Ok(change) if change.fits() => {
                op.stage = Stage::Resolved(change);
                return self.changes.push_back(id);
            }
            Ok(_) => Answer::TooLarge,
            Err(reply) => Answer::Replied(reply),
        };
        op.stage = Stage::Answers(answer);
        self.complete.insert(id);
    }

    pub(crate) fn fetched(&mut self, reader: Reader, payload: Buf, form: Form) {
        let id = match reader {
            Reader::Client(id) => id,
            Reader::Recovery { link, index } => return self.recovered(link, index, payload, form),
        };
        if let Some(op) = self.ops.get_mut(&id).filter(|op| op.stage == Stage::Reads) {
            op.stage = Stage::Answers(Answer::Read(payload));
            self.complete.insert(id);
        }
    }

    /// An operation's record is stable here.
    pub(crate) fn is_local(&mut self, osn: Osn) {
        if let Some(open) = self.open.get_mut(&osn) {
            open.local = true;
        }
        let together = self.tells_both();
        if let Some(id) = self.by_osn.get(&osn)
            && let Some(op) = self.ops.get_mut(id)
        {
            self.complete.insert(*id);
            match &mut op.stage {
                Stage::Writes { local, .. } => *local = true,
                Stage::Commits { local, .. } => {
                    *local = true;
                    if together && self.open.contains_key(&osn) {
                        self.send(Message::Commit { osn, change: None });
                    }
                }
                _ => {}
            }
        }
        self.close(osn);
    }

    /// The other site has it.
    pub(crate) fn is_remote(&mut self, osn: Osn) {
        if let Some(open) = self.open.get_mut(&osn) {
            open.remote = true;
        }
        if let Some(id) = self.by_osn.get(&osn)
            && let Some(op) = self.ops.get_mut(id)
            && let Stage::Writes { remote, .. } = &mut op.stage
        {
            *remote = true;
            self.complete.insert(*id);
        }
        self.close(osn);
    }

    fn close(&mut self, osn: Osn) {
        if self.open.get(&osn).is_some_and(|open| open.local && open.remote) {
            self.open.remove(&osn);
        }
    }

    pub(crate) fn voted(&mut self, osn: Osn, yes: bool) {
        if yes {
            self.commit_prepared(osn);
            return;
        }
        if self.level != Level::No {
            // It was let in again and cannot follow: this site goes on alone as before.
            return self.hang_up();
        }
        let Some(id) = self.by_osn.get(&osn).copied() else { return };
        if let Some(op) = self.ops.get_mut(&id).filter(|op| matches!(op.stage, Stage::Prepares { .. })) {
            op.stage = Stage::Answers(Answer::Refused);
            self.open.remove(&osn);
            self.by_osn.remove(&osn);
            self.complete.insert(id);
        }
    }

    /// Answers what is complete, if this site may answer anybody.
    pub(crate) fn finish(&mut self) {
        let mode = self.mode();
        if mode != self.was {
            self.was = mode;
            if mode == Mode::Alone {
                // Nobody votes any more.
                self.commit_all_preparing();
                self.open.clear();
            }
            self.complete.extend(self.ops.keys());
        }
        if mode == Mode::Hold {
            return;
        }
        let alone = self.acknowledges_alone() && !self.tells_both();
        for id in std::mem::take(&mut self.complete) {
            let Some(op) = self.ops.get(&id) else { continue };
            let answer = match &op.stage {
                Stage::Writes { osn, local: true, remote } if *remote || alone => Answer::Written(*osn),
                Stage::Commits { osn, reply, local: true } => Answer::Changed(*osn, reply.clone()),
                Stage::Answers(answer) => answer.clone(),
                _ => continue,
            };
            self.actions.push(Action::Answer(id, answer));
            self.end(id);
        }
        self.start();
    }

    fn end(&mut self, id: OpId) {
        let Some(op) = self.ops.remove(&id) else { return };
        self.by_ticket.remove(&op.ticket);
        if let Stage::Writes { osn, .. } | Stage::Commits { osn, .. } = op.stage {
            self.by_osn.remove(&osn);
        }
        self.release(op.ticket);
    }

    /// Gives locks up; who waited for them goes on.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        for ticket in self.locks.release(ticket) {
            match self.by_ticket.get(&ticket).copied() {
                Some(next) => self.queue(next),
                None => self.is_held(ticket),
            }
        }
    }

    /// The recovery is complete: what is stable here is there, too; what the other site does
    /// not have prepared is prepared anew.
    pub(crate) fn resume_operations(&mut self) {
        self.open.clear();
        for (id, op) in &mut self.ops {
            match &mut op.stage {
                Stage::Writes { remote, .. } => *remote = true,
                Stage::Prepares { osn, change } => {
                    self.by_osn.remove(osn);
                    op.stage = Stage::Resolved(change.clone());
                    self.changes.push_back(*id);
                }
                _ => {}
            }
            self.complete.insert(*id);
        }
    }

    /// Whether anything of clients but reads is under way.
    pub(crate) fn is_drained(&self) -> bool {
        let under_way = |op: &Op| {
            matches!(op.stage, Stage::Resolves | Stage::Writes { .. } | Stage::Prepares { .. } | Stage::Commits { .. })
        };
        self.is_quiet() && self.open.is_empty() && !self.ops.values().any(under_way)
    }

    /// Whether no change is under way.
    pub(crate) fn is_halted(&self) -> bool {
        let under_way = |op: &Op| matches!(op.stage, Stage::Resolves | Stage::Prepares { .. } | Stage::Commits { .. });
        !self.ops.values().any(under_way)
    }

    /// Everything below the oldest open operation is on both sites.
    pub(crate) fn advance_low_water(&mut self) {
        let Some(issuer) = self.issuer.as_ref().filter(|_| self.tells_both()) else { return };
        let low_water = self.open.keys().next().map_or(issuer.last(), |osn| Osn(osn.0 - 1));
        self.low_water = self.low_water.max(low_water);
    }
}
