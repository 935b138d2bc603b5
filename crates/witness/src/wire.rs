//! What a site and the witness send each other, as bytes (`docs/formats/witness.md`).
//!
//! One frame is one message: length, protocol version, kind, number, body. The number of an
//! answer is that of its question, so an answer that comes late is never taken for another.
//! Bodies of questions about a record and of verdicts have a fixed length and one encoding:
//! whatever decodes, encodes to the same bytes, so two versions cannot read one frame in two
//! ways. Integrity on the way is the business of whoever carries the frames (TLS).

use std::time::Duration;

use base::{Epoch, Osn, PairId, SiteId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::judge::{Ask, AskKind, Lease, Refusal, Verdict};
use crate::record::{RECORD_BYTES, Standing};

/// Version of the protocol; another one is refused, not guessed at.
pub const PROTOCOL: u8 = 1;
/// Bytes before a frame's payload.
pub const LENGTH_BYTES: usize = size_of::<U32>();
/// Most that a question may have: a stranger must not make the witness reserve memory.
pub const QUESTION_BYTES_MAX: usize = 1024;
/// Most that an answer may have: the status of a few thousand datastores.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest name of a site, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest secret of a join token, in bytes.
pub const SECRET_BYTES_MAX: usize = 128;

/// What the witness is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// About a record, by an enrolled site.
    Ask(Ask),
    /// A site with a join token becomes known by the certificate it shows.
    Enrol {
        /// Who it is from now on.
        site: SiteId,
        /// The secret of its token.
        secret: String,
    },
    /// How the witness is.
    Status,
    /// A join token for a site of this name.
    Invite {
        /// The name.
        name: String,
    },
    /// The site of this name is not to be answered any more.
    Remove {
        /// The name.
        name: String,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a question about a record.
    Verdict(Verdict),
    /// A document, as JSON.
    Document(String),
    /// Why not, as a problem document in JSON. Nothing was decided, or it is not known what.
    Problem(String),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// Longer than this kind of message can be, or shorter than its head.
    #[error("a message of {0} bytes is out of bounds")]
    Length(usize),
    /// Another version of the protocol.
    #[error("protocol version {0} is not spoken here")]
    Version(u8),
    /// Not a message of this version.
    #[error("the message makes no sense")]
    Senseless,
}

/// Bytes that follow a length field, of at most `most`.
///
/// # Errors
/// [`WireFault::Length`] before anything is reserved for it.
pub fn payload_bytes(length: [u8; LENGTH_BYTES], most: usize) -> Result<usize, WireFault> {
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    (size_of::<Head>()..=most).contains(&bytes).then_some(bytes).ok_or(WireFault::Length(bytes))
}

const ASK: u8 = 1;
const ENROL: u8 = 2;
const STATUS: u8 = 3;
const INVITE: u8 = 4;
const REMOVE: u8 = 5;
const VERDICT: u8 = 128;
const DOCUMENT: u8 = 129;
const PROBLEM: u8 = 130;

impl Question {
    /// The whole frame.
    #[must_use]
    pub fn frame(&self, number: u64) -> Vec<u8> {
        match self {
            Self::Ask(ask) => frame(ASK, number, &[RawAsk::of(ask).as_bytes()]),
            Self::Enrol { site, secret } => frame(ENROL, number, &[&site.0, secret.as_bytes()]),
            Self::Status => frame(STATUS, number, &[]),
            Self::Invite { name } => frame(INVITE, number, &[name.as_bytes()]),
            Self::Remove { name } => frame(REMOVE, number, &[name.as_bytes()]),
        }
    }

    /// From a frame's payload: its number, and what is asked.
    ///
    /// # Errors
    /// [`WireFault`].
    pub fn read(payload: &[u8]) -> Result<(u64, Self), WireFault> {
        let (kind, number, body) = unframed(payload)?;
        let question = match kind {
            ASK => Self::Ask(RawAsk::read(body)?),
            ENROL => {
                let (site, secret) = body.split_first_chunk().ok_or(WireFault::Senseless)?;
                Self::Enrol { site: SiteId(*site), secret: text(secret, SECRET_BYTES_MAX)? }
            }
            STATUS if body.is_empty() => Self::Status,
            INVITE => Self::Invite { name: text(body, NAME_BYTES_MAX)? },
            REMOVE => Self::Remove { name: text(body, NAME_BYTES_MAX)? },
            _ => return Err(WireFault::Senseless),
        };
        Ok((number, question))
    }
}

impl Answer {
    /// The whole frame, with the number of the question.
    #[must_use]
    pub fn frame(&self, number: u64) -> Vec<u8> {
        match self {
            Self::Verdict(verdict) => frame(VERDICT, number, &[RawVerdict::of(verdict).as_bytes()]),
            Self::Document(json) => frame(DOCUMENT, number, &[json.as_bytes()]),
            Self::Problem(json) => frame(PROBLEM, number, &[json.as_bytes()]),
        }
    }

    /// From a frame's payload: the number of the question, and the answer.
    ///
    /// # Errors
    /// [`WireFault`].
    pub fn read(payload: &[u8]) -> Result<(u64, Self), WireFault> {
        let (kind, number, body) = unframed(payload)?;
        let answer = match kind {
            VERDICT => Self::Verdict(RawVerdict::read(body)?),
            DOCUMENT => Self::Document(text(body, ANSWER_BYTES_MAX)?),
            PROBLEM => Self::Problem(text(body, ANSWER_BYTES_MAX)?),
            _ => return Err(WireFault::Senseless),
        };
        Ok((number, answer))
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    protocol: u8,
    kind: u8,
    number: U64,
}

fn frame(kind: u8, number: u64, parts: &[&[u8]]) -> Vec<u8> {
    let length = size_of::<Head>() + parts.iter().map(|part| part.len()).sum::<usize>();
    // Whatever is longer than a length field can say is longer than any reader takes.
    let length = U32::new(u32::try_from(length).unwrap_or(u32::MAX));
    let head = Head { protocol: PROTOCOL, kind, number: number.into() };
    [&[length.as_bytes(), head.as_bytes()], parts].concat().concat()
}

fn unframed(payload: &[u8]) -> Result<(u8, u64, &[u8]), WireFault> {
    let (head, body) = Head::read_from_prefix(payload).map_err(|_| WireFault::Length(payload.len()))?;
    if head.protocol != PROTOCOL {
        return Err(WireFault::Version(head.protocol));
    }
    Ok((head.kind, head.number.get(), body))
}

fn text(bytes: &[u8], most: usize) -> Result<String, WireFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| WireFault::Senseless)?;
    (1..=most).contains(&text.len()).then(|| text.to_owned()).ok_or(WireFault::Senseless)
}

