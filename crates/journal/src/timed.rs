//! A leg that answers in time or not at all, for all that reads or fills legs: opening,
//! mending, taking one in. The stream of batches is watched by `pump.rs`, which needs no
//! timer per write.
//!
//! Cost: one timer per I/O, no copy.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use base::port::{Clock, Leg, LegInfo, LocalFuture, MediaFault, World};
use base::{Buf, BufMut};

use crate::journal::LEG_LIMIT;

/// See the module's head.
pub(crate) struct TimedLeg {
    leg: Rc<dyn Leg>,
    clock: Rc<dyn Clock>,
}

impl TimedLeg {
    /// `leg`, with a limit.
    pub(crate) fn wrap(leg: &Rc<dyn Leg>, world: &World) -> Rc<dyn Leg> {
        Rc::new(TimedLeg { leg: leg.clone(), clock: world.clock.clone() })
    }

    async fn within<T>(&self, mut io: LocalFuture<'_, T>) -> Option<T> {
        let mut late = self.clock.sleep_until(self.clock.now() + LEG_LIMIT);
        poll_fn(|context| match io.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => late.as_mut().poll(context).map(|()| None),
        })
        .await
    }
}

impl Leg for TimedLeg {
    fn info(&self) -> LegInfo {
        self.leg.info()
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            let len_bytes = buf.len();
            let done = self.within(self.leg.read(offset_bytes, buf)).await;
            done.unwrap_or_else(|| (Err(MediaFault::Timeout), BufMut::zeroed(len_bytes)))
        })
    }

    fn write(&self, offset_bytes: u64, data: Buf) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let done = self.within(self.leg.write(offset_bytes, data)).await;
            done.unwrap_or(Err(MediaFault::Timeout))
        })
    }

    fn gathers(&self) -> bool {
        self.leg.gathers()
    }

    fn write_gathered(&self, offset_bytes: u64, pieces: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            let done = self.within(self.leg.write_gathered(offset_bytes, pieces)).await;
            done.unwrap_or(Err(MediaFault::Timeout))
        })
    }
}
