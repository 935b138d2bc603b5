//! NFS clients of a pair: what they asked the old primary and ask again of the new one has one effect
//! and one answer, and handles and the write verifier stay the same.
#![allow(clippy::unwrap_used, reason = "tests")]

mod pair;

use std::net::IpAddr;
use std::rc::Rc;

use base::Buf;
use datastore::{DatastoreOptions, Filesystem, Identity};
use nfs::rpc::{AuthSys, Call, Credential};
use nfs::xdr::{Decoder, Encoder};
use nfs::{Answer, Peer, Portmap, Service};
use pair::Pair;
use replica::Replica;

const MOUNT: (u32, u32) = (100_005, 1);
const NFS: u32 = 100_003;
const CREATE: (u32, u32) = (NFS, 8);
const MKDIR: (u32, u32) = (NFS, 9);
const REMOVE: (u32, u32) = (NFS, 12);
const RENAME: (u32, u32) = (NFS, 14);
const WRITE: (u32, u32) = (NFS, 7);
const LOOKUP: (u32, u32) = (NFS, 3);

/// What both sites of the pair are to clients.
fn identity() -> Identity {
    Identity { pool: 7, handle_key: [3; 16] }
}

/// A call as its bytes; the same bytes are the same call.
fn call(xid: u32, (program, procedure): (u32, u32), arguments: &[u8]) -> Vec<u8> {
    let sys = AuthSys { machine: b"host-a", uid: 0, gid: 0, gids: [0].into_iter().collect() };
    let mut out = Encoder::default();
    Call { xid, program, version: 3, procedure, credential: Credential::Sys(sys) }.encode(&mut out);
    out.fixed(arguments);
    out.into_bytes()
}

fn place(dir: &[u8], name: &str) -> Encoder {
    let mut out = Encoder::default();
    out.opaque(dir);
    out.opaque(name.as_bytes());
    out
}

/// How CREATE is told what to make: exclusively, with a verifier of the client.
fn exclusive(dir: &[u8], name: &str) -> Vec<u8> {
    let mut out = place(dir, name);
    out.words(&[2, 0x0bad, 0xcafe]);
    out.into_bytes()
}

fn directory(dir: &[u8], name: &str) -> Vec<u8> {
    let mut out = place(dir, name);
    out.words(&[0; 6]);
    out.into_bytes()
}

fn write(file: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.opaque(file);
    out.u64(0);
    out.words(&[data.len() as u32, 2]);
    out.opaque(data);
    out.into_bytes()
}

/// The front of a site, as `node` opens it when the site is primary.
async fn front(pair: &Pair, store: Replica) -> Rc<Service<Replica>> {
    let world = pair.world_of_primary();
    let fs = Filesystem::open(Rc::new(store), world.clone(), identity()).await.unwrap();
    Service::open(fs, world, Portmap { mappings: Vec::new() }).await.unwrap()
}

async fn ask(service: &Service<Replica>, record: &[u8]) -> Vec<u8> {
    let peer = Peer::new(IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 50]));
    match service.handle(&peer, Buf::copy_from_slice(record)).await {
        Answer::Reply(reply) => reply.message().to_vec(),
        Answer::Hangup => panic!("the server hung up"),
    }
}

/// Behind the head of a reply that was accepted.
fn results(reply: &[u8]) -> &[u8] {
    &reply[24..]
}

fn status(reply: &[u8]) -> u32 {
    u32::from_be_bytes(results(reply)[..4].try_into().unwrap())
}

/// The handle that a LOOKUP or MNT gave.
fn handle(reply: &[u8]) -> Vec<u8> {
    assert_eq!(status(reply), 0, "{reply:?}");
    Decoder::new(&results(reply)[4..]).opaque(64).unwrap().to_vec()
}

/// Changes are answered by a primary that dies before any answer arrives. Asked again, byte for byte, of the
/// site that took over, each has its first answer and no second effect.
#[test]
fn what_is_asked_again_after_a_failover_has_its_first_answer() {
    let pair = Pair::hasty(3);
    pair.until(async || {
        pair.meet().await;
        let store = pair.primary().await;
        let options = DatastoreOptions::open;
        Filesystem::format(&store, &pair.world_of_primary(), &identity(), options()).await.unwrap();
        let first = front(&pair, store).await;
        first.filesystem().create_datastore("tank", options()).await.unwrap();
        let mount = call(1, MOUNT, &{
            let mut path = Encoder::default();
            path.opaque(b"/tank");
            path.into_bytes()
        });
        let root = handle(&ask(&first, &mount).await);
        for (xid, name) in [(2, "old"), (3, "gone")] {
            assert_eq!(status(&ask(&first, &call(xid, CREATE, &exclusive(&root, name))).await), 0);
        }
        let file = handle(&ask(&first, &call(4, LOOKUP, place(&root, "old").bytes())).await);
        let mut rename = place(&root, "old");
        rename.fixed(place(&root, "new").bytes());
        let changes = [
            call(10, REMOVE, place(&root, "gone").bytes()),
            call(11, RENAME, rename.bytes()),
            call(12, CREATE, &exclusive(&root, "made")),
            call(13, MKDIR, &directory(&root, "folder")),
        ];
        let mut answers = Vec::new();
        for change in &changes {
            answers.push(ask(&first, change).await);
        }
        assert!(answers.iter().all(|answer| status(answer) == 0), "{answers:?}");
        let written = ask(&first, &call(14, WRITE, &write(&file, b"once"))).await;
        drop(first);
        pair.power_cut(0);

        let store = pair.primary().await;
        let second = front(&pair, store).await;
        for (change, answer) in changes.iter().zip(&answers) {
            assert_eq!(&ask(&second, change).await, answer, "the first answer, byte for byte");
        }
        assert_eq!(handle(&ask(&second, &mount).await), root, "the same handles");
        let found = ask(&second, &call(20, LOOKUP, place(&root, "new").bytes())).await;
        assert_eq!(handle(&found), file, "of a file under its new name, too");
        for name in ["gone", "old"] {
            assert_eq!(status(&ask(&second, &call(21, LOOKUP, place(&root, name).bytes())).await), 2, "{name}");
        }
        let again = ask(&second, &call(22, WRITE, &write(&file, b"more"))).await;
        let verifier = |reply: &[u8]| reply[reply.len() - 8..].to_vec();
        assert_eq!(verifier(&again), verifier(&written), "nothing has to be written again");
    });
}
