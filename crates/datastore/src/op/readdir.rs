//! READDIR and READDIRPLUS (RFC 1813 3.3.16, 3.3.17).
//!
//! A cookie is the ordinal the name got when it entered the directory; ordinals are never
//! reused, so a listing goes on right after the last name it showed, whether that name is
//! still there or not, on any node, for ever. "." has cookie 1 and ".." has cookie 2.

use base::FileId;
use engine::store::Store;

use crate::attr::{Attr, FileKind};
use crate::caller::{EXECUTE, READ};
use crate::filesystem::Admitted;
use crate::format::{ENTRIES, Inode, entry_from_row, key_of_pair, key_pair};
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

/// Most entries of one answer.
const ENTRIES_MAX: usize = 1024;
const COOKIE_SELF: u64 = 1;
const COOKIE_ABOVE: u64 = 2;

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
        self.list(caller, dir, from).await.map(|(listing, _)| listing)
    }

    /// Names of a directory with handles and attributes.
    pub async fn readdirplus(
        &self,
        caller: &Caller,
        dir: &Handle,
        from: ListingFrom,
    ) -> Result<Listing, Refused<Option<Attr>>> {
        let (mut listing, may_look) = self.list(caller, dir, from).await?;
        for entry in listing.entries.iter_mut().filter(|_| may_look) {
            entry.plus = self.show(caller, entry.file).await.ok();
        }
        Ok(listing)
    }

    /// Names, and whether the caller may look what they stand for up.
    async fn list(
        &self,
        caller: &Caller,
        dir: &Handle,
        from: ListingFrom,
    ) -> Result<(Listing, bool), Refused<Option<Attr>>> {
        let bare = |why| Refused { why, wcc: None };
        let Admitted { rights, inode, .. } = self.admit(caller, dir).await.map_err(bare)?;
        // Read before the names are: whoever caches both then notices a later change.
        let attr = self.attr_now(dir.file()).await.map_err(bare)?.ok_or(bare(Refusal::Stale))?;
        let refuse = |why| Refused { why, wcc: Some(attr) };
        if inode.kind != FileKind::Directory {
            return Err(refuse(Refusal::NotDirectory));
        }
        if !rights.may(&inode, READ) {
            return Err(refuse(Refusal::NotAllowed));
        }
        let (entries, eof) = self.entries_from(dir.file(), &inode, from).await.map_err(refuse)?;
        let listing = Listing { entries, eof, verifier: COOKIE_VERIFIER, dir: attr };
        Ok((listing, rights.may(&inode, EXECUTE)))
    }

    async fn entries_from(
        &self,
        dir: FileId,
        inode: &Inode,
        from: ListingFrom,
    ) -> Result<(Vec<DirEntry>, bool), Refusal> {
        let limit = from.limit.clamp(1, ENTRIES_MAX);
        let own = [(COOKIE_SELF, dir, &b"."[..]), (COOKIE_ABOVE, self.above(dir, inode), &b".."[..])];
        let entry = |cookie, file, name: &[u8]| DirEntry { cookie, file, name: name.to_vec(), plus: None };
        let wanted = own.into_iter().filter(|&(cookie, ..)| cookie > from.cookie);
        let mut entries: Vec<DirEntry> = wanted.map(|(cookie, file, name)| entry(cookie, file, name)).collect();
        let first = from.cookie.max(COOKIE_ABOVE).checked_add(1);
        let room = (limit + 1).saturating_sub(entries.len());
        let rows = match first {
            Some(first) if room > 0 => self.store.scan(ENTRIES, &key_pair(dir, first), room).await?,
            _ => Vec::new(),
        };
        for (key, value) in rows {
            let (of, cookie) = key_of_pair(&key).ok_or(Refusal::Inconsistent)?;
            if of != dir {
                break;
            }
            let (file, name) = entry_from_row(&value).ok_or(Refusal::Inconsistent)?;
            entries.push(entry(cookie, file, name));
        }
        let eof = entries.len() <= limit;
        entries.truncate(limit);
        Ok((entries, eof))
    }
}
