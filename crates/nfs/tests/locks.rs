//! NLM and NSM through raw bytes: `nlm4.x` as other lock managers write it.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "tests")]

mod harness;

use harness::{Client, Server, now};
use nfs::rpc::{Call, Credential};
use nfs::xdr::{Decoder, Encoder};

const NLM: u32 = 100_021;
const GRANTED: u32 = 0;
const DENIED: u32 = 1;
const BLOCKED: u32 = 3;
const STALE_FH: u32 = 7;

/// A lock request in words of `nlm4.x`.
#[derive(Clone, Copy)]
struct Ask<'a> {
    file: &'a [u8],
    svid: u32,
    exclusive: bool,
    block: bool,
    range: (u64, u64),
}

impl Ask<'_> {
    fn lock(&self, out: &mut Encoder) {
        out.opaque(b"host-a");
        out.opaque(self.file);
        out.opaque(format!("{}@host-a", self.svid).as_bytes());
        out.u32(self.svid);
        out.u64(self.range.0);
        out.u64(self.range.1);
    }

    fn args(&self, procedure: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        out.opaque(b"cookie");
        if matches!(procedure, 2 | 3 | 7 | 8 | 22) {
            out.bool(self.block);
        }
        if procedure != 4 && procedure != 9 {
            out.bool(self.exclusive);
        }
        self.lock(&mut out);
        if matches!(procedure, 2 | 7 | 22) {
            out.words(&[0, 1]);
        }
        out.into_bytes()
    }

    fn call(&self, client: &mut Client, procedure: u32) -> u32 {
        let results = client.call((NLM, 4, procedure), &self.args(procedure));
        let mut results = Decoder::new(&results);
        assert_eq!(results.opaque(32), Ok(&b"cookie"[..]));
        results.u32().unwrap()
    }
}

fn start() -> (Server, Client, Vec<u8>) {
    let server = Server::new();
    let mut client = server.client([10, 0, 0, 1]);
    let root = client.mount(b"/tank").unwrap();
    let mut args = Encoder::default();
    args.opaque(&root);
    args.opaque(b"disk");
    args.words(&[1, 1, 0o644, 0, 0, 0, 0, 0]);
    let made = client.call((100_003, 3, 8), args.bytes());
    let file = Decoder::new(&made[8..]).opaque(64).unwrap().to_vec();
    (server, client, file)
}

fn exclusive(file: &[u8], svid: u32) -> Ask<'_> {
    Ask { file, svid, exclusive: true, block: false, range: (100, 1) }
}

#[test]
fn two_machines_do_not_hold_the_same_bytes() {
    let (server, mut a, file) = start();
    let mut b = server.client([10, 0, 0, 2]);
    let ask = exclusive(&file, 1);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    assert_eq!(ask.call(&mut a, 2), GRANTED, "again by its owner");
    assert_eq!(ask.call(&mut b, 2), DENIED, "the same names at another address");
    let results = b.call((NLM, 4, 1), &ask.args(1));
    let mut results = Decoder::new(&results[12..]);
    assert_eq!((results.u32(), results.u32(), results.u32()), (Ok(DENIED), Ok(1), Ok(1)));
    assert_eq!(results.opaque(255), Ok(&b"1@host-a"[..]));
    assert_eq!((results.u64(), results.u64()), (Ok(100), Ok(1)));
    let other_bytes = Ask { range: (200, 0), ..ask };
    assert_eq!(other_bytes.call(&mut b, 2), GRANTED);
    assert_eq!(ask.call(&mut a, 4), GRANTED, "unlock");
    assert_eq!(ask.call(&mut b, 22), GRANTED, "a lock without monitoring");
    assert_eq!(Ask { file: &[1; 36], ..ask }.call(&mut a, 2), STALE_FH);
}

#[test]
fn locks_outlive_the_server_and_end_with_their_machine() {
    let (server, mut a, file) = start();
    let ask = exclusive(&file, 1);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    drop(a);
    let server = server.restarted();
    let mut b = server.client([10, 0, 0, 2]);
    assert_eq!(ask.call(&mut b, 2), DENIED);
    let notify = |client: &mut Client, name: &[u8], state: u32| {
        let mut args = Encoder::default();
        args.opaque(name);
        args.u32(state);
        client.call((100_024, 1, 6), args.bytes());
    };
    notify(&mut b, b"host-a", 3);
    assert_eq!(ask.call(&mut b, 2), DENIED, "a notification from elsewhere is not believed");
    let mut a = server.client([10, 0, 0, 1]);
    notify(&mut a, b"host-a.example.org", 3);
    assert_eq!(ask.call(&mut b, 2), GRANTED);
    assert_eq!(ask.call(&mut b, 4), GRANTED);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    notify(&mut a, b"host-a.example.org", 3);
    assert_eq!(ask.call(&mut b, 2), DENIED, "a late repeat frees nothing");
}

