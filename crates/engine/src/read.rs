//! Reading blocks: staged writes over stored objects.
//!
//! A read first looks, without waiting, what each block is made of (`plan`); if that
//! needs metadata that is not in memory it loads it and looks again, so the answer is of
//! one moment. Then it fetches what has to come from media, all blocks at once.
//!
//! Cost of an 8 KiB read of a cached or staged block: no copy (the answer is a handle on
//! the cached bytes), no system call, no allocation; three for more than four blocks (the
//! lists spill). From media: one drive read of the sectors around the object, one copy or
//! decompression into a block of its own.

use base::{Buf, BufMut, FileId};
use futures_util::future::join_all;
use raid::Principal;
use smallvec::SmallVec;

use crate::format::{Codec, DESCRIPTOR_BYTES, Descriptor, FormatError, ObjectKind};
use crate::inner::Inner;
use crate::maps::Stack;
use crate::options::Event;
use crate::staged::{BlockId, StagedBlock};
use crate::state::{Mapping, ObjectRow, State};
use crate::store::{BLOCK_BYTES, FileHead, Piece, ReadOut, StoreRefusal};
use crate::tree::Missing;

const BLOCK: usize = BLOCK_BYTES as usize;

/// A block as reported: file and number.
pub(crate) type FileBlock = (FileId, u64);

/// What lies below the staged fragments of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// Nothing: zeros.
    Hole,
    /// An object.
    Object(Mapping, ObjectRow),
    /// Its newest content was in a journal record that is damaged on every leg.
    Lost,
}

/// What a block is made of.
enum Source {
    /// All of it is in memory.
    Ready(Option<Buf>),
    /// It has to be fetched, and perhaps overlaid.
    Fetch(Stored, Stack),
}

impl Inner {
    /// Answers a read.
    pub async fn read_file(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        let _era = self.era();
        let (head, sources) = self.resident(|state| self.plan(state, file, offset_bytes, len_bytes)).await?;
        let head = head.ok_or(StoreRefusal::NoSuchFile)?;
        let end = head.size_bytes.min(offset_bytes.saturating_add(len_bytes as u64));
        let blocks = self.obtain_all(file, offset_bytes / BLOCK_BYTES, sources).await?;
        Ok(ReadOut { pieces: cut_to(offset_bytes, end, blocks), head })
    }

    /// The blocks from `first` on: what is in memory at once, the others from media together.
    async fn obtain_all(
        &self,
        file: FileId,
        first: u64,
        sources: SmallVec<[Source; 4]>,
    ) -> Result<SmallVec<[Option<Buf>; 4]>, StoreRefusal> {
        let mut blocks = SmallVec::with_capacity(sources.len());
        let (mut places, mut fetches) = (Vec::new(), Vec::new());
        for (source, block) in sources.into_iter().zip(first..) {
            match source {
                Source::Ready(ready) => blocks.push(ready),
                Source::Fetch(stored, staged) => {
                    places.push(blocks.len());
                    fetches.push(self.obtain((file, block), stored, staged));
                    blocks.push(None);
                }
            }
        }
        if !fetches.is_empty() {
            for (place, block) in places.into_iter().zip(join_all(fetches).await) {
                blocks[place] = block?;
            }
        }
        Ok(blocks)
    }

