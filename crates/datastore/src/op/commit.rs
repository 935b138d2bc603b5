//! COMMIT (RFC 1813 3.3.21): a cheap barrier, since every write was stable already.

use engine::store::Store;

use crate::attr::{FileKind, Wcc};
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

/// Answer of COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The file's attributes, unchanged.
    pub wcc: Wcc,
    /// [`Filesystem::write_verifier`].
    pub verifier: [u8; 8],
}

impl<S: Store> Filesystem<S> {
    /// Confirms that what was written is stable.
    pub async fn commit(&self, caller: &Caller, file: &Handle) -> Result<Committed, Refused<Wcc>> {
        let bare = |why| Refused { why, wcc: Wcc::default() };
        let inode = self.admit(caller, file).await.map_err(bare)?.inode;
        let wcc = Wcc::unchanged(self.attr_now(file.file()).await.map_err(bare)?);
        if inode.kind != FileKind::Regular {
            return Err(Refused { why: Refusal::WrongKind, wcc });
        }
        Ok(Committed { wcc, verifier: self.write_verifier() })
    }
}
