//! The service: one record in, one reply out.
//!
//! ```text
//!  record -> Call::decode -> who calls -> a change? -> duplicate-request cache
//!                                |no                      | new
//!                                +--------> program/procedure -> datastore -> Reply
//! ```
//! One thread, no runtime: [`Service::handle`] is a future that waits only for the
//! datastore. Replies may come in any order.
//!
//! What an 8 KiB WRITE costs here: no copy of the payload (it is handed on as a slice of
//! the receive buffer), one CRC of its arguments for the duplicate-request cache, one copy
//! of the 136-byte answer into the cache and one into the outbox; no allocation once
//! pools are warm. A READ adds handles of its data to the reply, no copy.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use base::meter::Kind;
use base::port::World;
use base::{Buf, Nanos};
use datastore::Store;
use datastore::{Caller, Filesystem, Refusal};

use crate::drc::{Begun, Drc, DrcCounts, Key, Ticket, Waited};
use crate::mount::{self, Mounts};
use crate::nlm::{self, Callback, Nlm};
use crate::portmap::{self, Portmap};
use crate::record::Reply;
use crate::rpc::{self, AuthSys, Call, Credential, NotServed, Unserved};
use crate::xdr::{Decoder, Encoder};
use crate::{nsm, v3};

/// Reply buffers kept for later.
const SPARE_BUFFERS_MAX: usize = 256;
/// A buffer that has grown beyond this (a long listing) is not kept.
const SPARE_BYTES_MAX: usize = 4096;
/// User and group of callers without credentials.
const NOBODY: u32 = 65534;

/// Whether bytes of a client are being read at this moment. A panic meanwhile is a defect
/// of a decoder and costs only that connection; any other panic is a defect of the store
/// (`faults.md` D.5).
#[derive(Debug, Default)]
pub struct Parsing(Cell<bool>);

impl Parsing {
    /// Marks what `read` does as parsing.
    pub fn during<T>(&self, read: impl FnOnce() -> T) -> T {
        self.0.set(true);
        let value = read();
        self.0.set(false);
        value
    }

    /// Whether a panic now came from a decoder.
    pub fn is_parsing(&self) -> bool {
        self.0.get()
    }
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The client's address.
    pub address: IpAddr,
    /// Our address that it called.
    pub local: IpAddr,
    /// See [`Parsing`].
    pub parsing: Parsing,
    /// When the requests being started arrived.
    pub arrived: Cell<Option<Nanos>>,
    /// The last caller: nearly always the next one too.
    last: RefCell<Option<Rc<Caller>>>,
}

impl Peer {
    /// A client at `address` that called our address `local`.
    pub fn new(address: IpAddr, local: IpAddr) -> Rc<Peer> {
        let (address, local) = (address.to_canonical(), local.to_canonical());
        Rc::new(Peer {
            address,
            local,
            parsing: Parsing::default(),
            arrived: Cell::new(None),
            last: RefCell::new(None),
        })
    }

    fn caller(&self, credential: &Credential<'_>) -> Rc<Caller> {
        let nobody = || AuthSys { machine: b"", uid: NOBODY, gid: NOBODY, gids: smallvec::SmallVec::new() };
        let sys = match credential {
            Credential::None => &nobody(),
            Credential::Sys(sys) => sys,
        };
        let same = |caller: &Rc<Caller>| {
            (caller.uid, caller.gid, caller.gids.as_slice(), caller.machine.as_bytes())
                == (sys.uid, sys.gid, sys.gids.as_slice(), sys.machine)
        };
        if let Some(caller) = self.last.borrow().as_ref().filter(|caller| same(caller)) {
            return caller.clone();
        }
        let caller = Rc::new(Caller {
            uid: sys.uid,
            gid: sys.gid,
            gids: sys.gids.to_vec(),
            address: self.address,
            machine: String::from_utf8_lossy(sys.machine).into_owned(),
        });
        *self.last.borrow_mut() = Some(caller.clone());
        caller
    }
}

/// What becomes of a record.
#[derive(Debug)]
pub enum Answer {
    /// This goes back.
    Reply(Reply),
    /// The peer does not speak RPC: the connection ends.
    Hangup,
}

