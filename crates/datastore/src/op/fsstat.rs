//! FSSTAT (RFC 1813 3.3.18).

use engine::store::{BLOCK_BYTES, Space, Store};

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
        let attr = self.attr_for(caller, file).await?;
        let datastore = self.datastore(file.datastore()).map_err(|why| Refused { why, wcc: Some(attr) })?;
        let Space { mut total_bytes, mut free_bytes } = self.store.space();
        let quota_bytes = datastore.options.borrow().quota_bytes;
        if let Some(quota) = quota_bytes {
            // A store that cannot count now leaves the last figures standing.
            let _ = self.count_usage(&datastore, |usage| usage.is_vague(quota)).await;
            total_bytes = total_bytes.min(quota);
            free_bytes = free_bytes.min(quota.saturating_sub(datastore.usage.bound()));
        }
        Ok(FsStat {
            total_bytes,
            free_bytes,
            available_bytes: free_bytes,
            total_files: total_bytes / BLOCK_BYTES,
            free_files: free_bytes / BLOCK_BYTES,
            available_files: free_bytes / BLOCK_BYTES,
            invariant_s: 0,
            attr,
        })
    }
}
