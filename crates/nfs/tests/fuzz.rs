//! Hostile input (`faults.md` F101): whatever arrives, the server answers, refuses or
//! hangs up; it neither panics nor waits, and no reply is longer than its bound. Each
//! target runs as an ordinary test for a moment and as long as it is let under
//! `cargo xtask fuzz`.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "tests")]

mod harness;

use bytes::BufMut as _;
use harness::{Client, Server, framed};
use nfs::drc::REPLY_BYTES_MAX;
use nfs::record::Receiver;
use nfs::rpc::{Call, Credential, decode_reply};
use nfs::xdr::{Decoder, Encoder};

const NFS: u32 = 100_003;
const ITERATIONS: usize = 3_000;
/// A call has at least 40 bytes; a longer answer would invite abuse by a false sender.
const DATAGRAM_ANSWER_BYTES_MAX: usize = 100;
const PROGRAMS: [(u32, u32); 9] = [
    (NFS, 3),
    (100_005, 3),
    (100_005, 1),
    (100_021, 4),
    (100_021, 1),
    (100_024, 1),
    (100_000, 2),
    (100_000, 3),
    (100_000, 4),
];

/// Longest message that may answer a call: what the procedure's results can take.
fn reply_bytes_max((program, _, procedure): (u32, u32, u32)) -> usize {
    match (program, procedure) {
        (NFS, 6) => 24 + 4 + 88 + 12 + (1 << 20),
        (NFS, 5) => 24 + 4 + 88 + 4 + 4096,
        (NFS, 16 | 17) => 24 + 88 + 4 + (64 << 10),
        // Lists of exports, mounts and services: as long as our own configuration.
        (100_005, 2 | 5) | (100_000, _) => 24 + (8 << 10),
        _ => REPLY_BYTES_MAX,
    }
}

fn assert_answered(client: &mut Client, what: (u32, u32, u32), arguments: &[u8]) {
    let record = client.record(what, arguments);
    let replies = client.exchange(&record);
    assert_eq!(replies.len(), 1, "{what:?} is answered");
    let (xid, _) = decode_reply(&replies[0]).unwrap();
    assert_eq!(xid, client.xid);
    assert!(replies[0].len() <= reply_bytes_max(what), "{what:?} answered with {} bytes", replies[0].len());
    assert_eq!(replies[0].len() % 4, 0);
}

fn start() -> (Server, Client, Vec<u8>) {
    let server = Server::new();
    let mut client = server.client([10, 0, 0, 1]);
    let root = client.mount(b"/tank").unwrap();
    (server, client, root)
}

/// Good arguments for every NFS procedure, to be damaged.
fn good_arguments(root: &[u8], file: &[u8], procedure: u32) -> Vec<u8> {
    let mut out = Encoder::default();
    let place = |out: &mut Encoder, name: &[u8]| {
        out.opaque(root);
        out.opaque(name);
    };
    match procedure {
        2 => {
            out.opaque(file);
            out.words(&[1, 0o600, 1, 5, 1, 6, 1, 0, 9, 2, 1, 1, 1, 0]);
        }
        3 | 12 | 13 => place(&mut out, b"name"),
        4 => {
            out.opaque(file);
            out.u32(0x3f);
        }
        6 | 21 => {
            out.opaque(file);
            out.words(&[0, 0, 100]);
        }
        7 => {
            out.opaque(file);
            out.words(&[0, 0, 5, 2]);
            out.opaque(b"12345");
        }
        8 => {
            place(&mut out, b"name");
            out.words(&[0, 1, 0o600, 0, 0, 0, 0, 0]);
        }
        9 => {
            place(&mut out, b"dir");
            out.words(&[0; 6]);
        }
        10 => {
            place(&mut out, b"link");
            out.words(&[0; 6]);
            out.opaque(b"target");
        }
        11 => {
            place(&mut out, b"node");
            out.words(&[3, 0, 0, 0, 0, 0, 0, 8, 1]);
        }
        14 => {
            place(&mut out, b"name");
            place(&mut out, b"other");
        }
        15 => {
            out.opaque(file);
            place(&mut out, b"linked");
        }
        16 | 17 => {
            out.opaque(root);
            out.words(&[0, 0, 0, 0, 4096, 32768]);
        }
        _ => out.opaque(file),
    }
    out.into_bytes()
}

fn new_file(client: &mut Client, root: &[u8]) -> Vec<u8> {
    let made = client.call((NFS, 3, 8), &good_arguments(root, root, 8));
    Decoder::new(&made[8..]).opaque(64).unwrap().to_vec()
}

#[test]
fn any_bytes_on_a_connection() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|bytes: &[u8]| {
        let server = Server::new();
        let mut client = server.client([10, 0, 0, 1]);
        for piece in bytes.chunks(7) {
            client.wire.receive(piece);
            assert!(client.wire.sent().len() < 1 << 20);
        }
        server.client([10, 0, 0, 1]).exchange(&framed(bytes));
    });
}

