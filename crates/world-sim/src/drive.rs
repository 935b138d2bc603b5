//! The ports [`Drive`] and [`Leg`] over a simulated medium.
//!
//! An I/O starts when it is called, not when its future is polled, and goes on when the
//! future is dropped, as on a real ring. It takes a drawn time, then happens at once.
//! Misaligned requests panic: they are defects of the caller.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::port::{Drive, DriveInfo, Leg, LegInfo, LegKind, LocalFuture, MediaFault};
use base::{Buf, BufMut};

use crate::executor::Event;
use crate::media::{IoKind, SimMedia};
use crate::node::SimNode;

/// Result of an I/O on its way to the one who asked.
struct Answer<T> {
    slot: Rc<RefCell<(Option<T>, Option<Waker>)>>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Answer<T> {
        Answer { slot: self.slot.clone() }
    }
}

impl<T> Answer<T> {
    fn new() -> Answer<T> {
        Answer { slot: Rc::new(RefCell::new((None, None))) }
    }

    fn give(&self, value: T) {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            slot.0 = Some(value);
            slot.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.borrow_mut();
        match slot.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A medium as one node sees it.
struct Door {
    media: SimMedia,
    node: SimNode,
}

impl Door {
    fn assert_aligned(&self, offset_bytes: u64, length_bytes: usize, address: usize) {
        let align = u64::from(self.media.state().align_bytes);
        let name = self.media.name();
        assert!(offset_bytes.is_multiple_of(align), "{name}: offset {offset_bytes} is not aligned to {align}");
        assert!((length_bytes as u64).is_multiple_of(align), "{name}: length {length_bytes} is not aligned to {align}");
        assert!((address as u64).is_multiple_of(align), "{name}: a buffer is not aligned to {align}");
        assert!(length_bytes > 0, "{name}: an empty I/O");
    }

    /// Runs `finish` when the drive has served it; while the medium hangs, after that.
    fn complete(&self, kind: IoKind, length_bytes: usize, finish: Box<dyn FnOnce()>) {
        let core = &self.media.medium.core;
        let done_at_ns = self.media.served_at(kind, length_bytes);
        let media = self.media.clone();
        let call = Box::new(move || {
            if media.state().condition.hung {
                media.park(finish);
            } else {
                finish();
            }
        });
        core.schedule(done_at_ns, Event::Call(call));
    }

    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'static, (Result<(), MediaFault>, BufMut)> {
        self.assert_aligned(offset_bytes, buf.len(), buf.as_ptr() as usize);
        if !self.node.is_alive() {
            return Box::pin(std::future::pending());
        }
        let length = buf.len();
        self.media.note("read", [offset_bytes, length as u64, 0]);
        let (answer, media) = (Answer::new(), self.media.clone());
        let give = answer.clone();
        let finish = Box::new(move || {
            let result = media.finish_read(offset_bytes, &mut buf);
            media.note("read-done", [offset_bytes, content_word(&buf), code(result)]);
            give.give((result, buf));
        });
        self.complete(IoKind::Read, length, finish);
        Box::pin(answer)
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'static, Result<(), MediaFault>> {
        if !self.node.is_alive() {
            return Box::pin(std::future::pending());
        }
        let id = self.media.medium.core.fresh_id();
        let length = data.len();
        self.media.note("write", [offset_bytes, length as u64, content_word(&data)]);
        self.media.begin_write(id, offset_bytes, data);
        let (answer, media) = (Answer::new(), self.media.clone());
        let give = answer.clone();
        let finish = Box::new(move || {
            if let Some(result) = media.finish_write(id) {
                media.note("write-done", [offset_bytes, id, code(result)]);
                give.give(result);
            }
        });
        self.complete(IoKind::Write, length, finish);
        Box::pin(answer)
    }

    fn flush(&self) -> LocalFuture<'static, Result<(), MediaFault>> {
        if !self.node.is_alive() {
            return Box::pin(std::future::pending());
        }
        let mark = self.media.flush_mark();
        self.media.note("flush", [mark, 0, 0]);
        let (answer, media) = (Answer::new(), self.media.clone());
        let give = answer.clone();
        let finish = Box::new(move || {
            let result = media.finish_flush(mark);
            media.note("flush-done", [mark, 0, code(result)]);
            give.give(result);
        });
        self.complete(IoKind::Flush, 0, finish);
        Box::pin(answer)
    }
}

fn content_word(bytes: &[u8]) -> u64 {
    base::media_check(0, bytes).0
}

fn code(result: Result<(), MediaFault>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(MediaFault::Io) => 1,
        Err(MediaFault::Gone) => 2,
        Err(MediaFault::Timeout) => 3,
        Err(MediaFault::ReadOnly) => 4,
    }
}

/// A drive of the simulated world.
pub struct SimDrive {
    door: Door,
}

impl SimDrive {
    /// `media` as a drive of `node`.
    pub fn open(media: SimMedia, node: SimNode) -> SimDrive {
        SimDrive { door: Door { media, node } }
    }
}

impl Drive for SimDrive {
    fn info(&self) -> DriveInfo {
        let state = self.door.media.state();
        DriveInfo {
            model: state.model.clone(),
            serial: state.serial.clone(),
            capacity_bytes: state.capacity_bytes,
            align_bytes: state.align_bytes,
            turns: state.turns,
            access: "simulated",
        }
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        self.door.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        for piece in &data {
            self.door.assert_aligned(offset_bytes, piece.len(), piece.as_ptr() as usize);
        }
        self.door.write(offset_bytes, joined(data))
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.door.flush()
    }
}

/// One piece as it is, several copied together.
fn joined(mut data: Vec<Buf>) -> Buf {
    if data.len() == 1 {
        return data.swap_remove(0);
    }
    data.concat().into()
}

/// A journal leg of the simulated world.
pub struct SimLeg {
    door: Door,
}

impl SimLeg {
    /// `media` as a leg of `node`; made with
    /// [`SimWorld::leg_media`](crate::SimWorld::leg_media), so that writes are durable.
    pub fn open(media: SimMedia, node: SimNode) -> SimLeg {
        assert!(media.medium.write_through, "a leg's medium is durable on return");
        SimLeg { door: Door { media, node } }
    }
}

impl Leg for SimLeg {
    fn info(&self) -> LegInfo {
        let state = self.door.media.state();
        LegInfo {
            kind: LegKind::Simulated,
            name: state.serial.clone(),
            capacity_bytes: state.capacity_bytes,
            align_bytes: state.align_bytes,
        }
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        self.door.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.door.assert_aligned(offset_bytes, data.len(), data.as_ptr() as usize);
        self.door.write(offset_bytes, data)
    }

    /// With every second seed.
    fn gathers(&self) -> bool {
        self.door.media.medium.core.seed.is_multiple_of(2)
    }
}
