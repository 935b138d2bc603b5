//! Events: what happened, what is the matter, and what is over.
//!
//! A *condition* is raised and cleared; its clear event repeats how long it lasted. Most
//! conditions are the findings of [`Health`], so what the events say and what `status` says
//! cannot differ: [`Conditions`] compares the findings of two moments and tells the
//! difference. Everything else *happened* once.
//!
//! The [`EventBook`] numbers events, keeps the newest in memory, gives each to a ledger
//! (the file below is none of our business) and to everyone who listens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::codes::{Code, Severity};
use crate::envelope::Document;
use crate::health::{Finding, Health};
use crate::ledger::Ledger;
use crate::text;

/// Events kept in memory.
const KEPT: usize = 5000;
/// Events a slow listener may be behind before it has to ask for what it missed.
const BEHIND_MAX: usize = 256;

/// Whether something began, ended, or just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A condition holds from now on.
    Raised,
    /// A condition is over.
    Cleared,
    /// It happened.
    Happened,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Number, one higher than that of the event before.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Began, ended, or happened.
    pub kind: EventKind,
    /// `VH1021`.
    pub code: String,
    /// `DRIVE_FAILED`.
    pub name: String,
    /// How bad.
    pub severity: Severity,
    /// What it is about, as in `flash0/7`.
    pub object: String,
    /// What happened, in words.
    pub detail: String,
    /// For the end of a condition: how long it lasted.
    pub lasted_seconds: Option<f64>,
}

impl Document for Event {
    const SCHEMA: &'static str = "vmhold.event/v1";
}

impl Event {
    /// `E-88121`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("E-{}", self.number)
    }

    /// One line, at most `width` characters where the detail allows it.
    #[must_use]
    pub fn line(&self, width: usize) -> String {
        let mark = match (self.kind, self.severity) {
            (EventKind::Cleared, _) => "CLEAR",
            (_, Severity::Error) => "ERROR",
            (_, Severity::Warning) => "WARN",
            (_, Severity::Info) => "INFO",
        };
        let time = self.at.strftime("%m-%d %H:%M:%S");
        let lasted = self.lasted_seconds.map(|s| format!(", lasted {}", text::duration(s))).unwrap_or_default();
        let said = format!("{} {} {}: {}{lasted}", self.code, self.name, self.object, self.detail);
        let mut out = String::new();
        for (index, part) in text::wrap(&said, width.saturating_sub(23).max(20)).into_iter().enumerate() {
            let head = if index == 0 { format!("{time}  {mark:<5}  ") } else { " ".repeat(23) };
            out.push_str(&format!("{head}{part}\n"));
        }
        out
    }
}

/// `events list`, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct EventList(pub Vec<Event>);

impl Document for EventList {
    const SCHEMA: &'static str = "vmhold.events.list/v1";
}

impl EventList {
    /// `events list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no events in that time\n".to_owned();
        }
        self.0.iter().map(|event| event.line(width)).collect()
    }
}

/// An event that has no number and time yet.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Began, ended, or happened.
    pub kind: EventKind,
    /// Its entry in the registry.
    pub code: &'static Code,
    /// What it is about.
    pub object: String,
    /// What happened.
    pub detail: String,
    /// For the end of a condition.
    pub lasted_seconds: Option<f64>,
}

impl News {
    /// Something that happened.
    #[must_use]
    pub fn happened(code: &'static Code, object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: EventKind::Happened, code, object: object.into(), detail: detail.into(), lasted_seconds: None }
    }
}

struct Pages {
    next_number: u64,
    kept: VecDeque<Arc<Event>>,
    /// Said once, not with each event that is not kept.
    ledger_failed: bool,
}

/// All events of a store.
pub struct EventBook {
    pages: Mutex<Pages>,
    ledger: Box<dyn Ledger>,
    listeners: broadcast::Sender<Arc<Event>>,
}

