//! Open stripes: where the destager, the cleaner and the checkpoint put objects.
//!
//! Objects are packed one behind the other into the units of a stripe; none straddles
//! two units, so a unit can be read on its own. A stripe is written when it is full, or
//! earlier with the rest zeroed (R-RAID-05: never in part, never in place).

use std::collections::{BTreeSet, VecDeque};

use base::{Buf, BufMut, MediaCheck};
use raid::{Group, Principal, StripeId, WriteFault};
use tokio::sync::oneshot;

use crate::format::{Codec, DESCRIPTOR_BYTES, Descriptor, Place, object_bytes};
use crate::inner::Inner;
use crate::relog::Reader;
use crate::root::Root;
use crate::state::Item;
use crate::store::{BLOCK_BYTES, StoreRefusal};
use crate::stripes::StripeTable;
use crate::tree::PageId;

/// Bytes of a unit before its payload.
const UNIT_HEADER_BYTES: usize = raid::UNIT_HEADER_BYTES;

/// Mappings applied between two looks at other work.
const ITEMS_PER_TURN: usize = 8;
/// Compression must save at least this much of a block to be kept.
const SAVING_BYTES: usize = 512;

/// An object that the cleaner moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub object: base::ObjectId,
    pub from: Place,
    pub to: Place,
}

/// What is to be applied once a stripe is written.
#[derive(Debug, Default)]
pub(crate) struct Consequences {
    pub items: Vec<Item>,
    pub moves: Vec<Move>,
}

/// A new object on its way into a stripe.
pub(crate) struct Parcel {
    pub descriptor: Descriptor,
    pub payload: Buf,
    /// Whether compressing it is still to be tried.
    pub try_packing: bool,
}

impl Parcel {
    /// Compresses the payload into `room` if that saves enough; says how long it is then.
    fn packed(&self, room: &mut Vec<u8>) -> Option<usize> {
        room.resize(lz4_flex::block::get_maximum_output_size(self.payload.len()), 0);
        let len = lz4_flex::block::compress_into(&self.payload, room).ok()?;
        (len + SAVING_BYTES <= BLOCK_BYTES as usize).then_some(len)
    }

    /// Lays it down in `open`, packed where that pays; false when the stripe is full.
    fn lay_into(&mut self, open: &mut OpenStripe, room: &mut Vec<u8>) -> Option<Place> {
        let packed = if std::mem::take(&mut self.try_packing) { self.packed(room) } else { None };
        if let Some(len) = packed {
            self.descriptor = Descriptor { codec: Codec::Lz4, stored_bytes: len as u32, ..self.descriptor };
            let place = open.put(&self.descriptor, |out| out[..len].copy_from_slice(&room[..len]));
            if place.is_none() {
                self.payload = Buf::copy_from_slice(&room[..len]);
            }
            return place;
        }
        open.put(&self.descriptor, |out| out[..self.payload.len()].copy_from_slice(&self.payload))
    }
}

/// A stripe being filled.
pub(crate) struct OpenStripe {
    pub stripe: StripeId,
    generation: u64,
    units: Vec<BufMut>,
    unit: usize,
    at: usize,
}

impl OpenStripe {
    fn new(group: &Group, stripe: StripeId, generation: u64) -> OpenStripe {
        let data = group.geometry(stripe.segment).map_or(0, |geometry| geometry.data);
        let units = (0..data).map(|_| group.take_unit()).collect();
        OpenStripe { stripe, generation, units, unit: 0, at: UNIT_HEADER_BYTES }
    }

