//! A drive that answers in time or not at all (`faults.md` F12).
//!
//! A drive may hang: neither answer nor fail. Whoever waits for it then waits for ever,
//! and with it everything behind. So every I/O has a limit; after it the caller is told
//! [`MediaFault::Timeout`] and goes on without the drive. What was started may still
//! happen; that is harmless, since a drive that missed a write or a flush is out of the
//! group by the time anything depends on it, and the buffers belong to the I/O.
//!
//! Cost: one timer per I/O, no copy.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use base::buf::{Buf, BufMut};
use base::port::{Clock, Drive, DriveInfo, LocalFuture, MediaFault, World};
use futures_util::future::{Either, select};

/// Limit of a read. Reconstruction takes over, so it can be short.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Limit of a write or a flush. Missing it costs the drive its membership.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// See the module's head.
pub(crate) struct TimedDrive {
    drive: Rc<dyn Drive>,
    clock: Rc<dyn Clock>,
}

impl TimedDrive {
    /// `drives`, each with limits.
    pub fn wrap(drives: Vec<Rc<dyn Drive>>, world: &World) -> Vec<Rc<dyn Drive>> {
        let wrap = |drive| Rc::new(TimedDrive { drive, clock: world.clock.clone() }) as Rc<dyn Drive>;
        drives.into_iter().map(wrap).collect()
    }

    async fn within<T>(&self, limit: Duration, io: LocalFuture<'_, T>) -> Option<T> {
        let late = self.clock.sleep_until(self.clock.now() + limit);
        match select(pin!(io), late).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

impl Drive for TimedDrive {
    fn info(&self) -> DriveInfo {
        self.drive.info()
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            let len_bytes = buf.len();
            let done = self.within(READ_LIMIT, self.drive.read(offset_bytes, buf)).await;
            done.unwrap_or_else(|| (Err(MediaFault::Timeout), BufMut::zeroed(len_bytes)))
        })
    }

    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let done = self.within(WRITE_LIMIT, self.drive.write(offset_bytes, data)).await;
            done.unwrap_or(Err(MediaFault::Timeout))
        })
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let done = self.within(WRITE_LIMIT, self.drive.flush()).await;
            done.unwrap_or(Err(MediaFault::Timeout))
        })
    }
}
