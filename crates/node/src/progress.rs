//! Rebuild and scrub as jobs for everyone to see.
//!
//! Both go on in the engine by themselves. Twice a second what the engine says of them is compared
//! with the jobs that are known: one per drive that is being filled or retired, one per pass of the scrub. The
//! book of jobs keeps the promises of progress (never back, never 100 % before the end); here it
//! is only decided which job it is, how far, and how it ended.
//!
//! Work that begins and ends between two looks is a job, too, one that is done at once: people look
//! for it when they have replaced a small drive. The group tells of each drive that it has filled,
//! the scrub remembers its passes; what was no job by then becomes one.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use control::jobs::{JobHandle, JobState, NewJob, Wish};
use engine::ScrubPass;
use jiff::Timestamp;
use raid::{DriveState, FailReason, Slot};

use crate::healer::words;
use crate::shard::Shard;

/// Which job of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Of the drive in this slot, counted from 1, with this serial number.
    Rebuild(u32, String),
    /// The drive in this slot is retired behind the one with this serial number.
    Retire(u32, String),
    /// This pass.
    Scrub(u64),
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reached {
    mode: Option<&'static str>,
    done_bytes: u64,
    total_bytes: u64,
    total_is_estimate: bool,
    /// What it waits for, if it does.
    waits_for: Option<&'static str>,
    errors: u64,
}

/// How a job ended that is not seen any more.
type Ending = (JobState, String);

/// A job and what it was told last.
struct Followed {
    job: JobHandle,
    told: Option<Reached>,
}

/// Jobs of the store's own work.
#[derive(Default)]
pub(crate) struct Progress {
    jobs: RefCell<BTreeMap<Key, Followed>>,
    /// Slots of drives whose filling was a job, and of which the group has not said that they are full.
    filling: RefCell<BTreeSet<u32>>,
    /// Newest pass of the scrub that was a job, or had ended before the first look.
    newest_pass: Cell<Option<u64>>,
    /// Slot of the drive that was being retired until somebody asked for an end of it.
    called_off: Cell<Option<u32>>,
}

impl Shard {
    /// Brings the jobs up to what the engine says now; carries out what they were asked.
    pub(crate) fn look_at_progress(&self) {
        let (seen, now) = (self.work_under_way(), Timestamp::now());
        self.follow(&seen, now);
        self.catch_up_with_scrub(now);
    }

    /// The group says that the drive in `slot`, counted from 1, is full.
    pub(crate) fn drive_is_full(&self, slot: u32) {
        if !self.progress.was_followed(slot) {
            self.was_done_at_once(&Key::Rebuild(slot, self.serial_of(slot)), Timestamp::now());
        }
    }

    /// The group says that the twin of the drive in `slot`, counted from 1, has the slot.
    pub(crate) fn drive_is_retired(&self, slot: u32) {
        if !self.progress.was_followed(slot) {
            self.was_done_at_once(&Key::Retire(slot, self.serial_of(slot)), Timestamp::now());
        }
    }

    /// Passes that nobody has looked at while they were under way.
    fn catch_up_with_scrub(&self, now: Timestamp) {
        let ended: Vec<u64> = self.engine.scrub_status().history.iter().map(|pass| pass.number).collect();
        for number in self.progress.unseen(&ended) {
            self.was_done_at_once(&Key::Scrub(number), now);
        }
    }

    fn was_done_at_once(&self, key: &Key, now: Timestamp) {
        let (state, result) = self.ending(key);
        self.begin(key, &Reached::default(), now).end(state, result, now);
    }

    fn serial_of(&self, slot: u32) -> String {
        let drives = self.engine.group().status().drives;
        let drive = drives.into_iter().find(|drive| u32::from(drive.slot.0) + 1 == slot);
        drive.map_or(String::new(), |drive| drive.serial)
    }

