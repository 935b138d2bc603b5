//! What the engine offers upwards: files of bytes, ordered tables of small values, and
//! one way to change them: a list of changes that becomes durable and visible as a whole.
//!
//! The engine knows no names and no directories; `datastore` keeps those in tables.
//!
//! A change is *absolute* ("the value of this key is now …"), never relative, so that
//! redoing the journal over a state that already holds part of it ends in the same
//! state. Whoever commits decides the values beforehand, holding whatever lock keeps
//! them true until the commit returns.
//!
//! Two implementations: [`Engine`](crate::Engine), the real one, and
//! [`MemoryStore`](crate::memory::MemoryStore), the model that tests and the simulator's
//! oracle compare it with.

use base::meter::Meter;
use base::{Buf, FileId, Osn, WallNanos};
use smallvec::SmallVec;

/// Bytes in a block: the unit of mapping, deduplication and compression.
pub const BLOCK_BYTES: u64 = 8192;
/// Longest key of a table, in bytes.
pub const KEY_BYTES_MAX: usize = 300;
/// Longest value of a table, in bytes.
pub const VALUE_BYTES_MAX: usize = 1200;
/// A file's size is at most this many bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 56;
/// Most bytes of payload in one write.
pub const WRITE_BYTES_MAX: usize = 1 << 20;

/// Ids of files from here on are this store's own: [`Store::next_file_id`] never gives one out, nor
/// does it look at those that are there. For files that only one of two sites has.
pub const LOCAL_FILES: FileId = FileId(1 << 63);

/// One of the ordered tables. Numbers are part of the media format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// What the engine itself knows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileHead {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Space the content takes before compression and deduplication, in bytes: blocks
    /// that are not holes. Written data counts at the latest when it is destaged.
    pub used_bytes: u64,
    /// Last change of content (NFS `mtime`).
    pub modified: WallNanos,
    /// Last change of content or attributes (NFS `ctime`).
    pub changed: WallNanos,
    /// Sum over blocks of a term of block number and content (`protocols.md` C.7).
    /// Covers what has been destaged.
    pub content_sum: u128,
}

/// One absolute change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// File ids through this one were given out: none of them ever names anything new, whether there is a
    /// file of that id or not. A commit says so by itself; whoever carries changes to another store does, too
    /// ([`crate::Engine::with_ids`]).
    Ids {
        /// The last one.
        through: FileId,
    },
    /// There is a file `file`, empty, with these times.
    CreateFile {
        /// From [`Store::next_file_id`].
        file: FileId,
        /// Sets both times.
        at: WallNanos,
    },
    /// The file and its content are gone. No effect if it does not exist.
    DropFile {
        /// Which.
        file: FileId,
    },
    /// The file has this size. What lies beyond is gone; what appears reads as zeros.
    SetSize {
        /// Which.
        file: FileId,
        /// New size in bytes, at most [`FILE_BYTES_MAX`].
        size_bytes: u64,
    },
    /// The file has these times.
    SetTimes {
        /// Which.
        file: FileId,
        /// New `mtime`, or unchanged.
        modified: Option<WallNanos>,
        /// New `ctime`.
        changed: WallNanos,
    },
    /// There is a snapshot `snapshot`: a file that can be read and dropped but not changed,
    /// with the content that `file` has at this point of the order of operations. Several in
    /// one commit are of the same point.
    Snapshot {
        /// Of what.
        file: FileId,
        /// From [`Store::next_file_id`].
        snapshot: FileId,
    },
    /// There is a file `file` with the content of a snapshot; it goes its own way from here.
    Clone {
        /// Of what.
        snapshot: FileId,
        /// From [`Store::next_file_id`].
        file: FileId,
        /// Sets both times.
        at: WallNanos,
    },
    /// The file has the content and size of a snapshot again. Other snapshots stay.
    Rollback {
        /// Which.
        file: FileId,
        /// To what.
        snapshot: FileId,
        /// From [`Store::next_file_id`]: names the file's blocks from now on.
        map: FileId,
        /// Sets both times.
        at: WallNanos,
    },
    /// The table holds `value` under `key`.
    Put {
        /// Which table.
        table: Table,
        /// 1 to [`KEY_BYTES_MAX`] bytes; order is byte order.
        key: Vec<u8>,
        /// Up to [`VALUE_BYTES_MAX`] bytes.
        value: Vec<u8>,
    },
    /// The table holds nothing under `key`.
    Delete {
        /// Which table.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Where it starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}

/// A piece of what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Data(Buf),
    /// This many zero bytes (a hole).
    Zeros(usize),
}

