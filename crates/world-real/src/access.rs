//! How a file is driven: by the ring, in place, or by threads; one meaning for all three.
//!
//! A short read or write is continued from where it stopped (aligned down, for direct
//! I/O). A read that meets the end of the file says so: the file was truncated.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use base::port::{LocalFuture, MediaFault};
use base::{Buf, BufMut};
use bytes::Buf as _;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::ring::{Held, PIECES_MAX, Ring, RingOp};
use crate::threads::{Finished, Threads};
use crate::workers::Workers;

/// From this size on a drive's write to memory is not done on the shard's thread.
const BESIDE_BYTES: usize = 32 << 10;

/// Bytes moved in place after which a task gives way to others once.
const IN_PLACE_BYTES_PER_BUDGET_UNIT: usize = 8192;

/// How a file is driven.
pub(crate) enum Access {
    /// io_uring.
    Ring(Ring),
    /// Calls in place: they never wait. With `beside`, large writes are left to workers.
    Memory {
        /// The file for them.
        beside: Option<(Arc<File>, Workers)>,
    },
    /// Blocking calls on threads.
    Threads(Threads),
}

/// What went wrong, as the layers above see it.
fn fault_of(error: &io::Error) -> MediaFault {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO | libc::ESTALE | libc::EBADF | libc::ESHUTDOWN | libc::ENOMEDIUM) => {
            MediaFault::Gone
        }
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => MediaFault::ReadOnly,
        Some(libc::ETIMEDOUT | libc::ETIME) => MediaFault::Timeout,
        None if error.kind() == ErrorKind::UnexpectedEof => MediaFault::Gone,
        _ => MediaFault::Io,
    }
}

/// Reads all of `buf`; blocks.
pub(crate) fn read_whole(file: &File, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buf, offset_bytes)
}

