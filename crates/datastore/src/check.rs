//! Consistency of all tables, for `vmhold fsck`: every name leads to an inode and back,
//! every inode is reached, every count is right.
//!
//! It runs on a live filesystem. The first pass takes no lock, so a change going by may look
//! like damage; only when it finds something is a second pass made, with changes of the
//! namespace (not reads and writes) waiting until it is done. The second pass is the answer.
//!
//! Memory grows with the number of inodes (about 150 bytes each).

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;
use engine::store::{Row, Store, Table};

use crate::attr::FileKind;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{
    DATASTORES, DOOMED, DatastoreRow, ENTRIES, FROZEN, FrozenRow, INODES, Inode, LOCKS, NAMES, REPLIES, SNAPSHOTS,
    SYMLINK_PIECE_BYTES, SYMLINKS, SnapshotRow, entry_from_row, key_name, key_of_file, key_of_pair, key_pair,
    lock_from_row, name_from_row, name_to_row, reply_from_row,
};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::refusal::Refusal;
use crate::table::{Scan, all_rows};

/// Something that contradicts something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Finding {
    /// A row cannot be read.
    #[error("table {table}: malformed row under key {key:02x?}")]
    MalformedRow {
        /// Number of the table.
        table: u8,
        /// Its key.
        key: Vec<u8>,
    },
    /// A name leads nowhere.
    #[error("directory {dir}: '{}' leads to inode {target}, which does not exist", .name.escape_ascii())]
    NoTarget {
        /// The directory.
        dir: FileId,
        /// The name.
        name: Vec<u8>,
        /// Where it should lead.
        target: FileId,
    },
    /// A name is kept in something that is no directory.
    #[error("inode {dir} holds '{}' but is no directory", .name.escape_ascii())]
    NotDirectory {
        /// What holds the name.
        dir: FileId,
        /// The name.
        name: Vec<u8>,
    },
    /// Listing and name index differ.
    #[error("directory {dir}: listing and name index differ about '{}'", .name.escape_ascii())]
    IndexDiffers {
        /// The directory.
        dir: FileId,
        /// The name.
        name: Vec<u8>,
    },
    /// A cookie that will be given out again.
    #[error("directory {dir}: cookie {cookie} is not below the next one")]
    CookieAhead {
        /// The directory.
        dir: FileId,
        /// The cookie.
        cookie: u64,
    },
    /// The number of names is wrong.
    #[error("directory {dir}: holds {found} names, says {stored}")]
    WrongCount {
        /// The directory.
        dir: FileId,
        /// What its inode says.
        stored: u64,
        /// What there is.
        found: u64,
    },
    /// The number of links is wrong.
    #[error("inode {file}: has {found} links, says {stored}")]
    WrongLinks {
        /// The inode.
        file: FileId,
        /// What it says.
        stored: u32,
        /// What there is.
        found: u32,
    },
    /// A directory's idea of the one above is wrong, or it has two.
    #[error("directory {dir}: lies in {found}, says {stored}")]
    WrongParent {
        /// The directory.
        dir: FileId,
        /// What its inode says.
        stored: FileId,
        /// Where its name is.
        found: FileId,
    },
    /// No path leads to the inode.
    #[error("inode {file}: no path leads to it")]
    Orphan {
        /// The inode.
        file: FileId,
    },
    /// Inode and directory belong to different datastores.
    #[error("inode {file}: belongs to datastore {stored}, lies in {found}")]
    WrongDatastore {
        /// The inode.
        file: FileId,
        /// What it says.
        stored: DatastoreId,
        /// Where it lies.
        found: DatastoreId,
    },
    /// A regular file without content in the store, or a symbolic link without its text.
    #[error("inode {file}: its content is missing")]
    NoContent {
        /// The inode.
        file: FileId,
    },
    /// A piece of text that belongs to no symbolic link.
    #[error("inode {file}: a piece of text belongs to no symbolic link")]
    StrayText {
        /// The inode it is kept under.
        file: FileId,
    },
    /// A datastore's root is missing or wrong.
    #[error("datastore {datastore}: its root {root} is missing or another's")]
    NoRoot {
        /// The datastore.
        datastore: DatastoreId,
        /// What should be its root.
        root: FileId,
    },
    /// A lock on what is no regular file.
    #[error("inode {file}: is locked but is no regular file")]
    StrayLock {
        /// The inode.
        file: FileId,
    },
}

/// Most findings reported; what follows is usually more of the same.
const FINDINGS_MAX: usize = 1000;

/// What was seen so far.
#[derive(Default)]
struct Survey {
    inodes: BTreeMap<FileId, Inode>,
    /// For each inode: directories with a name for it, one per name.
    names_of: BTreeMap<FileId, Vec<FileId>>,
    /// For each directory: names in it.
    count: BTreeMap<FileId, u64>,
    /// For each directory: directories in it.
    below: BTreeMap<FileId, Vec<FileId>>,
    /// Where paths begin.
    tops: BTreeSet<FileId>,
    findings: Vec<Finding>,
}

