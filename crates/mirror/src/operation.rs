//! What is replicated: ranges, writes, changes. The mirror knows no blocks and no names;
//! what a change does is said in bytes that only the datastore reads.

use base::{Buf, FileId, WallNanos};

/// Most that one write may carry.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Most that each part of a change may have.
pub const CHANGE_PART_BYTES_MAX: usize = 1 << 16;

/// A range of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub length_bytes: u64,
}

impl Span {
    /// The byte after the last; a range never reaches the end of the numbers.
    #[must_use]
    pub const fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.length_bytes)
    }
}

/// New bytes for a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub offset_bytes: u64,
    /// The bytes, [`WRITE_BYTES_MAX`] at most. The file grows to hold them.
    pub payload: Buf,
    /// The file's times from then on: the same at both sites, since clients compare them.
    pub at: WallNanos,
}

/// What a file is beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// Its size; nothing stays beyond.
    pub size_bytes: u64,
    /// Last change of content.
    pub modified: WallNanos,
    /// Last change of content or attributes.
    pub changed: WallNanos,
}

impl Write {
    /// The range it is about.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { file: self.file, offset_bytes: self.offset_bytes, length_bytes: self.payload.len() as u64 }
    }
}

/// Any other operation, worked out: it says ids, times and cookies, so that both sites do
/// exactly the same (`protocols.md` C.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Who asked, as the duplicate-request cache names it.
    pub request: Buf,
    /// What it does, as the datastore says it.
    pub body: Buf,
    /// What the client was or will be told: a retry that lands on the other site is answered
    /// with this.
    pub reply: Buf,
}

impl Change {
    /// Whether it can be sent.
    #[must_use]
    pub fn fits(&self) -> bool {
        [&self.request, &self.body, &self.reply].iter().all(|part| part.len() <= CHANGE_PART_BYTES_MAX)
    }
}
