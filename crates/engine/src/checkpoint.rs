//! Checkpoints: make everything applied so far durable outside the journal.
//!
//! 1. Drain the data stream: mappings name only written stripes.
//! 2. In one step without waiting: heads to their tree, collect the dirty pages, note the
//!    trees' roots, the counters, and how far the journal is covered. From here on new
//!    changes belong to the next checkpoint; they copy the pages they touch.
//! 3. Write the pages, then the table pages that name them, level by level; each leaves
//!    its old place. Write the mapping delta and the rows of the stripe table that
//!    changed, its own included.
//! 4. Flush the drives; only then replace the root, by compare-and-set (`design.md`:
//!    the root is swung after everything it names is stable).
//! 5. Trim the journal; stripes emptied before step 2 are free once no reader knows them.
//!
//! A crash before 4 leaves the old root, whose stripes are all untouched, and a journal
//! that still holds everything since. A crash after 4 replays what it need not: redoing
//! is harmless.

use std::collections::BTreeMap;
use std::rc::Rc;

use base::{ContentCheck, Osn};
use journal::Sequence;

use crate::delta::DeltaLog;
use crate::format::{Codec, Descriptor, ObjectKind, Place};
use crate::inner::Inner;
use crate::mover::{Mover, Purpose};
use crate::page::Page;
use crate::pages::{PageEntry, TABLE_FANOUT, TablePage, TableRoot};
use crate::relog::Reader;
use crate::root::{ROOT_REGISTER, Root};
use crate::state::State;
use crate::store::StoreRefusal;
use crate::tree::{Missing, PageId, Tree};

/// Most payload of a usage, index or delta object.
pub(crate) const LOG_OBJECT_BYTES: usize = 60 * 1024;

/// Pages written between two looks at other work.
const PAGES_PER_TURN: usize = 4;

/// What step 2 fixed.
struct Collected {
    pages: Vec<(PageId, Rc<Page>)>,
    freed: Vec<PageId>,
    trees: Vec<Tree>,
    through: u64,
    applied: u64,
    last_osn: Osn,
    last_file: u64,
    next_page: u64,
    delta: DeltaLog,
}

/// New entries for the table pages of one level.
type Updates = BTreeMap<u64, Vec<(usize, PageEntry)>>;

impl State {
    /// Step 2. `Missing`: load and try again; nothing is lost.
    fn collect(&mut self) -> Result<Collected, Missing> {
        let unsettled = self.staged.first_unsettled().unwrap_or(u64::MAX);
        let through = self.applied_through.min(unsettled - 1);
        self.layers.forget_history(through);
        self.flush_heads()?;
        self.flush_layers()?;
        let (pages, freed) = self.pages.collect();
        self.stripes.begin_retire();
        self.changed = false;
        Ok(Collected {
            pages,
            freed,
            trees: self.roots(),
            through,
            applied: self.applied_through,
            last_osn: self.last_osn,
            last_file: self.last_file,
            next_page: self.pages.next_number(),
            delta: self.delta.take(),
        })
    }
}

impl Inner {
    /// Makes a checkpoint. The caller holds the mover lock.
    pub async fn checkpoint(&self, mover: &mut Mover) -> Result<(), StoreRefusal> {
        self.refuse_if_stopped()?;
        mover.data.drain(self).await?;
        self.shorten_log(mover).await?;
        let collected = self.resident(State::collect).await?;
        let number = mover.root.checkpoint + 1;
        let written = self.write_checkpoint(mover, &collected, number).await;
        let root = match written {
            Ok(root) => root,
            Err(refusal) => {
                self.stop("a checkpoint could not be written");
                return Err(refusal);
            }
        };
        self.swing_root(mover, root).await?;
        self.state.borrow_mut().pages.finish(&collected.freed);
        self.journal.trim(Sequence(collected.through));
        self.new_era().await;
        self.state.borrow_mut().stripes.finish_retire();
        self.release_idle_segments().await;
        self.counters.borrow_mut().checkpoints += 1;
        mover.last_checkpoint = self.world.clock.now();
        self.checkpointed.notify_waiters();
        Ok(())
    }

