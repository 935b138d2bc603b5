//! The integrity check of two sites: what was asked for, what came of it, and the receipt. Documents and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::text;

/// Body of `POST /v1/replication/{pool}/verify`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IntegrityOrder {
    /// Read all data at both sites instead of trusting the sums that are kept.
    #[serde(default)]
    pub read_data: bool,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IntegrityOutcome {
    /// It is at work.
    Running,
    /// Both sites hold the same.
    Clean,
    /// They do not.
    Differs,
    /// It ended before all was compared: nothing is known.
    NotCompleted,
}

impl IntegrityOutcome {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Clean => "CLEAN",
            Self::Differs => "DIFFERS",
            Self::NotCompleted => "NOT COMPLETED",
        }
    }
}

/// A file that is not the same at both sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileFound {
    /// Its id, the same at both sites.
    pub file: u64,
    /// Its path in the datastore, where it is known.
    pub path: Option<String>,
    /// What differs: `content`, `size`, `times`, `missing at the secondary`, ...
    pub what: Vec<String>,
    /// Numbers of the blocks of 8 KiB that differ, the first ones.
    pub blocks: Vec<u64>,
    /// There are more.
    pub more_blocks: bool,
}

/// A row of names or attributes that is not the same at both sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowFound {
    /// The number of its table.
    pub table: u8,
    /// Its key, in hex.
    pub key: String,
    /// What the primary has, in hex.
    pub primary: Option<String>,
    /// What the secondary has, in hex.
    pub secondary: Option<String>,
}

/// A check, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntegrityCheck {
    /// The pool of the site that checked.
    pub pool: String,
    /// What it came to.
    pub outcome: IntegrityOutcome,
    /// Why it was not completed.
    pub why: Option<String>,
    /// Somebody asked for it, it was due, or it followed a resync.
    pub because: String,
    /// Every block was read.
    pub read_data: bool,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How long writes waited for the point that was compared.
    pub pause_ms: Option<f64>,
    /// The operation at which both sites were compared, as epoch and counter.
    pub operation: Option<String>,
    /// Files and snapshots compared.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Rows compared: names, attributes, locks, replies.
    pub rows: u64,
    /// Files that differ, in all.
    pub files_found: u64,
    /// The first of them.
    pub found: Vec<FileFound>,
    /// Rows that differ, in all.
    pub rows_found: u64,
    /// The first of them.
    pub found_rows: Vec<RowFound>,
    /// What both sites signed, where they hold the same.
    pub receipt: Option<Receipt>,
}

impl Document for IntegrityCheck {
    const SCHEMA: &'static str = "vmhold.integrity.check/v1";
}

/// One site's word for a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptSeal {
    /// The site.
    pub site: String,
    /// Its certificate (DER, in hex): the one by which the witness knows it.
    pub certificate: String,
    /// Its signature of the statement's bytes (in hex).
    pub signature: String,
}

/// What two sites say together: they held the same at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The words that are signed, all of them.
    pub statement: String,
    /// Who signed them.
    pub seals: Vec<ReceiptSeal>,
}

impl Document for Receipt {
    const SCHEMA: &'static str = "vmhold.integrity.receipt/v1";
}

/// A receipt that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptVerified {
    /// The words.
    pub statement: String,
    /// The sites that signed them, and the fingerprints of the certificates they signed with.
    pub signed_by: Vec<ReceiptSigner>,
}

/// A site that signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptSigner {
    /// The site.
    pub site: String,
    /// Of its certificate: what `site show` prints there, and the witness has on its roll.
    pub fingerprint: String,
}

impl Document for ReceiptVerified {
    const SCHEMA: &'static str = "vmhold.integrity.verified/v1";
}

impl ReceiptVerified {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = String::from("the signatures of both sites are good\n\n");
        out.push_str(&self.statement);
        out.push('\n');
        for signer in &self.signed_by {
            out.push_str(&format!("signed by {}\n  with certificate {}\n", signer.site, signer.fingerprint));
        }
        out.push_str("compare these with what each site says of itself: vmhold site show\n");
        out
    }
}

/// Last check of a pair, in the words of `replication status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastCheck {
    /// What it came to.
    pub outcome: IntegrityOutcome,
    /// When it ended, or began if it is running.
    pub at: Timestamp,
    /// When a check last found both the same.
    pub clean_at: Option<Timestamp>,
    /// Files that differ.
    pub files_found: u64,
    /// Rows that differ.
    pub rows_found: u64,
    /// A check is overdue: none was clean within twice the time of the schedule.
    pub overdue: bool,
    /// Files that this site keeps as they were when they differed.
    pub evidence: u64,
}

