//! READLINK (RFC 1813 3.3.5).

use base::FileId;
use engine::store::Store;

use crate::attr::{Attr, FileKind};
use crate::format::{Inode, SYMLINK_PIECE_BYTES, SYMLINKS, key_piece};
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

/// Answer of READLINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkText {
    /// The path, as it was given to SYMLINK.
    pub text: Vec<u8>,
    /// The link's attributes.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Text of a symbolic link.
    pub async fn readlink(&self, caller: &Caller, file: &Handle) -> Result<LinkText, Refused<Option<Attr>>> {
        let bare = |why| Refused { why, wcc: None };
        let inode = self.admit(caller, file).await.map_err(bare)?.inode;
        let attr = self.attr_now(file.file()).await.map_err(bare)?.ok_or(bare(Refusal::Stale))?;
        let refuse = |why| Refused { why, wcc: Some(attr) };
        if inode.kind != FileKind::Symlink {
            return Err(refuse(Refusal::WrongKind));
        }
        let text = self.text_of(file.file(), &inode).await.map_err(refuse)?;
        Ok(LinkText { text, attr })
    }

    async fn text_of(&self, file: FileId, inode: &Inode) -> Result<Vec<u8>, Refusal> {
        let mut text = Vec::with_capacity(inode.count as usize);
        for piece in 0..inode.count.div_ceil(SYMLINK_PIECE_BYTES as u64) {
            // Texts never change, so a missing piece means that the link was just removed.
            let row = self.store.get(SYMLINKS, &key_piece(file, piece as u16)).await?.ok_or(Refusal::Stale)?;
            text.extend_from_slice(&row);
        }
        Ok(text)
    }
}
