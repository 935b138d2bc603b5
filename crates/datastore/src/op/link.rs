//! LINK (RFC 1813 3.3.15).

use engine::store::{FileHead, Store};

use super::Place;
use crate::attr::{Attr, FileKind, PreAttr, Wcc};
use crate::batch::Batch;
use crate::caller::Rights;
use crate::filesystem::WHOLE;
use crate::format::Inode;
use crate::gate::Mode;
use crate::{Caller, Filesystem, Handle, Outcome, Refusal, Refused, ReplyNote};

/// Most names of a file.
pub const LINKS_MAX: u32 = 65_000;

/// Attributes around a LINK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkWcc {
    /// The file's, after.
    pub file: Option<Attr>,
    /// The directory's.
    pub dir: Wcc,
}

/// Answer of LINK.
pub type Linked = LinkWcc;

impl<S: Store> Filesystem<S> {
    /// Gives `file` (not a directory) another name.
    pub async fn link(
        &self,
        caller: &Caller,
        file: &Handle,
        to: Place<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Linked, Refused<LinkWcc>> {
        let bare = |why| Refused { why, wcc: LinkWcc::default() };
        let id = file.file();
        let only_dir =
            |refused: Refused<Wcc>| Refused { why: refused.why, wcc: LinkWcc { file: None, dir: refused.wcc } };
        let rights = self.admit_dir(caller, to.dir, to.name).await.map_err(only_dir)?.rights;
        self.admit(caller, file).await.map_err(bare)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let (_passes, found) = self.hold(&[(to.dir.file(), to.name)], &[id]).await.map_err(bare)?;
        let source = self.admit(caller, file).await.map_err(bare)?.inode;
        let head = self.head_of(id, &source).await.map_err(bare)?;
        let dir = self.admit(caller, to.dir).await.map_err(bare)?.inode;
        let dir_attr = self.attr(to.dir.file(), &dir, None);
        let before = LinkWcc { file: Some(self.attr(id, &source, head.as_ref())), dir: Wcc::unchanged(Some(dir_attr)) };
        let refuse = |why| Refused { why, wcc: before };
        check_link(&rights, &source, &dir, found[0].is_some()).map_err(refuse)?;

        let now = self.stamp().await.map_err(refuse)?;
        let mut batch = Batch::default();
        let inode = batch.put_changed(id, Inode { nlink: source.nlink + 1, ..source }, now);
        batch.put_name(to.dir.file(), to.name, dir.next_cookie, id);
        let mut dir = dir;
        dir.add_name(false, now);
        batch.put_inode(to.dir.file(), dir);

        let head = head.map(|head| FileHead { changed: now, ..head });
        let after = Some(self.attr(to.dir.file(), &dir, None));
        let linked = LinkWcc {
            file: Some(self.attr(id, &inode, head.as_ref())),
            dir: Wcc { before: Some(PreAttr::from(&dir_attr)), after },
        };
        self.keep_reply(&mut batch, note, Outcome::Linked(&linked), now);
        self.apply(batch).await.map_err(refuse)?;
        Ok(linked)
    }
}

fn check_link(rights: &Rights<'_>, source: &Inode, dir: &Inode, taken: bool) -> Result<(), Refusal> {
    if source.kind == FileKind::Directory {
        return Err(Refusal::IsDirectory);
    }
    if source.datastore != dir.datastore {
        return Err(Refusal::CrossDatastore);
    }
    rights.may_add(dir)?;
    if taken {
        return Err(Refusal::Exists);
    }
    if source.nlink >= LINKS_MAX { Err(Refusal::TooManyLinks) } else { Ok(()) }
}
