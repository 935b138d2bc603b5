//! What is truly lost when too few units of a stripe are left: by file and range, found
//! from the maps (`faults.md` F10). Data units that are still there serve on their own, so
//! a lost stripe loses only the objects in the units that are gone.
//!
//! One walk over the block maps, whatever the number of stripes; every object that lies in
//! one of them is read.

use std::collections::BTreeSet;

use base::{FileId, ObjectId};
use raid::{Principal, StripeId};

use crate::engine::Engine;
use crate::inner::Inner;
use crate::maps::decode_block;
use crate::state::{BLOCKS, Mapping, decode_entry};
use crate::store::{BLOCK_BYTES, StoreRefusal};

/// Map entries looked at between two looks at other work.
const CHUNK: usize = 512;

/// A range of a file that cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostRange {
    /// The file.
    pub file: FileId,
    /// Where it starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}

impl Engine {
    /// Stripes that the rebuild found beyond repair since the last call.
    pub fn take_lost_stripes(&self) -> Vec<StripeId> {
        self.inner.rebuild.take_lost()
    }

    /// The ranges of files whose stored content lies in `stripes` and cannot be read.
    pub async fn lost_ranges(&self, stripes: &BTreeSet<StripeId>) -> Result<Vec<LostRange>, StoreRefusal> {
        let mut lost: Vec<LostRange> = Vec::new();
        let mut from = vec![0];
        loop {
            let inner = &self.inner;
            let entries = inner.resident(|state| state.tree(BLOCKS).scan(&state.pages, &from, CHUNK, |_| true)).await?;
            for (key, value) in &entries {
                let id = decode_block(key);
                let Some(mapping) = decode_entry(value) else { continue };
                if inner.is_lost(mapping, stripes).await? {
                    let seen_by = inner.resident(|state| state.files_of(id)).await?;
                    lost.extend(seen_by.into_iter().map(|file| LostRange {
                        file,
                        offset_bytes: id.block * BLOCK_BYTES,
                        len_bytes: BLOCK_BYTES,
                    }));
                }
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == CHUNK) else { return Ok(joined(lost)) };
            from = [last, &[0][..]].concat();
            inner.world.yield_now().await;
        }
    }
}

/// In order, and neighbours as one.
fn joined(mut lost: Vec<LostRange>) -> Vec<LostRange> {
    lost.sort_unstable();
    let mut joined: Vec<LostRange> = Vec::new();
    for range in lost {
        match joined.last_mut().filter(|last| last.file == range.file && end(last) == range.offset_bytes) {
            Some(last) => last.len_bytes += range.len_bytes,
            None => joined.push(range),
        }
    }
    joined
}

fn end(range: &LostRange) -> u64 {
    range.offset_bytes + range.len_bytes
}

impl Inner {
    async fn is_lost(&self, mapping: Mapping, stripes: &BTreeSet<StripeId>) -> Result<bool, StoreRefusal> {
        let object: ObjectId = mapping.object;
        let _era = self.era();
        let Some(row) = self.resident(|state| state.object(object)).await? else { return Ok(false) };
        Ok(stripes.contains(&row.place.stripe) && self.fetch_object(Principal::Scanner, mapping, row).await.is_err())
    }
}
