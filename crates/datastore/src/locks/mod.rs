//! NLM: byte-range locks that survive the server (`clients.md` 11.2).
//!
//! The state is journaled through the store, so a restart keeps every lock: no grace
//! period, no reclaim storm; a reclaim of a held lock is simply granted again. Waiters are
//! kept in memory only: an NLM client asks again by itself.

use base::FileId;
use core::net::IpAddr;
use engine::store::Store;

use crate::refusal::Refusal;
use crate::{Caller, Filesystem, Handle};

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

impl<S: Store> Filesystem<S> {
    /// NLM_TEST: the lock that is in the way of `wanted`, if any.
    pub async fn lock_test(&self, caller: &Caller, file: &Handle, wanted: &Lock) -> Result<Option<Lock>, Refusal> {
        let _ = (caller, file, wanted);
        todo!()
    }

    /// NLM_LOCK, reclaim included.
    pub async fn lock(
        &self,
        caller: &Caller,
        file: &Handle,
        wanted: Lock,
        wait: LockWait,
    ) -> Result<LockVerdict, Refusal> {
        let _ = (caller, file, wanted, wait);
        todo!()
    }

    /// NLM_UNLOCK: `owner` holds nothing of `range` any more. Returns who got locks by it.
    pub async fn unlock(
        &self,
        caller: &Caller,
        file: &Handle,
        owner: &LockOwner,
        range: LockRange,
    ) -> Result<Vec<Grant>, Refusal> {
        let _ = (caller, file, owner, range);
        todo!()
    }

    /// NLM_CANCEL: takes a waiting request out of the queue; `false` if it is not there (it
    /// may have been granted meanwhile: then the client must unlock). Returns who got locks
    /// because it no longer stands before them.
    pub async fn lock_cancel(
        &self,
        caller: &Caller,
        file: &Handle,
        waiting: &Lock,
    ) -> Result<(bool, Vec<Grant>), Refusal> {
        let _ = (caller, file, waiting);
        todo!()
    }

    /// NLM_FREE_ALL and SM_NOTIFY: a client machine restarted and holds nothing any more.
    pub async fn lock_free_all(&self, client: &[u8]) -> Result<Vec<Grant>, Refusal> {
        let _ = client;
        todo!()
    }

    /// All held locks, for administrators.
    pub fn locks(&self) -> Vec<HeldLock> {
        todo!()
    }

    /// Breaks every lock of `owner` on `file`: an administrator knows that it is dead.
    pub async fn lock_break(&self, file: FileId, owner: &LockOwner) -> Result<Vec<Grant>, Refusal> {
        let _ = (file, owner);
        todo!()
    }

    /// SM_MON's effect: remembers a client machine, durably.
    pub async fn monitor(&self, client: &[u8], address: IpAddr) -> Result<(), Refusal> {
        let _ = (client, address);
        todo!()
    }

    /// Forgets a client machine.
    pub async fn unmonitor(&self, client: &[u8]) -> Result<(), Refusal> {
        let _ = client;
        todo!()
    }

    /// Client machines remembered.
    pub fn monitored(&self) -> Vec<Monitored> {
        todo!()
    }
}
