//! VMs and their snapshots: documents and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::activity::{Activity, latency_lines};
use crate::codes;
use crate::envelope::Document;
use crate::problem::Problem;
use crate::text::{self, Table, left, right};

const NAME_BYTES_MAX: usize = 128;
/// Ranges of a file that the text of a comparison shows.
const EXTENTS_SHOWN: usize = 8;

/// A file of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmFile {
    /// Path in the datastore.
    pub path: String,
    /// `disk`, `config`, `nvram`, `memory`, `lock` or `other`.
    pub role: String,
    /// Size.
    pub size_bytes: u64,
    /// Of it, what is no hole.
    pub used_bytes: u64,
}

/// A VM: the files recognised as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Datastore.
    pub datastore: String,
    /// Name.
    pub name: String,
    /// Its files by path.
    pub files: Vec<VmFile>,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<VmSnapshot>,
    /// How it is snapshotted by itself.
    pub schedule: Option<VmSchedule>,
    /// How much it may have and shall have.
    #[serde(default)]
    pub limits: VmLimits,
    /// What it does now; null if nothing is known yet.
    #[serde(default)]
    pub now: Option<Activity>,
}

/// How much a VM may have and shall have, in normalised requests per second: reading up to 8 KiB
/// is one, every further 8 KiB one more, writing is twice as much. Body of
/// `POST /v1/vms/{datastore}/{vm}/limits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmLimits {
    /// Not more than this; null is no limit.
    #[serde(default)]
    pub max_per_second: Option<u64>,
    /// Before others share what is left, if it asks for it; null is equal shares.
    #[serde(default)]
    pub min_per_second: Option<u64>,
}

impl Document for VmLimits {
    const SCHEMA: &'static str = "vmhold.vm.limits/v1";
}

impl VmLimits {
    const PER_SECOND_MAX: u64 = 1_000_000_000;

    /// Checks amounts.
    ///
    /// # Errors
    /// `BAD_INPUT` that says what they may be.
    pub fn check(&self) -> Result<(), Problem> {
        let is_good = |value: Option<u64>| value.is_none_or(|value| (1..=Self::PER_SECOND_MAX).contains(&value));
        let is_ordered = self.min_per_second.zip(self.max_per_second).is_none_or(|(min, max)| min <= max);
        if is_good(self.max_per_second) && is_good(self.min_per_second) && is_ordered {
            return Ok(());
        }
        Err(Problem::new(&codes::BAD_INPUT, "the limits cannot be kept")
            .field("max_per_second", format!("1 to {}; none for no limit", text::count(Self::PER_SECOND_MAX)))
            .field("min_per_second", "as the maximum, and not above it"))
    }

    /// `at most 500, at least 100 normalised requests/s`.
    #[must_use]
    pub fn human(&self) -> String {
        let most = self.max_per_second.map(|max| format!("at most {}", text::count(max)));
        let least = self.min_per_second.map(|min| format!("at least {}", text::count(min)));
        match [most, least].into_iter().flatten().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "none, a fair share".to_owned(),
            some => format!("{some} normalised requests/s"),
        }
    }
}

/// How a VM is snapshotted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmSchedule {
    /// Time from one snapshot to the next.
    pub every_seconds: u64,
    /// How many of these are kept.
    pub keep: u32,
}

impl VmSchedule {
    /// Least time between two.
    const EVERY_SECONDS_MIN: u64 = 10;
    /// Most that are kept.
    const KEEP_MAX: u32 = 10_000;

    /// Checks times and counts.
    ///
    /// # Errors
    /// `BAD_INPUT` that says what they may be.
    pub fn check(&self) -> Result<(), Problem> {
        if self.every_seconds >= Self::EVERY_SECONDS_MIN && (1..=Self::KEEP_MAX).contains(&self.keep) {
            return Ok(());
        }
        Err(Problem::new(&codes::BAD_INPUT, "the schedule cannot be kept")
            .field("every_seconds", format!("at least {}", Self::EVERY_SECONDS_MIN))
            .field("keep", format!("1 to {}", Self::KEEP_MAX)))
    }

    /// `every 15 min, 96 kept`.
    #[must_use]
    pub fn human(&self) -> String {
        format!("every {}, {} kept", text::duration(self.every_seconds as f64), self.keep)
    }
}

