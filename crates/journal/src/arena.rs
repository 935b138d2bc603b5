//! Memory that batches are built in: large aligned pieces, cut at block boundaries.
//!
//! A batch is a cut of an arena, so a batch of one small record does not hold a whole
//! batch buffer, and what is written to the legs, handed to the engine and read by
//! clients is the same memory. An arena is used again when its last cut is dropped.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::format::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;
/// The arena in use and those that may come back.
pub(crate) struct Arenas {
    arena_bytes: usize,
    current: BytesMut,
    /// Bytes of the arena cut off already. Not what its capacity says, which varies with where
    /// the allocator put it: the same records must make the same batches everywhere.
    cut_bytes: usize,
    /// Spent arenas remembered for reuse; older ones are freed when their last cut goes.
    spent: VecDeque<BytesMut>,
    spent_max: usize,
}

impl Arenas {
    /// Arenas of `arena_bytes` for a ring of `ring_bytes`. As many are kept as the ring's
    /// content may lie in: what is in the ring is in memory until it is destaged, and memory
    /// that is given back has to be zeroed by the system when it is taken again.
    pub(crate) fn new(arena_bytes: usize, ring_bytes: u64) -> Arenas {
        let arena_bytes = arena_bytes.next_multiple_of(BLOCK);
        let spent_max = usize::try_from(ring_bytes.div_ceil(arena_bytes as u64)).unwrap_or(usize::MAX) + 4;
        Arenas { arena_bytes, current: BytesMut::new(), cut_bytes: arena_bytes, spent: VecDeque::new(), spent_max }
    }

    /// Whether the batch being built can grow by `more_bytes` in this arena.
    pub(crate) fn has_room(&self, more_bytes: usize) -> bool {
        (self.cut_bytes + self.current.len() + more_bytes).next_multiple_of(BLOCK) <= self.arena_bytes
    }

    /// The batch being built; grow it only within [`has_room`](Arenas::has_room).
    pub(crate) fn batch(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Cuts off what was built, in the midst of a batch.
    pub(crate) fn cut_piece(&mut self) -> BytesMut {
        self.cut_bytes += self.current.len();
        self.current.split()
    }

    /// Ends the batch, which has `before_bytes` ahead of what is being built: pads it with
    /// zeros to a block and cuts that off. The next one starts at a block of the arena again.
    pub(crate) fn cut(&mut self, before_bytes: usize) -> BytesMut {
        let length = before_bytes + self.current.len();
        self.current.resize(self.current.len() + length.next_multiple_of(BLOCK) - length, 0);
        let piece = self.cut_piece();
        let skip = self.cut_bytes.next_multiple_of(BLOCK) - self.cut_bytes;
        self.current.resize(skip, 0);
        self.cut_piece();
        piece
    }

    /// Takes another arena. The batch before has been cut off.
    pub(crate) fn renew(&mut self) {
        assert!(self.current.is_empty(), "a batch does not straddle arenas");
        // A block to start at a block, another since a batch with pieces in between may end,
        // padded, somewhat behind what `has_room` allows.
        let wanted = self.arena_bytes + 2 * BLOCK;
        let old = std::mem::take(&mut self.current);
        if old.capacity() > 0 {
            self.spent.push_back(old);
        }
        let mut raw = match self.spent.iter_mut().position(|spent| spent.try_reclaim(wanted)) {
            Some(index) => self.spent.remove(index).expect("just found"),
            None => BytesMut::with_capacity(wanted),
        };
        if self.spent.len() > self.spent_max {
            self.spent.pop_front();
        }
        let skip = raw.spare_capacity_mut().as_ptr().align_offset(BLOCK);
        self.current = raw.split_off(skip);
        self.cut_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_aligned_cuts_and_the_memory_comes_back() {
        let mut arenas = Arenas::new(4 * BLOCK, 0);
        assert!(!arenas.has_room(1));
        arenas.renew();
        let mut cuts = Vec::new();
        for len in [1, BLOCK, BLOCK + 1] {
            assert!(arenas.has_room(len));
            arenas.batch().resize(len, 7);
            let cut = arenas.cut(0).freeze();
            assert_eq!((cut.as_ptr() as usize % BLOCK, cut.len()), (0, len.next_multiple_of(BLOCK)));
            assert!(cut[len..].iter().all(|&byte| byte == 0));
            cuts.push(cut);
        }
        assert!(!arenas.has_room(1), "four blocks are used");
        let first = cuts[0].as_ptr();
        arenas.renew();
        arenas.batch().resize(100, 7);
        assert_eq!(arenas.cut_piece().len(), 100);
        arenas.batch().resize(50, 7);
        assert_eq!(arenas.cut(1_000_100).len() + 1_000_100, 1_000_150_usize.next_multiple_of(BLOCK));
        assert!(arenas.has_room(3 * BLOCK) && !arenas.has_room(3 * BLOCK + 1));
        arenas.batch().resize(1, 7);
        assert_eq!(arenas.cut(0).as_ptr() as usize % BLOCK, 0, "after a batch in pieces, too");
        arenas.renew();
        assert!(arenas.has_room(4 * BLOCK));
        drop(cuts);
        arenas.renew();
        assert_eq!(arenas.batch().spare_capacity_mut().as_ptr().cast(), first, "the first arena again");
    }
}
