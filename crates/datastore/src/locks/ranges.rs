//! The locks on one file, as a plain state machine: held ranges, and requests that wait.
//!
//! Semantics are POSIX's: an owner never conflicts with itself; what it locks or unlocks
//! replaces what it held of those bytes, cutting ranges where needed; ranges of one owner
//! and mode that touch become one. Waiters are served in order: one gets its lock when
//! neither a held lock nor an earlier waiter is in the way. A request that need not wait
//! is not held up by waiters.
//!
//! Each held range has a serial number, its key in the journaled table: what was changed
//! is the difference of the numbers before and after.

use std::collections::{BTreeMap, VecDeque};

use super::{Lock, LockMode, LockOwner, LockRange, LockVerdict, LockWait};

/// A request in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting<H> {
    pub lock: Lock,
    pub cookie: Vec<u8>,
    /// What the one who waits is told by (a file handle).
    pub handle: H,
}

/// Held and waiting locks of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileLocks<H> {
    held: BTreeMap<u64, Lock>,
    waiting: VecDeque<Waiting<H>>,
    next_serial: u64,
}

impl<H> Default for FileLocks<H> {
    fn default() -> Self {
        FileLocks { held: BTreeMap::new(), waiting: VecDeque::new(), next_serial: 1 }
    }
}

impl LockRange {
    /// The range from `first` to `last`, both included; the last possible byte is "the end".
    fn between(first: u64, last: u64) -> LockRange {
        let len_bytes = if last == u64::MAX { 0 } else { last - first + 1 };
        LockRange { offset_bytes: first, len_bytes }
    }

    fn last(&self) -> u64 {
        match self.len_bytes {
            0 => u64::MAX,
            len => self.offset_bytes.saturating_add(len - 1),
        }
    }

    fn overlaps(&self, other: &LockRange) -> bool {
        self.offset_bytes <= other.last() && other.offset_bytes <= self.last()
    }

    fn touches(&self, other: &LockRange) -> bool {
        self.offset_bytes <= other.last().saturating_add(1) && other.offset_bytes <= self.last().saturating_add(1)
    }
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        let exclusive = self.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
        exclusive && self.owner != other.owner && self.range.overlaps(&other.range)
    }
}

impl<H: Clone> FileLocks<H> {
    pub fn load(&mut self, serial: u64, lock: Lock) {
        self.held.insert(serial, lock);
        self.next_serial = self.next_serial.max(serial + 1);
    }

    pub fn held(&self) -> &BTreeMap<u64, Lock> {
        &self.held
    }

    pub fn waiting(&self) -> &VecDeque<Waiting<H>> {
        &self.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    /// A held lock in the way of `wanted`.
    pub fn in_the_way(&self, wanted: &Lock) -> Option<&Lock> {
        self.held.values().find(|held| held.conflicts(wanted))
    }

    pub fn lock(&mut self, wanted: Lock, wait: LockWait, handle: H) -> LockVerdict {
        if let Some(holder) = self.in_the_way(&wanted) {
            let holder = holder.clone();
            let LockWait::Queue { cookie } = wait else { return LockVerdict::Denied(holder) };
            match self.waiting.iter_mut().find(|waiting| waiting.lock == wanted) {
                // Asked again while waiting: it keeps its place.
                Some(waiting) => waiting.cookie = cookie,
                None => self.waiting.push_back(Waiting { lock: wanted, cookie, handle }),
            }
            return LockVerdict::Blocked;
        }
        self.waiting.retain(|waiting| waiting.lock != wanted);
        self.hold(wanted);
        LockVerdict::Granted
    }

    pub fn unlock(&mut self, owner: &LockOwner, range: LockRange) {
        let (first, last) = (range.offset_bytes, range.last());
        let cut: Vec<u64> = self.of_owner(owner, |held| held.overlaps(&range));
        for serial in cut {
            let old = self.held.remove(&serial).expect("listed a moment ago");
            if old.range.offset_bytes < first {
                let range = LockRange::between(old.range.offset_bytes, first - 1);
                self.insert(Lock { range, ..old.clone() });
            }
            if old.range.last() > last {
                self.insert(Lock { range: LockRange::between(last + 1, old.range.last()), ..old });
            }
        }
    }

    /// Takes a waiting request out; whether it was there.
    pub fn cancel(&mut self, lock: &Lock) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.lock != *lock);
        self.waiting.len() < before
    }

    /// Takes out all that `gone` says is of somebody who is gone.
    pub fn forget(&mut self, gone: impl Fn(&LockOwner) -> bool) {
        self.held.retain(|_, lock| !gone(&lock.owner));
        self.waiting.retain(|waiting| !gone(&waiting.lock.owner));
    }

    /// Gives waiters what they can have now.
    pub fn serve(&mut self) -> Vec<Waiting<H>> {
        let (mut served, mut still) = (Vec::new(), VecDeque::new());
        for waiting in std::mem::take(&mut self.waiting) {
            let behind = still.iter().any(|earlier: &Waiting<H>| earlier.lock.conflicts(&waiting.lock));
            if behind || self.in_the_way(&waiting.lock).is_some() {
                still.push_back(waiting);
            } else {
                self.hold(waiting.lock.clone());
                served.push(waiting);
            }
        }
        self.waiting = still;
        served
    }

    /// Holds what nothing is in the way of.
    fn hold(&mut self, lock: Lock) {
        self.unlock(&lock.owner, lock.range);
        let (mut first, mut last) = (lock.range.offset_bytes, lock.range.last());
        let owner = lock.owner.clone();
        for serial in self.of_owner(&owner, |held| held.touches(&lock.range)) {
            if self.held[&serial].mode == lock.mode {
                let old = self.held.remove(&serial).expect("listed a moment ago").range;
                (first, last) = (first.min(old.offset_bytes), last.max(old.last()));
            }
        }
        self.insert(Lock { range: LockRange::between(first, last), ..lock });
    }

    fn of_owner(&self, owner: &LockOwner, which: impl Fn(&LockRange) -> bool) -> Vec<u64> {
        let mine = self.held.iter().filter(|(_, held)| held.owner == *owner && which(&held.range));
        mine.map(|(serial, _)| *serial).collect()
    }

    fn insert(&mut self, lock: Lock) {
        self.held.insert(self.next_serial, lock);
        self.next_serial += 1;
    }
}
