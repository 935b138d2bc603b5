//! One io_uring per shard, driven through the shard's runtime.
//!
//! ```text
//!   tasks ── push SQE, ring the doorbell (once) ──> driver task
//!   driver, when the tasks before it have run: one io_uring_enter for all new SQEs,
//!           then takes all CQEs and wakes their tasks
//!   nothing to do: the runtime sleeps in epoll_wait; the ring's fd becomes readable
//! ```
//!
//! Cost per I/O: 1/n of an `io_uring_enter` and 1/n of an `epoll_wait` at depth n; no
//! allocation here once the slots have grown to the depth in use (the port's boxed
//! future is one).
//!
//! Measured and dropped: deferred task work (`DEFER_TASKRUN`) with an eventfd. The same CPU
//! at depth 16 and half as much again at depth 1; without the eventfd it never wakes
//! `epoll_wait`.
//!
//! *Buffers.* An operation's buffer, file and I/O vectors live in its slot from the push
//! until its CQE was taken. Dropping the future marks the slot abandoned, nothing more.
//! If the whole ring is dropped with operations in flight, the slots are leaked: the
//! kernel may still write to them.

#![allow(unsafe_code, reason = "the kernel reads and writes our buffers; the slot rule above makes it sound")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::{Buf, BufMut};
use io_uring::{IoUring, opcode, squeue, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const SUBMISSION_ENTRIES: u32 = 256;
const COMPLETION_ENTRIES: u32 = 4096;
/// The kernel takes at most this many pieces in one vectored write (`IOV_MAX`).
pub(crate) const PIECES_MAX: usize = 1024;

/// What an operation keeps alive, and gives back.
pub(crate) enum Held {
    Nothing,
    Read(BufMut),
    Write(Vec<Buf>),
}

enum Progress {
    /// In the kernel's hands or queued for it; wakes whoever waits.
    Running(Option<Waker>),
    /// As before, and nobody waits any more.
    Abandoned,
    /// Finished with this result (bytes or negative errno).
    Done(i32),
    /// Not in use.
    Free,
}

struct Slot {
    progress: Progress,
    held: Held,
    file: Option<Rc<File>>,
    vectors: Vec<libc::iovec>,
}

struct Core {
    uring: RefCell<IoUring>,
    slots: RefCell<Vec<Slot>>,
    free_slots: RefCell<Vec<u32>>,
    /// Entries that found the submission queue full.
    overflow: RefCell<VecDeque<squeue::Entry>>,
    unsubmitted: Cell<bool>,
    running: Cell<usize>,
    doorbell: Cell<Option<Waker>>,
    syscalls: Cell<u64>,
}

/// A handle on the shard's ring; cheap to clone.
#[derive(Clone)]
pub struct Ring {
    core: Rc<Core>,
}

/// What the driver task holds: the ring, and through it the open descriptor.
struct Driver {
    core: Rc<Core>,
    fd: RawFd,
}

impl AsRawFd for Driver {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Ring {
    /// Sets up a ring and starts its driver task on the current `LocalSet`. Fails where
    /// io_uring is refused (containers, old kernels): use threads then.
    pub fn start() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let fd = uring.as_raw_fd();
        let core = Rc::new(Core {
            uring: RefCell::new(uring),
            slots: RefCell::default(),
            free_slots: RefCell::default(),
            overflow: RefCell::default(),
            unsubmitted: Cell::new(false),
            running: Cell::new(0),
            doorbell: Cell::new(None),
            syscalls: Cell::new(0),
        });
        let driver = Driver { core: core.clone(), fd };
        // SAFETY: the driver holds the core, the core owns the ring, the ring owns the
        // descriptor, and none of the three is replaced as long as the driver lives.
        let driver = unsafe { AsyncFd::register_with_interest(driver, Interest::READABLE) }?;
        tokio::task::spawn_local(drive(driver));
        Ok(Ring { core })
    }

    /// Reads into `buf[from..]` at `offset_bytes`.
    pub(crate) fn read(&self, file: &Rc<File>, offset_bytes: u64, mut buf: BufMut, from: usize) -> RingOp {
        let fd = types::Fd(file.as_raw_fd());
        let rest = &mut buf[from..];
        let length = u32::try_from(rest.len()).expect("an I/O is smaller than 4 GiB");
        let entry = opcode::Read::new(fd, rest.as_mut_ptr(), length).offset(offset_bytes).build();
        self.start_op(file, Held::Read(buf), Vec::new(), entry)
    }

    /// Writes the concatenation of `data` (at most [`PIECES_MAX`] pieces).
    pub(crate) fn write(&self, file: &Rc<File>, offset_bytes: u64, data: Vec<Buf>) -> RingOp {
        let fd = types::Fd(file.as_raw_fd());
        if let [only] = data.as_slice() {
            let length = u32::try_from(only.len()).expect("an I/O is smaller than 4 GiB");
            let entry = opcode::Write::new(fd, only.as_ptr(), length).offset(offset_bytes).build();
            return self.start_op(file, Held::Write(data), Vec::new(), entry);
        }
        let mut vectors = self.spare_vectors();
        vectors
            .extend(data.iter().map(|piece| libc::iovec { iov_base: piece.as_ptr() as *mut _, iov_len: piece.len() }));
        let count = u32::try_from(vectors.len()).expect("at most PIECES_MAX pieces");
        let entry = opcode::Writev::new(fd, vectors.as_ptr(), count).offset(offset_bytes).build();
        self.start_op(file, Held::Write(data), vectors, entry)
    }

    /// `fdatasync`.
    pub(crate) fn sync(&self, file: &Rc<File>) -> RingOp {
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        self.start_op(file, Held::Nothing, Vec::new(), entry)
    }

    /// Calls of `io_uring_enter` so far.
    pub fn enter_count(&self) -> u64 {
        self.core.syscalls.get()
    }

    /// The vector memory of the slot that the next operation gets.
    fn spare_vectors(&self) -> Vec<libc::iovec> {
        let next = self.core.free_slots.borrow().last().copied();
        next.map(|slot| std::mem::take(&mut self.core.slots.borrow_mut()[slot as usize].vectors)).unwrap_or_default()
    }

    fn start_op(&self, file: &Rc<File>, held: Held, vectors: Vec<libc::iovec>, entry: squeue::Entry) -> RingOp {
        let core = &self.core;
        let slot = Slot { progress: Progress::Running(None), held, file: Some(file.clone()), vectors };
        let index = core.take_slot(slot);
        core.running.set(core.running.get() + 1);
        core.push(entry.user_data(u64::from(index)));
        core.wake_driver();
        RingOp { core: core.clone(), slot: Some(index) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Lets the driver see that nobody may need it any more.
        self.core.wake_driver();
    }
}

impl Core {
    fn take_slot(&self, slot: Slot) -> u32 {
        let mut slots = self.slots.borrow_mut();
        if let Some(index) = self.free_slots.borrow_mut().pop() {
            let vectors = std::mem::take(&mut slots[index as usize].vectors);
            slots[index as usize] = slot;
            if slots[index as usize].vectors.capacity() == 0 {
                slots[index as usize].vectors = vectors;
            }
            return index;
        }
        slots.push(slot);
        u32::try_from(slots.len() - 1).expect("fewer than 2^32 operations at once")
    }

    fn free_slot(&self, index: u32) -> Held {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index as usize];
        slot.progress = Progress::Free;
        slot.file = None;
        slot.vectors.clear();
        let held = std::mem::replace(&mut slot.held, Held::Nothing);
        drop(slots);
        self.free_slots.borrow_mut().push(index);
        held
    }

    fn push(&self, entry: squeue::Entry) {
        if !self.overflow.borrow().is_empty() || !self.try_push(&entry) {
            self.overflow.borrow_mut().push_back(entry);
        }
        self.unsubmitted.set(true);
    }

    fn try_push(&self, entry: &squeue::Entry) -> bool {
        // SAFETY: everything the entry points to (buffer, vectors, open file) is in the
        // operation's slot, and the slot keeps it until the CQE was taken; slots are
        // leaked if the ring goes away earlier. Moving a slot moves handles, not the
        // memory they own.
        unsafe { self.uring.borrow_mut().submission().push(entry).is_ok() }
    }

    fn wake_driver(&self) {
        if let Some(waker) = self.doorbell.take() {
            waker.wake();
        }
    }

    /// Hands everything queued to the kernel. A busy kernel keeps the rest queued until
    /// completions were taken.
    fn submit(&self) {
        while self.unsubmitted.get() {
            self.syscalls.set(self.syscalls.get() + 1);
            match self.uring.borrow().submit() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => return,
                Err(error) => panic!("io_uring_enter refuses well-formed entries: {error}"),
            }
            let mut overflow = self.overflow.borrow_mut();
            self.unsubmitted.set(!overflow.is_empty());
            while let Some(entry) = overflow.front() {
                if !self.try_push(entry) {
                    break;
                }
                overflow.pop_front();
            }
        }
    }

    /// Takes every CQE and wakes its task; says how many.
    fn reap(&self) -> usize {
        let mut taken = 0;
        loop {
            let Some(entry) = self.uring.borrow_mut().completion().next() else { return taken };
            taken += 1;
            self.running.set(self.running.get() - 1);
            let index = u32::try_from(entry.user_data()).expect("user data is a slot index");
            self.complete(index, entry.result());
        }
    }

    fn complete(&self, index: u32, result: i32) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[index as usize];
        match std::mem::replace(&mut slot.progress, Progress::Done(result)) {
            Progress::Running(waker) => {
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Progress::Abandoned => {
                drop(slots);
                drop(self.free_slot(index));
            }
            Progress::Done(_) | Progress::Free => panic!("one CQE per operation"),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.running.get() > 0 {
            std::mem::forget(std::mem::take(&mut *self.slots.borrow_mut()));
        }
    }
}

/// Runs until no handle is left and nothing is in flight.
async fn drive(driver: AsyncFd<Driver>) {
    let core = &driver.get_ref().core;
    poll_fn(|context| {
        // Readiness is cleared before the queue is drained: a completion that comes
        // between the two makes the descriptor readable again.
        while let Poll::Ready(ready) = driver.poll_read_ready(context) {
            match ready {
                Ok(mut guard) => guard.clear_ready(),
                // The runtime is shutting down; it drops this task next.
                Err(_) => return Poll::Ready(()),
            }
        }
        loop {
            core.submit();
            if core.reap() == 0 {
                break;
            }
        }
        if core.unsubmitted.get() {
            // The kernel was short of something: try again after other tasks.
            context.waker().wake_by_ref();
        }
        if Rc::strong_count(core) == 1 && core.running.get() == 0 {
            return Poll::Ready(());
        }
        core.doorbell.set(Some(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// An operation in flight: its result (bytes or negative errno) and what it held.
pub(crate) struct RingOp {
    core: Rc<Core>,
    slot: Option<u32>,
}

impl Future for RingOp {
    type Output = (i32, Held);
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(i32, Held)> {
        let index = self.slot.expect("polled after it finished");
        let mut slots = self.core.slots.borrow_mut();
        match &mut slots[index as usize].progress {
            Progress::Running(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Progress::Done(result) => {
                let result = *result;
                drop(slots);
                let held = self.core.free_slot(index);
                self.slot = None;
                Poll::Ready((result, held))
            }
            Progress::Abandoned | Progress::Free => unreachable!("this future owns the slot"),
        }
    }
}

impl Drop for RingOp {
    fn drop(&mut self) {
        let Some(index) = self.slot else { return };
        let mut slots = self.core.slots.borrow_mut();
        let progress = &mut slots[index as usize].progress;
        if matches!(progress, Progress::Done(_)) {
            drop(slots);
            drop(self.core.free_slot(index));
        } else {
            *progress = Progress::Abandoned;
            drop(slots);
            // The last handle may be gone with this one.
            self.core.wake_driver();
        }
    }
}