/// Writes all of `data` in a row; blocks.
pub(crate) fn write_whole(file: &File, offset_bytes: u64, data: &[Buf]) -> io::Result<()> {
    if let [only] = data {
        return file.write_all_at(only, offset_bytes);
    }
    let mut at = offset_bytes;
    for group in data.chunks(PIECES_MAX) {
        let mut slices: SmallVec<[IoSlice<'_>; 16]> = group.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, at) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// A file and how it is driven.
pub(crate) struct Driven {
    pub(crate) file: Rc<File>,
    pub(crate) access: Access,
    pub(crate) align_bytes: u32,
    /// Latched: the file is not the one that was opened, or its device is gone.
    pub(crate) gone: Cell<bool>,
}

impl Driven {
    /// What went wrong, remembered if it is final.
    fn fault(&self, error: &io::Error) -> MediaFault {
        let fault = fault_of(error);
        if fault == MediaFault::Gone {
            self.gone.set(true);
        }
        fault
    }

    fn ring_fault(&self, result: i32) -> MediaFault {
        self.fault(&io::Error::from_raw_os_error(-result))
    }

    pub(crate) fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        match &self.access {
            Access::Ring(ring) => {
                let first = ring.read(&self.file, offset_bytes, buf, 0);
                Box::pin(self.finish_read(ring, offset_bytes, first))
            }
            Access::Memory { .. } => {
                let result = read_whole(&self.file, offset_bytes, &mut buf).map_err(|error| self.fault(&error));
                let length = buf.len();
                Box::pin(async move {
                    give_way_after(length).await;
                    (result, buf)
                })
            }
            Access::Threads(threads) => {
                let length = buf.len();
                let job = threads.read(offset_bytes, buf);
                Box::pin(async move {
                    match job.await {
                        Ok((result, Some(buf))) => (result.map_err(|error| self.fault(&error)), buf),
                        _ => (Err(MediaFault::Io), BufMut::zeroed(length)),
                    }
                })
            }
        }
    }

    async fn finish_read(&self, ring: &Ring, offset_bytes: u64, first: RingOp) -> (Result<(), MediaFault>, BufMut) {
        let (mut operation, mut done) = (first, 0);
        loop {
            let (result, held) = operation.await;
            let Held::Read(buf) = held else { unreachable!("a read holds its buffer") };
            match result {
                0 if done < buf.len() => return (Err(self.fault(&ErrorKind::UnexpectedEof.into())), buf),
                error if error < 0 && !is_retry(error) => {
                    return (Err(self.ring_fault(error)), buf);
                }
                read => done += read.max(0) as usize,
            }
            if done >= buf.len() {
                return (Ok(()), buf);
            }
            done -= done % self.align_bytes as usize;
            operation = ring.read(&self.file, offset_bytes + done as u64, buf, done);
        }
    }

    pub(crate) fn write(&self, offset_bytes: u64, mut data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        match &self.access {
            Access::Ring(ring) => {
                let later = if data.len() > PIECES_MAX { data.split_off(PIECES_MAX) } else { Vec::new() };
                let length = data.iter().map(Buf::len).sum();
                let first = ring.write(&self.file, offset_bytes, data);
                Box::pin(self.finish_write(ring, (offset_bytes, length), first, later))
            }
            Access::Memory { beside } => {
                let length = data.iter().map(Buf::len).sum();
                if let Some((file, workers)) = beside.as_ref().filter(|_| length >= BESIDE_BYTES) {
                    return Box::pin(self.write_beside(file.clone(), workers, offset_bytes, data));
                }
                let result = write_whole(&self.file, offset_bytes, &data).map_err(|error| self.fault(&error));
                drop(data);
                Box::pin(async move {
                    give_way_after(length).await;
                    result
                })
            }
            Access::Threads(threads) => {
                let job = threads.write(offset_bytes, data);
                Box::pin(self.wait_for(job))
            }
        }
    }

    /// Waits for `operation`, which covers `place` (offset, length), then writes `later`.
    async fn finish_write(
        &self,
        ring: &Ring,
        place: (u64, usize),
        mut operation: RingOp,
        mut later: Vec<Buf>,
    ) -> Result<(), MediaFault> {
        let (mut at, mut left) = place;
        loop {
            let (result, held) = operation.await;
            let Held::Write(mut data) = held else { unreachable!("a write holds its data") };
            if result < 0 && !is_retry(result) {
                return Err(self.ring_fault(result));
            }
            if result == 0 && left > 0 {
                return Err(MediaFault::Io);
            }
            let done = result.max(0) as usize;
            let done = if done < left { done - done % self.align_bytes as usize } else { done };
            at += done as u64;
            left -= done;
            if left == 0 {
                if later.is_empty() {
                    return Ok(());
                }
                let rest = if later.len() > PIECES_MAX { later.split_off(PIECES_MAX) } else { Vec::new() };
                data = std::mem::replace(&mut later, rest);
                left = data.iter().map(Buf::len).sum();
            } else {
                advance(&mut data, done);
            }
            operation = ring.write(&self.file, at, data);
        }
    }

    pub(crate) fn sync(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        match &self.access {
            Access::Ring(ring) => {
                let mut operation = ring.sync(&self.file);
                Box::pin(async move {
                    loop {
                        let (result, _) = operation.await;
                        if result >= 0 {
                            return Ok(());
                        }
                        if !is_retry(result) {
                            return Err(self.ring_fault(result));
                        }
                        operation = ring.sync(&self.file);
                    }
                })
            }
            Access::Memory { .. } => Box::pin(std::future::ready(Ok(()))),
            Access::Threads(threads) => Box::pin(self.wait_for(threads.sync())),
        }
    }

    fn write_beside(
        &self,
        file: Arc<File>,
        workers: &Workers,
        offset_bytes: u64,
        data: Vec<Buf>,
    ) -> impl Future<Output = Result<(), MediaFault>> {
        let result = Arc::new(Mutex::new(Ok(())));
        let put = result.clone();
        let done = workers.run(Box::new(move || {
            let written = write_whole(&file, offset_bytes, &data);
            drop(data);
            *put.lock().unwrap_or_else(PoisonError::into_inner) = written;
        }));
        async move {
            done.await;
            let written = std::mem::replace(&mut *result.lock().unwrap_or_else(PoisonError::into_inner), Ok(()));
            written.map_err(|error| self.fault(&error))
        }
    }

    async fn wait_for(&self, job: oneshot::Receiver<Finished>) -> Result<(), MediaFault> {
        match job.await {
            Ok((result, _)) => result.map_err(|error| self.fault(&error)),
            Err(_) => Err(MediaFault::Io),
        }
    }
}

fn is_retry(result: i32) -> bool {
    matches!(-result, libc::EINTR | libc::EAGAIN)
}

/// Takes `count` bytes off the front of `data`.
fn advance(data: &mut Vec<Buf>, mut count: usize) {
    while count > 0 {
        let piece = count.min(data[0].len());
        data[0].advance(piece);
        count -= piece;
        if data[0].is_empty() {
            data.remove(0);
        }
    }
}

/// I/O in place never waits, so a task that does much of it gives way now and then.
async fn give_way_after(length_bytes: usize) {
    for _ in 0..length_bytes.div_ceil(IN_PLACE_BYTES_PER_BUDGET_UNIT) {
        tokio::task::coop::consume_budget().await;
    }
}
