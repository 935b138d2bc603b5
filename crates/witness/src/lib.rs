//! The witness: the third place that lets only one of two sites go on alone.
//!
//! ```text
//!   site a ── ask ──┐                        ┌── record: who is primary, in which epoch,
//!                   v                        │           in sync or not; numbered changes
//!                 Witness ── judge ──► Ledger (durable, compare-and-set)
//!                   ^           └──────► grants: until when the primary may count on it
//!   site b ── ask ──┘
//! ```
//!
//! Per replicated datastore there is one small record ([`Standing`]). Everything that must
//! have one winner is one change of it:
//!
//! * The primary may acknowledge without the secondary only after *go alone* turned
//!   `in_sync` off.
//! * The secondary may become primary only by *take over*, which needs `in_sync` on and the
//!   primary's lease over.
//!
//! The two race for the same record, so exactly one wins, whatever is cut or dead: no split
//! brain, and no acknowledged write is missing at whoever serves (`protocols.md` C.4).
//!
//! The other half is the [`Seat`] of each site: what it may do by what it has been told.
//! Deciding ([`judge`]), leases ([`lease`]) and seats are pure; the [`Ledger`] keeps the
//! records; [`wire`] is what questions and answers look like on their way, and who carries them
//! is somebody else's business (`witness-serve`). Both halves are
//! model-checked together in `tests/one_winner.rs`.
//!
//! Promises:
//! * W1. A change is answered only when it is durable.
//! * W2. Epochs and versions never go back. A witness that knows less than a site that asks
//!   it (blank, or restored from an old copy: F56) decides nothing until both sites have
//!   told it the same.
//! * W3. A primary whose lease is over by its own clock is over by the witness's clock
//!   later, whatever both clocks do within the drift bound; after its restart the witness
//!   waits a whole lease before it believes that one is over.
//!
//! Must not know: sockets, files of the datastore, what is replicated and how.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod desk;
pub mod judge;
pub mod lease;
mod ledger;
mod record;
mod seat;
pub mod wire;

pub use desk::{View, Witness};
pub use judge::{Ask, AskKind, Grounds, Lease, Refusal, Verdict};
pub use ledger::{Ledger, LedgerFault, MemoryLedger};
pub use record::{Malformed, RECORD_BYTES, Standing, Transition, TransitionKind};
pub use seat::{Asked, Memory, NotNow, Seat, Stance};
