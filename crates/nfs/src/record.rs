//! Record marking over TCP (RFC 5531 section 11), both ways, without copies.
//!
//! **In.** Bytes are read from the socket in large pieces into a [`Receiver`]'s buffer,
//! behind what is there already; complete records are handed out as [`Buf`] slices of
//! it, so an 8 KiB WRITE is parsed and journaled from the very bytes the kernel wrote.
//! A buffer whose slices are still in use is set aside and taken again when the last of
//! them is dropped: in steady state nothing is allocated. Room is offered for a whole
//! number of records of the last one's length, so that records of one length, which is
//! what a busy client sends, end where the room ends. Bytes are moved only where a record
//! straddles that end, or where a peer really sends several fragments per record (none of
//! the known clients does).
//!
//! **Out.** An [`Outbox`] gathers replies: small ones one behind another in one flat
//! buffer, payload of reads as handles between them, so that whatever is ready goes out
//! with one vectored write.
//!
//! Limits (`faults.md` D.3): 64 fragments per record, empty ones counted, and
//! [`RECORD_BYTES_MAX`] per record. Breaking one ends the connection.

use std::collections::VecDeque;
use std::io::IoSlice;

use base::Buf;
use bytes::buf::Limit;
use bytes::{Buf as _, BufMut as _, BytesMut};

use crate::xdr::{Encoder, pad_bytes};

/// Largest record accepted: a WRITE of 1 MiB and its header.
pub const RECORD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Most fragments in a record.
pub const FRAGMENTS_MAX: usize = 64;
/// Room offered at a time: some 30 WRITEs of 8 KiB, or one longer record.
const ROOM_BYTES: usize = 256 << 10;
/// Less room than this is not worth a read, unless a record ends there.
const ROOM_BYTES_MIN: usize = 64 << 10;
/// Size of a receive buffer: the room, and what a record that straddles brings along.
const BUFFER_BYTES: usize = ROOM_BYTES + (16 << 10);
/// Buffers set aside per connection until their slices are dropped.
const SET_ASIDE_MAX: usize = 64;
/// Of these, the oldest that are looked at when one is needed.
const LOOK_AT_MAX: usize = 8;
/// Written bytes kept at the front of an outbox before it is compacted.
const COMPACT_BYTES: usize = 64 << 10;
/// Most pieces handed to one vectored write.
pub const SLICES_MAX: usize = 64;
const MARK_BYTES: usize = 4;
const LAST_FRAGMENT: u32 = 1 << 31;

/// How a peer broke record marking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A record above [`RECORD_BYTES_MAX`].
    #[error("record of {0} bytes or more")]
    RecordTooLong(usize),
    /// A record in more than [`FRAGMENTS_MAX`] fragments.
    #[error("record in too many fragments")]
    TooManyFragments,
    /// A record without content.
    #[error("empty record")]
    EmptyRecord,
}

/// Turns received bytes into records.
#[derive(Debug, Default)]
pub struct Receiver {
    buffer: BytesMut,
    /// Room is offered up to this length of the buffer.
    end: usize,
    /// Length of the last record that came in one fragment, with its mark.
    last_bytes: usize,
    /// Used-up buffers whose slices may still be in use, oldest first.
    aside: VecDeque<BytesMut>,
    /// Earlier fragments of the record at the front.
    earlier: Vec<u8>,
    fragments: usize,
}

