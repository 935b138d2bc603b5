//! One RAID-6 group of drives: whole-stripe writes, verified reads, reconstruction and
//! repair, and a small majority-written memory for whoever stands above.
//!
//! ```text
//!   engine ── write_stripe / read / read_stripe / scrub_stripe / flush ──┐
//!          ── register_read / register_cas (root, blobs) ──┐             │
//!                                                          v             v
//!   group header + named blobs (paxos.rs)           units (write.rs, read.rs, repair.rs,
//!   members come and go (membership.rs, twin.rs)           rebuild.rs in the order of circular.rs)
//!          v  majority of members, two slots each          v  one unit per drive, in parallel
//!   ====== drive 0 ====== drive 1 ====== ... ====== drive n-1 ======
//! ```
//!
//! Promises:
//! * I1. Only whole stripes are written; the one write in place is the repair of a
//!   damaged unit with bytes proved right (R-RAID-05). So there is no write hole.
//! * I2. What a read returns passed its caller's check or the units' own checks. Parity
//!   is never computed from an unverified unit.
//! * I3. Any `parity` damaged or absent units of a stripe are masked (R-RAID-03, R-STR-03).
//! * I4. A drive on which a write or flush was lost is out of the group, durably, before
//!   that write or flush is reported done; it is not believed when it comes back.
//! * I5. A register's value is one that was set; once set on a majority, no crash and no
//!   returning drive brings an older one back.
//! * I6. Nothing is written to a drive whose label does not name this group and slot,
//!   but for a drive that was handed over to join and may be written over.
//! * I7. A unit that a rebuilding drive still owes is absent, whatever stands there.
//!
//! Costs per stripe of width w: w drive writes in parallel (one system call or submission
//! each), no copy of the payload (buffers travel by handle; parity is one pass over the
//! data), one check pass per unit. A read is one drive read of the aligned sectors around
//! the range, and no copy. Nothing blocks a thread (R-IO-05).
//!
//! Must not know: what an object, a tree, a file or a request is.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod assemble;
pub mod circular;
mod decide;
mod fields;
mod group;
pub mod header;
mod hedge;
pub mod label;
mod lane;
pub mod layout;
mod member;
mod membership;
mod owed;
mod ownership;
pub mod paxos;
pub mod principal;
pub mod profile;
mod proposal;
pub mod queue;
mod read;
mod rebuild;
pub mod register;
mod repair;
mod slow;
mod status;
mod survivors;
pub mod turns;
mod twin;
pub mod unit;
mod write;

pub use assemble::{Assembly, Finding, OpenRefused};
pub use circular::{Circular, Joined};
pub use decide::{CasRefused, Registers, Versioned};
pub use group::{CreateRefused, Group, GroupOptions, NoSpace, SegmentInfo};
pub use hedge::HedgeCounters;
pub use lane::{FlowSettings, LaneStatus, Punctuality};
pub use layout::{Geometry, SegmentId, Slot, StripeId, UNIT_HEADER_BYTES};
pub use member::{DriveState, FailReason};
pub use membership::{Added, JoinRefused, RemoveRefused};
pub use ownership::{ControllerId, Lease, Ownership, Watch};
pub use paxos::Seat;
pub use principal::{Principal, Shares};
pub use profile::{DriveClass, Profile, Profiles, WritePattern};
pub use queue::Usage;
pub use read::Unreadable;
pub use rebuild::Rebuilt;
pub use repair::StripeVerdict;
pub use slow::{SlowSettings, Slowness};
pub use status::{Counters, DriveStatus, Event, GroupState, GroupStatus, Space};
pub use survivors::{Survivor, Survivors};
pub use twin::{TwinEnd, TwinStatus};
pub use unit::Damage;
pub use write::{WriteFault, Written};
