//! The frames: what is encoded comes back, what was changed on the way does not, and no bytes
//! make a reader stumble or reserve more than they are.
#![allow(clippy::unwrap_used, reason = "tests")]

use base::{Buf, Epoch, FileId, MediaCheck, Osn, PairId, SiteId, WallNanos};
use mirror::wire::{FRAME_BYTES_MAX, Frame, HEAD_BYTES, LENGTH_BYTES, Message, Report, WireFault, frame_bytes};
use mirror::{Change, Flight, Form, Span, WRITE_BYTES_MAX, Write};
use proptest::prelude::*;
use witness::{Standing, Transition, TransitionKind};

const PAIR: PairId = PairId([7; 16]);
const SITE: SiteId = SiteId([3; 16]);

fn standing(version: u64) -> Standing {
    Standing {
        pair: PAIR,
        version,
        epoch: Epoch(4),
        primary: SITE,
        secondary: None,
        in_sync: false,
        in_sync_through: Osn(9),
        lease_ms: 6000,
        last: Transition { kind: TransitionKind::Leave, by: SITE, at: WallNanos(1) },
    }
}

fn form(size_bytes: u64) -> Form {
    Form { size_bytes, modified: WallNanos(size_bytes ^ 7), changed: WallNanos(size_bytes ^ 9) }
}

/// One of each kind.
fn messages(number: u64, yes: bool, bytes: &[u8]) -> Vec<Message> {
    let (osn, payload) = (Osn(number), Buf::copy_from_slice(bytes));
    let length_bytes = payload.len() as u64;
    let offset_bytes = number >> 1;
    let span = Span { file: FileId(number), offset_bytes, length_bytes };
    let change = Change { request: payload.clone(), body: Buf::from_static(b"do"), reply: payload.clone() };
    let report = Report {
        last: yes,
        flights: vec![Flight { osn, span, check: MediaCheck(number) }; bytes.len() % 5],
        prepared: vec![osn; bytes.len() % 3],
        commits: vec![Osn(1); bytes.len() % 4],
    };
    vec![
        Message::Hello { site: SITE, standing: yes.then(|| standing(number)) },
        Message::Report(report),
        Message::Write {
            osn,
            write: Write { file: FileId(5), offset_bytes, payload: payload.clone(), at: WallNanos(number) },
        },
        Message::Restore { osn, span, form: form(span.end_bytes() + number % 2), payload: payload.clone() },
        Message::Durable { osn },
        Message::Prepare { osn, change: change.clone() },
        Message::Vote { osn, yes },
        Message::Commit { osn, change: yes.then_some(change) },
        Message::Drop { osn },
        Message::Settled { osn },
        Message::Renew { number },
        Message::Lent { number, lease_ms: number as u32 },
        Message::Changed(standing(number)),
    ]
}

fn bytes_of(frame: &Frame) -> Buf {
    let encoded = frame.encode(PAIR);
    let whole = [encoded.head.as_slice(), &encoded.payload].concat();
    let (length, rest) = whole.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(frame_bytes(*length), Ok(rest.len()));
    Buf::copy_from_slice(rest)
}

fn frames(number: u64, yes: bool, bytes: &[u8]) -> Vec<Frame> {
    let frame = |message| Frame { epoch: Epoch(number), low_water: Osn(number / 2), message };
    messages(number, yes, bytes).into_iter().map(frame).collect()
}

/// Whatever is read is written to the same bytes again.
fn read(bytes: &Buf) {
    if let Ok(frame) = Frame::decode(PAIR, bytes) {
        assert_eq!(bytes_of(&frame), *bytes);
    }
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(
        number in any::<u64>(), yes in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..50)
    ) {
        for frame in frames(number, yes, &bytes) {
            prop_assert_eq!(Frame::decode(PAIR, &bytes_of(&frame)), Ok(frame));
        }
    }

    #[test]
    fn a_changed_byte_is_refused(at in any::<usize>(), by in 1u8.., bytes in proptest::collection::vec(any::<u8>(), 1..50)) {
        for frame in frames(5, true, &bytes) {
            let mut changed = bytes_of(&frame).to_vec();
            let at = at % changed.len();
            changed[at] ^= by;
            prop_assert!(Frame::decode(PAIR, &changed.into()).is_err());
        }
    }
}

/// A fuzz target: any bytes; and bytes whose check fits, so that what lies behind it is reached.
#[test]
fn no_bytes_are_read_in_two_ways() {
    bolero::check!().for_each(|bytes: &[u8]| {
        read(&Buf::copy_from_slice(bytes));
        for frame in frames(3, bytes.first().is_some_and(|first| first % 2 == 0), bytes.get(..40).unwrap_or(bytes)) {
            let mut whole = bytes_of(&frame).to_vec();
            for edit in bytes.chunks_exact(2).take(4) {
                let at = usize::from(edit[0]) % whole.len();
                whole[at] ^= edit[1];
            }
            read(&mended(whole));
        }
    });
}

/// The same with a check that fits.
fn mended(mut whole: Vec<u8>) -> Buf {
    let parts = [PAIR.0.as_slice(), &whole[..8], &whole[16..]];
    let check = base::check::media_check_parts(u64::from_le_bytes(*b"mirror-1"), &parts).0;
    whole[8..16].copy_from_slice(&check.to_le_bytes());
    whole.into()
}

#[test]
fn a_frame_of_another_pair_or_version_is_refused() {
    let bytes = bytes_of(&frames(5, true, b"x")[2]);
    assert_eq!(Frame::decode(PairId([8; 16]), &bytes), Err(WireFault::Check));
    let mut other = bytes.to_vec();
    other[0] = 2;
    assert_eq!(Frame::decode(PAIR, &other.into()), Err(WireFault::Version(2)));
    assert_eq!(Frame::decode(PAIR, &bytes.slice(..bytes.len() - 1)), Err(WireFault::Check));
    assert_eq!(Frame::decode(PAIR, &bytes.slice(..HEAD_BYTES - 1)), Err(WireFault::Length(HEAD_BYTES - 1)));
}

/// Lengths and counts are judged before anything is reserved for them, behind a check that
/// fits, too.
#[test]
fn what_is_out_of_bounds_is_refused() {
    for length in [0u32, HEAD_BYTES as u32 - 1, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        assert!(frame_bytes(length.to_le_bytes()).is_err(), "{length}");
    }
    let frame = |message| Frame { epoch: Epoch(1), low_water: Osn(0), message };
    let span = Span { file: FileId(1), offset_bytes: 10, length_bytes: 8 };
    let restore = |size_bytes, payload: &'static [u8]| {
        let payload = Buf::from_static(payload);
        let frame = frame(Message::Restore { osn: Osn(1), span, form: form(size_bytes), payload });
        let encoded = frame.encode(PAIR);
        Frame::decode(PAIR, &[&encoded.head[LENGTH_BYTES..], &encoded.payload].concat().into()).is_ok()
    };
    assert!(restore(18, b"12345678") && restore(14, b"1234") && restore(3, b""));
    assert!(!restore(18, b"1234"), "short of what the file has");
    assert!(!restore(14, b"12345678"), "more than the file has");
    let payload = Buf::from(vec![0; WRITE_BYTES_MAX + 1]);
    let long = frame(Message::Write {
        osn: Osn(1),
        write: Write { file: FileId(1), offset_bytes: 0, payload, at: WallNanos(0) },
    });
    let encoded = long.encode(PAIR);
    let bytes: Buf = [&encoded.head[LENGTH_BYTES..], &encoded.payload].concat().into();
    assert_eq!(Frame::decode(PAIR, &bytes), Err(WireFault::Senseless));
}
