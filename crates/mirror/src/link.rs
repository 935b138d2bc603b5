//! The two sites meet: greeting, report, recovery (`protocols.md` C.2).
//!
//! ```text
//!  primary                              secondary
//!   HELLO ────────────── both ──────────── HELLO     the newer record wins, on both
//!                                         (its journal is quiet)
//!   ◄─────────────────────────────────── REPORT      its map, what it has prepared and committed
//!   (its own journal is quiet)
//!   COMMIT, DROP ───────────────────────►            what is prepared is settled first
//!   RESTORE (own content of each range) ►            of both maps, above the higher low water
//!   ◄─────────────────────────────────── DURABLE     each
//!   SETTLED ────────────────────────────►            both maps are empty
//! ```
//!
//! It runs whenever there is a new link, whatever ended the old one. While it runs nothing
//! new is started, so it takes no locks. Per range it does not matter who had what:
//!
//! | on the primary | on the secondary | the client knows | and so |
//! |---|---|---|---|
//! | yes | no | nothing | it takes effect |
//! | no | yes | nothing | it is undone by the old content |
//! | yes | yes | maybe | equal, in any case |
//! | no | no | nothing | nothing |
//!
//! Each map is trimmed at the end only, so a crash in the middle is a crash like any other:
//! what may differ is still in one of the maps. Where the record says that the primary is
//! alone, it sends what it held when it became so (R-RSYNC-08), and goes on serving. One that
//! becomes alone in the middle hangs up and starts over: what it read before may be newer than
//! that, and what it committed at that moment was not among what is to be told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Buf, Nanos, Osn, SiteId};
use witness::Standing;

use crate::flights::ranges_of;
use crate::operation::{Form, Span};
use crate::record::Record;
use crate::site::{Level, Mirror, Then};
use crate::step::{Action, Reader};
use crate::wire::{CHANGES_MAX, Frame, MAP_MAX, Message, REPORT_CHANGES_MAX, REPORT_ENTRIES_MAX, Report};

/// Ranges that are being read or sent at a time.
const WINDOW: usize = 16;

/// A link to the other site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link {
    pub number: u64,
    pub phase: Phase,
    /// Since when it has held without being settled anew.
    pub up_at: Nanos,
    /// Last operation that came in; they rise.
    last_osn: Osn,
}

/// How far the sites have met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Whether the other one has greeted.
    Greets(bool),
    /// Primary: the report comes in.
    Collects(Report),
    /// Primary.
    Recovers(Recovery),
    /// Primary, in sync.
    Together,
    /// Primary, alone: the other side is where it was at the snapshot.
    Behind,
    /// Secondary: reported, being settled.
    Reported,
    /// Secondary: settled.
    Follows,
    /// Given up, and not known to be gone.
    Ended,
}

/// What is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Recovery {
    /// The moment whose content is sent; none while both are to have the present one.
    at: Option<Osn>,
    spans: VecDeque<Span>,
    next: usize,
    reading: BTreeMap<usize, Span>,
    fetched: VecDeque<(Span, Buf, Form)>,
    awaited: BTreeSet<Osn>,
}

impl Recovery {
    /// Whether it sends present content.
    pub(crate) const fn is_in_sync(&self) -> bool {
        self.at.is_none()
    }

    fn is_done(&self) -> bool {
        self.spans.is_empty() && self.reading.is_empty() && self.fetched.is_empty() && self.awaited.is_empty()
    }
}

impl Mirror {
    pub(crate) fn link_up(&mut self, number: u64) {
        self.lose_link();
        let phase = Phase::Greets(false);
        self.link = Some(Link { number, phase, up_at: self.now, last_osn: Osn(0) });
        self.heard_at = self.now;
        self.lend_asked_at = None;
        self.send(Message::Hello { site: self.config.me, standing: self.known() });
    }

    pub(crate) fn link_down(&mut self, number: u64) {
        if self.link.as_ref().is_some_and(|link| link.number == number) {
            self.lose_link();
            self.link = None;
        }
    }

    /// Gives the link up; the driver makes a new one.
    pub(crate) fn hang_up(&mut self) {
        self.lose_link();
        let Some(link) = self.link.as_mut().filter(|link| link.phase != Phase::Ended) else { return };
        link.phase = Phase::Ended;
        self.actions.push(Action::Hang(link.number));
    }

    fn lose_link(&mut self) {
        self.checks.clear();
        self.lends.clear();
        self.set_level(Level::No);
        self.end_check();
    }

    pub(crate) fn phase(&self) -> Option<&Phase> {
        self.link.as_ref().map(|link| &link.phase)
    }

