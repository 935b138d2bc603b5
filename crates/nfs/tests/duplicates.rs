//! One effect per request (`faults.md` F100): retries of identical bytes, on the same and
//! on other connections, before, during and after the first copy, and after a restart.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "tests")]

mod harness;

use harness::{Client, Server};
use nfs::Standing;
use nfs::xdr::Encoder;

const CREATE: (u32, u32, u32) = (100_003, 3, 8);
const REMOVE: (u32, u32, u32) = (100_003, 3, 12);
const WRITE: (u32, u32, u32) = (100_003, 3, 7);
const LOOKUP: (u32, u32, u32) = (100_003, 3, 3);
const READ: (u32, u32, u32) = (100_003, 3, 6);

fn place(dir: &[u8], name: &[u8]) -> Encoder {
    let mut out = Encoder::default();
    out.opaque(dir);
    out.opaque(name);
    out
}

fn create_args(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = place(dir, name);
    out.words(&[1, 1, 0o644, 0, 0, 0, 0, 0]);
    out.into_bytes()
}

fn write_args(file: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.opaque(file);
    out.u64(0);
    out.words(&[data.len() as u32, 2]);
    out.opaque(data);
    out.into_bytes()
}

fn start() -> (Server, Client, Vec<u8>) {
    let server = Server::new();
    let mut client = server.client([10, 0, 0, 1]);
    let root = client.mount(b"/tank").unwrap();
    (server, client, root)
}

fn new_file(client: &mut Client, root: &[u8], name: &[u8]) -> Vec<u8> {
    client.call(CREATE, &create_args(root, name));
    let found = client.call(LOOKUP, place(root, name).bytes());
    nfs::xdr::Decoder::new(&found[4..]).opaque(64).unwrap().to_vec()
}

fn status(message: &[u8]) -> u32 {
    u32::from_be_bytes(message[24..28].try_into().unwrap())
}

fn content(client: &mut Client, file: &[u8]) -> Vec<u8> {
    let mut args = Encoder::default();
    args.opaque(file);
    args.u64(0);
    args.u32(100);
    let done = client.call(READ, args.bytes());
    let mut results = nfs::xdr::Decoder::new(&done[4 + 4 + 84 + 8..]);
    results.opaque(100).unwrap().to_vec()
}

#[test]
fn identical_bytes_get_the_identical_answer_and_have_one_effect() {
    let (server, mut client, root) = start();
    for (what, args) in [
        (CREATE, create_args(&root, b"f")),
        (REMOVE, place(&root, b"f").into_bytes()),
        ((100_003, 3, 9), {
            let mut out = place(&root, b"d");
            out.words(&[0; 6]);
            out.into_bytes()
        }),
        ((100_003, 3, 13), place(&root, b"d").into_bytes()),
    ] {
        let record = client.record(what, &args);
        let first = client.exchange(&record);
        assert_eq!(status(&first[0]), 0);
        let changes = server.store.changes.get();
        assert_eq!(client.exchange(&record), first, "the same connection");
        let mut reconnected = server.client([10, 0, 0, 1]);
        assert_eq!(reconnected.exchange(&record), first, "a new connection of the same client");
        assert_eq!(server.store.changes.get(), changes, "no second effect");
    }
    assert_eq!(server.service.counts().drc.repeated, 8);
}

#[test]
fn the_same_xid_of_another_client_or_machine_is_another_request() {
    let (server, mut client, root) = start();
    let record = client.record(CREATE, &create_args(&root, b"f"));
    assert_eq!(status(&client.exchange(&record)[0]), 0);
    let mut other = server.client([10, 0, 0, 2]);
    assert_eq!(status(&other.exchange(&record)[0]), 17, "another address: it exists");
    let mut neighbour = server.client([10, 0, 0, 1]);
    neighbour.machine = b"host-b".to_vec();
    neighbour.xid = client.xid - 1;
    let record = neighbour.record(CREATE, &create_args(&root, b"f"));
    assert_eq!(status(&neighbour.exchange(&record)[0]), 17, "another machine behind one address");
}

#[test]
fn an_old_write_that_comes_again_does_not_land_on_a_newer_one() {
    let (server, mut client, root) = start();
    let file = new_file(&mut client, &root, b"f");
    let old = client.record(WRITE, &write_args(&file, b"old"));
    let first = client.exchange(&old);
    client.call(WRITE, &write_args(&file, b"new"));
    assert_eq!(client.exchange(&old), first);
    assert_eq!(server.client([10, 0, 0, 1]).exchange(&old), first);
    assert_eq!(content(&mut client, &file), b"new");
}

