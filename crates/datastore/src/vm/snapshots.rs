//! Snapshots of VMs: taken, listed, deleted, rolled back to, compared.
//!
//! All files of a VM are frozen by one commit, so the snapshot is of one point in the order
//! of operations, whatever the guest is writing.

use base::FileId;
use engine::store::{Change, Extent, Store};

use super::clone::Folders;
use super::{FileDifference, Found, RolledBack, Vm, VmSnapshot, check_vm_name};
use crate::attr::FileKind;
use crate::batch::Batch;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{FROZEN, FrozenRow, PATH_BYTES_MAX, SNAPSHOTS, SnapshotRow, key_file, key_pair};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::refusal::Refusal;

/// Most files of a VM that is snapshotted: what one record holds with ease.
const FILES_MAX: usize = 1000;

/// A file of a snapshot on its way back.
struct Return {
    row: FrozenRow,
    /// The file that takes the content; without one it is made again at its path.
    to: Option<FileId>,
}

/// A file on one side of a comparison.
struct Side {
    file: FileId,
    /// What is compared: the file, or what a snapshot has of it.
    shown: FileId,
    path: String,
}

impl<S: Store> Filesystem<S> {
    /// Freezes all files of a VM at one point of the order of operations.
    pub async fn snapshot_vm(&self, datastore: &str, vm: &str, name: &str) -> Result<VmSnapshot, Refusal> {
        check_vm_name(name)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let found = self.vm(datastore, vm).await?;
        if self.snapshot_named(datastore, vm, name).await.is_ok() {
            return Err(Refusal::Exists);
        }
        if found.files.len() > FILES_MAX {
            return Err(Refusal::TooBig);
        }
        self.freeze(&found, name).await
    }

    async fn freeze(&self, vm: &Vm, name: &str) -> Result<VmSnapshot, Refusal> {
        let datastore = self.named(vm.datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        let mut files: Vec<_> = vm.files.iter().collect();
        files.sort_by_key(|file| file.file);
        let mut passes = Vec::new();
        for file in &files {
            // Shared: writes go on, but none of them is removed.
            passes.push(self.gates.enter(file.file, Mode::Shared).await);
        }
        let at = self.stamp().await?;
        let set = self.store.next_file_id();
        let mut batch = Batch::default();
        let mut count = 0;
        for file in files {
            let Some(inode) = self.inode(file.file).await? else { continue };
            if file.path.len() > PATH_BYTES_MAX {
                return Err(Refusal::NameTooLong);
            }
            let snapshot = self.store.next_file_id();
            let (mode, uid, gid, path) = (inode.mode, inode.uid, inode.gid, file.path.clone());
            let row = FrozenRow { snapshot, mode, uid, gid, path };
            batch.push(Change::Snapshot { file: file.file, snapshot });
            batch.push(Change::Put { table: FROZEN, key: key_pair(set, file.file.0), value: row.to_row() });
            count += 1;
        }
        let (vm_name, name) = (vm.name.clone(), name.to_owned());
        let row = SnapshotRow { datastore: datastore.id, created: at, files: count, vm: vm_name, name };
        batch.push(Change::Put { table: SNAPSHOTS, key: key_file(set), value: row.to_row() });
        self.apply(batch).await?;
        Ok(row.shown(&vm.datastore))
    }

    /// Snapshots of one VM of a datastore, or of all, oldest first.
    pub async fn vm_snapshots(&self, datastore: &str, vm: Option<&str>) -> Result<Vec<VmSnapshot>, Refusal> {
        let mut found = self.snapshots_of(datastore, vm).await?;
        found.sort_by_key(|found| (found.row.created, found.set));
        Ok(found.iter().map(|found| found.row.shown(datastore)).collect())
    }

    /// Deletes a snapshot; what only it held is given back in the background.
    pub async fn delete_vm_snapshot(&self, datastore: &str, vm: &str, name: &str) -> Result<VmSnapshot, Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let found = self.snapshot_named(datastore, vm, name).await?;
        self.drop_set(&found).await?;
        Ok(found.row.shown(datastore))
    }

