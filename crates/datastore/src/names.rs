//! Names: what every operation on a directory shares. Look the name up, enter the gates of
//! the directory and of what the name stands for, and look again: only when both looks
//! agree is the state one that can be decided on. So gates are always entered in ascending
//! order although the target is only known from the directory.

use base::{FileId, WallNanos};
use engine::store::Store;
use smallvec::SmallVec;

use crate::attr::{Attr, FileKind, Wcc};
use crate::batch::Batch;
use crate::caller::{Caller, Rights};
use crate::filesystem::{Admitted, Filesystem, WHOLE};
use crate::format::{Inode, NAME_BYTES_MAX};
use crate::gate::{Mode, Pass, Passes};
use crate::handle::{DatastoreId, Handle};
use crate::op::Place;
use crate::refusal::{Refusal, Refused};

/// Cookie and target of a name, if it is there.
pub(crate) type Target = Option<(u64, FileId)>;

/// Refuses what is no name of a directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::NameTooLong);
    }
    let reserved = name.is_empty() || name == b"." || name == b"..";
    if reserved || name.iter().any(|&byte| byte == b'/' || byte == 0) { Err(Refusal::BadArgument) } else { Ok(()) }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub cookie: u64,
    pub file: FileId,
    pub inode: Inode,
}

/// A directory and a name in it, held: nobody else changes either until this is dropped.
pub(crate) struct Spot<'g, 'c> {
    _quiet: Pass<'g>,
    _passes: Passes<'g>,
    pub rights: Rights<'c>,
    pub dir: FileId,
    pub inode: Inode,
    pub found: Option<Entry>,
    /// The directory's attributes as they are now.
    pub attr: Attr,
}

impl Spot<'_, '_> {
    /// Refusal with the directory's attributes, which did not change.
    pub fn refuse(&self, why: Refusal) -> Refused<Wcc> {
        Refused { why, wcc: Wcc::unchanged(Some(self.attr)) }
    }

    pub fn entry(&self) -> Result<Entry, Refusal> {
        self.found.ok_or(Refusal::NoEntry)
    }
}

impl Inode {
    /// A name came into this directory; its cookie was `next_cookie`.
    pub(crate) fn add_name(&mut self, directory: bool, at: WallNanos) {
        self.next_cookie += 1;
        self.count += 1;
        self.nlink += u32::from(directory);
        (self.modified, self.changed) = (at, at);
    }

    /// A name went out of this directory.
    pub(crate) fn take_name(&mut self, directory: bool, at: WallNanos) {
        self.count -= 1;
        self.nlink -= u32::from(directory);
        (self.modified, self.changed) = (at, at);
    }
}

impl<S: Store> Filesystem<S> {
    /// Enters the gates of all the directories, of what the names in them stand for, and of
    /// `extra`.
    pub(crate) async fn hold(
        &self,
        names: &[(FileId, &[u8])],
        extra: &[FileId],
    ) -> Result<(Passes<'_>, SmallVec<[Target; 2]>), Refusal> {
        let mut found = self.find_each(names).await?;
        loop {
            let mut files: SmallVec<[FileId; 6]> = extra.into();
            files.extend(names.iter().map(|&(dir, _)| dir));
            files.extend(found.iter().flatten().map(|&(_, file)| file));
            let passes = self.gates.enter_all(&files).await;
            let again = self.find_each(names).await?;
            if again == found {
                return Ok((passes, found));
            }
            found = again;
        }
    }

    async fn find_each(&self, names: &[(FileId, &[u8])]) -> Result<SmallVec<[Target; 2]>, Refusal> {
        let mut found = SmallVec::new();
        for (dir, name) in names {
            found.push(self.find(*dir, name).await?);
        }
        Ok(found)
    }

    /// What a name stands for, with its inode. To be called inside the gates.
    pub(crate) async fn entry_of(&self, target: Target) -> Result<Option<Entry>, Refusal> {
        let Some((cookie, file)) = target else { return Ok(None) };
        let inode = self.inode(file).await?.ok_or(Refusal::Inconsistent)?;
        Ok(Some(Entry { cookie, file, inode }))
    }

    /// Admits a caller to change names in a directory. Refusals carry its attributes once
    /// the export allows the caller to see them.
    pub(crate) async fn admit_dir<'c>(
        &self,
        caller: &'c Caller,
        dir: &Handle,
        name: &[u8],
    ) -> Result<Admitted<'c>, Refused<Wcc>> {
        let look = self.admit(caller, dir).await;
        let admitted = look.map_err(|why| Refused { why, wcc: Wcc::default() })?;
        let inode = &admitted.inode;
        let checked = if inode.kind != FileKind::Directory {
            Err(Refusal::NotDirectory)
        } else if inode.datastore == DatastoreId::POOL {
            Err(Refusal::ReadOnly)
        } else {
            check_name(name)
        };
        match checked.and_then(|()| admitted.may_change()) {
            Ok(()) => Ok(admitted),
            Err(why) => Err(Refused { why, wcc: Wcc::unchanged(self.attr_now(dir.file()).await.ok().flatten()) }),
        }
    }

    /// Holds a name in a directory for a change.
    pub(crate) async fn spot<'c>(&self, caller: &'c Caller, at: Place<'_>) -> Result<Spot<'_, 'c>, Refused<Wcc>> {
        let rights = self.admit_dir(caller, at.dir, at.name).await?.rights;
        let dir = at.dir.file();
        let bare = |why| Refused { why, wcc: Wcc::default() };
        let quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let (passes, found) = self.hold(&[(dir, at.name)], &[]).await.map_err(bare)?;
        let inode = self.inode(dir).await.and_then(|inode| inode.ok_or(Refusal::Stale)).map_err(bare)?;
        let found = self.entry_of(found[0]).await.map_err(bare)?;
        // The datastore may have been found empty and deleted while this waited.
        self.datastore(inode.datastore).map_err(bare)?;
        let attr = self.attr(dir, &inode, None);
        Ok(Spot { _quiet: quiet, _passes: passes, rights, dir, inode, found, attr })
    }

    /// One name less for an inode that is not a non-empty directory; without any it is gone,
    /// with the locks on it.
    pub(crate) fn unlink(&self, batch: &mut Batch, file: FileId, mut inode: Inode, at: WallNanos) {
        if inode.kind == FileKind::Directory || inode.nlink <= 1 {
            self.locks.drop_rows(batch, file);
            batch.drop_inode(file, &inode);
        } else {
            inode.nlink -= 1;
            batch.put_changed(file, inode, at);
        }
    }
}
