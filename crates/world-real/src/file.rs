//! Opening a file or block device and keeping an eye on it (`design.md` 11.20).

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use base::port::{LocalFuture, MediaFault};
use base::{Buf, BufMut};
use rustix::fs::{AtFlags, StatxFlags, fstatfs, statx};

use crate::access::{Access, Driven};
use crate::ring::Ring;
use crate::threads::Threads;
use crate::workers::Workers;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// The least and the assumed alignment of direct I/O.
const SECTOR_BYTES: u32 = 512;
const PAGE_BYTES: u32 = 4096;

/// Why a path cannot be a drive or a journal leg.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is at the path.
    #[error("nothing is there")]
    NotFound,
    /// It is neither a regular file nor a block device.
    #[error("it is neither a regular file nor a block device")]
    WrongKind,
    /// The block device is mounted or otherwise in use.
    #[error("the device is in use (mounted, or held by another program)")]
    Busy,
    /// It may not be written.
    #[error("it may not be written by this user, or is read-only")]
    NotWritable,
    /// It has no room for anything.
    #[error("it is empty: size 0")]
    Empty,
    /// The system refuses for another reason.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

fn refusal(error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => OpenError::NotFound,
        Some(libc::EBUSY) => OpenError::Busy,
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => OpenError::NotWritable,
        _ => OpenError::System(error),
    }
}

/// What stays the same as long as a path leads to the same file or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    special: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino(), special: metadata.rdev() }
    }
}

/// An open file or block device, how it is driven, and what it was when it was opened.
pub(crate) struct MediaFile {
    pub(crate) driven: Driven,
    pub(crate) path: PathBuf,
    pub(crate) capacity_bytes: u64,
    pub(crate) is_block_device: bool,
    pub(crate) in_memory: bool,
    pub(crate) description: &'static str,
    identity: Identity,
}

/// What is demanded of each write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A later flush makes it durable.
    AtFlush,
    /// It is durable when it returns (`O_DSYNC`).
    AtOnce,
}

impl MediaFile {
    pub(crate) fn open(path: &Path, ring: Option<&Ring>, durability: Durability) -> Result<MediaFile, OpenError> {
        let found = std::fs::metadata(path).map_err(refusal)?;
        let is_block_device = found.file_type().is_block_device();
        if !is_block_device && !found.file_type().is_file() {
            return Err(OpenError::WrongKind);
        }
        let sync_flag = if durability == Durability::AtOnce { libc::O_DSYNC } else { 0 };
        let open = |more: i32| OpenOptions::new().read(true).write(true).custom_flags(sync_flag | more).open(path);
        // On a block device `O_EXCL` refuses one that is mounted or otherwise claimed;
        // the descriptor used for I/O is the one that claims it.
        let claim = if is_block_device { libc::O_EXCL } else { 0 };
        let plain = open(0).map_err(refusal)?;
        let identity = Identity::of(&plain.metadata()?);
        let in_memory = !is_block_device && is_in_memory(&plain)?;
        let capacity_bytes = size_bytes(&plain)?;
        let (driven, description) = if in_memory {
            (in_place(plain, durability)?, "memory")
        } else {
            drive_by(|more| open(claim | more), ring)?
        };
        let capacity_bytes = capacity_bytes - capacity_bytes % u64::from(driven.align_bytes);
        if capacity_bytes == 0 {
            return Err(OpenError::Empty);
        }
        let path = std::path::absolute(path)?;
        Ok(MediaFile { driven, path, capacity_bytes, is_block_device, in_memory, description, identity })
    }

    /// Whether the path still leads to what was opened, whole. Once it did not, it never
    /// does again. Two system calls (three for a device).
    pub(crate) fn check_identity(&self) -> Result<(), MediaFault> {
        if !self.driven.gone.get() && self.is_still_itself() {
            return Ok(());
        }
        self.driven.gone.set(true);
        Err(MediaFault::Gone)
    }

    fn check_latched(&self) -> Result<(), MediaFault> {
        if self.driven.gone.get() { Err(MediaFault::Gone) } else { Ok(()) }
    }

    fn is_still_itself(&self) -> bool {
        let Ok(at_path) = std::fs::metadata(&self.path) else { return false };
        let Ok(open) = self.driven.file.metadata() else { return false };
        let size = if self.is_block_device { size_bytes(&self.driven.file).unwrap_or(0) } else { open.len() };
        open.nlink() > 0 && Identity::of(&at_path) == self.identity && size >= self.capacity_bytes
    }
}

