//! Makes the outcome of a scan true: an engine whose trees are filled from the books replays
//! the journal and makes one checkpoint. See the head of `salvage`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base::port::{Leg, World};
use base::{ObjectId, Osn};
use journal::{Journal, JournalRoot};
use raid::{Group, Principal, StripeId};

use super::Salvage;
use crate::engine::Engine;
use crate::format::{DESCRIPTOR_BYTES, ObjectKind, Place};
use crate::inner::Inner;
use crate::maps::change_key;
use crate::mover::{Move, Mover, Stream};
use crate::open::{OpenFault, Opened, state_of};
use crate::options::Options;
use crate::pages::TableRoot;
use crate::relog::Reader;
use crate::root::{ROOT_REGISTER, Root};
use crate::state::{
    BLOCKS, CHANGES, FIRST_TABLE, HEADS, LAYERS, LOST, OBJECTS, ObjectRow, State, block_key, entry_value, file_key,
    lost_key, object_value,
};
use crate::store::{Change, StoreRefusal, Table};
use crate::stripes::{StripeTable, Usage};
use crate::tree::Missing;

/// Rows put between two looks at other work.
const ROWS_PER_TURN: usize = 512;
/// Stands for "something is there" of stripes that only the old root needs.
const SOME_BYTES: u32 = 8;

impl Salvage {
    /// Replaces the damaged trees: what the scan found is true when this returns, and what is in
    /// the journal with it. On an error, and after a crash at any moment, either all is as
    /// before or all of it is done. The pool is to be opened anew afterwards.
    pub async fn restore(
        self,
        group: Group,
        legs: Vec<Rc<dyn Leg>>,
        world: World,
        options: Options,
    ) -> Result<Opened, OpenFault> {
        let mut old = self.root.clone();
        let journal_root = JournalRoot { pool: group.id(), trim: old.trim, incarnations: old.incarnations.clone() };
        let (journal, recovered) = Journal::open(legs, &journal_root, world.clone(), options.journal).await?;
        old.opening += 1;
        let set = group.register_cas(ROOT_REGISTER, self.root_version, &old.encode()).await;
        let root_version = set.map_err(|_| OpenFault::NoMajority)?;
        let opened = Opened { replayed: recovered.records.len(), blocked: recovered.blocked, legs: recovered.legs };
        let engine = Engine::assemble(
            group.clone(),
            journal,
            world,
            options.clone(),
            self.memory(&group, (old, root_version), &options),
        );
        let inner = &engine.inner;
        let floor = inner.state.borrow_mut().next_generation();
        inner.group.stripes_are_whole_below(floor);
        self.fill(inner).await.map_err(OpenFault::Replay)?;
        inner.load_layers().await.map_err(OpenFault::Replay)?;
        inner.remember_lost().await.map_err(OpenFault::Replay)?;
        inner.replay(recovered.records, &opened.blocked).await.map_err(OpenFault::Replay)?;
        inner.state.borrow_mut().replaying = false;
        self.finish(&engine).await.map_err(OpenFault::Replay)?;
        Ok(opened)
    }

    /// Empty trees, and a stripe table in which nothing is free that either root needs.
    fn memory(&self, group: &Group, (old, root_version): (Root, u64), options: &Options) -> (State, Mover) {
        let root = Root {
            table: TableRoot::default(),
            trees: Vec::new(),
            usage_index: Vec::new(),
            usage: Vec::new(),
            usage_base: 0,
            own_usage: Vec::new(),
            deltas: Vec::new(),
            log_is_whole: true,
            ..old
        };
        let mover = Mover {
            data: Stream::default(),
            meta: Stream::of_metadata(),
            deltas: Vec::new(),
            log: Reader::new(options.deltas_kept),
            root_version,
            indexed_usage: Vec::new(),
            touched_tables: BTreeSet::new(),
            dump_usage: true,
            table_left: Vec::new(),
            stuck: BTreeSet::new(),
            last_checkpoint: group.world().clock.now(),
            busy_through: 0,
            busy_at: group.world().clock.now(),
            root: root.clone(),
        };
        (state_of(group, &root, self.stripes(group), options), mover)
    }

    /// References of each object that has any.
    fn references(&self) -> BTreeMap<ObjectId, u32> {
        let mut references = BTreeMap::new();
        for mapping in self.books.blocks.values().flatten() {
            *references.entry(mapping.object).or_insert(0u32) += 1;
        }
        references
    }

    fn place(&self, object: ObjectId) -> Option<Place> {
        self.survey.objects.get(&object).map(|found| found.place)
    }

