//! NLM: byte-range locks that survive the server (`clients.md` 11.2).
//!
//! The state is journaled through the store, so a restart keeps every lock: no grace
//! period, no reclaim storm; a reclaim of a held lock is simply granted again. Waiters are
//! kept in memory only: an NLM client asks again by itself.

pub(crate) mod ranges;
pub(crate) mod service;

use base::FileId;
use core::net::IpAddr;

use crate::Handle;

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner {
    /// NLM `caller_name`, the client machine; at most 255 bytes.
    pub client: Vec<u8>,
    /// NLM `oh`, opaque; at most 255 bytes.
    pub handle: Vec<u8>,
    /// NLM `svid`, the process on that machine.
    pub svid: u32,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Number of bytes; 0 is "to the end, however far".
    pub len_bytes: u64,
}

/// Whether others may hold it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Others may read-lock the same bytes.
    Shared,
    /// Nobody else.
    Exclusive,
}

/// A wanted or held lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who.
    pub owner: LockOwner,
    /// What.
    pub range: LockRange,
    /// How.
    pub mode: LockMode,
}

/// What to do when the lock cannot be had now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// Say so.
    No,
    /// Queue up; the grant carries this cookie.
    Queue {
        /// The request's cookie, for the NLM_GRANTED call.
        cookie: Vec<u8>,
    },
}

/// Answer to a lock request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockVerdict {
    /// Held now, durably.
    Granted,
    /// In the queue; a [`Grant`] will come.
    Blocked,
    /// This other lock is in the way.
    Denied(Lock),
}

/// A waiter that got its lock: the server calls it back (NLM_GRANTED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Handle bytes for the call.
    pub handle: Handle,
    /// The lock it now holds.
    pub lock: Lock,
    /// From [`LockWait::Queue`].
    pub cookie: Vec<u8>,
}

/// A held lock, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Which file.
    pub file: FileId,
    /// The lock.
    pub lock: Lock,
    /// How many wait for this file.
    pub waiting: usize,
}

/// A client machine that wants to hear of our restarts and whose restarts we act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitored {
    /// Its name as it gave it.
    pub client: Vec<u8>,
    /// Its address.
    pub address: IpAddr,
}
