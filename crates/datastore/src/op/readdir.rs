//! READDIR and READDIRPLUS (RFC 1813 3.3.16, 3.3.17).
//!
//! A cookie is the ordinal the name got when it entered the directory; ordinals are never
//! reused, so a listing goes on right after the last name it showed, whether that name is
//! still there or not, on any node, for ever. "." has cookie 1 and ".." has cookie 2.

use base::FileId;
use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Where to go on and how far.
#[derive(Clone, Copy, Debug)]
pub struct ListingFrom {
    /// Cookie of the last entry seen, 0 to begin.
    pub cookie: u64,
    /// Most entries to return (clipped to 1,024). What does not fit a reply is asked for
    /// again by its cookie.
    pub limit: usize,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Go on from here.
    pub cookie: u64,
    /// The inode.
    pub file: FileId,
    /// The name.
    pub name: Vec<u8>,
    /// Only for READDIRPLUS: handle and attributes, unless it vanished meanwhile.
    pub plus: Option<(Handle, Attr)>,
}

/// Answer of READDIR and READDIRPLUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Entries in order of their cookies.
    pub entries: Vec<DirEntry>,
    /// Whether the last entry of the directory is included.
    pub eof: bool,
    /// Always [`COOKIE_VERIFIER`]; any verifier is accepted back.
    pub verifier: [u8; 8],
    /// The directory's attributes.
    pub dir: Attr,
}

/// The one cookie verifier: cookies never become invalid.
pub const COOKIE_VERIFIER: [u8; 8] = [0; 8];

impl<S: Store> Filesystem<S> {
    /// Names of a directory.
    pub async fn readdir(
        &self,
        caller: &Caller,
        dir: &Handle,
        from: ListingFrom,
    ) -> Result<Listing, Refused<Option<Attr>>> {
        let _ = (caller, dir, from);
        todo!()
    }

    /// Names of a directory with handles and attributes.
    pub async fn readdirplus(
        &self,
        caller: &Caller,
        dir: &Handle,
        from: ListingFrom,
    ) -> Result<Listing, Refused<Option<Attr>>> {
        let _ = (caller, dir, from);
        todo!()
    }
}