impl Receiver {
    /// Where to append received bytes: room up to the end of a record, as far as that can
    /// be foreseen. Never empty.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        let (held, wanted) = (self.buffer.len(), self.wanted_bytes());
        let enough = if wanted > 0 { wanted } else { ROOM_BYTES_MIN.min(self.last_bytes).max(1) };
        if self.end < held + enough {
            self.end = (held + enough).max(self.foreseen_bytes());
            if self.buffer.capacity() < self.end {
                self.renew(self.end);
            }
        }
        let room = self.end - self.buffer.len();
        (&mut self.buffer).limit(room)
    }

    /// Bytes missing of the fragment at the front, as far as known.
    fn wanted_bytes(&self) -> usize {
        let Some(mark) = self.buffer.first_chunk::<MARK_BYTES>() else { return 0 };
        let len = (u32::from_be_bytes(*mark) & !LAST_FRAGMENT) as usize;
        // A length above the limit is refused by `next`; never reserve for it.
        (MARK_BYTES + len.min(RECORD_BYTES_MAX)).saturating_sub(self.buffer.len())
    }

    /// Records like the last one that fit into the room, at least one.
    fn foreseen_bytes(&self) -> usize {
        match self.last_bytes {
            0 => ROOM_BYTES,
            last => (ROOM_BYTES / last).max(1) * last,
        }
    }

    /// Puts another buffer of at least `need` bytes in the place of the present one, and
    /// what is in that at its front.
    fn renew(&mut self, need: usize) {
        let more = need - self.buffer.len();
        if self.buffer.try_reclaim(more) {
            return;
        }
        let need = need.max(BUFFER_BYTES);
        let free = self.aside.iter_mut().take(LOOK_AT_MAX).position(|old| old.try_reclaim(need));
        let mut fresh = match free.and_then(|at| self.aside.remove(at)) {
            Some(old) => old,
            None => BytesMut::with_capacity(need),
        };
        fresh.extend_from_slice(&self.buffer);
        let mut old = std::mem::replace(&mut self.buffer, fresh);
        old.clear();
        self.aside.push_back(old);
        if self.aside.len() > SET_ASIDE_MAX {
            self.aside.pop_front();
        }
    }

    /// The next complete record, if it is there.
    #[allow(clippy::should_implement_trait, reason = "it is no iterator: more may come later")]
    pub fn next(&mut self) -> Result<Option<Buf>, Violation> {
        while let Some(mark) = self.buffer.first_chunk::<MARK_BYTES>() {
            let mark = u32::from_be_bytes(*mark);
            let len = (mark & !LAST_FRAGMENT) as usize;
            if self.earlier.len() + len > RECORD_BYTES_MAX {
                return Err(Violation::RecordTooLong(self.earlier.len() + len));
            }
            if self.fragments == FRAGMENTS_MAX {
                return Err(Violation::TooManyFragments);
            }
            if self.buffer.len() < MARK_BYTES + len {
                return Ok(None);
            }
            self.buffer.advance(MARK_BYTES);
            let fragment = self.buffer.split_to(len).freeze();
            self.end = self.end.saturating_sub(MARK_BYTES + len);
            self.last_bytes = MARK_BYTES + len;
            self.fragments += 1;
            if mark & LAST_FRAGMENT != 0 {
                return self.finish(fragment).map(Some);
            }
            self.earlier.extend_from_slice(&fragment);
        }
        Ok(None)
    }

    fn finish(&mut self, last: Buf) -> Result<Buf, Violation> {
        self.fragments = 0;
        let mut whole = std::mem::take(&mut self.earlier);
        let record = if whole.is_empty() {
            last
        } else {
            whole.extend_from_slice(&last);
            whole.into()
        };
        if record.is_empty() { Err(Violation::EmptyRecord) } else { Ok(record) }
    }

    /// Whether part of a record is waiting for its rest.
    pub fn is_inside_record(&self) -> bool {
        !self.buffer.is_empty() || self.fragments > 0
    }

    /// Gives memory back while the connection is idle.
    pub fn shrink(&mut self) {
        self.aside.clear();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.end = 0;
        }
    }
}

/// A reply: encoded bytes, for reads followed by the data as handles and their padding.
/// The first four bytes are kept free for the record mark.
#[derive(Debug, Default)]
pub struct Reply {
    /// What is encoded; starts with four bytes for the record mark.
    pub head: Encoder,
    /// Data that follows without being copied.
    pub payload: smallvec::SmallVec<[Buf; 4]>,
}

impl Reply {
    /// An empty reply on a buffer that is used again.
    pub fn on(mut buffer: Vec<u8>) -> Reply {
        buffer.clear();
        buffer.extend_from_slice(&[0; MARK_BYTES]);
        Reply { head: Encoder::on(buffer), payload: smallvec::SmallVec::new() }
    }

    /// The reply's message without the record mark and payload.
    pub fn message(&self) -> &[u8] {
        &self.head.bytes()[MARK_BYTES..]
    }

    /// Whole length on the wire in bytes.
    pub fn wire_bytes(&self) -> usize {
        let payload = self.payload_bytes();
        self.head.len() + payload + pad_bytes(payload)
    }

