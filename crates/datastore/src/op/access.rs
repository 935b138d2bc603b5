//! ACCESS (RFC 1813 3.3.4).

use engine::store::Store;

use crate::attr::{Attr, FileKind};
use crate::caller::{EXECUTE, READ, WRITE};
use crate::filesystem::Admitted;
use crate::handle::DatastoreId;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

/// A set of rights, with the bit values of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access(pub u32);

impl Access {
    /// Read data or list names.
    pub const READ: Access = Access(0x01);
    /// Look a name up.
    pub const LOOKUP: Access = Access(0x02);
    /// Change data or names that are there.
    pub const MODIFY: Access = Access(0x04);
    /// Append data or add names.
    pub const EXTEND: Access = Access(0x08);
    /// Delete a name.
    pub const DELETE: Access = Access(0x10);
    /// Execute.
    pub const EXECUTE: Access = Access(0x20);
}

/// Answer of ACCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Those of the wanted rights that the caller has.
    pub access: Access,
    /// The inode's attributes.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Which of the `wanted` rights the caller has.
    pub async fn access(
        &self,
        caller: &Caller,
        file: &Handle,
        wanted: Access,
    ) -> Result<Allowed, Refused<Option<Attr>>> {
        let bare = |why| Refused { why, wcc: None };
        let admitted = self.admit(caller, file).await.map_err(bare)?;
        let Admitted { rights, inode, .. } = &admitted;
        let attr = self.attr_now(file.file()).await.map_err(bare)?.ok_or(bare(Refusal::Stale))?;
        let writable = admitted.may_change().is_ok();
        let directory = inode.kind == FileKind::Directory;
        let names_fixed = inode.datastore == DatastoreId::POOL;
        let mut granted = 0;
        let mut grant = |access: Access, yes: bool| granted |= if yes { access.0 } else { 0 };
        grant(Access::READ, rights.may(inode, READ));
        if directory {
            let change = writable && !names_fixed && rights.may(inode, WRITE | EXECUTE);
            grant(Access::LOOKUP, rights.may(inode, EXECUTE));
            grant(Access::MODIFY, change);
            grant(Access::EXTEND, change);
            grant(Access::DELETE, change);
        } else {
            let change = writable && rights.may(inode, WRITE);
            grant(Access::EXECUTE, rights.may(inode, EXECUTE));
            grant(Access::MODIFY, change);
            grant(Access::EXTEND, change);
        }
        Ok(Allowed { access: Access(granted & wanted.0), attr })
    }
}
