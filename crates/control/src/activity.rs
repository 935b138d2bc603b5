//! What VMs and their disks do, and where the time of their operations goes: documents and texts.

use base::meter::{Counts, Kind, PARTS, Part, Spread, Sums};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::status::Latency;
use crate::text::{self, Table, left, or_dash, right};

/// Width of a bar beside a part.
const BAR: usize = 24;

/// Operations of one file, measured over a short time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuredFile {
    /// Its datastore.
    pub datastore: String,
    /// Its VM, if it is one's.
    pub vm: Option<String>,
    /// Its path, where it is a disk of a VM.
    pub disk: Option<String>,
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
    /// Whole times of reads and of writes.
    pub spreads: [Counts; 2],
}

/// What a store measured over a short time, about a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// How long.
    pub seconds: f64,
    /// Files that were used.
    pub files: Vec<MeasuredFile>,
}

/// Operations that are summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
    /// Whole times of reads and writes.
    pub spread: Spread,
}

impl Tally {
    /// Adds what was measured of a file.
    pub fn put(&mut self, file: &MeasuredFile) {
        for (sums, more) in self.kinds.iter_mut().zip(&file.kinds) {
            sums.merge(more);
        }
        file.spreads.iter().for_each(|counts| self.spread.put(counts));
    }

    /// All kinds together.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut all = Sums::default();
        self.kinds.iter().for_each(|sums| all.merge(sums));
        all
    }

    /// What it says of `seconds`.
    #[must_use]
    pub fn activity(&self, seconds: f64) -> Activity {
        let all = self.sums();
        let per_second = |number: u64| if seconds > 0.0 { number as f64 / seconds } else { 0.0 };
        let of = |kind: Kind| per_second(self.kinds[kind as usize].count);
        let ms = |share| self.spread.percentile_ns(share).map(|ns| ns as f64 / 1e6);
        let parts_ms = all.parts_ns.map(|ns| ns as f64 / 1e6);
        Activity {
            reads_per_second: of(Kind::Read),
            writes_per_second: of(Kind::Write),
            others_per_second: of(Kind::Other),
            bytes_per_second: per_second(all.bytes),
            cost_per_second: per_second(all.cost),
            latency_ms: mean_latency(all.count, &parts_ms, [ms(0.5), ms(0.95), ms(0.99)]),
            slow_part: slow_part(&parts_ms).map(str::to_owned),
        }
    }
}

/// Means over so many operations, of the time all of them spent in each part; and percentiles
/// of reads and writes.
#[must_use]
pub fn mean_latency(operations: u64, parts_ms: &[f64; PARTS], [p50, p95, p99]: [Option<f64>; 3]) -> Latency {
    let mean = |ms: f64| (operations > 0).then(|| ms / operations as f64);
    let part = |part: Part| mean(parts_ms[part as usize]);
    Latency {
        // The mean of the sum is not always the sum of the means, to the last digit.
        total: (operations > 0).then(|| Part::ALL.into_iter().filter_map(part).sum()),
        host: None,
        net: None,
        queue: part(Part::Queue),
        journal: part(Part::Journal),
        mirror: part(Part::Mirror),
        flash: part(Part::Flash),
        contention: part(Part::Contention),
        qos: part(Part::Qos),
        p50,
        p95,
        p99,
    }
}

/// Name of a part.
#[must_use]
pub const fn part_name(part: Part) -> &'static str {
    match part {
        Part::Queue => "queue",
        Part::Journal => "journal",
        Part::Mirror => "mirror",
        Part::Flash => "flash",
        Part::Contention => "contention",
        Part::Qos => "qos",
    }
}

/// The part that most of the time is spent in.
#[must_use]
pub fn slow_part(parts_ms: &[f64; PARTS]) -> Option<&'static str> {
    let most = Part::ALL.into_iter().max_by(|a, b| parts_ms[*a as usize].total_cmp(&parts_ms[*b as usize]))?;
    (parts_ms[most as usize] > 0.0).then(|| part_name(most))
}

/// What a VM or a disk does: rates, and the latency of its operations by part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Activity {
    /// Reads.
    pub reads_per_second: f64,
    /// Writes.
    pub writes_per_second: f64,
    /// Everything else.
    pub others_per_second: f64,
    /// Payload both ways.
    pub bytes_per_second: f64,
    /// Normalised requests: reading 8 KiB is one, larger ones are more, writing is twice as much.
    pub cost_per_second: f64,
    /// Mean latency by part; null where there was no operation.
    pub latency_ms: Latency,
    /// The part that most of the time is spent in.
    pub slow_part: Option<String>,
}

