//! The integrity check: do both sites hold the same? (`protocols.md` C.7, R-CHK; decision 0056.)
//!
//! ```text
//!  primary                                            secondary
//!   -- nothing is in flight: the point --
//!   POINT ────────────────────────────────────────────►  notes what is there, too
//!   -- clients go on --
//!   ROWS (digest of a range) ─────────────────────────►  same, or the rows it has
//!   FILES (size, times, content sum of each) ─────────►  which of them differ from its own
//!     CHUNKS, TERMS (of a file that differs) ─────────►  which blocks
//!     KEEP (files that differ) ───────────────────────►  keeps them as they were
//!   SIGN (what was found the same) ───────────────────►  its signature, if it found the same
//!   END ──────────────────────────────────────────────►  lets go
//! ```
//!
//! * *At the point.* Rows and files change while they are compared. What a row was is remembered when it is
//!   changed first; of a file that is changed first a snapshot is taken before, the *stand-in* ([`marker`]).
//!   So the pause is for what is in flight, and costs nothing for files that nobody writes to.
//! * *From sums.* The engine keeps a sum of its content with each file; no data is read. Or *from data*: every
//!   block is read from the drives and its term made anew, which also finds a sum that is wrong in itself.
//! * *The comparison is made at the secondary,* against what it has itself (R-CHK-07).
//! * *A difference* is traced to rows, files and blocks; the stand-ins are kept as *evidence*; the sites go
//!   out of sync, and the next resync compares everything.
//! * *Evidence* is at one site only, as are all stand-ins. It stays until somebody lets it go.
//!
//! | module | what |
//! |---|---|
//! | `ask` | what the two ends say, as bytes |
//! | `marker` | what there was at the point |
//! | `run` | the primary's end |
//! | `answer` | the secondary's end |
//! | `look` | files at the point: sums, chunks, terms |
//! | `receipt` | what both sites sign |
//! | `evidence` | what is kept of differences, and what is noted of checks |

mod answer;
pub(crate) mod ask;
mod evidence;
mod look;
pub(crate) mod marker;
mod receipt;
mod run;

use std::time::Duration;

use base::{FileId, Osn, SiteId, WallNanos};
use engine::store::LOCAL_FILES;

pub(crate) use answer::{answer, is_check};
pub use evidence::Evidence;
pub(crate) use evidence::{EvidenceRows, KEPT, NOTE};
pub use receipt::{Seal, Statement, StatementFault};
pub(crate) use run::CheckCourse;

/// The first file id of stand-ins and evidence, and the first behind.
pub(crate) const STAND_INS: std::ops::Range<FileId> = FileId(LOCAL_FILES.0 | 1 << 61)..FileId(LOCAL_FILES.0 | 1 << 62);

/// The stand-in number `number` that is made with operation `osn`. None is ever made twice.
pub(crate) const fn stand_in_of(osn: Osn, number: usize) -> FileId {
    let (epoch, counter) = (osn.0 >> 48 & 0x3ff, osn.0 & ((1 << 42) - 1));
    FileId(STAND_INS.start.0 | epoch << 51 | counter << 9 | (number & 0x1ff) as u64)
}

/// What somebody wants checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckWanted {
    /// Read all data instead of trusting the sums that are kept.
    pub reads_data: bool,
    /// What the receipt calls the datastore; one line.
    pub about: String,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Rows compared.
    pub rows: u64,
    /// Files compared.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Bytes of files that there are to compare.
    pub bytes_in_all: u64,
}

/// Why no check begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckRefused {
    /// Only the primary checks.
    #[error("this site is not primary")]
    NotPrimary,
    /// They are known to differ: a resync comes first.
    #[error("the sites are not in sync: there is nothing to be checked before they are")]
    OutOfSync,
    /// One at a time.
    #[error("a check is running")]
    Running,
    /// The link is down, or replication is paused or changes hands.
    #[error("the sites are not together at this moment")]
    Apart,
    /// This site does nothing any more.
    #[error("the store has stopped and must be reopened")]
    Stopped,
}

/// What a check that did begin came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The point: both sites had done the operations through this one. None if there was no point.
    pub osn: Option<Osn>,
    /// When it began.
    pub began: WallNanos,
    /// When it ended.
    pub ended: WallNanos,
    /// How long clients' writes waited for the point.
    pub pause: Duration,
    /// Every block was read.
    pub reads_data: bool,
    /// Files and snapshots compared.
    pub files: u64,
    /// Bytes that they have, holes included.
    pub bytes: u64,
    /// Rows compared: names, attributes, locks, replies.
    pub rows: u64,
    /// What was found.
    pub outcome: CheckOutcome,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Both sites hold the same.
    Clean {
        /// What both say of it.
        statement: Statement,
        /// Who signed it: the primary and the secondary, as far as they can sign.
        seals: Vec<Seal>,
    },
    /// They do not.
    Differs(Differences),
    /// It was not compared to its end, so nothing is known.
    NotCompleted(&'static str),
}

/// Where the sites differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Files that differ, [`FILES_TOLD_MAX`] at most.
    pub files: Vec<FileDifference>,
    /// How many do in all.
    pub files_in_all: u64,
    /// Rows that differ, [`ROWS_TOLD_MAX`] at most.
    pub rows: Vec<RowDifference>,
    /// How many do in all, as far as they were counted.
    pub rows_in_all: u64,
}

impl Differences {
    fn is_none(&self) -> bool {
        self.files_in_all == 0 && self.rows_in_all == 0
    }
}

/// Files whose differences are traced and kept.
pub const FILES_TOLD_MAX: usize = 64;
/// Rows that are told.
pub const ROWS_TOLD_MAX: usize = 64;
/// Blocks of one file that are told.
pub const BLOCKS_TOLD_MAX: usize = 64;

/// What one site has of a file at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLook {
    /// Which.
    pub file: FileId,
    /// It is a snapshot.
    pub frozen: bool,
    /// Part of it is damaged beyond repair there.
    pub unreadable: bool,
    /// What was read does not give the sum that is kept.
    pub sum_is_wrong: bool,
    /// Its size.
    pub size_bytes: u64,
    /// Last change of content.
    pub modified: WallNanos,
    /// Last change of content or attributes.
    pub changed: WallNanos,
    /// Sum of the terms of its blocks.
    pub sum: u128,
}

impl FileLook {
    fn is_sound(&self) -> bool {
        !self.unreadable && !self.sum_is_wrong
    }
}

/// A file that is not the same at both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDifference {
    /// Which.
    pub file: FileId,
    /// What the primary has.
    pub primary: Option<FileLook>,
    /// What the secondary has.
    pub secondary: Option<FileLook>,
    /// Numbers of blocks that differ, [`BLOCKS_TOLD_MAX`] at most.
    pub blocks: Vec<u64>,
    /// There are more.
    pub more_blocks: bool,
    /// The file of the primary that keeps what it had.
    pub kept: Option<FileId>,
}

/// A row that is not the same at both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDifference {
    /// The number of its table.
    pub table: u8,
    /// Its key.
    pub key: Vec<u8>,
    /// What the primary has.
    pub primary: Option<Vec<u8>>,
    /// What the secondary has.
    pub secondary: Option<Vec<u8>>,
}

/// The two sites of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Which was primary.
    pub primary: SiteId,
    /// And which was not.
    pub secondary: SiteId,
}
