//! The journal: the one record of vmhold, and the shelf it stands on (`design.md`
//! section 2, `protocols.md` C.10).
//!
//! # What it promises
//!
//! A record whose [`Stable`] was handed out is replayed after any crash, as long as one
//! copy of it is left; and if none is, it is reported, never passed over in silence.
//! What is replayed was appended. Nothing is replayed that was not checked (R-NV-04).
//!
//! ```text
//!  try_append ──► open batch ──seal──► batch ──write──► leg 0 ┐ all active legs
//!   (one copy)    (arena)              (close:          leg 1 ┘ durable, in order
//!                                       chain, claim)             │
//!                     on_stable(Record) in sequence order ◄───────┤
//!                     Stable (the only key to an acknowledgement) ◄┘
//!  root{trim, incarnations} ──► open ──► Recovered ──► the engine applies, then serves
//! ```
//!
//! # Who does what
//!
//! | module | decides or does |
//! |---|---|
//! | [`record`] | what a record is to everybody above |
//! | [`format`] | its bytes on a leg; twin of `docs/formats/journal.md` |
//! | [`ring`] | pure: places, cursors, what is stable, what is free (I1 to I5) |
//! | [`recover`] | pure: what of the legs' content is true: the table with letters |
//! | [`journal`] | the driver over ports: append, group commit, stable, trim |
//! | [`resilver`] | reading the legs again at work, taking in a new one |
//! | [`open`] | the driver over ports: format, read back, mend, refuse |
//!
//! # What it must not know
//!
//! Blocks, trees, files beyond an id and a range, other sites, time of day.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod arena;
mod batch;
pub mod format;
pub mod journal;
pub mod open;
mod pump;
pub mod record;
pub mod recover;
pub mod resilver;
pub mod ring;
mod state;
mod timed;

pub use base::port::LegKind;
pub use format::TrimPoint;
pub use journal::{Appended, Config, Fill, Journal, JournalStatus, Latched, LegState, LegStatus, Refusal, Stable};
pub use open::{JournalRoot, LegVerdict, OpenRefused, Recovered};
pub use record::{Kind, NewRecord, Record, Scope, Sequence, Tag};
pub use recover::{Blocked, Gap};
pub use resilver::{AddLegRefused, Verified};
