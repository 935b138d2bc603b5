//! The door over real sockets: a server in memory, clients on loopback.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use datastore::{DatastoreOptions, Filesystem, Identity};
use engine::memory::MemoryStore;
use nfs::rpc::{Call, Credential, decode_reply};
use nfs::xdr::Encoder;
use nfs::{Portmap, Service};
use node::nfs_door::{Door, PER_ADDRESS_MAX, RECORD_TIME, answer_datagrams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const LAST_FRAGMENT: u32 = 1 << 31;

struct Server {
    door: Rc<Door>,
    service: Rc<Service<MemoryStore>>,
    address: SocketAddr,
}

async fn start() -> Server {
    let world = world_real::real_world();
    let store = Rc::new(MemoryStore::default());
    let identity = Identity { pool: 1, handle_key: [7; 16] };
    Filesystem::format(&*store, &world, &identity, DatastoreOptions::open()).await.unwrap();
    let fs = Filesystem::open(store, world.clone(), identity).await.unwrap();
    let service = Service::open(fs, world, Portmap::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new();
    tokio::task::spawn_local(door.clone().listen(service.clone(), listener));
    Server { door, service, address }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// A record with a NULL call of the NFS program.
fn null(xid: u32) -> Vec<u8> {
    let mut out = Encoder::default();
    Call { xid, program: 100_003, version: 3, procedure: 0, credential: Credential::None }.encode(&mut out);
    [&(out.len() as u32 | LAST_FRAGMENT).to_be_bytes()[..], out.bytes()].concat()
}

async fn answer(stream: &mut TcpStream) -> std::io::Result<u32> {
    let len = stream.read_u32().await? & !LAST_FRAGMENT;
    let mut message = vec![0; len as usize];
    stream.read_exact(&mut message).await?;
    let (xid, served) = decode_reply(&message).unwrap();
    assert!(served.is_some());
    Ok(xid)
}

#[test]
fn pipelined_calls_are_all_answered_however_they_are_cut() {
    run(async {
        let server = start().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let calls: Vec<u8> = (1..=300).flat_map(null).collect();
        for piece in calls.chunks(997) {
            stream.write_all(piece).await.unwrap();
        }
        for xid in 1..=300 {
            assert_eq!(answer(&mut stream).await.unwrap(), xid);
        }
        let counts = server.door.counts();
        assert_eq!((counts.open, counts.accepted, counts.received_bytes), (1, 1, calls.len() as u64));
    });
}

#[test]
fn one_address_does_not_take_every_connection() {
    run(async {
        let server = start().await;
        let mut streams = Vec::new();
        for _ in 0..PER_ADDRESS_MAX {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&null(7)).await.unwrap();
            assert_eq!(answer(&mut stream).await.unwrap(), 7);
            streams.push(stream);
        }
        let mut beyond = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(beyond.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed at once");
        assert_eq!(server.door.counts().refused, 1);
        drop(streams.pop());
        while server.door.counts().open == PER_ADDRESS_MAX as u64 {
            tokio::task::yield_now().await;
        }
        let mut next = TcpStream::connect(server.address).await.unwrap();
        next.write_all(&null(8)).await.unwrap();
        assert_eq!(answer(&mut next).await.unwrap(), 8);
    });
}

#[test]
fn a_stop_closes_idle_connections_and_admits_nobody() {
    run(async {
        let server = start().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&null(1)).await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), 1);
        tokio::time::timeout(Duration::from_secs(5), server.door.stop()).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(server.address).await.is_err());
    });
}

#[test]
fn a_breach_of_the_protocol_ends_only_its_own_connection() {
    run(async {
        let server = start().await;
        let mut good = TcpStream::connect(server.address).await.unwrap();
        for bad in [&b"GET / HTTP/1.1\r\n\r\n"[..], &LAST_FRAGMENT.to_be_bytes(), &u32::MAX.to_be_bytes()] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(bad).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
        }
        good.write_all(&null(1)).await.unwrap();
        assert_eq!(answer(&mut good).await.unwrap(), 1);
        assert_eq!(server.door.counts().violations, 3);
    });
}

#[test]
fn a_record_that_never_ends_is_not_waited_for() {
    run(async {
        let server = start().await;
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(&null(1)[..20]).await.unwrap();
        idle.write_all(&null(2)).await.unwrap();
        assert_eq!(answer(&mut idle).await.unwrap(), 2);
        tokio::time::pause();
        tokio::time::advance(RECORD_TIME / 2).await;
        assert_eq!(server.door.counts().open, 2);
        assert_eq!(slow.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
        tokio::time::resume();
        idle.write_all(&null(3)).await.unwrap();
        assert_eq!(answer(&mut idle).await.unwrap(), 3, "silence between records is no offence");
    });
}

#[test]
fn the_portmapper_answers_datagrams() {
    run(async {
        let server = start().await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::task::spawn_local(answer_datagrams(server.service, socket));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut call = Encoder::default();
        Call { xid: 9, program: 100_000, version: 2, procedure: 3, credential: Credential::None }.encode(&mut call);
        call.words(&[100_003, 3, 6, 0]);
        client.send_to(call.bytes(), address).await.unwrap();
        let mut reply = [0; 512];
        let (len, _) = client.recv_from(&mut reply).await.unwrap();
        let (xid, results) = decode_reply(&reply[..len]).unwrap();
        assert_eq!((xid, results.unwrap().rest()), (9, &[0; 4][..]));
    });
}
