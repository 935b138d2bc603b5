//! Journal legs: places where a returned write is durable, as far as their kind says.

use std::path::Path;
use std::rc::Rc;

use base::port::{Leg, LegInfo, LegKind, LocalFuture, MediaFault};
use base::{Buf, BufMut};

use crate::dax::DaxMap;
use crate::file::{Durability, MediaFile, OpenError};
use crate::ring::Ring;

enum Medium {
    File(MediaFile),
    Mapped(DaxMap),
}

/// A journal leg: persistent memory, a block device, or a file.
///
/// Costs per write: on the ring one direct `O_DSYNC` write (the kernel sends it with
/// FUA, or flushes after it); on tmpfs one `pwrite`; on persistent memory one copy and a
/// line write-back, no system call.
pub struct RealLeg {
    medium: Medium,
    info: LegInfo,
    access: &'static str,
}

/// Opens the journal leg at `path`: a `/dev/dax` device, a file on a DAX file system, a
/// block device, or a file made by [`create_zeroed_file`](crate::create_zeroed_file).
pub fn open_leg(path: &Path, ring: Option<&Ring>) -> Result<Rc<RealLeg>, OpenError> {
    if let Some(map) = DaxMap::open(path)? {
        let info = LegInfo {
            kind: LegKind::PersistentMemory,
            name: std::path::absolute(path)?.display().to_string(),
            capacity_bytes: map.capacity_bytes(),
            align_bytes: 64,
        };
        return Ok(Rc::new(RealLeg { medium: Medium::Mapped(map), info, access: "mapped" }));
    }
    let media = MediaFile::open(path, ring, Durability::AtOnce)?;
    let info = LegInfo {
        kind: if media.in_memory { LegKind::MemoryFile } else { LegKind::SyncDevice },
        name: media.path.display().to_string(),
        capacity_bytes: media.capacity_bytes,
        align_bytes: media.driven.align_bytes,
    };
    let access = media.description;
    Ok(Rc::new(RealLeg { medium: Medium::File(media), info, access }))
}

impl RealLeg {
    /// How it is driven, for status; as [`DriveInfo::access`](base::port::DriveInfo).
    pub fn access(&self) -> &'static str {
        self.access
    }

    /// As [`RealDrive::check_identity`](crate::RealDrive::check_identity).
    pub fn check_identity(&self) -> Result<(), MediaFault> {
        match &self.medium {
            Medium::File(media) => media.check_identity(),
            Medium::Mapped(_) => Ok(()),
        }
    }
}

impl Leg for RealLeg {
    fn info(&self) -> LegInfo {
        self.info.clone()
    }

    fn read(&self, offset_bytes: u64, mut buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        match &self.medium {
            Medium::File(media) => media.read(offset_bytes, buf),
            Medium::Mapped(map) => {
                let result = map.read(offset_bytes, &mut buf);
                Box::pin(std::future::ready((result, buf)))
            }
        }
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        match &self.medium {
            Medium::File(media) => media.write(offset_bytes, vec![data]),
            Medium::Mapped(map) => Box::pin(std::future::ready(map.write(offset_bytes, &data))),
        }
    }

    fn gathers(&self) -> bool {
        matches!(&self.medium, Medium::File(media) if media.in_memory)
    }

    fn write_gathered(&self, offset_bytes: u64, pieces: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        match &self.medium {
            Medium::File(media) if media.in_memory => media.write(offset_bytes, pieces),
            _ => self.write(offset_bytes, BufMut::joined(&pieces).freeze()),
        }
    }
}