impl EventBook {
    /// A book with the lines an earlier run left in its ledger. Lines that are not whole
    /// (the last one, after a power cut) are passed over.
    #[must_use]
    pub fn open<'a>(lines: impl Iterator<Item = &'a str>, ledger: Box<dyn Ledger>) -> Arc<Self> {
        let mut kept: VecDeque<Arc<Event>> =
            lines.filter_map(|line| serde_json::from_str::<Event>(line).ok()).map(Arc::new).collect();
        kept.make_contiguous().sort_by_key(|event| event.number);
        let next_number = kept.back().map_or(1, |event| event.number + 1);
        kept.drain(..kept.len().saturating_sub(KEPT));
        let pages = Mutex::new(Pages { next_number, kept, ledger_failed: false });
        Arc::new(Self { pages, ledger, listeners: broadcast::channel(BEHIND_MAX).0 })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event.
    pub fn tell(&self, news: News, at: Timestamp) -> Arc<Event> {
        let mut pages = self.pages();
        let event = Arc::new(Event {
            number: pages.next_number,
            at,
            kind: news.kind,
            code: news.code.to_string(),
            name: news.code.name.to_owned(),
            severity: news.code.severity,
            object: news.object,
            detail: news.detail,
            lasted_seconds: news.lasted_seconds,
        });
        let line = serde_json::to_string(&*event).expect("events hold only strings and finite numbers");
        pages.ledger_failed = self.ledger.append(&line).is_err();
        pages.next_number += 1;
        if pages.kept.len() == KEPT {
            pages.kept.pop_front();
        }
        pages.kept.push_back(event.clone());
        // Nobody needs to listen.
        let _ = self.listeners.send(event.clone());
        event
    }

    /// Whether the newest event could not be kept on disk.
    #[must_use]
    pub fn is_ledger_failing(&self) -> bool {
        self.pages().ledger_failed
    }

    /// Number of the newest event; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.pages().next_number - 1
    }

    /// Events after number `after`, oldest first, at most the newest `limit` of them.
    #[must_use]
    pub fn after(&self, after: u64, limit: usize) -> Vec<Arc<Event>> {
        let pages = self.pages();
        let from = pages.kept.partition_point(|event| event.number <= after);
        let from = from.max(pages.kept.len().saturating_sub(limit));
        pages.kept.range(from..).cloned().collect()
    }

    /// Whether events after number `after` are all still in memory.
    #[must_use]
    pub fn reaches_back_to(&self, after: u64) -> bool {
        let pages = self.pages();
        pages.kept.front().map_or(pages.next_number, |oldest| oldest.number) <= after + 1
    }

    /// Conditions that were raised and not cleared, as far as memory reaches.
    #[must_use]
    pub fn open_conditions(&self) -> BTreeMap<(String, String), Timestamp> {
        let mut open = BTreeMap::new();
        for event in &self.pages().kept {
            let key = (event.code.clone(), event.object.clone());
            match event.kind {
                EventKind::Raised => drop(open.insert(key, event.at)),
                EventKind::Cleared => drop(open.remove(&key)),
                EventKind::Happened => {}
            }
        }
        open
    }

    /// Every event from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.listeners.subscribe()
    }
}

/// Which conditions hold; turns the findings of one moment after the other into events.
#[derive(Debug, Default)]
pub struct Conditions {
    raised: BTreeMap<(String, String), Timestamp>,
}

impl Conditions {
    /// Goes on from the conditions an earlier run left raised, so that a restart neither
    /// raises them again nor forgets to clear them.
    #[must_use]
    pub const fn open(raised: BTreeMap<(String, String), Timestamp>) -> Self {
        Self { raised }
    }

    /// Since when a condition holds.
    #[must_use]
    pub fn since(&self, code: &str, object: &str) -> Option<Timestamp> {
        self.raised.get(&(code.to_owned(), object.to_owned())).copied()
    }

    /// What began and what ended between the last moment and this one.
    pub fn compare(&mut self, health: &Health, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        let mut holding = BTreeMap::new();
        for finding in &health.findings {
            let key = (finding.code.clone(), finding.object.clone());
            let since = self.raised.get(&key).copied();
            if since.is_none() {
                news.extend(raised(finding));
            }
            holding.insert(key, since.unwrap_or(now));
        }
        for ((code, object), since) in &self.raised {
            if holding.contains_key(&(code.clone(), object.clone())) {
                continue;
            }
            let Some(code) = crate::codes::find(code) else { continue };
            let lasted_seconds = Some(now.duration_since(*since).as_secs_f64().max(0.0));
            let detail = "over".to_owned();
            news.push(News { kind: EventKind::Cleared, code, object: object.clone(), detail, lasted_seconds });
        }
        self.raised = holding;
        news
    }
}

