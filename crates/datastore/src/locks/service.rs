//! The lock state machines of all files, journaled: a change is tried on a copy, its
//! difference committed, and then the copy takes over.

use std::cell::RefCell;
use std::collections::BTreeMap;

use base::FileId;
use core::net::IpAddr;
use engine::store::{Change, Store};

use super::ranges::FileLocks;
use super::{Grant, HeldLock, Lock, LockMode, LockOwner, LockRange, LockVerdict, LockWait, Monitored};
use crate::attr::FileKind;
use crate::batch::Batch;
use crate::filesystem::OpenRefusal;
use crate::format::{
    LOCK_NAME_BYTES_MAX, LOCKS, MONITORED, key_of_pair, key_pair, lock_from_row, lock_to_row, monitored_from_row,
    monitored_to_row,
};
use crate::gate::{Gates, Mode};
use crate::table::all_rows;
use crate::{Caller, Filesystem, Handle, Refusal};

/// Most requests that wait for one file.
const WAITING_MAX: usize = 1024;

type Locks = FileLocks<Handle>;

/// All lock state of a filesystem.
pub(crate) struct LockService {
    files: RefCell<BTreeMap<FileId, Locks>>,
    /// Whoever changes the locks of a file, or removes it. Entered after the inode gates.
    pub(crate) gates: Gates,
    monitored: RefCell<BTreeMap<Vec<u8>, IpAddr>>,
}

impl LockService {
    pub async fn load<S: Store>(store: &S) -> Result<LockService, OpenRefusal> {
        let mut files: BTreeMap<FileId, Locks> = BTreeMap::new();
        for (key, value) in all_rows(store, LOCKS).await? {
            let (file, serial) = key_of_pair(&key).ok_or(OpenRefusal::Malformed)?;
            let lock = lock_from_row(&value).ok_or(OpenRefusal::Malformed)?;
            files.entry(file).or_default().load(serial, lock);
        }
        let mut monitored = BTreeMap::new();
        for (client, value) in all_rows(store, MONITORED).await? {
            monitored.insert(client, monitored_from_row(&value).ok_or(OpenRefusal::Malformed)?);
        }
        Ok(LockService { files: RefCell::new(files), gates: Gates::default(), monitored: RefCell::new(monitored) })
    }

    /// The locks of a file that is going away. Its gate must be held until that is done.
    pub fn drop_rows(&self, batch: &mut Batch, file: FileId) {
        if let Some(locks) = self.files.borrow().get(&file) {
            for serial in locks.held().keys() {
                batch.push(Change::Delete { table: LOCKS, key: key_pair(file, *serial) });
            }
        }
    }

    /// The file is gone: nobody holds it or waits for it.
    pub fn dropped(&self, file: FileId) {
        self.files.borrow_mut().remove(&file);
    }

    fn of(&self, file: FileId) -> Locks {
        self.files.borrow().get(&file).cloned().unwrap_or_default()
    }

    fn put(&self, file: FileId, locks: Locks) {
        let mut files = self.files.borrow_mut();
        if locks.is_empty() { drop(files.remove(&file)) } else { drop(files.insert(file, locks)) }
    }
}

/// What turns the rows of `old` into those of `new`.
fn difference(file: FileId, old: &Locks, new: &Locks) -> Vec<Change> {
    let gone = old.held().keys().filter(|serial| !new.held().contains_key(serial));
    let gone = gone.map(|serial| Change::Delete { table: LOCKS, key: key_pair(file, *serial) });
    let come = new.held().iter().filter(|(serial, _)| !old.held().contains_key(serial));
    let put = |(serial, lock): (&u64, &Lock)| Change::Put {
        table: LOCKS,
        key: key_pair(file, *serial),
        value: lock_to_row(lock),
    };
    gone.chain(come.map(put)).collect()
}

impl<S: Store> Filesystem<S> {
    /// NLM_TEST: the lock that is in the way of `wanted`, if any.
    pub async fn lock_test(&self, caller: &Caller, file: &Handle, wanted: &Lock) -> Result<Option<Lock>, Refusal> {
        self.admit_lock(caller, file, None).await?;
        Ok(self.locks.files.borrow().get(&file.file()).and_then(|locks| locks.in_the_way(wanted).cloned()))
    }

    /// NLM_LOCK, reclaim included. A change of mode may let others in: their grants.
    pub async fn lock(
        &self,
        caller: &Caller,
        file: &Handle,
        wanted: Lock,
        wait: LockWait,
    ) -> Result<(LockVerdict, Vec<Grant>), Refusal> {
        let name_bytes = wanted.owner.client.len().max(wanted.owner.handle.len());
        if name_bytes > LOCK_NAME_BYTES_MAX {
            return Err(Refusal::NameTooLong);
        }
        let _pass = self.locks.gates.enter(file.file(), Mode::Exclusive).await;
        self.admit_lock(caller, file, Some(wanted.mode)).await?;
        let full = self.locks.of(file.file()).waiting().len() >= WAITING_MAX;
        let wait = if full { LockWait::No } else { wait };
        self.change_locks(file.file(), |locks| locks.lock(wanted, wait, *file)).await
    }