    #[allow(clippy::type_complexity, reason = "a head and its blocks, used once")]
    fn plan(
        &self,
        state: &mut State,
        file: FileId,
        offset_bytes: u64,
        len_bytes: usize,
    ) -> Result<(Option<FileHead>, SmallVec<[Source; 4]>), Missing> {
        let mut sources = SmallVec::new();
        let Some(open) = state.file(file)? else { return Ok((None, sources)) };
        let (head, layer) = (open.head, open.layer);
        let end = head.size_bytes.min(offset_bytes.saturating_add(len_bytes as u64));
        if offset_bytes < end {
            for block in offset_bytes / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
                sources.push(self.source(state, layer.block(block))?);
            }
        }
        Ok((Some(head), sources))
    }

    fn source(&self, state: &mut State, id: BlockId) -> Result<Source, Missing> {
        if let Some(whole) = state.staged.get(id).and_then(StagedBlock::whole) {
            return Ok(Source::Ready(Some(whole.clone())));
        }
        let (stored, staged) = state.resolve(id, true)?;
        if !staged.is_empty() {
            return Ok(Source::Fetch(stored, staged));
        }
        Ok(match stored {
            Stored::Hole => Source::Ready(None),
            Stored::Object(mapping, _) => match self.cached(mapping) {
                Some(block) => Source::Ready(Some(block)),
                None => Source::Fetch(stored, staged),
            },
            Stored::Lost => Source::Fetch(stored, staged),
        })
    }

    fn cached(&self, mapping: Mapping) -> Option<Buf> {
        let found = self.blocks.borrow().get(&mapping.object).cloned();
        self.counters.borrow_mut().cache_hits += u64::from(found.is_some());
        found
    }

    async fn obtain(&self, at: FileBlock, stored: Stored, staged: Stack) -> Result<Option<Buf>, StoreRefusal> {
        if staged.is_empty() {
            return self.fetch(Principal::UserRead, at, stored).await;
        }
        self.overlaid(Principal::UserRead, at, stored, &staged).await.map(Some)
    }

    /// A block with staged fragments, newest layer first, laid over what is stored.
    pub async fn overlaid(
        &self,
        principal: Principal,
        at: FileBlock,
        stored: Stored,
        staged: &[StagedBlock],
    ) -> Result<Buf, StoreRefusal> {
        let mut block = BufMut::zeroed(BLOCK);
        if !staged.iter().any(StagedBlock::covers)
            && let Some(below) = self.fetch(principal, at, stored).await?
        {
            block.copy_from_slice(&below);
        }
        staged.iter().rev().for_each(|layer| layer.overlay(&mut block));
        Ok(block.freeze())
    }

    /// The stored content of a block; `None` is a hole.
    pub async fn fetch(
        &self,
        principal: Principal,
        at: FileBlock,
        stored: Stored,
    ) -> Result<Option<Buf>, StoreRefusal> {
        let (mapping, row) = match stored {
            Stored::Object(mapping, row) => (mapping, row),
            Stored::Hole => return Ok(None),
            Stored::Lost => return Err(self.lost_block(at)),
        };
        if let Some(block) = self.cached(mapping) {
            return Ok(Some(block));
        }
        match self.fetch_object(principal, mapping, row).await {
            Ok(block) => {
                self.blocks.borrow_mut().insert(mapping.object, block.clone());
                Ok(Some(block))
            }
            Err(_) => Err(self.lost_block(at)),
        }
    }

    fn lost_block(&self, (file, block): FileBlock) -> StoreRefusal {
        let offset_bytes = block * BLOCK_BYTES;
        self.event(Event::BlockLost { file, offset_bytes });
        StoreRefusal::Unreadable { file, offset_bytes }
    }

    /// Content of an object, which must be the one that `mapping` names (R-INT-18).
    pub async fn fetch_object(
        &self,
        principal: Principal,
        mapping: Mapping,
        row: ObjectRow,
    ) -> Result<Buf, FormatError> {
        self.counters.borrow_mut().objects_read += 1;
        let (descriptor, object) = self
            .read_object(principal, row.place, |found| {
                found.kind == ObjectKind::Data && found.id == mapping.object.0 && found.content == mapping.content
            })
            .await?;
        decode(&descriptor, &object)
    }
}

/// Decodes a data object into a block of its own.
pub(crate) fn decode(descriptor: &Descriptor, object: &[u8]) -> Result<Buf, FormatError> {
    let payload = &object[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + descriptor.stored_bytes as usize];
    let mut block = BufMut::zeroed(BLOCK);
    let len = match descriptor.codec {
        Codec::Raw if payload.len() == BLOCK => {
            block.copy_from_slice(payload);
            BLOCK
        }
        Codec::Raw => 0,
        Codec::Lz4 => lz4_flex::block::decompress_into(payload, &mut block).unwrap_or(0),
    };
    if len == BLOCK { Ok(block.freeze()) } else { Err(FormatError("object: wrong length of content")) }
}

/// Cuts whole blocks, the first of which holds `from`, to the bytes up to `end`.
fn cut_to(from: u64, end: u64, blocks: SmallVec<[Option<Buf>; 4]>) -> SmallVec<[Piece; 4]> {
    let mut pieces: SmallVec<[Piece; 4]> = SmallVec::new();
    let mut at = from;
    for block in blocks {
        let within = (at % BLOCK_BYTES) as usize;
        let take = ((end - at) as usize).min(BLOCK - within);
        match (block, pieces.last_mut()) {
            (Some(block), _) => pieces.push(Piece::Data(block.slice(within..within + take))),
            (None, Some(Piece::Zeros(zeros))) => *zeros += take,
            (None, _) => pieces.push(Piece::Zeros(take)),
        }
        at += take as u64;
    }
    pieces
}
