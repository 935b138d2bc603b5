//! Ground floor: ids, checks, buffers, time, and the ports through which every
//! other crate meets the world.
//!
//! Promises: no clock, no socket, no thread, no randomness of its own. Values in,
//! values out. What lives here is used by at least two layers above; anything with
//! one user belongs to that user.
//!
//! Must not know: what a stripe, a tree, a file name or a network message is.

pub mod buf;
pub mod check;
pub mod id;
pub mod meter;
pub mod port;
pub mod spread;
pub mod time;

pub use buf::{Buf, BufMut, BufPool};
pub use check::{ContentCheck, MediaCheck, content_check, media_check};
pub use id::{DriveId, Epoch, FileId, GroupId, Incarnation, NotAnId, ObjectId, Osn, PairId, SiteId};
pub use time::{Nanos, WallNanos};
