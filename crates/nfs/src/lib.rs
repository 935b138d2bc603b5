//! NFSv3, MOUNT, NLM, NSM and the portmapper over a [`datastore::Filesystem`]: bytes in,
//! bytes out.
//!
//! ```text
//!  socket (node) -> Connection: record marking, back-pressure, requests at work
//!                      |  record                                  ^ reply
//!                   Service: RPC header, caller, duplicate-request cache, dispatch
//!                      |
//!      v3/*  mount  nlm  nsm  portmap: arguments -> datastore -> result
//! ```
//!
//! Promises:
//! * I1 No input makes it panic, allocate by a number found in it, or wait: what cannot be
//!   read is answered with the RPC error or ends the connection.
//! * I2 A request has one effect, however often and over whatever connection it arrives
//!   while its client could still be asking ([`drc`]).
//! * I3 Memory per connection is bounded; a client that does not take its replies only
//!   stops itself ([`connection`]).
//! * I4 Payload is not copied: a WRITE's is a slice of the receive buffer, a READ's leaves
//!   by handle.
//!
//! Refuses to know: sockets, clocks other than [`base::port::Clock`], what a file is made
//! of, who may do what.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod connection;
pub mod drc;
pub mod inflight;
pub mod mount;
pub mod nlm;
pub mod nsm;
pub mod portmap;
pub mod record;
pub mod rpc;
pub mod server;
pub mod v3;
pub mod xdr;

pub use connection::{Connection, Standing, connection};
pub use nlm::Callback;
pub use portmap::{Lookup, Mapping, Portmap, Registration, Transport};
pub use server::{Answer, Counts, Peer, Service};
