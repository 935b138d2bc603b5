//! From the journal's image to stripes: fingerprint, deduplicate, compress, place.
//!
//! ```text
//!   oldest blocks ─► batch ─[job: zero? hash]─► decide: hole, duplicate, new
//!                      next batch meanwhile              │ new
//!                                            [job: compress, lay into the open stripe]
//! ```
//!
//! Blocks are taken oldest first. A block that is all zero becomes a hole. One whose
//! content is known is read and compared, and shared if it is the same (R-DED-01,
//! R-DED-02). The rest is compressed where that pays and packed into the open stripe.
//! Mappings change only after the stripe that holds their objects is written; until then
//! reads are served from the journal's image.
//!
//! Per incompressible 8 KiB block: one BLAKE3 pass, one attempt to compress, one copy into
//! the stripe, its share of parity and checks, all beside the shard; on the shard the
//! decision, an index entry and, later, the mapping: a few microseconds. No system call of
//! its own; allocations per batch, not per block.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;

use base::{Buf, ContentCheck, ObjectId, content_check};
use raid::Principal;

use crate::format::{Codec, Descriptor, ObjectKind, Place};
use crate::inner::Inner;
use crate::maps::Stack;
use crate::mover::{Mover, Parcel};
use crate::read::Stored;
use crate::staged::{BlockId, StagedBlock, Stamp};
use crate::state::{Fresh, Item, Mapping, Pending, ZEROS};
use crate::store::{BLOCK_BYTES, StoreRefusal};

/// Blocks handed to a worker at a time: long enough to be worth two wake-ups.
const BLOCKS_PER_BATCH: usize = 64;
/// Blocks decided between two looks at other work.
const BLOCKS_PER_TURN: usize = 16;

/// A block that was taken to be destaged, with its content.
struct Taken {
    id: BlockId,
    newest: Stamp,
    content: Buf,
}

/// Blocks whose contents are being hashed; `None` for one that is all zero.
struct Batch {
    blocks: VecDeque<Taken>,
    checks: Pin<Box<dyn Future<Output = Vec<Option<ContentCheck>>>>>,
}

/// What is to become of the blocks of a batch, in order; one parcel for each new object.
#[derive(Default)]
struct Plan {
    items: VecDeque<(BlockId, Stamp, Fate)>,
    parcels: VecDeque<Parcel>,
}

enum Fate {
    Hole,
    Shared(Mapping),
    New(Mapping),
}

impl Inner {
    /// Destages up to `limit` blocks; those placed last may stay in the open stripe.
    /// Stops early, without an error, when room has to be made first.
    pub async fn destage(&self, mover: &mut Mover, limit: usize) -> Result<(), StoreRefusal> {
        let mut left = limit;
        let mut batch = self.next_batch(&mut left).await?;
        while let Some(present) = batch {
            // Hashed while this one is decided and laid down.
            let ahead = match self.next_batch(&mut left).await {
                Ok(ahead) => ahead,
                Err(refusal) => {
                    self.put_back(&present.blocks);
                    return Err(refusal);
                }
            };
            if let Err(refusal) = self.destage_batch(mover, present).await {
                ahead.iter().for_each(|ahead| self.put_back(&ahead.blocks));
                return if refusal == StoreRefusal::NoSpace { Ok(()) } else { Err(refusal) };
            }
            batch = ahead;
        }
        Ok(())
    }

    /// Takes the oldest blocks and has them hashed. `None`: there is none, or `left` is 0.
    async fn next_batch(&self, left: &mut usize) -> Result<Option<Batch>, StoreRefusal> {
        let mut blocks = VecDeque::new();
        while blocks.len() < BLOCKS_PER_BATCH.min(*left) {
            match self.take_block().await {
                Ok(Some(taken)) => blocks.push_back(taken),
                Ok(None) => break,
                Err(refusal) => {
                    self.put_back(&blocks);
                    return Err(refusal);
                }
            }
            if self.world.chance.maybe("destage: small batch") {
                break;
            }
        }
        *left -= blocks.len();
        if blocks.is_empty() {
            return Ok(None);
        }
        let key = self.state.borrow().content_key;
        let contents: Vec<Buf> = blocks.iter().map(|taken| taken.content.clone()).collect();
        let checks = self.world.work(move || {
            let check = |content: &Buf| (content[..] != ZEROS[..]).then(|| content_check(&key, content));
            contents.iter().map(check).collect()
        });
        Ok(Some(Batch { blocks, checks: Box::pin(checks) }))
    }

