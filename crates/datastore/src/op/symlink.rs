//! SYMLINK (RFC 1813 3.3.10).

use engine::store::Store;

use super::{Created, Place};
use crate::attr::{SetAttr, Wcc};
use crate::{Caller, Filesystem, Refused, ReplyNote};

/// A symbolic link to be.
#[derive(Clone, Copy, Debug)]
pub struct NewSymlink<'a> {
    /// Its text: 1 to 4,095 bytes without NUL; never interpreted here.
    pub text: &'a [u8],
    /// Attributes; the mode is kept but means nothing.
    pub set: SetAttr,
}

impl<S: Store> Filesystem<S> {
    /// Creates a symbolic link.
    pub async fn symlink(
        &self,
        caller: &Caller,
        at: Place<'_>,
        new: NewSymlink<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refused<Wcc>> {
        let _ = (caller, at, new, note);
        todo!()
    }
}
