//! CREATE (RFC 1813 3.3.8).

use engine::store::Store;

use super::make::NewInode;
use super::{Created, Place};
use crate::attr::{Attr, FileKind, SetAttr, Wcc};
use crate::caller::EXECUTE;
use crate::names::{Entry, Spot};
use crate::{Caller, Filesystem, Outcome, Refusal, Refused, ReplyNote};

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
        let spot = self.spot(caller, at).await?;
        let (set, verifier) = match how {
            CreateHow::Unchecked(set) | CreateHow::Guarded(set) => (set, None),
            // The client sets the attributes afterwards; until then it is the owner's alone.
            CreateHow::Exclusive(verifier) => (SetAttr { mode: Some(0o600), ..SetAttr::default() }, Some(verifier)),
        };
        let made = match spot.found {
            Some(found) => self.take_existing(&spot, found, how, note).await,
            None => {
                let new = NewInode { verifier, ..NewInode::of(FileKind::Regular, set) };
                self.make(&spot, at, new, note).await
            }
        };
        made.map_err(|why| spot.refuse(why))
    }

    /// CREATE of a name that is there.
    async fn take_existing(
        &self,
        spot: &Spot<'_, '_>,
        found: Entry,
        how: CreateHow,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refusal> {
        spot.rights.may(&spot.inode, EXECUTE).then_some(()).ok_or(Refusal::NotAllowed)?;
        let size_bytes = match how {
            _ if found.inode.kind != FileKind::Regular => return Err(Refusal::Exists),
            CreateHow::Guarded(_) => return Err(Refusal::Exists),
            CreateHow::Exclusive(verifier) if found.inode.verifier == Some(verifier) => None,
            CreateHow::Exclusive(_) => return Err(Refusal::Exists),
            CreateHow::Unchecked(set) => set.size_bytes,
        };
        let set = SetAttr { size_bytes, ..SetAttr::default() };
        let head = self.head_of(found.file, &found.inode).await?;
        let dir = Wcc::unchanged(Some(spot.attr));
        let handle = self.handle_of(found.file, &found.inode);
        let outcome = |attr: Attr| Created { handle, attr, dir };
        let Some(change) = self.decide_set(&spot.rights, found.file, (found.inode, head), set).await? else {
            return Ok(outcome(self.attr(found.file, &found.inode, head.as_ref())));
        };
        let created = outcome(change.after);
        let mut batch = change.batch;
        self.keep_reply(&mut batch, note, Outcome::Created(&created), change.at);
        self.apply(batch).await?;
        Ok(created)
    }
}