impl LastCheck {
    /// The line of `replication status`, without its name.
    #[must_use]
    pub fn human(check: Option<&Self>, now: Timestamp) -> String {
        let Some(check) = check else { return "never checked".to_owned() };
        let ago = |at: Timestamp| text::duration(now.duration_since(at).as_secs_f64().max(0.0));
        let kept = match check.evidence {
            0 => String::new(),
            1 => "; 1 file is kept as evidence".to_owned(),
            count => format!("; {count} files are kept as evidence"),
        };
        let clean = check.clean_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", ago(at)));
        match check.outcome {
            IntegrityOutcome::Running => format!("being checked; last found the same: {clean}{kept}"),
            IntegrityOutcome::Clean => format!("both the same {} ago{kept}", ago(check.at)),
            IntegrityOutcome::Differs => {
                format!("DIFFERED {} ago: {} files, {} rows{kept}", ago(check.at), check.files_found, check.rows_found)
            }
            IntegrityOutcome::NotCompleted => {
                format!("the last check did not end; last found the same: {clean}{kept}")
            }
        }
    }

    /// Why this is nothing to rely on, if it is not.
    #[must_use]
    pub fn trouble(check: Option<&Self>) -> Option<String> {
        let Some(check) = check else {
            return Some("whether both sites hold the same was never checked".to_owned());
        };
        if check.outcome == IntegrityOutcome::Differs {
            return None;
        }
        match check.clean_at {
            None => Some("no check has come to its end yet".to_owned()),
            Some(_) if check.overdue => Some("the last clean check is older than twice its schedule".to_owned()),
            Some(_) => None,
        }
    }

    /// What was found and not looked at by anybody, in words.
    #[must_use]
    pub fn difference(check: Option<&Self>) -> Option<String> {
        let check = check?;
        let found = format!("{} files and {} rows differed", check.files_found, check.rows_found);
        match (check.outcome, check.evidence) {
            (IntegrityOutcome::Differs, _) => Some(found),
            (_, 0) => None,
            (_, count) => Some(format!("what {count} files held when they differed is kept here")),
        }
    }
}

impl IntegrityCheck {
    /// What is remembered of it where there is room for a line only.
    #[must_use]
    pub fn last(&self, clean_at: Option<Timestamp>, (overdue, evidence): (bool, u64)) -> LastCheck {
        LastCheck {
            outcome: self.outcome,
            at: self.ended_at.unwrap_or(self.began_at),
            clean_at,
            files_found: self.files_found,
            rows_found: self.rows_found,
            overdue,
            evidence,
        }
    }

    /// One line: what came of it.
    #[must_use]
    pub fn summary(&self) -> String {
        let how = if self.read_data { "from data" } else { "from sums" };
        match self.outcome {
            IntegrityOutcome::Running => "it is at work".to_owned(),
            IntegrityOutcome::Clean => format!(
                "both sites hold the same: {} files, {}, {} rows, {how}",
                text::count(self.files),
                text::bytes(self.bytes),
                text::count(self.rows)
            ),
            IntegrityOutcome::Differs => format!(
                "the sites do NOT hold the same: {} files and {} rows differ",
                text::count(self.files_found),
                text::count(self.rows_found)
            ),
            IntegrityOutcome::NotCompleted => {
                format!("not completed: {}", self.why.as_deref().unwrap_or("it is not known why"))
            }
        }
    }

    /// The text of `replication verify`.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = format!("{}  {}\n", self.pool, self.outcome.word());
        for part in text::wrap(&self.summary(), 76) {
            out.push_str(&format!("  {part}\n"));
        }
        if let (Some(operation), Some(pause)) = (&self.operation, self.pause_ms) {
            out.push_str(&format!("  at operation {operation}; writes waited {pause:.1} ms; {}\n", self.because));
        }
        for file in &self.found {
            let name = file.path.clone().unwrap_or_else(|| format!("file {}", file.file));
            out.push_str(&format!("  {name}: {}\n", file.what.join(", ")));
            if !file.blocks.is_empty() {
                let all: Vec<String> = file.blocks.iter().take(12).map(u64::to_string).collect();
                let more = if file.more_blocks || file.blocks.len() > 12 { " ..." } else { "" };
                out.push_str(&format!("    blocks of 8 KiB: {}{more}\n", all.join(" ")));
            }
        }
        for row in &self.found_rows {
            let has = |value: &Option<String>| if value.is_some() { "something" } else { "nothing" };
            out.push_str(&format!(
                "  row {} of table {}: the primary has {}, the secondary {}\n",
                row.key,
                row.table,
                has(&row.primary),
                if row.primary.is_some() && row.secondary.is_some() { "something else" } else { has(&row.secondary) }
            ));
        }
        match &self.receipt {
            Some(receipt) if receipt.seals.len() == 2 => {
                out.push_str(&format!(
                    "  signed by both sites: vmhold replication receipt {} --save FILE\n",
                    self.pool
                ));
            }
            Some(receipt) => {
                out.push_str(&format!("  signed by {} of two sites\n", receipt.seals.len()));
            }
            None => {}
        }
        if self.outcome == IntegrityOutcome::Differs {
            out.push_str("  the pair goes out of sync and is made equal anew; what differed is kept\n");
        }
        out
    }
}

