//! Faults on purpose, at the drive port of a running store.
//!
//! ```text
//!   group ── lane ── FaultyDrive ── RealDrive       a lab pool
//!   group ── lane ───────────────── RealDrive       every other pool: nothing stands between
//! ```
//!
//! A lab pool was marked when it was made (register `lab`); nothing else takes a fault. A fault
//! belongs to the drive at a path and ends by itself. What it leaves there counts against the
//! redundancy until a scrub that began later is done: so no more drives are made to lie than the
//! pool can lose, and never so many that a majority of its registers could be hit. A restart ends
//! every fault and forgets them.

mod drive;
mod flip;
mod strike;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use base::Nanos;
use base::port::{Drive, World};
use control::inject::{FaultKind, FaultOrder, InjectedFault};
use control::{Problem, codes};
use engine::Scrub;
use jiff::Timestamp;
use raid::Slot;

use crate::inject::drive::FaultyDrive;
use crate::inject::strike::{Act, Asked, Fault, Place};
use crate::shard::Shard;

/// Faults that are over and have left nothing are remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A fault and what became of it.
struct Entry {
    order: FaultOrder,
    fault: Fault,
    /// The drive, by its serial number.
    serial: String,
    drive: String,
    until: Nanos,
    started_at: Timestamp,
    ends_at: Timestamp,
    requests: u64,
    hits: u64,
    /// A scrub has been over all of the drive since it ended.
    is_scrubbed: bool,
}

/// What the group can stand, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// Drives it can lose, besides those that are out.
    tolerated: usize,
    /// Its members.
    members: usize,
    /// Serial numbers of those that are in use.
    in_use: BTreeSet<String>,
}

impl Standing {
    /// Drives that may lie at a time: the others are a majority, and hold enough of each stripe.
    fn liars_max(&self) -> usize {
        self.tolerated.min(self.members.saturating_sub(1) / 2)
    }
}

/// The faults of a lab pool. See the module's head.
pub(crate) struct Injector {
    world: World,
    entries: RefCell<Vec<Entry>>,
}

impl Injector {
    /// With no fault.
    pub fn new(world: World) -> Rc<Injector> {
        Rc::new(Injector { world, entries: RefCell::default() })
    }

    /// `drive`, with the faults that it is ordered to have.
    pub fn wrap(self: &Rc<Self>, drive: Rc<dyn Drive>) -> Rc<dyn Drive> {
        Rc::new(FaultyDrive::new(drive, self.clone()))
    }

    /// What happens to a request of the drive with this serial number.
    fn strike(&self, serial: &str, asked: Asked, place: Place) -> Option<Act> {
        let now = self.world.clock.now();
        let mut entries = self.entries.borrow_mut();
        let is_it = |entry: &&mut Entry| now < entry.until && entry.serial == serial && entry.fault.concerns(asked);
        let entry = entries.iter_mut().find(is_it)?;
        let mut dice = [[0; 8]; 2];
        dice.iter_mut().for_each(|die| self.world.chance.fill(die));
        let act = entry.fault.strike(place, dice.map(u64::from_le_bytes));
        entry.requests += 1;
        entry.hits += u64::from(act.is_some());
        act
    }