    pub(super) async fn drop_set(&self, found: &Found) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        for (file, row) in self.frozen_files(found.set).await? {
            batch.push(Change::DropFile { file: row.snapshot });
            batch.push(Change::Delete { table: FROZEN, key: key_pair(FileId(found.set), file.0) });
        }
        batch.push(Change::Delete { table: SNAPSHOTS, key: key_file(FileId(found.set)) });
        self.apply(batch).await
    }

    /// The datastore is deleted, and so are the snapshots in it.
    pub(crate) async fn drop_snapshots_in(&self, datastore: DatastoreId) -> Result<(), Refusal> {
        for (key, value) in crate::table::all_rows(&*self.store, SNAPSHOTS).await? {
            let set = crate::format::key_of_file(&key).ok_or(Refusal::Inconsistent)?.0;
            let row = SnapshotRow::from_row(&value).ok_or(Refusal::Inconsistent)?;
            if row.datastore == datastore {
                self.drop_set(&Found { set, row }).await?;
            }
        }
        Ok(())
    }

    /// Gives the files of a VM the content of a snapshot again, all in one commit. Files that
    /// are gone are made again where they were; files that the snapshot does not have stay.
    pub async fn roll_back_vm(&self, datastore: &str, vm: &str, name: &str) -> Result<RolledBack, Refusal> {
        self.roll_back((datastore, vm, name), None).await
    }

    /// The same for one file alone, which the snapshot must have.
    pub async fn roll_back_file(
        &self,
        datastore: &str,
        vm: &str,
        (name, path): (&str, &str),
    ) -> Result<RolledBack, Refusal> {
        self.roll_back((datastore, vm, name), Some(path)).await
    }

    async fn roll_back(
        &self,
        (datastore, vm, name): (&str, &str, &str),
        only: Option<&str>,
    ) -> Result<RolledBack, Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let found = self.snapshot_named(datastore, vm, name).await?;
        let root = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?.root;
        let returns = match only {
            Some(path) => vec![self.return_of(root, &found, path).await?],
            None => self.returns(root, &found).await?,
        };
        let files: Vec<FileId> = returns.iter().filter_map(|back| back.to).collect();
        let paths: Vec<String> =
            returns.iter().filter(|back| back.to.is_none()).map(|back| back.row.path.clone()).collect();
        let folders = self.folders_there(root, &paths).await?;
        let _passes = self.gates.enter_all(&[&files[..], &folders].concat()).await;
        let mut done = RolledBack::default();
        let left = match only {
            Some(_) => Vec::new(),
            None => self.vm(datastore, vm).await.map(|vm| vm.files).unwrap_or_default(),
        };
        done.left = left.into_iter().filter(|file| !files.contains(&file.file)).map(|file| file.path).collect();
        self.bring_back((root, found.row.datastore), returns, &mut done).await?;
        Ok(done)
    }

    /// Where one file of a snapshot goes.
    async fn return_of(&self, root: FileId, found: &Found, path: &str) -> Result<Return, Refusal> {
        let to = self.file_at(root, path).await?;
        let row = self.frozen_one(found.set, to, path).await?.ok_or(Refusal::NoEntry)?;
        Ok(Return { row, to })
    }

    /// Where each file of a snapshot goes.
    async fn returns(&self, root: FileId, found: &Found) -> Result<Vec<Return>, Refusal> {
        let mut returns = Vec::new();
        for (file, row) in self.frozen_files(found.set).await? {
            let there = self.inode(file).await?.is_some();
            let to = if there { Some(file) } else { self.file_at(root, &row.path).await? };
            returns.push(Return { row, to });
        }
        Ok(returns)
    }

    async fn bring_back(
        &self,
        (root, datastore): (FileId, DatastoreId),
        returns: Vec<Return>,
        done: &mut RolledBack,
    ) -> Result<(), Refusal> {
        let at = self.stamp().await?;
        let mut batch = Batch::default();
        let mut folders = Folders::from(root, self.inode(root).await?.ok_or(Refusal::Stale)?);
        for Return { row, to } in returns {
            if let Some(file) = to {
                let inode = self.inode(file).await?.ok_or(Refusal::Stale)?;
                if inode.kind != FileKind::Regular {
                    return Err(Refusal::WrongKind);
                }
                let map = self.store.next_file_id();
                batch.push(Change::Rollback { file, snapshot: row.snapshot, map, at });
                done.files.push(row.path);
            } else {
                self.place_clone(&mut folders, &mut batch, (&row.path, &row), (datastore, at)).await?;
                done.restored.push(row.path);
            }
        }
        folders.put_into(&mut batch);
        self.apply(batch).await
    }

    /// Where the files of a VM differ between a snapshot and another, or what they are now.
    pub async fn compare_vm(
        &self,
        datastore: &str,
        vm: &str,
        (older, newer): (&str, Option<&str>),
    ) -> Result<Vec<FileDifference>, Refusal> {
        let then = self.frozen_files(self.snapshot_named(datastore, vm, older).await?.set).await?;
        let mut now: Vec<Side> = match newer {
            Some(newer) => {
                let set = self.snapshot_named(datastore, vm, newer).await?.set;
                let side = |(file, row): (FileId, FrozenRow)| Side { file, shown: row.snapshot, path: row.path };
                self.frozen_files(set).await?.into_iter().map(side).collect()
            }
            None => {
                let files = self.vm(datastore, vm).await.map(|vm| vm.files).unwrap_or_default();
                files.into_iter().map(|file| Side { file: file.file, shown: file.file, path: file.path }).collect()
            }
        };
        let mut found = Vec::new();
        for (file, row) in then {
            // A file that was replaced by another of the same path is compared with that.
            let same = |side: &Side| (side.file != file, side.path != row.path);
            let best = (0..now.len()).min_by_key(|&at| same(&now[at])).filter(|&at| same(&now[at]) != (true, true));
            let newer = best.map(|at| now.swap_remove(at).shown);
            found.push(self.difference(row.path, Some(row.snapshot), newer).await?);
        }
        for side in now {
            found.push(self.difference(side.path, None, Some(side.shown)).await?);
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn difference(
        &self,
        path: String,
        older: Option<FileId>,
        newer: Option<FileId>,
    ) -> Result<FileDifference, Refusal> {
        let size = async |file: Option<FileId>| match file {
            Some(file) => Ok::<_, Refusal>(self.store.head(file).await?.map(|head| head.size_bytes)),
            None => Ok(None),
        };
        let size_bytes = (size(older).await?, size(newer).await?);
        let extents = match (older, newer) {
            (Some(older), Some(newer)) => self.store.differences(older, newer).await?,
            _ => {
                let len_bytes = size_bytes.0.or(size_bytes.1).unwrap_or(0);
                if len_bytes > 0 { vec![Extent { offset_bytes: 0, len_bytes }] } else { Vec::new() }
            }
        };
        Ok(FileDifference { path, extents, size_bytes })
    }
}
