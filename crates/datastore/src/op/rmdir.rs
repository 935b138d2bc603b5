//! RMDIR (RFC 1813 3.3.13).

use engine::store::Store;

use super::Place;
use crate::attr::{FileKind, Wcc};
use crate::{Caller, Filesystem, Refusal, Refused, ReplyNote};

impl<S: Store> Filesystem<S> {
    /// Removes an empty directory. Returns the parent's attributes.
    pub async fn rmdir(&self, caller: &Caller, at: Place<'_>, note: Option<ReplyNote>) -> Result<Wcc, Refused<Wcc>> {
        let spot = self.spot(caller, at).await?;
        let why = match &spot.found {
            Some(found) if found.inode.kind != FileKind::Directory => Some(Refusal::NotDirectory),
            Some(found) if found.inode.count > 0 => Some(Refusal::NotEmpty),
            _ => None,
        };
        let taken = match why {
            Some(why) => Err(why),
            None => self.take(&spot, at, note).await,
        };
        taken.map_err(|why| spot.refuse(why))
    }
}
