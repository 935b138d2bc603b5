//! Faults on purpose, in pools that are made for it: documents and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::envelope::Document;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::text::{self, Table, left, right};

/// The longest a fault lasts; then it ends by itself.
pub const SECONDS_MAX: u64 = 3600;
/// The longest a request is held up.
pub const DELAY_MS_MAX: u64 = 60_000;

/// What a drive does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Reads and writes take longer.
    Slow,
    /// Reads and writes end with an I/O error.
    Eio,
    /// Writes are acknowledged and not done.
    LostWrite,
    /// Writes go to the place behind their own, and are acknowledged.
    Misplaced,
    /// Only the first part of a write is done, and all of it acknowledged.
    Torn,
    /// One bit of what is written or read is another.
    Bits,
}

impl FaultKind {
    /// `lost-write`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Eio => "eio",
            Self::LostWrite => "lost-write",
            Self::Misplaced => "misplaced",
            Self::Torn => "torn",
            Self::Bits => "bits",
        }
    }

    /// Whether wrong bytes may stay on the drive when it has ended.
    #[must_use]
    pub const fn leaves_damage(self) -> bool {
        matches!(self, Self::LostWrite | Self::Misplaced | Self::Torn | Self::Bits)
    }

    const fn of_what(self) -> &'static str {
        match self {
            Self::Slow | Self::Eio | Self::Bits => "of its reads and writes",
            Self::LostWrite | Self::Misplaced | Self::Torn => "of its writes",
        }
    }
}

/// Body of `POST /v1/pools/{name}/faults`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FaultOrder {
    /// Place of the drive.
    pub slot: u32,
    /// What it shall do wrong.
    pub kind: FaultKind,
    /// Share of the requests that are hit, above 0 and up to 100.
    pub percent: f64,
    /// With `slow`: by how much, 1 to 60,000.
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// When it ends by itself, 1 to 3,600.
    pub seconds: u64,
}

impl FaultOrder {
    /// Refuses what makes no sense whatever the pool is.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), Problem> {
        let refused = |what: String| Err(Problem::new(&codes::BAD_INPUT, what));
        if !(self.percent > 0.0 && self.percent <= 100.0) {
            return refused(format!("{} percent: a share is above 0 and up to 100", self.percent));
        }
        if !(1..=SECONDS_MAX).contains(&self.seconds) {
            return refused(format!("a fault lasts 1 to {SECONDS_MAX} seconds"));
        }
        match (self.kind, self.delay_ms) {
            (FaultKind::Slow, Some(delay)) if (1..=DELAY_MS_MAX).contains(&delay) => Ok(()),
            (FaultKind::Slow, _) => refused(format!("slow needs a delay of 1 to {DELAY_MS_MAX} ms")),
            (_, None) => Ok(()),
            (kind, Some(_)) => refused(format!("{} takes no delay", kind.word())),
        }
    }

    /// What it would do to `pool`.
    #[must_use]
    pub fn plan(&self, pool: &str) -> Plan {
        let what = said(self.kind, self.percent, self.delay_ms);
        Plan::would(format!("make {pool}/{} do this on purpose: {what}", self.slot))
            .and(format!("end that by itself after {}", text::duration(self.seconds as f64)))
            .confirmed_by(pool)
    }
}

fn said(kind: FaultKind, percent: f64, delay_ms: Option<u64>) -> String {
    let delay = delay_ms.map_or_else(String::new, |delay| format!(" by {delay} ms"));
    format!("{}{delay}, {percent} % {}", kind.word(), kind.of_what())
}

/// A fault that was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InjectedFault {
    /// The drive, as in `flash0/3`.
    pub drive: String,
    /// Its path: the fault stays with it if another takes its place.
    pub path: String,
    /// What it does wrong.
    pub kind: FaultKind,
    /// Share of the requests that are hit.
    pub percent: f64,
    /// With `slow`: by how much.
    pub delay_ms: Option<u64>,
    /// Whether it still does.
    pub is_on: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ends, or ended.
    pub ends_at: Timestamp,
    /// Requests that could have been hit.
    pub requests: u64,
    /// Requests that were.
    pub hits: u64,
    /// It may have left wrong bytes on the drive, and no scrub has been over them since.
    pub awaits_scrub: bool,
}

impl Document for InjectedFault {
    const SCHEMA: &'static str = "vmhold.pool.fault/v1";
}

impl InjectedFault {
    /// `lost-write, 20 % of its writes, until 17:05:33 UTC`.
    #[must_use]
    pub fn detail(&self) -> String {
        format!("{}, until {}", said(self.kind, self.percent, self.delay_ms), self.ends_at.strftime("%H:%M:%S UTC"))
    }

    /// One line of `pool show`.
    #[must_use]
    pub fn human(&self) -> String {
        let hits = format!("{} of {} so far", text::count(self.hits), text::count(self.requests));
        format!("  FAULT ON PURPOSE  {}  {}: {hits}\n", self.drive, self.detail())
    }

    /// What a command says that began it.
    #[must_use]
    pub fn begun(&self) -> String {
        let pool = self.drive.split('/').next().unwrap_or_default();
        format!(
            "{} does this on purpose now: {}\nwatch: vmhold inject list {pool}\nend it: vmhold inject stop {pool}\n",
            self.drive,
            self.detail()
        )
    }
}

/// Body of `POST /v1/pools/{name}/faults/flip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlipOrder {
    /// Id of the file; the largest one unless said.
    #[serde(default)]
    pub file: Option<u64>,
    /// Which byte of it.
    pub offset_bytes: u64,
}

