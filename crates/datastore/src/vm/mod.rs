//! VMs: sets of files that belong together, and what is done to all files of one at once
//! (R-SCOPE-01, R-SNAP-01).
//!
//! Which files a VM is, is worked out from paths whenever it is asked for ([`recognise`]);
//! what people set right by hand stands in tables: other names, and files assigned to a VM.
//! A snapshot is kept by file, with the path it had, so it outlives renames and removals.

mod clone;
mod limits;
mod owners;
pub mod recognise;
mod schedule;
mod single;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use base::{FileId, WallNanos};
use engine::store::{Change, Extent, Store};

pub use clone::Cloned;
pub(crate) use owners::Owners;
pub use owners::{Owned, VmName};
pub use recognise::FileRole;
pub use schedule::VmSchedule;
pub use single::{CloneSource, FileSnapshot};

use crate::attr::FileKind;
use crate::batch::Batch;
use crate::export::Datastore;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{
    ENTRIES, FROZEN, FrozenRow, Inode, SNAPSHOTS, SnapshotRow, VM_NAME_BYTES_MAX, VMS, entry_from_row, key_assigned,
    key_file, key_of_file, key_of_pair, key_pair, key_renamed,
};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::refusal::Refusal;
use crate::table::all_rows;

/// A file of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFile {
    /// The file.
    pub file: FileId,
    /// Its path in the datastore.
    pub path: String,
    /// What it is to the VM.
    pub role: FileRole,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Blocks that are not holes, in bytes.
    pub used_bytes: u64,
}

/// A VM as found now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// The datastore it is in.
    pub datastore: String,
    /// What it is called.
    pub name: String,
    /// Its files by path.
    pub files: Vec<VmFile>,
}

/// A snapshot of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSnapshot {
    /// The datastore.
    pub datastore: String,
    /// The VM's name.
    pub vm: String,
    /// Its own.
    pub name: String,
    /// When it was taken.
    pub created: WallNanos,
    /// How many files it holds.
    pub files: u32,
}

/// What a rollback did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// Files that have the content of the snapshot again.
    pub files: Vec<String>,
    /// Files that were gone and are there again.
    pub restored: Vec<String>,
    /// Files of the VM that are not in the snapshot; they were left alone.
    pub left: Vec<String>,
}

/// Where a file of a VM differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDifference {
    /// Its path in the snapshot.
    pub path: String,
    /// Ranges that may differ, none if it is the same; the whole file if it is on one side only.
    pub extents: Vec<Extent>,
    /// Size on the older and on the newer side, where the file is there.
    pub size_bytes: (Option<u64>, Option<u64>),
}

/// Files looked at between two looks at other work.
const FILES_PER_TURN: usize = 64;

/// A regular file on the way through a datastore.
struct Seen {
    file: FileId,
    path: String,
}

/// A set of frozen files with its id.
struct Found {
    set: u64,
    row: SnapshotRow,
}

/// Refuses what is no name of a VM or a snapshot.
fn check_vm_name(name: &str) -> Result<(), Refusal> {
    if name.len() > VM_NAME_BYTES_MAX {
        return Err(Refusal::NameTooLong);
    }
    let plain = |c: char| c.is_alphanumeric() || "._-@:+ ".contains(c);
    let ends_well = !name.starts_with([' ', '.', '-']) && !name.ends_with(' ');
    if !name.is_empty() && ends_well && name.chars().all(plain) { Ok(()) } else { Err(Refusal::BadArgument) }
}

impl<S: Store> Filesystem<S> {
    /// All VMs by datastore and name.
    pub async fn vms(&self) -> Result<Vec<Vm>, Refusal> {
        let mut vms = Vec::new();
        let datastores: Vec<_> = self.datastores.borrow().values().cloned().collect();
        for datastore in datastores.iter().filter(|datastore| datastore.id != DatastoreId::POOL) {
            vms.extend(self.vms_of(datastore).await?);
        }
        vms.sort_by(|a, b| (&a.datastore, &a.name).cmp(&(&b.datastore, &b.name)));
        Ok(vms)
    }

    /// One VM; [`Refusal::NoEntry`] if there is none of that name.
    pub async fn vm(&self, datastore: &str, name: &str) -> Result<Vm, Refusal> {
        let datastore = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        self.vms_of(&datastore).await?.into_iter().find(|vm| vm.name == name).ok_or(Refusal::NoEntry)
    }

