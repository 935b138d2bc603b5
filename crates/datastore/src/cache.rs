//! Inodes in memory: bounded, always the committed state.
//!
//! An inode read from the store may be outdated by the time it arrives, because a commit
//! went by. Every commit therefore raises a version, and what was read under an older one
//! is used but not kept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem;

use base::FileId;

use crate::format::Inode;

/// Inodes per generation; at most two generations are kept.
const GENERATION_INODES: usize = 32_768;

#[derive(Default)]
pub(crate) struct InodeCache {
    young: RefCell<BTreeMap<FileId, Inode>>,
    old: RefCell<BTreeMap<FileId, Inode>>,
    version: Cell<u64>,
}

impl InodeCache {
    pub fn get(&self, file: FileId) -> Option<Inode> {
        if let Some(inode) = self.young.borrow().get(&file) {
            return Some(*inode);
        }
        let inode = self.old.borrow_mut().remove(&file)?;
        self.insert(file, inode);
        Some(inode)
    }

    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Keeps what was read while the cache was at `version`.
    pub fn fill(&self, version: u64, file: FileId, inode: Inode) {
        if version == self.version.get() {
            self.insert(file, inode);
        }
    }

    /// Takes over what a commit made true.
    pub fn committed(&self, inodes: impl IntoIterator<Item = (FileId, Option<Inode>)>) {
        self.version.set(self.version.get() + 1);
        for (file, inode) in inodes {
            self.old.borrow_mut().remove(&file);
            match inode {
                Some(inode) => self.insert(file, inode),
                None => drop(self.young.borrow_mut().remove(&file)),
            }
        }
    }

    fn insert(&self, file: FileId, inode: Inode) {
        let mut young = self.young.borrow_mut();
        young.insert(file, inode);
        if young.len() >= GENERATION_INODES {
            *self.old.borrow_mut() = mem::take(&mut young);
        }
    }
}
