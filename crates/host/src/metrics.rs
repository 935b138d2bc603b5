//! Counters and gauges of a host as Prometheus text.

use std::fmt::Write;

use crate::status::{AccelStatus, DiskLine};

type Value = fn(&DiskLine) -> Option<f64>;

const FAMILIES: &[(&str, &str, &str, Value)] = &[
    ("vmhold_accel_dirty_bytes", "gauge", "Payload that only this host holds", |disk| Some(disk.dirty_bytes as f64)),
    (
        "vmhold_accel_destage_lag_seconds",
        "gauge",
        "Age of the oldest dirty write; absent if nothing is dirty",
        |disk| disk.destage_lag_seconds,
    ),
    ("vmhold_accel_log_used_ratio", "gauge", "Share of the log in use", |disk| {
        Some(disk.log_used_bytes as f64 / disk.log_bytes.max(1) as f64)
    }),
    ("vmhold_accel_writes_total", "counter", "Writes of VMs", |disk| Some(disk.writes as f64)),
    ("vmhold_accel_written_bytes_total", "counter", "Bytes written by VMs", |disk| Some(disk.written_bytes as f64)),
    ("vmhold_accel_destaged_bytes_total", "counter", "Bytes destaged", |disk| Some(disk.destaged_bytes as f64)),
    ("vmhold_accel_flow_control_seconds_total", "counter", "Delays of flow control", |disk| {
        Some(disk.flow_control_seconds)
    }),
    ("vmhold_accel_backing_failing", "gauge", "1 while the backing store fails", |disk| {
        Some(f64::from(u8::from(disk.backing_fault.is_some())))
    }),
    ("vmhold_accel_vm_write_mean_seconds", "gauge", "Mean of writes as VMs see them", |disk| {
        disk.vm_write_ms.map(|ms| ms / 1000.0)
    }),
    ("vmhold_accel_backing_write_mean_seconds", "gauge", "Mean of writes at the backing store", |disk| {
        disk.backing_write_ms.map(|ms| ms / 1000.0)
    }),
];

/// The page of `/metrics`. Names need no escapes: they are checked when a disk is attached.
pub(crate) fn page(status: &AccelStatus) -> String {
    let mut out = String::new();
    let host = status.host.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    // Writing to a String cannot fail.
    for (name, kind, help, value) in FAMILIES {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for disk in &status.disks {
            if let Some(value) = value(disk) {
                let _ = writeln!(out, "{name}{{host=\"{host}\",vm=\"{}\"}} {value}", disk.name);
            }
        }
    }
    let _ = writeln!(out, "# HELP vmhold_accel_reads_total Reads of VMs\n# TYPE vmhold_accel_reads_total counter");
    for disk in &status.disks {
        for (result, count) in [("hit", disk.read_hits), ("miss", disk.read_misses)] {
            let labels = format!("host=\"{host}\",vm=\"{}\",result=\"{result}\"", disk.name);
            let _ = writeln!(out, "vmhold_accel_reads_total{{{labels}}} {count}");
        }
    }
    out
}
