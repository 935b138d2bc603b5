//! B+trees of [`Page`]s, as plain functions over a set of resident pages.
//!
//! Nothing here waits. A page that is not in memory ends the operation with
//! [`Missing`]; the caller loads it and starts again from the top. Therefore no tree is
//! ever seen half changed, readers and writers need no locks, and the logic can be
//! tested without any medium. Changes first walk down (which may end with `Missing`) and
//! then cannot fail: a change is done whole or not at all.
//!
//! Pages never merge; a page that becomes empty is freed. Overwriting workloads refill
//! them, and a scan pays at most for what was once there.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::page::{Page, PageFull};

/// Identity of a page: its level in the page table in the high 8 bits (0 for pages of
/// trees), a number in the rest. 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

/// This page has to be loaded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub PageId);

/// The pages that are in memory, and the way to change them.
pub trait Pages {
    /// The page as it is now.
    fn page(&self, id: PageId) -> Result<Rc<Page>, Missing>;
    /// The page, to be changed: it becomes dirty. It is resident.
    fn page_mut(&mut self, id: PageId, change: impl FnOnce(&mut Page));
    /// A new page, dirty.
    fn add(&mut self, page: Page) -> PageId;
    /// The page is no longer part of any tree.
    fn free(&mut self, id: PageId);
}

/// A tree: its number (part of the media format) and its root page, none when empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Number of the tree.
    pub number: u8,
    /// Root page, 0 when the tree is empty.
    pub root: PageId,
}

/// Way from the root to a leaf: pages and the child taken in each.
type Path = SmallVec<[(PageId, usize); 6]>;
/// An entry as read: key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

fn child(page: &Page, index: usize) -> PageId {
    PageId(u64::from_le_bytes(page.value(index).try_into().expect("an inner value is a page id")))
}

impl Tree {
    /// An empty tree.
    pub fn new(number: u8) -> Tree {
        Tree { number, root: PageId(0) }
    }

    /// Walks to the leaf for `key`. The path holds the inner pages; then comes the leaf.
    fn descend(&self, pages: &impl Pages, key: &[u8]) -> Result<Option<(Path, PageId, Rc<Page>)>, Missing> {
        if self.root.0 == 0 {
            return Ok(None);
        }
        let mut path = Path::new();
        let mut id = self.root;
        let mut page = pages.page(id)?;
        while page.level() > 0 {
            let index = page.search(key).unwrap_or_else(|at| at.saturating_sub(1));
            path.push((id, index));
            id = child(&page, index);
            page = pages.page(id)?;
        }
        Ok(Some((path, id, page)))
    }

    /// Whether the way to `key` is in memory, so that a change of it cannot fail.
    pub fn resident(&self, pages: &impl Pages, key: &[u8]) -> Result<(), Missing> {
        self.descend(pages, key).map(drop)
    }

