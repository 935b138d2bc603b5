//! A site's part in one replicated datastore: the state machine.
//!
//! ```text
//!  client ──► locks ──► queue ──► number ──┬─► own journal ───── stable ─┐
//!                                          └─► link ─► its journal ─ Durable ─┴─► answer
//! ```
//!
//! Whatever happens goes through [`Mirror::handle`]: one input, and then `settle` looks at
//! what may go on by now. Nothing is waited for inside. What decides is, in this order:
//!
//! 1. the seat (`witness::Seat`): may this site serve, and alone;
//! 2. the link: is the recovery of the last parting done;
//! 3. the in-flight map: is there room.
//!
//! | mode | when | clients get |
//! |---|---|---|
//! | `Both` | in sync, leased, recovered | everything; acknowledged when both have it |
//! | `Alone` | the record says not in sync, the snapshot of that moment is stable | everything |
//! | `Writes` | the same, and the rows of a resync's rest are sent | no change that is not a write |
//! | `Catches` | the same, and a resync has come to the files | everything; changes, and writes to files that it has reached, as in `Both` |
//! | `Reads` | in sync and leased, but apart; at the end of a resync; or until the point of a check | reads; writes wait |
//! | `Hold` | anything else | nothing |
//!
//! Writes that wait hold their locks, so a read never sees what the other site may lack (I3).
//!
//! What the seat must remember is appended like anything else; until it is stable the site
//! acts as if it knew nothing, and no question leaves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Epoch, FileId, Nanos, Osn, SiteId};
use witness::{Ask, AskKind, Asked, Seat, Stance, Standing};

use crate::check::Check;
use crate::issuer::Issuer;
use crate::link::{Link, Phase};
use crate::locks::{Locks, Ticket};
use crate::operation::Change;
use crate::primary::{Op, Open};
use crate::record::{Kept, Record};
use crate::resync::{Holds, Queries};
use crate::step::{Action, Answer, Command, Config, Input, OpId};
use crate::turn::Turn;
use crate::wire::{Frame, Message};

/// What follows when a record is stable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    Nothing,
    Mark(Osn),
    /// An operation of a client is stable here.
    Local(Osn),
    /// Say so on this link.
    Tell(u64, Message),
}

/// What this site is by the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Office {
    pub epoch: Epoch,
    pub primary: bool,
}

/// What clients get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    Hold,
    Reads,
    Both,
    Alone,
    Writes,
    Catches,
}

/// How far both are from being equal again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    /// Not wanted.
    No,
    /// Rows are compared; this site goes on alone.
    Rows,
    /// No change starts, and those under way end.
    Halts(Nanos),
    /// No change is under way: the rows that changed meanwhile are sent.
    Rest(Nanos),
    /// Files are compared in order.
    Files {
        /// Through here they are done, or being done.
        reached: FileId,
        /// The last one that may differ.
        until: FileId,
    },
    /// What is under way ends first.
    Drains(Nanos),
    /// Somebody looks at the rest.
    Copies(Nanos),
    /// Equal: the record must say so.
    Equal,
}

/// A question to the witness that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    pub number: u64,
    pub ask: Ask,
    pub sent: Nanos,
}

/// One site.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub(crate) config: Config,
    pub(crate) now: Nanos,
    pub(crate) kept: Kept,
    pub(crate) seat: Seat,
    pub(crate) actions: Vec<Action>,
    // own journal
    appended: u64,
    stable: u64,
    then: VecDeque<(u64, Then)>,
    seat_ticket: u64,
    pub(crate) align_ticket: u64,
    // office
    pub(crate) office: Option<Office>,
    pub(crate) office_since: Nanos,
    pub(crate) turn: Option<Turn>,
    pub(crate) asked_to_serve: Option<Nanos>,
    pub(crate) trusted: bool,
    noticed: u64,
    // clients
    pub(crate) locks: Locks,
    pub(crate) ops: BTreeMap<OpId, Op>,
    pub(crate) by_ticket: BTreeMap<Ticket, OpId>,
    pub(crate) by_osn: BTreeMap<Osn, OpId>,
    pub(crate) reads: VecDeque<OpId>,
    pub(crate) changes: VecDeque<OpId>,
    pub(crate) complete: BTreeSet<OpId>,
    pub(crate) was: Mode,
    // numbers
    pub(crate) issuer: Option<Issuer>,
    pub(crate) open: BTreeMap<Osn, Open>,
    pub(crate) low_water: Osn,
    // the other site
    pub(crate) link: Option<Link>,
    pub(crate) heard_at: Nanos,
    pub(crate) checks: BTreeMap<Osn, Change>,
    pub(crate) lends: BTreeMap<u64, Nanos>,
    pub(crate) lend_number: u64,
    pub(crate) lend_asked_at: Option<Nanos>,
    pub(crate) apart_since: Option<Nanos>,
    pub(crate) level: Level,
    /// Since when the other site is to be primary.
    pub(crate) hands_over: Option<Nanos>,
    pub(crate) level_number: u64,
    pub(crate) resync_not_before: Nanos,
    pub(crate) queries: Queries,
    pub(crate) holds: Holds,
    pub(crate) check: Check,
    // the witness
    pub(crate) question: Option<Asking>,
    pub(crate) held_back: Option<Ask>,
    pub(crate) question_number: u64,
    pub(crate) asked_at: Option<Nanos>,
    pub(crate) not_before: Nanos,
    pub(crate) amnesia: bool,
    pub(crate) wanted: VecDeque<AskKind>,
}

