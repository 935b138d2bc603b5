//! Requests at work, without a task or an allocation for each.
//!
//! A slot owns a boxed place for one future; when a request is answered, the next one is
//! put into the same place. Each slot has its own waker, which notes the slot's number in
//! a list and wakes the connection; so a group commit that ends sixteen writes costs
//! sixteen pushes, one wake-up of the connection, sixteen polls and one vectored write.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Which slots want to be polled, and whom to wake for it.
#[derive(Default)]
struct Ready {
    slots: Mutex<Vec<usize>>,
    owner: Mutex<Option<Waker>>,
}

struct SlotWaker {
    slot: usize,
    is_listed: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_listed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.ready.slots.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
        if let Some(owner) = self.ready.owner.lock().unwrap_or_else(PoisonError::into_inner).take() {
            owner.wake();
        }
    }
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
    listed: Arc<SlotWaker>,
    weight_bytes: usize,
}

/// Futures at work, each with the weight of what it holds on to.
pub struct InFlight<F> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    /// Taken from the list, to be polled; kept for its memory.
    batch: Vec<usize>,
    weight_bytes: usize,
}

impl<F: Future> Default for InFlight<F> {
    fn default() -> Self {
        let (slots, free, batch) = (Vec::new(), Vec::new(), Vec::new());
        InFlight { slots, free, ready: Arc::default(), batch, weight_bytes: 0 }
    }
}

impl<F: Future> InFlight<F> {
    /// Futures at work.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is at work.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the weights at work.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Starts a future and polls it at once; returns its output if that was enough.
    pub fn start(&mut self, future: F, weight_bytes: usize) -> Option<F::Output> {
        let at = self.free.pop().unwrap_or_else(|| self.add_slot());
        let slot = &mut self.slots[at];
        slot.future.set(Some(future));
        slot.weight_bytes = weight_bytes;
        self.weight_bytes += weight_bytes;
        self.poll_slot(at)
    }

    fn add_slot(&mut self) -> usize {
        let slot = self.slots.len();
        let listed = Arc::new(SlotWaker { slot, is_listed: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(listed.clone());
        self.slots.push(Slot { future: Box::pin(None), waker, listed, weight_bytes: 0 });
        slot
    }

    fn poll_slot(&mut self, at: usize) -> Option<F::Output> {
        let slot = &mut self.slots[at];
        let future = slot.future.as_mut().as_pin_mut()?;
        let Poll::Ready(output) = future.poll(&mut Context::from_waker(&slot.waker)) else { return None };
        slot.future.set(None);
        self.weight_bytes -= slot.weight_bytes;
        self.free.push(at);
        Some(output)
    }

    /// Polls every future that was woken and hands over what they returned. `context` is
    /// woken when another one wants to be polled.
    pub fn poll(&mut self, context: &mut Context<'_>, mut done: impl FnMut(F::Output)) {
        *self.ready.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        let mut batch = std::mem::take(&mut self.batch);
        std::mem::swap(&mut batch, &mut *self.ready.slots.lock().unwrap_or_else(PoisonError::into_inner));
        for at in batch.drain(..) {
            self.slots[at].listed.is_listed.store(false, Ordering::Release);
            if let Some(output) = self.poll_slot(at) {
                done(output);
            }
        }
        self.batch = batch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    #[test]
    fn slots_are_used_again_and_only_woken_ones_are_polled() {
        let wakers: Rc<RefCell<Vec<Option<Waker>>>> = Rc::new(RefCell::new(vec![None; 3]));
        let polls = Rc::new(Cell::new(0));
        let request = |name: usize| {
            let (wakers, polls) = (wakers.clone(), polls.clone());
            let mut started = false;
            std::future::poll_fn(move |context| {
                polls.set(polls.get() + 1);
                if std::mem::replace(&mut started, true) {
                    return Poll::Ready(name);
                }
                wakers.borrow_mut()[name] = Some(context.waker().clone());
                Poll::Pending
            })
        };
        let mut at_work = InFlight::default();
        (0..3).for_each(|name| assert_eq!(at_work.start(request(name), 10), None));
        assert_eq!((at_work.len(), at_work.weight_bytes(), polls.get()), (3, 30, 3));
        let mut done = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        at_work.poll(&mut context, |name| done.push(name));
        assert!(done.is_empty());
        for name in [2, 0, 0] {
            wakers.borrow()[name].as_ref().unwrap().wake_by_ref();
        }
        at_work.poll(&mut context, |name| done.push(name));
        assert_eq!((done, at_work.len(), polls.get()), (vec![2, 0], 1, 5));
        at_work.start(request(0), 1);
        assert_eq!((at_work.slots.len(), at_work.weight_bytes()), (3, 11));
    }
}