impl Activity {
    /// Reads, writes and others.
    #[must_use]
    pub fn operations_per_second(&self) -> f64 {
        self.reads_per_second + self.writes_per_second + self.others_per_second
    }
}

/// A VM or a disk, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityRow {
    /// Datastore.
    pub datastore: String,
    /// VM; none for files that belong to none.
    pub vm: Option<String>,
    /// Path of the disk, where it is about one.
    pub disk: Option<String>,
    /// Share of the work of all VMs, by normalised requests.
    pub share_percent: f64,
    /// What it does.
    #[serde(flatten)]
    pub activity: Activity,
}

/// `iostat --by`: VMs or disks that did something, those with most work first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityList {
    /// Over how long; 0 if nothing was measured yet.
    pub seconds: f64,
    /// Rows.
    pub rows: Vec<ActivityRow>,
}

impl Document for ActivityList {
    const SCHEMA: &'static str = "vmhold.activity/v1";
}

/// What was done in a step of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityPoint {
    /// Beginning.
    pub at: Timestamp,
    /// Seconds of it that were seen.
    pub seconds: f64,
    /// What was done. Of percentiles the worst in the step.
    #[serde(flatten)]
    pub activity: Activity,
}

/// `vm latency`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VmLatency {
    /// Datastore.
    pub datastore: String,
    /// VM.
    pub vm: String,
    /// Path of the disk, if it is about one only.
    pub disk: Option<String>,
    /// What it does now; null if nothing is known yet.
    pub now: Option<Activity>,
    /// Mean latency at this hour of the last seven days; null if nothing is known.
    pub usual_ms: Option<f64>,
    /// What each of its disks does now.
    pub disks: Vec<ActivityRow>,
    /// Length of a point's time.
    pub step_seconds: u32,
    /// Points, oldest first. Where some are missing, there was no operation or nothing is known.
    pub points: Vec<ActivityPoint>,
}

impl Document for VmLatency {
    const SCHEMA: &'static str = "vmhold.vm.latency/v1";
}

/// A VM at a moment, beside what it did before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contributor {
    /// The VM at the moment.
    #[serde(flatten)]
    pub row: ActivityRow,
    /// Normalised requests in the hour before; null if nothing is known of it.
    pub before_cost_per_second: Option<f64>,
}

/// `vm contributors`: who did what at a moment, those with most work first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contributors {
    /// Beginning of the step of time that the moment lies in; null if nothing is known of it.
    pub at: Option<Timestamp>,
    /// Length of that step.
    pub seconds: f64,
    /// VMs.
    pub rows: Vec<Contributor>,
    /// VMs with less work that were not noted down.
    pub left_out: u64,
}

impl Document for Contributors {
    const SCHEMA: &'static str = "vmhold.contributors/v1";
}

fn rate(value: f64) -> String {
    text::count(value.round().max(0.0) as u64)
}

fn mib(value: f64) -> String {
    format!("{:.1}", value.max(0.0) / f64::from(1 << 20))
}

fn ms(value: Option<f64>) -> String {
    or_dash(value, |ms| format!("{ms:.2}"))
}

/// The columns that show what something does; those that are wanted most come first.
const COLUMNS: [text::Column; 11] = [
    right("OPS/S"),
    right("MiB/S"),
    right("LATENCY="),
    right("QUEUE+"),
    right("JOURN+"),
    right("MIRR+"),
    right("FLASH+"),
    right("CONT+"),
    right("QOS"),
    left("SLOW"),
    right("P99"),
];

fn cells(activity: &Activity) -> Vec<String> {
    let latency = &activity.latency_ms;
    vec![
        rate(activity.operations_per_second()),
        mib(activity.bytes_per_second),
        ms(latency.total),
        ms(latency.queue),
        ms(latency.journal),
        ms(latency.mirror),
        ms(latency.flash),
        ms(latency.contention),
        ms(latency.qos),
        activity.slow_part.clone().unwrap_or("-".to_owned()),
        ms(latency.p99),
    ]
}

impl ActivityRow {
    /// What it is about: a disk's path, or a VM.
    #[must_use]
    pub fn name(&self) -> &str {
        self.disk.as_deref().or(self.vm.as_deref()).unwrap_or("(files of no VM)")
    }
}

