//! The check of everything against everything, on a live store.
//!
//! Every mapping must name an object that exists, every object must have exactly the
//! references that the maps hold, every stripe exactly the live bytes that objects,
//! pages, usage and delta objects have in it, every file the space and the content sum
//! that its mappings add up to (R-INT-24). With `deep`, every object is also read,
//! verified against its references, decoded and hashed.
//!
//! Movers (destager, cleaner, reclaimer, checkpoint) wait while it runs; clients do not.

use std::collections::{BTreeMap, BTreeSet};

use base::{FileId, ObjectId, content_check};
use raid::{Principal, StripeId};

use crate::engine::Engine;
use crate::format::Place;
use crate::inner::Inner;
use crate::layers::{Layer, Viewer};
use crate::maps::{decode_block, decode_change};
use crate::pages::TABLE_FANOUT;
use crate::staged::BlockId;
use crate::state::{BLOCKS, CHANGES, Mapping, OBJECTS, RECLAIM, decode_entry, decode_object, file_key, sum_term};
use crate::store::{BLOCK_BYTES, StoreRefusal};
use crate::tree::{Entry, PageId};

const CHUNK: usize = 512;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A mapping names an object that does not exist.
    Dangling {
        /// File of the mapping.
        file: FileId,
        /// Offset of its block in bytes.
        offset_bytes: u64,
        /// The missing object.
        object: ObjectId,
    },
    /// An object's count of references is wrong.
    References {
        /// The object.
        object: ObjectId,
        /// References that the maps hold.
        counted: u64,
        /// What its row says.
        recorded: u64,
    },
    /// A stripe's count of live bytes is wrong.
    LiveBytes {
        /// The stripe.
        stripe: StripeId,
        /// Bytes of what refers into it.
        counted: u64,
        /// What the stripe table says.
        recorded: u64,
    },
    /// A file's used space is wrong.
    UsedBytes {
        /// The file.
        file: FileId,
        /// Space of its mappings.
        counted: u64,
        /// What its head says.
        recorded: u64,
    },
    /// A file's content sum is wrong.
    ContentSum {
        /// The file.
        file: FileId,
    },
    /// A stored block that no file, snapshot or clone sees, and that nothing is to reclaim.
    Unseen {
        /// The map it is in: the file, unless that was cloned or rolled back.
        file: FileId,
        /// Offset of the block in bytes.
        offset_bytes: u64,
    },
    /// The list of what changed between snapshots does not fit the block map.
    Changes {
        /// The map: the file, unless that was cloned or rolled back.
        file: FileId,
        /// Offset of the block in bytes.
        offset_bytes: u64,
    },
    /// An object is damaged beyond repair, or is not what its references say.
    Unreadable {
        /// The object.
        object: ObjectId,
        /// A file that refers to it.
        file: FileId,
        /// Offset there in bytes.
        offset_bytes: u64,
    },
}

/// What an audit saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Files with stored blocks.
    pub files: u64,
    /// Mappings.
    pub blocks: u64,
    /// Objects.
    pub objects: u64,
    /// Pages on media, table pages included.
    pub pages: u64,
    /// Objects read and hashed.
    pub objects_read: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

#[derive(Default)]
struct Tally {
    references: BTreeMap<ObjectId, (u64, Mapping, BlockId)>,
    live_bytes: BTreeMap<StripeId, u64>,
    /// Entries of the maps that have layers.
    layered: Maps,
    audit: Audit,
}

/// Entries by map, then by block and epoch.
type Maps = BTreeMap<FileId, BTreeMap<(u64, u32), Option<Mapping>>>;

impl Tally {
    fn changes_amiss(&mut self, id: BlockId) {
        self.audit.findings.push(Finding::Changes { file: id.map, offset_bytes: id.block * BLOCK_BYTES });
    }

    fn place(&mut self, place: Place) {
        *self.live_bytes.entry(place.stripe).or_default() += u64::from(place.object_bytes());
    }
}

impl Engine {
    /// Checks every reference; with `deep`, reads every object, too.
    pub async fn audit(&self, deep: bool) -> Result<Audit, StoreRefusal> {
        let inner = &self.inner;
        let mover = inner.mover.lock().await;
        let mut tally = Tally::default();
        inner.audit_files(&mut tally).await?;
        inner.audit_objects(&mut tally, deep).await?;
        inner.audit_pages(&mut tally).await?;
        mover.usage().chain(&mover.root.usage_index).chain(&mover.deltas).for_each(|place| tally.place(*place));
        inner.audit_stripes(&mut tally);
        Ok(tally.audit)
    }
}

impl Inner {
    async fn chunk(&self, tree: u8, from: &[u8]) -> Result<Vec<Entry>, StoreRefusal> {
        let found = self.resident(|state| state.tree(tree).scan(&state.pages, from, CHUNK, |_| true)).await;
        self.world.yield_now().await;
        found
    }