/// Body of `POST /v1/vms/{datastore}/{vm}/schedule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmScheduleOrder {
    /// The schedule from now on; none ends it.
    pub schedule: Option<VmSchedule>,
}

impl Document for VmScheduleOrder {
    const SCHEMA: &'static str = "vmhold.vm.schedule/v1";
}

impl Document for Vm {
    const SCHEMA: &'static str = "vmhold.vm.show/v1";
}

/// `vm list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct VmList(pub Vec<Vm>);

impl Document for VmList {
    const SCHEMA: &'static str = "vmhold.vm.list/v1";
}

/// A snapshot of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmSnapshot {
    /// Datastore.
    pub datastore: String,
    /// VM.
    pub vm: String,
    /// Name.
    pub name: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Files in it.
    pub files: u32,
    /// The VM's schedule took it, and deletes it when it is one too many.
    pub scheduled: bool,
}

impl Document for VmSnapshot {
    const SCHEMA: &'static str = "vmhold.vm.snapshot/v1";
}

/// `vm snapshot list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct VmSnapshotList(pub Vec<VmSnapshot>);

impl Document for VmSnapshotList {
    const SCHEMA: &'static str = "vmhold.vm.snapshot.list/v1";
}

/// Body of a call that names something new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewName {
    /// The name.
    pub name: String,
}

impl NewName {
    /// Checks the name of a VM or a snapshot.
    ///
    /// # Errors
    /// `BAD_INPUT` that says what a name may be.
    pub fn check(&self) -> Result<(), Problem> {
        let plain = |c: char| c.is_alphanumeric() || "._-@:+ ".contains(c);
        let name = self.name.as_str();
        let ends_well = !name.starts_with([' ', '.', '-']) && !name.ends_with(' ');
        if !name.is_empty() && name.len() <= NAME_BYTES_MAX && ends_well && name.chars().all(plain) {
            return Ok(());
        }
        Err(Problem::new(&codes::BAD_INPUT, format!("the name {name:?} cannot be used"))
            .field("name", format!("letters, digits, `.`, `_`, `-`, `@`, `:`, `+`; at most {NAME_BYTES_MAX} bytes")))
    }
}

/// Body of `POST /v1/vms/{datastore}/assignments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmAssignment {
    /// Path of a file in the datastore.
    pub path: String,
    /// The VM it belongs to; without one its path decides again.
    pub vm: Option<String>,
}

impl Document for VmAssignment {
    const SCHEMA: &'static str = "vmhold.vm.assign/v1";
}

/// What a change of a VM did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmChanged {
    /// Datastore.
    pub datastore: String,
    /// VM.
    pub vm: String,
    /// Files that were changed or made.
    pub files: Vec<String>,
    /// Files that were gone and are there again.
    pub restored: Vec<String>,
    /// Files of the VM that were left alone: the snapshot does not have them.
    pub left: Vec<String>,
}

impl Document for VmChanged {
    const SCHEMA: &'static str = "vmhold.vm.changed/v1";
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmExtent {
    /// Where it starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// Where a file differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmFileDifference {
    /// Path in the datastore.
    pub path: String,
    /// Size in the older state; none if it is not there.
    pub older_size_bytes: Option<u64>,
    /// Size in the newer state; none if it is not there.
    pub newer_size_bytes: Option<u64>,
    /// Ranges outside of which both have the same bytes.
    pub extents: Vec<VmExtent>,
}

/// `vm diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmDifference {
    /// Datastore.
    pub datastore: String,
    /// VM.
    pub vm: String,
    /// The older snapshot.
    pub from: String,
    /// The newer one; none is the VM as it is.
    pub to: Option<String>,
    /// Files by path.
    pub files: Vec<VmFileDifference>,
}

impl Document for VmDifference {
    const SCHEMA: &'static str = "vmhold.vm.diff/v1";
}

