//! One NBD connection: handshake, then requests, each a task of its own, answered in the
//! order in which they are done. Replies that are ready together go out in one write.
//!
//! What is read and not yet answered is bounded: a client that sends more waits in its
//! socket.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::port::MediaFault;
use base::{Buf, BufMut, BufPool};
use cache::{Disk, IoRefused};
use nbd::{Command, Errno, Export, Negotiation, PAYLOAD_BYTES_MAX, REQUEST_BYTES, Request, Step, reply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::agent::Attached;
use crate::nbd_door::Shared;

/// A client has this long for the handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Requests of a connection at work.
const REQUESTS_MAX: u32 = 256;
/// Payload of a connection at work, in permits of 4 KiB.
const PAYLOAD_PERMITS: u32 = 2 * PAYLOAD_BYTES_MAX / PERMIT_BYTES;
const PERMIT_BYTES: u32 = 4096;
const BUFFER_BYTES: usize = 64 << 10;
/// Requests up to this size use recycled buffers.
const POOLED_BYTES: usize = 64 << 10;
const POOLED_KEEP: usize = 32;

/// An answer on its way out. It keeps its request's place until it is written: a client that
/// does not take its answers gets no further requests in.
struct Reply {
    head: Vec<u8>,
    data: Option<Buf>,
    _place: Places,
}

type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Counts a connection of a disk while it lasts.
struct Client(Rc<Attached>);

impl Client {
    fn of(attached: Rc<Attached>) -> Client {
        attached.clients.set(attached.clients.get() + 1);
        Client(attached)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.set(self.0.clients.get() - 1);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(
    shared: &Shared,
    stream: impl AsyncRead + AsyncWrite + 'static,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (read, write) = tokio::io::split(stream);
    let mut read = BufReader::with_capacity(BUFFER_BYTES, read);
    let mut write = BufWriter::with_capacity(BUFFER_BYTES, write);
    let negotiated = tokio::time::timeout(HANDSHAKE_WITHIN, negotiate(shared, &mut read, &mut write)).await;
    let Some((export, structured)) = negotiated.map_err(|_| io::ErrorKind::TimedOut)?? else {
        return Ok(());
    };
    let Ok(attached) = shared.agent.find(&export.name) else { return Ok(()) };
    let disk = attached.disk.clone();
    let _client = Client::of(attached);
    let (replies, outgoing) = mpsc::unbounded_channel();
    let conversation = Rc::new(Conversation {
        disk,
        export,
        structured,
        replies,
        requests: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
        payload: Arc::new(Semaphore::new(PAYLOAD_PERMITS as usize)),
        buffers: BufPool::new(POOLED_BYTES, POOLED_KEEP),
    });
    let sending = tokio::task::spawn_local(send_all(write, outgoing));
    let stopped = async move {
        // Either said, or nobody is left to say it.
        let _ = stop.wait_for(|&stop| stop).await;
    };
    let received = tokio::select! {
        received = conversation.clone().receive(&mut read) => received,
        () = stopped => Ok(()),
    };
    // Requests at work hold the other ends of the channel: it ends with the last answer.
    drop(conversation);
    match sending.await {
        Ok(sent) => received.and(sent),
        Err(_) => received,
    }
}

async fn negotiate(
    shared: &Shared,
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> io::Result<Option<(Export, bool)>> {
    let mut out = Vec::new();
    let (mut negotiation, mut step) = Negotiation::begin(&mut out);
    loop {
        write.write_all(&out).await?;
        write.flush().await?;
        out.clear();
        let mut input = Vec::new();
        match step {
            Step::Need(count) => {
                input.resize(count, 0);
                read.read_exact(&mut input).await?;
            }
            Step::Skip(count) => {
                tokio::io::copy(&mut (&mut *read).take(count as u64), &mut tokio::io::sink()).await?;
            }
            Step::Transmit { export, structured } => return Ok(Some((export, structured))),
            Step::Close => return Ok(None),
        }
        step = negotiation.feed(&input, shared, &mut out).map_err(io::Error::other)?;
    }
}

/// Writes replies until the last sender is gone.
async fn send_all(
    mut write: BufWriter<impl AsyncWrite + Unpin>,
    mut outgoing: mpsc::UnboundedReceiver<Reply>,
) -> io::Result<()> {
    while let Some(reply) = outgoing.recv().await {
        let mut next = Some(reply);
        while let Some(reply) = next {
            write.write_all(&reply.head).await?;
            if let Some(data) = reply.data {
                write.write_all(&data).await?;
            }
            next = outgoing.try_recv().ok();
        }
        write.flush().await?;
    }
    write.shutdown().await
}

/// The transmission phase of a connection.
struct Conversation {
    disk: Disk,
    export: Export,
    structured: bool,
    replies: mpsc::UnboundedSender<Reply>,
    requests: Arc<Semaphore>,
    payload: Arc<Semaphore>,
    buffers: BufPool,
}

impl Conversation {
    async fn receive(self: Rc<Self>, read: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            let mut header = [0; REQUEST_BYTES];
            match read.read_exact(&mut header).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            let request = Request::decode(&header, &self.export);
            let request = request.ok_or_else(|| io::Error::other("the client is out of step"))?;
            if request.command == Ok(Command::Disconnect) {
                return Ok(());
            }
            // Neither semaphore is ever closed.
            let closed = |_| io::Error::other("closed");
            let place = self.requests.clone().acquire_owned().await.map_err(closed)?;
            let memory_bytes = match request.command {
                Ok(Command::Read) => request.length_bytes,
                _ => request.payload_bytes,
            };
            let memory = self.payload.clone().acquire_many_owned(memory_bytes.div_ceil(PERMIT_BYTES)).await;
            let memory = memory.map_err(closed)?;
            let mut payload = self.buffer(request.payload_bytes);
            read.read_exact(&mut payload).await?;
            let conversation = self.clone();
            tokio::task::spawn_local(async move {
                let (head, data) = conversation.answer(&request, payload.freeze()).await;
                // A client that has gone away asks again when it is back.
                let _ = conversation.replies.send(Reply { head, data, _place: (place, memory) });
            });
        }
    }

    fn buffer(&self, len_bytes: u32) -> BufMut {
        let len_bytes = len_bytes as usize;
        if len_bytes <= POOLED_BYTES { self.buffers.take(len_bytes) } else { BufMut::zeroed(len_bytes) }
    }

    async fn answer(&self, request: &Request, payload: Buf) -> (Vec<u8>, Option<Buf>) {
        let (cookie, structured) = (request.cookie, self.structured);
        let done = match request.command {
            Ok(command) => self.perform(command, request, payload).await,
            Err(errno) => Err(errno),
        };
        match done {
            Ok(None) => (reply::done(cookie, structured), None),
            Ok(Some(data)) => (reply::data(cookie, structured, request.offset_bytes, data.len()), Some(data)),
            Err(errno) => (reply::failed(cookie, structured, errno), None),
        }
    }

    async fn perform(&self, command: Command, request: &Request, payload: Buf) -> Result<Option<Buf>, Errno> {
        let Request { offset_bytes, length_bytes, durable, .. } = *request;
        let length = u64::from(length_bytes);
        let done = match command {
            Command::Read => {
                let read = self.disk.read(offset_bytes, self.buffer(length_bytes)).await.map_err(errno)?;
                return Ok(Some(read.freeze()));
            }
            Command::Write => self.disk.write(offset_bytes, payload, durable).await,
            Command::Flush => self.disk.flush().await,
            Command::Trim => self.disk.zero(offset_bytes, length, true, durable).await,
            Command::WriteZeroes { no_hole } => self.disk.zero(offset_bytes, length, !no_hole, durable).await,
            Command::Disconnect => Ok(()),
        };
        done.map(|()| None).map_err(errno)
    }
}

fn errno(refused: IoRefused) -> Errno {
    match refused {
        IoRefused::Range => Errno::Invalid,
        IoRefused::Backing(MediaFault::ReadOnly) => Errno::Perm,
        IoRefused::Backing(_) => Errno::Io,
        IoRefused::Closed => Errno::Shutdown,
    }
}
