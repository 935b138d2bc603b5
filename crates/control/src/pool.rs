//! Pool, drives and journal: documents and their texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::expansion::PastExpansion;
use crate::inject::InjectedFault;
use crate::text::{self, Table, left, right};

/// State of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PoolState {
    /// Everything has the redundancy it should have.
    Online,
    /// Something has less redundancy than it should have.
    Degraded,
    /// Something has no redundancy left, and should have.
    Critical,
    /// Something cannot be read.
    Faulted,
}

/// State of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DriveState {
    /// In use.
    Online,
    /// Its content is being reconstructed.
    Rebuilding,
    /// Not there.
    Missing,
    /// There, but not usable.
    Failed,
    /// Ready to take another's place.
    Spare,
}

impl DriveState {
    const fn letter(self) -> char {
        match self {
            Self::Online => '.',
            Self::Rebuilding => 'R',
            Self::Missing => 'M',
            Self::Failed => 'F',
            Self::Spare => 'S',
        }
    }
}

/// The word of a state as it stands in texts, tables and JSON.
fn word<T: Serialize>(state: &T) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A drive of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drive {
    /// Pool it belongs to.
    pub pool: String,
    /// Its place, from 1.
    pub slot: u32,
    /// File or device.
    pub path: String,
    /// Serial number; file drives have none.
    pub serial: Option<String>,
    /// State.
    pub state: DriveState,
    /// Why it is not ONLINE, or what else is wrong with it.
    pub reason: Option<String>,
    /// Since when it is in that state.
    pub since: Option<Timestamp>,
    /// How it is accessed, as in `io_uring, direct`.
    pub access: Option<String>,
    /// Size.
    pub capacity_bytes: Option<u64>,
    /// Part of it that holds stripe units.
    pub used_bytes: Option<u64>,
    /// Reads that ended with an error.
    pub read_errors: Option<u64>,
    /// Writes that ended with an error.
    pub write_errors: Option<u64>,
    /// Units whose check did not match.
    pub check_errors: Option<u64>,
    /// Units written back after reconstruction.
    pub repaired_units: Option<u64>,
    /// Share of its endurance that is used up.
    pub wear_percent: Option<f64>,
    /// While it is being retired: path of the drive that takes its slot.
    #[serde(default)]
    pub twin: Option<String>,
    /// Its queue; `None` when it is not there.
    #[serde(default)]
    pub io: Option<DriveIo>,
}

/// The queue of a drive, and how well the drive keeps its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriveIo {
    /// Profile in force.
    pub profile: String,
    /// Requests it is given at a time.
    pub depth: u32,
    /// Requests at it now.
    pub in_flight: u32,
    /// Requests waiting now.
    pub waiting: u32,
    /// Reads that had a timeout.
    pub timed_reads: u64,
    /// Of these, not answered in time.
    pub late_reads: u64,
    /// Share of late ones lately.
    pub late_percent: f64,
    /// Mean time of a read lately; `None` before the first.
    pub read_ms: Option<f64>,
    /// How slow it is, while it is far slower than the others.
    #[serde(default)]
    pub slow: Option<SlowDrive>,
}

/// A drive far slower than the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlowDrive {
    /// Median time of its requests.
    pub latency_ms: f64,
    /// What the others take for the same.
    pub usual_ms: f64,
}

/// What the drives of a pool did for one principal, and what waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrincipalIo {
    /// On whose behalf, as in `user_read`.
    pub principal: String,
    /// Its part of a drive, relative to the others'.
    pub share: u32,
    /// Requests issued.
    pub requests: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// Requests at drives now.
    pub in_flight: u32,
    /// Requests waiting now.
    pub waiting: u32,
    /// Requests that had to wait.
    pub waited: u64,
    /// Time they waited in all.
    pub wait_seconds: f64,
    /// The longest wait.
    pub wait_max_ms: f64,
}