    /// Takes the oldest block, if there is one, with its content.
    async fn take_block(&self) -> Result<Option<Taken>, StoreRefusal> {
        loop {
            let taken = self.state.borrow_mut().staged.take_oldest();
            let Some((id, block)) = taken else { return Ok(None) };
            match self.content_of(id, &block).await {
                Ok(Some(content)) => return Ok(Some(Taken { id, newest: block.newest(), content })),
                Ok(None) => {}
                Err(refusal) => {
                    self.state.borrow_mut().staged.put_back(id);
                    return Err(refusal);
                }
            }
        }
    }

    /// What the block is now. `None`: part of it is gone for good, and it was given up.
    async fn content_of(&self, id: BlockId, block: &StagedBlock) -> Result<Option<Buf>, StoreRefusal> {
        if let Some(whole) = block.whole() {
            return Ok(Some(whole.clone()));
        }
        let (stored, below) = self.resident(|state| state.resolve(id, false)).await?;
        let staged: Stack = std::iter::once(block.clone()).chain(below).collect();
        match self.overlaid(Principal::Destage, (id.map, id.block), stored, &staged).await {
            Err(StoreRefusal::Unreadable { .. }) if self.is_gone_for_good(&stored) => {
                self.resident(|state| state.give_up(id, block.newest())).await?;
                Ok(None)
            }
            content => content.map(Some),
        }
    }

    /// Before `id` is mapped: a block written where its layer was cut off splits the range
    /// that waits to be reclaimed, and a layer lists only so many.
    pub async fn uncrowd(&self, id: BlockId) -> Result<(), StoreRefusal> {
        let crowded = {
            let state = self.state.borrow();
            state.layers.trims(id.layer()).is_some_and(|trims| trims.is_cut(id.block) && trims.is_crowded())
        };
        if crowded {
            self.reclaim_trims(id.layer(), usize::MAX).await?;
        }
        Ok(())
    }

    /// Whether what could not be read stays so: with a drive absent it may come back.
    fn is_gone_for_good(&self, stored: &Stored) -> bool {
        match stored {
            Stored::Object(_, row) => !self.group.is_degraded(row.place.stripe.segment),
            Stored::Lost | Stored::Hole => true,
        }
    }

    /// These come first again, in their order.
    fn put_back(&self, blocks: &VecDeque<Taken>) {
        let mut state = self.state.borrow_mut();
        blocks.iter().rev().for_each(|taken| state.staged.put_back(taken.id));
    }

    async fn destage_batch(&self, mover: &mut Mover, batch: Batch) -> Result<(), StoreRefusal> {
        let checks = batch.checks.await;
        let mut blocks = batch.blocks;
        let mut plan = Plan::default();
        let mut done = self.decide(&mut blocks, &checks, &mut plan).await;
        self.put_back(&blocks);
        if done.is_ok() {
            done = self.lay_down(mover, &mut plan).await;
        }
        if done.is_err() {
            self.withdraw(mover, plan);
        }
        done
    }

    /// Decides what becomes of each block. Those not come to stay in `blocks`.
    async fn decide(
        &self,
        blocks: &mut VecDeque<Taken>,
        checks: &[Option<ContentCheck>],
        plan: &mut Plan,
    ) -> Result<(), StoreRefusal> {
        for (turn, check) in (1..).zip(checks) {
            let Some(taken) = blocks.front() else { break };
            let fate = match check {
                None => {
                    self.counters.borrow_mut().blocks_zero += 1;
                    Fate::Hole
                }
                Some(check) => self.fate_of(*check, taken).await?,
            };
            if let Fate::New(mapping) = fate {
                plan.parcels.push_back(self.parcel(mapping, taken));
            }
            plan.items.push_back((taken.id, taken.newest, fate));
            blocks.pop_front();
            if turn % BLOCKS_PER_TURN == 0 || self.world.chance.maybe("destage: yield") {
                self.world.yield_now().await;
            }
        }
        Ok(())
    }

