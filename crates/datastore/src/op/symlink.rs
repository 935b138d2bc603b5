//! SYMLINK (RFC 1813 3.3.10).

use engine::store::Store;

use super::make::NewInode;
use super::{Created, Place};
use crate::attr::{FileKind, SetAttr, Wcc};
use crate::format::SYMLINK_BYTES_MAX;
use crate::{Caller, Filesystem, Refusal, Refused, ReplyNote};

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
        let spot = self.spot(caller, at).await?;
        check_text(new.text).map_err(|why| spot.refuse(why))?;
        let set = SetAttr { size_bytes: None, ..new.set };
        let link = NewInode { text: new.text, ..NewInode::of(FileKind::Symlink, set) };
        self.make(&spot, at, link, note).await.map_err(|why| spot.refuse(why))
    }
}

fn check_text(text: &[u8]) -> Result<(), Refusal> {
    if text.len() > SYMLINK_BYTES_MAX {
        return Err(Refusal::NameTooLong);
    }
    if text.is_empty() || text.contains(&0) { Err(Refusal::BadArgument) } else { Ok(()) }
}
