//! RMDIR (RFC 1813 3.3.13).

use engine::store::Store;

use super::Place;
use crate::attr::Wcc;
use crate::{Caller, Filesystem, Refused, ReplyNote};

impl<S: Store> Filesystem<S> {
    /// Removes an empty directory. Returns the parent's attributes.
    pub async fn rmdir(&self, caller: &Caller, at: Place<'_>, note: Option<ReplyNote>) -> Result<Wcc, Refused<Wcc>> {
        let _ = (caller, at, note);
        todo!()
    }
}