    fn wall(&self) -> Timestamp {
        crate::upkeep::at(self.world.clock.wall().0).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn is_on(&self, entry: &Entry) -> bool {
        self.world.clock.now() < entry.until
    }

    fn may_lie(&self, entry: &Entry) -> bool {
        entry.order.kind.leaves_damage() && !entry.is_scrubbed && (entry.hits > 0 || self.is_on(entry))
    }

    /// Whether what the drive with this serial number holds or answers may be wrong. A late answer
    /// is as good as any.
    fn doubts(&self, serial: &str) -> bool {
        let may_be_wrong =
            |entry: &Entry| self.may_lie(entry) || (entry.order.kind == FaultKind::Eio && self.is_on(entry));
        self.entries.borrow().iter().any(|entry| entry.serial == serial && may_be_wrong(entry))
    }

    /// Whether `order` may be carried out at the drive with this serial number.
    fn judge(&self, order: &FaultOrder, serial: &str, standing: &Standing) -> Result<(), Problem> {
        let entries = self.entries.borrow();
        if entries.iter().any(|entry| entry.serial == serial && self.is_on(entry)) {
            return Err(Problem::new(&codes::CONFLICT, format!("drive {} does something wrong already", order.slot))
                .step("vmhold inject list POOL"));
        }
        let in_use = || entries.iter().filter(|entry| standing.in_use.contains(&entry.serial));
        let on = in_use().filter(|entry| self.is_on(entry) || self.may_lie(entry));
        let mut hurt: BTreeSet<&str> = on.map(|entry| entry.serial.as_str()).collect();
        hurt.insert(serial);
        let lying = in_use().filter(|entry| self.may_lie(entry)).map(|entry| entry.serial.as_str());
        let mut lying: BTreeSet<&str> = lying.collect();
        if order.kind.leaves_damage() {
            lying.insert(serial);
        }
        if hurt.len() <= standing.tolerated && lying.len() <= standing.liars_max() {
            return Ok(());
        }
        Err(Problem::new(&codes::WOULD_LOSE_REDUNDANCY, format!("drive {} is one too many", order.slot))
            .why(format!(
                "{} drives would be hurt, with those whose damage no scrub has been over; the pool can stand {}",
                hurt.len(),
                standing.tolerated.min(standing.liars_max())
            ))
            .step("repair what is left of earlier faults: vmhold pool scrub start POOL")
            .note("there is no --force for this"))
    }

    fn begin(&self, order: FaultOrder, serial: &str, drive: String) -> InjectedFault {
        let (now, started_at) = (self.world.clock.now(), self.wall());
        let lasts = Duration::from_secs(order.seconds);
        let entry = Entry {
            fault: Fault::of(&order),
            serial: serial.to_owned(),
            drive,
            until: after(now, lasts),
            started_at,
            ends_at: started_at + lasts,
            requests: 0,
            hits: 0,
            is_scrubbed: false,
            order,
        };
        let shown = self.shown(&entry);
        self.entries.borrow_mut().push(entry);
        shown
    }

    /// A scrub that is done began at `began`.
    fn scrubbed(&self, began: Timestamp) {
        let mut entries = self.entries.borrow_mut();
        entries.iter_mut().filter(|entry| entry.ends_at < began).for_each(|entry| entry.is_scrubbed = true);
        let now = self.wall();
        let old = |entry: &Entry| now.duration_since(entry.ends_at).unsigned_abs() > REMEMBERED && now > entry.ends_at;
        entries.retain(|entry| !old(entry) || self.may_lie(entry));
    }

    fn shown(&self, entry: &Entry) -> InjectedFault {
        InjectedFault {
            drive: entry.drive.clone(),
            path: entry.serial.clone(),
            kind: entry.order.kind,
            percent: entry.order.percent,
            delay_ms: entry.order.delay_ms,
            is_on: self.is_on(entry),
            started_at: entry.started_at,
            ends_at: entry.ends_at,
            requests: entry.requests,
            hits: entry.hits,
            awaits_scrub: self.may_lie(entry),
        }
    }

    /// Every fault that is remembered, newest first.
    pub fn list(&self) -> Vec<InjectedFault> {
        self.entries.borrow().iter().rev().map(|entry| self.shown(entry)).collect()
    }

    /// Those that are on.
    pub fn on(&self) -> Vec<InjectedFault> {
        let mut all = self.list();
        all.retain(|fault| fault.is_on);
        all
    }

    fn end(&self) -> Vec<InjectedFault> {
        let (now, ended_at) = (self.world.clock.now(), self.wall());
        let mut ended = Vec::new();
        for entry in self.entries.borrow_mut().iter_mut().filter(|entry| self.is_on(entry)) {
            (entry.until, entry.ends_at) = (now, ended_at);
            ended.push(self.shown(entry));
        }
        ended
    }
}

fn after(now: Nanos, lasts: Duration) -> Nanos {
    Nanos(now.0.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX)))
}

/// Whether a pass could read every unit, and what was wrong is right again. A drive that was out
/// meanwhile may come back with what is wrong on it.
pub(crate) fn left_nothing(found: &Scrub) -> bool {
    found.units_absent == 0 && found.units_unrepaired == 0
}

