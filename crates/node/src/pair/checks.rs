//! When both sites are compared, and what is remembered of it (R-CHK-03, R-CHK-09).
//!
//! The primary checks when somebody asks, after each resync, and once a week. What came of it is noted in the
//! store itself, so that it outlives the process and the folder beside it; the secondary notes what it signed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use base::{FileId, Osn, WallNanos};
use control::events::News;
use control::integrity::{
    FileFound, IntegrityCheck, IntegrityOrder, IntegrityOutcome, KeptEvidence, KeptFile, LastCheck, LastIntegrityCheck,
    Receipt, ReceiptSeal, RowFound,
};
use control::jobs::{JobState, NewJob};
use control::tls::Pem;
use control::{Problem, codes, signature};
use jiff::Timestamp;
use replica::{CheckOutcome, CheckReport, CheckWanted, Differences, FileDifference, Replica, Seal, Statement};
use serde::{Deserialize, Serialize};

use crate::pair::Site;
use crate::shard::Shard;
use crate::upkeep;

/// How often it is looked whether one is due: the schedule is kept within this.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After one that was not completed the next one waits so long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// So long where the one before found a difference, too: a resync has not mended it.
const LATER: Duration = Duration::from_secs(3600);
/// How often a job tells how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// A check every so often, unless the configuration says otherwise.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is noted in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    check: IntegrityCheck,
    /// When a check last found both the same.
    clean_at: Option<Timestamp>,
}

/// What a site knows of checks.
pub(crate) struct Checks {
    every: Duration,
    pem: Pem,
    note: RefCell<Option<Note>>,
    job: RefCell<Option<String>>,
    /// The record has said in sync since the last check began.
    is_wanted: Cell<bool>,
    not_before: Cell<Option<Timestamp>>,
    /// Words that were signed for a primary and are not noted yet.
    signed: RefCell<Option<String>>,
}

/// Why a check is due, if it is.
fn due(now: Timestamp, last: Option<&Note>, is_wanted: bool, every: Duration) -> Option<&'static str> {
    let Some(last) = last else { return Some("it was never checked before") };
    if is_wanted {
        return Some("the sites have become in sync");
    }
    if last.check.outcome == IntegrityOutcome::NotCompleted {
        return Some("the last one was not completed");
    }
    let ended = last.check.ended_at.unwrap_or(last.check.began_at);
    // A clock that was set back does not stop the schedule.
    let age = now.duration_since(ended).as_secs_f64();
    (age < 0.0 || age >= every.as_secs_f64()).then_some("it was due")
}

impl Checks {
    /// What was noted; a check that a crash cut off was not completed.
    pub async fn open(replica: &Replica, pem: Pem, every: Option<Duration>) -> Rc<Checks> {
        let noted = replica.note().await.ok().flatten();
        // What cannot be read any more is as good as never noted: a check follows.
        let mut note: Option<Note> = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(note) = note.as_mut().filter(|note| note.check.outcome == IntegrityOutcome::Running) {
            note.check.outcome = IntegrityOutcome::NotCompleted;
            note.check.why = Some("this site stopped in the middle of it".to_owned());
            note.check.ended_at = Some(Timestamp::now());
        }
        Rc::new(Checks {
            every: every.unwrap_or(WEEK),
            pem,
            note: RefCell::new(note),
            job: RefCell::default(),
            is_wanted: Cell::new(false),
            not_before: Cell::default(),
            signed: RefCell::default(),
        })
    }

    /// The record says in sync again.
    pub fn are_wanted(&self) {
        self.is_wanted.set(true);
    }

    /// See [`replica::Outside::sign`]. What a secondary signs is what it found itself.
    pub fn sign(&self, words: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        *self.signed.borrow_mut() = String::from_utf8(words.to_vec()).ok();
        signature::sign(&self.pem, words).ok()
    }

    /// The line of `replication status`.
    pub fn last(&self, replica: &Replica) -> Option<LastCheck> {
        let kept = replica.evidence().len() as u64;
        let note = self.note.borrow();
        let note = note.as_ref()?;
        let age = note.clean_at.map(|at| Timestamp::now().duration_since(at).as_secs_f64());
        let is_overdue = age.is_some_and(|age| age >= 2.0 * self.every.as_secs_f64());
        Some(note.check.last(note.clean_at, (is_overdue, kept)))
    }

    async fn keep(&self, replica: &Replica, check: IntegrityCheck) {
        let before = self.note.borrow().as_ref().and_then(|note| note.clean_at);
        let clean_at = if check.outcome == IntegrityOutcome::Clean { check.ended_at } else { before };
        let note = Note { check, clean_at };
        let bytes = serde_json::to_vec(&note).unwrap_or_default();
        *self.note.borrow_mut() = Some(note);
        if let Err(refusal) = replica.keep_note(&bytes).await {
            tracing::warn!(%refusal, "what an integrity check came to could not be noted");
        }
    }
}