impl ActivityList {
    /// One interval of `iostat --by`.
    #[must_use]
    pub fn human(&self, width: usize, title: &'static str) -> String {
        if self.rows.is_empty() {
            return "no operations\n".to_owned();
        }
        let mut table = Table::new(&[&[left(title)][..], &COLUMNS].concat());
        for row in &self.rows {
            let mut line = vec![row.name().to_owned()];
            line.extend(cells(&row.activity));
            table.row(line);
        }
        table.render(width)
    }
}

/// One part with a bar: as long as its share of the total.
fn part_line(name: &str, part: Option<f64>, total: Option<f64>) -> String {
    let bar = part.zip(total).filter(|(_, total)| *total > 0.0).map_or(0, |(part, total)| {
        // What there is, is seen.
        (part / total * BAR as f64).ceil() as usize
    });
    format!("  {name:<11} {:>7}  {}", ms(part), "#".repeat(bar)).trim_end().to_owned() + "\n"
}

/// Latency by part, a line each.
#[must_use]
pub fn latency_lines(latency: &Latency) -> String {
    let parts = [
        ("host", latency.host),
        ("net", latency.net),
        ("queue", latency.queue),
        ("journal", latency.journal),
        ("mirror", latency.mirror),
        ("flash", latency.flash),
        ("contention", latency.contention),
        ("qos", latency.qos),
    ];
    parts.into_iter().map(|(name, part)| part_line(name, part, latency.total)).collect()
}

impl Activity {
    /// `412 ops/s, 3.2 MiB/s, 0.94 ms (p50 0.81, p95 1.9, p99 2.9)`.
    #[must_use]
    pub fn line(&self) -> String {
        let latency = &self.latency_ms;
        format!(
            "{} ops/s  {} MiB/s  {} ms  (p50 {}  p95 {}  p99 {})",
            rate(self.operations_per_second()),
            mib(self.bytes_per_second),
            ms(latency.total),
            ms(latency.p50),
            ms(latency.p95),
            ms(latency.p99)
        )
    }
}

impl VmLatency {
    /// `vm latency`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let name = self.disk.as_deref().unwrap_or(&self.vm);
        let Some(now) = &self.now else {
            return format!("{name}   nothing is measured yet; ask again in some seconds\n");
        };
        let slow =
            now.slow_part.as_ref().map_or(String::new(), |part| format!("   slow part: {}", part.to_uppercase()));
        let mut out = format!("{name}   {}, usual {}{slow}\n", now.line(), ms(self.usual_ms));
        out.push_str(&latency_lines(&now.latency_ms));
        out.push_str("  - is not measured here: it is before the request arrived\n");
        if !self.disks.is_empty() {
            out.push('\n');
            let rows = ActivityList { seconds: 0.0, rows: self.disks.clone() };
            out.push_str(&rows.human(width, "DISK"));
        }
        out.push('\n');
        out.push_str(&self.history(width));
        if now.slow_part.as_deref() == Some(part_name(Part::Contention)) {
            out.push_str("who is in the way: vmhold vm contributors\n");
        }
        out
    }

    fn history(&self, width: usize) -> String {
        if self.points.is_empty() {
            return "no operation is known of in that time\n".to_owned();
        }
        let mut table = Table::new(&[&[left("FROM (UTC)")][..], &COLUMNS].concat());
        for point in &self.points {
            let mut line = vec![point.at.strftime("%m-%d %H:%M:%S").to_string()];
            line.extend(cells(&point.activity));
            table.row(line);
        }
        table.render(width)
    }
}

impl Contributors {
    /// `vm contributors`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let Some(at) = self.at else {
            return "nothing is known of that moment: nothing was done, or nobody measured\n".to_owned();
        };
        let mut out = format!("{} UTC, {}\n", at.strftime("%Y-%m-%d %H:%M:%S"), text::duration(self.seconds));
        let mut table = Table::new(&[
            left("VM"),
            left("DATASTORE"),
            right("WORK"),
            left(""),
            right("BEFORE"),
            right("OPS/S"),
            right("MiB/S"),
            right("LATENCY"),
            left("SLOW"),
        ]);
        for Contributor { row, before_cost_per_second } in &self.rows {
            let activity = &row.activity;
            let now = activity.cost_per_second;
            let before = or_dash(*before_cost_per_second, |before| match before {
                before if before > 0.0 => format!("x{:.1}", now / before),
                _ => "new".to_owned(),
            });
            table.row(vec![
                row.name().to_owned(),
                row.datastore.clone(),
                format!("{:.0} %", row.share_percent),
                text::bar(row.share_percent / 100.0, 10),
                before,
                rate(activity.operations_per_second()),
                mib(activity.bytes_per_second),
                ms(activity.latency_ms.total),
                activity.slow_part.clone().unwrap_or("-".to_owned()),
            ]);
        }
        if self.rows.is_empty() {
            return out + "no VM did anything then\n";
        }
        out.push_str(&table.render(width));
        if self.left_out > 0 {
            out.push_str(&format!("{} with less work were not noted down\n", text::count(self.left_out)));
        }
        out.push_str("WORK is by normalised requests; BEFORE: times as much as in the hour before\n");
        out
    }
}