    /// Step 3 and the flush of step 4.
    async fn write_checkpoint(&self, mover: &mut Mover, from: &Collected, number: u64) -> Result<Root, StoreRefusal> {
        let table = self.write_pages(mover, from, number).await?;
        let mut root = Root {
            checkpoint: number,
            last_osn: from.last_osn,
            last_file: from.last_file,
            next_page: from.next_page,
            through: Sequence(from.through),
            applied: Sequence(from.applied),
            trim: self.journal.trim_point_for(Sequence(from.through)),
            incarnations: self.journal.incarnations(),
            trees: from.trees.clone(),
            table,
            ..mover.root.clone()
        };
        self.write_deltas(mover, &from.delta, &mut root).await?;
        self.write_usage(mover, &mut root).await?;
        mover.meta.drain(self).await?;
        self.flush_drives().await?;
        // Both streams are drained and nothing else writes stripes.
        let next = self.state.borrow_mut().next_generation();
        self.group.stripes_are_whole_below(next);
        Ok(root)
    }

    async fn flush_drives(&self) -> Result<(), StoreRefusal> {
        self.group.flush().await.map_err(|_| {
            self.stop("the drives could not be flushed: too many failed");
            StoreRefusal::Stopped
        })
    }

    /// Replaces the durable root (step 4).
    pub async fn swing_root(&self, mover: &mut Mover, root: Root) -> Result<(), StoreRefusal> {
        let swung = self.group.register_cas(ROOT_REGISTER, mover.root_version, &root.encode()).await;
        let Ok(version) = swung else {
            self.stop("the root could not be replaced: no majority of the drives takes it");
            return Err(StoreRefusal::Stopped);
        };
        mover.root_version = version;
        self.journal.root_recorded(&root.incarnations);
        mover.root = root;
        Ok(())
    }

    /// Writes the collected pages and the page table above them.
    async fn write_pages(&self, mover: &mut Mover, from: &Collected, number: u64) -> Result<TableRoot, StoreRefusal> {
        let mut updates = Updates::new();
        for id in &from.freed {
            self.leave_old_place(*id).await?;
            note(&mut updates, *id, PageEntry::default());
        }
        for (count, (id, page)) in from.pages.iter().enumerate() {
            if count % PAGES_PER_TURN == PAGES_PER_TURN - 1 {
                self.world.yield_now().await;
            }
            let mut packed = Vec::with_capacity(page.packed_bytes());
            page.pack(&mut packed);
            let entry = self.write_page(mover, (*id, page.tree()), number, &packed).await?;
            note(&mut updates, *id, entry);
        }
        self.counters.borrow_mut().pages_written += from.pages.len() as u64;
        self.write_tables(mover, updates, number).await
    }

    /// Writes page `id` to a new place; the old one is no longer live.
    async fn write_page(
        &self,
        mover: &mut Mover,
        (id, tree): (PageId, u8),
        number: u64,
        packed: &[u8],
    ) -> Result<PageEntry, StoreRefusal> {
        self.leave_old_place(id).await?;
        let mut descriptor = log_descriptor(ObjectKind::Page, id.0, number, packed.len());
        descriptor.owner = u64::from(tree);
        let place = self.place_live(mover, &descriptor, packed).await?;
        Ok(PageEntry { place, version: number })
    }

    async fn leave_old_place(&self, id: PageId) -> Result<(), StoreRefusal> {
        let old = self.resident(|state| state.pages.entry(id)).await?;
        if old.is_some() {
            self.state.borrow_mut().stripes.sub_live(old.place.stripe, old.place.object_bytes());
        }
        Ok(())
    }

    /// Puts an object that the next root leads to into the open stripe of metadata.
    pub(crate) async fn place_live(
        &self,
        mover: &mut Mover,
        descriptor: &Descriptor,
        payload: &[u8],
    ) -> Result<Place, StoreRefusal> {
        let fill = |room: &mut [u8]| room[..payload.len()].copy_from_slice(payload);
        let place = mover.meta.place(self, Purpose::MakeRoom, descriptor, fill).await?;
        self.state.borrow_mut().stripes.add_live(place.stripe, place.object_bytes());
        Ok(place)
    }

