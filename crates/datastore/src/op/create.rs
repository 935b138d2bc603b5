//! CREATE (RFC 1813 3.3.8).

use engine::store::Store;

use super::{Created, Place};
use crate::attr::{SetAttr, Wcc};
use crate::{Caller, Filesystem, Refused, ReplyNote};

/// What to do when the name exists.
#[derive(Clone, Copy, Debug)]
pub enum CreateHow {
    /// Take what is there (its size is set if given).
    Unchecked(SetAttr),
    /// Refuse.
    Guarded(SetAttr),
    /// Take it only if this very request made it: same verifier.
    Exclusive([u8; 8]),
}

impl<S: Store> Filesystem<S> {
    /// Creates a regular file.
    pub async fn create(
        &self,
        caller: &Caller,
        at: Place<'_>,
        how: CreateHow,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refused<Wcc>> {
        let _ = (caller, at, how, note);
        todo!()
    }
}
