//! Health, computed here and nowhere else from plain facts; every view shows this result.
//! Unknown is never green: a fact that is not known fails its check as a warning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{self, Code, Severity};
use crate::integrity::LastCheck;
use crate::pool::{Drive, DriveState, Journal, JournalKind, Pool, PoolState};
use crate::replication::{PairState, Replication};
use crate::text;

const NEARLY_FULL: f64 = 0.85;

/// The one word for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// No check fails.
    Ok,
    /// Someone may have to act.
    Warn,
    /// Someone must act.
    Error,
}

/// A check that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `VH1021`.
    pub code: String,
    /// `DRIVE_FAILED`.
    pub name: String,
    /// How bad.
    pub severity: Severity,
    /// What it is about, as in `flash0/7`.
    pub object: String,
    /// What is found.
    pub detail: String,
    /// What to do.
    #[serde(rename = "do")]
    pub steps: Vec<String>,
}

/// All checks together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The worst of them.
    pub level: Level,
    /// How many checks there are.
    pub checks: u32,
    /// Those that fail, worst first.
    pub findings: Vec<Finding>,
}

impl crate::envelope::Document for Health {
    const SCHEMA: &'static str = "vmhold.health/v1";
}

/// What the health of a store follows from.
pub struct HealthFacts<'a> {
    /// Its pools.
    pub pools: &'a [Pool],
    /// Its journal.
    pub journal: &'a Journal,
    /// Its other half, if it has one.
    pub replication: Option<&'a Replication>,
}

#[derive(Default)]
struct Checks {
    count: u32,
    findings: Vec<Finding>,
}

impl Checks {
    /// One check: nothing, or what fails and why.
    fn check(&mut self, object: &str, failing: Option<(&'static Code, String)>) {
        self.count += 1;
        if let Some((code, detail)) = failing {
            self.findings.push(Finding {
                code: code.to_string(),
                name: code.name.to_owned(),
                severity: code.severity,
                object: object.to_owned(),
                detail,
                steps: code.act.iter().map(|step| (*step).to_owned()).collect(),
            });
        }
    }
}

impl Health {
    /// Runs every check over the facts.
    #[must_use]
    pub fn of(facts: &HealthFacts<'_>) -> Self {
        let mut checks = Checks::default();
        for pool in facts.pools {
            check_pool(pool, &mut checks);
        }
        check_journal(facts.journal, &mut checks);
        if let Some(pair) = facts.replication {
            check_pair(pair, &mut checks);
        }
        let Checks { count, mut findings } = checks;
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let level = findings.iter().map(|finding| level_of(finding.severity)).max().unwrap_or(Level::Ok);
        Self { level, checks: count, findings }
    }