    /// Writes the table pages, from the lowest level to the top.
    async fn write_tables(
        &self,
        mover: &mut Mover,
        mut updates: Updates,
        number: u64,
    ) -> Result<TableRoot, StoreRefusal> {
        let old_root = self.state.borrow().pages.root();
        let touched = std::mem::take(&mut mover.touched_tables);
        let mut level = 1;
        loop {
            for id in touched.iter().filter(|id| id.level() == level) {
                updates.entry(id.number()).or_default();
            }
            if updates.is_empty() && touched.iter().all(|id| id.level() <= level) {
                return Ok(old_root);
            }
            // A table that grows a level takes the old top in as its first entry.
            if level > old_root.level && level == old_root.level + 1 && old_root.level > 0 {
                let top = updates.entry(0).or_default();
                if top.iter().all(|(index, _)| *index != 0) {
                    top.insert(0, (0, old_root.entry));
                }
            }
            let mut above = Updates::new();
            let mut written = PageEntry::default();
            let is_top = level >= old_root.level && updates.keys().all(|&number| number == 0);
            for (table, entries) in std::mem::take(&mut updates) {
                let id = PageId::at_level(level, table);
                written = self.write_table(mover, id, entries, number).await?;
                note(&mut above, id, written);
            }
            if is_top {
                let root = TableRoot { level, entry: written };
                self.state.borrow_mut().pages.set_root(root);
                return Ok(root);
            }
            updates = above;
            level += 1;
        }
    }

    async fn write_table(
        &self,
        mover: &mut Mover,
        id: PageId,
        entries: Vec<(usize, PageEntry)>,
        number: u64,
    ) -> Result<PageEntry, StoreRefusal> {
        let table = self.resident(|state| state.pages.table(id)).await?;
        let mut table = TablePage::clone(&table);
        for (index, entry) in entries {
            table.replace(index, entry);
        }
        let mut packed = Vec::new();
        table.pack(&mut packed);
        let entry = self.write_page(mover, (id, 0), number, &packed).await?;
        self.state.borrow_mut().pages.write_table(id, table);
        Ok(entry)
    }

    /// Writes what changed in the mapping since the last checkpoint, for the repair scan: in
    /// another stripe than the pages that say the same.
    async fn write_deltas(&self, mover: &mut Mover, delta: &DeltaLog, root: &mut Root) -> Result<(), StoreRefusal> {
        mover.meta.launch(self);
        for chunk in delta.chunks() {
            let descriptor = log_descriptor(ObjectKind::Delta, root.checkpoint, root.last_osn.0, chunk.len());
            let place = self.place_live(mover, &descriptor, chunk).await?;
            mover.deltas.push(place);
        }
        let surplus = mover.deltas.len().saturating_sub(self.options.deltas_max);
        root.log_is_whole &= surplus == 0;
        if surplus > 0 {
            mover.log = Reader::new(mover.log.limit);
        }
        for place in mover.deltas.drain(..surplus) {
            self.state.borrow_mut().stripes.sub_live(place.stripe, place.object_bytes());
        }
        root.deltas = mover.deltas.clone();
        Ok(())
    }
}

fn note(updates: &mut Updates, id: PageId, entry: PageEntry) {
    let (parent, index) = id.parent();
    debug_assert!(index < TABLE_FANOUT as usize);
    updates.entry(parent.number()).or_default().push((index, entry));
}

/// Of an object of the metadata.
pub(crate) fn log_descriptor(kind: ObjectKind, id: u64, sequence: u64, stored_bytes: usize) -> Descriptor {
    Descriptor {
        kind,
        codec: Codec::Raw,
        stored_bytes: stored_bytes as u32,
        id,
        owner: 0,
        block: 0,
        sequence,
        epoch: 0,
        encoding: 0,
        content: ContentCheck::default(),
    }
}
