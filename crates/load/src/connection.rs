//! One TCP connection to a server: pipelined calls, answers in any order, and the
//! patience of a hard mount.
//!
//! Every call owns a [`Slot`] with the encoded record until its answer is in. A lost
//! connection is opened again with growing pauses, and every unanswered record is sent
//! again, in the order of issue and under its old xid, so the server's duplicate
//! request cache can recognise it (RFC 1813 section 4.5 leaves that to the server).
//!
//! ```text
//!  call() -> slot, to_send ──writev──> server ──recv──> xid -> slot -> wake the caller
//!                 ^                        |
//!                 └── all unanswered ──────┘ connection lost, opened again
//! ```
//!
//! Invariants: I1 a slot is in `by_xid` exactly while unanswered; I2 `to_send` names
//! only unanswered slots, each at most once; I3 only the front of `to_send` is partly
//! sent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use crate::rpc::{self, Credential, LAST_FRAGMENT, Program, REPLY_BYTES_MAX, RpcError};
use crate::xdr::Encoder;

/// Records sent by one `writev`.
const RECORDS_PER_SEND: usize = 64;
/// Room offered to one `recv`.
const RECEIVE_BYTES: usize = 256 << 10;
/// Pause before the first attempt to connect again; doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Open a lost connection again and resend, or fail all calls.
    pub ride_out: bool,
    /// Give up riding out after this long without a connection.
    pub ride_out_limit: Duration,
    /// A connection on which nothing arrives for this long while calls wait is
    /// dropped and treated as lost.
    pub silence_limit: Duration,
    /// TCP congestion control to ask for; the kernel's default if `None`.
    pub congestion_control: Option<String>,
    /// Bind a source port below 1024 (needs root; some servers insist).
    pub reserved_port: bool,
    /// Machine name of the AUTH_SYS credential.
    pub machine: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            ride_out: true,
            ride_out_limit: Duration::from_secs(600),
            silence_limit: Duration::from_secs(30),
            congestion_control: None,
            reserved_port: false,
            machine: "vmhold-load".into(),
        }
    }
}

/// What a connection lived through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// Times the connection was lost and opened again.
    pub reconnects: u64,
    /// Calls sent again.
    pub resent: u64,
    /// Time without a connection.
    pub disconnected: Duration,
    /// Answers nobody waited for (late duplicates).
    pub unexpected_replies: u64,
}

/// A connection; clones share it. Lives on the thread (`LocalSet`) that opened it.
#[derive(Clone)]
pub struct Connection {
    handle: Rc<Handle>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.handle.0.address).finish_non_exhaustive()
    }
}

/// Ends the driving task when the last clone of the connection goes.
struct Handle(Rc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut calls = self.0.calls.borrow_mut();
        calls.closed = true;
        calls.wake_driver();
    }
}

struct Shared {
    address: SocketAddr,
    behaviour: Behaviour,
    credential: Credential,
    calls: RefCell<Calls>,
}

/// Answer slot of a call.
enum Waiting {
    Free,
    Unanswered(Option<Waker>),
    /// The caller went away; the answer will be dropped.
    Abandoned,
    Answered(Result<Bytes, RpcError>),
}

struct Slot {
    xid: u32,
    issue: u64,
    record: Vec<u8>,
    waiting: Waiting,
}

struct Calls {
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_xid: HashMap<u32, usize>,
    to_send: VecDeque<usize>,
    front_sent_bytes: usize,
    next_xid: u32,
    issued: u64,
    driver: Option<Waker>,
    /// No handle is left: the driver ends.
    closed: bool,
    /// Riding out was given up: every call fails at once.
    dead: bool,
    outages: Outages,
}

