//! What two sites send each other, as bytes (`docs/formats/mirror.md`).
//!
//! One frame is one message. Every head says epoch, OSN and low water, so a frame of another
//! term or one that comes twice is refused whatever carried it (F59), and the in-flight maps
//! are trimmed without messages of their own. The check covers head and body and is seeded
//! with the pair: a frame of another pair does not pass. What decodes, encodes to the same
//! bytes. Payloads are slices of the frame they came in, and are sent from where they lie.

use base::{Buf, Epoch, FileId, MediaCheck, Osn, PairId, SiteId, WallNanos};
use witness::Standing;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::flights::{Flight, FlightsMax};
use crate::operation::{CHANGE_PART_BYTES_MAX, Change, Form, Span, WRITE_BYTES_MAX, Write};

/// Version of the protocol; another one is refused, not guessed at.
pub const PROTOCOL: u8 = 1;
/// Bytes before what a frame's length counts.
pub const LENGTH_BYTES: usize = size_of::<U32>();
/// Bytes of a head, without the length.
pub const HEAD_BYTES: usize = size_of::<Head>();
/// Most that may follow a length: a write, its place and a head.
pub const FRAME_BYTES_MAX: usize = WRITE_BYTES_MAX + 256;
/// Entries of an in-flight map in one message.
pub const REPORT_ENTRIES_MAX: usize = 4096;
/// Numbers of prepared or committed changes in one message.
pub const REPORT_CHANGES_MAX: usize = 4096;
/// What one site may make the other one list as in flight. A site keeps to less by its own
/// settings; beyond this the link ends.
pub const MAP_MAX: FlightsMax = FlightsMax { count: 1 << 16, bytes: 1 << 30 };
/// Changes that a site may have prepared, or committed and not settled.
pub const CHANGES_MAX: usize = 1 << 16;

/// A message and what every head says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Term the sender is in.
    pub epoch: Epoch,
    /// Up to here nothing is in flight, as the sender knows: it is on both sites, or was
    /// acknowledged by one that was alone and is in what that one has written since its snapshot.
    pub low_water: Osn,
    /// What it says.
    pub message: Message,
}

/// What one site says to the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Both, first: who speaks, and the newest record it knows.
    Hello {
        /// The speaker.
        site: SiteId,
        /// The newest record.
        standing: Option<Standing>,
    },
    /// Secondary: a part of what may differ here.
    Report(Report),
    /// Primary: a client's write.
    Write {
        /// Its number.
        osn: Osn,
        /// What.
        write: Write,
    },
    /// Primary, in a recovery: its content of a range.
    Restore {
        /// Its number.
        osn: Osn,
        /// The range.
        span: Span,
        /// What the file is beside.
        form: Form,
        /// The content, short where the file ends.
        payload: Buf,
    },
    /// Secondary: what has this number is stable here, be it a write, a restored range, a
    /// commit or a drop.
    Durable {
        /// Its number.
        osn: Osn,
    },
    /// Primary: can this be done?
    Prepare {
        /// Its number.
        osn: Osn,
        /// What.
        change: Change,
    },
    /// Secondary: it is prepared, or it is not and never will be.
    Vote {
        /// Its number.
        osn: Osn,
        /// Prepared.
        yes: bool,
    },
    /// Primary: it happened.
    Commit {
        /// Its number.
        osn: Osn,
        /// What, where the secondary may not have it.
        change: Option<Change>,
    },
    /// Primary: it will not happen.
    Drop {
        /// Its number.
        osn: Osn,
    },
    /// Primary: the recovery is complete; nothing before this number is in flight.
    Settled {
        /// Its number.
        osn: Osn,
    },
    /// Primary: lend me a lease.
    Renew {
        /// Tells answers apart.
        number: u64,
    },
    /// Secondary: for so long; 0 is no.
    Lent {
        /// That of the question.
        number: u64,
        /// Length of the lease.
        lease_ms: u32,
    },
    /// Primary: the record has changed.
    Changed(Standing),
    /// Primary: its resync asks or sends something, [`WRITE_BYTES_MAX`] at most. Only what carries
    /// out the resync reads it.
    Query {
        /// Its number.
        osn: Osn,
        /// What.
        body: Buf,
    },
    /// Secondary: the answer.
    Reply {
        /// The question's number.
        osn: Osn,
        /// What.
        body: Buf,
    },
}

