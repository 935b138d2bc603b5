//! RENAME (RFC 1813 3.3.14). Kinds that do not fit are told apart as POSIX does (not a
//! directory, is a directory, not empty), which clients hand to programs as they are.
//!
//! A directory that moves to another one could be moved into its own subtree, or two moves
//! together could cut a ring out of the tree. So such moves go one at a time (the tree
//! gate), and whoever has it walks from the new place up to the root.

use base::FileId;
use engine::store::Store;

use super::Place;
use crate::attr::{Attr, FileKind, PreAttr, Wcc};
use crate::batch::Batch;
use crate::caller::{EXECUTE, Rights, WRITE};
use crate::filesystem::WHOLE;
use crate::format::Inode;
use crate::gate::{Mode, Pass, Passes};
use crate::names::Entry;
use crate::{Caller, Filesystem, Outcome, Refusal, Refused, ReplyNote};

/// Attributes of the two directories around a RENAME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameWcc {
    /// The directory the name was in.
    pub from: Wcc,
    /// The directory it is in now.
    pub to: Wcc,
}

/// Answer of RENAME.
pub type Renamed = RenameWcc;

/// Both directories and what the names in them stand for, held.
struct Held<'g> {
    _tree: Option<Pass<'g>>,
    _passes: Passes<'g>,
    from: (FileId, Inode),
    to: (FileId, Inode),
    source: Option<Entry>,
    target: Option<Entry>,
}

impl<S: Store> Filesystem<S> {
    /// Moves a name, replacing a file by a file or an empty directory by a directory. Two
    /// names of one file: nothing happens, successfully.
    pub async fn rename(
        &self,
        caller: &Caller,
        from: Place<'_>,
        to: Place<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Renamed, Refused<RenameWcc>> {
        let at_from = |refused: Refused<Wcc>| Refused {
            why: refused.why,
            wcc: RenameWcc { from: refused.wcc, to: Wcc::default() },
        };
        let at_to = |refused: Refused<Wcc>| Refused {
            why: refused.why,
            wcc: RenameWcc { from: Wcc::default(), to: refused.wcc },
        };
        let rights = self.admit_dir(caller, from.dir, from.name).await.map_err(at_from)?.rights;
        self.admit_dir(caller, to.dir, to.name).await.map_err(at_to)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let held = self.hold_both(from, to).await.map_err(|why| Refused { why, wcc: RenameWcc::default() })?;
        let attrs = (self.attr(held.from.0, &held.from.1, None), self.attr(held.to.0, &held.to.1, None));
        let unchanged = RenameWcc { from: Wcc::unchanged(Some(attrs.0)), to: Wcc::unchanged(Some(attrs.1)) };
        let refuse = |why| Refused { why, wcc: unchanged };

        let source = check_rename(&rights, &held).map_err(refuse)?;
        if held.target.is_some_and(|target| target.file == source.file) {
            return Ok(unchanged);
        }
        if source.inode.kind == FileKind::Directory
            && held.from.0 != held.to.0
            && self.is_below(held.to.0, source.file).await.map_err(refuse)?
        {
            return Err(refuse(Refusal::IntoItself));
        }
        self.move_name((from.name, to.name), &held, source, (attrs, note)).await.map_err(refuse)
    }

    async fn hold_both(&self, from: Place<'_>, to: Place<'_>) -> Result<Held<'_>, Refusal> {
        let (from_dir, to_dir) = (from.dir.file(), to.dir.file());
        if from.dir.datastore() != to.dir.datastore() {
            return Err(Refusal::CrossDatastore);
        }
        let mut tree = None;
        loop {
            let (passes, found) = self.hold(&[(from_dir, from.name), (to_dir, to.name)], &[]).await?;
            let source = self.entry_of(found[0]).await?;
            let moves = from_dir != to_dir && source.is_some_and(|entry| entry.inode.kind == FileKind::Directory);
            if moves && tree.is_none() {
                drop(passes);
                tree = Some(self.tree.enter(WHOLE, Mode::Exclusive).await);
                continue;
            }
            // The datastore may have been deleted while this waited.
            self.datastore(from.dir.datastore())?;
            return Ok(Held {
                _tree: tree,
                _passes: passes,
                from: (from_dir, self.inode(from_dir).await?.ok_or(Refusal::Stale)?),
                to: (to_dir, self.inode(to_dir).await?.ok_or(Refusal::Stale)?),
                source,
                target: self.entry_of(found[1]).await?,
            });
        }
    }

