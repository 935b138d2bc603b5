//! Journaled answers: the durable half of the duplicate-request cache.
//!
//! A client that got no answer asks again, perhaps after this server was killed and
//! restarted, perhaps at the other site. Doing a REMOVE or an exclusive CREATE twice would
//! give a wrong second answer, so the encoded answer of each change of the namespace is
//! stored by the very commit that makes the change (I2), and handed back at open.
//!
//! Only answers of changes are stored: a refused request changed nothing, so asking again
//! is as good as asking for the first time. The store is a ring: each commit that adds an
//! answer deletes the oldest beyond [`REPLIES_MAX`] or [`REPLY_AGE_MAX_NS`].

use std::collections::VecDeque;

use base::WallNanos;
use engine::store::{Change, Store};

use crate::attr::Wcc;
use crate::batch::Batch;
use crate::filesystem::{Filesystem, OpenRefusal};
use crate::format::{REPLIES, number_from_row, reply_from_row, reply_to_row};
use crate::op::{Created, Linked, Renamed};
use crate::refusal::Refusal;
use crate::table::all_rows;

/// Most answers kept.
pub const REPLIES_MAX: u64 = 1024;
/// Answers older than this many nanoseconds are not handed back (ten minutes).
pub const REPLY_AGE_MAX_NS: u64 = 600 * 1_000_000_000;
/// Longest key and encoded answer together, in bytes; a longer one is not stored.
pub const REPLY_BYTES_MAX: usize = 1100;

/// What a change ended in, for encoding before it is committed.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// SETATTR (the file), REMOVE, RMDIR (the directory).
    Changed(&'a Wcc),
    /// CREATE, MKDIR, SYMLINK, MKNOD.
    Created(&'a Created),
    /// RENAME.
    Renamed(&'a Renamed),
    /// LINK.
    Linked(&'a Linked),
}

/// Encodes an [`Outcome`] as the reply that will go over the wire.
pub type EncodeReply = Box<dyn FnOnce(&Outcome<'_>) -> Vec<u8>>;

/// Asks that the answer of a change be kept with it.
pub struct ReplyNote {
    /// Identity of the request (address, machine, xid, procedure, digest of arguments).
    pub key: Vec<u8>,
    /// Encodes the answer. Called at most once, only when the change is going to be made.
    pub encode: EncodeReply,
}

/// An answer kept from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// [`ReplyNote::key`].
    pub key: Vec<u8>,
    /// What [`ReplyNote::encode`] returned.
    pub reply: Vec<u8>,
    /// When it was stored.
    pub at: WallNanos,
}

/// The ring of kept answers, as numbers and ages.
pub(crate) struct Replies {
    next: u64,
    kept: VecDeque<(u64, WallNanos)>,
}

/// Most old answers one commit deletes.
const DROP_MAX: usize = 4;

impl Replies {
    pub async fn load<S: Store>(store: &S) -> Result<Replies, OpenRefusal> {
        let mut kept = VecDeque::new();
        for (key, value) in all_rows(store, REPLIES).await? {
            let number = number_from_row(&key).ok_or(OpenRefusal::Malformed)?;
            let reply = reply_from_row(&value).ok_or(OpenRefusal::Malformed)?;
            kept.push_back((number, reply.at));
        }
        Ok(Replies { next: kept.back().map_or(0, |(number, _)| number + 1), kept })
    }

    /// Adds `reply` to a commit and deletes what is too old or too many.
    pub fn keep(&mut self, batch: &mut Batch, reply: StoredReply) {
        if reply.key.len() + reply.reply.len() > REPLY_BYTES_MAX {
            return;
        }
        let number = self.next;
        self.next += 1;
        batch.push(Change::Put { table: REPLIES, key: number.to_be_bytes().to_vec(), value: reply_to_row(&reply) });
        self.kept.push_back((number, reply.at));
        for _ in 0..DROP_MAX {
            let Some(&(oldest, at)) = self.kept.front() else { break };
            if self.kept.len() as u64 <= REPLIES_MAX && at.0.saturating_add(REPLY_AGE_MAX_NS) >= reply.at.0 {
                break;
            }
            self.kept.pop_front();
            batch.push(Change::Delete { table: REPLIES, key: oldest.to_be_bytes().to_vec() });
        }
    }
}

impl<S: Store> Filesystem<S> {
    /// Answers kept with the changes they belong to, oldest first, for the duplicate-request
    /// cache to start with.
    pub async fn replies(&self) -> Result<Vec<StoredReply>, Refusal> {
        let rows = all_rows(&*self.store, REPLIES).await?;
        let replies = rows.iter().map(|(_, value)| reply_from_row(value).ok_or(Refusal::Inconsistent));
        let now = self.world.clock.wall().0;
        let fresh = |reply: &StoredReply| reply.at.0.saturating_add(REPLY_AGE_MAX_NS) >= now;
        Ok(replies.collect::<Result<Vec<_>, _>>()?.into_iter().filter(fresh).collect())
    }
}
