//! Looking after a pool: scrub, its history, and drives that are given to it. Documents
//! and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::text::{self, Table, left, right};

/// What can be done with a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScrubAction {
    /// Begin a pass now, at full pace.
    Start,
    /// Look at nothing until it is resumed.
    Pause,
    /// Go on.
    Resume,
}

/// Body of `POST /v1/pools/{name}/scrub`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScrubOrder {
    /// What to do.
    pub action: ScrubAction,
}

/// One pass over everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScrubPass {
    /// Counts from 1.
    pub number: u64,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Stripes read.
    pub stripes: u64,
    /// Data objects recomputed.
    pub objects: u64,
    /// Units repaired.
    pub repaired_units: u64,
    /// Units, stripes and objects that could not be.
    pub unrepaired: u64,
}

/// `pool scrub status` and the answer to every order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScrubReport {
    /// The pool.
    pub pool: String,
    /// `RUNNING`, `PAUSED`, or `WAITING` for a rebuild.
    pub state: String,
    /// The pass under way.
    pub pass: ScrubPass,
    /// Stripes it has to read, as far as is known.
    pub stripes_total: u64,
    /// 0 to 100; 100 only when it is done.
    pub percent: f64,
    /// Time between two stripes.
    pub interval_seconds: f64,
    /// Rest of the pass; unknown while it stands still.
    pub eta_seconds: Option<f64>,
    /// The pass takes longer than it may.
    pub overdue: bool,
    /// Passes done, newest last.
    pub history: Vec<ScrubPass>,
}

impl Document for ScrubReport {
    const SCHEMA: &'static str = "vmhold.pool.scrub/v1";
}

impl ScrubReport {
    /// `pool scrub status`.
    #[must_use]
    pub fn human(&self, now: Timestamp) -> String {
        let eta = self.eta_seconds.map_or_else(String::new, |rest| format!("   ETA in {}", text::duration(rest)));
        let mut out = format!(
            "{}  scrub {}   pass {}\n  {} {:>3.0} %   {} of {} stripes{eta}\n",
            self.pool,
            self.state,
            self.pass.number,
            text::bar(self.percent / 100.0, 20),
            self.percent.floor(),
            text::count(self.pass.stripes),
            text::count(self.stripes_total),
        );
        out.push_str(&format!(
            "  one stripe each {}   units repaired {}, beyond repair {}\n",
            text::duration(self.interval_seconds),
            text::count(self.pass.repaired_units),
            text::count(self.pass.unrepaired),
        ));
        if self.overdue {
            out.push_str("  OVERDUE: the pass takes longer than it may (vmhold explain VH1035)\n");
        }
        if let Some(last) = self.history.last().and_then(|pass| pass.ended_at) {
            let ago = now.duration_since(last).as_secs_f64().max(0.0);
            out.push_str(&format!(
                "  last full scrub {} ago: vmhold pool history {}\n",
                text::duration(ago),
                self.pool
            ));
        }
        out
    }

    /// `pool history`.
    #[must_use]
    pub fn human_history(&self, width: usize) -> String {
        if self.history.is_empty() {
            return format!("{}: no full scrub yet; the first one is at {:.0} %\n", self.pool, self.percent.floor());
        }
        let mut table = Table::new(&[
            left("STARTED (UTC)"),
            right("TOOK"),
            right("STRIPES"),
            right("OBJECTS"),
            right("REPAIRED"),
            right("BEYOND REPAIR"),
        ]);
        for pass in self.history.iter().rev() {
            let took = pass.started_at.zip(pass.ended_at).map(|(from, to)| to.duration_since(from).as_secs_f64());
            table.row(vec![
                text::or_dash(pass.started_at, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string()),
                text::or_dash(took, text::duration),
                text::count(pass.stripes),
                text::count(pass.objects),
                text::count(pass.repaired_units),
                text::count(pass.unrepaired),
            ]);
        }
        table.render(width)
    }
}

/// Body of `POST /v1/drives` and of `POST /v1/drives/{pool}/{slot}/replace` and `/retire`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DriveOffer {
    /// File or device. For a replacement, or a drive that is retired: none takes a spare.
    pub path: Option<String>,
}

/// What became of a drive that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriveTaken {
    /// `SPARE`, the drive whose place it took, as in `flash0/3`, or the one it is the twin of, as in
    /// `TWIN of flash0/3`.
    pub taken_as: String,
    /// Its path.
    pub path: String,
}

impl Document for DriveTaken {
    const SCHEMA: &'static str = "vmhold.drive.taken/v1";
}

impl DriveTaken {
    /// Before the drive that is retired, in `taken_as`.
    pub const TWIN_OF: &'static str = "TWIN of ";

    /// One line.
    #[must_use]
    pub fn human(&self) -> String {
        match self.taken_as.as_str() {
            "SPARE" => format!("{} is a spare now\n", self.path),
            twin if twin.starts_with(DriveTaken::TWIN_OF) => format!(
                "{} is filled from {} and takes its place then\nwatch: vmhold job list   call it off: vmhold job cancel JOB\n",
                self.path,
                twin.trim_start_matches(DriveTaken::TWIN_OF)
            ),
            place => format!(
                "{} takes the place of {place} and is being filled\nwatch: vmhold pool show {} --map\n",
                self.path,
                place.split('/').next().unwrap_or_default()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_drive_is_said_in_words() {
        let taken = |taken_as: &str| DriveTaken { taken_as: taken_as.into(), path: "/dev/x".into() }.human();
        assert_eq!(taken("SPARE"), "/dev/x is a spare now\n");
        assert!(taken("flash0/3").starts_with("/dev/x takes the place of flash0/3 and"));
        assert!(taken("TWIN of flash0/3").starts_with("/dev/x is filled from flash0/3 and takes its place then\n"));
    }

    fn report() -> ScrubReport {
        let at = |text: &str| text.parse().ok();
        let pass = |number, ended_at| ScrubPass {
            number,
            started_at: at("2026-11-20T09:00:00Z"),
            ended_at,
            stripes: 5120,
            objects: 80_000,
            repaired_units: 3,
            unrepaired: 0,
        };
        ScrubReport {
            pool: "flash0".into(),
            state: "RUNNING".into(),
            pass: pass(2, None),
            stripes_total: 6400,
            percent: 80.0,
            interval_seconds: 188.0,
            eta_seconds: Some(7200.0),
            overdue: false,
            history: vec![pass(1, at("2026-11-20T09:10:00Z"))],
        }
    }

    #[test]
    fn a_scrub_reads_like_a_sentence_and_fits_80_columns() {
        let text = report().human("2026-11-20T12:10:00Z".parse().unwrap());
        assert!(text.starts_with("flash0  scrub RUNNING   pass 2\n  [################....]  80 %"), "{text}");
        assert!(text.contains("last full scrub 3"), "{text}");
        assert!(text.lines().chain(report().human_history(80).lines()).all(|line| line.len() <= 80), "{text}");
    }
}
