//! Aligned, pooled buffers that travel by handle.
//!
//! Payload is received or built once in a [`BufMut`] (unique owner, aligned for direct
//! I/O), then frozen into a [`Buf`] (shared, cheap to clone and slice). The memory goes
//! back to its [`BufPool`] when the last handle is dropped. Handles are `Send`, so CPU
//! work can leave the shard with its buffers and come back.
//!
//! A recycled buffer holds old bytes: whoever writes it to media overwrites all of it.

#![allow(unsafe_code, reason = "aligned allocation; design.md section 3 allows it in buffer handling")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer, in bytes: enough for direct I/O on any drive.
pub const BUF_ALIGN_BYTES: usize = 4096;

/// A shared, immutable piece of a buffer.
pub type Buf = bytes::Bytes;

/// An aligned piece of memory with one owner.
struct Block {
    start: NonNull<u8>,
    capacity_bytes: usize,
}

// SAFETY: a `Block` owns its memory alone and has no interior mutability.
unsafe impl Send for Block {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for Block {}

impl Block {
    fn layout(capacity_bytes: usize) -> Layout {
        Layout::from_size_align(capacity_bytes, BUF_ALIGN_BYTES).expect("buffer sizes are far below isize::MAX")
    }

    fn new(capacity_bytes: usize) -> Block {
        let capacity_bytes = capacity_bytes.max(1).next_multiple_of(BUF_ALIGN_BYTES);
        let layout = Self::layout(capacity_bytes);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Block { start, capacity_bytes }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity_bytes)) }
    }
}

/// A buffer with one owner: fill it, then [`freeze`](BufMut::freeze) it.
pub struct BufMut {
    block: Option<Block>,
    len_bytes: usize,
    home: Option<Arc<Shelf>>,
}

impl BufMut {
    /// A zeroed buffer of `len_bytes` that belongs to no pool.
    pub fn zeroed(len_bytes: usize) -> BufMut {
        BufMut { block: Some(Block::new(len_bytes)), len_bytes, home: None }
    }

    /// A copy of `pieces`, one behind the other, that belongs to no pool.
    pub fn joined(pieces: &[Buf]) -> BufMut {
        let mut whole = BufMut::zeroed(pieces.iter().map(Buf::len).sum());
        let mut at = 0;
        for piece in pieces {
            whole[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        whole
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("the block is there until drop")
    }

    /// Room in bytes, a multiple of [`BUF_ALIGN_BYTES`].
    pub fn capacity_bytes(&self) -> usize {
        self.block().capacity_bytes
    }

    /// Changes the length, at most to the capacity. Bytes that appear are what the
    /// memory held before.
    pub fn set_len(&mut self, len_bytes: usize) {
        assert!(len_bytes <= self.capacity_bytes(), "length within capacity");
        self.len_bytes = len_bytes;
    }

    /// Makes the content shared and read-only, without a copy.
    pub fn freeze(self) -> Buf {
        Buf::from_owner(self)
    }
}

impl Deref for BufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the block owns `capacity_bytes >= len_bytes` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.block().start.as_ptr(), self.len_bytes) }
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.block().start.as_ptr(), self.len_bytes) }
    }
}

impl AsRef<[u8]> for BufMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for BufMut {
    fn drop(&mut self) {
        if let (Some(block), Some(home)) = (self.block.take(), &self.home) {
            home.put_back(block);
        }
    }
}

impl std::fmt::Debug for BufMut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BufMut({} of {} bytes)", self.len_bytes, self.capacity_bytes())
    }
}

/// Free blocks of one size.
struct Shelf {
    block_bytes: usize,
    keep: usize,
    free: Mutex<Vec<Block>>,
}

impl Shelf {
    fn put_back(&self, block: Block) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.keep {
            free.push(block);
        }
    }
}

/// Hands out buffers of one size and takes them back. It bounds what it *keeps*, not
/// what it hands out: whoever asks is bounded by a queue of its own.
#[derive(Clone)]
pub struct BufPool {
    shelf: Arc<Shelf>,
}

impl BufPool {
    /// A pool of buffers of `block_bytes` (rounded up to the alignment) that keeps at
    /// most `keep` free ones.
    pub fn new(block_bytes: usize, keep: usize) -> BufPool {
        let block_bytes = block_bytes.next_multiple_of(BUF_ALIGN_BYTES);
        BufPool { shelf: Arc::new(Shelf { block_bytes, keep, free: Mutex::new(Vec::new()) }) }
    }

    /// A buffer of `len_bytes`, at most this pool's block size. Its content is
    /// whatever was there.
    pub fn take(&self, len_bytes: usize) -> BufMut {
        assert!(len_bytes <= self.shelf.block_bytes, "asked for more than a block of this pool");
        let free = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let block = free.unwrap_or_else(|| Block::new(self.shelf.block_bytes));
        BufMut { block: Some(block), len_bytes, home: Some(self.shelf.clone()) }
    }

    /// Size in bytes of this pool's buffers.
    pub fn block_bytes(&self) -> usize {
        self.shelf.block_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_comes_back_and_is_aligned() {
        let pool = BufPool::new(10_000, 1);
        let mut first = pool.take(5);
        first.copy_from_slice(b"hello");
        let address = first.as_ptr();
        assert_eq!(address as usize % BUF_ALIGN_BYTES, 0);
        let shared = first.freeze();
        let piece = shared.slice(1..3);
        drop(shared);
        assert_eq!(&piece[..], b"el");
        assert_ne!(pool.take(5).as_ptr(), address, "still held by the piece");
        drop(piece);
        assert_eq!(pool.block_bytes(), 12_288);
        // Two blocks were free, the pool keeps one: the first that came back.
        let again = pool.take(12_288);
        assert_eq!(again.len(), 12_288);
    }

    #[test]
    fn zeroed_is_zero_and_length_stays_within_capacity() {
        let mut buf = BufMut::zeroed(100);
        assert!(buf.iter().all(|&byte| byte == 0));
        assert_eq!(buf.capacity_bytes(), 4096);
        buf.set_len(4096);
        assert!(std::panic::catch_unwind(move || buf.set_len(4097)).is_err());
    }
}