impl Vm {
    fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    fn used_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.used_bytes).sum()
    }

    /// `vm show`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let mut files = Table::new(&[left("FILE"), left("ROLE"), right("SIZE"), right("USED")]);
        for file in &self.files {
            let (size, used) = (text::bytes(file.size_bytes), text::bytes(file.used_bytes));
            files.row(vec![file.path.clone(), file.role.clone(), size, used]);
        }
        let snapshots = VmSnapshotList(self.snapshots.clone()).human(width);
        let schedule = self.schedule.map_or("by hand only".to_owned(), |schedule| schedule.human());
        let files = files.render(width);
        let (name, datastore, does) = (&self.name, &self.datastore, self.does());
        let limits = self.limits.human();
        format!(
            "VM {name} in datastore {datastore}   snapshots: {schedule}\nLIMITS    {limits}\n{does}\n{files}\n{snapshots}"
        )
    }

    /// What it does, and where the time of its operations goes.
    fn does(&self) -> String {
        let Some(now) = &self.now else { return "ACTIVITY  not known yet\n".to_owned() };
        if now.latency_ms.total.is_none() {
            return "ACTIVITY  no operations\n".to_owned();
        }
        let slow =
            now.slow_part.as_ref().map_or(String::new(), |part| format!("   slow part: {}", part.to_uppercase()));
        format!("ACTIVITY  {}\nLATENCY, milliseconds{slow}\n{}", now.line(), latency_lines(&now.latency_ms))
    }
}

impl VmList {
    /// `vm list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no VMs; their files make them: mount a datastore and create one\n".to_owned();
        }
        let mut table = Table::new(&[
            left("VM"),
            left("DATASTORE"),
            right("FILES"),
            right("SIZE"),
            right("USED"),
            right("OPS/S"),
            right("LATENCY"),
            left("SLOW"),
            right("SNAPSHOTS"),
            left("NEWEST"),
        ]);
        for vm in &self.0 {
            table.row(vec![
                vm.name.clone(),
                vm.datastore.clone(),
                text::count(vm.files.len() as u64),
                text::bytes(vm.size_bytes()),
                text::bytes(vm.used_bytes()),
                text::or_dash(vm.now.as_ref(), |now| text::count(now.operations_per_second().round() as u64)),
                text::or_dash(vm.now.as_ref().and_then(|now| now.latency_ms.total), |ms| format!("{ms:.2}")),
                vm.now.as_ref().and_then(|now| now.slow_part.clone()).unwrap_or("-".to_owned()),
                text::count(vm.snapshots.len() as u64),
                vm.snapshots.last().map_or("-".to_owned(), |newest| newest.name.clone()),
            ]);
        }
        table.render(width)
    }
}

impl VmSnapshotList {
    /// `vm snapshot list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no snapshots; take one: vmhold vm snapshot create VM\n".to_owned();
        }
        let mut table =
            Table::new(&[left("SNAPSHOT"), left("VM"), left("DATASTORE"), left("TAKEN"), left("BY"), right("FILES")]);
        for snapshot in &self.0 {
            table.row(vec![
                snapshot.name.clone(),
                snapshot.vm.clone(),
                snapshot.datastore.clone(),
                snapshot.created_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
                if snapshot.scheduled { "schedule" } else { "hand" }.to_owned(),
                text::count(u64::from(snapshot.files)),
            ]);
        }
        table.render(width)
    }
}

impl VmDifference {
    /// `vm diff`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let changed =
            |file: &&VmFileDifference| !file.extents.is_empty() || file.older_size_bytes != file.newer_size_bytes;
        let files: Vec<_> = self.files.iter().filter(changed).collect();
        let to = self.to.as_deref().unwrap_or("now");
        if files.is_empty() {
            return format!("{} did not change from {} to {to}\n", self.vm, self.from);
        }
        let mut table = Table::new(&[left("FILE"), right("CHANGED"), left("RANGES")]);
        for file in files {
            let bytes: u64 = file.extents.iter().map(|extent| extent.length_bytes).sum();
            let shown = file.extents.iter().take(EXTENTS_SHOWN);
            let mut ranges: Vec<String> =
                shown.map(|extent| format!("{}+{}", extent.offset_bytes, extent.length_bytes)).collect();
            if file.extents.len() > EXTENTS_SHOWN {
                ranges.push(format!("and {} more", file.extents.len() - EXTENTS_SHOWN));
            }
            table.row(vec![file.path.clone(), text::bytes(bytes), ranges.join(" ")]);
        }
        table.render(width)
    }
}

