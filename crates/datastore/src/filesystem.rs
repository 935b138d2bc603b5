//! One filesystem per pool: what every procedure stands on.

use std::rc::Rc;

use base::port::World;
use engine::store::{Store, StoreRefusal};

use crate::caller::Caller;
use crate::export::{DatastoreInfo, DatastoreOptions, Deletion, Export, Mounted};
use crate::handle::{DatastoreId, Handle};
use crate::refusal::Refusal;
use crate::reply::StoredReply;

/// Who this pool is and how its handles are sealed. The same on every node of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pool (or cluster), in every handle and `fsid`.
    pub pool: u64,
    /// Key of the handles' seal.
    pub handle_key: [u8; 16],
}

/// Why a filesystem does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// The store holds no filesystem.
    #[error("the pool holds no filesystem")]
    NotFormatted,
    /// It holds one already.
    #[error("the pool holds a filesystem already")]
    AlreadyFormatted,
    /// It was written by a later version.
    #[error("the filesystem has format version {0}, which this program does not know")]
    UnknownVersion(u16),
    /// It belongs to another pool.
    #[error("the filesystem belongs to another pool")]
    OtherPool,
    /// A table row is malformed.
    #[error("a row of the filesystem's tables is malformed")]
    Malformed,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
}

/// The filesystem of a pool.
pub struct Filesystem<S> {
    pub(crate) store: Rc<S>,
    pub(crate) world: World,
    pub(crate) identity: Identity,
}

impl<S: Store> Filesystem<S> {
    /// Writes an empty filesystem into a store that holds none. `pool_root` are the settings
    /// of the export `/`.
    pub async fn format(
        store: &S,
        world: &World,
        identity: &Identity,
        pool_root: DatastoreOptions,
    ) -> Result<(), OpenRefusal> {
        let _ = (store, world, identity, pool_root);
        todo!()
    }

    /// Opens the filesystem in `store`.
    pub async fn open(store: Rc<S>, world: World, identity: Identity) -> Result<Rc<Filesystem<S>>, OpenRefusal> {
        let _ = (store, world, identity);
        todo!()
    }

    /// Checks the bytes of a handle as they came over the wire: [`Refusal::BadHandle`] if
    /// this pool never gave them out.
    pub fn handle(&self, bytes: &[u8]) -> Result<Handle, Refusal> {
        Handle::parse(&self.identity, bytes)
    }

    /// WRITE's and COMMIT's verifier: constant for the life of the pool, since every write
    /// is stable when it is answered.
    pub fn write_verifier(&self) -> [u8; 8] {
        todo!()
    }

    /// Answers kept with the changes they belong to, oldest first, for the duplicate-request
    /// cache to start with.
    pub async fn replies(&self) -> Result<Vec<StoredReply>, Refusal> {
        todo!()
    }

    /// MOUNT: the directory at `path`, `/` for the pool, `/name` for a datastore, `/name/a/b`
    /// for a directory in it.
    pub async fn mount(&self, caller: &Caller, path: &[u8]) -> Result<Mounted, Refusal> {
        let _ = (caller, path);
        todo!()
    }

    /// The export list, from memory.
    pub fn exports(&self) -> Vec<Export> {
        todo!()
    }

    /// All datastores in order of their names, from memory; the pool's root is not one.
    pub fn datastores(&self) -> Vec<DatastoreInfo> {
        todo!()
    }

    /// Creates a datastore. Names are 1 to 64 of letters, digits, '.', '_', '-', not starting
    /// with '.' or '-'.
    pub async fn create_datastore(&self, name: &str, options: DatastoreOptions) -> Result<DatastoreInfo, Refusal> {
        let _ = (name, options);
        todo!()
    }

    /// Changes the settings of a datastore, or of the pool's root ([`DatastoreId::POOL`]).
    pub async fn set_datastore(&self, id: DatastoreId, options: DatastoreOptions) -> Result<(), Refusal> {
        let _ = (id, options);
        todo!()
    }

    /// Deletes a datastore; [`Refusal::NotEmpty`] if it holds anything and `deletion` does
    /// not cover that. From the first moment on its handles are stale; its content goes
    /// piece by piece before this returns (or after the next open, if interrupted).
    pub async fn delete_datastore(&self, name: &str, deletion: Deletion) -> Result<(), Refusal> {
        let _ = (name, deletion);
        todo!()
    }
}