impl Mirror {
    /// A site with what its journal and trees say.
    #[must_use]
    pub fn new(config: Config, kept: Kept, now: Nanos) -> Self {
        let seat = Seat::new(config.me, config.pair, kept.memory, now);
        let low_water = kept.flights.low_water();
        let mut site = Self {
            config: config.bounded(),
            now,
            seat,
            actions: Vec::new(),
            appended: 0,
            stable: 0,
            then: VecDeque::new(),
            seat_ticket: 0,
            align_ticket: 0,
            office: None,
            office_since: now,
            turn: None,
            asked_to_serve: None,
            trusted: false,
            noticed: kept.memory.known.map_or(0, |known| known.version),
            locks: Locks::default(),
            ops: BTreeMap::new(),
            by_ticket: BTreeMap::new(),
            by_osn: BTreeMap::new(),
            reads: VecDeque::new(),
            changes: VecDeque::new(),
            complete: BTreeSet::new(),
            was: Mode::Hold,
            issuer: None,
            open: BTreeMap::new(),
            low_water,
            link: None,
            heard_at: now,
            checks: BTreeMap::new(),
            lends: BTreeMap::new(),
            lend_number: 0,
            lend_asked_at: None,
            apart_since: None,
            level: Level::No,
            hands_over: None,
            level_number: 0,
            resync_not_before: now,
            queries: Queries::default(),
            holds: Holds::default(),
            check: Check::No,
            question: None,
            held_back: None,
            question_number: 0,
            asked_at: None,
            not_before: now,
            amnesia: false,
            wanted: VecDeque::new(),
            kept,
        };
        site.settle();
        site
    }