#[test]
fn a_retry_while_the_first_is_at_work_joins_it_on_whichever_connection_lives() {
    let (server, mut client, root) = start();
    let file = new_file(&mut client, &root, b"f");
    server.store.is_shut.set(true);
    let record = client.record(WRITE, &write_args(&file, b"data"));
    assert!(client.exchange(&record).is_empty());
    let mut second = server.client([10, 0, 0, 1]);
    assert!(second.exchange(&record).is_empty());
    let changes = server.store.changes.get();
    client.wire.gone();
    server.store.open_gate();
    assert_eq!(client.wire.receive(&[]), Standing::Over, "what was at work is finished first");
    assert!(client.replies().is_empty(), "nobody listens there");
    let replies = second.replies();
    assert_eq!((replies.len(), status(&replies[0])), (1, 0));
    assert_eq!(server.store.changes.get(), changes + 1, "one effect");
    assert_eq!(server.service.counts().drc.joined, 1);
}

#[test]
fn what_a_dying_connection_had_not_begun_is_never_done() {
    let (server, mut client, root) = start();
    let file = new_file(&mut client, &root, b"f");
    server.store.is_shut.set(true);
    let mut records = Vec::new();
    for number in 0..200u8 {
        records.extend(client.record(WRITE, &write_args(&file, &[number; 10])));
    }
    client.wire.receive(&records);
    assert_eq!(client.wire.requests(), nfs::connection::REQUESTS_MAX);
    assert!(!client.wire.wants_bytes(), "back-pressure");
    let before = server.store.changes.get();
    client.wire.gone();
    server.store.open_gate();
    while client.wire.receive(&[]) == Standing::Open {}
    let done = server.store.changes.get() - before;
    assert_eq!(done, nfs::connection::REQUESTS_MAX as u64, "the rest was dropped");
}

#[test]
fn answers_of_namespace_changes_survive_a_restart() {
    let (server, mut client, root) = start();
    let create = client.record(CREATE, &create_args(&root, b"f"));
    let created = client.exchange(&create);
    let remove = client.record(REMOVE, place(&root, b"f").bytes());
    let removed = client.exchange(&remove);
    assert_eq!((status(&created[0]), status(&removed[0])), (0, 0));
    drop(client);
    let server = server.restarted();
    let mut client = server.client([10, 0, 0, 1]);
    let changes = server.store.changes.get();
    assert_eq!(client.exchange(&remove), removed);
    assert_eq!(client.exchange(&create), created);
    assert_eq!(server.store.changes.get(), changes);
}

#[test]
fn replies_come_as_they_are_ready_and_every_request_is_answered() {
    let (server, mut client, root) = start();
    let file = new_file(&mut client, &root, b"f");
    server.store.is_shut.set(true);
    let write = client.record(WRITE, &write_args(&file, b"slow"));
    let lookup = client.record(LOOKUP, place(&root, b"f").bytes());
    let first = client.exchange(&[write, lookup].concat());
    assert_eq!(first.len(), 1, "the lookup overtakes the write");
    server.store.open_gate();
    assert_eq!(client.replies().len(), 1);
}

#[test]
fn a_client_that_takes_no_replies_stops_itself() {
    let (_server, mut client, root) = start();
    let file = new_file(&mut client, &root, b"f");
    client.call(WRITE, &write_args(&file, &vec![1; 1 << 20]));
    let mut args = Encoder::default();
    args.opaque(&file);
    args.u64(0);
    args.u32(1 << 20);
    let mut records = Vec::new();
    (0..100).for_each(|_| records.extend(client.record(READ, args.bytes())));
    client.wire.receive(&records);
    assert!(!client.wire.wants_bytes());
    let first = client.wire.sent();
    assert!(first.len() < nfs::connection::BYTES_MAX + (2 << 20), "{} bytes were held", first.len());
    let mut total = first.len();
    loop {
        client.wire.receive(&[]);
        match client.wire.sent().len() {
            0 => break,
            more => total += more,
        }
    }
    assert!(total > 100 << 20, "in the end all are answered");
}

/// One of two sites that has lost its place answers nothing, not even what it knows without its store: attributes
/// from memory, and replies it gave before. Its connections end.
#[test]
fn a_store_that_may_not_tell_is_not_heard() {
    const GETATTR: (u32, u32, u32) = (100_003, 3, 1);
    let (server, mut client, root) = start();
    let mut arguments = Encoder::default();
    arguments.opaque(&root);
    let getattr = client.record(GETATTR, arguments.bytes());
    assert_eq!(status(&client.exchange(&getattr)[0]), 0, "the attributes are in memory now");
    let create = client.record(CREATE, &create_args(&root, b"f"));
    assert_eq!(status(&client.exchange(&create)[0]), 0);
    server.store.is_silenced.set(true);
    for record in [getattr, create] {
        let mut again = server.client([10, 0, 0, 1]);
        assert!(again.exchange(&record).is_empty());
        assert_eq!(again.wire.receive(&[]), Standing::Over);
    }
}
