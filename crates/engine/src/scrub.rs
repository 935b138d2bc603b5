//! Scrub: every unit of every written stripe is read and checked, data and parity, and
//! what is damaged is rewritten before the damage can add up (`faults.md` F01).
//!
//! Movers wait for one stripe at a time, clients not at all.

use raid::Principal;

use crate::engine::Engine;
use crate::store::StoreRefusal;

/// What a scrub found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// Stripes read.
    pub stripes: u64,
    /// Damaged units that were rewritten and are right again.
    pub units_repaired: u64,
    /// Damaged units that could not be rewritten.
    pub units_unrepaired: u64,
    /// Units on absent drives.
    pub units_absent: u64,
    /// Stripes with too few good units left.
    pub stripes_lost: u64,
    /// Stripes whose parity does not fit good data: a defect of this program.
    pub stripes_inconsistent: u64,
}

impl Engine {
    /// Checks and repairs every stripe that is written when it begins and not freed
    /// before its turn.
    pub async fn scrub(&self) -> Result<Scrub, StoreRefusal> {
        let inner = &self.inner;
        let written = inner.state.borrow().stripes.written();
        let mut scrub = Scrub::default();
        for (stripe, generation) in written {
            inner.refuse_if_stopped()?;
            let _mover = inner.mover.lock().await;
            if inner.state.borrow().stripes.generation(stripe) != generation {
                continue;
            }
            let verdict = inner.group.acting_as(Principal::Scrub).scrub_stripe(stripe, generation).await;
            scrub.stripes += 1;
            scrub.units_repaired += verdict.repaired.len() as u64;
            scrub.units_unrepaired += verdict.unrepaired.len() as u64;
            scrub.units_absent += u64::from(verdict.absent);
            scrub.stripes_lost += u64::from(verdict.lost);
            scrub.stripes_inconsistent += u64::from(verdict.inconsistent);
        }
        Ok(scrub)
    }
}
