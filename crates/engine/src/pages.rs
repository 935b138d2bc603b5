//! Pages in memory, and the page table that says where each one stands on media.
//!
//! A page keeps its id for life; the *page table* maps id to place and version. It is a
//! radix tree of table pages (128 entries each), itself stored as pages at level 1, 2, …,
//! and only its top is named in the root. So rewriting or moving a page changes the
//! table, never the page's parents, and every reference carries location, version and
//! check (R-META-04, R-META-06, R-META-07).
//!
//! A page is in one of three sets: *dirty* (changed since the last checkpoint began),
//! *writing* (collected by a running checkpoint, its new place not yet durable) or
//! *clean* (may be dropped from memory at any time). Changing a page that is being
//! written copies it first.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use quick_cache::UnitWeighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};

use crate::format::{FormatError, Place, Take};
use crate::hash::{FixedMap, FixedState};
use crate::page::Page;
use crate::tree::{Missing, PageId, Pages};

/// Entries in a table page.
pub const TABLE_FANOUT: u64 = 128;
const LEVEL_SHIFT: u32 = 56;

impl PageId {
    /// The page number `number` at `level` (0: trees, above: page table).
    pub fn at_level(level: u8, number: u64) -> PageId {
        debug_assert!(number < 1 << LEVEL_SHIFT);
        PageId(u64::from(level) << LEVEL_SHIFT | number)
    }
    /// 0 for pages of trees.
    pub fn level(self) -> u8 {
        (self.0 >> LEVEL_SHIFT) as u8
    }
    /// Number within the level.
    pub fn number(self) -> u64 {
        self.0 & ((1 << LEVEL_SHIFT) - 1)
    }
    /// The table page that holds this page's entry, and the entry's index there.
    pub fn parent(self) -> (PageId, usize) {
        let index = (self.number() % TABLE_FANOUT) as usize;
        (PageId::at_level(self.level() + 1, self.number() / TABLE_FANOUT), index)
    }
}

/// Where a page stands and which version it is. A zero length means: nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageEntry {
    /// Location and check.
    pub place: Place,
    /// Number of the checkpoint that wrote it.
    pub version: u64,
}

impl PageEntry {
    /// Whether the page is on media at all.
    pub fn is_some(&self) -> bool {
        self.place.stored_bytes != 0
    }
}

/// A page of the page table.
#[derive(Clone, PartialEq, Eq)]
pub struct TablePage {
    entries: Vec<PageEntry>,
}

impl Default for TablePage {
    fn default() -> TablePage {
        TablePage { entries: vec![PageEntry::default(); TABLE_FANOUT as usize] }
    }
}

impl TablePage {
    /// Replaces entry `index` and returns what stood there.
    pub fn replace(&mut self, index: usize, entry: PageEntry) -> PageEntry {
        std::mem::replace(&mut self.entries[index], entry)
    }

    /// Entry `index`.
    pub fn entry(&self, index: usize) -> PageEntry {
        self.entries[index]
    }

    /// As stored.
    pub fn pack(&self, out: &mut Vec<u8>) {
        for entry in &self.entries {
            out.extend_from_slice(&entry.place.encode());
            out.extend_from_slice(&entry.version.to_le_bytes());
        }
    }

    /// Reads what [`TablePage::pack`] wrote.
    pub fn unpack(bytes: &[u8]) -> Result<TablePage, FormatError> {
        let mut take = Take(bytes);
        let entries = (0..TABLE_FANOUT)
            .map(|_| Ok(PageEntry { place: take.place()?, version: take.u64()? }))
            .collect::<Result<_, FormatError>>()?;
        take.end()?;
        Ok(TablePage { entries })
    }
}

/// Top of the page table: level and place of its only top page. Level 0: no page at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRoot {
    /// Level of the top table page.
    pub level: u8,
    /// Its entry.
    pub entry: PageEntry,
}

