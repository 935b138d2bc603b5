//! Resync: the other site is given what it lacks, while this one serves (decision 0053).
//!
//! ```text
//!  primary                                          secondary
//!   BEGIN ─────────────────────────────────────────►  is it of this pair, or blank?
//!   PAGE (digest of a range of rows) ──────────────►  same, or its keys and their digests
//!   ROWS (what differs) ───────────────────────────►  commits
//!   -- no change starts: the rows that changed since --
//!   -- from here on changes go to both --
//!   for each file that may differ, in order:
//!     OPEN ────────────────────────────────────────►  where it wrote by itself
//!     COMPARE (digests of blocks, the range held) ─►  which of them differ
//!     DATA (these) ────────────────────────────────►  writes
//!     CLOSE (size, times) ─────────────────────────►
//! ```
//!
//! * *What may differ.* Since the snapshot of the moment when the primary went alone: what the engine
//!   knows to have changed in a file, which costs what was changed and not what is there. Rows and the
//!   set of files have no snapshot: they are compared by digests of ranges.
//! * *What is sent.* What differs, whatever the sites believe. So a resync that is cut off begins anew
//!   and sends nothing twice; and a site that is blank, or was taken over from by force, needs no
//!   other code.
//! * *Local files.* The snapshot of file `f` is the file [`base_of`]`(f)`, at one site only, like those
//!   that a snapshot is made out of. They go when the record says in sync.
//! * *Bound.* A page of rows, and [`PIECES`] pieces of [`PIECE_BLOCKS`] blocks, are in memory at a time.
//!
//! | module | what |
//! |---|---|
//! | `ask` | what the two ends say, as bytes |
//! | `rows` | all rows of a store in one order, files among them |
//! | `primary` | compares and sends |
//! | `secondary` | answers |

pub(crate) mod ask;
pub(crate) mod primary;
pub(crate) mod rows;
pub(crate) mod secondary;

use base::{FileId, Osn};
use engine::store::LOCAL_FILES;

use ask::Digest;

/// Blocks that are compared at a time.
const PIECE_BLOCKS: usize = 16;
/// Pieces that are under way at a time.
const PIECES: usize = 16;

/// What resyncs of this life have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncCounters {
    /// Begun.
    pub begun: u64,
    /// That ended with both sites equal.
    pub done: u64,
    /// Rows sent, files among them.
    pub rows: u64,
    /// Files compared.
    pub files: u64,
    /// Bytes of files compared by digest.
    pub compared_bytes: u64,
    /// Bytes of files sent because they differed, holes not counted.
    pub data_bytes: u64,
    /// Bytes of everything sent, digests and rows included.
    pub sent_bytes: u64,
    /// Resyncs that ended because the other site holds something that is not of this pair.
    pub foreign: u64,
    /// That ended because the other site could not do something, such as for lack of room.
    pub refused: u64,
}

/// The snapshot of a file of the moment when this site became alone.
pub(crate) const fn base_of(file: FileId) -> FileId {
    FileId(LOCAL_FILES.0 | file.0)
}

/// The file of which a local one is the snapshot of going alone.
pub(crate) fn of_base(local: FileId) -> Option<FileId> {
    let file = FileId(local.0 ^ LOCAL_FILES.0);
    (file < FileId(1 << 61)).then_some(file)
}

/// A file that is of use for the question `osn` only. None is ever made twice: its id names a map of
/// blocks that may outlive it.
const fn scratch_of(osn: Osn, number: u16) -> FileId {
    const SCRATCH: u64 = LOCAL_FILES.0 | 1 << 62;
    let (epoch, counter) = (osn.0 >> 48 & 0x3ff, osn.0 & ((1 << 42) - 1));
    FileId(SCRATCH | epoch << 52 | counter << 10 | (number & 0x3ff) as u64)
}

pub(crate) fn digest(content: &[u8]) -> Digest {
    /// Both sites use the same; it keeps nothing secret.
    const KEY: [u8; 32] = *b"vmhold resync: what is the same?";
    base::check::content_check(&KEY, content).0
}
