//! A store that is at two sites: a [`mirror::Mirror`] over a real engine and its journal.
//!
//! ```text
//!   datastore ──► Replica (a Store) ──► Mirror ──► link, witness
//!                     │                   │
//!                     │ reads             └─► records, in order ─► engine ─► journal
//!                     └────────────────────────────────────────────► engine
//! ```
//!
//! To everything above it is one more [`engine::Store`]: a filesystem over it is replicated as
//! a whole, names, handles, answers and locks included, since all of these are rows and files of
//! the store. What the mirror wants written down becomes records of the engine's journal:
//!
//! * A write's record carries the operation's number, and before it stands one that puts its
//!   entry of the in-flight map into a table. So the map always lists what may be there; it
//!   survives a crash with the journal and a checkpoint with the trees, and needs no format of
//!   its own (decision 0052).
//! * A change that is not a write is the list of absolute changes that the engine would commit
//!   anyway, with the mirror's rows in the same record.
//!
//! The order in which the mirror appends is the order of the journal: one record has its place
//! before the next is given to the engine ([`appender`]).
//!
//! * A site that was away, or lost its place, is made equal beside clients ([`resync`], decision 0053).
//!
//! * Both sites are compared, from sums that the engine keeps or from data ([`check`], decision 0056).
//!
//! Must not know: sockets, names, clients' protocols.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod appender;
mod check;
mod replica;
mod resync;
mod shelf;
mod store;

pub use check::{
    CheckOutcome, CheckProgress, CheckRefused, CheckReport, CheckWanted, Differences, Evidence, FileDifference,
    FileLook, RowDifference, Seal, Sides, Statement, StatementFault,
};
pub use replica::{NotOpened, Outside, Replica};
pub use resync::ResyncCounters;
pub use shelf::{PAIR, ShelfFault};