    /// What is to be done after `input`. The first call of a life may be a tick.
    pub fn handle(&mut self, now: Nanos, input: Input) -> Vec<Action> {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.tick(),
            Input::Client(op, request) => self.client(op, request),
            Input::Resolved(op, change) => self.resolved(op, change),
            Input::Fetched(reader, payload, form) => self.fetched(reader, payload, form),
            Input::Checked(osn, yes) => self.checked(osn, yes),
            Input::Stable(through) => self.is_stable(through),
            Input::LinkUp(number) => self.link_up(number),
            Input::LinkDown(number) => self.link_down(number),
            Input::Received(number, frame) => self.received(number, frame),
            Input::Answered(number, verdict) => self.answered(number, &verdict),
            Input::Resync(number, progress) => self.resync_is(number, progress),
            Input::Query(number, query, body) => self.query(number, query, body),
            Input::Reply(link, osn, body) => self.reply(link, osn, body),
            Input::Hold(number, hold, wants) => self.hold(number, hold, wants),
            Input::Release(hold) => self.release_hold(hold),
            Input::Levelled(number) => self.levelled(number),
            Input::Check(point) => self.want_check(point),
            Input::CheckedAll(number) => self.checked_all(number),
            Input::Differs => self.differs(),
            Input::Command(command) => self.command(command),
        }
        self.settle();
        std::mem::take(&mut self.actions)
    }

    /// What may go on by now, in the order in which one enables the next.
    fn settle(&mut self) {
        self.keep_memory();
        self.take_office();
        self.align();
        self.ask_on();
        self.meet();
        self.keep_mark();
        self.start();
        self.finish();
        self.go_on_checking();
        self.go_on_resyncing();
        self.advance_low_water();
    }

    /// Appends a record; what it says holds for this site at once.
    pub(crate) fn append(&mut self, record: Record, then: Then) {
        self.kept.apply(&record);
        self.appended += 1;
        self.then.push_back((self.appended, then));
        self.actions.push(Action::Append(self.appended, record));
    }

    fn is_stable(&mut self, through: u64) {
        while self.then.front().is_some_and(|(ticket, _)| *ticket <= through) {
            let Some((ticket, then)) = self.then.pop_front() else { return };
            self.stable = ticket;
            match then {
                Then::Nothing => {}
                Then::Mark(mark) => {
                    if let Some(issuer) = &mut self.issuer {
                        issuer.marked(mark);
                    }
                }
                Then::Local(osn) => self.is_local(osn),
                Then::Tell(link, message) => {
                    if self.link.as_ref().is_some_and(|now| now.number == link) {
                        self.send(message);
                    }
                }
            }
        }
    }

    /// Whether all that was appended is stable.
    pub(crate) fn is_quiet(&self) -> bool {
        self.then.is_empty()
    }

    pub(crate) fn send(&mut self, message: Message) {
        let Some(link) = &self.link else { return };
        let epoch = self.office.map_or(Epoch(0), |office| office.epoch);
        self.actions.push(Action::Send(link.number, Frame { epoch, low_water: self.low_water, message }));
    }

    fn keep_memory(&mut self) {
        if self.seat.memory() != self.kept.memory {
            self.append(Record::Seat(self.seat.memory()), Then::Nothing);
            self.seat_ticket = self.appended;
        }
    }

    pub(crate) fn hold_until_stable(&mut self) {
        self.seat_ticket = self.appended;
    }

    /// Whether what the seat knows would survive a crash.
    pub(crate) fn remembers(&self) -> bool {
        self.seat_ticket <= self.stable
    }

    /// The newest record this site knows for good.
    pub(crate) fn known(&self) -> Option<Standing> {
        self.kept.memory.known.filter(|_| self.remembers())
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.office.is_some_and(|office| office.primary)
    }

    /// Whether the record says that both have everything, or may do so any moment because it
    /// was asked to: what is acknowledged must be on both.
    pub(crate) fn is_in_sync(&self) -> bool {
        let Some(known) = self.kept.memory.known else { return false };
        known.in_sync || self.kept.memory.asked == Some(Asked::InSync(known.version))
    }

    pub(crate) fn stance(&self) -> Stance {
        if self.remembers() { self.seat.stance(self.now) } else { Stance::Unknown }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode_by(self.stance())
    }

    fn mode_by(&self, stance: Stance) -> Mode {
        if !self.is_primary() {
            return Mode::Hold;
        }
        match (stance, self.level) {
            (Stance::Serves { alone: true }, _) if !self.is_aligned() => Mode::Hold,
            (Stance::Serves { alone: true }, Level::No | Level::Rows) => Mode::Alone,
            (Stance::Serves { alone: true }, Level::Halts(_) | Level::Rest(_)) => Mode::Writes,
            (Stance::Serves { alone: true }, Level::Files { .. }) => Mode::Catches,
            (Stance::Serves { alone: false }, Level::No) if self.is_together() && !self.is_draining() => Mode::Both,
            (Stance::Serves { .. }, _) if self.trusted => Mode::Reads,
            _ => Mode::Hold,
        }
    }

    /// Whether nothing new is started, so that what is under way comes to its end.
    fn is_draining(&self) -> bool {
        self.hands_over.is_some() || self.is_draining_for_check()
    }

    /// Whether what is stable here may be acknowledged.
    pub(crate) fn acknowledges_alone(&self) -> bool {
        let alone = self.stance() == Stance::Serves { alone: true };
        alone && self.is_primary() && self.is_aligned()
    }

    /// Whether the link is recovered and the record says in sync.
    pub(crate) fn is_together(&self) -> bool {
        self.is_in_sync() && self.link.as_ref().is_some_and(|link| link.phase == Phase::Together)
    }

    /// Whether the moment from which this site is alone is fixed for good.
    pub(crate) fn is_aligned(&self) -> bool {
        self.kept.snapshot.is_some() && self.align_ticket <= self.stable
    }

    /// The record makes this site something else.
    fn take_office(&mut self) {
        let Some(known) = self.known() else { return };
        if known.version > self.noticed {
            self.noticed = known.version;
            self.actions.push(Action::Notice(known));
            if !self.is_named(self.config.peer) {
                self.hang_up();
            }
            if self.is_primary() && self.is_together() {
                self.send(Message::Changed(known));
            }
        }
        let office = Office { epoch: known.epoch, primary: known.primary == self.config.me };
        if self.office == Some(office) {
            return;
        }
        self.note_turn(office.epoch, office.primary, self.office.is_some());
        self.leave_office();
        self.office = Some(office);
        self.office_since = self.now;
        if !office.primary {
            return;
        }
        // A lease is wanted at once, not when the next look is due.
        self.asked_at = None;
        self.issuer = Some(Issuer::new(office.epoch, self.kept.mark, self.config.mark_step));
        // The old primary may have answered any of them; none that it did not prepare here.
        for (osn, change) in self.kept.prepared.clone() {
            self.commit(osn, change, true);
        }
        self.align_ticket = self.appended;
    }

    fn leave_office(&mut self) {
        for op in std::mem::take(&mut self.ops).into_keys() {
            self.actions.push(Action::Answer(op, Answer::Gone));
        }
        self.set_level(Level::No);
        self.end_check();
        self.locks = Locks::default();
        self.by_ticket.clear();
        self.by_osn.clear();
        self.reads.clear();
        self.changes.clear();
        self.complete.clear();
        self.open.clear();
        self.checks.clear();
        self.lends.clear();
        (self.issuer, self.apart_since, self.hands_over) = (None, None, None);
        (self.trusted, self.was) = (false, Mode::Hold);
        self.low_water = self.kept.flights.low_water();
        self.hang_up();
    }

    /// A primary that is to go on alone fixes the moment: what is prepared happens, and what
    /// both hold from then on differs by the delta since the snapshot and the in-flight map.
    fn align(&mut self) {
        if !self.is_primary() || self.is_in_sync() || !self.remembers() {
            return;
        }
        let Some(last) = self.issuer.as_ref().map(Issuer::last) else { return };
        if self.kept.snapshot.is_none() {
            self.commit_all_preparing();
            self.append(Record::Snapshot(last), Then::Nothing);
            self.align_ticket = self.appended;
        }
        let was_in_sync = match self.phase() {
            Some(Phase::Together) => true,
            Some(Phase::Recovers(recovery)) => recovery.is_in_sync(),
            _ => false,
        };
        if was_in_sync {
            // What was on its way is found by the recovery of the next link.
            self.hang_up();
        }
        self.trusted |= self.is_aligned();
    }

    fn keep_mark(&mut self) {
        if let Some(mark) = self.issuer.as_mut().and_then(Issuer::wanted_mark) {
            self.append(Record::Mark(mark), Then::Mark(mark));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Pause(paused) if paused != self.kept.paused => self.append(Record::Paused(paused), Then::Nothing),
            Command::Pause(_) => {}
            Command::Force { primary_is_off } => self.wanted.push_back(AskKind::Force { primary_is_off }),
            Command::Found { lease_ms } => self.wanted.push_back(AskKind::Found { lease_ms }),
            Command::Join { secondary } => {
                self.config.peer = secondary;
                self.wanted.push_back(AskKind::Join { secondary });
            }
            Command::Leave => self.wanted.push_back(AskKind::Leave),
            Command::HandOver => self.want_hand_over(),
        }
    }

    /// What forcing this site would lose: `None` where it has everything, else the operation
    /// after which acknowledged ones may be missing here.
    #[must_use]
    pub fn may_lack(&self) -> Option<Osn> {
        let known = self.kept.memory.known?;
        let is_complete = known.in_sync || known.primary == self.config.me;
        (!is_complete).then_some(known.in_sync_through)
    }

    /// Whether this site would answer a client now, for status and tests.
    #[must_use]
    pub fn serves(&self, now: Nanos) -> bool {
        self.is_primary() && self.remembers() && matches!(self.seat.stance(now), Stance::Serves { .. })
    }

    /// Whether this site may tell a client at `now` what it holds; none where that has to be waited
    /// for. For what needs no lock of its own: changes are never taken back.
    #[must_use]
    pub fn tells(&self, now: Nanos) -> Option<bool> {
        if !self.is_primary() {
            return Some(false);
        }
        let stance = if self.remembers() { self.seat.stance(now) } else { Stance::Unknown };
        (self.mode_by(stance) != Mode::Hold).then_some(true)
    }

    /// The term in which this site acts as primary, if it does.
    #[must_use]
    pub fn term(&self) -> Option<Epoch> {
        self.office.filter(|office| office.primary).map(|office| office.epoch)
    }

    /// The other site.
    #[must_use]
    pub const fn peer(&self) -> SiteId {
        self.config.peer
    }

    /// Whether the record at the witness, as far as it is known here, makes the other site this one's
    /// secondary; none where this site is not primary.
    #[must_use]
    pub fn names_peer(&self) -> Option<bool> {
        let known = self.kept.memory.known.filter(|known| known.primary == self.config.me)?;
        Some(known.secondary == Some(self.config.peer))
    }

    /// The number of the link, until it is known to be gone.
    #[must_use]
    pub fn link(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.number)
    }

    /// What would be found after a crash if all that was appended became stable.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Whether both sites have everything and the link is recovered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_in_sync()
            && self.link.as_ref().is_some_and(|link| matches!(link.phase, Phase::Together | Phase::Follows))
    }
}
