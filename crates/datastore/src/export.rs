//! Datastores: directories of the pool's root with an export of their own (R-SCOPE-03,
//! R-REPL-02).

use ipnet::IpNet;

use crate::handle::{DatastoreId, Handle};

/// What root of a client is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootUser {
    /// Root here too (hypervisors need it).
    #[default]
    Allowed,
    /// Nobody.
    Squashed,
}

/// Settings of a datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatastoreOptions {
    /// Networks that may use it. Empty admits nobody.
    pub clients: Vec<IpNet>,
    /// What a client's root is.
    pub root: RootUser,
    /// Refuses every change.
    pub read_only: bool,
    /// Most bytes its files may take, or no limit but the pool's.
    pub quota_bytes: Option<u64>,
}

impl DatastoreOptions {
    /// Open to every address, root allowed, writable, no quota.
    pub fn open() -> DatastoreOptions {
        let everywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a constant network parses"));
        DatastoreOptions { clients: everywhere.to_vec(), ..DatastoreOptions::default() }
    }
}

/// A datastore as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreInfo {
    /// Its id; [`DatastoreId::POOL`] for the pool's root.
    pub id: DatastoreId,
    /// Its name, empty for the pool's root.
    pub name: String,
    /// Its settings.
    pub options: DatastoreOptions,
}

/// How much a deletion may destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Only an empty datastore.
    IfEmpty,
    /// With everything in it.
    WithContent,
}

/// A line of the export list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// `/` or `/name`.
    pub path: String,
    /// Networks that may mount it.
    pub clients: Vec<IpNet>,
}

/// Answer to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Handle of the directory that was asked for.
    pub handle: Handle,
}