/// What may differ at the secondary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// Whether this is the last part.
    pub last: bool,
    /// Entries of its in-flight map.
    pub flights: Vec<Flight>,
    /// What it has prepared.
    pub prepared: Vec<Osn>,
    /// What it has committed above its low water.
    pub commits: Vec<Osn>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// Longer than any message can be, or shorter than its head.
    #[error("a message of {0} bytes is out of bounds")]
    Length(usize),
    /// Another version of the protocol.
    #[error("protocol version {0} is not spoken here")]
    Version(u8),
    /// Changed on the way, or of another pair.
    #[error("the check of the message does not fit")]
    Check,
    /// Not a message of this version.
    #[error("the message makes no sense")]
    Senseless,
}

/// Bytes that follow a length field.
///
/// # Errors
/// [`WireFault::Length`] before anything is reserved for it.
pub fn frame_bytes(length: [u8; LENGTH_BYTES]) -> Result<usize, WireFault> {
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    (HEAD_BYTES..=FRAME_BYTES_MAX).contains(&bytes).then_some(bytes).ok_or(WireFault::Length(bytes))
}

/// A frame to be sent: `head`, then `payload` from where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Length, head and all of the body that is not payload.
    pub head: Vec<u8>,
    /// The rest.
    pub payload: Buf,
}

const HELLO: u8 = 1;
const REPORT: u8 = 2;
const WRITE: u8 = 3;
const RESTORE: u8 = 4;
const DURABLE: u8 = 5;
const PREPARE: u8 = 6;
const VOTE: u8 = 7;
const COMMIT: u8 = 8;
const DROP: u8 = 9;
const SETTLED: u8 = 10;
const RENEW: u8 = 11;
const LENT: u8 = 12;
const CHANGED: u8 = 13;
const QUERY: u8 = 14;
const REPLY: u8 = 15;

