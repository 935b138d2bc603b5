//! Journal legs that come back: taking one in, so that there are two copies again.
//!
//! A leg that failed or hung is lost for good as far as its content goes; the root no
//! longer names it. The leg itself may be taken in as a new life: filled anew from the
//! other leg, and counted from the moment the root names it (`journal::resilver`). That
//! happens by itself at opening, when a configured leg turns out to be blank or an
//! earlier life of this very journal; at work somebody asks for it, because only people
//! know that a device that hung is mended.

use std::rc::Rc;

use base::Incarnation;
use base::port::Leg;
use journal::{AddLegRefused, LegVerdict};

use crate::engine::Engine;
use crate::options::Event;
use crate::root::Root;
use crate::store::StoreRefusal;

/// Why a leg was not taken in. Nothing that was acknowledged depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeInRefused {
    /// The journal does not take it.
    #[error(transparent)]
    Leg(#[from] AddLegRefused),
    /// The store has stopped, or no majority of the drives took the root.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
}

impl Engine {
    /// Fills `leg` from the working one and counts on it from then on. What it held is
    /// gone. Service goes on meanwhile.
    pub async fn take_in_leg(&self, leg: Rc<dyn Leg>) -> Result<(), TakeInRefused> {
        let inner = &self.inner;
        inner.refuse_if_stopped()?;
        let mut incarnation = Incarnation::default();
        inner.world.chance.fill(&mut incarnation.0);
        match inner.journal.add_leg(leg.clone(), incarnation).await {
            // A checkpoint makes the damaged batch go away.
            Err(AddLegRefused::Damaged) => {
                self.settle().await?;
                inner.journal.add_leg(leg, incarnation).await?;
            }
            outcome => outcome?,
        }
        let mut mover = inner.mover.lock().await;
        let root = Root { incarnations: inner.journal.incarnations(), ..mover.root.clone() };
        inner.swing_root(&mut mover, root).await?;
        inner.event(Event::LegTakenIn);
        Ok(())
    }

    /// Takes in those of `legs` that opening found blank or of an earlier life, beside
    /// everything else.
    pub(crate) fn take_in_returned(&self, legs: &[Rc<dyn Leg>], verdicts: &[LegVerdict]) {
        let returned = legs
            .iter()
            .zip(verdicts)
            .filter(|(_, verdict)| matches!(verdict, LegVerdict::Blank | LegVerdict::OldIncarnation));
        for (leg, _) in returned {
            let (engine, leg) = (self.clone(), leg.clone());
            let task = async move {
                if let Err(refused) = engine.take_in_leg(leg).await {
                    engine.inner.event(Event::LegNotTakenIn { refused });
                }
            };
            self.inner.world.spawn.spawn("leg", Box::pin(task));
        }
    }
}
