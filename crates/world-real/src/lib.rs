//! The real world: drives, journal legs, time, tasks, randomness.
//!
//! ```text
//!   open_drive(path, ring) ──> RealDrive: Drive      open_leg(path, ring) ──> RealLeg: Leg
//!         │ what is there decides how it is driven         │ ... and what it promises
//!         ├── file on tmpfs            memory: pread/pwrite in place, they never wait; a drive's
//!         │                            large writes, which are copies, on the workers
//!         ├── direct I/O and a ring    io_uring, one per shard, through the runtime
//!         ├── no ring, or no O_DIRECT  threads, and `info().access` says so
//!         └── persistent memory        mapped (legs only)
//! ```
//!
//! Everything but CPU work runs on one thread: a tokio `current_thread` runtime with a `LocalSet` per
//! shard; [`Ring::start`] and the futures of this crate need to be inside it.
//!
//! Promises: a drive or leg that is unlinked, truncated, replaced or pulled answers
//! [`Gone`](base::port::MediaFault::Gone) from the next flush or
//! [`check_identity`](RealDrive::check_identity) on, for good. A buffer handed to the
//! kernel is freed after the kernel is done with it, whoever drops what.
//!
//! Must not know: what is stored on a drive.

mod access;
mod create;
mod dax;
mod drive;
mod file;
mod leg;
mod ring;
mod threads;
mod workers;
mod world;

pub use create::{create_sparse_file, create_zeroed_file};
pub use drive::{RealDrive, open_drive};
pub use file::OpenError;
pub use leg::{RealLeg, open_leg};
pub use ring::Ring;
pub use world::{BootClock, RealChance, RealClock, RealSpawn, real_world};