/// Seeds the check together with the pair.
const CHECK_SEED: u64 = u64::from_le_bytes(*b"mirror-1");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    protocol: u8,
    kind: u8,
    /// Yes or no, last or not, there or not.
    flag: u8,
    reserved: u8,
    /// Bytes of the body before the payload.
    fixed_bytes: U32,
    check: U64,
    epoch: U64,
    osn: U64,
    low_water: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Place {
    file: U64,
    offset_bytes: U64,
    length_bytes: U64,
    size_bytes: U64,
    modified: U64,
    changed: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    osn: U64,
    file: U64,
    offset_bytes: U64,
    length_bytes: U64,
    check: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Counts {
    flights: U16,
    prepared: U16,
    commits: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Parts {
    request_bytes: U32,
    body_bytes: U32,
    reply_bytes: U32,
}

/// A message taken apart.
#[derive(Default)]
struct Raw {
    kind: u8,
    flag: u8,
    osn: Osn,
    fixed: Vec<u8>,
    payload: Buf,
}

fn check_of(pair: PairId, head: &Head, fixed: &[u8], payload: &[u8]) -> MediaCheck {
    let parts = [pair.0.as_slice(), &head.as_bytes()[..8], &head.as_bytes()[16..], fixed, payload];
    base::check::media_check_parts(CHECK_SEED, &parts)
}

impl Frame {
    /// As bytes, for `pair`.
    #[must_use]
    pub fn encode(&self, pair: PairId) -> Encoded {
        let raw = Raw::of(&self.message);
        let mut head = Head {
            protocol: PROTOCOL,
            kind: raw.kind,
            flag: raw.flag,
            reserved: 0,
            fixed_bytes: u32::try_from(raw.fixed.len()).unwrap_or(u32::MAX).into(),
            check: 0.into(),
            epoch: self.epoch.0.into(),
            osn: raw.osn.0.into(),
            low_water: self.low_water.0.into(),
        };
        head.check = check_of(pair, &head, &raw.fixed, &raw.payload).0.into();
        let length = HEAD_BYTES + raw.fixed.len() + raw.payload.len();
        // Whatever is longer than a length field can say is longer than any reader takes.
        let length = U32::new(u32::try_from(length).unwrap_or(u32::MAX));
        let head = [length.as_bytes(), head.as_bytes(), &raw.fixed].concat();
        Encoded { head, payload: raw.payload }
    }

    /// From the bytes behind a length field.
    ///
    /// # Errors
    /// [`WireFault`]; nothing of such a frame may be acted on.
    pub fn decode(pair: PairId, bytes: &Buf) -> Result<Frame, WireFault> {
        if !(HEAD_BYTES..=FRAME_BYTES_MAX).contains(&bytes.len()) {
            return Err(WireFault::Length(bytes.len()));
        }
        let (head, _) = Head::read_from_prefix(bytes).map_err(|_| WireFault::Length(bytes.len()))?;
        if head.protocol != PROTOCOL {
            return Err(WireFault::Version(head.protocol));
        }
        let body = bytes.slice(HEAD_BYTES..);
        let fixed_bytes = usize::try_from(head.fixed_bytes.get()).unwrap_or(usize::MAX);
        if fixed_bytes > body.len() {
            return Err(WireFault::Senseless);
        }
        let (fixed, payload) = (body.slice(..fixed_bytes), body.slice(fixed_bytes..));
        if check_of(pair, &head, &fixed, &payload).0 != head.check.get() {
            return Err(WireFault::Check);
        }
        let (kind, flag, osn) = (head.kind, head.flag, Osn(head.osn.get()));
        let raw = Raw { kind, flag, osn, fixed: fixed.to_vec(), payload };
        let message = raw.message()?;
        // One encoding per message, so that two versions cannot read one frame in two ways.
        let again = Raw::of(&message);
        let same = head.reserved == 0 && again.flag == flag && again.osn == osn;
        if !same || again.fixed != raw.fixed || again.payload != raw.payload {
            return Err(WireFault::Senseless);
        }
        Ok(Frame { epoch: Epoch(head.epoch.get()), low_water: Osn(head.low_water.get()), message })
    }
}

impl Raw {
    fn of(message: &Message) -> Self {
        let bare = |kind, osn: Osn| Self { kind, osn, ..Self::default() };
        match message {
            Message::Hello { site, standing } => {
                let record = standing.map_or(Vec::new(), |standing| standing.to_bytes().to_vec());
                let fixed = [site.0.as_slice(), &record].concat();
                Self { kind: HELLO, flag: standing.is_some().into(), fixed, ..Self::default() }
            }
            Message::Report(report) => Self::of_report(report),
            Message::Write { osn, write } => {
                let form = Form { size_bytes: 0, modified: write.at, changed: write.at };
                let fixed = place(write.span(), form);
                Self { kind: WRITE, osn: *osn, fixed, payload: write.payload.clone(), ..Self::default() }
            }
            Message::Restore { osn, span, form, payload } => {
                let fixed = place(*span, *form);
                Self { kind: RESTORE, osn: *osn, fixed, payload: payload.clone(), ..Self::default() }
            }
            Message::Durable { osn } => bare(DURABLE, *osn),
            Message::Prepare { osn, change } => Self::of_change(PREPARE, *osn, change),
            Message::Vote { osn, yes } => Self { flag: (*yes).into(), ..bare(VOTE, *osn) },
            Message::Commit { osn, change: None } => bare(COMMIT, *osn),
            Message::Commit { osn, change: Some(change) } => Self { flag: 1, ..Self::of_change(COMMIT, *osn, change) },
            Message::Drop { osn } => bare(DROP, *osn),
            Message::Settled { osn } => bare(SETTLED, *osn),
            Message::Renew { number } => Self { fixed: number.to_le_bytes().to_vec(), ..bare(RENEW, Osn(0)) },
            Message::Lent { number, lease_ms } => {
                let fixed = [number.to_le_bytes().as_slice(), &lease_ms.to_le_bytes()].concat();
                Self { fixed, ..bare(LENT, Osn(0)) }
            }
            Message::Changed(standing) => Self { fixed: standing.to_bytes().to_vec(), ..bare(CHANGED, Osn(0)) },
            Message::Query { osn, body } => Self { payload: body.clone(), ..bare(QUERY, *osn) },
            Message::Reply { osn, body } => Self { payload: body.clone(), ..bare(REPLY, *osn) },
        }
    }

    fn of_report(report: &Report) -> Self {
        let count = |length: usize| U16::new(u16::try_from(length).unwrap_or(u16::MAX));
        let counts = Counts {
            flights: count(report.flights.len()),
            prepared: count(report.prepared.len()),
            commits: count(report.commits.len()),
        };
        let mut fixed = counts.as_bytes().to_vec();
        for flight in &report.flights {
            let entry = Entry {
                osn: flight.osn.0.into(),
                file: flight.span.file.0.into(),
                offset_bytes: flight.span.offset_bytes.into(),
                length_bytes: flight.span.length_bytes.into(),
                check: flight.check.0.into(),
            };
            fixed.extend_from_slice(entry.as_bytes());
        }
        for osn in report.prepared.iter().chain(&report.commits) {
            fixed.extend_from_slice(&osn.0.to_le_bytes());
        }
        Self { kind: REPORT, flag: report.last.into(), fixed, ..Self::default() }
    }

    fn of_change(kind: u8, osn: Osn, change: &Change) -> Self {
        let length = |part: &Buf| U32::new(u32::try_from(part.len()).unwrap_or(u32::MAX));
        let parts = Parts {
            request_bytes: length(&change.request),
            body_bytes: length(&change.body),
            reply_bytes: length(&change.reply),
        };
        let fixed = [parts.as_bytes(), &change.request, &change.body, &change.reply].concat();
        Self { kind, osn, fixed, ..Self::default() }
    }

    fn message(&self) -> Result<Message, WireFault> {
        let osn = self.osn;
        Ok(match self.kind {
            HELLO => {
                let (site, record) = self.fixed.split_first_chunk().ok_or(WireFault::Senseless)?;
                let standing = (!record.is_empty()).then(|| standing(record)).transpose()?;
                Message::Hello { site: SiteId(*site), standing }
            }
            REPORT => Message::Report(self.report()?),
            WRITE => {
                let (span, form) = self.place()?;
                let (file, offset_bytes, payload) = (span.file, span.offset_bytes, self.payload.clone());
                let write = Write { file, offset_bytes, payload, at: form.modified };
                Message::Write { osn, write }
            }
            RESTORE => {
                let (span, form) = self.place()?;
                // Short where the file ends, and only there.
                let held = form.size_bytes.saturating_sub(span.offset_bytes).min(span.length_bytes);
                if span.length_bytes > WRITE_BYTES_MAX as u64 || self.payload.len() as u64 != held {
                    return Err(WireFault::Senseless);
                }
                Message::Restore { osn, span, form, payload: self.payload.clone() }
            }
            DURABLE => Message::Durable { osn },
            PREPARE => Message::Prepare { osn, change: self.change()? },
            VOTE => Message::Vote { osn, yes: self.flag != 0 },
            COMMIT if self.flag == 0 => Message::Commit { osn, change: None },
            COMMIT => Message::Commit { osn, change: Some(self.change()?) },
            DROP => Message::Drop { osn },
            SETTLED => Message::Settled { osn },
            RENEW => Message::Renew { number: number(&self.fixed)? },
            LENT => {
                let (first, lease) = self.fixed.split_first_chunk::<8>().ok_or(WireFault::Senseless)?;
                let lease = lease.try_into().map_err(|_| WireFault::Senseless)?;
                Message::Lent { number: u64::from_le_bytes(*first), lease_ms: u32::from_le_bytes(lease) }
            }
            CHANGED => Message::Changed(standing(&self.fixed)?),
            QUERY | REPLY if self.payload.len() > WRITE_BYTES_MAX => return Err(WireFault::Senseless),
            QUERY => Message::Query { osn, body: self.payload.clone() },
            REPLY => Message::Reply { osn, body: self.payload.clone() },
            _ => return Err(WireFault::Senseless),
        })
    }

    fn place(&self) -> Result<(Span, Form), WireFault> {
        let place = Place::read_from_bytes(&self.fixed).map_err(|_| WireFault::Senseless)?;
        let span = Span {
            file: FileId(place.file.get()),
            offset_bytes: place.offset_bytes.get(),
            length_bytes: place.length_bytes.get(),
        };
        let ends = span.offset_bytes.checked_add(span.length_bytes).is_some();
        let fits = self.payload.len() <= WRITE_BYTES_MAX;
        let form = Form {
            size_bytes: place.size_bytes.get(),
            modified: WallNanos(place.modified.get()),
            changed: WallNanos(place.changed.get()),
        };
        (ends && fits).then_some((span, form)).ok_or(WireFault::Senseless)
    }

    fn report(&self) -> Result<Report, WireFault> {
        let (counts, rest) = Counts::read_from_prefix(&self.fixed).map_err(|_| WireFault::Senseless)?;
        let of = |count: U16| usize::from(count.get());
        let (flights, prepared, commits) = (of(counts.flights), of(counts.prepared), of(counts.commits));
        let bounded = flights <= REPORT_ENTRIES_MAX && prepared.max(commits) <= REPORT_CHANGES_MAX;
        let entries_bytes = flights * size_of::<Entry>();
        if !bounded || rest.len() != entries_bytes + (prepared + commits) * size_of::<U64>() {
            return Err(WireFault::Senseless);
        }
        let (entries, numbers) = rest.split_at(entries_bytes);
        let flights = entries.chunks_exact(size_of::<Entry>()).map(flight).collect::<Result<_, _>>()?;
        let osn = |bytes: &[u8]| number(bytes).map(Osn);
        let mut osns = numbers.chunks_exact(size_of::<U64>()).map(osn).collect::<Result<Vec<_>, _>>()?;
        let commits = osns.split_off(prepared);
        Ok(Report { last: self.flag != 0, flights, prepared: osns, commits })
    }

    fn change(&self) -> Result<Change, WireFault> {
        let (parts, _) = Parts::read_from_prefix(&self.fixed).map_err(|_| WireFault::Senseless)?;
        let lengths = [parts.request_bytes, parts.body_bytes, parts.reply_bytes]
            .map(|length| usize::try_from(length.get()).unwrap_or(usize::MAX));
        let rest = Buf::from(self.fixed[size_of::<Parts>()..].to_vec());
        let bounded = lengths.iter().all(|length| *length <= CHANGE_PART_BYTES_MAX);
        if !bounded || rest.len() != lengths.iter().sum::<usize>() {
            return Err(WireFault::Senseless);
        }
        let [request, body, _] = lengths;
        let (first, second) = (request, request + body);
        Ok(Change { request: rest.slice(..first), body: rest.slice(first..second), reply: rest.slice(second..) })
    }
}

fn place(span: Span, form: Form) -> Vec<u8> {
    let place = Place {
        file: span.file.0.into(),
        offset_bytes: span.offset_bytes.into(),
        length_bytes: span.length_bytes.into(),
        size_bytes: form.size_bytes.into(),
        modified: form.modified.0.into(),
        changed: form.changed.0.into(),
    };
    place.as_bytes().to_vec()
}

fn flight(bytes: &[u8]) -> Result<Flight, WireFault> {
    let entry = Entry::read_from_bytes(bytes).map_err(|_| WireFault::Senseless)?;
    let span = Span {
        file: FileId(entry.file.get()),
        offset_bytes: entry.offset_bytes.get(),
        length_bytes: entry.length_bytes.get(),
    };
    let ends = span.offset_bytes.checked_add(span.length_bytes).is_some();
    let flight = Flight { osn: Osn(entry.osn.get()), span, check: MediaCheck(entry.check.get()) };
    (ends && span.length_bytes <= WRITE_BYTES_MAX as u64).then_some(flight).ok_or(WireFault::Senseless)
}

fn number(bytes: &[u8]) -> Result<u64, WireFault> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| WireFault::Senseless)
}

fn standing(bytes: &[u8]) -> Result<Standing, WireFault> {
    Standing::from_bytes(bytes).map_err(|_| WireFault::Senseless)
}
