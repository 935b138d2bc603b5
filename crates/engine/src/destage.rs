//! From the journal's image to stripes: fingerprint, deduplicate, compress, place.
//!
//! Blocks are taken oldest first. A block that is all zero becomes a hole. One whose
//! content is known is read and compared, and shared if it is the same (R-DED-01,
//! R-DED-02). The rest is compressed where that pays and packed into the open stripe.
//! Mappings change only after the stripe that holds their objects is written; until then
//! reads are served from the journal's image.
//!
//! Per incompressible 8 KiB block: one BLAKE3 pass, one attempt to compress, one copy
//! into the stripe, its share of parity and checks; no system call of its own.

use base::{Buf, ObjectId, content_check};
use raid::Principal;

use crate::format::{Codec, Descriptor, ObjectKind};
use crate::inner::Inner;
use crate::mover::{Mover, Purpose};
use crate::read::Stored;
use crate::staged::{BlockId, StagedBlock};
use crate::state::{Fresh, Item, Mapping, Pending, ZEROS};
use crate::store::{BLOCK_BYTES, StoreRefusal};

/// Compression must save at least this much of a block to be kept.
const SAVING_BYTES: usize = 512;
/// Blocks between two looks at other work.
const BLOCKS_PER_TURN: usize = 2;

impl Inner {
    /// Destages up to `limit` blocks; those placed last may stay in the open stripe.
    /// Stops early, without an error, when room has to be made first.
    pub async fn destage(&self, mover: &mut Mover, limit: usize) -> Result<(), StoreRefusal> {
        for turn in 0..limit {
            let taken = self.state.borrow_mut().staged.take_oldest();
            let Some((id, block)) = taken else { break };
            match self.destage_block(mover, id, block).await {
                Ok(()) => {}
                Err(refusal) => {
                    self.state.borrow_mut().staged.put_back(id);
                    return if refusal == StoreRefusal::NoSpace { Ok(()) } else { Err(refusal) };
                }
            }
            if turn % BLOCKS_PER_TURN == BLOCKS_PER_TURN - 1 || self.world.chance.maybe("destage: yield") {
                self.world.yield_now().await;
            }
        }
        Ok(())
    }

    async fn destage_block(&self, mover: &mut Mover, id: BlockId, block: StagedBlock) -> Result<(), StoreRefusal> {
        if self.state.borrow().files.get(id.file).is_some_and(|open| open.is_crowded()) {
            self.reclaim_trims(id.file, usize::MAX).await?;
        }
        let content = match block.whole() {
            Some(whole) => whole.clone(),
            None => {
                let stored = self.resident(|state| state.stored(id)).await?;
                match self.overlaid(Principal::Destage, id, stored, &block).await {
                    Err(StoreRefusal::Unreadable { .. }) if self.is_gone_for_good(&stored) => {
                        return self.resident(|state| state.give_up(id, block.newest())).await;
                    }
                    content => content?,
                }
            }
        };
        let fresh = self.store_content(mover, (id, &block), content).await?;
        self.counters.borrow_mut().blocks_destaged += 1;
        mover.data.consequences.items.push(Item { id, newest: block.newest(), fresh });
        Ok(())
    }

    /// Whether what could not be read stays so: with a drive absent it may come back.
    fn is_gone_for_good(&self, stored: &Stored) -> bool {
        match stored {
            Stored::Object(_, row) => !self.group.is_degraded(row.place.stripe.segment),
            Stored::Lost | Stored::Hole => true,
        }
    }

    async fn store_content(
        &self,
        mover: &mut Mover,
        (id, block): (BlockId, &StagedBlock),
        content: Buf,
    ) -> Result<Fresh, StoreRefusal> {
        if content[..] == ZEROS[..] {
            self.counters.borrow_mut().blocks_zero += 1;
            return Ok(Fresh::Hole);
        }
        let key = self.state.borrow().content_key;
        let check = content_check(&key, &content);
        if self.options.dedup {
            let candidate = self.state.borrow().fingerprints.find(check);
            if let Some(object) = candidate
                && self.is_duplicate(Mapping { object, content: check }, &content).await?
            {
                self.counters.borrow_mut().blocks_shared += 1;
                return Ok(Fresh::Shared(Mapping { object, content: check }));
            }
        }
        let (object, epoch) = {
            let mut state = self.state.borrow_mut();
            (state.next_object(), state.epoch)
        };
        let packed = self.compress(&content);
        let (codec, payload) = packed.as_ref().map_or((Codec::Raw, &content[..]), |packed| (Codec::Lz4, &packed[..]));
        let descriptor = Descriptor {
            kind: ObjectKind::Data,
            codec,
            stored_bytes: payload.len() as u32,
            id: object.0,
            owner: id.file.0,
            block: id.block,
            sequence: block.newest().osn.0,
            epoch,
            encoding: 0,
            content: check,
        };
        let fill = |room: &mut [u8]| room[..payload.len()].copy_from_slice(payload);
        let place = mover.data.place(self, Purpose::Intake, &descriptor, fill).await?;
        self.counters.borrow_mut().stored_bytes += payload.len() as u64;
        self.expect_duplicates(object, check, content);
        Ok(Fresh::New(Mapping { object, content: check }, place))
    }

    /// Lets later blocks find this one while its stripe is not written yet.
    fn expect_duplicates(&self, object: ObjectId, check: base::ContentCheck, content: Buf) {
        if self.options.dedup {
            let mut state = self.state.borrow_mut();
            state.pending.insert(object, Pending { content, duplicates: 0, applied: false });
            state.fingerprints.remember(check, object);
        }
    }

    /// Whether the object really has this content: it is read and compared (R-DED-02). If
    /// so and it is pending, it is kept until the duplicate is applied.
    async fn is_duplicate(&self, mapping: Mapping, content: &[u8]) -> Result<bool, StoreRefusal> {
        if let Some(pending) = self.state.borrow_mut().pending.get_mut(&mapping.object) {
            let same = pending.content[..] == *content;
            pending.duplicates += u32::from(same);
            self.counters.borrow_mut().false_matches += u64::from(!same);
            return Ok(same);
        }
        let row = self.resident(|state| state.object(mapping.object)).await?;
        let Some(row) = row.filter(|row| row.references < u32::MAX) else { return Ok(false) };
        let cached = self.blocks.borrow().get(&mapping.object).cloned();
        let known = match cached {
            Some(block) => Ok(block),
            None => self.fetch_object(Principal::Destage, mapping, row).await,
        };
        // An unreadable or different object is not referenced; the block is stored anew.
        let same = known.is_ok_and(|known| known[..] == *content);
        self.counters.borrow_mut().false_matches += u64::from(!same);
        Ok(same)
    }

    /// The block compressed, if that saves enough.
    fn compress(&self, content: &[u8]) -> Option<Vec<u8>> {
        if !self.options.compress {
            return None;
        }
        let packed = lz4_flex::block::compress(content);
        let pays = packed.len() + SAVING_BYTES <= BLOCK_BYTES as usize;
        self.counters.borrow_mut().blocks_compressed += u64::from(pays);
        pays.then_some(packed)
    }
}
