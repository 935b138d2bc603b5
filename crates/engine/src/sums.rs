//! What a file holds, said so shortly that two stores can compare it: the sum in its head, and the
//! terms of its blocks that it is the sum of.
//!
//! Both are the same for the same content, however it is stored: a term depends on the block's number,
//! its content and the key (R-CHK-06). A head's sum follows when something is destaged or reclaimed, so
//! whoever compares waits until nothing of the file is left to be ([`Engine::summed`]). It reads no data,
//! but what a block that was written in part needs to be destaged.

use std::ops::Range;

use base::{FileId, content_check};
use futures_util::future::join_all;
use raid::Principal;

use crate::differences::Listed;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::layers::Layer;
use crate::read::Stored;
use crate::state::{State, sum_term};
use crate::store::{BLOCK_BYTES, StoreRefusal};

/// Rounds of destaging after which a view that is still not settled will not be: there is no room.
const ROUNDS_MAX: usize = 64;
/// Blocks taken down in one round.
const RECLAIM_BLOCKS: usize = 1 << 16;
/// Blocks that are looked at between two looks at other work.
const CHUNK: u64 = 128;
/// Blocks that are read at a time.
const READ_AHEAD: usize = 32;

/// What a block adds to its file's sum; none where it is damaged beyond repair.
pub type Term = (u64, Option<u128>);

impl Engine {
    /// A file or snapshot with a sum that covers all of its content. Whoever asks sees to it that it does
    /// not change meanwhile: what is written is waited for.
    ///
    /// # Errors
    /// The store's; `Unreadable` where content of it is lost.
    pub async fn summed(&self, file: FileId) -> Result<Option<Listed>, StoreRefusal> {
        self.settle_view(file).await?;
        let found = self
            .inner
            .resident(|state| {
                let lost = state.lost_in_view(file)?;
                Ok(state.file(file)?.map(|open| (Listed { file, head: open.head, frozen: open.frozen }, lost)))
            })
            .await?;
        match found {
            Some((_, Some(block))) => Err(StoreRefusal::Unreadable { file, offset_bytes: block * BLOCK_BYTES }),
            found => Ok(found.map(|(listed, _)| listed)),
        }
    }

    /// The terms of blocks of a file, in order; holes have none. From what the metadata says.
    ///
    /// # Errors
    /// The store's.
    pub async fn terms(&self, file: FileId, blocks: Range<u64>) -> Result<Vec<Term>, StoreRefusal> {
        self.settle_view(file).await?;
        let mut terms = Vec::new();
        let mut from = blocks.start;
        while from < blocks.end {
            let to = blocks.end.min(from + CHUNK);
            terms.extend(self.inner.resident(|state| state.terms(file, from..to)).await?);
            from = to;
            self.inner.world.yield_now().await;
        }
        Ok(terms)
    }

    /// As [`terms`](Engine::terms), made anew from the data, which is read from the drives.
    ///
    /// # Errors
    /// The store's.
    pub async fn terms_of_data(&self, file: FileId, blocks: Range<u64>) -> Result<Vec<Term>, StoreRefusal> {
        self.settle_view(file).await?;
        let all: Vec<u64> = blocks.collect();
        let mut terms = Vec::new();
        for some in all.chunks(READ_AHEAD) {
            let _era = self.inner.era();
            let read = join_all(some.iter().map(|block| self.inner.term_of_data(file, *block))).await;
            for term in read {
                terms.extend(term?);
            }
            self.inner.world.yield_now().await;
        }
        Ok(terms)
    }

    /// Names the key that terms are made with: sums of two stores can be compared if theirs is the same.
    pub fn sum_key_name(&self) -> [u8; 16] {
        content_check(&self.inner.state.borrow().content_key, b"vmhold: name of the key of content sums").0
    }

    /// Waits until what the file shows is in its sum.
    async fn settle_view(&self, file: FileId) -> Result<(), StoreRefusal> {
        for _ in 0..ROUNDS_MAX {
            if self.inner.resident(|state| state.is_view_settled(file)).await? {
                return Ok(());
            }
            self.to_its_end("settle a view", async |inner| inner.settle_once().await).await?;
        }
        Err(StoreRefusal::NoSpace)
    }
}

impl Inner {
    /// Destages what is staged by now and takes down what is cut by now.
    async fn settle_once(&self) -> Result<(), StoreRefusal> {
        let mut mover = self.mover.lock().await;
        let queued = self.state.borrow().staged.block_count();
        self.destage(&mut mover, queued).await?;
        mover.data.drain(self).await?;
        self.reclaim(&mut mover, RECLAIM_BLOCKS).await?;
        self.make_room(&mut mover).await
    }

    async fn term_of_data(&self, file: FileId, block: u64) -> Result<Option<Term>, StoreRefusal> {
        let stored = self
            .resident(|state| {
                let Some(layer) = state.file(file)?.map(|open| open.layer) else { return Ok(Stored::Hole) };
                Ok(state.resolve(layer.block(block), true)?.0)
            })
            .await?;
        let (mapping, row) = match stored {
            Stored::Hole => return Ok(None),
            Stored::Lost => return Ok(Some((block, None))),
            Stored::Object(mapping, row) => (mapping, row),
        };
        let Ok(content) = self.fetch_object(Principal::Scanner, mapping, row).await else {
            return Ok(Some((block, None)));
        };
        let key = self.state.borrow().content_key;
        let term = self.world.work(move || sum_term(&key, block, content_check(&key, &content))).await;
        Ok(Some((block, Some(term))))
    }
}

impl State {
    /// The layers that a file looks at, its own first.
    fn view(&mut self, file: FileId) -> Result<Vec<Layer>, crate::tree::Missing> {
        let layer = self.file(file)?.map(|open| open.layer);
        Ok(std::iter::successors(layer, |layer| self.layers.parent(layer.map)).collect())
    }

    fn is_view_settled(&mut self, file: FileId) -> Result<bool, crate::tree::Missing> {
        let view = self.view(file)?;
        let is_settled = |layer: &Layer| {
            let staged = self.staged.epochs_of(layer.map, 0..layer.epoch + 1);
            staged.is_empty() && self.layers.trims_between(layer.map, 0..=layer.epoch).next().is_none()
        };
        Ok(view.iter().all(is_settled))
    }

    /// The first block of a file whose content is lost.
    fn lost_in_view(&mut self, file: FileId) -> Result<Option<u64>, crate::tree::Missing> {
        if self.lost.is_empty() {
            return Ok(None);
        }
        let Some(layer) = self.file(file)?.map(|open| open.layer) else { return Ok(None) };
        let view = self.view(file)?;
        let within =
            |id: &&crate::staged::BlockId| view.iter().any(|layer| layer.map == id.map && id.epoch <= layer.epoch);
        let blocks: Vec<u64> = self.lost.iter().filter(within).map(|id| id.block).collect();
        for block in blocks {
            if matches!(self.resolve(layer.block(block), true)?.0, Stored::Lost) {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn terms(&mut self, file: FileId, blocks: Range<u64>) -> Result<Vec<Term>, crate::tree::Missing> {
        let Some(layer) = self.file(file)?.map(|open| open.layer) else { return Ok(Vec::new()) };
        let mut terms = Vec::new();
        for block in blocks {
            match self.resolve(layer.block(block), true)?.0 {
                Stored::Hole => {}
                Stored::Lost => terms.push((block, None)),
                Stored::Object(mapping, _) => {
                    terms.push((block, Some(sum_term(&self.content_key, block, mapping.content))));
                }
            }
        }
        Ok(terms)
    }
}
