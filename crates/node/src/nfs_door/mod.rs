//! The door for NFS clients: sockets around [`nfs::Connection`].
//!
//! Everything runs on the shard's thread, in its `LocalSet`: one task per connection, no
//! task per request. A task turns in a circle (see [`conversation`]): one read takes what
//! the kernel has, all requests in it are started in place, and one vectored write sends
//! whatever replies are ready. For 8 KiB writes at depth 16 that is about one read and one
//! write per group commit.
//!
//! Limits (`faults.md` D.3): [`CONNECTIONS_MAX`] in all, [`PER_ADDRESS_MAX`] per client
//! address; what is beyond is closed at once. A record that does not arrive within
//! [`RECORD_TIME`] ends its connection.

mod callbacks;
mod conversation;
mod rpcbind;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use base::Buf;
use engine::store::Store;
use nfs::{Peer, Service};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, watch};

pub use callbacks::call_clients;
pub use rpcbind::{register, unregister};

/// Most connections in all.
pub const CONNECTIONS_MAX: usize = 4096;
/// Most connections of one client address.
pub const PER_ADDRESS_MAX: usize = 64;
/// How long a record may take to arrive.
pub const RECORD_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest datagram that is looked at.
const DATAGRAM_BYTES_MAX: usize = 1024;

/// Counts of the door, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounts {
    /// Connections that are open.
    pub open: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections ended because the peer broke the protocol or was too slow.
    pub violations: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// All NFS connections of a node. Shared by its listeners.
pub struct Door {
    by_address: RefCell<BTreeMap<IpAddr, usize>>,
    counts: Cell<DoorCounts>,
    stop: watch::Sender<bool>,
    is_cut: Cell<bool>,
    closed: Notify,
    defect: watch::Sender<bool>,
}

impl Door {
    /// An open door without connections.
    pub fn new() -> Rc<Door> {
        Rc::new(Door {
            by_address: RefCell::default(),
            counts: Cell::default(),
            stop: watch::channel(false).0,
            is_cut: Cell::new(false),
            closed: Notify::new(),
            defect: watch::channel(false).0,
        })
    }

    /// Accepts connections on `listener` and serves them, until [`stop`](Door::stop). Any
    /// of the programs may be called on any of the ports. Must run inside a `LocalSet`.
    pub async fn listen<S: Store>(self: Rc<Self>, service: Rc<Service<S>>, listener: TcpListener) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|&is_stopped| is_stopped) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.admit(&service, stream, from.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an NFS connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit<S: Store>(self: &Rc<Self>, service: &Rc<Service<S>>, stream: TcpStream, address: IpAddr) {
        let Some(place) = Place::take(self, address) else {
            self.count(|counts| counts.refused += 1);
            return tracing::debug!(%address, "too many NFS connections");
        };
        match prepare(&stream) {
            Ok(local) => {
                let peer = Peer::new(address, local);
                let conversation = conversation::Conversation::new(service.clone(), peer, stream, place);
                tokio::task::spawn_local(conversation.run());
            }
            Err(error) => tracing::debug!(%address, %error, "NFS connection ended at once"),
        }
    }

    /// Ends all listeners, lets requests at work finish, closes every connection and
    /// returns when that is done (bound it by a timeout: a client may refuse to take its
    /// replies).
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        loop {
            let closed = self.closed.notified();
            if self.counts.get().open == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Ends all listeners and connections. From this moment on not one byte more is said on any of
    /// them: what clients asked last has no answer here.
    pub fn cut(&self) {
        self.is_cut.set(true);
        self.stop.send_replace(true);
    }

    /// Returns when a panic happened outside the decoders: the store is not to be trusted
    /// any more, the node must stop (`faults.md` D.5).
    pub async fn until_defect(&self) {
        // The sender lives in `self`, so this can only end by the value.
        let _ = self.defect.subscribe().wait_for(|&is_there| is_there).await;
    }

    /// Counts since start.
    pub fn counts(&self) -> DoorCounts {
        self.counts.get()
    }

    fn count(&self, change: impl FnOnce(&mut DoorCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

/// Small replies must not wait for more, and dead clients must be noticed some day.
fn prepare(stream: &TcpStream) -> io::Result<IpAddr> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    Ok(stream.local_addr()?.ip().to_canonical())
}

/// A connection's place among those allowed.
struct Place {
    door: Rc<Door>,
    address: IpAddr,
}

impl Place {
    fn take(door: &Rc<Door>, address: IpAddr) -> Option<Place> {
        let mut by_address = door.by_address.borrow_mut();
        let mine = by_address.get(&address).copied().unwrap_or(0);
        if door.counts.get().open >= CONNECTIONS_MAX as u64 || mine >= PER_ADDRESS_MAX {
            return None;
        }
        by_address.insert(address, mine + 1);
        door.count(|counts| {
            counts.open += 1;
            counts.accepted += 1;
        });
        Some(Place { door: door.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.door.by_address.borrow_mut();
        match by_address.get_mut(&self.address) {
            Some(mine) if *mine > 1 => *mine -= 1,
            _ => drop(by_address.remove(&self.address)),
        }
        self.door.count(|counts| counts.open -= 1);
        self.door.closed.notify_waiters();
    }
}

/// Answers portmapper and NSM calls that come as datagrams, for ever.
pub async fn answer_datagrams<S: Store>(service: Rc<Service<S>>, socket: UdpSocket) {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let local = socket.local_addr().map_or(from.ip(), |local| local.ip());
        let peer = Peer::new(from.ip(), local);
        if let Some(answer) = service.datagram(&peer, Buf::copy_from_slice(&datagram[..len])).await {
            // A lost answer is asked for again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}
