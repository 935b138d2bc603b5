//! What a site is told, and what it says is to be done.

use std::time::Duration;

use base::{Buf, FileId, Nanos, Osn, PairId, SiteId};
use witness::{Ask, AskKind, Standing, Verdict};

use crate::flights::FlightsMax;
use crate::locks::Want;
use crate::operation::{Change, Form, Span, Write};
use crate::record::Record;
use crate::wire::{CHANGES_MAX, Frame, MAP_MAX};

/// Who this site is, and how patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// This site.
    pub me: SiteId,
    /// The other one.
    pub peer: SiteId,
    /// The datastore.
    pub pair: PairId,
    /// How long the primary does without its secondary before it goes on alone; writes wait
    /// for so long at most (R-RSYNC-01: 30 s; D-07).
    pub out_of_sync_delay: Duration,
    /// How long the secondary hears nothing before it wants to take over. The primary's lease
    /// must be over as well.
    pub takeover_delay: Duration,
    /// A link that is silent for so long is given up.
    pub silence: Duration,
    /// How long a link must have held before both are made equal again, so that one that
    /// flaps leads to one resync and not to many (F51).
    pub steady: Duration,
    /// Shortest time between two changes of primary by themselves (F41).
    pub term_min: Duration,
    /// How long an answer of the witness is waited for.
    pub answer_within: Duration,
    /// How often a site looks around. All of the above is exact to one beat.
    pub beat: Duration,
    /// How fast the other site is made equal again.
    pub resync: Pace,
    /// How much may be in flight.
    pub flights_max: FlightsMax,
    /// Operations of clients that are taken in, waiting ones included.
    pub operations_max: usize,
    /// How many numbers a mark is good for.
    pub mark_step: u64,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(me: SiteId, peer: SiteId, pair: PairId) -> Self {
        Self {
            me,
            peer,
            pair,
            out_of_sync_delay: Duration::from_secs(5),
            takeover_delay: Duration::from_secs(1),
            silence: Duration::from_secs(2),
            steady: Duration::from_secs(5),
            term_min: Duration::from_secs(10),
            answer_within: Duration::from_secs(1),
            beat: Duration::from_millis(100),
            resync: Pace::default(),
            flights_max: FlightsMax::default(),
            operations_max: 4096,
            mark_step: 1 << 20,
        }
    }

    /// Within what the other site takes, whatever its own settings: half of it, since a recovery
    /// may list what both sites had in flight.
    pub(crate) fn bounded(self) -> Self {
        let flights_max = FlightsMax {
            count: self.flights_max.count.min(MAP_MAX.count / 2),
            bytes: self.flights_max.bytes.min(MAP_MAX.bytes / 2),
        };
        Self { flights_max, operations_max: self.operations_max.min(CHANGES_MAX / 2), ..self }
    }
}

/// How much of the link and of both sites a resync takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of questions that have no answer yet. One is always allowed.
    pub in_flight_bytes: u64,
    /// Bytes that are sent in a second, at least [`PACE_MIN`]: clients cannot starve it, so it ends
    /// (R-RSYNC-07).
    pub per_second_bytes: u64,
}

/// The least that a resync sends in a second, in bytes.
pub const PACE_MIN: u64 = 1 << 20;

impl Default for Pace {
    /// A quarter of a link of 10 Gbit/s.
    fn default() -> Self {
        Self { in_flight_bytes: 8 << 20, per_second_bytes: 300 << 20 }
    }
}

/// How far whoever carries out a resync has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Rows are nearly equal: let no change start; [`Action::Halted`] follows.
    Halt,
    /// Rows are equal: changes go to both from now on, and writes to files above `until`.
    Files {
        /// The last file that may differ.
        until: FileId,
    },
    /// Writes to files through this one go to both from now on. Files rise.
    Reached(FileId),
    /// Files are equal: let everything end; [`Action::Level`] follows.
    Drain,
    /// It cannot be done now. It is tried again later.
    Failed,
}

/// A client's operation, as its front door numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Bytes of a file.
    Read(Span),
    /// New bytes, at most [`crate::WRITE_BYTES_MAX`].
    Write(Write),
    /// Anything else. It is worked out when nobody else uses what it names.
    Change(Vec<Want>),
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The bytes, short where the file ends.
    Read(Buf),
    /// It is written, as this operation.
    Written(Osn),
    /// It is done, as this operation; the change's reply says what came of it.
    Changed(Osn, Buf),
    /// Nothing was changed: why not, or what was told the first time the same was asked.
    Replied(Buf),
    /// The other site cannot do it.
    Refused,
    /// Larger than what one site sends the other. Nothing was done.
    TooLarge,
    /// Too much is under way: ask again. Nothing was done.
    Busy,
    /// This site is not the primary. Nothing was done.
    NotPrimary,
    /// This site is not the primary any more, and what became of it is not known: the client
    /// is told nothing and its connection ends.
    Gone,
}

/// Who wants bytes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// A client.
    Client(OpId),
    /// A recovery.
    Recovery {
        /// On this link.
        link: u64,
        /// Which range.
        index: usize,
    },
}

