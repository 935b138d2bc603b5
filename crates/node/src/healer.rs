//! What becomes of a drive that is out: who is waited for, who takes its place.
//!
//! ```text
//!  bay (a configured path)            group
//!  ─ in use ── file goes, errors ──>  drive failed ──┐
//!  ─ out ───── the same drive back ─> rejoin: only what it missed is filled in
//!  ─ out ───── a blank drive there ─> it is a spare from now on
//!  ─ spare ─── the policy says so ──> join: examined, then filled at once
//! ```
//!
//! RAID takes a spare only by this call, and the policy that decides it is a unit of its
//! own that can be replaced (R-SPARE-02). Which path is what, labels say, not the
//! configuration: after a restart a spare that took a place is simply found in it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::port::Drive;
use engine::Engine;
use raid::{Added, DriveState, FailReason, Finding, JoinRefused, Slot};
use world_real::{RealDrive, Ring, open_drive};

use crate::inject::Injector;

/// What a bay holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A drive of the group.
    Member(Slot),
    /// A drive that is filled to take this slot.
    Twin(Slot),
    /// A blank drive.
    Spare,
    /// Nothing, or something that is not used.
    Out,
}

/// A configured path and what is behind it now.
pub(crate) struct Bay {
    pub path: PathBuf,
    pub drive: RefCell<Option<Rc<RealDrive>>>,
    pub used_as: Cell<Use>,
    /// Why what is there is not used, and which file that was.
    pub refused: RefCell<Option<(String, FileStamp)>>,
}

/// A drive for the pool to take, and where it is.
pub(crate) type Offered = (Rc<Bay>, Rc<RealDrive>);

/// Tells one file at a path from the next.
pub(crate) type FileStamp = (u64, u64);

impl Bay {
    /// The bay at `path`, with what can be opened there.
    pub fn open(path: &Path, ring: Option<&Ring>) -> Bay {
        let drive = open_drive(path, ring).inspect_err(|error| {
            tracing::error!(path = %path.display(), %error, "drive cannot be opened");
        });
        let bay = Bay::empty(path);
        bay.drive.replace(drive.ok());
        bay
    }

    /// A bay with nothing in it yet.
    fn empty(path: &Path) -> Bay {
        Bay {
            path: path.to_owned(),
            drive: RefCell::default(),
            used_as: Cell::new(Use::Out),
            refused: RefCell::default(),
        }
    }

    fn stamp(&self) -> Option<FileStamp> {
        std::fs::metadata(&self.path).ok().map(|meta| (meta.ino(), meta.len()))
    }

    /// Does not look at the present file again.
    pub fn refuse(&self, why: String) {
        self.drive.take();
        self.used_as.set(Use::Out);
        self.refused.replace(self.stamp().map(|stamp| (why, stamp)));
    }

    fn is_worth_a_look(&self) -> bool {
        let stamp = self.stamp();
        let refused = self.refused.borrow().as_ref().map(|(_, stamp)| *stamp);
        self.used_as.get() == Use::Out && stamp.is_some() && stamp != refused
    }
}

/// A drive that is out, for a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// Why; `None` when it was not there at the start.
    pub reason: Option<FailReason>,
    /// How long.
    pub lasts: Duration,
    /// Whether something can be read only from this drive, should it come back.
    pub holds_the_last: bool,
}

/// What a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The drive may come back.
    Wait,
    /// The spare of this index takes its place.
    Take(usize),
    /// Nothing fits.
    NoSpare,
}

/// Chooses which spare serves (the documents' PlatMon).
pub(crate) trait SparePolicy {
    /// For one drive that is out; `capacities_bytes` are those of the spares at hand.
    fn choose(&self, outage: &Outage, needed_bytes: u64, capacities_bytes: &[u64]) -> Choice;
}

/// Waits a little for a drive that only went away, then takes the smallest spare that is
/// large enough.
pub(crate) struct SmallestThatFits {
    /// How long a drive that went away is waited for.
    pub return_wait: Duration,
}

