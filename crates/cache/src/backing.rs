//! The port to the backing store: what a disk stands in front of. A file, a block device,
//! an NBD or NFS target, our own store.

use std::rc::Rc;

use base::port::{Drive, LocalFuture, MediaFault};
use base::{Buf, BufMut};

/// What is known of a backing store without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingInfo {
    /// Path or URI, for people.
    pub name: String,
    /// Disks with the same word here share one store, and so take turns at it.
    pub store: String,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Offsets and lengths of requests are multiples of this.
    pub align_bytes: u32,
    /// How it is driven, for status.
    pub access: &'static str,
}

/// A backing store. As with a [`Drive`], a write is durable only after a later
/// [`flush`](Backing::flush) has returned, and a call that failed may have been done in part.
///
/// A store that comes back after it was [`Gone`](MediaFault::Gone) may serve again: the
/// implementation opens it anew if it can prove that it is the same one.
pub trait Backing {
    /// What is known of it.
    fn info(&self) -> BackingInfo;
    /// Fills `buf` from `offset_bytes`; its content is undefined after a fault.
    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)>;
    /// Writes `data`, whose memory is aligned as a [`BufMut`]'s.
    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>>;
    /// Makes a range read as zeros. With `may_punch` its space may be given back.
    fn zero(&self, offset_bytes: u64, length_bytes: u64, may_punch: bool) -> LocalFuture<'_, Result<(), MediaFault>>;
    /// Makes every write that completed before this call durable.
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>>;
}

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: u64 = 1 << 20;

/// Any drive as a backing store; zeroes are written.
pub struct DriveBacking {
    drive: Rc<dyn Drive>,
    store: String,
}

impl DriveBacking {
    /// `drive`, which is part of `store` (see [`BackingInfo::store`]).
    pub fn new(drive: Rc<dyn Drive>, store: String) -> DriveBacking {
        DriveBacking { drive, store }
    }
}

impl Backing for DriveBacking {
    fn info(&self) -> BackingInfo {
        let info = self.drive.info();
        BackingInfo {
            name: info.serial,
            store: self.store.clone(),
            capacity_bytes: info.capacity_bytes,
            align_bytes: info.align_bytes,
            access: info.access,
        }
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        self.drive.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.drive.write(offset_bytes, vec![data])
    }

    fn zero(&self, offset_bytes: u64, length_bytes: u64, _may_punch: bool) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let zeros = BufMut::zeroed(ZEROS_BYTES.min(length_bytes) as usize).freeze();
            let mut done = 0;
            while done < length_bytes {
                let piece = ZEROS_BYTES.min(length_bytes - done);
                self.drive.write(offset_bytes + done, vec![zeros.slice(..piece as usize)]).await?;
                done += piece;
            }
            Ok(())
        })
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.drive.flush()
    }
}