impl VmChanged {
    /// What to say of files that were left alone.
    #[must_use]
    pub fn remarks(&self) -> String {
        match self.left.as_slice() {
            [] => String::new(),
            left => format!("left alone, since the snapshot does not have them: {}\n", left.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Latency;

    fn vm() -> Vm {
        let file = |path: &str, role: &str| VmFile {
            path: path.into(),
            role: role.into(),
            size_bytes: 2 << 30,
            used_bytes: 1 << 30,
        };
        let created_at = Timestamp::from_second(1_790_000_000).unwrap();
        let snapshot = VmSnapshot {
            datastore: "demo".into(),
            vm: "100".into(),
            name: "before".into(),
            created_at,
            files: 2,
            scheduled: false,
        };
        let files = vec![file("images/100/vm-100-disk-0.raw", "disk"), file("snippets/100.yaml", "config")];
        let schedule = Some(VmSchedule { every_seconds: 900, keep: 96 });
        let now = Some(Activity {
            reads_per_second: 412.0,
            latency_ms: Latency { total: Some(0.94), journal: Some(0.94), ..Latency::default() },
            slow_part: Some("journal".into()),
            ..Activity::default()
        });
        Vm {
            datastore: "demo".into(),
            name: "100".into(),
            files,
            snapshots: vec![snapshot],
            schedule,
            limits: VmLimits::default(),
            now,
        }
    }

    #[test]
    fn lists_fit_80_columns() {
        assert_eq!(
            VmList(vec![vm()]).human(80),
            "\
VM   DATASTORE  FILES      SIZE      USED  OPS/S  LATENCY  SLOW     SNAPSHOTS
100  demo           2  4.00 GiB  2.00 GiB    412     0.94  journal          1
1 column hidden: a wider terminal or --json shows all
"
        );
        assert_eq!(
            VmSnapshotList(vm().snapshots).human(80),
            "\
SNAPSHOT  VM   DATASTORE  TAKEN                    BY    FILES
before    100  demo       2026-09-21 14:13:20 UTC  hand      2
"
        );
    }

    #[test]
    fn a_vm_says_how_it_is_snapshotted() {
        let text = vm().human(80);
        assert!(text.starts_with("VM 100 in datastore demo   snapshots: every 15 min, 96 kept\n"), "{text}");
        assert!(text.contains("slow part: JOURNAL") && text.contains("  net               -\n"), "{text}");
        let idle = Vm { now: Some(Activity::default()), ..vm() }.human(80);
        assert!(idle.contains("no operations"), "{idle}");
        assert!(Vm { now: None, ..vm() }.human(80).contains("not known yet"), "unknown is not idle");
        assert!(VmSchedule { every_seconds: 9, keep: 1 }.check().is_err());
        assert!(VmSchedule { every_seconds: 10, keep: 0 }.check().is_err());
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused() {
        let limits = |max_per_second, min_per_second| VmLimits { max_per_second, min_per_second };
        for (max, min) in [(None, None), (Some(1), None), (Some(500), Some(500)), (None, Some(7))] {
            assert!(limits(max, min).check().is_ok(), "{max:?} {min:?}");
        }
        for (max, min) in [(Some(0), None), (None, Some(0)), (Some(5), Some(6)), (Some(u64::MAX), None)] {
            assert_eq!(limits(max, min).check().unwrap_err().code().number, 7400, "{max:?} {min:?}");
        }
        assert_eq!(limits(Some(5000), Some(100)).human(), "at most 5,000, at least 100 normalised requests/s");
        assert_eq!(limits(None, None).human(), "none, a fair share");
    }

    #[test]
    fn names_that_paths_or_tables_cannot_hold_are_refused() {
        let check = |name: &str| NewName { name: name.into() }.check();
        for good in ["100", "erp db", "2026-11-26_09:00", "Büro"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "-a", ".a", "a/b", "a\n", &"x".repeat(129)] {
            assert_eq!(check(bad).unwrap_err().code().number, 7400, "{bad:?}");
        }
    }

    #[test]
    fn a_comparison_names_ranges_and_says_when_there_are_none() {
        let file = |extents| VmFileDifference {
            path: "d.raw".into(),
            older_size_bytes: Some(1),
            newer_size_bytes: Some(1),
            extents,
        };
        let difference = |extents| VmDifference {
            datastore: "demo".into(),
            vm: "100".into(),
            from: "a".into(),
            to: None,
            files: vec![file(extents)],
        };
        assert_eq!(difference(Vec::new()).human(80), "100 did not change from a to now\n");
        let text = difference(vec![VmExtent { offset_bytes: 8192, length_bytes: 16384 }]).human(80);
        assert!(text.contains("8192+16384") && text.contains("16.0 KiB"), "{text}");
    }
}
