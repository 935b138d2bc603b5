//! The destager of one disk: batch, write all at once, flush, checkpoint, trim, evict.
//!
//! A write that fails is written again until the backing store takes it. A *flush* that
//! fails may have lost any write before it (the kernel of the backing store drops what it
//! could not write), so the whole batch is written again. The turn at the store is given
//! back while it fails, so that a disk whose backing store is gone does not hold up others.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base::Nanos;
use base::port::MediaFault;
use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt};

use crate::batch::{Batch, Run, form};
use crate::disk::{Mode, Shared};

/// Runs until the disk is closed. What is dirty then stays in the log.
pub(crate) async fn run(shared: Rc<Shared>) {
    while shared.until_worthwhile().await {
        shared.destage_batch().await;
    }
}

impl Shared {
    /// Returns when a batch is worth writing (enough of it, old enough, or someone waits for
    /// it); false when the disk is closed.
    async fn until_worthwhile(&self) -> bool {
        loop {
            let pending = self.pending.notified();
            let mut pending = std::pin::pin!(pending);
            pending.as_mut().enable();
            let wait = {
                let state = self.state.borrow();
                if state.closed {
                    return false;
                }
                let now = self.world.clock.now();
                match state.image.oldest().map(|write| write.since + self.options.settle) {
                    None => None,
                    Some(due) => {
                        let cap = &self.options.batch;
                        let enough =
                            state.image.payload_bytes() >= cap.bytes_max || state.image.writes() >= cap.writes_max;
                        let asked = state.hurry > 0 || state.mode == Mode::Draining || state.gate_closed;
                        if enough || asked || due <= now || self.world.chance.maybe("cache: early batch") {
                            return true;
                        }
                        Some(due)
                    }
                }
            };
            match wait {
                None => pending.await,
                Some(due) => {
                    // Whichever comes first, the state is looked at again.
                    select(pending, self.world.clock.sleep_until(due)).await;
                }
            }
        }
    }

    /// Brings the next batch to the backing store, however long that takes.
    async fn destage_batch(&self) {
        let pause = Cell::new(self.options.retry.0);
        let started = self.world.clock.now();
        loop {
            // The semaphore lives as long as the disks do and is never closed.
            let Ok(turn) = self.turns.acquire().await else { return };
            let batch = form(self.state.borrow().image.pending(), &self.options.batch);
            let Some(batch) = batch else { return };
            let done = self.write_batch(&batch).await;
            match done {
                Ok(()) => {
                    self.backing_works();
                    self.checkpoint(&batch, started).await;
                    drop(turn);
                    // Others in the queue for this store come first.
                    self.world.yield_now().await;
                    return;
                }
                Err(fault) => {
                    drop(turn);
                    if self.wait_for_backing(fault, &pause).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Writes all pieces at once, then flushes.
    async fn write_batch(&self, batch: &Batch) -> Result<(), MediaFault> {
        let mut writes = stream::iter(&batch.runs).map(|run| self.write_run(run)).buffer_unordered(self.options.depth);
        let mut outcome = Ok(());
        while let Some(done) = writes.next().await {
            outcome = outcome.and(done);
        }
        outcome?;
        self.backing.flush().await
    }

    async fn write_run(&self, run: &Run) -> Result<(), MediaFault> {
        let started = self.world.clock.now();
        match run.zeros() {
            Some(may_punch) => self.backing.zero(run.offset_bytes, run.length_bytes, may_punch).await?,
            None => self.backing.write(run.offset_bytes, run.gather().freeze()).await?,
        }
        let took = self.world.clock.now().since(started);
        let mut state = self.state.borrow_mut();
        state.counts.backing_write.add(took);
        state.counts.destaged_bytes += run.length_bytes;
        Ok(())
    }

    /// The backing store holds `batch`: says so on flash, then lets go of it (C3).
    async fn checkpoint(&self, batch: &Batch, started: Nanos) {
        let pause = Cell::new(Duration::from_millis(10));
        loop {
            let mut root = self.state.borrow().root.clone();
            root.generation += 1;
            root.checkpoint = batch.last;
            root.journal.trim = self.journal.trim_point_for(batch.last_sequence);
            if root.write(self.log.as_ref()).await.is_ok() {
                self.state.borrow_mut().root = root;
                self.flash_works();
                break;
            }
            // Nothing is lost: the log still begins where it did. Go on when flash answers.
            self.tell_flash_failing();
            if self.pause_for_flash(&pause).await {
                return;
            }
        }
        self.journal.trim(batch.last_sequence);
        let took = self.world.clock.now().since(started);
        let mut state = self.state.borrow_mut();
        state.image.evict(batch.last);
        state.counts.batches += 1;
        state.flow.destaged(batch.payload_bytes, took);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits before flash is tried again; true when the disk was closed.
    async fn pause_for_flash(&self, pause: &Cell<Duration>) -> bool {
        let wait = pause.get();
        pause.set((wait * 2).min(self.options.retry.1));
        let over = self.world.clock.sleep_until(self.world.clock.now() + wait);
        let closed = self.until(|state| state.closed.then_some(()));
        matches!(select(over, std::pin::pin!(closed)).await, Either::Right(_)) || self.state.borrow().closed
    }
}
