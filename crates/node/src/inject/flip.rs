//! A byte of one of two copies, made another one behind the back of replication: what an integrity check is
//! there to find. RAID and checks of the pool see nothing wrong in it.

use base::FileId;
use control::inject::{FlipOrder, FlippedByte};
use control::{Problem, codes};
use engine::store::{BLOCK_BYTES, Change, LOCAL_FILES, Piece, StoreRefusal};
use engine::{Label, Listed, Store};

use crate::pair::STREAM;
use crate::shard::Shard;

/// Files that are listed at a time.
const LISTED: usize = 256;

fn beside() -> Label {
    Label { stream: STREAM, osn: None, placed: Box::new(|| {}) }
}

impl Shard {
    /// Whether a byte could be flipped.
    ///
    /// # Errors
    /// On a pool that is no lab pool, or not one of two copies.
    pub(crate) fn could_flip(&self) -> Result<(), Problem> {
        self.injector()?;
        match &self.pair {
            Some(_) => Ok(()),
            None => Err(Problem::new(&codes::NOT_FOUND, format!("{} has no other site", self.config.pool))
                .why("what is flipped would be its only copy")),
        }
    }

    /// Flips the lowest bit of a byte at this site only.
    ///
    /// # Errors
    /// As [`could_flip`](Shard::could_flip); where there is no such file, or it ends before.
    pub(crate) async fn flip(&self, order: FlipOrder) -> Result<FlippedByte, Problem> {
        self.could_flip()?;
        let cannot = |refusal: StoreRefusal| {
            Problem::new(&codes::POOL_FAULTED, "the byte could not be flipped").why(refusal.to_string())
        };
        let chosen = self.file_to_flip(order.file.map(FileId)).await.map_err(cannot)?;
        let Listed { file, head, .. } =
            chosen.filter(|one| order.offset_bytes < one.head.size_bytes).ok_or_else(|| {
                Problem::new(&codes::NOT_FOUND, format!("no file here has a byte {}", order.offset_bytes))
            })?;
        let read = self.engine.read(file, order.offset_bytes, 1).await.map_err(cannot)?;
        let was = match read.pieces.first() {
            Some(Piece::Data(data)) => data.first().copied().unwrap_or_default(),
            _ => 0,
        };
        let is = was ^ 1;
        let data = vec![is].into();
        self.engine.write_labelled(file, order.offset_bytes, &data, (head.modified, beside())).await.map_err(cannot)?;
        let times = Change::SetTimes { file, modified: Some(head.modified), changed: head.changed };
        self.engine.commit_labelled(vec![times], beside()).await.map_err(cannot)?;
        tracing::warn!(code = %codes::FAULT_INJECTED, %file, offset = order.offset_bytes, "a byte was flipped on purpose");
        let block = order.offset_bytes / BLOCK_BYTES;
        let pool = self.config.pool.clone();
        Ok(FlippedByte { pool, file: file.0, offset_bytes: order.offset_bytes, block, was, is })
    }

    /// The file that is named, or the largest one.
    async fn file_to_flip(&self, named: Option<FileId>) -> Result<Option<Listed>, StoreRefusal> {
        let (mut from, mut chosen) = (named.unwrap_or(FileId(1)), None::<Listed>);
        loop {
            let listed = self.engine.files(from, LISTED).await?;
            let own = listed.iter().filter(|one| !one.frozen && one.file < LOCAL_FILES);
            for one in own.filter(|one| named.is_none_or(|file| file == one.file)) {
                if chosen.is_none_or(|chosen| one.head.size_bytes > chosen.head.size_bytes) {
                    chosen = Some(*one);
                }
            }
            match listed.last().filter(|last| named.is_none() && last.file < LOCAL_FILES) {
                Some(last) => from = last.file.next(),
                None => return Ok(chosen),
            }
        }
    }
}
