//! REMOVE (RFC 1813 3.3.12). A file whose last name goes is gone at once: NFSv3 clients
//! rename files they still hold open out of the way themselves.

use engine::store::Store;

use super::Place;
use crate::attr::{FileKind, PreAttr, Wcc};
use crate::batch::Batch;
use crate::caller::EXECUTE;
use crate::gate::Mode;
use crate::names::Spot;
use crate::{Caller, Filesystem, Outcome, Refusal, Refused, ReplyNote};

impl<S: Store> Filesystem<S> {
    /// Removes a name that is not a directory's. Returns the directory's attributes.
    pub async fn remove(&self, caller: &Caller, at: Place<'_>, note: Option<ReplyNote>) -> Result<Wcc, Refused<Wcc>> {
        let spot = self.spot(caller, at).await?;
        let directory = spot.found.is_some_and(|found| found.inode.kind == FileKind::Directory);
        let taken = if directory { Err(Refusal::IsDirectory) } else { self.take(&spot, at, note).await };
        taken.map_err(|why| spot.refuse(why))
    }

    /// Takes the name of a held spot, which is not a non-empty directory's, out of its
    /// directory.
    pub(super) async fn take(
        &self,
        spot: &Spot<'_, '_>,
        at: Place<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Wcc, Refusal> {
        spot.rights.may(&spot.inode, EXECUTE).then_some(()).ok_or(Refusal::NotAllowed)?;
        let entry = spot.entry()?;
        spot.rights.may_take(&spot.inode, &entry.inode)?;

        let _locks = self.locks.gates.enter(entry.file, Mode::Exclusive).await;
        let now = self.stamp().await?;
        let mut dir = spot.inode;
        let mut batch = Batch::default();
        batch.delete_name(spot.dir, at.name, entry.cookie);
        dir.take_name(entry.inode.kind == FileKind::Directory, now);
        batch.put_inode(spot.dir, dir);
        self.unlink(&mut batch, entry.file, entry.inode, now);

        let after = self.attr(spot.dir, &dir, None);
        let wcc = Wcc { before: Some(PreAttr::from(&spot.attr)), after: Some(after) };
        self.keep_reply(&mut batch, note, Outcome::Changed(&wcc), now);
        self.apply(batch).await?;
        Ok(wcc)
    }
}
