//! Two sites that hold the same: the core of synchronous replication.
//!
//! This crate decides and does nothing itself: it is told what happened and says what to do.
//! What is here so far are its parts; see each module.
//!
//! | module | what |
//! |---|---|
//! | [`issuer`] | OSNs: strictly rising, over restarts and changes of primary |
//! | [`locks`] | which operations may be under way at the same time |
//! | [`flights`] | the in-flight map: what may be on one side only |
//! | [`record`] | what a site writes down, and what it knows by it |
//! | [`wire`] | what the sites send each other; twin of `docs/formats/mirror.md` |
//!
//! Must not know: sockets, files, clocks, blocks, names.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod flights;
pub mod issuer;
pub mod locks;
mod operation;
pub mod record;
pub mod wire;

pub use flights::{Flight, Flights, FlightsMax};
pub use operation::{CHANGE_PART_BYTES_MAX, Change, Span, WRITE_BYTES_MAX, Write};
pub use record::{Kept, Record};