type Clean<T> = Cache<PageId, Rc<T>, UnitWeighter, FixedState, DefaultLifecycle<PageId, Rc<T>>>;

fn clean_cache<T>(pages: usize) -> Clean<T> {
    Cache::with(pages, pages as u64, UnitWeighter, FixedState, DefaultLifecycle::default())
}

/// All pages that are in memory.
pub struct PageStore {
    dirty: FixedMap<PageId, Rc<Page>>,
    writing: FixedMap<PageId, Rc<Page>>,
    clean: Clean<Page>,
    tables_writing: BTreeMap<PageId, Rc<TablePage>>,
    tables: Clean<TablePage>,
    root: TableRoot,
    next_number: u64,
    free_numbers: Vec<u64>,
    /// Freed since the last checkpoint began; on media they still stand.
    freed: BTreeSet<PageId>,
}

impl PageStore {
    /// Pages under `root`, with room for `clean_pages` clean ones in memory. Numbers from
    /// `next_number` on were never used.
    pub fn new(root: TableRoot, next_number: u64, clean_pages: usize) -> PageStore {
        PageStore {
            dirty: FixedMap::default(),
            writing: FixedMap::default(),
            clean: clean_cache(clean_pages.max(64)),
            tables_writing: BTreeMap::new(),
            tables: clean_cache((clean_pages / 16).max(64)),
            root,
            next_number: next_number.max(1),
            free_numbers: Vec::new(),
            freed: BTreeSet::new(),
        }
    }

    /// First page number never used.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Top of the page table as of the last finished or running checkpoint.
    pub fn root(&self) -> TableRoot {
        self.root
    }

    /// Pages that the next checkpoint must write.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// The table page as it is now.
    pub fn table(&self, id: PageId) -> Result<Rc<TablePage>, Missing> {
        if let Some(page) = self.tables_writing.get(&id).or_else(|| self.tables.get(&id)) {
            return Ok(page.clone());
        }
        // One that was never written names nothing yet.
        if self.entry(id)?.is_some() { Err(Missing(id)) } else { Ok(Rc::new(TablePage::default())) }
    }

    /// Whether the page table does not reach to `id` (yet).
    fn above_root(&self, id: PageId) -> bool {
        if id.level() > self.root.level {
            return true;
        }
        let below = u32::from(self.root.level - id.level());
        TABLE_FANOUT.checked_pow(below).is_some_and(|reach| id.number() >= reach)
    }

    /// Where page `id` stands on media. `Missing` names the table page to load first.
    pub fn entry(&self, id: PageId) -> Result<PageEntry, Missing> {
        if id.level() == self.root.level && id.number() == 0 && self.root.level > 0 {
            return Ok(self.root.entry);
        }
        if self.above_root(id) {
            return Ok(PageEntry::default());
        }
        let (parent, index) = id.parent();
        Ok(self.table(parent)?.entries[index])
    }

    /// Takes in a page that was read from where its entry says.
    pub fn install(&mut self, id: PageId, page: Page) {
        if !self.dirty.contains_key(&id) && !self.writing.contains_key(&id) {
            self.clean.insert(id, Rc::new(page));
        }
    }

    /// Takes in a table page that was read from where its entry says.
    pub fn install_table(&mut self, id: PageId, page: TablePage) {
        if !self.tables_writing.contains_key(&id) {
            self.tables.insert(id, Rc::new(page));
        }
    }

    /// Makes the next checkpoint write the page again, as when its stripe is cleaned. One
    /// that no tree has any more stays gone, though media still know it.
    pub fn touch(&mut self, id: PageId) -> Result<(), Missing> {
        if self.freed.contains(&id) {
            return Ok(());
        }
        self.page(id)?;
        self.page_mut(id, |_| ());
        Ok(())
    }

    /// Starts a checkpoint: the dirty pages in id order, and the ids freed since the last.
    pub fn collect(&mut self) -> (Vec<(PageId, Rc<Page>)>, Vec<PageId>) {
        debug_assert!(self.writing.is_empty(), "one checkpoint at a time");
        self.writing = std::mem::take(&mut self.dirty);
        (self.writing_in_order(), std::mem::take(&mut self.freed).into_iter().collect())
    }