/// Counts since start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// NFS calls by procedure.
    pub calls: [u64; v3::PROCEDURES as usize],
    /// Time spent in them, by procedure, in nanoseconds.
    pub time_ns: [u64; v3::PROCEDURES as usize],
    /// Calls of MOUNT, NLM, NSM and portmapper.
    pub other_calls: u64,
    /// Calls refused as garbage, unknown or badly authenticated.
    pub unserved: u64,
    /// Records that were no calls.
    pub hangups: u64,
    /// The duplicate-request cache's.
    pub drc: DrcCounts,
}

/// Serves NFS, MOUNT, NLM, NSM and the portmapper over a filesystem.
pub struct Service<S> {
    fs: Rc<Filesystem<S>>,
    world: World,
    portmap: Portmap,
    drc: RefCell<Drc>,
    mounts: RefCell<Mounts>,
    nlm: Nlm,
    spare: RefCell<Vec<Vec<u8>>>,
    counts: RefCell<Counts>,
}

/// A call and who makes it.
struct Request<'a> {
    record: &'a Buf,
    call: Call<'a>,
    caller: Rc<Caller>,
    peer: &'a Peer,
    key: Option<Key>,
}

impl<S: Store> Service<S> {
    /// A service over `fs` with its journaled answers put back. `portmap` is what the
    /// built-in portmapper answers.
    pub async fn open(fs: Rc<Filesystem<S>>, world: World, portmap: Portmap) -> Result<Rc<Service<S>>, Refusal> {
        let mut drc = Drc::default();
        let (now, wall) = (world.clock.now(), world.clock.wall());
        for stored in fs.replies().await? {
            let Ok(key) = Key::decode(&stored.key) else { continue };
            let mut reply = Encoder::default();
            rpc::encode_success(&mut reply, key.xid);
            reply.fixed(&stored.reply);
            let age = Duration::from_nanos(wall.0.saturating_sub(stored.at.0));
            drc.restore(key, reply.bytes(), now, age);
        }
        Ok(Rc::new(Service {
            fs,
            world,
            portmap,
            drc: RefCell::new(drc),
            mounts: RefCell::default(),
            nlm: Nlm::default(),
            spare: RefCell::default(),
            counts: RefCell::default(),
        }))
    }

    /// The filesystem served.
    pub fn filesystem(&self) -> &Rc<Filesystem<S>> {
        &self.fs
    }

    /// The lock manager, for grants from elsewhere and calls to clients.
    pub fn nlm(&self) -> &Nlm {
        &self.nlm
    }

    /// Mounts as far as known: client and path.
    pub fn mounts(&self) -> Vec<(IpAddr, Vec<u8>)> {
        self.mounts.borrow().iter().map(|(client, path)| (client, path.to_vec())).collect()
    }

    /// Counts since start.
    pub fn counts(&self) -> Counts {
        Counts { drc: self.drc.borrow().counts(), ..*self.counts.borrow() }
    }

