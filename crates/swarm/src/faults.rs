//! The faults of a seed: what may strike drives and legs, inside the budget.
//!
//! Budget of drives: two of any stripe, and so that it needs no knowledge of stripes, two
//! drives with any damage at a time. Budget of the journal: all legs but one.

use world_sim::fault::FaultClass;
use world_sim::{Atlas, FaultPlan, FaultRates, Rng};

use crate::pool::Pool;

/// Classes that mean something for a leg, which has no flush.
const LEG_CLASSES: [FaultClass; 10] = [
    FaultClass::FlipAtRest,
    FaultClass::Unreadable,
    FaultClass::LostWrite,
    FaultClass::StaleRange,
    FaultClass::MisdirectedWrite,
    FaultClass::TornWrite,
    FaultClass::Gone,
    FaultClass::Blank,
    FaultClass::Slow,
    FaultClass::ReadOnly,
];

/// See the module's head.
pub struct Faults {
    drives: FaultPlan,
    drive_atlas: Atlas,
    legs: FaultPlan,
    leg_atlas: Atlas,
    /// Chance of a strike at a look around, in percent.
    strike_percent: u32,
    leg_percent: u32,
}

impl Faults {
    /// The faults of a seed; one seed in five is calm.
    pub fn draw(pool: &Pool, rng: &mut Rng) -> Faults {
        let calm = rng.percent(20);
        let drives = if calm { FaultPlan::none() } else { FaultPlan::draw(rng) };
        let mut legs = FaultPlan::none();
        legs.classes = LEG_CLASSES.into_iter().filter(|_| !calm && rng.percent(50)).collect();
        Faults {
            drives,
            drive_atlas: Atlas::whole_drives(&pool.drives, 2),
            legs,
            leg_atlas: Atlas::whole_drives(&pool.legs, pool.legs.len() - 1),
            strike_percent: rng.below(60) as u32,
            leg_percent: rng.below(10) as u32,
        }
    }

    /// Lets the faults that come with each I/O happen from now on.
    pub fn begin(&self, pool: &Pool) {
        self.drives.apply_rates(&pool.drives, &self.drive_atlas);
        // Armed faults of legs ask this atlas when they land.
        pool.legs.iter().for_each(|leg| leg.set_rates(FaultRates::default(), Some(&self.leg_atlas)));
    }

    /// Perhaps lets one fault happen.
    pub fn strike(&mut self, pool: &Pool, rng: &mut Rng) {
        if rng.percent(self.strike_percent) {
            self.drives.strike(&pool.drives, &self.drive_atlas, rng);
        }
        if rng.percent(self.leg_percent) {
            self.legs.strike(&pool.legs, &self.leg_atlas, rng);
        }
    }

    /// Lifts everything that can be lifted; no more faults.
    pub fn end(&mut self, pool: &Pool) {
        self.drives = FaultPlan::none();
        self.legs = FaultPlan::none();
        pool.drives.iter().chain(&pool.legs).for_each(world_sim::SimMedia::heal);
    }
}