/// The last check, if there was one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastIntegrityCheck {
    /// The pool.
    pub pool: String,
    /// The check; none if there never was one here.
    pub check: Option<IntegrityCheck>,
    /// The job that is at work.
    pub job: Option<String>,
}

impl Document for LastIntegrityCheck {
    const SCHEMA: &'static str = "vmhold.integrity.last/v1";
}

impl LastIntegrityCheck {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        match (&self.job, &self.check) {
            (Some(job), _) => format!("{}: a check is at work: vmhold job show {job}\n", self.pool),
            (None, Some(check)) => check.human(),
            (None, None) => format!("{}: no check was made by this site yet\n", self.pool),
        }
    }
}

/// A file that a site keeps as it was when it differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptFile {
    /// Its id.
    pub file: u64,
    /// Its path, where it is known.
    pub path: Option<String>,
    /// The operation at which it differed, as epoch and counter.
    pub operation: String,
}

/// What a site keeps of differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptEvidence {
    /// The pool.
    pub pool: String,
    /// Each file.
    pub kept: Vec<KeptFile>,
    /// They were let go of.
    pub forgotten: bool,
}

impl Document for KeptEvidence {
    const SCHEMA: &'static str = "vmhold.integrity.evidence/v1";
}

impl KeptEvidence {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        if self.kept.is_empty() {
            return format!("{}: nothing is kept as evidence here\n", self.pool);
        }
        let mut out = match self.forgotten {
            true => format!("{}: let go of\n", self.pool),
            false => format!("{}: kept here as they were when they differed\n", self.pool),
        };
        for kept in &self.kept {
            let name = kept.path.clone().unwrap_or_else(|| format!("file {}", kept.file));
            out.push_str(&format!("  {name}  at operation {}\n", kept.operation));
        }
        if !self.forgotten {
            out.push_str(&format!("let go of them: vmhold replication evidence {} --forget\n", self.pool));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(outcome: IntegrityOutcome) -> IntegrityCheck {
        IntegrityCheck {
            pool: "flash0".into(),
            outcome,
            why: None,
            because: "somebody asked for it".into(),
            read_data: false,
            began_at: at("2026-11-27T10:00:00Z"),
            ended_at: Some(at("2026-11-27T10:00:02Z")),
            pause_ms: Some(3.25),
            operation: Some("3.99".into()),
            files: 12,
            bytes: 4096,
            rows: 30,
            files_found: 0,
            found: Vec::new(),
            rows_found: 0,
            found_rows: Vec::new(),
            receipt: None,
        }
    }

    #[test]
    fn never_checked_and_not_completed_are_not_well() {
        let now = at("2026-11-27T11:00:02Z");
        assert!(LastCheck::trouble(None).is_some());
        let unclean = check(IntegrityOutcome::NotCompleted).last(None, (false, 0));
        assert!(LastCheck::trouble(Some(&unclean)).is_some());
        let clean = check(IntegrityOutcome::Clean).last(Some(at("2026-11-27T10:00:02Z")), (false, 0));
        assert_eq!(LastCheck::trouble(Some(&clean)), None);
        assert_eq!(LastCheck::human(Some(&clean), now), format!("both the same {} ago", text::duration(3600.0)));
        assert!(LastCheck::trouble(Some(&LastCheck { overdue: true, ..clean.clone() })).is_some());
        assert!(LastCheck::difference(Some(&LastCheck { evidence: 2, ..clean })).is_some());
        let differs = check(IntegrityOutcome::Differs).last(None, (false, 1));
        assert!(LastCheck::difference(Some(&differs)).is_some());
        assert!(LastCheck::human(Some(&differs), now).starts_with("DIFFERED"));
    }

    #[test]
    fn what_was_found_is_told_with_its_place() {
        let found = FileFound {
            file: 7,
            path: Some("vms/vm1/disk.raw".into()),
            what: vec!["content".into()],
            blocks: vec![17],
            more_blocks: false,
        };
        let text = IntegrityCheck { files_found: 1, found: vec![found], ..check(IntegrityOutcome::Differs) }.human();
        assert!(text.contains("vms/vm1/disk.raw: content\n    blocks of 8 KiB: 17\n"), "{text}");
        assert!(text.contains("do NOT hold the same"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
