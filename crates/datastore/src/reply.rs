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

use base::WallNanos;

use crate::attr::Wcc;
use crate::op::{Created, Linked, Renamed};

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
