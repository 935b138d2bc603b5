//! What the commands print: one JSON document, or a table for people.

use std::fmt::Write as _;
use std::time::SystemTime;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::connection::Outages;
use crate::expectation::Breach;
use crate::tally::KindReport;

/// Envelope of every JSON document.
#[derive(Debug, Serialize)]
struct Envelope<'a, T> {
    schema: &'static str,
    generated_at: String,
    site: Option<&'a str>,
    data_age_seconds: u32,
    data: &'a T,
}

/// `data` in its envelope, in one line.
pub fn document<T: Serialize>(schema: &'static str, data: &T) -> String {
    let generated_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let envelope = Envelope { schema, generated_at, site: None, data_age_seconds: 0, data };
    serde_json::to_string(&envelope).expect("reports have string keys and finite numbers")
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Violation {
    /// File, below the run's directory.
    pub file: String,
    /// Where in the file.
    pub offset_bytes: u64,
    /// Oldest version that would have been right.
    pub expected_version_min: u32,
    /// Newest version that would have been right.
    pub expected_version_max: u32,
    /// What is wrong.
    #[serde(flatten)]
    pub breach: Breach,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (min, max) = (self.expected_version_min, self.expected_version_max);
        write!(f, "{} at {}: expected version ", self.file, self.offset_bytes)?;
        if min == max {
            write!(f, "{min}")?
        } else {
            write!(f, "{min} to {max}")?
        }
        match self.breach {
            Breach::Lost => write!(f, ", found nothing (lost)"),
            Breach::Stale { found_version } => write!(f, ", found version {found_version} (stale)"),
            Breach::Misplaced { belongs, found_version } => {
                let (file, unit) = (belongs.file, belongs.unit);
                write!(f, ", found version {found_version} of file {file} unit {unit} (misplaced)")
            }
            Breach::Foreign { run_id } => write!(f, ", found a block of run {run_id:016x} (misplaced)"),
            Breach::WrongContent { number } => write!(f, ", found shared content {number} (wrong)"),
            Breach::NeverWritten { found_version } => write!(f, ", found version {found_version} (never written)"),
            Breach::Unreadable { status } => write!(f, ", read failed ({})", crate::nfs3::status_name(status)),
            Breach::Damaged { magic_right: true } => write!(f, ", found a block with a wrong check (damaged)"),
            Breach::Damaged { magic_right: false } => write!(f, ", found bytes that are no block (damaged)"),
        }
    }
}

/// What happened to the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OutageReport {
    /// Times a connection was lost and opened again.
    pub reconnects: u64,
    /// Calls sent again.
    pub resent_calls: u64,
    /// Time without a connection, longest of all connections.
    pub disconnected_seconds: f64,
}

impl OutageReport {
    /// Of several connections.
    pub fn of(connections: impl Iterator<Item = Outages>) -> Self {
        connections.fold(OutageReport::default(), |sum, outages| OutageReport {
            reconnects: sum.reconnects + outages.reconnects,
            resent_calls: sum.resent_calls + outages.resent,
            disconnected_seconds: sum.disconnected_seconds.max(outages.disconnected.as_secs_f64()),
        })
    }
}

/// Why measuring ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The time was over.
    Duration,
    /// All operations were done.
    Operations,
    /// More failures than allowed.
    Errors,
    /// A read was wrong.
    Violation,
    /// Interrupted by the user.
    Interrupted,
}

/// Result of `bench`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// All as it should be: no errors, no violations, mix as asked.
    pub ok: bool,
    /// Where.
    pub target: String,
    /// Directory of the run.
    pub directory: String,
    /// Identifies the run in its blocks.
    pub run_id: String,
    /// Repeats the operations.
    pub seed: u64,
    /// Mix asked for: percent read, write, other.
    pub mix_percent: [f64; 3],
    /// Mix measured.
    pub measured_mix_percent: [f64; 3],
    /// Whether they agree; unknown for short runs.
    pub mix_within_bounds: Option<bool>,
    /// Sizes of operations.
    pub block_bytes: Vec<u64>,
    /// Unit.
    pub unit_bytes: u64,
    /// Order of places.
    pub pattern: crate::workload::Pattern,
    /// Calls in flight.
    pub depth: usize,
    /// TCP connections.
    pub connections: usize,
    /// Files and their bytes in all.
    pub file_count: usize,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Percent of each unit that compresses away.
    pub compressible_percent: u8,
    /// Percent of duplicate units.
    pub dedup_percent: u8,
    /// Measured time.
    pub elapsed_seconds: f64,
    /// Operations in it.
    pub operations: u64,
    /// Rate.
    pub operations_per_second: f64,
    /// Rate of payload.
    pub bytes_per_second: f64,
    /// By kind of operation.
    pub kinds: Vec<KindReport>,
    /// Longest time in which no operation finished.
    pub longest_pause_seconds: f64,
    /// CPU of this process during measuring.
    pub client_cpu_seconds: f64,
    /// The same per operation.
    pub client_cpu_us_per_operation: f64,
    /// Connections lost.
    pub outages: OutageReport,
    /// Why it ended.
    pub end: End,
    /// Failed operations.
    pub error_count: u64,
    /// The first of them.
    pub errors: Vec<String>,
    /// Units checked, by reads and at the end.
    pub units_checked: u64,
    /// Units that a read found half written while a write of them was under way: NFS
    /// allows it, a good server does not do it.
    pub torn_reads: u64,
    /// Broken promises.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