/// A question about a record. What its kind does not use is zero.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, PartialEq, Eq)]
#[repr(C)]
struct RawAsk {
    kind: u8,
    flag: u8,
    reserved: [u8; 2],
    lease_ms: U32,
    seen_version: U64,
    number: U64,
    pair: [u8; 16],
    from: [u8; 16],
    site: [u8; 16],
    known: [u8; RECORD_BYTES],
}

impl RawAsk {
    fn of(ask: &Ask) -> Self {
        let mut raw = Self {
            kind: 0,
            flag: 0,
            reserved: [0; 2],
            lease_ms: 0.into(),
            seen_version: ask.seen_version.into(),
            number: 0.into(),
            pair: ask.pair.0,
            from: ask.from.0,
            site: [0; 16],
            known: [0; RECORD_BYTES],
        };
        match ask.kind {
            AskKind::Found { lease_ms } => (raw.kind, raw.lease_ms) = (0, lease_ms.into()),
            AskKind::Look => raw.kind = 1,
            AskKind::Renew { epoch } => (raw.kind, raw.number) = (2, epoch.0.into()),
            AskKind::Join { secondary } => (raw.kind, raw.site) = (3, secondary.0),
            AskKind::Leave => raw.kind = 4,
            AskKind::GoAlone { in_sync_through } => (raw.kind, raw.number) = (5, in_sync_through.0.into()),
            AskKind::InSync => raw.kind = 6,
            AskKind::HandOver => raw.kind = 7,
            AskKind::TakeOver { in_sync_through } => (raw.kind, raw.number) = (8, in_sync_through.0.into()),
            AskKind::Force { primary_is_off } => (raw.kind, raw.flag) = (9, primary_is_off.into()),
            AskKind::Restore { known } => (raw.kind, raw.known) = (10, known.to_bytes()),
        }
        raw
    }

