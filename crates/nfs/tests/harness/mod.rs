//! A server in memory and clients that talk to it in bytes; the bytes come from and go to
//! `nfs3_types`, a codec that is not ours.

use std::cell::{Cell, RefCell};
use std::io::Cursor;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::port::{Chance, Clock, LocalFuture, Spawn, World};
use base::{Buf, FileId, Nanos, Osn, WallNanos};
use bytes::BufMut as _;
use datastore::{DatastoreOptions, Filesystem, Identity};
use engine::memory::MemoryStore;
use engine::store::{Change, Extent, FileHead, ReadOut, Row, Space, Store, StoreRefusal, Table, Wrote};
use nfs::record::SLICES_MAX;
use nfs::rpc::{AuthSys, Call, Credential};
use nfs::xdr::{Decoder, Encoder};
use nfs::{Answer, Connection, Mapping, Peer, Portmap, Service, Standing, Transport, connection};
use nfs3_types::xdr_codec::{Pack, Unpack};

const LAST_FRAGMENT: u32 = 1 << 31;

/// Time that goes on a little each time somebody looks.
struct TestClock(Cell<u64>);

impl Clock for TestClock {
    fn now(&self) -> Nanos {
        self.0.set(self.0.get() + 1_000);
        Nanos(self.0.get())
    }
    fn wall(&self) -> WallNanos {
        self.0.set(self.0.get() + 1_000);
        WallNanos(1_700_000_000_000_000_000 + self.0.get())
    }
    fn sleep_until(&self, _at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[derive(Default)]
struct Tasks(RefCell<Vec<LocalFuture<'static, ()>>>);

impl Spawn for Tasks {
    fn spawn(&self, _name: &'static str, task: LocalFuture<'static, ()>) {
        self.0.borrow_mut().push(task);
    }
}

struct NoChance;

impl Chance for NoChance {
    fn maybe(&self, _site: &'static str) -> bool {
        false
    }
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

/// [`MemoryStore`] whose changes can be held up, and counted.
#[derive(Default)]
pub struct GatedStore {
    inner: MemoryStore,
    pub is_shut: Cell<bool>,
    /// It has lost its place: nothing that it holds may be told.
    pub is_silenced: Cell<bool>,
    pub changes: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl GatedStore {
    /// Lets changes go on.
    pub fn open_gate(&self) {
        self.is_shut.set(false);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    async fn gate(&self) {
        std::future::poll_fn(|context| {
            if !self.is_shut.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        self.changes.set(self.changes.get() + 1);
    }
}

impl Store for GatedStore {
    fn next_file_id(&self) -> FileId {
        self.inner.next_file_id()
    }
    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        self.inner.head(file).await
    }
    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        self.inner.read(file, offset_bytes, len_bytes).await
    }
    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.gate().await;
        self.inner.write(file, offset_bytes, parts, at).await
    }
    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        self.gate().await;
        self.inner.commit(changes).await
    }
    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        self.inner.differences(one, other).await
    }
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        self.inner.get(table, key).await
    }
    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        self.inner.scan(table, from, limit).await
    }
    async fn may_tell(&self) -> Result<(), StoreRefusal> {
        if self.is_silenced.get() { Err(StoreRefusal::Stopped) } else { Ok(()) }
    }
    fn space(&self) -> Space {
        self.inner.space()
    }
}

/// Polls a future that waits for nothing outside.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

/// A server over a store in memory, with one datastore `tank`.
pub struct Server {
    pub store: Rc<GatedStore>,
    pub service: Rc<Service<GatedStore>>,
    world: World,
}

impl Server {
    pub fn new() -> Server {
        Self::with_options(DatastoreOptions::open())
    }

    pub fn with_options(options: DatastoreOptions) -> Server {
        let clock = Rc::new(TestClock(Cell::new(0)));
        let world = World { clock, spawn: Rc::new(Tasks::default()), chance: Rc::new(NoChance) };
        let store = Rc::new(GatedStore::default());
        now(Filesystem::format(&*store, &world, &identity(), DatastoreOptions::open())).unwrap();
        let service = open(&store, &world);
        now(service.filesystem().create_datastore("tank", options)).unwrap();
        Server { store, service, world }
    }

    /// The same store under a new server, as after a restart.
    pub fn restarted(self) -> Server {
        let Server { store, world, service } = self;
        drop(service);
        Server { service: open(&store, &world), store, world }
    }

    /// The answer to a datagram.
    pub fn datagram(&self, address: [u8; 4], message: &[u8]) -> Option<Vec<u8>> {
        now(self.service.datagram(&peer(address), Buf::copy_from_slice(message)))
    }