fn is_in_use(drive: &raid::DriveStatus) -> bool {
    matches!(drive.state, raid::DriveState::Good | raid::DriveState::Rebuilding)
}

impl Shard {
    /// The injector; refuses on a pool that was not made as a lab pool.
    fn injector(&self) -> Result<&Rc<Injector>, Problem> {
        let pool = &self.config.pool;
        self.media.healer.injector().ok_or_else(|| {
            Problem::new(&codes::NOT_A_LAB_POOL, format!("pool \"{pool}\" was not made as a lab pool"))
                .why("faults on purpose are for pools whose data does not matter")
                .step("try it on a pool that was made for it: vmhold quickstart")
        })
    }

    /// Faults that are on, for `pool show`.
    pub(crate) fn faults_on(&self) -> Vec<InjectedFault> {
        self.media.healer.injector().map_or_else(Vec::new, |injector| injector.on())
    }

    /// Numbers of those of `drives` that count as lost, though they are in use: what they hold or
    /// answer may be wrong on purpose.
    pub(crate) fn doubted_drives(&self, drives: &[raid::DriveStatus]) -> Vec<u32> {
        let Some(injector) = self.media.healer.injector() else { return Vec::new() };
        self.note_scrubs(injector);
        let in_doubt = drives.iter().filter(|drive| is_in_use(drive) && injector.doubts(&drive.serial));
        in_doubt.map(|drive| u32::from(drive.slot.0) + 1).collect()
    }

    /// All of them.
    pub(crate) fn faults(&self) -> Result<Vec<InjectedFault>, Problem> {
        let injector = self.injector()?;
        self.note_scrubs(injector);
        Ok(injector.list())
    }

    /// Which of the faults left nothing that the newest complete scrub has not seen and repaired.
    fn note_scrubs(&self, injector: &Injector) {
        let passes = self.engine.scrub_status().history;
        let passes = passes.iter().filter(|pass| left_nothing(&pass.found)).map(|pass| pass.started.0);
        let began = passes.chain(self.last_fsck_ns.get().map(|(began, _)| began));
        began.max().and_then(crate::upkeep::at).into_iter().for_each(|began| injector.scrubbed(began));
    }

    /// Whether `order` would be refused; says the serial number of its drive.
    pub(crate) fn could_inject(&self, order: &FaultOrder) -> Result<String, Problem> {
        let injector = self.injector()?;
        self.note_scrubs(injector);
        let status = self.engine.group().status();
        let place = format!("{}/{}", self.config.pool, order.slot);
        let is_it = |drive: &&raid::DriveStatus| u32::from(drive.slot.0) + 1 == order.slot;
        let drive =
            status.drives.iter().find(is_it).ok_or_else(|| {
                Problem::new(&codes::NOT_FOUND, format!("no drive {place:?}")).step("vmhold drive list")
            })?;
        if !is_in_use(drive) {
            return Err(Problem::new(&codes::CONFLICT, format!("{place} is not in use")).step("vmhold drive list"));
        }
        let in_use = status.drives.iter().filter(|drive| is_in_use(drive)).map(|drive| drive.serial.clone());
        let standing = Standing {
            tolerated: usize::from(status.failures_tolerated),
            members: status.drives.len(),
            in_use: in_use.collect(),
        };
        injector.judge(order, &drive.serial, &standing)?;
        Ok(drive.serial.clone())
    }

    /// Carries `order` out.
    pub(crate) fn inject(&self, order: FaultOrder) -> Result<InjectedFault, Problem> {
        let serial = self.could_inject(&order)?;
        let slot = Slot(u8::try_from(order.slot - 1).unwrap_or(u8::MAX));
        let fault = self.injector()?.begin(order, &serial, format!("{}/{}", self.config.pool, slot.0 + 1));
        tracing::warn!(code = "VH1017", drive = fault.drive, fault = fault.detail(), "a fault is injected on purpose");
        Ok(fault)
    }

    /// Ends every fault.
    pub(crate) fn end_faults(&self) -> Result<Vec<InjectedFault>, Problem> {
        let ended = self.injector()?.end();
        for fault in &ended {
            tracing::info!(code = "VH1017", drive = fault.drive, hits = fault.hits, "a fault on purpose was ended");
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests;