/// How a pool's drives are shared, and late reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolIo {
    /// By principal.
    pub principals: Vec<PrincipalIo>,
    /// Late reads that may be answered from the other drives, in percent of all reads.
    pub hedged_reads_percent: f64,
    /// Reads that were late.
    pub late_reads: u64,
    /// Of these, also asked from the other drives.
    pub hedged_reads: u64,
    /// Of these, answered from there.
    pub hedged_reads_won: u64,
    /// Late reads left alone because there were too many.
    pub over_budget: u64,
    /// Late reads left alone because too many drives of their stripe are absent.
    pub no_redundancy: u64,
    /// A drive this many times slower than the others is put out; 0: none is.
    #[serde(default)]
    pub slow_drive_factor: u32,
    /// When it is for so long.
    #[serde(default)]
    pub slow_drive_seconds: f64,
}

impl Drive {
    /// `flash0/7`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.pool, self.slot)
    }
}

/// The pass that fills drives again (circular: later drives join at the pointer).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rebuild {
    /// 1, and more after restarts.
    pub pass: u32,
    /// The stripe that comes next, as `SEGMENT/ROW`.
    pub pointer: String,
    /// Drives that take part.
    pub drives: Vec<RebuildDrive>,
    /// Stripes that too few drives hold.
    pub stripes_lost: u64,
}

/// A drive that is being filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RebuildDrive {
    /// Its place.
    pub slot: u32,
    /// Where the pointer was when it joined.
    pub started_at_stripe: String,
    /// Units to write.
    pub units_total: u64,
    /// Units written, or no longer needed.
    pub units_done: u64,
    /// It was a member before and only lacks what was written meanwhile.
    pub only_newer: bool,
}

impl Rebuild {
    /// The block of `pool show --map`.
    fn human(&self) -> String {
        let mut out = format!("rebuild pass {}, pointer at stripe {} of written stripes\n", self.pass, self.pointer);
        for drive in &self.drives {
            let ratio = drive.units_done as f64 / drive.units_total.max(1) as f64;
            let what = if drive.only_newer { "only what it missed" } else { "all it held" };
            let bar = text::bar(ratio, 20);
            let (slot, start) = (drive.slot, &drive.started_at_stripe);
            out.push_str(&format!(
                "  {slot:>2}  {bar} {:>3.0} %   started at stripe {start}, {what}\n",
                (ratio * 100.0).floor()
            ));
        }
        if self.stripes_lost > 0 {
            out.push_str(&format!("  {} stripes are lost: too few drives hold them\n", text::count(self.stripes_lost)));
        }
        out
    }
}

/// A pool: one RAID group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// Identity of the group.
    pub group: String,
    /// Raised each time a process opens it.
    #[serde(default)]
    pub owner_epoch: Option<u64>,
    /// State, from [`Pool::derive_state`].
    pub state: PoolState,
    /// Data units of a new stripe.
    pub stripe_data: u32,
    /// Parity units of a new stripe.
    pub stripe_parity: u32,
    /// How many more drives may be lost now without losing data; `None` is unknown.
    pub failures_tolerated: Option<u32>,
    /// How many may be lost when nothing is wrong.
    pub failures_tolerated_normally: u32,
    /// Space for user data when the pool is empty.
    pub usable_bytes: Option<u64>,
    /// Space in use, metadata included.
    pub used_bytes: Option<u64>,
    /// Space new writes can still use.
    pub free_bytes: Option<u64>,
    /// Space kept for the cleaner and for deletes.
    pub reserved_bytes: Option<u64>,
    /// What clients wrote and did not delete, before dedup and compression.
    pub logical_bytes: Option<u64>,
    /// Logical bytes per stored byte by dedup.
    pub dedup_ratio: Option<f64>,
    /// Bytes before per byte after compression.
    pub compression_ratio: Option<f64>,
    /// Stripes that were written and hold something live.
    pub written_stripes: Option<u64>,
    /// Stripes that can be written now.
    pub free_stripes: Option<u64>,
    /// Last time every written unit was verified.
    pub last_scrub: Option<Timestamp>,
    /// Units repaired since the start.
    pub repaired_units: Option<u64>,
    /// Stripes that could not be read since the start and are not whole since.
    pub lost_stripes: Option<u64>,
    /// Numbers of the drives in use whose bytes cannot be relied on: something wrong is done to
    /// them on purpose, or was and no scrub has been over it. They count as lost in
    /// [`failures_tolerated`](Pool::failures_tolerated).
    #[serde(default)]
    pub doubted_drives: Vec<u32>,
    /// The pass that fills drives again, while there is one.
    #[serde(default)]
    pub rebuild: Option<Rebuild>,
    /// When drives joined, oldest first.
    #[serde(default)]
    pub expansions: Vec<PastExpansion>,
    /// It was made for trying and breaking: faults can be injected.
    #[serde(default)]
    pub lab: bool,
    /// Faults on purpose that are on.
    #[serde(default)]
    pub faults: Vec<InjectedFault>,
    /// Its drives, in slot order, then spares.
    pub drives: Vec<Drive>,
    /// How they are shared; `None` is unknown.
    #[serde(default)]
    pub io: Option<PoolIo>,
}