impl Survey {
    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn malformed(&mut self, table: Table, key: &[u8]) {
        self.find(Finding::MalformedRow { table: table.0, key: key.to_vec() });
    }

    fn see_inode(&mut self, (key, value): &Row) {
        match (key_of_file(key), Inode::from_row(value)) {
            (Some(file), Some(inode)) => drop(self.inodes.insert(file, inode)),
            _ => self.malformed(INODES, key),
        }
    }

    fn see_entry(&mut self, (key, value): &Row) -> Option<(FileId, u64, FileId, Vec<u8>)> {
        let (Some((dir, cookie)), Some((target, name))) = (key_of_pair(key), entry_from_row(value)) else {
            self.malformed(ENTRIES, key);
            return None;
        };
        let name = name.to_vec();
        match self.inodes.get(&dir) {
            Some(inode) if inode.kind == FileKind::Directory => {
                if cookie >= inode.next_cookie || cookie < 3 {
                    self.find(Finding::CookieAhead { dir, cookie });
                }
            }
            _ => self.find(Finding::NotDirectory { dir, name: name.clone() }),
        }
        *self.count.entry(dir).or_default() += 1;
        match self.inodes.get(&target).map(|inode| inode.kind) {
            None => self.find(Finding::NoTarget { dir, name: name.clone(), target }),
            Some(kind) => {
                self.names_of.entry(target).or_default().push(dir);
                if kind == FileKind::Directory {
                    self.below.entry(dir).or_default().push(target);
                }
            }
        }
        Some((dir, cookie, target, name))
    }

    /// What each inode says against what was seen.
    fn judge_inodes(&mut self, root: FileId) {
        let inodes = std::mem::take(&mut self.inodes);
        for (&file, inode) in &inodes {
            let names = self.names_of.get(&file).cloned().unwrap_or_default();
            if inode.kind == FileKind::Directory {
                self.judge_directory(file, inode, &names);
            } else if names.len() as u64 != u64::from(inode.nlink) && !names.is_empty() {
                self.find(Finding::WrongLinks { file, stored: inode.nlink, found: names.len() as u32 });
            }
            for dir in names {
                let found = inodes.get(&dir).map_or(inode.datastore, |dir| dir.datastore);
                if found != inode.datastore && dir != root {
                    self.find(Finding::WrongDatastore { file, stored: inode.datastore, found });
                }
            }
        }
        let mut reached = BTreeSet::new();
        let mut next: Vec<FileId> = self.tops.iter().copied().collect();
        while let Some(dir) = next.pop() {
            if reached.insert(dir) {
                next.extend(self.below.get(&dir).into_iter().flatten());
            }
        }
        for (&file, inode) in &inodes {
            let directory = inode.kind == FileKind::Directory;
            let lies_in = self.names_of.get(&file).into_iter().flatten().any(|dir| reached.contains(dir));
            if !if directory { reached.contains(&file) } else { lies_in } {
                self.find(Finding::Orphan { file });
            }
        }
        self.inodes = inodes;
    }

    fn judge_directory(&mut self, dir: FileId, inode: &Inode, names: &[FileId]) {
        let found = self.count.get(&dir).copied().unwrap_or(0);
        if found != inode.count {
            self.find(Finding::WrongCount { dir, stored: inode.count, found });
        }
        let links = 2 + self.below.get(&dir).map_or(0, Vec::len) as u32;
        if links != inode.nlink {
            self.find(Finding::WrongLinks { file: dir, stored: inode.nlink, found: links });
        }
        for &above in names.iter().filter(|&&above| above != inode.parent) {
            self.find(Finding::WrongParent { dir, stored: inode.parent, found: above });
        }
        if names.len() > 1 && names.iter().all(|&above| above == inode.parent) {
            self.find(Finding::WrongParent { dir, stored: inode.parent, found: names[1] });
        }
    }
}

impl<S: Store> Filesystem<S> {
    /// Looks at every row of every table. Content is the store's own matter.
    pub async fn check(&self) -> Result<Vec<Finding>, Refusal> {
        if self.survey().await?.is_empty() {
            return Ok(Vec::new());
        }
        let _quiet = self.quiet.enter(WHOLE, Mode::Exclusive).await;
        self.survey().await
    }

