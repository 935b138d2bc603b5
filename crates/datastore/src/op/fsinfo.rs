//! FSINFO (RFC 1813 3.3.19).

use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of FSINFO. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsInfo {
    /// Largest READ.
    pub read_bytes_max: u32,
    /// Preferred READ.
    pub read_bytes_preferred: u32,
    /// READ sizes should be a multiple of this.
    pub read_bytes_multiple: u32,
    /// Largest WRITE.
    pub write_bytes_max: u32,
    /// Preferred WRITE.
    pub write_bytes_preferred: u32,
    /// WRITE sizes should be a multiple of this.
    pub write_bytes_multiple: u32,
    /// Preferred READDIR.
    pub readdir_bytes_preferred: u32,
    /// Largest file.
    pub file_bytes_max: u64,
    /// Granularity of times, in nanoseconds.
    pub time_delta_ns: u64,
    /// Properties with the bit values of the wire: LINK, SYMLINK, HOMOGENEOUS, CANSETTIME.
    pub properties: u32,
    /// Attributes of the inode asked about.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Limits of the server.
    pub async fn fsinfo(&self, caller: &Caller, file: &Handle) -> Result<FsInfo, Refused<Option<Attr>>> {
        let _ = (caller, file);
        todo!()
    }
}
