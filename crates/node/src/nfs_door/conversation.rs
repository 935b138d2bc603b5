//! One connection's task: a circle of notice, serve, send, receive, wait.
//!
//! ```text
//!   has the peer closed? -> requests that can go on -> send -> receive -> again,
//!                                                                or wait
//! ```
//! The peer's closing is looked for *before* requests are started: the event that brings
//! the last bytes of a dying connection also says that it was closed, and what it sent is
//! then not begun (`design.md` 11.1). A client that only shuts down its sending side is
//! taken as gone, too; no NFS client does that.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use engine::store::Store;
use nfs::record::SLICES_MAX;
use nfs::{Answer, Connection, Peer, Service, Standing, connection};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::{Place, RECORD_TIME};

/// Circles before other tasks get their turn.
const CIRCLES_MAX: usize = 8;
/// A record that comes slower than this per [`RECORD_TIME`] ends the connection.
const SLOW_BYTES: u64 = 64 << 10;

/// See the module's head.
pub(super) struct Conversation<F: Future> {
    stream: TcpStream,
    connection: Connection<F>,
    peer: Rc<Peer>,
    place: Place,
    stop: watch::Receiver<bool>,
    patience: Patience,
}

/// What is checked when [`RECORD_TIME`] has passed. The timer is touched once per period,
/// not once per request.
struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    received_bytes: u64,
    has_started_any: bool,
}

enum Received {
    Some,
    Nothing,
    Gone,
}

impl Conversation<std::future::Ready<Answer>> {
    /// A conversation of `peer` with `service`.
    pub(super) fn new<S: Store>(
        service: Rc<Service<S>>,
        peer: Rc<Peer>,
        stream: TcpStream,
        place: Place,
    ) -> Conversation<impl Future<Output = Answer>> {
        let stop = place.door.stop.subscribe();
        let patience = Patience { timer: None, received_bytes: 0, has_started_any: false };
        Conversation { stream, connection: connection(service, peer.clone()), peer, place, stop, patience }
    }
}

impl<F: Future<Output = Answer>> Conversation<F> {
    /// Runs until the connection is over.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut stopped = pin!(async move {
            // The sender lives in the door, which the place holds.
            let _ = stop.wait_for(|&is_stopped| is_stopped).await;
        });
        let mut is_stopping = false;
        poll_fn(|context| {
            if !is_stopping && stopped.as_mut().poll(context).is_ready() {
                is_stopping = true;
            }
            match catch_unwind(AssertUnwindSafe(|| self.turn(context, is_stopping))) {
                Ok(turn) => turn,
                Err(_) => {
                    self.panicked();
                    Poll::Ready(())
                }
            }
        })
        .await;
        if let Some(violation) = self.connection.violation() {
            self.place.door.count(|counts| counts.violations += 1);
            tracing::debug!(address = %self.peer.address, %violation, "NFS connection ended");
        }
    }

    fn panicked(&self) {
        let address = self.peer.address;
        if self.peer.parsing.is_parsing() {
            tracing::error!(%address, "defect in a decoder: the NFS connection is closed");
        } else {
            tracing::error!(%address, "defect in the store: it must not go on");
            self.place.door.defect.send_replace(true);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, is_stopping: bool) -> Poll<()> {
        for _ in 0..CIRCLES_MAX {
            if self.place.door.is_cut.get() {
                return Poll::Ready(());
            }
            if self.is_closed_by_peer(context) {
                self.connection.peer_gone();
            }
            let standing = self.connection.poll(context);
            if self.place.door.is_cut.get() {
                return Poll::Ready(());
            }
            if self.send(context).is_err() {
                self.connection.peer_gone();
            }
            if standing == Standing::Over || (is_stopping && self.is_finished()) {
                return Poll::Ready(());
            }
            match self.receive(context, is_stopping) {
                Received::Some => self.patience.has_started_any |= self.connection.received(),
                Received::Nothing => return self.wait(context),
                Received::Gone => self.connection.peer_gone(),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_finished(&mut self) -> bool {
        self.connection.requests() == 0 && self.connection.outbox().waiting_bytes() == 0
    }

    /// Whether the last event said so; costs no system call.
    fn is_closed_by_peer(&self, context: &mut Context<'_>) -> bool {
        let ready = pin!(self.stream.ready(Interest::READABLE)).poll(context);
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.connection.outbox().waiting_bytes() > 0 {
            let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
            let outbox = self.connection.outbox();
            let count = outbox.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    outbox.written(len);
                    self.place.door.count(|counts| counts.sent_bytes += len as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(context)?.is_pending() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, context: &mut Context<'_>, is_stopping: bool) -> Received {
        if is_stopping || !self.connection.wants_bytes() {
            return Received::Nothing;
        }
        // Less than there was room for means that the socket is drained: the runtime takes
        // note, and no second call is spent on being told so.
        let mut room = self.connection.room();
        let read = pin!(self.stream.read_buf(&mut room)).poll(context);
        match read {
            Poll::Pending => Received::Nothing,
            Poll::Ready(Ok(0) | Err(_)) => Received::Gone,
            Poll::Ready(Ok(len)) => {
                self.patience.received_bytes += len as u64;
                self.place.door.count(|counts| counts.received_bytes += len as u64);
                Received::Some
            }
        }
    }

    /// Nothing can be done now. Sees to it that a record that never ends, and memory of a
    /// connection that has fallen silent, are noticed later.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.patience.timer.is_none() && self.patience.received_bytes == 0 {
            return Poll::Pending;
        }
        let timer = self.patience.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(RECORD_TIME)));
        ready!(timer.as_mut().poll(context));
        let was_slow = !self.patience.has_started_any && self.patience.received_bytes < SLOW_BYTES;
        let waits_for_rest = self.connection.wants_bytes() && self.connection.is_inside_request();
        if was_slow && waits_for_rest {
            self.place.door.count(|counts| counts.violations += 1);
            tracing::debug!(address = %self.peer.address, "a record took too long to arrive");
            return self.end_slowly();
        }
        let is_silent = self.patience.received_bytes == 0;
        self.patience.received_bytes = 0;
        self.patience.has_started_any = false;
        if is_silent && !self.connection.is_inside_request() {
            self.patience.timer = None;
            self.connection.shrink();
            return Poll::Pending;
        }
        timer_again(&mut self.patience, context)
    }

    /// Closes unless requests are still at work, which are finished first.
    fn end_slowly(&mut self) -> Poll<()> {
        self.connection.peer_gone();
        self.patience.timer = None;
        self.patience.received_bytes = 0;
        if self.connection.requests() == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn timer_again(patience: &mut Patience, context: &mut Context<'_>) -> Poll<()> {
    let mut timer = Box::pin(tokio::time::sleep(RECORD_TIME));
    // A fresh timer is pending; this registers whom to wake.
    let _ = timer.as_mut().poll(context);
    patience.timer = Some(timer);
    Poll::Pending
}
