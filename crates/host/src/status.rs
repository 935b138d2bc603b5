//! Documents about a host's acceleration: what the CLI prints and the API serves.

use control::Document;
use control::text::{Table, bytes, duration, left, or_dash, right};
use serde::{Deserialize, Serialize};

/// `accel status`: a host and its disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccelStatus {
    /// Name of the host.
    pub host: String,
    /// Seconds since the agent started.
    pub uptime_seconds: f64,
    /// Its flash.
    pub flash: FlashStatus,
    /// Disks, by name.
    pub disks: Vec<DiskLine>,
    /// Disks on the flash that are not served, and why.
    pub refused: Vec<RefusedDisk>,
}

impl Document for AccelStatus {
    const SCHEMA: &'static str = "vmhold.accel.status/v1";
}

/// The flash of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlashStatus {
    /// Path.
    pub path: String,
    /// What a write to it promises: `sync device`, `memory file`, `persistent memory`.
    pub kind: String,
    /// How it is driven.
    pub access: String,
    /// Size.
    pub capacity_bytes: u64,
    /// In logs of own disks.
    pub own_log_bytes: u64,
    /// In copies of other hosts' logs.
    pub replica_bytes: u64,
    /// In clean blocks.
    pub clean_bytes: u64,
    /// In no region.
    pub free_bytes: u64,
}

/// A disk that is on the flash and not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDisk {
    /// Name, or id if the name cannot be read.
    pub disk: String,
    /// Code of the reason.
    pub code: String,
    /// The reason.
    pub why: String,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskLine {
    /// Name.
    pub name: String,
    /// Identity.
    pub id: String,
    /// Backing store.
    pub backing: String,
    /// How the backing store is driven.
    pub backing_access: String,
    /// Size.
    pub capacity_bytes: u64,
    /// `ONLINE`, `SLOWED`, `DRAINING`, `BACKING FAILS`, `FLASH FAILS`.
    pub state: String,
    /// Policy in force.
    pub policy: String,
    /// Policy asked for.
    pub policy_wanted: String,
    /// Connections of VMs.
    pub clients: u64,
    /// Mean of writes as the VM sees them since the start.
    pub vm_write_ms: Option<f64>,
    /// 99 % of writes took less, to a factor of two.
    pub vm_write_p99_ms: Option<f64>,
    /// Mean of reads as the VM sees them.
    pub vm_read_ms: Option<f64>,
    /// Mean of writes at the backing store.
    pub backing_write_ms: Option<f64>,
    /// Mean of reads at the backing store.
    pub backing_read_ms: Option<f64>,
    /// Writes of the VM.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Bytes the destager wrote: less where blocks were overwritten.
    pub destaged_bytes: u64,
    /// Reads of the VM.
    pub reads: u64,
    /// Share of reads that did not need the backing store. Writes are not in it.
    pub read_hit_ratio: Option<f64>,
    /// Reads answered here.
    pub read_hits: u64,
    /// Reads that needed the backing store.
    pub read_misses: u64,
    /// Payload that only this host holds.
    pub dirty_bytes: u64,
    /// Age of the oldest of it.
    pub destage_lag_seconds: Option<f64>,
    /// What the destager achieves.
    pub destage_bytes_per_second: Option<f64>,
    /// Log in use.
    pub log_used_bytes: u64,
    /// Log.
    pub log_bytes: u64,
    /// Last serial in the backing store.
    pub checkpoint: u64,
    /// Last serial given.
    pub last_serial: u64,
    /// Whether writes are slowed now.
    pub flow_control: bool,
    /// Sum of the delays of flow control.
    pub flow_control_seconds: f64,
    /// Writes it delayed.
    pub flow_control_writes: u64,
    /// How long the backing store has been failing.
    pub backing_fails_seconds: Option<f64>,
    /// What it answers.
    pub backing_fault: Option<String>,
    /// What would happen to this disk if the host died now.
    pub if_host_died: String,
}

/// A disk to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskAttach {
    /// Name: also that of the NBD export.
    pub name: String,
    /// Path of the backing store.
    pub backing: String,
    /// `wt` or `wb`.
    pub policy: String,
    /// Flash for its log.
    pub log_bytes: u64,
}