impl Pool {
    /// The state that follows from what can be lost. `readable`: nothing is beyond reach.
    #[must_use]
    pub const fn derive_state(tolerated: Option<u32>, normally: u32, readable: bool) -> PoolState {
        match tolerated {
            _ if !readable => PoolState::Faulted,
            Some(now) if now >= normally => PoolState::Online,
            Some(0) => PoolState::Critical,
            _ => PoolState::Degraded,
        }
    }

    /// A pool too small for the redundancy every pool should have.
    #[must_use]
    pub fn is_lab(&self) -> bool {
        self.members() < 5
    }

    /// Drives that hold stripes, spares not counted.
    #[must_use]
    pub fn members(&self) -> usize {
        self.drives.iter().filter(|drive| drive.state != DriveState::Spare).count()
    }

    /// Share of the usable space in use, 0 to 1.
    #[must_use]
    pub fn used_share(&self) -> Option<f64> {
        share(self.used_bytes, self.usable_bytes)
    }

    fn level(&self) -> &'static str {
        match (self.stripe_data, self.stripe_parity) {
            (_, 0) => "no redundancy",
            (1, 1) => "mirror",
            (_, 1) => "single parity",
            _ => "RAID-6",
        }
    }

    /// `pool show NAME`, and with `--map` its drives side by side.
    #[must_use]
    pub fn human(&self, map: bool, now: Timestamp) -> String {
        let can_lose = text::or_dash(self.failures_tolerated, |n| format!("{n} more"));
        let spares = match self.drives.len() - self.members() {
            0 => String::new(),
            1 => " + 1 spare".to_owned(),
            more => format!(" + {more} spares"),
        };
        let mut out = format!(
            "{}  {}   {}, {} drives{spares}, stripe {}+{}   can lose: {can_lose} ({} normally)\n",
            self.name,
            word(&self.state),
            self.level(),
            self.members(),
            self.stripe_data,
            self.stripe_parity,
            self.failures_tolerated_normally,
        );
        let size = |value| text::or_dash(value, text::bytes);
        let share = text::or_dash(self.used_share(), |share| format!("{:.0} %", share * 100.0));
        out.push_str(&format!(
            "  {} of {} used ({share})   free {}   held back {}\n",
            size(self.used_bytes),
            size(self.usable_bytes),
            size(self.free_bytes),
            size(self.reserved_bytes)
        ));
        let ratio = |value| text::or_dash(value, |ratio: f64| format!("{ratio:.2}x"));
        out.push_str(&format!(
            "  clients stored {}   dedup {}   compression {}\n",
            size(self.logical_bytes),
            ratio(self.dedup_ratio),
            ratio(self.compression_ratio)
        ));
        let number = |value| text::or_dash(value, text::count);
        let scrub = self.last_scrub.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(at, now)));
        out.push_str(&format!(
            "  last full scrub: {scrub}   units repaired {}, stripes lost {}\n",
            number(self.repaired_units),
            number(self.lost_stripes)
        ));
        if !self.doubted_drives.is_empty() {
            out.push_str(&format!(
                "  in doubt until a scrub has been over them: {}\n",
                text::drives(&self.doubted_drives)
            ));
        }
        if let Some(io) = self.io.as_ref().filter(|io| io.late_reads > 0) {
            out.push_str(&format!(
                "  late reads {}, answered from other drives {}\n",
                text::count(io.late_reads),
                text::count(io.hedged_reads_won)
            ));
        }
        if self.is_lab() {
            out.push_str(&format!("  LAB POOL: {}\n", self.lab_warning()));
        }
        out.extend(self.faults.iter().map(InjectedFault::human));
        if map {
            out.push('\n');
            out.push_str(&self.map_rows());
        }
        out
    }

    /// What a lab pool cannot survive.
    #[must_use]
    pub fn lab_warning(&self) -> String {
        let drives = self.members();
        match self.failures_tolerated_normally {
            0 => format!("{drives} drive, nothing is redundant: losing it loses everything"),
            1 => format!("{drives} drives, survives the loss of 1, not of 2"),
            more => format!("{drives} drives, survives the loss of {more}, at a high price in space"),
        }
    }

    fn map_rows(&self) -> String {
        let cells = |show: &dyn Fn(&Drive) -> String| -> String {
            self.drives.iter().map(|drive| format!(" {:>2}", show(drive))).collect()
        };
        // Two digits, so that 24 drives fit a line: full is `**`.
        let percent = |share: Option<f64>| match share.map(|share| (share * 100.0).round() as u64) {
            None => "-".to_owned(),
            Some(100..) => "**".to_owned(),
            Some(percent) => percent.to_string(),
        };
        let mut out = format!("slot   {}\n", cells(&|drive| drive.slot.to_string()));
        let legend = ". ONLINE  F FAILED  M MISSING  R REBUILDING  S SPARE  ** 100";
        out.push_str(&format!("state  {}\n", cells(&|drive| drive.state.letter().to_string())));
        out.push_str(&format!("used % {}\n", cells(&|drive| percent(share(drive.used_bytes, drive.capacity_bytes)))));
        out.push_str(&format!(
            "wear % {}\n",
            cells(&|drive| percent(drive.wear_percent.map(|percent| percent / 100.0)))
        ));
        out.push_str(&format!("       {legend}\n"));
        if let Some(rebuild) = &self.rebuild {
            out.push_str(&rebuild.human());
        }
        if let Some(newest) = self.expansions.last() {
            out.push_str(&newest.human());
        }
        let is_told = |drive: &&Drive| match drive.state {
            DriveState::Online => drive.reason.is_some(),
            DriveState::Spare | DriveState::Rebuilding => false,
            DriveState::Missing | DriveState::Failed => true,
        };
        for drive in self.drives.iter().filter(is_told) {
            let reason = drive.reason.as_deref().unwrap_or("no reason known");
            out.push_str(&format!("  {}  {}  {reason}\n", drive.id(), word(&drive.state)));
        }
        out
    }
}

