//! The doors to the world. The real world (`world-real`) and the simulated one
//! (`world-sim`) implement them; nothing below those two crates knows which it is in.
//!
//! Every call only *starts* work and returns a future; nothing here blocks a thread.
//! Futures are local to the shard's thread. Dropping a future abandons the result, not
//! the work: a write that was started may still reach the medium (as in a crash).

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crate::buf::{Buf, BufMut};
use crate::time::{Nanos, WallNanos};

/// A future that stays on the shard's thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Why a drive or a journal leg did not do what was asked. These are faults that the
/// layer above promised to survive: inputs, not errors to hand to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaFault {
    /// The device answered with an I/O error for this range. Others may be fine.
    #[error("I/O error on this range")]
    Io,
    /// The device is gone, replaced, truncated or otherwise not the one that was opened.
    #[error("device is gone or no longer the one that was opened")]
    Gone,
    /// The device did not answer within the time the request allowed.
    #[error("device did not answer in time")]
    Timeout,
    /// The device accepts no writes.
    #[error("device is read-only")]
    ReadOnly,
}

/// What is known of a drive without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveInfo {
    /// Vendor and model, or the kind of file; selects the drive profile.
    pub model: String,
    /// Serial number, or the file's path.
    pub serial: String,
    /// Usable size in bytes.
    pub capacity_bytes: u64,
    /// Offsets and lengths of reads and writes are multiples of this (512 or 4,096).
    pub align_bytes: u32,
    /// The system says that it is a disk that turns.
    pub turns: bool,
    /// How it is driven ("io_uring direct", "threads", "memory"), for status.
    pub access: &'static str,
}

/// A drive: a file, a block device, or a simulated one.
///
/// Offsets, lengths and buffer addresses are aligned to [`DriveInfo::align_bytes`].
/// Bounded concurrency is the caller's duty. A write is durable only after a later
/// [`flush`](Drive::flush) has returned.
pub trait Drive {
    /// What is known of the drive now.
    fn info(&self) -> DriveInfo;
    /// Fills `buf` from `offset_bytes`. The buffer comes back in either case, its
    /// content undefined after a fault.
    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)>;
    /// Writes the concatenation of `data` at `offset_bytes`. Not atomic: after a crash
    /// any subset of its sectors may be there.
    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>>;
    /// Makes every write that completed before this call durable.
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>>;
}

/// What a journal leg is made of; decides what an acknowledgement promises, so status
/// always shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegKind {
    /// Persistent memory, mapped.
    PersistentMemory,
    /// A device or file written with direct, synchronous I/O.
    SyncDevice,
    /// A file in memory (tmpfs): survives a crash of the process, not of the machine.
    MemoryFile,
    /// The simulated world's.
    Simulated,
}

/// What is known of a journal leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegInfo {
    /// What it is made of.
    pub kind: LegKind,
    /// Path or device name.
    pub name: String,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Writes start and end at multiples of this.
    pub align_bytes: u32,
}

/// One place (NVRAM, device, file) that holds the journal. A [`write`](Leg::write) is
/// durable when it returns `Ok`, as far as [`LegKind`] promises.
pub trait Leg {
    /// What is known of the leg.
    fn info(&self) -> LegInfo;
    /// Fills `buf` from `offset_bytes`.
    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)>;
    /// Writes `data` (aligned address and length) at `offset_bytes`, durably.
    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>>;

    /// Whether [`write_gathered`](Leg::write_gathered) takes pieces from where they lie, so
    /// that a large payload need not be copied into one piece with its record. Memory does;
    /// direct I/O, which wants alignment, does not.
    fn gathers(&self) -> bool {
        false
    }

    /// Writes the concatenation of `pieces`, which is of aligned length, durably. The pieces
    /// themselves lie anywhere.
    fn write_gathered(&self, offset_bytes: u64, pieces: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.write(offset_bytes, BufMut::joined(&pieces).freeze())
    }
}

/// Time.
pub trait Clock {
    /// Monotonic time.
    fn now(&self) -> Nanos;
    /// Wall-clock time.
    fn wall(&self) -> WallNanos;
    /// Returns at `at` or shortly after.
    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()>;
}

/// CPU work that needs nothing of the shard but the buffers it brings along.
pub type Job = Box<dyn FnOnce() + Send>;

/// Background work: tasks on the shard's thread, jobs beside it.
pub trait Spawn {
    /// Runs `task` beside the caller. `name` is for traces.
    fn spawn(&self, name: &'static str, task: LocalFuture<'static, ()>);

    /// Does `job` (hashing, compression, parity: tens of microseconds and more) beside the
    /// shard where there are threads for it, in place where there are none. It starts at
    /// once; the future returns when it is done. Jobs may finish in any order.
    fn work(&self, job: Job) -> LocalFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
    }

    /// Lets everything else that can go on do so first, what just arrived from outside
    /// included. Long work pauses every few tens of microseconds; that is what keeps the
    /// latency of others flat.
    fn pause(&self) -> LocalFuture<'static, ()> {
        let mut paused = false;
        Box::pin(std::future::poll_fn(move |context| {
            if paused {
                return std::task::Poll::Ready(());
            }
            paused = true;
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }))
    }
}

/// Legal variation and randomness. The real world answers `false` to every `maybe` and
/// takes bytes from the system; the simulated world answers from its seed, so that tiny
/// batches, early flushes and extra yields are tried (`faults.md` B.1).
pub trait Chance {
    /// Whether to take the unusual but legal path named `site`.
    fn maybe(&self, site: &'static str) -> bool;
    /// Fills `bytes` with random ones (ids, keys).
    fn fill(&self, bytes: &mut [u8]);
}

/// All the doors that are not media, in one handle to pass around.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// Background work.
    pub spawn: Rc<dyn Spawn>,
    /// Variation and randomness.
    pub chance: Rc<dyn Chance>,
}

impl World {
    /// Lets the other tasks of the shard run; see [`Spawn::pause`].
    pub async fn yield_now(&self) {
        self.spawn.pause().await;
    }

    /// Starts `job` beside the shard (see [`Spawn::work`]); its result comes with the
    /// future. Costs two allocations and, in the real world, two wake-ups of threads: hand
    /// over many blocks at a time.
    pub fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        let result = Arc::new(Mutex::new(None));
        let put = result.clone();
        let done = self.spawn.work(Box::new(move || {
            let value = job();
            *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }));
        async move {
            done.await;
            let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
            value.expect("a job that is done has left its result")
        }
    }
}
