//! LOOKUP (RFC 1813 3.3.3), "." and ".." included.

use base::FileId;
use engine::store::Store;

use super::Place;
use crate::attr::{Attr, FileKind};
use crate::caller::{EXECUTE, admits};
use crate::filesystem::Admitted;
use crate::format::Inode;
use crate::handle::DatastoreId;
use crate::names::check_name;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

/// Answer of LOOKUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the name stands for.
    pub handle: Handle,
    /// Its attributes.
    pub attr: Attr,
    /// The directory's.
    pub dir: Option<Attr>,
}

impl<S: Store> Filesystem<S> {
    /// What a name stands for. ".." of a datastore's root is that root.
    pub async fn lookup(&self, caller: &Caller, at: Place<'_>) -> Result<Found, Refused<Option<Attr>>> {
        let bare = |why| Refused { why, wcc: None };
        let Admitted { rights, inode, .. } = self.admit(caller, at.dir).await.map_err(bare)?;
        // Read before the name is: whoever caches both then notices a later change.
        let dir = self.attr_now(at.dir.file()).await.map_err(bare)?;
        let refuse = |why| Refused { why, wcc: dir };
        if inode.kind != FileKind::Directory {
            return Err(refuse(Refusal::NotDirectory));
        }
        if !rights.may(&inode, EXECUTE) {
            return Err(refuse(Refusal::NotAllowed));
        }
        let file = self.resolve(at, &inode).await.map_err(refuse)?;
        let (handle, attr) = self.show(caller, file).await.map_err(refuse)?;
        Ok(Found { handle, attr, dir })
    }

    async fn resolve(&self, at: Place<'_>, dir: &Inode) -> Result<FileId, Refusal> {
        match at.name {
            b"." => Ok(at.dir.file()),
            b".." => Ok(self.above(at.dir.file(), dir)),
            name => {
                check_name(name)?;
                Ok(self.find(at.dir.file(), name).await?.ok_or(Refusal::NoEntry)?.1)
            }
        }
    }

    /// The directory above, which for the root of an export is itself.
    pub(super) fn above(&self, file: FileId, dir: &Inode) -> FileId {
        if dir.parent == self.root && dir.datastore != DatastoreId::POOL { file } else { dir.parent }
    }

    /// Handle and attributes of what a name led to, unless it vanished or lies in an export
    /// (a datastore seen from the pool's root) that does not admit the caller.
    pub(super) async fn show(&self, caller: &Caller, file: FileId) -> Result<(Handle, Attr), Refusal> {
        let inode = self.inode(file).await?.ok_or(Refusal::NoEntry)?;
        if !admits(&self.datastore(inode.datastore)?.options.borrow(), caller.address) {
            return Err(Refusal::NotAllowed);
        }
        let attr = self.attr_now(file).await?.ok_or(Refusal::NoEntry)?;
        Ok((self.handle_of(file, &inode), attr))
    }
}