    pub(crate) fn set_phase(&mut self, phase: Phase) {
        if let Some(link) = &mut self.link {
            link.phase = phase;
        }
    }

    pub(crate) fn received(&mut self, number: u64, frame: Frame) {
        let current = self.link.as_ref().is_some_and(|link| link.number == number && link.phase != Phase::Ended);
        if !current {
            return;
        }
        self.heard_at = self.now;
        match frame.message {
            Message::Hello { site, standing } => {
                let mine = |pair| pair == self.config.pair;
                if site != self.config.peer || standing.is_some_and(|standing| !mine(standing.pair)) {
                    return self.hang_up();
                }
                if let Some(standing) = standing {
                    self.seat.learn(standing);
                }
                if !self.is_named(site) {
                    return self.hang_up();
                }
                if self.phase() == Some(&Phase::Greets(false)) {
                    self.set_phase(Phase::Greets(true));
                }
            }
            Message::Changed(standing) if standing.pair == self.config.pair => self.seat.learn(standing),
            message => {
                if self.office.is_none_or(|office| office.epoch != frame.epoch) {
                    return self.hang_up();
                }
                self.low_water = self.low_water.max(frame.low_water);
                let understood = if self.is_primary() { self.hear(message) } else { self.follow(message) };
                if understood.is_none() {
                    self.hang_up();
                }
            }
        }
    }

    /// A primary makes nobody equal but the secondary of the record: what it asks the record to say
    /// would be believed of that one.
    pub(crate) fn is_named(&self, site: SiteId) -> bool {
        let is_primary = |known: &Standing| known.primary == self.config.me;
        self.seat.memory().known.filter(is_primary).is_none_or(|known| known.secondary == Some(site))
    }

    /// The primary hears its secondary. `None` where that made no sense.
    fn hear(&mut self, message: Message) -> Option<()> {
        match message {
            Message::Report(part) => {
                let Some(Phase::Collects(report)) = self.link.as_mut().map(|link| &mut link.phase) else { return None };
                if report.last {
                    return None;
                }
                report.last = part.last;
                report.flights.extend(part.flights);
                report.prepared.extend(part.prepared);
                report.commits.extend(part.commits);
                // A report without end is none.
                let bytes = report.flights.iter().try_fold(0u64, |sum, one| sum.checked_add(one.span.length_bytes))?;
                let changes = report.prepared.len().max(report.commits.len());
                if report.flights.len() > MAP_MAX.count || bytes > MAP_MAX.bytes || changes > CHANGES_MAX {
                    return None;
                }
            }
            Message::Durable { osn } => match self.link.as_mut().map(|link| &mut link.phase) {
                Some(Phase::Recovers(recovery)) => {
                    recovery.awaited.remove(&osn);
                }
                Some(Phase::Together | Phase::Behind) => self.is_remote(osn),
                _ => {}
            },
            Message::Vote { osn, yes } => self.voted(osn, yes),
            Message::Lent { number, lease_ms } => self.is_lent(number, lease_ms),
            Message::Reply { osn, body } => self.told(osn, body),
            _ => return None,
        }
        Some(())
    }

    /// Goes on with meeting as far as it can.
    pub(crate) fn meet(&mut self) {
        let Some(office) = self.office.filter(|_| self.remembers()) else { return };
        match (self.phase(), office.primary) {
            (Some(Phase::Greets(true)), true) => self.set_phase(Phase::Collects(Report::default())),
            (Some(Phase::Greets(true)), false) if self.is_quiet() && self.checks.is_empty() => self.report(),
            (Some(Phase::Collects(report)), true) if report.last => self.begin_recovery(),
            _ => {}
        }
        self.go_on_recovering();
        self.come_together();
    }

    fn report(&mut self) {
        let flights: Vec<_> = self.kept.flights.iter().collect();
        let parts: Vec<Vec<_>> = flights.chunks(REPORT_ENTRIES_MAX).map(<[_]>::to_vec).collect();
        for flights in parts {
            self.send(Message::Report(Report { flights, ..Report::default() }));
        }
        let prepared: Vec<Osn> = self.kept.prepared.keys().copied().collect();
        let commits: Vec<Osn> = self.kept.commits.keys().copied().collect();
        let parts = prepared.len().max(commits.len()).div_ceil(REPORT_CHANGES_MAX).max(1);
        for part in 0..parts {
            let of =
                |all: &[Osn]| all.iter().skip(part * REPORT_CHANGES_MAX).take(REPORT_CHANGES_MAX).copied().collect();
            let (prepared, commits) = (of(&prepared), of(&commits));
            let last = part + 1 == parts;
            self.send(Message::Report(Report { last, flights: Vec::new(), prepared, commits }));
        }
        self.set_phase(Phase::Reported);
    }

