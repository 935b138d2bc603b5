//! The simulated world: seeded time, tasks, faulty media and an oracle.
//!
//! ```text
//!   SimWorld(seed) ── nodes ──> base::port::World   (clock, spawn, chance)
//!       │                └────> Drive, Leg          (SimNode::drive, SimNode::leg)
//!       ├── executor: one step = one poll or one event, order drawn from the seed
//!       ├── SimMedia: bytes that outlive nodes; unflushed window; faults laid over
//!       ├── Atlas + FaultPlan: faults drawn from the seed, kept inside a budget
//!       └── Oracle: what clients saw, judged block by block
//! ```
//!
//! Promises: the same seed gives the same digest of events, in this process and in any
//! other. Nothing here reads a clock, starts a thread, or iterates a randomly seeded
//! hash table. A node that was killed does no more I/O, whoever still holds its handles.
//!
//! Must not know: what a stripe, a tree, a file or a network message is. Where a budget
//! depends on such things, the scenario passes a function.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod digest;
pub mod drive;
pub mod executor;
pub mod fault;
pub mod media;
pub mod node;
pub mod oracle;
mod pages;
pub mod ranges;
pub mod rng;

pub use digest::Digest;
pub use executor::{RunEnd, SimWorld};
pub use fault::{Atlas, FaultPlan, FaultRates};
pub use media::{Latency, OneShot, SimMedia, Snapshot};
pub use node::SimNode;
pub use oracle::{Oracle, Stamp};
pub use rng::Rng;
