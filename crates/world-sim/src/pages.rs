//! Sparse bytes: pages of 4 KiB, absent pages read as zeros. A page is a piece of the
//! buffer that was written, not a copy of it; so a write costs one tree entry per page,
//! and a snapshot of a drive one tree of handles.

use std::collections::BTreeMap;

use base::Buf;

pub(crate) const PAGE_BYTES: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<u64, Buf>,
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

    pub(crate) fn write(&mut self, offset: u64, from: &Buf) {
        for (page, in_page, at, length) in pieces(offset, from.len()) {
            let bytes = if length as u64 == PAGE_BYTES {
                from.slice(at..at + length)
            } else {
                let mut bytes = self.pages.get(&page).map_or_else(|| vec![0; PAGE_BYTES as usize], |old| old.to_vec());
                bytes[in_page..in_page + length].copy_from_slice(&from[at..at + length]);
                Buf::from(bytes)
            };
            self.pages.insert(page, bytes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_flat_bytes() {
        let mut rng = Rng::new(3);
        let (mut pages, mut flat) = (Pages::default(), vec![0u8; 32 << 10]);
        let mut copies = Vec::new();
        for round in 0..500 {
            let at = rng.index(flat.len() - 1);
            let length = rng.index(flat.len() - at).min(12_000) + 1;
            let mut bytes = vec![0; length];
            rng.fill(&mut bytes);
            flat[at..at + length].copy_from_slice(&bytes);
            pages.write(at as u64, &Buf::from(bytes));
            if round % 50 == 0 {
                copies.push((pages.clone(), flat.clone()));
            }
            let mut back = vec![0; length];
            pages.read(at as u64, &mut back);
            assert_eq!(back, flat[at..at + length]);
        }
        for (pages, flat) in copies {
            let mut back = vec![1; flat.len()];
            pages.read(0, &mut back);
            assert!(back == flat, "a copy is not changed by later writes");
        }
    }
}