#[test]
fn any_record_and_call_header() {
    bolero::check!().with_iterations(4 * ITERATIONS).for_each(|bytes: &[u8]| {
        let mut receiver = Receiver::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut room = receiver.room();
            let step = room.remaining_mut().min(rest.len());
            room.put_slice(&rest[..step]);
            rest = &rest[step..];
        }
        while let Ok(Some(record)) = receiver.next() {
            assert!(record.len() <= bytes.len());
        }
        let Ok((call, arguments)) = Call::decode(bytes) else { return };
        let mut again = Encoder::default();
        call.encode(&mut again);
        again.fixed(arguments.rest());
        let (same, _) = Call::decode(again.bytes()).unwrap();
        assert_eq!(same, call, "encoded and decoded again it is the same");
    });
}

#[test]
fn any_arguments_of_any_procedure_of_any_program() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|bytes: &[u8]| {
        let Some((&[program, procedure, with_handle], arguments)) = bytes.split_first_chunk() else { return };
        let (_server, mut client, root) = start();
        let (program, version) = PROGRAMS[usize::from(program) % PROGRAMS.len()];
        let mut whole = Encoder::default();
        if with_handle % 2 == 1 {
            whole.opaque(&root);
        }
        whole.fixed(arguments);
        assert_answered(&mut client, (program, version, u32::from(procedure) % 26), whole.bytes());
    });
}

#[test]
fn good_calls_with_a_few_damaged_bytes() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|bytes: &[u8]| {
        let (_server, mut client, root) = start();
        let file = new_file(&mut client, &root);
        for (step, damage) in bytes.chunks_exact(4).take(64).enumerate() {
            let procedure = u32::from(damage[0]) % 22;
            let mut arguments = good_arguments(&root, &file, procedure);
            let at = usize::from(damage[1]) % arguments.len();
            if step % 3 > 0 {
                arguments[at] ^= damage[2];
            }
            if damage[3] % 8 == 0 {
                arguments.truncate(at);
            }
            assert_answered(&mut client, (NFS, 3, procedure), &arguments);
        }
    });
}

#[test]
fn any_datagram() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|bytes: &[u8]| {
        let server = Server::new();
        let answer = |message: &[u8]| server.datagram([10, 0, 0, 1], message);
        if let Some(answer) = answer(bytes) {
            assert!(answer.len() < DATAGRAM_ANSWER_BYTES_MAX && decode_reply(&answer).is_ok());
        }
        let mut call = Encoder::default();
        let at = |at: usize| bytes.get(at).map_or(0, |&byte| u32::from(byte));
        let program = if at(0) % 2 == 0 { 100_000 } else { 100_024 };
        let (version, procedure) = (at(1) % 6, at(2) % 14);
        Call { xid: 1, program, version, procedure, credential: Credential::None }.encode(&mut call);
        call.fixed(bytes.get(3..).unwrap_or_default());
        let answer = answer(call.bytes()).expect("a call is answered");
        assert!(answer.len() < DATAGRAM_ANSWER_BYTES_MAX && decode_reply(&answer).is_ok());
    });
}

#[test]
fn the_longest_replies_fit_their_bounds() {
    let (_server, mut client, root) = start();
    let file = new_file(&mut client, &root);
    let place = |name: &[u8], rest: &[u32]| {
        let mut out = Encoder::default();
        out.opaque(&root);
        out.opaque(name);
        out.words(rest);
        out.into_bytes()
    };
    let long = [b'x'; 255];
    let mut names: Vec<Vec<u8>> = (0..400u32).map(|n| format!("{n:0>255}").into_bytes()).collect();
    names.push(long.to_vec());
    for name in &names {
        assert_answered(&mut client, (NFS, 3, 8), &place(name, &[1, 1, 0o600, 0, 0, 0, 0, 0]));
    }
    let text = [&place(b"l", &[0; 6])[..], &{
        let mut out = Encoder::default();
        out.opaque(&[b'/'; 4000]);
        out.into_bytes()
    }]
    .concat();
    assert_answered(&mut client, (NFS, 3, 10), &text);
    let mut rename = place(&long, &[]);
    rename.extend(place(&[b'y'; 255], &[]));
    assert_answered(&mut client, (NFS, 3, 14), &rename);
    let found = client.call((NFS, 3, 3), &place(b"l", &[]));
    let link = Decoder::new(&found[4..]).opaque(64).unwrap().to_vec();
    assert_answered(&mut client, (NFS, 3, 5), &good_arguments(&root, &link, 5));
    for procedure in 0..22 {
        assert_answered(&mut client, (NFS, 3, procedure), &good_arguments(&root, &file, procedure));
    }
    for procedure in [16, 17] {
        let mut args = Encoder::default();
        args.opaque(&root);
        args.words(&[0, 0, 0, 0, u32::MAX, u32::MAX]);
        assert_answered(&mut client, (NFS, 3, procedure), args.bytes());
    }
    let mut read = Encoder::default();
    read.opaque(&file);
    read.words(&[0, 0, u32::MAX]);
    let write = {
        let mut out = Encoder::default();
        out.opaque(&file);
        out.words(&[0, 0, 1 << 20, 2]);
        out.opaque(&vec![7; 1 << 20]);
        out.into_bytes()
    };
    assert_answered(&mut client, (NFS, 3, 7), &write);
    assert_answered(&mut client, (NFS, 3, 6), read.bytes());
}