#[test]
fn a_restart_is_announced_by_datagram_and_nothing_else_is_served_there() {
    let (server, mut a, file) = start();
    let mut b = server.client([10, 0, 0, 2]);
    let ask = exclusive(&file, 1);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    let message = |program, procedure, write: &dyn Fn(&mut Encoder)| {
        let mut out = Encoder::default();
        Call { xid: 3, program, version: 1, procedure, credential: Credential::None }.encode(&mut out);
        write(&mut out);
        out.into_bytes()
    };
    let notify = message(100_024, 6, &|out| {
        out.opaque(b"host-a");
        out.u32(5);
    });
    let reply = server.datagram([10, 0, 0, 1], &notify).unwrap();
    assert_eq!(nfs::rpc::decode_reply(&reply).unwrap().0, 3);
    assert_eq!(ask.call(&mut b, 2), GRANTED);
    let unserved = server.datagram([10, 0, 0, 1], &message(100_003, 0, &|_| ())).unwrap();
    assert_eq!(unserved[20..], 1u32.to_be_bytes(), "no NFS over UDP");
    assert_eq!(server.datagram([10, 0, 0, 1], &[0; 7]), None);
}

#[test]
fn a_waiter_is_called_when_the_lock_is_free() {
    let (server, mut a, file) = start();
    let mut b = server.client([10, 0, 0, 2]);
    let ask = exclusive(&file, 1);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    let waiting = Ask { svid: 7, block: true, ..ask };
    assert_eq!(waiting.call(&mut b, 2), BLOCKED);
    assert_eq!(ask.call(&mut a, 4), GRANTED);
    let callback = now(server.service.nlm().next_callback());
    assert_eq!(callback.to, std::net::IpAddr::from([10, 0, 0, 2]));
    let message = callback.message(5);
    let (call, arguments) = Call::decode(&message).unwrap();
    assert_eq!((call.program, call.version, call.procedure), (NLM, 4, 5));
    let mut expected = Encoder::default();
    expected.opaque(b"cookie");
    expected.bool(true);
    waiting.lock(&mut expected);
    assert_eq!(arguments.rest(), expected.bytes());
    assert_eq!(ask.call(&mut a, 2), DENIED, "the waiter holds it");
    let mut refusal = Encoder::default();
    nfs::rpc::encode_success(&mut refusal, 5);
    refusal.opaque(b"cookie");
    refusal.u32(DENIED);
    now(server.service.callback_answered(callback, Some(refusal.bytes())));
    assert_eq!(ask.call(&mut a, 2), GRANTED, "a refused grant is taken back");
}

#[test]
fn a_cancelled_wait_is_not_granted() {
    let (server, mut a, file) = start();
    let mut b = server.client([10, 0, 0, 2]);
    let ask = exclusive(&file, 1);
    let waiting = Ask { svid: 7, block: true, ..ask };
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    assert_eq!(waiting.call(&mut b, 2), BLOCKED);
    assert_eq!(waiting.call(&mut b, 3), GRANTED);
    assert_eq!(waiting.call(&mut b, 3), DENIED, "it waits no more");
    ask.call(&mut a, 4);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
}

#[test]
fn message_style_requests_are_answered_by_a_call() {
    let (server, mut a, file) = start();
    let ask = exclusive(&file, 1);
    assert!(a.call((NLM, 4, 7), &ask.args(7)).is_empty());
    let callback = now(server.service.nlm().next_callback());
    assert_eq!((callback.procedure, callback.grant.is_none()), (12, true));
    let mut results = Decoder::new(&callback.arguments);
    assert_eq!((results.opaque(32), results.u32()), (Ok(&b"cookie"[..]), Ok(GRANTED)));
}

#[test]
fn free_all_frees_only_its_own_machine() {
    let (server, mut a, file) = start();
    let mut b = server.client([10, 0, 0, 2]);
    let ask = exclusive(&file, 1);
    assert_eq!(ask.call(&mut a, 2), GRANTED);
    let mut args = Encoder::default();
    args.opaque(b"host-a");
    args.u32(5);
    b.call((NLM, 4, 23), args.bytes());
    assert_eq!(ask.call(&mut b, 2), DENIED);
    a.call((NLM, 4, 23), args.bytes());
    assert_eq!(ask.call(&mut b, 2), GRANTED);
}

#[test]
fn old_versions_lock_with_narrow_offsets() {
    let (_server, mut a, file) = start();
    let mut args = Encoder::default();
    args.opaque(b"cookie");
    args.words(&[0, 1]);
    args.opaque(b"host-a");
    args.opaque(&file);
    args.opaque(b"owner");
    args.words(&[1, 0, 10]);
    args.words(&[0, 1]);
    for version in [1, 3] {
        let results = a.call((NLM, version, 2), args.bytes());
        assert_eq!(Decoder::new(&results[12..]).u32(), Ok(GRANTED));
    }
}
