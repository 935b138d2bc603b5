//! What a record is to everybody above: the one record of vmhold (`design.md` section 2).

use std::fmt;

use base::{Buf, Epoch, FileId, Osn};

/// Place of a record in the order of one journal. Grows by one per record, seals
/// included; a sequence that was never stable may be used again after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }

    /// The one before; 0 stays 0.
    #[must_use]
    pub fn before(self) -> Sequence {
        Sequence(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a record says. The numbers are on media and never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// Data of one file; the scope is exactly the range written.
    pub const WRITE: Kind = Kind(1);
    /// Any other change of the store, as the engine encodes it.
    pub const OPERATION: Kind = Kind(2);
    /// Written by the journal itself: proves that what came before was stable.
    pub const SEAL: Kind = Kind(3);
    /// Reserved: filler. Not written by this version (batches wrap around the ring).
    pub const PAD: Kind = Kind(4);
    /// Reserved: an operation prepared at both sites (two-phase commit).
    pub const PREPARED: Kind = Kind(5);
    /// Reserved: the decision about a prepared operation.
    pub const COMMITTED: Kind = Kind(6);
    /// Reserved: a cached reply of a non-idempotent request.
    pub const REPLY: Kind = Kind(7);
    /// Reserved: a lock granted or released.
    pub const LOCK: Kind = Kind(8);
    /// Reserved: a checkpoint of a host's log.
    pub const CHECKPOINT: Kind = Kind(9);
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["write", "operation", "seal", "pad", "prepared", "committed", "reply", "lock", "checkpoint"];
        match names.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

/// The range of a file a record is about. All zero when it is about no range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The file; 0 is none.
    pub file: FileId,
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub length_bytes: u64,
}

/// The names a record goes by, without its body (R-REPL-15: file id, offset, length
/// and OSN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// What it says.
    pub kind: Kind,
    /// The datastore (ordered stream) it belongs to; 0 for the store itself.
    pub stream: u32,
    /// Term of the owner who wrote it.
    pub epoch: Epoch,
    /// Its operation's place in the total order.
    pub osn: Osn,
    /// What range it is about.
    pub scope: Scope,
}

/// A record to append. The body is the concatenation of `body`.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Its names.
    pub tag: Tag,
    /// Its content in parts, copied once.
    pub body: &'a [&'a [u8]],
}

/// A record that is stable, or was read back whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in this journal.
    pub sequence: Sequence,
    /// Its names.
    pub tag: Tag,
    /// Its content: a slice of the journal's memory image. While it is held, so is the
    /// arena it lies in (about 2 MiB), or after recovery the whole image read.
    pub body: Buf,
    /// The end of its content, if that was appended as a payload and was not copied; empty
    /// otherwise, and after recovery.
    pub payload: Buf,
}