/// At the start shelves may come late.
const WAITS_AT_START: u32 = 6;

impl SparePolicy for SmallestThatFits {
    fn choose(&self, outage: &Outage, needed_bytes: u64, capacities_bytes: &[u64]) -> Choice {
        let wait = match outage.reason {
            None => self.return_wait * WAITS_AT_START,
            Some(FailReason::Gone) => self.return_wait,
            Some(_) => Duration::ZERO,
        };
        if outage.lasts < wait || outage.holds_the_last {
            return Choice::Wait;
        }
        let fits = capacities_bytes.iter().enumerate().filter(|(_, capacity)| **capacity >= needed_bytes);
        fits.min_by_key(|(_, capacity)| **capacity).map_or(Choice::NoSpare, |(index, _)| Choice::Take(index))
    }
}

/// See the module's head.
pub(crate) struct Healer {
    pub bays: RefCell<Vec<Rc<Bay>>>,
    ring: Option<Ring>,
    /// Of a lab pool; nothing stands between the group and the drives of any other.
    injector: Option<Rc<Injector>>,
    policy: Box<dyn SparePolicy>,
    /// A drive is just becoming a twin.
    pub begins_twin: Cell<bool>,
    /// Since when slots are out, and whether it was said that no spare fits.
    out: RefCell<BTreeMap<Slot, (Instant, bool)>>,
}

impl Healer {
    /// Bays of all `paths`. With an injector, their drives take faults on purpose.
    pub fn open(
        paths: impl Iterator<Item = PathBuf>,
        ring: Option<Ring>,
        policy: Box<dyn SparePolicy>,
        injector: Option<Rc<Injector>>,
    ) -> Healer {
        let bays = paths.map(|path| Rc::new(Bay::open(&path, ring.as_ref()))).collect();
        Healer {
            bays: RefCell::new(bays),
            ring,
            injector,
            policy,
            begins_twin: Cell::new(false),
            out: RefCell::default(),
        }
    }

    /// Where faults on purpose are ordered, in a lab pool.
    pub fn injector(&self) -> Option<&Rc<Injector>> {
        self.injector.as_ref()
    }

    /// `drive` as the group is given it.
    pub fn port(&self, drive: Rc<RealDrive>) -> Rc<dyn Drive> {
        match &self.injector {
            Some(injector) => injector.wrap(drive),
            None => drive,
        }
    }

    /// The drives that could be opened, in order.
    pub fn drives(&self) -> Vec<Rc<dyn Drive>> {
        let bays = self.bays.borrow();
        bays.iter().filter_map(|bay| bay.drive.borrow().clone()).map(|drive| self.port(drive)).collect()
    }

    /// Takes over what the group found on [`drives`](Healer::drives).
    pub fn sort(&self, findings: &[(String, Finding)]) {
        let bays = self.bays.borrow();
        let opened = bays.iter().filter(|bay| bay.drive.borrow().is_some());
        for (bay, (_, finding)) in opened.zip(findings) {
            match finding {
                Finding::Member(slot) => bay.used_as.set(Use::Member(*slot)),
                Finding::Successor(slot) => bay.used_as.set(Use::Twin(*slot)),
                Finding::Blank => bay.used_as.set(Use::Spare),
                // One that only went away is looked at again, and may come back.
                Finding::Failed(_) => drop(bay.drive.take()),
                other => bay.refuse(other.to_string()),
            }
        }
    }

    /// Closes drives that are not what was opened any more. True if a member was lost.
    pub fn check_identities(&self) -> bool {
        let mut news = false;
        for bay in self.bays.borrow().iter() {
            let lost = bay.drive.borrow().as_ref().is_some_and(|drive| drive.check_identity().is_err());
            if lost {
                let member = matches!(bay.used_as.get(), Use::Member(_));
                tracing::warn!(drive = %bay.path.display(), member, "drive is gone, truncated or replaced");
                bay.drive.take();
                bay.used_as.set(if member { bay.used_as.get() } else { Use::Out });
                news |= member;
            }
        }
        news
    }