    fn payload_bytes(&self) -> usize {
        self.payload.iter().map(Buf::len).sum()
    }
}

/// Replies on their way to the socket.
#[derive(Debug, Default)]
pub struct Outbox {
    flat: Vec<u8>,
    /// Payload and the position in `flat` before which it goes, in order.
    payload: VecDeque<(usize, Buf)>,
    /// How much of `flat` has been written.
    flat_done: usize,
    waiting_bytes: usize,
}

impl Outbox {
    /// Appends `reply`; its buffer comes back to be used again.
    pub fn push(&mut self, mut reply: Reply) -> Vec<u8> {
        let wire_bytes = reply.wire_bytes();
        let mark = u32::try_from(wire_bytes - MARK_BYTES).expect("replies are far below 2 GiB");
        reply.head.patch_u32(0, mark | LAST_FRAGMENT);
        self.flat.extend_from_slice(reply.head.bytes());
        let payload_bytes = reply.payload_bytes();
        for piece in reply.payload.drain(..).filter(|piece| !piece.is_empty()) {
            self.payload.push_back((self.flat.len(), piece));
        }
        self.flat.extend_from_slice(&[0; 3][..pad_bytes(payload_bytes)]);
        self.waiting_bytes += wire_bytes;
        reply.head.into_bytes()
    }

    /// Bytes not written yet.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Fills `slices` with what comes next, in order, and returns how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let (mut at, mut count) = (self.flat_done, 0);
        for (before, piece) in &self.payload {
            if count + 2 > SLICES_MAX {
                return count;
            }
            if *before > at {
                slices[count] = IoSlice::new(&self.flat[at..*before]);
                (at, count) = (*before, count + 1);
            }
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        if count < SLICES_MAX && at < self.flat.len() {
            slices[count] = IoSlice::new(&self.flat[at..]);
            count += 1;
        }
        count
    }

    /// The first `len` bytes of what comes next have been written.
    pub fn written(&mut self, mut len: usize) {
        self.waiting_bytes -= len;
        while len > 0 {
            let flat_end = self.payload.front().map_or(self.flat.len(), |(before, _)| *before);
            let step = len.min(flat_end - self.flat_done);
            self.flat_done += step;
            len -= step;
            if let Some((_, piece)) = self.payload.front_mut().filter(|_| len > 0) {
                let step = len.min(piece.len());
                piece.advance(step);
                len -= step;
                if piece.is_empty() {
                    self.payload.pop_front();
                }
            }
        }
        if self.waiting_bytes == 0 {
            self.flat.clear();
            self.flat_done = 0;
        } else if self.flat_done > COMPACT_BYTES {
            self.compact();
        }
    }

    /// Drops what was written, so that a reader that is always a little behind does not
    /// make the buffer grow.
    fn compact(&mut self) {
        self.flat.drain(..self.flat_done);
        self.payload.iter_mut().for_each(|(before, _)| *before -= self.flat_done);
        self.flat_done = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(len: usize, last: bool) -> [u8; 4] {
        (u32::try_from(len).unwrap() | if last { LAST_FRAGMENT } else { 0 }).to_be_bytes()
    }

    fn receive(receiver: &mut Receiver, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut room = receiver.room();
            let step = room.remaining_mut().min(rest.len());
            room.put_slice(&rest[..step]);
            rest = &rest[step..];
        }
    }

    #[test]
    fn records_come_out_however_the_bytes_arrive() {
        let mut wire = Vec::new();
        for len in [1usize, 100, 9_000, 300_000, RECORD_BYTES_MAX] {
            wire.extend(mark(len, true));
            wire.extend((0..len).map(|at| at as u8));
        }
        for piece in [1_000, 65_536, 7_777] {
            let mut receiver = Receiver::default();
            let mut lens = Vec::new();
            let mut held = Vec::new();
            for bytes in wire.chunks(piece) {
                receive(&mut receiver, bytes);
                while let Some(record) = receiver.next().unwrap() {
                    assert!(record.iter().enumerate().all(|(at, &byte)| byte == at as u8));
                    lens.push(record.len());
                    held.push(record);
                }
            }
            assert_eq!(lens, [1, 100, 9_000, 300_000, RECORD_BYTES_MAX]);
            assert!(!receiver.is_inside_record());
        }
    }

