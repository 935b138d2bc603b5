//! One file of a VM by itself: what snapshots hold of it, and files that begin with its content.
//!
//! Hypervisors that keep their own books of a VM's disks ask disk by disk; what they do not name
//! is not theirs to change.

use base::FileId;
use engine::store::{Change, Store};

use super::clone::Folders;
use super::{Found, VmSnapshot};
use crate::batch::Batch;
use crate::export::Datastore;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{FROZEN, FrozenRow, PATH_BYTES_MAX, SNAPSHOTS, SnapshotRow, key_file, key_pair};
use crate::gate::Mode;
use crate::refusal::Refusal;

/// What a snapshot holds of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSnapshot {
    /// The snapshot, of all files of its VM.
    pub taken: VmSnapshot,
    /// Size that the file had.
    pub size_bytes: u64,
}

/// Where the content of a new file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSource<'a> {
    /// Path of the file in the datastore.
    pub path: &'a str,
    /// A VM and its snapshot; the file as it is if there is none.
    pub snapshot: Option<(&'a str, &'a str)>,
}

impl<S: Store> Filesystem<S> {
    /// Snapshots of a VM that hold the file at `path`, oldest first: the file that is there, whatever
    /// it was called then, or else one that was.
    pub async fn file_snapshots(&self, datastore: &str, vm: &str, path: &str) -> Result<Vec<FileSnapshot>, Refusal> {
        let root = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?.root;
        let there = self.file_at(root, path).await?;
        let mut found = self.snapshots_of(datastore, Some(vm)).await?;
        found.sort_by_key(|found| (found.row.created, found.set));
        let mut held = Vec::new();
        for Found { set, row } in found {
            let Some(frozen) = self.frozen_one(set, there, path).await? else { continue };
            let head = self.store.head(frozen.snapshot).await?.ok_or(Refusal::Inconsistent)?;
            held.push(FileSnapshot { taken: row.shown(datastore), size_bytes: head.size_bytes });
        }
        Ok(held)
    }

    /// What a set of frozen files has of a file: of `there`, or of one that was at `path` and is gone.
    pub(super) async fn frozen_one(
        &self,
        set: u64,
        there: Option<FileId>,
        path: &str,
    ) -> Result<Option<FrozenRow>, Refusal> {
        if let Some(file) = there {
            let row = self.store.get(FROZEN, &key_pair(FileId(set), file.0)).await?;
            return row.map(|row| FrozenRow::from_row(&row).ok_or(Refusal::Inconsistent)).transpose();
        }
        Ok(self.frozen_files(set).await?.into_iter().map(|(_, row)| row).find(|row| row.path == path))
    }

    /// Makes a file at the free path `to`, with the folders on the way, that has the content of a file
    /// or of what a snapshot holds of it. Blocks are shared until either is written over.
    pub async fn clone_file(&self, datastore: &str, from: &CloneSource<'_>, to: &str) -> Result<(), Refusal> {
        if to.len() > PATH_BYTES_MAX {
            return Err(Refusal::NameTooLong);
        }
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let datastore = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        let there = self.file_at(datastore.root, from.path).await?;
        let mut gates = self.folders_there(datastore.root, &[to.to_owned()]).await?;
        gates.extend(there);
        let _passes = self.gates.enter_all(&gates).await;
        match from.snapshot {
            Some((vm, name)) => {
                let set = self.snapshot_named(&datastore.name, vm, name).await?.set;
                let row = self.frozen_one(set, there, from.path).await?.ok_or(Refusal::NoEntry)?;
                self.place_alone(&datastore, &row, to, Batch::default()).await
            }
            None => {
                let found = self.freeze_alone(&datastore, there.ok_or(Refusal::NoEntry)?, from.path).await?;
                let placed = self.place_frozen(&datastore, &found, to).await;
                if placed.is_err() {
                    self.drop_set(&found).await?;
                }
                placed
            }
        }
    }

    async fn place_alone(
        &self,
        datastore: &Datastore,
        row: &FrozenRow,
        to: &str,
        mut batch: Batch,
    ) -> Result<(), Refusal> {
        let at = self.stamp().await?;
        let top = self.inode(datastore.root).await?.ok_or(Refusal::Stale)?;
        let mut folders = Folders::from(datastore.root, top);
        self.place_clone(&mut folders, &mut batch, (to, row), (datastore.id, at)).await?;
        folders.put_into(&mut batch);
        self.apply(batch).await
    }

    /// Freezes one file for a moment. What freezes and what clones are two commits, since only what is
    /// frozen can be cloned; in between it is a snapshot like any other, so a crash leaves nothing that
    /// nobody sees.
    async fn freeze_alone(&self, datastore: &Datastore, file: FileId, path: &str) -> Result<Found, Refusal> {
        let inode = self.inode(file).await?.ok_or(Refusal::Stale)?;
        if inode.kind != crate::attr::FileKind::Regular {
            return Err(Refusal::WrongKind);
        }
        let set = self.store.next_file_id();
        let snapshot = self.store.next_file_id();
        let (mode, uid, gid) = (inode.mode, inode.uid, inode.gid);
        let frozen = FrozenRow { snapshot, mode, uid, gid, path: path.to_owned() };
        let vm = self.vm_with(datastore, file).await?;
        let created = self.stamp().await?;
        let row = SnapshotRow { datastore: datastore.id, created, files: 1, vm, name: format!("clone_{}", set.0) };
        let mut batch = Batch::default();
        batch.push(Change::Snapshot { file, snapshot });
        batch.push(Change::Put { table: FROZEN, key: key_pair(set, file.0), value: frozen.to_row() });
        batch.push(Change::Put { table: SNAPSHOTS, key: key_file(set), value: row.to_row() });
        self.apply(batch).await?;
        Ok(Found { set: set.0, row })
    }

    /// The VM that has the file, or the file's own name.
    async fn vm_with(&self, datastore: &Datastore, file: FileId) -> Result<String, Refusal> {
        let vms = self.vms_of(datastore).await?;
        let owner = vms.into_iter().find(|vm| vm.files.iter().any(|own| own.file == file));
        Ok(owner.map_or("-".to_owned(), |vm| vm.name))
    }

    /// Makes the file out of the frozen one and ends the freezing, in one commit.
    async fn place_frozen(&self, datastore: &Datastore, found: &Found, to: &str) -> Result<(), Refusal> {
        let (file, row) = self.frozen_files(found.set).await?.pop().ok_or(Refusal::Inconsistent)?;
        let at = self.stamp().await?;
        let top = self.inode(datastore.root).await?.ok_or(Refusal::Stale)?;
        let mut folders = Folders::from(datastore.root, top);
        let mut batch = Batch::default();
        self.place_clone(&mut folders, &mut batch, (to, &row), (datastore.id, at)).await?;
        folders.put_into(&mut batch);
        batch.push(Change::DropFile { file: row.snapshot });
        batch.push(Change::Delete { table: FROZEN, key: key_pair(FileId(found.set), file.0) });
        batch.push(Change::Delete { table: SNAPSHOTS, key: key_file(FileId(found.set)) });
        self.apply(batch).await
    }
}