    /// A duplicate, or a new object that later ones may be duplicates of.
    async fn fate_of(&self, check: ContentCheck, taken: &Taken) -> Result<Fate, StoreRefusal> {
        if self.options.dedup {
            let candidate = self.state.borrow().fingerprints.find(check);
            if let Some(object) = candidate
                && self.is_duplicate(Mapping { object, content: check }, &taken.content).await?
            {
                self.counters.borrow_mut().blocks_shared += 1;
                return Ok(Fate::Shared(Mapping { object, content: check }));
            }
        }
        let mut state = self.state.borrow_mut();
        let object = state.next_object();
        if self.options.dedup {
            let content = taken.content.clone();
            state.pending.insert(object, Pending { content, duplicates: 0, applied: false });
            state.fingerprints.remember(check, object);
        }
        Ok(Fate::New(Mapping { object, content: check }))
    }

    fn parcel(&self, mapping: Mapping, taken: &Taken) -> Parcel {
        let descriptor = Descriptor {
            kind: ObjectKind::Data,
            codec: Codec::Raw,
            stored_bytes: BLOCK_BYTES as u32,
            id: mapping.object.0,
            owner: taken.id.map.0,
            block: taken.id.block,
            sequence: taken.newest.osn.0,
            epoch: taken.id.epoch,
            encoding: 0,
            content: mapping.content,
        };
        Parcel { descriptor, payload: taken.content.clone(), try_packing: self.options.compress }
    }

    /// Lays the new objects down and notes what follows for each stripe with that stripe: a
    /// duplicate never before the object it shares.
    async fn lay_down(&self, mover: &mut Mover, plan: &mut Plan) -> Result<(), StoreRefusal> {
        while !plan.items.is_empty() {
            let places = mover.data.fill(self, &mut plan.parcels).await?;
            let mut places = places.into_iter();
            while let Some((id, newest, fate)) = plan.items.pop_front() {
                let fresh = match fate {
                    Fate::Hole => Fresh::Hole,
                    Fate::Shared(mapping) => Fresh::Shared(mapping),
                    Fate::New(mapping) => {
                        let Some(place) = places.next() else {
                            plan.items.push_front((id, newest, fate));
                            break;
                        };
                        self.count_stored(place);
                        Fresh::New(mapping, place)
                    }
                };
                self.counters.borrow_mut().blocks_destaged += 1;
                mover.data.consequences.items.push(Item { id, newest, fresh });
            }
        }
        Ok(())
    }

    fn count_stored(&self, place: Place) {
        let mut counters = self.counters.borrow_mut();
        counters.stored_bytes += u64::from(place.stored_bytes);
        counters.blocks_compressed += u64::from(u64::from(place.stored_bytes) < BLOCK_BYTES);
    }

    /// There is no room for what is left of `plan`: new objects were never there, and their
    /// blocks and those that would have shared them come first again.
    fn withdraw(&self, mover: &mut Mover, plan: Plan) {
        let mut never = BTreeSet::new();
        let mut again = Vec::new();
        for (id, newest, fate) in plan.items {
            let fresh = match fate {
                Fate::New(mapping) => {
                    let mut state = self.state.borrow_mut();
                    state.pending.remove(&mapping.object);
                    state.fingerprints.forget(mapping.content, mapping.object);
                    never.insert(mapping.object);
                    again.push(id);
                    continue;
                }
                Fate::Shared(mapping) if never.contains(&mapping.object) => {
                    again.push(id);
                    continue;
                }
                Fate::Shared(mapping) => Fresh::Shared(mapping),
                Fate::Hole => Fresh::Hole,
            };
            mover.data.consequences.items.push(Item { id, newest, fresh });
        }
        let mut state = self.state.borrow_mut();
        again.into_iter().rev().for_each(|id| state.staged.put_back(id));
    }

    /// Whether the object really has this content: it is read and compared (R-DED-02). If
    /// so and it is pending, it is kept until the duplicate is applied.
    async fn is_duplicate(&self, mapping: Mapping, content: &[u8]) -> Result<bool, StoreRefusal> {
        if let Some(same) = self.is_pending_duplicate(mapping.object, content) {
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

    fn is_pending_duplicate(&self, object: ObjectId, content: &[u8]) -> Option<bool> {
        let mut state = self.state.borrow_mut();
        let pending = state.pending.get_mut(&object)?;
        let same = pending.content[..] == *content;
        pending.duplicates += u32::from(same);
        self.counters.borrow_mut().false_matches += u64::from(!same);
        Some(same)
    }
}
