//! LINK (RFC 1813 3.3.15).

use engine::store::Store;

use super::Place;
use crate::attr::{Attr, Wcc};
use crate::{Caller, Filesystem, Handle, Refused, ReplyNote};

/// Attributes around a LINK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkWcc {
    /// The file's, after.
    pub file: Option<Attr>,
    /// The directory's.
    pub dir: Wcc,
}

/// Answer of LINK.
pub type Linked = LinkWcc;

impl<S: Store> Filesystem<S> {
    /// Gives `file` (not a directory) another name.
    pub async fn link(
        &self,
        caller: &Caller,
        file: &Handle,
        to: Place<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Linked, Refused<LinkWcc>> {
        let _ = (caller, file, to, note);
        todo!()
    }
}