    /// Whether what this site would send is fixed: all of its journal, or its snapshot.
    fn is_fixed(&self) -> bool {
        if self.is_in_sync() { self.is_quiet() } else { self.is_aligned() }
    }

    fn begin_recovery(&mut self) {
        if !self.is_fixed() {
            return;
        }
        let Some(Phase::Collects(report)) = self.phase().cloned() else { return };
        // A change that the other site has prepared is decided here and now, and the answer
        // waits until that is stable.
        let mut decided = false;
        for osn in &report.prepared {
            decided |= self.commit_prepared(*osn);
        }
        if decided {
            return;
        }
        let at = self.kept.snapshot.filter(|_| !self.is_in_sync());
        let mut recovery = Recovery { at, ..Recovery::default() };
        for osn in report.prepared.iter().copied() {
            let happened = self.kept.commits.contains_key(&osn);
            self.send(if happened { Message::Commit { osn, change: None } } else { Message::Drop { osn } });
            recovery.awaited.insert(osn);
        }
        // What is below the other site's low water was done there, although neither its report
        // nor what this site knew before a crash says so: done again, it would undo later ones.
        for (osn, change) in self.kept.commits.clone().split_off(&self.low_water.next()) {
            if !report.prepared.contains(&osn) && !report.commits.contains(&osn) {
                self.send(Message::Commit { osn, change: Some(change) });
                recovery.awaited.insert(osn);
            }
        }
        let low_water = self.low_water;
        let flights = self.kept.flights.iter().chain(report.flights);
        recovery.spans = ranges_of(flights.filter(|flight| flight.osn > low_water)).into();
        self.set_phase(Phase::Recovers(recovery));
    }

    pub(crate) fn recovered(&mut self, link: u64, index: usize, payload: Buf, form: Form) {
        let Some(current) = self.link.as_mut().filter(|current| current.number == link) else { return };
        let Phase::Recovers(recovery) = &mut current.phase else { return };
        if let Some(span) = recovery.reading.remove(&index) {
            recovery.fetched.push_back((span, payload, form));
        }
    }

    fn go_on_recovering(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (Phase::Recovers(recovery), Some(issuer)) = (&mut link.phase, &mut self.issuer) else { return };
        let mut messages = Vec::new();
        while !recovery.fetched.is_empty()
            && let Some(osn) = issuer.take()
            && let Some((span, payload, form)) = recovery.fetched.pop_front()
        {
            recovery.awaited.insert(osn);
            messages.push(Message::Restore { osn, span, form, payload });
        }
        while recovery.reading.len() + recovery.fetched.len() + recovery.awaited.len() < WINDOW
            && let Some(span) = recovery.spans.pop_front()
        {
            let index = recovery.next;
            recovery.next += 1;
            recovery.reading.insert(index, span);
            self.actions.push(Action::Read {
                reader: Reader::Recovery { link: link.number, index },
                span,
                at: recovery.at,
            });
        }
        let done = recovery.is_done();
        for message in messages {
            self.send(message);
        }
        if done {
            self.settle_both();
        }
    }

    /// Both hold the same of what was in flight.
    fn settle_both(&mut self) {
        let Some(osn) = self.issuer.as_mut().and_then(crate::issuer::Issuer::take) else { return };
        self.send(Message::Settled { osn });
        self.low_water = osn;
        self.append(Record::LowWater(osn), Then::Nothing);
        self.set_phase(if self.is_in_sync() { Phase::Together } else { Phase::Behind });
        if self.is_in_sync() {
            self.trusted = true;
            self.resume_operations();
        }
    }

    /// Both are equal again, and this site is bound to keep them so: the record is asked to
    /// say it. From here on everything goes to both, whether the answer comes or not.
    fn come_together(&mut self) {
        let ready = self.issuer.as_ref().is_some_and(crate::issuer::Issuer::has_next);
        if self.phase() != Some(&Phase::Behind) || !self.is_in_sync() || !self.remembers() || !ready {
            return;
        }
        if self.level != Level::Equal {
            // It became so over an earlier link: what is in flight must be settled by a new one.
            return self.hang_up();
        }
        self.set_level(Level::No);
        self.settle_both();
    }

    /// A primary's message, where the secondary is told something new under a number.
    pub(crate) fn is_new(&mut self, osn: Osn) -> Option<()> {
        let link = self.link.as_mut()?;
        if osn <= link.last_osn {
            return None;
        }
        link.last_osn = osn;
        Some(())
    }
}