    /// Whether `dir` is `top` or lies below it.
    async fn is_below(&self, mut dir: FileId, top: FileId) -> Result<bool, Refusal> {
        while dir != top && dir != self.root {
            dir = self.inode(dir).await?.ok_or(Refusal::Inconsistent)?.parent;
        }
        Ok(dir == top)
    }

    async fn move_name(
        &self,
        (from_name, to_name): (&[u8], &[u8]),
        held: &Held<'_>,
        source: Entry,
        (before, note): ((Attr, Attr), Option<ReplyNote>),
    ) -> Result<Renamed, Refusal> {
        let directory = source.inode.kind == FileKind::Directory;
        let (from, to) = (held.from.0, held.to.0);
        let _locks = match held.target {
            Some(target) => Some(self.locks.gates.enter(target.file, Mode::Exclusive).await),
            None => None,
        };
        let now = self.stamp().await?;
        let mut batch = Batch::default();
        batch.delete_name(from, from_name, source.cookie);
        let mut from_dir = held.from.1;
        from_dir.take_name(directory, now);
        let mut to_dir = if from == to { from_dir } else { held.to.1 };
        match held.target {
            // The name stays where a listing under way has already seen it.
            Some(target) => {
                batch.put_name(to, to_name, target.cookie, source.file);
                (to_dir.modified, to_dir.changed) = (now, now);
                self.unlink(&mut batch, target.file, target.inode, now);
            }
            None => {
                batch.put_name(to, to_name, to_dir.next_cookie, source.file);
                to_dir.add_name(directory, now);
            }
        }
        if from == to {
            from_dir = to_dir;
        } else {
            batch.put_inode(from, from_dir);
        }
        batch.put_inode(to, to_dir);
        let parent = if directory { to } else { source.inode.parent };
        batch.put_changed(source.file, Inode { parent, ..source.inode }, now);

        let wcc = |before: &Attr, dir: FileId, inode: &Inode| Wcc {
            before: Some(PreAttr::from(before)),
            after: Some(self.attr(dir, inode, None)),
        };
        let renamed = RenameWcc { from: wcc(&before.0, from, &from_dir), to: wcc(&before.1, to, &to_dir) };
        self.keep_reply(&mut batch, note, Outcome::Renamed(&renamed), now);
        self.apply(batch).await?;
        Ok(renamed)
    }
}

/// Rights and kinds; where the name goes is another question.
fn check_rename(rights: &Rights<'_>, held: &Held<'_>) -> Result<Entry, Refusal> {
    let (from, to) = (&held.from.1, &held.to.1);
    if !rights.may(from, EXECUTE) || !rights.may(to, EXECUTE) {
        return Err(Refusal::NotAllowed);
    }
    let source = held.source.ok_or(Refusal::NoEntry)?;
    rights.may_take(from, &source.inode)?;
    let directory = source.inode.kind == FileKind::Directory;
    if directory && held.from.0 != held.to.0 && !rights.owns(&source.inode) && !rights.may(&source.inode, WRITE) {
        return Err(Refusal::NotAllowed);
    }
    let Some(target) = held.target else { return rights.may_add(to).map(|()| source) };
    rights.may_take(to, &target.inode)?;
    let onto_directory = target.inode.kind == FileKind::Directory;
    match (directory, onto_directory) {
        _ if source.file == target.file => Ok(source),
        (true, false) => Err(Refusal::NotDirectory),
        (false, true) => Err(Refusal::IsDirectory),
        (true, true) if target.inode.count > 0 => Err(Refusal::NotEmpty),
        _ => Ok(source),
    }
}