impl FlipOrder {
    /// What it would do to `pool`.
    #[must_use]
    pub fn plan(&self, pool: &str) -> Plan {
        let which = self.file.map_or_else(|| "the largest file".to_owned(), |file| format!("file {file}"));
        let what = format!("flip a bit of byte {} of {which} in {pool}, at this site only", self.offset_bytes);
        Plan::would(what).confirmed_by(pool)
    }
}

/// A byte that was flipped at one of two sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlippedByte {
    /// The pool.
    pub pool: String,
    /// Id of the file, the same at both sites.
    pub file: u64,
    /// Which byte of it.
    pub offset_bytes: u64,
    /// Number of its block of 8 KiB.
    pub block: u64,
    /// What it was.
    pub was: u8,
    /// What it is.
    pub is: u8,
}

impl Document for FlippedByte {
    const SCHEMA: &'static str = "vmhold.pool.flipped/v1";
}

impl FlippedByte {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        format!(
            "byte {} of file {} (block {}) is {:#04x} here now and was {:#04x}; the other site was told nothing\n\
             found by, at the primary: vmhold replication verify {} --wait\n",
            self.offset_bytes, self.file, self.block, self.is, self.was, self.pool
        )
    }
}

/// Faults of a pool: those that are on, and those whose damage no scrub has seen yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FaultList(pub Vec<InjectedFault>);

impl Document for FaultList {
    const SCHEMA: &'static str = "vmhold.pool.faults/v1";
}

impl FaultList {
    /// `inject list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no faults: nothing is done wrong on purpose, and nothing is left of what was since this start\n"
                .to_owned();
        }
        let mut table = Table::new(&[
            left("DRIVE"),
            left("FAULT"),
            left("STATE"),
            left("DAMAGE"),
            right("HIT"),
            right("REQUESTS"),
            left("ENDS (UTC)"),
        ]);
        for fault in &self.0 {
            let damage = if fault.awaits_scrub { "no scrub since" } else { "-" };
            table.row(vec![
                fault.drive.clone(),
                said(fault.kind, fault.percent, fault.delay_ms),
                if fault.is_on { "on" } else { "over" }.to_owned(),
                damage.to_owned(),
                text::count(fault.hits),
                text::count(fault.requests),
                fault.ends_at.strftime("%H:%M:%S").to_string(),
            ]);
        }
        table.render(width)
    }

    /// `inject stop`.
    #[must_use]
    pub fn stopped(&self, pool: &str) -> String {
        let mut out = match self.0.len() {
            0 => return "no fault was on\n".to_owned(),
            1 => "1 fault is over\n".to_owned(),
            more => format!("{more} faults are over\n"),
        };
        for fault in &self.0 {
            let (hits, requests) = (text::count(fault.hits), text::count(fault.requests));
            out.push_str(&format!(
                "  {}  {}: {hits} of {requests} requests were hit\n",
                fault.drive,
                fault.kind.word()
            ));
        }
        if self.0.iter().any(|fault| fault.awaits_scrub) {
            out.push_str(&format!("find and repair what is left of it: vmhold pool scrub start {pool}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(kind: FaultKind) -> FaultOrder {
        FaultOrder { slot: 3, kind, percent: 20.0, delay_ms: None, seconds: 60 }
    }

    fn fault() -> InjectedFault {
        InjectedFault {
            drive: "flash0/3".into(),
            path: "drives/3".into(),
            kind: FaultKind::LostWrite,
            percent: 20.0,
            delay_ms: None,
            is_on: true,
            started_at: "2026-11-20T09:14:07Z".parse().unwrap(),
            ends_at: "2026-11-20T09:15:07Z".parse().unwrap(),
            requests: 1203,
            hits: 240,
            awaits_scrub: true,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_the_store_is_asked() {
        let good = order(FaultKind::LostWrite);
        assert!(good.check().is_ok());
        let slow = FaultOrder { delay_ms: Some(100), ..order(FaultKind::Slow) };
        assert!(slow.check().is_ok());
        for bad in [
            FaultOrder { percent: 0.0, ..good.clone() },
            FaultOrder { percent: 100.1, ..good.clone() },
            FaultOrder { percent: f64::NAN, ..good.clone() },
            FaultOrder { seconds: 0, ..good.clone() },
            FaultOrder { seconds: SECONDS_MAX + 1, ..good.clone() },
            FaultOrder { delay_ms: Some(5), ..good.clone() },
            FaultOrder { delay_ms: None, ..slow.clone() },
            FaultOrder { delay_ms: Some(DELAY_MS_MAX + 1), ..slow },
        ] {
            assert_eq!(bad.check().unwrap_err().code(), &codes::BAD_INPUT, "{bad:?}");
        }
        assert_eq!(good.plan("flash0").confirm.as_deref(), Some("flash0"));
    }

    #[test]
    fn a_fault_is_told_in_one_line_wherever_it_is_shown() {
        let line = fault().human();
        assert_eq!(
            line,
            "  FAULT ON PURPOSE  flash0/3  lost-write, 20 % of its writes, until 09:15:07 UTC: 240 of 1,203 so far\n"
        );
        let list = FaultList(vec![fault(), InjectedFault { is_on: false, ..fault() }]);
        let text = list.human(120);
        assert!(text.contains("no scrub since") && text.contains("over"), "{text}");
        assert!(list.stopped("flash0").contains("vmhold pool scrub start flash0"));
    }
}