/// Looks for as long as the store is served whether a check is due, and makes it.
pub(crate) async fn keep_checking(shard: Rc<Shard>) {
    let Some(site) = shard.pair.clone() else { return };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        note_signed(&site, &shard).await;
        let now = Timestamp::now();
        let waits = site.checks.not_before.get().is_some_and(|at| now < at);
        let why = due(now, site.checks.note.borrow().as_ref(), site.checks.is_wanted.get(), site.checks.every);
        if let (Some(why), false, Ok(())) = (why, waits, site.replica.may_check()) {
            check(&shard, &site, IntegrityOrder::default(), why).await;
        }
    }
}

/// A secondary notes what it has signed.
async fn note_signed(site: &Site, shard: &Shard) {
    let Some(words) = site.checks.signed.take() else { return };
    let Ok(statement) = Statement::read(&words) else { return };
    if statement.sides.secondary != site.me {
        return;
    }
    let report = CheckReport {
        osn: Some(statement.osn),
        began: statement.at,
        ended: statement.at,
        pause: Duration::ZERO,
        reads_data: statement.reads_data,
        files: statement.files,
        bytes: statement.bytes,
        rows: statement.rows,
        outcome: CheckOutcome::NotCompleted(""),
    };
    let mut check = document(&shard.config.pool, &report, "the primary checked");
    (check.outcome, check.why, check.pause_ms) = (IntegrityOutcome::Clean, None, None);
    site.checks.keep(&site.replica, check).await;
}

/// Makes a check, as a job for everyone to see.
async fn check(shard: &Rc<Shard>, site: &Rc<Site>, order: IntegrityOrder, because: &str) {
    let checks = &site.checks;
    checks.is_wanted.set(false);
    let differed = checks.note.borrow().as_ref().is_some_and(|note| note.check.outcome == IntegrityOutcome::Differs);
    let mode = if order.read_data { "data" } else { "sums" };
    let new = NewJob { kind: "verify", mode: Some(mode), object: shard.config.pool.clone(), ..NewJob::default() };
    let job = shard.books.jobs.start(new, Timestamp::now());
    *checks.job.borrow_mut() = Some(job.id());
    let wanted = CheckWanted { reads_data: order.read_data, about: about(shard) };
    checks.keep(&site.replica, running(&shard.config.pool, order, because)).await;
    let mut work = std::pin::pin!(site.replica.check(wanted));
    let came = loop {
        tokio::select! {
            biased;
            came = &mut work => break came,
            () = tokio::time::sleep(TELL_EVERY) => {
                if let Some(progress) = site.replica.check_progress() {
                    let now = Timestamp::now();
                    job.resize(progress.bytes_in_all.max(progress.bytes), false, now);
                    job.advance(progress.bytes, now);
                }
            }
        }
    };
    let noted = match came {
        Ok(report) => noted(shard, &report, because).await,
        Err(refused) => IntegrityCheck {
            outcome: IntegrityOutcome::NotCompleted,
            why: Some(refused.to_string()),
            ended_at: Some(Timestamp::now()),
            ..running(&shard.config.pool, order, because)
        },
    };
    checks.keep(&site.replica, noted.clone()).await;
    checks.job.borrow_mut().take();
    let (state, code) = match noted.outcome {
        IntegrityOutcome::Clean => (JobState::Done, &codes::CHECK_CLEAN),
        IntegrityOutcome::Differs => (JobState::Done, &codes::SITES_DIFFER),
        _ => (JobState::Failed, &codes::CHECK_NOT_COMPLETED),
    };
    let again = match (noted.outcome, differed) {
        (IntegrityOutcome::Differs, true) => Some(LATER),
        _ if state == JobState::Failed => Some(AGAIN_AFTER),
        _ => None,
    };
    checks.not_before.set(again.and_then(|after| Timestamp::now().checked_add(after).ok()));
    let summary = noted.summary();
    tracing::info!(code = %code, pool = %noted.pool, because, "{summary}");
    shard.books.events.tell(News::happened(code, noted.pool.clone(), summary.clone()), Timestamp::now());
    job.end(state, summary, Timestamp::now());
}

/// What the receipt calls what was compared: the pool and its datastores.
fn about(shard: &Shard) -> String {
    let named = |fs: &datastore::Filesystem<_>| {
        let names = fs.datastores().into_iter().filter(|info| !info.name.is_empty()).map(|info| info.name);
        names.collect::<Vec<_>>().join(", ")
    };
    let names = shard.fs().map(|fs| named(&fs)).unwrap_or_default();
    format!("{}: {names}", shard.config.pool)
}