fn share(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0 => Some(part as f64 / whole as f64),
        _ => None,
    }
}

fn age(then: Timestamp, now: Timestamp) -> String {
    text::duration(now.duration_since(then).as_secs_f64().max(0.0))
}

impl Document for Pool {
    const SCHEMA: &'static str = "vmhold.pool.show/v1";
}

/// `pool list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PoolList(pub Vec<Pool>);

impl Document for PoolList {
    const SCHEMA: &'static str = "vmhold.pool.list/v1";
}

impl PoolList {
    /// `pool list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let mut table = Table::new(&[
            left("POOL"),
            left("STATE"),
            right("CAN LOSE"),
            right("DRIVES"),
            right("USED"),
            right("SIZE"),
        ]);
        for pool in &self.0 {
            table.row(vec![
                pool.name.clone(),
                word(&pool.state),
                text::or_dash(pool.failures_tolerated, |more| more.to_string()),
                pool.members().to_string(),
                text::or_dash(pool.used_bytes, text::bytes),
                text::or_dash(pool.usable_bytes, text::bytes),
            ]);
        }
        table.render(width)
    }
}

/// `drive list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DriveList(pub Vec<Drive>);

impl Document for DriveList {
    const SCHEMA: &'static str = "vmhold.drive.list/v1";
}