/// A disk that was attached or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskDocument(pub DiskLine);

impl Document for DiskDocument {
    const SCHEMA: &'static str = "vmhold.accel.disk/v1";
}

/// A disk that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDetached {
    /// Its name.
    pub name: String,
    /// Its backing store, which is complete now.
    pub backing: String,
}

impl Document for DiskDetached {
    const SCHEMA: &'static str = "vmhold.accel.detached/v1";
}

/// A policy that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyWish {
    /// `wt` or `wb`.
    pub policy: String,
}

fn ms(value: Option<f64>) -> String {
    or_dash(value, |ms| format!("{ms:.2} ms"))
}

impl AccelStatus {
    /// The screen of `accel status`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let flash = &self.flash;
        let mut out = format!(
            "host {}   flash {}: {} of {} in logs, {} free ({}, {})\n",
            self.host,
            flash.path,
            bytes(flash.own_log_bytes),
            bytes(flash.capacity_bytes),
            bytes(flash.free_bytes),
            flash.kind,
            flash.access,
        );
        if self.disks.is_empty() {
            out.push_str("no disk is attached; attach one: vmhold accel attach NAME --backing PATH\n");
        } else {
            out.push_str(&self.table(width));
            out.push_str("READ HIT counts reads only; under wb all writes go to flash.\n");
        }
        for disk in &self.disks {
            out.push_str(&format!("{}: if this host died now, {}\n", disk.name, disk.if_host_died));
            if let (Some(fault), Some(seconds)) = (&disk.backing_fault, disk.backing_fails_seconds) {
                out.push_str(&format!(
                    "{}: the backing store fails for {} ({fault}); writes are absorbed, then they wait (VH5041)\n",
                    disk.name,
                    duration(seconds)
                ));
            }
            if disk.flow_control {
                out.push_str(&format!("{}: writes are slowed so that the destager can catch up (VH5012)\n", disk.name));
            }
        }
        for refused in &self.refused {
            out.push_str(&format!("{} is not served ({}): {}\n", refused.disk, refused.code, refused.why));
        }
        out
    }

    fn table(&self, width: usize) -> String {
        let mut table = Table::new(&[
            left("DISK"),
            left("POLICY"),
            right("DIRTY"),
            right("LAG"),
            left("STATE"),
            right("VM WRITE"),
            right("BACKING"),
            right("READ HIT"),
            right("LOG"),
            right("CLIENTS"),
        ]);
        for disk in &self.disks {
            let policy = if disk.policy == disk.policy_wanted {
                disk.policy.clone()
            } else {
                format!("{} > {}", disk.policy, disk.policy_wanted)
            };
            table.row(vec![
                disk.name.clone(),
                policy,
                bytes(disk.dirty_bytes),
                or_dash(disk.destage_lag_seconds, duration),
                disk.state.clone(),
                ms(disk.vm_write_ms),
                ms(disk.backing_write_ms),
                or_dash(disk.read_hit_ratio, |ratio| format!("{:.0} %", ratio * 100.0)),
                format!("{:.0} %", disk.log_used_bytes as f64 * 100.0 / disk.log_bytes.max(1) as f64),
                disk.clients.to_string(),
            ]);
        }
        table.render(width)
    }

    /// The screen of `accel flow-control`.
    #[must_use]
    pub fn human_flow_control(&self, width: usize) -> String {
        let mut table = Table::new(&[
            left("DISK"),
            left("SLOWED"),
            right("LOG"),
            right("DESTAGES"),
            right("DELAYED WRITES"),
            right("DELAY IN ALL"),
        ]);
        for disk in &self.disks {
            table.row(vec![
                disk.name.clone(),
                if disk.flow_control { "yes" } else { "no" }.to_owned(),
                format!("{:.0} %", disk.log_used_bytes as f64 * 100.0 / disk.log_bytes.max(1) as f64),
                or_dash(disk.destage_bytes_per_second, |rate| format!("{}/s", bytes(rate as u64))),
                disk.flow_control_writes.to_string(),
                duration(disk.flow_control_seconds),
            ]);
        }
        format!(
            "{}Writes are slowed from 50 % of the log on and come in at the destage rate at 90 %.\n",
            table.render(width)
        )
    }
}