    /// Does what jobs were asked to.
    pub(crate) async fn heed_wishes(&self) {
        self.heed_scrub_wish().await;
        let called_off = {
            let jobs = self.progress.jobs.borrow();
            let slot_of = |key: &Key| if let Key::Retire(slot, _) = key { Some(*slot) } else { None };
            let retire = jobs.iter().find_map(|(key, followed)| Some((slot_of(key)?, followed.job.take_wish()?)));
            retire.filter(|(_, wish)| *wish == Wish::Cancel).map(|(slot, _)| slot)
        };
        let index = called_off.and_then(|slot| u8::try_from(slot - 1).ok());
        if let (Some(slot), Some(index)) = (called_off, index) {
            self.progress.called_off.set(Some(slot));
            if let Err(refused) = self.engine.cancel_retiring(Slot(index)).await {
                tracing::error!(code = "VH1026", %refused, slot, "retiring the drive cannot be called off");
            }
        }
    }

    async fn heed_scrub_wish(&self) {
        let wish = {
            let jobs = self.progress.jobs.borrow();
            jobs.iter().find(|(key, _)| matches!(key, Key::Scrub(_))).map(|(_, followed)| followed.job.take_wish())
        };
        match wish.flatten() {
            Some(Wish::Pause) => self.engine.scrub_pause(true).await,
            Some(Wish::Go) => self.engine.scrub_pause(false).await,
            Some(Wish::Cancel) | None => {}
        }
    }

    fn twin_of(&self, slot: u32) -> Option<String> {
        let drives = self.engine.group().status().drives;
        let drive = drives.into_iter().find(|drive| u32::from(drive.slot.0) + 1 == slot)?;
        drive.twin.map(|twin| twin.serial)
    }

    fn work_under_way(&self) -> BTreeMap<Key, Reached> {
        let mut seen = BTreeMap::new();
        let group = self.engine.group();
        if let Some(rebuild) = self.engine.rebuild_status() {
            for drive in &rebuild.drives {
                let slot = u32::from(drive.slot.0) + 1;
                let reached = Reached {
                    mode: Some(if drive.came_back { "delta" } else { "full" }).filter(|_| !drive.is_twin),
                    done_bytes: (drive.units_total - drive.units_left) * rebuild.unit_bytes,
                    total_bytes: drive.units_total * rebuild.unit_bytes,
                    total_is_estimate: false,
                    waits_for: None,
                    errors: rebuild.stripes_lost,
                };
                let key = match self.twin_of(slot).filter(|_| drive.is_twin) {
                    Some(serial) => Key::Retire(slot, serial),
                    None => Key::Rebuild(slot, self.serial_of(slot)),
                };
                seen.insert(key, reached);
            }
        }
        let scrub = self.engine.scrub_status();
        let width = group.next_geometry().map_or(1, |geometry| u64::from(geometry.data) + u64::from(geometry.parity));
        let stripe_bytes = width * u64::from(group.unit_bytes());
        // Before its first stripe a pass has not begun, and one that has ended is over.
        if scrub.pass.number > 0 && scrub.pass.ended.0 == 0 {
            let waits_for = match (scrub.paused, scrub.waits_for_rebuild) {
                (true, _) => Some("it was asked to pause"),
                (false, true) => Some("a rebuild goes first"),
                (false, false) => None,
            };
            let reached = Reached {
                mode: None,
                done_bytes: scrub.stripes_done * stripe_bytes,
                total_bytes: scrub.stripes_total * stripe_bytes,
                total_is_estimate: true,
                waits_for,
                errors: beyond_repair(&scrub.pass),
            };
            seen.insert(Key::Scrub(scrub.pass.number), reached);
        }
        seen
    }

