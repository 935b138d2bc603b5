//! Why a call is not done. One enum, ordered by who must act; the `nfs` crate holds the one
//! total table from it to wire status.

use engine::store::StoreRefusal;

/// Why the caller did not get what it asked for. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    // --- the client must ask differently ---
    /// Not a handle of this pool: wrong size, version, pool or seal.
    #[error("not a file handle of this pool")]
    BadHandle,
    /// The handle was right once; what it named is gone.
    #[error("the file is gone")]
    Stale,
    /// No such name in the directory.
    #[error("no such file or directory")]
    NoEntry,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still holds names.
    #[error("directory is not empty")]
    NotEmpty,
    /// The operation does not fit this kind of file (READ of a directory, READLINK of a file).
    #[error("operation does not fit this kind of file")]
    WrongKind,
    /// A name, path or argument is malformed: empty, '/' or NUL inside, or "." and ".." where
    /// they cannot stand.
    #[error("malformed name or argument")]
    BadArgument,
    /// A name above 255 bytes, or a symbolic link's text above the limit.
    #[error("name too long")]
    NameTooLong,
    /// SETATTR's guard: `ctime` is no longer what the client believes.
    #[error("changed since the client looked")]
    GuardFailed,
    /// Offset or size beyond what a file can have.
    #[error("beyond the largest file size")]
    TooBig,
    /// No more names for this file.
    #[error("too many links")]
    TooManyLinks,
    /// LINK or RENAME between two datastores.
    #[error("source and target are in different datastores")]
    CrossDatastore,
    /// RENAME of a directory into itself or below.
    #[error("a directory cannot move into itself")]
    IntoItself,
    /// MKNOD of a kind that does not exist here.
    #[error("no such kind of node")]
    BadType,
    // --- whoever grants rights must act ---
    /// Export list or permission bits say no.
    #[error("permission denied")]
    NotAllowed,
    /// Only the owner or root may do this.
    #[error("only the owner may do this")]
    NotOwner,
    /// The datastore is exported read-only, or the place takes no names (the pool's root).
    #[error("read-only")]
    ReadOnly,
    // --- the operator must act ---
    /// The pool has no room.
    #[error("the pool is full")]
    NoSpace,
    /// The datastore's quota is used up.
    #[error("the datastore's quota is used up")]
    QuotaExceeded,
    /// Stored data is damaged beyond repair.
    #[error("stored data is damaged beyond repair")]
    Unreadable,
    // --- nobody now; asking again later helps ---
    /// The store has stopped; the same request will be answered after it reopened. A server
    /// should stay silent or say "later", never report an error.
    #[error("the store has stopped and will be reopened")]
    Stopped,
    // --- we are wrong ---
    /// Tables contradict each other; `check` names the place.
    #[error("inconsistent metadata")]
    Inconsistent,
}

/// A refusal with the attributes a client needs all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<W = ()> {
    /// Why.
    pub why: Refusal,
    /// What the wire carries beside the refusal: `()`, `Option<Attr>` or `Wcc`s.
    pub wcc: W,
}

impl From<Refusal> for Refused<()> {
    fn from(why: Refusal) -> Self {
        Refused { why, wcc: () }
    }
}

impl From<StoreRefusal> for Refusal {
    fn from(refusal: StoreRefusal) -> Refusal {
        match refusal {
            StoreRefusal::NoSpace => Refusal::NoSpace,
            StoreRefusal::NoSuchFile => Refusal::Stale,
            StoreRefusal::Frozen => Refusal::ReadOnly,
            StoreRefusal::TooBig => Refusal::TooBig,
            StoreRefusal::Unreadable { .. } => Refusal::Unreadable,
            StoreRefusal::Stopped => Refusal::Stopped,
        }
    }
}