    pub fn client(&self, address: [u8; 4]) -> Client {
        let peer = peer(address);
        Client {
            wire: Box::new(connection(self.service.clone(), peer)),
            xid: 100,
            machine: b"host-a".to_vec(),
            received: Vec::new(),
        }
    }
}

fn peer(address: [u8; 4]) -> Rc<Peer> {
    Peer::new(IpAddr::from(address), IpAddr::from([10, 0, 0, 100]))
}

fn identity() -> Identity {
    Identity { pool: 1, handle_key: [7; 16] }
}

fn open(store: &Rc<GatedStore>, world: &World) -> Rc<Service<GatedStore>> {
    let fs = now(Filesystem::open(store.clone(), world.clone(), identity())).unwrap();
    let mapping = |program, version| Mapping { program, version, port: 2049, transport: Transport::Tcp };
    let portmap = Portmap { mappings: vec![mapping(100_003, 3), mapping(100_005, 3)] };
    now(Service::open(fs, world.clone(), portmap)).unwrap()
}

/// A connection whatever its request future is.
pub trait Wire {
    fn receive(&mut self, bytes: &[u8]) -> Standing;
    fn sent(&mut self) -> Vec<u8>;
    fn gone(&mut self);
    fn wants_bytes(&self) -> bool;
    fn requests(&self) -> usize;
}

impl<F: Future<Output = Answer>> Wire for Connection<F> {
    fn receive(&mut self, bytes: &[u8]) -> Standing {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut room = self.room();
            let step = room.remaining_mut().min(rest.len()).min(60_000);
            room.put_slice(&rest[..step]);
            rest = &rest[step..];
            self.received();
        }
        self.poll(&mut Context::from_waker(Waker::noop()))
    }
    fn sent(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.outbox().waiting_bytes() > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); SLICES_MAX];
            let count = self.outbox().slices(&mut slices);
            let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            self.outbox().written(next.len());
            sent.extend(next);
        }
        sent
    }
    fn gone(&mut self) {
        self.peer_gone();
    }
    fn wants_bytes(&self) -> bool {
        Connection::wants_bytes(self)
    }
    fn requests(&self) -> usize {
        Connection::requests(self)
    }
}

/// One connection of a client.
pub struct Client {
    pub wire: Box<dyn Wire>,
    pub xid: u32,
    pub machine: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    /// A call as a record, with the next xid.
    pub fn record(&mut self, (program, version, procedure): (u32, u32, u32), arguments: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let sys = AuthSys { machine: &self.machine, uid: 0, gid: 0, gids: smallvec::smallvec![0, 10] };
        let mut out = Encoder::default();
        Call { xid: self.xid, program, version, procedure, credential: Credential::Sys(sys) }.encode(&mut out);
        out.fixed(arguments);
        framed(out.bytes())
    }

    /// Sends bytes and returns the messages that come back.
    pub fn exchange(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.wire.receive(bytes);
        self.replies()
    }

    /// Messages that have come back.
    pub fn replies(&mut self) -> Vec<Vec<u8>> {
        self.wire.receive(&[]);
        self.received.extend(self.wire.sent());
        let mut messages = Vec::new();
        while let Some(mark) = self.received.first_chunk::<4>() {
            let len = (u32::from_be_bytes(*mark) & !LAST_FRAGMENT) as usize;
            messages.push(self.received[4..4 + len].to_vec());
            self.received.drain(..4 + len);
        }
        messages
    }

    /// Calls and returns the results of a call that was served.
    pub fn call(&mut self, what: (u32, u32, u32), arguments: &[u8]) -> Vec<u8> {
        let record = self.record(what, arguments);
        let mut replies = self.exchange(&record);
        assert_eq!(replies.len(), 1, "one reply per call");
        results(&replies.remove(0), self.xid)
    }

    /// Calls an NFS procedure with foreign codecs on this side, and checks that every byte
    /// of the result is accounted for.
    pub fn nfs<A: Pack, R: Unpack + Pack>(&mut self, procedure: u32, arguments: &A) -> R {
        let results = self.call((100_003, 3, procedure), &packed(arguments));
        let result = unpacked::<R>(&results);
        assert_eq!(packed(&result), results, "encoded again it is the same");
        result
    }

    /// The handle of a path.
    pub fn mount(&mut self, path: &[u8]) -> Result<Vec<u8>, u32> {
        let mut arguments = Encoder::default();
        arguments.opaque(path);
        let results = self.call((100_005, 3, 1), arguments.bytes());
        let mut results = Decoder::new(&results);
        match results.u32().unwrap() {
            0 => Ok(results.opaque(64).unwrap().to_vec()),
            status => Err(status),
        }
    }
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32 | LAST_FRAGMENT).to_be_bytes()[..], message].concat()
}

/// The results in a reply to call `xid` that was served.
pub fn results(reply: &[u8], xid: u32) -> Vec<u8> {
    let (answered, results) = nfs::rpc::decode_reply(reply).unwrap();
    assert_eq!(answered, xid);
    results.expect("the call was served").rest().to_vec()
}

pub fn packed<A: Pack>(value: &A) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes).unwrap();
    bytes
}

pub fn unpacked<R: Unpack>(bytes: &[u8]) -> R {
    let mut input = Cursor::new(bytes);
    let (value, _) = R::unpack(&mut input).unwrap();
    assert_eq!(input.position(), bytes.len() as u64, "nothing is left over");
    value
}