impl Connection {
    /// Connects. Must run inside a `LocalSet`: a task that drives the connection is
    /// started there and ends when the last handle is dropped.
    pub async fn open(address: SocketAddr, behaviour: Behaviour) -> io::Result<Connection> {
        let stream = connect(address, &behaviour).await?;
        let credential = Credential::root_at(&behaviour.machine);
        let shared = Rc::new(Shared { address, behaviour, credential, calls: RefCell::new(Calls::new()?) });
        tokio::task::spawn_local(drive(shared.clone(), stream));
        Ok(Connection { handle: Rc::new(Handle(shared)) })
    }

    /// Address of the server.
    pub fn address(&self) -> SocketAddr {
        self.handle.0.address
    }

    /// What happened to the connection so far.
    pub fn outages(&self) -> Outages {
        self.handle.0.calls.borrow().outages
    }

    /// Whether a lost connection is ridden out.
    pub fn rides_out(&self) -> bool {
        self.handle.0.behaviour.ride_out
    }

    /// Sends a call; the future gives the results part of the reply record. Dropping
    /// the future drops the answer, not the call.
    pub fn call(&self, program: Program, procedure: u32, arguments: impl FnOnce(&mut Encoder<'_>)) -> Call<'_> {
        let shared = &*self.handle.0;
        let slot = shared.calls.borrow_mut().issue(|record, xid| {
            rpc::encode_call(record, xid, (program, procedure), &shared.credential, arguments);
        });
        Call { shared, slot, finished: false }
    }
}

/// A call on its way.
pub struct Call<'a> {
    shared: &'a Shared,
    slot: usize,
    finished: bool,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Future for Call<'_> {
    type Output = Result<Bytes, RpcError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let calls = &mut *self.shared.calls.borrow_mut();
        let slot = &mut calls.slots[self.slot];
        match &mut slot.waiting {
            Waiting::Unanswered(waker) => {
                if !waker.as_ref().is_some_and(|old| old.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            waiting => {
                let Waiting::Answered(answer) = std::mem::replace(waiting, Waiting::Free) else {
                    unreachable!("a slot with a caller is unanswered or answered");
                };
                calls.free.push(self.slot);
                self.finished = true;
                Poll::Ready(answer)
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let calls = &mut *self.shared.calls.borrow_mut();
        let waiting = &mut calls.slots[self.slot].waiting;
        if matches!(waiting, Waiting::Unanswered(_)) {
            *waiting = Waiting::Abandoned;
        } else {
            *waiting = Waiting::Free;
            calls.free.push(self.slot);
        }
    }
}

impl Calls {
    fn new() -> io::Result<Calls> {
        let mut first_xid = [0; 4];
        getrandom::fill(&mut first_xid).map_err(io::Error::other)?;
        Ok(Calls {
            slots: Vec::new(),
            free: Vec::new(),
            by_xid: HashMap::new(),
            to_send: VecDeque::new(),
            front_sent_bytes: 0,
            next_xid: u32::from_ne_bytes(first_xid),
            issued: 0,
            driver: None,
            closed: false,
            dead: false,
            outages: Outages::default(),
        })
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Takes a slot, lets `encode` fill its record, and queues it.
    fn issue(&mut self, encode: impl FnOnce(&mut Vec<u8>, u32)) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { xid: 0, issue: 0, record: Vec::new(), waiting: Waiting::Free });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        if self.dead {
            slot.waiting = Waiting::Answered(Err(RpcError::Disconnected));
            return index;
        }
        slot.xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        slot.issue = self.issued;
        self.issued += 1;
        encode(&mut slot.record, slot.xid);
        slot.waiting = Waiting::Unanswered(None);
        let earlier = self.by_xid.insert(slot.xid, index);
        assert!(earlier.is_none(), "I1: four thousand million calls are not in flight");
        self.to_send.push_back(index);
        self.wake_driver();
        index
    }

    /// Hands a reply record to its caller.
    fn answer(&mut self, record: &Bytes) -> Result<(), RpcError> {
        let Some(index) = self.by_xid.remove(&rpc::reply_xid(record)?) else {
            self.outages.unexpected_replies += 1;
            return Ok(());
        };
        let results = rpc::results_offset(record).map(|offset| record.slice(offset..));
        self.settle(index, results);
        Ok(())
    }

    fn settle(&mut self, index: usize, results: Result<Bytes, RpcError>) {
        match std::mem::replace(&mut self.slots[index].waiting, Waiting::Answered(results)) {
            Waiting::Unanswered(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Waiting::Abandoned => {
                self.slots[index].waiting = Waiting::Free;
                self.free.push(index);
            }
            Waiting::Free | Waiting::Answered(_) => unreachable!("I1: only unanswered slots are in by_xid"),
        }
    }

    /// After a new connection: everything unanswered is to be sent, oldest first.
    fn send_all_again(&mut self) {
        let never_sent = self.to_send.len() - usize::from(self.front_sent_bytes > 0);
        let mut unanswered: Vec<usize> = self.by_xid.values().copied().collect();
        unanswered.sort_unstable_by_key(|&index| self.slots[index].issue);
        self.outages.resent += (unanswered.len() - never_sent) as u64;
        self.to_send = unanswered.into();
        self.front_sent_bytes = 0;
    }

    fn fail_all(&mut self) {
        self.dead = true;
        self.to_send.clear();
        let unanswered: Vec<usize> = self.by_xid.drain().map(|(_, index)| index).collect();
        for index in unanswered {
            self.settle(index, Err(RpcError::Disconnected));
        }
    }

    /// Takes `sent` bytes off the front of the queue.
    fn sent(&mut self, mut sent: usize) {
        while let Some(&front) = self.to_send.front() {
            let rest = self.slots[front].record.len() - self.front_sent_bytes;
            if sent < rest {
                self.front_sent_bytes += sent;
                return;
            }
            sent -= rest;
            self.front_sent_bytes = 0;
            self.to_send.pop_front();
        }
    }
}

/// Runs the connection until its last handle goes or riding out is given up.
async fn drive(shared: Rc<Shared>, mut stream: TcpStream) {
    loop {
        let end = pump(&shared, &mut stream).await;
        if matches!(end, End::Closed) {
            return;
        }
        drop(stream);
        let lost_at = Instant::now();
        match connect_again(&shared, lost_at).await {
            Some(again) => stream = again,
            None => return shared.calls.borrow_mut().fail_all(),
        }
        let calls = &mut *shared.calls.borrow_mut();
        calls.outages.reconnects += 1;
        calls.outages.disconnected += lost_at.elapsed();
        calls.send_all_again();
    }
}

async fn connect_again(shared: &Shared, lost_at: Instant) -> Option<TcpStream> {
    let mut pause = PAUSE_MIN;
    while shared.behaviour.ride_out && lost_at.elapsed() < shared.behaviour.ride_out_limit {
        if shared.calls.borrow().closed {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        if let Ok(stream) = connect(shared.address, &shared.behaviour).await {
            return Some(stream);
        }
    }
    None
}

async fn connect(address: SocketAddr, behaviour: &Behaviour) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(name) = &behaviour.congestion_control {
        rustix::net::sockopt::set_tcp_congestion(&socket, name)?;
    }
    if behaviour.reserved_port {
        bind_reserved(&socket, address.is_ipv4())?;
    }
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn bind_reserved(socket: &TcpSocket, ipv4: bool) -> io::Result<()> {
    let any: std::net::IpAddr =
        if ipv4 { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (512..1024).rev() {
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Why pumping ended.
enum End {
    Lost,
    Closed,
}

/// Received bytes and the record they are becoming.
#[derive(Default)]
struct Inbox {
    buffer: BytesMut,
    /// Fragments before the last one, of a record sent in several.
    fragments: Vec<u8>,
}

impl Inbox {
    /// The next whole record, if it is there.
    fn next_record(&mut self) -> Result<Option<Bytes>, RpcError> {
        while let Some(mark) = self.buffer.first_chunk::<4>() {
            let mark = u32::from_be_bytes(*mark);
            let length = (mark & !LAST_FRAGMENT) as usize;
            if length + self.fragments.len() > REPLY_BYTES_MAX {
                return Err(crate::xdr::Malformed("record longer than allowed").into());
            }
            if self.buffer.len() < 4 + length {
                self.buffer.reserve(4 + length - self.buffer.len());
                return Ok(None);
            }
            let fragment = self.buffer.split_to(4 + length).freeze().slice(4..);
            let last = mark & LAST_FRAGMENT != 0;
            if last && self.fragments.is_empty() {
                return Ok(Some(fragment));
            }
            self.fragments.extend_from_slice(&fragment);
            if last {
                return Ok(Some(std::mem::take(&mut self.fragments).into()));
            }
        }
        Ok(None)
    }
}

/// Sends and receives until the connection breaks or is not needed any more.
async fn pump(shared: &Shared, stream: &mut TcpStream) -> End {
    let mut inbox = Inbox::default();
    let mut heard_at = tokio::time::Instant::now();
    let mut silence = pin!(tokio::time::sleep(shared.behaviour.silence_limit));
    poll_fn(|context| {
        let mut calls = shared.calls.borrow_mut();
        if calls.closed {
            return Poll::Ready(End::Closed);
        }
        if !calls.driver.as_ref().is_some_and(|old| old.will_wake(context.waker())) {
            calls.driver = Some(context.waker().clone());
        }
        if send(&mut calls, stream, context).is_err() {
            return Poll::Ready(End::Lost);
        }
        match receive(&mut calls, stream, &mut inbox, context) {
            Ok(0) => {}
            Ok(_) => heard_at = tokio::time::Instant::now(),
            Err(_) => return Poll::Ready(End::Lost),
        }
        while silence.as_mut().poll(context).is_ready() {
            let quiet_since = if calls.by_xid.is_empty() { tokio::time::Instant::now() } else { heard_at };
            let limit = quiet_since + shared.behaviour.silence_limit;
            if limit <= tokio::time::Instant::now() {
                return Poll::Ready(End::Lost);
            }
            silence.as_mut().reset(limit);
        }
        Poll::Pending
    })
    .await
}

/// Sends what is queued until the socket is full.
fn send(calls: &mut Calls, stream: &mut TcpStream, context: &mut Context<'_>) -> io::Result<()> {
    while !calls.to_send.is_empty() {
        let mut slices = [IoSlice::new(&[]); RECORDS_PER_SEND];
        let mut used = 0;
        for (slice, &index) in slices.iter_mut().zip(&calls.to_send) {
            let skip = if used == 0 { calls.front_sent_bytes } else { 0 };
            *slice = IoSlice::new(&calls.slots[index].record[skip..]);
            used += 1;
        }
        match Pin::new(&mut *stream).poll_write_vectored(context, &slices[..used]) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(sent)) => calls.sent(sent),
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Receives until the socket is empty; gives the number of bytes. A short `recv` tells
/// tokio that the socket is empty, so the last round is not a system call.
fn receive(
    calls: &mut Calls,
    stream: &mut TcpStream,
    inbox: &mut Inbox,
    context: &mut Context<'_>,
) -> Result<usize, Lost> {
    let mut received = 0;
    loop {
        if inbox.buffer.capacity() - inbox.buffer.len() < RECEIVE_BYTES / 4 {
            inbox.buffer.reserve(RECEIVE_BYTES);
        }
        match pin!(stream.read_buf(&mut inbox.buffer)).poll(context) {
            Poll::Pending => return Ok(received),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Lost),
            Poll::Ready(Ok(bytes)) => received += bytes,
        }
        while let Some(record) = inbox.next_record().map_err(|_| Lost)? {
            calls.answer(&record).map_err(|_| Lost)?;
        }
    }
}

/// The connection ended, broke, or carries nonsense: all the same to the caller.
struct Lost;