    /// Moves on until `bytes` fit into the present unit; false when the stripe is full.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.unit < self.units.len() {
            let unit = &mut self.units[self.unit];
            if unit.len() - self.at >= bytes {
                return true;
            }
            unit[self.at..].fill(0);
            self.unit += 1;
            self.at = UNIT_HEADER_BYTES;
        }
        false
    }

    fn offset_bytes(&self) -> u32 {
        let payload = self.units[0].len() - UNIT_HEADER_BYTES;
        (self.unit * payload + self.at - UNIT_HEADER_BYTES) as u32
    }

    /// Writes an object of `descriptor.stored_bytes` that `fill` lays down; `None` when the
    /// stripe is full.
    fn put(&mut self, descriptor: &Descriptor, fill: impl FnOnce(&mut [u8])) -> Option<Place> {
        let bytes = object_bytes(descriptor.stored_bytes as usize);
        if !self.make_room(bytes) {
            return None;
        }
        let offset_bytes = self.offset_bytes();
        let object = &mut self.units[self.unit][self.at..self.at + bytes];
        // The buffer holds old bytes, and those behind a short payload would be stored.
        object[DESCRIPTOR_BYTES + descriptor.stored_bytes as usize..].fill(0);
        fill(&mut object[DESCRIPTOR_BYTES..]);
        let check: MediaCheck = descriptor.seal(object);
        self.at += bytes;
        Some(Place { stripe: self.stripe, offset_bytes, stored_bytes: descriptor.stored_bytes, check })
    }

    fn close(mut self) -> (StripeId, u64, Vec<BufMut>) {
        self.make_room(usize::MAX);
        (self.stripe, self.generation, self.units)
    }
}

/// A stripe on its way to the drives.
struct Flying {
    stripe: StripeId,
    generation: u64,
    written: oneshot::Receiver<Result<(), WriteFault>>,
    consequences: Consequences,
}

/// One open stripe and those on their way.
#[derive(Default)]
pub(crate) struct Stream {
    open: Option<OpenStripe>,
    /// To be applied when the open stripe is written.
    pub consequences: Consequences,
    flying: VecDeque<Flying>,
    metadata: bool,
}

/// What the holder of the mover lock works with.
pub(crate) struct Mover {
    /// Blocks of files, new and moved.
    pub data: Stream,
    /// Pages, usage, index and delta objects.
    pub meta: Stream,
    /// The durable root.
    pub root: Root,
    /// Its version in the register.
    pub root_version: u64,
    /// Usage objects that its index objects name, oldest first.
    pub indexed_usage: Vec<Place>,
    /// Delta objects kept, as the next root will name them.
    pub deltas: Vec<Place>,
    /// How far they are gone through.
    pub log: Reader,
    /// Table pages that the next checkpoint must write although nothing in them changed.
    pub touched_tables: BTreeSet<PageId>,
    /// The next checkpoint writes the stripe table in full.
    pub dump_usage: bool,
    /// Objects of the stripe table, or of its index, that the next root must not name: the
    /// cleaner empties their stripes.
    pub table_left: Vec<Place>,
    /// Stripes that the cleaner could not read.
    pub stuck: BTreeSet<StripeId>,
    /// When the last checkpoint was done.
    pub last_checkpoint: base::Nanos,
    /// The journal as far as it was applied when somebody last looked, and when that was
    /// first seen: how long nothing was written.
    pub busy_through: u64,
    /// See [`busy_through`](Mover::busy_through).
    pub busy_at: base::Nanos,
}

/// Whether a stripe may be taken although few are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Leaves the last stripes to those who make room.
    Intake,
    /// Makes room, or is needed to.
    MakeRoom,
}

impl Stream {
    /// A stream for pages and what belongs to them.
    pub fn of_metadata() -> Stream {
        Stream { metadata: true, ..Stream::default() }
    }

    /// On whose behalf the open stripe is written.
    fn principal(&self, inner: &Inner) -> Principal {
        match &self.consequences {
            _ if self.metadata => Principal::MetadataWrite,
            _ if inner.waiting_for_room.get() > 0 => Principal::UserWrite,
            carried if carried.moves.len() > carried.items.len() => Principal::CleanerWrite,
            _ => Principal::Destage,
        }
    }