impl BenchReport {
    /// The JSON document.
    pub fn json(&self) -> String {
        document("vmhold.bench/v1", self)
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut table = new_table(&["", "ops", "ops/s", "MiB/s", "p50 ms", "p90", "p99", "p99.9", "max"]);
        for kind in &self.kinds {
            let latency = &kind.latency_ms;
            let name = format!("{:?}", kind.kind).to_lowercase();
            let times = [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max];
            let mut row = vec![name, thousands(kind.operations), thousands(kind.operations_per_second as u64)];
            row.push(format!("{:.1}", kind.bytes_per_second / f64::from(1 << 20)));
            row.extend(times.map(|ms| format!("{ms:.3}")));
            table.add_row(row);
        }
        align_numbers(&mut table);
        let mut text = format!("{table}\n");
        let _ = writeln!(
            text,
            "{} operations in {:.2} s: {}/s, {:.1} MiB/s; client CPU {:.1} us each; longest pause {:.3} s",
            thousands(self.operations),
            self.elapsed_seconds,
            thousands(self.operations_per_second as u64),
            self.bytes_per_second / f64::from(1 << 20),
            self.client_cpu_us_per_operation,
            self.longest_pause_seconds,
        );
        self.write_findings(&mut text);
        text
    }

    fn write_findings(&self, text: &mut String) {
        let [read, write, other] = self.measured_mix_percent;
        if let Some(met) = self.mix_within_bounds.filter(|_| self.kinds.len() > 1) {
            let verdict = if met { "as asked" } else { "NOT as asked" };
            let _ = writeln!(text, "mix {read:.2} % read, {write:.2} % write, {other:.3} % other: {verdict}");
        }
        let outages = &self.outages;
        if outages.reconnects > 0 {
            let (n, resent, gone) = (outages.reconnects, outages.resent_calls, outages.disconnected_seconds);
            let _ = writeln!(
                text,
                "connections lost and opened again: {n}; {resent} calls sent again, {gone:.2} s without a connection"
            );
        }
        if self.units_checked > 0 {
            let _ = writeln!(
                text,
                "{} units checked, {} violations",
                thousands(self.units_checked),
                thousands(self.violation_count)
            );
        }
        if self.torn_reads > 0 {
            let torn = thousands(self.torn_reads);
            let _ = writeln!(text, "{torn} units read half written, each while a write of it was under way");
        }
        write_violations(text, self.violation_count, &self.violations);
        if self.error_count > 0 {
            let _ = writeln!(text, "{} operations failed:", thousands(self.error_count));
            self.errors.iter().for_each(|error| writeln!(text, "  {error}").expect("strings take all"));
        }
    }
}

/// Result of `bench verify`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Nothing acknowledged is lost, stale, misplaced or damaged.
    pub ok: bool,
    /// Where.
    pub target: String,
    /// Directory of the run.
    pub directory: String,
    /// Identifies the run in its blocks.
    pub run_id: String,
    /// Whether the generator ended in good order.
    pub journal_closed: bool,
    /// Acknowledged writes in the journal.
    pub acknowledged_writes: u64,
    /// Writes issued and never acknowledged.
    pub unacknowledged_writes: u64,
    /// Units checked.
    pub units_checked: u64,
    /// Units in which an unacknowledged write was found to have happened.
    pub units_newer_than_acknowledged: u64,
    /// Time taken.
    pub elapsed_seconds: f64,
    /// Broken promises.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

impl VerifyReport {
    /// The JSON document.
    pub fn json(&self) -> String {
        document("vmhold.bench.verify/v1", self)
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} units checked against {} acknowledged and {} unacknowledged writes in {:.1} s",
            thousands(self.units_checked),
            thousands(self.acknowledged_writes),
            thousands(self.unacknowledged_writes),
            self.elapsed_seconds,
        );
        if !self.journal_closed {
            text.push_str("note: the journal was not closed; versions newer than it knows are allowed\n");
        }
        write_violations(&mut text, self.violation_count, &self.violations);
        if self.ok {
            text.push_str("every acknowledged write is there\n");
        }
        text
    }
}

/// Lines of text for violations; neighbours of the same kind share one.
const VIOLATION_LINES_MAX: usize = 100;

fn write_violations(text: &mut String, count: u64, violations: &[Violation]) {
    if count == 0 {
        return;
    }
    let _ = writeln!(text, "{} VIOLATIONS:", thousands(count));
    let groups = violations
        .chunk_by(|a, b| a.file == b.file && std::mem::discriminant(&a.breach) == std::mem::discriminant(&b.breach));
    let mut shown = 0;
    for group in groups.take(VIOLATION_LINES_MAX) {
        let [first, .., last] = group else {
            let _ = writeln!(text, "  {}", group[0]);
            shown += 1;
            continue;
        };
        let _ = writeln!(text, "  {first}; {} like it up to offset {}", group.len() - 1, last.offset_bytes);
        shown += group.len() as u64;
    }
    if count > shown {
        let _ = writeln!(text, "  and {} more", thousands(count - shown));
    }
}

pub(crate) fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table
}

fn align_numbers(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Place;

    #[test]
    fn numbers_and_violations_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let belongs = Place { file: 1, unit: 2 };
        let violation = Violation {
            file: "file-0.img".into(),
            offset_bytes: 8192,
            expected_version_min: 3,
            expected_version_max: 4,
            breach: Breach::Misplaced { belongs, found_version: 7 },
        };
        assert_eq!(
            violation.to_string(),
            "file-0.img at 8192: expected version 3 to 4, found version 7 of file 1 unit 2 (misplaced)"
        );
        let json = document("vmhold.bench/v1", &violation);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["schema"], "vmhold.bench/v1");
        assert_eq!(parsed["data"]["kind"], "misplaced");
    }
}