fn running(pool: &str, order: IntegrityOrder, because: &str) -> IntegrityCheck {
    IntegrityCheck {
        pool: pool.to_owned(),
        outcome: IntegrityOutcome::Running,
        why: None,
        because: because.to_owned(),
        read_data: order.read_data,
        began_at: Timestamp::now(),
        ended_at: None,
        pause_ms: None,
        operation: None,
        files: 0,
        bytes: 0,
        rows: 0,
        files_found: 0,
        found: Vec::new(),
        rows_found: 0,
        found_rows: Vec::new(),
        receipt: None,
    }
}

fn at(wall: WallNanos) -> Timestamp {
    upkeep::at(wall.0).unwrap_or_default()
}

fn operation(osn: Osn) -> String {
    format!("{}.{}", osn.epoch().0, osn.counter())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A report in the words of the API, as far as it says them itself.
fn document(pool: &str, report: &CheckReport, because: &str) -> IntegrityCheck {
    let (outcome, why) = match &report.outcome {
        CheckOutcome::Clean { .. } => (IntegrityOutcome::Clean, None),
        CheckOutcome::Differs(_) => (IntegrityOutcome::Differs, None),
        CheckOutcome::NotCompleted(why) => (IntegrityOutcome::NotCompleted, Some((*why).to_owned())),
    };
    let order = IntegrityOrder { read_data: report.reads_data };
    IntegrityCheck {
        outcome,
        why,
        began_at: at(report.began),
        ended_at: Some(at(report.ended)),
        pause_ms: report.osn.map(|_| report.pause.as_secs_f64() * 1e3),
        operation: report.osn.map(operation),
        files: report.files,
        bytes: report.bytes,
        rows: report.rows,
        ..running(pool, order, because)
    }
}

async fn noted(shard: &Shard, report: &CheckReport, because: &str) -> IntegrityCheck {
    let mut check = document(&shard.config.pool, report, because);
    match &report.outcome {
        CheckOutcome::Clean { statement, seals } => check.receipt = Some(receipt(statement, seals)),
        CheckOutcome::Differs(found) => {
            let names = shard.paths(found.files.iter().map(|one| one.file)).await;
            (check.files_found, check.rows_found) = (found.files_in_all, found.rows_in_all);
            check.found = found.files.iter().map(|one| file_found(one, names.get(&one.file).cloned())).collect();
            check.found_rows = rows_found(found);
        }
        CheckOutcome::NotCompleted(_) => {}
    }
    check
}

fn receipt(statement: &Statement, seals: &[Seal]) -> Receipt {
    let seal = |seal: &Seal| ReceiptSeal {
        site: seal.site.to_string(),
        certificate: hex(&seal.certificate),
        signature: hex(&seal.signature),
    };
    Receipt { statement: statement.words(), seals: seals.iter().map(seal).collect() }
}

fn file_found(one: &FileDifference, path: Option<String>) -> FileFound {
    let mut what = Vec::new();
    match (&one.primary, &one.secondary) {
        (Some(_), None) => what.push("missing at the secondary"),
        (None, Some(_)) => what.push("at the secondary only"),
        (None, None) => {}
        (Some(mine), Some(theirs)) => {
            let cases = [
                (mine.frozen != theirs.frozen, "kind"),
                (mine.size_bytes != theirs.size_bytes, "size"),
                ((mine.modified, mine.changed) != (theirs.modified, theirs.changed), "times"),
                (mine.sum != theirs.sum, "content"),
                (mine.unreadable, "not readable at the primary"),
                (theirs.unreadable, "not readable at the secondary"),
                (mine.sum_is_wrong, "its sum does not fit its data at the primary"),
                (theirs.sum_is_wrong, "its sum does not fit its data at the secondary"),
            ];
            what.extend(cases.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what));
        }
    }
    FileFound {
        file: one.file.0,
        path,
        what: what.into_iter().map(str::to_owned).collect(),
        blocks: one.blocks.clone(),
        more_blocks: one.more_blocks,
    }
}

fn rows_found(found: &Differences) -> Vec<RowFound> {
    let row = |row: &replica::RowDifference| RowFound {
        table: row.table,
        key: hex(&row.key),
        primary: row.primary.as_deref().map(hex),
        secondary: row.secondary.as_deref().map(hex),
    };
    found.rows.iter().map(row).collect()
}

impl Shard {
    /// Paths of files, as far as this site can tell.
    async fn paths(&self, files: impl Iterator<Item = FileId>) -> crate::damage::Names {
        let files: BTreeSet<FileId> = files.collect();
        match self.fs() {
            Ok(fs) if !files.is_empty() => fs.paths_of(&files).await.unwrap_or_default(),
            _ => crate::damage::Names::new(),
        }
    }

    fn site(&self) -> Result<&Rc<Site>, Problem> {
        self.pair
            .as_ref()
            .ok_or_else(|| Problem::new(&codes::NOT_FOUND, format!("{} has no other site", self.config.pool)))
    }