/// Files of a second, as tests need them.
#[cfg(test)]
pub mod samples {
    use super::*;

    /// A disk with `reads` of 8 KiB and `writes` of 16 KiB, each a millisecond in the journal and
    /// half of one in contention.
    pub fn disk(vm: &str, number: u32, reads: u64, writes: u64) -> MeasuredFile {
        let sums = |kind: Kind, count: u64, bytes: u64| {
            let mut parts_ns = [0; PARTS];
            parts_ns[Part::Journal as usize] = count * 1_000_000;
            parts_ns[Part::Contention as usize] = count * 500_000;
            Sums { count, bytes: count * bytes, cost: count * kind.cost(bytes), parts_ns }
        };
        let mut spread = Spread::default();
        (0..reads + writes).for_each(|_| spread.add(1_500_000));
        MeasuredFile {
            datastore: "demo".into(),
            vm: Some(vm.into()),
            disk: Some(format!("images/{vm}/vm-{vm}-disk-{number}.raw")),
            kinds: [sums(Kind::Read, reads, 8192), sums(Kind::Write, writes, 16384), Sums::default()],
            spreads: [spread.take(), Counts::default()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::disk;
    use super::*;

    fn parts(latency: &Latency) -> f64 {
        [latency.queue, latency.journal, latency.mirror, latency.flash, latency.contention, latency.qos]
            .into_iter()
            .flatten()
            .sum()
    }

    #[test]
    fn parts_sum_to_the_total_and_cost_knows_size_and_kind() {
        let mut tally = Tally::default();
        tally.put(&disk("100", 0, 30, 10));
        tally.put(&disk("100", 1, 7, 0));
        let activity = tally.activity(2.0);
        assert_eq!((activity.reads_per_second, activity.writes_per_second), (18.5, 5.0));
        assert_eq!(activity.cost_per_second, (37.0 + 10.0 * 4.0) / 2.0);
        assert!((activity.latency_ms.total.unwrap() - parts(&activity.latency_ms)).abs() < 1e-12);
        assert_eq!(activity.slow_part.as_deref(), Some("journal"));
        assert!((activity.latency_ms.p99.unwrap() - 1.5).abs() < 0.2);
        let idle = Tally::default().activity(2.0);
        assert_eq!((idle.latency_ms.total, idle.slow_part, idle.reads_per_second), (None, None, 0.0));
    }

    #[test]
    fn texts_fit_eighty_columns_and_name_the_slow_part() {
        let mut tally = Tally::default();
        tally.put(&disk("100", 0, 123_456, 10_000));
        let activity = tally.activity(1.0);
        let row = |vm: &str| ActivityRow {
            datastore: "demo".into(),
            vm: Some(vm.into()),
            disk: None,
            share_percent: 61.4,
            activity: activity.clone(),
        };
        let list = ActivityList { seconds: 1.0, rows: vec![row("100"), row("erp-database-01")] };
        let at = "2026-11-20T09:14:00Z".parse().unwrap();
        let latency = VmLatency {
            datastore: "demo".into(),
            vm: "100".into(),
            disk: None,
            now: Some(activity.clone()),
            usual_ms: None,
            disks: vec![row("100")],
            step_seconds: 10,
            points: vec![ActivityPoint { at, seconds: 10.0, activity: activity.clone() }],
        };
        let contributors = Contributors {
            at: Some(at),
            seconds: 10.0,
            rows: vec![Contributor { row: row("100"), before_cost_per_second: Some(100.0) }],
            left_out: 0,
        };
        let shown = latency.human(80);
        assert!(shown.contains("slow part: JOURNAL") && shown.contains("usual -"), "{shown}");
        assert!(shown.contains("  net               -\n"), "unknown is a dash:\n{shown}");
        for shown in [list.human(80, "VM"), shown, contributors.human(80)] {
            let fits = |line: &str| line.chars().count() <= 80 || line.starts_with("100   ");
            assert!(shown.lines().all(fits), "{shown}");
        }
        let none = Contributors { at: None, rows: Vec::new(), ..contributors };
        assert!(none.human(80).contains("nothing is known"));
    }
}
