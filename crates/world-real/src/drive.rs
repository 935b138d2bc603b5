//! Drives: files and block devices.

use std::path::Path;
use std::rc::Rc;

use base::port::{Drive, DriveInfo, LocalFuture, MediaFault};
use base::{Buf, BufMut};

use crate::file::{Durability, MediaFile, OpenError, file_system_name};
use crate::ring::Ring;

/// A file or block device as a drive.
///
/// Costs per I/O: on the ring see [`Ring`]; in memory one `pread`, `pwrite` or `pwritev`.
/// Each flush adds two `stat`s to notice a file that was unlinked or replaced.
pub struct RealDrive {
    media: MediaFile,
    info: DriveInfo,
}

/// Opens the file or block device at `path` for reading and writing, driven in the best
/// way that works there: [`DriveInfo::access`] says which. `ring` is the shard's; `None`
/// where io_uring is refused.
pub fn open_drive(path: &Path, ring: Option<&Ring>) -> Result<Rc<RealDrive>, OpenError> {
    let media = MediaFile::open(path, ring, Durability::AtFlush)?;
    let info = describe(&media);
    Ok(Rc::new(RealDrive { media, info }))
}

fn describe(media: &MediaFile) -> DriveInfo {
    let mut turns = false;
    let (mut model, mut serial) = (file_system_name(&media.driven.file).to_string(), media.path.display().to_string());
    if media.is_block_device {
        model = sysfs_line(&media.path, "device/model").unwrap_or_else(|| "block device".to_string());
        let found = sysfs_line(&media.path, "device/serial").or_else(|| sysfs_line(&media.path, "serial"));
        serial = found.unwrap_or(serial);
        turns = sysfs_line(&media.path, "queue/rotational").is_some_and(|text| text == "1");
    }
    DriveInfo {
        model,
        serial,
        capacity_bytes: media.capacity_bytes,
        align_bytes: media.driven.align_bytes,
        turns,
        access: media.description,
    }
}

/// One attribute of a whole disk, or of the disk a partition is on.
fn sysfs_line(device: &Path, attribute: &str) -> Option<String> {
    let real = std::fs::canonicalize(device).ok()?;
    let place = std::fs::canonicalize(Path::new("/sys/class/block").join(real.file_name()?)).ok()?;
    let read = |place: &Path| std::fs::read_to_string(place.join(attribute)).ok();
    let text = read(&place).or_else(|| read(place.parent()?))?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

impl RealDrive {
    /// Whether the path still leads to the file that was opened, whole: not unlinked,
    /// replaced, truncated or detached. A failed check is final: every later call
    /// answers [`MediaFault::Gone`]. Three system calls; call it about once a second.
    pub fn check_identity(&self) -> Result<(), MediaFault> {
        self.media.check_identity()
    }

    /// The path it was opened at, absolute.
    pub fn path(&self) -> &Path {
        &self.media.path
    }
}

impl Drive for RealDrive {
    fn info(&self) -> DriveInfo {
        self.info.clone()
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        self.media.read(offset_bytes, buf)
    }

    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.media.write(offset_bytes, data)
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.media.flush()
    }
}
