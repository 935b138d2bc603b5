//! The audit log: who asked for which change, from where, and what came of it.
//!
//! Append-only and hash-chained: each line ends with a hash over everything before it in
//! the line, which includes the hash of the line before. A line that is changed, removed or
//! put in later is found by [`verify`]. Lines cut off at the end cannot be found from the
//! log alone; who needs that keeps the newest hash elsewhere (`audit verify` prints it).
//!
//! A change is written down *before* it is made; if that fails, it is not made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Role};
use crate::codes;
use crate::envelope::Document;
use crate::ledger::Ledger;
use crate::problem::Problem;
use crate::text::{Table, left, right};

/// Entries kept in memory for lists.
const KEPT: usize = 2000;
const HASH_FIELD: &str = ",\"hash\":\"";
/// What the first line names as the hash before it.
const BEGINNING: &str = "beginning";

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was allowed and is being done; another entry tells how it ended.
    Asked,
    /// It was answered.
    Answered {
        /// HTTP status.
        status: u16,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Number, one higher than that of the entry before.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Name of the token or of the session's owner; `-` for nobody.
    pub who: String,
    /// Their role.
    pub role: Option<Role>,
    /// From where.
    pub from: Option<String>,
    /// As in `DELETE /v1/datastores/prod`.
    pub action: String,
    /// Whether it was only to be planned.
    pub dry_run: bool,
    /// For an answer: number of the entry that asked.
    pub about: Option<u64>,
    /// What came of it.
    pub outcome: AuditOutcome,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: AuditEntry,
    previous: String,
}

/// `audit list`: entries, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AuditList(pub Vec<AuditEntry>);

impl Document for AuditList {
    const SCHEMA: &'static str = "vmhold.audit.list/v1";
}

impl AuditList {
    /// `audit list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "nobody has changed anything since records began\n".to_owned();
        }
        let mut table = Table::new(&[left("WHEN (UTC)"), left("WHO"), left("FROM"), right("RESULT"), left("ACTION")]);
        for entry in &self.0 {
            let result = match (&entry.outcome, entry.dry_run) {
                (AuditOutcome::Asked, _) => "asked".to_owned(),
                (AuditOutcome::Answered { status }, false) => status.to_string(),
                (AuditOutcome::Answered { status }, true) => format!("{status} dry"),
            };
            let from = entry.from.clone().unwrap_or_else(|| "-".to_owned());
            let when = entry.at.strftime("%m-%d %H:%M:%S").to_string();
            table.row(vec![when, entry.who.clone(), from, result, entry.action.clone()]);
        }
        table.render(width)
    }
}

/// `audit verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditVerified {
    /// Entries that hang together.
    pub entries: u64,
    /// Number of the first that does not, if one does not.
    pub broken_at_line: Option<u64>,
    /// Hash of the newest entry: keep it elsewhere to notice a log that was cut.
    pub newest_hash: String,
}

impl Document for AuditVerified {
    const SCHEMA: &'static str = "vmhold.audit.verify/v1";
}

/// Follows the chain through all lines.
#[must_use]
pub fn verify<'a>(lines: impl Iterator<Item = &'a str>) -> AuditVerified {
    let mut verified = AuditVerified { entries: 0, broken_at_line: None, newest_hash: BEGINNING.to_owned() };
    for (index, line) in lines.enumerate() {
        let parsed = split(line).filter(|(line, hash)| {
            let is_first = index == 0;
            (is_first || line.previous == verified.newest_hash) && *hash == hash_of(line_body(line).as_str())
        });
        let Some((_, hash)) = parsed else {
            verified.broken_at_line = Some(index as u64 + 1);
            return verified;
        };
        verified.entries += 1;
        verified.newest_hash = hash;
    }
    verified
}

/// The line without its hash and closing brace, as text.
fn line_body(line: &Line) -> String {
    let text = serde_json::to_string(line).expect("entries hold only strings and numbers");
    text[..text.len() - 1].to_owned()
}

fn hash_of(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().to_string()
}

fn split(line: &str) -> Option<(Line, String)> {
    let (body, rest) = line.rsplit_once(HASH_FIELD)?;
    let parsed: Line = serde_json::from_str(&format!("{body}}}")).ok()?;
    // Fields this version does not know must not be lost from the hash.
    (line_body(&parsed) == body).then_some((parsed, rest.strip_suffix("\"}")?.to_owned()))
}

struct Pages {
    next_number: u64,
    newest_hash: String,
    kept: Vec<AuditEntry>,
    verified: AuditVerified,
}

/// See the module's head.
pub struct Audit {
    pages: Mutex<Pages>,
    ledger: Box<dyn Ledger>,
}