    /// One look around: members that failed leave their bays, drives that came back are
    /// taken in, spares take the places of those that did not.
    pub async fn look(&self, engine: &Engine) {
        self.follow_twins(engine).await;
        let status = engine.group().status();
        for bay in self.bays.borrow().iter() {
            let Use::Member(slot) = bay.used_as.get() else { continue };
            // One that is just being given the place is not in the status yet.
            let Some(drive) = status.drives.get(usize::from(slot.0)) else { continue };
            let is_it = bay.drive.borrow().as_ref().is_none_or(|open| open.info().serial == drive.serial);
            if is_it && matches!(drive.state, DriveState::Failed | DriveState::Missing) {
                match drive.fail_reason {
                    None | Some(FailReason::Gone) => {
                        bay.drive.take();
                        bay.used_as.set(Use::Out);
                    }
                    Some(reason) => bay.refuse(format!("it failed: {}", words(reason))),
                }
            }
        }
        if status.latched {
            return;
        }
        self.take_back(engine).await;
        self.replace(engine).await;
    }

    async fn take_back(&self, engine: &Engine) {
        let bays: Vec<Rc<Bay>> = self.bays.borrow().iter().filter(|bay| bay.is_worth_a_look()).cloned().collect();
        for bay in bays {
            let Ok(drive) = open_drive(&bay.path, self.ring.as_ref()) else { continue };
            let path = bay.path.display();
            match engine.group().finding(drive.clone()).await {
                Finding::Blank => {
                    tracing::info!(drive = %path, "a blank drive is there: it is a spare");
                    bay.drive.replace(Some(drive));
                    bay.used_as.set(Use::Spare);
                }
                Finding::Failed(_) if engine.group().awaits(drive.clone()).await.is_some() => {
                    match engine.rejoin_drive(self.port(drive.clone())).await {
                        Ok(slot) => {
                            bay.drive.replace(Some(drive));
                            bay.used_as.set(Use::Member(slot));
                        }
                        Err(refused) => {
                            tracing::warn!(code = "VH1029", drive = %path, why = %refused, "drive came back and is not taken");
                            bay.refuse(refused.to_string());
                        }
                    }
                }
                other => bay.refuse(other.to_string()),
            }
        }
    }

    async fn replace(&self, engine: &Engine) {
        let group = engine.group();
        let status = group.status();
        // The slot of one that is being retired is its twin's.
        let is_out = |drive: &&raid::DriveStatus| {
            matches!(drive.state, DriveState::Failed | DriveState::Missing) && drive.twin.is_none()
        };
        let out: Vec<raid::DriveStatus> = status.drives.iter().filter(is_out).cloned().collect();
        self.out.borrow_mut().retain(|slot, _| out.iter().any(|drive| drive.slot == *slot));
        for drive in out {
            let (since, said) = *self.out.borrow_mut().entry(drive.slot).or_insert((Instant::now(), false));
            let outage = Outage {
                reason: drive.fail_reason,
                lasts: since.elapsed(),
                holds_the_last: group.status().state == raid::GroupState::Faulted
                    && drive.fail_reason.is_none_or(|reason| reason == FailReason::Gone),
            };
            let spares = self.spares();
            let capacities: Vec<u64> = spares.iter().map(|(_, drive)| drive.info().capacity_bytes).collect();
            match self.policy.choose(&outage, group.needed_bytes(drive.slot), &capacities) {
                Choice::Wait => {}
                Choice::Take(index) => {
                    let (bay, spare) = spares[index].clone();
                    if let Err(refused) = self.give(engine, drive.slot, &bay, spare).await {
                        tracing::error!(code = "VH1029", spare = %bay.path.display(), why = %refused, "spare is refused");
                    }
                }
                Choice::NoSpare if !said => {
                    tracing::error!(code = "VH1028", slot = drive.slot.0 + 1, "no spare is left for this drive");
                    self.out.borrow_mut().insert(drive.slot, (since, true));
                }
                Choice::NoSpare => {}
            }
        }
    }

