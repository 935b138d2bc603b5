//! A new VM from a snapshot of another: every file of it, in a place of its own, in one commit.
//!
//! The new paths are those of the old files with the old VM's name, where a path has it,
//! replaced by the new one: `images/100/vm-100-disk-0.raw` becomes
//! `images/200/vm-200-disk-0.raw`. Where files name each other (a folder with a `.vmx`) only
//! the folder gets the new name. A file whose path does not have the name goes to a folder of
//! the new name.

use std::collections::BTreeMap;

use base::{FileId, WallNanos};
use engine::store::{Change, Store};

use super::recognise::recognise;
use super::{check_vm_name, inode_of};
use crate::batch::Batch;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{FrozenRow, Inode};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::names::check_name;
use crate::refusal::Refusal;

/// What a clone made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloned {
    /// The new files by path.
    pub files: Vec<String>,
}

/// `text` with every `key` that stands by itself replaced.
fn replaced(text: &str, key: &str, new: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, after) = (&rest[..at], &rest[at + key.len()..]);
        let alone = !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if alone { new } else { key });
        rest = after;
    }
    out + rest
}

/// Where the files of a VM go in its clone.
fn new_paths(paths: &[&str], new: &str) -> Vec<String> {
    let keys = recognise(paths);
    let is_tied = paths.iter().any(|path| path.ends_with(".vmx"));
    let place = |(path, key): (&&str, Option<&str>)| {
        let (folder, name) = path.rsplit_once('/').map_or((None, *path), |(folder, name)| (Some(folder), name));
        let by_key = key.map(|key| match (is_tied, folder) {
            (true, Some(folder)) => {
                let top = folder.split_once('/').map_or(folder, |(top, _)| top);
                // The folder may be called otherwise than the VM.
                format!("{}/{name}", replaced(folder, top, new))
            }
            _ => replaced(path, key, new),
        });
        by_key.filter(|place| place != path).unwrap_or(format!("{new}/{name}"))
    };
    paths.iter().zip(keys).map(place).collect()
}

/// Folders on the way to new files, those that are there and those to be made.
pub(super) struct Folders {
    known: BTreeMap<String, (FileId, Inode)>,
}

impl Folders {
    /// From the top of a datastore on.
    pub fn from(root: FileId, inode: Inode) -> Folders {
        Folders { known: BTreeMap::from([(String::new(), (root, inode))]) }
    }

    /// What has become of them.
    pub fn put_into(self, batch: &mut Batch) {
        self.known.into_values().for_each(|(folder, inode)| batch.put_inode(folder, inode));
    }
}

impl<S: Store> Filesystem<S> {
    /// Makes a VM called `new` with the content of a snapshot of `vm`. The new one goes its own
    /// way; blocks are shared until either writes them over.
    pub async fn clone_vm(&self, datastore: &str, vm: &str, name: &str, new: &str) -> Result<Cloned, Refusal> {
        check_vm_name(new)?;
        check_name(new.as_bytes())?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        if self.vm(datastore, new).await.is_ok() {
            return Err(Refusal::Exists);
        }
        let found = self.snapshot_named(datastore, vm, name).await?;
        let rows: Vec<FrozenRow> = self.frozen_files(found.set).await?.into_iter().map(|(_, row)| row).collect();
        let old: Vec<&str> = rows.iter().map(|row| row.path.as_str()).collect();
        let paths = new_paths(&old, new);
        let made: Vec<&str> = paths.iter().map(String::as_str).collect();
        if recognise(&old).contains(&Some(vm)) && !recognise(&made).contains(&Some(new)) {
            // Proxmox VE's are numbers: files of another name would be there, and no VM.
            return Err(Refusal::BadArgument);
        }
        let root = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?.root;
        let _passes = self.gates.enter_all(&self.folders_there(root, &paths).await?).await;
        self.lay_out(root, found.row.datastore, &rows, &paths).await?;
        Ok(Cloned { files: paths })
    }

    /// Folders that are there and that get a new name.
    pub(super) async fn folders_there(&self, root: FileId, paths: &[String]) -> Result<Vec<FileId>, Refusal> {
        let mut there = vec![root];
        for path in paths {
            let mut at = root;
            for name in path.split('/') {
                match self.find(at, name.as_bytes()).await? {
                    Some((_, next)) => at = next,
                    None => break,
                }
                there.push(at);
            }
        }
        Ok(there)
    }