    /// Gives a VM another name; its snapshots go with it.
    pub async fn rename_vm(&self, datastore: &str, name: &str, new: &str) -> Result<(), Refusal> {
        check_vm_name(new)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let vm = self.vm(datastore, name).await?;
        if self.vm(datastore, new).await.is_ok() || !self.snapshots_of(datastore, Some(new)).await?.is_empty() {
            return Err(Refusal::Exists);
        }
        let store = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        let paths: Vec<&str> = vm.files.iter().map(|file| file.path.as_str()).collect();
        let keys: BTreeSet<&str> = recognise::recognise(&paths).into_iter().flatten().collect();
        let mut batch = Batch::default();
        for key in keys {
            batch.push(Change::Put { table: VMS, key: key_renamed(store.id, key), value: new.as_bytes().to_vec() });
        }
        self.move_schedule(&mut batch, store.id, (name, new)).await?;
        self.move_limits(&mut batch, store.id, (name, new)).await?;
        let assigned = self.assignments().await?;
        for file in vm.files.iter().filter(|file| assigned.contains_key(&file.file)) {
            batch.push(Change::Put { table: VMS, key: key_assigned(file.file), value: new.as_bytes().to_vec() });
        }
        for Found { set, row } in self.snapshots_of(datastore, Some(name)).await? {
            let row = SnapshotRow { vm: new.to_owned(), ..row };
            batch.push(Change::Put { table: SNAPSHOTS, key: key_file(FileId(set)), value: row.to_row() });
        }
        self.apply(batch).await
    }

    /// Makes the file at `path` one of the VM's, whatever its path says; without a VM the path
    /// decides again.
    pub async fn assign_to_vm(&self, datastore: &str, path: &str, vm: Option<&str>) -> Result<(), Refusal> {
        vm.map_or(Ok(()), check_vm_name)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let store = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        let file = self.file_at(store.root, path).await?.ok_or(Refusal::NoEntry)?;
        if self.inode(file).await?.is_none_or(|inode| inode.kind != FileKind::Regular) {
            return Err(Refusal::WrongKind);
        }
        let key = key_assigned(file);
        let mut batch = Batch::default();
        batch.push(match vm {
            Some(vm) => Change::Put { table: VMS, key, value: vm.as_bytes().to_vec() },
            None => Change::Delete { table: VMS, key },
        });
        self.apply(batch).await
    }

    async fn vms_of(&self, datastore: &Datastore) -> Result<Vec<Vm>, Refusal> {
        let mut vms: BTreeMap<String, Vec<VmFile>> = BTreeMap::new();
        for (turn, (seen, name)) in self.files_of_vms(datastore).await?.into_iter().enumerate() {
            if turn % FILES_PER_TURN == FILES_PER_TURN - 1 {
                self.world.yield_now().await;
            }
            let Some(head) = self.store.head(seen.file).await? else { continue };
            vms.entry(name).or_default().push(VmFile {
                file: seen.file,
                role: recognise::role_of(seen.path.rsplit('/').next().unwrap_or_default()),
                path: seen.path,
                size_bytes: head.size_bytes,
                used_bytes: head.used_bytes,
            });
        }
        let named = |(name, files)| Vm { datastore: datastore.name.clone(), name, files };
        Ok(vms.into_iter().map(named).collect())
    }

    /// The files of a datastore that belong to a VM, by path, with its name.
    async fn files_of_vms(&self, datastore: &Datastore) -> Result<Vec<(Seen, String)>, Refusal> {
        let seen = self.regular_files(datastore.root).await?;
        let (assigned, renamed) = (self.assignments().await?, self.other_names(datastore.id).await?);
        let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
        let by_path = |key: &str| renamed.get(key).cloned().unwrap_or(key.to_owned());
        let names: Vec<Option<String>> = recognise::recognise(&paths)
            .into_iter()
            .zip(&seen)
            .map(|(key, seen)| assigned.get(&seen.file).cloned().or(key.map(by_path)))
            .collect();
        Ok(seen.into_iter().zip(names).filter_map(|(seen, name)| Some((seen, name?))).collect())
    }