    async fn audit_files(&self, tally: &mut Tally) -> Result<(), StoreRefusal> {
        let key = self.state.borrow().content_key;
        let mut from = vec![0];
        let mut file = (FileId(0), 0u64, 0u128);
        // Clients go on meanwhile; what they add to these changes nothing that is stored.
        let views: Vec<(Layer, Viewer)> = self.state.borrow().layers.all_views().copied().collect();
        let maps: BTreeSet<FileId> = views.iter().map(|(layer, _)| layer.map).collect();
        loop {
            let entries = self.chunk(BLOCKS, &from).await?;
            for (entry_key, value) in &entries {
                let id = decode_block(entry_key);
                let mapping = decode_entry(value);
                if let Some(mapping) = mapping {
                    tally.audit.blocks += 1;
                    tally.references.entry(mapping.object).or_insert((0, mapping, id)).0 += 1;
                }
                if maps.contains(&id.map) || self.state.borrow().layers.merging(id.map) {
                    tally.layered.entry(id.map).or_default().insert((id.block, id.epoch), mapping);
                    continue;
                }
                if id.map != file.0 {
                    self.audit_plain(file, tally).await?;
                    file = (id.map, 0, 0);
                }
                if let Some(mapping) = mapping {
                    file.1 += BLOCK_BYTES;
                    file.2 = file.2.wrapping_add(sum_term(&key, id.block, mapping.content));
                }
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == CHUNK) else { break };
            from = [last, &[0][..]].concat();
        }
        self.audit_plain(file, tally).await?;
        self.audit_changes(tally).await?;
        self.audit_views(&views, tally).await
    }

    /// The change list names every entry that it is to name, and nothing else.
    async fn audit_changes(&self, tally: &mut Tally) -> Result<(), StoreRefusal> {
        let mut expected: BTreeSet<BlockId> = BTreeSet::new();
        for (map, entries) in &tally.layered {
            let ids = entries.keys().map(|(block, epoch)| BlockId { map: *map, block: *block, epoch: *epoch });
            expected.extend(ids.filter(|id| self.state.borrow().layers.is_tracked(id.layer())));
        }
        let mut from = vec![0];
        loop {
            let rows = self.chunk(CHANGES, &from).await?;
            for (key, _) in &rows {
                let id = decode_change(key);
                if !expected.remove(&id) {
                    tally.changes_amiss(id);
                }
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == CHUNK) else { break };
            from = [last, &[0][..]].concat();
        }
        expected.into_iter().for_each(|id| tally.changes_amiss(id));
        Ok(())
    }

    /// Everybody who looks at a map with layers has the space and the sum of what is seen,
    /// and nothing is kept that nobody sees.
    async fn audit_views(&self, views: &[(Layer, Viewer)], tally: &mut Tally) -> Result<(), StoreRefusal> {
        let key = self.state.borrow().content_key;
        let mut seen: BTreeSet<BlockId> = BTreeSet::new();
        for &(layer, viewer) in views {
            let visible = self.visible(layer, &tally.layered);
            seen.extend(visible.values().map(|(id, _)| *id));
            if let Viewer::File(file) = viewer {
                let mappings = visible.iter().filter_map(|(block, (_, mapping))| Some((*block, (*mapping)?)));
                let (used, sum) = mappings.fold((0, 0u128), |(used, sum), (block, mapping)| {
                    (used + BLOCK_BYTES, sum.wrapping_add(sum_term(&key, block, mapping.content)))
                });
                self.audit_head((file, used, sum), layer.map, tally).await?;
            }
            self.world.yield_now().await;
        }
        for (map, entries) in std::mem::take(&mut tally.layered) {
            if self.state.borrow().layers.merging(map) {
                continue;
            }
            let ids = entries.keys().map(|&(block, epoch)| BlockId { map, block, epoch });
            let unseen = ids.filter(|id| !seen.contains(id));
            tally
                .audit
                .findings
                .extend(unseen.map(|id| Finding::Unseen { file: id.map, offset_bytes: id.block * BLOCK_BYTES }));
        }
        Ok(())
    }

    /// What is stored of each block as seen from `layer`.
    fn visible(&self, layer: Layer, maps: &Maps) -> BTreeMap<u64, (BlockId, Option<Mapping>)> {
        let state = self.state.borrow();
        let mut visible = BTreeMap::new();
        let mut at = Some(layer);
        while let Some(here) = at {
            let mut own = BTreeMap::new();
            for (&(block, epoch), mapping) in maps.get(&here.map).into_iter().flatten() {
                if epoch <= here.epoch {
                    own.insert(block, (BlockId { map: here.map, block, epoch }, *mapping));
                }
            }
            for (block, entry) in own {
                visible.entry(block).or_insert(entry);
            }
            at = state.layers.parent(here.map);
        }
        visible
    }

