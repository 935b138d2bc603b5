//! How two sites came to stand as they do: every change of the record at the witness that this site
//! has seen, and what a change of primary cost the clients.
//!
//! A change is known by the version of the record. What was measured comes after it, as a second line
//! of the ledger; the last line of a version holds.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::ledger::Ledger;
use crate::replication::Role;
use crate::text;

/// Changes kept in memory.
const KEPT: usize = 1000;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoleChangeKind {
    /// The pair was made.
    Founded,
    /// A site was taken in as secondary.
    Joined,
    /// The secondary was given up.
    Left,
    /// The primary went on without its secondary.
    WentAlone,
    /// Both hold the same.
    InSync,
    /// The primary handed over, as planned.
    HandedOver,
    /// The secondary took over from a primary that was silent.
    TookOver,
    /// Somebody made the secondary primary.
    Forced,
    /// The witness had lost its memory and was told what it was.
    Restored,
}

impl RoleChangeKind {
    /// The words for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Founded => "pair made",
            Self::Joined => "site taken in",
            Self::Left => "site given up",
            Self::WentAlone => "went on alone",
            Self::InSync => "in sync",
            Self::HandedOver => "handed over, as planned",
            Self::TookOver => "took over",
            Self::Forced => "made primary by force",
            Self::Restored => "witness was told again",
        }
    }
}

/// What a change of primary cost its clients, as far as this site could measure it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientPause {
    /// At the new primary: from the last sign of the one before until the witness was asked.
    pub noticed_ms: Option<f64>,
    /// At the new primary: from there until the witness said yes.
    pub granted_ms: Option<f64>,
    /// At the new primary: from there until the doors were open.
    pub opened_ms: Option<f64>,
    /// At a primary that handed over: from when it stopped its clients until the other one was primary.
    pub stopped_ms: Option<f64>,
}

impl ClientPause {
    /// All of what was measured; none if nothing was.
    #[must_use]
    pub fn total_ms(&self) -> Option<f64> {
        let parts = [self.noticed_ms, self.granted_ms, self.opened_ms, self.stopped_ms];
        parts.into_iter().flatten().reduce(|sum, part| sum + part)
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleChange {
    /// Version of the record, one higher than that of the change before.
    pub version: u64,
    /// When, by the clock of the witness.
    pub at: Timestamp,
    /// What changed.
    pub kind: RoleChangeKind,
    /// Term of the primary since.
    pub epoch: u64,
    /// What this site is since.
    pub role: Role,
    /// Whether both hold the same since.
    pub in_sync: bool,
    /// What it cost the clients, where this site could tell.
    pub pause: Option<ClientPause>,
}

/// The document of `replication history`, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleHistory {
    /// Name of the site that tells.
    pub site: String,
    /// The changes.
    pub changes: Vec<RoleChange>,
}

impl Document for RoleHistory {
    const SCHEMA: &'static str = "vmhold.replication.history/v1";
}

impl RoleHistory {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        if self.changes.is_empty() {
            return format!("{} has seen no change of its pair yet\n", self.site);
        }
        let mut out = format!("{}, oldest first; what a pause was, is what {} saw of it\n", self.site, self.site);
        out.push_str("TIME            EPOCH  SITE IS    SYNC          PAUSE  WHAT\n");
        for change in &self.changes {
            let sync = if change.in_sync { "IN_SYNC" } else { "OUT_OF_SYNC" };
            let pause = change.pause.and_then(|pause| pause.total_ms());
            let pause = pause.map_or_else(|| "-".to_owned(), time);
            out.push_str(&format!(
                "{}  {:>5}  {:<9}  {sync:<11}  {pause:>6}  {}\n",
                change.at.strftime("%m-%d %H:%M:%S"),
                change.epoch,
                change.role.word(),
                change.kind.words(),
            ));
            out.push_str(&change.pause.map_or_else(String::new, |pause| parts(&pause)));
        }
        out
    }
}

fn time(ms: f64) -> String {
    if ms < 999.5 { format!("{ms:.0} ms") } else { text::duration(ms / 1000.0) }
}