    /// Takes the blank drive at `path` as a spare. Refusals in words.
    pub async fn add(&self, engine: &Engine, path: &Path) -> Result<(), String> {
        let known = self.bays.borrow().iter().find(|bay| bay.path == path).cloned();
        if known.as_ref().is_some_and(|bay| bay.used_as.get() != Use::Out) {
            return Err("it is in use by this pool already".to_owned());
        }
        let drive = open_drive(path, self.ring.as_ref()).map_err(|error| error.to_string())?;
        match engine.group().finding(drive.clone()).await {
            // A member of before that is given on purpose holds nothing that is still needed.
            Finding::Blank | Finding::Mismatch(_) => {}
            other => return Err(other.to_string()),
        }
        let bay = known.unwrap_or_else(|| {
            let bay = Rc::new(Bay::empty(path));
            self.bays.borrow_mut().push(bay.clone());
            bay
        });
        bay.drive.replace(Some(drive));
        bay.refused.take();
        bay.used_as.set(Use::Spare);
        Ok(())
    }

    /// Blank drives at `paths`, spares of the pool or new ones, each with its bay. Refusals
    /// with their path, in words.
    pub fn offered(&self, paths: &[PathBuf]) -> Result<Vec<Offered>, (PathBuf, String)> {
        let offered = paths.iter().map(|path| {
            let known = self.bays.borrow().iter().find(|bay| bay.path == *path).cloned();
            let bay = known.unwrap_or_else(|| Rc::new(Bay::empty(path)));
            if matches!(bay.used_as.get(), Use::Member(_) | Use::Twin(_)) {
                return Err((path.clone(), "it is in use by this pool already".to_owned()));
            }
            let open = bay.drive.borrow().clone().filter(|_| bay.used_as.get() == Use::Spare);
            match open.map_or_else(|| open_drive(path, self.ring.as_ref()), Ok) {
                Ok(drive) => Ok((bay, drive)),
                Err(error) => Err((path.clone(), error.to_string())),
            }
        });
        offered.collect()
    }

    /// Adds the drives of `offered` to the pool. Says who joined and, if the next one was
    /// refused, why.
    pub async fn expand(
        &self,
        engine: &Engine,
        offered: Vec<Offered>,
        data_width_max: Option<u8>,
    ) -> (Vec<(PathBuf, Slot)>, Option<Added>) {
        let before: Vec<Use> = offered.iter().map(|(bay, _)| bay.used_as.get()).collect();
        for (number, (bay, drive)) in offered.iter().enumerate() {
            // Nobody else gives it away meanwhile; no member has this slot yet.
            let slot = engine.group().status().drives.len() + number;
            bay.used_as.set(Use::Member(Slot(u8::try_from(slot).unwrap_or(u8::MAX))));
            bay.drive.replace(Some(drive.clone()));
            bay.refused.take();
            let mut bays = self.bays.borrow_mut();
            if !bays.iter().any(|known| Rc::ptr_eq(known, bay)) {
                bays.push(bay.clone());
            }
        }
        let drives = offered.iter().map(|(_, drive)| self.port(drive.clone())).collect();
        let (joined, refused) = match engine.expand(drives, data_width_max).await {
            Ok(joined) => (joined, None),
            Err(added) => (added.joined.clone(), Some(added)),
        };
        let taken = offered.iter().zip(&joined).map(|((bay, _), slot)| {
            bay.used_as.set(Use::Member(*slot));
            (bay.path.clone(), *slot)
        });
        let taken = taken.collect();
        for ((bay, _), before) in offered.iter().zip(before).skip(joined.len()) {
            match before {
                Use::Spare => bay.used_as.set(Use::Spare),
                _ => bay.refuse("it was offered and did not join".to_owned()),
            }
        }
        (taken, refused)
    }

