//! Two sites that hold the same: the core of synchronous replication.
//!
//! ```text
//!  clients ─► Mirror (primary) ══ link ══ Mirror (secondary)
//!               │    │                       │    │
//!            journal └──────── witness ──────┘  journal
//! ```
//!
//! Per replicated datastore and site one [`Mirror`]: a state machine that is told what happened
//! ([`Input`]) and says what is to be done ([`Action`]). It decides when an operation may be
//! acknowledged, what both sites must settle when they meet again, and when a site may go on
//! alone or take over; the last by the witness's record and `witness::Seat`.
//!
//! Promises, checked at every event of a simulated world (`tests/`):
//! * I1. While the record says in sync, whatever differs between the sites is in the in-flight
//!   map of one of them, or prepared, or committed and not settled.
//! * I2. What is acknowledged is stable on both sites, or on the primary and the record says
//!   that it is alone.
//! * I3. What a read returned is never taken back.
//! * I4. No two sites answer clients at the same time.
//! * I5. What a site has done is never undone, but for writes that nobody was told of, which
//!   the other site's content takes the place of.
//!
//! | module | what |
//! |---|---|
//! | `site` | the state machine: what may go on by now |
//! | `step` | what goes in and comes out |
//! | `primary`, `secondary` | operations from the lock to the answer; following |
//! | `link` | the sites meet: greeting, report, recovery |
//! | `patience` | what time decides |
//! | `resync` | what clients may do while the other site is made equal |
//! | [`check`] | the point at which both sites can be compared |
//! | `handover` | the planned change of primary |
//! | [`issuer`] | OSNs: strictly rising, over restarts and changes of primary |
//! | [`locks`] | which operations may be under way at the same time |
//! | [`flights`] | the in-flight map: what may be on one side only |
//! | [`record`] | what a site writes down, and what it knows by it |
//! | [`wire`] | what the sites send each other; twin of `docs/formats/mirror.md` |
//!
//! What is not here: the planned hand-over, and everything that carries out what is decided here,
//! the comparing and sending of a resync included: that is `replica`.
//!
//! Must not know: sockets, files, clocks, blocks, names.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod check;
pub mod flights;
mod handover;
pub mod issuer;
mod link;
pub mod locks;
mod operation;
mod patience;
mod primary;
pub mod record;
mod resync;
mod secondary;
mod site;
mod step;
mod turn;
pub mod wire;

pub use flights::{Flight, Flights, FlightsMax};
pub use operation::{CHANGE_PART_BYTES_MAX, Change, Form, Span, WRITE_BYTES_MAX, Write};
pub use record::{Kept, Record};
pub use site::Mirror;
pub use step::{Action, Answer, Command, Config, Input, OpId, PACE_MIN, Pace, Progress, Reader, Request};
pub use turn::Turn;