/// Answer to a read.
#[derive(Clone, Debug)]
pub struct ReadOut {
    /// The content in order, clipped at the end of the file.
    pub pieces: SmallVec<[Piece; 4]>,
    /// The file's head at the moment of the read.
    pub head: FileHead,
}

/// Answer to a write: stable, and visible to every read from now on.
#[derive(Clone, Copy, Debug)]
pub struct Wrote {
    /// Head just before the write took effect.
    pub before: FileHead,
    /// Head just after.
    pub after: FileHead,
    /// Its place in the order of operations.
    pub osn: Osn,
}

/// Why a store does not do what was asked. The caller tells the client; nothing has
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// There is no room for it.
    #[error("the pool has no room")]
    NoSpace,
    /// There is no such file.
    #[error("no such file")]
    NoSuchFile,
    /// A snapshot cannot be changed, and only a snapshot can be cloned or rolled back to.
    #[error("a snapshot cannot be changed, and only a snapshot can be cloned or rolled back to")]
    Frozen,
    /// Beyond [`FILE_BYTES_MAX`], [`WRITE_BYTES_MAX`], [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`].
    #[error("larger than the store can hold")]
    TooBig,
    /// The stored bytes are damaged beyond repair.
    #[error("stored data at offset {offset_bytes} of file {file} is damaged beyond repair")]
    Unreadable {
        /// Which file, 0 for metadata.
        file: FileId,
        /// Where, in bytes.
        offset_bytes: u64,
    },
    /// The store has stopped acknowledging and must be reopened (no journal leg left, no
    /// majority of drives, or a defect was found).
    #[error("the store has stopped and must be reopened")]
    Stopped,
}

/// Space of a pool in bytes, as `df` should show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What users could store in all, incompressible and without duplicates.
    pub total_bytes: u64,
    /// What is left of it.
    pub free_bytes: u64,
}

/// A row of a table.
pub type Row = (Vec<u8>, Buf);

/// Files and tables with atomic, durable changes. One owner, one thread.
#[allow(async_fn_in_trait, reason = "single-threaded by design, no Send bound wanted")]
pub trait Store: 'static {
    /// A file id never handed out before; ids grow.
    fn next_file_id(&self) -> FileId;

    /// The head of `file`, or `None` if it does not exist.
    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal>;

    /// Content of `file` from `offset_bytes`, at most `len_bytes`, less at the end.
    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal>;

    /// Replaces the bytes at `offset_bytes` by the concatenation of `parts`, extends the
    /// file if need be, and sets both times to `at` (an empty write changes nothing). It
    /// returns when the write is stable.
    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal>;

    /// As [`write`](Store::write) of one buffer, which the store may hold on to instead of
    /// copying it.
    async fn write_buf(
        &self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.write(file, offset_bytes, &[data], at).await
    }

    /// Makes all `changes` durable and visible, or none. It returns when they are stable.
    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal>;

    /// Where two files or snapshots may differ, in order and without overlap, in whole blocks:
    /// outside of these ranges both have the same bytes as far as both reach. The cost follows
    /// what was changed in either since the snapshot that both come from.
    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal>;

    /// The value under `key`.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal>;

    /// Up to `limit` rows in key order, from the first key `>= from`.
    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal>;

    /// Returns when whoever asks may be told what this store holds; what was said before may be said again
    /// only then. A store that nobody else can take over from always may.
    async fn may_tell(&self) -> Result<(), StoreRefusal> {
        Ok(())
    }

    /// Where the time of operations goes, if this store measures it.
    fn meter(&self) -> Option<&Meter> {
        None
    }

    /// Room in all and left, from memory, never waiting.
    fn space(&self) -> Space;
}