    fn stripes(&self, group: &Group) -> StripeTable {
        let mut stripes = StripeTable::default();
        for segment in group.segments() {
            stripes.add_segment(segment.id, group.rows_per_segment());
        }
        let mut live: BTreeMap<StripeId, u32> = BTreeMap::new();
        for place in self.references().keys().filter_map(|object| self.place(*object)) {
            *live.entry(place.stripe).or_default() += place.object_bytes();
        }
        let generation = |stripe: &StripeId| {
            let known = self.survey.proven.get(stripe).or_else(|| self.survey.unproven.get(stripe));
            known.copied().unwrap_or(0).max(1)
        };
        for (stripe, live_bytes) in &live {
            let _ = stripes.restore(Usage { stripe: *stripe, generation: generation(stripe), live_bytes: *live_bytes });
        }
        // Free with the root that does not need them any more.
        for stripe in self.needed.iter().filter(|stripe| !live.contains_key(stripe)) {
            let usage = Usage { stripe: *stripe, generation: generation(stripe), live_bytes: SOME_BYTES };
            if stripes.restore(usage).is_ok() {
                stripes.sub_live(*stripe, SOME_BYTES);
            }
        }
        stripes
    }

    /// Puts everything into the trees and tells it to the log.
    async fn fill(&self, inner: &Inner) -> Result<(), StoreRefusal> {
        let (osn, references) = (self.root.last_osn, self.references());
        let mut turn = 0;
        for (&id, mapping) in &self.books.blocks {
            let is_tracked = self.books.layers.is_tracked(id.layer());
            inner
                .resident(|state| {
                    state.put(BLOCKS, &block_key(id), &entry_value(*mapping))?;
                    if is_tracked { state.put(CHANGES, &change_key(id), &[]) } else { Ok(()) }
                })
                .await?;
            let object = mapping.map_or(ObjectId(0), |mapping| mapping.object);
            inner.state.borrow_mut().delta.mapping(id, osn, object);
            pause(inner, &mut turn).await;
        }
        for (object, references) in references {
            let Some(place) = self.place(object) else { continue };
            let value = object_value(ObjectRow { place, references });
            inner.resident(|state| state.put(OBJECTS, &object.0.to_be_bytes(), &value)).await?;
            pause(inner, &mut turn).await;
        }
        for (file, head) in &self.books.heads {
            let value = head.open.encode();
            inner.resident(|state| state.put_told(HEADS, &file_key(*file), &value)).await?;
        }
        for id in &self.books.lost {
            inner.resident(|state| state.put_told(LOST, &lost_key(*id), &[])).await?;
        }
        for (key, value) in self.books.layers.all_rows() {
            inner.resident(|state| state.put_told(LAYERS, &key, &value)).await?;
        }
        self.fill_tables(inner, (osn, &mut turn)).await
    }

    async fn fill_tables(&self, inner: &Inner, (osn, turn): (Osn, &mut usize)) -> Result<(), StoreRefusal> {
        for (&tree, rows) in &self.books.tables {
            for (key, value) in rows {
                inner.resident(|state| state.put(tree, key, value)).await?;
                let change = Change::Put { table: Table(tree - FIRST_TABLE), key: key.clone(), value: value.clone() };
                inner.state.borrow_mut().delta.change(&change, osn);
                pause(inner, turn).await;
            }
        }
        Ok(())
    }

    /// Objects in stripes that are not whole any more go to whole ones; then the root is swung.
    async fn finish(&self, engine: &Engine) -> Result<(), StoreRefusal> {
        let inner = &engine.inner;
        {
            let mut mover = inner.mover.lock().await;
            for object in self.references().into_keys() {
                let Some(found) = self.survey.objects.get(&object).filter(|found| found.generation.is_none()) else {
                    continue;
                };
                let is_it = |descriptor: &crate::format::Descriptor| {
                    descriptor.kind == ObjectKind::Data && descriptor.id == object.0
                };
                let read = inner.read_object(Principal::Scanner, found.place, is_it).await;
                let (_, bytes) =
                    read.map_err(|_| StoreRefusal::Unreadable { file: found.first.map, offset_bytes: 0 })?;
                let mut padded = bytes[..DESCRIPTOR_BYTES + found.place.stored_bytes as usize].to_vec();
                padded.resize(found.place.object_bytes() as usize, 0);
                let to = mover.data.copy(inner, &padded, found.place).await?;
                mover.data.consequences.moves.push(Move { object, from: found.place, to });
            }
            mover.data.drain(inner).await?;
        }
        inner.state.borrow_mut().changed = true;
        engine.checkpoint().await
    }
}

async fn pause(inner: &Inner, turn: &mut usize) {
    *turn += 1;
    if turn.is_multiple_of(ROWS_PER_TURN) {
        inner.world.yield_now().await;
    }
}

impl State {
    fn put_told(&mut self, tree: u8, key: &[u8], value: &[u8]) -> Result<(), Missing> {
        self.put(tree, key, value)?;
        self.delta.row(tree, key, Some(value));
        Ok(())
    }
}
