//! Time that never goes back and never repeats (I3), across restarts and clocks set back.
//!
//! A stamp is the wall clock, or one nanosecond past the last stamp if the clock is not
//! beyond it. So that a restart knows a bound of all stamps ever given, a *ceiling* is
//! stored ahead of time and no stamp exceeds it. It is renewed by whoever first sees less
//! than half of the reserve left, while others go on under the old one; after a crash,
//! times start at the ceiling, at most [`RESERVE_NS`] ahead of the clock.

use std::cell::Cell;

use base::{FileId, WallNanos};
use engine::store::{Change, Store, StoreRefusal};

use crate::filesystem::Filesystem;
use crate::format::{SUPER, SUPER_STAMP};
use crate::gate::{Gates, Mode};
use crate::refusal::Refusal;

/// How far ahead the ceiling is stored, in nanoseconds (1 s): two small commits a second
/// while anything changes, and less than a restart takes.
pub(crate) const RESERVE_NS: u64 = 1_000_000_000;

/// The last stamp and the ceiling.
pub(crate) struct Stamps {
    last: Cell<u64>,
    ceiling: Cell<u64>,
    renewal: Gates,
}

const RENEWAL: FileId = FileId(0);

impl Stamps {
    /// Goes on from a stored ceiling: every earlier stamp is at most that.
    pub fn after(ceiling: u64) -> Stamps {
        Stamps { last: Cell::new(ceiling), ceiling: Cell::new(ceiling), renewal: Gates::default() }
    }
}

impl<S: Store> Filesystem<S> {
    fn next_stamp(&self) -> u64 {
        self.world.clock.wall().0.max(self.stamps.last.get() + 1)
    }

    /// A stamp greater than every earlier one. To be taken under the locks of the inodes it
    /// is for.
    pub(crate) async fn stamp(&self) -> Result<WallNanos, Refusal> {
        let stamps = &self.stamps;
        if self.next_stamp() + RESERVE_NS / 2 > stamps.ceiling.get() {
            if self.next_stamp() > stamps.ceiling.get() {
                let _turn = stamps.renewal.enter(RENEWAL, Mode::Exclusive).await;
                self.raise_ceiling(0).await?;
            } else if let Some(_turn) = stamps.renewal.try_enter(RENEWAL, Mode::Exclusive) {
                self.raise_ceiling(RESERVE_NS / 2).await?;
            }
        }
        let stamp = self.next_stamp();
        stamps.last.set(stamp);
        // Only when the clock leapt during the wait can a stamp be beyond the ceiling.
        if stamp > stamps.ceiling.get() {
            let _turn = stamps.renewal.enter(RENEWAL, Mode::Exclusive).await;
            self.raise_ceiling(0).await?;
        }
        Ok(WallNanos(stamp))
    }

    /// Stores a higher ceiling unless at least `slack_ns` are left. Holds the renewal gate.
    async fn raise_ceiling(&self, slack_ns: u64) -> Result<(), Refusal> {
        let next = self.next_stamp();
        if next + slack_ns <= self.stamps.ceiling.get() {
            return Ok(());
        }
        self.store_ceiling(next + RESERVE_NS).await
    }

    async fn store_ceiling(&self, ceiling: u64) -> Result<(), Refusal> {
        let put = Change::Put { table: SUPER, key: SUPER_STAMP.to_vec(), value: ceiling.to_be_bytes().to_vec() };
        match self.store.commit(vec![put]).await {
            // A full pool must still serve deletes. What is risked is a time that repeats
            // if the clock is set back and the store restarted while the pool is full.
            Ok(_) | Err(StoreRefusal::NoSpace) => self.stamps.ceiling.set(ceiling),
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(())
    }

    /// Before a clean stop, when no operation is under way: stores the last stamp as the
    /// ceiling, so that times do not start ahead of the clock after the next open.
    pub async fn quiesce(&self) -> Result<(), Refusal> {
        let _turn = self.stamps.renewal.enter(RENEWAL, Mode::Exclusive).await;
        self.store_ceiling(self.stamps.last.get()).await
    }
}
