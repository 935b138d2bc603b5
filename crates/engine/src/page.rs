//! A page: sorted entries of variable size in a fixed piece of memory.
//!
//! ```text
//! 0        8                      heap_start                4096
//! +--------+------------+----------+------------------------+
//! | header | slots  ->  |   gap    |  <- entries            |
//! +--------+------------+----------+------------------------+
//! header: count u16, heap_start u16, dead_bytes u16, level u8, tree u8
//! slot:   offset of an entry u16, in key order
//! entry:  key length u16, value length u16, key, value
//! ```
//!
//! On media the gap is left out ([`Page::pack`]), so a page costs what it holds.
//! `level` 0 is a leaf; above it a value is the page id of a child and the key is the
//! smallest key that the child may hold.

use crate::format::FormatError;

/// Bytes of a page in memory.
pub const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 8;
const SLOT_BYTES: usize = 2;
const ENTRY_HEADER_BYTES: usize = 4;

/// A page in memory. Cloning copies the bytes: that is the copy in copy-on-write.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    bytes: Box<[u8; PAGE_BYTES]>,
}

/// The page has no room for the entry.
#[derive(Debug, PartialEq, Eq)]
pub struct PageFull;

impl Page {
    /// An empty page of tree number `tree` at `level`.
    pub fn new(tree: u8, level: u8) -> Page {
        let mut page = Page { bytes: Box::new([0; PAGE_BYTES]) };
        page.put_u16(2, PAGE_BYTES as u16);
        page.bytes[6] = level;
        page.bytes[7] = tree;
        page
    }

    #[inline]
    fn u16_at(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Number of entries.
    #[inline]
    pub fn count(&self) -> usize {
        self.u16_at(0)
    }

    fn heap_start(&self) -> usize {
        self.u16_at(2)
    }

    fn dead_bytes(&self) -> usize {
        self.u16_at(4)
    }

    /// 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.bytes[6]
    }

    /// Number of the tree this page belongs to.
    pub fn tree(&self) -> u8 {
        self.bytes[7]
    }

    #[inline]
    fn slot(&self, index: usize) -> usize {
        self.u16_at(HEADER_BYTES + index * SLOT_BYTES)
    }

    fn slots_end(&self) -> usize {
        HEADER_BYTES + self.count() * SLOT_BYTES
    }

    fn entry_bytes(&self, index: usize) -> usize {
        let at = self.slot(index);
        ENTRY_HEADER_BYTES + self.u16_at(at) + self.u16_at(at + 2)
    }

    /// Key of entry `index`.
    #[inline]
    pub fn key(&self, index: usize) -> &[u8] {
        let at = self.slot(index);
        let from = at + ENTRY_HEADER_BYTES;
        &self.bytes[from..from + self.u16_at(at)]
    }

    /// Value of entry `index`.
    #[inline]
    pub fn value(&self, index: usize) -> &[u8] {
        let at = self.slot(index);
        let from = at + ENTRY_HEADER_BYTES + self.u16_at(at);
        &self.bytes[from..from + self.u16_at(at + 2)]
    }

    /// Where `key` is, or where it would go.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Bytes of entries and slots, without the gap and the dead.
    pub fn used_bytes(&self) -> usize {
        self.count() * SLOT_BYTES + PAGE_BYTES - self.heap_start() - self.dead_bytes()
    }

