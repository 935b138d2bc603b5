//! Attributes as clients see them, and the before/after pairs that keep client caches right
//! (weak cache consistency, RFC 1813 section 2.6).

use base::{FileId, WallNanos};

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Bytes, kept by the store.
    Regular,
    /// Names.
    Directory,
    /// A path, kept for the client to follow.
    Symlink,
    /// Inert: a block device node.
    BlockDevice,
    /// Inert: a character device node.
    CharDevice,
    /// Inert: a socket node.
    Socket,
    /// Inert: a named pipe node.
    Fifo,
}

/// All attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, the low 12 (`07777`).
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Space taken, in bytes; holes take none.
    pub used_bytes: u64,
    /// Major and minor number of a device node, else zero.
    pub device: (u32, u32),
    /// The same for all of a datastore, different between datastores, the same for ever.
    pub fsid: u64,
    /// Identity, unique in the pool for ever.
    pub file: FileId,
    /// Last access as set by a client; reading does not touch it.
    pub accessed: WallNanos,
    /// Last change of content.
    pub modified: WallNanos,
    /// Last change of content or attributes.
    pub changed: WallNanos,
}

/// What a client compares with its cache: the attributes just before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreAttr {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Last change of content.
    pub modified: WallNanos,
    /// Last change of content or attributes.
    pub changed: WallNanos,
}

impl From<&Attr> for PreAttr {
    fn from(attr: &Attr) -> PreAttr {
        PreAttr { size_bytes: attr.size_bytes, modified: attr.modified, changed: attr.changed }
    }
}

/// Attributes just before and just after an operation; nothing else happened between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wcc {
    /// Before, if known exactly.
    pub before: Option<PreAttr>,
    /// After, if known exactly.
    pub after: Option<Attr>,
}

impl Wcc {
    /// Nothing changed: the same attributes on both sides.
    pub fn unchanged(attr: Option<Attr>) -> Wcc {
        Wcc { before: attr.as_ref().map(PreAttr::from), after: attr }
    }
}

/// How to set a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// Set it to the server's time.
    Server,
    /// Set it to this.
    Client(WallNanos),
}

/// Attributes to set; `None` leaves one as it is (or, in a creation, at its default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits; only the low 12 count.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes; regular files only.
    pub size_bytes: Option<u64>,
    /// Last access.
    pub accessed: SetTime,
    /// Last change of content.
    pub modified: SetTime,
}
