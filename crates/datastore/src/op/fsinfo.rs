//! FSINFO (RFC 1813 3.3.19).

use engine::store::{FILE_BYTES_MAX, Store, WRITE_BYTES_MAX};

use super::read::READ_BYTES_MAX;
use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

const LINK: u32 = 0x01;
const SYMLINK: u32 = 0x02;
const HOMOGENEOUS: u32 = 0x08;
const CAN_SET_TIME: u32 = 0x10;

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
        let attr = self.attr_for(caller, file).await?;
        Ok(FsInfo {
            read_bytes_max: READ_BYTES_MAX as u32,
            read_bytes_preferred: READ_BYTES_MAX as u32,
            read_bytes_multiple: 4096,
            write_bytes_max: WRITE_BYTES_MAX as u32,
            write_bytes_preferred: WRITE_BYTES_MAX as u32,
            write_bytes_multiple: 4096,
            readdir_bytes_preferred: 64 << 10,
            file_bytes_max: FILE_BYTES_MAX,
            time_delta_ns: 1,
            properties: LINK | SYMLINK | HOMOGENEOUS | CAN_SET_TIME,
            attr,
        })
    }

    /// Attributes for an answer that is not about them.
    pub(super) async fn attr_for(&self, caller: &Caller, file: &Handle) -> Result<Attr, Refused<Option<Attr>>> {
        let bare = |why| Refused { why, wcc: None };
        self.admit(caller, file).await.map_err(bare)?;
        self.attr_now(file.file()).await.map_err(bare)?.ok_or(bare(Refusal::Stale))
    }
}
