//! GETATTR (RFC 1813 3.3.1).

use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

impl<S: Store> Filesystem<S> {
    /// Attributes of an inode.
    pub async fn getattr(&self, caller: &Caller, file: &Handle) -> Result<Attr, Refused> {
        self.admit(caller, file).await?;
        Ok(self.attr_now(file.file()).await?.ok_or(Refusal::Stale)?)
    }
}