/// What an administrator wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Go on alone until told otherwise; or try to be in sync again.
    Pause(bool),
    /// Make this site primary although it may lack what was acknowledged; see
    /// [`crate::Mirror::may_lack`].
    Force {
        /// Somebody vouches that the primary is off and stays off.
        primary_is_off: bool,
    },
    /// Make the record: this site is primary, and has no secondary.
    Found {
        /// Length of a lease.
        lease_ms: u32,
    },
    /// Take a secondary in: the other site is this one from now on.
    Join {
        /// Which site.
        secondary: SiteId,
    },
    /// Let the secondary go.
    Leave,
    /// Make the secondary primary, when both have everything.
    HandOver,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A beat has passed.
    Tick,
    /// A client wants something.
    Client(OpId, Request),
    /// A change was worked out under its locks; or there is none to be made, and this is the
    /// reply: why it cannot be done, or what a retry was told the first time.
    Resolved(OpId, Result<Change, Buf>),
    /// Bytes were read: what is there, and what the file is beside.
    Fetched(Reader, Buf, Form),
    /// Whether a change that the primary wants to make can be made here.
    Checked(Osn, bool),
    /// All records up to this ticket are stable.
    Stable(u64),
    /// There is a link to the other site; links are numbered upwards.
    LinkUp(u64),
    /// It is gone, with all that was on its way.
    LinkDown(u64),
    /// A frame came in whole.
    Received(u64, Frame),
    /// The witness answered.
    Answered(u64, Verdict),
    /// The resync of this number has come so far.
    Resync(u64, Progress),
    /// The resync or check of this number asks the other site something, numbered by whoever asks. It is
    /// answered by [`Action::Told`], or the resync or check ends.
    Query(u64, u64, Buf),
    /// What this site says to [`Action::Asked`], by link and number.
    Reply(u64, Osn, Buf),
    /// The resync of this number wants ranges for itself, under a name of its own.
    Hold(u64, u64, Vec<Want>),
    /// It does not want them any more.
    Release(u64),
    /// Both sites hold the same, and did nothing else since [`Action::Level`] of this number.
    Levelled(u64),
    /// Whoever compares the sites wants the point for it, of which the other site is told this. Answered by
    /// [`Action::Point`] or [`Action::NoCheck`].
    Check(Buf),
    /// The check of this number is over.
    CheckedAll(u64),
    /// A check has found that the sites differ.
    Differs,
    /// An administrator wants something.
    Command(Command),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Put it in the journal, in this order; tell when it is stable. What it says is done
    /// with it, in the same order.
    Append(u64, Record),
    /// Send it on this link: in order and without gaps, or the link ends. Nothing is said of it
    /// if the link is gone.
    Send(u64, Frame),
    /// End the link and make a new one.
    Hang(u64),
    /// Ask the witness. There may be no answer.
    Ask(u64, Ask),
    /// Read a range as all records made it that are stable; or as they stood at a snapshot.
    Read {
        /// For whom.
        reader: Reader,
        /// What.
        span: Span,
        /// At which snapshot.
        at: Option<Osn>,
    },
    /// Work out a change; its locks are held.
    Resolve(OpId),
    /// Can this be done here?
    Check(Osn, Change),
    /// Answer a client.
    Answer(OpId, Answer),
    /// Make the other site equal, beside clients: rows first, then [`Progress::Halt`] and what
    /// changed meanwhile, then files in order, each after [`Progress::Reached`].
    Resync(u64),
    /// The resync of this number was waited for: no change is under way until
    /// [`Progress::Files`].
    Halted(u64),
    /// The ranges that were wanted under this name are held.
    Held(u64),
    /// The other site's answer to a question of this number.
    Told(u64, Buf),
    /// The primary's resync asks something. [`Input::Reply`] when all of it is done and stable.
    Asked(u64, Osn, Buf),
    /// Resync's last step. From now on nothing changes at this site but what the mirror itself
    /// appends. Make the rest equal. Then say [`Input::Levelled`] with this number, unless
    /// [`Action::EndResync`] has come.
    Level(u64),
    /// The resync of this number is given up; what it held is free. Nothing more of it reaches the
    /// other site after this action was carried out.
    EndResync(u64),
    /// The point of a check: both sites have done the same. Note what is there before anything that is appended
    /// after this action. Questions are asked by [`Input::Query`].
    Point {
        /// The check.
        number: u64,
        /// Both have done the operations through this one.
        osn: Osn,
        /// How much is in flight all the same: nothing.
        in_flight: usize,
    },
    /// There is no point to be had now.
    NoCheck,
    /// The check of this number ends without a finding.
    EndCheck(u64),
    /// A command was not passed on to the witness: it lost its memory, or this site is not in
    /// the office that the command is for.
    NotAsked(AskKind),
    /// The record has changed; for people. Says which change it was.
    Notice(Standing),
    /// A tick is wanted then.
    WakeAt(Nanos),
}
