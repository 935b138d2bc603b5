//! The NBD protocol, server's side (`doc/proto.md` of the NBD project): fixed newstyle
//! handshake, simple and structured replies, FUA, flush, trim, write zeroes, block sizes,
//! many connections to one export.
//!
//! Bytes in, bytes out: [`Negotiation`] is fed what the client sends until the transmission
//! begins; then [`Request::decode`] reads headers and [`reply`] writes answers. Who reads
//! sockets and who does the I/O is elsewhere.
//!
//! Promises: nothing a client sends makes it panic, keep more than one option's bytes, or
//! answer with more than it was asked for.
//!
//! Must not know: disks, files, sockets.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod negotiation;
pub mod reply;
mod request;

pub use negotiation::{Export, Exports, Misbehaviour, Negotiation, OPTION_BYTES_MAX, Step};
pub use request::{Command, REQUEST_BYTES, Request};

/// Longest payload of a request or reply; told to clients that ask.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Errors of a request, as the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: the export is read-only.
    Perm = 1,
    /// I/O error.
    Io = 5,
    /// The request makes no sense.
    Invalid = 22,
    /// No space left.
    NoSpace = 28,
    /// Too long.
    Overflow = 75,
    /// Not supported.
    NotSupported = 95,
    /// The server is about to stop.
    Shutdown = 108,
}
