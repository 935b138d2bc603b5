//! Write acceleration on the hypervisor host: a disk in front of a slower one that writes
//! to flash first and to the backing store later (`protocols.md` C.8).
//!
//! # What it promises
//!
//! A write is acknowledged when it stands in every place the policy in force demands: the
//! backing store (*wt*) or the log on own flash (*wb*). What was acknowledged is read back,
//! before and after any crash, and reaches the backing store in order. Whatever the backing
//! store does (slow, failing, gone) is an input, not an end: writes are absorbed as far as
//! the log has room, then they wait; everything goes on by itself.
//!
//! ```text
//!            write (wb)                                     write (wt)
//!               │ flow control: wait for the admitted moment      │
//!               ▼                                                 │
//!   log (journal's record and ring, on flash) ──stable──► answer  │
//!               │                                                 │
//!               ▼ in order of serial                              │
//!   dirty image (newest bytes of every dirty range) ◄── reads     │
//!               │                                                 │
//!   destager: batch ─► write all at once ─► flush ─► checkpoint ─► trim, evict
//!                                     │                           │
//!                                     ▼                           ▼
//!                              backing store  ◄────────── reads that are not dirty
//! ```
//!
//! # Serials, batches, checkpoints
//!
//! * Each write gets a *serial* when it enters (it is the OSN of its record): unique, rising,
//!   kept over restarts.
//! * A *batch* is a run of serials. Of what overlaps inside it only the newest bytes are
//!   written, so its pieces never overlap and may be written at once, in any order.
//! * The *checkpoint* is the last serial of the last batch that is complete *and flushed*.
//!   It is durable on flash before the log is trimmed and before the image lets go.
//! * So at each checkpoint the backing store is exactly the disk as it was after that
//!   serial; between two checkpoints it is undefined inside the batch, and a replay of the
//!   log makes it right again.
//!
//! # Invariants
//!
//! * C1 `checkpoint < serial` for every write in the image, and they are in order.
//! * C2 in *wt* the image is empty: no dirty byte can later land on a newer one.
//! * C3 a batch is evicted only after its checkpoint is on flash.
//!
//! # Who does what
//!
//! | module | decides or does |
//! |---|---|
//! | [`backing`] | the port to the backing store |
//! | [`op`] | a write or zeroes as the body of a record |
//! | [`ranges`], [`image`] | pure: newest bytes of ranges; what is dirty |
//! | [`batch`] | pure: which writes go to the backing store next, and as what pieces |
//! | [`flow`] | pure: when a write is admitted |
//! | [`root`] | what a log says of itself, and where its replay begins; twin of `docs/formats/host.md` |
//! | [`flash`] | regions of the host's flash; the same twin |
//! | [`disk`] | the driver over ports: open, read, write, flush |
//! | `destage`, `transition` | its two background tasks |
//!
//! # What it must not know
//!
//! NBD, vhost-user, VMs' formats, files and paths, sockets, time of day.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod backing;
pub mod batch;
mod destage;
pub mod disk;
pub mod flash;
pub mod flow;
pub mod image;
pub mod latency;
pub mod op;
pub mod ranges;
pub mod root;
mod transition;

pub use backing::{Backing, BackingInfo, DriveBacking};
pub use disk::{Disk, DiskStatus, Event, IoRefused, OpenRefused, Options, Parts};
pub use flash::{Flash, FlashRefused, Region, RegionKind};
pub use flow::FlowSettings;
pub use root::{DiskId, LogRoot, Policy};