    async fn survey(&self) -> Result<Vec<Finding>, Refusal> {
        let mut survey = Survey::default();
        survey.tops.insert(self.root);
        for (key, _) in all_rows(&*self.store, DOOMED).await? {
            survey.tops.extend(key_of_file(&key));
        }
        let mut scan = Scan::of(INODES);
        loop {
            let rows = scan.next(&*self.store).await?;
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| survey.see_inode(row));
        }
        self.survey_names(&mut survey).await?;
        survey.judge_inodes(self.root);
        self.survey_content(&mut survey).await?;
        self.survey_rest(&mut survey).await?;
        survey.findings.sort();
        survey.findings.dedup();
        Ok(survey.findings)
    }

    /// Listing against index, both ways.
    async fn survey_names(&self, survey: &mut Survey) -> Result<(), Refusal> {
        let (mut entries, mut names) = (Scan::of(ENTRIES), Scan::of(NAMES));
        loop {
            let rows = entries.next(&*self.store).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let Some((dir, cookie, target, name)) = survey.see_entry(row) else { continue };
                let index = self.store.get(NAMES, &key_name(dir, &name)).await?;
                if index.as_deref() != Some(&name_to_row(cookie, target)[..]) {
                    survey.find(Finding::IndexDiffers { dir, name });
                }
            }
        }
        loop {
            let rows = names.next(&*self.store).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, value) in &rows {
                self.survey_index(survey, key, value).await?;
            }
        }
    }

    async fn survey_index(&self, survey: &mut Survey, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let (Some(dir), Some((cookie, target))) = (key_of_file(key), name_from_row(value)) else {
            survey.malformed(NAMES, key);
            return Ok(());
        };
        let name = key[8..].to_vec();
        let entry = self.store.get(ENTRIES, &key_pair(dir, cookie)).await?;
        if entry.as_deref().and_then(entry_from_row) != Some((target, &name[..])) {
            survey.find(Finding::IndexDiffers { dir, name });
        }
        Ok(())
    }

    async fn survey_content(&self, survey: &mut Survey) -> Result<(), Refusal> {
        let mut text_bytes: BTreeMap<FileId, u64> = BTreeMap::new();
        let mut scan = Scan::of(SYMLINKS);
        loop {
            let rows = scan.next(&*self.store).await?;
            if rows.is_empty() {
                break;
            }
            for (key, value) in rows {
                let Some(file) = key_of_file(&key) else {
                    survey.malformed(SYMLINKS, &key);
                    continue;
                };
                debug_assert!(value.len() <= SYMLINK_PIECE_BYTES);
                *text_bytes.entry(file).or_default() += value.len() as u64;
            }
        }
        let inodes = std::mem::take(&mut survey.inodes);
        for (&file, inode) in &inodes {
            let complete = match inode.kind {
                FileKind::Regular => self.store.head(file).await?.is_some(),
                FileKind::Symlink => text_bytes.remove(&file) == Some(inode.count),
                _ => true,
            };
            if !complete {
                survey.find(Finding::NoContent { file });
            }
        }
        for file in text_bytes.into_keys() {
            survey.find(Finding::StrayText { file });
        }
        survey.inodes = inodes;
        Ok(())
    }

    async fn survey_rest(&self, survey: &mut Survey) -> Result<(), Refusal> {
        for (key, value) in all_rows(&*self.store, DATASTORES).await? {
            let id = <[u8; 4]>::try_from(&key[..]).map(|id| DatastoreId(u32::from_be_bytes(id)));
            let (Ok(datastore), Some(row)) = (id, DatastoreRow::from_row(&value)) else {
                survey.malformed(DATASTORES, &key);
                continue;
            };
            let root = survey.inodes.get(&row.root);
            let name = self.store.get(NAMES, &key_name(self.root, row.name.as_bytes())).await?;
            let named = name.as_deref().and_then(name_from_row).map(|(_, file)| file);
            let placed = datastore == DatastoreId::POOL || named == Some(row.root);
            if !root.is_some_and(|inode| inode.kind == FileKind::Directory && inode.datastore == datastore) || !placed {
                survey.find(Finding::NoRoot { datastore, root: row.root });
            }
        }
        for (key, value) in all_rows(&*self.store, LOCKS).await? {
            match (key_of_pair(&key), lock_from_row(&value)) {
                (Some((file, _)), Some(_)) => {
                    if survey.inodes.get(&file).is_none_or(|inode| inode.kind != FileKind::Regular) {
                        survey.find(Finding::StrayLock { file });
                    }
                }
                _ => survey.malformed(LOCKS, &key),
            }
        }
        let mut scan = Scan::of(FROZEN);
        loop {
            let rows = scan.next(&*self.store).await?;
            if rows.is_empty() {
                break;
            }
            for (key, value) in rows {
                let Some(row) = FrozenRow::from_row(&value) else {
                    survey.malformed(FROZEN, &key);
                    continue;
                };
                if self.store.head(row.snapshot).await?.is_none() {
                    survey.find(Finding::NoContent { file: row.snapshot });
                }
            }
        }
        for (key, value) in all_rows(&*self.store, SNAPSHOTS).await? {
            if SnapshotRow::from_row(&value).is_none() {
                survey.malformed(SNAPSHOTS, &key);
            }
        }
        for (key, value) in all_rows(&*self.store, REPLIES).await? {
            if reply_from_row(&value).is_none() {
                survey.malformed(REPLIES, &key);
            }
        }
        Ok(())
    }
}
