//! Sparse bytes: pages of 4 KiB, absent pages read as zeros. Pages are shared between
//! copies until one writes, so a snapshot of a drive costs one tree of handles.

use std::collections::BTreeMap;
use std::rc::Rc;

pub(crate) const PAGE_BYTES: u64 = 4096;
type Page = [u8; PAGE_BYTES as usize];

#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<u64, Rc<Page>>,
}

/// Splits `offset .. offset + length` at page borders: (page, offset in page, offset in
/// the caller's bytes, length).
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let in_page = (at % PAGE_BYTES) as usize;
        let piece = (PAGE_BYTES as usize - in_page).min(length - done);
        let result = (at / PAGE_BYTES, in_page, done, piece);
        done += piece;
        Some(result)
    })
}

impl Pages {
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        for (page, in_page, at, length) in pieces(offset, into.len()) {
            match self.pages.get(&page) {
                Some(bytes) => into[at..at + length].copy_from_slice(&bytes[in_page..in_page + length]),
                None => into[at..at + length].fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) {
        for (page, in_page, at, length) in pieces(offset, from.len()) {
            let bytes = self.pages.entry(page).or_insert_with(|| Rc::new([0; PAGE_BYTES as usize]));
            Rc::make_mut(bytes)[in_page..in_page + length].copy_from_slice(&from[at..at + length]);
        }
    }

    /// Takes the pages that hold `offset .. offset + length` from `source`, whole.
    pub(crate) fn adopt(&mut self, source: &Pages, offset: u64, length: usize) {
        for (page, _, _, _) in pieces(offset, length) {
            match source.pages.get(&page) {
                Some(bytes) => self.pages.insert(page, bytes.clone()),
                None => self.pages.remove(&page),
            };
        }
    }

    /// Pages that were written, in order.
    pub(crate) fn page_numbers(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    pub(crate) fn clear(&mut self) {
        self.pages.clear();
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }
}
