//! REMOVE (RFC 1813 3.3.12). A file whose last name goes is gone at once: NFSv3 clients
//! rename files they still hold open out of the way themselves.

use engine::store::Store;

use super::Place;
use crate::attr::Wcc;
use crate::{Caller, Filesystem, Refused, ReplyNote};

impl<S: Store> Filesystem<S> {
    /// Removes a name that is not a directory's. Returns the directory's attributes.
    pub async fn remove(&self, caller: &Caller, at: Place<'_>, note: Option<ReplyNote>) -> Result<Wcc, Refused<Wcc>> {
        let _ = (caller, at, note);
        todo!()
    }
}
