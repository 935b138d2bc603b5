//! What CREATE, MKDIR, SYMLINK and MKNOD share: a new inode under a free name.

use base::WallNanos;
use engine::store::{Change, FILE_BYTES_MAX, FileHead, Store};

use super::{Created, Place};
use crate::attr::{FileKind, PreAttr, SetAttr, SetTime, Wcc};
use crate::batch::Batch;
use crate::caller::{Rights, SET_GID_BIT};
use crate::filesystem::Filesystem;
use crate::format::{Inode, SYMLINK_PIECE_BYTES, SYMLINKS, key_piece};
use crate::names::Spot;
use crate::{Outcome, Refusal, ReplyNote};

/// An inode to be.
pub(super) struct NewInode<'a> {
    pub kind: FileKind,
    pub device: (u32, u32),
    pub set: SetAttr,
    /// Of a symbolic link.
    pub text: &'a [u8],
    /// Of an exclusive creation.
    pub verifier: Option<[u8; 8]>,
}

impl NewInode<'_> {
    pub fn of(kind: FileKind, set: SetAttr) -> Self {
        NewInode { kind, device: (0, 0), set, text: &[], verifier: None }
    }

    /// The inode in `dir`, as the caller may have it: only root gives files away, and a
    /// set-group-id directory hands its group on.
    fn inode(&self, rights: &Rights<'_>, dir: &Inode, at: WallNanos) -> Inode {
        let inherit = dir.mode & SET_GID_BIT != 0;
        let directory = self.kind == FileKind::Directory;
        let own_gid = if inherit { dir.gid } else { rights.gid };
        let uid = self.set.uid.filter(|_| rights.is_root()).unwrap_or(rights.uid);
        let allowed = |gid: &u32| rights.is_root() || rights.in_group(*gid);
        let gid = self.set.gid.filter(allowed).unwrap_or(own_gid);
        let mut mode = self.set.mode.unwrap_or(default_mode(self.kind)) & 0o7777;
        if directory && inherit {
            mode |= SET_GID_BIT;
        } else if !rights.is_root() && !rights.in_group(gid) {
            mode &= !SET_GID_BIT;
        }
        Inode {
            kind: self.kind,
            mode,
            nlink: if directory { 2 } else { 1 },
            uid,
            gid,
            device: self.device,
            accessed: resolve(self.set.accessed, at, at),
            modified: resolve(self.set.modified, at, at),
            next_cookie: if directory { 3 } else { 0 },
            count: self.text.len() as u64,
            verifier: self.verifier,
            ..Inode::node(dir.datastore, at)
        }
    }
}

fn default_mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o755,
        FileKind::Symlink => 0o777,
        _ => 0o644,
    }
}

/// The time a client asked for.
pub(super) fn resolve(set: SetTime, now: WallNanos, keep: WallNanos) -> WallNanos {
    match set {
        SetTime::Keep => keep,
        SetTime::Server => now,
        SetTime::Client(time) => time,
    }
}

impl<S: Store> Filesystem<S> {
    /// Makes `new` under the free name `at`, whose `spot` is held.
    pub(super) async fn make(
        &self,
        spot: &Spot<'_, '_>,
        at: Place<'_>,
        new: NewInode<'_>,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refusal> {
        if spot.found.is_some() {
            return Err(Refusal::Exists);
        }
        spot.rights.may_add(&spot.inode)?;
        let size_bytes = new.set.size_bytes.unwrap_or(0);
        if size_bytes > FILE_BYTES_MAX {
            return Err(Refusal::TooBig);
        }

        let now = self.stamp().await?;
        let file = self.store.next_file_id();
        let mut inode = new.inode(&spot.rights, &spot.inode, now);
        let directory = new.kind == FileKind::Directory;
        let mut batch = Batch::default();
        let mut head = None;
        if directory {
            inode.parent = spot.dir;
        } else if new.kind == FileKind::Regular {
            let modified = inode.modified;
            head = Some(FileHead { size_bytes, modified, changed: now, ..FileHead::default() });
            batch.push(Change::CreateFile { file, at: now });
            if size_bytes > 0 {
                batch.push(Change::SetSize { file, size_bytes });
            }
            if size_bytes > 0 || modified != now {
                batch.push(Change::SetTimes { file, modified: Some(modified), changed: now });
            }
        }
        for (piece, text) in new.text.chunks(SYMLINK_PIECE_BYTES).enumerate() {
            batch.push(Change::Put { table: SYMLINKS, key: key_piece(file, piece as u16), value: text.to_vec() });
        }
        let mut dir = spot.inode;
        batch.put_inode(file, inode);
        batch.put_name(spot.dir, at.name, dir.next_cookie, file);
        dir.add_name(directory, now);
        batch.put_inode(spot.dir, dir);

        let created = Created {
            handle: self.handle_of(file, &inode),
            attr: self.attr(file, &inode, head.as_ref()),
            dir: Wcc { before: Some(PreAttr::from(&spot.attr)), after: Some(self.attr(spot.dir, &dir, None)) },
        };
        self.keep_reply(&mut batch, note, Outcome::Created(&created), now);
        self.apply(batch).await?;
        Ok(created)
    }
}