    fn read(body: &[u8]) -> Result<Ask, WireFault> {
        let raw = Self::read_from_bytes(body).map_err(|_| WireFault::Senseless)?;
        let kind = match raw.kind {
            0 => AskKind::Found { lease_ms: raw.lease_ms.get() },
            1 => AskKind::Look,
            2 => AskKind::Renew { epoch: Epoch(raw.number.get()) },
            3 => AskKind::Join { secondary: SiteId(raw.site) },
            4 => AskKind::Leave,
            5 => AskKind::GoAlone { in_sync_through: Osn(raw.number.get()) },
            6 => AskKind::InSync,
            7 => AskKind::HandOver,
            8 => AskKind::TakeOver { in_sync_through: Osn(raw.number.get()) },
            9 => AskKind::Force { primary_is_off: raw.flag != 0 },
            10 => {
                let known = Standing::from_bytes(&raw.known).map_err(|_| WireFault::Senseless)?;
                AskKind::Restore { known }
            }
            _ => return Err(WireFault::Senseless),
        };
        let ask = Ask { pair: PairId(raw.pair), from: SiteId(raw.from), seen_version: raw.seen_version.get(), kind };
        (Self::of(&ask) == raw).then_some(ask).ok_or(WireFault::Senseless)
    }
}

/// A verdict.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, PartialEq, Eq)]
#[repr(C)]
struct RawVerdict {
    /// What becomes of the lease, or [`REFUSED`] and a refusal.
    outcome: u8,
    has_standing: u8,
    reserved: [u8; 6],
    /// Of a lease that runs.
    left_ns: U64,
    standing: [u8; RECORD_BYTES],
}

const LEASES: [Lease; 3] = [Lease::Unchanged, Lease::Runs, Lease::Over];
const REFUSED: u8 = 16;
const REFUSALS: [Refusal; 13] = [
    Refusal::Unknown,
    Refusal::Exists,
    Refusal::Amnesia,
    Refusal::Stale,
    Refusal::Stranger,
    Refusal::NotPrimary,
    Refusal::NotSecondary,
    Refusal::NotInSync,
    Refusal::LeaseRuns(Duration::ZERO),
    Refusal::WrongSecondary,
    Refusal::LeaseLength,
    Refusal::WaitsForOther,
    Refusal::SitesDiffer,
];

