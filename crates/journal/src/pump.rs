//! The journal's background task: starts writes, takes their results, seals when idle.
//!
//! A leg may hang: neither take a write nor refuse it. Whoever waits for it then waits for
//! ever, and every client with it. So a leg that is silent for too long is lost, like one
//! that refuses. What was started there may still arrive; that does no harm, because the
//! root stops naming the leg before anything more is acknowledged.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::port::{Leg, LocalFuture, MediaFault};
use base::{Buf, Nanos};

use crate::batch::split;
use crate::format::RING_START_BYTES;
use crate::state::Shared;

struct LegWrite {
    leg: usize,
    batch: u64,
    started: Nanos,
    future: LocalFuture<'static, Result<(), MediaFault>>,
}

struct Pump {
    shared: Rc<Shared>,
    writes: Vec<LegWrite>,
    /// When a seal is due if nothing is written until then.
    seal_at: Option<Nanos>,
    /// Ends then, or at a time before: it is not set anew for each write.
    timer: Option<LocalFuture<'static, ()>>,
    /// Armed while writes are on their way.
    patience: Option<LocalFuture<'static, ()>>,
}

/// Runs until the last handle of the journal is dropped.
pub(crate) async fn run(shared: Rc<Shared>) {
    let mut pump = Pump { shared, writes: Vec::new(), seal_at: None, timer: None, patience: None };
    poll_fn(|context| pump.poll(context)).await;
}

impl Pump {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.shared.state.borrow().closed {
                return Poll::Ready(());
            }
            self.shared.state.borrow_mut().set_pump_waker(context.waker());
            let moved = self.poll_writes(context) | self.start_writes() | self.poll_quiet(context);
            if !moved && !self.poll_patience(context) {
                return Poll::Pending;
            }
        }
    }

    fn poll_writes(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        let mut index = 0;
        while index < self.writes.len() {
            let write = &mut self.writes[index];
            let Poll::Ready(result) = write.future.as_mut().poll(context) else {
                index += 1;
                continue;
            };
            let LegWrite { leg, batch, .. } = self.writes.swap_remove(index);
            self.shared.completed(leg, batch, result);
            moved = true;
        }
        moved
    }

    /// Gives up legs that have been silent for too long. The timer is set for the oldest
    /// write and not set back when that one is done: one is enough for a thousand batches.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> bool {
        let clock = &self.shared.world.clock;
        let limit = self.shared.config.leg_limit;
        let oldest = self.writes.iter().map(|write| write.started).min();
        let Some(patience) = &mut self.patience else {
            let Some(oldest) = oldest else { return false };
            self.patience = Some(clock.sleep_until(oldest + limit));
            return true;
        };
        if patience.as_mut().poll(context).is_pending() {
            return false;
        }
        self.patience = None;
        let now = clock.now();
        let (late, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.writes).into_iter().partition(|write| now.since(write.started) >= limit);
        self.writes = waiting;
        for LegWrite { leg, batch, .. } in late {
            self.shared.completed(leg, batch, Err(MediaFault::Timeout));
        }
        true
    }

    fn start_writes(&mut self) -> bool {
        let mut moved = false;
        loop {
            let mut state = self.shared.state.borrow_mut();
            let Some((batch, mark, bytes)) = state.take_batch(&self.shared) else {
                return moved;
            };
            let ring_bytes = state.ring.ring_bytes();
            let started = self.shared.world.clock.now();
            for (leg, slot) in state.legs.iter().enumerate().filter(|(_, slot)| slot.active) {
                let write = write_ring(slot.leg.clone(), ring_bytes, mark.position_bytes, bytes.clone());
                self.writes.push(LegWrite { leg, batch, started, future: Box::pin(write) });
            }
            self.seal_at = None;
            moved = true;
        }
    }

    fn poll_quiet(&mut self, context: &mut Context<'_>) -> bool {
        if !self.shared.state.borrow().wants_seal() {
            self.seal_at = None;
            return false;
        }
        let clock = &self.shared.world.clock;
        let at = *self.seal_at.get_or_insert_with(|| clock.now() + self.shared.config.seal_after);
        let timer = self.timer.get_or_insert_with(|| clock.sleep_until(at));
        if timer.as_mut().poll(context).is_pending() {
            return false;
        }
        self.timer = None;
        if clock.now() < at {
            return true;
        }
        self.seal_at = None;
        self.shared.state.borrow_mut().put_seal(&self.shared);
        true
    }
}

/// Writes the concatenation of `pieces` at `position_bytes` of the ring, in two pieces if it goes around.
pub(crate) async fn write_ring(
    leg: Rc<dyn Leg>,
    ring_bytes: u64,
    position_bytes: u64,
    pieces: Vec<Buf>,
) -> Result<(), MediaFault> {
    let offset = position_bytes % ring_bytes;
    let before_end = usize::try_from(ring_bytes - offset).unwrap_or(usize::MAX);
    let (first, rest) = split(pieces, before_end);
    write_pieces(&leg, RING_START_BYTES + offset, first).await?;
    if rest.is_empty() {
        return Ok(());
    }
    write_pieces(&leg, RING_START_BYTES, rest).await
}

async fn write_pieces(leg: &Rc<dyn Leg>, offset_bytes: u64, mut pieces: Vec<Buf>) -> Result<(), MediaFault> {
    if pieces.len() == 1 && !leg.gathers() {
        return leg.write(offset_bytes, pieces.swap_remove(0)).await;
    }
    leg.write_gathered(offset_bytes, pieces).await
}
