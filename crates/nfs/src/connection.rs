//! A connection without its socket: received bytes in, bytes to send out, in between
//! requests at work.
//!
//! The owner of the socket turns in a circle: [`room`](Connection::room) and
//! [`received`](Connection::received) while there is something to read and
//! [`wants_bytes`](Connection::wants_bytes) says yes; [`poll`](Connection::poll); send what
//! the [`outbox`](Connection::outbox) holds. One read brings many requests, one write
//! takes many replies; per request there is neither a task nor an allocation.
//!
//! **Back-pressure.** At most [`REQUESTS_MAX`] requests and [`BYTES_MAX`] bytes (of
//! requests, and of replies made or to be expected) are at work; beyond that nothing more
//! is read, so a client that does not take its replies stops itself through TCP.
//!
//! **Death.** When the peer is gone ([`peer_gone`](Connection::peer_gone)), requests that
//! have not started never do: the client may already have sent them again elsewhere, and
//! newer ones after them (`design.md` 11.1). Those at work are finished, so that their
//! answers stand in the duplicate-request cache.

use std::rc::Rc;
use std::task::Context;

use base::Buf;
use bytes::BytesMut;
use bytes::buf::Limit;
use datastore::{Held, Store};

use crate::inflight::InFlight;
use crate::record::{Outbox, Receiver, Violation};
use crate::server::{Answer, Peer, Service};
use crate::v3;

/// Most requests at work on a connection.
pub const REQUESTS_MAX: usize = 128;
/// Most bytes held for a connection.
pub const BYTES_MAX: usize = 8 << 20;
/// While requests are held back for the sake of a VM's limit, so many more are taken on: a host
/// sends the requests of all its VMs on one connection.
const HELD_REQUESTS_MAX: usize = 512;
/// As [`HELD_REQUESTS_MAX`], in bytes.
const HELD_BYTES_MAX: usize = 16 << 20;
/// Least charge for a request: its reply and bookkeeping.
const REQUEST_BYTES_MIN: usize = 512;

/// See the module's head. `F` is the future of one request.
pub struct Connection<F: Future> {
    start: Box<dyn Fn(Buf) -> F>,
    recycle: Box<dyn Fn(Vec<u8>)>,
    arrived: Box<dyn Fn()>,
    held: Box<dyn Fn() -> Held>,
    receiver: Receiver,
    at_work: InFlight<F>,
    outbox: Outbox,
    is_gone: bool,
    violation: Option<Violation>,
}

/// How a connection stands after [`Connection::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Go on.
    Open,
    /// The peer broke the protocol, or is gone and nothing is at work any more: close.
    Over,
}

/// A connection of `peer` to `service`.
pub fn connection<S: Store>(service: Rc<Service<S>>, peer: Rc<Peer>) -> Connection<impl Future<Output = Answer>> {
    let recycler = service.clone();
    let (clock, arriving) = (service.clone(), peer.clone());
    let fs = service.filesystem().clone();
    let start = move |record: Buf| {
        let (service, peer) = (service.clone(), peer.clone());
        async move { service.handle(&peer, record).await }
    };
    let recycle = Box::new(move |buffer| recycler.recycle(buffer));
    let arrived = Box::new(move || clock.arrived(&arriving));
    Connection::new(Box::new(start), recycle, arrived, Box::new(move || fs.held()))
}

impl<F: Future<Output = Answer>> Connection<F> {
    /// A connection whose requests are served by `start`; `recycle` takes buffers of sent
    /// replies; `arrived` is told when requests have arrived and are started; `held`
    /// says what is held back in the store.
    pub fn new(
        start: Box<dyn Fn(Buf) -> F>,
        recycle: Box<dyn Fn(Vec<u8>)>,
        arrived: Box<dyn Fn()>,
        held: Box<dyn Fn() -> Held>,
    ) -> Connection<F> {
        Connection {
            start,
            recycle,
            arrived,
            held,
            receiver: Receiver::default(),
            at_work: InFlight::default(),
            outbox: Outbox::default(),
            is_gone: false,
            violation: None,
        }
    }

    /// Whether there is room for more requests.
    pub fn wants_bytes(&self) -> bool {
        let weight = self.at_work.weight_bytes() + self.outbox.waiting_bytes();
        let held = (self.held)();
        let requests_max = REQUESTS_MAX + held.requests.min(HELD_REQUESTS_MAX);
        let bytes_max = BYTES_MAX + held.bytes.min(HELD_BYTES_MAX);
        !self.is_gone && self.violation.is_none() && self.at_work.len() < requests_max && weight < bytes_max
    }

    /// Where to put received bytes. Call [`received`](Connection::received) afterwards.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        self.receiver.room()
    }

    /// Starts the requests that have arrived, as far as limits allow. Returns whether any
    /// was started.
    pub fn received(&mut self) -> bool {
        let mut any = false;
        while self.wants_bytes() {
            match self.receiver.next() {
                Ok(None) => break,
                Ok(Some(record)) => {
                    if !any {
                        (self.arrived)();
                    }
                    any = true;
                    self.start(record);
                }
                Err(violation) => self.violation = Some(violation),
            }
        }
        any
    }

    fn start(&mut self, record: Buf) {
        let weight = weight_bytes(&record);
        if let Some(answer) = self.at_work.start((self.start)(record), weight) {
            Self::answered(answer, &mut self.outbox, &mut self.is_gone, &self.recycle);
        }
    }

    fn answered(answer: Answer, outbox: &mut Outbox, is_gone: &mut bool, recycle: &dyn Fn(Vec<u8>)) {
        match answer {
            Answer::Reply(reply) if !*is_gone => recycle(outbox.push(reply)),
            Answer::Reply(_) => {}
            Answer::Hangup => *is_gone = true,
        }
    }

    /// Goes on with requests that can, and starts those that had to wait.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Standing {
        loop {
            let Connection { at_work, outbox, is_gone, recycle, .. } = self;
            at_work.poll(context, |answer| Self::answered(answer, outbox, is_gone, recycle));
            if !self.received() {
                break;
            }
        }
        let is_over = self.violation.is_some() || self.is_gone;
        if is_over && self.at_work.is_empty() { Standing::Over } else { Standing::Open }
    }

    /// Replies to send.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The peer will neither send nor listen any more.
    pub fn peer_gone(&mut self) {
        self.is_gone = true;
        self.receiver = Receiver::default();
    }

    /// How the peer broke the protocol, if it did.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Requests at work.
    pub fn requests(&self) -> usize {
        self.at_work.len()
    }

    /// Whether part of a request has arrived and its rest is awaited.
    pub fn is_inside_request(&self) -> bool {
        self.receiver.is_inside_record()
    }

    /// Gives memory back while nothing happens.
    pub fn shrink(&mut self) {
        self.receiver.shrink();
    }
}

/// What a request holds on to until it is answered: itself, and for a READ the data asked
/// for (the last word of its arguments).
fn weight_bytes(record: &[u8]) -> usize {
    let word = |at: usize| {
        let bytes = record.get(at..at + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let is_read = word(12) == Some(v3::PROGRAM) && word(20) == Some(6);
    let wanted = if is_read { word(record.len().saturating_sub(4)).unwrap_or(0) as usize } else { 0 };
    record.len() + wanted.min(1 << 20) + REQUEST_BYTES_MIN
}
