//! From one policy to another while the disk is at work.
//!
//! ```text
//!   wb ──► draining ──► gate closed ──► nothing inside, nothing dirty ──► root twice ──► wt
//!            │ writes go on through the log and are answered when destaged
//!            └──► back to wb at any time before the root
//!   wt ──► gate closed ──► nothing inside ──► backing store flushed ──► root twice ──► wb
//! ```
//!
//! The gate is closed for the last batch only. The root is written to both slots: if one of
//! them rots, the other must not say *wb* of a log whose tail is older than what *wt* wrote.

use std::cell::Cell;
use std::rc::Rc;

use crate::disk::{Event, IoRefused, Mode, Shared, State};
use crate::root::Policy;

/// Runs until the disk is closed.
pub(crate) async fn run(shared: Rc<Shared>) {
    while shared.turn().await.is_ok() {}
}

impl Shared {
    async fn turn(&self) -> Result<(), IoRefused> {
        let wanted = self.until(|state| (state.mode.policy() != Some(state.wanted)).then_some(state.wanted)).await?;
        match wanted {
            Policy::WriteThrough => self.to_write_through().await,
            Policy::WriteBack => self.to_write_back().await,
        }
    }

    fn set_gate(&self, closed: bool) {
        self.state.borrow_mut().gate_closed = closed;
        self.pending.notify_waiters();
        self.changed.notify_waiters();
    }

    async fn to_write_through(&self) -> Result<(), IoRefused> {
        let backlog = {
            let mut state = self.state.borrow_mut();
            state.mode = Mode::Draining;
            state.image.last()
        };
        self.pending.notify_waiters();
        let given_up = |state: &State| state.wanted != Policy::WriteThrough;
        let drained = |state: &State| backlog.is_none_or(|last| state.root.checkpoint >= last);
        self.until(|state| (given_up(state) || drained(state)).then_some(())).await?;
        if !given_up(&self.state.borrow()) {
            self.set_gate(true);
            let empty = |state: &State| state.inside == 0 && state.image.is_empty();
            self.until(|state| (given_up(state) || empty(state)).then_some(())).await?;
        }
        if given_up(&self.state.borrow()) {
            self.state.borrow_mut().mode = Mode::WriteBack;
            self.set_gate(false);
            return Ok(());
        }
        self.enforce(Policy::WriteThrough, Mode::WriteThrough).await
    }

    async fn to_write_back(&self) -> Result<(), IoRefused> {
        self.set_gate(true);
        self.until(|state| (state.inside == 0).then_some(())).await?;
        let pause = Cell::new(self.options.retry.0);
        while let Err(fault) = self.backing.flush().await {
            if self.state.borrow().wanted != Policy::WriteBack {
                self.set_gate(false);
                return Ok(());
            }
            self.wait_for_backing(fault, &pause).await?;
        }
        self.backing_works();
        self.enforce(Policy::WriteBack, Mode::WriteBack).await
    }

    async fn enforce(&self, policy: Policy, mode: Mode) -> Result<(), IoRefused> {
        let mut written = 0;
        while written < 2 {
            let mut root = self.state.borrow().root.clone();
            root.generation += 1;
            root.policy = policy;
            if root.write(self.log.as_ref()).await.is_ok() {
                self.state.borrow_mut().root = root;
                self.flash_works();
                written += 1;
            } else {
                self.tell_flash_failing();
                let pause = Cell::new(self.options.retry.0);
                self.wait_a_little(&pause).await?;
            }
        }
        {
            let mut state = self.state.borrow_mut();
            assert!(policy == Policy::WriteBack || state.image.is_empty(), "C2: nothing is dirty under wt");
            state.mode = mode;
            state.events.push(Event::Policy(policy));
        }
        self.set_gate(false);
        Ok(())
    }

    async fn wait_a_little(&self, pause: &Cell<std::time::Duration>) -> Result<(), IoRefused> {
        self.world.clock.sleep_until(self.world.clock.now() + pause.get()).await;
        if self.state.borrow().closed { Err(IoRefused::Closed) } else { Ok(()) }
    }
}