/// The phases of a pause, where there is more than one.
fn parts(pause: &ClientPause) -> String {
    let named = [
        ("noticed after", pause.noticed_ms),
        ("agreed in", pause.granted_ms),
        ("doors open in", pause.opened_ms),
        ("clients stopped for", pause.stopped_ms),
    ];
    let said: Vec<String> =
        named.into_iter().filter_map(|(what, ms)| ms.map(|ms| format!("{what} {}", time(ms)))).collect();
    format!("                {}\n", said.join(", "))
}

/// All changes that this site has seen.
pub struct RoleBook {
    changes: Mutex<BTreeMap<u64, RoleChange>>,
    ledger: Box<dyn Ledger>,
}

impl RoleBook {
    /// A book with the lines that an earlier run left. Lines that are not whole are passed over.
    #[must_use]
    pub fn open<'a>(lines: impl Iterator<Item = &'a str>, ledger: Box<dyn Ledger>) -> Arc<Self> {
        let read = lines.filter_map(|line| serde_json::from_str::<RoleChange>(line).ok());
        let changes = read.map(|change| (change.version, change)).collect();
        Arc::new(Self { changes: Mutex::new(changes), ledger })
    }

    fn changes(&self) -> MutexGuard<'_, BTreeMap<u64, RoleChange>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change down; one of a known version takes the place of what was known.
    ///
    /// # Errors
    /// When it is not kept on disk; it is known until the server stops.
    pub fn tell(&self, change: RoleChange) -> io::Result<()> {
        let line = serde_json::to_string(&change).expect("a change holds only words and finite numbers");
        let mut changes = self.changes();
        changes.insert(change.version, change);
        while changes.len() > KEPT {
            changes.pop_first();
        }
        self.ledger.append(&line)
    }

    /// The newest `limit` changes, oldest first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<RoleChange> {
        let changes = self.changes();
        changes.values().skip(changes.len().saturating_sub(limit)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryLedger;

    fn change(version: u64, kind: RoleChangeKind, pause: Option<ClientPause>) -> RoleChange {
        let at = Timestamp::from_second(1_800_000_000 + version as i64).unwrap();
        RoleChange { version, at, kind, epoch: 2, role: Role::Primary, in_sync: false, pause }
    }

    fn pause() -> ClientPause {
        ClientPause { noticed_ms: Some(1500.0), granted_ms: Some(400.0), opened_ms: Some(100.0), stopped_ms: None }
    }

    #[test]
    fn what_was_measured_later_is_part_of_the_change_also_after_a_restart() {
        let ledger = MemoryLedger::default();
        let book = RoleBook::open(std::iter::empty(), Box::new(ledger.clone()));
        book.tell(change(3, RoleChangeKind::WentAlone, None)).unwrap();
        book.tell(change(4, RoleChangeKind::TookOver, None)).unwrap();
        book.tell(change(4, RoleChangeKind::TookOver, Some(pause()))).unwrap();
        let lines = ledger.lines();
        assert_eq!(lines.len(), 3);
        let torn = [&lines[..], &[lines[2][..20].to_owned()]].concat();
        let again = RoleBook::open(torn.iter().map(String::as_str), Box::new(ledger));
        for book in [book, again] {
            let known = book.newest(10);
            assert_eq!(known.iter().map(|change| change.version).collect::<Vec<_>>(), [3, 4]);
            assert_eq!(known[1].pause.and_then(|pause| pause.total_ms()), Some(2000.0));
            assert_eq!(book.newest(1).len(), 1);
        }
    }

    #[test]
    fn what_is_not_known_of_a_pause_is_not_shown_as_none() {
        assert_eq!(ClientPause::default().total_ms(), None);
        let changes =
            vec![change(3, RoleChangeKind::WentAlone, None), change(4, RoleChangeKind::TookOver, Some(pause()))];
        let text = RoleHistory { site: "site-b".into(), changes }.human();
        assert!(text.contains("     -  went on alone\n"), "{text}");
        assert!(text.contains("noticed after 1.5 s, agreed in 400 ms, doors open in 100 ms"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