    /// The value under `key`, seen by `look`.
    pub fn with<T>(&self, pages: &impl Pages, key: &[u8], look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Missing> {
        let Some((_, _, leaf)) = self.descend(pages, key)? else { return Ok(None) };
        Ok(leaf.search(key).ok().map(|index| look(leaf.value(index))))
    }

    /// The entry with the greatest key `<= key`, seen by `look`.
    pub fn floor<T>(
        &self,
        pages: &impl Pages,
        key: &[u8],
        look: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>, Missing> {
        let Some((path, _, leaf)) = self.descend(pages, key)? else { return Ok(None) };
        let (leaf, index) = match leaf.search(key) {
            Ok(index) => (leaf, index),
            Err(0) => match self.leaf_before(pages, &path)? {
                Some(before) => (before.clone(), before.count() - 1),
                None => return Ok(None),
            },
            Err(at) => (leaf, at - 1),
        };
        Ok(Some(look(leaf.key(index), leaf.value(index))))
    }

    /// The leaf to the left of the one `path` leads to.
    fn leaf_before(&self, pages: &impl Pages, path: &Path) -> Result<Option<Rc<Page>>, Missing> {
        let Some(&(fork, index)) = path.iter().rev().find(|(_, index)| *index > 0) else { return Ok(None) };
        let mut page = pages.page(child(&*pages.page(fork)?, index - 1))?;
        while page.level() > 0 {
            page = pages.page(child(&page, page.count() - 1))?;
        }
        Ok(Some(page))
    }

    /// Up to `limit` entries in key order from the first key `>= from`, as long as `more`
    /// accepts their keys.
    pub fn scan(
        &self,
        pages: &impl Pages,
        from: &[u8],
        limit: usize,
        more: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Entry>, Missing> {
        let mut found = Vec::new();
        let Some((mut path, _, mut leaf)) = self.descend(pages, from)? else { return Ok(found) };
        let mut index = leaf.search(from).unwrap_or_else(|at| at);
        while found.len() < limit {
            if index == leaf.count() {
                match self.next_leaf(pages, &mut path)? {
                    Some(next) => (leaf, index) = (next, 0),
                    None => break,
                }
                continue;
            }
            if !more(leaf.key(index)) {
                break;
            }
            found.push((leaf.key(index).to_vec(), leaf.value(index).to_vec()));
            index += 1;
        }
        Ok(found)
    }

    fn next_leaf(&self, pages: &impl Pages, path: &mut Path) -> Result<Option<Rc<Page>>, Missing> {
        while let Some((id, index)) = path.pop() {
            let inner = pages.page(id)?;
            if index + 1 < inner.count() {
                path.push((id, index + 1));
                let mut page = pages.page(child(&inner, index + 1))?;
                let mut below = child(&inner, index + 1);
                while page.level() > 0 {
                    path.push((below, 0));
                    below = child(&page, 0);
                    page = pages.page(below)?;
                }
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// Puts `value` under `key`.
    pub fn put(&mut self, pages: &mut impl Pages, key: &[u8], value: &[u8]) -> Result<(), Missing> {
        let Some((path, leaf, _)) = self.descend(pages, key)? else {
            let mut page = Page::new(self.number, 0);
            page.put(key, value).expect("an entry fits in an empty page");
            self.root = pages.add(page);
            return Ok(());
        };
        self.put_at(pages, (path, leaf), key, value);
        Ok(())
    }

    /// Puts an entry into page `id`, splitting it and its ancestors in `path` as needed.
    fn put_at(&mut self, pages: &mut impl Pages, (mut path, id): (Path, PageId), key: &[u8], value: &[u8]) {
        let mut split = None;
        pages.page_mut(id, |page| {
            if page.put(key, value) == Err(PageFull) {
                split = Some(page.split(key, value));
            }
        });
        let Some(upper) = split else { return };
        let separator = upper.key(0).to_vec();
        let level = upper.level();
        let upper = pages.add(upper).0.to_le_bytes();
        match path.pop() {
            Some((parent, _)) => self.put_at(pages, (path, parent), &separator, &upper),
            None => {
                let mut root = Page::new(self.number, level + 1);
                root.put(&[], &id.0.to_le_bytes()).expect("two entries fit");
                root.put(&separator, &upper).expect("two entries fit");
                self.root = pages.add(root);
            }
        }
    }

    /// Takes the entry under `key` out, but leaves its page even when it is empty: the ways
    /// to all other keys stay as they are until [`Tree::prune`].
    pub fn clear(&self, pages: &mut impl Pages, key: &[u8]) -> Result<(), Missing> {
        let Some((_, id, leaf)) = self.descend(pages, key)? else { return Ok(()) };
        if let Ok(index) = leaf.search(key) {
            drop(leaf);
            pages.page_mut(id, |page| page.remove(index));
        }
        Ok(())
    }

    /// Frees the page that `key` leads to if it is empty. It is in memory, or not changed.
    pub fn prune(&mut self, pages: &mut impl Pages, key: &[u8]) {
        if let Ok(Some((path, id, leaf))) = self.descend(pages, key)
            && leaf.count() == 0
        {
            drop(leaf);
            pages.free(id);
            // The rest of the way is in memory.
            let _ = self.take_out(pages, path);
        }
    }

    /// The child that `path` ends in is gone; takes it out of its page, and that page out of
    /// its own if nothing is left of it.
    fn take_out(&mut self, pages: &mut impl Pages, mut path: Path) -> Result<(), Missing> {
        while let Some((id, index)) = path.pop() {
            if pages.page(id)?.count() > 1 {
                pages.page_mut(id, |page| page.remove(index));
                return self.shrink(pages);
            }
            pages.free(id);
        }
        self.root = PageId(0);
        Ok(())
    }

    /// Takes the entry under `key` out; says whether there was one.
    pub fn remove(&mut self, pages: &mut impl Pages, key: &[u8]) -> Result<bool, Missing> {
        let Some((path, id, leaf)) = self.descend(pages, key)? else { return Ok(false) };
        let Ok(index) = leaf.search(key) else { return Ok(false) };
        let count = leaf.count();
        drop(leaf);
        if count == 1 {
            pages.free(id);
            self.take_out(pages, path)?;
        } else {
            pages.page_mut(id, |page| page.remove(index));
        }
        Ok(true)
    }

    /// Drops roots that have a single child.
    fn shrink(&mut self, pages: &mut impl Pages) -> Result<(), Missing> {
        loop {
            let root = pages.page(self.root)?;
            if root.level() == 0 || root.count() > 1 {
                return Ok(());
            }
            let only = child(&root, 0);
            drop(root);
            pages.free(self.root);
            self.root = only;
            if pages.page(only).is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct InMemory {
        pages: BTreeMap<PageId, Rc<Page>>,
        next: u64,
    }

    impl Pages for InMemory {
        fn page(&self, id: PageId) -> Result<Rc<Page>, Missing> {
            self.pages.get(&id).cloned().ok_or(Missing(id))
        }
        fn page_mut(&mut self, id: PageId, change: impl FnOnce(&mut Page)) {
            change(Rc::make_mut(self.pages.get_mut(&id).unwrap()));
        }
        fn add(&mut self, page: Page) -> PageId {
            self.next += 1;
            self.pages.insert(PageId(self.next), Rc::new(page));
            PageId(self.next)
        }
        fn free(&mut self, id: PageId) {
            assert!(self.pages.remove(&id).is_some());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A tree behaves like a sorted map, whatever the order of changes, and frees
        /// every page once it is empty again.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u16..2000, 0usize..300, 0u8..4), 1..1500)) {
            let (mut pages, mut tree) = (InMemory::default(), Tree::new(1));
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for (key, len, op) in ops {
                let key = key.to_be_bytes().to_vec();
                match op {
                    0 | 1 => {
                        let value = vec![op; len];
                        tree.put(&mut pages, &key, &value).unwrap();
                        model.insert(key, value);
                    }
                    2 if len % 2 == 0 => {
                        tree.clear(&mut pages, &key).unwrap();
                        tree.prune(&mut pages, &key);
                        model.remove(&key);
                    }
                    2 => prop_assert_eq!(tree.remove(&mut pages, &key).unwrap(), model.remove(&key).is_some()),
                    _ => {
                        let floor = model.range(..=key.clone()).next_back().map(|(k, v)| (k.clone(), v.clone()));
                        prop_assert_eq!(tree.floor(&pages, &key, |k, v| (k.to_vec(), v.to_vec())).unwrap(), floor);
                        prop_assert_eq!(tree.with(&pages, &key, <[u8]>::to_vec).unwrap(), model.get(&key).cloned());
                        let some: Vec<_> = model.range(key.clone()..).take(7).map(|(k, v)| (k.clone(), v.clone())).collect();
                        prop_assert_eq!(tree.scan(&pages, &key, 7, |_| true).unwrap(), some);
                    }
                }
            }
            let all: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(tree.scan(&pages, &[], usize::MAX, |_| true).unwrap(), all);
            for key in model.keys() { prop_assert!(tree.remove(&mut pages, key).unwrap()); }
            prop_assert_eq!((tree.root, pages.pages.len()), (PageId(0), 0));
        }
    }

    #[test]
    fn a_missing_page_is_named_and_nothing_changes() {
        let (mut pages, mut tree) = (InMemory::default(), Tree::new(1));
        for key in 0..500u16 {
            tree.put(&mut pages, &key.to_be_bytes(), &[7; 100]).unwrap();
        }
        let (_, leaf, page) = tree.descend(&pages, &300u16.to_be_bytes()).unwrap().unwrap();
        drop(pages.pages.remove(&leaf));
        let before: Vec<_> = pages.pages.values().cloned().collect();
        assert_eq!(tree.put(&mut pages, &300u16.to_be_bytes(), &[8; 100]), Err(Missing(leaf)));
        assert_eq!(tree.remove(&mut pages, &300u16.to_be_bytes()), Err(Missing(leaf)));
        assert_eq!(tree.scan(&pages, &[], usize::MAX, |_| true), Err(Missing(leaf)));
        assert!(before.iter().eq(pages.pages.values()));
        pages.pages.insert(leaf, page);
        assert_eq!(tree.scan(&pages, &[], usize::MAX, |_| true).unwrap().len(), 500);
    }
}