impl RawVerdict {
    fn of(verdict: &Verdict) -> Self {
        let place = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX - REFUSED);
        let outcome = match verdict.outcome {
            Ok(lease) => place(LEASES.iter().position(|one| *one == lease)),
            Err(refusal) => {
                let same = |one: &Refusal| std::mem::discriminant(one) == std::mem::discriminant(&refusal);
                REFUSED + place(REFUSALS.iter().position(same))
            }
        };
        let left = match verdict.outcome {
            Err(Refusal::LeaseRuns(left)) => u64::try_from(left.as_nanos()).unwrap_or(u64::MAX),
            _ => 0,
        };
        Self {
            outcome,
            has_standing: verdict.standing.is_some().into(),
            reserved: [0; 6],
            left_ns: left.into(),
            standing: verdict.standing.map_or([0; RECORD_BYTES], |standing| standing.to_bytes()),
        }
    }

    fn read(body: &[u8]) -> Result<Verdict, WireFault> {
        let raw = Self::read_from_bytes(body).map_err(|_| WireFault::Senseless)?;
        let outcome = match raw.outcome.checked_sub(REFUSED) {
            None => Ok(*LEASES.get(usize::from(raw.outcome)).ok_or(WireFault::Senseless)?),
            Some(at) => Err(match *REFUSALS.get(usize::from(at)).ok_or(WireFault::Senseless)? {
                Refusal::LeaseRuns(_) => Refusal::LeaseRuns(Duration::from_nanos(raw.left_ns.get())),
                refusal => refusal,
            }),
        };
        let standing = match raw.has_standing {
            0 => None,
            _ => Some(Standing::from_bytes(&raw.standing).map_err(|_| WireFault::Senseless)?),
        };
        let verdict = Verdict { outcome, standing };
        (Self::of(&verdict) == raw).then_some(verdict).ok_or(WireFault::Senseless)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Transition, TransitionKind};

    const SITE: SiteId = SiteId([3; 16]);

    fn standing(version: u64) -> Standing {
        Standing {
            pair: PairId([7; 16]),
            version,
            epoch: Epoch(4),
            primary: SITE,
            secondary: None,
            in_sync: false,
            in_sync_through: Osn(9),
            lease_ms: 6000,
            last: Transition { kind: TransitionKind::Leave, by: SITE, at: base::WallNanos(1) },
        }
    }

    fn kinds(number: u64, flag: bool) -> [AskKind; 11] {
        [
            AskKind::Found { lease_ms: number as u32 },
            AskKind::Look,
            AskKind::Renew { epoch: Epoch(number) },
            AskKind::Join { secondary: SITE },
            AskKind::Leave,
            AskKind::GoAlone { in_sync_through: Osn(number) },
            AskKind::InSync,
            AskKind::HandOver,
            AskKind::TakeOver { in_sync_through: Osn(number) },
            AskKind::Force { primary_is_off: flag },
            AskKind::Restore { known: standing(number) },
        ]
    }

    fn payload(frame: &[u8], most: usize) -> &[u8] {
        let (length, payload) = frame.split_first_chunk().unwrap();
        assert_eq!(payload_bytes(*length, most), Ok(payload.len()));
        payload
    }

    proptest! {
        #[test]
        fn every_question_comes_back_as_it_was(number in any::<u64>(), value in any::<u64>(), flag in any::<bool>()) {
            let asks = kinds(value, flag).map(|kind| {
                Question::Ask(Ask { pair: PairId([7; 16]), from: SITE, seen_version: value, kind })
            });
            let others = [
                Question::Enrol { site: SITE, secret: "word".into() },
                Question::Status,
                Question::Invite { name: "site-a".into() },
                Question::Remove { name: "site-b".into() },
            ];
            for question in asks.into_iter().chain(others) {
                let frame = question.frame(number);
                let back = Question::read(payload(&frame, QUESTION_BYTES_MAX));
                prop_assert_eq!(back, Ok((number, question)));
            }
        }

        #[test]
        fn every_answer_comes_back_as_it_was(number in any::<u64>(), left in any::<u64>()) {
            let left = Refusal::LeaseRuns(Duration::from_nanos(left));
            let outcomes = LEASES.map(Ok).into_iter().chain(REFUSALS.map(Err)).chain([Err(left)]);
            for outcome in outcomes {
                for standing in [None, Some(standing(number))] {
                    let answer = Answer::Verdict(Verdict { outcome, standing });
                    let frame = answer.frame(number);
                    prop_assert_eq!(Answer::read(payload(&frame, ANSWER_BYTES_MAX)), Ok((number, answer)));
                }
            }
        }

        #[test]
        fn no_bytes_are_read_in_two_ways(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((number, question)) = Question::read(&bytes) {
                prop_assert_eq!(&question.frame(number)[LENGTH_BYTES..], &bytes[..]);
            }
            if let Ok((number, answer)) = Answer::read(&bytes) {
                prop_assert_eq!(&answer.frame(number)[LENGTH_BYTES..], &bytes[..]);
            }
        }

        #[test]
        fn a_changed_byte_is_another_message_or_none(at in 0usize..190, by in 1u8..) {
            for kind in kinds(5, true) {
                let question = Question::Ask(Ask { pair: PairId([7; 16]), from: SITE, seen_version: 5, kind });
                let mut bytes = question.frame(6)[LENGTH_BYTES..].to_vec();
                let at = at % bytes.len();
                bytes[at] ^= by;
                prop_assert_ne!(Question::read(&bytes), Ok((6, question)));
            }
        }
    }

    #[test]
    fn lengths_out_of_bounds_reserve_nothing() {
        for (length, most) in [(0u32, 1024), (9, 1024), (1025, 1024), (u32::MAX, ANSWER_BYTES_MAX)] {
            assert!(payload_bytes(length.to_le_bytes(), most).is_err(), "{length}");
        }
        let long = Question::Invite { name: "x".repeat(NAME_BYTES_MAX + 1) }.frame(1);
        assert_eq!(Question::read(&long[LENGTH_BYTES..]), Err(WireFault::Senseless));
        let mut other = Question::Status.frame(1);
        other[LENGTH_BYTES] = 2;
        assert_eq!(Question::read(&other[LENGTH_BYTES..]), Err(WireFault::Version(2)));
    }
}
