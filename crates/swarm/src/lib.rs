//! The product in the simulated world: one seed is one pool, its clients, its faults and
//! its lives.
//!
//! ```text
//!  seed ─► Shape (drives, units, journal, caches)      ┌ private clients: a model each
//!       ─► FaultPlan (half of the classes off)   life ─┤ shared files: stamped blocks, Oracle
//!       ─► lives: open ─► clients + strikes ─► crash at a drawn step ─► open ─► judge
//!       ─► heal: faults lifted, settle, scrub, audit, judge; power cut; judge again
//! ```
//!
//! What must hold (`faults.md` B.3, S4): an acknowledged operation is visible after any
//! crash, one without an answer happened whole or not at all, no wrong byte is returned,
//! and inside the fault budget the store neither stops nor refuses a read.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod client;
pub mod faults;
pub mod pool;
pub mod seed;
pub mod shape;
pub mod stamped;
