//! A request's future is moved into its slot once; it must stay small for that to be cheap.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "tests")]

mod harness;

use std::net::IpAddr;

use base::Buf;
use harness::Server;
use nfs::Peer;

const FUTURE_BYTES_MAX: usize = 4096;

#[test]
fn the_future_of_a_request_is_small() {
    let server = Server::new();
    let peer = Peer::new(IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let future = server.service.handle(&peer, Buf::new());
    let size = std::mem::size_of_val(&future);
    println!("{size} bytes");
    assert!(size <= FUTURE_BYTES_MAX, "{size} bytes");
}
