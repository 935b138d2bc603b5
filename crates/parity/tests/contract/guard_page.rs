//! No row reads or writes outside its units: they lie right before an inaccessible page.
#![allow(unsafe_code, reason = "guard pages are made by hand")]

use crate::stripe::stripe;
use parity::Row;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE_BYTES: usize = 4096;

/// A readable page between two inaccessible ones.
struct Page {
    mapping: *mut u8,
}

impl Page {
    fn new() -> Self {
        // SAFETY: a fresh private mapping, and a change of protection inside it.
        unsafe {
            let mapping =
                mmap_anonymous(std::ptr::null_mut(), 3 * PAGE_BYTES, ProtFlags::empty(), MapFlags::PRIVATE).unwrap();
            let page = mapping.cast::<u8>().add(PAGE_BYTES);
            mprotect(page.cast(), PAGE_BYTES, MprotectFlags::READ | MprotectFlags::WRITE).unwrap();
            Self { mapping: mapping.cast() }
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the middle page, accessible and zeroed, borrowed with the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.add(PAGE_BYTES), PAGE_BYTES) }
    }

    /// `length_bytes` at one end of the page.
    fn unit(&mut self, length_bytes: usize, at_end: bool) -> &mut [u8] {
        let start = if at_end { PAGE_BYTES - length_bytes } else { 0 };
        &mut self.bytes()[start..][..length_bytes]
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, no longer borrowed.
        unsafe { munmap(self.mapping.cast(), 3 * PAGE_BYTES).unwrap() }
    }
}

#[test]
fn units_at_the_edge_of_memory() {
    const DATA_COUNT: usize = 3;
    let mut pages: Vec<Page> = (0..DATA_COUNT + 2).map(|_| Page::new()).collect();
    for length_bytes in (0..=300).chain([1023, 4095, 4096]) {
        let truth = stripe(DATA_COUNT, 2, length_bytes);
        for (&row, at_end) in Row::all().iter().flat_map(|row| [(row, true), (row, false)]) {
            let mut units: Vec<&mut [u8]> = pages.iter_mut().map(|page| page.unit(length_bytes, at_end)).collect();
            units.iter_mut().zip(&truth).for_each(|(unit, truth)| unit.copy_from_slice(truth));
            let [d0, d1, d2, p, q] = &mut units[..] else { unreachable!("3+2") };
            p.fill(0);
            q.fill(0);
            row.encode(&[d0, d1, d2], p, q);
            assert!(**p == *truth[3] && **q == *truth[4], "{} {length_bytes}", row.name());
            assert!(row.check(&[d0, d1, d2], p, q));
            d0.fill(0);
            d2.fill(0);
            row.reconstruct(3, &[None, Some(d1), None, Some(p), Some(q)], &mut [(0, d0), (2, d2)]).unwrap();
            assert!(**d0 == *truth[0] && **d2 == *truth[2], "{} {length_bytes}", row.name());
        }
    }
}