/// In place; what need not be durable at once (a drive's stripes) beside the shard if it is
/// large.
fn in_place(file: File, durability: Durability) -> io::Result<Driven> {
    let beside = match durability {
        Durability::AtFlush => Some((Arc::new(file.try_clone()?), Workers::of_process())),
        Durability::AtOnce => None,
    };
    let access = Access::Memory { beside };
    Ok(Driven { file: Rc::new(file), access, align_bytes: SECTOR_BYTES, gone: Cell::new(false) })
}

/// Direct I/O on the ring if both are to be had, else threads.
fn drive_by(open: impl Fn(i32) -> io::Result<File>, ring: Option<&Ring>) -> Result<(Driven, &'static str), OpenError> {
    let direct = match open(libc::O_DIRECT) {
        Ok(file) => direct_align_bytes(&file).map(|align_bytes| (file, align_bytes)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
        Err(error) => return Err(refusal(error)),
    };
    Ok(match (direct, ring) {
        (Some((file, align_bytes)), Some(ring)) => {
            let file = Rc::new(file);
            let driven = Driven { file, access: Access::Ring(ring.clone()), align_bytes, gone: Cell::new(false) };
            (driven, "io_uring direct")
        }
        (Some((file, align_bytes)), None) => (by_threads(file, align_bytes)?, "threads direct (no io_uring)"),
        (None, _) => {
            let file = open(0).map_err(refusal)?;
            (by_threads(file, SECTOR_BYTES)?, "threads buffered (no direct I/O)")
        }
    })
}

fn by_threads(file: File, align_bytes: u32) -> Result<Driven, OpenError> {
    let threads = Threads::new(file.try_clone()?);
    Ok(Driven { file: Rc::new(file), access: Access::Threads(threads), align_bytes, gone: Cell::new(false) })
}

/// The alignment direct I/O on `file` needs: what the kernel says, else what a trial
/// read accepts; none if it accepts nothing.
fn direct_align_bytes(file: &File) -> Option<u32> {
    let told = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    if told.stx_mask & StatxFlags::DIOALIGN.bits() != 0 {
        let needed = told.stx_dio_offset_align.max(told.stx_dio_mem_align);
        return (needed > 0 && needed <= PAGE_BYTES).then_some(needed.max(SECTOR_BYTES));
    }
    let mut buf = BufMut::zeroed(PAGE_BYTES as usize);
    [SECTOR_BYTES, PAGE_BYTES].into_iter().find(|&align| file.read_at(&mut buf[..align as usize], 0).is_ok())
}

fn is_in_memory(file: &File) -> io::Result<bool> {
    let kind = fstatfs(file)?.f_type;
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// Size of a regular file or block device.
pub(crate) fn size_bytes(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() {
        return Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?);
    }
    Ok(metadata.len())
}

/// Name of the file system `file` is on, for people.
pub(crate) fn file_system_name(file: &File) -> &'static str {
    match fstatfs(file).map(|stat| stat.f_type) {
        Ok(TMPFS_MAGIC) => "file on tmpfs",
        Ok(RAMFS_MAGIC) => "file on ramfs",
        Ok(0xef53) => "file on ext4",
        Ok(0x5846_5342) => "file on xfs",
        Ok(0x9123_683e) => "file on btrfs",
        Ok(0x794c_7630) => "file on overlayfs",
        Ok(0x2fc1_2fc1) => "file on zfs",
        _ => "file",
    }
}

impl MediaFile {
    pub(crate) fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        if let Err(fault) = self.check_latched() {
            return Box::pin(std::future::ready((Err(fault), buf)));
        }
        if !self.is_inside(offset_bytes, buf.len()) {
            return Box::pin(std::future::ready((Err(MediaFault::Io), buf)));
        }
        self.driven.read(offset_bytes, buf)
    }

    pub(crate) fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        if let Err(fault) = self.check_latched() {
            return Box::pin(std::future::ready(Err(fault)));
        }
        // A write beyond the end would make a file grow.
        if !self.is_inside(offset_bytes, data.iter().map(Buf::len).sum()) {
            return Box::pin(std::future::ready(Err(MediaFault::Io)));
        }
        self.driven.write(offset_bytes, data)
    }

    /// Makes completed writes durable; a file that is no longer itself cannot.
    pub(crate) fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        if let Err(fault) = self.check_identity() {
            return Box::pin(std::future::ready(Err(fault)));
        }
        self.driven.sync()
    }

    fn is_inside(&self, offset_bytes: u64, length_bytes: usize) -> bool {
        offset_bytes.checked_add(length_bytes as u64).is_some_and(|end| end <= self.capacity_bytes)
    }
}
