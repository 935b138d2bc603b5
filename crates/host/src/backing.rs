//! Backing stores of the real world: files and block devices (so iSCSI, FC, RBD-mapped).
//!
//! A file that went away (its server restarted, its path was unmounted) is looked for again
//! at each attempt. It is the same one if its inode is, and for a block device if it is at
//! least as large; anything else at that path is left alone, for dirty data of one disk must
//! never land on another.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base::port::{Drive, LocalFuture, MediaFault};
use base::{Buf, BufMut};
use cache::{Backing, BackingInfo, DriveBacking};
use control::{Problem, codes};
use rustix::fs::{FallocateFlags, fallocate};
use world_real::{RealDrive, Ring, open_drive};

/// A file or block device as backing store.
pub struct FileBacking {
    path: PathBuf,
    ring: Option<Ring>,
    drive: RefCell<Rc<RealDrive>>,
    /// For calls the drive has no port for: giving space back.
    file: RefCell<Rc<File>>,
    inode: Option<u64>,
    info: BackingInfo,
    /// The last answer was that it is gone.
    gone: Cell<bool>,
    punches: Cell<bool>,
}

/// What stays the same while a file is the same: nothing for a device.
fn inode_of(path: &Path) -> std::io::Result<Option<u64>> {
    let metadata = std::fs::metadata(path)?;
    Ok((!metadata.file_type().is_block_device()).then(|| metadata.ino()))
}

fn open_file(path: &Path) -> std::io::Result<Rc<File>> {
    OpenOptions::new().read(true).write(true).open(path).map(Rc::new)
}

impl FileBacking {
    /// Opens the file or device at `path`, which must exist.
    pub fn open(path: &Path, ring: Option<&Ring>) -> Result<FileBacking, Problem> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let refused = |why: String| {
            Problem::new(&codes::BACKING_UNUSABLE, format!("{} cannot be a backing store", path.display())).why(why)
        };
        let drive = open_drive(&path, ring).map_err(|error| refused(error.to_string()))?;
        let file = open_file(&path).map_err(|error| refused(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
        let info = drive.info();
        let info = BackingInfo {
            name: path.display().to_string(),
            store: format!("device {}", metadata.dev()),
            capacity_bytes: info.capacity_bytes,
            align_bytes: info.align_bytes,
            access: info.access,
        };
        let inode = inode_of(&path).map_err(|error| refused(error.to_string()))?;
        Ok(FileBacking {
            ring: ring.cloned(),
            drive: RefCell::new(drive),
            file: RefCell::new(file),
            inode,
            info,
            gone: Cell::new(false),
            punches: Cell::new(true),
            path,
        })
    }

    /// The drive, opened anew if the last answer was that it is gone.
    fn drive(&self) -> Result<Rc<RealDrive>, MediaFault> {
        if self.gone.get() {
            self.open_again().ok_or(MediaFault::Gone)?;
            self.gone.set(false);
        }
        Ok(self.drive.borrow().clone())
    }

    fn open_again(&self) -> Option<()> {
        (inode_of(&self.path).ok()? == self.inode).then_some(())?;
        let drive = open_drive(&self.path, self.ring.as_ref()).ok()?;
        (drive.info().capacity_bytes >= self.info.capacity_bytes).then_some(())?;
        *self.file.borrow_mut() = open_file(&self.path).ok()?;
        *self.drive.borrow_mut() = drive;
        Some(())
    }

    fn note(&self, done: Result<(), MediaFault>) -> Result<(), MediaFault> {
        self.gone.set(done == Err(MediaFault::Gone));
        done
    }

    /// Gives the space of a range back, or zeroes it keeping the space, without moving data;
    /// false if the file system cannot.
    async fn zero_in_place(&self, offset_bytes: u64, length_bytes: u64, may_punch: bool) -> bool {
        let file = self.file.borrow().clone();
        let Ok(file) = file.try_clone() else { return false };
        let flags = if may_punch { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        let (tell, told) = tokio::sync::oneshot::channel();
        // The call may take long and has no form that does not block; it is rare enough for a
        // thread of its own each time.
        let thread = std::thread::Builder::new().name("zero".into()).spawn(move || {
            let done = fallocate(&file, flags | FallocateFlags::KEEP_SIZE, offset_bytes, length_bytes);
            // Nobody listens if the disk is gone; the range is zero all the same.
            let _ = tell.send(done.is_ok());
        });
        thread.is_ok() && told.await.unwrap_or(false)
    }
}

impl Backing for FileBacking {
    fn info(&self) -> BackingInfo {
        self.info.clone()
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            match self.drive() {
                Err(fault) => (Err(fault), buf),
                Ok(drive) => {
                    let (done, buf) = drive.read(offset_bytes, buf).await;
                    (self.note(done), buf)
                }
            }
        })
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let drive = self.drive()?;
            self.note(drive.write(offset_bytes, vec![data]).await)
        })
    }

    fn zero(&self, offset_bytes: u64, length_bytes: u64, may_punch: bool) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let drive = self.drive()?;
            if self.punches.get() {
                if self.zero_in_place(offset_bytes, length_bytes, may_punch).await {
                    return Ok(());
                }
                self.punches.set(false);
            }
            let drive = DriveBacking::new(drive, String::new());
            self.note(drive.zero(offset_bytes, length_bytes, may_punch).await)
        })
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let drive = self.drive()?;
            self.note(drive.flush().await)
        })
    }
}