    async fn lay_out(
        &self,
        root: FileId,
        datastore: DatastoreId,
        rows: &[FrozenRow],
        paths: &[String],
    ) -> Result<(), Refusal> {
        let at = self.stamp().await?;
        let top = self.inode(root).await?.ok_or(Refusal::Stale)?;
        let mut folders = Folders::from(root, top);
        let mut batch = Batch::default();
        for (row, path) in rows.iter().zip(paths) {
            self.place_clone(&mut folders, &mut batch, (path, row), (datastore, at)).await?;
        }
        folders.put_into(&mut batch);
        self.apply(batch).await
    }

    /// Makes a file with the content of a frozen one at a free path, and the folders on the way.
    pub(super) async fn place_clone(
        &self,
        folders: &mut Folders,
        batch: &mut Batch,
        (path, row): (&str, &FrozenRow),
        (datastore, at): (DatastoreId, WallNanos),
    ) -> Result<(), Refusal> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.reach(folders, batch, (above, datastore), at).await?;
        let (folder, dir) = folders.known.get_mut(above).ok_or(Refusal::Inconsistent)?;
        check_name(name.as_bytes())?;
        if self.find(*folder, name.as_bytes()).await?.is_some() {
            return Err(Refusal::Exists);
        }
        let file = self.store.next_file_id();
        batch.push(Change::Clone { snapshot: row.snapshot, file, at });
        batch.put_inode(file, inode_of(row, datastore, at));
        batch.put_name(*folder, name.as_bytes(), dir.next_cookie, file);
        dir.add_name(false, at);
        Ok(())
    }

    /// Knows the folder at `path`, and makes what is not there of the way to it.
    async fn reach(
        &self,
        folders: &mut Folders,
        batch: &mut Batch,
        (path, datastore): (&str, DatastoreId),
        at: WallNanos,
    ) -> Result<(), Refusal> {
        let mut above = String::new();
        for name in path.split('/').filter(|part| !part.is_empty()) {
            let here = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
            if !folders.known.contains_key(&here) {
                let (parent, dir) = folders.known.get_mut(&above).ok_or(Refusal::Inconsistent)?;
                let folder = match self.find(*parent, name.as_bytes()).await? {
                    Some((_, folder)) => (folder, self.inode(folder).await?.ok_or(Refusal::Stale)?),
                    None => {
                        check_name(name.as_bytes())?;
                        let folder = self.store.next_file_id();
                        batch.put_name(*parent, name.as_bytes(), dir.next_cookie, folder);
                        dir.add_name(true, at);
                        (folder, Inode::directory(datastore, *parent, at))
                    }
                };
                if folder.1.kind != crate::attr::FileKind::Directory {
                    return Err(Refusal::NotDirectory);
                }
                folders.known.insert(here.clone(), folder);
            }
            above = here;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_the_new_name_wherever_the_old_one_stood_by_itself() {
        let proxmox = ["images/100/vm-100-disk-0.raw", "images/100/vm-100-disk-1100.raw"];
        assert_eq!(new_paths(&proxmox, "200"), ["images/200/vm-200-disk-0.raw", "images/200/vm-200-disk-1100.raw"]);
        assert_eq!(new_paths(&["web.qcow2", "web-1.qcow2"], "shop"), ["shop.qcow2", "shop-1.qcow2"]);
        assert_eq!(new_paths(&["db/disk.raw", "db/seed/db.txt"], "db2"), ["db2/disk.raw", "db2/seed/db2.txt"]);
    }

    #[test]
    fn files_that_name_each_other_keep_their_names() {
        let esxi = ["erp/erp.vmx", "erp/erp-flat.vmdk", "erp/logs/vmware.log"];
        assert_eq!(new_paths(&esxi, "crm"), ["crm/erp.vmx", "crm/erp-flat.vmdk", "crm/logs/vmware.log"]);
        assert_eq!(new_paths(&["notes.txt"], "crm"), ["crm/notes.txt"]);
    }
}