    fn follow(&self, seen: &BTreeMap<Key, Reached>, now: Timestamp) {
        let mut jobs = self.progress.jobs.borrow_mut();
        let gone: Vec<Key> = jobs.keys().filter(|key| !seen.contains_key(key)).cloned().collect();
        for key in gone {
            let Some(followed) = jobs.remove(&key) else { continue };
            let (state, result) = self.ending(&key);
            followed.job.end(state, result, now);
            if let (Key::Rebuild(slot, _) | Key::Retire(slot, _), true) = (&key, state != JobState::Done) {
                self.progress.filling.borrow_mut().remove(slot);
            }
        }
        for (key, reached) in seen {
            let begin = || Followed { job: self.begin(key, reached, now), told: None };
            jobs.entry(key.clone()).or_insert_with(begin).tell(reached, now);
            self.progress.note(key);
        }
    }

    fn begin(&self, key: &Key, reached: &Reached, now: Timestamp) -> JobHandle {
        let pool = &self.config.pool;
        let (kind, object) = match key {
            Key::Rebuild(slot, _) => ("rebuild", format!("{pool}/{slot}")),
            Key::Retire(slot, _) => ("retire", format!("{pool}/{slot}")),
            Key::Scrub(_) => ("scrub", pool.clone()),
        };
        let new = NewJob {
            kind,
            mode: reached.mode,
            object,
            total_bytes: Some(reached.total_bytes).filter(|bytes| *bytes > 0),
            total_is_estimate: reached.total_is_estimate,
            can_pause: kind == "scrub",
            can_cancel: kind == "retire",
        };
        self.books.jobs.take_up(new, reached.done_bytes, now)
    }

    fn ending(&self, key: &Key) -> Ending {
        match key {
            Key::Rebuild(slot, serial) => {
                let drives = self.engine.group().status().drives;
                let drive = drives.iter().find(|drive| u32::from(drive.slot.0) + 1 == *slot);
                let drive = drive.filter(|drive| drive.serial == *serial);
                end_of_rebuild(drive.map(|drive| (drive.state, drive.fail_reason)), self.engine.group().stripes_lost())
            }
            Key::Retire(slot, serial) => {
                let drives = self.engine.group().status().drives;
                let drive = drives.iter().find(|drive| u32::from(drive.slot.0) + 1 == *slot);
                let holder = drive.filter(|drive| drive.serial == *serial).map(|drive| drive.state);
                let called_off = self.progress.called_off.get() == Some(*slot);
                self.progress.called_off.set(None);
                end_of_retiring(holder, called_off, serial)
            }
            Key::Scrub(number) => {
                let history = self.engine.scrub_status().history;
                let is_forgotten = history.first().is_some_and(|oldest| oldest.number > *number);
                end_of_scrub(history.iter().find(|pass| pass.number == *number), is_forgotten)
            }
        }
    }
}

impl Progress {
    /// It is a job.
    fn note(&self, key: &Key) {
        match key {
            Key::Rebuild(slot, _) | Key::Retire(slot, _) => drop(self.filling.borrow_mut().insert(*slot)),
            Key::Scrub(number) => self.newest_pass.set(self.newest_pass.get().max(Some(*number))),
        }
    }

    /// Whether the filling of the drive in `slot`, which is full now, was a job.
    fn was_followed(&self, slot: u32) -> bool {
        self.filling.borrow_mut().remove(&slot)
    }

    /// Which of the passes that have `ended` were no job, and are none of an earlier start.
    fn unseen(&self, ended: &[u64]) -> Vec<u64> {
        let newest = ended.iter().copied().max().unwrap_or(0);
        let known = self.newest_pass.get().unwrap_or(newest);
        self.newest_pass.set(Some(known.max(newest)));
        ended.iter().copied().filter(|number| *number > known).collect()
    }
}

impl Followed {
    /// Nobody is told twice: watchers are woken by what they are told.
    fn tell(&mut self, reached: &Reached, now: Timestamp) {
        if self.told.as_ref() == Some(reached) {
            return;
        }
        let job = &self.job;
        job.resize(reached.total_bytes, reached.total_is_estimate, now);
        job.advance(reached.done_bytes, now);
        for _ in self.told.as_ref().map_or(0, |told| told.errors)..reached.errors {
            job.error();
        }
        match reached.waits_for {
            Some(what) => job.pause(what),
            None => job.limited_by(None),
        }
        self.told = Some(reached.clone());
    }
}