    /// Writes an object of `descriptor.stored_bytes` that `fill` lays down, and says
    /// where it stands. The stripe it goes to is written sooner or later.
    pub async fn place(
        &mut self,
        inner: &Inner,
        purpose: Purpose,
        descriptor: &Descriptor,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Place, StoreRefusal> {
        let bytes = object_bytes(descriptor.stored_bytes as usize);
        self.make_room(inner, purpose, bytes).await?;
        let open = self.open.as_mut().expect("room was made");
        Ok(open.put(descriptor, fill).expect("room was made"))
    }

    /// Lays down as many of `parcels` as the open stripe takes, beside the shard, and says
    /// where they stand; the others stay in `parcels`. A full stripe is sent off first, so
    /// there is always at least one. On a refusal all of them stay.
    pub async fn fill(&mut self, inner: &Inner, parcels: &mut VecDeque<Parcel>) -> Result<Vec<Place>, StoreRefusal> {
        while !parcels.is_empty() {
            if self.open.is_none() {
                self.open_next(inner, Purpose::Intake).await?;
            }
            let mut open = self.open.take().expect("just opened");
            let mut waiting = std::mem::take(parcels);
            let job = inner.world.work(move || {
                let (mut places, mut room) = (Vec::with_capacity(waiting.len()), Vec::new());
                while let Some(place) = waiting.front_mut().and_then(|next| next.lay_into(&mut open, &mut room)) {
                    places.push(place);
                    waiting.pop_front();
                }
                (open, waiting, places)
            });
            let (open, waiting, places) = job.await;
            (self.open, *parcels) = (Some(open), waiting);
            if !places.is_empty() {
                return Ok(places);
            }
            self.open_next(inner, Purpose::Intake).await?;
        }
        Ok(Vec::new())
    }

    /// Puts an object down as it is, descriptor and all.
    pub async fn copy(&mut self, inner: &Inner, object: &[u8], from: Place) -> Result<Place, StoreRefusal> {
        self.make_room(inner, Purpose::MakeRoom, object.len()).await?;
        let open = self.open.as_mut().expect("room was made");
        let offset_bytes = open.offset_bytes();
        open.units[open.unit][open.at..open.at + object.len()].copy_from_slice(object);
        open.at += object.len();
        Ok(Place { stripe: open.stripe, offset_bytes, ..from })
    }

    async fn make_room(&mut self, inner: &Inner, purpose: Purpose, bytes: usize) -> Result<(), StoreRefusal> {
        while !self.open.as_mut().is_some_and(|open| open.make_room(bytes)) {
            self.open_next(inner, purpose).await?;
        }
        Ok(())
    }

    /// Sends the stripe that is full off, if there is one, and opens another.
    async fn open_next(&mut self, inner: &Inner, purpose: Purpose) -> Result<(), StoreRefusal> {
        self.launch(inner);
        while self.flying.len() > inner.options.stripes_in_flight {
            self.land_one(inner).await?;
        }
        let (stripe, generation) = inner.take_stripe(purpose).await?;
        self.open = Some(OpenStripe::new(&inner.group, stripe, generation));
        Ok(())
    }

    /// Sends the open stripe off.
    pub fn launch(&mut self, inner: &Inner) {
        let Some(open) = self.open.take() else { return };
        let (stripe, generation, units) = open.close();
        let (tell, written) = oneshot::channel();
        let group = inner.group.acting_as(self.principal(inner));
        let write = async move {
            let result = group.write_stripe(stripe, generation, units).await.map(drop);
            let _ = tell.send(result);
        };
        inner.world.spawn.spawn("stripe", Box::pin(write));
        let consequences = std::mem::take(&mut self.consequences);
        self.flying.push_back(Flying { stripe, generation, written, consequences });
    }

    /// Waits for the oldest stripe and applies its consequences.
    async fn land_one(&mut self, inner: &Inner) -> Result<(), StoreRefusal> {
        let Some(flying) = self.flying.pop_front() else { return Ok(()) };
        match flying.written.await {
            Ok(Ok(())) => inner.apply_consequences(flying.consequences).await?,
            _ => {
                inner.stop("a stripe could not be written: too many drives failed");
                return Err(StoreRefusal::Stopped);
            }
        }
        inner.state.borrow_mut().stripes.settle(flying.stripe);
        inner.note_fresh(flying.stripe, flying.generation);
        Ok(())
    }

    /// Writes what is open, waits for all that is on its way, and applies it.
    pub async fn drain(&mut self, inner: &Inner) -> Result<(), StoreRefusal> {
        self.launch(inner);
        while !self.flying.is_empty() {
            self.land_one(inner).await?;
        }
        // Holes and duplicates need no stripe, so there may be none to carry them.
        inner.apply_consequences(std::mem::take(&mut self.consequences)).await
    }
}

impl Inner {
    /// A free stripe of a healthy segment on all drives; or of an outgrown one if it is wider than
    /// a new one would be; or of a new one; or of any that is left.
    pub async fn take_stripe(&self, purpose: Purpose) -> Result<(StripeId, u64), StoreRefusal> {
        let kept = self.stripes_kept_from_intake();
        loop {
            {
                let mut state = self.state.borrow_mut();
                let spare = self.group.space().stripes_free + state.stripes.free_count() as u64;
                if purpose == Purpose::Intake && spare <= kept {
                    return Err(StoreRefusal::NoSpace);
                }
                let generation = state.next_generation();
                let new = state.stripes.take(generation, false);
                let stripe = match new {
                    None if self.is_outgrown_wider(&state.stripes) => {
                        self.expansions.segment_opened();
                        state.stripes.take(generation, true)
                    }
                    new => new,
                };
                if let Some(stripe) = stripe {
                    return Ok((stripe, generation));
                }
            }
            match self.group.open_segment().await {
                Ok(segment) => {
                    self.expansions.segment_opened();
                    self.state.borrow_mut().stripes.add_segment(segment, self.group.rows_per_segment());
                }
                Err(_) => {
                    self.expansions.segment_opened();
                    let mut state = self.state.borrow_mut();
                    let generation = state.next_generation();
                    let stripe = state.stripes.take(generation, true).ok_or(StoreRefusal::NoSpace)?;
                    return Ok((stripe, generation));
                }
            }
        }
    }

