//! Proposing to drives: the reads and writes of `paxos.rs`. Each is one seat's own block on
//! one drive; what it means is decided there.
//!
//! A vote costs one write and one flush per drive, as a plain write of a register would. The
//! promises (one read of 16 KiB) are read once the write is done, *while* the drive flushes:
//! whoever is deposed later than that read is so by someone who reads the vote after it.

use std::collections::BTreeSet;

use base::buf::{Buf, BufMut};
use base::id::{DriveId, GroupId};
use base::port::MediaFault;
use futures_util::future::join;

use crate::decide::aligned;
use crate::header::GroupHeader;
use crate::lane::Lane;
use crate::layout::Shape;
use crate::member::{FailReason, Member};
use crate::paxos::Seat;
use crate::principal::Principal;
use crate::register::{decode_session, encode_session};

/// Whose blocks are written, and where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    pub group: GroupId,
    pub shape: Shape,
    pub seat: Seat,
}

impl Hand {
    /// Writes the seat's vote for register `index` on a member: into the slot that does not
    /// hold the vote before, which stays untouched until this one is durable. Returns the
    /// highest ballot promised on the drive after the write, `None` if that cannot be read:
    /// the vote is there, but the drive counts for nothing.
    pub async fn put_vote(&self, member: &Member, index: usize, image: Buf) -> Result<Option<u64>, FailReason> {
        let which = member.next_slot.borrow()[index];
        let offset = self.shape.register_offset_bytes(self.seat, index, usize::from(which));
        member.write(Principal::MetadataWrite, offset, image).await.map_err(FailReason::of_write)?;
        let (flushed, promised) = join(member.flush(), self.promised(member)).await;
        flushed.map_err(FailReason::of_flush)?;
        member.next_slot.borrow_mut()[index] = 1 - which;
        Ok(promised)
    }

    /// The highest ballot promised on a member by anyone; tried twice.
    pub async fn promised(&self, member: &Member) -> Option<u64> {
        for _ in 0..2 {
            let blocks = BufMut::zeroed(Shape::PROMISES_BYTES);
            let read = member.read(Principal::MetadataRead, Shape::session_offset_bytes(Seat::First, 0), blocks).await;
            match read {
                Ok(blocks) => return Some(Promises::decode(self.group, &blocks).highest()),
                Err(MediaFault::Io) => {}
                // One that does not answer is not asked again: a decision waits for this read.
                Err(_) => return None,
            }
        }
        None
    }

    /// Writes the seat's promise on a drive, durably.
    pub async fn put_promise(&self, drive: &Lane, ballot: u64, which: usize) -> Result<(), FailReason> {
        let offset = Shape::session_offset_bytes(self.seat, which);
        let block = aligned(&encode_session(self.group, ballot));
        let mut written = drive.write(Principal::MetadataWrite, offset, block.clone()).await;
        if written == Err(MediaFault::Io) {
            written = drive.write(Principal::MetadataWrite, offset, block).await;
        }
        written.map_err(FailReason::of_write)?;
        drive.flush().await.map_err(FailReason::of_flush)
    }
}

/// The promises of both seats on a drive, two copies each; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promises([[u64; 2]; 2]);

impl Promises {
    /// From the four blocks as they lie on the drive.
    pub fn decode(group: GroupId, blocks: &[u8]) -> Promises {
        let mut promises = Promises::default();
        let places = promises.0.iter_mut().flatten();
        for (promise, block) in places.zip(blocks.chunks(Shape::BLOCK_BYTES)) {
            *promise = decode_session(group, block).unwrap_or(0);
        }
        promises
    }

    /// The highest of all.
    pub fn highest(&self) -> u64 {
        self.0.iter().flatten().copied().max().unwrap_or(0)
    }

    /// The copy that the next promise of `seat` goes to: not the one that counts now.
    pub fn next_copy(&self, seat: Seat) -> usize {
        let [first, second] = self.0[seat.index()];
        usize::from(first > second)
    }

    /// The promise of `seat`.
    pub fn of(&self, seat: Seat) -> u64 {
        self.0[seat.index()].into_iter().max().unwrap_or(0)
    }
}

impl GroupHeader {
    /// Ids of the members that vote.
    pub fn acceptors(&self) -> BTreeSet<DriveId> {
        self.members.iter().filter(|member| member.standing.votes()).map(|member| member.drive).collect()
    }
}