fn raised(finding: &Finding) -> Option<News> {
    let code = crate::codes::find(&finding.code)?;
    let (object, detail) = (finding.object.clone(), finding.detail.clone());
    Some(News { kind: EventKind::Raised, code, object, detail, lasted_seconds: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::health::HealthFacts;
    use crate::ledger::MemoryLedger;
    use crate::pool::{DriveState, samples};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn health(lost: &[usize]) -> Health {
        let mut pool = samples::pool(8);
        for slot in lost {
            pool.drives[*slot].state = DriveState::Failed;
        }
        Health::of(&HealthFacts { pools: &[pool], journal: &samples::journal(), replication: None })
    }

    #[test]
    fn a_condition_is_raised_once_and_its_end_says_how_long_it_lasted() {
        let mut conditions = Conditions::default();
        let usual = conditions.compare(&health(&[]), at(0)).len();
        let news = conditions.compare(&health(&[6]), at(5));
        assert_eq!(news.len(), 1, "{news:?}");
        assert_eq!(
            (news[0].kind, news[0].code, &*news[0].object),
            (EventKind::Raised, &codes::DRIVE_FAILED, "flash0/7")
        );
        assert!(conditions.compare(&health(&[6]), at(6)).is_empty(), "it is not raised again");
        let news = conditions.compare(&health(&[]), at(65));
        assert_eq!((news[0].kind, news[0].lasted_seconds), (EventKind::Cleared, Some(60.0)));
        assert_eq!(conditions.compare(&Health { findings: Vec::new(), ..health(&[]) }, at(70)).len(), usual);
    }

    #[test]
    fn a_restart_neither_raises_again_nor_forgets_to_clear() {
        let paper = MemoryLedger::default();
        let book = EventBook::open(std::iter::empty(), Box::new(paper.clone()));
        let mut conditions = Conditions::default();
        for news in conditions.compare(&health(&[2]), at(0)) {
            book.tell(news, at(0));
        }
        let newest = book.newest();
        let lines = paper.lines();
        let torn = ["{\"number\":9,\"at\""];
        let book = EventBook::open(lines.iter().map(String::as_str).chain(torn), Box::new(paper));
        assert_eq!(book.newest(), newest, "a torn line is no event");
        let mut conditions = Conditions::open(book.open_conditions());
        assert!(conditions.compare(&health(&[2]), at(100)).is_empty());
        let news = conditions.compare(&health(&[]), at(160));
        assert_eq!((news.len(), news[0].lasted_seconds), (1, Some(160.0)));
    }

    #[test]
    fn who_was_away_gets_exactly_what_came_after() {
        let book = EventBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let happened = |n: i64| book.tell(News::happened(&codes::UNIT_REPAIRED, "flash0", format!("unit {n}")), at(n));
        (1..=KEPT as i64 + 10).for_each(|n| drop(happened(n)));
        let newest = book.newest();
        let numbers: Vec<u64> = book.after(newest - 3, usize::MAX).iter().map(|event| event.number).collect();
        assert_eq!(numbers, [newest - 2, newest - 1, newest]);
        assert!(book.reaches_back_to(newest) && book.reaches_back_to(10));
        assert!(!book.reaches_back_to(9), "event 10 is gone, so 9 is too far back");
        assert_eq!(book.after(0, 2).len(), 2, "the newest two");
    }

    #[test]
    fn lines_fit_eighty_columns() {
        let book = EventBook::open(std::iter::empty(), Box::new(MemoryLedger::default()));
        let why = "31 write errors in 10 s, and a reason of some length that wraps";
        book.tell(News::happened(&codes::DRIVE_FAILED, "flash0/7", why), at(0));
        let text = EventList(book.after(0, 9).iter().map(|event| (**event).clone()).collect()).human(80);
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("ERROR  VH1021 DRIVE_FAILED flash0/7: 31"), "{text}");
    }
}