    /// Puts the spare at `path`, or the smallest that fits, in the place of a drive that is
    /// out, without waiting for it. `None`: there is no such spare.
    pub async fn take(&self, engine: &Engine, slot: Slot, path: Option<&Path>) -> Result<PathBuf, Option<JoinRefused>> {
        let needed_bytes = engine.group().needed_bytes(slot);
        let mut spares = self.spares();
        match path {
            Some(path) => spares.retain(|(bay, _)| bay.path == path),
            None => spares.retain(|(_, drive)| drive.info().capacity_bytes >= needed_bytes),
        }
        let smallest = spares.into_iter().min_by_key(|(_, drive)| drive.info().capacity_bytes);
        let (bay, drive) = smallest.ok_or(None)?;
        self.give(engine, slot, &bay, drive).await.map_err(Some)?;
        Ok(bay.path.clone())
    }

    /// Bays with spares.
    pub fn spares(&self) -> Vec<Offered> {
        let bays = self.bays.borrow();
        let spares = bays.iter().filter(|bay| bay.used_as.get() == Use::Spare);
        spares.filter_map(|bay| Some((bay.clone(), bay.drive.borrow().clone()?))).collect()
    }

    async fn give(&self, engine: &Engine, slot: Slot, bay: &Rc<Bay>, spare: Rc<RealDrive>) -> Result<(), JoinRefused> {
        // Nobody else gives it away meanwhile.
        bay.used_as.set(Use::Member(slot));
        match engine.join_drive(slot, self.port(spare)).await {
            Ok(()) => Ok(()),
            // The group's trouble, not the drive's.
            Err(refused @ (JoinRefused::Latched | JoinRefused::SlotInUse(_))) => {
                bay.used_as.set(Use::Spare);
                Err(refused)
            }
            Err(refused) => {
                bay.refuse(refused.to_string());
                Err(refused)
            }
        }
    }
}

/// Why a drive failed, in words.
pub(crate) fn words(reason: FailReason) -> &'static str {
    match reason {
        FailReason::Gone => "gone, cut short or replaced",
        FailReason::ReadOnly => "takes no writes",
        FailReason::LostWrite => "a write was refused twice",
        FailReason::LostFlush => "a flush failed",
        FailReason::Errors => "too many errors in a minute",
        FailReason::Retired => "put out on request",
        FailReason::Slow => "far slower than the others for too long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn choose(reason: Option<FailReason>, lasts: u64, capacities_bytes: &[u64]) -> Choice {
        let outage = Outage { reason, lasts: Duration::from_secs(lasts), holds_the_last: false };
        SmallestThatFits { return_wait: WAIT }.choose(&outage, 100, capacities_bytes)
    }

    /// Decides R-SPARE-01: with no spare, one, or two.
    #[test]
    fn the_smallest_spare_that_fits_is_taken() {
        let errors = Some(FailReason::Errors);
        assert_eq!(choose(errors, 0, &[]), Choice::NoSpare);
        assert_eq!(choose(errors, 0, &[99]), Choice::NoSpare);
        assert_eq!(choose(errors, 0, &[100]), Choice::Take(0));
        assert_eq!(choose(errors, 0, &[300, 200]), Choice::Take(1));
    }

    #[test]
    fn a_drive_that_only_went_away_is_waited_for() {
        assert_eq!(choose(Some(FailReason::Gone), 9, &[100]), Choice::Wait);
        assert_eq!(choose(Some(FailReason::Gone), 10, &[100]), Choice::Take(0));
        assert_eq!(choose(None, 59, &[100]), Choice::Wait);
        let outage = Outage { reason: Some(FailReason::Gone), lasts: WAIT * 100, holds_the_last: true };
        let policy = SmallestThatFits { return_wait: WAIT };
        assert_eq!(policy.choose(&outage, 100, &[100]), Choice::Wait, "it may bring back what is missing");
    }
}
