//! The journal's background task: starts writes, takes their results, seals when idle.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::Buf;
use base::port::{Leg, LocalFuture, MediaFault};

use crate::format::RING_START_BYTES;
use crate::state::Shared;

struct LegWrite {
    leg: usize,
    batch: u64,
    future: LocalFuture<'static, Result<(), MediaFault>>,
}

struct Pump {
    shared: Rc<Shared>,
    writes: Vec<LegWrite>,
    quiet: Option<LocalFuture<'static, ()>>,
}

/// Runs until the last handle of the journal is dropped.
pub(crate) async fn run(shared: Rc<Shared>) {
    let mut pump = Pump { shared, writes: Vec::new(), quiet: None };
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
            if !moved {
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

    fn start_writes(&mut self) -> bool {
        let mut moved = false;
        loop {
            let mut state = self.shared.state.borrow_mut();
            let Some((batch, mark, bytes)) = state.take_batch(&self.shared) else {
                return moved;
            };
            let ring_bytes = state.ring.ring_bytes();
            for (leg, slot) in state.legs.iter().enumerate().filter(|(_, slot)| slot.active) {
                let write = write_ring(slot.leg.clone(), ring_bytes, mark.position_bytes, bytes.clone());
                self.writes.push(LegWrite { leg, batch, future: Box::pin(write) });
            }
            self.quiet = None;
            moved = true;
        }
    }

    fn poll_quiet(&mut self, context: &mut Context<'_>) -> bool {
        if !self.shared.state.borrow().wants_seal() {
            self.quiet = None;
            return false;
        }
        let quiet = self.quiet.get_or_insert_with(|| {
            let clock = &self.shared.world.clock;
            clock.sleep_until(clock.now() + self.shared.config.seal_after)
        });
        if quiet.as_mut().poll(context).is_pending() {
            return false;
        }
        self.quiet = None;
        self.shared.state.borrow_mut().put_seal(&self.shared);
        true
    }
}

/// Writes `bytes` at `position_bytes` of the ring, in two pieces if it goes around.
pub(crate) async fn write_ring(
    leg: Rc<dyn Leg>,
    ring_bytes: u64,
    position_bytes: u64,
    bytes: Buf,
) -> Result<(), MediaFault> {
    let offset = position_bytes % ring_bytes;
    let before_end = usize::try_from(ring_bytes - offset).unwrap_or(usize::MAX);
    if bytes.len() <= before_end {
        return leg.write(RING_START_BYTES + offset, bytes).await;
    }
    leg.write(RING_START_BYTES + offset, bytes.slice(..before_end)).await?;
    leg.write(RING_START_BYTES, bytes.slice(before_end..)).await
}