impl Audit {
    /// Goes on with the lines of earlier runs. A broken chain is reported by
    /// [`Audit::verified`] and does not stop anything.
    #[must_use]
    pub fn open<'a>(lines: impl Iterator<Item = &'a str> + Clone, ledger: Box<dyn Ledger>) -> Arc<Self> {
        let verified = verify(lines.clone());
        let mut kept = Vec::new();
        let mut newest_hash = BEGINNING.to_owned();
        for (line, hash) in lines.filter_map(split) {
            kept.push(line.entry);
            newest_hash = hash;
        }
        let next_number = kept.last().map_or(1, |entry| entry.number + 1);
        kept.drain(..kept.len().saturating_sub(KEPT));
        Arc::new(Self { pages: Mutex::new(Pages { next_number, newest_hash, kept, verified }), ledger })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is asked for or what came of it; gives its number.
    ///
    /// # Errors
    /// `AUDIT_UNWRITABLE`: then the change must not be made.
    pub fn write(&self, said: &Said<'_>, outcome: AuditOutcome, at: Timestamp) -> Result<u64, Problem> {
        let mut pages = self.pages();
        let number = pages.next_number;
        let entry = AuditEntry {
            number,
            at,
            who: said.caller.map_or_else(|| "-".to_owned(), |caller| caller.who.clone()),
            role: said.caller.map(|caller| caller.role),
            from: said.caller.and_then(|caller| caller.from).map(|from| from.to_string()),
            action: said.action.to_owned(),
            dry_run: said.dry_run,
            about: said.about,
            outcome,
        };
        let line = Line { entry, previous: pages.newest_hash.clone() };
        let body = line_body(&line);
        let hash = hash_of(&body);
        self.ledger.append(&format!("{body}{HASH_FIELD}{hash}\"}}")).map_err(|error| {
            Problem::new(&codes::AUDIT_UNWRITABLE, "the audit log cannot be written").why(error.to_string())
        })?;
        pages.next_number += 1;
        pages.newest_hash = hash;
        if pages.kept.len() >= 2 * KEPT {
            pages.kept.drain(..KEPT);
        }
        pages.kept.push(line.entry);
        Ok(number)
    }

    /// The newest entries, oldest first, at most `limit`.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<AuditEntry> {
        let pages = self.pages();
        pages.kept[pages.kept.len().saturating_sub(limit)..].to_vec()
    }

    /// What following the chain found when the log was opened, and the newest hash now.
    #[must_use]
    pub fn verified(&self) -> AuditVerified {
        let pages = self.pages();
        AuditVerified {
            entries: pages.next_number - 1,
            newest_hash: pages.newest_hash.clone(),
            ..pages.verified.clone()
        }
    }
}

/// What is written down about a request.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Who asks; `None` is nobody we know.
    pub caller: Option<&'a Caller>,
    /// As in `DELETE /v1/datastores/prod`.
    pub action: &'a str,
    /// Whether it is only to be planned.
    pub dry_run: bool,
    /// For an answer: number of the entry that asked.
    pub about: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryLedger;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn three_entries() -> Vec<String> {
        let ledger = MemoryLedger::default();
        let audit = Audit::open(std::iter::empty(), Box::new(ledger.clone()));
        let caller = Caller { who: "ops".into(), role: Role::Admin, from: Some("127.0.0.1".parse().unwrap()) };
        let said = Said {
            caller: Some(&caller),
            action: "DELETE /v1/datastores/x\",\"hash\":\"",
            dry_run: false,
            about: None,
        };
        let asked = audit.write(&said, AuditOutcome::Asked, at(0)).unwrap();
        audit.write(&Said { about: Some(asked), ..said }, AuditOutcome::Answered { status: 200 }, at(1)).unwrap();
        audit.write(&Said { caller: None, ..said }, AuditOutcome::Answered { status: 401 }, at(2)).unwrap();
        ledger.lines()
    }

    fn check(lines: &[String]) -> AuditVerified {
        verify(lines.iter().map(String::as_str))
    }

    #[test]
    fn a_whole_log_verifies_and_goes_on_after_a_restart() {
        let lines = three_entries();
        assert_eq!((check(&lines).entries, check(&lines).broken_at_line), (3, None));
        let ledger = MemoryLedger::default();
        let audit = Audit::open(lines.iter().map(String::as_str), Box::new(ledger.clone()));
        let said = Said { caller: None, action: "POST /v1/fsck", dry_run: true, about: None };
        assert_eq!(audit.write(&said, AuditOutcome::Asked, at(3)).unwrap(), 4);
        let all: Vec<String> = lines.into_iter().chain(ledger.lines()).collect();
        assert_eq!((check(&all).entries, check(&all).broken_at_line), (4, None));
        assert_eq!(audit.newest(2).iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 4]);
    }

    /// Every byte of every line counts, and so do their order and their number.
    #[test]
    fn whatever_is_changed_is_found() {
        let lines = three_entries();
        for (index, line) in lines.iter().enumerate() {
            for at in 0..line.len() {
                let mut bytes = line.clone().into_bytes();
                bytes[at] ^= 1;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                let mut log = lines.clone();
                log[index] = changed;
                assert!(check(&log).broken_at_line.is_some(), "line {index} byte {at}: {}", log[index]);
            }
        }
        let without_middle = [lines[0].clone(), lines[2].clone()];
        assert_eq!(check(&without_middle).broken_at_line, Some(2));
        let swapped = [lines[0].clone(), lines[2].clone(), lines[1].clone()];
        assert_eq!(check(&swapped).broken_at_line, Some(2));
    }

    #[test]
    fn the_list_fits_eighty_columns() {
        let entries = three_entries();
        let audit = Audit::open(entries.iter().map(String::as_str), Box::new(MemoryLedger::default()));
        let text = AuditList(audit.newest(9)).human(80);
        assert!(text.contains("ops") && text.contains("asked") && text.contains("401"), "{text}");
    }
}