impl DriveList {
    /// `drive list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let mut table = Table::new(&[
            left("DRIVE"),
            left("STATE"),
            right("USED"),
            right("SIZE"),
            right("ERRORS"),
            right("REPAIRED"),
            left("PATH"),
            left("WHY"),
        ]);
        for drive in &self.0 {
            let errors = [drive.read_errors, drive.write_errors, drive.check_errors];
            let total = errors.iter().all(Option::is_some).then(|| errors.iter().flatten().sum());
            table.row(vec![
                drive.id(),
                word(&drive.state),
                text::or_dash(drive.used_bytes, text::bytes),
                text::or_dash(drive.capacity_bytes, text::bytes),
                text::or_dash(total, text::count),
                text::or_dash(drive.repaired_units, text::count),
                drive.path.clone(),
                drive.reason.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.render(width)
    }
}

/// What a journal leg stands on, and so what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JournalKind {
    /// Persistent memory, reached by loads and stores.
    PersistentMemory,
    /// A block device with direct, synchronous writes.
    BlockDevice,
    /// A file on a disk, with direct or flushed writes.
    File,
    /// A file in memory: survives the process, not the machine.
    Memory,
}

impl JournalKind {
    /// What an acknowledgement is worth on it.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::PersistentMemory => "survives loss of power",
            Self::BlockDevice => "survives loss of power if the device keeps its promises",
            Self::File => "flushed to the disk below the file (lab)",
            Self::Memory => "survives kill -9, not a restart of the machine (lab)",
        }
    }
}

/// One leg of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalLeg {
    /// File or device.
    pub path: String,
    /// What it stands on.
    pub kind: JournalKind,
    /// Whether records still go to it.
    pub in_use: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// The journal of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Journal {
    /// Its legs.
    pub legs: Vec<JournalLeg>,
    /// Size of the ring.
    pub capacity_bytes: Option<u64>,
    /// Part not yet destaged.
    pub used_bytes: Option<u64>,
    /// Nothing is acknowledged any more.
    pub latched: bool,
    /// Ranges blocked because their record is damaged.
    pub blocked_ranges: u64,
}

impl Journal {
    /// Legs that records still go to.
    #[must_use]
    pub fn legs_in_use(&self) -> usize {
        self.legs.iter().filter(|leg| leg.in_use).count()
    }

    /// The best kind among the legs in use: a record on it is as safe as that one.
    #[must_use]
    pub fn kind(&self) -> Option<JournalKind> {
        let rank = |kind: JournalKind| match kind {
            JournalKind::Memory => 0,
            JournalKind::File => 1,
            JournalKind::BlockDevice => 2,
            JournalKind::PersistentMemory => 3,
        };
        self.legs.iter().filter(|leg| leg.in_use).map(|leg| leg.kind).max_by_key(|kind| rank(*kind))
    }

    /// Share of the ring in use, 0 to 1.
    #[must_use]
    pub fn used_share(&self) -> Option<f64> {
        share(self.used_bytes, self.capacity_bytes)
    }
}

#[cfg(test)]
pub mod samples {
    //! Pools as the tests of texts need them.

    use super::*;

    /// Drive `slot` of `flash0`, in order.
    pub fn drive(slot: u32) -> Drive {
        Drive {
            pool: "flash0".into(),
            slot,
            path: format!("drives/{slot}"),
            serial: None,
            state: DriveState::Online,
            reason: None,
            since: None,
            access: Some("io_uring, direct".into()),
            capacity_bytes: Some(1 << 30),
            used_bytes: Some(600 << 20),
            read_errors: Some(0),
            write_errors: Some(0),
            check_errors: Some(0),
            repaired_units: Some(0),
            wear_percent: None,
            twin: None,
            io: None,
        }
    }

    /// `flash0` with so many drives in order, stripe 4+2.
    pub fn pool(drives: u32) -> Pool {
        Pool {
            name: "flash0".into(),
            group: "0b1c".into(),
            owner_epoch: Some(3),
            state: PoolState::Online,
            stripe_data: 4,
            stripe_parity: 2,
            failures_tolerated: Some(2),
            failures_tolerated_normally: 2,
            usable_bytes: Some(5 << 30),
            used_bytes: Some(3 << 30),
            free_bytes: Some(2 << 30),
            reserved_bytes: Some(256 << 20),
            logical_bytes: Some(6 << 30),
            dedup_ratio: Some(1.6),
            compression_ratio: Some(1.25),
            written_stripes: Some(6000),
            free_stripes: Some(4000),
            last_scrub: None,
            repaired_units: Some(3),
            lost_stripes: Some(0),
            doubted_drives: Vec::new(),
            rebuild: None,
            expansions: Vec::new(),
            lab: false,
            faults: Vec::new(),
            drives: (1..=drives).map(drive).collect(),
            io: None,
        }
    }