    async fn assignments(&self) -> Result<BTreeMap<FileId, String>, Refusal> {
        let rows = all_rows(&*self.store, VMS).await?;
        let assigned = rows.iter().filter(|(key, _)| key.first() == Some(&2));
        let row =
            |key: &[u8], value: &[u8]| Some((key_of_file(&key[1..])?, String::from_utf8_lossy(value).into_owned()));
        Ok(assigned.filter_map(|(key, value)| row(key, value)).collect())
    }

    async fn other_names(&self, datastore: DatastoreId) -> Result<BTreeMap<String, String>, Refusal> {
        let start = key_renamed(datastore, "");
        let rows = all_rows(&*self.store, VMS).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own = rows.iter().filter_map(|(key, value)| Some((text(key.strip_prefix(&start[..])?), text(value))));
        Ok(own.collect())
    }

    /// Every regular file below `root` by path, each once. Names that are no text are left out.
    async fn regular_files(&self, root: FileId) -> Result<Vec<Seen>, Refusal> {
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        let mut folders = vec![(root, String::new())];
        while let Some((folder, above)) = folders.pop() {
            let mut from = key_pair(folder, 0);
            loop {
                let rows = self.store.scan(ENTRIES, &from, 256).await?;
                let own: Vec<_> = rows.iter().take_while(|(key, _)| key_of_file(key) == Some(folder)).collect();
                for (_, value) in &own {
                    let (target, name) = entry_from_row(value).ok_or(Refusal::Inconsistent)?;
                    let Ok(name) = std::str::from_utf8(name) else { continue };
                    let Some(inode) = self.inode(target).await? else { continue };
                    let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
                    match inode.kind {
                        FileKind::Directory => folders.push((target, path)),
                        FileKind::Regular if known.insert(target) => found.push(Seen { file: target, path }),
                        _ => {}
                    }
                }
                let Some((last, _)) = own.last().filter(|_| own.len() == 256) else { break };
                let (_, cookie) = key_of_pair(last).ok_or(Refusal::Inconsistent)?;
                from = key_pair(folder, cookie + 1);
            }
            // A store serves its clients on this thread, too.
            self.world.yield_now().await;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// What is at `path` below `root`.
    async fn file_at(&self, root: FileId, path: &str) -> Result<Option<FileId>, Refusal> {
        let mut at = root;
        for name in path.split('/').filter(|part| !part.is_empty()) {
            match self.find(at, name.as_bytes()).await? {
                Some((_, next)) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Snapshots in a datastore, of one VM or of all.
    async fn snapshots_of(&self, datastore: &str, vm: Option<&str>) -> Result<Vec<Found>, Refusal> {
        let store = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?;
        let mut found = Vec::new();
        for (key, value) in all_rows(&*self.store, SNAPSHOTS).await? {
            let set = key_of_file(&key).ok_or(Refusal::Inconsistent)?.0;
            let row = SnapshotRow::from_row(&value).ok_or(Refusal::Inconsistent)?;
            if row.datastore == store.id && vm.is_none_or(|vm| row.vm == vm) {
                found.push(Found { set, row });
            }
        }
        Ok(found)
    }

    async fn snapshot_named(&self, datastore: &str, vm: &str, name: &str) -> Result<Found, Refusal> {
        let found = self.snapshots_of(datastore, Some(vm)).await?;
        found.into_iter().find(|found| found.row.name == name).ok_or(Refusal::NoEntry)
    }

    /// The frozen files of a snapshot: file, and what is kept of it.
    async fn frozen_files(&self, set: u64) -> Result<Vec<(FileId, FrozenRow)>, Refusal> {
        let (mut found, mut from) = (Vec::new(), key_pair(FileId(set), 0));
        loop {
            let rows = self.store.scan(FROZEN, &from, 256).await?;
            for (key, value) in &rows {
                let (of, file) = key_of_pair(key).ok_or(Refusal::Inconsistent)?;
                if of.0 != set {
                    return Ok(found);
                }
                found.push((FileId(file), FrozenRow::from_row(value).ok_or(Refusal::Inconsistent)?));
            }
            let Some((file, _)) = found.last().filter(|_| rows.len() == 256) else { return Ok(found) };
            from = key_pair(FileId(set), file.0 + 1);
        }
    }
}

/// An inode of a regular file as it was when it was frozen.
fn inode_of(row: &FrozenRow, datastore: DatastoreId, at: WallNanos) -> Inode {
    Inode { mode: row.mode, uid: row.uid, gid: row.gid, ..Inode::node(datastore, at) }
}