    /// Takes a reply's buffer back.
    pub fn recycle(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            spare.push(buffer);
        }
    }

    /// Requests of `peer` have arrived and are started now, one after the other.
    pub fn arrived(&self, peer: &Peer) {
        peer.arrived.set(Some(self.world.clock.now()));
    }

    fn new_reply(&self) -> Reply {
        Reply::on(self.spare.borrow_mut().pop().unwrap_or_default())
    }

    /// Serves one record.
    pub async fn handle(&self, peer: &Peer, record: Buf) -> Answer {
        let mut reply = self.new_reply();
        let (call, input) = match peer.parsing.during(|| Call::decode(&record)) {
            Ok(decoded) => decoded,
            Err(NotServed::NotACall) => {
                self.counts.borrow_mut().hangups += 1;
                return Answer::Hangup;
            }
            Err(NotServed::Denied { xid, why }) => {
                self.counts.borrow_mut().unserved += 1;
                rpc::encode_denied(&mut reply.head, xid, why);
                return Answer::Reply(reply);
            }
        };
        let caller = peer.caller(&call.credential);
        let mut request = Request { record: &record, call, caller, peer, key: None };
        if is_change(&request.call) {
            self.serve_once(&mut request, input, &mut reply).await;
        } else {
            self.serve(&request, input, &mut reply).await;
        }
        // Attributes and locks are known without asking the store. One of two sites must not tell them,
        // either, while the other one may be serving; whoever lost its place says nothing at all.
        match self.fs.store().may_tell().await {
            Ok(()) => Answer::Reply(reply),
            Err(_) => Answer::Hangup,
        }
    }

    /// Answers one UDP datagram. Over UDP there are only the portmapper, without its long
    /// list, and NSM (client machines announce their restarts that way): answers that are
    /// hardly longer than the question, so nobody can be flooded through us. What is no
    /// call gets no answer.
    pub async fn datagram(&self, peer: &Peer, datagram: Buf) -> Option<Vec<u8>> {
        const DUMP: u32 = 4;
        if let Ok((call, _)) = peer.parsing.during(|| Call::decode(&datagram)) {
            let why = match call.program {
                portmap::PROGRAM if call.procedure == DUMP => Some(Unserved::ProcedureUnavailable),
                portmap::PROGRAM | nsm::PROGRAM => None,
                _ => Some(Unserved::ProgramUnavailable),
            };
            if let Some(why) = why {
                let mut out = Encoder::default();
                rpc::encode_unserved(&mut out, call.xid, why);
                return Some(out.into_bytes());
            }
        }
        match self.handle(peer, datagram).await {
            Answer::Reply(reply) => Some(reply.message().to_vec()),
            Answer::Hangup => None,
        }
    }

    /// Serves a change unless it was served before.
    async fn serve_once(&self, request: &mut Request<'_>, input: Decoder<'_>, reply: &mut Reply) {
        let call = &request.call;
        let machine = match &call.credential {
            Credential::None => &b""[..],
            Credential::Sys(sys) => sys.machine,
        };
        let digest = Key::digest(call.version, machine, input.rest());
        let client = request.peer.address;
        let key = Key { client, xid: call.xid, program: call.program, procedure: call.procedure, digest };
        let ticket = loop {
            match self.drc.borrow_mut().begin(key, self.world.clock.now()) {
                Begun::New(ticket) => break ticket,
                Begun::Done(answer) => return reply.head.fixed(answer),
                Begun::Running => {}
            }
            if let Some(answer) = self.answer_of_first(&key).await {
                return reply.head.fixed(&answer);
            }
        };
        let guard = TicketGuard { drc: &self.drc, ticket: Some(ticket) };
        request.key = Some(key);
        let may_ask_again = self.serve(request, input, reply).await;
        if !may_ask_again {
            guard.finish(reply.message(), self.world.clock.now());
        }
    }

    /// Waits for the first copy of a request; `None` if it was not done after all.
    async fn answer_of_first(&self, key: &Key) -> Option<Vec<u8>> {
        std::future::poll_fn(|context| match self.drc.borrow_mut().wait(key, context.waker()) {
            Some(Waited::StillRunning) => std::task::Poll::Pending,
            Some(Waited::Done(answer)) => std::task::Poll::Ready(Some(answer.to_vec())),
            None => std::task::Poll::Ready(None),
        })
        .await
    }

    /// Serves a call. Returns whether the answer is "later", which must not be kept.
    async fn serve(&self, request: &Request<'_>, mut input: Decoder<'_>, reply: &mut Reply) -> bool {
        let started = self.world.clock.now();
        let start = reply.head.len();
        rpc::encode_success(&mut reply.head, request.call.xid);
        let body = reply.head.len();
        let arrived = request.peer.arrived.get();
        let served = {
            // Pinned here, so that it lies in this future once, not once for each way below.
            let work = pin!(self.dispatch(request, &mut input, reply));
            match self.fs.store().meter().filter(|_| request.call.program == v3::PROGRAM) {
                Some(meter) => meter.operation(kind_of(request.call.procedure), arrived, work).await,
                None => work.await,
            }
        };
        self.count(&request.call, started, served.is_err());
        if let Err(why) = served {
            reply.head.truncate(start);
            rpc::encode_unserved(&mut reply.head, request.call.xid, why);
            return false;
        }
        let status = &reply.head.bytes()[body..];
        request.call.program == v3::PROGRAM && status.starts_with(&v3::status::JUKEBOX.to_be_bytes())
    }

    fn count(&self, call: &Call<'_>, started: base::Nanos, is_unserved: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.unserved += u64::from(is_unserved);
        let at = call.procedure as usize;
        if call.program == v3::PROGRAM && at < counts.calls.len() {
            counts.calls[at] += 1;
            let time = self.world.clock.now().since(started);
            counts.time_ns[at] += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        } else {
            counts.other_calls += 1;
        }
    }

    async fn dispatch(
        &self,
        request: &Request<'_>,
        input: &mut Decoder<'_>,
        reply: &mut Reply,
    ) -> Result<(), Unserved> {
        let Request { record, call, caller, peer, key } = request;
        match call.program {
            v3::PROGRAM if call.version == v3::VERSION => {
                let procedure = v3::Procedure { fs: &self.fs, caller, parsing: &peer.parsing, record, key: *key };
                v3::serve(&procedure, call.procedure, input, reply).await
            }
            v3::PROGRAM => Err(Unserved::ProgramMismatch { low: v3::VERSION, high: v3::VERSION }),
            _ => Box::pin(self.dispatch_other(request, input, &mut reply.head)).await,
        }
    }

    async fn dispatch_other(
        &self,
        request: &Request<'_>,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        let Request { call, caller, peer, .. } = request;
        let parsing = &peer.parsing;
        let locks = nlm::Procedure { fs: &self.fs, caller, local: peer.local, version: call.version, parsing };
        match call.program {
            mount::PROGRAM => {
                let procedure = mount::Procedure { fs: &self.fs, caller, mounts: &self.mounts, parsing };
                mount::serve(&procedure, (call.version, call.procedure), input, out).await
            }
            nlm::PROGRAM => self.nlm.serve(&locks, call.procedure, input, out).await,
            nsm::PROGRAM if call.version != nsm::VERSION => {
                Err(Unserved::ProgramMismatch { low: nsm::VERSION, high: nsm::VERSION })
            }
            nsm::PROGRAM => {
                if let Some(restarted) = parsing.during(|| nsm::answer(call.procedure, input, out))? {
                    self.nlm.restarted(&locks, restarted).await;
                }
                Ok(())
            }
            portmap::PROGRAM => parsing.during(|| self.portmap.answer(call, input.clone(), peer.local, out)),
            _ => Err(Unserved::ProgramUnavailable),
        }
    }

    /// A client answered the call [`Nlm::next_callback`] gave out (`None`: it could not be
    /// reached).
    pub async fn callback_answered(&self, callback: Callback, reply: Option<&[u8]>) {
        let Some(grant) = callback.grant else { return };
        if !reply.is_some_and(Callback::is_refused) {
            return;
        }
        let (address, machine) = (callback.to, String::new());
        let caller = Caller { uid: 0, gid: 0, gids: Vec::new(), address, machine };
        self.nlm.take_back(&self.fs, &caller, &grant).await;
    }
}

const fn kind_of(procedure: u32) -> Kind {
    match procedure {
        6 => Kind::Read,
        7 => Kind::Write,
        _ => Kind::Other,
    }
}

fn is_change(call: &Call<'_>) -> bool {
    match call.program {
        v3::PROGRAM => v3::is_change(call.procedure),
        nlm::PROGRAM => nlm::is_change(call.procedure),
        _ => false,
    }
}

/// Gives the ticket back if the request ends without an answer.
struct TicketGuard<'a> {
    drc: &'a RefCell<Drc>,
    ticket: Option<Ticket>,
}

impl TicketGuard<'_> {
    fn finish(mut self, reply: &[u8], now: base::Nanos) {
        if let Some(ticket) = self.ticket.take() {
            self.drc.borrow_mut().finish(ticket, reply, now);
        }
    }
}

impl Drop for TicketGuard<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.drc.borrow_mut().abandon(ticket);
        }
    }
}
