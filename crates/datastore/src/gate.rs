//! Small, fair, async read-write locks by file id, for one thread.
//!
//! * Fair: a request waits behind every earlier one it could disturb, so writers do not
//!   starve and neither do readers.
//! * Whoever needs several enters them in ascending order ([`Gates::enter_all`]) and enters
//!   nothing more afterwards, so there is no deadlock.
//! * Dropping the future of an entry gives up the place in the queue; dropping a [`Pass`]
//!   lets the next ones in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use base::FileId;
use smallvec::SmallVec;

/// How to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With others that share.
    Shared,
    /// Alone.
    Exclusive,
}

/// One lock per file id; only those in use take memory.
#[derive(Default)]
pub(crate) struct Gates {
    gates: RefCell<BTreeMap<FileId, Gate>>,
}

#[derive(Default)]
struct Gate {
    sharing: usize,
    alone: bool,
    queue: VecDeque<Rc<Waiter>>,
}

struct Waiter {
    mode: Mode,
    inside: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    fn admits(&self, mode: Mode) -> bool {
        match mode {
            Mode::Shared => !self.alone,
            Mode::Exclusive => !self.alone && self.sharing == 0,
        }
    }

    fn take(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.sharing += 1,
            Mode::Exclusive => self.alone = true,
        }
    }

    /// Lets in from the front of the queue whoever fits now.
    fn advance(&mut self, wake: &mut SmallVec<[Waker; 4]>) {
        while let Some(first) = self.queue.front() {
            if !self.admits(first.mode) {
                break;
            }
            let first = self.queue.pop_front().expect("front was there");
            self.take(first.mode);
            first.inside.set(true);
            wake.extend(first.waker.take());
        }
    }

    fn idle(&self) -> bool {
        self.sharing == 0 && !self.alone && self.queue.is_empty()
    }
}

/// Being inside. Dropping it leaves.
pub(crate) struct Pass<'a> {
    gates: &'a Gates,
    file: FileId,
    mode: Mode,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gates.change(self.file, |gate| match self.mode {
            Mode::Shared => gate.sharing -= 1,
            Mode::Exclusive => gate.alone = false,
        });
    }
}

/// Passes of several gates.
pub(crate) type Passes<'a> = SmallVec<[Pass<'a>; 4]>;

impl Gates {
    /// Enters the gate of `file`.
    pub fn enter(&self, file: FileId, mode: Mode) -> Enter<'_> {
        Enter { gates: self, file, mode, waiter: None }
    }

    /// Enters at once or not at all.
    pub fn try_enter(&self, file: FileId, mode: Mode) -> Option<Pass<'_>> {
        match self.gates.borrow_mut().entry(file) {
            Entry::Vacant(vacant) => vacant.insert(Gate::default()).take(mode),
            Entry::Occupied(mut gate) if gate.get().queue.is_empty() && gate.get().admits(mode) => {
                gate.get_mut().take(mode);
            }
            Entry::Occupied(_) => return None,
        }
        Some(Pass { gates: self, file, mode })
    }

    /// Enters all of `files` alone, in ascending order; repeated ids count once.
    pub async fn enter_all(&self, files: &[FileId]) -> Passes<'_> {
        let mut order: SmallVec<[FileId; 4]> = files.into();
        order.sort_unstable();
        order.dedup();
        let mut passes = Passes::new();
        for file in order {
            passes.push(self.enter(file, Mode::Exclusive).await);
        }
        passes
    }

    /// Whether somebody is inside alone.
    pub fn is_alone(&self, file: FileId) -> bool {
        self.gates.borrow().get(&file).is_some_and(|gate| gate.alone)
    }

    fn change(&self, file: FileId, change: impl FnOnce(&mut Gate)) {
        let mut wake = SmallVec::new();
        if let Entry::Occupied(mut entry) = self.gates.borrow_mut().entry(file) {
            let gate = entry.get_mut();
            change(gate);
            gate.advance(&mut wake);
            if gate.idle() {
                entry.remove();
            }
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

/// Waiting to enter.
pub(crate) struct Enter<'a> {
    gates: &'a Gates,
    file: FileId,
    mode: Mode,
    waiter: Option<Rc<Waiter>>,
}

impl<'a> Future for Enter<'a> {
    type Output = Pass<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Pass<'a>> {
        let Some(waiter) = &self.waiter else {
            if let Some(pass) = self.gates.try_enter(self.file, self.mode) {
                return Poll::Ready(pass);
            }
            let waker = RefCell::new(Some(context.waker().clone()));
            let waiter = Rc::new(Waiter { mode: self.mode, inside: Cell::new(false), waker });
            let mut gates = self.gates.gates.borrow_mut();
            gates.get_mut(&self.file).expect("a gate that refuses exists").queue.push_back(waiter.clone());
            drop(gates);
            self.waiter = Some(waiter);
            return Poll::Pending;
        };
        if waiter.inside.get() {
            self.waiter = None;
            return Poll::Ready(Pass { gates: self.gates, file: self.file, mode: self.mode });
        }
        *waiter.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if waiter.inside.get() {
            drop(Pass { gates: self.gates, file: self.file, mode: self.mode });
        } else {
            self.gates.change(self.file, |gate| gate.queue.retain(|other| !Rc::ptr_eq(other, &waiter)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    const A: FileId = FileId(1);

    #[test]
    fn sharers_share_and_a_waiting_writer_holds_back_later_readers() {
        let gates = Gates::default();
        let first = gates.try_enter(A, Mode::Shared).unwrap();
        let second = gates.try_enter(A, Mode::Shared).unwrap();
        let mut writer = Box::pin(gates.enter(A, Mode::Exclusive));
        assert!(poll(&mut writer).is_none());
        assert!(gates.try_enter(A, Mode::Shared).is_none(), "behind the writer");
        let mut reader = Box::pin(gates.enter(A, Mode::Shared));
        assert!(poll(&mut reader).is_none());
        drop(first);
        assert!(poll(&mut writer).is_none());
        drop(second);
        let alone = poll(&mut writer).unwrap();
        assert!(gates.is_alone(A) && poll(&mut reader).is_none());
        drop(alone);
        let shared = poll(&mut reader).unwrap();
        assert!(!gates.is_alone(A));
        drop(shared);
        assert!(gates.gates.borrow().is_empty(), "an idle gate takes no memory");
    }

    #[test]
    fn giving_up_leaves_the_queue_in_every_state() {
        let gates = Gates::default();
        let inside = gates.try_enter(A, Mode::Shared).unwrap();
        let mut writer = Box::pin(gates.enter(A, Mode::Exclusive));
        let mut reader = Box::pin(gates.enter(A, Mode::Shared));
        assert!(poll(&mut writer).is_none() && poll(&mut reader).is_none());
        drop(writer);
        let shared = poll(&mut reader).unwrap();
        let mut next = Box::pin(gates.enter(A, Mode::Exclusive));
        assert!(poll(&mut next).is_none());
        drop((inside, shared));
        drop(next); // let in, but never polled again
        assert!(gates.gates.borrow().is_empty());
    }
}
