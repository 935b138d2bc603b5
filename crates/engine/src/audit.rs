//! The check of everything against everything, on a live store.
//!
//! Every mapping must name an object that exists, every object must have exactly the
//! references that the maps hold, every stripe exactly the live bytes that objects,
//! pages, usage and delta objects have in it, every file the space and the content sum
//! that its mappings add up to (R-INT-24). With `deep`, every object is also read,
//! verified against its references, decoded and hashed.
//!
//! Movers (destager, cleaner, reclaimer, checkpoint) wait while it runs; clients do not.

use std::collections::BTreeMap;

use base::{FileId, ObjectId, content_check};
use raid::{Principal, StripeId};

use crate::engine::Engine;
use crate::format::Place;
use crate::inner::Inner;
use crate::pages::TABLE_FANOUT;
use crate::staged::BlockId;
use crate::state::{BLOCKS, Mapping, OBJECTS, decode_mapping, decode_object, sum_term};
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
    audit: Audit,
}

impl Tally {
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
        mover.root.usage.iter().chain(&mover.deltas).for_each(|place| tally.place(*place));
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
        loop {
            let entries = self.chunk(BLOCKS, &from).await?;
            for (entry_key, value) in &entries {
                let id = block_of(entry_key);
                if id.file != file.0 {
                    self.audit_head(file, tally).await?;
                    file = (id.file, 0, 0);
                }
                let mapping = decode_mapping(value);
                file.1 += BLOCK_BYTES;
                file.2 = file.2.wrapping_add(sum_term(&key, id.block, mapping.content));
                tally.audit.blocks += 1;
                tally.references.entry(mapping.object).or_insert((0, mapping, id)).0 += 1;
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == CHUNK) else { break };
            from = [last, &[0][..]].concat();
        }
        self.audit_head(file, tally).await
    }

    async fn audit_head(&self, (file, used, sum): (FileId, u64, u128), tally: &mut Tally) -> Result<(), StoreRefusal> {
        let Some(head) = self.resident(|state| state.head(file)).await? else { return Ok(()) };
        tally.audit.files += 1;
        if head.used_bytes != used {
            tally.audit.findings.push(Finding::UsedBytes { file, counted: used, recorded: head.used_bytes });
        }
        if head.content_sum != sum {
            tally.audit.findings.push(Finding::ContentSum { file });
        }
        Ok(())
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
            tally.audit.findings.push(Finding::Dangling { file: id.file, offset_bytes, object });
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
            tally.audit.findings.push(Finding::Unreadable { object: mapping.object, file: id.file, offset_bytes });
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
            self.state.borrow().stripes.all().iter().map(|row| (row.stripe, u64::from(row.live_bytes))).collect();
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

fn block_of(key: &[u8]) -> BlockId {
    let word = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("a block key has 20 bytes"));
    BlockId { file: FileId(word(0)), block: word(8) }
}
