//! The procedures, one file each. Every file has the same three paragraphs: who may, what
//! becomes true (decided under locks), one commit.
//!
//! All are methods of [`Filesystem`](crate::Filesystem). Names are byte strings of 1 to 255
//! bytes without '/' and NUL.

mod access;
mod commit;
mod create;
mod fsinfo;
mod fsstat;
mod getattr;
mod link;
mod lookup;
mod make;
mod mkdir;
mod mknod;
mod pathconf;
mod read;
mod readdir;
mod readlink;
mod remove;
mod rename;
mod rmdir;
mod setattr;
mod symlink;
mod write;

pub use access::{Access, Allowed};
pub use commit::Committed;
pub use create::CreateHow;
pub use fsinfo::FsInfo;
pub use fsstat::FsStat;
pub use link::{LinkWcc, Linked};
pub use lookup::Found;
pub use mknod::{NewNode, NodeKind};
pub use pathconf::PathConf;
pub use read::ReadDone;
pub use readdir::{COOKIE_VERIFIER, DirEntry, Listing, ListingFrom};
pub use readlink::LinkText;
pub use rename::{RenameWcc, Renamed};
pub use setattr::SetAttrArgs;
pub use symlink::NewSymlink;
pub use write::Written;

use crate::attr::{Attr, Wcc};
use crate::handle::Handle;

/// A name in a directory: what nearly every namespace operation works on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The directory.
    pub dir: &'a Handle,
    /// The name in it.
    pub name: &'a [u8],
}

/// Answer of CREATE, MKDIR, SYMLINK and MKNOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Handle of the new (or, for unchecked and repeated exclusive creation, found) inode.
    pub handle: Handle,
    /// Its attributes.
    pub attr: Attr,
    /// The directory's.
    pub dir: Wcc,
}