    #[test]
    fn a_buffer_comes_back_when_its_records_are_dropped() {
        let mut receiver = Receiver::default();
        let mut places = std::collections::BTreeSet::new();
        let mut held = VecDeque::new();
        for _ in 0..1_000 {
            receive(&mut receiver, &[&mark(8_192, true)[..], &[7; 8_192]].concat());
            let record = receiver.next().unwrap().unwrap();
            places.insert(record.as_ptr() as usize / BUFFER_BYTES);
            held.push_back(record);
            if held.len() > 16 {
                held.pop_front();
            }
        }
        assert!(places.len() <= 8, "a few buffers serve a thousand records, not {}", places.len());
    }

    #[test]
    fn records_of_one_length_end_where_the_room_ends() {
        for len in [100, 8_328, 65_672, 262_280, RECORD_BYTES_MAX] {
            let record = [&mark(len, true)[..], &vec![7; len]].concat();
            let mut receiver = Receiver::default();
            receive(&mut receiver, &record);
            assert_eq!(receiver.next().unwrap().unwrap().len(), len);
            let (mut held, mut moved) = (VecDeque::new(), 0);
            for turn in 0..100 {
                let mut room = receiver.room();
                let whole = room.remaining_mut() / record.len();
                assert!(turn == 0 || room.remaining_mut() % record.len() == 0, "{len}: {}", room.remaining_mut());
                (0..whole).for_each(|_| room.put_slice(&record));
                while let Some(record) = receiver.next().unwrap() {
                    held.push_back(record);
                }
                moved += usize::from(receiver.is_inside_record());
                held.drain(..held.len().saturating_sub(16));
            }
            assert_eq!((moved, held.len()), (0, 16));
        }
    }

    #[test]
    fn fragments_are_joined_and_bounded() {
        let mut receiver = Receiver::default();
        receive(&mut receiver, &[&mark(2, false)[..], b"ab", &mark(0, false), &mark(1, true), b"c"].concat());
        assert_eq!(receiver.next().unwrap().unwrap(), b"abc"[..]);
        (0..FRAGMENTS_MAX).for_each(|_| receive(&mut receiver, &mark(0, false)));
        assert_eq!(receiver.next(), Ok(None));
        receive(&mut receiver, &mark(1, true));
        assert_eq!(receiver.next(), Err(Violation::TooManyFragments));
        let mut receiver = Receiver::default();
        receive(&mut receiver, &mark(RECORD_BYTES_MAX + 1, false));
        assert_eq!(receiver.next(), Err(Violation::RecordTooLong(RECORD_BYTES_MAX + 1)));
        let mut receiver = Receiver::default();
        receive(&mut receiver, &mark(0, true));
        assert_eq!(receiver.next(), Err(Violation::EmptyRecord));
    }

    #[test]
    fn a_giant_length_reserves_nothing_beyond_the_limit() {
        let mut receiver = Receiver::default();
        receive(&mut receiver, &u32::MAX.to_be_bytes());
        assert!(receiver.room().get_ref().capacity() <= RECORD_BYTES_MAX + 2 * BUFFER_BYTES);
    }

    #[test]
    fn the_outbox_sends_the_same_bytes_in_any_steps() {
        let build = || {
            let mut outbox = Outbox::default();
            let payloads: [&[&[u8]]; 4] = [&[], &[b"12345"], &[b"ab", b"", b"cdef"], &[]];
            for payload in payloads {
                let mut reply = Reply::on(Vec::new());
                reply.head.u32(0xAABB_CCDD);
                reply.payload = payload.iter().map(|piece| Buf::copy_from_slice(piece)).collect();
                outbox.push(reply);
            }
            outbox
        };
        let drain = |step: usize| {
            let (mut outbox, mut wire) = (build(), Vec::new());
            while outbox.waiting_bytes() > 0 {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.slices(&mut slices);
                let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                outbox.written(next.len());
                wire.extend(next);
            }
            wire
        };
        let whole = drain(usize::MAX);
        assert_eq!(whole.len(), 8 + (8 + 8) + (8 + 8) + 8);
        assert_eq!(whole[8..12], (12u32 | LAST_FRAGMENT).to_be_bytes());
        (1..20).for_each(|step| assert_eq!(drain(step), whole, "in steps of {step}"));
    }
}