    /// Whether a stripe of before the last expansion is free that has more data units than one of
    /// a new segment would have: a pool that was full grew by few drives.
    fn is_outgrown_wider(&self, stripes: &StripeTable) -> bool {
        let outgrown = stripes.free_outgrown().and_then(|segment| self.group.geometry(segment));
        outgrown.is_some_and(|old| self.group.next_geometry().is_none_or(|next| next.data < old.data))
    }

    /// Gives idle segments that lie on failed drives, or leave out new ones, back to the group.
    pub async fn release_idle_segments(&self) {
        let idle = self.state.borrow().stripes.idle_segments();
        if idle.is_empty() || self.group.release_segments(&idle).await.is_err() {
            return;
        }
        let mut state = self.state.borrow_mut();
        idle.into_iter().for_each(|segment| state.stripes.remove_segment(segment));
    }

    /// Applies the mappings and moves of a stripe that is written.
    async fn apply_consequences(&self, consequences: Consequences) -> Result<(), StoreRefusal> {
        for (count, item) in consequences.items.iter().enumerate() {
            if count % ITEMS_PER_TURN == ITEMS_PER_TURN - 1 {
                self.world.yield_now().await;
            }
            self.uncrowd(item.id).await?;
            if !self.resident(|state| state.apply_item(item)).await? {
                self.state.borrow_mut().staged.put_back(item.id);
            }
        }
        for change in &consequences.moves {
            self.resident(|state| state.apply_move(change)).await?;
        }
        self.forget_gone_objects();
        Ok(())
    }

    /// Drops objects that went from the block cache.
    pub fn forget_gone_objects(&self) {
        let gone = std::mem::take(&mut self.state.borrow_mut().gone_objects);
        let mut blocks = self.blocks.borrow_mut();
        for object in gone {
            blocks.remove(&object);
        }
    }
}
