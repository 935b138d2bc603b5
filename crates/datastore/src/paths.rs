//! Paths of files by id, for people: what is damaged is told by path and range. Walks the
//! names once per level of directories; meant for rare reports, not for serving.

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;
use engine::store::Store;

use crate::filesystem::Filesystem;
use crate::format::{ENTRIES, FROZEN, FrozenRow, SNAPSHOTS, SnapshotRow, entry_from_row, key_file, key_of_pair};
use crate::refusal::Refusal;
use crate::table::Scan;

/// Deeper than any path a client can make.
const DEPTH_MAX: usize = 256;

impl<S: Store> Filesystem<S> {
    /// A path of each of `files`, from the datastore's name on, as in `/vms/web-1/disk.raw`.
    /// A file without a name keeps its number, as in `#17`.
    pub async fn paths_of(&self, files: &BTreeSet<FileId>) -> Result<BTreeMap<FileId, String>, Refusal> {
        let mut above: BTreeMap<FileId, (FileId, String)> = BTreeMap::new();
        let mut wanted = files.clone();
        for _ in 0..DEPTH_MAX {
            if wanted.is_empty() {
                break;
            }
            let mut scan = Scan::of(ENTRIES);
            loop {
                let rows = scan.next(&*self.store).await?;
                if rows.is_empty() {
                    break;
                }
                for (key, value) in &rows {
                    let (Some((dir, _)), Some((target, name))) = (key_of_pair(key), entry_from_row(value)) else {
                        continue;
                    };
                    if wanted.contains(&target) {
                        above.entry(target).or_insert_with(|| (dir, String::from_utf8_lossy(name).into_owned()));
                    }
                }
            }
            let dirs = wanted.iter().filter_map(|file| above.get(file).map(|(dir, _)| *dir));
            wanted = dirs.filter(|dir| !above.contains_key(dir)).collect();
        }
        Ok(files.iter().map(|file| (*file, self.path_from(*file, &above))).collect())
    }

    /// Whose snapshot each of the store's snapshots is: the VM, and a path with the name of the
    /// snapshot, as in `/vms/web-1/disk.raw@before-update`. Rows that cannot be read are left out.
    pub async fn snapshot_paths(&self) -> Result<BTreeMap<FileId, (String, String)>, Refusal> {
        let mut paths = BTreeMap::new();
        let mut scan = Scan::of(FROZEN);
        loop {
            let rows = scan.next(&*self.store).await?;
            if rows.is_empty() {
                return Ok(paths);
            }
            for (key, value) in &rows {
                let (Some((set, _)), Some(frozen)) = (key_of_pair(key), FrozenRow::from_row(value)) else { continue };
                let set = self.store.get(SNAPSHOTS, &key_file(FileId(set.0))).await?;
                let Some(set) = set.as_deref().and_then(SnapshotRow::from_row) else { continue };
                let datastore = self.datastores.borrow().get(&set.datastore).map(|datastore| datastore.name.clone());
                let path =
                    format!("/{}/{}@{}", datastore.unwrap_or_default(), frozen.path.trim_start_matches('/'), set.name);
                paths.insert(frozen.snapshot, (set.vm, path));
            }
        }
    }

    fn path_from(&self, file: FileId, above: &BTreeMap<FileId, (FileId, String)>) -> String {
        let mut names = Vec::new();
        let mut at = file;
        while let Some((dir, name)) = above.get(&at).filter(|_| names.len() < DEPTH_MAX) {
            names.push(name.clone());
            at = *dir;
        }
        if names.is_empty() {
            return format!("#{file}");
        }
        names.extend(self.datastore_of_root(at).filter(|name| names.last() != Some(name)));
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// Name of the datastore whose top directory this is.
    fn datastore_of_root(&self, root: FileId) -> Option<String> {
        let datastores = self.datastores.borrow();
        let found = datastores.values().find(|datastore| datastore.root == root);
        found.map(|datastore| datastore.name.clone()).filter(|name| !name.is_empty())
    }
}
