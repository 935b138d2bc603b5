//! RENAME (RFC 1813 3.3.14).

use engine::store::Store;

use super::Place;
use crate::attr::Wcc;
use crate::{Caller, Filesystem, Refused, ReplyNote};

/// Attributes of the two directories around a RENAME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameWcc {
    /// The directory the name was in.
    pub from: Wcc,
    /// The directory it is in now.
    pub to: Wcc,
}

/// Answer of RENAME.
pub type Renamed = RenameWcc;

impl<S: Store> Filesystem<S> {
    /// Moves a name, replacing a file by a file or an empty directory by a directory.
    pub async fn rename(
        &self,
        caller: &Caller,
        from: Place<'_>,
        to: Place<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Renamed, Refused<RenameWcc>> {
        let _ = (caller, from, to, note);
        todo!()
    }
}