    /// The last check that this site knows of.
    pub(crate) fn last_check(&self) -> Result<LastIntegrityCheck, Problem> {
        let checks = &self.site()?.checks;
        let check = checks.note.borrow().as_ref().map(|note| note.check.clone());
        let check = check.map(|check| IntegrityCheck { pool: self.config.pool.clone(), ..check });
        Ok(LastIntegrityCheck { pool: self.config.pool.clone(), check, job: checks.job.borrow().clone() })
    }

    /// Whether one could begin now.
    ///
    /// # Errors
    /// `CHECK_REFUSED`.
    pub(crate) fn could_check(&self) -> Result<(), Problem> {
        let site = self.site()?;
        let refused = |why: String| {
            Problem::new(&codes::CHECK_REFUSED, format!("{} is not checked now", self.config.pool)).why(why)
        };
        if site.checks.job.borrow().is_some() {
            return Err(refused(replica::CheckRefused::Running.to_string()));
        }
        site.replica.may_check().map_err(|why| refused(why.to_string()))
    }

    /// Begins one.
    ///
    /// # Errors
    /// As [`could_check`](Shard::could_check).
    pub(crate) fn begin_check(self: &Rc<Self>, order: IntegrityOrder) -> Result<LastIntegrityCheck, Problem> {
        self.could_check()?;
        let (shard, site) = (self.clone(), self.site()?.clone());
        // Told before it is at work, so that nobody begins another.
        *site.checks.job.borrow_mut() = Some(String::new());
        let begun = site.clone();
        tokio::task::spawn_local(async move { check(&shard, &begun, order, "somebody asked for it").await });
        Ok(LastIntegrityCheck { job: None, ..self.last_check()? })
    }

    /// What this site keeps of files that differed; lets go of it if told.
    pub(crate) async fn evidence(&self, forget: bool) -> Result<KeptEvidence, Problem> {
        let site = self.site()?;
        let all = site.replica.evidence();
        let names = self.paths(all.iter().map(|one| one.file)).await;
        if forget {
            site.replica.forget_evidence().await.map_err(|refusal| {
                Problem::new(&codes::POOL_FAULTED, "the evidence could not be let go of").why(refusal.to_string())
            })?;
        }
        let kept = |one: &replica::Evidence| KeptFile {
            file: one.file.0,
            path: names.get(&one.file).cloned(),
            operation: operation(one.osn),
        };
        Ok(KeptEvidence { pool: self.config.pool.clone(), kept: all.iter().map(kept).collect(), forgotten: forget })
    }
}

/// Gauges of checks, as Prometheus text.
pub(crate) fn metrics(shard: &Shard, out: &mut String) {
    let Some(site) = &shard.pair else { return };
    let last = site.checks.last(&site.replica);
    let clean = last.as_ref().and_then(|last| last.clean_at).map_or(0, Timestamp::as_second);
    let differs = last.as_ref().is_some_and(|last| last.outcome == IntegrityOutcome::Differs);
    let evidence = site.replica.evidence().len() as i64;
    for (name, value) in [
        // 0: never.
        ("integrity_clean_timestamp_seconds", clean),
        ("integrity_differs", i64::from(differs)),
        ("integrity_evidence_files", evidence),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE vmhold_{name} gauge\nvmhold_{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(outcome: IntegrityOutcome, ended: &str) -> Note {
        let ended_at = Some(ended.parse().unwrap());
        let check = IntegrityCheck { outcome, ended_at, ..running("flash0", IntegrityOrder::default(), "a test") };
        Note { check, clean_at: None }
    }

    /// Never checked, in sync again, not completed, a week old: each makes a check due, and nothing else.
    /// Decides R-CHK-03.
    #[test]
    fn a_check_is_due_after_a_resync_and_once_a_week() {
        let now: Timestamp = "2026-11-27T10:00:00Z".parse().unwrap();
        let clean = |ended: &str| Some(note(IntegrityOutcome::Clean, ended));
        let is_due = |note: Option<Note>, is_wanted| due(now, note.as_ref(), is_wanted, WEEK).is_some();
        assert!(is_due(None, false));
        assert!(!is_due(clean("2026-11-20T10:00:01Z"), false));
        assert!(is_due(clean("2026-11-20T10:00:00Z"), false));
        assert!(is_due(clean("2026-11-27T09:59:59Z"), true));
        assert!(is_due(clean("2026-11-27T12:00:00Z"), false), "the clock was set back");
        assert!(is_due(Some(note(IntegrityOutcome::NotCompleted, "2026-11-27T09:59:59Z")), false));
        assert!(!is_due(Some(note(IntegrityOutcome::Differs, "2026-11-27T09:59:59Z")), false), "a resync comes first");
    }
}
