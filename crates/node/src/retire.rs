//! Retiring a drive on request, in the words of the API (decision 0028).

use std::path::Path;
use std::rc::Rc;

use base::port::Drive as _;
use control::upkeep::DriveTaken;
use control::{Problem, codes};
use engine::Engine;
use raid::{Finding, JoinRefused, Slot};
use world_real::RealDrive;

use crate::healer::{Bay, Healer, Use};
use crate::shard::Shard;
use crate::upkeep::not_taken;

impl Healer {
    /// The drive at `path`, or the smallest spare that fits, to take the slot of a good one.
    /// `None`: there is no such spare.
    fn candidate(
        &self,
        engine: &Engine,
        slot: Slot,
        path: Option<&Path>,
    ) -> Result<(Rc<Bay>, Rc<RealDrive>), Option<String>> {
        if let Some(path) = path {
            let offered = self.offered(&[path.to_owned()]).map_err(|(_, why)| Some(why))?;
            return offered.into_iter().next().ok_or(None);
        }
        let needed_bytes = engine.group().needed_bytes(slot);
        let mut spares = self.spares();
        spares.retain(|(_, drive)| drive.info().capacity_bytes >= needed_bytes);
        spares.into_iter().min_by_key(|(_, drive)| drive.info().capacity_bytes).ok_or(None)
    }

    /// Begins to retire the drive in `slot` behind the one in `bay`.
    async fn retire(
        &self,
        engine: &Engine,
        slot: Slot,
        (bay, drive): (Rc<Bay>, Rc<RealDrive>),
    ) -> Result<(), JoinRefused> {
        // Nobody else gives it away meanwhile, and nobody takes it for one whose time is over.
        bay.used_as.set(Use::Twin(slot));
        self.begins_twin.set(true);
        let begun = engine.retire_drive(slot, self.port(drive)).await;
        self.begins_twin.set(false);
        match begun {
            Ok(()) => {}
            // Not the drive's trouble.
            Err(
                JoinRefused::Latched | JoinRefused::NotGood(_) | JoinRefused::TwinThere(_) | JoinRefused::NoSuchSlot(_),
            ) => bay.used_as.set(Use::Spare),
            Err(ref refused) => bay.refuse(refused.to_string()),
        }
        begun
    }

    /// Twins that have their slot now are members, and those whose slot they have are out; twins
    /// that are none any more are spares if they are blank again.
    pub async fn follow_twins(&self, engine: &Engine) {
        if self.begins_twin.get() {
            return;
        }
        let bays: Vec<Rc<Bay>> = self.bays.borrow().iter().cloned().collect();
        let twins = bays.iter().filter_map(|bay| match bay.used_as.get() {
            Use::Twin(slot) => Some((bay, slot)),
            _ => None,
        });
        for (bay, slot) in twins {
            let status = engine.group().status();
            let Some(member) = status.drives.get(usize::from(slot.0)) else { continue };
            let Some(drive) = bay.drive.borrow().clone() else {
                bay.used_as.set(Use::Out);
                continue;
            };
            let serial = drive.info().serial;
            if member.serial == serial {
                let old = bays.iter().filter(|old| old.used_as.get() == Use::Member(slot));
                old.for_each(|old| old.refuse("it is retired: another drive has its slot".to_owned()));
                bay.used_as.set(Use::Member(slot));
            } else if member.twin.as_ref().is_none_or(|twin| twin.serial != serial) {
                match engine.group().finding(drive).await {
                    Finding::Blank => bay.used_as.set(Use::Spare),
                    _ => bay.refuse("it was to take the slot of another drive, which keeps it".to_owned()),
                }
            }
        }
    }
}

impl Shard {
    /// Path of the drive that would take the slot, or why none can.
    pub(crate) async fn could_retire(&self, slot: u32, path: Option<&str>) -> Result<String, Problem> {
        let (index, place) = self.place(slot)?;
        let (bay, drive) = self.twin_for(index, &place, path)?;
        let checked = self.engine.group().could_twin(index, drive).await;
        checked.map_err(|refused| self.not_retired(&place, &bay.path, &refused))?;
        Ok(bay.path.display().to_string())
    }

    /// Fills another drive from the good one in `slot`, and lets it take the slot then.
    pub(crate) async fn retire_drive(&self, slot: u32, path: Option<&str>) -> Result<DriveTaken, Problem> {
        self.could_retire(slot, path).await?;
        let (index, place) = self.place(slot)?;
        if let Some(path) = path.filter(|path| !self.is_spare(Path::new(path))) {
            self.add_spare(path).await?;
        }
        let (bay, drive) = self.twin_for(index, &place, path)?;
        let path = bay.path.clone();
        let begun = self.media.healer.retire(&self.engine, index, (bay, drive)).await;
        begun.map_err(|refused| self.not_retired(&place, &path, &refused))?;
        let taken_as = format!("{}{place}", DriveTaken::TWIN_OF);
        Ok(DriveTaken { taken_as, path: path.display().to_string() })
    }

    fn is_spare(&self, path: &Path) -> bool {
        self.media.healer.spares().iter().any(|(bay, _)| bay.path == path)
    }

    fn twin_for(&self, slot: Slot, place: &str, path: Option<&str>) -> Result<(Rc<Bay>, Rc<RealDrive>), Problem> {
        self.media.healer.candidate(&self.engine, slot, path.map(Path::new)).map_err(|why| match why {
            Some(why) => not_taken(path.unwrap_or_default(), &why),
            None => Problem::new(&codes::NO_SPARE, format!("no spare can take the place of {place}"))
                .step(format!("vmhold drive retire {place} --with PATH")),
        })
    }

    fn not_retired(&self, place: &str, path: &Path, refused: &JoinRefused) -> Problem {
        let pool = &self.config.pool;
        match refused {
            JoinRefused::NotGood(_) => Problem::new(&codes::CONFLICT, format!("{place} is not ONLINE"))
                .why("a drive is retired while everything is on it; one that is out is replaced")
                .step(format!("vmhold drive replace {place}")),
            JoinRefused::TwinThere(slot) => {
                Problem::new(&codes::CONFLICT, format!("{pool}/{} is being retired", slot.0 + 1))
                    .why("one drive of a pool is retired at a time")
                    .step("vmhold job list")
            }
            other => not_taken(&path.display().to_string(), &other.to_string()),
        }
    }

    /// How far the drive that takes a slot is, in words.
    pub(crate) fn retiring_words(&self, slot: Slot, path: &str) -> String {
        let rebuild = self.engine.rebuild_status();
        let mut drives = rebuild.iter().flat_map(|rebuild| &rebuild.drives);
        let filled = drives.find(|drive| drive.slot == slot && drive.units_total > 0).map(|drive| {
            let percent = (drive.units_total - drive.units_left) * 100 / drive.units_total;
            format!(", {} % there", percent.min(99))
        });
        format!("being retired: {path} is filled from it{}", filled.unwrap_or_default())
    }
}