fn beyond_repair(pass: &ScrubPass) -> u64 {
    let found = &pass.found;
    found.units_unrepaired + found.stripes_lost + found.stripes_inconsistent + found.objects_damaged
}

/// What became of a drive that is not being filled any more, in a pool with lost stripes.
fn end_of_rebuild(drive: Option<(DriveState, Option<FailReason>)>, stripes_lost: usize) -> Ending {
    let failed = |why: &str| (JobState::Failed, why.to_owned());
    match drive {
        Some((DriveState::Good, _)) if stripes_lost > 0 => (
            JobState::Done,
            format!("the drive holds all that is left; lost for good: {stripes_lost} stripes of the pool"),
        ),
        Some((DriveState::Good, _)) => (JobState::Done, "the drive holds everything it should".to_owned()),
        Some((_, Some(reason))) => failed(&format!("the drive failed: {}", words(reason))),
        Some(_) => failed("the drive is not there any more"),
        None => failed("another drive has its place"),
    }
}

/// What became of a drive that is not being retired any more: `holder` is how the drive is that was
/// to take its slot, if it has it.
fn end_of_retiring(holder: Option<DriveState>, called_off: bool, twin: &str) -> Ending {
    match holder {
        Some(DriveState::Good) => (JobState::Done, format!("{twin} has its slot; the old drive is out")),
        Some(DriveState::Rebuilding) => {
            (JobState::Failed, format!("the drive failed; what was not copied yet is rebuilt onto {twin}"))
        }
        Some(DriveState::Failed | DriveState::Missing) => (JobState::Failed, format!("{twin} failed at the end")),
        None if called_off => (JobState::Cancelled, "the drive keeps its slot".to_owned()),
        None => (JobState::Failed, format!("{twin} failed; the drive keeps its slot")),
    }
}