    /// The pages being written, by id: the order of a map must not decide where they go.
    fn writing_in_order(&self) -> Vec<(PageId, Rc<Page>)> {
        let mut pages: Vec<_> = self.writing.iter().map(|(id, page)| (*id, page.clone())).collect();
        pages.sort_unstable_by_key(|(id, _)| *id);
        pages
    }

    /// Within a checkpoint: the table page has changed.
    pub fn write_table(&mut self, id: PageId, page: TablePage) {
        self.tables.remove(&id);
        self.tables_writing.insert(id, Rc::new(page));
    }

    /// Within a checkpoint: the page table has a new top.
    pub fn set_root(&mut self, root: TableRoot) {
        self.root = root;
    }

    /// The checkpoint's root is durable: what it wrote is clean, freed numbers may serve
    /// again.
    pub fn finish(&mut self, freed: &[PageId]) {
        let written = self.writing_in_order();
        self.writing.clear();
        for (id, page) in written {
            if !self.dirty.contains_key(&id) && !self.freed.contains(&id) {
                self.clean.insert(id, page);
            }
        }
        for (id, page) in std::mem::take(&mut self.tables_writing) {
            self.tables.insert(id, page);
        }
        self.free_numbers.extend(freed.iter().map(|id| id.number()));
    }
}

impl Pages for PageStore {
    fn page(&self, id: PageId) -> Result<Rc<Page>, Missing> {
        let found = self.dirty.get(&id).or_else(|| self.writing.get(&id)).or_else(|| self.clean.get(&id));
        found.cloned().ok_or(Missing(id))
    }

    fn page_mut(&mut self, id: PageId, change: impl FnOnce(&mut Page)) {
        if let Some(page) = self.dirty.get_mut(&id) {
            return change(Rc::make_mut(page));
        }
        let taken = self.clean.remove(&id).map(|(_, page)| page);
        let page = taken.or_else(|| self.writing.get(&id).cloned());
        let mut page = page.expect("a page is resident when it is changed");
        change(Rc::make_mut(&mut page));
        self.dirty.insert(id, page);
    }

    fn add(&mut self, page: Page) -> PageId {
        let number = self.free_numbers.pop().unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number - 1
        });
        let id = PageId::at_level(0, number);
        self.dirty.insert(id, Rc::new(page));
        id
    }

    fn free(&mut self, id: PageId) {
        self.dirty.remove(&id);
        self.clean.remove(&id);
        self.freed.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Place;

    fn entry(version: u64) -> PageEntry {
        PageEntry { place: Place { stored_bytes: 9, ..Place::default() }, version }
    }

    #[test]
    fn a_table_that_was_never_written_names_nothing_and_is_not_looked_for() {
        let mut store = PageStore::new(TableRoot { level: 2, entry: entry(1) }, 300, 64);
        let mut top = TablePage::default();
        top.replace(0, entry(1));
        store.install_table(PageId::at_level(2, 0), top);
        assert_eq!(store.entry(PageId(5)), Err(Missing(PageId::at_level(1, 0))), "written, and not in memory");
        assert_eq!(store.entry(PageId(300)), Ok(PageEntry::default()));
        assert!(store.table(PageId::at_level(1, 2)).is_ok());
    }

    #[test]
    fn a_freed_page_is_not_brought_back_by_the_cleaner() {
        let mut store = PageStore::new(TableRoot::default(), 1, 64);
        let id = store.add(Page::new(1, 0));
        let (written, _) = store.collect();
        assert_eq!(written.len(), 1);
        store.finish(&[]);
        store.free(id);
        assert_eq!(store.touch(id), Ok(()));
        let (written, freed) = store.collect();
        assert_eq!((written.len(), freed), (0, vec![id]));
    }
}
