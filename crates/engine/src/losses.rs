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
use crate::state::{BLOCKS, Mapping, decode_mapping};
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
                let word =
                    |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("a block key has 20 bytes"));
                let range =
                    LostRange { file: FileId(word(0)), offset_bytes: word(8) * BLOCK_BYTES, len_bytes: BLOCK_BYTES };
                if inner.is_lost(decode_mapping(value), stripes).await? {
                    match lost.last_mut().filter(|last| last.file == range.file && end(last) == range.offset_bytes) {
                        Some(last) => last.len_bytes += range.len_bytes,
                        None => lost.push(range),
                    }
                }
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == CHUNK) else { return Ok(lost) };
            from = [last, &[0][..]].concat();
            inner.world.yield_now().await;
        }
    }
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