/// What became of a pass that is not under way any more. Only so many are remembered.
fn end_of_scrub(pass: Option<&ScrubPass>, is_forgotten: bool) -> Ending {
    match pass {
        Some(pass) => {
            let (stripes, repaired, beyond) = (pass.found.stripes, pass.found.units_repaired, beyond_repair(pass));
            (JobState::Done, format!("{stripes} stripes, {repaired} units repaired, {beyond} beyond repair"))
        }
        None if is_forgotten => (JobState::Cancelled, "how it ended is not remembered".to_owned()),
        None => (JobState::Cancelled, "another pass was asked for, which begins anew".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use control::jobs::JobBook;
    use control::ledger::MemoryLedger;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn reached(done_bytes: u64, total_bytes: u64) -> Reached {
        Reached { mode: Some("full"), done_bytes, total_bytes, total_is_estimate: false, waits_for: None, errors: 0 }
    }

    fn book() -> Arc<JobBook> {
        JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default()))
    }

    /// Whatever the engine says from look to look (work that shrinks, counts that go back, waiting
    /// in between), what people see keeps the promises of progress.
    #[test]
    fn percent_never_goes_back_and_is_full_only_at_the_end() {
        for seed in 1..200_u64 {
            let (book, mut dice) = (book(), seed);
            let mut roll = |below: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % below
            };
            let new = NewJob { kind: "rebuild", total_bytes: Some(1000), ..NewJob::default() };
            let (mut followed, mut last) = (Followed { job: book.take_up(new, 0, at(0)), told: None }, 0.0);
            for second in 0..60 {
                let mut now = reached(roll(1200), 200 + roll(1000));
                now.waits_for = (roll(4) == 0).then_some("a rebuild goes first");
                now.errors = roll(3);
                followed.tell(&now, at(second));
                let shown = book.find("J-1").unwrap();
                let percent = shown.percent.unwrap();
                assert!(percent >= last && percent < 100.0, "seed {seed}: {last} then {percent}");
                assert!(shown.eta_seconds.is_none() || now.waits_for.is_none(), "waiting work has no end in sight");
                last = percent;
            }
            followed.job.end(JobState::Done, "whole", at(60));
            assert_eq!(book.find("J-1").unwrap().percent, Some(100.0));
        }
    }

    #[test]
    fn errors_are_counted_once_and_waiting_says_for_what() {
        let book = book();
        let new = NewJob { kind: "scrub", total_bytes: Some(10), ..NewJob::default() };
        let mut followed = Followed { job: book.take_up(new, 0, at(0)), told: None };
        let mut now = Reached { errors: 2, ..reached(5, 10) };
        followed.tell(&now, at(1));
        let changes = book.changes();
        followed.tell(&now, at(2));
        assert_eq!(book.changes(), changes, "nobody is woken for nothing");
        now.waits_for = Some("a rebuild goes first");
        followed.tell(&now, at(3));
        let shown = book.find("J-1").unwrap();
        assert_eq!((shown.errors, shown.state), (2, JobState::Paused));
        assert_eq!(shown.limited_by.as_deref(), Some("a rebuild goes first"));
    }

    /// Small drives fill between two looks.
    #[test]
    fn what_nobody_saw_under_way_is_found_out_once() {
        let progress = Progress::default();
        let rebuild = Key::Rebuild(3, "serial".to_owned());
        assert!(!progress.was_followed(3), "nobody has seen it");
        progress.note(&rebuild);
        progress.note(&rebuild);
        assert!(progress.was_followed(3) && !progress.was_followed(3), "one job per time it fills");

        assert!(progress.unseen(&[1, 2]).is_empty(), "passes of an earlier start");
        assert_eq!(progress.unseen(&[2, 3, 4]), [3, 4]);
        progress.note(&Key::Scrub(5));
        assert!(progress.unseen(&[3, 4, 5]).is_empty(), "the fifth was a job");
        assert_eq!(progress.unseen(&[4, 5, 6]), [6]);
    }

    #[test]
    fn a_drive_is_retired_only_when_the_other_one_has_its_slot() {
        let state = |holder, called_off| end_of_retiring(holder, called_off, "x").0;
        assert_eq!(state(Some(DriveState::Good), false), JobState::Done);
        assert_eq!(state(Some(DriveState::Good), true), JobState::Done, "it was done before it was called off");
        assert_eq!(state(Some(DriveState::Rebuilding), false), JobState::Failed);
        assert_eq!(state(None, true), JobState::Cancelled);
        assert_eq!(state(None, false), JobState::Failed);
    }

    #[test]
    fn a_rebuild_is_done_only_when_its_drive_is_good() {
        let state = |drive| end_of_rebuild(drive, 0).0;
        assert_eq!(state(Some((DriveState::Good, None))), JobState::Done);
        let failed = Some((DriveState::Failed, Some(FailReason::Gone)));
        assert_eq!(state(failed), JobState::Failed);
        assert!(end_of_rebuild(failed, 0).1.contains(words(FailReason::Gone)));
        let (_, said) = end_of_rebuild(Some((DriveState::Good, None)), 15);
        assert!(said.contains("lost for good: 15 stripes"), "a drive cannot hold what is lost: {said}");
        assert_eq!(state(Some((DriveState::Missing, None))), JobState::Failed);
        assert_eq!(state(None), JobState::Failed, "another drive has its place");
    }

    #[test]
    fn a_scrub_is_done_when_its_pass_is_in_the_history() {
        let mut pass = ScrubPass { number: 3, ..ScrubPass::default() };
        (pass.found.stripes, pass.found.units_repaired, pass.found.stripes_lost) = (40, 2, 1);
        assert_eq!(
            end_of_scrub(Some(&pass), false),
            (JobState::Done, "40 stripes, 2 units repaired, 1 beyond repair".to_owned())
        );
        let (state, said) = end_of_scrub(None, false);
        assert!(state == JobState::Cancelled && said.contains("begins anew") && end_of_scrub(None, true).1 != said);
    }
}
