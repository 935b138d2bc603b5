//! Rows of a tree as far as its pages can be read, and the ranges of keys for which they
//! cannot.

use std::collections::{BTreeMap, BTreeSet};

use raid::{Group, Principal};

use crate::format::{DESCRIPTOR_BYTES, Descriptor, ObjectKind, Place};
use crate::page::Page;
use crate::pages::{PageEntry, TablePage, TableRoot};
use crate::tree::{PageId, Tree};

/// Keys from the first (included) to the second (not included; `None`: to the end).
pub type Gap = (Vec<u8>, Option<Vec<u8>>);

/// Whether a key lies in one of `gaps`.
pub fn is_in(gaps: &[Gap], key: &[u8]) -> bool {
    gaps.iter().any(|(from, to)| &from[..] <= key && to.as_ref().is_none_or(|to| key < &to[..]))
}

/// Whether a gap touches keys that begin with `prefix`.
pub fn touches(gaps: &[Gap], prefix: &[u8]) -> bool {
    gaps.iter().any(|(from, to)| {
        let begins_before_the_end = &from[..from.len().min(prefix.len())] <= prefix;
        begins_before_the_end && to.as_ref().is_none_or(|to| prefix < &to[..])
    })
}

/// What is known of a tree by its pages.
#[derive(Debug, Default)]
pub struct Rows {
    /// Rows of pages that are those of the root.
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where there may have been others.
    pub gaps: Vec<Gap>,
    /// Rows within gaps, of pages that may be out of date.
    pub unproven: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads pages as the root names them.
pub struct Leaves {
    group: Group,
    root: TableRoot,
    tables: BTreeMap<PageId, Option<TablePage>>,
    /// Places of everything that the page table names and that can be reached, and of what may
    /// stand for the rest.
    pub named: Vec<Place>,
    /// Pages, of trees and of the page table, that cannot be read.
    pub lost: BTreeSet<PageId>,
    reached: BTreeSet<PageId>,
}

/// The object at `place`, if it can be read and is what `expected` describes.
pub async fn read_object(group: &Group, place: Place, expected: impl Fn(&Descriptor) -> bool) -> Option<Vec<u8>> {
    let group = group.acting_as(Principal::Scanner);
    let verify =
        |bytes: &[u8]| Descriptor::open(bytes).is_ok_and(|(found, check)| check == place.check && expected(&found));
    let len = DESCRIPTOR_BYTES as u32 + place.stored_bytes;
    let object = group.read(place.stripe, place.offset_bytes, len, &verify).await.ok()?;
    Some(object[DESCRIPTOR_BYTES..].to_vec())
}

impl Leaves {
    /// Pages under `root`.
    pub fn new(group: Group, root: TableRoot) -> Leaves {
        let (tables, named) = (BTreeMap::new(), Vec::new());
        Leaves { group, root, tables, named, lost: BTreeSet::new(), reached: BTreeSet::new() }
    }

    async fn bytes(&mut self, id: PageId, entry: PageEntry) -> Option<Vec<u8>> {
        let is_it =
            |found: &Descriptor| found.kind == ObjectKind::Page && found.id == id.0 && found.sequence == entry.version;
        read_object(&self.group, entry.place, is_it).await
    }

    /// The entry of a page. The outer `None`: nobody knows.
    async fn entry(&mut self, id: PageId) -> Option<Option<PageEntry>> {
        if self.root.level == 0 || id.level() >= self.root.level {
            return Some(
                (self.root.level > 0 && id == PageId::at_level(self.root.level, 0)).then_some(self.root.entry),
            );
        }
        let (parent, index) = id.parent();
        if !self.tables.contains_key(&parent) {
            let table = match Box::pin(self.entry(parent)).await {
                Some(Some(entry)) => {
                    self.named.push(entry.place);
                    let bytes = self.bytes(parent, entry).await;
                    bytes.and_then(|bytes| TablePage::unpack(&bytes).ok())
                }
                // A table that was never written names nothing.
                Some(None) => Some(TablePage::default()),
                None => None,
            };
            if table.is_none() {
                self.lost.insert(parent);
            }
            self.tables.insert(parent, table);
        }
        let table = self.tables.get(&parent)?.as_ref()?;
        Some(Some(table.entry(index)).filter(PageEntry::is_some))
    }

    async fn page(&mut self, id: PageId, tree: u8) -> Option<Page> {
        let entry = self.entry(id).await??;
        let page = Page::unpack(&self.bytes(id, entry).await?).ok()?;
        (page.tree() == tree).then_some(page)
    }

    /// The rows of `tree` and the gaps between them.
    pub async fn rows(&mut self, tree: Tree) -> Rows {
        let mut found = Rows::default();
        if tree.root.0 == 0 {
            return found;
        }
        let mut todo: Vec<(PageId, Gap, Option<u8>)> = vec![(tree.root, (Vec::new(), None), None)];
        while let Some((id, (from, to), level)) = todo.pop() {
            self.reached.insert(id);
            let page = self.page(id, tree.number).await;
            // Levels fall on the way down, so there is no way round in circles.
            let Some(page) = page.filter(|page| level.is_none_or(|level| page.level() == level)) else {
                self.lost.insert(id);
                found.gaps.push((from, to));
                continue;
            };
            for index in 0..page.count() {
                if page.level() == 0 {
                    found.rows.insert(page.key(index).to_vec(), page.value(index).to_vec());
                    continue;
                }
                let Ok(child) = page.value(index).try_into().map(u64::from_le_bytes) else { continue };
                let first = if index == 0 { from.clone() } else { page.key(index).to_vec() };
                let end = if index + 1 < page.count() { Some(page.key(index + 1).to_vec()) } else { to.clone() };
                todo.push((PageId(child), (first, end), Some(page.level() - 1)));
            }
        }
        found
    }

    /// Looks at every page that the table names and that no tree led to, and for those that
    /// the table may have named at what was `found` of them: their rows go into the gaps.
    pub async fn fill_gaps(
        &mut self,
        trees: &mut BTreeMap<u8, Rows>,
        next_page: u64,
        found: &BTreeMap<PageId, super::survey::FoundPage>,
    ) {
        let numbers = (1..next_page).map(|number| PageId::at_level(0, number));
        let unreached: Vec<PageId> = numbers.filter(|id| !self.reached.contains(id)).collect();
        for id in unreached {
            let (entry, is_named) = match self.entry(id).await {
                Some(None) => continue,
                Some(Some(entry)) => (entry, true),
                None => match found.get(&id) {
                    Some(page) => {
                        self.named.push(page.place);
                        (PageEntry { place: page.place, version: page.version }, false)
                    }
                    None => continue,
                },
            };
            let Some(bytes) = self.bytes(id, entry).await else {
                self.lost.insert(id);
                continue;
            };
            let Some(page) = Page::unpack(&bytes).ok().filter(|page| page.level() == 0) else { continue };
            let Some(rows) = trees.get_mut(&page.tree()) else { continue };
            for index in (0..page.count()).filter(|&index| is_in(&rows.gaps, page.key(index))) {
                let into = if is_named { &mut rows.rows } else { &mut rows.unproven };
                into.insert(page.key(index).to_vec(), page.value(index).to_vec());
            }
        }
    }

    /// Notes the places of all pages that the table names, as far as it can be read.
    pub async fn name_all(&mut self, next_page: u64) {
        if self.root.level > 0 {
            self.named.push(self.root.entry.place);
        }
        for number in 1..next_page {
            if let Some(Some(entry)) = self.entry(PageId::at_level(0, number)).await {
                self.named.push(entry.place);
            }
        }
    }
}
