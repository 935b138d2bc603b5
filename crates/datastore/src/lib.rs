//! What a hypervisor sees: datastores in one filesystem; files, directories, links,
//! attributes, permissions and locks, on an [`engine::store::Store`] (R-REPL-01, R-REPL-02).
//!
//! ```text
//!   nfs (codecs, sockets)          control (create, list, delete)
//!            \                       /
//!             Filesystem<S>: op/*.rs, one file per procedure
//!      gate (per-inode async locks)  stamp (time that never goes back)
//!      cache (inodes)   reply (journaled answers)   locks (NLM state)
//!      qos (limits of VMs, turns)
//!      vm (which files are a VM; snapshots, rollback and clones of all of them)
//!             format.rs: tables and rows, the only place with byte layouts
//!                        |
//!                   engine::store::Store
//! ```
//!
//! Promises:
//! * I1 A namespace operation decides under the locks of every inode it changes, then makes
//!   exactly one commit. Whoever reads sees it whole or not at all.
//! * I2 The result handed to the client, attributes included, is what that commit made
//!   true; a journaled reply is part of the same commit.
//! * I3 `mtime` and `ctime` taken from the server's clock never go back and never repeat in
//!   one filesystem, across restarts too.
//! * I4 A handle and a directory cookie mean the same thing for ever, or nothing.
//! * I5 Every call checks the export (network, squash, read-only) of the datastore named in
//!   its handle, then UNIX permissions.
//!
//! Refuses to know: NFS encodings, sockets, stripes, blocks, drives. It runs on one thread
//! without a runtime; every wait is a store call or an inode lock.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod attr;
mod batch;
mod cache;
mod caller;
mod check;
mod export;
mod filesystem;
mod format;
#[cfg(test)]
mod fuzz;
mod gate;
mod handle;
pub mod locks;
mod names;
pub mod op;
mod paths;
mod qos;
mod refusal;
mod reply;
mod stamp;
mod table;
mod usage;
mod vm;

pub use attr::{Attr, FileKind, PreAttr, SetAttr, SetTime, Wcc};
pub use caller::{Caller, GROUPS_MAX, NOBODY};
pub use check::Finding;
/// What users of [`Filesystem`] need to name of the store below it.
pub use engine::store::{Extent, Piece, Store, WRITE_BYTES_MAX};
pub use export::{DatastoreInfo, DatastoreOptions, Deletion, Export, Mounted, RootUser};
pub use filesystem::{Filesystem, Identity, OpenRefusal};
pub use handle::{DatastoreId, HANDLE_BYTES, Handle};
pub use qos::{Held, VmLimits};
pub use refusal::{Refusal, Refused};
pub use reply::{Outcome, ReplyNote, StoredReply};
pub use vm::{
    CloneSource, Cloned, FileDifference, FileRole, FileSnapshot, Owned, RolledBack, Vm, VmFile, VmName, VmSchedule,
    VmSnapshot,
};