    /// One leg on a file, a tenth full.
    pub fn journal() -> Journal {
        Journal {
            legs: vec![JournalLeg { path: "journal".into(), kind: JournalKind::File, in_use: true, reason: None }],
            capacity_bytes: Some(256 << 20),
            used_bytes: Some(26 << 20),
            latched: false,
            blocked_ranges: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{drive, pool};
    use super::*;

    fn now() -> Timestamp {
        "2026-11-20T09:14:07Z".parse().unwrap()
    }

    #[test]
    fn the_state_follows_from_what_can_be_lost() {
        assert_eq!(Pool::derive_state(Some(2), 2, true), PoolState::Online);
        assert_eq!(Pool::derive_state(Some(1), 2, true), PoolState::Degraded);
        assert_eq!(Pool::derive_state(Some(0), 2, true), PoolState::Critical);
        assert_eq!(Pool::derive_state(Some(0), 0, true), PoolState::Online);
        assert_eq!(Pool::derive_state(None, 2, true), PoolState::Degraded);
        assert_eq!(Pool::derive_state(Some(2), 2, false), PoolState::Faulted);
    }

    #[test]
    fn the_map_shows_every_drive_and_why_one_is_out() {
        let mut pool = pool(8);
        pool.state = PoolState::Critical;
        pool.failures_tolerated = Some(0);
        for (slot, state, reason) in
            [(3, DriveState::Failed, "file was cut short"), (7, DriveState::Missing, "no such file")]
        {
            let drive = &mut pool.drives[slot - 1];
            drive.state = state;
            drive.reason = Some(reason.into());
            drive.used_bytes = None;
        }
        assert_eq!(
            pool.human(true, now()),
            "\
flash0  CRITICAL   RAID-6, 8 drives, stripe 4+2   can lose: 0 more (2 normally)
  3.00 GiB of 5.00 GiB used (60 %)   free 2.00 GiB   held back 256 MiB
  clients stored 6.00 GiB   dedup 1.60x   compression 1.25x
  last full scrub: never   units repaired 3, stripes lost 0

slot     1  2  3  4  5  6  7  8
state    .  .  F  .  .  .  M  .
used %  59 59  - 59 59 59  - 59
wear %   -  -  -  -  -  -  -  -
       . ONLINE  F FAILED  M MISSING  R REBUILDING  S SPARE  ** 100
  flash0/3  FAILED  file was cut short
  flash0/7  MISSING  no such file
"
        );
    }

    #[test]
    fn a_map_of_24_drives_fits_80_columns_and_a_lab_pool_says_so() {
        let wide = pool(24).human(true, now());
        assert!(wide.lines().all(|line| line.len() <= 80), "{wide}");
        let mut small = pool(2);
        small.stripe_data = 1;
        small.stripe_parity = 1;
        small.failures_tolerated_normally = 1;
        assert!(small.human(false, now()).contains("LAB POOL: 2 drives, survives the loss of 1, not of 2"));
    }

    #[test]
    fn unknown_is_a_dash_and_null_never_zero() {
        let mut pool = pool(5);
        pool.used_bytes = None;
        pool.failures_tolerated = None;
        let text = pool.human(false, now());
        assert!(text.contains("can lose: - (2 normally)") && text.contains("- of 5.00 GiB used (-)"), "{text}");
        let json = serde_json::to_value(&pool).unwrap();
        assert!(json["used_bytes"].is_null() && json["state"] == "ONLINE");
    }

    #[test]
    fn the_drive_table_drops_columns_on_narrow_terminals() {
        let list = DriveList(vec![drive(1), drive(12)]);
        assert_eq!(
            list.human(80),
            "\
DRIVE      STATE      USED      SIZE  ERRORS  REPAIRED  PATH       WHY
flash0/1   ONLINE  600 MiB  1.00 GiB       0         0  drives/1   -
flash0/12  ONLINE  600 MiB  1.00 GiB       0         0  drives/12  -
"
        );
        assert!(
            list.human(60).ends_with("2 columns hidden: a wider terminal or --json shows all\n"),
            "{}",
            list.human(60)
        );
    }
}