    /// Puts `value` under `key`, replacing what was there.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), PageFull> {
        match self.search(key) {
            Ok(index) if self.value(index).len() == value.len() => {
                let from = self.slot(index) + ENTRY_HEADER_BYTES + key.len();
                self.bytes[from..from + value.len()].copy_from_slice(value);
                Ok(())
            }
            Ok(index) => {
                let freed = self.entry_bytes(index) + SLOT_BYTES;
                if self.room_bytes() + freed < Self::cost_bytes(key, value) {
                    return Err(PageFull);
                }
                self.remove(index);
                self.insert(index, key, value)
            }
            Err(index) => self.insert(index, key, value),
        }
    }

    fn cost_bytes(key: &[u8], value: &[u8]) -> usize {
        SLOT_BYTES + ENTRY_HEADER_BYTES + key.len() + value.len()
    }

    fn room_bytes(&self) -> usize {
        PAGE_BYTES - HEADER_BYTES - self.used_bytes()
    }

    fn insert(&mut self, index: usize, key: &[u8], value: &[u8]) -> Result<(), PageFull> {
        let cost = Self::cost_bytes(key, value);
        if self.room_bytes() < cost {
            return Err(PageFull);
        }
        if self.heap_start() - self.slots_end() < cost {
            self.compact();
        }
        let at = self.heap_start() - (cost - SLOT_BYTES);
        self.put_u16(at, key.len() as u16);
        self.put_u16(at + 2, value.len() as u16);
        let from = at + ENTRY_HEADER_BYTES;
        self.bytes[from..from + key.len()].copy_from_slice(key);
        self.bytes[from + key.len()..from + key.len() + value.len()].copy_from_slice(value);
        let (slot, end) = (HEADER_BYTES + index * SLOT_BYTES, self.slots_end());
        self.bytes.copy_within(slot..end, slot + SLOT_BYTES);
        self.put_u16(slot, at as u16);
        self.put_u16(2, at as u16);
        self.put_u16(0, self.count() as u16 + 1);
        Ok(())
    }

    /// Takes entry `index` out.
    pub fn remove(&mut self, index: usize) {
        let dead = self.dead_bytes() + self.entry_bytes(index);
        let (slot, end) = (HEADER_BYTES + index * SLOT_BYTES, self.slots_end());
        self.bytes.copy_within(slot + SLOT_BYTES..end, slot);
        self.put_u16(0, self.count() as u16 - 1);
        self.put_u16(4, dead as u16);
    }

    /// Gathers the entries at the end, so that the gap is in one piece.
    fn compact(&mut self) {
        let mut fresh = Page::new(self.tree(), self.level());
        for index in 0..self.count() {
            fresh.append(self.key(index), self.value(index));
        }
        *self = fresh;
    }

    /// Adds an entry behind the last; it is known to fit.
    fn append(&mut self, key: &[u8], value: &[u8]) {
        self.insert(self.count(), key, value).expect("entries of one page fit in one page");
    }

    /// Puts `value` under `key` where it did not fit, and moves the upper half (by bytes,
    /// the new entry counted) to a new page, which is returned. The entry is counted
    /// before the cut is chosen because only then both halves are sure to have room:
    /// an entry is at most three eighths of a page.
    pub fn split(&mut self, key: &[u8], value: &[u8]) -> Page {
        let old = self.clone();
        let mut entries: Vec<(&[u8], &[u8])> = (0..old.count()).map(|at| (old.key(at), old.value(at))).collect();
        match old.search(key) {
            Ok(at) => entries[at] = (key, value),
            Err(at) => entries.insert(at, (key, value)),
        }
        let cost = |entry: &(&[u8], &[u8])| Self::cost_bytes(entry.0, entry.1);
        let half = entries.iter().map(cost).sum::<usize>() / 2;
        let (mut cut, mut kept) = (0, 0);
        while cut + 1 < entries.len() && (cut == 0 || kept + cost(&entries[cut]) / 2 <= half) {
            kept += cost(&entries[cut]);
            cut += 1;
        }
        let mut upper = Page::new(self.tree(), self.level());
        *self = Page::new(self.tree(), self.level());
        entries[..cut].iter().for_each(|(key, value)| self.append(key, value));
        entries[cut..].iter().for_each(|(key, value)| upper.append(key, value));
        upper
    }

    /// The page without its gap, appended to `out`; [`Page::unpack`] reads it back.
    pub fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.slots_end()]);
        out.extend_from_slice(&self.bytes[self.heap_start()..]);
    }

    /// Bytes that [`Page::pack`] writes.
    pub fn packed_bytes(&self) -> usize {
        self.slots_end() + PAGE_BYTES - self.heap_start()
    }

    /// Reads a packed page and checks all of its structure, so that no later access can
    /// leave it.
    pub fn unpack(packed: &[u8]) -> Result<Page, FormatError> {
        let bad = || FormatError("page structure");
        if packed.len() < HEADER_BYTES || packed.len() > PAGE_BYTES {
            return Err(bad());
        }
        let mut page = Page { bytes: Box::new([0; PAGE_BYTES]) };
        page.bytes[..HEADER_BYTES].copy_from_slice(&packed[..HEADER_BYTES]);
        let (slots_end, heap_start) = (page.slots_end(), page.heap_start());
        if slots_end > heap_start || heap_start > PAGE_BYTES || slots_end + PAGE_BYTES - heap_start != packed.len() {
            return Err(bad());
        }
        page.bytes[..slots_end].copy_from_slice(&packed[..slots_end]);
        page.bytes[heap_start..].copy_from_slice(&packed[slots_end..]);
        if page.is_sound() { Ok(page) } else { Err(bad()) }
    }

    /// Every entry lies within the heap, keys rise, and the dead bytes add up.
    fn is_sound(&self) -> bool {
        let mut live = 0;
        for index in 0..self.count() {
            let at = self.slot(index);
            if at < self.heap_start()
                || at + ENTRY_HEADER_BYTES > PAGE_BYTES
                || at + self.entry_bytes(index) > PAGE_BYTES
            {
                return false;
            }
            if index > 0 && self.key(index - 1) >= self.key(index) {
                return false;
            }
            live += self.entry_bytes(index);
        }
        live + self.dead_bytes() == PAGE_BYTES - self.heap_start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// A page behaves like a sorted map as long as it has room, and survives packing.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((any::<u8>(), 0usize..200, any::<bool>()), 1..300)) {
            let mut page = Page::new(3, 0);
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for (key, len, put) in ops {
                let key = vec![key; 1 + usize::from(key) % 7];
                if put {
                    let value = vec![len as u8; len];
                    if page.put(&key, &value).is_ok() { model.insert(key, value); }
                } else if let Ok(index) = page.search(&key) {
                    page.remove(index);
                    model.remove(&key).unwrap();
                }
                prop_assert!(page.is_sound());
            }
            let mut packed = Vec::new();
            page.pack(&mut packed);
            prop_assert_eq!(packed.len(), page.packed_bytes());
            let again = Page::unpack(&packed).unwrap();
            let rows: Vec<_> = (0..again.count()).map(|i| (again.key(i).to_vec(), again.value(i).to_vec())).collect();
            prop_assert_eq!(rows, model.into_iter().collect::<Vec<_>>());
        }

        /// Hostile bytes are refused or make a page whose every access stays inside.
        #[test]
        fn unpack_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(page) = Page::unpack(&bytes) {
                for index in 0..page.count() { let _ = (page.key(index), page.value(index)); }
            }
        }
    }

    proptest! {
        /// However large the entries, a split takes the new one in and loses none.
        #[test]
        fn a_split_takes_in_any_entry(sizes in prop::collection::vec((1usize..300, 0usize..=1200), 1..200), key in any::<u16>()) {
            let mut page = Page::new(0, 0);
            let mut model = BTreeMap::new();
            for (n, (key, value)) in sizes.into_iter().enumerate() {
                let mut key = vec![7; key + 2];
                key[..2].copy_from_slice(&(n as u16 * 257).to_be_bytes());
                if page.put(&key, &vec![1; value]).is_ok() { model.insert(key, vec![1; value]); }
            }
            let key = key.to_be_bytes().repeat(150);
            let value = vec![9; 1200];
            model.insert(key.clone(), value.clone());
            let upper = page.split(&key, &value);
            prop_assert!(page.is_sound() && upper.is_sound());
            let rows = |page: &Page| (0..page.count()).map(|i| (page.key(i).to_vec(), page.value(i).to_vec())).collect::<Vec<_>>();
            let all = [rows(&page), rows(&upper)].concat();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }
}
