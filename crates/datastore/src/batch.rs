//! The one commit of an operation, put together change by change.

use base::{FileId, WallNanos};
use engine::store::{Change, Store};

use crate::attr::FileKind;
use crate::filesystem::Filesystem;
use crate::format::{
    ENTRIES, INODES, Inode, NAMES, SYMLINK_PIECE_BYTES, SYMLINKS, VMS, entry_to_row, key_assigned, key_file, key_name,
    key_pair, key_piece, name_to_row,
};
use crate::refusal::Refusal;

/// Changes to be committed together, and the inodes they leave.
#[derive(Default)]
pub(crate) struct Batch {
    changes: Vec<Change>,
    inodes: Vec<(FileId, Option<Inode>)>,
    /// A file may be another VM's afterwards.
    moves_files: bool,
}

impl Batch {
    pub fn push(&mut self, change: Change) {
        let (Change::Put { table, .. } | Change::Delete { table, .. }) = &change else {
            self.changes.push(change);
            return;
        };
        self.moves_files |= [NAMES, VMS].contains(table);
        self.changes.push(change);
    }

    pub fn put_inode(&mut self, file: FileId, inode: Inode) {
        self.push(Change::Put { table: INODES, key: key_file(file), value: inode.to_row() });
        self.inodes.push((file, Some(inode)));
    }

    /// Stamps `ctime` of an inode: in the row, or in the store's head for a regular file.
    pub fn put_changed(&mut self, file: FileId, mut inode: Inode, at: WallNanos) -> Inode {
        if inode.kind == FileKind::Regular {
            self.push(Change::SetTimes { file, modified: None, changed: at });
        } else {
            inode.changed = at;
        }
        self.put_inode(file, inode);
        inode
    }

    /// The inode and all that hangs on it (names excepted) is gone.
    pub fn drop_inode(&mut self, file: FileId, inode: &Inode) {
        self.push(Change::Delete { table: INODES, key: key_file(file) });
        match inode.kind {
            FileKind::Regular => {
                self.push(Change::DropFile { file });
                self.push(Change::Delete { table: VMS, key: key_assigned(file) });
            }
            FileKind::Symlink => {
                for piece in 0..inode.count.div_ceil(SYMLINK_PIECE_BYTES as u64) {
                    self.push(Change::Delete { table: SYMLINKS, key: key_piece(file, piece as u16) });
                }
            }
            _ => {}
        }
        self.inodes.push((file, None));
    }

    pub fn put_name(&mut self, dir: FileId, name: &[u8], cookie: u64, target: FileId) {
        self.push(Change::Put { table: ENTRIES, key: key_pair(dir, cookie), value: entry_to_row(target, name) });
        self.push(Change::Put { table: NAMES, key: key_name(dir, name), value: name_to_row(cookie, target) });
    }

    pub fn delete_name(&mut self, dir: FileId, name: &[u8], cookie: u64) {
        self.push(Change::Delete { table: ENTRIES, key: key_pair(dir, cookie) });
        self.push(Change::Delete { table: NAMES, key: key_name(dir, name) });
    }
}

impl<S: Store> Filesystem<S> {
    /// Makes a batch durable and visible (I1).
    pub(crate) async fn apply(&self, batch: Batch) -> Result<(), Refusal> {
        self.store.commit(batch.changes).await?;
        if batch.moves_files {
            self.owners.have_changed();
        }
        for (file, _) in batch.inodes.iter().filter(|(_, inode)| inode.is_none()) {
            self.locks.dropped(*file);
        }
        self.cache.committed(batch.inodes);
        Ok(())
    }
}