    /// A map without layers is seen by its file, or is being reclaimed.
    async fn audit_plain(&self, (map, used, sum): (FileId, u64, u128), tally: &mut Tally) -> Result<(), StoreRefusal> {
        if map == FileId(0) || self.audit_head((map, used, sum), map, tally).await? {
            return Ok(());
        }
        let known = self.resident(|state| state.tree(RECLAIM).with(&state.pages, &file_key(map), |_| ())).await?;
        if known.is_none() && !self.state.borrow().layers.merging(map) {
            tally.audit.findings.push(Finding::Unseen { file: map, offset_bytes: 0 });
        }
        Ok(())
    }

    /// Compares a head with what is counted, if the file still looks at `map`.
    async fn audit_head(
        &self,
        (file, used, sum): (FileId, u64, u128),
        map: FileId,
        tally: &mut Tally,
    ) -> Result<bool, StoreRefusal> {
        let found = self.resident(|state| Ok(state.file(file)?.map(|open| (open.head, open.layer)))).await?;
        let Some((head, _)) = found.filter(|(_, layer)| layer.map == map) else { return Ok(false) };
        tally.audit.files += 1;
        if head.used_bytes != used {
            tally.audit.findings.push(Finding::UsedBytes { file, counted: used, recorded: head.used_bytes });
        }
        if head.content_sum != sum {
            tally.audit.findings.push(Finding::ContentSum { file });
        }
        Ok(true)
    }

    async fn audit_objects(&self, tally: &mut Tally, deep: bool) -> Result<(), StoreRefusal> {
        let mut from = vec![0];
        loop {
            let entries = self.chunk(OBJECTS, &from).await?;
            for (key, value) in &entries {
                let object = ObjectId(u64::from_be_bytes(key[..].try_into().expect("an object key has 8 bytes")));
                let row = decode_object(value);
                tally.audit.objects += 1;
                tally.place(row.place);
                let referred = tally.references.remove(&object);
                let counted = referred.map_or(0, |(count, _, _)| count);
                if counted != u64::from(row.references) {
                    let recorded = u64::from(row.references);
                    tally.audit.findings.push(Finding::References { object, counted, recorded });
                }
                if let Some((_, mapping, id)) = referred.filter(|_| deep) {
                    self.audit_content(mapping, id, tally).await?;
                }
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == CHUNK) else { break };
            from = [last, &[0][..]].concat();
        }
        for (object, (_, _, id)) in std::mem::take(&mut tally.references) {
            let offset_bytes = id.block * BLOCK_BYTES;
            tally.audit.findings.push(Finding::Dangling { file: id.map, offset_bytes, object });
        }
        Ok(())
    }

    async fn audit_content(&self, mapping: Mapping, id: BlockId, tally: &mut Tally) -> Result<(), StoreRefusal> {
        let key = self.state.borrow().content_key;
        let row = self.resident(|state| state.object(mapping.object)).await?;
        let Some(row) = row else { return Ok(()) };
        tally.audit.objects_read += 1;
        let content = self.fetch_object(Principal::Scanner, mapping, row).await;
        if !content.is_ok_and(|content| content_check(&key, &content) == mapping.content) {
            let offset_bytes = id.block * BLOCK_BYTES;
            tally.audit.findings.push(Finding::Unreadable { object: mapping.object, file: id.map, offset_bytes });
        }
        Ok(())
    }

    /// Walks the page table from its top.
    async fn audit_pages(&self, tally: &mut Tally) -> Result<(), StoreRefusal> {
        let top = self.state.borrow().pages.root();
        if top.level == 0 {
            return Ok(());
        }
        tally.audit.pages += 1;
        tally.place(top.entry.place);
        let mut tables = vec![PageId::at_level(top.level, 0)];
        while let Some(table) = tables.pop() {
            for index in 0..TABLE_FANOUT {
                let id = PageId::at_level(table.level() - 1, table.number() * TABLE_FANOUT + index);
                let entry = self.resident(|state| state.pages.entry(id)).await?;
                if !entry.is_some() {
                    continue;
                }
                tally.audit.pages += 1;
                tally.place(entry.place);
                if id.level() > 0 {
                    tables.push(id);
                }
            }
        }
        Ok(())
    }

    fn audit_stripes(&self, tally: &mut Tally) {
        let mut recorded: BTreeMap<StripeId, u64> =
            self.state.borrow().stripes.used().map(|row| (row.stripe, u64::from(row.live_bytes))).collect();
        for (stripe, counted) in std::mem::take(&mut tally.live_bytes) {
            let recorded = recorded.remove(&stripe).unwrap_or(0);
            if recorded != counted {
                tally.audit.findings.push(Finding::LiveBytes { stripe, counted, recorded });
            }
        }
        let unnamed = recorded.into_iter();
        tally.audit.findings.extend(unnamed.map(|(stripe, recorded)| Finding::LiveBytes {
            stripe,
            counted: 0,
            recorded,
        }));
    }
}
