//! The engine: files of blocks and tables of values, on stripes and a journal.
//!
//! ```text
//!   write ──► journal ──stable──► staged ──destage──► objects in stripes ──► mapping
//!   commit ─► journal ──stable──► tables and heads (pages in memory)           │
//!                                          └────────── checkpoint ─────────────┘
//!                                                 pages, stripe table, root
//! ```
//!
//! Invariants:
//! * I1: an operation is acknowledged only when its record is stable.
//! * I2: nothing live is overwritten; stripes and pages go to free places, and a place is
//!   free only when no durable root and no reader names it.
//! * I3: the journal is trimmed only through what the durable root contains.
//! * I4: every reference carries the check and the identity of what it names, and both
//!   are compared before use.
//! * I5: a block is shared only after its content was read and compared.
//! * I6: redoing any suffix of the journal that starts at or before the trim point, to its
//!   end, over the root's state gives the same state.
//! * I7: data goes to the layer that its file wrote to at its place in the order of records,
//!   the first time and whenever it is redone.
//!
//! Must not know: names, directories, exports, clients, sockets; what a drive is.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod audit;
mod changes;
mod checkpoint;
mod cleaner;
mod delta;
mod destage;
mod differences;
mod engine;
mod expand;
mod files;
mod fingerprint;
pub mod format;
#[cfg(test)]
mod fuzz;
mod hash;
mod inner;
mod layers;
mod legs;
mod losses;
mod maps;
pub mod memory;
mod mover;
mod open;
mod options;
mod page;
mod pages;
mod read;
mod rebuild;
mod reclaim;
mod record;
mod relog;
mod root;
mod salvage;
mod scrub;
mod staged;
mod state;
pub mod store;
mod stripes;
mod sums;
mod tree;
mod usage;

pub use audit::{Audit, Finding};
pub use differences::Listed;
pub use engine::{Engine, EngineStatus, Label};
pub use expand::Expansion;
pub use legs::TakeInRefused;
pub use losses::LostRange;
pub use open::{OpenFault, Opened};
pub use options::{Counters, Event, Options};
pub use rebuild::{RebuildStatus, RebuildingDrive};
pub use record::{decode_changes, encode_changes};
pub use salvage::{Salvage, SalvageReport, SalvagedFile};
pub use scrub::{Scrub, ScrubPass, ScrubPolicy, ScrubStatus};
pub use store::Store;
pub use sums::Term;