    /// The block of `status`.
    #[must_use]
    pub fn human(&self) -> String {
        let word = match self.level {
            Level::Ok => "OK",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        let mut out = match self.findings.len() {
            0 => format!("HEALTH  {word}   all {} checks pass\n", self.checks),
            failing => format!("HEALTH  {word}   {failing} of {} checks failing\n", self.checks),
        };
        for finding in &self.findings {
            let mark = if finding.severity == Severity::Error { "!!" } else { "!" };
            let line = format!("{} {} {}: {}", finding.code, finding.name, finding.object, finding.detail);
            for (index, part) in text::wrap(&line, 75).into_iter().enumerate() {
                out.push_str(&format!("  {:<2} {part}\n", if index == 0 { mark } else { "" }));
            }
            if let Some(step) = finding.steps.first() {
                for (index, part) in text::wrap(step, 71).into_iter().enumerate() {
                    out.push_str(&format!("     {:<3} {part}\n", if index == 0 { "do:" } else { "" }));
                }
            }
        }
        out
    }
}

const fn level_of(severity: Severity) -> Level {
    match severity {
        Severity::Info => Level::Ok,
        Severity::Warning => Level::Warn,
        Severity::Error => Level::Error,
    }
}

fn check_pool(pool: &Pool, checks: &mut Checks) {
    let lost = pool.drives.iter().filter(|drive| is_lost(drive)).count();
    let state = match pool.state {
        PoolState::Online => None,
        PoolState::Degraded if pool.failures_tolerated.is_none() => {
            Some((&codes::POOL_DEGRADED, "how many drives it can lose is not known".to_owned()))
        }
        PoolState::Degraded => Some((&codes::POOL_DEGRADED, can_lose(pool, lost))),
        PoolState::Critical => Some((&codes::POOL_CRITICAL, can_lose(pool, lost))),
        PoolState::Faulted => Some((&codes::POOL_FAULTED, can_lose(pool, lost))),
    };
    checks.check(&pool.name, state);
    checks.check(&pool.name, pool.is_lab().then(|| (&codes::LAB_POOL, pool.lab_warning())));
    checks.check(&pool.name, space(pool));
    let lost_stripes = pool.lost_stripes.filter(|count| *count > 0).map(|count| {
        let plural = if count == 1 { "stripe is" } else { "stripes are" };
        (&codes::UNREPAIRABLE_UNIT, format!("{} {plural} damaged beyond repair", text::count(count)))
    });
    checks.check(&pool.name, lost_stripes);
    for drive in &pool.drives {
        checks.check(&drive.id(), drive_state(drive));
    }
    for fault in &pool.faults {
        checks.check(&fault.drive, Some((&codes::FAULT_INJECTED, fault.detail())));
    }
}

fn is_lost(drive: &Drive) -> bool {
    matches!(drive.state, DriveState::Failed | DriveState::Missing)
}

fn can_lose(pool: &Pool, lost: usize) -> String {
    let more = text::or_dash(pool.failures_tolerated, |more| more.to_string());
    let filling = pool.drives.iter().filter(|drive| drive.state == DriveState::Rebuilding).count();
    let filling = if filling == 0 { String::new() } else { format!(", {filling} being rebuilt") };
    format!("{lost} of {} drives lost{filling}, can lose {more} more", pool.members())
}

fn space(pool: &Pool) -> Option<(&'static Code, String)> {
    let share = pool.used_share()?;
    let percent = format!("{:.0} % used, {} free", share * 100.0, text::or_dash(pool.free_bytes, text::bytes));
    if pool.free_bytes == Some(0) {
        return Some((&codes::POOL_FULL, percent));
    }
    (share >= NEARLY_FULL).then_some((&codes::POOL_NEARLY_FULL, percent))
}

fn drive_state(drive: &Drive) -> Option<(&'static Code, String)> {
    let reason = drive.reason.clone().unwrap_or_else(|| "no reason known".to_owned());
    match drive.state {
        DriveState::Online if drive.io.as_ref().is_some_and(|io| io.slow.is_some()) => {
            Some((&codes::DRIVE_SLOW, reason))
        }
        DriveState::Online | DriveState::Spare | DriveState::Rebuilding => None,
        DriveState::Missing => Some((&codes::DRIVE_MISSING, reason)),
        DriveState::Failed => Some((&codes::DRIVE_FAILED, reason)),
    }
}

fn check_pair(pair: &Replication, checks: &mut Checks) {
    let state = match pair.state {
        PairState::InSync => None,
        PairState::Unknown => Some("how the copies stand is not known yet".to_owned()),
        other => Some(format!("{}: what was written since is at the primary only", other.word())),
    };
    checks.check(&pair.pool, state.map(|detail| (&codes::OUT_OF_SYNC, detail)));
    for (code, reach) in [(&codes::SITE_LINK_LOST, &pair.peer), (&codes::WITNESS_LOST, &pair.witness)] {
        let why = reach.why_not.clone().unwrap_or_else(|| "no reason known".to_owned());
        checks.check(&reach.address, (!reach.answers).then_some((code, why)));
    }
    let last = pair.last_check.as_ref();
    checks.check(&pair.pool, LastCheck::difference(last).map(|found| (&codes::SITES_DIFFER, found)));
    checks.check(&pair.pool, LastCheck::trouble(last).map(|why| (&codes::NOT_CHECKED, why)));
}

fn check_journal(journal: &Journal, checks: &mut Checks) {
    let latched = journal.latched || journal.legs_in_use() == 0;
    checks.check(
        "journal",
        latched.then(|| (&codes::JOURNAL_LATCHED, "no leg is left, nothing is acknowledged".to_owned())),
    );
    for leg in &journal.legs {
        let reason = leg.reason.clone().unwrap_or_else(|| "no reason known".to_owned());
        checks.check(&format!("journal {}", leg.path), (!leg.in_use).then_some((&codes::JOURNAL_LEG_LOST, reason)));
    }
    let lab = journal.kind().filter(|kind| matches!(kind, JournalKind::File | JournalKind::Memory));
    checks.check("journal", lab.map(|kind| (&codes::LAB_JOURNAL, kind.promise().to_owned())));
    let blocked = (journal.blocked_ranges > 0).then_some(journal.blocked_ranges);
    checks.check(
        "journal",
        blocked.map(|count| (&codes::JOURNAL_DAMAGED, format!("{} ranges are blocked", text::count(count)))),
    );
    let full = journal.used_share().filter(|share| *share >= 0.95);
    checks.check("journal", full.map(|share| (&codes::JOURNAL_FULL, format!("{:.0} % used", share * 100.0))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{DriveIo, SlowDrive, samples};

    fn codes_of(pool: Pool, journal: &Journal) -> Vec<String> {
        let health = Health::of(&HealthFacts { pools: &[pool], journal, replication: None });
        health.findings.into_iter().map(|finding| finding.code).collect()
    }

    /// The queue of a drive that is far slower than the others.
    fn slow_drive_io() -> DriveIo {
        DriveIo {
            profile: "unknown flash".into(),
            depth: 32,
            in_flight: 0,
            waiting: 0,
            timed_reads: 100,
            late_reads: 90,
            late_percent: 90.0,
            read_ms: Some(40.0),
            slow: Some(SlowDrive { latency_ms: 40.0, usual_ms: 0.1 }),
        }
    }

    fn solid() -> Journal {
        let mut journal = samples::journal();
        journal.legs[0].kind = JournalKind::PersistentMemory;
        journal
    }

    #[test]
    fn a_sound_store_has_no_findings_and_counts_its_checks() {
        let health = Health::of(&HealthFacts { pools: &[samples::pool(6)], journal: &solid(), replication: None });
        assert_eq!(health, Health { level: Level::Ok, checks: 15, findings: Vec::new() });
        assert_eq!(health.human(), "HEALTH  OK   all 15 checks pass\n");
    }

    #[test]
    fn each_bad_fact_raises_its_code() {
        type Spoil = fn(&mut Pool);
        let table: [(Spoil, &[&str]); 9] = [
            (|pool| pool.state = PoolState::Degraded, &["VH1025"]),
            (|pool| pool.state = PoolState::Critical, &["VH1023"]),
            (|pool| pool.state = PoolState::Faulted, &["VH1026"]),
            (|pool| pool.drives.truncate(3), &["VH1001"]),
            (|pool| pool.used_bytes = Some(9 << 29), &["VH1011"]),
            (|pool| pool.free_bytes = Some(0), &["VH1012"]),
            (|pool| pool.lost_stripes = Some(1), &["VH1032"]),
            (|pool| pool.drives[0].state = DriveState::Missing, &["VH1022"]),
            (|pool| pool.drives[0].io = Some(slow_drive_io()), &["VH1041"]),
        ];
        for (spoil, expected) in table {
            let mut pool = samples::pool(6);
            spoil(&mut pool);
            assert_eq!(codes_of(pool, &solid()), expected);
        }
    }

    #[test]
    fn each_bad_fact_of_the_journal_raises_its_code() {
        type Spoil = fn(&mut Journal);
        let table: [(Spoil, &[&str]); 5] = [
            (|journal| journal.latched = true, &["VH1052"]),
            (|journal| journal.legs[0].in_use = false, &["VH1052", "VH1051"]),
            (|journal| journal.legs[0].kind = JournalKind::File, &["VH1002"]),
            (|journal| journal.blocked_ranges = 2, &["VH1053"]),
            (|journal| journal.used_bytes = Some(255 << 20), &["VH1055"]),
        ];
        for (spoil, expected) in table {
            let mut journal = solid();
            spoil(&mut journal);
            assert_eq!(codes_of(samples::pool(6), &journal), expected);
        }
    }

    #[test]
    fn the_worst_stands_first_and_sets_the_level() {
        let mut pool = samples::pool(6);
        pool.state = PoolState::Degraded;
        pool.failures_tolerated = Some(1);
        pool.drives[4].state = DriveState::Failed;
        pool.drives[4].reason = Some("31 write errors in 10 s".into());
        let health = Health::of(&HealthFacts { pools: &[pool], journal: &solid(), replication: None });
        assert_eq!(health.level, Level::Error);
        assert_eq!(
            health.human(),
            "\
HEALTH  ERROR   2 of 15 checks failing
  !! VH1021 DRIVE_FAILED flash0/5: 31 write errors in 10 s
     do: replace the drive
  !  VH1025 POOL_DEGRADED flash0: 1 of 6 drives lost, can lose 1 more
     do: replace or push back the drive
"
        );
    }
}
