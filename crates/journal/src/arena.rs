//! Memory that batches are built in: large aligned pieces, cut at block boundaries.
//!
//! A batch is a cut of an arena, so a batch of one small record does not hold a whole
//! batch buffer, and what is written to the legs, handed to the engine and read by
//! clients is the same memory. An arena is used again when its last cut is dropped.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::format::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Spent arenas remembered for reuse; older ones are freed when their last cut goes.
const SPENT_MAX: usize = 16;

/// The arena in use and those that may come back.
pub(crate) struct Arenas {
    arena_bytes: usize,
    current: BytesMut,
    /// Bytes of the arena not cut off yet. Not its capacity, which varies with where the
    /// allocator put it: the same records must make the same batches everywhere.
    left_bytes: usize,
    spent: VecDeque<BytesMut>,
}

impl Arenas {
    pub(crate) fn new(arena_bytes: usize) -> Arenas {
        let arena_bytes = arena_bytes.next_multiple_of(BLOCK);
        Arenas { arena_bytes, current: BytesMut::new(), left_bytes: 0, spent: VecDeque::new() }
    }

    /// Whether the batch being built can grow by `more_bytes` in this arena.
    pub(crate) fn has_room(&self, more_bytes: usize) -> bool {
        (self.current.len() + more_bytes).next_multiple_of(BLOCK) <= self.left_bytes
    }

    /// The batch being built; grow it only within [`has_room`](Arenas::has_room).
    pub(crate) fn batch(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Ends the batch: pads it with zeros to a block and cuts it off.
    pub(crate) fn cut(&mut self) -> BytesMut {
        self.current.resize(self.current.len().next_multiple_of(BLOCK), 0);
        self.left_bytes -= self.current.len();
        self.current.split()
    }

    /// Takes another arena. The batch before has been cut off.
    pub(crate) fn renew(&mut self) {
        assert!(self.current.is_empty(), "a batch does not straddle arenas");
        let wanted = self.arena_bytes + BLOCK;
        let old = std::mem::take(&mut self.current);
        if old.capacity() > 0 {
            self.spent.push_back(old);
        }
        let mut raw = match self.spent.iter_mut().position(|spent| spent.try_reclaim(wanted)) {
            Some(index) => self.spent.remove(index).expect("just found"),
            None => BytesMut::with_capacity(wanted),
        };
        if self.spent.len() > SPENT_MAX {
            self.spent.pop_front();
        }
        let skip = raw.spare_capacity_mut().as_ptr().align_offset(BLOCK);
        self.current = raw.split_off(skip);
        self.left_bytes = self.arena_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_aligned_cuts_and_the_memory_comes_back() {
        let mut arenas = Arenas::new(4 * BLOCK);
        assert!(!arenas.has_room(1));
        arenas.renew();
        let mut cuts = Vec::new();
        for len in [1, BLOCK, BLOCK + 1] {
            assert!(arenas.has_room(len));
            arenas.batch().resize(len, 7);
            let cut = arenas.cut().freeze();
            assert_eq!((cut.as_ptr() as usize % BLOCK, cut.len()), (0, len.next_multiple_of(BLOCK)));
            assert!(cut[len..].iter().all(|&byte| byte == 0));
            cuts.push(cut);
        }
        assert!(!arenas.has_room(1), "four blocks are used");
        let first = cuts[0].as_ptr();
        arenas.renew();
        assert!(arenas.has_room(4 * BLOCK));
        drop(cuts);
        arenas.renew();
        assert_eq!(arenas.batch().spare_capacity_mut().as_ptr().cast(), first, "the first arena again");
    }
}
