//! MKDIR (RFC 1813 3.3.9).

use engine::store::Store;

use super::make::NewInode;
use super::{Created, Place};
use crate::attr::{FileKind, SetAttr, Wcc};
use crate::{Caller, Filesystem, Refused, ReplyNote};

impl<S: Store> Filesystem<S> {
    /// Creates a directory.
    pub async fn mkdir(
        &self,
        caller: &Caller,
        at: Place<'_>,
        set: SetAttr,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refused<Wcc>> {
        let spot = self.spot(caller, at).await?;
        let new = NewInode::of(FileKind::Directory, SetAttr { size_bytes: None, ..set });
        self.make(&spot, at, new, note).await.map_err(|why| spot.refuse(why))
    }
}
