//! FSSTAT (RFC 1813 3.3.18).

use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of FSSTAT. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStat {
    /// Size of the datastore: the pool's, or its quota if that is less.
    pub total_bytes: u64,
    /// Of it free.
    pub free_bytes: u64,
    /// Of it free for this caller.
    pub available_bytes: u64,
    /// Most inodes.
    pub total_files: u64,
    /// Inodes that can still be created.
    pub free_files: u64,
    /// The same for this caller.
    pub available_files: u64,
    /// For how many seconds these numbers will stay: none.
    pub invariant_s: u32,
    /// Attributes of the inode asked about.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Room in the datastore; numbers from memory, never waiting for a drive.
    pub async fn fsstat(&self, caller: &Caller, file: &Handle) -> Result<FsStat, Refused<Option<Attr>>> {
        let _ = (caller, file);
        todo!()
    }
}
