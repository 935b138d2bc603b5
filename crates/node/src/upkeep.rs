//! Looking after the pool on request: scrub, spares, replacements, in the words of the API.

use std::fmt::Write;
use std::path::Path;

use control::upkeep::{DriveTaken, ScrubPass, ScrubReport};
use control::{Problem, codes};
use jiff::Timestamp;
use raid::{JoinRefused, Slot};

use crate::shard::Shard;

impl Shard {
    /// The scrub as it is now.
    pub(crate) fn scrub_report(&self) -> ScrubReport {
        let status = self.engine.scrub_status();
        let state = match (status.paused, status.waits_for_rebuild) {
            (true, _) => "PAUSED",
            (false, true) => "WAITING",
            (false, false) => "RUNNING",
        };
        let left = status.stripes_total.saturating_sub(status.stripes_done);
        let percent = status.stripes_done as f64 / status.stripes_total.max(1) as f64 * 100.0;
        ScrubReport {
            pool: self.config.pool.clone(),
            state: state.to_owned(),
            pass: pass(&status.pass),
            stripes_total: status.stripes_total,
            percent: percent.min(99.9),
            interval_seconds: status.interval.as_secs_f64(),
            eta_seconds: (state == "RUNNING").then_some(status.interval.as_secs_f64() * left as f64),
            overdue: status.overdue,
            history: status.history.iter().map(pass).collect(),
        }
    }

    /// When every unit was last read and checked, by a pass or by `fsck`.
    pub(crate) fn last_scrub(&self) -> Option<Timestamp> {
        let ended = self.engine.scrub_status().history.last().map(|pass| pass.ended.0);
        at(ended.max(self.last_fsck_ns.get().map(|(_, ended)| ended)).unwrap_or(0))
    }

    /// Takes the blank drive at `path` as a spare.
    pub(crate) async fn add_spare(&self, path: &str) -> Result<DriveTaken, Problem> {
        self.media.healer.add(&self.engine, Path::new(path)).await.map_err(|why| not_taken(path, &why))?;
        self.config.remember_drive(Path::new(path))?;
        Ok(DriveTaken { taken_as: "SPARE".into(), path: path.to_owned() })
    }

    /// The slot of the drive that people call by this number, and what they call it.
    pub(crate) fn place(&self, slot: u32) -> Result<(Slot, String), Problem> {
        let place = format!("{}/{slot}", self.config.pool);
        let index = slot.checked_sub(1).and_then(|index| u8::try_from(index).ok());
        let known = |index: &u8| usize::from(*index) < self.engine.group().status().drives.len();
        match index.filter(known) {
            Some(index) => Ok((Slot(index), place)),
            None => Err(Problem::new(&codes::NOT_FOUND, format!("no drive {place:?}")).step("vmhold drive list")),
        }
    }

    /// Fills the place of a drive that is out, now.
    pub(crate) async fn replace_drive(&self, slot: u32, path: Option<String>) -> Result<DriveTaken, Problem> {
        let (index, place) = self.place(slot)?;
        if let Some(path) = &path {
            self.add_spare(path).await?;
        }
        let taken = self.media.healer.take(&self.engine, index, path.as_deref().map(Path::new)).await;
        let path = taken.map_err(|why| match why {
            Some(JoinRefused::SlotInUse(_)) => Problem::new(&codes::CONFLICT, format!("{place} is in use"))
                .why("a drive is replaced when it is out: FAILED or MISSING")
                .step("vmhold drive list"),
            Some(other) => not_taken(&place, &other.to_string()),
            None => Problem::new(&codes::NO_SPARE, format!("no spare can take the place of {place}"))
                .step(format!("vmhold drive replace {place} --with PATH")),
        })?;
        Ok(DriveTaken { taken_as: place, path: path.display().to_string() })
    }
}

pub(crate) fn not_taken(what: &str, why: &str) -> Problem {
    Problem::new(&codes::SPARE_REFUSED, format!("{what} is not taken")).why(why.to_owned())
}

pub(crate) fn at(wall_ns: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(wall_ns)).ok().filter(|_| wall_ns > 0)
}

fn pass(pass: &engine::ScrubPass) -> ScrubPass {
    let found = &pass.found;
    ScrubPass {
        number: pass.number,
        started_at: at(pass.started.0),
        ended_at: at(pass.ended.0),
        stripes: found.stripes,
        objects: found.objects,
        repaired_units: found.units_repaired,
        unrepaired: found.units_unrepaired + found.stripes_lost + found.stripes_inconsistent + found.objects_damaged,
    }
}

/// Gauges of scrub and rebuild, as Prometheus text.
pub(crate) fn metrics(shard: &Shard, out: &mut String) {
    let scrub = shard.engine.scrub_status();
    let owed: u64 =
        shard.engine.rebuild_status().map_or(0, |rebuild| rebuild.drives.iter().map(|d| d.units_left).sum());
    for (name, value) in [
        ("scrub_pass", scrub.pass.number),
        ("scrub_stripes_done", scrub.stripes_done),
        ("scrub_stripes_total", scrub.stripes_total),
        ("scrub_overdue", u64::from(scrub.overdue)),
        ("rebuild_units_left", owed),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE vmhold_{name} gauge\nvmhold_{name} {value}");
    }
}
