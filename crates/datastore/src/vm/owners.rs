//! Whose each file is, ready to be asked on the path of every request: one look into a map.
//!
//! Which files are a VM is worked out from all paths ([`super::recognise`]), so the map is made
//! as a whole, in turns between other work, by whoever is told that names have changed. Until it
//! is made again it says what was true before; a file that is new to it belongs to nobody yet.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use base::FileId;
use engine::store::Store;

use super::recognise::{FileRole, role_of};
use crate::filesystem::Filesystem;
use crate::handle::DatastoreId;
use crate::refusal::Refusal;

/// Files looked at between two looks at other work.
const FILES_PER_TURN: usize = 256;

/// A VM by its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmName {
    /// The datastore.
    pub datastore: String,
    /// The VM.
    pub vm: String,
}

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The VM.
    pub vm: Rc<VmName>,
    /// Path of the file in the datastore.
    pub path: String,
    /// What it is to the VM.
    pub role: FileRole,
    /// Under which it shares.
    flow: u32,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Owners {
    files: RefCell<BTreeMap<FileId, Rc<Owned>>>,
    /// Rises with every change after which a file may be another VM's.
    version: Cell<u64>,
    /// The version that `files` is of.
    known: Cell<Option<u64>>,
}

impl Owners {
    /// A file may be another VM's now.
    pub fn have_changed(&self) {
        self.version.set(self.version.get() + 1);
    }
}

impl<S: Store> Filesystem<S> {
    /// Whose a file is, as far as [`Filesystem::know_owners`] has found out.
    pub fn owner_of(&self, file: FileId) -> Option<Rc<Owned>> {
        self.owners.files.borrow().get(&file).cloned()
    }

    /// Under which a file shares, if it is a VM's.
    pub(crate) fn flow_of(&self, file: FileId) -> Option<u32> {
        self.owners.files.borrow().get(&file).map(|owned| owned.flow)
    }

    /// Has the limits that are stored hold.
    async fn know_limits(&self) -> Result<(), Refusal> {
        loop {
            let version = self.owners.version.get();
            let limits = self.vm_limits().await?;
            if self.owners.version.get() == version {
                self.qos.set_all(limits, self.world.clock.now());
                return Ok(());
            }
        }
    }

    /// Whether names have changed since owners were found out.
    pub fn owners_are_outdated(&self) -> bool {
        self.owners.known.get() != Some(self.owners.version.get())
    }

    /// Finds out whose every file is.
    ///
    /// # Errors
    /// The store's; what was known before is known still.
    pub async fn know_owners(&self) -> Result<(), Refusal> {
        let version = self.owners.version.get();
        let mut files = BTreeMap::new();
        let datastores: Vec<_> = self.datastores.borrow().values().cloned().collect();
        for datastore in datastores.iter().filter(|datastore| datastore.id != DatastoreId::POOL) {
            let mut known: BTreeMap<String, Rc<VmName>> = BTreeMap::new();
            for (turn, (seen, vm)) in self.files_of_vms(datastore).await?.into_iter().enumerate() {
                if turn % FILES_PER_TURN == FILES_PER_TURN - 1 {
                    self.world.yield_now().await;
                }
                let name = || VmName { datastore: datastore.name.clone(), vm: vm.clone() };
                let vm = known.entry(vm.clone()).or_insert_with(|| Rc::new(name())).clone();
                let flow = self.qos.flow_of(&vm);
                let role = role_of(seen.path.rsplit('/').next().unwrap_or_default());
                files.insert(seen.file, Rc::new(Owned { vm, path: seen.path, role, flow }));
            }
        }
        self.owners.files.replace(files);
        self.owners.known.set(Some(version));
        self.know_limits().await
    }
}
