//! Room used by a datastore with a quota.
//!
//! Nobody keeps a running sum of used space per datastore: the store knows it per file. So
//! a quota is watched with an upper bound: the last count plus every byte written since
//! (overwrites too). Only when that bound reaches the quota are the files counted again,
//! so the cost is one walk over the inodes per quota's worth of writing, more often only
//! when the datastore is nearly full. Writes in the journal that the store does not count
//! yet may slip through; the quota is a limit for planning, not for safety.

use std::cell::Cell;

use base::FileId;
use engine::store::Store;

use crate::attr::FileKind;
use crate::export::Datastore;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{INODES, Inode, key_of_file};
use crate::gate::{Gates, Mode};
use crate::refusal::Refusal;
use crate::table::Scan;

/// What is known of the space a datastore takes.
#[derive(Default)]
pub(crate) struct Usage {
    /// At the last count; nothing before the first.
    counted: Cell<Option<u64>>,
    /// Bytes written since that count began.
    since: Cell<u64>,
    counting: Gates,
}

impl Usage {
    /// An upper bound, or 0 before the first count.
    pub fn bound(&self) -> u64 {
        self.counted.get().unwrap_or(0).saturating_add(self.since.get())
    }

    /// Whether so much was written since the last count that showing the bound as used
    /// would mislead by more than a hundredth of the quota.
    pub fn is_vague(&self, quota_bytes: u64) -> bool {
        self.counted.get().is_none() || self.since.get() > quota_bytes / 100
    }

    fn exceeds(&self, more_bytes: u64, quota_bytes: u64) -> bool {
        self.counted.get().is_none() || self.bound().saturating_add(more_bytes) > quota_bytes
    }
}

impl<S: Store> Filesystem<S> {
    /// Refuses a write that may take the datastore beyond its quota. What lies wholly in a
    /// file without holes takes no room and is always allowed.
    pub(crate) async fn check_quota(
        &self,
        datastore: &Datastore,
        file: FileId,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<(), Refusal> {
        let Some(quota) = datastore.options.borrow().quota_bytes else { return Ok(()) };
        let usage = &datastore.usage;
        if usage.exceeds(len_bytes, quota) {
            self.count_usage(datastore, |usage| usage.exceeds(len_bytes, quota)).await?;
            if usage.exceeds(len_bytes, quota) {
                let head = self.store.head(file).await?.ok_or(Refusal::Stale)?;
                let inside = offset_bytes.saturating_add(len_bytes) <= head.size_bytes;
                return if inside && head.used_bytes >= head.size_bytes { Ok(()) } else { Err(Refusal::QuotaExceeded) };
            }
        }
        usage.since.set(usage.since.get().saturating_add(len_bytes));
        Ok(())
    }

    /// Counts anew if `needed` still says so when it is this caller's turn.
    pub(crate) async fn count_usage(
        &self,
        datastore: &Datastore,
        needed: impl Fn(&Usage) -> bool,
    ) -> Result<(), Refusal> {
        let usage = &datastore.usage;
        let _turn = usage.counting.enter(WHOLE, Mode::Exclusive).await;
        if !needed(usage) {
            return Ok(());
        }
        let before = usage.since.replace(0);
        let counted = self.sum_used(datastore).await;
        match counted {
            Ok(bytes) => usage.counted.set(Some(bytes)),
            Err(_) => usage.since.set(usage.since.get().saturating_add(before)),
        }
        counted.map(drop)
    }

    async fn sum_used(&self, datastore: &Datastore) -> Result<u64, Refusal> {
        let (mut scan, mut sum) = (Scan::of(INODES), 0u64);
        loop {
            let rows = scan.next(&*self.store).await?;
            if rows.is_empty() {
                return Ok(sum);
            }
            for (key, value) in rows {
                let inode = Inode::from_row(&value).ok_or(Refusal::Inconsistent)?;
                if inode.datastore == datastore.id && inode.kind == FileKind::Regular {
                    let file = key_of_file(&key).ok_or(Refusal::Inconsistent)?;
                    let head = self.store.head(file).await?;
                    sum = sum.saturating_add(head.map_or(0, |head| head.used_bytes));
                }
            }
        }
    }
}
