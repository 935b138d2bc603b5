//! ACCESS (RFC 1813 3.3.4).

use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

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
        let _ = (caller, file, wanted);
        todo!()
    }
}