    /// NLM_UNLOCK: `owner` holds nothing of `range` any more. Returns who got locks by it.
    pub async fn unlock(
        &self,
        caller: &Caller,
        file: &Handle,
        owner: &LockOwner,
        range: LockRange,
    ) -> Result<Vec<Grant>, Refusal> {
        let _pass = self.locks.gates.enter(file.file(), Mode::Exclusive).await;
        self.admit_lock(caller, file, None).await?;
        Ok(self.change_locks(file.file(), |locks| locks.unlock(owner, range)).await?.1)
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
        let _pass = self.locks.gates.enter(file.file(), Mode::Exclusive).await;
        self.admit_lock(caller, file, None).await?;
        self.change_locks(file.file(), |locks| locks.cancel(waiting)).await
    }

    /// NLM_FREE_ALL and SM_NOTIFY: a client machine restarted and holds nothing any more.
    pub async fn lock_free_all(&self, client: &[u8]) -> Result<Vec<Grant>, Refusal> {
        let mut grants = Vec::new();
        let files: Vec<FileId> = self.locks.files.borrow().keys().copied().collect();
        for file in files {
            grants.extend(self.lock_forget(file, |owner| owner.client == client).await?);
        }
        Ok(grants)
    }

    /// All held locks, for administrators.
    pub fn locks(&self) -> Vec<HeldLock> {
        let files = self.locks.files.borrow();
        let of_file = |(file, locks): (&FileId, &Locks)| {
            let (file, waiting) = (*file, locks.waiting().len());
            locks.held().values().map(|lock| HeldLock { file, lock: lock.clone(), waiting }).collect::<Vec<_>>()
        };
        files.iter().flat_map(of_file).collect()
    }

    /// Breaks every lock of `owner` on `file`: an administrator knows that it is dead.
    pub async fn lock_break(&self, file: FileId, owner: &LockOwner) -> Result<Vec<Grant>, Refusal> {
        self.lock_forget(file, |other| other == owner).await
    }

    async fn lock_forget(&self, file: FileId, gone: impl Fn(&LockOwner) -> bool) -> Result<Vec<Grant>, Refusal> {
        let _pass = self.locks.gates.enter(file, Mode::Exclusive).await;
        Ok(self.change_locks(file, |locks| locks.forget(gone)).await?.1)
    }

    /// Changes the locks of a file and serves its waiters, durably, then visibly. The file's
    /// lock gate is held.
    async fn change_locks<T>(
        &self,
        file: FileId,
        change: impl FnOnce(&mut Locks) -> T,
    ) -> Result<(T, Vec<Grant>), Refusal> {
        let old = self.locks.of(file);
        let mut new = old.clone();
        let result = change(&mut new);
        let served = new.serve();
        let changes = difference(file, &old, &new);
        if !changes.is_empty() {
            self.store.commit(changes).await?;
        }
        self.locks.put(file, new);
        let grant = |served: super::ranges::Waiting<Handle>| Grant {
            handle: served.handle,
            lock: served.lock,
            cookie: served.cookie,
        };
        Ok((result, served.into_iter().map(grant).collect()))
    }

    /// Whether the caller may lock (with a mode) or ask about (without) a file.
    async fn admit_lock(&self, caller: &Caller, file: &Handle, mode: Option<LockMode>) -> Result<(), Refusal> {
        let admitted = self.admit(caller, file).await?;
        if admitted.inode.kind != FileKind::Regular {
            return Err(Refusal::WrongKind);
        }
        let (rights, inode) = (&admitted.rights, &admitted.inode);
        let may = match mode {
            None => true,
            Some(LockMode::Shared) => rights.may_read(inode) || rights.may_write(inode),
            Some(LockMode::Exclusive) => rights.may_write(inode),
        };
        if may { Ok(()) } else { Err(Refusal::NotAllowed) }
    }

    /// SM_MON's effect: remembers a client machine, durably.
    pub async fn monitor(&self, client: &[u8], address: IpAddr) -> Result<(), Refusal> {
        if client.is_empty() {
            return Err(Refusal::BadArgument);
        }
        if client.len() > LOCK_NAME_BYTES_MAX {
            return Err(Refusal::NameTooLong);
        }
        if self.locks.monitored.borrow().get(client) == Some(&address) {
            return Ok(());
        }
        let put = Change::Put { table: MONITORED, key: client.to_vec(), value: monitored_to_row(address) };
        self.store.commit(vec![put]).await?;
        self.locks.monitored.borrow_mut().insert(client.to_vec(), address);
        Ok(())
    }

    /// Forgets a client machine.
    pub async fn unmonitor(&self, client: &[u8]) -> Result<(), Refusal> {
        if !self.locks.monitored.borrow().contains_key(client) {
            return Ok(());
        }
        self.store.commit(vec![Change::Delete { table: MONITORED, key: client.to_vec() }]).await?;
        self.locks.monitored.borrow_mut().remove(client);
        Ok(())
    }

    /// Client machines remembered.
    pub fn monitored(&self) -> Vec<Monitored> {
        let monitored = self.locks.monitored.borrow();
        monitored.iter().map(|(client, address)| Monitored { client: client.clone(), address: *address }).collect()
    }
}
