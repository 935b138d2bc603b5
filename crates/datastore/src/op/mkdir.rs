//! MKDIR (RFC 1813 3.3.9).

use engine::store::Store;

use super::{Created, Place};
use crate::attr::{SetAttr, Wcc};
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
        let _ = (caller, at, set, note);
        todo!()
    }
}
