//! Load generator and checker for NFSv3 servers, ours or any other: `vmhold bench`,
//! `vmhold bench verify` and `vmhold nfs ls|get|put|rm|mkdir`.
//!
//! It promises a second opinion: its own RPC, XDR, MOUNT and NFSv3 client (nothing
//! shared with the server's codecs), blocks that say what they are ([`block`]), a map
//! of what the server must still know ([`expectation`]), and a file of acknowledged
//! writes ([`journal`]) that outlives any number of server crashes.
//!
//! ```text
//!  command   clap argument structs, exit codes
//!  bench     verify     nfs_command         one file per command
//!  workload  expectation  journal  block    what to do, what must hold, what was done
//!  nfs3   mount   target                    procedures, addresses
//!  connection                               pipelining, retransmission
//!  rpc   xdr                                bytes
//! ```
//!
//! # What one 8 KiB write costs here
//!
//! * Copies of the payload in user space: none. The block is generated (one pass from
//!   a pool of random words) straight behind the call header, in the buffer that
//!   `writev` sends and that stays until the answer, for retransmission.
//! * Allocations: none once the request buffers are warm.
//! * System calls: `writev`, `recv` and `epoll_wait` once per *batch*: all answers that
//!   arrived together are handed out first, then all requests that follow from them
//!   leave in one `writev`.
//!
//! So 16 writes in flight to a fast server cost three system calls, not 48. The examples
//! `fake_server` (stores nothing) and `load` show it, built for release:
//! `load bench --target nfs://127.0.0.1:20049/export` prints 1.7 to 1.9 us of our CPU per
//! 8 KiB write at depth 16, the same per read, and 9.3 us at depth 1.
//!
//! Everything runs on one thread.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod bench;
pub mod block;
pub mod command;
pub mod connection;
pub mod expectation;
pub mod failure;
pub mod fileset;
pub mod journal;
pub mod mount;
pub mod nfs3;
pub mod nfs_command;
pub mod random;
pub mod report;
pub mod rpc;
pub mod tally;
pub mod target;
pub mod transfer;
pub mod verify;
pub mod workload;
pub mod xdr;
